"""Known answers and laws of the attacks that ask for properties behind updates, and of their games."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from attacks import ATTACKS, batches, prolin
from attacks.aggregates import singled_out
from fedsim.attack import Bools, Equations, fold
from fedsim.errors import NotVisible, ScenarioError
from fedsim.games import draw
from fedsim.scenario import BatchGame, ClientPropertyGame
from fedsim.transcript import AGGREGATE, SERVER, Event, client, frozen
from fedsim.views import BatchAsk, ClientPropertyAsk, Floats, Public, Records
from fedsim.world import Draw, Exam, asked, cohort, rows_in
from tests import worlds
from tests.leaky_worlds import batch_study, client_property_study, public, rehearsal, signals, view

PROLIN = ATTACKS["prolin"].signal
CLIENTS = 5


def auc(values: Floats, members: Bools) -> float:
    statistic = mannwhitneyu(values[members], values[~members]).statistic
    return float(statistic / members.sum() / (~members).sum())


# The linear function.


def test_the_linear_function_is_sure_of_what_it_can_tell_and_not_of_noise() -> None:
    """Two clouds 20 spreads apart, and two that are one. A pair is told apart by slope / spread."""
    rng = np.random.default_rng(1)
    push = np.eye(30)[0] * 20
    no, yes = rng.standard_normal((12, 30)), rng.standard_normal((12, 30)) + push
    found = prolin.learned(no, yes)
    assert 0.7 < found.slope < 1.1
    assert found.variance < 0.02
    chance = prolin.learned(rng.standard_normal((12, 30)), rng.standard_normal((12, 30)))
    assert chance.slope / chance.variance**0.5 < 2
    still = prolin.learned(np.ones((3, 4)), np.ones((3, 4)))
    assert still.slope == 0


# The equations: sums by hand, of updates whose direction says everything.


def by_hand(cohorts: Sequence[Sequence[int]], secret: Bools) -> tuple[Public, ClientPropertyAsk, list[Event]]:
    """Return masked rounds of the cohorts given. A client's update is that of a record set with the property, or
    without, in the very same softmax regression; records of one kind are all alike, so only the answer is unknown.
    """
    x = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)  # without the property, with it
    population = Records(x, np.zeros(2, dtype=np.int64), np.full(2, -1))
    sets = np.zeros((4, 3), dtype=np.int64)
    setup = rehearsal(dataclasses.replace(public(2, rounds=len(cohorts), epochs=1), clients=CLIENTS))
    assert setup.train is not None
    model = frozen({"layer0.weight": np.zeros((2, 2)), "layer0.bias": np.zeros(2)})
    rng, events = np.random.default_rng(2), []
    replies = [setup.train(model, x[[int(s)]], population.y[[0]], rng) for s in secret]
    for number, present in enumerate(cohorts, 1):
        events += [Event(number, "train", SERVER, client(k), model, {}) for k in present]
        events += [Event(number, "train-reply", client(k), SERVER, {"masked": np.zeros(3)}, {}) for k in present]
        mean = {name: np.mean([np.asarray(replies[k][name]) for k in present], axis=0) for name in model}
        facts: dict[str, Any] = {"clients": len(present), "weight": 3.0 * len(present)}
        events.append(Event(number, AGGREGATE, SERVER, SERVER, frozen(mean), facts))
    return setup, ClientPropertyAsk(np.arange(CLIENTS), population, sets, sets + 1), events


def solved(cohorts: Sequence[Sequence[int]], secret: Bools) -> Floats:
    setup, ask, events = by_hand(cohorts, secret)
    return fold(PROLIN, setup, ask, events, lambda _: pytest.fail("not asked"))


FULL = [(0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 0), (4, 0, 1)]  # a circulant of rank 5


@pytest.mark.parametrize("bits", [0b00000, 0b10110, 0b01001, 0b11111])
def test_clients_are_identified_once_the_rank_is_full(bits: int) -> None:
    secret = np.array([bits >> k & 1 for k in range(CLIENTS)], dtype=bool)
    found = solved(FULL, secret)
    np.testing.assert_allclose(found, secret - 0.5, atol=0.02)
    with pytest.raises(NotVisible, match=r"4 sums .* of rank 4 for 5 clients, and single out nobody"):
        solved(FULL[:4], secret)


def test_who_is_not_singled_out_scores_nothing() -> None:
    """Clients 0 and 1 always come together: their sum is known, and neither of them."""
    secret = np.array([True, False, True, False, True])
    found = solved([(0, 1, 2), (2, 3), (3, 4), (0, 1, 4), (2, 4)], secret)
    np.testing.assert_array_equal(found[:2], 0)
    np.testing.assert_allclose(found[2:], [0.5, -0.5, 0.5], atol=0.03)


def test_the_equations_are_counted_and_their_rank_with_them() -> None:
    """By hand: a circulant of full rank, a row fewer, two clients that always come together, and nobody at all."""
    secret = np.array([True, False, True, False, True])
    for cohorts, wanted in (
        (FULL, (5, 5, 5, 5)),
        (FULL[:4], (4, 5, 4, 0)),
        ([*FULL, *FULL], (10, 5, 5, 5)),
        ([(0, 1, 2), (2, 3), (3, 4), (0, 1, 4), (2, 4)], (5, 5, 4, 3)),
        ([(0, 1, 2, 3, 4)] * 6, (6, 5, 1, 0)),
        ([], (0, 5, 0, 0)),
    ):
        setup, ask, events = by_hand(cohorts, secret)
        state = PROLIN.start(setup, ask)
        for event in events:
            state = PROLIN.step(state, event)
        assert PROLIN.equations is not None
        assert PROLIN.equations(state) == Equations(*wanted)


def test_the_mean_over_sums_blurs_what_the_equations_tell() -> None:
    secret = np.array([True, False, False, False, False])
    setup, ask, events = by_hand(FULL, secret)
    found = fold(ATTACKS["property_sum"].signal, setup, ask, events, lambda _: pytest.fail("not asked"))
    # Client 0 is in three sums of three, each of which says (1 - 3/2); client 3 is in one of them and two others.
    assert found[0] == pytest.approx(found.max())
    assert found[0] < 0
    two = fold(ATTACKS["property_sum"].signal, setup, ask, events[:7], lambda _: pytest.fail("not asked"))
    assert two[0] == pytest.approx(two[1]) == pytest.approx(two[2])


def test_singled_out_against_the_rows_that_span() -> None:
    """A client is determined where its unit vector is a combination of the rows of A."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        rows = (rng.random((rng.integers(1, 7), 6)) < 0.5).astype(np.float64)
        units = np.eye(6)
        spanned = [np.linalg.matrix_rank(np.vstack([rows, unit])) == np.linalg.matrix_rank(rows) for unit in units]
        np.testing.assert_array_equal(singled_out(rows.T @ rows)[1], spanned)


