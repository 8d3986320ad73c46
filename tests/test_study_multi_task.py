"""A study of minutes: what a participant gains that teaches the model the property, and what it costs. Run with `make
test-slow`.
"""

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu, ttest_1samp

from attacks import ATTACKS
from fedsim.actors import with_adversary
from fedsim.engine import run_worlds
from fedsim.games import draw
from fedsim.job import Probe
from fedsim.processes import default_workers
from fedsim.scenario import BatchGame, MultiTask
from fedsim.views import parse_vantage
from tests import worlds
from tests.test_study import HERE

pytestmark = pytest.mark.slow
WORLDS, SEEDS, WEIGHT = 3, (4, 5, 6), 0.9
DATA: dict[str, dict[str, Any]] = {
    "digits": {"source": "digits", "candidates": 1000, "population": 600, "test": 150, "visual": {"name": "rotation"}},
    "adult": {"source": "adult", "candidates": 12000, "limit": 32000, "population": 4000, "test": 1000},
}
ASKED = {"digits": ("visual", "rotation"), "adult": ("race", "Black")}
ROUNDS = {"digits": 60, "adult": 40}


def _found(source: str, seed: int, weights: tuple[float, ...]) -> NDArray[np.float64]:
    """Return AUC and test accuracy of worlds [weights, 2, worlds] that differ in nothing but the act."""
    chosen = worlds.scenario(
        seed=seed,
        data={**DATA[source], "clients": 8},
        model={"hidden": (32,)},
        federation={"rounds": ROUNDS[source], "local": {"epochs": 2, "batch_size": 8, "learning_rate": 0.1}},
        worlds=WORLDS,
        controls={"planted_worlds": 0},
    )
    column, value = ASKED[source]
    game = BatchGame(name="batches", column=column, value=value, records=32)
    passive = draw(chosen, worlds.pool(chosen), game, frozenset({1}))
    vantage, signal = parse_vantage("client:1", 8), ATTACKS["batch_property_models"].signal
    probe = Probe("p", vantage, passive.exams[0].ask, signal, frozenset(range(WORLDS)))
    found = []
    for weight in weights:
        plan = MultiTask(name="multi_task", weight=weight)
        drawn = with_adversary(passive, plan, frozenset({"client:1"}))
        own = [dataclasses.replace(world, adversary=world.adversary if weight else None) for world in drawn.worlds]
        job = worlds.job(chosen, [probe], [vantage], own)
        left = dict(run_worlds(job, range(WORLDS), workers=default_workers()))
        rows = []
        for world, members in enumerate(passive.exams[0].members):
            scores = left[world].signals["p"]
            above = mannwhitneyu(scores[members], scores[~members]).statistic
            rows.append([above / members.sum() / (~members).sum(), left[world].utility[-1, 2]])
        found.append(np.transpose(rows))
    return np.array(found)


@pytest.mark.parametrize("source", DATA)
def test_who_teaches_the_model_the_property_reads_more_of_it(source: str) -> None:
    """The same nine worlds with and without the act. An act that changes nothing passes in one of twenty studies at
    most (one-sided t-test of the differences in AUC); it must cost less than ten points of accuracy.
    """
    if source == "adult" and "adult" not in HERE:
        pytest.skip("the files of adult are not in the data folder")
    found = np.concatenate([_found(source, seed, (0.0, WEIGHT)) for seed in SEEDS], axis=2)
    gain, cost = found[1, 0] - found[0, 0], found[0, 1] - found[1, 1]
    print(source, found.mean(axis=2).round(3), gain.round(3), cost.round(3))
    assert ttest_1samp(gain, 0, alternative="greater").pvalue < 0.05
    assert cost.mean() < 0.1
