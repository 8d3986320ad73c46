"""Tests that need no model of their own: thresholds, calibration by references, quantiles."""

import numpy as np
import scipy  # its parts take a second to import; each is loaded when it is first used
from numpy.typing import NDArray

from fedsim.attack import Bools, Case
from fedsim.errors import NotVisible
from fedsim.views import Floats, Ints, RecordAsk

STARVED = 10
"""A class with fewer members or non-members than this among the references is judged by all classes together."""


def unseen_to(scores: Floats, value: float) -> Floats:
    """Return scores [n] with `value`, which is no evidence, where there is none because nothing was seen (NaN)."""
    return np.where(np.isnan(scores), value, scores)


def higher(case: Case) -> Floats:
    """Return the signal itself: high means "in"; 0 where it was not seen."""
    return unseen_to(case.target, 0.0)


def lower(case: Case) -> Floats:
    """Return the signal turned round: low means "in"; where it was not seen, the median of the rest."""
    seen = case.target[~np.isnan(case.target)]
    return unseen_to(-case.target, -float(np.median(seen)) if len(seen) else 0.0)


def largest(case: Case) -> Floats:
    """Return the largest entry of each record's vector."""
    return np.asarray(case.target.max(axis=1))


def item_labels(case: Case) -> Ints:
    """Return the labels [n] of the items asked."""
    if not isinstance(case.ask, RecordAsk):
        raise TypeError(f"a test of records needs a RecordAsk, got {type(case.ask).__name__}")
    return case.ask.items.y


def best_threshold(values: Floats, members: Bools) -> float:
    """Return the t for which "member where value >= t" has the highest balanced accuracy, midway between two values.

    values, members: [k], with at least one member and one non-member.
    """
    order = np.argsort(-values, kind="stable")
    ranked, hits = values[order], members[order]
    advantage = np.cumsum(hits) / hits.sum() - np.cumsum(~hits) / (~hits).sum()
    last_of_tie = np.append(ranked[:-1] != ranked[1:], True)
    cut = int(np.argmax(np.where(last_of_tie, advantage, -np.inf)))
    return float((ranked[cut] + ranked[min(cut + 1, len(ranked) - 1)]) / 2)


def lower_per_class(case: Case) -> Floats:
    """Return how far the signal lies below the threshold that separates the references' members of the same class best.

    Source: Song and Mittal, "Systematic evaluation of privacy risks of machine learning models", USENIX Security 2021.
    """
    y = item_labels(case)
    thresholds = np.full(len(y), _threshold_or(0.0, -case.references.ravel(), case.members.ravel(), 1))
    for label in np.unique(y):
        rows = y == label
        values, members = -case.references[:, rows].ravel(), case.members[:, rows].ravel()
        thresholds[rows] = _threshold_or(float(thresholds[rows][0]), values, members, STARVED)
    return np.asarray(-case.target - thresholds)


def _threshold_or(fallback: float, values: Floats, members: Bools, least: int) -> float:
    return best_threshold(values, members) if min(members.sum(), (~members).sum()) >= least else fallback


