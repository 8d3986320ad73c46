"""Worlds in lockstep against worlds one by one: the same federation, whichever way it runs."""

import dataclasses
import importlib.util
import random
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from attacks import ATTACKS
from fedsim.apps import Bench
from fedsim.attack import Signal
from fedsim.engine import chunks, run_world, run_worlds, world_bytes
from fedsim.errors import RunError, ScenarioError
from fedsim.games import draw
from fedsim.job import Job, Probe, WorldResult
from fedsim.lockstep import batched, direct_world, run_together
from fedsim.scenario import BatchGame, Plugin
from fedsim.threads import pinned
from fedsim.transcript import Event, Formed, checksums
from fedsim.views import Ask, Floats, Oracle, Public, parse_vantage
from fedsim.world import World
from strategies import STRATEGIES
from tests import worlds

MODELS: dict[str, dict[str, Any]] = {
    "softmax": {"name": "softmax"},
    "mlp": {"name": "mlp", "hidden": (16,)},
    "cnn": {"name": "cnn", "channels": 2},
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"learning_rate": 0.1, "momentum": 0.9},
    "adam": {"learning_rate": 0.01, "optimizer": "adam"},
}
LOCAL_DP = Plugin(
    name="flower_local_dp", options={"clipping_norm": 1.0, "sensitivity": 1.0, "epsilon": 50.0, "delta": 1e-5}
)


def _job(local: dict[str, Any] | None = None, **changes: Any) -> Job:
    federation = {"rounds": 2, "local": {"epochs": 2, "batch_size": 8, "learning_rate": 0.1} | (local or {})}
    settings = {"dtype": "float64", "data": {"clients": 5}} | changes
    return worlds.job(worlds.scenario(**settings | {"federation": federation | changes.get("federation", {})}))


def _serial(chosen: Job, index: int) -> tuple[list[Event], WorldResult]:
    events: list[Event] = []
    return events, run_world(chosen, index, worlds.setup(chosen), spare=events.append)


def _together(chosen: Job, indices: list[int], messages: bool) -> dict[int, tuple[list[Event], WorldResult]]:
    events: dict[int, list[Event]] = {index: [] for index in indices}
    left = dict(
        run_together(chosen, indices, worlds.setup(chosen), messages=messages, spare=lambda index: events[index].append)
    )
    return {index: (events[index], left[index]) for index in indices}


def _assert_same_conversation(one: list[Event], other: list[Event], tolerance: float = 1e-10) -> None:
    """The same messages in the same order, with the same facts and arrays to rounding."""
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert (a.round, a.kind, a.sender, a.receiver) == (b.round, b.kind, b.sender, b.receiver)
        assert a.facts.keys() == b.facts.keys()
        for name, fact in a.facts.items():
            assert fact == b.facts[name] or b.facts[name] == pytest.approx(fact, abs=tolerance)
        assert list(a.arrays) == list(b.arrays)
        for name, array in a.arrays.items():
            assert array.dtype == b.arrays[name].dtype
            assert float(np.abs(np.subtract(array, b.arrays[name])).max(initial=0)) <= tolerance


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_model_and_optimiser_gives_the_same_federation(name: str, model: str, optimizer: str) -> None:
    chosen = _job(OPTIMIZERS[optimizer], model=MODELS[model], federation={"strategy": Plugin(name=name)})
    expected = {index: _serial(chosen, index) for index in (0, 1)}
    for messages in {True, not direct_world(chosen, 0)}:
        for index, (events, left) in _together(chosen, [0, 1], messages).items():
            _assert_same_conversation(events, expected[index][0])
            np.testing.assert_allclose(left.utility, expected[index][1].utility, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "federation",
    [
        {"clients_per_round": 2},
        {"clients_per_round": 0.3, "rounds": 6},  # rounds in which nobody takes part
        {"evaluate_clients": True},
        {"mods": (LOCAL_DP,)},
        {"strategy": Plugin(name="fedprox", options={"proximal_mu": 0.5})},
    ],
    ids=["cohort", "coins", "evaluation", "mod", "fedprox"],
)
def test_every_setting_of_a_federation_gives_the_same_conversation(federation: dict[str, Any]) -> None:
    chosen = _job(federation=federation)
    for messages in (True, False):
        for index, (events, _) in _together(chosen, [0, 1, 2], messages).items():
            _assert_same_conversation(events, _serial(chosen, index)[0])


