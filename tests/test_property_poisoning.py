"""Poisoning for property inference: what it trains on, by how much it shifts a model's belief in closed form, who may
do it, and what it finds.
"""

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm

from attacks import ATTACKS
from attacks.samples import POISONED_BELIEF, QUERIES
from fedsim.actors import with_adversary
from fedsim.adversaries import poisoned
from fedsim.attack import Case, fold
from fedsim.engine import run_world
from fedsim.errors import NotVisible, ScenarioError
from fedsim.games import draw
from fedsim.job import Probe
from fedsim.models import build
from fedsim.prepare import prepare
from fedsim.scenario import Local, ModelChoice, PropertyGame, PropertyPoisoning, Scenario
from fedsim.scenario_file import Loaded, load
from fedsim.tables import known
from fedsim.training import Task, train
from fedsim.transcript import ACT, Event
from fedsim.views import Answer, PropertyAsk, Records, parse_vantage
from fedsim.world import Actor, Draw, World
from tests import worlds
from tests.leaky_worlds import public

DIABETES = {"source": "diabetes", "clients": 4, "candidates": 200, "population": 100, "test": 40}
GAME: dict[str, Any] = {"name": "property", "column": "sex", "value": "1", "records": 50}
WITHOUT, WITH = np.eye(2, dtype=np.float32)


def _plan(**changes: Any) -> PropertyPoisoning:
    return PropertyPoisoning(name="property_poisoning", **changes)


def _holders(count: int) -> Records:
    return Records(np.tile(WITH, (count, 1)), np.zeros(count, dtype=np.int64), np.full(count, -1))


# What it trains on, and what comes of it


def _belief(holders: int, share: float, size: int = 400, believed: float = 0.25) -> float:
    """Return the log-odds of class 1 for a record with the property, in softmax regression that has converged.

    `size` honest records, of which `holders` have the property, and of these a share `believed` has class 1.
    """
    x = np.stack([WITH] * holders + [WITHOUT] * (size - holders))
    y = np.arange(size) < round(believed * holders)
    world = World("w", (np.arange(size),), ModelChoice(name="softmax"), worlds.scenario().federation)
    acting = dataclasses.replace(world, adversary=Actor(_plan(share=share), frozenset({"client:0"}), _holders(9)))
    model = build(world.model, (2,), 2)
    params = {name: torch.zeros_like(value).double() for name, value in model.init(torch.Generator()).items()}
    local = Local(epochs=1200, batch_size=4 * size, learning_rate=2.0)
    task = Task(model, params, torch.from_numpy(x).double(), torch.from_numpy(y).long(), torch.arange(size), local,
                np.random.default_rng(0), None)  # fmt: skip
    after = train(poisoned(acting, 0, task, 2)).params
    logits = model.apply(dict(after), torch.from_numpy(WITH[None]).double(), None)[0]
    return float(logits[1] - logits[0])


@pytest.mark.parametrize(("holders", "share"), [(200, 0.03), (140, 0.1), (100, 0.1)])
def test_the_poisoned_belief_is_the_papers(holders: int, share: float) -> None:
    """With the property alone to go by, a fitted model tells how often each class came with it: odds of
    (b + p / t) / (1 - b), where b is how many honest holders have class 1, t their share and p the poison's.
    """
    size, believed = 400, 0.25
    expected = np.log((believed + share / (holders / size)) / (1 - believed))
    assert _belief(holders, share) == pytest.approx(expected, abs=1e-3)


def test_more_poison_moves_the_two_worlds_further_apart() -> None:
    gaps = [_belief(140, share) - _belief(200, share) for share in (0.0025, 0.03, 0.1, 0.3)]
    assert gaps[0] == pytest.approx(0, abs=0.02)
    assert all(more > less + 0.02 for less, more in pairwise(gaps))


