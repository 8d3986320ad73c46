"""The federation: Flower's arithmetic, determinism, the tape, and both engines."""

import dataclasses
import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord

from attacks import ATTACKS
from fedsim.apps import cohort, initial
from fedsim.engine import run_world, run_worlds
from fedsim.errors import NotVisible, RunError
from fedsim.games import draw
from fedsim.job import Probe, WorldResult
from fedsim.models import build
from fedsim.randomness import generator, torch_generator
from fedsim.release import released
from fedsim.scenario import Plugin, Release
from fedsim.training import Task, train
from fedsim.transcript import Event, checksum
from fedsim.views import parse_vantage, visible
from strategies import STRATEGIES
from tests import worlds

VANTAGES = ("public", "client:0", "server", "server+client:1")
RECORD_ATTACKS = sorted(name for name, attack in ATTACKS.items() if attack.game == "record")


def _events(chosen: Any, index: int = 0) -> tuple[list[Event], WorldResult]:
    events: list[Event] = []
    return events, run_world(chosen, index, worlds.setup(chosen), spare=events.append)


def test_fedavg_is_the_weighted_mean_of_the_local_updates() -> None:
    """An oracle that knows nothing of Flower: train each client by hand, weigh by records, repeat."""
    chosen = worlds.job(worlds.scenario(dtype="float64"))
    events, _ = _events(chosen)
    setup, world = worlds.setup(chosen), chosen.worlds[0]
    model = build(world.model, tuple(setup.x.shape[1:]), setup.classes)
    current = initial(setup, world)
    for number in (1, 2, 3):
        total = {name: value * 0 for name, value in current.items()}
        for party, rows in enumerate(world.rows):
            names = (world.name, "client", party, "round", number)
            local = world.federation.local
            records = torch.from_numpy(rows)
            order, noise = generator(3, *names), torch_generator(3, *names)
            own = train(Task(model, current, setup.x, setup.y, records, local, order, noise)).params
            total = {name: total[name] + own[name] * len(rows) for name in total}
        current = {name: value / sum(map(len, world.rows)) for name, value in total.items()}
    for name, value in current.items():
        np.testing.assert_allclose(events[-1].arrays[name].astype(np.float64), value.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_runs_moves_the_model_and_repeats_itself(name: str) -> None:
    federation = {"strategy": Plugin(name=name), "rounds": 2}
    chosen = worlds.job(worlds.scenario(federation=federation))
    first, second = (_events(chosen)[1] for _ in range(2))
    other = run_world(chosen, 1, worlds.setup(chosen))
    assert first.transcript == second.transcript
    assert first.model == second.model != other.model
    assert np.isfinite(first.utility).all()
    assert first.utility.shape == (3, 4)  # two rounds, and before them
    assert not np.array_equal(first.utility[0], first.utility[-1])


def test_fedprox_pulls_towards_the_broadcast_model() -> None:
    def drift(mu: float) -> float:
        strategy = Plugin(name="fedprox", options={"proximal_mu": mu})
        events, _ = _events(worlds.job(worlds.scenario(federation={"strategy": strategy, "rounds": 1})))
        start = next(event for event in events if event.kind == "train")
        return float(
            np.sqrt(sum(np.sum((events[-1].arrays[k].astype(float) - start.arrays[k]) ** 2) for k in start.arrays))
        )

    assert drift(0.0) > drift(1.0) > drift(5.0) > 0


def test_evaluation_messages_are_on_the_tape_with_their_metrics() -> None:
    events, _ = _events(worlds.job(worlds.scenario(federation={"evaluate_clients": True, "rounds": 1})))
    kinds = [event.kind for event in events]
    assert kinds == ["train"] * 4 + ["train-reply"] * 4 + ["evaluate"] * 4 + ["evaluate-reply"] * 4 + ["final"]
    reply = events[-2]
    assert {"num-examples", "loss", "accuracy"} <= set(reply.facts)
    assert not reply.arrays
    assert np.array_equal(events[8].arrays["layer0.bias"], events[-1].arrays["layer0.bias"])


def test_a_cohort_is_drawn_afresh_each_round_and_fixed_by_the_seed() -> None:
    fixed = worlds.job(worlds.scenario(federation={"clients_per_round": 2}))
    setup = worlds.setup(fixed)
    draws = [tuple(cohort(setup, fixed.worlds[0], number)) for number in range(60)]
    assert draws == [tuple(cohort(setup, fixed.worlds[0], number)) for number in range(60)]
    assert {len(drawn) for drawn in draws} == {2}
    assert len(set(draws)) == 6  # all pairs of four clients come up: one is missing with probability 6 (5/6)^60 = 1e-4
    poisson = dataclasses.replace(
        fixed.worlds[0], federation=fixed.worlds[0].federation.model_copy(update={"clients_per_round": 0.3})
    )
    sizes = [len(cohort(setup, poisson, number)) for number in range(400)]
    # Binomial(1600, 0.3): 480 +- 18.3; five standard deviations fail by chance in 6e-7 of seeds.
    assert abs(sum(sizes) - 480) < 5 * 18.3
    assert 0 in sizes


def test_a_round_in_which_nobody_takes_part_changes_nothing() -> None:
    chosen = worlds.job(worlds.scenario(federation={"clients_per_round": 0.001}))
    events, left = _events(chosen)
    assert [event.kind for event in events] == ["final"]
    start = initial(worlds.setup(chosen), chosen.worlds[0])
    assert all(np.array_equal(events[0].arrays[name], value.numpy()) for name, value in start.items())
    assert np.array_equal(left.utility[0], left.utility[-1])


def test_a_client_without_records_sits_out() -> None:
    chosen = worlds.job(worlds.scenario())
    rows = (chosen.worlds[0].rows[0][:0], *chosen.worlds[0].rows[1:])
    events, _ = _events(dataclasses.replace(chosen, worlds=(dataclasses.replace(chosen.worlds[0], rows=rows),)))
    assert not [event for event in events if "client:0" in (event.sender, event.receiver)]


def test_divergence_is_an_error_and_says_what_to_lower() -> None:
    chosen = worlds.job(worlds.scenario(federation={"local": {"learning_rate": 1e30, "epochs": 5, "batch_size": 8}}))
    with pytest.raises(RunError, match="learning_rate"):
        run_world(chosen, 0, worlds.setup(chosen))


def _probed(names: list[str], vantages: tuple[str, ...] = VANTAGES, **changes: Any) -> Any:
    settings = worlds.scenario(**changes)
    drawn = draw(settings, worlds.pool(settings), "record", frozenset())
    probes = [
        Probe(
            f"{vantage}/{exam.kind}/{name}",
            parse_vantage(vantage, 4),
            exam.ask,
            ATTACKS[name].signal,
            frozenset(map(int, exam.worlds)),
        )
        for vantage in vantages
        for exam in drawn.exams
        for name in names
    ]
    return worlds.job(settings, probes, [parse_vantage(vantage, 4) for vantage in vantages], drawn.worlds)


def _same(one: WorldResult, other: WorldResult) -> bool:
    return (
        one.signals.keys() == other.signals.keys()
        and all(one.signals[name].tobytes() == other.signals[name].tobytes() for name in one.signals)
        and (dict(one.not_visible), one.transcript, one.model)
        == (dict(other.not_visible), other.transcript, other.model)
        and one.utility.tobytes() == other.utility.tobytes()
    )


def test_the_number_of_workers_and_the_order_of_worlds_change_no_byte() -> None:
    chosen = _probed(["loss", "update_cosine", "loss_trajectory"])
    alone = dict(run_worlds(chosen, range(len(chosen.worlds)), workers=1))
    together = dict(run_worlds(chosen, list(reversed(range(len(chosen.worlds)))), workers=2))
    assert alone.keys() == together.keys()
    assert all(_same(alone[index], together[index]) for index in alone)


@pytest.mark.parametrize("access", ["black_box", "white_box"])
def test_signals_measured_on_the_fly_equal_those_of_the_stored_transcript_and_watching_changes_nothing(
    access: str,
) -> None:
    """Also: what lies outside the vantage may be anything, the signal stays the same to the bit."""
    chosen = _probed(RECORD_ATTACKS, release=Release.model_validate({"access": access}), federation={"rounds": 2})
    events, left = _events(chosen)
    unwatched = run_world(
        worlds.job(worlds.scenario(release=Release.model_validate({"access": access}), federation={"rounds": 2})),
        0,
        worlds.setup(chosen),
    )
    assert left.model == unwatched.model
    assert left.transcript == unwatched.transcript == worlds.stated_digest(events)
    from fedsim.attack import fold
    from fedsim.watch import public_facts

    facts = public_facts(worlds.setup(chosen), chosen.worlds[0])
    oracle = released(facts, events[-1].arrays, chosen.scenario.release)
    seen = 0
    for probe in chosen.probes:
        if 0 not in probe.worlds:
            continue
        scrambled = [event if event in visible(probe.vantage, [event]) else _scrambled(event) for event in events]
        inside = visible(probe.vantage, scrambled)
        try:
            again = fold(probe.signal, facts, probe.ask, inside, oracle)
        except NotVisible as reason:
            assert left.not_visible[probe.name] == str(reason)  # noqa: PT017
            continue
        assert left.signals[probe.name].tobytes() == again.tobytes(), probe.name
        seen += 1
    assert seen > len(RECORD_ATTACKS)


def _scrambled(event: Event) -> Event:
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(array.shape).astype(array.dtype) for name, array in event.arrays.items()}
    return dataclasses.replace(event, arrays=arrays, facts={"num-examples": 10**6})