def side_means(references: Floats, side: Bools) -> Floats:
    """Return the mean [n, ...] of `references` [r, n, ...] over the worlds in `side` [r, n]; NaN without one."""
    weight = side.reshape(side.shape + (1,) * (references.ndim - 2)) & ~np.isnan(references)
    count = weight.sum(axis=0)
    total = np.where(weight, references, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def both_means(references: Floats, members: Bools) -> tuple[Floats, Floats]:
    """Return the mean [n] over IN and over OUT references, each complete.

    A record that no reference (or every reference) trained on takes the other side's mean, moved by the mean shift of
    the records that have both sides; where no record has both, by the difference between the two sides' overall means,
    and by nothing where one is empty.
    """
    inside, outside = side_means(references, members), side_means(references, ~members)
    shift = mean_shift(inside, outside)
    return np.where(np.isnan(inside), outside + shift, inside), np.where(np.isnan(outside), inside - shift, outside)


def mean_shift(inside: Floats, outside: Floats) -> float:
    """Return by how much members lie above non-members, from side summaries [n] with NaN where a side is empty."""
    both = ~np.isnan(inside) & ~np.isnan(outside)
    if both.any():
        return float(np.mean(inside[both] - outside[both]))
    if np.isnan(inside).all() or np.isnan(outside).all():
        return 0.0
    return float(np.nanmean(inside) - np.nanmean(outside))


def above_out_mean(case: Case) -> Floats:
    """Return the signal minus its mean over the references that did not train on the record; 0 where there is nothing
    to compare.

    Source: Watson et al., "On the importance of difficulty calibration in membership inference attacks", ICLR 2022.
    """
    return unseen_to(case.target - both_means(case.references, case.members)[1], 0.0)


def share_of(counts: NDArray[np.number], of: NDArray[np.number] | int, tie_break: Floats) -> Floats:
    """Return counts / of, moved up by less than the gap to the next share, in the order of `tie_break`, in [0, 1]."""
    largest_of = int(np.max(of))
    return np.asarray(counts / of + np.minimum(tie_break, 1 - 1e-12) / (largest_of**2 + 1), dtype=np.float64)


def population_quantile(case: Case) -> Floats:
    """Return the share of public records with a higher loss than the record (attack P); ties are ordered by the loss.

    Source: Ye et al., "Enhanced membership inference attacks against machine learning models", CCS 2022.
    """
    size = len(case.population)
    if not size:
        raise NotVisible("the attacker holds no public records to compare with")
    above = size - np.searchsorted(np.sort(case.population), case.target, side="right")
    return share_of(above, size, np.exp(-case.target))


def reference_quantile(case: Case) -> Floats:
    """Return the share of references without the record whose loss on it is higher (attack R).

    Ties are ordered by the mean difference. A record that every reference trained on gets 1/2.
    Source: Ye et al., "Enhanced membership inference attacks against machine learning models", CCS 2022.
    """
    out = ~case.members
    above = ((case.references > case.target) & out).sum(axis=0).astype(np.float64)
    of = out.sum(axis=0)
    above, of = np.where(of > 0, above, 1), np.where(of > 0, of, 2)
    difference = both_means(case.references, case.members)[1] - case.target
    return share_of(above, of, scipy.special.expit(difference))


def lower_over_rounds(case: Case) -> Floats:
    """Return minus the mean loss over the models seen [n, rounds + 1]."""
    return np.asarray(-np.nanmean(case.target, axis=1))


def below_out_mean_over_rounds(case: Case) -> Floats:
    """Return the mean over rounds of (mean loss of the references without the record) - (loss).

    Only rounds that both have count. A record without such a round is compared with all references; where even they
    share no round with it, it scores 0.
    """
    gap = side_means(case.references, ~case.members) - case.target
    lacking = np.isnan(gap).all(axis=1)
    if lacking.any():
        gap[lacking] = (side_means(case.references, np.ones_like(case.members)) - case.target)[lacking]
    seen = ~np.isnan(gap)
    return np.asarray(np.where(seen, gap, 0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1))


def lower_on_yes(case: Case) -> Floats:
    """Return the mean loss on the sample without the property minus the mean loss on the one with it.

    Source: Suri and Evans, "Formalizing and estimating distribution inference risks", PETS 2022.
    """
    return case.target[:, 0] - case.target[:, 1]


def learned_threshold(case: Case) -> Floats:
    """Return the signed distance of one statistic from a threshold; statistic, threshold and direction are learned on
    the references.

    Of the columns [n, statistics] and the two directions, the one with the highest balanced accuracy on the references
    is taken.
    Source: Suri and Evans, "Formalizing and estimating distribution inference risks", PETS 2022.
    """
    members = case.members.ravel()
    if members.all() or not members.any():
        return np.zeros(len(case.target))
    best_accuracy, best = -1.0, np.zeros(len(case.target))
    for column in range(case.target.shape[1]):
        for direction in (1.0, -1.0):
            values = direction * case.references[..., column].ravel()
            threshold = best_threshold(values, members)
            accuracy = float(np.mean(values[members] >= threshold) + np.mean(values[~members] < threshold))
            if accuracy > best_accuracy:
                best_accuracy, best = accuracy, direction * case.target[:, column] - threshold
    return best