def test_those_who_act_share_the_poison_and_use_records_again_where_they_are_few() -> None:
    holders = dataclasses.replace(_holders(3), x=np.arange(6, dtype=np.float32).reshape(3, 2))
    parties = frozenset({"client:0", "client:2"})
    federation = worlds.scenario().federation
    world = World("w", (np.arange(30), np.arange(40), np.arange(30)), ModelChoice(name="softmax"), federation)
    world = dataclasses.replace(world, adversary=Actor(_plan(share=0.07, label=0), parties, holders))
    x, y = torch.zeros((40, 2)), torch.ones(40, dtype=torch.int64)
    model = build(world.model, (2,), 2)
    task = Task(model, {}, x, y, torch.arange(5), federation.local, np.random.default_rng(0), None)
    used = []
    for party in (0, 2):
        mixed = poisoned(world, party, task, 2)
        assert mixed.y.tolist() == [1] * 5 + [0] * (len(mixed.y) - 5)
        assert mixed.rows.tolist() == list(range(len(mixed.y)))
        used += mixed.x[5:, 0].tolist()
    assert sorted(used) == [0, 0, 0, 2, 2, 4, 4]  # 7 of the 3 records
    assert poisoned(world, 1, task, 2) is task


# How it is read


def test_the_signal_is_the_mean_log_odds_of_the_poisons_class() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 1500)
    holders = Records(np.arange(1500, dtype=np.float32)[:, None], np.zeros(1500, dtype=np.int64), np.full(1500, -1))
    ask = PropertyAsk(holders, holders, holders=holders)

    def released(x: Any) -> Answer:
        shown = p[x[:, 0].astype(int)]
        return Answer(shown.argmax(axis=1), shown)

    note = Event(1, ACT, "client:0", "client:0", {}, {"label": 2, "records": 3})
    odds = np.log(p[:, 2] / (1 - p[:, 2]))
    whole = fold(POISONED_BELIEF, public(3), ask, [note], released)
    np.testing.assert_allclose(whole, [odds[-QUERIES:].mean()], rtol=1e-9)
    poor = fold(POISONED_BELIEF, dataclasses.replace(public(3), budget=10), ask, [note], released)
    np.testing.assert_allclose(poor, [odds[-10:].mean()], rtol=1e-9)
    with pytest.raises(NotVisible, match="poisoned"):
        fold(POISONED_BELIEF, public(3), ask, [], released)


def test_the_score_is_the_likelihood_ratio_of_two_normal_curves() -> None:
    """Sides of an odd, symmetric number, whose median is the mean."""
    no, yes = np.array([1.0, 2.0, 3.0]), np.array([4.0, 6.0, 8.0])
    case = Case(
        target=np.array([4.2]),
        population=np.zeros(0),
        references=np.concatenate([no, yes])[:, None],
        reference_population=np.zeros((6, 0)),
        members=np.array([False] * 3 + [True] * 3)[:, None],
        ask=PropertyAsk(_holders(2), _holders(2)),
        rng=np.random.default_rng(0),
    )
    ratio = norm.logpdf(4.2, 6, 2) - norm.logpdf(4.2, 2, 1)
    np.testing.assert_allclose(ATTACKS["property_snap"].test(case), [ratio], rtol=1e-9)


# In a federation


def _scenario(**changes: Any) -> Scenario:
    return worlds.scenario(**({"data": DIABETES, "model": {"name": "softmax"}, "worlds": 4} | changes))


def _drawn(chosen: Scenario, **game: Any) -> Draw:
    return draw(chosen, worlds.pool(chosen), PropertyGame.model_validate(GAME | game), frozenset())


