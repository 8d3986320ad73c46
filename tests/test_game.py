"""How secrets are drawn: exchangeable, independent, equal in everything but the secret."""

import dataclasses
from typing import Any, Literal, get_args

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from fedsim.errors import ScenarioError
from fedsim.games import draw
from fedsim.scenario import (
    BatchGame,
    CanaryGame,
    ClientGame,
    ClientPropertyGame,
    DistinguishGame,
    Game,
    LabelGame,
    PropertyGame,
)
from fedsim.views import ClientAsk, DistinguishAsk, LabelAsk, PropertyAsk, RecordAsk, SourceAsk
from fedsim.world import Draw, Exam, asked, asked_from
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


@pytest.mark.parametrize("size", [41, 57, 60])
def test_property_worlds_differ_in_the_property_and_in_nothing_else(size: int) -> None:
    chosen = worlds.scenario(data=TABLE, worlds=10)
    pool = worlds.pool(chosen)
    column = pool.columns["sex"].astype(str)
    game = PROPERTY.model_copy(update={"value": sorted(set(column))[0], "records": size})
    drawn = draw(chosen, pool, game, frozenset())
    main, null, planted = (_exam(drawn, kind) for kind in ("main", "null", "planted"))
    for exam, shares in ((main, (0.5, 0.2)), (null, (0.35, 0.35)), (planted, (1.0, 0.0))):
        mixes = set()
        for place, secret in zip(exam.worlds, exam.members[:, 0], strict=True):
            rows = np.concatenate(drawn.worlds[place].rows)
            assert len(set(rows)) == len(rows) == size
            if exam is not planted:
                assert abs((column[rows] == game.value).sum() - shares[int(secret)] * size) <= 1
            elif secret:
                few = int((column[rows] == game.value).sum())
                assert few < 0.2 * size
            mixes.add(tuple(np.bincount(pool.y[rows], minlength=pool.classes)))
        assert len(mixes) == 1
        assert len(np.unique(exam.blind, axis=0)) == 1
    assert isinstance(main.ask, PropertyAsk)
    assert (main.ask.no.owner == -1).all()


@pytest.mark.parametrize("size", [301, 501, 777])
@pytest.mark.parametrize("shares", [(0.5, 0.2), (0.4, 0.3)])
def test_no_count_of_a_large_world_depends_on_the_secret(size: int, shares: tuple[float, float]) -> None:
    """Rounding each cell of property and label on its own gives one secret 502 records and the other 500."""
    chosen = worlds.scenario(worlds=6)
    rng = np.random.default_rng(size)
    y = rng.choice(10, size=7000, p=np.arange(1, 11) / 55)
    wears = np.where(rng.random(7000) < 0.3 + 0.04 * y, "hat", "cap")
    pool = dataclasses.replace(
        worlds.pool(chosen),
        x=np.zeros((7000, 1), dtype=np.float32),
        y=y,
        owner=np.zeros(7000, dtype=np.int64),
        columns={"head": wears},
        candidates=np.arange(6000),
        null=np.arange(0),
        background=np.arange(0),
        population=np.arange(6000, 7000),
    )
    game = PropertyGame(name="property", column="head", value="hat", shares=shares, records=size)
    drawn = draw(chosen, pool, game, frozenset())
    for exam in drawn.exams:
        rows = [np.concatenate(drawn.worlds[place].rows) for place in exam.worlds]
        assert {len(each) for each in rows} == {size}
        assert len({tuple(np.bincount(pool.y[each], minlength=10)) for each in rows}) == 1
        if exam.kind == "main":
            for each, secret in zip(rows, exam.members[:, 0], strict=True):
                assert abs((wears[each] == "hat").sum() - shares[int(secret)] * size) <= 1


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


def test_what_other_clients_hold_says_little_of_the_classes_of_one() -> None:
    """How much more of a class the next client holds where the first has none of it, over 200 worlds of 10 classes: .5
    records of 20 or so, for the first takes from what there is. Were the next one dealt what the first left over, it
    would hold about four more. The standard error is about .1.
    """
    chosen = worlds.scenario(data={"candidates": 160, "test": 40}, worlds=200)
    pool = worlds.pool(chosen)
    main = _exam(draw(chosen, pool, LabelGame(name="labels", client=0), frozenset()), "main")
    drawn = draw(chosen, pool, LabelGame(name="labels", client=0), frozenset())
    counts = np.stack([np.bincount(pool.y[drawn.worlds[place].rows[1]], minlength=10) for place in main.worlds])
    assert counts.sum(axis=1).std() == 0
    assert counts[~main.members].mean() - counts[main.members].mean() < 1.5


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
    assert (main.owner == 2).all()
    assert not main.new_items
    assert not asked(main, frozenset({2})).any()
    assert asked(main, frozenset({1})).all()


