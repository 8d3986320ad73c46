"""The command line: exit codes, one-line errors, and what a reader sees at 80 columns."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

import pytest

from attacks import ATTACKS
from fedsim import cli
from fedsim.data.partition import PARTITIONS
from fedsim.errors import RunError, ScenarioError
from fedsim.results import Results
from fedsim.scenario import ACTS_AS
from tests import fakes

VALID = """\
name: small
data: {source: digits, candidates: 40, clients: 4}
audits:
  - {name: outsider, attacks: [loss]}
"""

Execute = Callable[..., SimpleNamespace]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("FEDSIM_DEBUG", raising=False)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return fakes.run(tmp_path_factory.mktemp("made-up"))


def stand_in(monkeypatch: pytest.MonkeyPatch, execute: Execute) -> None:
    """Let `execute` take the place of a real run."""
    module: Any = ModuleType("fedsim.run")
    module.execute = execute
    monkeypatch.setitem(sys.modules, "fedsim.run", module)


Status = Literal["refuted", "not refuted", "inconclusive"]


def claimed(record: Results, *statuses: Status) -> Results:
    return replace(record, claims=tuple(replace(record.claims[0], status=status) for status in statuses))


# Bad input


def fails(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = cli.BAD_INPUT) -> str:
    """The one line that a command fails with; nothing on stdout, nothing new in the current folder."""
    before = sorted(Path().rglob("*"))
    assert cli.main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert sorted(Path().rglob("*")) == before
    return err.removeprefix("error: ")


@pytest.mark.parametrize("command", ["run", "check", "show"])
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("candidates", "candidats", "bad.yaml:2: data.candidats: unknown key;"),
        ("clients: 4", "clients: -4", "bad.yaml:2: data.clients: got -4; allowed: a whole number at least 1"),
        ("clients: 4", "clients: 41", "bad.yaml:2: data.clients: 41 clients, but only 40 records"),
        ("clients: 4", "clients: .nan", "bad.yaml:2: data.clients: '.nan' is not a number"),
        ("name: small", "name: small\nname: small", "bad.yaml:2: name: stands twice"),
        ("name: small", "name: ../../small", "bad.yaml:1: name: got '../../small'"),
        ("name: small", "name: <script>", "bad.yaml:1: name: got '<script>'"),
        ("digits", "digts", "did you mean digits?"),
        ("[loss]", "[lira, los]", "bad.yaml:4: audits.0.attacks.1: no attack 'los'"),
        ("[loss]", "[property_loss]", "bad.yaml:4: audits.0.attacks.0: property_loss plays the game property"),
        ("outsider", 'o, vantage: "client:7"', "bad.yaml:4: audits.0.vantage: no party 'client:7'"),
        ("audits:", "federation: {strategy: {name: fedprx}}\naudits:", "did you mean fedprox?"),
        (
            "audits:",
            "federation: {strategy: {name: krum, options: {f: 1}}}\naudits:",
            "krum 'f'; allowed: num_malicious_nodes",
        ),
        ("audits:", "x: &x [1]\ny: [*x, *x]\naudits:", "bad.yaml:3: x: anchors and aliases"),
        ("name: small", "name: !!python/name:os.system x", "bad.yaml:1: name: tag"),
    ],
)
def test_a_bad_scenario_is_one_line(
    command: str, old: str, new: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.yaml").write_text(VALID.replace(old, new))
    assert says in fails(capsys, command, "bad.yaml")


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_here_is_one_line(
    command: str, device: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: device == "mps")
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: device == "cuda")
    Path("far.yaml").write_text(VALID + f"device: {device}\n")
    message = fails(capsys, command, "far.yaml")
    other = "mps" if device == "cuda" else "cuda"
    assert message == (
        f"far.yaml:5: device: got {device}, which torch does not find on this machine; here: cpu or {other}\n"
    )
    # A scenario for another machine can still be looked at.
    assert cli.main(["show", "far.yaml"]) == 0


def test_what_is_no_scenario_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Path("empty.yaml").touch()
    Path("binary.yaml").write_bytes(bytes(range(256)))
    Path("folder.yaml").mkdir()
    assert fails(capsys, "run", "empty.yaml") == "empty.yaml:1: is empty\n"
    assert fails(capsys, "run", "binary.yaml").startswith("binary.yaml:2: not UTF-8")
    assert "is a folder" in fails(capsys, "run", "folder.yaml")
    assert "no such file; shipped scenarios are " in fails(capsys, "run", str(tmp_path / "absent.yaml"))
    assert fails(capsys, "run", "quikstart").endswith("did you mean quickstart?\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rnu"], "No such command 'rnu'"),
        (["run"], "Missing argument 'SCENARIO'"),
        (["run", "quickstart", "--sed", "3"], "--seed"),
        (["run", "quickstart", "--seed", "three"], "'three'"),
        (["run", "quickstart", "--seed", "-1"], "--seed -1: seed: got -1; allowed: a whole number at least 0"),
        (["run", "quickstart", "--workers", "0"], "x>=1"),
        (["run", "quickstart", "--engine", "rey"], "'lockstep', 'serial', 'ray'"),
        (["run", "quickstart", "--set", "worlds"], "--set worlds: expected KEY=VALUE"),
        (["run", "quickstart", "--memory", "0"], "x>=0.01"),
        (["run", "quickstart", "--client-app", "mine"], "got 'mine', expected MODULE:FUNCTION"),
        (["check", "quickstart", "--client-app", "no_such_module:make"], "cannot import no_such_module"),
        (["run", "quickstart", "--client-app", "functools:partial"], "functools defines no function 'partial'"),
        (["run", "quickstart", "--client-app", "json:make"], "json defines no function 'make'"),
        (["run", "quickstart", "--property", "old"], "--property old: expected NAME=FILE.py:FUNCTION"),
        (["check", "quickstart", "--property", "old=absent.py:old"], "cannot read absent.py: No such file"),
        (["show", "quickstart", "--set", "worldz=3"], "did you mean worlds?"),
        (["list", "attack"], "did you mean attacks?"),
        (["explain", "lyra"], "did you mean lira? See `fedsim list attacks`"),
        (["explain", "isolate"], "did you mean isolation?"),
        (["explain", "shadow"], "no attack or adversary 'shadow'; see `fedsim list attacks`"),
        (["report", "absent"], "no results here"),
        (["data", "get", "digts"], "did you mean digits?"),
        (["schema", "--out", "absent/schema.json"], "cannot be written"),
    ],
)
def test_bad_usage_is_one_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert says in fails(capsys, *arguments)


# Running


def test_a_run_is_shown_at_80_columns(
    record: Results, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("good.yaml").write_text(VALID)
    seen: dict[str, Any] = {}

    def execute(*positional: object, **named: Any) -> SimpleNamespace:
        seen.update(named, loaded=positional[0], attacks=positional[1])
        named["progress"](1, 2, "training")
        return SimpleNamespace(folder=Path("runs/small"), record=record)

    stand_in(monkeypatch, execute)
    code = cli.main(["run", "good.yaml", "--seed", "5", "--set", "worlds=3", "--out", "there", "--workers", "2"])
    assert code == int(any(claim.status == "refuted" for claim in record.claims))
    assert (seen["loaded"].scenario.seed, seen["loaded"].scenario.worlds) == (5, 3)
    assert (seen["out"], seen["engine"], seen["workers"], seen["attacks"]) == (Path("there"), "lockstep", 2, ATTACKS)
    out, err = capsys.readouterr()
    assert max(map(len, out.splitlines())) <= 80
    assert err.startswith(" 50 % after 0 s")
    words = " ".join(out.split())
    for finding in record.findings:
        assert finding.attack in words
        auc = finding.metrics.get("auc")
        assert auc is None or auc.estimate is None or f"{auc.estimate:.3f} [{auc.low:.3f}, {auc.high:.3f}]" in words
    for claim in record.claims:
        assert f"{claim.status.upper()}: {' '.join(claim.sentence.split())}" in words
    assert "not visible" in words
    assert out.endswith(f"{Path('runs/small/report.html')}\n")


def test_quiet_prints_the_folder_alone(
    record: Results, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def execute(*_: object, progress: cli.Report, **__: object) -> SimpleNamespace:
        progress(1, 1, "training")
        return SimpleNamespace(folder=Path("runs/small"), record=record)

    stand_in(monkeypatch, execute)
    cli.main(["run", "quickstart", "--quiet"])
    assert capsys.readouterr() == (f"{Path('runs/small')}\n", "")


@pytest.mark.parametrize(
    ("statuses", "plain", "strict"),
    [
        ([], 0, 0),
        (["not refuted"], 0, 0),
        (["not refuted", "inconclusive"], 0, 1),
        (["inconclusive", "refuted", "not refuted"], 1, 1),
    ],
)
def test_exit_codes_follow_the_verdicts(
    statuses: list[Status], plain: int, strict: int, record: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, lambda *_, **__: SimpleNamespace(folder=Path("x"), record=claimed(record, *statuses)))
    assert cli.main(["run", "quickstart", "--quiet"]) == plain
    assert cli.main(["run", "quickstart", "--quiet", "--strict"]) == strict


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (RunError("client 3 raised"), cli.RUN_FAILED, "client 3 raised\n"),
        (ScenarioError("data.label: has one class"), cli.BAD_INPUT, "good.yaml:2: data.label: has one class\n"),
        (
            ZeroDivisionError("over\nzero"),
            cli.RUN_FAILED,
            "ZeroDivisionError: over zero (FEDSIM_DEBUG=1 shows where)\n",
        ),
    ],
)
def test_a_failing_run_is_one_line(
    error: Exception, code: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def execute(*_: object, **__: object) -> SimpleNamespace:
        raise error

    Path("good.yaml").write_text(VALID)
    stand_in(monkeypatch, execute)
    assert fails(capsys, "run", "good.yaml", code=code) == says
    monkeypatch.setenv("FEDSIM_DEBUG", "1")
    assert cli.main(["run", "good.yaml"]) == code
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def execute(*_: object, **__: object) -> SimpleNamespace:
        raise KeyboardInterrupt

    stand_in(monkeypatch, execute)
    assert cli.main(["run", "quickstart"]) == cli.STOPPED
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("stopped; the same command goes on")
    assert err.strip().count("\n") == 0


def test_progress_without_a_terminal_is_about_ten_lines() -> None:
    written: list[str] = []
    report = cli._lines(written.append)
    for done in range(1001):
        report(done, 1000, "training")
    assert [line.split()[0] for line in written] == [str(tenth) for tenth in range(0, 101, 10)]
    assert all(line.endswith(": training") for line in written)
    report(1, 1, "scoring")
    assert written[-1].endswith(": scoring")


def test_the_time_left_does_not_count_what_an_earlier_run_did(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    clock = iter([0.0, 0.0, 20.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    report = cli._lines(written.append)
    report(50, 100, "training")
    report(60, 100, "training")  # ten worlds in 20 s: forty take 80 s
    assert written == [" 50 % after 0 s: training", " 60 % after 20 s, about 1 min 20 s left: training"]


# Looking


def test_check_prints_the_plan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module: Any = ModuleType("fedsim.plan")
    module.default_workers = lambda: 1
    module.plan = lambda *_: SimpleNamespace(
        worlds=40,
        client_rounds=9600,
        seconds=75.4,
        memory_bytes=3_000_000_000,
        resolution=("as fine " * 20,),
        notes=(),
        epsilons={},
    )
    monkeypatch.setitem(sys.modules, "fedsim.plan", module)
    assert cli.main(["check", "quickstart"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for words in ("40", "9,600", "about 1 min 15 s", "about 3.0 GB", "- as fine"):
        assert words in out
    assert "Notes" not in out


def test_show_prints_a_scenario_that_loads(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "quickstart", "--set", "federation.rounds=3"]) == 0
    first = capsys.readouterr().out
    assert "rounds: 3\n" in first
    Path("again.yaml").write_text(first)
    assert cli.main(["show", "again.yaml"]) == 0
    assert capsys.readouterr().out == first


def test_schema_is_the_same_on_paper(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)["properties"]["federation"]
    assert cli.main(["schema", "--out", "schema.json"]) == 0
    assert Path("schema.json").read_text() == printed


@pytest.mark.parametrize("what", cli.LISTS)
def test_lists_every_name_and_says_what_it_is(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = cli.LISTS[what]()
    assert rows
    assert all(len(text) > 3 for text in rows.values())
    assert cli.main(["list", what]) == 0
    out = capsys.readouterr().out
    starts = {line.split()[0] for line in out.splitlines() if line and line[0] not in " -─"}
    assert starts - {"attack"} == set(rows)  # the matrix of attacks has a head


def test_the_partitions_described_are_those_there_are() -> None:
    assert list(cli.PARTITIONS) == list(PARTITIONS)


@pytest.mark.parametrize("name", ATTACKS)
def test_explains_every_attack(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", name]) == 0
    out = capsys.readouterr().out
    words = " ".join(out.split())
    assert ATTACKS[name].summary in words
    assert ATTACKS[name].paper.link in words


@pytest.mark.parametrize("name", ACTS_AS)
def test_explains_every_adversary_and_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", name]) == 0
    words = " ".join(capsys.readouterr().out.split())
    kind = cli._adversary_kinds()[name]
    assert " ".join(str(kind.__doc__).split()) in words
    assert all(f" {key}: " in words for key in kind.model_fields if key != "name")
    assert ("the server" in words.partition("(adversary): ")[2].partition("beside looking")[0]) == (
        "server" in ACTS_AS[name]
    )


def test_a_name_that_is_not_there_does_not_print_all_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(fails(capsys, "explain", "lossy")) < 160


def test_data_says_where_things_are(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FEDSIM_DATA", "somewhere")
    assert cli.main(["data", "folder"]) == 0
    assert capsys.readouterr().out == "somewhere\n"
    assert cli.main(["data", "list"]) == 0
    assert "missing: fedsim data get adult" in capsys.readouterr().out


def test_the_report_is_written_again(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module: Any = ModuleType("fedsim.report")
    module.write_report = lambda folder: folder / "report.html"
    monkeypatch.setitem(sys.modules, "fedsim.report", module)
    assert cli.main(["report", "run"]) == 0
    assert capsys.readouterr().out == f"{Path('run/report.html')}\n"


def test_a_failed_control_takes_the_place_of_the_status(record: Results) -> None:
    finding = record.findings[0]
    broken = {name: replace(control, passed=False) for name, control in finding.controls.items() if name != "blind"}
    assert cli._status(finding) == "measured"
    assert cli._status(replace(finding, controls=broken)) == ", ".join(f"{name} failed" for name in broken)


def test_light_commands_import_nothing_heavy() -> None:
    heavy = "{'torch', 'flwr', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules)"
    code = f"import sys; from fedsim.cli import main; main(['list', 'scenarios']); main(['schema']); print({heavy})"
    root = str(Path(cli.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert ran.stdout.endswith("}\nset()\n")
