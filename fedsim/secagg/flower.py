"""Secure aggregation over Flower's Message API: the client's side around any ClientApp, the server's side between any
strategy and its Grid.

Three more kinds of message go before and after "train"; what the strategy gets is one reply, with the mean update.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fedsim.grid import ARRAYS, ERROR_CODE, METRICS, REFUSED, arrays_of, decoded, encoded, only, party_of, round_of
from fedsim.secagg import client, server
from fedsim.secagg.client import State
from fedsim.secagg.codec import Codec
from fedsim.secagg.crypto import KEY_BYTES, Words, derive
from fedsim.secagg.protocol import (
    Aborted,
    Keys,
    KeysRequest,
    Refused,
    Settings,
    Shares,
    SharesRequest,
    Unmask,
    UnmaskRequest,
    UpdateRequest,
)
from fedsim.transcript import ABORTED, AGGREGATE, AGGREGATOR, SECRET, SERVER, Arrays, Fact
from fedsim.transcript import client as party_name
from fedsim.vectors import Floats, flat, shaped

SECAGG = "secagg"
"""The record of the protocol, in messages and in a client's state."""
KEYS, SHARES, UPDATE, UNMASK = "train.secagg_keys", "train.secagg_shares", "train", "train.secagg_unmask"
"""The kinds of message of the four exchanges."""
MASKED = "masked"
"""The one array of an update's reply: the integers, masked or on their way to the trusted party."""
EXAMPLES = "num-examples"


@dataclass(frozen=True)
class Recipe:
    """What both sides know of a federation's secure aggregation.

    protocol: ideal sends the integers to a trusted party. weights: by what a client counts. metadata: whether its
    metrics travel in clear. fewest: clients that a sum must be over, or the round is aborted.
    """

    settings: Settings
    codec: Codec
    protocol: Literal["masked", "ideal"]
    weights: Literal["examples", "uniform"]
    metadata: Literal["clear", "hidden"]
    fewest: int = 1


@dataclass(frozen=True)
class Chance:
    """Where the parties of a world draw from.

    entropy: client -> 32 bytes of its own, for all its keys. rounding: (client, round) -> what its codec draws from.
    graph: round -> what the server draws the neighbours from. lost: (round,
    stage, client) -> whether a client falls silent, which a trusted party takes into account.
    """

    entropy: Callable[[int], bytes]
    rounding: Callable[[int, int], np.random.Generator]
    graph: Callable[[int], np.random.Generator]
    lost: Callable[[int, str, int], bool] = lambda _round, _stage, _client: False


class Wire(Protocol):
    """What the server's side needs of the Grid below: who the nodes are (node id -> client), an exchange that returns
    the replies that came (`receiver` opens them), and a tape for what is no message.
    """

    @property
    def roster(self) -> Mapping[int, int]: ...

    def exchange(self, messages: list[Message], receiver: str = SERVER) -> list[Message]: ...

    def note(self, kind: str, sender: str, receiver: str, arrays: Arrays, facts: Mapping[str, Fact]) -> None: ...


def client_entropy(seed: int, world: str, party: int) -> bytes:
    """Return the 32 bytes of a client of a world. They follow from the scenario's seed: whoever knows it knows all."""
    return derive(str(seed).encode(), "client entropy", world, party, length=KEY_BYTES)


def secure_app(app: ClientApp, recipe: Callable[[], Recipe], chance: Chance) -> ClientApp:
    """Return a ClientApp that trains as `app` does, and sends its update under masks (or to the trusted party).

    recipe: says what was agreed on, once the client runs. The app's own mods see the messages of training as without
    secure aggregation. Where the protocol forbids an answer it answers with an error that begins with `REFUSED`:
    Flower's own runtimes would wrap an exception, each in its way.
    """

    def keys(message: Message, context: Context) -> Message:
        party = party_of(context)
        request = cast(KeysRequest, _protocol(message))
        state, answer = client.send_keys(recipe().settings, chance.entropy(party), _recall(context), request)
        return _answered(message, context, state, answer)

    def shares(message: Message, context: Context) -> Message:
        request = cast(SharesRequest, _protocol(message))
        return _answered(message, context, *client.send_shares(recipe().settings, _recall(context), request))

    def unmask(message: Message, context: Context) -> Message:
        request = cast(UnmaskRequest, _protocol(message))
        return _answered(message, context, *client.unmask(_recall(context), request))

    def update(message: Message, context: Context) -> Message:
        send = _update if recipe().protocol == "ideal" else _masked_update
        return send(recipe(), chance, message, context, app)

    answers: dict[str, ClientAppCallable] = {KEYS: keys, SHARES: shares, UPDATE: update, UNMASK: unmask}

    class Secure(ClientApp):
        def __call__(self, message: Message, context: Context) -> Message:
            try:
                return answers.get(message.metadata.message_type, app)(message, context)
            except Refused as reason:
                return Message(Error(ERROR_CODE, f"{REFUSED}{reason}"), reply_to=message)

    return Secure()


