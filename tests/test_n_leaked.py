"""Records leaked: golden values, the law behind them, its interval, and how a record and a report show infinity."""

from math import inf, isinf
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import binom

from fedsim.intervals import Measured, Unresolved, leaked, leaked_by_estimates, measure
from fedsim.metrics import Metric, n_leaked, n_leaked_by_estimates, parse_metric, share_ratio
from fedsim.report import shown
from fedsim.results import Quantity, quantity
from tests.test_scenario_file import VALID, refusal, written

BALANCED = Metric("balanced_accuracy")


@pytest.mark.parametrize(
    ("accuracy", "shares", "records"),
    [
        (0.9, (0.5, 0.2), 2.174),
        (0.75, (0.5, 0.4), 1.578),
        (0.99, (0.5, 0.6), 17.71),
        (0.95, (0.5, 0.0), 2.396),
        (1.0, (0.5, 0.2), inf),
        (0.9, (0.0, 1.0), inf),
        (0.9, (0.3, 0.3), 0.0),
        (0.5, (0.5, 0.2), 0.0),
        (0.1, (0.5, 0.2), 0.0),
    ],
)
def test_golden_values_of_suri_and_evans(accuracy: float, shares: tuple[float, float], records: float) -> None:
    assert n_leaked(accuracy, share_ratio(*shares)) == pytest.approx(records, rel=5e-4)
    assert share_ratio(*shares) == share_ratio(*shares[::-1])


def test_no_rule_on_n_records_is_right_more_often_than_the_bound_allows() -> None:
    """The best rule on n records guesses by the count; its accuracy never says that more than n records leaked."""
    for shares in ((0.5, 0.2), (0.5, 0.6), (0.5, 0.0), (0.9, 0.8)):
        for n in range(1, 40):
            counts = np.arange(n + 1)
            gap = np.abs(binom.pmf(counts, n, shares[0]) - binom.pmf(counts, n, shares[1])).sum() / 2
            accuracy = min((1 + gap) / 2, 1 - 1e-15)
            assert n_leaked(accuracy, share_ratio(*shares)) <= n * (1 + 1e-9)


def test_the_interval_is_the_accuracys_on_another_scale() -> None:
    members = np.arange(60)[:, None] % 2 == 0
    scores = np.where(members, 1.0, 0.0) + np.random.default_rng(0).normal(size=(60, 1)) * 0.6
    asked = np.ones_like(members)
    accuracy = measure(BALANCED, scores, members, asked)
    found = leaked(accuracy, (0.5, 0.2))
    assert isinstance(accuracy, Measured)
    assert isinstance(found, Measured)
    ratio = share_ratio(0.5, 0.2)
    assert (found.low, found.estimate, found.high) == tuple(
        n_leaked(value, ratio) for value in (accuracy.low, accuracy.estimate, accuracy.high)
    )
    perfect = leaked(measure(BALANCED, members.astype(float), members, asked), (0.5, 0.2))
    assert isinstance(perfect, Measured)
    assert isinf(perfect.high)
    assert isinf(perfect.estimate)
    assert perfect.low < 30
    assert isinstance(leaked(perfect, (0.0, 1.0)), Unresolved)


def test_guesses_leak_nothing() -> None:
    """Over 100 seeds the interval's lower end is above 0 in at most 9: a false alarm of 3e-4 at a level of 2.5 %."""
    wrong = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        members = rng.random((40, 1)) < 0.5
        found = leaked(measure(BALANCED, rng.normal(size=(40, 1)), members, np.ones_like(members)), (0.5, 0.2))
        wrong += isinstance(found, Measured) and found.low > 0
    assert wrong <= 9


def test_estimates_as_good_as_the_mean_of_n_records_leak_n() -> None:
    """Who sees 20 records and says the posterior mean of four shares is worth 20; 4,000 worlds, a false alarm of 1e-6
    for the wide bracket.
    """
    rng = np.random.default_rng(1)
    shares = rng.choice([0.2, 0.4, 0.6, 0.8], size=(4000, 1))
    asked = np.ones_like(shares, dtype=bool)
    grid = np.array([0.2, 0.4, 0.6, 0.8])
    likely = binom.pmf(rng.binomial(20, shares), 20, grid)  # [worlds, shares]
    found = leaked_by_estimates((likely @ grid / np.sum(likely, axis=1))[:, None], shares, asked)
    assert isinstance(found, Measured)
    assert 17.5 < found.low < found.estimate < found.high < 22.5
    blind = leaked_by_estimates(np.full((4000, 1), 0.5), shares, asked)
    assert isinstance(blind, Measured)
    assert blind.estimate < 0.1
    assert blind.low == 0
    right = leaked_by_estimates(shares, shares, asked)
    assert isinstance(right, Measured)
    assert isinf(right.estimate)
    assert right.low > 100
    chances = np.full(4, 0.25)
    spread = 0.05  # with one or two records the posterior mean is linear in the holders, and its error in closed form
    for records in (1, 2):
        error = spread - (records * spread) ** 2 / (records * (0.25 - spread) + records**2 * spread)
        assert n_leaked_by_estimates(error, grid, chances) == pytest.approx(records, abs=1e-9)
    assert n_leaked_by_estimates((0.04 + spread) / 2, grid, chances) == pytest.approx(0.5, abs=1e-9)
    assert n_leaked_by_estimates(spread, grid, chances) == 0
    assert isinf(n_leaked_by_estimates(0.0, grid, chances))


def test_a_record_and_a_report_show_infinity() -> None:
    found = quantity(Measured(inf, 2.5, inf, 0.95, "some", 5, 5, 10), 0.95)
    assert (found.estimate, found.high, found.infinite) == (None, None, ("estimate", "high"))
    assert (shown(found, "estimate"), shown(found, "high")) == ("∞", "∞")
    half = quantity(Measured(3.0, 2.5, inf, 0.95, "some", 5, 5, 10), 0.95)
    assert (shown(half, "estimate"), shown(half, "high")) == ("3.000", "∞")
    with pytest.raises(ValidationError, match="an infinite number is null"):
        Quantity(1.0, 0.0, 2.0, 0.95, "some", None, None, None, None, ("high",))
    with pytest.raises(ValidationError, match="or none of them"):
        Quantity(1.0, 0.0, None, 0.95, "some", None, None, None, None)


def test_the_metric_has_a_name_and_no_meaning_elsewhere() -> None:
    assert parse_metric("n_leaked").name == "n_leaked"
    assert parse_metric("n_leaked").chance == 0
    with pytest.raises(ValueError, match="leaked_by_estimates"):
        measure(Metric("n_leaked"), np.zeros((4, 1)), np.zeros((4, 1), dtype=bool), np.ones((4, 1), dtype=bool))


CLAIM = "\nclaims:\n- {audit: a, metric: %s, at_most: %s}\n"


@pytest.mark.parametrize(
    ("metric", "at_most", "words"),
    [("n_leaked", 5, "does not play the game property"), ("auc", 1.5, "allowed: a number above 0, at most 1")],
)
def test_refuses_a_claim_that_makes_no_sense(metric: str, at_most: Any, words: str, tmp_path: Any) -> None:
    audit = VALID.partition("audits:")[2].partition("name:")[2].split()[0].strip(",{}\"'")
    text = VALID.rstrip() + (CLAIM % (metric, at_most)).replace("audit: a", f"audit: {audit}")
    assert words in refusal(written(tmp_path, text))
