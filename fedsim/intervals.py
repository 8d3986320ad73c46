"""Every measure with its confidence interval: worlds and items are the units that vary, never single scores.

docs/statistics.md explains what the intervals cover and shows their measured coverage.
"""

from dataclasses import dataclass, replace
from math import floor, isfinite, log10
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy  # its parts take a second to import; each is loaded when it is first used

from fedsim.metrics import (
    Bools,
    Floats,
    Metric,
    auc,
    best_threshold,
    mean_absolute_error,
    n_leaked,
    n_leaked_by_estimates,
    rates,
    share_ratio,
    tpr_at_fpr,
)

Ints = npt.NDArray[np.int64]
METHOD = "two-way clustered variance, exact binomial at the effective sample size"
PARTS = 5  # odd, so that of any two parts of the worlds exactly one judges the other
ROUND_OFF = 1e-12
"""Sums of influences that cancel leave no more than this share of them."""
METHOD_ERROR = "two-way clustered variance, log scale"


@dataclass(frozen=True)
class Measured:
    """A number that may be quoted: `low <= estimate <= high` at `confidence`, and the counts behind it. All is finite,
    but for records leaked: there may be infinitely many.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    method: str
    members: int  # asked entries that are members, over all worlds; for "mae" every asked entry
    non_members: int
    worlds: int  # worlds with at least one asked entry; where some share records, `method` says how many do not
    false_positives: int | None = None  # only for "tpr@fpr=..."
    groups: int | None = None  # of worlds that share records, each taken as one; None: no two worlds share any

    def __post_init__(self) -> None:
        if not (self.low <= self.estimate <= self.high and isfinite(self.low)):
            raise ValueError(f"needs a finite low <= estimate <= high, got {self.low}, {self.estimate}, {self.high}")


@dataclass(frozen=True)
class Unresolved:
    """The number must not be quoted; `reason` is one plain sentence."""

    reason: str


class Entries(NamedTuple):
    """The asked entries, flat, highest score first."""

    scores: Floats  # [entries]
    members: Bools  # [entries]
    world: Ints  # [entries], the row it came from, or the group of rows that vary together
    item: Ints  # [entries], the column it came from


class Exposure(NamedTuple):
    """Items by how well the attack separates their member worlds from the others, most exposed first."""

    items: Ints  # [known items], column numbers
    auc: Floats  # [known items]


def measure(
    metric: Metric,
    scores: Floats,
    members: Bools | Floats,
    asked: Bools,
    *,
    confidence: float = 0.95,
    new_items: bool = True,
    groups: Ints | None = None,
) -> Measured | Unresolved:
    """Return `metric` with its confidence interval, or why it must not be quoted.

    The interval covers the value over new worlds and new items. It is deterministic: nothing is resampled.

    Args:
        metric: what to measure.
        scores: float64 [worlds, items]; higher means "yes, in". For "mae" the estimates.
        members: bool [worlds, items], the truth. For "mae" the true quantities, float64.
        asked: bool [worlds, items]; only these entries count.
        confidence: in (0, 1), two-sided.
        new_items: False where the items are all there are (the classes of a task), so that the interval covers new
            worlds over these very items.
        groups: int64 [worlds]; worlds with the same number vary together, because they share records, and count as one
            (default: none do).

    Raises:
        ValueError: shapes or types do not fit, or an asked score is not finite.

    Source: Cameron, Gelbach and Miller, "Robust inference with multiway clustering" (2011),
        https://doi.org/10.1198/jbes.2010.07136; Korn and Graubard, "Confidence intervals for proportions with small
        expected number of positive counts estimated from survey data" (1998), Survey Methodology 24(2);
        for the AUC: Obuchowski, "Nonparametric analysis of clustered ROC curve data" (1997),
        https://doi.org/10.2307/2533958
    """
    if metric.kind == "n_leaked":
        raise ValueError("n_leaked is another measure on its own scale: use leaked or leaked_by_estimates")
    _check(metric, scores, members, asked, confidence, groups)
    rows, item = np.nonzero(asked)
    world = rows if groups is None else groups[rows]
    found = _measure(
        metric, scores[asked], members[asked], world, item if new_items else np.zeros_like(item), confidence
    )
    return _of_groups(found, rows, world)


def _measure(
    metric: Metric, scores: Floats, members: Bools | Floats, world: Ints, item: Ints, confidence: float
) -> Measured | Unresolved:
    """`measure`, of asked entries [entries]."""
    if np.unique(world).size < 2:
        return _too_few(world)
    if metric.kind == "mae":
        truths = members.astype(np.float64)
        mean_absolute_error(scores, truths)  # refuses what has no error
        errors = np.abs(scores - truths)
        return _measure_error(errors, float(np.ptp(truths)), world, item, confidence)
    order = np.argsort(-scores, kind="stable")
    entries = Entries(scores[order], members.astype(np.bool_)[order], world[order], item[order])
    non_members = int((~entries.members).sum())
    if non_members in (0, entries.members.size):
        return Unresolved("A leak shows between members and non-members, and one of the two is missing.")
    if metric.kind == "auc":
        return _measured(entries, auc(entries.scores, entries.members), _auc_influence(entries), confidence)
    if metric.kind == "tpr":
        needed = 10 / metric.level
        if non_members < needed * (1 - 1e-12):
            return Unresolved(f"{metric.name} needs {needed:.0f} non-members (10 / rate), got {non_members}.")
        found = tpr_at_fpr(entries.scores, entries.members, metric.level)
        influence = _tpr_influence(entries, metric.level, found.threshold)
        return _measured(entries, found.tpr, influence, confidence, false_positives=found.false_positives)
    return _measure_decisions(metric, entries, confidence)


def leaked(balanced_accuracy: Measured | Unresolved, shares: tuple[float, float]) -> Measured | Unresolved:
    """Return `n_leaked` with its interval: the accuracy's, on another scale; infinite where that reaches 1.

    Args:
        balanced_accuracy: of the attack, with its interval.
        shares: the two shares of the property.
    """
    if isinstance(balanced_accuracy, Unresolved):
        return balanced_accuracy
    ratio = share_ratio(*shares)
    if ratio == 0:
        return Unresolved("A single record tells shares of 0 and 1 apart, so nothing is said by counting records.")
    low, estimate, high = (
        n_leaked(value, ratio) for value in (balanced_accuracy.low, balanced_accuracy.estimate, balanced_accuracy.high)
    )
    method = f"{balanced_accuracy.method}; accuracy turned into records"
    return replace(balanced_accuracy, estimate=estimate, low=low, high=high, method=method)


def leaked_by_estimates(
    estimates: Floats, shares: Floats, asked: Bools, *, confidence: float = 0.95, groups: Ints | None = None
) -> Measured | Unresolved:
    """Return `n_leaked_by_estimates` with its interval: that of the mean squared error, on another scale.

    Args:
        estimates: float64 [worlds, 1] of the share.
        shares: float64 [worlds, 1], the truth.
        asked: bool [worlds, 1]; only these entries count.
        confidence: in (0, 1), two-sided.
        groups: as `measure`.

    Raises:
        ValueError: shapes or types do not fit, or an asked estimate is not finite.
    """
    _check(Metric("mae"), estimates, shares, asked, confidence, groups)
    rows, item = np.nonzero(asked)
    world = rows if groups is None else groups[rows]
    if np.unique(world).size < 2:
        return _too_few(world)
    truth = shares[asked]
    error = _measure_error(np.square(estimates[asked] - truth), float(np.ptp(truth)) ** 2, world, item, confidence)
    if isinstance(error, Unresolved):
        return error
    possible, times = np.unique(truth, return_counts=True)
    if len(possible) < 2:
        return Unresolved("All worlds have the same share, so there is nothing to estimate.")
    low, estimate, high = (
        n_leaked_by_estimates(value, possible, times / times.sum()) for value in (error.high, error.estimate, error.low)
    )
    method = f"{error.method}; error turned into records"
    return _of_groups(replace(error, estimate=estimate, low=low, high=high, method=method), rows, world)


def in_percent(confidence: float) -> str:
    """Return a confidence in words, with two digits of what it lacks: 0.95 -> "95 %", 0.983333 -> "98.3 %".

    Args:
        confidence: in (0, 1).
    """
    lacks = 100 * (1 - confidence)
    return f"{round(100 * confidence, 1 - floor(log10(lacks))):.12g} %"


def held_out_thresholds(entries: Entries) -> Floats | None:
    """Return a threshold an entry, learned without its world and without its item; None when too little is left.

    Worlds and items are dealt into five parts each. Part k of the worlds is judged by the threshold that is best on
    parts k+1 and k+2 (cyclic, so that no two parts judge each other), on the items outside the entry's own part.

    Args:
        entries: the asked entries.
    """
    if np.unique(entries.world).size < PARTS:
        return None
    ranks = scipy.stats.rankdata(entries.scores)
    world_part = _deal(entries.world, ranks, entries.members)
    item_part = _deal(entries.item, ranks, entries.members)
    one_item = np.unique(entries.item).size == 1
    thresholds = np.empty(entries.scores.size)
    for worlds in range(PARTS):
        near = np.isin(world_part, [(worlds + 1) % PARTS, (worlds + 2) % PARTS])
        for items in np.unique(item_part):
            learn = near & (one_item | (item_part != items))
            if not entries.members[learn].any() or entries.members[learn].all():
                return None
            judged = (world_part == worlds) & (item_part == items)
            thresholds[judged] = best_threshold(entries.scores[learn], entries.members[learn])
    return thresholds


def exposure(scores: Floats, members: Bools, asked: Bools) -> Exposure:
    """Return the AUC of each item across worlds, most exposed first; items never in or never out are left out.

    The top of this list is picked for being high: to measure the most exposed tenth, use `most_exposed_tenth`.

    Args:
        scores: float64 [worlds, items].
        members: bool [worlds, items], the truth.
        asked: bool [worlds, items].
    """
    inside, outside = (members & asked).sum(axis=0), (~members & asked).sum(axis=0)  # [items]
    known = np.flatnonzero((inside > 0) & (outside > 0))
    found = np.array([auc(scores[asked[:, i], i], members[asked[:, i], i]) for i in known], dtype=np.float64)
    order = np.argsort(-found, kind="stable")
    return Exposure(known[order], found[order])


def most_exposed_tenth(scores: Floats, members: Bools, asked: Bools) -> Bools:
    """Return which items [items] are the tenth that these worlds separate best (largest AUC of their own).

    Picked for being high here, so measure them in other worlds, and pick from scores in which those other worlds had no
    part, not even as references.

    Args:
        scores: float64 [worlds, items].
        members: bool [worlds, items], the truth.
        asked: bool [worlds, items].
    """
    chosen = np.zeros(scores.shape[1], dtype=np.bool_)
    known = exposure(scores, members, asked).items
    chosen[known[: int(np.ceil(known.size / 10))]] = True
    return chosen


def _too_few(world: Ints) -> Unresolved:
    return Unresolved(
        f"An interval needs at least 2 worlds, or groups of worlds that share records, got {np.unique(world).size}."
    )


def _of_groups(found: Measured | Unresolved, rows: Ints, world: Ints) -> Measured | Unresolved:
    """Return a number with all worlds counted that it rests on, and by what they count for fewer."""
    worlds, groups = np.unique(rows).size, np.unique(world).size
    if isinstance(found, Unresolved) or groups == worlds:
        return found
    apart = f"{worlds} worlds in {groups} groups that share none of the records asked about"
    method = f"{found.method}; {apart}, each taken as one"
    return replace(found, worlds=int(worlds), groups=int(groups), method=method)


def _measured(
    entries: Entries,
    share: float,
    influence: Floats,
    confidence: float,
    *,
    tries: float = 1.0,
    false_positives: int | None = None,
) -> Measured:
    """The interval of a share in [0, 1], out of `tries` of the entries, from each entry's influence on it."""
    variance = _variance(influence, entries.world, entries.item)
    worth, degrees = tries * _scores_worth(entries), _degrees(entries.world, entries.item)
    if variance == 0 and 0 < share < 1:  # the same answer for everybody: bound how many would get another one
        reach = _share_interval(0.0, worth, degrees, confidence)[1]
        low, high = max(share - reach, 0.0), min(share + reach, 1.0)
    else:
        low, high = _share_interval(share, _effective_size(share, variance, worth), degrees, confidence)
    inside = int(entries.members.sum())
    worlds = int(np.unique(entries.world).size)
    return Measured(
        share, low, high, confidence, METHOD, inside, entries.members.size - inside, worlds, false_positives
    )


