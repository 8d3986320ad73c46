"""`python -m benchmarks.curves`: how the cost of a run grows with clients, worlds, parameters and candidates, as a
markdown table with the exponents of the fitted power laws. A few minutes. `--readme` puts it into the README too.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from benchmarks import ours
from benchmarks.report import markdown, put_in_readme
from benchmarks.workloads import MARKERS, W2, W4, Workload, job
from fedsim.engine import run_worlds
from fedsim.job import Job
from fedsim.scenario import ModelChoice
from fedsim.threads import tune_allocator

TURNS = 3
PIXELS, CLASSES = 784, 10
RECORDS_A_CLIENT = 60


class Curve(NamedTuple):
    """How to measure one curve: processor `seconds` of a run for each of `points`."""

    axis: str
    held: str
    points: tuple[int, ...]
    seconds: Callable[[int], float]


def _run(workload: Workload, worlds: int, rounds: int, candidates: int = 0) -> float:
    """Return the processor time of a whole run in this process, without starting up; other work on the machine says
    less in it than in the time on a clock.
    """
    one = job(workload, worlds, rounds)
    if candidates:
        one = ours.audited(workload, one, candidates)
    start, end = (_processor_seconds(one, range(last)) for last in (MARKERS, MARKERS + worlds))
    return end - start


def _processor_seconds(one: Job, indices: Sequence[int]) -> float:
    begin = time.process_time()
    for _ in run_worlds(one, indices):
        pass
    return time.process_time() - begin


def _clients(clients: int) -> float:
    held = replace(W4, clients=clients, per_round=clients, records=RECORDS_A_CLIENT * clients)
    return _run(held, worlds=4, rounds=5)


def _worlds(worlds: int) -> float:
    return _run(W2, worlds, rounds=5)


def _hidden(parameters: int) -> int:
    return round((parameters - CLASSES) / (PIXELS + 1 + CLASSES))


def _parameters(parameters: int) -> float:
    held = replace(W2, model=ModelChoice(name="mlp", hidden=(_hidden(parameters),)))
    return _run(held, worlds=8, rounds=5)


def _candidates(candidates: int) -> float:
    return _run(W2, 8, 5, candidates) - _run(W2, 8, 5)


CURVES = (
    Curve(
        "clients a round", "4 worlds, 5 rounds, 60 records a client, MLP 784-256-10", (125, 250, 500, 1000), _clients
    ),
    Curve("worlds", "W2, 5 rounds", (8, 16, 32, 64), _worlds),
    Curve("parameters", "W2, 8 worlds, 5 rounds, one hidden layer", (25_000, 100_000, 400_000, 1_600_000), _parameters),
    Curve("candidates", "what W6's audit adds to W2, 8 worlds, 5 rounds", (1000, 2500, 5000, 10_000), _candidates),
)


def measured(curve: Curve) -> list[str]:
    """Return the row of a curve: the median of `TURNS` rounds over its points, and the exponent."""
    turns = [[curve.seconds(point) for point in curve.points] for _ in range(TURNS)]
    seconds = np.median(turns, axis=0)
    exponent = (
        f"{np.polyfit(np.log(curve.points), np.log(seconds), 1)[0]:.2f}" if seconds.min() > 0 else "machine too busy"
    )
    points = ", ".join(f"{point:,}: {value:.2g} s" for point, value in zip(curve.points, seconds, strict=True))
    return [curve.axis, curve.held, points, exponent]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readme", action="store_true", help="put the table into the README")
    chosen = parser.parse_args()
    tune_allocator()  # as in a worker process
    table = markdown([measured(curve) for curve in CURVES], ("cost against", "held fixed", "measured", "exponent"))
    print(table)
    if chosen.readme:
        put_in_readme("curves", table)


if __name__ == "__main__":
    main()
