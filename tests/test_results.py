"""The results record: what goes in comes out, equal records have equal bytes, and a run folder is all or nothing."""

import errno
import io
import json
import re
import zipfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from fedsim.errors import RunError, ScenarioError
from fedsim.intervals import Measured, Unresolved
from fedsim.results import (
    Evidence,
    Quantity,
    Results,
    new_run_folder,
    quantity,
    read,
    read_evidence,
    to_text,
    unknown,
    write,
    write_evidence,
)
from tests.fakes import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    run(path)
    return path


@pytest.fixture(scope="module")
def record(folder: Path) -> Results:
    return read(folder)


@pytest.mark.parametrize("game", ["record", "property", "labels", "canaries", "source", "client", "distinguish"])
def test_what_is_written_is_read_back(game: str, tmp_path: Path) -> None:
    record = run(tmp_path, game)  # type: ignore[arg-type]
    assert read(tmp_path) == record
    assert to_text(read(tmp_path)) == to_text(record)


def test_equal_records_have_equal_bytes_whatever_the_order_of_their_keys(record: Results) -> None:
    turned = replace(record.provenance, packages=dict(reversed(record.provenance.packages.items())))
    assert list(turned.packages) != list(record.provenance.packages)
    assert to_text(replace(record, provenance=turned)) == to_text(record)


def test_only_the_last_block_speaks_of_the_machine(record: Results) -> None:
    elsewhere = replace(record, machine=replace(record.machine, wall_seconds=9.0, platform="Darwin", processors=64))
    here, there = to_text(record), to_text(elsewhere)
    assert here != there
    assert here.split('"machine"')[0] == there.split('"machine"')[0]
    assert list(json.loads(here))[-1] == "machine"


def test_the_file_holds_no_nan(record: Results, folder: Path) -> None:
    def refuse(constant: str) -> float:
        raise AssertionError(constant)

    json.loads((folder / "results.json").read_text(), parse_constant=refuse)
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_text(replace(record, scenario=replace(record.scenario, given={"rate": float("nan")})))
    with pytest.raises(ValidationError, match="finite"):
        replace(record.machine, wall_seconds=float("inf"))


def test_floats_survive_to_the_last_bit(record: Results, tmp_path: Path) -> None:
    value = 0.1 + 0.2  # 0.30000000000000004
    write(replace(record, machine=replace(record.machine, wall_seconds=value)), tmp_path)
    assert read(tmp_path).machine.wall_seconds == value


def test_an_unknown_number_is_null_and_has_a_reason() -> None:
    found = quantity(Unresolved("too few non-members"), 0.9)
    assert found == unknown("too few non-members", 0.9)
    assert (found.estimate, found.low, found.high, found.reason) == (None, None, None, "too few non-members")
    with pytest.raises(ValidationError, match="none of them and a reason"):
        Quantity(None, None, None, 0.95, None, None, None, None, None)
    with pytest.raises(ValidationError, match="none of them and a reason"):
        Quantity(0.5, 0.4, None, 0.95, "x", 1, 1, None, None)
    with pytest.raises(ValidationError, match="none of them and a reason"):
        Quantity(0.5, 0.4, 0.6, 0.95, "x", 1, 1, None, "but why")


def test_a_measured_number_is_copied_field_by_field() -> None:
    found = quantity(Measured(0.12, 0.1, 0.15, 0.95, "binomial", 40, 50, 8, 3), 0.95)
    assert found == Quantity(0.12, 0.1, 0.15, 0.95, "binomial", 40, 50, 3, None)