def _masked_update(
    recipe: Recipe, chance: Chance, message: Message, context: Context, call_next: ClientAppCallable
) -> Message:
    if SECAGG not in message.content:
        raise Refused("an update is asked for in clear")
    request = cast(UpdateRequest, dict(cast(ConfigRecord, message.content.pop(SECAGG))))
    hashed = model_hash(only(message.content, ArrayRecord)) if recipe.settings.consistency else b""
    state = client.open_shares(recipe.settings, _recall(context), request, hashed)
    reply = _update(recipe, chance, message, context, call_next)
    if reply.has_error():
        return reply
    state, masked = client.mask(recipe.settings, state, _integers(reply))
    reply.content[ARRAYS] = encoded({MASKED: masked})
    _remember(context, state)
    return reply


def _update(
    recipe: Recipe, chance: Chance, message: Message, context: Context, call_next: ClientAppCallable
) -> Message:
    """Return a client's reply with its update as integers in place of its model, and its weight as the last of them."""
    party, number = party_of(context), round_of(message)
    before = flat(arrays_of(message))
    reply = call_next(message, context)
    if reply.has_error():
        return reply
    weight = float(cast(float, only(reply.content, MetricRecord)[EXAMPLES])) if recipe.weights == "examples" else 1.0
    integers = recipe.codec.encode(flat(arrays_of(reply)) - before, weight, chance.rounding(party, number))
    if recipe.weights == "examples":
        integers = cast(Words, np.append(integers, integers.dtype.type(weight)))
    content = RecordDict({ARRAYS: encoded({MASKED: integers})})
    if recipe.metadata == "clear":
        content[METRICS] = only(reply.content, MetricRecord)
    return Message(content, reply_to=message)


class Opened(NamedTuple):
    """What the server learns of a round: the mean update float64 [d] (names in alphabetical order), the sum of the
    weights, and of how many clients.
    """

    mean: Floats
    weight: float
    clients: int


def secure_round(recipe: Recipe, chance: Chance, messages: list[Message], wire: Wire) -> Opened | None:
    """Return the mean update of the clients that a strategy's train messages are for, or None where the round was
    aborted or nobody was invited.

    messages: one for each client invited. The wire is told what the server learns: `AGGREGATE`, the mean update by
    name, with the number of clients and the weight in it and what its integers mean; or `ABORTED`, with the reason. And
    of the secret of each client, which only that client sees.
    """
    if not messages:
        return None
    invited = {wire.roster[message.metadata.dst_node_id]: message for message in messages}
    collect = _trusted_sum if recipe.protocol == "ideal" else _masked_sum
    try:
        total, survivors = collect(recipe, chance, invited, wire)
        weight = float(len(survivors))
        if recipe.weights == "examples":
            total, weight = total[:-1], float(total[-1])
            if not weight:
                raise Aborted("nobody who sent an update has examples")
    except Aborted as reason:
        wire.note(ABORTED, SERVER, SERVER, {}, {"reason": str(reason)})
        return None
    mean = recipe.codec.decode(total, len(survivors), weight)
    author = AGGREGATOR if recipe.protocol == "ideal" else SERVER
    facts: dict[str, Fact] = {"clients": len(survivors), "weight": weight}
    if recipe.codec.step:
        facts |= {"zero": recipe.codec.zero, "step": recipe.codec.step}
    wire.note(AGGREGATE, author, SERVER, shaped(mean, arrays_of(messages[0])), facts)
    return Opened(mean, weight, len(survivors))


def secure_replies(recipe: Recipe, chance: Chance, messages: list[Message], wire: Wire) -> list[Message]:
    """Return the one reply that a strategy gets for its train messages: the model it sent plus the mean update, and the
    sum of the weights as its number of examples; none where `secure_round` opened nothing.
    """
    opened = secure_round(recipe, chance, messages, wire)
    if opened is None:
        return []
    before = arrays_of(messages[0])
    after = encoded(shaped(flat(before) + opened.mean, before))
    return [
        Message(RecordDict({ARRAYS: after, METRICS: MetricRecord({EXAMPLES: opened.weight})}), reply_to=messages[0])
    ]


Sum = tuple[Words, list[int]]
"""The sum of the clients' integers, and whose they are."""


