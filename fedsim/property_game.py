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
from fedsim.holders import correlation, even_labels, with_properties
from fedsim.randomness import generator
from fedsim.scenario import PropertyGame, Scenario, property_words

Bools = NDArray[np.bool_]
Rows = NDArray[np.int64]

PROPERTY_SAMPLE = 500
"""Records of the public sample of each hypothesis, at most."""


Kind = Literal["main", "null", "planted"]


class Population(NamedTuple):
    """What one world trains on. victim: attacked, not one of the attacker's own."""

    kind: Kind
    rows: Rows
    owner: Rows  # the client that trains on each row
    share: float  # the secret; where there is nothing to find, one that has nothing to do with the rows
    secret: bool  # whether that is nearer to the last share of the game than to the first: a "yes" world
    victim: bool


class Populations(NamedTuple):
    """All the worlds of a property game, exam by exam, the shares as whole records make them, the public samples of the
    first and of the last of these, how strongly property and label hang together, and the public records with the
    property.
    """

    worlds: tuple[Population, ...]
    shares: tuple[float, ...]
    no: Rows
    yes: Rows
    correlation: float
    holders: Rows


def title(game: PropertyGame) -> str:
    """Return the short name of a property game, unique among different ones."""
    records, shares = game.records, ":".join(f"{share:g}" for share in game.shares)
    return f"property:{_named(game)}:{shares}:{records}" + (f":client {game.client}" if game.client is not None else "")


