"""The figures of a report, drawn from a results record and its evidence, as SVG for the page and PDF for papers.

Matplotlib is imported inside the functions, so that the command line starts quickly.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from fedsim.errors import ScenarioError
from fedsim.metrics import Roc, parse_metric, roc
from fedsim.results import (
    RESULTS,
    Band,
    BoundFound,
    ClaimStated,
    EpsilonStated,
    Finding,
    Quantity,
    Results,
    SetupFound,
    read_evidence,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE, SHADE, BLUE, RED = "#1b1f24", "#59626d", "#d7dce1", "#f0f2f4", "#1f4e8c", "#a3262a"
SKY, GREEN = "#dce7f3", "#1f6448"
UNITS: tuple[Literal["client", "record"], ...] = ("client", "record")
OBSERVERS: tuple[Literal["server", "participant", "public"], ...] = ("server", "participant", "public")
LINES = ("#1f4e8c", "#c2571a", "#2a7f62", "#8b3a86", "#59626d", "#a67c00", "#2f93bd", "#7a3b1d")
DASHES = ("-", "--", "-.", ":")
CURVES = 12  # in one figure
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
    """Return the figures of a run by file name (without ending): attacks-auc, attacks-tpr,
    epsilon, epsilon-SETUP, roc-AUDIT, accuracy, loss.

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
        for setup in record.setups:
            if (setup.privacy or setup.secure_aggregation) and has_epsilon(record, setup):
                drawings[epsilon_name(setup)] = epsilons(record, setup)
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
        "n_leaked": "Records leaked",
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
    metrics = [claim.claim for claim in record.claims if isinstance(claim.claim, ClaimStated)]
    stated = [claim for claim in metrics if claim.metric == metric]
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


def epsilon(value: float | None) -> str:
    """Return an epsilon of a record with three significant digits; null is infinite."""
    return "infinite" if value is None else f"{value:.3g}"


def epsilon_name(setup: SetupFound) -> str:
    """Return the file name (without ending) of a setup's figure of epsilons."""
    return "epsilon" if setup.name is None else f"epsilon-{setup.name}"


def has_epsilon(record: Results, setup: SetupFound) -> bool:
    """Return whether there is anything to draw: a finite epsilon, or a bound from the scores of an attack."""
    found = [bound.epsilon for each in record.findings if each.setup == setup.name for bound in each.bounds]
    return any(value is not None for value in [*found, *(row.epsilon for row in setup.epsilons)])