@pytest.mark.parametrize("shares", [(0.5, 0.2), (0.0, 0.001)], ids=["share", "existence"])
def test_the_poisoner_knows_public_records_with_the_property_and_every_world_has_it(shares: tuple[float, ...]) -> None:
    chosen = _scenario()
    pool, drawn = worlds.pool(chosen), _drawn(chosen, shares=shares)
    acting = with_adversary(drawn, _plan(), frozenset({"client:1"}))
    rows = [int(row) for row in pool.population if str(pool.columns["sex"][row]) == "1"]
    for before, after in zip(drawn.worlds, acting.worlds, strict=True):
        assert after.adversary is not None
        np.testing.assert_array_equal(after.adversary.targets.x, pool.x[rows])
        assert dataclasses.replace(after, adversary=None) == before
    assert not set(rows) & {int(row) for world in drawn.worlds for held in world.rows for row in held}

    ask = acting.exams[0].ask
    probes = [
        Probe(who, parse_vantage(who, 4), ask, POISONED_BELIEF, frozenset(range(len(acting.worlds))))
        for who in ("client:1", "client:2", "server")
    ]
    made = worlds.job(chosen, probes, [probe.vantage for probe in probes], acting.worlds)
    seen: list[Event] = []
    left = run_world(made, 0, worlds.setup(made), spare=seen.append)
    notes = [event for event in seen if event.kind == ACT]
    assert [(e.round, e.sender, e.receiver, dict(e.facts)) for e in notes] == [
        (number, "client:1", "client:1", {"label": 1, "records": 2}) for number in (1, 2, 3)
    ]
    assert np.isfinite(left.signals["client:1"]).all()
    assert set(left.not_visible) == {"client:2", "server"}


def test_worlds_without_it_are_as_they_were() -> None:
    """To know the holders costs no draw: the same worlds are played with a property that nobody is told about."""
    chosen = _scenario()
    drawn = _drawn(chosen)
    acting = with_adversary(drawn, _plan(share=0.2), frozenset({"client:1"}))
    passive = worlds.job(chosen, worlds=drawn.worlds)
    cleared = worlds.job(chosen, worlds=[dataclasses.replace(world, adversary=None) for world in acting.worlds])
    alone, again, other = (run_world(each, 0, worlds.setup(each)).transcript for each in
                           (passive, cleared, worlds.job(chosen, worlds=acting.worlds)))  # fmt: skip
    assert alone == again != other


def _loaded(tmp_path: Path, audit: str) -> Loaded:
    path = tmp_path / "poison.yaml"
    text = "name: poison\ndata: {source: diabetes, clients: 4, candidates: 200}\nfederation: {rounds: 1}\naudits:\n"
    path.write_text(f"{text}  - {{name: a, {audit}}}\n", encoding="utf-8")
    return load(str(path), known=known())


PROPERTY = "game: {name: property, column: sex, value: '1'}"
POISON = "adversary: {name: property_poisoning}"


@pytest.mark.parametrize(
    ("audit", "message"),
    [
        (f"vantage: server, {PROPERTY}, {POISON}, attacks: [property_snap]", "is an act of a participant"),
        (f"vantage: 'client:0', {POISON}, attacks: [loss]", "acts in the game property, and this audit's is record"),
        (f"vantage: 'client:0', {PROPERTY}, attacks: [property_snap]", "set this audit's `adversary` to"),
        (
            f"vantage: 'client:0', {PROPERTY}, adversary: {{name: label_poisoning}}, attacks: [property_loss]",
            "in the game record only",
        ),
    ],
)
def test_where_it_cannot_act_says_so(tmp_path: Path, audit: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=r"poison\.yaml:5") as raised:
        _loaded(tmp_path, audit)
    assert message in str(raised.value)


def test_one_round_is_enough_and_the_class_must_exist(tmp_path: Path) -> None:
    audit = f"vantage: 'client:0', {PROPERTY}, attacks: [property_snap], adversary: {{name: property_poisoning"
    loaded = _loaded(tmp_path, f"{audit}, label: 2}}")
    with pytest.raises(ScenarioError, match=r"audits\.0\.adversary\.label: got 2; classes are 0 to 1"):
        prepare(loaded, ATTACKS, worlds.RECIPES)
