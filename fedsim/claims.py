"""From measured intervals and bounds to verdicts on privacy claims, all claims of a run judged together."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal, Protocol, TypeVar

from fedsim.accounting import Spent
from fedsim.audit import Bound
from fedsim.intervals import Measured, Unresolved, in_percent
from fedsim.scenario import EpsilonClaim

Status = Literal["refuted", "not refuted", "inconclusive"]


class Judged(Protocol):
    """Whatever carries a verdict."""

    @property
    def status(self) -> Status: ...


AnyJudged = TypeVar("AnyJudged", bound=Judged)


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


def apart(found: Measured) -> int:
    """Return on how many worlds a number rests, those that share records taken as one."""
    return found.worlds if found.groups is None else found.groups


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
    if isinstance(measurement, Unresolved) or apart(measurement) < FEWEST_WORLDS:
        return _too_little(measurement)
    if null is False:
        return Verdict("inconclusive", "The null control failed: the attack sees a leak where there is none.")
    if blind is False:
        return Verdict("inconclusive", "The blind baseline failed: the worlds can be told apart without any model.")
    interval = f"the {in_percent(measurement.confidence)} interval [{measurement.low:.4g}, {measurement.high:.4g}]"
    if measurement.low > at_most:
        return Verdict("refuted", f"All of {interval} lies above the claimed {at_most:g}.")
    if measurement.high > at_most:
        return Verdict("inconclusive", f"The claimed {at_most:g} lies inside {interval}: {_narrower(measurement)}.")
    if planted is False:
        return Verdict("inconclusive", "The planted leak was not found: the attack is too weak to clear anyone.")
    for control, passed in (("null control", null), ("planted leak", planted)):
        if passed is None:
            return Verdict("inconclusive", f"The {control} did not run, and without it nobody is cleared.")
    return Verdict("not refuted", f"All of {interval} lies at or below the claimed {at_most:g}.")


def _narrower(found: Measured) -> str:
    """Return what would narrow an interval, in words."""
    if found.groups is None:
        return "more worlds would narrow it"
    return "more records, or fewer of them a world, would narrow it"


def _too_little(found: Measured | Unresolved) -> Verdict:
    """The verdict where there is no number, or one from too few worlds."""
    if isinstance(found, Unresolved):
        return Verdict("inconclusive", found.reason)
    what = "worlds" if found.groups is None else "groups of worlds that share no records"
    return Verdict("inconclusive", f"{apart(found)} {what} are too few for a verdict; {FEWEST_WORLDS} are needed.")


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


def holm(judges: Sequence[Callable[[float], AnyJudged]], confidences: Sequence[float]) -> list[tuple[AnyJudged, float]]:
    """Return, for all claims of a run judged together, each one's verdict and the confidence at which it fell.

    With k claims not refuted so far, a claim is refuted where its own evidence refutes it at 1 - alpha / k (alpha is
    one minus its own confidence); each refutation makes k smaller, so the rest is looked at again. Claims are cleared
    ("not refuted") by the same steps over the claims not cleared so far. One claim alone is judged at its own
    confidence.

    Why it holds, whatever the claims have in common: when the first claim that is true is refuted wrongly, only false
    ones have left, so k is at least the number T of true claims; a refutation at 1 - alpha / k is one at
    1 - alpha / T too, because intervals (and bounds) at two confidences are nested, and so the chance of any wrong
    refutation is at most T (alpha / T) = alpha. The same goes for wrong clearances. The two directions step down by
    themselves because a claim may be refuted wrongly or cleared wrongly, and a step that lets both leave one list is
    proved for independent claims only. Intervals with equal tails spend alpha / 2 on each direction, alpha on both.

    Args:
        judges: one a claim: its verdict at a given confidence. A verdict other than "inconclusive" must stay at every
            smaller confidence, and be wrong with probability at most one minus the confidence.
        confidences: what each claim asks for by itself, in (0, 1). Where they differ, alpha is the largest.

    Returns:
        Verdict and confidence for each claim, in order; an inconclusive one at the larger of its two confidences.

    Raises:
        ValueError: the lengths differ, or a confidence is out of range.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979), https://www.jstor.org/stable/4615733;
        on the two directions: Shaffer, "Control of directional errors with stagewise multiple test procedures" (1980),
        Annals of Statistics 8(6).
    """
    refuted = _step_down(judges, confidences, "refuted")
    cleared = _step_down(judges, confidences, "not refuted")
    return [
        (
            down
            if down[0].status == "refuted"
            else up
            if up[0].status == "not refuted"
            else max(down, up, key=_confidence)
        )
        for down, up in zip(refuted, cleared, strict=True)
    ]


def _confidence(found: tuple[AnyJudged, float]) -> float:
    """The confidence of a verdict."""
    return found[1]


def _step_down(
    judges: Sequence[Callable[[float], AnyJudged]], confidences: Sequence[float], wanted: Status
) -> list[tuple[AnyJudged, float]]:
    """Each claim's verdict and its confidence once those of status `wanted` have left one by one."""
    decided: dict[int, tuple[AnyJudged, float]] = {}
    while True:
        left = len(judges) - len(decided)
        found = {
            index: (judge(joint), joint)
            for index, (judge, confidence) in enumerate(zip(judges, confidences, strict=True))
            if index not in decided
            for joint in [bonferroni(confidence, left)]
        }
        new = {index: each for index, each in found.items() if each[0].status == wanted}
        if not new or len(new) == left:
            both = decided | found
            return [both[index] for index in range(len(judges))]
        decided |= new


