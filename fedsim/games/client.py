"""The game client: which clients took part?"""

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
from fedsim.scenario import ClientGame, DistributedPrivacy, Scenario
from fedsim.views import ClientAsk
from fedsim.world import Bools, Draw, Exam, Kind, Rows, World


def title(game: ClientGame) -> str:
    """Return the short name of the game, unique among different ones."""
    return f"client:{game.sample}"


def draw(scenario: Scenario, pool: Pool, game: ClientGame, watchers: frozenset[int]) -> Draw:
    """Worlds in which a coin decides for each client whether it takes part at all.

    Clients of a vantage always do, or they would see nothing; where there are none, client 0 does, so that there is a
    federation at all. Nobody is asked about them.
    """
    kind, always = title(game), np.array(sorted(watchers or {0}))
    if isinstance(scenario.federation.privacy, DistributedPrivacy):
        raise ScenarioError(
            "audits: in the game client half of the clients are missing, and distributed privacy gives up a round that "
            "lacks their noise; use canaries of unit client"
        )
    if pool.clients <= len(always):
        raise ScenarioError(
            f"audits: in the game client {len(always)} of {pool.clients} clients always take part (those of the "
            "vantages, or else one), so there is nobody to ask about; use more clients"
        )
    everybody = np.concatenate([pool.candidates, pool.background])
    held = by_owner(everybody, pool.owner[everybody], pool.clients)
    trains = sample = held
    if game.sample == "disjoint":
        if short := [client for client, rows in enumerate(held) if len(rows) < 2]:
            raise ScenarioError(
                f"audits: client {short[0]} has {len(held[short[0]])} record, and `sample: disjoint` needs one to "
                "train on and one to hold out; use fewer clients or more candidates"
            )
        rng = generator(scenario.seed, kind, "sample")
        mixed = [rng.permutation(rows) for rows in held]
        trains, sample = [rows[::2] for rows in mixed], [rows[1::2] for rows in mixed]
    worlds: list[World] = []

    def drawn(what: Kind, count: int, asked: Rows, rows: list[Rows], make: Callable[..., World]) -> Bools:
        members = flips(scenario, f"{kind} {what}", count, pool.clients)[:, asked]
        nothing = np.zeros(0, dtype=np.int64)
        for w in range(count):
            there = set(asked[members[w]]) | set(always)
            present = [own if client in there else nothing for client, own in enumerate(rows)]
            worlds.append(make(scenario, f"{kind}-{what}-{w:04d}", present))
        return members

    def exam(what: Kind, positions: Rows, asked: Rows, rows: list[Rows], members: Bools) -> Exam:
        known = np.stack([np.bincount(pool.y[rows[client]], minlength=pool.classes) for client in asked])
        blind = np.concatenate([np.eye(len(asked)), known], axis=1)
        owner = np.repeat(asked, [len(rows[client]) for client in asked])
        return Exam(
            kind=what,
            worlds=positions,
            ask=ClientAsk(asked, records_of(pool, np.concatenate([rows[client] for client in asked]), owner)),
            members=members,
            targets=np.ones(len(positions), dtype=bool),
            references=everyone_else(len(positions)),
            blind=np.broadcast_to(blind, (len(positions), *blind.shape)),
            owner=asked,
            new_items=False,
        )

    main, asked = np.arange(scenario.worlds), np.setdiff1d(np.arange(pool.clients), always)
    exams = [exam("main", main, asked, sample, drawn("main", scenario.worlds, asked, trains, world_of))]
    exams.append(exam("null", main, asked, sample, flips(scenario, f"{kind} null", scenario.worlds, len(asked))))
    planted, few = planted_rows(pool), np.setdiff1d(active_clients(pool, watchers), always)
    count = scenario.controls.planted_worlds
    if count and len(planted) and len(few):
        count *= math.ceil((PLANTED_CLIENTS - 1) / len(few))  # where a world has few to ask about, more of them are
        active = np.concatenate([few, always])
        own = by_owner(planted, active[np.arange(len(planted)) % len(active)], pool.clients)
        members = drawn("planted", count, few, own, over_trained)
        exams.append(exam("planted", np.arange(len(main), len(worlds)), few, own, members))
    return Draw(tuple(worlds), tuple(exams))
