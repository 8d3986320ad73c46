"""What the benchmark found: a list of records, as JSON, as a table on the terminal and as markdown."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
OUT = HERE / "out"
README = HERE / "README.md"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One comparison. What was not measured is None; `skipped` says why.

    path: "messages", every message a Flower Message; "fastest", what the engine does by itself. ratio: the opponent's
    seconds over ours; against torch.mm, our operations a second over its; for an audit, seconds with it over seconds
    without. target: what the ratio should reach, or, with `at_most`, not exceed. Seconds a round are of one world or
    federation. start_up_seconds: ours until workers are ready; theirs until the end of the first round.
    parameter_difference: the largest between the opponent's model and ours. exact_difference: the same in float64,
    between the PyTorch loop and us.
    """

    workload: str
    title: str
    path: str = ""
    opponent: str = ""
    ratio: float | None = None
    target: float | None = None
    at_most: bool = False
    seconds_a_round: float | None = None
    seconds_a_round_range: tuple[float, float] | None = None
    opponent_seconds_a_round: float | None = None
    opponent_seconds_a_round_range: tuple[float, float] | None = None
    one_world_seconds_a_round: float | None = None
    records: int | None = None
    worlds: int | None = None
    rounds: int | None = None
    runs: int | None = None
    gflops: float | None = None
    peak_gflops: float | None = None
    peak_memory_bytes: int | None = None
    opponent_peak_memory_bytes: int | None = None
    start_up_seconds: float | None = None
    opponent_start_up_seconds: float | None = None
    accuracy: float | None = None
    opponent_accuracy: float | None = None
    parameter_difference: float | None = None
    exact_difference: float | None = None
    synthetic_data: bool = False
    machine: str = ""
    skipped: str | None = None

    @property
    def met(self) -> bool | None:
        """Whether the ratio is where it should be; None where there is no ratio or no target."""
        if self.ratio is None or self.target is None:
            return None
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target


HEADER = (
    "workload", "path", "against", "ours, ms a round", "theirs", "ratio", "target", "GFLOP/s (of peak)", "memory, GB",
    "start, s", "accuracy", "difference",
)  # fmt: skip


def cells(record: Record) -> list[str]:
    """Return a record as the cells of its row; pairs are ours / theirs."""
    sign = "≤" if record.at_most else "≥"
    mark = {None: "", True: " ✓", False: " ✗"}[record.met]
    ours = _milliseconds(record.seconds_a_round, record.seconds_a_round_range)
    theirs = _milliseconds(record.opponent_seconds_a_round, record.opponent_seconds_a_round_range)
    share = (
        f"{record.gflops:.0f} ({record.gflops / record.peak_gflops:.0%})"
        if record.gflops is not None and record.peak_gflops
        else ""
    )
    return [
        record.workload + (" (synthetic data)" if record.synthetic_data else ""),
        record.path,
        record.opponent,
        ours,
        f"skipped: {record.skipped}" if record.skipped else theirs,
        _number(record.ratio),
        f"{sign} {record.target:g}{mark}" if record.target is not None else "",
        share,
        _pair(record.peak_memory_bytes, record.opponent_peak_memory_bytes, "{:.1f}", 1e9),
        _pair(record.start_up_seconds, record.opponent_start_up_seconds, "{:.1f}"),
        _pair(record.accuracy, record.opponent_accuracy, "{:.3f}"),
        f"{record.parameter_difference:.0e}" if record.parameter_difference is not None else "",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _milliseconds(value: float | None, span: tuple[float, float] | None) -> str:
    if value is None:
        return ""
    low, high = (f"{1e3 * end:.3g}" for end in span or (value, value))
    return f"{1e3 * value:.3g}" + (f" [{low}-{high}]" if low != high else "")


def _pair(ours: float | None, theirs: float | None, form: str, unit: float = 1) -> str:
    return " / ".join(form.format(value / unit) for value in (ours, theirs) if value is not None)


def show(records: Sequence[Record], title: str) -> None:
    """Print the table."""
    table = Table(*HEADER, title=title, caption=records[0].machine)
    for record in records:
        style = {None: "", True: "green", False: "red"}[record.met]
        table.add_row(*cells(record), style="dim" if record.skipped else style)
    Console(width=None if os.isatty(1) else 200).print(table)


def markdown(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """Return a table as markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(records: Sequence[Record], path: Path) -> None:
    """Write the records, all at once or not at all."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps([asdict(record) for record in records], indent=1) + "\n")
    part.replace(path)


def read(path: Path) -> list[Record]:
    """Return the records of a file."""
    return [Record(**record) for record in json.loads(path.read_text())]


def put_in_readme(name: str, text: str, page: Path = README) -> None:
    """Replace what stands between the marks `<!-- name -->` and `<!-- /name -->` of the README, or another page."""
    before, rest = page.read_text().split(f"<!-- {name} -->\n")
    after = rest.split(f"<!-- /{name} -->")[1]
    page.write_text(f"{before}<!-- {name} -->\n{text}\n<!-- /{name} -->{after}")
