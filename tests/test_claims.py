"""The verdict is a function of the interval and of the two controls, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.claims import Verdict, any_verdict, bonferroni, verdict
from fedsim.intervals import Measured, Unresolved

UNIT = st.floats(0, 1)


def measured(low: float, high: float) -> Measured:
    return Measured((low + high) / 2, low, high, 0.95, "given", 10, 10, 4)


@given(UNIT, UNIT, UNIT, st.booleans(), st.booleans())
def test_the_verdict_follows_the_interval_and_the_controls(
    one: float, other: float, at_most: float, null_ok: bool, planted_ok: bool
) -> None:
    low, high = sorted((one, other))
    found = verdict(measured(low, high), at_most, null_ok=null_ok, planted_ok=planted_ok)
    assert (found.status == "refuted") == (null_ok and low > at_most)
    assert (found.status == "not refuted") == (null_ok and planted_ok and high <= at_most)
    assert found.reason.endswith(".")


@pytest.mark.parametrize(
    ("low", "high", "null_ok", "planted_ok", "status", "word"),
    [
        (0.06, 0.08, True, True, "refuted", "above"),
        (0.06, 0.08, True, False, "refuted", "above"),  # a weak attack that still finds the leak has found it
        (0.06, 0.08, False, True, "inconclusive", "null control"),
        (0.01, 0.05, True, True, "not refuted", "at or below"),
        (0.01, 0.05, True, False, "inconclusive", "too weak"),
        (0.01, 0.05, False, True, "inconclusive", "null control"),
        (0.05, 0.08, True, True, "inconclusive", "inside"),
        (0.03, 0.06, True, True, "inconclusive", "inside"),  # an estimate below the bound is not enough
    ],
)
def test_each_reason(low: float, high: float, null_ok: bool, planted_ok: bool, status: str, word: str) -> None:
    found = verdict(measured(low, high), 0.05, null_ok=null_ok, planted_ok=planted_ok)
    assert found.status == status
    assert word in found.reason


def test_no_interval_is_inconclusive_with_its_own_reason() -> None:
    found = verdict(Unresolved("It needs 1000 non-members, got 40."), 0.05, null_ok=True, planted_ok=True)
    assert found == Verdict("inconclusive", "It needs 1000 non-members, got 40.")


@given(UNIT, UNIT, UNIT, UNIT)
def test_a_looser_claim_is_never_refuted_when_the_tighter_one_is_not(
    one: float, other: float, first: float, second: float
) -> None:
    interval = measured(*sorted((one, other)))
    order = ["refuted", "inconclusive", "not refuted"]
    tight, loose = (verdict(interval, bound, null_ok=True, planted_ok=True) for bound in sorted((first, second)))
    assert order.index(tight.status) <= order.index(loose.status)


@given(st.lists(st.sampled_from(["refuted", "not refuted", "inconclusive"]), min_size=1, max_size=5))
def test_any_of_several_attacks(statuses: list[str]) -> None:
    verdicts = [Verdict(status, f"Reason {number}.") for number, status in enumerate(statuses)]  # type: ignore[arg-type]
    found = any_verdict(verdicts)
    assert (found.status == "refuted") == ("refuted" in statuses)
    assert (found.status == "not refuted") == (set(statuses) == {"not refuted"})
    assert f"{statuses.count(found.status)} of {len(statuses)} attacks" in found.reason


def test_bonferroni() -> None:
    assert bonferroni(0.95, 1) == pytest.approx(0.95)
    assert bonferroni(0.95, 5) == pytest.approx(0.99)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        verdict(measured(0, 1), float("nan"), null_ok=True, planted_ok=True)
    with pytest.raises(ValueError, match="at least one"):
        any_verdict([])
    with pytest.raises(ValueError, match="attacks >= 1"):
        bonferroni(0.95, 0)
    with pytest.raises(ValueError, match="low <= estimate <= high"):
        Measured(0.5, 0.6, 0.7, 0.95, "given", 1, 1, 2)
