"""Secure aggregation over Flower's messages: the same model, and what travels on the way to it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.serverapp.strategy import FedAdam, FedAvg, Strategy

from fedsim.grid import REFUSED, LocalGrid, ScenarioGrid, task_identity
from fedsim.randomness import flower_globals, generator
from fedsim.scenario import Quantisation
from fedsim.secagg import client
from fedsim.secagg.codec import fixed_point
from fedsim.secagg.flower import (
    KEYS,
    MASKED,
    SHARES,
    UNMASK,
    UPDATE,
    Chance,
    Recipe,
    client_entropy,
    model_hash,
    secure_app,
    secure_replies,
)
from fedsim.secagg.protocol import Settings
from fedsim.transcript import AGGREGATOR, SERVER, Event, checksums

CLIENTS, ROUNDS, BITS = 6, 2, 18
START = {"bias": np.zeros(3, np.float32), "weight": np.full((4, 3), 0.5, np.float32)}
PARAMETERS = 15
LARGEST = 10 * CLIENTS


def moving_app() -> ClientApp:
    """Clients that move the model by noise of at most 0.1; client k has 10 (k + 1) examples."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        party = int(context.node_config["partition-id"])
        number = int(message.content.config_records["config"]["server-round"])  # type: ignore[arg-type]
        rng = generator(0, "update", party, number)
        model = {
            name: FlowerArray(array.numpy() + rng.uniform(-0.1, 0.1, array.numpy().shape).astype(np.float32))
            for name, array in message.content.array_records["arrays"].items()
        }
        metrics = MetricRecord({"num-examples": 10 * (party + 1), "train_loss": 0.25})
        return Message(RecordDict({"arrays": ArrayRecord(model), "metrics": metrics}), reply_to=message)

    return app


def recipe(
    protocol: Literal["masked", "ideal"] = "masked",
    settings: Settings = Settings(),  # noqa: B008
    weights: Literal["examples", "uniform"] = "examples",
    metadata: Literal["clear", "hidden"] = "hidden",
) -> Recipe:
    largest = LARGEST if weights == "examples" else None
    return Recipe(settings, fixed_point(Quantisation(bits=BITS), CLIENTS, largest), protocol, weights, metadata)


CHANCE = Chance(
    entropy=lambda party: client_entropy(0, "world", party),
    rounding=lambda party, number: generator(0, "rounding", party, number),
    graph=lambda number: generator(0, "graph", number),
)


class Ran(NamedTuple):
    model: dict[str, np.ndarray]
    events: list[Event]


Silent = Callable[[int, str, int], bool]


def run(
    how: Recipe | None,
    strategy: Callable[..., Strategy] = FedAvg,
    silent: Silent | None = None,
    rounds: int = ROUNDS,
    grid_of: type[LocalGrid] = LocalGrid,
) -> Ran:
    """Run a federation under a strategy, securely where a recipe is given."""
    events: list[Event] = []
    with task_identity(), flower_globals(0):
        app = moving_app()
        inner = grid_of(secure_app(app, lambda: how, CHANCE) if how else app, CLIENTS)
        roster = {node: node - 1 for node in range(1, CLIENTS + 1)}
        handle = partial(secure_replies, how, CHANCE) if how else None
        grid = ScenarioGrid(inner, roster, lambda number: range(CLIENTS), events.append, handle, silent)  # noqa: ARG005
        arrays = ArrayRecord({name: FlowerArray(array) for name, array in START.items()})
        result = strategy(fraction_evaluate=0.0).start(grid=grid, initial_arrays=arrays, num_rounds=rounds)
    return Ran({name: array.numpy() for name, array in result.arrays.items()}, events)


def distance(one: Ran, other: Ran) -> float:
    return max(float(np.abs(one.model[name] - other.model[name]).max()) for name in START)


def same(one: Ran, other: Ran) -> bool:
    return all((one.model[name] == other.model[name]).all() for name in START)


def test_fedavg_gets_the_model_it_would_get_without_to_the_step_of_the_integers() -> None:
    """Each client's coordinate is off by at most a step, scaled by largest / mean weight; and float32 rounds."""
    step = 1.0 / (2 ** (BITS - 1) - 1) * LARGEST * CLIENTS / (10 * sum(range(1, CLIENTS + 1)))
    for protocol in ("masked", "ideal"):
        assert 0 < distance(run(None), run(recipe(protocol))) <= ROUNDS * (step + 1e-6)


def test_fedadam_gets_nearly_the_same_model() -> None:
    """Its first steps divide by the update's size, plus tau = 1e-3: the error of the integers grows by 1 / tau."""
    adam = partial(FedAdam, eta=1e-3)
    assert distance(run(None, adam), run(recipe(), adam)) <= 1e-4
    assert distance(run(None, adam), run(None)) > 1e-2  # which is not what FedAvg gets


