"""Attacks that only watch over the rounds: each signal against its definition by loop, a closed form, or a world whose
data say what must be found.
"""

import gc
import weakref
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom, mannwhitneyu

from attacks import ATTACKS, rmia, whitebox
from attacks.final import FLOOR, cross_entropy, softened
from attacks.folds import due_rounds, slot_of
from attacks.metadata import METADATA, learned_from_metadata
from attacks.rounds import LOSS_TRAJECTORY
from attacks.trajectories import (
    OWNER_LOSSES,
    OWNER_SOFTENED,
    POINTS,
    learned_series,
    mean_gain,
    neutral,
    points,
    relative,
    standing,
)
from attacks.whitebox import OF_BROADCASTS, OF_BROADCASTS_AND_REPLIES, features
from attacks.zero_patterns import STILL_FEATURES, STILL_IN_ALL, moved_beyond_rounding, moved_exactly
from fedsim.attack import Bools, Case, Signal, fold
from fedsim.engine import run_world
from fedsim.errors import NotVisible
from fedsim.games import draw
from fedsim.transcript import SERVER, Arrays, Event, client, frozen
from fedsim.views import Floats, Parameters, Public, RecordAsk, Records, softmax
from tests import worlds
from tests.leaky_worlds import CLIENTS, record_study, sparse_study
from tests.leaky_worlds import public as leaky_public

SHAPES = {"layer0.weight": (5, 3), "layer0.bias": (5,), "layer1.weight": (4, 5), "layer1.bias": (4,)}
OF_OWNERS = {
    "losses": OWNER_LOSSES,
    "softened": OWNER_SOFTENED,
    "white_box": OF_BROADCASTS_AND_REPLIES,
    "zero_pattern": STILL_FEATURES,
}
EACH_OF_OWNERS = pytest.mark.parametrize("signal", OF_OWNERS.values(), ids=OF_OWNERS.keys())


def apply(parameters: Parameters, x: torch.Tensor) -> torch.Tensor:
    hidden = torch.tanh(torch.nn.functional.linear(x, parameters["layer0.weight"], parameters["layer0.bias"]))
    return torch.nn.functional.linear(hidden, parameters["layer1.weight"], parameters["layer1.bias"])


def setup(clients: int, rounds: int) -> Public:
    return Public(4, clients, rounds, apply, 1, 8, 0.1, "sgd")


def ask_of(seed: int, clients: int, count: int = 24, population: int = 7) -> RecordAsk:
    rng = np.random.default_rng(seed)

    def drawn(n: int) -> Records:
        return Records(rng.standard_normal((n, 3)).astype(np.float32), rng.integers(4, size=n), np.arange(n) % clients)

    return RecordAsk(drawn(count), drawn(population))


def some_rounds(seed: int, cohorts: Sequence[Sequence[int]]) -> list[Event]:
    """Return the messages of rounds in which the clients of each cohort send back arbitrary models."""
    rng, events = np.random.default_rng(seed), []

    def model() -> Arrays:
        return frozen({name: rng.standard_normal(shape) for name, shape in SHAPES.items()})

    for number, cohort in enumerate(cohorts, start=1):
        broadcast = model()
        events += [Event(number, "train", SERVER, client(k), broadcast, {}) for k in cohort]
        events += [Event(number, "train-reply", client(k), SERVER, model(), {}) for k in cohort]
    return events


def measured(signal: Signal, ask: RecordAsk, events: Sequence[Event], rounds: int, clients: int = 3) -> Floats:
    return fold(signal, setup(clients, rounds), ask, events, lambda _: pytest.fail("no released model is needed"))


def probabilities(model: Arrays, records: Records, i: int) -> Floats:
    parameters = {name: torch.tensor(np.array(model[name])) for name in SHAPES}
    return softmax(apply(parameters, torch.tensor(records.x[i : i + 1]).double()).numpy())


def auc(values: Floats, members: Bools) -> float:
    statistic = mannwhitneyu(values[members], values[~members]).statistic
    return float(statistic / members.sum() / (~members).sum())


def case(target: Floats, references: Floats, members: Bools, **changes: Floats) -> Case:
    population = changes.get("population", target[:0])
    reference_population = changes.get("reference_population", references[:, :0])
    count = target.shape[0]
    ask = RecordAsk(
        *(
            Records(np.zeros((n, 1), np.float32), np.zeros(n, np.int64), np.zeros(n, np.int64))
            for n in (count, len(population))
        )
    )
    rng = np.random.default_rng(0)
    return Case(target, population, references, reference_population, members, ask, rng)


