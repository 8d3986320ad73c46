"""How secrets are drawn: exchangeable, independent, equal in everything but the secret."""

import numpy as np
import pytest
from scipy.stats import binomtest

from fedsim.errors import ScenarioError
from fedsim.game import Draw, Exam, asked, draw
from fedsim.scenario import LabelGame, PropertyGame
from fedsim.views import LabelAsk, PropertyAsk, RecordAsk
from tests import worlds


def _exam(drawn: Draw, kind: str) -> Exam:
    return next(exam for exam in drawn.exams if exam.kind == kind)


def test_a_record_trains_in_a_world_exactly_when_its_coin_says_so_and_always_at_its_owner() -> None:
    chosen = worlds.scenario(data={"background": 10}, worlds=12)
    pool = worlds.pool(chosen)
    drawn = draw(chosen, pool, "record", frozenset())
    main = _exam(drawn, "main")
    for place, members in zip(main.worlds, main.members, strict=True):
        world = drawn.worlds[place]
        trained = np.concatenate(world.rows)
        assert set(trained) == set(pool.candidates[members]) | set(pool.background)
        assert len(trained) == len(set(trained))
        for party, rows in enumerate(world.rows):
            assert (pool.owner[rows] == party).all()


def test_controls_never_touch_the_candidates() -> None:
    chosen = worlds.scenario(worlds=6)
    pool = worlds.pool(chosen)
    drawn = draw(chosen, pool, "record", frozenset({3}))
    null, planted = _exam(drawn, "null"), _exam(drawn, "planted")
    in_main = {row for place in _exam(drawn, "main").worlds for rows in drawn.worlds[place].rows for row in rows}
    assert not in_main & set(pool.null)
    assert null.members.shape == (6, len(pool.null))
    in_planted = {row for place in planted.worlds for rows in drawn.worlds[place].rows for row in rows}
    assert in_planted <= set(pool.planted)
    assert any(len(drawn.worlds[place].rows[3]) for place in planted.worlds)
    assert set(planted.worlds).isdisjoint(null.worlds)


def test_the_coins_are_fair_and_independent() -> None:
    """Two-sided binomial tests at 1e-6 each: false alarms in 1e-5 of seeds. The last line catches exact halves."""
    chosen = worlds.scenario(worlds=200, controls={"planted_worlds": 0})
    members = _exam(draw(chosen, worlds.pool(chosen), "record", frozenset()), "main").members
    for ones, total in (
        (members.sum(), members.size),
        ((members[:, :-1] == members[:, 1:]).sum(), members[:, 1:].size),
        ((members[:-1] == members[1:]).sum(), members[1:].size),
    ):
        assert binomtest(int(ones), int(total)).pvalue > 1e-6
    columns = members.sum(axis=0)
    assert (
        columns.var() > 200 / 4 * 0.3
    )  # binomial variance 50; exact halves have 0 (chi-square with 47 degrees: below 0.3 in < 1e-6)


def test_nobody_is_asked_about_its_own_records() -> None:
    chosen = worlds.scenario()
    drawn = draw(chosen, worlds.pool(chosen), "record", frozenset())
    for exam in drawn.exams:
        assert isinstance(exam.ask, RecordAsk)
        mask = asked(exam, frozenset({1, 2}))
        assert (mask == ~np.isin(exam.ask.items.owner, [1, 2])[None, :]).all()
        assert asked(exam, frozenset()).all()


def test_a_world_is_never_its_own_reference() -> None:
    chosen = worlds.scenario()
    for exam in draw(chosen, worlds.pool(chosen), "record", frozenset()).exams:
        assert not exam.references.diagonal().any()
        assert exam.references.sum() == exam.members.shape[0] * (exam.members.shape[0] - 1)


PROPERTY = PropertyGame(name="property", column="sex", value="Female", shares=(0.5, 0.2), records=60)
TABLE = {"source": "diabetes", "clients": 3, "candidates": 160, "population": 100, "test": 40}


def test_property_worlds_differ_in_the_property_and_in_nothing_else() -> None:
    chosen = worlds.scenario(data=TABLE, worlds=10)
    pool = worlds.pool(chosen)
    column = pool.columns["sex"].astype(str)
    game = PROPERTY.model_copy(update={"value": sorted(set(column))[0]})
    drawn = draw(chosen, pool, game, frozenset())
    main, null, planted = (_exam(drawn, kind) for kind in ("main", "null", "planted"))
    for exam, shares in ((main, (0.5, 0.2)), (null, (0.35, 0.35)), (planted, (1.0, 0.0))):
        mixes = set()
        for place, secret in zip(exam.worlds, exam.members[:, 0], strict=True):
            rows = np.concatenate(drawn.worlds[place].rows)
            assert len(set(rows)) == len(rows)
            assert abs((column[rows] == game.value).mean() - shares[int(secret)]) < 0.02
            mixes.add((len(rows), int(pool.y[rows].sum())))
        assert max(size for size, _ in mixes) - min(size for size, _ in mixes) <= 2  # rounding of the cells
        assert max(ones for _, ones in mixes) - min(ones for _, ones in mixes) <= 2
    assert isinstance(main.ask, PropertyAsk)
    assert (main.ask.no.owner == -1).all()


def test_victims_and_the_attackers_own_worlds_share_no_record() -> None:
    chosen = worlds.scenario(data=TABLE, worlds=10)
    pool = worlds.pool(chosen)
    game = PROPERTY.model_copy(update={"value": sorted(set(pool.columns["sex"].astype(str)))[0]})
    drawn = draw(chosen, pool, game, frozenset())
    main = _exam(drawn, "main")
    sides: tuple[set[int], set[int]] = (set(), set())
    for place, victim in zip(main.worlds, main.targets, strict=True):
        sides[int(victim)].update(int(row) for rows in drawn.worlds[place].rows for row in rows)
    assert not sides[0] & sides[1]
    assert not (sides[0] | sides[1]) & set(pool.population.tolist())
    assert (main.references == (main.targets[:, None] & ~main.targets[None, :])).all()
    assert main.facts["property_label_correlation"] >= 0


def test_a_property_that_cannot_be_drawn_is_refused_with_what_is_possible() -> None:
    chosen = worlds.scenario(data=TABLE)
    pool = worlds.pool(chosen)
    value = sorted(set(pool.columns["sex"].astype(str)))[0]
    for game, words in (
        (PROPERTY.model_copy(update={"column": "shoe"}), "no column 'shoe'"),
        (PROPERTY.model_copy(update={"value": "maybe"}), "no value 'maybe'"),
        (PROPERTY.model_copy(update={"value": value, "records": 5000}), "at most"),
    ):
        with pytest.raises(ScenarioError, match=words):
            draw(chosen, pool, game, frozenset())


def test_label_worlds_give_the_client_some_classes_and_always_as_many_records() -> None:
    chosen = worlds.scenario(data={"candidates": 200}, worlds=30)
    pool = worlds.pool(chosen)
    drawn = draw(chosen, pool, LabelGame(name="labels", client=2), frozenset())
    main, null = _exam(drawn, "main"), _exam(drawn, "null")
    assert isinstance(main.ask, LabelAsk)
    assert main.quantity is not None
    for place, members, counts in zip(main.worlds, main.members, main.quantity, strict=True):
        rows = drawn.worlds[place].rows
        own = pool.y[rows[2]]
        assert (np.bincount(own, minlength=10) == counts).all()
        assert ((counts > 0) == members).all()
        assert len({len(each) for each in rows}) == 1
        flat = np.concatenate(rows)
        assert len(set(flat)) == len(flat)
    assert null.quantity is None
    assert (null.members != main.members).any()
