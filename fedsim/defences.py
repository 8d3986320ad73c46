"""What stands between the strategy and the clients' training: clipping and noise, who adds them, and secure
aggregation. Everything here is Flower glue; the mechanisms are in `mechanisms`, the protocol in `secagg`.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, Strategy

from fedsim.grid import ARRAYS, METRICS, Handle, ScenarioGrid, Silent, arrays_of, encoded, party_of, round_of
from fedsim.mechanisms import clip, distributed_codec, fewest, gaussian, next_norm, update_noise_multiplier
from fedsim.randomness import generator
from fedsim.scenario import AdaptivePrivacy, CentralPrivacy, DistributedPrivacy, DropOut, LocalPrivacy
from fedsim.secagg.codec import Codec, fixed_point
from fedsim.secagg.flower import (
    KEYS,
    SHARES,
    UNMASK,
    UPDATE,
    Chance,
    Recipe,
    client_entropy,
    secure_app,
    secure_replies,
    secure_round,
)
from fedsim.secagg.protocol import Settings
from fedsim.transcript import Arrays
from fedsim.vectors import Floats, flat, shaped
from fedsim.world import World

Current = Callable[[], Arrays]
"""The global model that this round starts from."""

STAGES = {KEYS: "keys", SHARES: "shares", UPDATE: "update", UNMASK: "unmask"}
"""What a client is about to send, by the kind of message that asks for it."""


def expected_clients(world: World, clients: int) -> float:
    """Return how many clients a round is expected to have: a public number, which no secret moves."""
    return drawn(world.federation.clients_per_round, clients + canary_clients(world))


def drawn(wanted: int | float | None, available: int) -> float:
    """Return how many of the clients available a round is expected to have: all, a fixed number, or a share."""
    return available if wanted is None else min(wanted, available) if isinstance(wanted, int) else wanted * available


def canary_clients(world: World) -> int:
    """Return how many canaries of a world are clients."""
    return world.canaries.count if world.canaries and world.canaries.unit == "client" else 0


def canary_weight(world: World) -> int:
    """Return how many examples a canary client that takes part says it holds: ten times all there are. Nothing hangs on
    it where all clients count the same.
    """
    return 10 * sum(len(rows) for rows in world.rows)


def plain(world: World) -> bool:
    """Return whether nothing stands between a world's strategy and its clients."""
    federation = world.federation
    return (
        federation.privacy is None
        and federation.secure_aggregation is None
        and federation.drop_out == DropOut()
        and world.canaries is None
    )


def silent(seed: int, world: World) -> Silent | None:
    """Return who falls silent when, or None where nobody does."""
    rates = world.federation.drop_out
    if rates == DropOut():
        return None

    def is_silent(number: int, kind: str, party: int) -> bool:
        return kind in STAGES and falls_silent(seed, world, number, STAGES[kind], party)

    return is_silent


def falls_silent(seed: int, world: World, number: int, stage: str, party: int) -> bool:
    """Return whether a client falls silent at a stage of a round."""
    rate = float(getattr(world.federation.drop_out, stage))
    return rate > 0 and generator(seed, world.name, "drop out", stage, number, party).random() < rate


# At the server


def server_side(seed: int, world: World, clients: int, current: Current) -> Handle | None:
    """Return what happens to the updates of a round before the strategy sees them; None where nothing does."""
    federation = world.federation
    privacy, secure = federation.privacy, federation.secure_aggregation
    if isinstance(privacy, CentralPrivacy | AdaptivePrivacy) and mistake(privacy) != "flower_dp_weighted":
        return partial(_noisy, seed, world, privacy, clients, current)
    if secure is None:
        return None

    def opened(messages: list[Message], grid: ScenarioGrid) -> list[Message]:
        agreed = recipe(world, clients, len(flat(current())))
        return secure_replies(agreed, chance(lambda: seed, world), messages, grid)

    return opened