def test_a_mark_of_the_property_that_moved_gives_a_client_away() -> None:
    study = client_property_study(4, worlds=6)
    found = signals(ATTACKS["zero_property"], study)
    np.testing.assert_array_equal(found, study.members)
    assert isinstance(study.ask, ClientPropertyAsk)
    np.testing.assert_array_equal(np.flatnonzero(prolin.marks(study.ask)), [12])
    dense = dataclasses.replace(study.ask.population, x=study.ask.population.x + 100)
    blind = dataclasses.replace(study, ask=dataclasses.replace(study.ask, population=dense))
    np.testing.assert_array_equal(signals(ATTACKS["zero_property"], blind), 0.5)


# Batches.


def test_features_are_pooled_sizes_of_weights_of_length_one() -> None:
    like = {"a.bias": np.zeros(3), "b.weight": np.zeros((2, 256))}
    entries = np.arange(512.0) * np.where(np.arange(512) % 2, 1, -1)
    found = batches.features(np.concatenate([np.full(3, 1e6), entries]), like)
    largest = np.arange(512).reshape(64, 8)[:, -1]
    np.testing.assert_allclose(found, largest / np.linalg.norm(largest))
    np.testing.assert_array_equal(batches.features(np.zeros(515), like), 0)
    only = batches.features(np.array([3.0, -4.0]), {"b": np.zeros(2)})
    np.testing.assert_allclose(only, [0.6, 0.8])


def test_a_round_is_never_judged_by_its_own_block() -> None:
    """Practice of a block that says the opposite turns the other blocks' scores round, and not its own."""
    rng = np.random.default_rng(5)
    truth = np.arange(16) % 2 == 1

    def seen(turned: range) -> dict[int, batches.Round]:
        made = {}
        for number in range(1, 17):
            tried = rng.standard_normal((2 * batches.PRACTISED, 3)) * 0.1
            tried[batches.PRACTISED :, 0] += 1
            tried = tried[::-1] if number in turned else tried
            made[number] = batches.Round(np.array([float(truth[number - 1]), 0, 0]), tried)
        return made

    right = batches.judged(seen(range(0)), 16)
    assert auc(right, truth) == 1
    three_blocks = batches.judged(seen(range(5, 17)), 16)  # blocks are rounds 1 to 4, 5 to 8, ...
    assert auc(three_blocks[:4], truth[:4]) == 0
    some = {number: each for number, each in seen(range(0)).items() if number in (1, 2, 6)}
    np.testing.assert_array_equal(batches.judged(some, 16)[[2, 3, 4, 6, 15]], 0.5)


