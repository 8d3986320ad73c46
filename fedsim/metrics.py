"""Measures of leakage: flat arrays of scores and truths in, one number out; no interval and no randomness.

Higher score means "yes, in". A threshold t says yes when `score >= t`, so tied scores always enter together.
"""

import bisect
import math
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy  # its parts take a second to import; each is loaded when it is first used

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Kind = Literal["auc", "tpr", "advantage", "balanced_accuracy", "precision", "mae", "n_leaked"]

MOST_RECORDS = 100_000
"""From so many records on it is as good as knowing the share."""
ALLOWED_METRICS = (
    "auc, tpr@fpr=LEVEL, advantage, balanced_accuracy, precision@prior=LEVEL, mae, n_leaked (0 < LEVEL < 1, as in "
    "tpr@fpr=0.01)"
)
PLAIN: tuple[Kind, ...] = ("auc", "advantage", "balanced_accuracy", "mae", "n_leaked")
LEVELLED: dict[str, Kind] = {"tpr@fpr": "tpr", "precision@prior": "precision"}


@dataclass(frozen=True)
class Metric:
    """A named measure; `level` is the false-positive rate of "tpr" and the prior of "precision", 0 otherwise."""

    kind: Kind
    level: float = 0.0

    @property
    def name(self) -> str:
        """The text that `parse_metric` reads back, such as "tpr@fpr=0.01"."""
        prefix = next((text for text, kind in LEVELLED.items() if kind == self.kind), None)
        return self.kind if prefix is None else f"{prefix}={np.format_float_positional(self.level, trim='-')}"

    @property
    def chance(self) -> float | None:
        """The value of scores that know nothing; None for "mae", whose chance value depends on the quantity."""
        values: dict[Kind, float | None] = {"auc": 0.5, "advantage": 0.0, "balanced_accuracy": 0.5, "mae": None}
        values["n_leaked"] = 0.0
        return values.get(self.kind, self.level)


def parse_metric(text: str) -> Metric:
    """Return the metric called `text`.

    Args:
        text: one of `ALLOWED_METRICS`, for example "auc" or "tpr@fpr=0.01".

    Raises:
        ValueError: the name or the level is not allowed; the message says what is.
    """
    for kind in PLAIN:
        if text == kind:
            return Metric(kind)
    found = re.fullmatch(r"([a-z@]+)=([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)", text)
    if found and found[1] in LEVELLED and 0 < float(found[2]) < 1:
        return Metric(LEVELLED[found[1]], float(found[2]))
    raise ValueError(f"unknown metric {text!r}; allowed: {ALLOWED_METRICS}")


DEFAULT_METRICS: tuple[Metric, ...] = (
    Metric("auc"),
    Metric("tpr", 0.1),
    Metric("tpr", 0.01),
    Metric("tpr", 0.001),
    Metric("advantage"),
    Metric("balanced_accuracy"),
    Metric("precision", 0.5),
)


class Roc(NamedTuple):
    """The empirical ROC, from (0, 0) at threshold +inf to (1, 1); one point a distinct score."""

    thresholds: Floats  # [points], falling
    false_positive_rate: Floats  # [points], rising
    true_positive_rate: Floats  # [points], rising
    false_positives: npt.NDArray[np.int64]  # [points]
    true_positives: npt.NDArray[np.int64]  # [points]


class TprAtFpr(NamedTuple):
    """The true-positive rate at a bounded false-positive rate, with the counts behind it."""

    tpr: float
    threshold: float
    true_positives: int
    false_positives: int
    members: int
    non_members: int


class Rates(NamedTuple):
    """True- and false-positive rate of one decision rule."""

    tpr: float
    fpr: float


