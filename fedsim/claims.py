"""From a measured interval to a verdict on a privacy claim."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from fedsim.intervals import Measured, Unresolved

Status = Literal["refuted", "not refuted", "inconclusive"]


@dataclass(frozen=True)
class Verdict:
    """What the run says about a claim, with one plain sentence of why."""

    status: Status
    reason: str


def bonferroni(confidence: float, attacks: int) -> float:
    """Return the confidence at which each of `attacks` must be measured so that all hold together at `confidence`.

    Args:
        confidence: in (0, 1).
        attacks: how many attacks the claim speaks of, at least 1.

    Raises:
        ValueError: an argument is out of range.

    Source: Dunn, "Multiple comparisons among means" (1961), https://doi.org/10.1080/01621459.1961.10482090
    """
    if not 0 < confidence < 1 or attacks < 1:
        raise ValueError(f"needs 0 < confidence < 1 and attacks >= 1, got {confidence} and {attacks}")
    return 1 - (1 - confidence) / attacks


FEWEST_WORLDS = 5
"""Independent federations below which no verdict rests on them."""


def verdict(
    measurement: Measured | Unresolved,
    at_most: float,
    *,
    null: bool | None,
    planted: bool | None,
    blind: bool | None,
) -> Verdict:
    """Return the verdict on the claim "the attack reaches at most `at_most`".

    Refuted when the whole interval lies above the bound; not refuted when the whole interval lies at or below it and
    all
    controls passed. It never says "proved": another attack may do better.

    Args:
        measurement: the interval, at the claim's confidence; or why there is none (also "not visible").
        at_most: the claimed bound, in the unit of the metric; a metric where more means more leakage.
        null: the null control covers chance. If not, the attack sees leaks where there are none.
        planted: the attack found the planted leak. If not, its silence means nothing.
        blind: a classifier without any model is at chance. If not, the worlds differ before any training.
        None for a control that did not run: a leak may be found without it, but nobody is cleared.

    Raises:
        ValueError: the bound is not finite.
    """
    if not isfinite(at_most):
        raise ValueError(f"at_most must be finite, got {at_most}")
    if isinstance(measurement, Unresolved):
        return Verdict("inconclusive", measurement.reason)
    if measurement.worlds < FEWEST_WORLDS:
        reason = f"{measurement.worlds} worlds are too few for a verdict; {FEWEST_WORLDS} are needed."
        return Verdict("inconclusive", reason)
    if null is False:
        return Verdict("inconclusive", "The null control failed: the attack sees a leak where there is none.")
    if blind is False:
        return Verdict("inconclusive", "The blind baseline failed: the worlds can be told apart without any model.")
    interval = f"the {measurement.confidence:.6g} interval [{measurement.low:.4g}, {measurement.high:.4g}]"
    if measurement.low > at_most:
        return Verdict("refuted", f"All of {interval} lies above the claimed {at_most:g}.")
    if measurement.high > at_most:
        return Verdict("inconclusive", f"The claimed {at_most:g} lies inside {interval}: more worlds would narrow it.")
    if planted is False:
        return Verdict("inconclusive", "The planted leak was not found: the attack is too weak to clear anyone.")
    for control, passed in (("null control", null), ("planted leak", planted)):
        if passed is None:
            return Verdict("inconclusive", f"The {control} did not run, and without it nobody is cleared.")
    return Verdict("not refuted", f"All of {interval} lies at or below the claimed {at_most:g}.")


def deciding(verdicts: Sequence[Verdict], measurements: Sequence[Measured | Unresolved]) -> int:
    """Return which of several attacks decides the claim that none of them reaches more than the bound.

    One refuted attack refutes, then one open one leaves it open; among equals the strongest speaks (the largest lower
    bound for "refuted", else the largest upper bound).

    Args:
        verdicts: one an attack, each measured at `bonferroni(confidence, len(verdicts))`.
        measurements: those measurements.

    Raises:
        ValueError: there is no verdict.
    """
    if not verdicts:
        raise ValueError("a claim needs at least one verdict, got none")
    status = next(s for s in ("refuted", "inconclusive", "not refuted") if any(each.status == s for each in verdicts))

    def strength(index: int) -> tuple[bool, float]:
        found = measurements[index]
        if isinstance(found, Unresolved):
            return False, 0.0
        return True, found.low if status == "refuted" else found.high

    return max((i for i, each in enumerate(verdicts) if each.status == status), key=strength)
