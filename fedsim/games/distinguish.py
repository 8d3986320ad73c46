"""The game distinguish: which of two record sets does each client hold?"""

import math
from collections.abc import Callable

import numpy as np

from fedsim.data.pool import Pool
from fedsim.errors import ScenarioError
from fedsim.games.common import (
    PLANTED_CLIENTS,
    active_clients,
    by_owner,
    everyone_else,
    flips,
    over_trained,
    planted_rows,
    records_of,
    world_of,
)
from fedsim.randomness import generator
from fedsim.scenario import DistinguishGame, Scenario
from fedsim.views import DistinguishAsk
from fedsim.world import Bools, Draw, Exam, Kind, Rows, World

DISTINGUISHED = 8
"""Clients that are asked about in the game distinguish: each costs the attacker many trainings."""


def title(game: DistinguishGame) -> str:
    """Return the short name of the game, unique among different ones."""
    return f"distinguish:{game.clients}"


def draw(scenario: Scenario, pool: Pool, game: DistinguishGame, watchers: frozenset[int]) -> Draw:
    """Worlds in which a coin decides for each client of the crowd on which of its two record sets it trains. A vantage
    that needs clients to see at work gets them into the crowd, and nobody is asked about them.
    """
    kind = title(game)
    everybody = np.concatenate([pool.candidates, pool.background])
    rng = generator(scenario.seed, "distinguish", "sets")  # the same in crowds of any size
    pairs = [_halves(pool, rows, rng) for rows in by_owner(everybody, pool.owner[everybody], pool.clients)]
    crowd = np.array(sorted(set(range(game.clients or pool.clients)) | watchers))
    if short := [int(client) for client in crowd if not len(pairs[client][0])]:
        raise ScenarioError(
            f"audits: no two records of client {short[0]} have the same label, so it has no two sets to choose from; "
            "use fewer clients or more candidates"
        )
    worlds: list[World] = []

    def drawn(what: Kind, count: int, crowd: Rows, pairs: list[tuple[Rows, Rows]], make: Callable[..., World]) -> Bools:
        coins = flips(scenario, f"{kind} {what}", count, pool.clients)
        nothing = np.zeros(0, dtype=np.int64)
        for w in range(count):
            rows = [pairs[k][int(coins[w, k])] if k in crowd else nothing for k in range(pool.clients)]
            worlds.append(make(scenario, f"{kind}-{what}-{w:04d}", rows))
        return coins

    def exam(what: Kind, positions: Rows, crowd: Rows, pairs: list[tuple[Rows, Rows]], coins: Bools) -> Exam:
        asked = np.setdiff1d(crowd, sorted(watchers))[:DISTINGUISHED]
        owner = np.repeat(asked, [len(pairs[client][0]) for client in asked])
        no, yes = (records_of(pool, np.concatenate([pairs[k][side] for k in asked]), owner) for side in (0, 1))
        known = np.stack([np.bincount(pool.y[pairs[k][0]], minlength=pool.classes) for k in asked])
        blind = np.concatenate([np.eye(len(asked)), known], axis=1)
        return Exam(
            kind=what,
            worlds=positions,
            ask=DistinguishAsk(asked, no, yes, records_of(pool, pool.population)),
            members=coins[:, asked],
            targets=np.ones(len(positions), dtype=bool),
            references=everyone_else(len(positions)),
            blind=np.broadcast_to(blind, (len(positions), *blind.shape)),
            owner=asked,
            new_items=len(asked) < len(crowd),
        )

    if not set(crowd) - watchers:
        raise ScenarioError(
            f"audits: all {len(crowd)} clients of the crowd belong to a vantage of the game distinguish, so there is "
            "nobody to ask about; use more clients"
        )
    main = np.arange(scenario.worlds)
    exams = [exam("main", main, crowd, pairs, drawn("main", scenario.worlds, crowd, pairs, world_of))]
    coins = flips(scenario, f"{kind} null", scenario.worlds, pool.clients)
    exams.append(exam("null", main, crowd, pairs, coins))
    planted, few = planted_rows(pool), active_clients(pool, watchers)
    alike = planted[np.argsort(pool.y[planted], kind="stable")]  # each client gets some with equal labels
    dealt = [_halves(pool, rows, rng) for rows in by_owner(alike, np.sort(np.resize(few, len(alike))), pool.clients)]
    few = np.array([client for client in few if len(dealt[client][0])], dtype=np.int64)
    if (count := scenario.controls.planted_worlds) and set(few) - watchers:
        count *= math.ceil(PLANTED_CLIENTS / len(set(few) - watchers))
        coins = drawn("planted", count, few, dealt, over_trained)
        exams.append(exam("planted", np.arange(len(main), len(worlds)), few, dealt, coins))
    return Draw(tuple(worlds), tuple(exams))


def _halves(pool: Pool, rows: Rows, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Return two disjoint sets of rows, as large as can be, with equally many of each label."""
    shuffled = rng.permutation(rows)
    alike = [shuffled[pool.y[shuffled] == label] for label in range(pool.classes)]
    no, yes = (np.concatenate([same[side : len(same) // 2 * 2 : 2] for same in alike]) for side in (0, 1))
    return no, yes
