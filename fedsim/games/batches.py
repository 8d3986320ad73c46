"""The game batches: in which rounds a client trains on records with a property."""

import dataclasses
from typing import Literal, NamedTuple

import numpy as np

from fedsim.data.pool import Pool, victim_rows
from fedsim.errors import ScenarioError
from fedsim.games.common import bare_world, everyone_else, flips, grouped, records_of, tally, world_of
from fedsim.games.holders import (
    ENOUGH_BLOCKS,
    Practice,
    blocks,
    correlation,
    deal,
    group_of,
    kinds,
    needed,
    planted_practice,
    practice,
    same_records,
    split,
    supply,
    with_property,
)
from fedsim.randomness import generator
from fedsim.scenario import BatchGame, Scenario, property_words, shortest
from fedsim.views import BatchAsk
from fedsim.world import Bools, Draw, Exam, Kind, Rows, World, cohort, rows_in


class Rounds(NamedTuple):
    """What the clients of one world train on, the batch of the client asked about in each round, and which of these
    [rounds] have the property. The client's own place in `rows` holds its first batch. group: the client's batches are
    of the same records in worlds with the same number.
    """

    kind: Literal["main", "planted"]
    rows: tuple[Rows, ...]
    batches: tuple[Rows, ...]
    secret: Bools
    group: int


class Batches(NamedTuple):
    """All the worlds of the game; the public batches of the question, and of the one that is planted; which rows of the
    pool have the property, and which the planted one; how strongly property and label hang together; and what intervals
    over these worlds do not cover.
    """

    worlds: list[Rounds]
    practice: Practice
    planted: Practice
    has: Bools
    has_planted: Bools
    correlation: float
    caveat: str | None


def title(game: BatchGame) -> str:
    """Return the short name of a batches game, unique among different ones."""
    return f"batches:{game.client}:{property_words(game.column, game.value)}:{shortest(game.share)}:{game.records}"


def rounds(scenario: Scenario, pool: Pool, game: BatchGame) -> Batches:
    """Return worlds in which a coin decides for each round whether a share of one client's batch has the property or
    nothing has it; number of records and labels are the same in every round. The other clients hold an iid draw. Where
    the leak is planted, a batch with the property is all one class, and one without all others; all clients train
    there too, for who sees sums alone has to know how many are in them.

    A batch has no record in common with the other clients, but may have some with the client's batches of other rounds.
    Worlds draw the client's batches from disjoint blocks of the private records, where there are enough.
    """
    has, private = with_property(pool, game.column, game.value), victim_rows(pool)
    available = supply(pool, has, private)

    def parts(size: int, batches: int = 1) -> int:
        """Into how many blocks the records can be dealt, each with so many batches of either kind."""
        each = needed(pool.classes, kinds(pool.y[private], game.share, size))
        return blocks(available, each.times(batches), scenario.worlds)

    size = game.records or scenario.federation.local.batch_size
    no, yes = kinds(pool.y[private], game.share, size)
    # Different records in each round tell more than the same ones again, but that must not cost too many blocks.
    count = max(min(ENOUGH_BLOCKS, parts(size)), parts(size, scenario.federation.rounds))
    rng = generator(scenario.seed, title(game))
    sources = split(pool, has, private, count, rng) if count > 1 else None
    worlds = []

    def others(source: Rows) -> tuple[list[Rows], Rows]:
        """Deal each client but the one asked about as many records as a batch has; return what is left too."""
        mixed, held = rng.permutation(source), [np.zeros(0, dtype=np.int64)] * pool.clients
        if len(source) < size * (pool.clients - 1):
            raise ScenarioError(
                f"audits: {pool.clients - 1} other clients with {size} records each need {size * (pool.clients - 1)}, "
                f"and {len(source)} are left; set `records` of the game lower, or `data.candidates` higher"
            )
        for k in np.delete(np.arange(pool.clients), game.client):
            held[k], mixed = mixed[:size], mixed[size:]
        return held, mixed

    for w in range(scenario.worlds):
        if sources is None:
            held, own = others(private)
        else:
            own = sources[w % count]
            held, _ = others(np.setdiff1d(private, own))
        secret = rng.random(scenario.federation.rounds) < 0.5
        batches = [deal(pool, has, own, [yes if each else no], rng)[0] for each in secret]
        held[game.client] = batches[0]
        worlds.append(Rounds("main", tuple(held), tuple(batches), secret, group_of(w, count)))
    first = pool.y == pool.y[private].min()
    for w in range(scenario.controls.planted_worlds):
        held, own = others(private)
        if len(np.unique(first[own])) < 2:
            raise ScenarioError(
                "audits: where the leak is planted, the client has records of one kind only; set `records` of the game "
                "lower, or `data.candidates` higher"
            )
        secret = rng.random(scenario.controls.planted_rounds) < 0.5
        batches = [rng.choice(own[first[own] == each], size) for each in secret]
        held[game.client] = batches[0]
        worlds.append(Rounds("planted", tuple(held), tuple(batches), secret, w))
    return Batches(
        worlds,
        practice(pool, has, no, yes, rng),
        planted_practice(pool, first, size, rng),
        has,
        first,
        correlation(has[private], pool.y[private]),
        same_records(parts, size, scenario.worlds),
    )


def draw(scenario: Scenario, pool: Pool, game: BatchGame) -> Draw:
    """Worlds in which a coin decides for each round whether a client trains on records with a property."""
    drawn = rounds(scenario, pool, game)
    population = records_of(pool, pool.population)
    facts = {"property_label_correlation": drawn.correlation}
    worlds: list[World] = []

    def in_cohort(place: int, number: int) -> bool:
        """Return whether the client was drawn for a round: only then did it train, on whatever batch."""
        return game.client in cohort(scenario.seed, worlds[place], number)

    def exam(kind: Kind, positions: Rows, members: Bools) -> Exam:
        tried, has = (drawn.planted, drawn.has_planted) if kind == "planted" else (drawn.practice, drawn.has)
        count = members.shape[1]
        return Exam(
            kind=kind,
            worlds=positions,
            ask=BatchAsk(game.client, population, tried.no, tried.yes, count, has[pool.population]),
            members=members,
            targets=np.ones(len(positions), dtype=bool),
            references=everyone_else(len(positions)),
            blind=np.stack(
                [tally(pool, [rows_in(worlds[int(w)], game.client, t + 1) for t in range(count)]) for w in positions]
            ),
            owner=np.full(count, game.client),
            new_items=False,
            facts=facts,
            put=np.array([[in_cohort(int(w), t + 1) for t in range(count)] for w in positions]),
            groups=grouped(kind, [drawn.worlds[int(w)].group for w in positions]),
            caveat=drawn.caveat,
        )

    def played(kind: Kind) -> Exam:
        first, mine = len(worlds), [each for each in drawn.worlds if each.kind == kind]
        for w, each in enumerate(mine):
            make = bare_world if kind == "planted" else world_of
            world = make(scenario, f"{title(game)}-{kind}-{w:04d}", list(each.rows))
            worlds.append(dataclasses.replace(world, batches=(game.client, each.batches)))
        return exam(kind, np.arange(first, len(worlds)), np.stack([each.secret for each in mine]))

    exams = [played("main")]
    coins = flips(scenario, f"{title(game)} null", scenario.worlds, scenario.federation.rounds)
    exams.append(exam("null", exams[0].worlds, coins))
    if scenario.controls.planted_worlds:
        exams.append(played("planted"))
    return Draw(tuple(worlds), tuple(exams))
