"""Prints how often the 95 % intervals of fedsim cover the truth, as a markdown table; a few minutes on one core.

Scores are Gaussian with known truth: a member's score is shifted by an effect; items and worlds have random effects of
their own on the score and, in "uneven", on the effect too. Each item is a member in exactly half of the worlds.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from fedsim.intervals import Entries, Measured, held_out_thresholds, measure
from fedsim.metrics import Bools, Floats, Metric

METRICS = (
    Metric("auc"),
    Metric("tpr", 0.01),
    Metric("tpr", 0.1),
    Metric("advantage"),
    Metric("precision", 0.5),
)
DESIGNS = {(40, 1): 1000, (8, 40): 400, (16, 100): 300, (32, 300): 150}  # (worlds, items): simulations
EFFECTS = {"none": 0.0, "AUC .70": 0.742, "AUC .995": 3.643}


class Structure(NamedTuple):
    """Shares of the score's variance, and spreads of the effect as shares of the effect."""

    item: float
    world: float
    item_effect: float
    world_effect: float


STRUCTURES = {
    "independent": Structure(0.0, 0.0, 0.0, 0.0),
    "items .3, worlds .05": Structure(0.3, 0.05, 0.0, 0.0),
    "items .9, worlds .02": Structure(0.9, 0.02, 0.0, 0.0),
    "uneven": Structure(0.3, 0.05, 0.3, 0.2),
}


def draw(
    worlds: int, items: int, effect: float, structure: Structure, rng: np.random.Generator
) -> tuple[Floats, Bools]:
    """Scores and members, [worlds, items]."""
    item, world, noise = (rng.standard_normal(shape) for shape in ((1, items), (worlds, 1), (worlds, items)))
    members = rng.permuted(np.tile(np.arange(worlds)[:, None] < worlds // 2, items), axis=0)
    shift = effect * (
        1
        + structure.item_effect * rng.standard_normal((1, items))
        + structure.world_effect * rng.standard_normal((worlds, 1))
    )
    own = 1 - structure.item - structure.world
    base = np.sqrt(structure.item) * item + np.sqrt(structure.world) * world + np.sqrt(own) * noise
    return base + members * shift, members


def truth(metric: Metric, effect: float, structure: Structure, scores: Floats, members: Bools) -> float:
    """The value over new worlds and new items; for advantage and precision, that of the thresholds learned here."""
    spread = np.sqrt(1 + effect**2 * (structure.item_effect**2 + structure.world_effect**2))
    if metric.kind == "auc":
        return float(norm.cdf(effect / np.sqrt(1 + spread**2)))
    if metric.kind == "tpr":
        return float(norm.sf((norm.isf(metric.level) - effect) / spread))
    world, item = np.nonzero(np.ones_like(members))
    order = np.argsort(-scores.ravel(), kind="stable")
    entries = Entries(scores.ravel()[order], members.ravel()[order], world[order], item[order])
    thresholds = held_out_thresholds(entries)
    assert thresholds is not None
    tpr = norm.sf((thresholds[entries.members] - effect) / spread).mean()
    fpr = norm.sf(thresholds[~entries.members]).mean()
    if metric.kind == "advantage":
        return float(tpr - fpr)
    return float(metric.level * tpr / (metric.level * tpr + (1 - metric.level) * fpr))


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    print("| worlds x items | structure | effect | " + " | ".join(metric.name for metric in METRICS) + " |")
    print("|---" * (3 + len(METRICS)) + "|")
    for (worlds, items), simulations in DESIGNS.items():
        for name, structure in STRUCTURES.items():
            if items == 1 and name != "independent":
                continue
            for label, effect in EFFECTS.items():
                if effect == 0 and name == "uneven":
                    continue
                found: dict[Metric, list[tuple[float, float, float, float]]] = {metric: [] for metric in METRICS}
                for _ in range(simulations):
                    scores, members = draw(worlds, items, effect, structure, rng)
                    for metric in METRICS:
                        result = measure(metric, scores, members, np.ones_like(members))
                        if isinstance(result, Measured):
                            value = truth(metric, effect, structure, scores, members)
                            found[metric].append((result.estimate, result.low, result.high, value))
                cells = [_cell(np.array(found[metric])) if found[metric] else "unresolved" for metric in METRICS]
                print(f"| {worlds} x {items} | {name} | {label} | " + " | ".join(cells) + " |", flush=True)


def _cell(found: Floats) -> str:
    """Coverage, mean width, and the width an oracle that knows the spread of the error would give."""
    estimate, low, high, value = found.T
    covered = np.mean((low <= value) & (value <= high))
    return f"{100 * covered:.0f} % ({np.mean(high - low):.3f} / {2 * 1.96 * np.std(estimate - value):.3f})"


if __name__ == "__main__":
    main()
