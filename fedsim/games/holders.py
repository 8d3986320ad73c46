"""Record sets that differ in how many of their records have a property, and in no count of labels or records."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsim.data.pool import Pool, victim_rows
from fedsim.errors import ScenarioError
from fedsim.scenario import Span, Value, property_words, shortest
from fedsim.world import Bools, Rows

SETS = 12
"""Public record sets of each kind that an attacker practises on."""
SHOWN = 12
"""Values of a column that a message names, at most."""
FEWEST_BLOCKS = 5
"""With fewer blocks than this, intervals would say next to nothing of new records, so worlds draw from all records."""
ENOUGH_BLOCKS = 8
"""Blocks that a game makes room for where the scenario leaves the number of records to it ..."""
SMALLEST_SET = 20
"""... unless it would come down to fewer records than this."""


class Wanted(NamedTuple):
    """What a record set is made of: its labels [size], and how many of the first of them belong to holders."""

    labels: Rows
    holders: int


def with_property(pool: Pool, column: str, value: Value) -> Bools:
    """Return which rows of the pool have a property of one column; see `with_properties`."""
    return with_properties(pool, {column: value})


def with_properties(pool: Pool, parts: Mapping[str, Value]) -> Bools:
    """Return which rows of the pool have a property: all its parts, column -> value.

    Raises: ScenarioError, with what there is, for a column that is not there or cannot be compared, where all records
    have the property or none has it, and where the label says who has it.
    """
    has: Bools = np.logical_and.reduce([_with_part(pool, column, value) for column, value in parts.items()])
    named = " & ".join(property_words(column, value) for column, value in parts.items())
    if not has.any():
        raise ScenarioError(f"audits: no record has {named}, though some have each part of it")
    # Wrong labels and those of the planted rows say nothing of the records.
    known = np.concatenate([victim_rows(pool), pool.population])
    rows = np.setdiff1d(known, np.flatnonzero(pool.mislabelled))
    if correlation(has[rows], pool.y[rows]) > 1 - 1e-9:
        raise ScenarioError(
            f"audits: the label of a record says whether it has {named}, and every world has as many records of each "
            "label, so there would be no secret; ask about labels with the game labels"
        )
    return has


def _with_part(pool: Pool, column: str, value: Value) -> Bools:
    """Return which rows have a value in a column; ScenarioError where none or all do."""
    if column not in pool.columns:
        raise ScenarioError(
            f"audits: there is no column {column!r}; columns here: {', '.join(sorted(pool.columns)) or 'none'} (one of "
            "your own: `--property NAME=FILE.py:FUNCTION`)"
        )
    found = pool.columns[column]
    has = _between(column, found, value) if isinstance(value, Span) else _equal(found, value)
    if not has.any() and not isinstance(value, Span):
        given = str(value).lower() if isinstance(value, bool) else value
        raise ScenarioError(f"audits: column {column!r} has no value {given!r}; values here: {_values(found)}")
    if not has.any() or has.all():
        raise ScenarioError(
            f"audits: {'every' if has.all() else 'no'} record has {property_words(column, value)}, so there is no "
            f"secret; values here: {_values(found)}"
        )
    return has


def _equal(found: NDArray[Any], value: str | bool) -> Bools:
    """Return where a column [n] has a value; of numbers, whatever they are written like."""
    wanted = str(value).lower() if isinstance(value, bool) else value
    if found.dtype.kind in "iuf":
        try:
            return np.asarray(found == float(wanted))
        except ValueError:
            return np.zeros(len(found), dtype=bool)
    return np.asarray(_text(found) == (wanted.lower() if found.dtype.kind == "b" else wanted))


def _between(column: str, found: NDArray[Any], span: Span) -> Bools:
    """Return where the numbers of a column [n] lie between bounds; ScenarioError for a column of anything else."""
    try:
        numbers = (found if found.dtype.kind in "iuf" else _text(found)).astype(np.float64)
    except ValueError:
        numbers = np.full(len(found), np.nan)
    if not np.isfinite(numbers).all():
        raise ScenarioError(
            f"audits: column {column!r} cannot be compared with numbers, for not all it holds are numbers; give one of "
            f"its values in quotes; values here: {_values(found)}"
        )
    has = np.ones(len(found), dtype=bool)
    has &= span.above is None or numbers > span.above
    has &= span.at_least is None or numbers >= span.at_least
    has &= span.below is None or numbers < span.below
    has &= span.at_most is None or numbers <= span.at_most
    return has


def _text(found: NDArray[Any]) -> NDArray[np.str_]:
    """Return a column [n] as text; true and false as YAML has them."""
    text = found.astype(np.str_)
    return np.asarray(np.char.lower(text)) if found.dtype.kind == "b" else text


def _values(found: NDArray[Any]) -> str:
    """Return the values of a column in words: a few of them, or the range of many numbers."""
    if found.dtype.kind not in "iuf" or not np.isfinite(found).all():
        return ", ".join(sorted(set(_text(found).tolist()))[:SHOWN])
    values = np.unique(found)
    if len(values) > SHOWN:
        return f"{shortest(values[0])} to {shortest(values[-1])}"
    return ", ".join(map(shortest, values))


def even_labels(labels: Rows, size: int) -> Rows:
    """Return `size` labels of which each beginning has the mix of all these labels, up to one record a label."""
    counts = np.bincount(labels)
    place = np.concatenate([(np.arange(count) + 0.5) / count for count in counts if count])
    order = np.repeat(np.arange(len(counts)), counts)[np.argsort(place, kind="stable")]
    return order[np.arange(size) % len(order)]


def kinds(labels: Rows, share: float, size: int) -> tuple[Wanted, Wanted]:
    """Return record sets of `size` with the mix of these labels: without the property, and with a share of it, which is
    one record at least.
    """
    mix = even_labels(labels, size)
    return Wanted(mix, 0), Wanted(mix, max(round(share * size), 1))


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


class Practice(NamedTuple):
    """Public record sets as a client without the property holds them, and as one with it: places in the population."""

    no: Rows
    yes: Rows


class Supply(NamedTuple):
    """How many records of each label [classes] there are, or are needed, with and without the property."""

    holders: Rows
    others: Rows

    def times(self, count: int) -> "Supply":
        """Return so many times as much."""
        return Supply(self.holders * count, self.others * count)

    def plus(self, more: "Supply") -> "Supply":
        """Return both together."""
        return Supply(self.holders + more.holders, self.others + more.others)

    def less(self, taken: "Supply") -> "Supply":
        """Return what is left."""
        return Supply(self.holders - taken.holders, self.others - taken.others)


def supply(pool: Pool, has: Bools, source: Rows) -> Supply:
    """Return what rows of the pool there are."""
    return Supply(
        *(np.bincount(pool.y[source[has[source] == holds]], minlength=pool.classes) for holds in (True, False))
    )


def needed(classes: int, sets: Sequence[Wanted]) -> Supply:
    """Return what any one of these sets can be dealt from."""
    most = Supply(np.zeros(classes, dtype=np.int64), np.zeros(classes, dtype=np.int64))
    for labels, holders in sets:
        with_it, without = (np.bincount(part, minlength=classes) for part in (labels[:holders], labels[holders:]))
        most = Supply(np.maximum(most.holders, with_it), np.maximum(most.others, without))
    return most


# What holders of a property and the others happen to differ in among the records here, all worlds that draw from the
# same records share: an attack is then right, or wrong, in all of them together. Blocks of records are independent.
def blocks(available: Supply, need: Supply, worlds: int) -> int:
    """Return into how many disjoint blocks, each with all that one world needs, records can be dealt: one a world at
    most, and 1 where it is too few to be worth it.
    """
    have, wanted = np.concatenate(available), np.concatenate(need)
    if (have < 0).any():
        return 1
    fit = min([worlds, *(have[wanted > 0] // wanted[wanted > 0]).tolist()])
    return fit if fit >= min(FEWEST_BLOCKS, worlds) else 1


def group_of(world: int, count: int) -> int:
    """Return the number that worlds of one block share: `count` blocks are used in turn, and with a single one every
    world is its own.
    """
    return world % count if count > 1 else world


def split(pool: Pool, has: Bools, source: Rows, parts: int, rng: np.random.Generator) -> Rows:
    """Return disjoint blocks of rows of `source` [parts, size], with equally many of each label with the property and
    without; what cannot be dealt evenly is left out.
    """
    cells = [
        source[(has[source] == holds) & (pool.y[source] == label)]
        for holds in (True, False)
        for label in range(pool.classes)
    ]
    return np.concatenate(
        [rng.permutation(rows)[: len(rows) // parts * parts].reshape(parts, -1) for rows in cells], axis=1
    )


def roomiest(parts: Callable[[int], int], most: int, blocks: int) -> int | None:
    """Return the largest size of a set, SMALLEST_SET to `most`, with which there are so many blocks; None if none is.

    parts: size -> blocks; the larger the sets, the fewer.
    """
    sizes = range(most, SMALLEST_SET - 1, -1)
    place = bisect_left(sizes, True, key=lambda size: parts(size) >= blocks)
    return sizes[place] if place < len(sizes) else None


def same_records(parts: Callable[[int], int], size: int, worlds: int) -> str | None:
    """Return what intervals do not cover where all worlds draw from the same records, and what to do about it; None
    where worlds draw from blocks.
    """
    if worlds == 1 or parts(size) > 1:
        return None
    possible = roomiest(parts, size, min(FEWEST_BLOCKS, worlds))
    fewer = f"`records` of the game to {possible} or fewer, or " if possible is not None else ""
    return (
        "The intervals cover new trainings on the same private records, and not other records: what those with the "
        "property and the others happen to differ in here, all worlds share. There are too few records to give each "
        f"world others; set {fewer}`data.candidates` higher."
    )


def practice(pool: Pool, has: Bools, no: Wanted, yes: Wanted, rng: np.random.Generator) -> Practice:
    """Return SETS public record sets of either kind; those of one kind may have records in common."""
    found = [
        np.stack([deal(pool, has, pool.population, [wanted], rng)[0] for _ in range(SETS)]) for wanted in (no, yes)
    ]
    place = np.zeros(len(pool.y), dtype=np.int64)
    place[pool.population] = np.arange(len(pool.population))
    return Practice(place[found[0]], place[found[1]])


def planted_practice(pool: Pool, first: Bools, size: int, rng: np.random.Generator) -> Practice:
    """Return public record sets of the planted question, with records in common where there are few."""
    public = first[pool.population]
    sides = [
        np.stack([rng.choice(rows if len(rows) else np.arange(len(public)), size) for _ in range(SETS)])
        for rows in (np.flatnonzero(~public), np.flatnonzero(public))
    ]
    return Practice(*sides)


def correlation(has: Bools, labels: Rows) -> float:
    """Return Cramer's V of property and label: 0 unrelated, 1 one determines the other."""
    from scipy.stats.contingency import association

    table = np.stack([np.bincount(labels[has == holds], minlength=labels.max() + 1) for holds in (False, True)])
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    return float(association(table, method="cramer")) if min(table.shape) > 1 else 0.0