def test_rounds_of_one_block_have_nobody_to_judge_them() -> None:
    with pytest.raises(NotVisible, match="one block"):
        batches.judged({1: batches.Round(np.zeros(3), np.zeros((4, 3)))}, 1)


def test_from_the_models_alone_as_from_the_update_where_everybody_else_is_known() -> None:
    """A server that subtracts all other updates from the movement is left with the client's own."""
    study = batch_study(6, worlds=1, rounds=4)
    own, rest = (signals(ATTACKS[name], study) for name in ("batch_property", "batch_property_models"))
    np.testing.assert_array_equal(own, rest)
    alone = signals(ATTACKS["batch_property_models"], study, "client:1")
    assert not np.array_equal(own, alone)


def test_the_more_clients_the_less_a_sum_tells() -> None:
    """The update of one client, added to nobody's and to those of 60 others, in worlds made by hand."""
    found = []
    for crowd in (0, 60):
        scores, members = [], []
        for seed in range(3):
            study = batch_study(8 + seed, worlds=1)
            world, setup, ask = study.worlds[0], study.setup, study.ask
            assert isinstance(ask, BatchAsk)
            assert setup.train is not None
            rng, events = np.random.default_rng(seed), []
            for event in view(world, SERVER):
                if event.kind == "train" and event.receiver == client(0):
                    events.append(event)
                    model = event.arrays
                    events += [dataclasses.replace(event, receiver=client(1 + k)) for k in range(crowd)]
                if event.kind == "train-reply" and event.sender == client(0):
                    rows = rng.integers(len(ask.population), size=(crowd, 16))
                    others = [setup.train(model, ask.population.x[r], ask.population.y[r], rng) for r in rows]
                    every = [event.arrays, *others]
                    mean = {
                        name: np.mean([np.asarray(each[name], np.float64) for each in every], axis=0)
                        - np.asarray(array, np.float64)
                        for name, array in model.items()
                    }
                    facts: dict[str, Any] = {"clients": 1 + crowd, "weight": 16.0 * (1 + crowd)}
                    masked = {"masked": np.zeros(3)}
                    for k in range(1 + crowd):
                        events.append(Event(event.round, "train-reply", client(k), SERVER, masked, {}))
                    events.append(Event(event.round, AGGREGATE, SERVER, SERVER, frozen(mean), facts))
            everybody = dataclasses.replace(setup, clients=1 + crowd)
            scores.append(fold(ATTACKS["batch_property"].signal, everybody, ask, events, world.released))
            members.append(world.members)
        found.append(auc(np.concatenate(scores), np.concatenate(members)))
    assert found[0] > 0.95
    assert found[1] < 0.8


# Games.

TABLE = {"source": "diabetes", "clients": 4, "candidates": 200, "population": 100, "test": 40}


def exam_of(drawn: Draw, kind: str) -> Exam:
    return next(each for each in drawn.exams if each.kind == kind)


def test_clients_with_the_property_have_their_share_of_it_and_the_others_none() -> None:
    chosen = worlds.scenario(data=TABLE, worlds=20)
    pool = worlds.pool(chosen)
    game = ClientPropertyGame(name="client_property", column="sex", value="1", share=0.5, records=10)
    drawn = draw(chosen, pool, game, frozenset({3}))
    main, null = exam_of(drawn, "main"), exam_of(drawn, "null")
    assert isinstance(main.ask, ClientPropertyAsk)
    assert main.ask.clients.tolist() == [0, 1, 2]
    has, labels = pool.columns["sex"].astype(str) == "1", set()
    for place, members in zip(main.worlds, main.members, strict=True):
        rows = drawn.worlds[place].rows
        assert len(np.unique(np.concatenate(rows))) == 40
        assert [int(has[rows[k]].sum()) for k in range(3)] == [5 * int(member) for member in members]
        labels |= {tuple(np.bincount(pool.y[each], minlength=pool.classes)) for each in rows}
    assert len(labels) == 1
    assert (null.members != main.members).any()
    population = pool.population
    assert not set(population) & {int(row) for world in drawn.worlds for rows in world.rows for row in rows}
    for sets, holders in ((main.ask.no, 0), (main.ask.yes, 5)):
        assert (has[population[sets]].sum(axis=1) == holders).all()
        assert {tuple(np.bincount(pool.y[population[each]], minlength=pool.classes)) for each in sets} == labels


