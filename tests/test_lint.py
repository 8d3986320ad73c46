"""Every rule fires on a scenario with its mistake, at the key that is at fault, and is silent on sound ones."""

from typing import Any, NamedTuple

import pytest

from fedsim.lint import (
    COMPARES_UPDATES,
    FLOWER_LOCAL_DP,
    LOCAL_DP_DEFAULTS,
    PER_DEFENCE,
    PER_SCENARIO,
    SPECIMENS,
    Place,
    Remark,
    defences_of,
    lint,
    without_public_records,
)
from fedsim.scenario import CentralPrivacy, Scenario
from strategies import MODS, STRATEGIES

RECORD = {"name": "record", "noise_multiplier": 1.0}
LOCAL = {"name": "local", "noise_multiplier": 1.0}
CENTRAL = {"name": "central", "noise_multiplier": 1.0}
ADAPTIVE = {"name": "adaptive", "noise_multiplier": 1.0}
DISTRIBUTED = {"name": "distributed", "noise_multiplier": 1.0}
SECURE: dict[str, Any] = {"weights": "uniform"}
BOUNDED = {"name": "canaries", "game": {"name": "canaries"}, "attacks": ("a",), "bounds": ("one_run",)}


def scenario(federation: dict[str, Any] | None = None, **rest: Any) -> Scenario:
    """Twenty clients, sound but for what is given."""
    settings: dict[str, Any] = {
        "name": "small",
        "data": {"source": "digits", "candidates": 400, "clients": 20},
        "federation": federation or {},
        "audits": (BOUNDED,),
    }
    return Scenario.model_validate(settings | rest)


def remarks(found: Scenario, rule: str) -> list[Remark]:
    """What one rule says: lint says it too, and every remark has words and a place."""
    texts = [str(remark) for remark in lint(found)]
    if rule in PER_SCENARIO:
        mine = list(PER_SCENARIO[rule](found))
    else:
        mine = [remark for each in defences_of(found) for remark in PER_DEFENCE[rule](each)]
    for remark in mine:
        assert str(remark) in texts
        assert remark.text.strip(".") == remark.text
        assert remark.remedy.strip(".") == remark.remedy
    return mine


class Mistake(NamedTuple):
    """A scenario with a mistake, where it must be found, and a word of what is said."""

    rule: str
    place: Place
    level: str
    word: str
    scenario: dict[str, Any]


def federation(**keys: Any) -> dict[str, Any]:
    return {"federation": keys}


def secure(**keys: Any) -> dict[str, Any]:
    return {"secure_aggregation": SECURE | keys}


def flower(**options: Any) -> dict[str, Any]:
    return federation(mods=({"name": "flower_local_dp", "options": options},))


def claim(**keys: Any) -> dict[str, Any]:
    return {"claims": ({"epsilon": 1.0, **keys},)}