# Which rounds are looked at.


@pytest.mark.parametrize("rounds", [1, 2, 5, 10, 11, 60, 300])
@pytest.mark.parametrize("count", [5, 10])
def test_rounds_looked_at_are_few_even_and_reach_both_ends(rounds: int, count: int) -> None:
    due = due_rounds(rounds, count)
    assert len(due) == min(count, rounds)
    assert due[-1] == rounds or rounds == 1
    assert due[0] == 1
    assert np.ptp(np.diff(due)) <= 1 if len(due) > 1 else True
    assert [slot_of(int(number), due) for number in due] == list(range(len(due)))
    assert slot_of(0, due) == -1


# The models that an owner sends back.


def test_owner_losses_against_one_answer_at_a_time() -> None:
    """Client 1 rests in round 2 and client 2 always; the population is dealt out in turn."""
    ask, events = ask_of(1, 3), some_rounds(1, [(0, 1), (0,), (0, 1)])
    losses = measured(OWNER_LOSSES, ask, events, 3)
    soft = measured(OWNER_SOFTENED, ask, events, 3)
    assert losses.shape == (31, 3)
    for row in range(31):
        records, i = (ask.items, row) if row < 24 else (ask.population, row - 24)
        owner = int(ask.items.owner[row]) if row < 24 else i % 3
        replies = {e.round: e.arrays for e in events if e.kind == "train-reply" and e.sender == client(owner)}
        seen = []
        for number in (1, 2, 3):
            if number not in replies:
                assert np.isnan(losses[row, number - 1])
                continue
            p = probabilities(replies[number], records, i)
            assert losses[row, number - 1] == pytest.approx(cross_entropy(p, records.y[i : i + 1])[0])
            seen.append(softened(p, records.y[i : i + 1])[0])
        assert np.isnan(soft[row]) if not seen else soft[row] == pytest.approx(np.mean(seen))
    assert np.isnan(soft[2])
    assert not np.isnan(soft[0])


def test_the_first_reply_of_a_slot_counts_and_the_others_cost_nothing() -> None:
    ask, events = ask_of(2, 1), some_rounds(2, [(0,)] * 40)
    everything = measured(OWNER_LOSSES, ask, events, 40, clients=1)
    due = set(due_rounds(40, 10).tolist())
    alone = measured(OWNER_LOSSES, ask, [event for event in events if event.round in due], 40, clients=1)
    assert everything.shape == (31, 10)
    np.testing.assert_array_equal(everything, alone)


def test_mean_gain_takes_an_owner_never_seen_for_the_average() -> None:
    losses = np.array([[1.0, 3.0], [np.nan, 6.0], [np.nan, np.nan]])
    found = mean_gain(case(losses, losses[None], np.ones((1, 3), bool)))
    np.testing.assert_allclose(found, [-2.0, -6.0, -4.0])


def test_relative_is_rmia_where_all_was_seen_and_no_evidence_where_nothing_was() -> None:
    rng = np.random.default_rng(3)
    values = rng.uniform(0.1, 1, (6, 20))
    members = (np.arange(5)[:, None] + np.arange(20)) % 2 == 0  # both sides of each record, so none leans on others
    public = rng.uniform(0.1, 1, (6, 30))
    whole = case(values[0], values[1:], members, population=public[0], reference_population=public[1:])
    np.testing.assert_array_equal(relative(whole), rmia.online(whole))
    target, others = values[0].copy(), values[1:].copy()
    target[4], target[5], others[:, 5], others[2, 6] = np.nan, np.nan, np.nan, np.nan
    lacking = replace(whole, target=target, references=others)
    found = relative(lacking)
    untouched = np.setdiff1d(np.arange(20), [4, 5, 6])
    np.testing.assert_array_equal(found[untouched], rmia.online(whole)[untouched])
    filled = neutral(lacking)
    assert filled.target[4] == pytest.approx(others[:, 4].mean())
    assert filled.target[5] == pytest.approx(np.nanmean(np.nanmean(np.delete(others, 5, axis=1), axis=0)))
    assert filled.references[2, 6] == pytest.approx(np.nanmean(others[:, 6]))
    assert np.isfinite(found).all()


# Series of confidences.


