"""The verdict is a function of the interval and of the two controls, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.claims import Verdict, bonferroni, deciding, verdict
from fedsim.intervals import Measured, Unresolved

UNIT = st.floats(0, 1)


def measured(low: float, high: float) -> Measured:
    return Measured((low + high) / 2, low, high, 0.95, "given", 10, 10, 8)


@given(UNIT, UNIT, UNIT, st.booleans(), st.booleans())
def test_the_verdict_follows_the_interval_and_the_controls(
    one: float, other: float, at_most: float, null_ok: bool, planted_ok: bool
) -> None:
    low, high = sorted((one, other))
    found = verdict(measured(low, high), at_most, null=null_ok, planted=planted_ok, blind=True)
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
    found = verdict(measured(low, high), 0.05, null=null_ok, planted=planted_ok, blind=True)
    assert found.status == status
    assert word in found.reason


def test_no_interval_is_inconclusive_with_its_own_reason() -> None:
    found = verdict(Unresolved("It needs 1000 non-members, got 40."), 0.05, null=True, planted=True, blind=True)
    assert found == Verdict("inconclusive", "It needs 1000 non-members, got 40.")


@given(UNIT, UNIT, UNIT, UNIT)
def test_a_looser_claim_is_never_refuted_when_the_tighter_one_is_not(
    one: float, other: float, first: float, second: float
) -> None:
    interval = measured(*sorted((one, other)))
    order = ["refuted", "inconclusive", "not refuted"]
    tight, loose = (verdict(interval, bound, null=True, planted=True, blind=True) for bound in sorted((first, second)))
    assert order.index(tight.status) <= order.index(loose.status)


@given(
    st.lists(st.tuples(st.sampled_from(["refuted", "not refuted", "inconclusive"]), UNIT, UNIT), min_size=1, max_size=5)
)
def test_of_several_attacks_the_strongest_of_the_deciding_status_speaks(
    attacks: list[tuple[str, float, float]],
) -> None:
    statuses = [status for status, _, _ in attacks]
    verdicts = [Verdict(status, "Reason.") for status in statuses]  # type: ignore[arg-type]
    found = [measured(*sorted(ends)) for _, *ends in attacks]
    place = deciding(verdicts, found)
    for status in ("refuted", "inconclusive", "not refuted"):
        if status in statuses:
            assert statuses[place] == status
            ends = [each.low if status == "refuted" else each.high for each in found]
            assert ends[place] == max(end for end, other in zip(ends, statuses, strict=True) if other == status)
            break


def test_a_control_that_did_not_run_clears_nobody_and_hides_no_leak() -> None:
    for controls in ({"null": None}, {"planted": None}):
        passed = {"null": True, "planted": True, "blind": True, **controls}
        assert verdict(measured(0.0, 0.1), 0.5, **passed).status == "inconclusive"
        assert "did not run" in verdict(measured(0.0, 0.1), 0.5, **passed).reason
        assert verdict(measured(0.6, 0.9), 0.5, **passed).status == "refuted"
    assert verdict(measured(0.0, 0.1), 0.5, null=True, planted=True, blind=None).status == "not refuted"


def test_a_failed_blind_baseline_stops_every_verdict_and_says_so() -> None:
    for ends in ((0.0, 0.1), (0.6, 0.9)):
        found = verdict(measured(*ends), 0.5, null=True, planted=True, blind=False)
        assert found.status == "inconclusive"
        assert "blind baseline" in found.reason


def test_few_worlds_decide_nothing() -> None:
    few = Measured(0.9, 0.8, 1.0, 0.95, "given", 10, 10, 4)
    assert verdict(few, 0.5, null=True, planted=True, blind=True).status == "inconclusive"


def test_bonferroni() -> None:
    assert bonferroni(0.95, 1) == pytest.approx(0.95)
    assert bonferroni(0.95, 5) == pytest.approx(0.99)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        verdict(measured(0, 1), float("nan"), null=True, planted=True, blind=True)
    with pytest.raises(ValueError, match="at least one"):
        deciding([], [])
    with pytest.raises(ValueError, match="attacks >= 1"):
        bonferroni(0.95, 0)
    with pytest.raises(ValueError, match="low <= estimate <= high"):
        Measured(0.5, 0.6, 0.7, 0.95, "given", 1, 1, 2)
