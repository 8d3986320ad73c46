"""The report: everything in the record is on the page, nothing comes from elsewhere, nothing a user wrote is markup."""

import base64
import errno
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from fedsim import cli
from fedsim.errors import RunError, ScenarioError
from fedsim.figures import draw, epsilons, label, roc_curves
from fedsim.metrics import auc
from fedsim.report import (
    coins,
    contrast,
    counts,
    exposed,
    headline,
    measures,
    number,
    percent,
    render,
    resolution,
    tally,
    write_all,
    write_report,
)
from fedsim.results import (
    BoundFound,
    Claim,
    ClaimStated,
    DifferenceStated,
    EpsilonRow,
    EpsilonStated,
    Finding,
    Results,
    SetupFound,
    Sight,
    read,
    read_evidence,
    unknown,
    write,
    write_evidence,
)
from tests.fakes import nothing_promised, run

VOID = {"meta", "img", "br", "link", "input", "hr"}
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """The page as tags, text and the places it points to; complains where tags do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.html = html
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    run(path)
    write_report(path)
    return path


@pytest.fixture(scope="module")
def record(folder: Path) -> Results:
    return read(folder)


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_page_needs_nothing_but_itself(page: Page, html: str) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        assert not any(name.startswith("on") for name in attributes)
        if "src" in attributes:
            assert (attributes["src"] or "").startswith("data:image/svg+xml;base64,")
        if tag != "a":
            assert "href" not in attributes
    assert "@import" not in html
    assert "url(" not in html
    wanted = "Content-Security-Policy"
    policies = [attributes.get("content") for _, attributes in page.tags if attributes.get("http-equiv") == wanted]
    assert len(policies) == 1
    assert str(policies[0]).startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")


def test_the_figures_need_nothing_but_themselves(page: Page) -> None:
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 6  # AUC, TPR, a ROC for each of two audits, accuracy, loss
    for image in images:
        root = ElementTree.fromstring(base64.b64decode(str(image["src"]).partition(",")[2]))
        for element in root.iter():
            assert element.tag.rpartition("}")[2] not in ("script", "image", "foreignObject")
            for name, value in element.attrib.items():
                if name.endswith("href"):
                    assert value.startswith("#")


def test_the_page_can_be_read_without_seeing(page: Page) -> None:
    assert ("html", {"lang": "en"}) in page.tags
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in page.tags if tag == "th")
    assert [tag for tag, _ in page.tags].count("h1") == 1


def test_every_claim_stands_first_with_its_words_and_numbers(page: Page, record: Results) -> None:
    verdicts = page.text.partition("What was simulated")[0]
    assert {claim.status for claim in record.claims} >= {"refuted", "not refuted"}
    assert headline(record.claims, record.findings) in verdicts
    for claim in record.claims:
        assert claim.sentence in verdicts
        assert f"{claim.status} {claim.sentence}" in verdicts  # the word beside the sentence, not only a colour
        assert isinstance(claim.claim, ClaimStated)
        shown = f"Measured {number(claim.estimate)} (95 % interval {number(claim.low)} to {number(claim.high)})"
        assert f"{shown}, allowed at most {number(claim.claim.at_most)}" in verdicts


def test_every_number_of_every_finding_is_on_the_page(page: Page, record: Results) -> None:
    for finding in record.findings:
        for text in (finding.attack, finding.title, finding.summary, finding.knowledge, finding.paper, finding.vantage):
            assert text in page.text
        if finding.status != "measured":
            assert f"{finding.status} {finding.reason}" in page.text
        numbers = [*finding.metrics.values(), *(found for part in finding.slices.values() for found in part.values())]
        numbers += [control.auc for control in finding.controls.values() if control.passed is not None]
        assert finding.status != "measured" or len(numbers) > 10
        for found in numbers:
            if found.reason is None:
                assert f"{number(found.estimate)} {number(found.low)} to {number(found.high)}" in page.text
            else:
                assert found.reason in page.text
        for control in finding.controls.values():
            assert control.text in page.text
    for finding, items in exposed(record.findings):
        for item in items:
            shown = f"row {item.source_row} {item.owner} {number(item.auc)} column {item.item}"
            assert shown in page.text, finding.attack


def test_each_row_of_the_table_of_measures_has_its_own_numbers(record: Results) -> None:
    table = measures(record.findings)
    measured = [finding.attack for finding in record.findings if finding.status == "measured"]
    assert [finding.attack for finding, _, _ in table.rows] == [attack for attack in measured for _ in range(2)]
    assert [part for _, part, _ in table.rows] == ["", "most exposed tenth"] * len(measured)
    for finding, part, cells in table.rows:
        wanted = finding.slices["most_exposed_tenth"] if part else finding.metrics
        for name, cell in zip(table.metrics, cells, strict=True):
            assert (cell.quantity if cell else None) == wanted.get(name)
            assert cell is None or cell.note is None or table.notes[cell.note - 1] == cell.quantity.reason


def test_what_each_vantage_saw_and_where_the_run_came_from_is_on_the_page(page: Page, record: Results) -> None:
    assert "public 0 0 no answers to queries: class probabilities" in page.text
    assert "client:0 30 30 yes answers to queries: class probabilities" in page.text
    provenance = page.text.partition("Provenance")[2]
    data = record.provenance.data
    for text in (
        data.source,
        data.digest,
        data.licence,
        data.citation,
        record.scenario.digest,
        f"Seed {record.provenance.seed}",
    ):
        assert text in provenance
    for name, version in record.provenance.packages.items():
        assert f"{name} {version}" in provenance
    assert "Not refuted is not proof of privacy" in page.text


def test_synthetic_data_are_labelled_at_both_ends(folder: Path, record: Results, page: Page) -> None:
    assert "SYNTHETIC" not in page.text
    data = replace(record.provenance.data, synthetic=True)
    text = Page(render(replace(record, provenance=replace(record.provenance, data=data)), folder)).text
    assert text.index("SYNTHETIC DATA") < text.index(record.claims[0].sentence)
    assert "SYNTHETIC DATA" in text.partition("Provenance")[2]


def test_what_a_user_wrote_is_never_markup(folder: Path, record: Results) -> None:
    finding = replace(record.findings[0], title=MARKUP, summary=MARKUP, vantage=MARKUP, link="javascript:alert(1)")
    claim = replace(record.claims[0], sentence=MARKUP)
    scenario = replace(record.scenario, effective=record.scenario.effective | {"description": MARKUP, "name": MARKUP})
    html = render(replace(record, scenario=scenario, findings=(finding, *record.findings[1:]), claims=(claim,)), folder)
    page = Page(html)
    assert page.text.count(MARKUP) >= 5  # shown as it was written
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in Page((folder / "report.html").read_text()).tags}
    assert all((attributes["href"] or "").startswith("https://") for tag, attributes in page.tags if tag == "a")
    assert not any("onerror" in attributes for _, attributes in page.tags)


@pytest.mark.parametrize(
    ("game", "words"),
    [
        (
            "property",
            (
                "“sex” = “Female”: 50 % (no) or 20 % (yes)",
                "a “yes” world scores higher",
                "Does the training population",
            ),
        ),
        (
            "labels",
            (
                "a random half of the classes was in the data of client 0",
                "a class that it holds",
                "Does the client hold",
            ),
        ),
        (
            "source",
            (
                "in each of 24 federations (“worlds”) the record was dealt anew",
                "a record that the client named holds scores higher than one that another holds",
                "Does the client hold this record?",
            ),
        ),
        (
            "client",
            (
                "a coin decided for each of 10 clients whether it took part at all",
                "holds the records that each of them trains on",
                "a client that took part scores higher than one that did not",
                "Did this client take part at all?",
            ),
        ),
    ],
)
def test_other_games_are_told_in_their_own_words(game: str, words: tuple[str, ...], tmp_path: Path) -> None:
    record = run(tmp_path, game, worlds=24)  # type: ignore[arg-type]
    text = Page(render(record, tmp_path)).text
    for each in words:
        assert each in text
    assert "Was this record in the training data?" not in text


def test_the_report_is_made_from_the_folder_alone_and_is_the_same_each_time(
    folder: Path, html: str, tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    shutil.copy(folder / "results.json", copy)
    shutil.copytree(folder / "evidence", copy / "evidence")
    code = "import pathlib, sys; from fedsim.report import write_report; write_report(pathlib.Path(sys.argv[1]))"
    another = [sys.executable, "-c", code, str(copy)]  # other hashes, other identities
    subprocess.run(another, check=True)
    written = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {path.relative_to(copy): path.read_bytes() for path in copy.rglob("*") if path.is_file()} == written
    names = ["accuracy", "attacks-auc", "attacks-tpr", "loss", "roc-outsider", "roc-participant"]
    files = sorted(path.name for path in (folder / "figures").iterdir())
    assert files == [f"{name}.{end}" for name in names for end in ("pdf", "svg")]
    assert str(folder) not in html


def test_a_run_without_claims_or_measurements_still_has_a_report(folder: Path, record: Results) -> None:
    blind = record.findings[-1]
    assert blind.status == "not visible"
    text = Page(render(replace(record, claims=(), findings=(blind,)), folder)).text
    assert "No privacy claim was made; 0 attacks measured" in text
    assert str(blind.reason) in text


def test_missing_evidence_is_an_error_and_leaves_the_old_report(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "evidence")
    with pytest.raises(ScenarioError, match="cannot read this evidence"):
        write_report(copy)
    assert (copy / "report.html").read_bytes() == (folder / "report.html").read_bytes()


def snapshot(folder: Path) -> dict[Path, bytes | None]:
    """Every path of a folder with its content."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("name", ["not asked", "other counts", "text", "not finite"])