def test_the_public_sees_no_message_of_a_black_box_and_one_of_a_white_box() -> None:
    for access, expected in (("black_box", 0), ("white_box", 1)):
        events, _ = _events(worlds.job(worlds.scenario(release=Release.model_validate({"access": access}))))
        assert len(visible(parse_vantage("public", 4), events)) == expected


def test_a_participant_sees_its_own_messages_only() -> None:
    events, _ = _events(worlds.job(worlds.scenario()))
    seen = visible(parse_vantage("client:2", 4), events)
    assert len(seen) == 2 * 3
    assert {party for event in seen for party in (event.sender, event.receiver)} == {"server", "client:2"}
    assert len(visible(parse_vantage("server", 4), events)) == len(events)


@pytest.mark.ray
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the ray extra")
@pytest.mark.filterwarnings(
    "ignore"
)  # Ray and Flower's simulation raise deprecation and resource warnings of their own
def test_flowers_own_engine_gives_the_same_transcript() -> None:
    """The same apps on Ray: the same bytes, since each client's arithmetic is the same single-threaded torch."""
    chosen = worlds.job(worlds.scenario(federation={"clients_per_round": 3, "evaluate_clients": True}))
    here = run_world(chosen, 0, worlds.setup(chosen))
    there = run_world(chosen, 0, worlds.setup(chosen), "ray")
    np.testing.assert_allclose(there.utility, here.utility, rtol=0, atol=1e-5)
    assert there.transcript == here.transcript


