"""The property game in all its variants: worlds differ in the secret and in nothing else that could give it away, and
draw from blocks of records that no other worlds draw from.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from attacks import ATTACKS
from fedsim.data import Pool, status
from fedsim.errors import ScenarioError
from fedsim.games import draw, title
from fedsim.games.holders import Supply, Wanted, blocks, needed
from fedsim.games.property import _number
from fedsim.prepare import prepare
from fedsim.scenario import BatchGame, ClientPropertyGame, PropertyGame, Scenario
from fedsim.scenario_file import Loaded
from fedsim.views import PropertyAsk, parse_vantage
from fedsim.world import Draw, Exam, blind_to_models
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


def test_shares_that_differ_in_their_last_digit_have_different_titles() -> None:
    near = 0.1 + 0.2  # 0.30000000000000004
    sex: dict[str, Any] = {"column": "sex", "value": "1"}
    for each, other in (
        (_game(shares=(0.5, 0.3)), _game(shares=(0.5, near))),
        (
            ClientPropertyGame(name="client_property", share=0.3, **sex),
            ClientPropertyGame(name="client_property", share=near, **sex),
        ),
        (BatchGame(name="batches", share=0.3, **sex), BatchGame(name="batches", share=near, **sex)),
    ):
        assert title(each) != title(other)
    assert title(_game(shares=(0, 1))) == "property:sex=1:0:1:24"


def test_a_sub_group_is_the_same_in_whatever_order_it_is_named() -> None:
    wheres = {"sex": "1", "age": "59"}, {"age": "59", "sex": "1"}
    first, second = (title(_game(column=None, value=None, where=where)) for where in wheres)
    assert first == second


@pytest.mark.parametrize(("share", "size", "expected"), [(0.999, 60, 59), (1, 60, 60), (0.001, 60, 1), (0, 60, 0)])
def test_all_but_a_few_are_not_all(share: float, size: int, expected: int) -> None:
    assert _number(share, size) == expected


def test_whole_records_are_counted_and_the_shares_that_they_make_are_said() -> None:
    _, pool, drawn = _drawn(_game(shares=(0.999, 0.5), records=37))
    has = pool.columns["sex"].astype(str) == "1"
    main = drawn.exams[0]
    counts = {int(has[np.concatenate(drawn.worlds[place].rows)].sum()) for place in main.worlds}
    assert counts == {36, 18}
    facts = dict(main.facts)
    del facts["property_label_correlation"]
    assert facts == {"records": 37, "share 1": 36 / 37, "share 2": 18 / 37}


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


# Blocks of records.


def made(men: int, women: int, clients: int = 2, **settings: Any) -> tuple[Scenario, Pool]:
    """A pool by hand: of the private records of either class, so many men and women."""
    chosen = worlds.scenario(worlds=40, **settings)
    sex = np.repeat(["m", "f"] * 4, [men, women, men, women, 20, 20, 20, 20])
    y = np.repeat([0, 1, 0, 1], [men + women, men + women, 40, 40])
    private = 2 * (men + women)
    pool = dataclasses.replace(
        worlds.pool(worlds.scenario()),
        x=np.zeros((len(y), 1), dtype=np.float32),
        y=y,
        class_names=("no", "yes"),
        client_names=tuple(str(k) for k in range(clients)),
        owner=np.where(np.arange(len(y)) < private, np.arange(len(y)) % clients, -1),
        columns={"sex": sex},
        candidates=np.arange(private // 2),
        null=np.arange(private // 2, private),
        background=np.arange(0),
        population=np.arange(private, len(y)),
        mislabelled=np.zeros(len(y), dtype=bool),
    )
    return chosen, pool


def asked_rows(drawn: Draw, exam: Exam, client: int | None = None) -> dict[int, set[int]]:
    """What the worlds of each group hold of the records that the question is about; victims only."""
    held: dict[int, set[int]] = {}
    assert exam.groups is not None
    for place, group in zip(exam.worlds[exam.targets], exam.groups[exam.targets], strict=True):
        rows = drawn.worlds[int(place)].rows
        held.setdefault(int(group), set()).update(np.concatenate(rows if client is None else [rows[client]]).tolist())
    return held


def apart(held: dict[int, set[int]]) -> bool:
    return sum(map(len, held.values())) == len(set().union(*held.values()))


@pytest.mark.parametrize(
    ("shares", "records", "expected"),
    [
        ((0.5, 0.2), 40, 12),  # 200 men for 16 a world
        ((0.2, 0.5), 40, 12),
        ((0.5, 0.2), 8, 40),  # a block a world is enough
        ((0.1, 0.3, 0.5), 40, 11),
        ((0.5, 0.2), 100, 5),
        ((0.5, 0.2), 130, 1),  # room for 3, which would say next to nothing
    ],
)
def test_there_are_as_many_blocks_as_the_records_allow(shares: tuple[float, ...], records: int, expected: int) -> None:
    """Of either class a world needs half the largest share of women and half the rest of the smallest, and the victims
    have 200 of each.
    """
    chosen, pool = made(400, 400)
    game = _game(value="f", shares=shares, records=records)
    drawn = draw(chosen, pool, game, frozenset())
    most = min(40, int(200 // (records * (1 - min(shares)) / 2)), int(200 // (records * max(shares) / 2)))
    assert expected == (most if most >= 5 else 1)
    for exam in drawn.exams[:1]:
        held = asked_rows(drawn, exam)
        assert len(held) == (expected if expected > 1 else 40)
        assert apart(held) == (expected > 1)
        assert exam.caveat is None or expected == 1
    planted = drawn.exams[2]
    assert len(asked_rows(drawn, planted)) == 40


def test_worlds_of_all_blocks_have_equal_counts_and_no_record_of_the_attackers() -> None:
    chosen, pool = made(300, 200)
    drawn = draw(chosen, pool, _game(value="f", records=30), frozenset())
    main = drawn.exams[0]
    held = asked_rows(drawn, main)
    assert 5 <= len(held) < 40
    assert len({frozenset(each) for each in held.values()}) == len(held)
    sizes, labels = set(), set()
    for place in main.worlds:
        rows = np.concatenate(drawn.worlds[int(place)].rows)
        sizes.add(len(rows))
        labels.add(tuple(np.bincount(pool.y[rows])))
    assert len(sizes) == len(labels) == 1
    attackers = main.worlds[~main.targets]
    own = {int(row) for w in attackers for rows in drawn.worlds[int(w)].rows for row in rows}
    assert not own & set().union(*held.values())
    assert len(own) > max(map(len, held.values())), "the attacker's own worlds draw from all of its half"


def test_the_size_of_worlds_leaves_room_for_blocks_where_nobody_says_it() -> None:
    chosen, pool = made(400, 400)
    drawn = draw(chosen, pool, _game(value="f", records=None), frozenset())
    sizes = {sum(len(rows) for rows in world.rows) for world in drawn.worlds}
    assert len(asked_rows(drawn, drawn.exams[0])) >= 8
    (size,) = sizes
    larger = draw(chosen, pool, _game(value="f", records=size + 3), frozenset())
    assert len(asked_rows(larger, larger.exams[0])) < 8, "no larger than it must be"
    chosen, pool = made(60, 60)
    drawn = draw(chosen, pool, _game(value="f", records=None), frozenset())
    assert {sum(len(rows) for rows in world.rows) for world in drawn.worlds} == {60}, "20 records are the least"
    assert drawn.exams[0].caveat is not None


def test_too_few_records_for_blocks_are_said_with_what_would_do() -> None:
    chosen, pool = made(400, 400)
    for client in (None, 1):
        drawn = draw(chosen, pool, _game(value="f", records=200, client=client), frozenset())
        caveat = drawn.exams[0].caveat
        assert caveat is not None
        assert "new trainings on the same private records, and not other records" in caveat
        assert "\n" not in caveat
        fits = int(caveat.partition("`records` of the game to ")[2].partition(" ")[0])
        for records, well in ((fits, True), (fits + 3, False)):
            caveat = draw(chosen, pool, _game(value="f", records=records, client=client), frozenset()).exams[0].caveat
            assert (caveat is None) == well
    chosen, pool = made(40, 40)
    caveat = draw(chosen, pool, _game(value="f", records=30), frozenset()).exams[0].caveat
    assert caveat is not None
    assert "set `data.candidates` higher" in caveat


def test_what_is_asked_about_one_client_is_in_blocks_and_the_others_hold_nothing_of_them() -> None:
    chosen, pool = made(400, 400, clients=3)
    drawn = draw(chosen, pool, _game(value="f", records=30, client=1), frozenset())
    for exam in drawn.exams[:1]:
        held = asked_rows(drawn, exam, client=1)
        assert len(held) >= 5
        assert apart(held)
        for k in (0, 2):
            others = set().union(*asked_rows(drawn, exam, client=k).values())
            assert not others & set().union(*held.values())


def test_a_natural_clients_own_records_are_in_blocks() -> None:
    chosen, pool = made(400, 400, data={"partition": {"scheme": "natural", "column": "sex"}})
    drawn = draw(chosen, pool, _game(value="f", records=20, client=1), frozenset())
    held = asked_rows(drawn, drawn.exams[0], client=1)
    assert len(held) >= 5
    assert apart(held)
    assert (pool.owner[np.array(sorted(set().union(*held.values())))] == 1).all()


def test_a_rare_property_makes_as_many_blocks_as_there_are_holders() -> None:
    chosen, pool = made(400, 14)
    drawn = draw(chosen, pool, _game(value="f", shares=(0, 0.001), records=30), frozenset())
    assert len(asked_rows(drawn, drawn.exams[0])) == 7, "the victims have seven women of the class of the first record"


def test_sizes_of_natural_clients_are_known_to_who_sees_them_and_to_nobody_else() -> None:
    natural = {"source": "diabetes", "clients": 2, "candidates": 300, "population": 60, "test": 20}
    natural["partition"] = {"scheme": "natural", "column": "sex"}
    chosen = worlds.scenario(data=natural, worlds=8)
    pool = worlds.pool(chosen)
    main = draw(chosen, pool, _game(value=pool.client_names[0]), frozenset()).exams[0]
    known = {who: blind_to_models(main, parse_vantage(who, 2)) for who in ("public", "server", "client:1")}
    np.testing.assert_array_equal(known["public"], main.blind)
    for who in ("server", "client:1"):
        sizes = known[who][:, 0, main.blind.shape[2] :]
        assert sizes.shape[1] == (2 if who == "server" else 1)
        assert set(sizes[main.members[:, 0], 0]).isdisjoint(sizes[~main.members[:, 0], 0])
    iid = worlds.scenario(data={**natural, "partition": {"scheme": "iid"}}, worlds=8)
    assert draw(iid, worlds.pool(iid), _game(), frozenset()).exams[0].sizes is None


def test_needs_are_those_of_the_most_demanding_set() -> None:
    labels = np.array([0, 1, 0, 0, 1])
    found = needed(3, [Wanted(labels, 2), Wanted(labels, 4)])
    assert [each.tolist() for each in found] == [[3, 1, 0], [2, 1, 0]]
    have = Supply(np.array([30, 9, 0]), np.array([20, 9, 5]))
    assert blocks(have, found, 100) == 9
    assert blocks(have, found, 7) == 7
    assert blocks(have, found.times(2), 100) == 1, "four are too few ..."
    assert blocks(have, found.times(2), 4) == 4, "... but not where there are no more worlds"
    assert blocks(Supply(have.holders, have.others - 6), found.times(0), 100) == 1, "others have taken too much"