def test_points_are_log_odds_averaged_in_stretches() -> None:
    p = np.random.default_rng(4).uniform(0.01, 0.99, (5, 60))
    odds = np.log(p / (1 - p))
    np.testing.assert_allclose(points(-np.log(p)), odds.reshape(5, POINTS, 3).mean(axis=2))
    np.testing.assert_allclose(points(-np.log(p[:, :7])), odds[:, :7])
    holes = -np.log(p)
    holes[0, :3], holes[1, 0] = np.nan, np.nan
    found = points(holes)
    assert np.isnan(found[0, 0])
    assert found[1, 0] == pytest.approx(odds[1, 1:3].mean())
    assert np.isfinite(points(np.array([[0.0, 1e-300, 200.0]]))).all()


def test_a_course_is_found_that_no_mean_shows() -> None:
    """Members rise first and fall later, others the other way round: the mean over rounds is the same for both.

    The two lie more than nine deviations apart in each round, so of 600 records no pair changes places: 1 and 0 never
    fail. The AUC of the mean is that of coins, with a standard deviation of .024; five of them: one false alarm in 1e6.
    Whoever learned from coins, or saw no more than the mean, would get .5 and be rejected by the first line.
    """
    rng = np.random.default_rng(5)
    members = rng.random((9, 600)) < 0.5
    course = np.where(np.arange(8) < 4, 1.0, -1.0)
    losses = np.exp(np.where(members[..., None], course, -course) + 0.3 * rng.standard_normal((9, 600, 8)))
    trial = case(losses[0], losses[1:], members[1:])
    assert auc(learned_series(trial), members[0]) == 1.0
    assert abs(auc(mean_gain(trial), members[0]) - 0.5) < 0.12
    swapped = replace(trial, members=~members[1:], rng=np.random.default_rng(0))
    assert auc(learned_series(swapped), members[0]) == 0.0
    coins = replace(trial, members=rng.permuted(members[1:], axis=1), rng=np.random.default_rng(0))
    assert auc(learned_series(coins), members[0]) < 1.0


@pytest.mark.parametrize("name", ["confidence_trajectory", "owner_trajectory", "nasr_participant"])
def test_the_order_of_the_records_changes_no_bit_of_what_is_learned(name: str) -> None:
    rng = np.random.default_rng(6)
    members, values = rng.random((4, 30)) < 0.5, rng.exponential(size=(5, 30, 6))
    values = values[..., None] if name == "nasr_participant" else values
    order = rng.permutation(30)
    straight = ATTACKS[name].test(case(values[0], values[1:], members))
    turned = ATTACKS[name].test(case(values[0][order], values[1:][:, order], members[:, order]))
    np.testing.assert_allclose(turned, straight[order], rtol=1e-12, atol=1e-12)


def test_where_a_record_stands_among_all_in_each_slot() -> None:
    rng = np.random.default_rng(19)
    references, target = rng.standard_normal((3, 8, 4, 2)) * 5 + 3, rng.standard_normal((8, 4, 2))
    everybody = references.reshape(24, 4, 2)
    z = (target - everybody.mean(axis=0)) / everybody.std(axis=0)
    np.testing.assert_allclose(standing(references, target)[1], z.reshape(8, 8))
    holes = target.copy()
    holes[0, 1:3], holes[1], holes[2, :, 1] = np.nan, np.nan, np.nan
    found = standing(references, holes)[1].reshape(8, 4, 2)
    np.testing.assert_allclose(found[0, [0, 3]], z[0, [0, 3]])
    np.testing.assert_allclose(found[0, 1], z[0, [0, 3]].mean(axis=0))
    assert not found[1].any()
    np.testing.assert_allclose(found[2, :, 0], z[2, :, 0])
    assert not found[2, :, 1].any()
    np.testing.assert_allclose(found[3:], z[3:])
    references[:, :, 3] = np.nan  # a slot that no reference saw tells nothing, whatever the target saw in it
    unknown = standing(references, target)
    assert np.isfinite(unknown[0]).all()
    np.testing.assert_allclose(unknown[1].reshape(8, 4, 2)[:, 3], z[:, :3].mean(axis=1))


