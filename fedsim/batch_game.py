"""The game batches: in which rounds a client trains on records with a property.

Which rows of the pool each client of each world trains on, and nothing more: `fedsim.game` makes worlds and exams of
them.
"""

from typing import Literal, NamedTuple

import numpy as np

from fedsim.client_property_game import Practice, planted_practice
from fedsim.data.pool import Pool, victim_rows
from fedsim.holders import Bools, Rows, Wanted, correlation, deal, even_labels, practice, with_property
from fedsim.randomness import generator
from fedsim.scenario import BatchGame, Scenario


class Rounds(NamedTuple):
    """What the clients of one world train on, the batch of the client asked about in each round, and which of these
    [rounds] have the property. The client's own place in `rows` holds its first batch.
    """

    kind: Literal["main", "planted"]
    rows: tuple[Rows, ...]
    batches: tuple[Rows, ...]
    secret: Bools


class Batches(NamedTuple):
    """All the worlds of the game; the public batches of the question, and of the one that is planted; which rows of the
    pool have the property, and which the planted one; and how strongly property and label hang together.
    """

    worlds: list[Rounds]
    practice: Practice
    planted: Practice
    has: Bools
    has_planted: Bools
    correlation: float


def title(game: BatchGame) -> str:
    """Return the short name of a batches game, unique among different ones."""
    return f"batches:{game.client}:{game.column}={game.value}:{game.share:g}:{game.records}"


def rounds(scenario: Scenario, pool: Pool, game: BatchGame) -> Batches:
    """Return worlds in which a coin decides for each round whether a share of one client's batch has the property or
    nothing has it; number of records and labels are the same in every round. The other clients hold an iid draw. Where
    the leak is planted, a batch with the property is all one class, and one without all others; all clients train
    there too, for who sees sums alone has to know how many are in them.

    A batch has no record in common with the other clients, but may have some with the client's batches of other rounds.
    """
    has, private = with_property(pool, game.column, game.value), victim_rows(pool)
    size = game.records or scenario.federation.local.batch_size
    labels = even_labels(pool.y[private], size)
    no, yes = Wanted(labels, 0), Wanted(labels, max(round(game.share * size), 1))
    rng = generator(scenario.seed, title(game))
    worlds = []

    def others() -> tuple[list[Rows], Rows]:
        """Deal each client but the one asked about as many records as a batch has; return what is left too."""
        mixed, held = rng.permutation(private), [np.zeros(0, dtype=np.int64)] * pool.clients
        for k in np.delete(np.arange(pool.clients), game.client):
            held[k], mixed = mixed[:size], mixed[size:]
        return held, mixed

    for _ in range(scenario.worlds):
        held, own = others()
        secret = rng.random(scenario.federation.rounds) < 0.5
        batches = [deal(pool, has, own, [yes if each else no], rng)[0] for each in secret]
        held[game.client] = batches[0]
        worlds.append(Rounds("main", tuple(held), tuple(batches), secret))
    first = pool.y == pool.y[private].min()
    for _ in range(scenario.controls.planted_worlds):
        held, own = others()
        secret = rng.random(scenario.controls.planted_rounds) < 0.5
        batches = [rng.choice(own[first[own] == each], size) for each in secret]
        held[game.client] = batches[0]
        worlds.append(Rounds("planted", tuple(held), tuple(batches), secret))
    return Batches(
        worlds,
        Practice(*practice(pool, has, no, yes, rng)),
        planted_practice(pool, first, size, rng),
        has,
        first,
        correlation(has[private], pool.y[private]),
    )
