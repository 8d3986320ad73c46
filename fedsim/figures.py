"""The figures of a report, drawn from a results record and its evidence, as SVG for the page and PDF for papers.

Matplotlib is imported inside the functions, so that the command line starts quickly.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fedsim.errors import ScenarioError
from fedsim.metrics import Roc, parse_metric, roc
from fedsim.results import RESULTS, Band, Finding, Quantity, Results, read_evidence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE, SHADE, BLUE, RED = "#1b1f24", "#59626d", "#d7dce1", "#f0f2f4", "#1f4e8c", "#a3262a"
LINES = ("#1f4e8c", "#c2571a", "#2a7f62", "#8b3a86", "#59626d", "#a67c00", "#2f93bd", "#7a3b1d")
DASHES = ("-", "--", "-.", ":")
WIDTH = 5.3  # inches; half of the page's column, so that text keeps its size on a phone
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # names are text, never formulas
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "fedsim",
    "pdf.fonttype": 42,
}
PAGE_FONT = "-apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"  # narrower than the one laid out


class Drawing(NamedTuple):
    """A figure, its title and what it shows in words (for those who cannot see it)."""

    title: str
    alt: str
    figure: "Figure"


def draw(record: Results, folder: Path) -> dict[str, Drawing]:
    """Return the figures of a run by file name (without ending): attacks-auc, attacks-tpr, roc-AUDIT, accuracy, loss.

    Args:
        record: the results.
        folder: the run folder, for the evidence.

    Raises:
        ScenarioError: evidence is missing or damaged.
    """
    with _style():
        drawings = {"attacks-auc": dots(record, "auc")}
        if tpr := tpr_metric(record.findings):
            drawings["attacks-tpr"] = dots(record, tpr)
        for audit in dict.fromkeys(finding.audit for finding in record.findings if has_curve(finding)):
            drawings[f"roc-{audit}"] = roc_curves(record, audit, folder)
        drawings["accuracy"] = curves(record, "accuracy")
        drawings["loss"] = curves(record, "loss")
    return drawings


def to_svg(figure: "Figure") -> str:
    """Return the figure as SVG text; the same figure gives the same text."""
    buffer = io.BytesIO()
    with _style():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue().decode().replace("'DejaVu Sans'", PAGE_FONT)


def to_pdf(figure: "Figure") -> bytes:
    """Return the figure as PDF; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with _style():
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return buffer.getvalue()


def label(metric: str) -> str:
    """Return the name of a metric as the report prints it, e.g. "TPR at 1 % FPR" for "tpr@fpr=0.01"."""
    parsed = parse_metric(metric)
    names = {
        "auc": "AUC",
        "tpr": f"TPR at {100 * parsed.level:g} % FPR",
        "advantage": "Advantage",
        "balanced_accuracy": "Balanced accuracy",
        "precision": f"Precision at prior {100 * parsed.level:g} %",
        "mae": "Mean absolute error",
    }
    return names[parsed.kind]


def tpr_metric(findings: Sequence[Finding]) -> str | None:
    """Return the TPR to show beside the AUC: at 1 % FPR if any finding resolves it, else at 10 %, else none."""
    for metric in ("tpr@fpr=0.01", "tpr@fpr=0.1"):
        if any(finding.metrics[metric].reason is None for finding in findings if metric in finding.metrics):
            return metric
    return None


def has_curve(finding: Finding) -> bool:
    """Return whether a finding has a ROC curve: it was measured, on members and on non-members."""
    return finding.status == "measured" and finding.members > 0 and finding.non_members > 0