def test_a_single_client_holds_every_record_of_a_label_world() -> None:
    chosen = worlds.scenario(data={"clients": 1, "candidates": 40, "null_candidates": 600}, worlds=10)
    drawn = draw(chosen, worlds.pool(chosen), LabelGame(name="labels", client=0), frozenset())
    for kind in ("main", "planted"):
        exam = _exam(drawn, kind)
        assert exam.members.any(axis=1).all()
        assert [[len(rows) for rows in drawn.worlds[place].rows] for place in exam.worlds] == [[20]] * len(exam.worlds)


def test_label_worlds_that_the_pool_cannot_fill_are_refused() -> None:
    chosen = worlds.scenario()
    pool = worlds.pool(chosen)
    scarce = dataclasses.replace(pool, candidates=pool.candidates[:3], null=pool.null[:0])
    with pytest.raises(ScenarioError, match=r"^audits: 4 clients with 1 records each need 4 .* there are 3"):
        draw(chosen, scarce, LabelGame(name="labels", client=0), frozenset())
    one_class = dataclasses.replace(pool, y=np.where(pool.y < 9, 0, 9))
    with pytest.raises(ScenarioError, match=r"^audits: client 0 should hold"):
        draw(chosen, one_class, LabelGame(name="labels", client=0), frozenset())


def test_a_source_world_trains_on_everything_and_a_coin_decides_who_holds_what() -> None:
    """Two-sided tests at 1e-6 each: false alarms in 5e-6 of seeds."""
    chosen = worlds.scenario(data={"background": 10}, worlds=60, controls={"planted_worlds": 0})
    pool = worlds.pool(chosen)
    drawn = draw(chosen, pool, "source", frozenset())
    main, null = _exam(drawn, "main"), _exam(drawn, "null")
    assert isinstance(main.ask, SourceAsk)
    alleged, elsewhere = main.ask.items.owner, []
    for place, members in zip(main.worlds, main.members, strict=True):
        held = drawn.worlds[place].rows
        trained = np.concatenate(held)
        assert sorted(trained) == sorted([*pool.candidates, *pool.background])
        for party, rows in enumerate(held):
            assert (pool.owner[rows[np.isin(rows, pool.background)]] == party).all()
            assert set(pool.candidates[members & (alleged == party)]) <= set(rows)
            other = np.flatnonzero(np.isin(pool.candidates, rows) & (alleged != party))
            assert not members[other].any()
            elsewhere += list((party - alleged[other]) % 4)
    assert np.ptp(np.bincount(alleged)) <= 1
    for coins in (main.members, null.members, main.members[:, 1:] == main.members[:, :-1]):
        assert binomtest(int(coins.sum()), coins.size).pvalue > 1e-6
    assert binomtest(int((main.members[1:] == main.members[:-1]).sum()), main.members[1:].size).pvalue > 1e-6
    assert chisquare(np.bincount(elsewhere, minlength=4)[1:]).pvalue > 1e-6
    assert not set(null.worlds) - set(main.worlds)
    assert len(null.ask.items) == len(pool.null)  # type: ignore[union-attr]


def test_where_labels_are_skewed_they_are_so_in_each_world_anew() -> None:
    """Chi-square tests against equal shares: at alpha .05 nearly all of a label sits at one client."""
    skew = {"partition": {"scheme": "dirichlet", "alpha": 0.05}, "candidates": 200}
    chosen = worlds.scenario(data=skew, worlds=20, controls={"planted_worlds": 0})
    pool = worlds.pool(chosen)
    drawn = draw(chosen, pool, "source", frozenset())
    held = [
        np.stack([np.bincount(pool.y[rows], minlength=10) for rows in world.rows]).argmax(axis=0)
        for world in drawn.worlds
    ]
    assert all(len(np.unique(each)) > 1 for each in np.stack(held).T)  # who holds a label differs between worlds
    counts = np.stack([[np.bincount(pool.y[rows], minlength=10) for rows in world.rows] for world in drawn.worlds])
    shares = counts.max(axis=1) / counts.sum(axis=1)
    assert shares.mean() > 0.6
    assert 0.2 < _exam(drawn, "main").members.mean() < 0.5


