"""The game record: who is in the training data? A coin decides for each candidate in each world."""

import numpy as np

from fedsim.data.pool import Pool
from fedsim.games.common import (
    active_clients,
    by_owner,
    everyone_else,
    flips,
    over_trained,
    planted_rows,
    records_of,
    world_of,
)
from fedsim.scenario import Scenario
from fedsim.views import RecordAsk, Records, SourceAsk
from fedsim.world import Bools, Draw, Exam, Kind, Rows


def draw(scenario: Scenario, pool: Pool, watchers: frozenset[int]) -> Draw:
    """Worlds in which a coin decides for each candidate whether it trains."""
    count = scenario.worlds
    members = flips(scenario, "record", count, len(pool.candidates))
    background = by_owner(pool.background, pool.owner[pool.background], pool.clients)
    worlds = []
    for w in range(count):
        rows = pool.candidates[members[w]]
        own = by_owner(rows, pool.owner[rows], pool.clients)
        worlds.append(
            world_of(scenario, f"record-{w:04d}", [np.concatenate(pair) for pair in zip(own, background, strict=True)])
        )
    main = np.arange(count)
    population = records_of(pool, pool.population)
    exams = [record_exam("main", main, RecordAsk(records_of(pool, pool.candidates), population), members)]
    if len(pool.null):
        coins = flips(scenario, "record null", count, len(pool.null))
        exams.append(record_exam("null", main, RecordAsk(records_of(pool, pool.null), population), coins))
    if scenario.controls.planted_worlds and len(pool.planted):
        planted = _planted_record(scenario, pool, population, watchers, first=count)
        worlds += planted.worlds
        exams += planted.exams
    return Draw(tuple(worlds), tuple(exams))


def record_exam(kind: Kind, worlds: Rows, ask: RecordAsk | SourceAsk, members: Bools) -> Exam:
    """Return an exam about records, with their features, label and owner as what can be known without a model."""
    items = ask.items
    flat = items.x.reshape(len(items), -1).astype(np.float64)
    blind = np.concatenate(
        [flat, np.eye(items.y.max() + 1)[items.y], np.eye(items.owner.max() + 1)[items.owner]], axis=1
    )
    return Exam(
        kind=kind,
        worlds=worlds,
        ask=ask,
        members=members,
        targets=np.ones(len(worlds), dtype=bool),
        references=everyone_else(len(worlds)),
        blind=np.broadcast_to(blind, (len(worlds), *blind.shape)),
        owner=items.owner,
        new_items=True,
    )


def _planted_record(scenario: Scenario, pool: Pool, population: Records, watchers: frozenset[int], first: int) -> Draw:
    """Small federations trained until they know a few randomly labelled records by heart."""
    count = scenario.controls.planted_worlds
    planted = planted_rows(pool)
    members = flips(scenario, "record planted", count, len(planted))
    active = active_clients(pool, watchers)
    owner = active[np.arange(len(planted)) % len(active)]
    worlds = [
        over_trained(scenario, f"planted-{w:04d}", by_owner(planted[members[w]], owner[members[w]], pool.clients))
        for w in range(count)
    ]
    ask = RecordAsk(records_of(pool, planted, owner), population)
    return Draw(tuple(worlds), (record_exam("planted", np.arange(first, first + count), ask, members),))