def test_a_client_trains_on_another_batch_in_each_round() -> None:
    chosen = worlds.scenario(data=TABLE, worlds=6, federation={"rounds": 7})
    pool = worlds.pool(chosen)
    game = BatchGame(name="batches", column="sex", value="1", client=1, records=6)
    drawn = draw(chosen, pool, game, frozenset())
    main = exam_of(drawn, "main")
    assert isinstance(main.ask, BatchAsk)
    assert (main.ask.client, main.ask.count) == (1, 7)
    has = pool.columns["sex"].astype(str) == "1"
    for place, members in zip(main.worlds, main.members, strict=True):
        world = drawn.worlds[place]
        batches_of = [rows_in(world, 1, number) for number in range(1, 8)]
        assert [has[rows].mean() for rows in batches_of] == members.astype(float).tolist()
        assert {tuple(np.bincount(pool.y[rows], minlength=pool.classes)) for rows in batches_of} == {
            tuple(np.bincount(pool.y[world.rows[1]], minlength=pool.classes))
        }
        others = np.concatenate([world.rows[k] for k in (0, 2, 3)])
        assert not set(others) & set(np.concatenate(batches_of))
        assert rows_in(world, 0, 5) is world.rows[0]
    assert all(len(each) == 6 for w in exam_of(drawn, "planted").worlds for each in drawn.worlds[w].rows)


def test_only_rounds_for_which_the_client_was_drawn_are_asked_about() -> None:
    chosen = worlds.scenario(data=TABLE, worlds=6, federation={"rounds": 20, "clients_per_round": 1})
    game = BatchGame(name="batches", column="sex", value="1", client=1, records=6)
    main = (drawn := draw(chosen, worlds.pool(chosen), game, frozenset())).exams[0]
    put = asked(main, frozenset())
    for place, row in zip(main.worlds, put, strict=True):
        there = [1 in cohort(chosen.seed, drawn.worlds[place], number) for number in range(1, 21)]
        assert row.tolist() == there
    assert 0 < put.sum() < put.size / 2


def test_clients_for_whom_no_records_are_left_are_refused() -> None:
    chosen = worlds.scenario(data={**TABLE, "clients": 10}, worlds=6)
    game = BatchGame(name="batches", column="sex", value="1", records=36)
    with pytest.raises(ScenarioError, match=r"9 other clients with 36 records each need 324, and \d+ are left; set"):
        draw(chosen, worlds.pool(chosen), game, frozenset())


@pytest.mark.parametrize("records", [2, 3])
def test_worlds_draw_from_blocks_of_records_and_say_so_where_there_are_too_few(records: int) -> None:
    chosen = worlds.scenario(data={**TABLE, "clients": 2}, worlds=20, federation={"rounds": 5})
    pool = worlds.pool(chosen)
    held = ClientPropertyGame(name="client_property", column="sex", value="1", records=records)
    batch = BatchGame(name="batches", column="sex", value="1", client=1, records=records)
    for game in (held, batch):
        main, null = (exam_of(draw(chosen, pool, game, frozenset()), kind) for kind in ("main", "null"))
        drawn = draw(chosen, pool, game, frozenset())
        assert main.groups is not None
        assert null.groups is None
        asked: dict[int, set[int]] = {}
        for place, group in zip(main.worlds, main.groups, strict=True):
            world = drawn.worlds[place]
            rows = world.batches[1] if world.batches is not None else world.rows
            asked.setdefault(int(group), set()).update(np.concatenate(rows).tolist())
        assert len(asked) >= 5
        assert sum(map(len, asked.values())) == len(set().union(*asked.values()))
        assert main.caveat is None
        few = draw(chosen, pool, game.model_copy(update={"records": 30}), frozenset()).exams[0]
        assert few.groups is not None
        assert len(set(few.groups.tolist())) == 20
        assert few.caveat is not None
        assert "not other records" in few.caveat


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"column": "shoe"}, "no column 'shoe'; columns here: age, sex"),
        ({"value": "maybe"}, "no value 'maybe'; values here: 1, 2"),
        ({"records": 90}, "too few records of class .* set `records` of the game lower"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(changes: dict[str, Any], words: str) -> None:
    chosen = worlds.scenario(data=TABLE)
    pool = worlds.pool(chosen)
    held = ClientPropertyGame(name="client_property", column="sex", value="1")
    batch = BatchGame(name="batches", column="sex", value="1")
    for game in (held.model_copy(update=changes), batch.model_copy(update=changes)):
        with pytest.raises(ScenarioError, match=words) as refusal:
            draw(chosen, pool, game, frozenset())
        assert "\n" not in str(refusal.value)