def test_planted_sources_are_dealt_among_a_few_clients_and_those_that_watch() -> None:
    chosen = worlds.scenario(data={"clients": 8, "candidates": 80})
    drawn = draw(chosen, worlds.pool(chosen), "source", frozenset({6}))
    planted = _exam(drawn, "planted")
    assert set(planted.owner) == {0, 1, 2, 3, 6}
    for place in planted.worlds:
        assert [len(rows) > 0 for rows in drawn.worlds[place].rows][4:] == [False, False, True, False]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"clients": 1}, r"^data\.clients: with 1 client"),
        ({"partition": {"scheme": "shards"}}, r"^data\.partition\.scheme: got shards.* iid, dirichlet, quantity"),
    ],
)
def test_source_worlds_that_cannot_be_dealt_are_refused(data: dict[str, object], words: str) -> None:
    chosen = worlds.scenario(data=data)
    with pytest.raises(ScenarioError, match=words):
        draw(chosen, worlds.pool(chosen), "source", frozenset())


@pytest.mark.parametrize("sample", ["same", "disjoint"])
@pytest.mark.parametrize("watchers", [frozenset[int](), frozenset({1, 3})])
def test_a_client_that_is_out_trains_nowhere(sample: Literal["same", "disjoint"], watchers: frozenset[int]) -> None:
    chosen = worlds.scenario(data={"clients": 6, "background": 12}, worlds=12)
    pool = worlds.pool(chosen)
    drawn = draw(chosen, pool, ClientGame(name="client", sample=sample), watchers)
    main, always = _exam(drawn, "main"), sorted(watchers or {0})
    assert isinstance(main.ask, ClientAsk)
    assert list(main.ask.clients) == list(main.owner) == [each for each in range(6) if each not in always]
    private = np.concatenate([pool.candidates, pool.background])
    held = [set(private[pool.owner[private] == party]) for party in range(6)]
    known = [set(map(bytes, main.ask.sample.x[main.ask.sample.owner == party])) for party in range(6)]
    for place, members in zip(main.worlds, main.members, strict=True):
        there = {*always, *main.ask.clients[members]}
        for party, rows in enumerate(drawn.worlds[place].rows):
            assert bool(len(rows)) == (party in there)
            assert set(rows) <= held[party]
            if len(rows) and party not in always:
                trained = set(map(bytes, pool.x[rows]))
                assert trained == known[party] if sample == "same" else not trained & known[party]
                assert sample == "disjoint" or set(rows) == held[party]
    assert not (main.members == _exam(drawn, "null").members).all()
    assert not asked(main, frozenset({2}))[:, list(main.owner).index(2)].any()


def test_planted_clients_learn_records_by_heart_that_the_attacker_holds() -> None:
    """Where a world has one client to ask about, there are three times as many."""
    for clients, asks, count in ((6, 3, 4), (2, 1, 12)):
        chosen = worlds.scenario(data={"clients": clients})
        pool = worlds.pool(chosen)
        drawn = draw(chosen, pool, ClientGame(name="client", sample="disjoint"), frozenset())
        planted = _exam(drawn, "planted")
        assert isinstance(planted.ask, ClientAsk)
        assert (planted.ask.count, len(planted.worlds)) == (asks, count)
        for place, members in zip(planted.worlds, planted.members, strict=True):
            trained = np.concatenate(drawn.worlds[place].rows)
            assert set(trained) <= set(pool.planted)
            inside = np.isin(planted.ask.sample.owner, planted.ask.clients[members])
            assert set(map(bytes, planted.ask.sample.x[inside])) <= set(map(bytes, pool.x[trained]))
            assert not set(map(bytes, planted.ask.sample.x[~inside])) & set(map(bytes, pool.x[trained]))