def roc(scores: Floats, members: Bools) -> Roc:
    """Return the empirical ROC; tied scores enter together.

    Args:
        scores: finite, [entries].
        members: the truth, [entries]; needs at least one member and one non-member.

    Raises:
        ValueError: shapes differ, a score is not finite, or one of the two classes is empty.

    Source: Fawcett, "An introduction to ROC analysis" (2006), https://doi.org/10.1016/j.patrec.2005.10.010
    """
    _check(scores, members)
    order = np.argsort(-scores, kind="stable")
    ordered, truth = scores[order], members[order]
    last = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)  # the end of each run of ties
    true_positives = np.append(0, np.cumsum(truth, dtype=np.int64)[last])
    false_positives = np.append(0, np.cumsum(~truth, dtype=np.int64)[last])
    return Roc(
        np.append(np.inf, ordered[last]),
        false_positives / false_positives[-1],
        true_positives / true_positives[-1],
        false_positives,
        true_positives,
    )


def auc(scores: Floats, members: Bools) -> float:
    """Return the area under the ROC: P(member scores above non-member), a tie counts one half.

    Args and errors: as `roc`.

    Source: Mann and Whitney (1947), https://doi.org/10.1214/aoms/1177730491
    """
    _check(scores, members)
    count, total = int(members.sum()), members.size
    rank_sum = float(scipy.stats.rankdata(scores)[members].sum())
    return (rank_sum - count * (count + 1) / 2) / (count * (total - count))


def tpr_at_fpr(scores: Floats, members: Bools, fpr: float) -> TprAtFpr:
    """Return the largest true-positive rate whose empirical false-positive rate is at most `fpr`, never interpolated.

    Args:
        scores: finite, [entries].
        members: the truth, [entries].
        fpr: in [0, 1].

    Raises:
        ValueError: as `roc`, or `fpr` is outside [0, 1].

    Source: Carlini et al., "Membership inference attacks from first principles" (2022), https://arxiv.org/abs/2112.03570
    """
    if not 0 <= fpr <= 1:
        raise ValueError(f"fpr must be in [0, 1], got {fpr}")
    curve = roc(scores, members)
    point = _last_point(curve, fpr)
    return TprAtFpr(
        float(curve.true_positive_rate[point]),
        float(curve.thresholds[point]),
        int(curve.true_positives[point]),
        int(curve.false_positives[point]),
        int(curve.true_positives[-1]),
        int(curve.false_positives[-1]),
    )


def rates(scores: Floats, members: Bools, threshold: float | Floats) -> Rates:
    """Return the true- and false-positive rate of `score >= threshold`.

    Args:
        scores: finite, [entries].
        members: the truth, [entries].
        threshold: one number, or one an entry, [entries]; it must not have been chosen on these members.

    Raises:
        ValueError: as `roc`.
    """
    _check(scores, members)
    yes = scores >= threshold
    return Rates(float(yes[members].mean()), float(yes[~members].mean()))


def best_threshold(scores: Floats, members: Bools) -> float:
    """Return the threshold with the largest advantage on these entries, half-way between two scores (+inf: never yes).

    Apply it to other entries only. Args and errors: as `roc`. Of equally good thresholds the highest is taken.
    """
    curve = roc(scores, members)
    return float(midpoints(curve.thresholds)[np.argmax(curve.true_positive_rate - curve.false_positive_rate)])


def midpoints(thresholds: Floats) -> Floats:
    """Return each falling threshold moved half-way to the next lower score; the lowest stays."""
    below = np.append(thresholds[1:], thresholds[-1])
    middle = thresholds / 2 + below / 2
    return np.where(middle > below, middle, thresholds)  # neighbouring floats have nothing between them


def mean_absolute_error(estimates: Floats, truths: Floats) -> float:
    """Return the mean of |estimate - truth|, for attacks that estimate a quantity; 0 is a perfect attack.

    Args:
        estimates, truths: finite, [entries], in the same unit.

    Raises:
        ValueError: shapes differ, nothing is asked, or a value is not finite.
    """
    if estimates.shape != truths.shape or estimates.size == 0:
        raise ValueError(f"estimates and truths must share a non-empty shape, got {estimates.shape}, {truths.shape}")
    if not (np.isfinite(estimates).all() and np.isfinite(truths).all()):
        raise ValueError("estimates and truths must be finite")
    return float(np.abs(estimates - truths).mean())