@pytest.mark.parametrize(
    "local",
    [
        {"weight_decay": 0.1, "label_smoothing": 0.1},
        {"clip_gradient": 0.1},
        {"early_stopping": {"patience": 1, "holdout": 0.3}, "epochs": 4},
    ],
    ids=["decay+smoothing", "clipping", "early stopping"],
)
def test_every_option_of_local_training_gives_the_same_conversation(local: dict[str, Any]) -> None:
    chosen = _job(local, model={"hidden": (16,), "dropout": 0.2})
    for messages in (True, False):
        _assert_same_conversation(_together(chosen, [0], messages)[0][0], _serial(chosen, 0)[0])


def test_another_optimiser_setting_is_seen() -> None:
    """What the comparisons above must reject: a step size that is off by one part in a million."""
    one, other = _job({"learning_rate": 0.1}), _job({"learning_rate": 0.1 * (1 + 1e-6)})
    with pytest.raises(AssertionError):
        _assert_same_conversation(_serial(one, 0)[0], _together(other, [0], False)[0][0])


@pytest.mark.ray
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the ray extra")
@pytest.mark.filterwarnings("ignore")  # Ray and Flower's simulation raise warnings of their own
@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_flowers_engine_gives_the_same_federation_too(name: str, model: str, optimizer: str) -> None:
    chosen = _job(OPTIMIZERS[optimizer], model=MODELS[model], federation={"strategy": Plugin(name=name)})
    events: list[Event] = []
    run_world(chosen, 0, worlds.setup(chosen), "ray", spare=events.append)
    _assert_same_conversation(_together(chosen, [0], False)[0][0], events)


def _probed(**changes: Any) -> Job:
    settings = worlds.scenario(**changes)
    drawn = draw(settings, worlds.pool(settings), "record", frozenset())
    probes = [
        Probe(f"{vantage}/{name}", parse_vantage(vantage, 4), exam.ask, ATTACKS[name].signal, frozenset(range(4)))
        for vantage in ("public", "client:0", "server")
        for exam in drawn.exams[:1]
        for name in ("loss", "lira", "loss_trajectory", "update_cosine")
    ]
    vantages = [parse_vantage(vantage, 4) for vantage in ("public", "client:0", "server")]
    return worlds.job(settings, probes, vantages, drawn.worlds)


def _bytes(left: WorldResult) -> tuple[object, ...]:
    signals = {name: signal.tobytes() for name, signal in left.signals.items()}
    return signals, dict(left.not_visible), left.transcript, left.model, left.utility.tobytes(), left.sights


@pytest.mark.parametrize("messages", [False, True])
def test_workers_pieces_and_the_order_of_worlds_change_no_byte(messages: bool) -> None:
    chosen = _probed(model={"hidden": (9, 7), "activation": "gelu"}, federation={"local": {"clip_gradient": 0.5}})
    everything = list(range(len(chosen.worlds)))
    with pinned():
        whole = dict(run_together(chosen, everything, worlds.setup(chosen), messages=messages))
        backwards = dict(run_together(chosen, everything[::-1], worlds.setup(chosen), messages=messages))
    alone = dict(run_worlds(chosen, everything, memory=1, messages=messages))
    shared = dict(run_worlds(chosen, everything[::-1], workers=2, messages=messages))
    for index in everything:
        for other in (backwards, alone, shared):
            assert _bytes(whole[index]) == _bytes(other[index])


