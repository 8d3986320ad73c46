"""From scores to findings: what a finding must not do to flatter an attack."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from attacks import ATTACKS
from fedsim import judge
from fedsim.attack import Attack
from fedsim.controls import AUC
from fedsim.intervals import Measured, measure
from fedsim.judge import Questioned, Tried
from fedsim.views import RecordAsk, Records
from tests import worlds


def _null(attack: Attack, rng: np.random.Generator, count: int, items: int) -> tuple[Questioned, Tried]:
    """Signals that know nothing of the coins, scored as a run would score them."""
    signals = rng.standard_normal((count, items)) + 2 * rng.standard_normal((1, items))
    members = rng.random((count, items)) < 0.5
    nobody = Records(np.zeros((0, 1), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64))
    asks = Records(np.zeros((items, 1), np.float32), np.zeros(items, np.int64), np.zeros(items, np.int64))
    exam: Any = SimpleNamespace(
        members=members,
        targets=np.ones(count, bool),
        references=~np.eye(count, dtype=bool),
        ask=RecordAsk(asks, nobody),
        new_items=True,
    )
    shared: Any = SimpleNamespace(
        prepared=SimpleNamespace(scenario=SimpleNamespace(seed=0)),
        each=SimpleNamespace(vantage=SimpleNamespace(clients=frozenset())),
    )
    scores = judge._score(shared, attack, exam, signals, exam.targets, exam.references)
    return shared, Tried(exam, signals, scores, np.ones(members.shape, bool))


@pytest.mark.parametrize("name", ["lira", "watson", "attack_r"])
def test_the_most_exposed_tenth_of_a_null_is_at_chance(name: str) -> None:
    """Picking with scores whose references include the world that is then measured gave .58 for LiRA at this size.

    Mean of 40 within 5 standard errors of 0.5: false alarm 6e-7.
    """
    rng, found = np.random.default_rng(11), []
    for _ in range(40):
        shared, tried = _null(ATTACKS[name], rng, 16, 60)
        mask = judge._most_exposed(shared, ATTACKS[name], tried)
        assert mask is not None
        assert (mask.sum(axis=1) == 6).all()
        measured = measure(AUC, tried.scores, tried.exam.members, mask)
        assert isinstance(measured, Measured)
        found.append(measured.estimate)
    assert abs(np.mean(found) - 0.5) < 5 * np.std(found) / np.sqrt(40)


def _findings(**changes: Any) -> dict[tuple[str, str], Any]:
    from pathlib import Path

    from fedsim.engine import run_worlds
    from fedsim.prepare import prepare
    from fedsim.scenario_file import Loaded

    prepared = prepare(Loaded(worlds.scenario(**changes), {}, Path("t.yaml"), {}), ATTACKS, worlds.RECIPES)
    found = {}
    for trial in prepared.trials:
        left = dict(run_worlds(trial.job, range(len(trial.draw.worlds))))
        for each in judge.findings(prepared, trial, left, ATTACKS):
            found[each.finding.audit, each.finding.attack] = each.finding
    return found


def test_worlds_that_the_attacker_sat_out_do_not_hide_the_others() -> None:
    audits = ({"name": "guest", "vantage": "client:0", "attacks": ("loss_trajectory", "lira")},)
    federation = {"clients_per_round": 2, "rounds": 1}
    found = _findings(audits=audits, worlds=12, federation=federation)["guest", "loss_trajectory"]
    assert found.status == "measured"
    assert (
        1 < found.worlds < 12
    )  # takes part in a world with probability one half: all or at most one in 0.4 % of seeds


def test_a_participant_is_not_asked_about_its_own_and_cannot_look_for_them_in_its_updates() -> None:
    found = _findings(audits=({"name": "guest", "vantage": "client:0", "attacks": ("update_cosine", "loss")},))
    assert found["guest", "update_cosine"].status == "not visible"
    everybody = _findings()["outsider", "loss"]
    own = found["guest", "loss"]
    assert own.members + own.non_members < everybody.members + everybody.non_members
