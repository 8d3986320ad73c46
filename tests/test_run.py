"""A whole run on small federations: what it writes, that it repeats itself, and that it goes on where it stopped."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from attacks import ATTACKS
from fedsim import cli, tape
from fedsim import run as module
from fedsim.engine import run_worlds
from fedsim.errors import ScenarioError
from fedsim.job import Job, WorldResult
from fedsim.report import write_report
from fedsim.results import Results, read_evidence
from fedsim.results import read as read_results
from fedsim.run import RunOutcome, execute
from fedsim.scenario import LabelGame, PropertyGame, Scenario
from fedsim.scenario_file import Loaded
from tests import worlds

AUDITS: tuple[dict[str, Any], ...] = (
    {"name": "outsider", "attacks": ("loss", "lira", "update_cosine")},
    {"name": "server", "vantage": "server", "attacks": ("update_cosine",)},
    {"name": "labels", "vantage": "server", "game": LabelGame(name="labels", client=1), "attacks": ("label_unmixing",)},
)
CLAIMS = (
    {"audit": "outsider", "attack": "loss", "at_most": 1.0},
    {"audit": "server", "attack": "any", "at_most": 0.01},
    {"audit": "outsider", "attack": "update_cosine", "at_most": 0.9},
)


def _scenario(**changes: Any) -> Scenario:
    return worlds.scenario(
        **{"audits": AUDITS, "claims": CLAIMS, "worlds": 6, "controls": {"planted_worlds": 4}, **changes}
    )


def _execute(scenario: Scenario, out: Path, workers: int = 1, transcripts: bool = False) -> RunOutcome:
    loaded = Loaded(scenario, {"name": scenario.name}, Path("test.yaml"), {})
    return execute(
        loaded,
        ATTACKS,
        worlds.RECIPES,
        out=out,
        engine="lockstep",
        workers=workers,
        progress=lambda _done, _all, _what: None,
        transcripts=transcripts,
    )


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    return _execute(_scenario(), tmp_path_factory.mktemp("runs") / "one")


def test_the_run_folder_holds_all_that_was_promised_and_nothing_else(outcome: RunOutcome) -> None:
    assert {path.name for path in outcome.folder.iterdir()} == {
        "results.json",
        "scenario.yaml",
        "report.html",
        "evidence",
        "figures",
    }
    assert [path.name for path in outcome.folder.parent.iterdir()] == ["one"]
    assert read_results(outcome.folder) == outcome.record


def test_numbers_recomputed_from_the_evidence_agree(outcome: RunOutcome) -> None:
    measured = [finding for finding in outcome.record.findings if finding.evidence]
    assert len(measured) == 4
    for finding in measured:
        assert finding.evidence is not None
        evidence = read_evidence(outcome.folder, finding.evidence)
        truth, scores = evidence.members[evidence.asked], evidence.scores[evidence.asked]
        assert finding.metrics["auc"].estimate == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
        assert (finding.members, finding.non_members) == (truth.sum(), (~truth).sum())
        assert evidence.null_members is not None
        assert evidence.null_scores is not None
        assert evidence.planted_scores is not None
        assert evidence.planted_members is not None
        null = roc_auc_score(evidence.null_members[evidence.null_asked], evidence.null_scores[evidence.null_asked])
        assert finding.controls["null"].auc.estimate == pytest.approx(null, abs=1e-12)
    labels = next(finding for finding in measured if finding.game == "labels")
    evidence = read_evidence(outcome.folder, "evidence/labels.label_unmixing.npz")
    assert evidence.quantity is not None
    assert labels.metrics["mae"].estimate == pytest.approx(
        np.abs(evidence.scores - evidence.quantity).mean(), abs=1e-12
    )


def test_what_does_not_cross_the_vantage_is_not_visible_and_says_why(outcome: RunOutcome) -> None:
    hidden = next(f for f in outcome.record.findings if (f.audit, f.attack) == ("outsider", "update_cosine"))
    assert hidden.status == "not visible"
    assert hidden.reason
    assert not hidden.metrics
    assert outcome.record.claims[2].status == "inconclusive"


def test_the_server_finds_members_in_the_updates_and_the_verdicts_follow(outcome: RunOutcome) -> None:
    server = next(f for f in outcome.record.findings if f.audit == "server")
    low = server.metrics["auc"].low
    assert low is not None
    assert low > 0.5
    assert server.controls["null"].passed
    assert server.controls["planted"].passed
    assert outcome.record.claims[1].status == "refuted"
    assert outcome.record.claims[0].status in ("not refuted", "inconclusive")
    sights = {sight.vantage: sight for sight in outcome.record.federation.sights}
    assert not sights["public"].messages
    assert sights["server"].messages["train-reply"] == 4 * 3


def _but_machine(folder: Path) -> str:
    record = json.loads((folder / "results.json").read_text())
    assert list(record)[-1] == "machine"
    del record["machine"]
    return json.dumps(record)


def test_same_seed_same_bytes_with_more_workers_and_another_seed_differs(outcome: RunOutcome, tmp_path: Path) -> None:
    again = _execute(_scenario(), tmp_path / "again", workers=2)
    assert _but_machine(again.folder) == _but_machine(outcome.folder)
    for path in sorted((outcome.folder / "evidence").iterdir()):
        assert path.read_bytes() == (again.folder / "evidence" / path.name).read_bytes()
    assert (again.folder / "scenario.yaml").read_bytes() == (outcome.folder / "scenario.yaml").read_bytes()
    other = _execute(_scenario(seed=4), tmp_path / "other")
    assert other.record.federation.transcripts != outcome.record.federation.transcripts


def test_an_interrupted_run_goes_on_where_it_stopped(
    outcome: RunOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = 6 + 4 + 6 + 4
    ran: list[int] = []

    def stopping(job: Job, indices: Sequence[int], **rest: Any) -> Iterator[tuple[int, WorldResult]]:
        for index, left in run_worlds(job, indices, **rest):
            if len(ran) == 7:
                raise KeyboardInterrupt
            ran.append(index)
            yield index, left

    monkeypatch.setattr(module, "run_worlds", stopping)
    with pytest.raises(KeyboardInterrupt):
        _execute(_scenario(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(module, "run_worlds", lambda *a, **k: _counted(ran, run_worlds(*a, **k)))
    resumed = _execute(_scenario(), tmp_path / "run")
    assert len(ran) == total
    assert _but_machine(resumed.folder) == _but_machine(outcome.folder)
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "the finished worlds were kept only as long as needed"


def _counted(ran: list[int], results: Iterator[tuple[int, WorldResult]]) -> Iterator[tuple[int, WorldResult]]:
    for index, left in results:
        ran.append(index)
        yield index, left


def test_transcripts_are_kept_where_wanted_and_agree_with_the_digests_also_after_an_interruption(
    outcome: RunOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(job: Job, indices: Sequence[int], **rest: Any) -> Iterator[tuple[int, WorldResult]]:
        for number, found in enumerate(run_worlds(job, indices, **rest)):
            if number == 5:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(module, "run_worlds", stopping)
    with pytest.raises(KeyboardInterrupt):
        _execute(_scenario(), tmp_path / "run")  # what it keeps has no transcripts, so all worlds run again
    with pytest.raises(KeyboardInterrupt):
        _execute(_scenario(), tmp_path / "run", workers=2, transcripts=True)
    monkeypatch.undo()
    kept = _execute(_scenario(), tmp_path / "run", workers=2, transcripts=True)
    assert _but_machine(kept.folder) == _but_machine(outcome.folder)
    worlds_of_a_game = [sorted(game.iterdir()) for game in sorted((kept.folder / "transcripts").iterdir())]
    assert [len(game) for game in worlds_of_a_game] == [6 + 4, 6 + 4]
    found = [worlds.stated_digest(tape.read(world)) for game in worlds_of_a_game for world in game[:6]]
    assert found == list(kept.record.federation.transcripts)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_that_exists_is_refused_before_anything_runs(outcome: RunOutcome) -> None:
    before = (outcome.folder / "results.json").read_bytes()
    with pytest.raises(ScenarioError, match="exists"):
        _execute(_scenario(seed=99), outcome.folder)
    assert (outcome.folder / "results.json").read_bytes() == before
    assert len(list(outcome.folder.parent.iterdir())) == 1


def test_a_strategy_with_too_few_clients_is_refused(tmp_path: Path) -> None:
    from fedsim.scenario import Plugin

    bulyan = Plugin(name="bulyan", options={"num_malicious_nodes": 1})
    with pytest.raises(ScenarioError, match="at least 7 clients"):
        _execute(_scenario(federation={"strategy": bulyan}), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def _property(shares: tuple[float, float], out: Path) -> Results:
    game = PropertyGame(name="property", column="sex", value="1", shares=shares, records=60)
    scenario = worlds.scenario(
        data={"source": "diabetes", "clients": 2, "candidates": 200, "population": 100, "test": 40},
        model={"name": "softmax"},
        audits=({"name": "ratio", "game": game, "attacks": ("property_loss", "property_threshold")},),
        worlds=10,
    )
    return _execute(scenario, out).record


def test_the_property_game_uses_the_same_findings(tmp_path: Path) -> None:
    record = _property((0.5, 0.2), tmp_path / "run")
    assert [finding.game for finding in record.findings] == ["property", "property"]
    for finding in record.findings:
        assert finding.members + finding.non_members == 10
        assert finding.metrics["auc"].estimate is not None
        assert "correlation" in finding.controls["blind"].text
        assert finding.caveat is not None
        assert "not other records" in finding.caveat, "60 records a world leave no room for blocks"
        assert finding.groups is None
        leaked, accuracy = finding.metrics["n_leaked"], finding.metrics["balanced_accuracy"]
        assert (leaked.reason is None) == (accuracy.reason is None)


def test_a_grid_of_shares_of_one_client_is_estimated_and_claimed_about(tmp_path: Path) -> None:
    game = {"name": "property", "column": "sex", "value": "1", "shares": (0.2, 0.5, 0.7), "client": 1, "records": 24}
    attacks = ("property_loss", "property_threshold", "property_kl", "property_blackbox", "property_whitebox")
    scenario = worlds.scenario(
        data={"source": "diabetes", "clients": 3, "candidates": 240, "population": 100, "test": 20},
        model={"name": "softmax"},
        audits=({"name": "ratio", "vantage": "server", "game": game, "attacks": attacks},),
        claims=({"audit": "ratio", "attack": "property_threshold", "metric": "n_leaked", "at_most": 1000.0},),
        worlds=12,
    )
    record = _execute(scenario, tmp_path / "run").record
    for finding in record.findings:
        leaked = finding.metrics["n_leaked"]
        assert ("mae" in finding.metrics) == (leaked.reason is None) == (finding.attack != "property_loss")
        if leaked.reason is None:
            assert leaked.low is not None
            assert leaked.low >= 0
    assert record.claims[0].low == record.findings[1].metrics["n_leaked"].low
    assert record.claims[0].status != "refuted"
    assert "1000 records" in record.claims[0].sentence
    page = write_report(tmp_path / "run").read_text()
    assert "Records leaked" in page
    assert "20.83 %, 50 % or 70.83 %" in page, "5, 12 and 17 of 24 records"
    assert "the 24 records of client 1" in page


def test_a_diverging_model_fails_the_run_and_leaves_no_run_folder(tmp_path: Path) -> None:
    from fedsim.errors import RunError

    local = {"learning_rate": 1e30, "epochs": 5, "batch_size": 8}
    with pytest.raises(RunError, match="diverged"):
        _execute(_scenario(federation={"local": local}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_counted_under_an_adversary_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A federation that nobody leaves alone is told as such; where an audit only looks, its worlds are told."""
    poisons = {
        "name": "poisons",
        "vantage": "client:0",
        "adversary": {"name": "label_poisoning"},
        "attacks": ("loss_trajectory",),
    }
    looks = {"name": "looks", "vantage": "client:0", "attacks": ("loss_trajectory",)}
    small: dict[str, Any] = {"worlds": 2, "claims": (), "controls": {"planted_worlds": 0}}
    acted = "label_poisoning by client:0 (copies 2)"
    for name, audits in {"acts": (poisons,), "both": (poisons, looks)}.items():
        found = _execute(_scenario(audits=audits, **small), tmp_path / name)
        sights, (setup,) = found.record.federation.sights, found.record.setups
        wanted = acted if name == "acts" else None
        assert [*(sight.adversary for sight in sights), setup.adversary] == [wanted, wanted]
        cli._show_results(found.record, found.folder)
        said = " ".join(capsys.readouterr().out.split())
        assert (f"(under {acted})" in said) == (name == "acts")
        page = (found.folder / "report.html").read_text(encoding="utf-8")
        assert page.count(f"under {acted}") == (3 if name == "acts" else 0)  # final models, who saw what, the curves