def populations(scenario: Scenario, pool: Pool, game: PropertyGame) -> Populations:
    """Return populations in which one of several shares of the records has a property; size and label counts are the
    same in all.

    The share is that of all records, or that of one client's. Then the others hold as much of the property in every
    world: the middle of the shares, or, where clients are a natural partition, what their own records have on average.
    Victims and the attacker's own worlds draw from disjoint halves of the private rows.

    Raises: ScenarioError where the records cannot be drawn like that; it says what is possible.
    """
    has = _holders(pool, game)
    rng = generator(scenario.seed, "property", title(game))
    private = rng.permutation(victim_rows(pool))
    cells = private[np.argsort(has[private] * pool.classes + pool.y[private], kind="stable")]
    halves = rng.permutation(cells[::2]), rng.permutation(cells[1::2])  # each has half of every label, either way
    context = _others(scenario, pool, game, has, private, halves)
    sources = [_left(pool, has, half, context) for half in halves]
    asked = private if context.only is None else private[pool.owner[private] == context.only]
    # Every world takes its labels from the start of this list, and the holders of the property take the start of that:
    # no count can depend on the secret, and a share between two possible ones is always possible.
    mix = even_labels(pool.y[asked], len(asked))
    size = game.records or len(pool.candidates) // (2 if game.client is None else 2 * pool.clients)
    for share in game.shares:
        _require(mix, size, share, sources)
    holders = _counts(game, size)
    public = _supply(pool, has, pool.population)
    sample = min(_largest(mix, PROPERTY_SAMPLE, share, [public]) for share in game.shares)
    if sample < 2:
        raise ScenarioError(
            f"audits: the {len(pool.population)} records of `data.population` are too few for public samples with "
            f"shares of {min(game.shares):g} and {max(game.shares):g} of {_named(game)}; set `data.population` higher"
        )
    no, yes = (
        _stratified(pool, has, pool.population, mix[:sample], _number(share, sample), rng)
        for share in (game.shares[0], game.shares[-1])
    )
    worlds: list[Population] = []

    def exam(kind: Kind, shares: Sequence[float], counts: Sequence[int]) -> None:
        coins = generator(scenario.seed, "coins", title(game), kind).random(2 * scenario.worlds)
        for w, coin in enumerate(coins):
            chosen = len(shares) - 1 - int(coin * len(shares))
            victim, share = w < scenario.worlds, shares[chosen]
            half = halves[int(not victim)]
            if game.client is None:
                rows = _stratified(pool, has, half, mix[:size], counts[chosen], rng)
                owner = _dealt(scenario, pool, rows, rng)
            else:
                rows, owner = _around(scenario, pool, game.client, has, half, context, mix[:size], counts[chosen], rng)
            secret = abs(share - shares[-1]) < abs(share - shares[0]) - 1e-9  # 0.2 to 0.4 is not 0.4 to 0.6
            worlds.append(Population(kind, rows, owner, share, secret, victim))

    shares = tuple(count / size for count in holders)
    exam("main", shares, holders)
    exam("null", shares, [(min(holders) + max(holders)) // 2] * len(holders))
    if scenario.controls.planted_worlds:
        ends = _extremes(mix[:size], sources)[:: 1 if game.shares[0] < game.shares[-1] else -1]
        exam("planted", [end / size for end in ends], ends)
    related = correlation(has[private], pool.y[private])
    return Populations(tuple(worlds), shares, no, yes, related, pool.population[has[pool.population]])


def _named(game: PropertyGame) -> str:
    """Return the property in words, such as sex=Female & race=Black."""
    return " & ".join(property_words(column, value) for column, value in game.parts.items())


def _holders(pool: Pool, game: PropertyGame) -> Bools:
    """Return which rows of the pool have the property."""
    return with_properties(pool, game.parts)


def _number(share: float, size: int) -> int:
    """Return how many of `size` records a share is: of a share above 0 at least one."""
    return max(round(share * size), int(share > 0))


def _counts(game: PropertyGame, size: int) -> list[int]:
    """Return how many records have the property at each share."""
    counts = [_number(share, size) for share in game.shares]
    if len(set(counts)) < len(counts):
        raise ScenarioError(
            f"audits: of {size} records, shares of {', '.join(f'{share:g}' for share in game.shares)} are "
            f"{', '.join(map(str, counts))} records, so there is no secret; set `records` of the property game higher"
        )
    return counts


def _dealt(scenario: Scenario, pool: Pool, rows: Rows, rng: np.random.Generator) -> Rows:
    """Return who holds each row; clients of a natural partition keep their names, whatever their size."""
    scheme = scenario.data.partition.scheme
    if scheme == "natural":
        return pool.owner[rows]
    return PARTITIONS[scheme](pool.y[rows], {}, pool.clients, scenario.data.partition, rng)


class _Others(NamedTuple):
    """The clients that the question is not about. taken: how many records of each label they hold with the property and
    without, in every world alike. only: the client whose own rows alone it may hold; None: anybody's.
    """

    taken: "_Supply"
    labels: Rows
    holders: int
    only: int | None


def _others(
    scenario: Scenario, pool: Pool, game: PropertyGame, has: Bools, private: Rows, halves: tuple[Rows, Rows]
) -> _Others:
    nothing = np.zeros(pool.classes, dtype=np.int64)
    none = _Others(_Supply(nothing, nothing), np.zeros(0, dtype=np.int64), 0, None)
    if game.client is None:
        return none
    if not game.client < pool.clients:
        raise ScenarioError(f"audits: no client {game.client}; clients are 0 ... {pool.clients - 1}")
    if scenario.data.partition.scheme == "natural":
        return none._replace(only=game.client)
    mix = even_labels(pool.y[private], len(private))
    size = (game.records or len(pool.candidates) // (2 * pool.clients)) * (pool.clients - 1)
    middle = (min(game.shares) + max(game.shares)) / 2
    if size:
        _require(mix, size, middle, [_supply(pool, has, half) for half in halves], "the clients not asked about have")
    holders = round(middle * size)
    counts = (np.bincount(part, minlength=pool.classes) for part in (mix[:holders], mix[holders:size]))
    return _Others(_Supply(*counts), mix[:size], holders, None)


def _left(pool: Pool, has: Bools, half: Rows, others: _Others) -> "_Supply":
    """Return what the others leave of a half."""
    mine = half if others.only is None else half[pool.owner[half] == others.only]
    supply = _supply(pool, has, mine)
    return _Supply(supply.holders - others.taken.holders, supply.others - others.taken.others)


def _around(
    scenario: Scenario,
    pool: Pool,
    client: int,
    has: Bools,
    half: Rows,
    others: _Others,
    labels: Rows,
    holders: int,
    rng: np.random.Generator,
) -> tuple[Rows, Rows]:
    """Return the rows of a world and their owners: `client` has the property so often, the rest as always."""
    if others.only is not None:
        apart = [half[pool.owner[half] == each] for each in range(pool.clients) if each != client]
        rest = np.concatenate([rng.permutation(rows)[: (len(rows) + 1) // 2] for rows in apart])
        owner = pool.owner[rest]
        source = half[pool.owner[half] == client]
    else:
        rest = _stratified(pool, has, half, others.labels, others.holders, rng)
        everybody_else = np.setdiff1d(np.arange(pool.clients), [client])
        scheme = scenario.data.partition.scheme
        owner = everybody_else[
            PARTITIONS[scheme](pool.y[rest], {}, pool.clients - 1, scenario.data.partition, rng)
            if len(rest)
            else np.zeros(0, dtype=np.int64)
        ]
        source = half[~np.isin(half, rest)]
    mine = _stratified(pool, has, source, labels, holders, rng)
    return np.concatenate([mine, rest]), np.concatenate([np.full(len(mine), client), owner])


class _Supply(NamedTuple):
    """How many records of each label [classes] there are with and without the property."""

    holders: Rows
    others: Rows


def _supply(pool: Pool, has: Bools, source: Rows) -> _Supply:
    counts = (np.bincount(pool.y[source][has[source] == holds], minlength=pool.classes) for holds in (True, False))
    return _Supply(*counts)


def _enough(labels: Rows, available: Rows) -> bool:
    return bool((np.bincount(labels, minlength=len(available)) <= available).all())


def _largest(mix: Rows, size: int, share: float, supplies: Sequence[_Supply]) -> int:
    """Return the largest number of records, `size` at most, of which this share can have the property."""
    for wanted in range(min(size, len(mix)), 0, -1):
        holders = _number(share, wanted)
        if all(
            _enough(mix[:holders], supply.holders) and _enough(mix[holders:wanted], supply.others)
            for supply in supplies
        ):
            return wanted
    return 0


def _require(
    mix: Rows, size: int, share: float, supplies: Sequence[_Supply], who: str = "a world with this label mix has"
) -> None:
    possible = _largest(mix, size, share, supplies)
    if possible < size or size < 2:
        raise ScenarioError(
            f"audits: {who} at most {possible} records with a share of {share:g}, and {size} are asked for "
            "(2 or more); "
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
    possible = [
        n
        for n in numbers
        if all(_enough(labels[:n], supply.holders) and _enough(labels[n:], supply.others) for supply in supplies)
    ]
    return possible[0], possible[-1]
