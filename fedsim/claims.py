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


def verdict(measurement: Measured | Unresolved, at_most: float, *, null_ok: bool, planted_ok: bool) -> Verdict:
    """Return the verdict on the claim "the attack reaches at most `at_most`".

    Refuted when the whole interval lies above the bound; not refuted when the whole interval lies at or below it.
    It never says "proved": another attack may do better.

    Args:
        measurement: the interval, at the claim's confidence; or why there is none (also "not visible").
        at_most: the claimed bound, in the unit of the metric; a metric where more means more leakage.
        null_ok: the null control (shuffled truth) covers chance. If not, the attack sees leaks where there are none.
        planted_ok: the attack found the planted leak. If not, its silence means nothing.

    Raises:
        ValueError: the bound is not finite.
    """
    if not isfinite(at_most):
        raise ValueError(f"at_most must be finite, got {at_most}")
    if isinstance(measurement, Unresolved):
        return Verdict("inconclusive", measurement.reason)
    if not null_ok:
        return Verdict("inconclusive", "The null control failed: the attack sees a leak where there is none.")
    interval = f"the {measurement.confidence:.6g} interval [{measurement.low:.4g}, {measurement.high:.4g}]"
    if measurement.low > at_most:
        return Verdict("refuted", f"All of {interval} lies above the claimed {at_most:g}.")
    if measurement.high > at_most:
        return Verdict("inconclusive", f"The claimed {at_most:g} lies inside {interval}: more worlds would narrow it.")
    if not planted_ok:
        return Verdict("inconclusive", "The planted leak was not found: the attack is too weak to clear anyone.")
    return Verdict("not refuted", f"All of {interval} lies at or below the claimed {at_most:g}.")


def any_verdict(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict on "no attack of these reaches more than the bound".

    Args:
        verdicts: one an attack, each measured at `bonferroni(confidence, len(verdicts))`.

    Raises:
        ValueError: there is no verdict.
    """
    if not verdicts:
        raise ValueError("a claim over several attacks needs at least one verdict, got none")
    for status in ("refuted", "inconclusive", "not refuted"):  # one refuted attack decides, then one open one
        found = [each for each in verdicts if each.status == status]
        if found:
            return Verdict(found[0].status, f"{len(found)} of {len(verdicts)} attacks: {found[0].reason}")
    raise AssertionError(f"unknown status in {verdicts}")
