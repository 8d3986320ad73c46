"""Record sets that differ in how many of their records have a property, and in no count of labels or records."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsim.data.pool import Pool
from fedsim.errors import ScenarioError

Bools = NDArray[np.bool_]
Rows = NDArray[np.int64]

SETS = 12
"""Public record sets of each kind that an attacker practises on."""


class Wanted(NamedTuple):
    """What a record set is made of: its labels [size], and how many of the first of them belong to holders."""

    labels: Rows
    holders: int


def with_property(pool: Pool, column: str, value: str) -> Bools:
    """Return which rows of the pool have the property; ScenarioError, with what there is, where nothing has it."""
    if column not in pool.columns:
        raise ScenarioError(
            f"audits: there is no column {column!r}; columns here: {', '.join(sorted(pool.columns)) or 'none'}"
        )
    text = pool.columns[column].astype(str)
    if value not in text:
        values = ", ".join(sorted(set(text))[:12])
        raise ScenarioError(f"audits: column {column!r} has no value {value!r}; values here: {values}")
    return np.asarray(text == value)


def even_labels(labels: Rows, size: int) -> Rows:
    """Return `size` labels of which each beginning has the mix of all these labels, up to one record a label."""
    counts = np.bincount(labels)
    place = np.concatenate([(np.arange(count) + 0.5) / count for count in counts if count])
    order = np.repeat(np.arange(len(counts)), counts)[np.argsort(place, kind="stable")]
    return order[np.arange(size) % len(order)]


def deal(pool: Pool, has: Bools, source: Rows, sets: list[Wanted], rng: np.random.Generator) -> list[Rows]:
    """Return disjoint sets of rows of `source` as they are wanted, each in random order; ScenarioError where records
    run out.
    """
    stock = {
        (holds, label): rng.permutation(source[(has[source] == holds) & (pool.y[source] == label)]).tolist()
        for holds in (True, False)
        for label in range(pool.classes)
    }
    dealt = []
    for wanted in sets:
        places = [(i < wanted.holders, int(label)) for i, label in enumerate(wanted.labels)]
        for holds, label in places:
            if not stock[holds, label]:
                raise ScenarioError(
                    f"audits: there are too few records of class {pool.class_names[label]} "
                    f"{'with' if holds else 'without'} the property for {len(sets)} sets of {len(wanted.labels)} "
                    f"records among {len(source)}; set `records` of the game lower, or data.candidates higher (and "
                    "data.population, where the public records run out)"
                )
            dealt.append(stock[holds, label].pop())
    ends = np.cumsum([len(wanted.labels) for wanted in sets])
    return [rng.permutation(part) for part in np.split(np.asarray(dealt, dtype=np.int64), ends[:-1])]


def practice(pool: Pool, has: Bools, no: Wanted, yes: Wanted, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Return places in the population [SETS, size] of public record sets without and with the property; sets of one
    kind may have records in common.
    """
    found = [
        np.stack([deal(pool, has, pool.population, [wanted], rng)[0] for _ in range(SETS)]) for wanted in (no, yes)
    ]
    place = np.zeros(len(pool.y), dtype=np.int64)
    place[pool.population] = np.arange(len(pool.population))
    return place[found[0]], place[found[1]]


def correlation(has: Bools, labels: Rows) -> float:
    """Return Cramer's V of property and label: 0 unrelated, 1 one determines the other."""
    from scipy.stats.contingency import association

    table = np.stack([np.bincount(labels[has == holds], minlength=labels.max() + 1) for holds in (False, True)])
    table = table[:, table.sum(axis=0) > 0]
    return float(association(table, method="cramer")) if min(table.shape) > 1 else 0.0