def test_a_mods_noise_is_a_clients_own_and_repeats_itself() -> None:
    """Flower's LocalDpMod draws from NumPy's global generator; each client and round gets its own, wherever it runs."""
    mod = Plugin(
        name="flower_local_dp", options={"clipping_norm": 1.0, "sensitivity": 1.0, "epsilon": 50.0, "delta": 1e-5}
    )
    chosen = worlds.job(worlds.scenario(federation={"mods": (mod,), "rounds": 2}))
    events, first = _events(chosen)
    np.random.seed(5)  # noqa: NPY002
    assert run_world(chosen, 0, worlds.setup(chosen)).transcript == first.transcript
    plain, _ = _events(worlds.job(worlds.scenario(federation={"rounds": 2})))
    noise = [
        event.arrays["layer0.bias"] - other.arrays["layer0.bias"]  # type: ignore[operator]
        for event, other in zip(events, plain, strict=True)
        if event.kind == "train-reply" and event.round == 1
    ]
    assert len(noise) == 4
    assert all(not np.allclose(one, other) for i, one in enumerate(noise) for other in noise[:i])


def test_replies_reach_the_strategy_in_the_order_of_the_clients_whatever_the_order_of_arrival() -> None:
    from collections.abc import Iterable

    from flwr.app import Message

    from fedsim.apps import client_app
    from fedsim.grid import LocalGrid, ScenarioGrid, task_identity

    class Backwards(LocalGrid):
        """A Grid on which the last client answers first."""

        def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
            return list(reversed(list(super().send_and_receive(messages, timeout=timeout))))

    chosen = worlds.job(worlds.scenario(federation={"rounds": 1}))
    setup, world = worlds.setup(chosen), chosen.worlds[0]
    with task_identity():
        inner = Backwards(client_app(world, lambda: setup, []), 4)
        grid = ScenarioGrid(inner, {node: node - 1 for node in range(1, 5)}, lambda _: [0, 1, 2, 3], lambda _: None)
        strategy = worlds.RECIPES.strategy(Plugin(name="fedavg"), False)
        arrays = ArrayRecord(dict(initial(setup, world)))
        replies = grid.send_and_receive(strategy.configure_train(1, arrays, ConfigRecord(), grid))
    assert [reply.metadata.src_node_id for reply in replies] == [1, 2, 3, 4]