def test_the_coins_of_clients_are_fair_and_independent() -> None:
    """Two-sided binomial tests at 1e-6 each: false alarms in 3e-6 of seeds."""
    chosen = worlds.scenario(data={"clients": 12}, worlds=200, controls={"planted_worlds": 0})
    members = _exam(draw(chosen, worlds.pool(chosen), ClientGame(name="client"), frozenset()), "main").members
    for coins in (members, members[:, 1:] == members[:, :-1], members[1:] == members[:-1]):
        assert binomtest(int(coins.sum()), coins.size).pvalue > 1e-6


@pytest.mark.parametrize(
    ("changes", "sample", "watchers", "words"),
    [
        ({"data": {"clients": 1}}, "same", [], "1 of 1 clients always take part"),
        ({"data": {"clients": 2}}, "same", [0, 1], "2 of 2 clients always take part"),
        ({"data": {"clients": 4, "candidates": 4}}, "disjoint", [], "client 0 has 1 record"),
        (
            {"federation": {"privacy": {"name": "distributed", "noise_multiplier": 1.0}}},
            "same",
            [],
            "distributed privacy gives up a round",
        ),
    ],
)
def test_client_worlds_that_mean_nothing_are_refused(
    changes: dict[str, Any], sample: Literal["same", "disjoint"], watchers: list[int], words: str
) -> None:
    chosen = worlds.scenario(**changes)
    with pytest.raises(ScenarioError, match=words):
        draw(chosen, worlds.pool(chosen), ClientGame(name="client", sample=sample), frozenset(watchers))