def _effective_size(share: float, variance: float, prior_size: float) -> float:
    """How many independent tries the share is worth.

    The variance tells, but it knows little when few independent events were seen, and nothing at a share of 0 or 1: the
    size suggested by the scores then has the weight of one event.
    """
    if not 0 < share < 1:
        return prior_size
    size = share * (1 - share) / variance
    events = min(share, 1 - share) * size
    return min(size, (events + 1) / (events / size + 1 / prior_size))


def _share_interval(share: float, size: float, degrees: int, confidence: float) -> tuple[float, float]:
    """Clopper-Pearson interval of a share of `size` independent tries; few clusters count for fewer tries."""
    tail = (1 - confidence) / 2
    size *= (scipy.stats.norm.ppf(tail) / scipy.stats.t.ppf(tail, degrees)) ** 2
    yes, no = share * size, (1 - share) * size
    low = float(scipy.stats.beta.ppf(tail, yes, no + 1)) if yes > 0 else 0.0
    high = float(scipy.stats.beta.ppf(1 - tail, yes + 1, no)) if no > 0 else 1.0
    return min(low, share), max(high, share)


def _scores_worth(entries: Entries) -> float:
    """How many independent entries the smaller class is worth, judged by how its scores cluster.

    At a share of 0 or 1 the decisions do not vary, so only the scores can tell how much worlds and items hang together.
    """
    sizes = []
    for rows in (entries.members, ~entries.members):
        normal = scipy.stats.norm.ppf(scipy.stats.rankdata(entries.scores[rows]) / (rows.sum() + 1))
        normal -= normal.mean()
        variance = _variance(normal / normal.size, entries.world[rows], entries.item[rows])
        worth = np.mean(np.square(normal)) / variance if variance > 0 else normal.size
        sizes.append(min(float(worth), float(normal.size)))
    return min(sizes)


