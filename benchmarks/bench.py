"""`python -m benchmarks.bench`: fedsim against other simulators, as a table and as `benchmarks/out/full.json`.

`--quick` is the same in under a minute: fewer worlds, rounds and opponents, and one run of each. `--readme` only puts
the table of the last full run into the README.
"""

import os

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}  # read when Flower is imported
os.environ.pop("OMP_NUM_THREADS", None)  # each contender sets its own number of threads

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import numpy as np

from benchmarks import dp_sgd, ours
from benchmarks.race import OPPONENTS, Model, Run, Skipped, peak_flops, race
from benchmarks.report import HEADER, OUT, Record, cells, markdown, put_in_readme, read, show, write
from benchmarks.workloads import QUICK, WORKLOADS, Workload, flops_a_record, job, records, records_trained, write_task

Mode = Literal["full", "quick"]

TURNS = {"full": 3, "quick": 1}
PEAK_SECONDS = {"full": 1.0, "quick": 0.2}
OPPONENTS_OF = {
    "full": {workload.name: tuple(OPPONENTS) for workload in WORKLOADS},
    "quick": {"W1": ("ray", "loop"), "W2": ("loop",), "W3": ("loop",), "W4": ("loop",)},
}
CLOSE = 1e-3  # in float32, for what is no row of `WORKLOADS`
EXACT = 1e-9  # in float64, two models of the same federation differ by less
EXACT_ROUNDS = 2


class Targets(NamedTuple):
    """How many times faster we should be, at the least."""

    ray_messages: float
    ray_fastest: float
    others_fastest: float

    def of(self, path: str, opponent: str) -> float | None:
        """Return the target for a path and an opponent."""
        if opponent == "ray":
            return self.ray_messages if path == "messages" else self.ray_fastest
        return self.others_fastest if path == "fastest" else None


TARGETS = {
    "W1": Targets(30, 100, 6),
    "W2": Targets(7, 12, 5),
    "W3": Targets(1.5, 1.7, 1.5),
    "W4": Targets(20, 40, 5),
}
MATMUL_TARGETS = {"W2": 1.0}
AUDITED = "W2"
AUDIT_TARGET = 1.5


class Measured(NamedTuple):
    """All that was measured of a workload."""

    runs: dict[str, list[Run]]  # fastest, messages, audit, and each opponent
    skipped: dict[str, str]
    alone: dict[str, Run]  # fastest, messages: with one world only
    model: Model  # after as many rounds as the opponents'
    exact: float | None  # largest difference of a parameter between the loop and us in float64
    peak: float  # operations a second of a large product
    operations: float  # of one round of one world, on average


def measure(workload: Workload, mode: Mode) -> Measured:
    """Let everybody run a workload, taking turns."""
    size = workload.size
    one = job(workload, size.worlds, size.rounds)
    worlds = range(size.worlds)
    skipped: dict[str, str] = {}
    peaks = []
    with tempfile.TemporaryDirectory(prefix="fedsim-bench-") as folder:
        task = Path(folder) / "task.npz"
        write_task(task, one, size.opponent_rounds)
        contenders: dict[str, Callable[[], Run]] = {"fastest": partial(ours.run, one, worlds, messages=False)}
        contenders |= {name: partial(race, name, task) for name in OPPONENTS_OF[mode][workload.name]}
        if mode == "full" or "ray" in contenders:
            contenders["messages"] = partial(ours.run, one, worlds, messages=True)
        if workload.name == AUDITED:
            contenders["audit"] = partial(ours.run, ours.audited(workload, one), worlds, messages=False)
        runs: dict[str, list[Run]] = {name: [] for name in contenders}
        for _ in range(TURNS[mode]):
            peaks.append(peak_flops(ours.WORKERS, PEAK_SECONDS[mode]))
            for name, contender in contenders.items():
                try:
                    if name not in skipped:
                        runs[name].append(contender())
                        note(f"{workload.name} {name}: {1e3 * runs[name][-1].seconds_a_round:.3g} ms a round")
                except Skipped as reason:
                    skipped[name] = str(reason)
                    note(f"{workload.name} {name} skipped: {reason}")
    return Measured(
        runs=runs,
        skipped=skipped,
        alone={path: ours.run(one, [0], path == "messages") for path in ("fastest", "messages") if mode == "full"},
        model=ours.model(workload, size.opponent_rounds),
        exact=_exact(workload) if mode == "full" else None,
        peak=median(peaks),
        operations=flops_a_record(workload) * records_trained(one) / (size.worlds * size.rounds),
    )


def _exact(workload: Workload) -> float:
    with tempfile.TemporaryDirectory(prefix="fedsim-bench-") as folder:
        task = Path(folder) / "task.npz"
        write_task(task, job(workload, 1, EXACT_ROUNDS, dtype="float64"), EXACT_ROUNDS)
        theirs = race("loop", task).model
    assert theirs is not None
    return _difference(theirs, ours.model(workload, EXACT_ROUNDS, "float64"))


def _difference(one: Model, other: Model) -> float:
    return float(np.abs(one.parameters - other.parameters).max())


