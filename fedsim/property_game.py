"""The property game: populations that differ in the share of a property and in nothing else.

Which rows of the pool each world trains on, and nothing more: `fedsim.game` makes worlds and exams of them.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsim.data.partition import PARTITIONS
from fedsim.data.pool import Pool, victim_rows
from fedsim.errors import ScenarioError
from fedsim.randomness import generator
from fedsim.scenario import PropertyGame, Scenario

Bools = NDArray[np.bool_]
Rows = NDArray[np.int64]

PROPERTY_SAMPLE = 500
"""Records of the public sample of each hypothesis, at most."""


class Population(NamedTuple):
    """What one world trains on. secret: a "yes" world. victim: attacked, not one of the attacker's own."""

    kind: Literal["main", "null", "planted"]
    rows: Rows
    owner: Rows  # the client that trains on each row
    secret: bool
    victim: bool


class Populations(NamedTuple):
    """All the worlds of a property game, exam by exam, the public samples of "no" and "yes", and how strongly property
    and label hang together.
    """

    worlds: tuple[Population, ...]
    no: Rows
    yes: Rows
    correlation: float


def populations(scenario: Scenario, pool: Pool, game: PropertyGame, name: str) -> Populations:
    """Return populations with one of two shares of a property; size and label counts are the same in all.

    Victims and the attacker's own worlds draw from disjoint halves of the private rows. name: of the game, from which
    its randomness is derived.
    """
    if game.column not in pool.columns:
        raise ScenarioError(
            f"audits: there is no column {game.column!r}; columns here: {', '.join(sorted(pool.columns)) or 'none'}"
        )
    column = pool.columns[game.column].astype(str)
    if game.value not in column:
        values = ", ".join(sorted(set(column))[:12])
        raise ScenarioError(f"audits: column {game.column!r} has no value {game.value!r}; values here: {values}")
    has = column == game.value
    rng = generator(scenario.seed, "property", name)
    private = rng.permutation(victim_rows(pool))
    halves = private[: len(private) // 2], private[len(private) // 2 :]
    mix = _evenly(pool.y[private])
    size = game.records or len(pool.candidates) // 2
    supplies = [_supply(pool, has, half) for half in halves]
    for share in game.shares:
        _require(mix, size, share, supplies)
    no, yes = (round(share * size) for share in game.shares)

    def dealt(rows: Rows) -> Rows:
        scheme = scenario.data.partition.scheme
        # Clients of a natural partition keep their names, whatever their size in this world.
        if scheme == "natural":
            return pool.owner[rows]
        return PARTITIONS[scheme](pool.y[rows], {}, pool.clients, scenario.data.partition, rng)

    public = _supply(pool, has, pool.population)
    sample = min(_largest(mix, PROPERTY_SAMPLE, share, [public]) for share in game.shares)
    if sample < 2:
        raise ScenarioError(
            f"audits: the {len(pool.population)} records of `data.population` are too few for public samples with "
            f"shares of {game.shares[0]:g} and {game.shares[1]:g} of {game.column}={game.value}; "
            "set `data.population` higher"
        )
    no_sample, yes_sample = (
        _stratified(pool, has, pool.population, mix[:sample], round(share * sample), rng) for share in game.shares
    )
    worlds: list[Population] = []

    def exam(kind: Literal["main", "null", "planted"], holders: tuple[int, int]) -> None:
        secrets = generator(scenario.seed, "coins", name, kind).random(2 * scenario.worlds) < 0.5
        for w, secret in enumerate(secrets):
            victim = w < scenario.worlds
            rows = _stratified(pool, has, halves[int(not victim)], mix[:size], holders[int(secret)], rng)
            worlds.append(Population(kind, rows, dealt(rows), bool(secret), victim))

    exam("main", (no, yes))
    exam("null", ((no + yes) // 2, (no + yes) // 2))
    if scenario.controls.planted_worlds:
        low, high = _extremes(mix[:size], supplies)
        exam("planted", (high, low) if no > yes else (low, high))
    return Populations(tuple(worlds), no_sample, yes_sample, _correlation(has[private], pool.y[private]))


class _Supply(NamedTuple):
    """How many records of each label [classes] there are with and without the property."""

    holders: Rows
    others: Rows


def _supply(pool: Pool, has: Bools, source: Rows) -> _Supply:
    holders, others = (
        np.bincount(pool.y[source][has[source] == holds], minlength=pool.classes) for holds in (True, False)
    )
    return _Supply(holders, others)


# Every world takes its labels from the start of one such list, and the holders of the property take the start of that:
# no count can depend on the secret, and a share between two possible ones is always possible.
def _evenly(labels: Rows) -> Rows:
    """Return the labels in an order of which each piece has the mix of the whole, up to one record a label."""
    counts = np.bincount(labels)
    place = np.concatenate([(np.arange(count) + 0.5) / count for count in counts if count])
    return np.repeat(np.arange(len(counts)), counts)[np.argsort(place, kind="stable")]


def _enough(labels: Rows, available: Rows) -> bool:
    return bool((np.bincount(labels, minlength=len(available)) <= available).all())


def _largest(mix: Rows, size: int, share: float, supplies: Sequence[_Supply]) -> int:
    """Return the largest number of records, `size` at most, of which this share can have the property."""
    for wanted in range(min(size, len(mix)), 0, -1):
        holders = round(share * wanted)
        if all(
            _enough(mix[:holders], supply.holders) and _enough(mix[holders:wanted], supply.others)
            for supply in supplies
        ):
            return wanted
    return 0


def _require(mix: Rows, size: int, share: float, supplies: Sequence[_Supply]) -> None:
    possible = _largest(mix, size, share, supplies)
    if possible < size or size < 2:
        raise ScenarioError(
            f"audits: a world with a share of {share:g} and this label mix can have at most {possible} records and "
            f"needs at least 2, not {size}; "
            "set `records` of the property game lower, or `data.candidates` higher"
        )


def _stratified(pool: Pool, has: Bools, source: Rows, labels: Rows, holders: int, rng: np.random.Generator) -> Rows:
    """Return rows of `source` with these labels, the first `holders` of them with the property, in random order."""
    chosen = []
    for holds, part in ((True, labels[:holders]), (False, labels[holders:])):
        for label, count in enumerate(np.bincount(part, minlength=pool.classes)):
            chosen.append(rng.permutation(source[(has[source] == holds) & (pool.y[source] == label)])[:count])
    return rng.permutation(np.concatenate(chosen))


def _extremes(labels: Rows, supplies: Sequence[_Supply]) -> tuple[int, int]:
    """Return the smallest and the largest number of holders of the property that worlds with these labels can have."""
    numbers = range(len(labels) + 1)
    low = next(n for n in numbers if all(_enough(labels[n:], supply.others) for supply in supplies))
    high = next(n for n in reversed(numbers) if all(_enough(labels[:n], supply.holders) for supply in supplies))
    return low, high


def _correlation(has: Bools, labels: Rows) -> float:
    """Return Cramer's V of property and label: 0 unrelated, 1 one determines the other."""
    from scipy.stats.contingency import association

    table = np.stack([np.bincount(labels[has == holds], minlength=labels.max() + 1) for holds in (False, True)])
    table = table[:, table.sum(axis=0) > 0]
    return float(association(table, method="cramer")) if min(table.shape) > 1 else 0.0