def _variance(influence: Floats, world: Ints, item: Ints) -> float:
    """The variance of the summed influences when worlds and items are drawn anew."""
    by_world, by_item = _cluster_variance(influence, world), _cluster_variance(influence, item)
    if by_item == 0 or by_world == 0:  # one item, or one world: nothing is crossed
        return max(by_world, by_item)
    by_entry = _cluster_variance(influence, np.arange(influence.size))
    return max(by_world, by_item, by_world + by_item - by_entry)


def _cluster_variance(influence: Floats, cluster: Ints) -> float:
    """The variance of the summed influences when only `cluster` is drawn anew; 0 for a single cluster."""
    names, number = np.unique(cluster, return_inverse=True)
    if names.size < 2:
        return 0.0
    variance = float(names.size / (names.size - 1) * np.square(np.bincount(number, influence)).sum())
    return variance if variance > (ROUND_OFF * np.abs(influence).sum()) ** 2 else 0.0


def _degrees(world: Ints, item: Ints) -> int:
    """Degrees of freedom: one less than the smaller number of clusters, of those that vary."""
    return min(count for count in (np.unique(world).size, np.unique(item).size) if count > 1) - 1


def _auc_influence(entries: Entries) -> Floats:
    """Influence of each entry on the AUC: its own share of pairs won, against the mean."""
    yes, no = np.sort(entries.scores[entries.members]), np.sort(entries.scores[~entries.members])
    won = _share_below(no, entries.scores)
    lost = 1 - _share_below(yes, entries.scores)
    area = won[entries.members].mean()
    influence: Floats = np.where(entries.members, (won - area) / yes.size, (lost - area) / no.size)
    return influence


