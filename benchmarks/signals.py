"""`python -m benchmarks.signals`: what each signal about records costs, as a multiple of the training it observes, on
the Fashion-MNIST network (W2) with 1,000 candidates. A few minutes. `--readme` puts the table into the README too.
"""

import argparse
import time
from collections.abc import Iterable
from statistics import median

from attacks import ATTACKS
from attacks.coverage import FOLLOWS, VIEWS
from benchmarks import ours
from benchmarks.report import markdown, put_in_readme
from benchmarks.workloads import MARKERS, W2, job
from fedsim.attack import Attack
from fedsim.engine import run_worlds
from fedsim.job import Job

WORLDS, ROUNDS, TURNS = 4, 10, 3
HEADER = ("attacks", "reads", "signal / training", "range of the turns")


def _seconds(attacks: dict[str, str]) -> float:
    """Return the processor seconds of a whole run with the signals of some attacks, without starting up."""
    one = job(W2, WORLDS, ROUNDS)
    if attacks:
        one = ours.audited(W2, one, attacks=attacks)
    return _spent(one, range(MARKERS, MARKERS + WORLDS)) - _spent(one, range(MARKERS))


def _spent(one: Job, worlds: Iterable[int]) -> float:
    """Return the processor seconds of some worlds on one thread: other programs hardly change them."""
    begin = time.process_time()
    for _ in run_worlds(one, list(worlds), engine="lockstep", workers=1):
        pass
    return time.process_time() - begin


def _vantage(attack: Attack) -> str:
    """Return the least vantage that sees what an attack reads."""
    column = next(column for column, seen in VIEWS.items() if attack.signal.reads in seen)
    return {"participant": "client:0"}.get(column, column)


def rows() -> list[list[str]]:
    """Return a row for each signal: the median of the turns, each beside a run without any attack."""
    groups: dict[int, list[Attack]] = {}
    for attack in ATTACKS.values():
        if attack.game == "record" and attack.signal.reads not in FOLLOWS:  # nobody acts here
            groups.setdefault(id(attack.signal), []).append(attack)
    ratios: dict[int, list[float]] = {key: [] for key in groups}
    for _ in range(TURNS):
        alone = _seconds({})
        for key, attacks in groups.items():
            ratios[key].append(_seconds({attacks[0].name: _vantage(attacks[0])}) / alone - 1)
    return [
        [
            ", ".join(attack.name for attack in groups[key]),
            groups[key][0].signal.reads,
            f"{median(values):.2f}",
            f"{min(values):.2f} to {max(values):.2f}",
        ]
        for key, values in ratios.items()
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readme", action="store_true", help="put the table into the README")
    chosen = parser.parse_args()
    table = markdown(rows(), HEADER)
    print(table)
    if chosen.readme:
        put_in_readme("signals", table)


if __name__ == "__main__":
    main()