def compare(workload: Workload, mode: Mode) -> Iterator[Record]:
    """Yield the records of a workload."""
    size, found = workload.size, measure(workload, mode)
    common = Record(
        workload=workload.name,
        title=workload.title,
        records=workload.records,
        worlds=size.worlds,
        rounds=size.rounds,
        runs=TURNS[mode],
        peak_gflops=found.peak / 1e9,
        synthetic_data=records(workload).synthetic,
        exact_difference=found.exact,
        machine=machine(),
    )
    for path in ("messages", "fastest"):
        if path not in found.runs:
            continue
        us = _ours(replace(common, path=path), found, path)
        for name, opponent in OPPONENTS.items():
            row = replace(us, opponent=opponent.title, target=TARGETS[workload.name].of(path, name))
            if name in found.skipped:
                yield replace(row, skipped=found.skipped[name])
            elif name in found.runs:
                yield _beside(row, found, name)
        target = MATMUL_TARGETS.get(workload.name) if path == "fastest" else None
        yield replace(us, opponent="torch.mm", ratio=_rate(found, path) / found.peak, target=target)
    if "audit" in found.runs:
        title = f"{AUDITED} with {ours.CANDIDATES} candidates audited by {', '.join(ours.AUDIT)}"
        us = replace(_ours(replace(common, path="fastest"), found, "audit"), workload="W6", title=title)
        row = replace(_beside(us, found, "fastest"), opponent=AUDITED, target=AUDIT_TARGET, at_most=True)
        yield replace(row, ratio=1 / row.ratio if row.ratio else None)


def _seconds(runs: Sequence[Run]) -> float:
    return median(run.seconds_a_round for run in runs)


def _range(runs: Sequence[Run]) -> tuple[float, float]:
    seconds = [run.seconds_a_round for run in runs]
    return min(seconds), max(seconds)


def _rate(found: Measured, contender: str) -> float:
    return found.operations / _seconds(found.runs[contender])


def _ours(row: Record, found: Measured, contender: str) -> Record:
    """Fill in our half of a record."""
    runs = found.runs[contender]
    return replace(
        row,
        seconds_a_round=_seconds(runs),
        seconds_a_round_range=_range(runs),
        one_world_seconds_a_round=found.alone[contender].seconds_a_round if contender in found.alone else None,
        gflops=_rate(found, contender) / 1e9,
        peak_memory_bytes=max(run.peak_bytes for run in runs),
        start_up_seconds=median(run.start_up_seconds for run in runs),
    )


def _beside(row: Record, found: Measured, contender: str) -> Record:
    """Fill in the other half."""
    runs = found.runs[contender]
    row = replace(
        row,
        ratio=_seconds(runs) / (row.seconds_a_round or np.nan),
        opponent_seconds_a_round=_seconds(runs),
        opponent_seconds_a_round_range=_range(runs),
        opponent_peak_memory_bytes=max(run.peak_bytes for run in runs),
        opponent_start_up_seconds=median(run.start_up_seconds for run in runs),
    )
    if (model := runs[-1].model) is None:
        return row
    return replace(
        row,
        accuracy=found.model.accuracy,
        opponent_accuracy=model.accuracy,
        parameter_difference=_difference(model, found.model),
    )


def machine() -> str:
    """Return what the numbers were measured on."""
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "flwr"))
    processor = names[0] if names else platform.processor()
    return f"{processor}, {os.cpu_count()} processors, Python {platform.python_version()}, {packages}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def main() -> None:
    """Run the benchmark, or print what the last full one found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--only", choices=[workload.name for workload in WORKLOADS], help="one workload, no file")
    parser.add_argument("--readme", action="store_true", help="put the last full run's table into the README")
    chosen = parser.parse_args()
    if chosen.readme:
        found = read(OUT / "full.json")
        put_in_readme("bench", f"{found[0].machine}\n\n" + markdown([cells(record) for record in found], HEADER))
        return
    mode: Mode = "quick" if chosen.quick else "full"
    begin = time.perf_counter()
    found = []
    for workload in QUICK if chosen.quick else WORKLOADS:
        if chosen.only in (None, workload.name):
            found += compare(workload, mode)
    if chosen.only is None:
        found += dp_sgd.compare(mode)
        write(found, OUT / f"{mode}.json")
    show(found, f"fedsim against other simulators ({mode}, {time.perf_counter() - begin:.0f} s)")
    if wrong := [reason for record in found if (reason := _not_the_same(record))]:
        raise SystemExit("\n".join(wrong))


def _not_the_same(record: Record) -> str | None:
    """Return how an opponent's model differs from ours by more than rounding explains."""
    close = {workload.name: workload.close for workload in WORKLOADS}
    for what, value, limit in (
        ("float32", record.parameter_difference, close.get(record.workload, CLOSE)),
        ("float64", record.exact_difference, EXACT),
    ):
        if value is not None and value > limit:
            return f"{record.workload}, {record.opponent}: parameters in {what} differ by {value:.1e}, not {limit:g}"
    return None


def note(text: str) -> None:
    """Tell how far the benchmark is."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