def _share_below(ordered: Floats, values: Floats) -> Floats:
    """Share of `ordered` below each value, ties one half."""
    below: Floats = np.searchsorted(ordered, values, "left") / ordered.size
    return (below + np.searchsorted(ordered, values, "right") / ordered.size) / 2


def _rate_influence(yes: Bools, rows: Bools) -> Floats:
    """Influence of each entry on the share of `yes` among `rows`."""
    influence: Floats = np.where(rows, yes - yes[rows].mean(), 0.0) / rows.sum()
    return influence


def _tpr_influence(entries: Entries, level: float, threshold: float) -> Floats:
    """Influence on the TPR at a fixed FPR: that on the TPR, minus what a moved threshold takes along the ROC."""
    yes = entries.scores >= threshold
    tpr, fpr = _rate_influence(yes, entries.members), _rate_influence(yes, ~entries.members)
    # The slope of the ROC over the range in which the threshold is uncertain, but over enough of it to be no noise.
    reach = max(np.sqrt(_variance(fpr, entries.world, entries.item)), level / 4)
    left, right = max(level - reach, 0.0), min(level + reach, 1.0)
    lower, upper = (tpr_at_fpr(entries.scores, entries.members, rate).tpr for rate in (left, right))
    influence: Floats = tpr - (upper - lower) / (right - left) * fpr
    return influence


