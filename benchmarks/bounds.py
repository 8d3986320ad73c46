"""Prints how often each lower bound on epsilon is wrong, and how near it comes, on mechanisms whose epsilon is known.

    python -m benchmarks.bounds [--quick] [--docs]

--docs writes the tables into docs/epsilon-bounds.md. About five minutes on one core; --quick takes half a minute.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.report import markdown, put_in_readme
from fedsim.audit import BOUNDS, Bound, gaussian_epsilon
from fedsim.metrics import Bools, Floats

PAGE = Path(__file__).parent.parent / "docs" / "epsilon-bounds.md"
DELTA = 1e-5
CONFIDENCE = 0.95
Draw = Callable[[int, int, np.random.Generator], tuple[Floats, Bools]]

NULL_DESIGNS = ((1, 1000), (1, 5000), (32, 100), (64, 100), (2000, 1))  # (worlds, canaries a world)
DESIGNS = ((1, 100), (1, 1000), (1, 5000), (32, 100), (32, 1000), (64, 100), (64, 1000), (2000, 1), (20_000, 1))
SIGMAS = (0.5, 1.0, 2.0, 4.0)
TELLS_ALL = 0.1


def gaussian(mu: float, shared: float = 0.0) -> Draw:
    """Scores of a Gaussian mechanism on each canary; a world's canaries share noise of deviation `shared`."""

    def draw(worlds: int, items: int, rng: np.random.Generator) -> tuple[Floats, Bools]:
        members = rng.random((worlds, items)) < 0.5
        noise = rng.standard_normal((worlds, items)) + shared * rng.standard_normal((worlds, 1))
        return noise + mu * members, members

    return draw


def some_worlds_tell_all(worlds: int, items: int, rng: np.random.Generator) -> tuple[Floats, Bools]:
    """Return scores and members of a (0, 0.1)-DP mechanism: a world tells all its coins with that probability."""
    scores, members = gaussian(0.0)(worlds, items, rng)
    return np.where(rng.random((worlds, 1)) < TELLS_ALL, 10.0 * members - 5, scores), members


NULLS: dict[str, tuple[Draw, float]] = {
    "independent": (gaussian(0.0), DELTA),
    "shared noise": (gaussian(0.0, shared=3.0), DELTA),
    f"tells all, δ = {TELLS_ALL:g}": (some_worlds_tell_all, TELLS_ALL),
}


def epsilons(
    name: str, draw: Draw, worlds: int, items: int, delta: float, repeats: int, rng: np.random.Generator
) -> tuple[Floats, float | None]:
    """The bound in each of `repeats` draws, fewer where it is unresolved, and the last one's ceiling."""
    found: list[float] = []
    ceiling = None
    for _ in range(repeats):
        scores, members = draw(worlds, items, rng)
        bound = BOUNDS[name].make(scores, members, np.ones_like(members), delta, CONFIDENCE, rng)
        if isinstance(bound, Bound):
            found.append(bound.epsilon)
            ceiling = bound.ceiling
    return np.array(found), ceiling


def false_alarms(repeats: int, rng: np.random.Generator) -> str:
    """Return the table of how often each bound is above 0 where epsilon is 0."""
    rows = []
    for worlds, items in NULL_DESIGNS:
        for structure, (draw, delta) in NULLS.items():
            if items == 1 and structure != "independent":
                continue
            found = (epsilons(name, draw, worlds, items, delta, repeats, rng)[0] for name in BOUNDS)
            cells = [f"{np.mean(each > 0):.1%}".replace("%", " %") if each.size else "–" for each in found]
            rows.append([f"{worlds} x {items}", structure, *cells])
            print(rows[-1], flush=True)
    return markdown(rows, ["worlds x canaries", "null", *(row.title for row in BOUNDS.values())])


def tightness(repeats: int, rng: np.random.Generator) -> str:
    """Return the table of the mean bound on Gaussian mechanisms and how often it lies above the truth."""
    truths = [gaussian_epsilon(1 / sigma, DELTA) for sigma in SIGMAS]
    rows = []
    for name, row in BOUNDS.items():
        for worlds, items in DESIGNS:
            cells, ceiling = [], None
            for sigma, truth in zip(SIGMAS, truths, strict=True):
                found, ceiling = epsilons(name, gaussian(1 / sigma), worlds, items, DELTA, repeats, rng)
                if found.size:
                    cells.append(f"{found.mean():.2f} ({np.mean(found > truth):.0%})".replace("%", " %"))
            if cells:
                rows.append([row.title, f"{worlds} x {items}", "none" if ceiling is None else f"{ceiling:.1f}", *cells])
                print(rows[-1], flush=True)
    header = [f"σ = {sigma:g}, ε = {truth:.2f}" for sigma, truth in zip(SIGMAS, truths, strict=True)]
    return markdown(rows, ["bound", "worlds x canaries", "ceiling", *header])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the repeats")
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/epsilon-bounds.md")
    chosen = parser.parse_args()
    rng = np.random.default_rng(0)
    nulls, known = (300, 4) if chosen.quick else (3000, 20)
    tables = {
        "false-alarms": f"{false_alarms(nulls, rng)}\n\n{nulls} draws a cell.",
        "tightness": f"{tightness(known, rng)}\n\n{known} draws a cell.",
    }
    for name, table in tables.items():
        print(f"\n{table}")
        if chosen.docs:
            put_in_readme(name, table, PAGE)


if __name__ == "__main__":
    main()
