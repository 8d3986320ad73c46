"""Measures against brute force, scikit-learn and closed forms."""

from math import inf, nextafter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from fedsim.metrics import (
    DEFAULT_METRICS,
    Bools,
    Floats,
    Metric,
    auc,
    best_threshold,
    mean_absolute_error,
    parse_metric,
    rates,
    roc,
    tpr_at_fpr,
)


@st.composite
def tied_entries(draw: st.DrawFn) -> tuple[Floats, Bools]:
    """A few entries of both classes, with many ties."""
    drawn = draw(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
    scores = np.array([score for score, _ in drawn], dtype=np.float64)
    members = np.array([member for _, member in drawn])
    members[:2] = [True, False]
    return scores, members


@given(tied_entries())
def test_roc_and_auc_agree_with_scikit_learn(entries: tuple[Floats, Bools]) -> None:
    scores, members = entries
    fpr, tpr, thresholds = roc_curve(members, scores, drop_intermediate=False)
    curve = roc(scores, members)
    np.testing.assert_allclose(curve.false_positive_rate, fpr, atol=1e-15)
    np.testing.assert_allclose(curve.true_positive_rate, tpr, atol=1e-15)
    np.testing.assert_array_equal(curve.thresholds, thresholds)
    assert auc(scores, members) == pytest.approx(roc_auc_score(members, scores), abs=1e-12)


# Levels lie between the rates that so few entries can have (or on 1/2), so that rounding decides nothing.
@given(tied_entries(), st.integers(0, 996).map(lambda number: (number + 0.5) / 997))
def test_tpr_at_fpr_is_the_best_of_all_allowed_thresholds(entries: tuple[Floats, Bools], level: float) -> None:
    scores, members = entries
    found = tpr_at_fpr(scores, members, level)
    every = [rates(scores, members, threshold) for threshold in (inf, *scores)]
    assert found.tpr == pytest.approx(max(each.tpr for each in every if each.fpr <= level))
    assert rates(scores, members, found.threshold).tpr == found.tpr
    assert found.false_positives <= level * found.non_members
    assert (found.true_positives, found.members) == (((scores >= found.threshold) & members).sum(), members.sum())


def test_a_tie_across_the_bound_is_left_out_whole() -> None:
    scores = np.array([3.0, 2.0, 2.0, 1.0])
    members = np.array([True, True, False, False])
    assert tpr_at_fpr(scores, members, 0.4).tpr == 0.5  # an interpolated ROC would say 0.9
    assert tpr_at_fpr(scores, members, 0.5).tpr == 1.0


@pytest.mark.parametrize("share", range(1, 100))
def test_a_level_of_so_many_hundredths_allows_so_many_of_a_hundred(share: int) -> None:
    scores, members = np.append(np.arange(100.0), -1.0), np.append(np.zeros(100, bool), True)
    assert tpr_at_fpr(scores, members, share / 100).false_positives == share  # 0.29 * 100 is below 29 in floats


def test_rates_in_closed_form() -> None:
    scores = np.array([4.0, 3.0, 2.0, 1.0, 3.5, 0.0, 0.0, 0.0])
    members = np.array([True] * 4 + [False] * 4)
    assert rates(scores, members, 3.0) == (0.5, 0.25)
    own = np.where(members, 0.0, 9.0)  # a threshold an entry
    assert rates(scores, members, own) == (1, 0)


@given(tied_entries())
def test_best_threshold_is_the_best(entries: tuple[Floats, Bools]) -> None:
    scores, members = entries

    def advantage(threshold: float) -> float:
        found = rates(scores, members, threshold)
        return found.tpr - found.fpr

    best = max(advantage(threshold) for threshold in (inf, *scores))
    assert advantage(best_threshold(scores, members)) == pytest.approx(best)


def test_best_threshold_lies_half_way_even_between_neighbouring_floats() -> None:
    members = np.array([True, False])
    assert best_threshold(np.array([3.0, 1.0]), members) == 2.0
    assert best_threshold(np.array([nextafter(1.0, 2.0), 1.0]), members) == nextafter(1.0, 2.0)
    assert best_threshold(np.array([1e308, -1e308]), members) == 0.0
    assert best_threshold(np.array([1.0, 3.0]), members) == inf  # the attack is upside down: say yes to nobody


@given(st.sampled_from(["tpr", "precision"]), st.floats(1e-9, 1 - 1e-9))
def test_every_metric_name_reads_back(kind: str, level: float) -> None:
    metric = parse_metric(f"{'tpr@fpr' if kind == 'tpr' else 'precision@prior'}={level!r}")
    assert parse_metric(metric.name) == metric
    assert metric.chance == metric.level == level


def test_plain_names_and_chance_values() -> None:
    names = ["auc", "tpr@fpr=0.1", "tpr@fpr=0.01", "tpr@fpr=0.001", "advantage", "balanced_accuracy"]
    assert [metric.name for metric in DEFAULT_METRICS] == [*names, "precision@prior=0.5"]
    assert [metric.chance for metric in DEFAULT_METRICS] == [0.5, 0.1, 0.01, 0.001, 0, 0.5, 0.5]
    assert all(parse_metric(metric.name) == metric for metric in DEFAULT_METRICS)
    assert parse_metric("mae") == Metric("mae")
    assert Metric("mae").chance is None


@pytest.mark.parametrize(
    "text", ["", "AUC", "auc=0.1", "tpr", "tpr@fpr=0", "tpr@fpr=1", "tpr@fpr=-0.1", "tpr@fpr=nan", "tpr@fnr=0.1"]
)
def test_a_bad_name_says_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match=r"unknown metric '.*'; allowed: auc, tpr@fpr=LEVEL"):
        parse_metric(text)


def test_mean_absolute_error() -> None:
    assert mean_absolute_error(np.array([1.0, 3.0]), np.array([2.0, 0.0])) == 2.0
    with pytest.raises(ValueError, match="non-empty"):
        mean_absolute_error(np.array([]), np.array([]))
    with pytest.raises(ValueError, match="finite"):
        mean_absolute_error(np.array([np.nan]), np.array([0.0]))


@pytest.mark.parametrize(
    ("scores", "members", "message"),
    [
        (np.array([1.0, np.nan]), np.array([True, False]), "1 that are not"),
        (np.array([1.0, 2.0]), np.array([True, True]), "2 members of 2"),
        (np.array([1.0, 2.0]), np.array([False, False]), "0 members of 2"),
        (np.array([1.0, 2.0]), np.array([1, 0]), "bool"),
        (np.array([[1.0, 2.0]]), np.array([[True, False]]), "flat"),
    ],
)
def test_entries_without_a_meaning_are_refused(scores: Floats, members: Bools, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        auc(scores, members)


def test_levels_without_a_meaning_are_refused() -> None:
    scores, members = np.array([1.0, 0.0]), np.array([True, False])
    with pytest.raises(ValueError, match=r"fpr must be in \[0, 1\], got 2"):
        tpr_at_fpr(scores, members, 2)