def epsilons(record: Results, setup: SetupFound) -> Drawing:
    """Epsilon on a logarithmic axis: accounted as a band with an end, each lower bound as an arrow with its ceiling."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, NullFormatter

    findings = [each for each in record.findings if each.setup == setup.name]
    bounds = [(finding, bound) for finding in findings for bound in finding.bounds]
    claims = [each.claim for each in record.claims if isinstance(each.claim, EpsilonStated)]
    low, high = _epsilon_range(record)
    figure = Figure(figsize=(WIDTH, 0.3 * (len(setup.epsilons) + len(bounds)) + 1.1), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    words: list[str] = []
    names: list[str] = []
    heads: list[int] = []
    order = sorted(setup.epsilons, key=lambda row: (UNITS.index(row.unit), OBSERVERS.index(row.observer)))
    for row in order:
        top = len(names)
        mine = [
            (finding, bound) for finding, bound in bounds if (bound.unit, bound.observer) == (row.unit, row.observer)
        ]
        about = (setup.name, row.unit, row.observer)
        claimed = [claim.epsilon for claim in claims if (claim.setup, claim.unit, claim.observer) == about]
        heads.append(top)
        names += [f"{row.unit}, from the {row.observer}", *(_short(f"{each.audit}, {b.name}", 24) for each, b in mine)]
        _accounted(axes, top, row.epsilon)
        _say(axes, top, epsilon(row.epsilon), bold=True)
        words.append(f"{names[top]}: {epsilon(row.epsilon)} accounted for")
        for place, (finding, bound) in enumerate(mine, top + 1):
            _accounted(axes, place, bound.accounted)
            words.append(f"{finding.audit}, {bound.name}: {_bound(axes, place, bound, claimed)}")
        for claim in claimed:
            axes.plot([claim] * 2, [top - 0.46, len(names) - 0.54], color=RED, linewidth=2.4)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), names)
    for tick, text in enumerate(axes.get_yticklabels()):
        text.set_fontweight("bold" if tick in heads else "normal")
    axes.tick_params(axis="y", length=0, pad=9)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title("Epsilon")
    title = "the federation as it stands" if setup.name is None else setup.name
    return Drawing(f"Epsilon of {title}", f"Epsilon of {title}: {'; '.join(words)}.", figure)


def _epsilon_range(record: Results) -> tuple[float, float]:
    """The ends of the axis of every figure of epsilons in a report, so that they can be compared."""
    values = [row.epsilon for setup in record.setups for row in setup.epsilons]
    values += [end for each in record.findings for bound in each.bounds for end in (bound.epsilon, bound.ceiling)]
    values += [claim.claim.epsilon for claim in record.claims if isinstance(claim.claim, EpsilonStated)]
    known = [value for value in values if value is not None and value > 0]
    return max(min([*known, 0.2]) / 2, 0.01), max([*known, 5.0]) * 1.6


def _accounted(axes: "Axes", row: int, accounted: float | None) -> None:
    """The band from 0 to the accounted epsilon and the mark at its end; infinite: to the edge, without a mark."""
    low, high = axes.get_xlim()
    end = high if accounted is None else max(accounted, low)
    axes.fill_betweenx([row - 0.5, row + 0.5], low, end, color=SHADE if accounted is None else SKY, linewidth=0)
    if accounted is not None:
        axes.plot([end, end], [row - 0.5, row + 0.5], color=BLUE, linewidth=2.4, solid_capstyle="butt")


def _bound(axes: "Axes", row: int, bound: BoundFound, claimed: Sequence[float]) -> str:
    """Draw a bound or an estimate and return it in words; red where it lies above what was accounted for or claimed."""
    low, _ = axes.get_xlim()
    if bound.epsilon is None:
        axes.text(1.02, row, "not resolved", transform=axes.get_yaxis_transform(), va="center", color=MUTED, size=9)
        return "not resolved"
    at = max(bound.epsilon, low)
    if bound.kind == "estimate":
        axes.plot([at], [row], "D", color=MUTED, markerfacecolor="white", markersize=7, clip_on=False)
        _say(axes, row, f"≈ {epsilon(bound.epsilon)}")
        return f"estimated at {epsilon(bound.epsilon)}"
    above = bound.accounted is not None and bound.epsilon > bound.accounted
    color = RED if above or any(bound.epsilon > claim for claim in claimed) else GREEN
    if bound.ceiling is not None:
        axes.plot([at, max(bound.ceiling, low)], [row, row], color=MUTED, linewidth=1, linestyle=":")
        axes.plot([max(bound.ceiling, low)], [row], "|", color=MUTED, markersize=11, markeredgewidth=1.4, clip_on=False)
    axes.plot([low, at], [row, row], color=color, linewidth=2.4, solid_capstyle="butt")
    axes.plot([at], [row], ">", color=color, markersize=7, clip_on=False)
    _say(axes, row, f"≥ {epsilon(bound.epsilon)}")
    most = "" if bound.ceiling is None else f" (at most {epsilon(bound.ceiling)} could be shown)"
    return f"at least {epsilon(bound.epsilon)}{most}{', above what was accounted for' if above else ''}"


def _say(axes: "Axes", row: int, text: str, bold: bool = False) -> None:
    """Print a number at the right of a row."""
    weight = "bold" if bold else "normal"
    axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", size=9.5, fontweight=weight)


def roc_curves(record: Results, audit: str, folder: Path) -> Drawing:
    """ROC curves of an audit that has any, on logarithmic axes, each a staircase through the attainable points; no more
    than the eye can tell apart, largest areas first.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter

    findings = [finding for finding in record.findings if finding.audit == audit and has_curve(finding)]
    findings.sort(key=lambda finding: -(finding.metrics["auc"].estimate or 0.0))
    findings, more = findings[:CURVES], len(findings[CURVES:])
    figure = Figure(figsize=(WIDTH, 4.2 + 0.1 * len(findings)), layout="constrained")
    axes = figure.add_subplot()
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
    if more:
        axes.plot([], [], linestyle="", label=f"{more} more with smaller areas, not drawn")
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
    words += [f"{more} more with smaller areas, not drawn"] if more else []
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
