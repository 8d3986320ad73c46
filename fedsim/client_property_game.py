"""The game client_property: which clients have records with a property.

Which rows of the pool each client of each world trains on, and nothing more: `fedsim.game` makes worlds and exams of
them.
"""

from typing import Literal, NamedTuple

import numpy as np

from fedsim.data.pool import Pool, victim_rows
from fedsim.holders import SETS, Bools, Rows, Wanted, correlation, deal, even_labels, practice, with_property
from fedsim.randomness import generator
from fedsim.scenario import ClientPropertyGame, Scenario, property_words


class Holders(NamedTuple):
    """What the clients of one world train on, and which of them [clients] hold the property."""

    kind: Literal["main", "planted"]
    rows: tuple[Rows, ...]
    secret: Bools


class Practice(NamedTuple):
    """Public record sets as a client without the property holds them, and as one with it: places in the population."""

    no: Rows
    yes: Rows


class Properties(NamedTuple):
    """All the worlds of the game; the public record sets of the question, and of the one that is planted; and how
    strongly property and label hang together.
    """

    worlds: list[Holders]
    practice: Practice
    planted: Practice
    correlation: float


def title(game: ClientPropertyGame) -> str:
    """Return the short name of a client_property game, unique among different ones."""
    return f"client_property:{property_words(game.column, game.value)}:{game.share:g}:{game.records}"


def holders(scenario: Scenario, pool: Pool, game: ClientPropertyGame, planted: Rows) -> Properties:
    """Return worlds in which a coin decides for each client whether a share of its records has the property or none;
    number of records and labels are the same for all clients. Where the leak is planted, only the clients `planted`
    train, and what those with the property hold is one class and what the others hold is all others.
    """
    has, private = with_property(pool, game.column, game.value), victim_rows(pool)
    size = game.records or max(len(pool.candidates) // (2 * pool.clients), 2)
    labels = even_labels(pool.y[private], size)
    kinds = Wanted(labels, 0), Wanted(labels, max(round(game.share * size), 1))
    rng = generator(scenario.seed, title(game))
    worlds = []
    for _ in range(scenario.worlds):
        secret = rng.random(pool.clients) < 0.5
        worlds.append(Holders("main", tuple(deal(pool, has, private, [kinds[int(s)] for s in secret], rng)), secret))
    first = pool.y == pool.y[private].min()
    few = max(min(size, int(first[private].sum()) // len(planted), int((~first)[private].sum()) // len(planted)), 1)
    for _ in range(scenario.controls.planted_worlds):
        secret = rng.random(pool.clients) < 0.5
        mixed = rng.permutation(private)
        stock = {True: mixed[first[mixed]], False: mixed[~first[mixed]]}
        rows = [np.zeros(0, dtype=np.int64)] * pool.clients
        for k in planted:
            rows[k], stock[bool(secret[k])] = np.split(stock[bool(secret[k])], [few])
        worlds.append(Holders("planted", tuple(rows), secret))
    return Properties(
        worlds,
        Practice(*practice(pool, has, kinds[0], kinds[1], rng)),
        planted_practice(pool, first, few, rng),
        correlation(has[private], pool.y[private]),
    )


def planted_practice(pool: Pool, first: Bools, size: int, rng: np.random.Generator) -> Practice:
    """Return public record sets of the planted question, with records in common where there are few."""
    public = first[pool.population]
    sides = [
        np.stack([rng.choice(rows if len(rows) else np.arange(len(public)), size) for _ in range(SETS)])
        for rows in (np.flatnonzero(~public), np.flatnonzero(public))
    ]
    return Practice(*sides)