DROPS: dict[str, Silent] = {
    "nobody": lambda number, kind, party: False,  # noqa: ARG005
    "keys": lambda number, kind, party: (kind, party) == (KEYS, 1),  # noqa: ARG005
    "shares": lambda number, kind, party: (kind, party) == (SHARES, 2),  # noqa: ARG005
    "update": lambda number, kind, party: (kind, party) == (UPDATE, number),
    "unmask": lambda number, kind, party: (kind, party) == (UNMASK, 4),  # noqa: ARG005
}


@pytest.mark.parametrize("drop", DROPS)
@pytest.mark.parametrize("neighbours", [None, 4])
@pytest.mark.parametrize("weights", ["examples", "uniform"])
def test_masked_is_ideal_to_the_bit(drop: str, neighbours: int | None, weights: Literal["examples", "uniform"]) -> None:
    """The ideal run loses those before their update who fell silent anywhere before it in the masked one."""
    settings, early = Settings(neighbours, 0.6), DROPS[drop]
    masked = run(recipe("masked", settings, weights), silent=early)
    ideal = run(
        recipe("ideal", settings, weights),
        silent=lambda number, kind, party: any(early(number, k, party) for k in (KEYS, SHARES, kind)),
    )
    assert same(masked, ideal)
    facts = [
        [(event.round, dict(event.facts)) for event in each.events if event.kind == "aggregate"]
        for each in (masked, ideal)
    ]
    assert facts[0] == facts[1]
    lost = drop in ("keys", "shares", "update")
    assert [fact["clients"] for _, fact in facts[0]] == [CLIENTS - lost] * ROUNDS
    assert same(masked, run(recipe("masked", settings, weights), silent=early))  # and runs repeat themselves


@pytest.mark.parametrize("kind", [KEYS, SHARES, UPDATE, UNMASK])
def test_too_few_clients_leave_the_model_as_it_is(kind: str) -> None:
    """Three of six fall silent in round 1; round 2 goes on from the start."""
    ran = run(recipe(), silent=lambda number, sent, party: number == 1 and sent == kind and party < 3)
    aborts = [event for event in ran.events if event.kind == "abort"]
    assert [event.round for event in aborts] == [1]
    assert "fewer than the threshold of 4" in str(aborts[0].facts["reason"])
    second = next(event for event in ran.events if event.kind == UPDATE and event.round == 2)
    assert all((second.arrays[name] == START[name]).all() for name in START)
    asked = [event for event in ran.events if event.kind == UNMASK and event.round == 1]
    assert bool(asked) is (kind == UNMASK)  # else nobody was asked for a share


@pytest.mark.parametrize("metadata", ["clear", "hidden"])
@pytest.mark.parametrize("protocol", ["masked", "ideal"])
def test_the_server_gets_integers_under_masks_and_no_metrics_unless_they_are_in_clear(
    protocol: Literal["masked", "ideal"], metadata: Literal["clear", "hidden"]
) -> None:
    ran = run(recipe(protocol, metadata=metadata))
    to_server = [event for event in ran.events if event.receiver == SERVER and event.kind == f"{UPDATE}-reply"]
    expected = CLIENTS * ROUNDS if protocol == "masked" or metadata == "clear" else 0
    assert len(to_server) == expected
    for event in to_server:
        assert set(event.arrays) == ({MASKED} if protocol == "masked" else set())
        assert set(event.facts) == ({"num-examples", "train_loss"} if metadata == "clear" else set())
    opened = [event for event in ran.events if event.receiver == AGGREGATOR]
    assert len(opened) == (CLIENTS * ROUNDS if protocol == "ideal" else 0)


def test_no_message_carries_a_plain_vector_or_a_private_key() -> None:
    """What the ideal run shows its trusted party is looked for in all that crosses the wire of the masked one.

    A masked coordinate equals the plain one with probability 2^-32; a false alarm takes two such in a vector of 16,
    which happens to one of 12 with probability below 1e-16.
    """
    masked, ideal = run(recipe(settings=Settings(consistency=True))), run(recipe("ideal"))
    plain = {
        (event.round, event.sender): event.arrays[MASKED] for event in ideal.events if event.receiver == AGGREGATOR
    }
    assert len(plain) == CLIENTS * ROUNDS
    for vector in plain.values():
        assert len(vector) == PARAMETERS + 1
        for event in masked.events:
            for array in event.arrays.values():
                if array.shape == vector.shape:
                    assert (array == vector).sum() <= 1
            for fact in event.facts.values():
                parts = fact if isinstance(fact, tuple) else (fact,)
                assert not any(isinstance(part, bytes) and vector.tobytes()[:8] in part for part in parts)
    told = b"".join(
        part
        for event in masked.events
        for fact in event.facts.values()
        for part in (fact if isinstance(fact, tuple) else (fact,))
        if isinstance(part, bytes)
    )
    for party in range(CLIENTS):
        state, keys = client.send_keys(
            Settings(), CHANCE.entropy(party), client.start(party), {"round": 1, "invited": CLIENTS}
        )
        assert keys["masking"] in told  # so this does look at the right bytes
        for secret in (state["encryption"], state["masking"], state["seed"]):
            assert secret not in told


