"""The game client_property: which clients have records with a property."""

from typing import Literal, NamedTuple

import numpy as np

from fedsim.data.pool import Pool, victim_rows
from fedsim.games.common import active_clients, bare_world, everyone_else, flips, grouped, records_of, tally, world_of
from fedsim.games.holders import (
    ENOUGH_BLOCKS,
    Practice,
    Supply,
    blocks,
    correlation,
    deal,
    group_of,
    kinds,
    needed,
    planted_practice,
    practice,
    roomiest,
    same_records,
    split,
    supply,
    with_property,
)
from fedsim.randomness import generator
from fedsim.scenario import ClientPropertyGame, Scenario, property_words, shortest
from fedsim.views import ClientPropertyAsk
from fedsim.world import Bools, Draw, Exam, Kind, Rows, World


class Holders(NamedTuple):
    """What the clients of one world train on, and which of them [clients] hold the property. group: worlds with the
    same number share records.
    """

    kind: Literal["main", "planted"]
    rows: tuple[Rows, ...]
    secret: Bools
    group: int


class Properties(NamedTuple):
    """All the worlds of the game; the public record sets of the question, and of the one that is planted; how strongly
    property and label hang together; and what intervals over these worlds do not cover.
    """

    worlds: list[Holders]
    practice: Practice
    planted: Practice
    correlation: float
    caveat: str | None


def title(game: ClientPropertyGame) -> str:
    """Return the short name of a client_property game, unique among different ones."""
    return f"client_property:{property_words(game.column, game.value)}:{shortest(game.share)}:{game.records}"


def holders(scenario: Scenario, pool: Pool, game: ClientPropertyGame, planted: Rows) -> Properties:
    """Return worlds in which a coin decides for each client whether a share of its records has the property or none;
    number of records and labels are the same for all clients. Worlds draw from disjoint blocks of the private records,
    where there are enough. Where the leak is planted, only the clients `planted` train, and what those with the
    property hold is one class and what the others hold is all others.
    """
    has, private = with_property(pool, game.column, game.value), victim_rows(pool)
    rng = generator(scenario.seed, title(game))
    secrets = rng.random((scenario.worlds, pool.clients)) < 0.5
    available = supply(pool, has, private)

    def parts(size: int) -> int:
        """Into how many blocks the records can be dealt where a client has so many."""
        no, yes = (needed(pool.classes, [kind]) for kind in kinds(pool.y[private], game.share, size))
        each = [no.times(int((~secret).sum())).plus(yes.times(int(secret.sum()))) for secret in secrets]
        return blocks(available, Supply(*(np.max(side, axis=0) for side in zip(*each, strict=True))), scenario.worlds)

    size = game.records or max(len(pool.candidates) // (2 * pool.clients), 2)
    if game.records is None:
        size = roomiest(parts, size, min(ENOUGH_BLOCKS, scenario.worlds)) or size
    (no, yes), count = kinds(pool.y[private], game.share, size), parts(size)
    sources = split(pool, has, private, count, rng) if count > 1 else [private]
    worlds = []
    for w, secret in enumerate(secrets):
        rows = deal(pool, has, sources[w % count], [yes if s else no for s in secret], rng)
        worlds.append(Holders("main", tuple(rows), secret, group_of(w, count)))
    first = pool.y == pool.y[private].min()
    few = max(min(size, int(first[private].sum()) // len(planted), int((~first)[private].sum()) // len(planted)), 1)
    for w in range(scenario.controls.planted_worlds):
        secret = rng.random(pool.clients) < 0.5
        mixed = rng.permutation(private)
        stock = {True: mixed[first[mixed]], False: mixed[~first[mixed]]}
        rows = [np.zeros(0, dtype=np.int64)] * pool.clients
        for k in planted:
            rows[k], stock[bool(secret[k])] = np.split(stock[bool(secret[k])], [few])
        worlds.append(Holders("planted", tuple(rows), secret, w))
    return Properties(
        worlds,
        practice(pool, has, no, yes, rng),
        planted_practice(pool, first, few, rng),
        correlation(has[private], pool.y[private]),
        same_records(parts, size, scenario.worlds),
    )


def draw(scenario: Scenario, pool: Pool, game: ClientPropertyGame, watchers: frozenset[int]) -> Draw:
    """Worlds in which a coin decides for each client whether it has records with a property. Nobody is asked about
    clients of a vantage.
    """
    active = active_clients(pool, watchers)
    drawn = holders(scenario, pool, game, active)
    population = records_of(pool, pool.population)
    facts = {"property_label_correlation": drawn.correlation}
    worlds: list[World] = []

    def exam(kind: Kind, positions: Rows, asked: Rows, members: Bools) -> Exam:
        tried = drawn.planted if kind == "planted" else drawn.practice
        return Exam(
            kind=kind,
            worlds=positions,
            ask=ClientPropertyAsk(asked, population, tried.no, tried.yes),
            members=members[:, asked],
            targets=np.ones(len(positions), dtype=bool),
            references=everyone_else(len(positions)),
            blind=np.stack([tally(pool, [worlds[int(w)].rows[int(k)] for k in asked]) for w in positions]),
            owner=asked,
            new_items=False,
            facts=facts,
            groups=grouped(kind, [drawn.worlds[int(w)].group for w in positions]),
            caveat=drawn.caveat,
        )

    def played(kind: Kind, asked: Rows) -> Exam:
        first, mine = len(worlds), [each for each in drawn.worlds if each.kind == kind]
        make = bare_world if kind == "planted" else world_of
        worlds.extend(make(scenario, f"{title(game)}-{kind}-{w:04d}", list(each.rows)) for w, each in enumerate(mine))
        return exam(kind, np.arange(first, len(worlds)), asked, np.stack([each.secret for each in mine]))

    asked, few = (np.setdiff1d(clients, sorted(watchers)) for clients in (np.arange(pool.clients), active))
    exams = [played("main", asked)]
    coins = flips(scenario, f"{title(game)} null", scenario.worlds, pool.clients)
    exams.append(exam("null", exams[0].worlds, asked, coins))
    if scenario.controls.planted_worlds and len(few):
        exams.append(played("planted", few))
    return Draw(tuple(worlds), tuple(exams))
