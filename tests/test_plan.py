"""What a run would cost: the time of what is done once is that of one of it, times how often it is done."""

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
