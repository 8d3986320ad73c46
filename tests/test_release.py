"""Who asks the released model how much: the count is what was sent, and the budget is never exceeded."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from attacks import ATTACKS
from attacks.noise import COPIES, MOST_COPIES, copies_within
from fedsim import cli
from fedsim.attack import fold
from fedsim.errors import NotVisible
from fedsim.release import Caller, Log, in_words
from fedsim.report import queries_in_words
from fedsim.results import read
from fedsim.run import execute
from fedsim.scenario import Monitor, Release
from fedsim.scenario_file import Loaded
from fedsim.views import Answer, Floats, PropertyAsk, Public
from tests import worlds
from tests.leaky_worlds import Study, hide, property_study, record_study, view


def echo(x: NDArray[np.float32]) -> Answer:
    """A model of two classes that has been asked about every x."""
    return Answer(np.zeros(len(x), dtype=np.int64), np.tile([0.75, 0.25], (len(x), 1)))


def batch(size: int, start: float = 0.0) -> NDArray[np.float32]:
    return (start + np.arange(size, dtype=np.float32))[:, None]


@given(st.lists(st.integers(0, 30), max_size=12), st.one_of(st.none(), st.integers(1, 60)))
def test_the_count_is_what_was_sent_and_the_budget_is_never_exceeded(sizes: list[int], budget: int | None) -> None:
    caller = Caller(echo, Release(budget=budget))
    answers = [caller(batch(size)) for size in sizes]
    log = caller.log()
    assert log.sent == sum(sizes) == sum(size * times for size, times in log.batches)
    assert sum(times for _, times in log.batches) == len(sizes)
    labels = np.concatenate([np.zeros(0), *(each.labels for each in answers)])
    shown = np.concatenate(
        [np.zeros((0, 2)), *(each.probabilities for each in answers if each.probabilities is not None)]
    )
    answered = int((labels >= 0).sum())
    assert answered == log.answered == (sum(sizes) if budget is None else min(sum(sizes), budget))
    assert (labels[:answered] == 0).all()  # the first ones
    assert np.isnan(shown[answered:]).all()
    assert not np.isnan(shown[:answered]).any()


def test_an_answer_that_others_get_too_is_left_as_it_is() -> None:
    """Answers are remembered and shared, so the budget of one caller must not blank those of another."""
    shared = echo(batch(4))

    def remembered(_x: NDArray[np.float32]) -> Answer:
        return shared

    Caller(remembered, Release(budget=1))(batch(4))
    assert shared.labels.tolist() == [0, 0, 0, 0]
    assert shared.probabilities is not None
    assert not np.isnan(shared.probabilities).any()


def test_a_stream_is_known_by_its_queries_and_not_by_its_batches() -> None:
    watched = Release(monitor=Monitor(window=9, near_duplicates=1, radius=0.5))
    one, two, other = (Caller(echo, watched) for _ in range(3))
    one(batch(6))
    two(batch(2))
    two(batch(4, 2.0))
    other(batch(6, 1.0))
    assert one.log().stream == two.log().stream != other.log().stream
    assert Caller(echo, Release()).log() == Log()


def test_the_monitor_sees_windows_across_batches() -> None:
    """0 1 2 3 | 3 3 3 9 | 9: what is closer than a half is a near-duplicate, and two in a window raise the flag;
    the last window is not full.
    """
    watched = Caller(echo, Release(monitor=Monitor(window=4, near_duplicates=2, radius=0.5)))
    for value in (0, 1, 2, 3, 3, 3, 3, 9, 9):
        watched(np.array([[value]], dtype=np.float32))
    log = watched.log()
    assert (log.windows, log.flagged, log.near_duplicates, log.clusters, log.largest_cluster) == (2, 1, 2, 1, 3)
    assert watched.log() == log  # asking for the log changes nothing


# Attacks under a budget.


def asked(study: Study, name: str, budget: int | None, *, vantage: str = "public") -> tuple[Log, Floats]:
    """Return what an attack asked of the first world, and its signal."""
    caller = Caller(hide(study.worlds[0].released, "all"), Release(budget=budget), study.ask)
    setup = dataclasses.replace(study.setup, budget=budget)
    return _folded(study, name, setup, caller, vantage)


def _folded(study: Study, name: str, setup: Public, caller: Caller, vantage: str) -> tuple[Log, Floats]:
    signal = fold(ATTACKS[name].signal, setup, study.ask, view(study.worlds[0], vantage), caller)
    return caller.log(), signal


def test_the_noise_attack_spends_the_budget_and_no_more() -> None:
    study = record_study(0)
    items = study.ask.count
    for budget in (items, 7 * items, 7 * items + items - 1, 101 * items):
        log, signal = asked(study, "label_only", budget)
        assert log.sent == log.answered == budget // items * items
        shares = signal[:items] * (budget // items)  # of the copies asked about, each a whole number
        np.testing.assert_allclose(shares, np.round(shares), atol=1e-9)
    free, unlimited = asked(study, "label_only", None)
    assert free.sent == (COPIES + 1) * items
    np.testing.assert_array_equal(unlimited, asked(study, "label_only", 101 * items)[1])
    assert asked(study, "label_only", 5, vantage="server")[0] == Log()  # who holds the model need not ask


def test_noisy_copies_are_about_the_items_and_samples_are_public() -> None:
    """The noise attack asks about items only, in copies that are nobody's; the two samples of a property are public."""
    record, about = record_study(0), property_study(0)
    assert isinstance(about.ask, PropertyAsk)
    copies, samples = asked(record, "label_only", None)[0], asked(about, "property_loss", None)[0]
    assert (copies.sent, copies.public) == ((COPIES + 1) * record.ask.count, 0)
    assert samples.sent == samples.public == len(about.ask.no) + len(about.ask.yes)