class Equivocating(LocalGrid):
    """Sends one client another model, below the secure layer, as an active server would."""

    def _handle(self, message: Message) -> Message:
        if message.metadata.message_type == UPDATE and message.metadata.dst_node_id == 3:
            other = {name: FlowerArray(np.ones_like(array)) for name, array in START.items()}
            message.content["arrays"] = ArrayRecord(other)
        return super()._handle(message)


@pytest.mark.parametrize("consistency", [True, False])
def test_a_client_that_was_sent_another_model_than_announced_takes_no_part_where_clients_compare(
    consistency: bool,
) -> None:
    ran = run(recipe(settings=Settings(consistency=consistency)), rounds=1, grid_of=Equivocating)
    took_part = [event.facts["clients"] for event in ran.events if event.kind == "aggregate"]
    assert took_part == [CLIENTS - 1 if consistency else CLIENTS]
    refusals = [event.facts["reason"] for event in ran.events if event.kind == f"{UPDATE}-refusal"]
    assert len(refusals) == consistency
    assert all("not the one that was announced" in str(reason) for reason in refusals)


class Networked(LocalGrid):
    """Sends every message through the bytes of Flower's network format, both ways."""

    def _handle(self, message: Message) -> Message:
        arrived = message_from_proto(message_to_proto(message))
        return message_from_proto(message_to_proto(super()._handle(arrived)))


@pytest.mark.parametrize("drop", DROPS)
def test_over_a_network_the_same_happens_as_in_one_process(drop: str) -> None:
    how = recipe(settings=Settings(4, 0.6, consistency=True))
    near, far = (run(how, silent=DROPS[drop], grid_of=grid) for grid in (LocalGrid, Networked))
    assert same(near, far)
    assert [checksums(event) for event in near.events] == [checksums(event) for event in far.events]


def test_the_hash_of_a_model_tells_names_types_shapes_and_numbers_apart() -> None:
    def hashed(**arrays: Any) -> bytes:
        return model_hash(ArrayRecord({name: FlowerArray(np.asarray(array)) for name, array in arrays.items()}))

    models = [
        hashed(a=[0.0, 1.0]),
        hashed(b=[0.0, 1.0]),
        hashed(a=[[0.0, 1.0]]),
        hashed(a=np.array([0.0, 1.0], np.float32)),
        hashed(a=[0.0, 2.0]),
        hashed(a=[0.0], b=[1.0]),
    ]
    assert len(set(models)) == len(models)
    assert hashed(a=[1.0], b=[2.0]) == hashed(b=[2.0], a=[1.0])


def _context() -> Context:
    return Context(
        run_id=1,
        node_id=1,
        node_config=UserConfig({"partition-id": 0}),
        state=RecordDict(),
        run_config=UserConfig(),
    )


def test_a_client_gives_no_update_in_clear() -> None:
    content = RecordDict({"arrays": ArrayRecord({}), "config": ConfigRecord({"server-round": 1})})
    with task_identity():
        reply = secure_app(moving_app(), recipe, CHANCE)(Message(content, 1, "train"), _context())
    assert reply.has_error()
    assert reply.error.reason == f"{REFUSED}an update is asked for in clear"  # as it arrives from every runtime


def test_other_messages_reach_the_app() -> None:
    app = moving_app()

    @app.query("name")
    def name(message: Message, context: Context) -> Message:  # noqa: ARG001
        return Message(RecordDict({"said": ConfigRecord({"name": "app"})}), reply_to=message)

    with task_identity():
        reply = secure_app(app, recipe, CHANCE)(Message(RecordDict(), 1, "query.name"), _context())
    assert reply.content.config_records["said"]["name"] == "app"


def test_a_round_without_anybody_is_none() -> None:
    ran = run(recipe(), rounds=1, silent=lambda number, kind, party: True)  # noqa: ARG005
    assert not ran.model  # as with any round of Flower's that brings no reply
    assert [event.facts["reason"] for event in ran.events if event.kind == "abort"] == ["nobody sent keys"]
    grid: Any = None
    assert secure_replies(recipe(), CHANCE, [], grid) == []


def test_what_belongs_to_a_client_belongs_to_its_world_and_seed() -> None:
    keys = {client_entropy(seed, world, party) for seed in (0, 1) for world in "ab" for party in (0, 1)}
    assert len(keys) == 8
    assert all(len(key) == 32 for key in keys)


@pytest.mark.parametrize("protocol", ["masked", "ideal"])
def test_a_sum_over_too_few_for_the_codec_is_not_opened(protocol: Literal["masked", "ideal"]) -> None:
    """A codec whose noise counts on five clients; the protocol alone would go on with four."""
    one_silent: Silent = lambda number, kind, party: kind == UPDATE and party < number  # noqa: E731
    ran = run(replace(recipe(protocol), fewest=5), silent=one_silent)
    assert [event.round for event in ran.events if event.kind == "aggregate"] == [1]
    assert [event.round for event in ran.events if event.kind == "abort"] == [2]
    assert not [event for event in ran.events if event.kind == UNMASK and event.round == 2]