@pytest.mark.parametrize("name", ["owner_trajectory", "nasr_server"])
def test_owners_drawn_for_few_rounds_are_judged_by_these(name: str) -> None:
    """Of 10 rounds, a record's owner takes part in 3, others in each world; members stand one deviation lower.

    Of 200 scores that say nothing the AUC has a standard deviation of .041: .9 is ten of them away. The mean over the
    rounds seen, which forgets which they were, says little, because losses fall anyway: it must be rejected.
    """
    rng = np.random.default_rng(20)
    members = rng.random((9, 200)) < 0.5
    losses = np.exp(rng.standard_normal((9, 200, 10)) * 0.3 - np.linspace(0, 4, 10) - members[..., None])
    seen = rng.permuted(np.broadcast_to(np.arange(10) < 3, losses.shape), axis=2)
    values = np.where(seen, losses, np.nan)
    values = values[..., None] if name == "nasr_server" else values
    found = ATTACKS[name].test(case(values[0], values[1:], members[1:]))
    assert auc(found, members[0]) > 0.9  # each round alone: deviations apart 3.3, and so an AUC of .99
    assert auc(mean_gain(case(np.where(seen, losses, np.nan)[0], losses[1:], members[1:])), members[0]) < 0.9


# All that a model shows of a record.


def test_features_against_one_gradient_at_a_time() -> None:
    ask, events = ask_of(7, 3), some_rounds(7, [(0,)])
    model = events[0].arrays
    found = features(setup(3, 1), model, ask.items, np.array([5, 0, 11]))
    assert found.shape == (3, 1 + 1 + 4 + 4 + 5)
    for row, i in zip(found, (5, 0, 11), strict=True):
        p, label = probabilities(model, ask.items, i)[0], ask.items.y[i]
        parameters = {name: torch.tensor(np.array(model[name]), requires_grad=True) for name in SHAPES}
        x = torch.tensor(ask.items.x[i : i + 1]).double()
        loss = torch.nn.functional.cross_entropy(apply(parameters, x), torch.tensor(ask.items.y[i : i + 1]))
        norms = [float(torch.linalg.vector_norm(grad)) for grad in torch.autograd.grad(loss, list(parameters.values()))]
        inside = np.tanh(model["layer0.weight"] @ ask.items.x[i] + model["layer0.bias"])
        expected = [
            *(-np.log(p[label]), np.log(p[label] / (1 - p[label]))),
            *np.log(np.sort(p)[::-1]),
            *np.log(norms),
            *(np.linalg.norm(inside), inside.mean(), inside.std(), inside.max(), 0.0),
        ]
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


def test_a_gradient_of_nothing_is_finite() -> None:
    ask, model = ask_of(8, 1), frozen({name: np.zeros(shape) for name, shape in SHAPES.items()})
    found = features(setup(1, 1), model, ask.items, np.arange(3))
    assert found[:, 6] == pytest.approx(np.log(FLOOR))  # the first layer gets no gradient through zero weights
    assert found[:, -1] == pytest.approx(1.0)