@pytest.mark.parametrize("crowd", [2, None])
@pytest.mark.parametrize("watchers", [frozenset[int](), frozenset({1, 4})])
def test_each_client_of_a_crowd_trains_on_one_of_two_like_sets(crowd: int | None, watchers: frozenset[int]) -> None:
    chosen = worlds.scenario(data={"clients": 6, "candidates": 120, "background": 60}, worlds=12)
    pool = worlds.pool(chosen)
    drawn = draw(chosen, pool, DistinguishGame(name="distinguish", clients=crowd), watchers)
    main, there = _exam(drawn, "main"), sorted({*range(crowd or 6), *watchers})
    ask = main.ask
    assert isinstance(ask, DistinguishAsk)
    assert list(ask.clients) == list(main.owner) == [each for each in there if each not in watchers]
    private = np.concatenate([pool.candidates, pool.background])
    for place, each in enumerate(ask.clients):
        own = [(side.x[side.owner == each], side.y[side.owner == each]) for side in (ask.no, ask.yes)]
        assert sorted(own[0][1]) == sorted(own[1][1])
        no, yes = (sorted(map(bytes, x)) for x, _ in own)
        assert not set(no) & set(yes)
        held = np.bincount(pool.y[private[pool.owner[private] == each]])
        assert len(no) == len(yes) == (held // 2).sum()
        for number, secrets in zip(main.worlds, main.members, strict=True):
            assert sorted(map(bytes, pool.x[drawn.worlds[number].rows[each]])) == (yes if secrets[place] else no)
    for number in main.worlds:
        assert [each for each, rows in enumerate(drawn.worlds[number].rows) if len(rows)] == there
    assert main.members.any(axis=0).all()
    assert not main.members.all(axis=0).any()
    assert not (main.members == _exam(drawn, "null").members).all()
    planted = _exam(drawn, "planted")
    assert isinstance(planted.ask, DistinguishAsk)
    assert not set(planted.ask.clients) & watchers
    for number, secrets in zip(planted.worlds, planted.members, strict=True):
        for each, secret in zip(planted.ask.clients, secrets, strict=True):
            side = planted.ask.yes if secret else planted.ask.no
            trained = sorted(map(bytes, pool.x[drawn.worlds[number].rows[each]]))
            assert trained == sorted(map(bytes, side.x[side.owner == each]))


def test_crowds_of_any_size_hold_the_same_sets() -> None:
    chosen = worlds.scenario(data={"clients": 12, "candidates": 240})
    pool = worlds.pool(chosen)
    exams = [
        _exam(draw(chosen, pool, DistinguishGame(name="distinguish", clients=size), frozenset()), "main")
        for size in (3, 12)
    ]
    asks = [exam.ask for exam in exams if isinstance(exam.ask, DistinguishAsk)]
    assert [ask.count for ask in asks] == [3, 8]
    assert [exam.new_items for exam in exams] == [False, True]
    for side in ("no", "yes"):
        few, many = (getattr(ask, side) for ask in asks)
        np.testing.assert_array_equal(few.x, many.x[many.owner < 3])


@pytest.mark.parametrize(
    ("changes", "watchers", "words"),
    [
        ({"data": {"candidates": 12}}, [], r"no two records of client \d have the same label"),
        ({"data": {"clients": 2}}, [0, 1], "all 2 clients of the crowd belong to a vantage"),
    ],
)
def test_sets_that_cannot_be_drawn_are_refused(changes: dict[str, Any], watchers: list[int], words: str) -> None:
    chosen = worlds.scenario(**changes)
    with pytest.raises(ScenarioError, match=words):
        draw(chosen, worlds.pool(chosen), DistinguishGame(name="distinguish"), frozenset(watchers))


def test_a_vantage_has_no_say_about_records_alleged_to_be_its_own() -> None:
    chosen = worlds.scenario()
    ask = _exam(draw(chosen, worlds.pool(chosen), "source", frozenset()), "main").ask
    changed = asked_from(ask, frozenset({2}))
    assert isinstance(ask, SourceAsk)
    assert isinstance(changed, SourceAsk)
    assert (changed.items.owner == np.where(ask.items.owner == 2, -1, ask.items.owner)).all()


def test_planted_worlds_keep_secure_aggregation_with_fine_steps() -> None:
    """So that attacks on what it opens are tried on their own way through it."""
    chosen = worlds.scenario(federation={"secure_aggregation": {"protocol": "ideal", "quantisation": {"bits": 8}}})
    drawn = draw(chosen, worlds.pool(chosen), "record", frozenset())
    planted = next(exam for exam in drawn.exams if exam.kind == "planted")
    for index in planted.worlds:
        secure = drawn.worlds[int(index)].federation.secure_aggregation
        assert secure is not None
        assert (secure.protocol, secure.quantisation.bits) == ("ideal", 24)


DIABETES = {"source": "diabetes", "clients": 4, "candidates": 180, "population": 100, "test": 40}
GAMES: dict[str, Game] = {
    "record": "record",
    "source": "source",
    "property": PropertyGame(name="property", column="sex", value="1", records=24),
    "property of a client": PropertyGame(name="property", column="sex", value="1", records=12, client=1),
    "labels": LabelGame(name="labels", client=0),
    "labels of all": LabelGame(name="labels", client="all", records=10),
    "canaries": CanaryGame(name="canaries", count=8),
    "canary records": CanaryGame(name="canaries", unit="record", count=8),
    "client": ClientGame(name="client"),
    "distinguish": DistinguishGame(name="distinguish"),
    "client_property": ClientPropertyGame(name="client_property", column="sex", value="1", records=10),
    "batches": BatchGame(name="batches", column="sex", value="1", records=8),
}


def test_every_game_is_among_these() -> None:
    named = {game if isinstance(game, str) else game.name for game in GAMES.values()}
    every = {get_args(part)[1].tag for part in get_args(get_args(Game)[0])}
    assert named == every


@pytest.mark.parametrize("name", list(GAMES))
def test_planted_worlds_have_no_noise_and_nobody_drops_out(name: str) -> None:
    """A leak that noise hides says nothing of the attack that does not find it."""
    noisy = {"privacy": {"name": "record", "noise_multiplier": 4.0}, "drop_out": {"update": 0.4}}
    chosen = worlds.scenario(data=DIABETES, federation=noisy, worlds=6)
    drawn = draw(chosen, worlds.pool(chosen), GAMES[name], frozenset())
    places = {exam.kind: [drawn.worlds[int(w)].federation for w in exam.worlds] for exam in drawn.exams}
    assert set(places) >= {"main", "planted"}
    assert all(each == chosen.federation for each in places["main"])
    for each in places["planted"]:
        assert each.privacy is None or each.privacy.noise_multiplier == 0
        assert not any(each.drop_out.model_dump().values())
    if name.startswith(("property", "labels")):
        assert {each.rounds for each in places["planted"]} == {chosen.federation.rounds}
    if name.startswith("property"):
        planted = _exam(drawn, "planted")
        assert not planted.targets.all()
        assert len({repr(each) for each in places["planted"]}) == 1, "the attacker's own worlds are made alike"
