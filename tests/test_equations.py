"""What an attack had to solve stands beside what it found: in the finding, on the page, in the summary."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attacks import ATTACKS
from fedsim import cli, run, tape
from fedsim.job import WorldResult
from fedsim.results import Spread, read
from fedsim.run import RunOutcome, execute
from fedsim.scenario_file import Loaded
from fedsim.transcript import AGGREGATE, SERVER
from fedsim.views import Vantage, visible
from tests import worlds

CLIENTS, ROUNDS, WORLDS = 4, 5, 4


def _run(folder: Path, vantages: tuple[str, ...] = (SERVER,), per_round: int | None = 2) -> RunOutcome:
    """Run the attacks that read sums, from some vantages, where so many of four clients are drawn for a round."""
    game = {"name": "client_property", "column": "sex", "value": "1", "records": 8}
    federation: dict[str, Any] = {"rounds": ROUNDS, "clients_per_round": per_round}
    chosen = worlds.scenario(
        data={"source": "diabetes", "clients": CLIENTS, "candidates": 180, "population": 100, "test": 40},
        model={"name": "softmax"},
        federation=federation | {"secure_aggregation": {"protocol": "ideal"}},
        audits=tuple(
            audit | {"name": f"{audit['name']}-{vantage}", "vantage": vantage}
            for audit in (
                {"name": "groups", "game": game, "attacks": ("prolin", "property_sum")},
                {"name": "records", "attacks": ("disaggregated_cosine",)},
            )
            for vantage in vantages
        ),
        worlds=WORLDS,
        controls={"planted_worlds": 0},
    )
    loaded = Loaded(chosen, {}, Path("t.yaml"), {})
    return execute(
        loaded,
        ATTACKS,
        worlds.RECIPES,
        out=folder,
        engine="lockstep",
        workers=1,
        progress=lambda *_: None,
        transcripts=True,
    )


def _by_hand(folder: Path) -> list[tuple[int, int, int, int]]:
    """Sums, clients, rank, and how many clients' own rows the cohorts span, of each world on disk."""
    found = []
    for world in sorted(folder.iterdir()):
        events = visible(Vantage(frozenset({SERVER})), tape.read(world))
        rows = [
            [
                any((e.round, e.kind, e.receiver) == (t.round, "train", f"client:{k}") for e in events)
                for k in range(CLIENTS)
            ]
            for t in events
            if t.kind == AGGREGATE
        ]
        matrix = np.array(rows, dtype=float)
        rank = np.linalg.matrix_rank(matrix)
        spanned = [np.linalg.matrix_rank(np.vstack([matrix, unit])) == rank for unit in np.eye(CLIENTS)]
        found.append((len(rows), CLIENTS, int(rank), sum(spanned)))
    return found


def test_what_was_to_be_solved_is_stated_for_each_attack_that_solves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = _run(tmp_path / "run")
    games = sorted((outcome.folder / "transcripts").iterdir())
    by_name = {finding.attack: finding for finding in outcome.record.findings}
    for game, attack in zip(games, ("prolin", "disaggregated_cosine"), strict=True):
        wanted = np.array(_by_hand(game))
        assert len(wanted) == WORLDS
        told = by_name[attack].equations
        assert told is not None
        for place, name in enumerate(("sums", "clients", "rank", "singled_out")):
            spread = Spread(
                float(wanted[:, place].mean()), float(wanted[:, place].min()), float(wanted[:, place].max())
            )
            assert getattr(told, name) == spread
    assert by_name["property_sum"].equations is None
    assert read(outcome.folder) == outcome.record
    line = f"{ROUNDS} sums over {CLIENTS} clients, of rank"
    assert (outcome.folder / "report.html").read_text().count(line) == 2
    cli._show_results(outcome.record, outcome.folder)
    assert f"Equations groups-server, prolin: {line}" in " ".join(capsys.readouterr().out.split())


def test_with_everybody_in_every_round_there_is_one_equation_and_with_no_sums_none(tmp_path: Path) -> None:
    findings = _run(tmp_path / "run", (SERVER, "public"), per_round=None).record.findings
    for finding in (each for each in findings if each.attack != "property_sum"):
        wanted = (ROUNDS, CLIENTS, 1, 0) if finding.vantage == SERVER else (0, CLIENTS, 0, 0)
        assert finding.status == "not visible"
        told = finding.equations
        assert told is not None
        assert tuple(each.mean for each in (told.sums, told.clients, told.rank, told.singled_out)) == wanted
        assert f"{wanted[0]} sums of updates" in str(finding.reason)


def test_a_kept_world_keeps_its_equations(tmp_path: Path) -> None:
    equations = {"p": {"sums": 5, "clients": 4, "rank": 3, "singled_out": 2}}
    world = WorldResult({}, {}, np.zeros((2, 4)), "a", "b", {}, equations=equations)
    run._write_world(tmp_path / "world.npz", world)
    kept = run._read_world(tmp_path / "world.npz")
    assert kept is not None
    assert kept.equations == equations