def test_damaged_evidence_is_one_line_that_names_the_file(name: str, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    with np.load(copy / "evidence" / "outsider.loss.npz") as file:
        good = dict(file)
    damage: dict[str, dict[str, object]] = {
        "not asked": {"asked": good["asked"][:-1]},
        "other counts": {"members": np.ones_like(good["members"])},
        "text": {"scores": good["scores"].astype("U8")},
        "not finite": {"scores": np.where(good["members"], np.nan, good["scores"])},
    }
    np.savez(copy / "evidence" / "outsider.loss.npz", **(good | damage[name]))
    before = snapshot(copy)
    with pytest.raises(ScenarioError, match=r"outsider\.loss\.npz") as raised:
        write_report(copy)
    assert "\n" not in str(raised.value)
    assert snapshot(copy) == before


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize(
    ("code", "error"), [(errno.ENOSPC, RunError), (errno.EDQUOT, RunError), (errno.EROFS, ScenarioError)]
)
@pytest.mark.parametrize("fails", [1, 4, 13])
def test_a_report_that_cannot_be_written_leaves_no_half(
    old: bool,
    code: int,
    error: type[Exception],
    fails: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("figures", "report.html") if old else ():
        (tmp_path / name).mkdir() if name == "figures" else (tmp_path / name).write_text("old")
    before, real, calls = snapshot(tmp_path), Path.write_bytes, []

    def full(path: Path, content: bytes) -> int:
        calls.append(path)
        if len(calls) == fails:
            real(path, content[: len(content) // 2])
            raise OSError(code, os.strerror(code), str(path))
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(error, match=re.escape(os.strerror(code))) as raised:
        write_all(tmp_path, {f"figures/{i}.svg": b"figure" for i in range(12)} | {"report.html": b"new page"})
    assert "report.html" in str(raised.value)
    assert "\n" not in str(raised.value)
    monkeypatch.undo()
    assert snapshot(tmp_path) == before


def test_figures_that_is_a_file_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "figures").write_text("mine")
    with pytest.raises(ScenarioError, match=r"figures: File exists") as raised:
        write_all(tmp_path, {"figures/loss.svg": b"figure", "report.html": b"page"})
    assert "\n" not in str(raised.value)
    assert snapshot(tmp_path) == {tmp_path / "figures": b"mine"}


def test_headlines_count_every_status(record: Results) -> None:
    refuted = next(claim for claim in record.claims if claim.status == "refuted")
    silent, unclear = replace(refuted, status="not refuted"), replace(refuted, status="inconclusive")
    assert headline([refuted], ()) == "1 of 1 claims refuted"
    assert headline([silent, silent], ()) == "2 of 2 claims not refuted"
    assert headline([unclear, refuted, silent], ()) == "1 of 3 claims refuted, 1 not refuted, 1 inconclusive"


def test_the_contrast_names_what_each_attack_finds(record: Results) -> None:
    text = contrast(record.findings)
    assert text is not None
    found = {each.attack: each.metrics["tpr@fpr=0.01"].estimate for each in record.findings if each.audit == "outsider"}
    shown = dict(re.findall(r"(\w+) finds ([\d.]+ %)", text))
    assert shown == {name: percent(value) for name, value in found.items() if value is not None}
    assert contrast(record.findings[:1]) is None


def test_the_contrast_draws_its_moral_only_from_intervals_that_do_not_touch(record: Results) -> None:
    first, second, *_ = (each for each in record.findings if each.audit == "outsider")

    def told(*intervals: tuple[float, float, float]) -> str:
        pairs = zip((second, first), intervals, strict=True)
        auc = first.metrics["auc"]
        numbers = [(each, replace(auc, estimate=value, low=low, high=high)) for each, (low, value, high) in pairs]
        return str(contrast([replace(each, metrics={"auc": found}) for each, found in numbers]))

    assert told((0.7, 0.8, 0.9), (0.5, 0.6, 0.69)).endswith("finds little does not show that little leaks.")
    for overlapping in ((0.5, 0.6, 0.7), (0.5, 0.6, 0.75), (0.5, 0.8, 0.95)):
        assert "These attacks cannot be told apart here" in told((0.7, 0.8, 0.9), overlapping)


def test_numbers_are_rounded_and_never_vanish() -> None:
    assert [number(value) for value in (None, 0.0, 1.0, 0.7684, -0.05, 0.00939, 3e-7, 12345.6)] == [
        "–", "0.000", "1.000", "0.768", "-0.050", "0.00939", "3e-07", "1.23e+04",
    ]  # fmt: skip
    assert [percent(share) for share in (0.95, 0.999, 0.155, 0.01)] == ["95 %", "99.9 %", "15.5 %", "1 %"]
    assert label("tpr@fpr=0.001") == "TPR at 0.1 % FPR"


def test_the_smallest_rate_is_ten_over_the_non_members(record: Results) -> None:
    rates = {audit: (count, rate) for audit, count, rate in resolution(record.findings)}
    count = max(each.non_members for each in record.findings if each.audit == "outsider")
    assert rates["outsider"] == (count, percent(10 / count))
    few = replace(record.findings[0], non_members=10)  # at ten, the smallest rate accuses everybody
    assert resolution([few]) == [("outsider", 10, None)]
    assert resolution([replace(few, non_members=11)]) == [("outsider", 11, "90.9 %")]


def test_counts_stand_in_a_table_of_their_own(record: Results) -> None:
    first, second, *_ = record.findings
    more = replace(second, members=first.members + 1, non_members=first.non_members - 1)
    third = replace(first, attack="rmia")
    assert [tuple(row) for row in counts([first, more, third, record.findings[-1]])] == [
        ("outsider", ("gap", "rmia"), first.members, first.non_members, first.worlds, None),
        ("outsider", ("loss",), more.members, more.non_members, more.worlds, None),
    ]


def test_worlds_that_share_records_and_what_intervals_do_not_cover_are_said(record: Results, folder: Path) -> None:
    plain = Page(render(record, folder)).text
    assert "groups" not in plain
    caveat = "The intervals cover new trainings on <old> records."
    first = replace(record.findings[0], groups=8, caveat=caveat)
    page = Page(render(replace(record, findings=(first, *record.findings[1:])), folder))
    assert f"{first.worlds} in 8 groups" in page.text
    assert "groups share none" in page.text
    assert f"{first.audit}. {caveat}" in page.text


def test_cells_of_stacked_tables_name_their_column(page: Page) -> None:
    bodies = page.html.split("<table class=")[1:]
    assert len(bodies) == 5  # who saw what, attacks by vantage, controls, counts, every measure
    for body in bodies:
        cells = re.findall(r"<td([^>]*)>", body.partition("</table>")[0])
        assert cells
        assert all("data-label=" in cell or "empty" in cell for cell in cells)


def one_sided(folder: Path, finding: Finding, wanted: bool | None) -> Finding:
    """The finding, asked only about members, only about non-members, or (None) about nobody."""
    found = read_evidence(folder, str(finding.evidence))
    asked = found.asked & (found.members == wanted) if wanted is not None else np.zeros_like(found.asked)
    write_evidence(folder / str(finding.evidence), replace(found, asked=asked))
    yes, no = int((asked & found.members).sum()), int((asked & ~found.members).sum())
    metrics = {name: unknown("needs members and non-members", 0.95) for name in finding.metrics}
    return replace(finding, members=yes, non_members=no, metrics=metrics, slices={})


@pytest.mark.parametrize("wanted", [True, False, None])
def test_a_finding_with_one_kind_of_answer_has_no_curve(wanted: bool | None, tmp_path: Path) -> None:
    record = run(tmp_path, worlds=8, items=20)
    first, *others = [finding for finding in record.findings if finding.evidence]
    poor = [one_sided(tmp_path, first, wanted)]
    write(replace(record, findings=(poor[0], *record.findings[1:])), tmp_path)  # one of an audit
    text = Page(write_report(tmp_path).read_text()).text
    many = f"{poor[0].members:,} members and {poor[0].non_members:,} non-members"
    assert f"outsider, {poor[0].attack} has no curve: it was asked about {many}" in text
    poor += [one_sided(tmp_path, finding, wanted) for finding in others]
    write(replace(record, findings=tuple(poor)), tmp_path)  # and all
    text = Page(write_report(tmp_path).read_text()).text
    assert "Nothing was measured that a curve could show." in text
    assert text.count("has no curve") == len(poor)


def test_an_attack_with_nobody_to_ask_is_not_run_for_a_reason(
    folder: Path, record: Results, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "no question is left: this vantage owns every candidate"
    last = replace(record.findings[-1], status="not run", reason=reason)
    changed = replace(record, findings=(*record.findings[:-1], last))
    assert f"not run {reason}" in Page(render(changed, folder)).text
    monkeypatch.setenv("COLUMNS", "100")
    cli._show_results(changed, folder)  # the table that `fedsim run` prints
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.strip().startswith(last.attack))
    assert row.split() == [last.attack, "-", "-", "not", "run"]
    assert f"{last.audit}, {last.attack}: {reason}" in " ".join(" ".join(lines).split())


def test_each_model_is_listed_with_its_whole_sentence() -> None:
    rows = cli.LISTS["models"]()
    assert rows["cnn"].endswith("(LeCun et al. 1998).")
    for text in rows.values():
        assert text.endswith(".")
        assert text.count("(") == text.count(")")


def test_a_claim_names_its_audit_and_says_when_its_interval_is_simultaneous(folder: Path, record: Results) -> None:
    first = record.claims[0]
    sentence = "outsider: the AUC of any attack is at most 0.6 (0.5 is guessing)."
    assert isinstance(first.claim, ClaimStated)
    joint = replace(first, claim=replace(first.claim, attack="any"), sentence=sentence)
    text = Page(render(replace(record, claims=(joint,)), folder)).text
    assert f"{joint.status} {sentence} Measured" in text
    assert "95 % simultaneous interval" in text


def test_roc_curves_pass_through_the_attainable_points_only(record: Results, folder: Path) -> None:
    figure = roc_curves(record, "outsider", folder).figure
    findings = {each.attack: each for each in record.findings if each.audit == "outsider"}
    drawn = {str(line.get_label()).partition(" ")[0]: line for line in figure.axes[0].get_lines()}
    assert set(findings) < set(drawn)
    for attack, finding in findings.items():
        evidence = read_evidence(folder, str(finding.evidence))
        scores, members = evidence.scores[evidence.asked], evidence.members[evidence.asked]
        x, y = (np.asarray(data, dtype=np.float64) for data in drawn[attack].get_data())
        assert drawn[attack].get_drawstyle() == "steps-post"
        for fpr, tpr in list(zip(x, y, strict=True))[:: max(len(x) // 6, 1)]:
            thresholds = [t for t in np.append(np.unique(scores), np.inf) if (scores[~members] >= t).mean() <= fpr]
            assert max((scores[members] >= t).mean() for t in thresholds) == pytest.approx(tpr, abs=1e-8)
        stairs = float(np.sum(np.diff(x) * y[:-1]))  # a staircase lies below the curve by half of what ties could gain
        assert stairs <= auc(scores, members) + 1e-8


def test_a_claim_that_could_not_be_measured_says_so(folder: Path, record: Results) -> None:
    first = record.findings[0]
    stated = ClaimStated(first.audit, first.attack, "tpr@fpr=0.001", 0.01, 0.95)
    reason = "needs 10000 non-members"
    claim = replace(
        record.claims[0], claim=stated, status="inconclusive", estimate=None, low=None, high=None, reason=reason
    )
    unresolved = replace(first, metrics=first.metrics | {"auc": unknown("no members", 0.95)})
    text = Page(render(replace(record, claims=(claim,), findings=(unresolved, *record.findings[1:])), folder)).text
    assert f"Not measured; allowed at most 0.010 . {reason}" in text
    assert "1 of 1 claims inconclusive" in text


def test_writing_a_report_does_not_touch_the_results(folder: Path, record: Results, tmp_path: Path) -> None:
    write(record, tmp_path)
    assert (tmp_path / "results.json").read_bytes() == (folder / "results.json").read_bytes()


def test_matplotlib_is_imported_only_to_draw() -> None:
    code = "import sys, fedsim.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


BOTH = "Two federations are neighbours that differ in one client's updates, or zero in their place. Accounting: exact."
SEEN = "The server sees each update before it adds noise."
NOISE = "15 rounds of Gaussian noise; each client is in every round."
ALARM = "tenth, canary_product: with confidence 0.9975, epsilon is at least 14.2, but 2.51 was accounted for"


def central(delta: float = 1e-5) -> tuple[EpsilonRow, ...]:
    """What central privacy promises: nothing to the server."""
    neighbours = "one client's updates, or zero in their place"
    return tuple(
        EpsilonRow(unit, observer, None, delta, "none", "any", SEEN)
        if observer == "server"
        else EpsilonRow(unit, observer, 2.51 if unit == "client" else 5.73, delta, "exact", neighbours, NOISE)
        for unit in ("client", "record")
        for observer in ("server", "participant", "public")
    )


CAPS = {"auc": 0.9876, "advantage": 0.0321, "tpr@fpr=0.1": 0.0654}


def lower(epsilon: float | None, **changes: object) -> BoundFound:
    """A lower bound on the epsilon of a client, seen by the public."""
    bound = BoundFound(
        name="gdp",
        title="Gaussian trade-off",
        kind="lower bound",
        unit="client",
        observer="public",
        epsilon=epsilon,
        delta=1e-5,
        confidence=0.95,
        correction="threshold from the other half",
        canaries=960,
        ceiling=4.44,
        detail="17 of 20 members above",
        accounted=2.51,
        reason=None,
    )
    return replace(bound, **changes)  # type: ignore[arg-type]


def private(folder: Path) -> Results:
    """A run with a sound setup, one with a mistake, and secure aggregation, written with its evidence into `folder`."""
    privacy: dict[str, object] = {"name": "central", "clipping_norm": 1.25, "epsilon": 2.51}
    wrong: dict[str, object] = {"name": "central", "noise_multiplier": 4.0, "specimen": "noise_tenth"}
    secure: dict[str, object] = {"protocol": "masked", "neighbours": 6}
    record = run(
        folder,
        "canaries",
        federation={"rounds": 15, "clients_per_round": 0.5, "privacy": privacy, "drop_out": {"update": 0.125}},
        setups=({"name": "tenth", "privacy": wrong}, {"name": "masked", "secure_aggregation": secure}),
    )
    sound = record.findings[0]
    unresolved = lower(
        None, name="one_run", title="One run", reason="needs more canaries", ceiling=None, accounted=None
    )
    guess = lower(1.07, name="one_shot", title="One-shot estimate", kind="estimate", ceiling=None, correction="")
    findings = (
        replace(sound, audit="sound", bounds=(lower(1.93), guess, unresolved), caps=CAPS),
        replace(sound, audit="tenth", setup="tenth", bounds=(lower(14.2, ceiling=15.5),)),
        replace(sound, audit="masked", setup="masked"),
    )
    stated = [EpsilonStated(3.3, 1e-5, "client", "public", name, 0.95) for name in (None, "tenth")]
    apart = DifferenceStated("masked", "canary_product", "auc", "sound", 0.125, 0.95)
    utility = record.utility
    poor = replace(utility, test_accuracy=replace(utility.test_accuracy, estimate=0.611, low=0.598, high=0.624))
    after = {f"train.secagg_{part}{end}": 15 for part in ("keys", "shares", "unmask") for end in ("", "-reply")}
    changed = replace(
        record,
        findings=findings,
        claims=(
            *record.claims,
            Claim(stated[0], "To the public: 3.3.", "not refuted", None, 1.93, 2.51, "No more than the claim.", 0.975),
            Claim(stated[1], "With a tenth: 3.3.", "refuted", None, 14.2, None, "At least 14.2.", 0.9875),
            Claim(apart, "masked: lower by 0.125.", "inconclusive", 0.111, 0.072, 0.153, "It lies inside.", 0.9833),
        ),
        setups=(
            SetupFound(None, None, privacy, 7.31, central(), utility, 15, 0, 360),
            SetupFound("tenth", None, wrong, 4.0, central(), poor, 15, 0, 360),
            SetupFound("masked", secure, None, None, nothing_promised(), utility, 15, 13, 360),
        ),
        alarms=(ALARM,),
        federation=replace(
            record.federation,
            sights=(
                Sight("server", {"train": 75, "train-reply": 74}, True, "queries", None),
                Sight(
                    "server",
                    after | {"train": 60, "train-reply": 59, "aggregate": 14, "abort": 1, "train-refusal": 3},
                    True,
                    "queries",
                    "masked",
                ),
            ),
        ),
    )
    write(changed, folder)
    return changed


@pytest.fixture(scope="module")
def privacy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("private")
    private(path)
    return path


@pytest.fixture(scope="module")
def private_page(privacy_folder: Path) -> Page:
    return Page(render(read(privacy_folder), privacy_folder))


def part(page: Page, start: str, end: str) -> str:
    """The text of the page from one heading to another."""
    return page.text.split(start)[-1].split(end)[0]


def test_an_alarm_is_the_first_thing_on_the_page(private_page: Page, page: Page) -> None:
    assert 0 < private_page.text.index(ALARM) < private_page.text.index("how much does a federated model leak?")
    assert ("role", "alert") in [pair for _, attributes in private_page.tags for pair in attributes.items()]
    assert "ALARM" not in page.text


def test_each_kind_of_claim_shows_the_numbers_that_decide_it(private_page: Page) -> None:
    verdicts = private_page.text.partition("What was simulated")[0]
    claimed = "Claimed 3.3 (delta 1e-05); accounted for to the public: "
    bound = "; largest lower bound from attacks: "
    assert f"not refuted To the public: 3.3. {claimed}2.51{bound}1.93 . No more than the claim." in tidy(verdicts)
    assert f"refuted With a tenth: 3.3. {claimed}no finite epsilon{bound}14.2 . At least 14.2." in tidy(verdicts)
    difference = "Measured difference 0.111 (98.3 % interval 0.072 to 0.153), needed at least 0.125"
    assert f"inconclusive masked: lower by 0.125. {difference} . It lies inside." in tidy(verdicts)
    assert "allowed at most 0.500" in verdicts  # the claim about a metric keeps its own words


def tidy(text: str) -> str:
    """The text without the spaces that bold print leaves around numbers."""
    return text.replace(" ;", ";").replace(" ,", ",")


def test_an_epsilon_claim_that_no_attack_tested_says_so(private_page: Page, privacy_folder: Path) -> None:
    record = read(privacy_folder)
    claim = next(each for each in record.claims if isinstance(each.claim, EpsilonStated))
    text = Page(render(replace(record, claims=(replace(claim, low=None),)), privacy_folder)).text
    assert "no lower bound from attacks" in text.partition("What was simulated")[0]
    assert "no lower bound from attacks" not in private_page.text


def test_what_was_promised_to_whom_is_told_for_each_setup(private_page: Page) -> None:
    promised = part(private_page, "what was promised to whom", "Epsilon from the scores")
    sound, tenth, masked = re.split(
        r"(?<=[.\w]) (?=tenth deliberate mistake|masked Secure aggregation SecAgg)", promised
    )
    assert "e epsilon times as likely with it as without it" in sound
    for text in (
        "central: the server clips each client’s update and adds Gaussian noise to their sum; clipping norm 1.25; "
        "noise multiplier 7.31, which follows from the epsilon of 2.51 asked for; delta 1e-05",
        "Sampling each client with probability 0.5 in each of 15 rounds",
        "a chance of 12.5 % before it sends its update",
        "protecting from the server from a participant from the public",
        "a client’s whole data delta 1e-05 infinite 1 2.51 2 2.51 2",
        "one record delta 1e-05 infinite 1 5.73 2 5.73 2",
        f"{SEEN} {NOISE} {BOTH}",  # each reason once
    ):
        assert text in sound
    assert "deliberate mistake" not in sound
    assert "Wrong on purpose: a tenth of the noise that is accounted for." in tenth
    assert "noise multiplier 4; delta 1e-05; a deliberate mistake: a tenth of the noise" in tenth
    pictures = [attributes["alt"] for tag, attributes in private_page.tags if tag == "img"]
    assert [str(alt).partition(":")[0] for alt in pictures if str(alt).startswith("Epsilon")] == [
        "Epsilon of the federation as it stands",
        "Epsilon of tenth",
    ]
    assert "SecAgg+ with real keys, shares and masks, 6 neighbours of each client" in masked
    assert "infinite 1 infinite 1 infinite 1" in masked
    assert "deliberate mistake" not in masked


def test_the_setting_names_the_defences_of_the_federation_as_it_stands(private_page: Page, page: Page) -> None:
    setting = part(private_page, "What was simulated", "What a vantage may use")
    assert "Secure aggregation none: the server receives each client’s update" in setting
    assert "Differential privacy central: the server clips" in setting
    assert "noise multiplier 7.31" in setting
    assert "Drop-outs in a round, a client falls silent with a chance of 12.5 %" in setting
    plain = part(page, "What was simulated", "What a vantage may use")
    assert "Differential privacy none Drop-outs none" in plain
    assert "what was promised to whom" not in page.text  # where nothing was promised, there is nothing to explain


def test_defences_that_did_not_run_are_not_in_the_setting(privacy_folder: Path) -> None:
    record = read(privacy_folder)
    page = Page(render(replace(record, setups=record.setups[1:2]), privacy_folder))
    assert "Differential privacy" not in part(page, "What was simulated", "What a vantage may use")
    assert "Setup tenth deliberate mistake" in page.text


def test_every_bound_is_in_the_table_with_its_ceiling_and_what_was_accounted_for(private_page: Page) -> None:
    table = part(private_page, "Epsilon from the scores", "ROC curves")
    who = "protecting a client’s whole data from the public"
    assert (
        f"sound canary_product the federation as it stands Gaussian trade-off gdp {who} 1.93 delta 1e-05 "
        "95 % threshold from the other half 960 4.44 2.51 the bound is not above it 17 of 20 members above"
    ) in table
    assert f"{who} 14.2 delta 1e-05 95 % threshold from the other half 960 15.5 2.51 ✕ the bound is above it" in table
    assert "≈ 1.07 an estimate, not a bound delta 1e-05 none 960 – 2.51 17 of 20" in table  # and no verdict
    assert "not resolved delta 1e-05 95 % threshold from the other half – – infinite needs more canaries" in table


def test_what_an_epsilon_permits_stands_beside_what_was_measured(private_page: Page, privacy_folder: Path) -> None:
    """And a mark where the whole interval lies above it."""
    sound = read(privacy_folder).findings[0].metrics
    over = {name: sound[name].low or 0.0 for name in CAPS}
    assert over["auc"] < CAPS["auc"]  # as made up, so that both words are tried
    assert over["advantage"] > CAPS["advantage"]
    grid = part(private_page, "Which canaries took part?", "what was promised")
    assert grid.count("its epsilon permits 0.988") == 1
    table = part(private_page, "Every measure", "The attacks")
    assert "its epsilon permits 0.988" in table
    assert "✕ above what its epsilon permits: 0.032" in table
    assert private_page.text.count("above what its epsilon permits: 0.065") == 2  # in both tables


def test_setups_are_told_apart_wherever_numbers_are_shown(private_page: Page, page: Page) -> None:
    stands = "the federation as it stands"
    grid = part(private_page, "Which canaries took part?", "what was promised")
    heads = f"sound seen from public {stands} tenth seen from public tenth masked seen from public masked"
    assert f"Attack {heads}" in grid
    utility = part(private_page, "rounds given up, all worlds", "Controls")
    assert f"{stands} 1.000 0.999 to 1.000 0.921 0.914 to 0.928 15 0 tenth 1.000 0.999 to 1.000 0.611" in utility
    assert "0.598 to 0.624 15 0 masked" in utility
    assert "15 13" in utility
    assert stands not in page.text  # with one setup there is nothing to tell apart


def test_messages_of_secure_aggregation_are_counted_as_one_kind(private_page: Page, privacy_folder: Path) -> None:
    plain, masked = read(privacy_folder).federation.sights
    assert tally(plain) == plain.messages
    assert tally(masked)["keys and shares"] == 6 * 15
    assert sum(tally(masked).values()) == sum(masked.messages.values())
    table = part(private_page, "keys and shares are what that takes", "Attacks by vantage")
    heads = "models received for training keys and shares updates sums of updates rounds given up refusals"
    assert f"Vantage {heads} model parameters seen" in table
    assert "server the federation as it stands 75 0 74 0 0 0 yes" in table
    assert "server masked 60 90 59 14 1 3 yes" in table


def test_canaries_are_told_in_their_own_words(private_page: Page) -> None:
    for words in (
        "An auditor made up 40 canaries: clients that always send the same update",
        "a canary that took part scores higher than one that did not",
        "A small lower bound is not a small epsilon.",
    ):
        assert words in private_page.text
    assert "Was this record in the training data?" not in private_page.text


def test_setups_and_bounds_from_a_record_are_never_markup(privacy_folder: Path) -> None:
    record = read(privacy_folder)
    finding, setup = record.findings[1], record.setups[1]
    bound = replace(finding.bounds[0], title=MARKUP, correction=MARKUP, detail=MARKUP)
    rows = tuple(replace(row, reason=MARKUP) for row in setup.epsilons)
    changed = replace(
        record,
        alarms=(MARKUP,),
        findings=(record.findings[0], replace(finding, bounds=(bound,)), record.findings[2]),
        setups=(record.setups[0], replace(setup, epsilons=rows), record.setups[2]),
    )
    page = Page(render(changed, privacy_folder))
    assert page.text.count(MARKUP) >= 5
    assert not any(tag == "script" or "onerror" in attributes for tag, attributes in page.tags)


def test_the_figure_of_epsilons_shows_bounds_against_what_was_accounted_for(privacy_folder: Path) -> None:
    record = read(privacy_folder)
    drawings = draw(record, privacy_folder)
    assert [name for name in drawings if name.startswith("epsilon")] == ["epsilon", "epsilon-tenth"]  # masked: nothing
    assert "client, from the server: infinite accounted for" in drawings["epsilon"].alt
    assert "sound, gdp: at least 1.93 (at most 4.44 could be shown);" in drawings["epsilon"].alt
    assert "sound, one_shot: estimated at 1.07;" in drawings["epsilon"].alt
    assert "sound, one_run: not resolved;" in drawings["epsilon"].alt
    assert "tenth, gdp: at least 14.2 (at most 15.5 could be shown), above what was accounted for" in (
        drawings["epsilon-tenth"].alt
    )
    for setup, past in zip(record.setups[:2], (False, True), strict=True):
        axes = epsilons(record, setup).figure.axes[0]
        (tip,) = [line for line in axes.get_lines() if line.get_marker() == ">"]
        at, row = np.asarray(tip.get_xydata(), dtype=np.float64)[0]
        lines = [np.asarray(line.get_xydata(), dtype=np.float64) for line in axes.get_lines()]
        upright = [xy for xy in lines if len(xy) == 2 and xy[0, 0] == xy[1, 0]]
        ends = sorted(float(xy[0, 0]) for xy in upright if xy[0, 1] < row < xy[1, 1])
        assert ends == [2.51, 3.3]  # accounted for, claimed: both cross the row of the bound
        assert (at > max(ends)) == past
        assert min(axes.get_xlim()) < min(ends)
        assert axes.get_xlim() == epsilons(record, record.setups[2]).figure.axes[0].get_xlim()  # to be compared


def test_a_setup_that_the_scenario_does_not_know_is_one_line(privacy_folder: Path) -> None:
    record = read(privacy_folder)
    unknown_setup = replace(record.setups[1], name="nobody")
    with pytest.raises(ScenarioError, match="setups: 'nobody' is not in the scenario"):
        render(replace(record, setups=(record.setups[0], unknown_setup)), privacy_folder)


def test_where_noise_protects_records_the_report_says_that_a_property_is_none(tmp_path: Path) -> None:
    never_meant = "never meant to hide this"
    assert never_meant not in coins(run(tmp_path / "plain", "property"))[0]
    noisy = {"privacy": {"name": "record", "noise_multiplier": 1.0}}
    assert never_meant in coins(run(tmp_path / "noisy", "property", federation=noisy))[0]


def test_the_shares_told_are_those_that_the_worlds_have(tmp_path: Path) -> None:
    record = run(tmp_path, "property")
    facts = {"records": 37.0, "share 1": 18 / 37, "share 2": 7 / 37}
    told = coins(replace(record, findings=tuple(replace(each, facts=facts) for each in record.findings)))[0]
    assert "which share of the 37 training records have “sex” = “Female”: 48.65 % (no) or 18.92 % (yes)." in told
