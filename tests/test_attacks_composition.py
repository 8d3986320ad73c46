"""Known answers and laws of the attacks that read classes off the last layer."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attacks import ATTACKS, composition, labels
from attacks.labels import Moved
from fedsim.attack import fold
from fedsim.data import draw_pool, load_dataset
from fedsim.errors import NotVisible, ScenarioError
from fedsim.games import draw
from fedsim.randomness import generator
from fedsim.scenario import LabelGame, Scenario
from fedsim.transcript import AGGREGATE, SERVER, Event, client, frozen
from fedsim.views import Floats, LabelAsk, Public, Records, softmax
from tests import worlds
from tests.leaky_worlds import label_study, public, view

FEATURES, CLASSES = 5, 4


def one_step(x: Floats, y: np.ndarray[Any, np.dtype[np.int64]], rate: float = 1e-6) -> tuple[Public, Moved]:
    """Return a full-batch step of softmax regression from zero, so short that the answers stay uniform."""
    error = 1 / CLASSES - np.eye(CLASSES)[y]  # [n, classes]
    before = {"layer0.weight": np.zeros((CLASSES, x.shape[1])), "layer0.bias": np.zeros(CLASSES)}
    after = {"layer0.weight": -rate * error.T @ x / len(y), "layer0.bias": -rate * error.mean(axis=0)}
    setup = dataclasses.replace(public(CLASSES, epochs=1), learning_rate=rate)
    return setup, Moved(frozen(before), frozen(after), 1, float(len(y)))


def asked(x: Floats, y: np.ndarray[Any, np.dtype[np.int64]]) -> LabelAsk:
    return LabelAsk(0, Records(x.astype(np.float32), y, np.full(len(y), -1)), CLASSES)


def every_class(rng: np.random.Generator) -> LabelAsk:
    """Public records whose features are all 1."""
    y = np.arange(12) % CLASSES
    return asked(np.ones((12, FEATURES)), rng.permutation(y))


@pytest.mark.parametrize("counts", [(12, 0, 0, 0), (0, 6, 6, 0), (4, 4, 0, 4)])
def test_llg_is_exact_where_the_classes_held_are_held_alike(counts: tuple[int, ...]) -> None:
    """Untrained and with features of 1, a class's sum is FEATURES (1/CLASSES - its share) times a constant: the labels
    placed turn by turn at the classes held never lift them above those not held before all are placed.
    """
    y = np.repeat(np.arange(CLASSES), counts)
    setup, update = one_step(np.ones((len(y), FEATURES)), y)
    found = composition.by_sign(setup, every_class(np.random.default_rng(1)), update)
    np.testing.assert_array_equal(found, counts)


def test_llg_finds_every_class_above_its_part_and_places_all_labels() -> None:
    rng = np.random.default_rng(2)
    counts = np.array([9, 0, 2, 5])
    y = np.repeat(np.arange(CLASSES), counts)
    setup, update = one_step(rng.random((16, FEATURES)), y)
    found = composition.by_sign(setup, every_class(rng), update)
    assert found.sum() == 16
    assert found[0] > found[3] > found[1] == 0


def test_llg_plus_is_exact_where_records_of_a_class_are_alike() -> None:
    """With features of 1 the offset of a class is 1/CLASSES and its impact -1, both times FEATURES and the steps."""
    for counts in ((1, 0, 7, 4), (3, 3, 3, 3), (0, 0, 0, 5), (10, 1, 0, 0)):
        y = np.repeat(np.arange(CLASSES), counts)
        setup, update = one_step(np.ones((len(y), FEATURES)), y)
        found = composition.by_impact(setup, every_class(np.random.default_rng(3)), update)
        np.testing.assert_array_equal(found, counts)


def test_llg_plus_takes_off_what_other_classes_add() -> None:
    """Records of class c have features of level[c], so that offsets differ: against their closed form."""
    level, counts = np.array([1.0, 1.0, 1.0, 4.0]), np.array([3, 0, 4, 5])
    y = np.repeat(np.arange(CLASSES), counts)
    setup, update = one_step(np.outer(level[y], np.ones(FEATURES)), y)
    public_y = np.arange(8) % CLASSES
    added = FEATURES * level[:, None] * (1 / CLASSES - np.eye(CLASSES))  # [class of the records, class of the row]
    offset = (added.sum(axis=0) - np.diag(added)) / (CLASSES - 1)
    impact = float((np.diag(added) - offset).mean()) / 12
    expected = composition.placed(counts @ added / 12 - offset, impact, 12)
    found = composition.by_impact(setup, asked(np.outer(level[public_y], np.ones(FEATURES)), public_y), update)
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, composition.placed(counts @ added / 12, impact, 12))


def test_the_composition_is_exact_where_the_public_records_are_those_of_the_client_in_another_mix() -> None:
    """Two records of each class, held in different numbers, in proportion within a class: the class means are equal."""
    rng = np.random.default_rng(4)
    x, y = rng.random((2 * CLASSES, FEATURES)), np.repeat(np.arange(CLASSES), 2)
    counts = np.array([2, 6, 0, 10])
    held = np.repeat(np.arange(2 * CLASSES), np.repeat(counts // 2, 2))
    setup, update = one_step(x[held], y[held])
    about = asked(x, y)
    np.testing.assert_allclose(composition.by_composition(setup, about, update), counts, atol=1e-4)
    # Neither the learning rate nor the number of steps is used.
    other = dataclasses.replace(setup, learning_rate=7.0, local_epochs=3)
    np.testing.assert_allclose(composition.by_composition(other, about, update), counts, atol=1e-4)
    assert not np.allclose(composition.by_impact(other, about, update), composition.by_impact(setup, about, update))


def test_no_movement_says_nothing_of_any_class() -> None:
    setup, update = one_step(np.ones((8, FEATURES)), np.zeros(8, dtype=np.int64))
    still = update._replace(reply=update.broadcast)
    ask = every_class(np.random.default_rng(5))
    for estimate in (composition.by_sign, composition.by_composition):
        np.testing.assert_array_equal(estimate(setup, ask, still), np.full(CLASSES, 2.0))


def test_what_is_missing_is_said() -> None:
    setup, update = one_step(np.ones((8, FEATURES)), np.zeros(8, dtype=np.int64))
    few = asked(np.ones((3, FEATURES)), np.array([0, 1, 2]))
    with pytest.raises(NotVisible, match="no public records of class 3"):
        composition.by_impact(setup, few, update)
    biases = update._replace(broadcast={"b": np.zeros(CLASSES)}, reply={"b": np.zeros(CLASSES)})
    with pytest.raises(NotVisible, match="no last matrix"):
        composition.by_sign(setup, few, biases)


def test_a_sum_is_unmixed_to_the_mean_of_the_clients_in_it() -> None:
    """Three clients of eight records, two of them in each of two sums, all by hand; and the pooled counts of all."""
    x = np.ones((8, FEATURES))
    held = [np.repeat(np.arange(CLASSES), counts) for counts in ((8, 0, 0, 0), (4, 4, 0, 0), (0, 2, 6, 0))]
    steps = [one_step(x, y)[1] for y in held]
    setup = dataclasses.replace(one_step(x, held[0])[0], clients=3)
    before, events = steps[0].broadcast, []
    for number, members in ((1, (0, 1)), (2, (1, 2))):
        events += [Event(number, "train", SERVER, client(k), before, {}) for k in members]
        events += [Event(number, "train-reply", client(k), SERVER, {"masked": np.zeros(3)}, {}) for k in members]
        mean = {
            name: np.mean([np.asarray(steps[k].reply[name], np.float64) for k in members], axis=0) for name in before
        }
        facts: dict[str, Any] = {"clients": 2, "weight": 16.0}
        events.append(Event(number, AGGREGATE, SERVER, SERVER, frozen(mean), facts))
    ask = every_class(np.random.default_rng(6))

    def counts_of(whom: int | None, signal: str = "pooled_unmixing") -> Floats:
        about = dataclasses.replace(ask, client=whom)
        return fold(ATTACKS[signal].signal, setup, about, events, lambda _: pytest.fail("not asked"))

    one, other = np.array([12, 4, 0, 0]), np.array([4, 6, 6, 0])
    np.testing.assert_allclose(counts_of(0), one / 2, atol=1e-3)
    np.testing.assert_allclose(counts_of(1), (one + other) / 4, atol=1e-3)
    np.testing.assert_allclose(counts_of(2), other / 2, atol=1e-3)
    np.testing.assert_allclose(counts_of(None), (one + other) / 4 * 3, atol=1e-3)
    with pytest.raises(NotVisible, match="any client"):
        counts_of(None, "label_unmixing")
    alike = [dataclasses.replace(e, facts={**e.facts, "weight": 2.0}) if e.kind == AGGREGATE else e for e in events]
    with pytest.raises(NotVisible, match="count alike"):
        fold(labels.POOLED_COUNTS, setup, ask, alike, lambda _: pytest.fail("not asked"))


def test_in_clear_the_pooled_histogram_is_the_sum_of_those_of_the_clients() -> None:
    study = label_study(0, worlds=1)
    world, setup = study.worlds[0], study.setup
    assert isinstance(study.ask, LabelAsk)
    seen, ask = view(world, "server"), study.ask

    def counts_of(whom: int | None, signal: str) -> Floats:
        about = dataclasses.replace(ask, client=whom)
        return fold(ATTACKS[signal].signal, setup, about, seen, world.released)

    each = [counts_of(k, "label_unmixing") for k in range(setup.clients)]
    for signal in ("label_unmixing", "pooled_unmixing"):
        np.testing.assert_allclose(counts_of(None, signal), np.sum(each, axis=0))


def test_histograms_blur_as_the_model_learns() -> None:
    """The error of the first step's histogram against that of the 400th, in twelve worlds: it grows in the mean."""
    study = label_study(1)
    assert isinstance(study.ask, LabelAsk)
    x, y = study.ask.population.x, study.ask.population.y
    centre, rng = {k: x[y == k] for k in range(8)}, np.random.default_rng(7)
    early: list[float] = []
    late: list[float] = []
    setup = dataclasses.replace(public(8, epochs=1), learning_rate=0.3)
    for _ in range(12):
        own = rng.choice(rng.choice(8, 4, replace=False), size=40)
        rows = np.concatenate([centre[k][rng.integers(20, size=(own == k).sum())] for k in np.unique(own)])
        truth = np.bincount(own, minlength=8)
        weight, bias = np.zeros((8, 10)), np.zeros(8)
        for number in range(400):
            error = softmax(rows @ weight.T + bias) - np.eye(8)[np.sort(own)]
            after = weight - 0.3 * error.T @ rows / 40, bias - 0.3 * error.mean(axis=0)
            if number in (0, 399):
                names = ("layer0.weight", "layer0.bias")
                before = frozen(dict(zip(names, (weight, bias), strict=True)))
                update = Moved(before, frozen(dict(zip(names, after, strict=True))), 1, 40.0)
                found = labels.unmixed(setup, study.ask, update)
                (late if number else early).append(np.abs(found - truth).mean())
            weight, bias = after
    assert np.mean(early) < 0.5
    assert np.mean(late) > 2 * np.mean(early)