@pytest.mark.parametrize("local", [{"epochs": 1}, {"epochs": 2}, {"epochs": 2, "batch_size": 4}, {"optimizer": "adam"}])
@pytest.mark.parametrize("hidden", [(16,), (600,)], ids=["small", "large"])
def test_a_client_with_another_batch_in_each_round_trains_on_it_on_every_path(
    local: dict[str, Any], hidden: tuple[int, ...]
) -> None:
    """One step or several, also where what the engine keeps between rounds, or a joint step, could hold old records.
    Adam makes steps of gradients that are zero to rounding.
    """
    tolerance = 1e-8 if local.get("optimizer") == "adam" else 1e-10
    chosen = _job(
        {"learning_rate": 0.05, **local},
        data={"visual": {"name": "rotation"}, "candidates": 400, "population": 200},
        model={"hidden": hidden},
        federation={"rounds": 3},
        controls={"planted_worlds": 0},
    )
    game = BatchGame(name="batches", column="visual", value="rotation", records=8)
    drawn = draw(chosen.scenario, worlds.pool(chosen.scenario), game, frozenset()).worlds[:2]
    chosen = dataclasses.replace(chosen, worlds=drawn)
    assert direct_world(chosen, 0)
    for messages in (False, True):
        for index, (events, _) in _together(chosen, [0, 1], messages).items():
            _assert_same_conversation(_serial(chosen, index)[0], events, tolerance)


LARGE: dict[str, Any] = {
    "model": {"hidden": (600,)},
    "federation": {"local": {"batch_size": 4, "learning_rate": 0.1, "momentum": 0.9}},
}
"""A first layer so large that a cohort's models are averaged without forming them; most clients take several steps."""


@pytest.mark.parametrize("local", [{"epochs": 2}, {"epochs": 1}], ids=["several steps", "one step too"])
def test_averages_without_the_models_are_those_of_the_models(local: dict[str, Any]) -> None:
    settings = {"batch_size": 4, "learning_rate": 0.1, "momentum": 0.9, **local}
    chosen = _job(settings, model=LARGE["model"], data={"clients": 5})
    counts = [len(rows) for rows in chosen.worlds[0].rows]
    assert min(counts) <= 4 < max(counts)
    for index, (events, left) in _together(chosen, [0, 1], False).items():
        assert all(isinstance(event.arrays, Formed) for event in events if event.kind == "train-reply")
        expected, alone = _serial(chosen, index)
        _assert_same_conversation(events, expected)
        np.testing.assert_allclose(left.utility, alone.utility, rtol=0, atol=1e-10)


def test_looking_at_replies_changes_no_byte_and_replies_have_no_company() -> None:
    watched = _probed(data={"clients": 4}, **LARGE)
    plain = dataclasses.replace(watched, probes=())
    indices = [0, 1]
    with pinned():
        formed = {index: _together(watched, [index], False)[index] for index in indices}
        together = _together(watched, indices, False)
        unseen = dict(run_together(plain, indices, worlds.setup(plain)))
    for index in indices:
        assert (formed[index][1].transcript, formed[index][1].model) == (
            unseen[index].transcript,
            unseen[index].model,
        )
        for one, other in zip(formed[index][0], together[index][0], strict=True):
            assert {name: array.tobytes() for name, array in one.arrays.items()} == {
                name: array.tobytes() for name, array in other.arrays.items()
            }


def test_arrays_that_nobody_formed_are_told_by_what_they_follow_from() -> None:
    formed: list[int] = []

    def form() -> dict[str, Any]:
        formed.append(1)
        return {"w": np.ones(2)}

    arrays = [Formed(("w",), form, told) for told in (b"one", b"one", b"other")]
    one, same, other = (checksums(Event(1, "train-reply", "client:0", "server", each, {})) for each in arrays)
    assert one == same != other
    assert list(arrays[0]) == ["w"]
    assert "v" not in arrays[0]
    assert len(arrays[0]) == 1
    assert not formed
    assert arrays[0]["w"] is arrays[0]["w"]
    assert len(formed) == 1


def test_audits_agree_with_worlds_run_one_by_one_in_single_precision() -> None:
    """Rounding differs between the two, in the seventh digit of a loss; what an attack would see does not."""
    chosen = _probed()
    for index, left in run_together(chosen, [0, 1], worlds.setup(chosen)):
        alone = run_world(chosen, index, worlds.setup(chosen))
        assert left.sights == alone.sights
        assert left.not_visible == alone.not_visible
        for name, signal in alone.signals.items():
            np.testing.assert_allclose(left.signals[name], signal, rtol=1e-3, atol=1e-4)