def share_ratio(first: float, second: float) -> float:
    """Return how alike two shares of a property are: 1 equal, 0 told apart by any single record.

    Args:
        first, second: in [0, 1].

    Source: as `n_leaked`.
    """
    low, high = sorted((first, second))
    return 1.0 if low == high else max(low / high, (1 - high) / (1 - low))


def n_leaked(accuracy: float, ratio: float) -> float:
    """Return how many records, drawn from the training population itself, would tell two shares of a property apart as
    well as an attack does: at least so many are worth what the model gives away. 0 at chance or worse, infinite where
    the attack never errs.

    From n records nobody is right more often than (1 + sqrt(1 - ratio^n)) / 2.

    Args:
        accuracy: balanced accuracy of the attack, in [0, 1].
        ratio: of the two shares, by `share_ratio`.

    Source: Suri and Evans, "Formalizing and estimating distribution inference risks" (2022),
        https://arxiv.org/abs/2109.06024
    """
    missing = 1 - max(2 * accuracy - 1, 0.0) ** 2
    if missing == 1 or ratio == 1:
        return 0.0
    return math.inf if missing <= 0 or ratio == 0 else math.log(missing) / math.log(ratio)


def n_leaked_by_estimates(squared_error: float, shares: Floats, chances: Floats) -> float:
    """Return how many records would estimate a share with as small an error, by whoever knows which shares are possible
    and makes the best of the records: 0 where the mean of the shares does as well, infinite from `MOST_RECORDS` on.

    Args:
        squared_error: mean squared error of the estimates, at least 0.
        shares: float64 [shares], the possible ones, all different.
        chances: float64 [shares], how likely each is; sum to 1.

    Source: Suri and Evans, as `n_leaked`; the number of holders among n records is binomial, and the posterior mean of
    the share has the smallest squared error. Between two whole numbers the error is taken as linear.
    """
    if squared_error >= _least_error(0, shares, chances):
        return 0.0
    if squared_error < _least_error(MOST_RECORDS, shares, chances):
        return math.inf
    enough = bisect.bisect_left(
        range(MOST_RECORDS + 1), -squared_error, key=lambda records: -_least_error(records, shares, chances)
    )
    worse, better = (_least_error(records, shares, chances) for records in (enough - 1, enough))
    return enough - 1 + (worse - squared_error) / (worse - better)


def _least_error(records: int, shares: Floats, chances: Floats) -> float:
    """Return the mean squared error of the best estimate of a share from so many records."""
    joint = (
        scipy.stats.binom.pmf(np.arange(records + 1), records, shares[:, None]) * chances[:, None]
    )  # [shares, records + 1]
    seen = joint.sum(axis=0)
    best = np.divide(joint.T @ shares, seen, out=np.zeros(records + 1), where=seen > 0)
    return float((joint * np.square(best - shares[:, None])).sum())


def _last_point(curve: Roc, fpr: float) -> int:
    """Index of the last ROC point whose false-positive rate is at most `fpr`."""
    allowed = np.floor(fpr * curve.false_positives[-1] * (1 + 1e-12))  # 0.29 * 100 < 29
    return int(np.searchsorted(curve.false_positives, allowed, side="right")) - 1


def _check(scores: Floats, members: Bools) -> None:
    """Refuse entries that no measure is defined on."""
    if scores.ndim != 1 or scores.shape != members.shape:
        raise ValueError(f"scores and members must be flat and of one shape, got {scores.shape} and {members.shape}")
    if members.dtype != np.bool_:
        raise ValueError(f"members must be bool, got {members.dtype}")
    if not np.isfinite(scores).all():
        raise ValueError(f"scores must be finite, got {int((~np.isfinite(scores)).sum())} that are not")
    if not members.any() or members.all():
        raise ValueError(f"needs members and non-members, got {int(members.sum())} members of {members.size}")