def difference(more: Measured, less: Measured) -> Measured:
    """Return `more` - `less` with an interval that holds where both intervals hold, whatever they have in common.

    Args:
        more: a measure, at the confidence 1 - a.
        less: the same measure elsewhere, at the confidence 1 - b; the difference has the confidence 1 - a - b.

    Source: the inequality of Boole; Dunn, "Multiple comparisons among means" (1961),
        https://doi.org/10.1080/01621459.1961.10482090
    """
    return Measured(
        more.estimate - less.estimate,
        more.low - less.high,
        more.high - less.low,
        more.confidence + less.confidence - 1,
        "difference of two intervals",
        more.members + less.members,
        more.non_members + less.non_members,
        min(more.worlds, less.worlds),
        groups=None if more.groups is None and less.groups is None else min(apart(more), apart(less)),
    )


def exactly(value: float, worlds: int) -> Measured:
    """Return what needs no measuring: a point interval that always holds.

    Args:
        value: the number.
        worlds: over how many worlds it holds.
    """
    return Measured(value, value, value, 1.0, "known", 0, 0, worlds)


def difference_verdict(found: Measured | Unresolved, by: float, failed: Sequence[str]) -> Verdict:
    """Return the verdict on the claim "the one audit leaks less than the other by at least `by`".

    Args:
        found: the audit said to leak more minus the audit said to leak less, at the claim's confidence; or why there
            is no number.
        by: the claimed difference, in the unit of the metric.
        failed: what is wrong with the controls of the two audits, a sentence each. A difference rests on both: a weak
            attack in either one looks like a defence, or like none.

    Raises:
        ValueError: the claimed difference is not finite.
    """
    if not isfinite(by):
        raise ValueError(f"by must be finite, got {by}")
    if isinstance(found, Unresolved) or apart(found) < FEWEST_WORLDS:
        return _too_little(found)
    if failed:
        return Verdict("inconclusive", failed[0])
    interval = f"the {in_percent(found.confidence)} interval [{found.low:.4g}, {found.high:.4g}] of the difference"
    if found.high < by:
        return Verdict("refuted", f"All of {interval} lies below the claimed {by:g}.")
    if found.low >= by:
        return Verdict("not refuted", f"All of {interval} lies at or above the claimed {by:g}.")
    return Verdict("inconclusive", f"The claimed {by:g} lies inside {interval}: {_narrower(found)}.")


SEES: dict[str, frozenset[str]] = {
    "public": frozenset({"public"}),
    "participant": frozenset({"public", "participant"}),
    "server": frozenset({"public", "participant", "server"}),
}
"""Observer -> those whose view it has. The server sends out every model that a participant gets."""


def counts_against(claimed: EpsilonClaim, attacker: frozenset[str], *, unit: str, noise_of_clients: bool) -> bool:
    """Return whether what an attacker finds about epsilon says something about a claim.

    It does where the unit is the claim's and the claim's observer sees all that the attacker sees: what the public
    finds, a participant could find as well. Units are not converted, because a record exchanged within a client is two
    steps, not one, where clients are added or removed.

    Args:
        claimed: the claim.
        attacker: the parties that attack together, such as {"server"} or {"client:3"}.
        unit: what the attack asks about: "client" or "record".
        noise_of_clients: privacy comes from noise that the clients add inside secure aggregation: then a participant
            knows its own share of the noise, and the server does not.
    """
    clients = [party for party in attacker if party.startswith("client:")]
    parties = attacker - {"public"}
    if len(parties) > 1:  # a collusion sees more than any one observer
        return False
    observer = "participant" if clients else "server" if parties else "public"
    if noise_of_clients and (claimed.observer, observer) == ("server", "participant"):
        return False
    return unit == claimed.unit and observer in SEES[claimed.observer]