def test_a_finding_without_numbers_says_why(record: Results) -> None:
    measured = record.findings[0]
    with pytest.raises(ValidationError, match="gives the reason"):
        replace(measured, status="not run")
    with pytest.raises(ValidationError, match="gives the reason"):
        replace(measured, evidence=None)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"fedsim.results/1"', '"fedsim.results/9"', "schema"),
        ('"seed": 7,\n  "engine"', '"seed": "7",\n  "engine"', "provenance.seed: Input should be a valid integer"),
        ('"seed": 7,\n  "engine"', '"seed": 7, "luck": 1,\n  "engine"', "provenance.luck"),
        ('"audit": "outsider"', '"audit": "../outsider"', "findings.0.audit"),
        ('"auc": {', '"oops": {', "findings.0: Value error, a measured finding has at least the metric auc"),
        ('"advantage": {', '"luck": {', "findings.0: Value error, unknown metric 'luck'"),
        ('"metric": "tpr@fpr=0.01"', '"metric": "luck"', "claims.0.claim.metric: Value error, unknown metric 'luck'"),
        ('"source_row": ', '"source_column": ', "source_row: Field required"),
        ("{", "[", "Invalid JSON"),
    ],
)
def test_a_damaged_record_is_one_line(folder: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (folder / "results.json").read_text()
    assert old in text
    (tmp_path / "results.json").write_text(text.replace(old, new, 1))
    with pytest.raises(ScenarioError, match=message) as raised:
        read(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_record_of_nobody_or_of_no_scenario_is_one_line(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "results.json").read_text())
    for part, key, value, message in (
        ("federation", "clients", [], "federation: Value error, a federation has at least one client"),
        ("scenario", "effective", {}, "scenario.effective.name: Field required"),
        ("scenario", "effective", content["scenario"]["effective"] | {"data": {}}, "scenario.effective.data.source"),
    ):
        damaged = content | {part: content[part] | {key: value}}
        (tmp_path / "results.json").write_text(json.dumps(damaged))
        with pytest.raises(ScenarioError, match=message) as raised:
            read(tmp_path)
        assert str(tmp_path / "results.json") in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="no results here"):
        read(tmp_path)


def evidence() -> Evidence:
    rng = np.random.default_rng(3)
    members = rng.random((4, 5)) < 0.5
    return Evidence(
        rng.normal(size=(4, 5)),
        members,
        np.ones_like(members),
        quantity=rng.random((4, 5)),
        null_scores=rng.normal(size=(4, 7)),
        null_members=rng.random((4, 7)) < 0.5,
        groups=np.array([0, 1, 0, 1]),
    )


def test_evidence_is_read_back_to_the_last_bit_and_without_pickle(tmp_path: Path) -> None:
    written = evidence()
    write_evidence(tmp_path / "evidence" / "a.b.npz", written)
    found = read_evidence(tmp_path, "evidence/a.b.npz")
    for field in fields(Evidence):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(written, field.name))  # None equals None
    with np.load(tmp_path / "evidence" / "a.b.npz", allow_pickle=False) as plain:
        assert set(plain.files) == {"scores", "members", "asked", "quantity", "null_scores", "null_members", "groups"}


def test_equal_evidence_has_equal_bytes_at_any_time(tmp_path: Path) -> None:
    write_evidence(tmp_path / "one.npz", evidence())
    write_evidence(tmp_path / "two.npz", evidence())
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.npz") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}  # not the clock's


GOOD = evidence()
NAMES = [field.name for field in fields(Evidence)]
WRONG: dict[str, tuple[dict[str, NDArray[Any]], str]] = {
    "fewer worlds": ({"members": GOOD.members[:2]}, "scores, members, asked, quantity must share one shape"),
    "fewer items": ({"null_scores": GOOD.scores}, "null_scores, null_members must share one shape"),
    "groups of others": ({"groups": np.arange(3)}, "groups must be int64 [worlds], got int64 (3,)"),
    "groups with names": ({"groups": np.array(list("abab"))}, "groups must be int64 [worlds], got <U1 (4,)"),
    "other quantity": ({"quantity": np.zeros((4, 6))}, "must share one shape"),
    "flat": (
        {name: getattr(GOOD, name)[0] for name in ("scores", "members", "asked", "quantity")}
        | {"groups": np.arange(5)},
        "got 1 axes",
    ),
    "text": ({"scores": GOOD.scores.astype("U9")}, "scores must be float64, got <U9"),
    "whole numbers": ({"asked": GOOD.asked.astype(np.int64)}, "asked must be bool, got int64"),
    "not a number": ({"scores": np.where(GOOD.asked, np.nan, 0.0)}, "scores must be finite, got nan"),
    "infinite": ({"null_scores": np.full((4, 7), -np.inf)}, "null_scores must be finite, got -inf"),
}