def test_no_flower_message_is_made_where_a_world_can_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    real = Message.__init__

    def counted(self: Message, *given: Any, **named: Any) -> None:
        made.append(given)
        real(self, *given, **named)

    monkeypatch.setattr(Message, "__init__", counted)
    for federation, messages, expected in (
        ({}, False, False),
        ({"strategy": Plugin(name="fedprox")}, False, False),
        ({}, True, True),
        ({"strategy": Plugin(name="fedmedian")}, False, True),
        ({"mods": (LOCAL_DP,)}, False, True),
        ({"evaluate_clients": True}, False, True),
    ):
        made.clear()
        chosen = _job(federation=federation)
        assert direct_world(chosen, 0) != (expected and not messages)
        dict(run_together(chosen, [0], worlds.setup(chosen), messages=messages))
        assert bool(made) == expected


def test_pieces_hold_every_world_once_and_fit_the_memory_given() -> None:
    chosen = worlds.job(worlds.scenario(worlds=60))
    indices = list(range(len(chosen.worlds)))
    each = max(world_bytes(chosen, index) for index in indices)
    for workers, memory in ((1, 2**31), (2, 2**31), (2, 6 * each), (1, 1)):
        pieces = chunks(chosen, indices, workers, memory)
        assert [index for piece in pieces for index in piece] == indices
        assert max(map(len, pieces)) <= max(1, memory // (workers * each))
        assert len(pieces) >= 2 * workers
    assert chunks(chosen, [], 2, 2**31) == []


def _start(_public: Public, _ask: Ask) -> int:
    return 0


def _vandal(state: int, event: Event) -> int:
    for array in event.arrays.values():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that the array is not writable, and writes
            torch.as_tensor(array).mul_(0.5)
    return state + 1


def _count(state: int, _oracle: Oracle) -> Floats:
    return np.full((1, 1), state, dtype=np.float64)


@pytest.mark.parametrize("messages", [False, True])
def test_an_attack_that_writes_into_what_it_sees_changes_nothing(messages: bool) -> None:
    chosen = worlds.job(worlds.scenario())
    server = parse_vantage("server", 4)
    ask = draw(chosen.scenario, worlds.pool(chosen.scenario), "record", frozenset()).exams[0].ask
    probe = Probe("vandal", server, ask, Signal(_start, _vandal, _count, "models"), frozenset({0}))
    attacked = dataclasses.replace(chosen, probes=(probe,), vantages=(server,))
    _, expected = _together(chosen, [0], messages)[0]
    _, left = _together(attacked, [0], messages)[0]
    assert left.signals["vandal"][0, 0] == 2 * 4 * 3 + 1  # every message and the final model
    assert (left.model, left.transcript) == (expected.model, expected.transcript)


class _Noisy(FedAvg):
    """A strategy that draws from both global generators where it aggregates."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        arrays, metrics = super().aggregate_train(server_round, replies)
        assert arrays is not None
        noise = float(np.random.random()) + random.random()  # noqa: NPY002
        return ArrayRecord({name: Array(array.numpy() + noise) for name, array in arrays.items()}), metrics


def _noisy(_plugin: Plugin, _evaluate: bool) -> FedAvg:
    return _Noisy(fraction_evaluate=0.0, min_train_nodes=0, min_evaluate_nodes=0, min_available_nodes=0)


@pytest.mark.parametrize("mods", [(), (LOCAL_DP,)], ids=["no mods", "a mod that draws too"])
def test_a_strategy_draws_the_same_whatever_its_clients_draw_and_whoever_is_beside_it(mods: tuple[Plugin, ...]) -> None:
    chosen = _job(federation={"mods": mods, "rounds": 3})
    noisy = dataclasses.replace(chosen, recipes=chosen.recipes._replace(strategy=_noisy, average=lambda _: None))
    for index, (events, _) in _together(noisy, [0, 1], True).items():
        _assert_same_conversation(events, _serial(noisy, index)[0])


# ClientApps of one's own


def _own_app(world: World, prepare: Callable[[], Bench], fail: bool = False) -> ClientApp:
    """A ClientApp that trains in its own way: it adds its number to every weight."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        party = int(context.node_config["partition-id"])
        if fail and party == 1:
            raise ValueError("out of paper")
        arrays = {name: Array(array.numpy() + party) for name, array in message.content.array_records["arrays"].items()}
        metrics = MetricRecord({"num-examples": len(world.rows[party])})
        assert prepare().clients == 4
        return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)

    return app