def exceeding(epsilon: float, delta: float, bounds: Sequence[Bound]) -> Bound | None:
    """Return the lower bound that best contradicts (epsilon, delta)-differential privacy, None where none does: the
    largest of those that assume nothing about the mechanism, else the largest.

    A bound at another delta counts where that is at least `delta`: privacy at a small delta implies it at a larger
    one, and not the other way round. Estimates never count.

    Args:
        epsilon: what is said to hold.
        delta: in (0, 1).
        bounds: what the attacks found.
    """
    above = [each for each in bounds if each.kind == "lower bound" and each.delta >= delta and each.epsilon > epsilon]
    return max(above, key=lambda each: (not each.assumes, each.epsilon), default=None)


def _shown(bound: Bound) -> str:
    """A bound in words."""
    assumes = f", assuming {bound.assumes.rstrip('.')}" if bound.assumes else ""
    confidence = "no confidence" if bound.confidence is None else f"confidence {in_percent(bound.confidence)}"
    return f"{bound.epsilon:.4g} ({bound.name}, {confidence}, delta {bound.delta:g}{assumes})"


def epsilon_verdict(
    claimed: EpsilonClaim, accounted: Spent | None, bounds: Sequence[Bound], specimen: str | None = None
) -> Verdict:
    """Return the verdict on the claim of an epsilon.

    Refuted where a lower bound lies above it; not refuted where the accountant gives no more and no bound contradicts
    either of them; else inconclusive. The refutation is wrong with probability at most one minus the confidence of the
    bounds taken together; that nothing refutes it proves nothing, and then the verdict rests on the accountant.

    Args:
        claimed: the claim.
        accounted: what the accountant says of the claim's unit and observer; None where there is no accountant.
        bounds: from the audits that count against the claim (`counts_against`), together at the confidence of the
            verdict: each at `bonferroni(confidence, len(bounds))`.
        specimen: a deliberate mistake of this setup, which the accountant was not told of.
    """
    claim = f"the claimed {claimed.epsilon:g} (delta {claimed.delta:g})"
    if (found := exceeding(claimed.epsilon, claimed.delta, bounds)) is not None:
        return Verdict("refuted", f"Epsilon is at least {_shown(found)}, above {claim}.")
    lower = [each for each in bounds if each.kind == "lower bound" and each.delta >= claimed.delta]
    tested = "no audit here refutes it" if lower else "no audit here puts it to the test"
    if accounted is None:
        return Verdict("inconclusive", f"Nothing accounts for the privacy of this setup, and {tested}.")
    why = accounted.reason.rstrip(".")
    if math.isinf(accounted.epsilon):
        return Verdict("inconclusive", f"The accountant gives infinity: {why}; nothing backs the claim, and {tested}.")
    if (wrong := bug_found(accounted, bounds)) is not None:
        return Verdict("inconclusive", wrong)
    account = f"The accountant ({accounted.method}) gives {accounted.epsilon:.4g} (delta {accounted.delta:g})"
    if accounted.delta > claimed.delta:
        return Verdict("inconclusive", f"{account}, which says nothing about {claim}, and {tested}.")
    if accounted.epsilon > claimed.epsilon:
        return Verdict("inconclusive", f"{account}, more than {claim}, and {tested}.")
    if specimen:
        return Verdict("inconclusive", f"{account}, but that is the recipe without its deliberate mistake {specimen}.")
    if not lower:
        return Verdict("not refuted", f"{account}, no more than {claim}; {tested}.")
    largest = _shown(max(lower, key=lambda each: each.epsilon))
    return Verdict("not refuted", f"{account}, no more than {claim}; the largest lower bound is {largest}.")


def bug_found(accounted: Spent, bounds: Sequence[Bound]) -> str | None:
    """Return the sentence that says a lower bound lies above the accounted epsilon, None where none does.

    Then the mechanism or the accounting is wrong, but for the error that the bounds' confidence allows.

    Args:
        accounted: what the accountant says.
        bounds: from audits about the same unit, with no more view than the same observer.
    """
    found = exceeding(accounted.epsilon, accounted.delta, bounds)
    if found is None:
        return None
    account = f"the accounted {accounted.epsilon:.4g} (delta {accounted.delta:g})"
    return f"Epsilon is at least {_shown(found)}, above {account}: the mechanism or its accounting is wrong."