def _measure_decisions(metric: Metric, entries: Entries, confidence: float) -> Measured | Unresolved:
    """Advantage, balanced accuracy and precision at thresholds learned on other worlds and other items."""
    threshold = held_out_thresholds(entries)
    if threshold is None:
        return Unresolved(f"Thresholds are learned on other worlds: {PARTS} are needed, each part with both classes.")
    found = rates(entries.scores, entries.members, threshold)
    yes = entries.scores >= threshold
    tpr, fpr = _rate_influence(yes, entries.members), _rate_influence(yes, ~entries.members)
    if metric.kind == "precision":
        said_yes = found.tpr + found.fpr
        if said_yes == 0:
            return Unresolved("Precision is undefined: the learned thresholds say yes to nobody.")
        even = found.tpr / said_yes  # at prior 1/2 precision is a share of those told yes; a prior only moves its odds
        influence = (found.fpr * tpr - found.tpr * fpr) / said_yes**2
        measured = _measured(entries, even, influence, confidence, tries=said_yes)
        estimate, low, high = (
            metric.level * share / (metric.level * share + (1 - metric.level) * (1 - share))
            for share in (measured.estimate, measured.low, measured.high)
        )
        return replace(measured, estimate=estimate, low=low, high=high)
    balanced = _measured(entries, (1 + found.tpr - found.fpr) / 2, (tpr - fpr) / 2, confidence)
    if metric.kind == "balanced_accuracy":
        return balanced
    return replace(balanced, estimate=2 * balanced.estimate - 1, low=2 * balanced.low - 1, high=2 * balanced.high - 1)


def _deal(cluster: Ints, ranks: Floats, members: Bools) -> Ints:
    """The part 0 to PARTS - 1 of each entry's cluster, fair and the same however the clusters are numbered."""
    names, number = np.unique(cluster, return_inverse=True)
    by_content = [np.bincount(number, key) for key in (ranks * members, ranks * ranks, ranks)]  # exact sums
    order = np.lexsort(by_content)  # by ranks first; the truth decides between identical scores only
    part = np.empty(names.size, dtype=np.int64)
    # A constant shuffle: it depends on no scenario, and dealing in sorted order would give the parts equal truths.
    part[order] = np.random.default_rng(0).permutation(names.size) % PARTS
    return part[number]


def _measure_error(errors: Floats, span: float, world: Ints, item: Ints, confidence: float) -> Measured | Unresolved:
    """The mean error, on the log scale; errors that never vary are bounded by `span`, that of the truth."""
    error = float(errors.mean())
    deviation = np.sqrt(_variance((errors - error) / errors.size, world, item))
    worlds, tail = int(np.unique(world).size), (1 - confidence) / 2
    if error > 0 and deviation > 1e-12 * error:
        factor = float(np.exp(-scipy.stats.t.ppf(tail, _degrees(world, item)) * deviation / error))
        low, high = error / factor, error * factor
    else:
        reach = span * _share_interval(0.0, worlds, worlds - 1, confidence)[1]
        if reach == 0:
            return Unresolved("The true quantity is the same in every world, so nothing shows that it was estimated.")
        low, high = max(error - reach, 0.0), error + reach
    return Measured(error, low, high, confidence, METHOD_ERROR, errors.size, 0, worlds)


def _check(
    metric: Metric, scores: Floats, members: Bools | Floats, asked: Bools, confidence: float, groups: Ints | None
) -> None:
    """Refuse arrays that do not describe worlds and items."""
    if scores.ndim != 2 or scores.shape != members.shape or scores.shape != asked.shape:
        raise ValueError(
            "scores, members and asked must share one shape [worlds, items], "
            f"got {scores.shape}, {members.shape} and {asked.shape}"
        )
    if asked.dtype != np.bool_ or (metric.kind != "mae" and members.dtype != np.bool_):
        raise ValueError(f"asked and members must be bool, got {asked.dtype} and {members.dtype}")
    if not np.isfinite(scores[asked]).all():
        raise ValueError(f"asked scores must be finite, got {int((~np.isfinite(scores[asked])).sum())} that are not")
    if groups is not None and groups.shape != scores.shape[:1]:
        raise ValueError(f"groups must be one number a world, got {groups.shape} for {scores.shape[0]} worlds")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
