"""Whole runs about epsilon: sound mechanisms raise no alarm, broken ones do, and claims follow the evidence."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import norm

from attacks import ATTACKS
from fedsim import results
from fedsim.accounting import Spent
from fedsim.epsilon import Scores, alarms, bound, caps, permitted
from fedsim.errors import ScenarioError
from fedsim.intervals import Unresolved
from fedsim.prepare import prepare
from fedsim.run import execute
from fedsim.scenario_file import Loaded, load
from fedsim.tables import known, recipes
from tests import worlds

SOUND: dict[str, Any] = {"name": "central", "clipping_norm": 1.0, "noise_multiplier": 4.0}


def ran(folder: Path, seed: int = 5, **changes: Any) -> results.Results:
    """The record of a small run with canary clients, seen from a participant."""
    settings: dict[str, Any] = {
        "name": "small",
        "seed": seed,
        "data": {"source": "digits", "clients": 4, "candidates": 40, "test": 40},
        "model": {"name": "softmax"},
        "federation": {"rounds": 4, "local": {"batch_size": 10, "learning_rate": 0.05}, "privacy": SOUND},
        "worlds": 60,
        "audits": [
            {
                "name": "canaries",
                "game": {"name": "canaries", "count": 4},
                "vantage": "client:0",
                "attacks": ["canary_product"],
                "bounds": ["gdp", "f_dp_one_run", "one_run", "clopper_pearson", "one_shot"],
            }
        ],
        "claims": [{"epsilon": 2.0, "unit": "client", "observer": "participant"}],
        "controls": {"planted_worlds": 12},
        **changes,
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(settings))
    outcome = execute(
        load(str(path), known=known()),
        ATTACKS,
        recipes(),
        out=folder / "run",
        engine="lockstep",
        workers=1,
        progress=lambda _done, _total, _text: None,
    )
    return outcome.record


def test_a_sound_mechanism_raises_no_alarm_and_its_claim_stands(tmp_path: Path) -> None:
    """False alarms: 1 % a run, by construction."""
    record = ran(tmp_path)
    assert not record.alarms
    (claim,) = record.claims
    assert claim.status == "not refuted"
    (finding,) = record.findings
    assert [bound.name for bound in finding.bounds] == ["gdp", "f_dp_one_run", "one_run", "clopper_pearson", "one_shot"]
    accounted = next(row for row in record.setups[0].epsilons if (row.unit, row.observer) == ("client", "participant"))
    assert all(bound.accounted == accounted.epsilon for bound in finding.bounds)
    assert accounted.epsilon == pytest.approx(1.9931, abs=1e-3)  # mu = sqrt(4) / 4, delta 1e-5
    assert finding.metrics["auc"].estimate == pytest.approx(0.638, abs=0.1)  # Phi(mu / sqrt 2), and nothing more
    assert finding.caps == accounted.caps
    assert finding.caps["auc"] == pytest.approx(0.6382, abs=1e-3)
    assert finding.caps["advantage"] == pytest.approx(0.1974, abs=1e-3)
    assert finding.caps["tpr@fpr=0.01"] == pytest.approx(0.0339, abs=1e-3)
    assert (finding.controls["null"].passed, finding.controls["planted"].passed) == (True, True)


def test_a_broken_mechanism_raises_an_alarm_where_no_bound_was_asked_for(tmp_path: Path) -> None:
    """The sound one raises none: false alarms are 1 % a run, by construction."""
    audits = [{"name": "canaries", "game": {"name": "canaries", "count": 4}, "vantage": "client:0"}]
    audits[0]["attacks"] = ["canary_product"]
    for specimen in ("no_clipping", None):
        folder = tmp_path / str(specimen)
        folder.mkdir()
        federation = {"rounds": 4, "local": {"batch_size": 10}, "privacy": SOUND | {"specimen": specimen}}
        record = ran(folder, federation=federation, audits=audits, claims=[], worlds=30)
        (finding,) = record.findings
        low = finding.metrics["auc"].low
        assert low is not None
        assert (bool(record.alarms), low > finding.caps["auc"]) == (specimen is not None,) * 2
        assert all("One run" in alarm for alarm in record.alarms)


def test_what_is_permitted_is_the_curve_of_gaussian_noise_or_one_point_of_an_unknown_one() -> None:
    """The second from epsilon and delta by hand: corner of the ROC at FPR (1 - delta) / (1 + e^epsilon)."""
    row = Spent("client", "public", 4.3772, 1e-5, "exact", "", "")  # mu = 1
    most = permitted(row)
    assert most["auc"] == pytest.approx(norm.cdf(1 / math.sqrt(2)), abs=1e-4)
    assert most["advantage"] == pytest.approx(2 * norm.cdf(0.5) - 1, abs=1e-4)
    assert most["balanced_accuracy"] == pytest.approx(norm.cdf(0.5), abs=1e-4)
    assert most["tpr@fpr=0.001"] == pytest.approx(norm.cdf(norm.ppf(0.001) + 1), abs=1e-4)
    most = permitted(replace(row, method="PLD"))
    corner = (1 - 1e-5) / (1 + math.exp(4.3772))
    assert most["advantage"] == pytest.approx(1 - 2 * corner)
    assert most["auc"] == pytest.approx(1 - corner, abs=1e-4)  # exactly so at delta = 0
    assert most["tpr@fpr=0.001"] == pytest.approx(math.exp(4.3772) * 0.001 + 1e-5)
    assert permitted(replace(row, epsilon=math.inf, method="none")) == {}


def test_caps_are_for_what_the_accountant_speaks_of() -> None:
    """The presence of records, of canaries and of clients, to one observer who is promised something."""
    games: dict[str, Any] = {"canaries": {"name": "canaries", "count": 4}, "client": {"name": "client"}}
    games["labels"] = {"name": "labels", "client": 1}
    attacks = {"canaries": "canary_product", "client": "client_loss", "labels": "label_unmixing"}
    audits = [
        {"name": name, "game": games.get(name, "record"), "vantage": vantage, "attacks": (attacks.get(name, "loss"),)}
        for name, vantage in {
            "public": "public",
            "participant": "client:0",
            "collusion": "client:0+client:1",
            "server": "server",
            **dict.fromkeys(games, "client:0"),
        }.items()
    ]
    chosen = worlds.scenario(audits=tuple(audits), federation={"rounds": 1, "privacy": SOUND})
    prepared = prepare(Loaded(chosen, {}, Path("test.yaml"), {}), ATTACKS, recipes())
    nothing = results.Evidence(np.zeros((1, 1)), np.zeros((1, 1), bool), np.ones((1, 1), bool))
    capped = {
        each.audit.name
        for trial in prepared.trials
        for each in trial.audits
        if caps(Scores(trial, each, each.audit.attacks[0], nothing, False))
    }
    assert capped == {"public", "participant", "canaries", "client"}


@pytest.mark.parametrize("secure", [None, "clear", "hidden"])
def test_an_epsilon_that_takes_numbers_of_records_as_public_is_not_held_against_who_reads_them(
    secure: str | None,
) -> None:
    """Scores that tell every coin, as numbers of records do for tiny clients, refute only what hides the numbers."""
    record = {"name": "record", "noise_multiplier": 4.0}
    masks = {"protocol": "ideal", "weights": "uniform", "metadata": secure} if secure else None
    canaries: dict[str, Any] = {"name": "canaries", "unit": "record", "count": 4}
    audits: list[dict[str, Any]] = [
        {"name": "public", "vantage": "public", "attacks": ("loss",)},
        {"name": "participant", "vantage": "client:0", "attacks": ("loss",)},
        {"name": "server", "vantage": "server", "attacks": ("metadata_only",)},
        {"name": "collusion", "vantage": "server+client:0", "attacks": ("metadata_only",)},
        {"name": "canaries", "game": canaries, "vantage": "server", "attacks": ("canary_product",)},
    ]
    federation = {"rounds": 1, "privacy": record, "secure_aggregation": masks}
    chosen = worlds.scenario(audits=tuple(audits), federation=federation)
    prepared = prepare(Loaded(chosen, {}, Path("test.yaml"), {}), ATTACKS, recipes())
    coins = np.random.default_rng(0).random((1, 4000)) < 0.5
    told = results.Evidence(coins.astype(np.float64), coins, np.ones_like(coins))
    found = {
        each.audit.name: Scores(trial, each, each.audit.attacks[0], told, False)
        for trial in prepared.trials
        for each in trial.audits
    }
    hidden = {"server"} if secure == "hidden" else set()
    assert {name for name, each in found.items() if caps(each)} == {"public", "participant", "canaries"} | hidden
    unresolved = {
        name: made for name, each in found.items() if isinstance(made := bound(each, "one_run", 0.95, 0), Unresolved)
    }
    assert set(unresolved) == (set() if hidden else {"server", "collusion"})
    assert all("told the number in clear" in made.reason for made in unresolved.values())
    raised = {alarm.split(",")[0] for alarm in alarms(list(found.values()), 0)}
    assert raised == {"public", "participant", "canaries"} | hidden


@pytest.mark.parametrize("specimen", ["noise_tenth", "no_clipping", "tiny_sensitivity", "flower_dp_weighted"])
def test_a_broken_mechanism_raises_an_alarm_and_refutes_its_claim(tmp_path: Path, specimen: str) -> None:
    privacy = {**SOUND, "specimen": specimen}
    federation = {"rounds": 4, "local": {"batch_size": 10, "learning_rate": 0.05}, "privacy": privacy}
    record = ran(tmp_path, federation=federation, worlds=240 if specimen == "flower_dp_weighted" else 60)
    assert record.alarms
    assert record.claims[0].status == "refuted"
    assert any("canaries, canary_product" in alarm for alarm in record.alarms)


def test_a_bound_for_gaussian_noise_says_nothing_about_sampled_clients(tmp_path: Path) -> None:
    """The mechanism is broken, and only the bound that assumes nothing may say so."""
    privacy = {**SOUND, "specimen": "no_clipping"}
    local = {"batch_size": 10, "learning_rate": 0.05}
    federation = {"rounds": 4, "local": local, "privacy": privacy, "clients_per_round": 0.9}
    audit = {"name": "canaries", "game": {"name": "canaries", "count": 4}, "attacks": ["canary_product"]}
    statuses = {}
    for name in ("f_dp_one_run", "one_run"):
        folder = tmp_path / name
        folder.mkdir()
        heard = {**audit, "vantage": "client:0", "bounds": [name]}
        record = ran(folder, federation=federation, audits=[heard], worlds=40)
        statuses[name] = (record.claims[0].status, bool(record.alarms))
    assert statuses["one_run"] == ("refuted", True)
    assert not statuses["f_dp_one_run"][1]
    assert statuses["f_dp_one_run"][0] != "refuted"


def test_an_attack_that_learns_from_other_worlds_bounds_nothing(tmp_path: Path) -> None:
    audit = {"name": "records", "attacks": ["lira", "loss"], "bounds": ["one_run"]}
    record = ran(tmp_path, audits=[audit], claims=[], worlds=8)
    lira, loss = record.findings
    assert lira.caps["auc"] == loss.caps["auc"] < 1
    assert lira.bounds[0].epsilon is None
    assert "references" in str(lira.bounds[0].reason)
    assert loss.bounds[0].epsilon is not None


def test_setups_share_their_worlds_and_answer_for_themselves(tmp_path: Path) -> None:
    audits = [
        {"name": "with", "attacks": ["loss"], "vantage": "client:0"},
        {"name": "without", "setup": "bare", "attacks": ["loss"], "vantage": "client:0"},
        {"name": "secret", "setup": "secagg", "attacks": ["loss"], "vantage": "client:0"},
    ]
    setups = [{"name": "bare"}, {"name": "secagg", "secure_aggregation": {"protocol": "ideal"}}]
    claims = [
        {"epsilon": 3.0, "observer": "server"},
        {"epsilon": 3.0, "observer": "public", "setup": "bare"},
        {"audit": "with", "attack": "loss", "lower_than": "without"},
    ]
    record = ran(tmp_path, audits=audits, setups=setups, claims=claims, worlds=6)
    assert [setup.name for setup in record.setups] == [None, "bare", "secagg"]
    assert [bool(setup.privacy) for setup in record.setups] == [True, False, False]
    server, bare, _ = record.claims
    assert (server.status, bare.status) == ("inconclusive", "inconclusive")
    assert "infinity" in server.reason
    assert "infinity" in bare.reason
    plain, secret = record.setups[1].utility, record.setups[2].utility
    assert plain.test_accuracy.estimate == pytest.approx(secret.test_accuracy.estimate, abs=0.02)
    assert {(sight.setup, sight.vantage) for sight in record.federation.sights} == {
        (None, "client:0"),
        ("bare", "client:0"),
        ("secagg", "client:0"),
    }


def test_a_target_epsilon_is_met_by_the_noise_that_ran(tmp_path: Path) -> None:
    privacy = {"name": "central", "clipping_norm": 1.0, "epsilon": 5.0}
    federation = {"rounds": 4, "local": {"batch_size": 10, "learning_rate": 0.05}, "privacy": privacy}
    record = ran(tmp_path, federation=federation, worlds=5)
    (setup,) = record.setups
    accounted = next(row for row in setup.epsilons if (row.unit, row.observer) == ("client", "public"))
    assert accounted.epsilon == pytest.approx(5.0, rel=1e-3)
    assert setup.noise_multiplier is not None
    assert setup.noise_multiplier > 1


def test_distributed_noise_wants_enough_clients_with_records(tmp_path: Path) -> None:
    """Else each round is given up for want of noise, and a model that never moved would look private."""
    federation = {
        "rounds": 2,
        "secure_aggregation": {"protocol": "ideal", "weights": "uniform"},
        "privacy": {"name": "distributed", "noise_multiplier": 4.0},
    }
    data = {"source": "digits", "clients": 20, "candidates": 30, "test": 40}
    audit = {"name": "records", "attacks": ["loss"]}
    with pytest.raises(ScenarioError, match="accounted for 20"):
        ran(tmp_path, federation=federation, data=data, audits=[audit], claims=[])


def test_the_accounted_epsilon_is_that_of_the_federation_whatever_the_audits_and_their_order(tmp_path: Path) -> None:
    """Canary clients share the noise out among more, and enlarge the crowd a fixed number is drawn from."""
    federation = {
        "rounds": 3,
        "local": {"batch_size": 10, "learning_rate": 0.05},
        "privacy": {"name": "distributed", "clipping_norm": 1.0, "noise_multiplier": 3.0},
        "secure_aggregation": {"protocol": "ideal", "weights": "uniform"},
    }
    canaries = {"name": "canaries", "game": {"name": "canaries", "count": 20}, "attacks": ["canary_product"]}
    audits = [
        {**canaries, "vantage": "server"},
        {"name": "records", "vantage": "server", "attacks": ["movement_cosine"]},
    ]
    found = []
    for number, chosen in enumerate((audits, audits[::-1], audits[1:])):
        folder = tmp_path / str(number)
        folder.mkdir()
        data = {"source": "digits", "clients": 4, "candidates": 120, "test": 40}
        record = ran(folder, federation=federation, audits=chosen, claims=[], worlds=4, data=data)
        found.append({(row.unit, row.observer): row.epsilon for row in record.setups[0].epsilons})
    assert found[0] == found[1] == found[2]


def test_a_specimen_is_never_cleared(tmp_path: Path) -> None:
    federation = {"rounds": 1, "privacy": {**SOUND, "specimen": "flower_dp_weighted"}}
    audits = [{"name": "records", "vantage": "client:0", "attacks": ["loss"]}]
    claims = [{"epsilon": 9.0, "unit": "client", "observer": "participant"}]
    record = ran(tmp_path, federation=federation, audits=audits, claims=claims, worlds=4)
    assert record.claims[0].status == "inconclusive"
    assert "flower_dp_weighted" in record.claims[0].reason


def test_rounds_that_an_adversary_makes_clients_refuse_clear_nobody(tmp_path: Path) -> None:
    """Its worlds are judged by their own rounds, whatever becomes of those without it."""
    federation = {"rounds": 3, "secure_aggregation": {"protocol": "ideal", "consistency": True}}
    audits = [
        {"name": "honest", "vantage": "server", "attacks": ["loss"]},
        {"name": "cheat", "vantage": "server", "attacks": ["loss"], "adversary": {"name": "inconsistent_models"}},
    ]
    claims = [
        {"audit": "cheat", "attack": "loss", "at_most": 0.99},
        {"audit": "cheat", "attack": "loss", "lower_than": "honest"},
    ]
    model = {"name": "mlp", "hidden": [8]}
    record = ran(tmp_path, federation=federation, model=model, audits=audits, claims=claims, worlds=6)
    given_up = {each.audit: each.aborted / each.tried for each in record.findings}
    assert given_up == {"honest": 0.0, "cheat": 1.0}
    assert record.setups[0].aborted == 0
    assert [claim.status for claim in record.claims] == ["inconclusive"] * 2


def test_a_training_that_was_given_up_clears_nobody(tmp_path: Path) -> None:
    federation = {"rounds": 4, "secure_aggregation": {"threshold": 1.0}, "drop_out": {"update": 0.7}}
    claims = [{"audit": "records", "attack": "loss", "at_most": 0.99}]
    audits = [{"name": "records", "attacks": ["loss"]}]
    record = ran(tmp_path, federation=federation, audits=audits, claims=claims, worlds=6)
    assert record.setups[0].aborted > record.setups[0].tried / 2
    assert record.claims[0].status == "inconclusive"
    assert "given up" in record.claims[0].reason


CLIENTS = {"name": "clients", "game": {"name": "client"}, "attacks": ["client_loss"], "bounds": ["gdp"]}
LOCAL = {"rounds": 2, "local": {"batch_size": 10, "learning_rate": 0.05}}


def test_whole_clients_are_accounted_for_as_clients(tmp_path: Path) -> None:
    """The bound is far below; a false alarm comes in 1 % of seeds at most, by construction."""
    record = ran(
        tmp_path, audits=[CLIENTS], claims=[{"epsilon": 2.0, "unit": "client", "observer": "public"}], worlds=20
    )
    (finding,) = record.findings
    (bound,) = finding.bounds
    assert (bound.unit, bound.observer) == ("client", "public")
    assert bound.epsilon is not None
    assert bound.accounted == pytest.approx(1.9931, abs=1e-3)
    assert finding.caps["auc"] == pytest.approx(0.6382, abs=1e-3)
    assert not record.alarms
    assert record.claims[0].status == "not refuted"
    assert "lower bound" in record.claims[0].reason


@pytest.mark.parametrize(
    "federation",
    [
        LOCAL | {"privacy": SOUND | {"name": "local"}},
        LOCAL | {"privacy": SOUND, "clients_per_round": 2},
        LOCAL | {"privacy": SOUND, "secure_aggregation": {"protocol": "ideal", "weights": "uniform"}},
    ],
    ids=["local", "a place for somebody else", "rounds given up"],
)
def test_an_epsilon_that_does_not_hide_who_is_there_is_not_held_against_who_is_there(
    tmp_path: Path, federation: dict[str, Any]
) -> None:
    audit = CLIENTS | {"vantage": "server", "attacks": ["taking_part"]}
    record = ran(tmp_path, audits=[audit], claims=[], worlds=8, federation=federation, controls={"planted_worlds": 0})
    (finding,) = record.findings
    assert finding.metrics["auc"].estimate is not None
    assert finding.caps == {}
    assert finding.bounds[0].epsilon is None
    assert "whether there are any" in str(finding.bounds[0].reason)
    assert not record.alarms


@pytest.mark.slow
def test_honest_runs_are_left_alone(tmp_path: Path) -> None:
    """Twenty honest runs raise an alarm with a chance below 20 % in all even if each had its full 1 %; two or more
    alarms (2 %) fail."""
    alarms = 0
    for seed in range(20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        alarms += bool(ran(folder, seed=100 + seed).alarms)
    assert alarms <= 1