def test_the_tape_forgets_nothing_that_travelled() -> None:
    from flwr.app import MetricRecord, RecordDict

    from fedsim.apps import client_app
    from fedsim.grid import LocalGrid, ScenarioGrid

    chosen = worlds.job(worlds.scenario())
    setup = worlds.setup(chosen)
    content = RecordDict(
        {
            "arrays": ArrayRecord({"w": torch.zeros(2)}),
            "masks": ArrayRecord({"w": torch.ones(2)}),
            "metrics": MetricRecord({"x": 1}),
            "more": MetricRecord({"x": 2}),
            "config": ConfigRecord({"x": b"secret", "list": [b"a", b"b"]}),
        }
    )
    events: list[Event] = []
    grid = ScenarioGrid(LocalGrid(client_app(chosen.worlds[0], lambda: setup, []), 4), {}, lambda _: [], events.append)
    grid._tape("train-reply", "client:0", "server", content)
    event = events[0]
    assert set(event.arrays) == {"w", "masks/w"}
    assert dict(event.facts) == {"x": 1, "more/x": 2, "config/x": b"secret", "list": (b"a", b"b")}


def test_a_process_is_held_to_one_thread_inside_the_block_and_set_free_after() -> None:
    from threadpoolctl import threadpool_info

    from fedsim.threads import pinned

    torch.set_num_threads(2)
    try:
        with pinned():
            assert torch.get_num_threads() == 1
            assert {pool["num_threads"] for pool in threadpool_info()} == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64, np.uint8])
def test_checksums_tell_arrays_apart(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    array = (np.abs(rng.standard_normal((33, 31))) * 50).astype(dtype)
    others = [array[::-1], array.T.reshape(array.shape), array[:, ::-1], np.zeros_like(array)]
    if np.issubdtype(dtype, np.floating):
        others += [-array, array * 2, np.where(rng.random(array.shape) < 0.01, -array, array)]
    spots = rng.choice(array.size, 200, replace=False)
    for spot in spots:
        changed = array.copy().reshape(-1)
        changed[spot] += 1
        one = np.zeros(array.size, dtype=dtype)
        one[spot] = 1
        others += [changed.reshape(array.shape), one.reshape(array.shape)]
    found = {checksum(each) for each in [array, *others]}
    assert len(found) == len(others) + 1
    assert checksum(np.asfortranarray(array)) == checksum(
        array
    )  # what is sent is the numbers, not their order in memory
    assert checksum(array[:0]) == (0, 0)