def test_what_a_budget_pays_for() -> None:
    assert [copies_within(budget, 10) for budget in (1, 10, 19, 20, 35)] == [0, 0, 0, 1, 2]
    assert copies_within(10**9, 10) == MOST_COPIES
    assert copies_within(None, 10) == COPIES


@pytest.mark.parametrize("name", ["gap", "loss", "confidence", "lira", "shokri", "salem_3"])
def test_records_that_were_not_answered_are_all_the_same_to_an_attack(name: str) -> None:
    """The first five are as without a budget; of the others nothing is known, and the signal says nothing."""
    study = record_study(0)
    _, whole = asked(study, name, None)
    log, part = asked(study, name, 5)
    assert log.answered == 5
    np.testing.assert_array_equal(part[:5], whole[:5])
    assert np.isfinite(part).all()
    assert len(np.unique(part[5:].round(9), axis=0)) == 1


def test_a_property_is_not_guessed_from_half_the_samples() -> None:
    study = property_study(0)
    assert isinstance(study.ask, PropertyAsk)
    needed = len(study.ask.no) + len(study.ask.yes)
    assert asked(study, "property_loss", needed)[0].answered == needed
    with pytest.raises(NotVisible, match=f"two samples need {needed}"):
        asked(study, "property_loss", needed - 1)
    asked(study, "property_loss", needed - 1, vantage="server")


def test_the_release_says_what_it_counts() -> None:
    words = in_words(Release(output="label", budget=2000, monitor=Monitor(radius=1.0)))
    assert (
        words
        == "answers to the first 2,000 queries of a caller: the predicted label only, monitored for near-duplicates"
    )
    assert in_words(Release()) == "answers to queries: all class probabilities"


def test_a_white_box_and_a_window_that_cannot_be_full_are_refused() -> None:
    with pytest.raises(ValueError, match="nobody need ask"):
        Release(access="white_box", budget=10)
    with pytest.raises(ValueError, match="the first query has no earlier one"):
        Monitor(window=10, near_duplicates=10)


def test_a_run_counts_and_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a scenario to its results: queries of each audit under its own release, the monitor's rates, and the same
    again from worlds that were kept on disk.
    """
    monitor = {"window": 20, "near_duplicates": 3, "radius": 1e-6}
    chosen = worlds.scenario(
        worlds=4,
        audits=(
            {"name": "free", "attacks": ("loss", "gap")},
            {"name": "limited", "attacks": ("loss",), "release": {"budget": 20, "monitor": monitor}},
            {"name": "inside", "attacks": ("loss",), "vantage": "server"},
        ),
    )
    loaded = Loaded(chosen, {}, tmp_path / "small.yaml", {})
    record = execute(
        loaded, ATTACKS, worlds.RECIPES, out=tmp_path / "run", engine="lockstep", workers=1, progress=lambda *_: None
    ).record
    found = {(each.audit, each.attack): each.queries for each in record.findings}
    assert found["inside", "loss"] is None
    free, limited = found["free", "loss"], found["limited", "loss"]
    assert free is not None
    assert limited is not None
    everything = 48 + 60
    assert (free.sent, free.public, free.answered, free.per_question) == (everything, 60, everything, 1.0)
    assert queries_in_words(free) == "48 queries about the items, 60 about public records; all answered"
    assert queries_in_words(limited) == "48 queries about the items, 60 about public records; 20 answered"
    assert free.batches == ((48, 1), (60, 1))
    assert (limited.sent, limited.answered, limited.budget) == (everything, 20, 20)
    assert limited.monitored is not None
    assert (limited.monitored.windows, limited.monitored.flagged) == (
        5,
        0,
    )  # 108 records, all different; the last 8 fill none
    assert limited.monitored.false_alarms.estimate == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Queries to the released model" in page
    cli._show_queries(record)
    said = " ".join(capsys.readouterr().out.split())
    assert "Queries limited, loss: 48 queries about the items, 60 about public records; 20 answered" in said
    assert read(tmp_path / "run") == record