def _trusted_sum(recipe: Recipe, chance: Chance, invited: Mapping[int, Message], wire: Wire) -> Sum:
    number = round_of(next(iter(invited.values())))
    if len(set(_hashes(recipe, invited).values())) > 1:
        raise Aborted("the clients were sent different models")
    lost = partial(chance.lost, number)
    under_way = server.rehearse(recipe.settings, number, sorted(invited), lost, chance.graph(number))
    vectors = {}
    for reply in wire.exchange([invited[member] for member in sorted(under_way.shared)], AGGREGATOR):
        member = wire.roster[reply.metadata.src_node_id]
        vectors[member] = _integers(reply)
        if recipe.metadata == "clear":  # what the trusted party opens, the server does not see
            metrics = cast(Mapping[str, Fact], dict(only(reply.content, MetricRecord)))
            wire.note(f"{UPDATE}-reply", party_name(member), SERVER, {}, metrics)
    under_way, _ = server.ask_unmask(under_way, sorted(vectors))
    _enough(recipe, len(vectors))
    server.check_unmasking(under_way, lost)
    total = np.zeros_like(next(iter(vectors.values())))
    for vector in vectors.values():
        np.add(total, vector, out=total)
    return total, sorted(vectors)


def _masked_sum(recipe: Recipe, chance: Chance, invited: Mapping[int, Message], wire: Wire) -> Sum:
    number = round_of(next(iter(invited.values())))

    def ask(kind: str, requests: Mapping[int, Any]) -> dict[int, Message]:
        sent = [_beside(invited[member], kind, request) for member, request in requests.items()]
        return {wire.roster[reply.metadata.src_node_id]: reply for reply in wire.exchange(sent)}

    requests = server.invite(number, sorted(invited))
    for member in requests:
        wire.note(SECRET, party_name(member), party_name(member), {}, {"entropy": chance.entropy(member)})
    answers = ask(KEYS, requests)
    keys = {member: cast(Keys, _protocol(reply)) for member, reply in answers.items()}
    hashes = _hashes(recipe, invited)
    under_way, for_shares = server.ask_shares(recipe.settings, number, len(invited), keys, hashes, chance.graph(number))
    answers = ask(SHARES, for_shares)
    shares = {member: cast(Shares, _protocol(reply)) for member, reply in answers.items()}
    under_way, for_updates = server.ask_updates(under_way, shares)
    vectors = {member: _integers(reply) for member, reply in ask(UPDATE, for_updates).items()}
    under_way, for_unmask = server.ask_unmask(under_way, sorted(vectors))
    _enough(recipe, len(vectors))
    answers = ask(UNMASK, for_unmask)
    unmask = {member: cast(Unmask, _protocol(reply)) for member, reply in answers.items()}
    return server.unmasked_sum(under_way, vectors, for_unmask, unmask), sorted(vectors)


def _enough(recipe: Recipe, clients: int) -> None:
    if clients < max(1, recipe.fewest):
        raise Aborted(f"{clients} sent an update, fewer than {max(1, recipe.fewest)}")


def model_hash(record: ArrayRecord) -> bytes:
    """Return the SHA-256 [32 bytes] of a model as it is sent: names, and arrays with types and shapes."""
    state = hashlib.sha256()
    for name, array in sorted(record.items()):
        for part in (name.encode(), array.data):
            state.update(len(part).to_bytes(8, "little") + part)
    return state.digest()


def _hashes(recipe: Recipe, invited: Mapping[int, Message]) -> dict[int, bytes]:
    """The hash of the model each client will be sent; the messages of a broadcast share theirs."""
    if not recipe.settings.consistency:
        return dict.fromkeys(invited, b"")
    records = {member: only(message.content, ArrayRecord) for member, message in invited.items()}
    known = {id(record): model_hash(record) for record in {id(record): record for record in records.values()}.values()}
    return {member: known[id(record)] for member, record in records.items()}


def _beside(message: Message, kind: str, request: Mapping[str, Any]) -> Message:
    """Return a message of the protocol; an update's also carries what the strategy sent."""
    content = RecordDict({SECAGG: ConfigRecord(dict(request))})
    if kind == UPDATE:
        content.update(message.content)
    sent = message.metadata
    return Message(content, sent.dst_node_id, kind, ttl=sent.ttl, group_id=sent.group_id)


def _answered(message: Message, context: Context, state: State, answer: Mapping[str, Any]) -> Message:
    _remember(context, state)
    return Message(RecordDict({SECAGG: ConfigRecord(dict(answer))}), reply_to=message)


def _recall(context: Context) -> State:
    if SECAGG not in context.state:
        return client.start(party_of(context))
    return cast(State, dict(cast(ConfigRecord, context.state[SECAGG])))


def _remember(context: Context, state: State) -> None:
    context.state[SECAGG] = ConfigRecord(cast(dict[str, Any], dict(state)))


def _protocol(message: Message) -> dict[str, Any]:
    return dict(cast(ConfigRecord, message.content[SECAGG]))


def _integers(reply: Message) -> Words:
    return cast(Words, decoded(only(reply.content, ArrayRecord)[MASKED]))