KRUM = {"strategy": {"name": "krum"}}
F = "federation"
RECORDS = BOUNDED | {"game": {"name": "canaries", "unit": "record"}}
LABELS = {"name": "labels", "game": {"name": "labels"}, "attacks": ("a",)}
SKEWED: dict[str, Any] = {
    "data": {"source": "digits", "candidates": 400, "clients": 20, "partition": {"scheme": "dirichlet"}}
}
DEAL_THEMSELVES: tuple[dict[str, Any], ...] = (
    {"name": "labels"},
    {"name": "client_property", "column": "sex", "value": "Female"},
    {"name": "batches", "column": "sex", "value": "Female"},
)
MISTAKES = [
    Mistake(
        "sum_of_one",
        (F, "secure_aggregation"),
        "error",
        "fewer than two clients",
        federation(**secure(), clients_per_round=1),
    ),
    Mistake(
        "rounds_given_up",
        (F, "drop_out"),
        "warning",
        "of the time",
        federation(**secure(threshold=1.0), drop_out={"update": 0.3}),
    ),
    Mistake("single_updates", (F, "secure_aggregation"), "error", "their sum", federation(**KRUM, **secure())),
    Mistake("single_updates", (F, "privacy"), "error", "central", federation(**KRUM, privacy=CENTRAL)),
    Mistake("single_updates", (F, "privacy"), "error", "adaptive", federation(**KRUM, privacy=ADAPTIVE)),
    Mistake("distributed_in_clear", (F, "privacy", "name"), "error", "the noise", federation(privacy=DISTRIBUTED)),
    *(
        Mistake(
            "weights_by_examples",
            (F, "secure_aggregation", "weights"),
            "error",
            "count for more",
            federation(privacy=privacy, **secure(weights="examples")),
        )
        for privacy in (CENTRAL, ADAPTIVE, LOCAL, DISTRIBUTED)
    ),
    Mistake(
        "training_looks_back",
        (F, "privacy"),
        "error",
        "early stopping",
        federation(privacy=RECORD, local={"early_stopping": {}}),
    ),
    Mistake(
        "training_looks_back",
        (F, "privacy"),
        "error",
        "smoothing",
        federation(privacy=RECORD, local={"label_smoothing": 0.1}),
    ),
    Mistake("adaptive_in_secret", (F, "privacy", "name"), "error", "count", federation(privacy=ADAPTIVE, **secure())),
    *(
        Mistake("drop_out_of_no_stage", (F, "drop_out", stage), "error", stage, federation(drop_out={stage: 0.1}))
        for stage in ("keys", "shares", "unmask")
    ),
    Mistake(
        "specimen_without_masks",
        (F, "secure_aggregation", "specimen"),
        "error",
        "ideal",
        federation(**secure(protocol="ideal", specimen="reused_seed")),
    ),
    Mistake(
        "local_dp_in_secret",
        (F, "secure_aggregation"),
        "error",
        "LocalDpMod",
        federation(mods=({"name": "flower_local_dp"},), **secure()),
    ),
    Mistake("canary_records", ("audits", 0, "game", "unit"), "error", "gradient", {"audits": (RECORDS,)}),
    Mistake(
        "bounds_without_coins", ("audits", 0, "bounds"), "error", "coin", {"audits": (LABELS | {"bounds": ("x",)},)}
    ),
    Mistake(
        "difference_of_games",
        ("claims", 0, "lower_than"),
        "error",
        "different games",
        {
            "audits": (BOUNDED, LABELS),
            "claims": ({"audit": "canaries", "attack": "a", "lower_than": "labels", "by": 0.1},),
        },
    ),
    *(
        Mistake(
            "planted_mistake",
            (F, "privacy", "specimen"),
            "warning",
            text,
            federation(privacy=CENTRAL | {"specimen": name}),
        )
        for name, text in SPECIMENS.items()
    ),
    Mistake(
        "planted_mistake",
        (F, "secure_aggregation", "specimen"),
        "warning",
        "one mask",
        federation(**secure(specimen="reused_seed")),
    ),
    Mistake(
        "no_noise",
        (F, "privacy", "noise_multiplier"),
        "warning",
        "without noise",
        federation(privacy=CENTRAL | {"noise_multiplier": 0.0}),
    ),
    Mistake(
        "clips_nothing",
        (F, "privacy", "clipping_norm"),
        "warning",
        "10000",
        federation(privacy=LOCAL | {"clipping_norm": 1e4}),
    ),
    Mistake(
        "follows_the_outliers",
        (F, "privacy", "quantile"),
        "warning",
        "0.95",
        federation(privacy=ADAPTIVE | {"quantile": 0.95}),
    ),
    Mistake(
        "amplification",
        (F, "clients_per_round"),
        "warning",
        "Poisson",
        federation(clients_per_round=10, privacy={"name": "central", "epsilon": 2.0}),
    ),
    Mistake(
        "amplification",
        (F, "clients_per_round"),
        "warning",
        "Poisson",
        federation(clients_per_round=10, privacy=CENTRAL) | claim(),
    ),
    Mistake(
        "large_delta",
        (F, "privacy", "delta"),
        "warning",
        "20 clients",
        federation(privacy=CENTRAL | {"delta": 0.05}),
    ),
    Mistake(
        "large_delta",
        ("claims", 0, "delta"),
        "warning",
        "400 records",
        federation(privacy=RECORD) | claim(unit="record", delta=0.0025),
    ),
    Mistake("nothing_behind_the_claim", ("claims", 0, "epsilon"), "warning", "infinity", claim()),
    Mistake(
        "nothing_behind_the_claim",
        ("claims", 0, "epsilon"),
        "warning",
        "who said what",
        federation(**secure()) | claim(),
    ),
    Mistake(
        "nothing_behind_the_claim",
        ("claims", 0, "observer"),
        "warning",
        "infinite",
        federation(privacy=CENTRAL) | claim(observer="server"),
    ),
    Mistake(
        "nothing_behind_the_claim",
        ("claims", 0, "unit"),
        "warning",
        "whole client",
        federation(privacy=RECORD) | claim(unit="client"),
    ),
    Mistake(
        "other_unit_attacked",
        ("claims", 0, "unit"),
        "warning",
        "attacks on a client",
        federation(privacy=RECORD) | claim(unit="record"),
    ),
    Mistake(
        "other_unit_attacked",
        ("claims", 0, "unit"),
        "warning",
        "attacks on a record",
        federation(privacy=CENTRAL) | claim() | {"audits": (BOUNDED | {"game": "record"},)},
    ),
    Mistake(
        "other_unit_attacked",
        ("claims", 0, "epsilon"),
        "warning",
        "nothing can refute",
        federation(privacy=CENTRAL) | claim() | {"audits": (BOUNDED | {"bounds": ()},)},
    ),
    Mistake(
        "speaks_in_clear",
        (F, "secure_aggregation", "metadata"),
        "warning",
        "in clear",
        federation(**secure(metadata="clear")),
    ),
    *(
        Mistake(
            "speaks_in_clear",
            (F, "evaluate_clients"),
            "warning",
            "loss and accuracy",
            federation(evaluate_clients=True, **hides),
        )
        for hides in (secure(), {"privacy": LOCAL}, {"privacy": RECORD})
    ),
    Mistake(
        "few_colluders",
        (F, "secure_aggregation", "neighbours"),
        "warning",
        "4 of a client's 6",
        federation(**secure(neighbours=6, threshold=0.55)),
    ),
    Mistake(
        "few_colluders",
        (F, "secure_aggregation", "threshold"),
        "warning",
        "3 of a client's 3",
        federation(clients_per_round=4, **secure()),
    ),
    Mistake(
        "flower_local_noise",
        (F, "mods", 0, "options", "sensitivity"),
        "warning",
        "of 1, below twice the clipping norm",
        flower(),
    ),
    Mistake(
        "flower_local_noise",
        (F, "mods", 0, "options", "sensitivity"),
        "warning",
        "of 0.5, below the clipping norm",
        flower(sensitivity=0.5),
    ),
    Mistake(
        "flower_local_noise",
        (F, "mods", 0, "options", "epsilon"),
        "warning",
        "up to epsilon 1",
        flower(sensitivity=2.0, epsilon=1.5),
    ),
    Mistake(
        "flower_local_noise",
        (F, "mods", 0, "options", "clipping_norm"),
        "warning",
        "clips nothing",
        flower(sensitivity=1e5, clipping_norm=1e4),
    ),
    Mistake(
        "tuned_on_the_data",
        ("setups", 0, "privacy"),
        "warning",
        "the choice among them",
        federation(privacy=CENTRAL)
        | claim()
        | {"setups": ({"name": "other", "privacy": CENTRAL | {"noise_multiplier": 2.0}},)},
    ),
    Mistake(
        "unattacked",
        ("setups", 0),
        "warning",
        "no audit attacks the setup other",
        {"setups": ({"name": "other", "privacy": CENTRAL},)},
    ),
    Mistake(
        "same_again",
        ("setups", 0),
        "warning",
        "run twice for nothing",
        {"setups": ({"name": "other"},), "audits": (BOUNDED | {"setup": "other"},)},
    ),
    Mistake(
        "party_twice",
        ("audits", 0, "vantage"),
        "warning",
        "client:1 stands twice",
        {"audits": (BOUNDED | {"vantage": "client:1+ client:1+server"},)},
    ),
    Mistake(
        "asked_by_the_holder",
        ("audits", 0, "release", "budget"),
        "warning",
        "a budget has no effect",
        {"audits": (BOUNDED | {"vantage": "client:1+server", "release": {"budget": 500}},)},
    ),
    Mistake(
        "asked_by_the_holder",
        ("release", "monitor"),
        "warning",
        "a monitor has no effect",
        {"audits": (BOUNDED | {"vantage": "server"},), "release": {"monitor": {}}},
    ),
    Mistake(
        "budget_below_one",
        ("audits", 0, "release", "budget"),
        "warning",
        "399 pays for less than one query for each of the 400",
        {"audits": (BOUNDED | {"game": "record", "release": {"budget": 399}},)},
    ),
    *(
        Mistake(
            "dealt_by_the_game",
            ("data", "partition"),
            "error",
            f"no audit follows the scheme dirichlet: the game {game['name']} deals each client as many records",
            {**SKEWED, "audits": ({"name": "own", "game": game, "attacks": ("a",)},)},
        )
        for game in DEAL_THEMSELVES
    ),
    *(
        Mistake(
            "dealt_by_the_game",
            ("audits", 1, "game"),
            "warning",
            f"the game {game['name']} does not follow the scheme dirichlet: it deals each client as many records",
            {**SKEWED, "audits": (BOUNDED, {"name": "own", "game": game, "attacks": ("a",)})},
        )
        for game in DEAL_THEMSELVES
    ),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda each: f"{each.rule}-{each.place[-1]}-{each.word[:12]}")