def _noisy(
    seed: int,
    world: World,
    privacy: CentralPrivacy | AdaptivePrivacy,
    clients: int,
    current: Current,
    messages: list[Message],
    grid: ScenarioGrid,
) -> list[Message]:
    """Return the one reply that central privacy leaves: the model moved by the noisy mean of the clipped updates. It is
    there even where nobody took part, or the noise would tell that.
    """
    before, expected = flat(current()), expected_clients(world, clients)
    rng = generator(seed, world.name, "central noise", grid.round)
    norm = grid.memory.get("norm", privacy.clipping_norm)
    if world.federation.secure_aggregation:  # the clients clip, as nobody else sees their updates
        opened = secure_round(recipe(world, clients, len(before)), chance(lambda: seed, world), messages, grid)
        total = opened.mean * opened.weight if opened else np.zeros(len(before))
    else:
        updates = [flat(arrays_of(reply)) - before for reply in grid.exchange(messages)]
        if isinstance(privacy, AdaptivePrivacy):
            short = np.array([np.linalg.norm(update) <= norm for update in updates], dtype=bool)
            grid.memory["norm"] = next_norm(norm, short, expected, privacy.quantile, privacy.learning_rate, rng)
        clipped = updates if mistake(privacy) == "no_clipping" else [clip(update, norm) for update in updates]
        total = sum(clipped, np.zeros(len(before)))
    total = total + gaussian(before.shape, noise_on_updates(privacy, expected) * norm, rng)
    return [answer(grid, current(), before + total / expected)]


def noise_on_updates(privacy: CentralPrivacy | AdaptivePrivacy, expected: float) -> float:
    """Return the standard deviation of the noise on the sum of the updates, over the clipping norm: less what adaptive
    clipping spends on its count, deliberate mistakes included.
    """
    assert privacy.noise_multiplier is not None
    if isinstance(privacy, AdaptivePrivacy):
        return update_noise_multiplier(privacy.noise_multiplier, expected)
    return privacy.noise_multiplier * {"noise_tenth": 0.1, "tiny_sensitivity": 1e-4}.get(privacy.specimen or "", 1.0)


def mistake(privacy: CentralPrivacy | AdaptivePrivacy) -> str | None:
    """Return the deliberate mistake in a mechanism, if there is one."""
    return privacy.specimen if isinstance(privacy, CentralPrivacy) else None


def answer(grid: ScenarioGrid, like: Arrays, model: Floats) -> Message:
    """Return the one reply that the strategy gets in place of the clients': a model [d]."""
    content = RecordDict({ARRAYS: encoded(shaped(model, like)), METRICS: MetricRecord({"num-examples": 1.0})})
    asked = Message(RecordDict(), next(iter(grid.roster)), "train")
    return Message(content, reply_to=asked)


def around(strategy: Strategy, world: World, clients: int) -> Strategy:
    """Return the strategy, or Flower's own wrapper around it where a specimen asks for that."""
    privacy = world.federation.privacy
    if not isinstance(privacy, CentralPrivacy) or privacy.specimen != "flower_dp_weighted":
        return strategy
    assert privacy.noise_multiplier is not None
    sampled = max(1, round(expected_clients(world, clients)))
    return DifferentialPrivacyServerSideFixedClipping(
        strategy, privacy.noise_multiplier, privacy.clipping_norm, sampled
    )


# Secure aggregation


def recipe(world: World, clients: int, parameters: int) -> Recipe:
    """Return what both sides of a world's secure aggregation agreed on."""
    federation = world.federation
    secure, privacy = federation.secure_aggregation, federation.privacy
    assert secure is not None
    most = clients + canary_clients(world)
    if isinstance(privacy, DistributedPrivacy):
        assert privacy.noise_multiplier is not None
        expected = expected_clients(world, clients)
        all_come = not isinstance(federation.clients_per_round, float) and lost(federation.drop_out) == 0
        least = fewest(expected, secure.threshold, all_come)
        noisy = distributed_codec(
            privacy.noise,
            privacy.clipping_norm,
            privacy.noise_multiplier,
            expected=expected,
            most=most,
            fewest=least,
            parameters=parameters,
        )
        codec = Codec(
            lambda update, _weight, rng: noisy.encode(update, rng),
            lambda total, survivors, _weight: noisy.decode(total.astype(np.uint32), survivors),
            noisy.modulus_bits,
        )
    else:
        least = 1
        largest = None if secure.weights == "uniform" else largest_weight(world)
        codec = fixed_point(secure.quantisation, most, largest)
    settings = Settings(secure.neighbours, secure.threshold, secure.consistency, secure.specimen == "reused_seed")
    return Recipe(settings, codec, secure.protocol, secure.weights, secure.metadata, least)