def test_a_client_app_of_ones_own_runs_as_it_is_and_is_known_to_be_unbatched() -> None:
    chosen = worlds.job(worlds.scenario())
    assert batched(chosen, 0)
    own = dataclasses.replace(chosen, recipes=chosen.recipes._replace(client=_own_app))
    assert not batched(own, 0)
    assert not direct_world(own, 0)
    events, left = _together(own, [0], False)[0]
    expected, alone = _serial(own, 0)
    assert left.transcript == alone.transcript
    world = own.worlds[0]
    sizes = [len(rows) for rows in world.rows]
    mean = sum(party * size for party, size in enumerate(sizes)) / sum(sizes)
    moved = np.subtract(events[-1].arrays["layer0.bias"], expected[0].arrays["layer0.bias"])
    assert float(np.abs(moved - 3 * mean).max()) < 1e-5


def _drawing_app(_world: World, _prepare: Callable[[], Bench]) -> ClientApp:
    """A ClientApp that draws from all global generators."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:  # noqa: ARG001
        noise = float(torch.randn(1)) + float(np.random.random()) + random.random()  # noqa: NPY002
        arrays = {n: Array(a.numpy() + noise) for n, a in message.content.array_records["arrays"].items()}
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)

    return app


def test_what_a_client_app_of_ones_own_draws_repeats_itself_and_is_each_clients_own() -> None:
    chosen = worlds.job(worlds.scenario())
    own = dataclasses.replace(chosen, recipes=chosen.recipes._replace(client=_drawing_app))
    torch.manual_seed(5)  # noqa: TID251
    events, first = _together(own, [0, 1], False)[0]
    torch.manual_seed(6)  # noqa: TID251
    assert _serial(own, 0)[1].transcript == first.transcript
    replies = [event.arrays["layer0.bias"].tobytes() for event in events if event.kind == "train-reply"]
    assert len(set(replies)) == len(replies) == 12


def test_the_readmes_client_app_learns() -> None:
    text = (Path(__file__).parent.parent / "README.md").read_text()
    block = next(part for part in text.split("```python\n")[1:] if "def make(" in part).split("```")[0]
    found: dict[str, Any] = {}
    exec(block, found)
    chosen = worlds.job(worlds.scenario(federation={"rounds": 10}))
    own = dataclasses.replace(chosen, recipes=chosen.recipes._replace(client=found["make"]))
    _, left = _together(own, [0], False)[0]
    assert left.utility[-1, 1] < left.utility[0, 1]  # the training loss


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda _world, _prepare: None, r"returned NoneType, expected a ClientApp"),
        (lambda: None, r"failed: TypeError: .* positional argument"),
    ],
)
def test_a_function_that_makes_no_client_app_is_refused(make: Any, says: str) -> None:
    chosen = worlds.job(worlds.scenario())
    own = dataclasses.replace(chosen, recipes=chosen.recipes._replace(client=make))
    with pytest.raises(ScenarioError, match=says):
        dict(run_together(own, [0], worlds.setup(own)))


def test_a_client_that_fails_ends_the_run_with_its_reason() -> None:
    chosen = worlds.job(worlds.scenario())
    own = dataclasses.replace(chosen, recipes=chosen.recipes._replace(client=partial(_own_app, fail=True)))
    with pytest.raises(RunError, match="client:1 failed: ValueError: out of paper"):
        dict(run_together(own, [0, 1], worlds.setup(own)))


def test_divergence_is_an_error_here_too() -> None:
    chosen = worlds.job(worlds.scenario(federation={"local": {"learning_rate": 1e30, "epochs": 5, "batch_size": 8}}))
    for messages in (True, False):
        with pytest.raises(RunError, match="learning_rate"):
            dict(run_together(chosen, [0], worlds.setup(chosen), messages=messages))
