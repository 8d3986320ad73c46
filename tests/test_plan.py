"""What a run would cost: the time of what is done once is that of one of it, times how often it is done."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from attacks import ATTACKS
from fedsim import plan
from fedsim.prepare import prepare
from fedsim.scenario_file import Loaded
from tests import worlds


def test_scoring_is_counted_for_every_target_and_again_for_the_most_exposed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which a score takes a second for each of its references, and one more.

    Eight worlds: each has 7 references, and 3 in its own half. The null control has as many again; the four planted
    worlds have 3 references each.
    """
    chosen = worlds.scenario(worlds=8, audits=({"name": "a", "attacks": ("loss", "lira")},))
    prepared = prepare(Loaded(chosen, {}, Path("t.yaml"), {}), ATTACKS, worlds.RECIPES)
    (trial,) = prepared.trials
    clock = SimpleNamespace(now=0.0)

    def score(_attack: object, _signals: object, _members: object, one: Any, references: Any, *_: object) -> None:
        clock.now += 1 + references[one].sum()

    monkeypatch.setattr(plan, "score", score)
    monkeypatch.setattr(plan, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    (each,) = trial.audits
    measured = {name: np.zeros(3) for name in each.probes.values()}
    found = plan._scoring_seconds(prepared, trial, ATTACKS, measured)
    once = 8 * (1 + 7) * 2 + 4 * (1 + 3)
    assert [exam.kind for exam in trial.draw.exams] == ["main", "null", "planted"]
    assert found == 2 * once + 8 * (1 + 3)  # loss needs no references, so it is not scored again
    assert plan._report_seconds(prepared) == pytest.approx(5 * plan.FIGURE_SECONDS + 2 * plan.FINDING_SECONDS)


def test_check_says_which_shares_whole_records_cannot_make() -> None:
    games = {
        "moved": {"name": "property", "column": "sex", "value": "1", "records": 37, "shares": (0.4, 0.999)},
        "exact": {"name": "property", "column": "sex", "value": "1", "records": 40, "shares": (0.5, 0.2)},
    }
    chosen = worlds.scenario(
        data={"source": "diabetes", "clients": 4, "candidates": 180, "population": 100, "test": 40},
        audits=tuple({"name": name, "game": game, "attacks": ("property_loss",)} for name, game in games.items()),
    )
    notes = plan._notes(prepare(Loaded(chosen, {}, Path("t.yaml"), {}), ATTACKS, worlds.RECIPES))
    assert [note for note in notes if "in place of" in note] == [
        "moved: of 37 records the share is 0.4054 in place of 0.4, 0.973 in place of 0.999"
    ]


def test_no_true_positive_rate_is_promised_at_a_false_positive_rate_of_one_or_more() -> None:
    chosen = worlds.scenario(worlds=8)
    prepared = prepare(Loaded(chosen, {}, Path("t.yaml"), {}), ATTACKS, worlds.RECIPES)
    (trial,) = prepared.trials
    exam = trial.main
    for without, words in ((10, "no true-positive rate can be quoted"), (20, "down to a false-positive rate of 0.5")):
        members = np.arange(exam.members.size).reshape(exam.members.shape) >= without
        one = dataclasses.replace(exam, members=members)
        few = dataclasses.replace(trial, draw=dataclasses.replace(trial.draw, exams=(one, *trial.draw.exams[1:])))
        (line,) = plan._resolution(dataclasses.replace(prepared, trials=(few,)))
        assert f"{without} non-member answers" in line
        assert words in line