def dots(record: Results, metric: str) -> Drawing:
    """A dot and an interval for each attack, under its audit; chance as a dashed line, a claimed bound as a red bar."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, MaxNLocator

    audits: dict[str, list[Finding]] = {}
    for finding in record.findings:
        audits.setdefault(finding.audit, []).append(finding)
    rows = len(record.findings) + len(audits)
    figure = Figure(figsize=(WIDTH, 0.3 * rows + 1.0), layout="constrained")
    axes = figure.add_subplot()
    bounds = _bounds(record, metric)
    words, ticks, names, heads, ends = [], [], [], [], [parse_metric(metric).chance or 0.0]
    row = 0
    for audit, findings in audits.items():
        ticks.append(row)
        names.append(_short(f"{audit} ({findings[0].vantage})"))
        heads.append(row)
        row += 1
        for finding in findings:
            found = finding.metrics.get(metric)
            ticks.append(row)
            names.append(_short(finding.attack))
            ends += _dot(axes, row, finding, found, bounds.get((audit, finding.attack)))
            words.append(f"{audit} {finding.attack} {_words(finding, found)}")
            row += 1
    axes.axvline(parse_metric(metric).chance or 0.0, color=MUTED, linestyle="--", linewidth=1)
    low, high = min(ends), max(ends)
    pad = 0.04 * (high - low) or 0.01
    axes.set_xlim(max(low - pad, 0.0), min(high + pad, 1.0) if high <= 1 else high + pad)
    axes.set_ylim(row - 0.4, -0.6)
    axes.set_yticks(ticks, names)
    for tick, text in zip(ticks, axes.get_yticklabels(), strict=True):
        text.set_fontweight("bold" if tick in heads else "normal")
    axes.tick_params(axis="y", length=0, pad=9)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.set_title(label(metric))
    return Drawing(f"{label(metric)} of every attack", f"{label(metric)} by attack: {'; '.join(words)}.", figure)


def _dot(axes: "Axes", row: int, finding: Finding, found: Quantity | None, bound: float | None) -> list[float]:
    """Draw one row and return the values it spans."""
    right = axes.get_yaxis_transform()
    if found is None or found.estimate is None or found.low is None or found.high is None:
        text = finding.status if finding.status != "measured" else "not resolved"
        axes.text(1.02, row, text, transform=right, va="center", color=MUTED, style="italic", size=9)
        return []
    axes.plot([found.low, found.high], [row, row], color=BLUE, linewidth=2.4, solid_capstyle="butt", clip_on=False)
    axes.plot([found.estimate], [row], "o", color=BLUE, markersize=6, clip_on=False)
    axes.text(1.02, row, f"{found.estimate:.3f}", transform=right, va="center", size=9.5)
    if bound is None:
        return [found.low, found.high]
    axes.plot([bound, bound], [row - 0.36, row + 0.36], color=RED, linewidth=2.4)
    return [found.low, found.high, bound]


def _short(name: str, most: int = 26) -> str:
    """The name, cut where it would leave no room for the figure; what cannot be printed would spoil the SVG."""
    name = "".join(sign if sign.isprintable() else "�" for sign in name)
    return name if len(name) <= most else name[: most - 1] + "…"


def _bounds(record: Results, metric: str) -> Mapping[tuple[str, str], float]:
    """The bound claimed for each audit and attack, where a claim is about this metric."""
    stated = [claim.claim for claim in record.claims if claim.claim.metric == metric]
    return {
        (finding.audit, finding.attack): claim.at_most
        for claim in stated
        for finding in record.findings
        if claim.audit == finding.audit and claim.attack in ("any", finding.attack)
    }


def _words(finding: Finding, found: Quantity | None) -> str:
    """The number for the description of a figure."""
    if found is None or found.estimate is None:
        return finding.status if finding.status != "measured" else "not resolved"
    return f"{found.estimate:.3f} ({found.low:.3f} to {found.high:.3f})"


def roc_curves(record: Results, audit: str, folder: Path) -> Drawing:
    """ROC curves of an audit that has any, on logarithmic axes, each a staircase through the attainable points."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter

    figure = Figure(figsize=(WIDTH, 5.0), layout="constrained")
    axes = figure.add_subplot()
    findings = [finding for finding in record.findings if finding.audit == audit and has_curve(finding)]
    findings.sort(key=lambda finding: -(finding.metrics["auc"].estimate or 0.0))
    floor, words = 1.0, []
    for index, finding in enumerate(findings):
        curve = _roc(finding, folder)
        floor = min(floor, 1 / curve.false_positives[-1])
        stairs = np.append(np.diff(curve.false_positive_rate) > 0, True)  # the best point at each false-positive rate
        x = np.maximum(curve.false_positive_rate[stairs], 1e-9)  # a zero has no logarithm; this lies left of the axis
        y = np.maximum(curve.true_positive_rate[stairs], 1e-9)
        area = finding.metrics["auc"].estimate
        axes.plot(
            x,
            y,
            drawstyle="steps-post",
            color=LINES[index % len(LINES)],
            linestyle=DASHES[index // len(LINES) % len(DASHES)],
            linewidth=1.8,
            label=_short(finding.attack) if area is None else f"{_short(finding.attack)} (AUC {area:.3f})",
        )
        words.append(finding.attack if area is None else f"{finding.attack} with AUC {area:.3f}")
    axes.plot([1e-9, 1], [1e-9, 1], color=MUTED, linestyle="--", linewidth=1, label="guessing (AUC 0.500)")
    axes.set_xlabel("False-positive rate: non-members accused")
    axes.set_ylabel("True-positive rate: members found")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FormatStrFormatter("%g"))
    axes.axvspan(1e-9, min(10 * floor, 1), color=SHADE, linewidth=0, label="too few non-members to quote")
    axes.set_xlim(min(0.8 * floor, 0.1), 1)
    axes.set_ylim(min(0.8 * floor, 0.1), 1.15)
    axes.grid(color=RULE, linewidth=0.6)
    figure.legend(loc="outside lower center", ncols=2)
    axes.set_title(_short(f"{audit} ({findings[0].vantage})", 48))
    text = f"ROC curves on logarithmic axes, audit {audit}: {'; '.join(words)}."
    return Drawing(f"ROC curves of {audit}", text, figure)