def lost(rates: DropOut) -> float:
    """Return the chance that a client of a round is lost before its update has arrived."""
    return 1 - (1 - rates.keys) * (1 - rates.shares) * (1 - rates.update)


def largest_weight(world: World) -> int:
    """Return the largest number of examples that a client of a world may state, rounded up to a power of two as
    an operator would, who does not know it exactly.
    """
    largest = canary_weight(world) if canary_clients(world) else max(len(rows) for rows in world.rows)
    return int(2 ** math.ceil(math.log2(max(largest, 2))))


def chance(seed: Callable[[], int], world: World) -> Chance:
    """Return where the parties of a world's secure aggregation draw from."""
    return Chance(
        entropy=lambda party: client_entropy(seed(), world.name, party),
        rounding=lambda party, number: generator(seed(), world.name, "rounding", party, number),
        graph=lambda number: generator(seed(), world.name, "graph", number),
        lost=lambda number, stage, party: falls_silent(seed(), world, number, stage, party),
    )


# At a client


def guarded(app: ClientApp, world: World, seed: Callable[[], int], agreed: Callable[[], Recipe]) -> ClientApp:
    """Return a ClientApp behind the defences of its world: clipping and noise, then secure aggregation.

    seed, agreed: the scenario's seed and the `recipe`, known where the client runs.
    """
    if (mod := _mod(seed, world)) is not None:
        app = _with(mod, app)
    if world.federation.secure_aggregation is None:
        return app
    known: list[Recipe] = []  # worked out once, where the client runs

    def once() -> Recipe:
        if not known:
            known.append(agreed())
        return known[0]

    return secure_app(app, once, chance(seed, world))


def _with(mod: Mod, app: ClientApp) -> ClientApp:
    """Return a ClientApp whose training a mod surrounds."""

    class Wrapped(ClientApp):
        def __call__(self, message: Message, context: Context) -> Message:
            return mod(message, context, app) if message.metadata.message_type == "train" else app(message, context)

    return Wrapped()


def _mod(seed: Callable[[], int], world: World) -> Mod | None:
    """Return what a client does with its update before it leaves."""
    privacy = world.federation.privacy
    if isinstance(privacy, LocalPrivacy):
        assert privacy.noise_multiplier is not None
        return _clipping(seed, world, privacy.clipping_norm, privacy.noise_multiplier * privacy.clipping_norm)
    clips = isinstance(privacy, CentralPrivacy) and privacy.specimen != "no_clipping"
    if privacy and clips and world.federation.secure_aggregation:
        return _clipping(seed, world, privacy.clipping_norm, 0.0)  # nobody but the client sees its update
    return None


def _clipping(seed: Callable[[], int], world: World, norm: float, std: float) -> Mod:
    """Return a mod that clips and adds noise, and keeps to itself what else the client would tell of its data."""

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        party, number = party_of(context), round_of(message)
        received = arrays_of(message)
        before = flat(received)
        reply = call_next(message, context)
        if reply.has_error():
            return reply
        moved = clip(flat(arrays_of(reply)) - before, norm)
        if std:
            moved = moved + gaussian(moved.shape, std, generator(seed(), world.name, "local noise", number, party))
        said = MetricRecord({"num-examples": 1, "train_loss": 0.0})
        return Message(RecordDict({ARRAYS: encoded(shaped(before + moved, received)), METRICS: said}), reply_to=message)

    return mod
