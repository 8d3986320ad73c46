"""The game source: which client holds a record? Each record is dealt to a client anew in each world."""

import numpy as np
from numpy.typing import NDArray

from fedsim.data.pool import Pool
from fedsim.errors import ScenarioError
from fedsim.games.common import active_clients, by_owner, flips, over_trained, planted_rows, records_of, world_of
from fedsim.games.record import record_exam
from fedsim.randomness import generator
from fedsim.scenario import Partition, Scenario
from fedsim.views import Records, SourceAsk
from fedsim.world import Draw, Kind, Rows


def draw(scenario: Scenario, pool: Pool, watchers: frozenset[int]) -> Draw:
    """Worlds that all train on the same records, and differ in who holds which."""
    if pool.clients < 2:
        raise ScenarioError("data.clients: with 1 client there is no question who holds a record; use 2 or more")
    everybody, population = np.arange(pool.clients), records_of(pool, pool.population)
    background = by_owner(pool.background, pool.owner[pool.background], pool.clients)
    rng = generator(scenario.seed, "source", "alleged")

    def alleged(rows: Rows, among: Rows) -> SourceAsk:
        named = rng.permutation(among[np.arange(len(rows)) % len(among)])
        return SourceAsk(records_of(pool, rows, named), population)

    def dealt(kind: Kind, count: int, ask: SourceAsk, among: Rows, partition: Partition) -> Rows:
        coins = generator(scenario.seed, "coins", f"source {kind}")
        return np.stack([_deal_anew(pool.classes, ask.items, among, partition, coins) for _ in range(count)])

    main, ask = np.arange(scenario.worlds), alleged(pool.candidates, everybody)
    owners = dealt("main", len(main), ask, everybody, scenario.data.partition)  # [w, n]
    worlds = []
    for w, owner in enumerate(owners):
        held = zip(by_owner(pool.candidates, owner, pool.clients), background, strict=True)
        worlds.append(world_of(scenario, f"source-{w:04d}", [np.concatenate(pair) for pair in held]))
    exams = [record_exam("main", main, ask, owners == ask.items.owner)]
    if len(pool.null):
        coins = flips(scenario, "source null", len(main), len(pool.null))
        exams.append(record_exam("null", main, alleged(pool.null, everybody), coins))
    planted, active = planted_rows(pool), active_clients(pool, watchers)
    if (count := scenario.controls.planted_worlds) and len(planted):
        ask = alleged(planted, active)
        owners = dealt("planted", count, ask, active, Partition())
        for w, owner in enumerate(owners):
            worlds.append(over_trained(scenario, f"source-planted-{w:04d}", by_owner(planted, owner, pool.clients)))
        positions = np.arange(len(main), len(worlds))
        exams.append(record_exam("planted", positions, ask, owners == ask.items.owner))
    return Draw(tuple(worlds), tuple(exams))


def _deal_anew(classes: int, items: Records, among: Rows, partition: Partition, rng: np.random.Generator) -> Rows:
    """Return a new owner [items] for each record, one of the clients `among`.

    The partition gives each client a share of each label. The alleged owner's counts as often as those of all others
    would if shares were equal: then a coin decides whether the record is there, and if not, it is at any other. Where
    shares differ, they are what can be guessed from labels alone.
    """
    weights = _shares(classes, len(among), partition, rng)[items.y]
    weights[among[None, :] == items.owner[:, None]] *= len(among) - 1
    upto = weights.cumsum(axis=1)
    chosen = (rng.random(len(items))[:, None] * upto[:, -1:] >= upto).sum(axis=1)
    owner: Rows = among[np.minimum(chosen, len(among) - 1)]
    return owner


def _shares(classes: int, clients: int, partition: Partition, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the share of each label that goes to each client [classes, clients]."""
    alike = np.full(clients, partition.alpha)
    match partition.scheme:
        case "iid":
            return np.full((classes, clients), 1 / clients)
        case "dirichlet":
            return rng.dirichlet(alike, size=classes)
        case "quantity":
            return np.tile(rng.dirichlet(alike), (classes, 1))
    raise ScenarioError(
        f"data.partition.scheme: got {partition.scheme}, but the game source deals the records anew in each world; "
        "allowed there: iid, dirichlet, quantity"
    )