def _roc(finding: Finding, folder: Path) -> Roc:
    """The ROC of a finding that has one, from its evidence."""
    assert finding.evidence is not None  # since it was measured
    evidence = read_evidence(folder, finding.evidence)
    members = evidence.members[evidence.asked]
    found, stated = (int(members.sum()), int((~members).sum())), (finding.members, finding.non_members)
    if found != stated:
        raise ScenarioError(
            f"{folder / finding.evidence}: {found[0]} members and {found[1]} non-members were asked about here, "
            f"but {RESULTS} says {stated[0]} and {stated[1]}"
        )
    return roc(evidence.scores[evidence.asked], members)


def curves(record: Results, what: str) -> Drawing:
    """Train and test accuracy (or loss) after each round, mean over worlds with its interval as a band."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    axes = figure.add_subplot()
    rounds = [each.round for each in record.utility.rounds]
    words = []
    for part, color, dash in (("train", LINES[1], "--"), ("test", LINES[0], "-")):
        bands: list[Band] = [getattr(each, f"{part}_{what}") for each in record.utility.rounds]
        lows, means, highs = ([getattr(band, end) for band in bands] for end in ("low", "mean", "high"))
        marker = "o" if len(rounds) == 1 else ""
        axes.fill_between(rounds, lows, highs, color=color, alpha=0.18, linewidth=0)
        axes.plot(rounds, means, color=color, linestyle=dash, linewidth=1.8, marker=marker, label=part)
        words += [f"{part} {means[0]:.3f} after the first round, {means[-1]:.3f} after the last"] if means else []
    axes.set_xlabel("Round")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.legend(loc="best")
    axes.set_title(what.capitalize())
    return Drawing(f"{what.capitalize()} by round", f"Mean {what} over the worlds: {'; '.join(words)}.", figure)


@contextmanager
def _style() -> Iterator[None]:
    """Our style over Matplotlib's own defaults, whatever the user has configured."""
    import matplotlib.style

    with matplotlib.style.context(["default", STYLE]):
        yield