# Whole runs.


def label_scenario(**changes: Any) -> Scenario:
    game = {"name": "labels", "client": "all"}
    base = {
        "data": {"source": "digits", "clients": 4, "candidates": 200, "population": 200, "test": 40},
        "model": {"name": "softmax"},
        "federation": {"rounds": 1, "local": {"epochs": 1, "batch_size": 1000, "learning_rate": 0.05}},
        "setups": ({"name": "secagg", "secure_aggregation": {"protocol": "masked", "threshold": 0.67}},),
        "audits": (
            {"name": "clear", "vantage": "server", "game": game, "attacks": ("label_unmixing", "pooled_unmixing")},
            {"name": "sum", "vantage": "server", "game": game, "attacks": ("label_unmixing", "pooled_unmixing")}
            | {"setup": "secagg"},
        ),
        "worlds": 4,
        "controls": {"planted_worlds": 0},
    }
    return worlds.scenario(**(base | changes))


def test_the_pooled_histogram_comes_through_secure_aggregation(tmp_path: Path) -> None:
    """One full-batch step from zero: what the server reads off the masked sum is what it reads off all updates, up to
    the fineness of the numbers and the little that the answers move in the step.
    """
    scenario = label_scenario()
    record = worlds.run(scenario, tmp_path / "run")
    found = {(each.audit, each.attack): each for each in record.findings}
    assert found["sum", "label_unmixing"].status == "not visible"
    for place in (("clear", "label_unmixing"), ("clear", "pooled_unmixing"), ("sum", "pooled_unmixing")):
        assert found[place].metrics["auc"].estimate == 1.0
        error = found[place].metrics["mae"].estimate
        assert error is not None
        assert error < 0.25


def test_worlds_of_pooled_labels_hold_the_classes_drawn_and_no_others() -> None:
    scenario = label_scenario(worlds=20)
    pool = draw_pool(load_dataset(scenario.data), scenario.data, generator(scenario.seed, "pool"))
    drawn = draw(scenario, pool, LabelGame(name="labels", client="all"), frozenset())
    main = drawn.exams[0]
    assert isinstance(main.ask, LabelAsk)
    assert main.ask.client is None
    assert main.quantity is not None
    assert (main.owner == -1).all()
    for place, counts in zip(main.worlds, main.quantity, strict=True):
        rows = drawn.worlds[place].rows
        assert (np.bincount(pool.y[np.concatenate(rows)], minlength=10) == counts).all()
        assert len({len(each) for each in rows}) == 1
    assert (main.members == (main.quantity > 0)).all()
    assert 0.2 < main.members.mean() < 0.8
    sized = draw(scenario, pool, LabelGame(name="labels", client="all", records=2), frozenset())
    assert {len(each) for world in sized.worlds for each in world.rows} == {2}
    with pytest.raises(ScenarioError, match="set `records` of the labels game lower"):
        draw(scenario, pool, LabelGame(name="labels", client="all", records=40), frozenset())