@pytest.mark.parametrize("case", WRONG)
def test_evidence_of_a_wrong_shape_or_type_is_neither_written_nor_read(case: str, tmp_path: Path) -> None:
    changes, message = WRONG[case]
    bad = replace(GOOD, **changes)
    with pytest.raises(ValueError, match=re.escape(message)):
        write_evidence(tmp_path / "x.npz", bad)
    assert not (tmp_path / "x.npz").exists()
    arrays: dict[str, Any] = {name: array for name in NAMES if (array := getattr(bad, name)) is not None}
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ScenarioError, match=re.escape(message)) as raised:
        read_evidence(tmp_path, "x.npz")
    assert str(tmp_path / "x.npz") in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("arrays", [{}, {"scores": GOOD.scores, "asked": GOOD.asked}, {"luck": GOOD.scores}])
def test_evidence_without_its_arrays_is_refused(arrays: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ScenarioError, match="expected the arrays asked, members, scores, got"):
        read_evidence(tmp_path, "x.npz")


def test_evidence_with_an_unknown_array_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", scores=GOOD.scores, members=GOOD.members, asked=GOOD.asked, luck=GOOD.scores)
    with pytest.raises(ScenarioError, match="got asked, luck, members, scores"):
        read_evidence(tmp_path, "x.npz")


def test_objects_in_an_evidence_file_are_not_unpickled(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, scores=np.array([{"a": 1}], dtype=object))
    (tmp_path / "bad.npz").write_bytes(buffer.getvalue())
    with pytest.raises(ScenarioError, match="cannot read"):
        read_evidence(tmp_path, "bad.npz")


def test_missing_damaged_and_outside_evidence_is_refused(tmp_path: Path) -> None:
    inside = tmp_path / "run"
    write_evidence(tmp_path / "secret.npz", evidence())
    write_evidence(inside / "cut.npz", evidence())
    (inside / "cut.npz").write_bytes((inside / "cut.npz").read_bytes()[:200])
    with pytest.raises(ScenarioError, match="cannot read"):
        read_evidence(inside, "nothing.npz")
    with pytest.raises(ScenarioError, match="cannot read"):
        read_evidence(inside, "cut.npz")
    with pytest.raises(ScenarioError, match="outside the run folder"):
        read_evidence(inside, "../secret.npz")
    with pytest.raises(ScenarioError, match="outside the run folder"):
        read_evidence(inside, "cut\0.npz")


def test_a_run_folder_appears_whole(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "first"
    with new_run_folder(out) as folder:
        (folder / "results.json").write_text("{}")
        assert not out.exists()
        assert folder.parent == out.parent  # one file system, so that the last step is one rename
    assert [path.name for path in out.parent.iterdir()] == ["first"]
    assert (out / "results.json").read_text() == "{}"


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_what_exists_is_not_overwritten(make: object, tmp_path: Path) -> None:
    out = tmp_path / "first"
    make(out)  # type: ignore[operator]
    with pytest.raises(ScenarioError, match=r"exists already.*--out"), new_run_folder(out):
        raise AssertionError("the run started")
    assert list(tmp_path.iterdir()) == [out]


def test_a_folder_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "first"
    with pytest.raises(ScenarioError, match="appeared while"), new_run_folder(out):
        out.mkdir()
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("error", [ValueError("diverged"), KeyboardInterrupt(), SystemExit(3)])
def test_a_failure_leaves_nothing(error: BaseException, tmp_path: Path) -> None:
    def fail(out: Path) -> None:
        with new_run_folder(out) as folder:
            (folder / "half").write_text("done")
            raise error

    with pytest.raises(type(error)):
        fail(tmp_path / "new" / "runs" / "first")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_leaves_nothing(code: int, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot write") as raised, new_run_folder(tmp_path / "first"):
        raise OSError(code, "No space left on device")
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_another_system_error_in_the_run_is_not_blamed_on_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_run_folder(tmp_path / "first"):
        (tmp_path / "data.csv").read_text()


def test_a_place_that_cannot_hold_a_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ScenarioError, match=r"cannot create.*Not a directory"),
        new_run_folder(tmp_path / "file" / "first"),
    ):
        raise AssertionError("the run started")

    def read_only(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", read_only)  # the tests may run as a user whom no permission stops
    with pytest.raises(ScenarioError, match=r"cannot create.*Permission denied"), new_run_folder(tmp_path / "first"):
        raise AssertionError("the run started")
