"""The property game in all its variants: worlds differ in the secret and in nothing else that could give it away."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from attacks import ATTACKS
from fedsim.data import Pool, status
from fedsim.errors import ScenarioError
from fedsim.game import Draw, draw, title
from fedsim.prepare import prepare
from fedsim.scenario import PropertyGame, Scenario
from fedsim.scenario_file import Loaded
from fedsim.views import PropertyAsk
from tests import worlds

TABLE = {"source": "diabetes", "clients": 4, "candidates": 180, "population": 100, "test": 40}


def _game(**changes: Any) -> PropertyGame:
    return PropertyGame.model_validate({"name": "property", "column": "sex", "value": "1", "records": 24, **changes})


def _drawn(game: PropertyGame, **data: Any) -> tuple[Scenario, Pool, Draw]:
    chosen = worlds.scenario(data={**TABLE, **data}, worlds=8)
    pool = worlds.pool(chosen)
    return chosen, pool, draw(chosen, pool, game, frozenset())


@pytest.mark.parametrize("scheme", ["iid", "dirichlet", "quantity"])
def test_only_the_clients_own_data_has_the_share_and_the_others_have_the_middle(scheme: str) -> None:
    _, pool, drawn = _drawn(_game(client=2), partition={"scheme": scheme})
    has = pool.columns["sex"].astype(str) == "1"
    main, null, planted = drawn.exams
    assert isinstance(main.ask, PropertyAsk)
    assert main.ask.client == 2
    assert (main.owner == 2).all()
    for exam in drawn.exams:
        mixes = set()
        for place, secret in zip(exam.worlds, exam.members[:, 0], strict=True):
            rows = drawn.worlds[place].rows
            mine, rest = rows[2], np.concatenate([each for k, each in enumerate(rows) if k != 2])
            assert len(np.unique(np.concatenate(rows))) == 24 * 4
            assert len(mine) == 24
            assert has[rest].sum() == round(0.35 * 72)
            if exam is main:
                assert has[mine].sum() == round((0.2 if secret else 0.5) * 24)
            if exam is null:
                assert has[mine].sum() == (12 + 5) // 2
            mixes.add((*np.bincount(pool.y[mine], minlength=2), *np.bincount(pool.y[rest], minlength=2)))
        assert len(mixes) == 1, "size and label mix, of the client and of the others, are the same in all worlds"
        assert len(np.unique(exam.blind, axis=0)) == 1
    counts = {int(has[drawn.worlds[place].rows[2]].sum()) for place in planted.worlds}
    assert max(counts) - min(counts) > 12 - 5


def test_a_natural_client_holds_its_own_records_and_so_do_the_others() -> None:
    game = _game(column="sex", value="0", shares=(0.2, 0.5), client=0, records=20)
    if not any(each.name == "heart_disease" and each.present for each in status()):
        pytest.skip("the files of heart_disease are not in the data folder")
    natural = {"scheme": "natural", "column": "hospital"}
    _, pool, drawn = _drawn(game, source="heart_disease", candidates=600, null_candidates=4, partition=natural)
    has = pool.columns["sex"].astype(str) == "0"
    others = set()
    for place, secret in zip(drawn.exams[0].worlds, drawn.exams[0].members[:, 0], strict=True):
        rows = drawn.worlds[place].rows
        for client, own in enumerate(rows):
            assert (pool.owner[own] == client).all()
        assert has[rows[0]].sum() == (10 if secret else 4)
        others.add(tuple(len(own) for own in rows[1:]))
    assert len(others) <= 2, "sizes differ between the two halves at most"


def test_victims_of_a_client_game_share_no_record_with_the_attackers_worlds() -> None:
    _, _, drawn = _drawn(_game(client=1))
    main = drawn.exams[0]
    sides: tuple[set[int], set[int]] = (set(), set())
    for place, victim in zip(main.worlds, main.targets, strict=True):
        sides[int(victim)].update(int(row) for rows in drawn.worlds[place].rows for row in rows)
    assert sides[0]
    assert not sides[0] & sides[1]


def test_existence_is_one_record_at_least() -> None:
    _, pool, drawn = _drawn(_game(shares=(0, 0.001), records=60))
    has = pool.columns["sex"].astype(str) == "1"
    main = drawn.exams[0]
    for place, secret in zip(main.worlds, main.members[:, 0], strict=True):
        assert has[np.concatenate(drawn.worlds[place].rows)].sum() == int(secret)
    assert isinstance(main.ask, PropertyAsk)
    assert main.ask.shares == (0, 1 / 60), "as whole records make them: n_leaked counts in these"
    assert len(main.ask.yes) == len(main.ask.no)


def test_a_grid_of_shares_has_the_share_as_its_quantity() -> None:
    shares = (0.2, 0.3, 0.4, 0.5, 0.6)
    _, pool, drawn = _drawn(_game(shares=shares, records=40))
    has = pool.columns["sex"].astype(str) == "1"
    main, null, planted = drawn.exams
    assert main.quantity is not None
    for place, share, secret in zip(main.worlds, main.quantity[:, 0], main.members[:, 0], strict=True):
        assert has[np.concatenate(drawn.worlds[place].rows)].sum() == round(share * 40)
        assert secret == (share > 0.4)
    assert set(main.quantity[:, 0]) <= set(shares)
    assert len(set(main.quantity[:, 0])) > 2
    assert len({int(has[np.concatenate(drawn.worlds[place].rows)].sum()) for place in null.worlds}) == 1
    assert null.quantity is not None
    assert len(set(null.quantity[:, 0])) > 2
    assert planted.quantity is not None
    assert len(set(planted.quantity[:, 0])) == 2
    assert len(np.unique(main.blind, axis=0)) == 1


def test_a_sub_group_has_all_its_values() -> None:
    chosen = worlds.scenario(data=TABLE, worlds=8)
    pool = worlds.pool(chosen)
    ill = np.where(pool.columns["age"] > 45, "old", "young")
    pool = worlds.with_columns(pool, stage=ill)
    game = PropertyGame(name="property", where={"sex": "1", "stage": "old"}, shares=(0.3, 0.1), records=40)
    drawn = draw(chosen, pool, game, frozenset())
    has = (pool.columns["sex"].astype(str) == "1") & (ill == "old")
    main = drawn.exams[0]
    for place, secret in zip(main.worlds, main.members[:, 0], strict=True):
        assert has[np.concatenate(drawn.worlds[place].rows)].sum() == (4 if secret else 12)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shares": (0.5, 0.51), "records": 10}, "so there is no secret"),
        ({"client": 4}, "no client 4"),
        ({"client": 0, "records": 60}, "the clients not asked about have at most"),
        ({"column": None, "value": None, "where": {"sex": "1", "hat": "red"}}, "no column 'hat'"),
        ({"column": None, "value": None, "where": {"sex": "7"}}, "no value '7'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ScenarioError, match=words):
        _drawn(_game(**changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shares": (0.5, 0.2, 0.3)}, "must rise"),
        ({"shares": (0.5, 0.5)}, "no secret"),
        ({"where": {"sex": "1"}}, "got column and value and where"),
        ({"value": None}, "got column;"),
        ({"column": None, "value": None}, "got no property"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        _game(**changes)


def test_different_games_have_different_titles() -> None:
    where = {"column": None, "value": None, "where": {"sex": "1", "age": "59"}}
    games = [_game(), _game(client=1), _game(shares=(0.5, 0.3)), _game(shares=(0.1, 0.2, 0.5)), _game(**where)]
    assert len({title(game) for game in games}) == len(games)


DIGITS = {"source": "digits", "clients": 3, "candidates": 300, "population": 200, "test": 40}


@pytest.mark.parametrize("name", ["rotation", "stroke_noise"])
def test_a_visual_property_is_in_its_share_of_the_images_and_in_no_other(name: str) -> None:
    plain = worlds.pool(worlds.scenario(data=DIGITS))
    chosen = worlds.scenario(data={**DIGITS, "visual": {"name": name, "share": 0.4, "angle": 90}}, worlds=6)
    pool = worlds.pool(chosen)
    carries = pool.columns["visual"] == name
    assert carries.sum() == round(0.4 * len(pool.y))
    assert (pool.x[~carries] == plain.x[~carries]).all()
    assert (pool.y == plain.y).all()
    if name == "rotation":  # by a right angle every pixel only moves
        np.testing.assert_allclose(pool.x[carries], np.rot90(plain.x[carries], axes=(2, 3)), atol=1e-6)
    else:
        moved = pool.x[carries] != plain.x[carries]
        assert moved[plain.x[carries] >= 0.1].mean() > 0.5
        assert not moved[plain.x[carries] < 0.1].any()
    assert pool.x.min() >= 0
    assert pool.x.max() <= 1
    assert worlds.pool(chosen).digest == pool.digest
    game = PropertyGame(name="property", column="visual", value=name, shares=(0.2, 0.6), records=90)
    drawn = draw(chosen, pool, game, frozenset())
    for place, secret in zip(drawn.exams[0].worlds, drawn.exams[0].members[:, 0], strict=True):
        assert carries[np.concatenate(drawn.worlds[place].rows)].sum() == (54 if secret else 18)


def test_a_rotation_by_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="plants nothing"):
        worlds.scenario(data={**DIGITS, "visual": {"name": "rotation", "angle": 0}})


def test_a_table_has_nothing_to_be_seen() -> None:
    with pytest.raises(ScenarioError, match="needs images"):
        worlds.pool(worlds.scenario(data={**TABLE, "visual": {"name": "rotation"}}))


def test_what_cannot_be_drawn_names_its_audit() -> None:
    game = {"name": "property", "column": "sexx", "value": "1"}
    audits = (
        {"name": "a", "attacks": ("loss",)},
        {"name": "b", "game": game, "attacks": ("property_loss",)},
    )
    chosen = worlds.scenario(data=TABLE, model={"name": "softmax"}, audits=audits)
    with pytest.raises(ScenarioError, match=r"^audits\.1\.game: there is no column 'sexx'"):
        prepare(Loaded(chosen, {}, Path("s.yaml"), {}), ATTACKS, worlds.RECIPES)
