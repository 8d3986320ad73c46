"""The coverage matrix against real federations: every attack from every vantage."""

from typing import Any

import pytest

from attacks import ATTACKS
from attacks.coverage import VIEWS, matrix
from tests import worlds

SOURCE = {
    "property": {"source": "diabetes", "clients": 4, "candidates": 200, "population": 100, "test": 40},
    "client_property": {"source": "diabetes", "clients": 4, "candidates": 200, "population": 100, "test": 40},
    "batches": {"source": "diabetes", "clients": 4, "candidates": 200, "population": 100, "test": 40},
    "client": {"source": "digits", "clients": 8, "candidates": 160, "population": 120, "test": 60},
}
"""Data of the games that need other data than the rest."""
DIGITS = {"source": "digits", "clients": 4, "candidates": 80, "population": 120, "test": 60}
GAMES: dict[str, Any] = {
    "record": "record",
    "property": {"name": "property", "column": "sex", "value": "1", "records": 80},
    "labels": {"name": "labels", "client": 0},
    "canaries": {"name": "canaries", "count": 6},
    "source": "source",
    "client": {"name": "client"},
    "distinguish": {"name": "distinguish"},
    "client_property": {"name": "client_property", "column": "sex", "value": "1", "records": 6},
    "batches": {"name": "batches", "column": "sex", "value": "1", "records": 6},
}
ALLEGED = 3
"""The participant of the matrix is another than the client that is asked about."""
VANTAGES = {"public": "public", "participant": f"client:{ALLEGED}", "server": "server", "secagg": "server"}


ADVERSARIES = {
    "ascent_recovery": {"name": "gradient_ascent"},
    "ascent_lira": {"name": "gradient_ascent"},
    "inconsistency_cosine": {"name": "inconsistent_models"},
    "canary_gradient": {"name": "canary_gradient"},
    "property_snap": {"name": "property_poisoning"},
}
"""What the vantage must do for an attack to have something to read."""
CAN_ACT = {
    "ascent": ("participant", "server", "secagg"),
    "inconsistency": ("server", "secagg"),
    "poisoning": ("participant",),
}


def _audits(game: str, column: str) -> list[dict[str, Any]]:
    """Return the audits of a column: one that only looks, and one for each attack that has to act."""
    audit = {"vantage": VANTAGES[column], "game": GAMES[game], "setup": "secagg" if column == "secagg" else None}
    looking = tuple(name for name in _names(game) if column not in CAN_ACT.get(ATTACKS[name].signal.reads, ()))
    acting = [name for name in _names(game) if name not in looking]
    return [
        {"name": column, "attacks": looking, **audit},
        *({"name": f"{column}-{a}", "attacks": (a,), "adversary": ADVERSARIES[a], **audit} for a in acting),
    ]


def _names(game: str) -> tuple[str, ...]:
    return tuple(name for name, attack in ATTACKS.items() if attack.game == game)


@pytest.fixture(scope="module", params=GAMES)
def statuses(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """Return (attack, column of the matrix) -> status of the finding, for all attacks of a game."""
    game = request.param
    setups = ({"name": "secagg", "secure_aggregation": {"protocol": "masked", "threshold": 0.67}},)
    audits = tuple(audit for column in VIEWS for audit in _audits(game, column))
    scenario = worlds.scenario(
        data=SOURCE.get(game, DIGITS),
        federation={"rounds": 8, "clients_per_round": 0.75},
        audits=audits,
        setups=setups,
        worlds=6,
        controls={"planted_worlds": 0},
    )
    record = worlds.run(scenario, tmp_path_factory.mktemp("runs") / game)
    return {(finding.attack, finding.audit.split("-")[0]): finding.status for finding in record.findings}


def test_each_cell_is_what_a_run_shows(statuses: dict[tuple[str, str], str]) -> None:
    said = {(row.attack.name, column): runs for row in matrix() for column, runs in zip(VIEWS, row.runs, strict=True)}
    for (attack, column), status in statuses.items():
        assert (status != "not visible") == said[attack, column], (attack, column, status)


def test_the_games_of_the_matrix_are_all_games() -> None:
    assert {attack.game for attack in ATTACKS.values()} == set(GAMES)
    assert {row.attack.name for row in matrix()} == {name for game in GAMES for name in _names(game)}