def test_a_mistake_is_found_where_it_stands(mistake: Mistake) -> None:
    found = remarks(scenario(**mistake.scenario), mistake.rule)
    assert [(each.place, each.level) for each in found] == [(mistake.place, mistake.level)]
    assert mistake.word in found[0].text


def test_every_rule_has_a_mistake() -> None:
    assert {mistake.rule for mistake in MISTAKES} == {*PER_DEFENCE, *PER_SCENARIO}


SOUND: dict[str, dict[str, Any]] = {
    "nothing": {},
    "skewed": SKEWED,
    "even": {"audits": tuple({"name": each["name"], "game": each, "attacks": ("a",)} for each in DEAL_THEMSELVES)},
    "robust": federation(**KRUM, drop_out={"update": 0.2}),
    "secure": federation(**secure(), drop_out={"keys": 0.1, "shares": 0.1, "unmask": 0.1}),
    "secure, by examples": federation(**secure(weights="examples")),
    "ideal": federation(**secure(protocol="ideal")),
    "few neighbours, ideal": federation(**secure(protocol="ideal", neighbours=2)),
    "central": federation(privacy=CENTRAL, clients_per_round=0.5) | claim(),
    "central, all clients": federation(privacy=CENTRAL, clients_per_round=20) | claim(observer="participant"),
    "central, evaluated": federation(privacy=CENTRAL, evaluate_clients=True),
    "adaptive": federation(privacy=ADAPTIVE) | claim(),
    "local": federation(privacy=LOCAL) | claim(observer="server"),
    "distributed": federation(privacy=DISTRIBUTED, **secure()) | claim(observer="server"),
    "record": federation(privacy=RECORD, local={"clip_gradient": 1.0})
    | {"model": {"name": "mlp", "dropout": 0.1}, "audits": (RECORDS,)}
    | claim(unit="record", observer="server"),
    "record, robust": federation(privacy=RECORD, **KRUM),
    "record, real records": federation(privacy=RECORD)
    | {"audits": (BOUNDED | {"game": "record"},)}
    | claim(unit="record"),
    "local, robust": federation(privacy=LOCAL, **KRUM),
    "Flower's mod, with care": flower(sensitivity=2.0),
    "several strengths, no claim": {
        "setups": tuple({"name": f"s{z}", "privacy": CENTRAL | {"noise_multiplier": float(z)}} for z in (1, 2)),
        "audits": tuple(BOUNDED | {"name": f"a{z}", "setup": f"s{z}"} for z in (1, 2)),
    },
    "a setup without the defences": federation(privacy=CENTRAL)
    | {"setups": ({"name": "open"},), "audits": (BOUNDED | {"setup": "open"},)},
    "queries that are counted": {
        "audits": (BOUNDED | {"game": "record", "release": {"budget": 400, "monitor": {}}},),
    },
    "a budget for some": {
        "audits": (BOUNDED | {"game": "record"}, BOUNDED | {"name": "server", "vantage": "server"}),
        "release": {"budget": 400},
    },
    "a difference": federation(privacy=CENTRAL)
    | {
        "claims": (
            {"epsilon": 1.0},
            {"audit": "canaries", "attack": "a", "lower_than": "twin", "by": 0.0},
        ),
        "audits": (BOUNDED, BOUNDED | {"name": "twin"}),
    },
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_scenario_is_left_alone(name: str) -> None:
    assert [str(remark) for remark in lint(scenario(**SOUND[name]))] == []


def test_setups_are_looked_at_with_the_audits_and_claims_of_their_own() -> None:
    setups = ({"name": "one", "privacy": CENTRAL}, {"name": "two", "privacy": DISTRIBUTED})
    audits = (BOUNDED | {"setup": "one"},)
    claims = ({"epsilon": 1.0, "setup": "one"}, {"epsilon": 1.0, "setup": "nowhere"})
    found = scenario(federation(**KRUM)["federation"], setups=setups, audits=audits, claims=claims)
    assert {remark.place for remark in lint(found)} == {
        ("setups", 0, "privacy"),
        ("setups", 1, "privacy", "name"),
        ("setups", 1),
    }


def test_bounds_of_one_setup_say_nothing_about_another() -> None:
    setups = ({"name": "one", "privacy": CENTRAL}, {"name": "two", "privacy": ADAPTIVE})
    claims = ({"epsilon": 1.0, "setup": "one"}, {"epsilon": 1.0, "setup": "two"})
    found = remarks(scenario(setups=setups, audits=(BOUNDED | {"setup": "one"},), claims=claims), "other_unit_attacked")
    assert [remark.place for remark in found] == [("claims", 1, "epsilon")]


def test_errors_come_first() -> None:
    found = lint(scenario(federation(privacy=DISTRIBUTED | {"clipping_norm": 1e6})["federation"]))
    assert [remark.level for remark in found] == ["error", "warning"]


def test_the_names_and_defaults_are_those_of_the_tables() -> None:
    assert set(STRATEGIES) >= COMPARES_UPDATES
    options = MODS[FLOWER_LOCAL_DP].options
    assert {name: options[name].default for name in LOCAL_DP_DEFAULTS} == LOCAL_DP_DEFAULTS
    specimens = CentralPrivacy.model_json_schema()["properties"]["specimen"]["anyOf"][0]["enum"]
    assert set(SPECIMENS) == set(specimens)


def test_attacks_that_need_public_records_are_found_where_there_are_none() -> None:
    data = {"source": "digits", "candidates": 400, "clients": 20}
    audits = (BOUNDED | {"attacks": ("a", "b")},)
    (found,) = without_public_records(scenario(data=data | {"population": 0}, audits=audits), ("b", "c"))
    assert found.place == ("audits", 0, "attacks", 1)
    assert "b needs public records" in found.text
    for given in ({}, {"population": 1}):
        assert not list(without_public_records(scenario(data=data | given, audits=audits), ("b",)))