@pytest.mark.parametrize("rounds", [3, 5, 60])
def test_at_most_five_models_of_each_are_looked_at(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def counted(_public: Public, model: Arrays, _records: Records, rows: Floats) -> Floats:
        looked.append(len(rows))
        return np.full((len(rows), 2), float(model["layer1.bias"][0]))

    monkeypatch.setattr(whitebox, "features", counted)
    ask, events = ask_of(9, 2), some_rounds(9, [(0, 1)] * rounds)
    slots = min(rounds, 5)
    found = measured(OF_BROADCASTS_AND_REPLIES, ask, events, rounds, clients=2)
    assert sorted(looked) == sorted([24] * (slots - 1) + [12] * 2 * slots)  # the last model is not broadcast
    due = due_rounds(rounds, 5)
    broadcast = {event.round: event.arrays["layer1.bias"][0] for event in events if event.kind == "train"}
    reply = {e.round: e.arrays["layer1.bias"][0] for e in events if e.sender == client(1)}
    globally = [broadcast[int(number) + 1] for number in due[:-1]]
    np.testing.assert_array_equal(found[1, :, 0], [*globally, np.nan])
    np.testing.assert_array_equal(found[1, :, 2], [reply[int(number)] for number in due])
    alone = measured(OF_BROADCASTS, ask, events, rounds, clients=2)
    np.testing.assert_array_equal(alone, found[:, :, :2])
    assert np.isnan(found[24:]).all()


def test_the_first_broadcast_shows_nothing_that_was_learned() -> None:
    with pytest.raises(NotVisible, match="had been trained"):
        measured(OF_BROADCASTS, ask_of(10, 1), some_rounds(10, [(0,)]), 1, clients=1)


# What stood still.


def test_columns_that_stand_still_are_those_of_features_that_nobody_has() -> None:
    study = sparse_study(0, worlds=3)
    assert isinstance(study.ask, RecordAsk)
    has, owner = study.ask.items.x != 0, study.ask.items.owner
    for world in study.worlds:
        own = np.stack([has[world.members & (owner == k)].any(axis=0) for k in range(CLIENTS)])
        found = fold(STILL_FEATURES, study.setup, study.ask, world.events, world.released)
        expected = (has & ~own[owner]).sum(axis=1)
        np.testing.assert_array_equal(found[:80], expected)
        assert not found[:80][world.members].any()
        assert found[:80][~world.members].mean() > 1
        summed = fold(STILL_IN_ALL, study.setup, study.ask, world.events, world.released)
        np.testing.assert_array_equal(summed[:80], (has & ~own.any(axis=0)).sum(axis=1))
        assert np.isnan(found[80:]).all()
        assert np.isnan(summed[80:]).all()


@pytest.mark.parametrize("optimizer", [{}, {"momentum": 0.9}, {"optimizer": "adam", "learning_rate": 0.01}])
def test_through_real_rounds_in_single_precision_members_never_have_a_still_feature(
    optimizer: dict[str, object],
) -> None:
    """Blank pixels of digits. A broadcast average of equal numbers is off by a rounding, which must not count."""
    chosen = worlds.scenario(federation={"rounds": 3, "local": {"epochs": 2, "batch_size": 8, **optimizer}})
    drawn = draw(chosen, worlds.pool(chosen), "record", frozenset())
    job, exam = worlds.job(chosen, worlds=drawn.worlds), drawn.exams[0]
    assert isinstance(exam.ask, RecordAsk)
    events: list[Event] = []
    run_world(job, 0, worlds.setup(job), spare=events.append)
    items, members = exam.ask.items, exam.members[0]
    has = items.x.reshape(len(items), -1) != 0
    public = Public(10, 4, 3, apply, 1, 8, 0.1, "sgd")

    def found(signal: Signal) -> Floats:
        return fold(signal, public, exam.ask, events, lambda _: pytest.fail("not asked"))[: len(items)]

    own = np.stack([has[members & (items.owner == k)].any(axis=0) for k in range(4)])
    np.testing.assert_array_equal(found(STILL_FEATURES), (has & ~own[items.owner]).sum(axis=1))
    np.testing.assert_array_equal(found(STILL_IN_ALL), (has & ~own.any(axis=0)).sum(axis=1))
    assert found(STILL_FEATURES).any()


def test_the_rounding_of_an_average_is_no_movement_and_the_smallest_step_of_a_weight_is_one_beyond_it() -> None:
    rng = np.random.default_rng(11)
    before = rng.standard_normal((64, 200)).astype(np.float32)
    shares = rng.dirichlet(np.ones(10)).astype(np.float32)
    after = np.zeros_like(before)
    for share in shares:
        after += share * before
    after[:, 7] *= np.float32(1 + 1e-5)
    assert moved_exactly(before, after).mean() > 0.9
    assert moved_beyond_rounding(before, after, 10).tolist() == [column == 7 for column in range(200)]
    assert not moved_exactly(before, before).any()


def test_weight_decay_hides_the_pattern() -> None:
    study = sparse_study(1, worlds=1)
    world = study.worlds[0]

    def shrunk(event: Event) -> Event:
        if event.kind != "train-reply":
            return event
        moved = {name: 0.999 * np.where(array == 0, 1e-3, array) for name, array in event.arrays.items()}
        return replace(event, arrays=frozen(moved))

    found = fold(STILL_FEATURES, study.setup, study.ask, map(shrunk, world.events), world.released)
    assert not found[:80].any()


@pytest.mark.parametrize("signal", [STILL_FEATURES, STILL_IN_ALL])
def test_a_model_without_a_column_for_each_feature_has_no_pattern(signal: Signal) -> None:
    ask = ask_of(12, 1)
    wide = RecordAsk(replace(ask.items, x=np.ones((24, 9), np.float32)), ask.population)
    with pytest.raises(NotVisible, match="first layer"):
        measured(signal, wide, some_rounds(12, [(0,)] * 2), 2, clients=1)


# What travels in clear.


def said(facts: Sequence[dict[str, float] | None]) -> list[Event]:
    """Return rounds in which client 0 is asked and says this, or does not answer."""
    events = []
    for number, fact in enumerate(facts, start=1):
        events.append(Event(number, "train", SERVER, client(0), {}, {}))
        if fact is not None:
            events.append(Event(number, "train-reply", client(0), SERVER, {}, fact))
    return events


def test_metadata_in_order() -> None:
    ask = ask_of(13, 2)
    events = said([{"num-examples": 10, "train_loss": 2.0}, None, {"num-examples": 12}, {"train_loss": 0.5}])
    found = measured(METADATA, ask, events, 4, clients=2)
    np.testing.assert_array_equal(found[0], [11.0, 1.0, 0.25, 2.0, np.nan, np.nan, 0.5])
    assert np.isnan(found[1]).all()
    assert np.isnan(found[24:]).all()


@pytest.mark.parametrize("facts", [{}, {"num-examples": "many"}, {"accuracy": 1.0}])
def test_metadata_that_stay_with_the_client_are_not_visible(facts: dict[str, float]) -> None:
    with pytest.raises(NotVisible, match="in clear"):
        measured(METADATA, ask_of(14, 1), said([facts] * 2), 2, clients=1)


@pytest.mark.parametrize("size", [2, 5, 60])
def test_what_a_number_of_examples_says_in_closed_form(size: int) -> None:
    """Of `size` coins the sum is known: a coin that shows heads is found with the AUC of 1 + B against B', both
    binomial over the others. Of 24,000 coins the AUC has a standard deviation below .004; 5 of them: one false alarm
    in 1e6. A blind attack, at .5, is rejected for each size: even of 60 coins the number tells .573.
    """
    rng = np.random.default_rng([15, size])
    members = rng.random((17, 24_000 // size, size)) < 0.5
    counts = np.broadcast_to(members.sum(axis=2, keepdims=True), members.shape).astype(np.float64)
    values, secrets = counts.reshape(17, -1, 1), members.reshape(17, -1)
    heads = np.arange(size)
    of = binom.pmf(heads, size - 1, 0.5)
    gap = heads[:, None] + 1 - heads
    expected = float(np.sum(of[:, None] * of * np.where(gap > 0, 1.0, np.where(gap == 0, 0.5, 0.0))))
    found = auc(learned_from_metadata(case(values[0], values[1:], secrets[1:])), secrets[0])
    assert abs(found - expected) < 0.02
    assert abs(0.5 - expected) > 0.05


def test_what_never_varies_and_what_was_never_said_tell_nothing() -> None:
    rng = np.random.default_rng(16)
    members = rng.random((6, 10)) < 0.5
    values = np.stack([np.full((6, 10), 0.1 + 0.2), np.full((6, 10), np.nan)], axis=2)
    values[3, 4, 1] = 1.0
    found = learned_from_metadata(case(values[0], values[1:], members[1:]))
    assert np.ptp(found) == 0


# What all of them keep.


@EACH_OF_OWNERS
def test_masked_updates_are_not_updates(signal: Signal) -> None:
    """Under secure aggregation a reply is one array of another name."""
    masked = frozen({"masked": np.arange(44.0)})
    hidden = [
        event if event.kind == "train" else replace(event, arrays=masked) for event in some_rounds(17, [(0, 1, 2)] * 2)
    ]
    with pytest.raises(NotVisible):
        measured(signal, ask_of(17, 3), hidden, 2)


@pytest.mark.parametrize("signal", [*OF_OWNERS.values(), OF_BROADCASTS, STILL_IN_ALL, METADATA, LOSS_TRAJECTORY])
def test_no_model_is_kept_but_the_newest_broadcast(signal: Signal) -> None:
    state, left = signal.start(setup(3, 3), ask_of(18, 3)), []
    for event in some_rounds(18, [(0, 1, 2)] * 3):
        state = signal.step(state, event)
        left += [(event.round, event.kind, weakref.ref(array)) for array in event.arrays.values()]
        del event
    gc.collect()
    assert {(number, kind) for number, kind, array in left if array() is not None} <= {(3, "train")}
    assert state is not None


def test_what_the_owner_sends_back_says_more_than_the_average() -> None:
    """In each of 20 worlds: if the two said the same, or one were read for the other, that would happen by chance once
    in 1e6.
    """
    study = record_study(1, worlds=20)
    assert leaky_public(4).clients == CLIENTS
    found = [
        auc(mean_gain(case(values[:80], values[None, :80], np.ones((1, 80), bool))), world.members)
        for world in study.worlds
        for values in (
            fold(OWNER_LOSSES, study.setup, study.ask, world.events, world.released),
            fold(LOSS_TRAJECTORY, study.setup, study.ask, world.events, world.released),
        )
    ]
    assert (np.array(found[::2]) > np.array(found[1::2])).all()
