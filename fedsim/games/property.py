"""The property game: populations that differ in the share of a property and in nothing else."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fedsim.data.partition import PARTITIONS
from fedsim.data.pool import Pool, victim_rows
from fedsim.errors import ScenarioError
from fedsim.games.common import bare_world, by_owner, grouped, records_of, world_of
from fedsim.games.holders import (
    ENOUGH_BLOCKS,
    SMALLEST_SET,
    Supply,
    Wanted,
    blocks,
    correlation,
    even_labels,
    group_of,
    needed,
    roomiest,
    same_records,
    split,
    supply,
    with_properties,
)
from fedsim.randomness import generator
from fedsim.scenario import PropertyGame, Scenario, property_words, shortest
from fedsim.views import PropertyAsk
from fedsim.world import Bools, Draw, Exam, Kind, Rows, World

PROPERTY_SAMPLE = 500
"""Records of the public sample of each hypothesis, at most."""


class Population(NamedTuple):
    """What one world trains on. victim: attacked, not one of the attacker's own. group: worlds with the same number
    share records.
    """

    kind: Kind
    rows: Rows
    owner: Rows  # the client that trains on each row
    share: float  # the secret; where there is nothing to find, one that has nothing to do with the rows
    secret: bool  # whether that is nearer to the last share of the game than to the first: a "yes" world
    victim: bool
    group: int


class Populations(NamedTuple):
    """All the worlds of a property game, exam by exam, the shares as whole records make them, the public samples of the
    first and of the last of these, how strongly property and label hang together, the public records with the property,
    what intervals over these worlds do not cover, and the records of a world, or of the client asked about.
    """

    worlds: tuple[Population, ...]
    shares: tuple[float, ...]
    no: Rows
    yes: Rows
    correlation: float
    holders: Rows
    caveat: str | None
    size: int


def title(game: PropertyGame) -> str:
    """Return the short name of a property game, unique among different ones."""
    records, shares = game.records, ":".join(map(shortest, game.shares))
    return f"property:{_named(game)}:{shares}:{records}" + (f":client {game.client}" if game.client is not None else "")


def populations(scenario: Scenario, pool: Pool, game: PropertyGame) -> Populations:
    """Return populations in which one of several shares of the records has a property; size and label counts are the
    same in all.

    The share is that of all records, or that of one client's. Then the others hold as much of the property in every
    world: the middle of the shares, or, where clients are a natural partition, what their own records have on average.
    Victims and the attacker's own worlds draw from disjoint halves of the private rows. The victims' half is dealt into
    disjoint blocks of records, with as many of each label and of the property in each; a world draws from one of them.

    Raises: ScenarioError where the records cannot be drawn like that; it says what is possible.
    """
    has = _holders(pool, game)
    rng = generator(scenario.seed, "property", title(game))
    private = rng.permutation(victim_rows(pool))
    cells = private[np.argsort(has[private] * pool.classes + pool.y[private], kind="stable")]
    halves = rng.permutation(cells[::2]), rng.permutation(cells[1::2])  # each has half of every label, either way
    if game.client is not None and not game.client < pool.clients:
        raise ScenarioError(f"audits: no client {game.client}; clients are 0 ... {pool.clients - 1}")
    natural = scenario.data.partition.scheme == "natural"
    only = game.client if natural else None
    asked = private if only is None else private[pool.owner[private] == only]
    # Every world takes its labels from the start of this list, and the holders of the property take the start of that:
    # no count can depend on the secret, and a share between two possible ones is always possible.
    mix, whole = even_labels(pool.y[asked], len(asked)), even_labels(pool.y[private], len(private))

    middle = (min(game.shares) + max(game.shares)) / 2
    beside = 0 if game.client is None or natural else pool.clients - 1

    def others(size: int) -> _Others:
        return _Others(whole[: size * beside], round(middle * size * beside), only)

    def parts(size: int) -> int:
        """Into how many blocks the victims' half can be dealt where a world has so many records."""
        left = _left(pool, has, halves[0], others(size))
        need = needed(pool.classes, [Wanted(mix[:size], count) for count in _counts(game, size)])
        return blocks(left, need, scenario.worlds)

    size = _size(scenario, pool, game, len(asked), parts)
    context = others(size)
    if beside:
        supplies = [supply(pool, has, half) for half in halves]
        _require(whole, size * beside, middle, supplies, "the clients not asked about have")
    sources = [_left(pool, has, half, context) for half in halves]
    for share in game.shares:
        _require(mix, size, share, sources)
    holders = _counts(game, size)
    if len(set(holders)) < len(holders):
        raise ScenarioError(
            f"audits: of {size} records, shares of {', '.join(f'{share:g}' for share in game.shares)} are "
            f"{', '.join(map(str, holders))} records, so there is no secret; set `records` of the property game higher"
        )
    public = supply(pool, has, pool.population)
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
    whole_halves = [_Stock(half, half) for half in halves]
    need = needed(pool.classes, [Wanted(mix[:size], count) for count in holders])
    stocks = _stocks(pool, has, halves[0], context, need, parts(size), rng)
    worlds: list[Population] = []

    def exam(kind: Kind, shares: Sequence[float], counts: Sequence[int], stocks: Sequence[_Stock]) -> None:
        coins = generator(scenario.seed, "coins", title(game), kind).random(2 * scenario.worlds)
        for w, coin in enumerate(coins):
            chosen = len(shares) - 1 - int(coin * len(shares))
            victim, share = w < scenario.worlds, shares[chosen]
            stock = stocks[w % len(stocks)] if victim else whole_halves[1]
            if game.client is None:
                rows = _stratified(pool, has, stock.asked, mix[:size], counts[chosen], rng)
                owner = _dealt(scenario, pool, rows, rng)
            else:
                rows, owner = _around(scenario, pool, game.client, has, stock, context, mix[:size], counts[chosen], rng)
            secret = abs(share - shares[-1]) < abs(share - shares[0]) - 1e-9  # 0.2 to 0.4 is not 0.4 to 0.6
            group = group_of(w, len(stocks)) if victim else w
            worlds.append(Population(kind, rows, owner, share, secret, victim, group))

    shares = tuple(count / size for count in holders)
    exam("main", shares, holders, stocks)
    exam("null", shares, [(min(holders) + max(holders)) // 2] * len(holders), stocks)
    if scenario.controls.planted_worlds:
        # Shares can lie furthest apart among all records of the half. Whether an attack finds what is there is asked of
        # these records, so it does no harm that worlds share them.
        ends = _extremes(mix[:size], sources)[:: 1 if game.shares[0] < game.shares[-1] else -1]
        exam("planted", [end / size for end in ends], ends, whole_halves[:1])
    related = correlation(has[private], pool.y[private])
    caveat = same_records(parts, size, scenario.worlds)
    return Populations(tuple(worlds), shares, no, yes, related, pool.population[has[pool.population]], caveat, size)


def _size(scenario: Scenario, pool: Pool, game: PropertyGame, most: int, parts: Callable[[int], int]) -> int:
    """Return how many records a world has, or the client asked about: where the scenario does not say, as many as half
    the candidates, or fewer, so that worlds can draw from different ones.
    """
    if game.records is not None:
        return game.records
    wished = len(pool.candidates) // (2 if game.client is None else 2 * pool.clients)
    enough = min(ENOUGH_BLOCKS, scenario.worlds)
    room = roomiest(parts, min(wished, most), enough) or 0
    apart = (size for size in range(room, SMALLEST_SET - 1, -1) if len(set(_counts(game, size))) == len(game.shares))
    return next(apart, wished)


def _named(game: PropertyGame) -> str:
    """Return the property in words, such as race=Black & sex=Female, in whatever order the parts were given."""
    return " & ".join(property_words(column, value) for column, value in sorted(game.parts.items()))


def _holders(pool: Pool, game: PropertyGame) -> Bools:
    """Return which rows of the pool have the property."""
    return with_properties(pool, game.parts)


def _number(share: float, size: int) -> int:
    """Return how many of `size` records a share is: above 0 at least one, and below 1 not all."""
    return max(min(round(share * size), size - int(share < 1)), int(share > 0))


def _counts(game: PropertyGame, size: int) -> list[int]:
    """Return how many records have the property at each share."""
    return [_number(share, size) for share in game.shares]


def _dealt(scenario: Scenario, pool: Pool, rows: Rows, rng: np.random.Generator) -> Rows:
    """Return who holds each row; clients of a natural partition keep their names, whatever their size."""
    scheme = scenario.data.partition.scheme
    if scheme == "natural":
        return pool.owner[rows]
    return PARTITIONS[scheme](pool.y[rows], {}, pool.clients, scenario.data.partition, rng)


class _Others(NamedTuple):
    """The clients that the question is not about: the labels of their records, and how many of the first of these
    belong to holders, in every world alike. only: the client whose own rows alone it may hold; None: anybody's.
    """

    labels: Rows
    holders: int
    only: int | None


def _left(pool: Pool, has: Bools, half: Rows, others: _Others) -> Supply:
    """Return what the others leave of a half."""
    mine = half if others.only is None else half[pool.owner[half] == others.only]
    return supply(pool, has, mine).less(needed(pool.classes, [Wanted(others.labels, others.holders)]))


class _Stock(NamedTuple):
    """The rows that a world draws from: for whom the question is about, and for the other clients."""

    asked: Rows
    others: Rows


def _stocks(
    pool: Pool, has: Bools, half: Rows, others: _Others, need: Supply, parts: int, rng: np.random.Generator
) -> list[_Stock]:
    """Return disjoint blocks of a half, and what the others draw from in every world: no secret is in that, so it may
    be the same.
    """
    if parts == 1:
        return [_Stock(half, half)]
    if others.only is not None:
        return [_Stock(block, half) for block in split(pool, has, half[pool.owner[half] == others.only], parts, rng)]
    # Of each label, with the property and without, the others get their part of what all need together.
    theirs = needed(pool.classes, [Wanted(others.labels, others.holders)])
    kept = []
    for holds, take, blocks_take in ((True, theirs.holders, need.holders), (False, theirs.others, need.others)):
        for label in range(pool.classes):
            rows = rng.permutation(half[(has[half] == holds) & (pool.y[half] == label)])
            wanted = int(take[label] + parts * blocks_take[label])
            kept.append(rows[: len(rows) * int(take[label]) // max(wanted, 1)])
    rest = np.concatenate(kept)
    return [_Stock(block, rest) for block in split(pool, has, np.setdiff1d(half, rest), parts, rng)]


def _around(
    scenario: Scenario,
    pool: Pool,
    client: int,
    has: Bools,
    stock: _Stock,
    others: _Others,
    labels: Rows,
    holders: int,
    rng: np.random.Generator,
) -> tuple[Rows, Rows]:
    """Return the rows of a world and their owners: `client` has the property so often, the rest as always."""
    if others.only is not None:
        apart = [stock.others[pool.owner[stock.others] == each] for each in range(pool.clients) if each != client]
        rest = np.concatenate([rng.permutation(rows)[: (len(rows) + 1) // 2] for rows in apart])
        owner = pool.owner[rest]
        source = stock.asked[pool.owner[stock.asked] == client]
    else:
        rest = _stratified(pool, has, stock.others, others.labels, others.holders, rng)
        everybody_else = np.setdiff1d(np.arange(pool.clients), [client])
        scheme = scenario.data.partition.scheme
        owner = everybody_else[
            PARTITIONS[scheme](pool.y[rest], {}, pool.clients - 1, scenario.data.partition, rng)
            if len(rest)
            else np.zeros(0, dtype=np.int64)
        ]
        source = stock.asked[~np.isin(stock.asked, rest)]
    mine = _stratified(pool, has, source, labels, holders, rng)
    return np.concatenate([mine, rest]), np.concatenate([np.full(len(mine), client), owner])


def _enough(labels: Rows, available: Rows) -> bool:
    return bool((np.bincount(labels, minlength=len(available)) <= available).all())


def _largest(mix: Rows, size: int, share: float, supplies: Sequence[Supply]) -> int:
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
    mix: Rows, size: int, share: float, supplies: Sequence[Supply], who: str = "a world with this label mix has"
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


def _extremes(labels: Rows, supplies: Sequence[Supply]) -> tuple[int, int]:
    """Return the smallest and the largest number of holders of the property that worlds with these labels can have."""
    numbers = range(len(labels) + 1)
    possible = [
        n
        for n in numbers
        if all(_enough(labels[:n], supply.holders) and _enough(labels[n:], supply.others) for supply in supplies)
    ]
    return possible[0], possible[-1]


def draw(scenario: Scenario, pool: Pool, game: PropertyGame) -> Draw:
    """Worlds in which one of several shares of the records, of all or of one client's, has a property."""
    drawn = populations(scenario, pool, game)
    no, yes, holders = (records_of(pool, rows) for rows in (drawn.no, drawn.yes, drawn.holders))
    ask = PropertyAsk(no, yes, drawn.shares, game.client, holders=holders)
    named_shares = {f"share {place}": share for place, share in enumerate(drawn.shares, start=1)}
    facts = {"property_label_correlation": drawn.correlation, "records": float(drawn.size), **named_shares}
    worlds: list[World] = []
    exams: list[Exam] = []
    for kind in dict.fromkeys(each.kind for each in drawn.worlds):
        first, mine = len(worlds), [each for each in drawn.worlds if each.kind == kind]
        for w, each in enumerate(mine):
            name, rows = f"{title(game)}-{kind}-{w:04d}", by_owner(each.rows, each.owner, pool.clients)
            if kind == "planted":  # the attacker's own worlds too: references must be made as the victims are
                worlds.append(bare_world(scenario, name, rows, scenario.federation.rounds))
            else:
                worlds.append(world_of(scenario, name, rows))
        victims = np.array([each.victim for each in mine])
        labels = [
            pool.y[each.rows[each.owner == game.client] if game.client is not None else each.rows] for each in mine
        ]
        counts = np.stack([np.bincount(each, minlength=pool.classes) for each in labels])
        # Clients of a natural partition hold what is theirs of the records drawn: more, where they have the property.
        follows = scenario.data.partition.scheme == "natural" and game.client is None
        blind = np.concatenate([counts, counts.sum(axis=1, keepdims=True)], axis=1)
        exams.append(
            Exam(
                kind=kind,
                worlds=np.arange(first, len(worlds)),
                ask=ask,
                members=np.array([[each.secret] for each in mine]),
                targets=victims,
                references=victims[:, None] & ~victims[None, :],
                blind=blind[:, None, :].astype(np.float64),
                owner=np.array([-1 if game.client is None else game.client]),
                new_items=True,
                quantity=np.array([[each.share] for each in mine]) if len(game.shares) > 2 else None,
                facts=facts,
                groups=grouped(kind, [each.group for each in mine]),
                sizes=np.stack([np.bincount(each.owner, minlength=pool.clients) for each in mine]).astype(np.float64)
                if follows
                else None,
                caveat=drawn.caveat,
            )
        )
    return Draw(tuple(worlds), tuple(exams))
