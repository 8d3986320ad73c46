"""Studies of minutes: property attacks rank as the literature says on Adult, and nothing leaks where nothing is. Run
with `make test-slow`.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from attacks import ATTACKS
from fedsim import judge
from fedsim.engine import run_worlds
from fedsim.intervals import Measured, leaked, measure
from fedsim.judge import Scored
from fedsim.metrics import parse_metric
from fedsim.prepare import prepare
from fedsim.processes import default_workers
from fedsim.scenario_file import Loaded
from tests import worlds
from tests.test_study import HERE

pytestmark = pytest.mark.slow
NEEDS_ADULT = pytest.mark.skipif("adult" not in HERE, reason="the files of adult are not in the data folder")
SHARES = (0.5, 0.2)
NAMES = tuple(n for n, row in ATTACKS.items() if row.game == "property" and row.signal.reads != "poisoning")
"""Those that only look."""


def _scored(names: tuple[str, ...] = NAMES, game: dict[str, Any] | None = None, **settings: Any) -> dict[str, Scored]:
    """The findings of a property game and their evidence, without a run folder."""
    asked = {"name": "property", "shares": SHARES, **(game or {})}
    audit = {"name": "ratio", "vantage": "server", "game": asked, "attacks": names}
    loaded = Loaded(worlds.scenario(audits=(audit,), **settings), {}, Path("study.yaml"), {})
    prepared = prepare(loaded, ATTACKS, worlds.RECIPES)
    (trial,) = prepared.trials
    left = dict(run_worlds(trial.job, range(len(trial.draw.worlds)), workers=default_workers()))
    return {each.finding.attack: each for each in judge.findings(prepared, trial, left, ATTACKS)}


THREE = ("property_loss", "property_threshold", "property_kl")


@cache
def _adult(model: str, noise: float | None = None, seed: int = 21, names: tuple[str, ...] = NAMES) -> dict[str, Scored]:
    local = {"epochs": 2, "batch_size": 64, "learning_rate": 0.2}
    privacy = {"name": "record", "noise_multiplier": noise, "clipping_norm": 1.0} if noise else None
    return _scored(
        names,
        game={"column": "sex", "value": "Female", "records": 1000},
        seed=seed,
        data={"source": "adult", "clients": 4, "candidates": 8000, "limit": 30000, "population": 4000, "test": 200},
        model={"name": model, "hidden": (16,)} if model == "mlp" else {"name": model},
        federation={"rounds": 6, "local": local, "privacy": privacy},
        worlds=80,
        controls={"planted_worlds": 0},
    )


def _auc(scored: Scored) -> float:
    estimate = scored.finding.metrics["auc"].estimate
    assert estimate is not None
    return estimate


def _records(scored: Scored) -> float:
    found = scored.finding.metrics["n_leaked"]
    return np.inf if "estimate" in found.infinite else float(found.estimate or 0)


def _right(scored: Scored) -> float:
    """How often an attack is right at the threshold of its own paper: half of the votes, else 0."""
    evidence = scored.evidence
    assert evidence is not None
    yes = evidence.scores > (0.5 if scored.finding.attack == "property_kl" else 0.0)
    return float((yes == evidence.members)[evidence.asked].mean())


@NEEDS_ADULT
def test_loss_below_threshold_below_divergence() -> None:
    """The mean over seeds, each at the threshold of its own paper: the loss test has nothing to set it by. By AUC,
    where thresholds do not count, it is level with the others here: the order is one of decisions.
    """
    runs = [_adult("softmax"), *(_adult("softmax", seed=seed, names=THREE) for seed in (4, 5, 11))]
    right = {name: np.mean([_right(run[name]) for run in runs]) for name in THREE}
    print(right, [{name: _auc(each) for name, each in run.items()} for run in runs])
    assert right["property_loss"] < right["property_threshold"] <= right["property_kl"]
    for run in runs:
        assert _auc(run["property_kl"]) > 0.9
        for each in run.values():
            assert each.finding.controls["blind"].passed is not False


@NEEDS_ADULT
def test_logistic_regression_leaks_more_records_than_a_network() -> None:
    simple, network = _adult("softmax"), _adult("mlp")
    for name in ("property_threshold", "property_kl"):
        print(name, _records(simple[name]), _records(network[name]))
        assert _records(simple[name]) > _records(network[name])


@NEEDS_ADULT
def test_sets_of_neurons_beat_sorted_and_plain_parameters_of_a_network() -> None:
    auc = {name: _auc(each) for name, each in _adult("mlp").items()}
    print(auc)
    assert auc["property_whitebox"] > auc["property_sorted"] + 0.05
    assert auc["property_whitebox"] > auc["property_flat"] + 0.05


@NEEDS_ADULT
def test_record_privacy_with_matched_references_does_not_remove_the_leak() -> None:
    private = _adult("softmax", noise=1.0)
    low = private["property_kl"].finding.metrics["auc"].low
    print({name: _auc(each) for name, each in private.items()})
    assert low is not None
    assert low > 0.6


SEEDS = 24
CHEAP = ("property_loss", "property_threshold", "property_kl", "property_blackbox")


def _made(folder: Path, seed: int, column: str, records: int) -> dict[str, Scored]:
    """The findings about a column of records made anew for each seed: a `coin` has nothing to do with anything, and who
    wears a `hat` has a label that follows another feature.
    """
    rng = np.random.default_rng(seed)
    x, noise = rng.standard_normal((1600, 6)), rng.standard_normal(1600)
    coin, hat = rng.random((2, 1600)) < 0.5
    y = (np.where(hat, x[:, 1], x[:, 0]) + 0.5 * noise > 0).astype(np.int64)
    path = folder / f"{seed}.npz"
    np.savez(path, x=x, y=y, coin=np.where(coin, "yes", "no"), hat=np.where(hat, "yes", "no"))
    return _scored(
        CHEAP,
        game={"column": column, "value": "yes", "records": records},
        seed=seed,
        data={
            "source": "npz",
            "path": str(path),
            "columns": ("coin", "hat"),
            "clients": 2,
            "candidates": 500,
            "null_candidates": 500,
            "population": 500,
            "test": 40,
        },
        model={"name": "softmax"},
        federation={"rounds": 5, "local": {"epochs": 2, "batch_size": 8, "learning_rate": 0.2}},
        worlds=40,
        controls={"planted_worlds": 0},
    )


def _count(runs: list[dict[str, Scored]], holds: Callable[[Scored], bool]) -> dict[str, int]:
    """In how many runs something holds of each attack."""
    return {name: sum(holds(run[name]) for run in runs) for name in CHEAP}


def _misses(each: Scored) -> bool:
    auc = each.finding.metrics["auc"]
    assert auc.low is not None
    assert auc.high is not None
    return not auc.low <= 0.5 <= auc.high


def _found(each: Scored) -> bool:
    auc = each.finding.metrics["auc"]
    assert auc.low is not None
    return auc.low > 0.5


def _leaks(each: Scored) -> bool:
    return bool(each.finding.metrics["n_leaked"].low)


def _misses_by_world(each: Scored) -> bool:
    """Whether the interval misses chance that takes worlds that share records for independent."""
    evidence = each.evidence
    assert evidence is not None
    found = measure(parse_metric("auc"), evidence.scores, evidence.members, evidence.asked)
    assert isinstance(found, Measured)
    return not found.low <= 0.5 <= found.high


def test_a_property_without_effect_is_found_no_more_often_than_stated(tmp_path: Path) -> None:
    """Of 24 seeds, 95 % intervals of the AUC may miss chance in 6 and records leaked start above 0 in 4: more come in
    fewer than 4 of 10 000 studies of an attack whose intervals hold. Where all worlds share their records (280 of the
    victims' 500), chance is missed in more.
    """
    assert max(binom.sf(6, SEEDS, 0.05), binom.sf(4, SEEDS, 0.025)) < 4e-4
    runs = [_made(tmp_path, seed, "coin", 40) for seed in range(SEEDS)]
    misses, leaks = _count(runs, _misses), _count(runs, _leaks)
    shared = [_made(tmp_path, seed, "coin", 280) for seed in range(SEEDS)]
    missed = _count(shared, _misses)
    print(misses, leaks, _count(runs, _misses_by_world), missed, _count(shared, _leaks))
    for run, other in zip(runs, shared, strict=True):
        for blocks, same in zip(run.values(), other.values(), strict=True):
            assert blocks.finding.groups in (7, 8)
            assert blocks.finding.caveat is None
            assert same.finding.groups is None
            assert same.finding.caveat is not None
    assert max(misses.values()) <= 6
    assert max(leaks.values()) <= 4
    assert sum(missed.values()) > 2 * sum(misses.values())
    assert max(missed.values()) > 6


def test_a_planted_property_is_found(tmp_path: Path) -> None:
    runs = [_made(tmp_path, seed, "hat", 40) for seed in range(SEEDS)]
    found, leaks = _count(runs, _found), _count(runs, _leaks)
    print(found, leaks)
    assert max(found.values()) >= SEEDS - 2
    assert max(leaks.values()) >= SEEDS // 2


def test_nothing_leaks_where_the_shares_are_equal() -> None:
    """99 % intervals of the AUC over 30 seeds: more than 4 misses of one attack has a chance of 2e-5. Records leaked at
    95 %: more than 6 lower ends above 0, each with a chance of .025 at most, 1e-5.
    """
    assert max(binom.sf(4, 30, 0.01), binom.sf(6, 30, 0.025)) < 5e-5
    misses, above = dict.fromkeys(NAMES, 0), dict.fromkeys(NAMES, 0)
    for seed in range(30):
        found = _scored(
            game={"column": "sex", "value": "1", "records": 40},
            seed=seed,
            data={"source": "diabetes", "clients": 2, "candidates": 200, "population": 100, "test": 40},
            model={"name": "softmax"},
            worlds=20,
            controls={"planted_worlds": 0},
        )
        for name, each in found.items():
            misses[name] += each.finding.controls["null"].passed is False
            evidence = each.evidence
            assert evidence is not None
            assert evidence.null_scores is not None
            assert evidence.null_members is not None
            assert evidence.null_asked is not None
            null = evidence.null_scores, evidence.null_members, evidence.null_asked
            records = leaked(measure(parse_metric("balanced_accuracy"), *null, groups=evidence.groups), SHARES)
            above[name] += isinstance(records, Measured) and records.low > 0
    print(misses, above)
    assert max(misses.values()) <= 4
    assert max(above.values()) <= 6
