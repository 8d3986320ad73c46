"""Games: how the secret of each world is drawn, and what the attacker is asked. Only this module and the results know
the truth.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedsim import batch_game, client_property_game, label_game, property_game
from fedsim.canaries import Canaries
from fedsim.data.pool import Pool, victim_rows
from fedsim.errors import ScenarioError
from fedsim.randomness import derive, generator
from fedsim.scenario import (
    ACTS_AS,
    Adversary,
    BatchGame,
    CanaryGame,
    ClientGame,
    ClientPropertyGame,
    DistinguishGame,
    DistributedPrivacy,
    DropOut,
    Federation,
    Game,
    LabelGame,
    Local,
    ModelChoice,
    Partition,
    Plugin,
    PropertyGame,
    Quantisation,
    RecordPrivacy,
    Scenario,
    SecureAggregation,
)
from fedsim.transcript import SERVER, client
from fedsim.views import (
    Ask,
    BatchAsk,
    CanaryAsk,
    ClientAsk,
    ClientPropertyAsk,
    DistinguishAsk,
    LabelAsk,
    PropertyAsk,
    RecordAsk,
    Records,
    SourceAsk,
    Vantage,
)

Bools = NDArray[np.bool_]
Rows = NDArray[np.int64]
Kind = Literal["main", "null", "planted"]

PLANTED_CLIENTS = 4
SMALLEST_PLANT = 8
PLANTED_EPOCHS = {"softmax": 20, "mlp": 10, "cnn": 5, "resnet": 5}
"""Cheap models get the time to learn their records by heart."""
PLANTED_RANGE = 8.0
"""No weight of a small over-trained model moves further than this in a round."""
DISTINGUISHED = 8
"""Clients that are asked about in the game distinguish: each costs the attacker many trainings."""


@dataclass(frozen=True)
class Actor:
    """Who of a world deviates from the protocol, and how. It knows the records that will be asked about (`targets`),
    and not who trains on them; in the games property and batches `targets` are public records with the property, and in
    batches `others` are public records without it.
    """

    plan: Adversary
    parties: frozenset[str]
    targets: Records
    others: Records | None = None


@dataclass(frozen=True)
class World:
    """One federation to run: who trains on which rows of the pool, and by which recipe."""

    name: str  # randomness of the world is derived from it
    rows: tuple[Rows, ...]  # one array a client; a client without rows takes no part
    model: ModelChoice
    federation: Federation
    canaries: Canaries | None = None
    present: tuple[int, ...] = ()  # the canaries that take part
    adversary: Actor | None = None
    batches: tuple[int, tuple[Rows, ...]] | None = None  # a client that trains on another batch in each round


def rows_in(world: World, party: int, number: int) -> Rows:
    """Return the rows that client `party` of a world trains on in round `number`, which counts from 1."""
    if world.batches is None or party != world.batches[0]:
        return world.rows[party]
    return world.batches[1][number - 1]


@dataclass(frozen=True)
class Exam:
    """The same questions in several worlds, with the truth.

    worlds: positions in `Draw.worlds` [w].
    members: bool [w, items].
    targets: bool [w].
    references: bool [w, w], True where the row's world, as a target, may use the column's as a reference.
    blind: float64 [w, items, features], all that can be known without any model.
    owner: int64 [items], the client each question is about; -1: nobody.
    new_items: whether other questions of the kind could have been asked; False where these are all there are.
    quantity: float64 [w, items] for games with an amount, else None.
    facts: numbers to print beside the findings.
    """

    kind: Kind
    worlds: Rows
    ask: Ask
    members: Bools
    targets: Bools
    references: Bools
    blind: NDArray[np.float64]
    owner: Rows
    new_items: bool
    quantity: NDArray[np.float64] | None = None
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Draw:
    """All the worlds of one game, and its exams: main, the null control and the planted leak."""

    worlds: tuple[World, ...]
    exams: tuple[Exam, ...]


def draw(scenario: Scenario, pool: Pool, game: Game, watchers: frozenset[int]) -> Draw:
    """Return the worlds and exams of `game`; `watchers` are clients that a vantage needs to see at work in the control
    worlds too.
    """
    if isinstance(game, PropertyGame):
        return _property(scenario, pool, game)
    if isinstance(game, LabelGame):
        return _labels(scenario, pool, game)
    if isinstance(game, CanaryGame):
        return _canaries(scenario, pool, game)
    if isinstance(game, ClientGame):
        return _client(scenario, pool, game, watchers)
    if isinstance(game, DistinguishGame):
        return _distinguish(scenario, pool, game, watchers)
    if isinstance(game, ClientPropertyGame):
        return _client_property(scenario, pool, game, watchers)
    if isinstance(game, BatchGame):
        return _batches(scenario, pool, game)
    if game == "source":
        return _source(scenario, pool, watchers)
    return _record(scenario, pool, watchers)


def acting(plan: Adversary, vantage: Vantage) -> frozenset[str]:
    """Return which parties of a vantage act: the server if it can and is there, else every client there."""
    roles = ACTS_AS[plan.name]
    if "server" in roles and SERVER in vantage.parties:
        return frozenset({SERVER})
    return frozenset(client(index) for index in vantage.clients) if "client" in roles else frozenset()


def with_adversary(drawn: Draw, plan: Adversary, parties: frozenset[str]) -> Draw:
    """Return the same worlds with an adversary in each; it knows the questions of all exams that are put to its world,
    but for those about its own records.
    """
    exams_of = [tuple(n for n, exam in enumerate(drawn.exams) if w in exam.worlds) for w in range(len(drawn.worlds))]
    actors = {
        numbers: _actor(plan, parties, [drawn.exams[n].ask for n in numbers]) for numbers in dict.fromkeys(exams_of)
    }
    worlds = (
        dataclasses.replace(world, adversary=actors[numbers])
        for world, numbers in zip(drawn.worlds, exams_of, strict=True)
    )
    return Draw(tuple(worlds), drawn.exams)


def _actor(plan: Adversary, parties: frozenset[str], asks: Sequence[Ask]) -> Actor:
    """Return an adversary that knows some questions."""
    first = asks[0]
    if isinstance(first, BatchAsk):  # the null control asks about the same batches
        places = first.yes[first.holders[first.yes]], first.no.ravel()
        x, y, owner = first.population.x, first.population.y, first.population.owner
        return Actor(plan, parties, *(Records(x[rows], y[rows], owner[rows]) for rows in places))
    asked = [given for ask in asks if (given := _given(ask)) is not None]
    x, y, owner = (np.concatenate([getattr(items, part) for items in asked]) for part in ("x", "y", "owner"))
    known = ~np.isin(owner, sorted(Vantage(parties).clients))
    return Actor(plan, parties, Records(x[known], y[known], owner[known]))


def _given(ask: Ask) -> Records | None:
    """Return the records by which an adversary goes about a question."""
    if isinstance(ask, RecordAsk):
        return ask.items
    return ask.holders if isinstance(ask, PropertyAsk) else None


def adversary_title(plan: Adversary, parties: frozenset[str]) -> str:
    """Return who does what, in words."""
    options = ", ".join(f"{key} {value:g}" for key, value in plan if isinstance(value, int | float))
    return f"{plan.name} by {'+'.join(sorted(parties))}" + (f" ({options})" if options else "")


def title(game: Game) -> str:
    """Return the short name of a game, unique among different games."""
    if isinstance(game, PropertyGame):
        return property_game.title(game)
    if isinstance(game, LabelGame):
        return label_game.title(game)
    if isinstance(game, CanaryGame):
        return f"canaries:{game.unit}:{game.direction}:{game.count}"
    if isinstance(game, ClientGame):
        return f"client:{game.sample}"
    if isinstance(game, DistinguishGame):
        return f"distinguish:{game.clients}"
    if isinstance(game, ClientPropertyGame):
        return client_property_game.title(game)
    if isinstance(game, BatchGame):
        return batch_game.title(game)
    return game


def asked(exam: Exam, vantage_clients: frozenset[int]) -> Bools:
    """Return which questions count [w, items]: those of target worlds, except what is about the attacker's own data."""
    return exam.targets[:, None] & ~np.isin(exam.owner, sorted(vantage_clients))[None, :]


def asked_from(ask: Ask, vantage_clients: frozenset[int]) -> Ask:
    """Return the questions as they are put to a vantage: the records of its own clients have no owner to look for."""
    if not isinstance(ask, RecordAsk | SourceAsk) or not vantage_clients:
        return ask
    owner = np.where(np.isin(ask.items.owner, sorted(vantage_clients)), -1, ask.items.owner)
    return dataclasses.replace(ask, items=dataclasses.replace(ask.items, owner=owner))


def _records(pool: Pool, rows: Rows, owner: Rows | None = None) -> Records:
    return Records(pool.x[rows], pool.y[rows], pool.owner[rows] if owner is None else owner)


def _everyone_else(worlds: int) -> Bools:
    """Each world is a target once and a reference for all the others."""
    return ~np.eye(worlds, dtype=bool)


def _own(rows: Rows, owner: Rows, clients: int) -> list[Rows]:
    return [rows[owner == k] for k in range(clients)]


# Independent coins, not exact halves: with exact halves the references' secrets would give the target's away.
def _coins(scenario: Scenario, what: str, worlds: int, items: int) -> Bools:
    return generator(scenario.seed, "coins", what).random((worlds, items)) < 0.5


def _record(scenario: Scenario, pool: Pool, watchers: frozenset[int]) -> Draw:
    count = scenario.worlds
    members = _coins(scenario, "record", count, len(pool.candidates))
    background = _own(pool.background, pool.owner[pool.background], pool.clients)
    worlds = []
    for w in range(count):
        rows = pool.candidates[members[w]]
        own = _own(rows, pool.owner[rows], pool.clients)
        worlds.append(
            _world(scenario, f"record-{w:04d}", [np.concatenate(pair) for pair in zip(own, background, strict=True)])
        )
    main = np.arange(count)
    population = _records(pool, pool.population)
    exams = [_record_exam("main", main, RecordAsk(_records(pool, pool.candidates), population), members)]
    if len(pool.null):
        coins = _coins(scenario, "record null", count, len(pool.null))
        exams.append(_record_exam("null", main, RecordAsk(_records(pool, pool.null), population), coins))
    if scenario.controls.planted_worlds and len(pool.planted):
        planted = _planted_record(scenario, pool, population, watchers, first=count)
        worlds += planted.worlds
        exams += planted.exams
    return Draw(tuple(worlds), tuple(exams))


def _record_exam(kind: Kind, worlds: Rows, ask: RecordAsk | SourceAsk, members: Bools) -> Exam:
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
        references=_everyone_else(len(worlds)),
        blind=np.broadcast_to(blind, (len(worlds), *blind.shape)),
        owner=items.owner,
        new_items=True,
    )


def _planted_record(scenario: Scenario, pool: Pool, population: Records, watchers: frozenset[int], first: int) -> Draw:
    """Small federations trained until they know a few randomly labelled records by heart."""
    count = scenario.controls.planted_worlds
    planted = _plant(pool)
    members = _coins(scenario, "record planted", count, len(planted))
    active = _active(pool, watchers)
    owner = active[np.arange(len(planted)) % len(active)]
    worlds = [
        over_trained(scenario, f"planted-{w:04d}", _own(planted[members[w]], owner[members[w]], pool.clients))
        for w in range(count)
    ]
    ask = RecordAsk(_records(pool, planted, owner), population)
    return Draw(tuple(worlds), (_record_exam("planted", np.arange(first, first + count), ask, members),))


def _plant(pool: Pool) -> Rows:
    """Return the rows that a planted world learns by heart: few features hold few random labels."""
    return pool.planted[: max(SMALLEST_PLANT, math.prod(pool.x.shape[1:]))]


def _active(pool: Pool, watchers: frozenset[int]) -> Rows:
    """Return the clients of a planted world: a few, and those that a vantage needs to see at work."""
    return np.array(sorted(set(range(min(pool.clients, PLANTED_CLIENTS))) | watchers))


def _source(scenario: Scenario, pool: Pool, watchers: frozenset[int]) -> Draw:
    """Worlds that all train on the same records, and differ in who holds which."""
    if pool.clients < 2:
        raise ScenarioError("data.clients: with 1 client there is no question who holds a record; use 2 or more")
    everybody, population = np.arange(pool.clients), _records(pool, pool.population)
    background = _own(pool.background, pool.owner[pool.background], pool.clients)
    rng = generator(scenario.seed, "source", "alleged")

    def alleged(rows: Rows, among: Rows) -> SourceAsk:
        named = rng.permutation(among[np.arange(len(rows)) % len(among)])
        return SourceAsk(_records(pool, rows, named), population)

    def dealt(kind: Kind, count: int, ask: SourceAsk, among: Rows, partition: Partition) -> Rows:
        coins = generator(scenario.seed, "coins", f"source {kind}")
        return np.stack([_deal_anew(pool.classes, ask.items, among, partition, coins) for _ in range(count)])

    main, ask = np.arange(scenario.worlds), alleged(pool.candidates, everybody)
    owners = dealt("main", len(main), ask, everybody, scenario.data.partition)  # [w, n]
    worlds = []
    for w, owner in enumerate(owners):
        held = zip(_own(pool.candidates, owner, pool.clients), background, strict=True)
        worlds.append(_world(scenario, f"source-{w:04d}", [np.concatenate(pair) for pair in held]))
    exams = [_record_exam("main", main, ask, owners == ask.items.owner)]
    if len(pool.null):
        coins = _coins(scenario, "source null", len(main), len(pool.null))
        exams.append(_record_exam("null", main, alleged(pool.null, everybody), coins))
    planted, active = _plant(pool), _active(pool, watchers)
    if (count := scenario.controls.planted_worlds) and len(planted):
        ask = alleged(planted, active)
        owners = dealt("planted", count, ask, active, Partition())
        for w, owner in enumerate(owners):
            worlds.append(over_trained(scenario, f"source-planted-{w:04d}", _own(planted, owner, pool.clients)))
        positions = np.arange(len(main), len(worlds))
        exams.append(_record_exam("planted", positions, ask, owners == ask.items.owner))
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


def _client(scenario: Scenario, pool: Pool, game: ClientGame, watchers: frozenset[int]) -> Draw:
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
    held = _own(everybody, pool.owner[everybody], pool.clients)
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
        members = _coins(scenario, f"{kind} {what}", count, pool.clients)[:, asked]
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
            ask=ClientAsk(asked, _records(pool, np.concatenate([rows[client] for client in asked]), owner)),
            members=members,
            targets=np.ones(len(positions), dtype=bool),
            references=_everyone_else(len(positions)),
            blind=np.broadcast_to(blind, (len(positions), *blind.shape)),
            owner=asked,
            new_items=False,
        )

    main, asked = np.arange(scenario.worlds), np.setdiff1d(np.arange(pool.clients), always)
    exams = [exam("main", main, asked, sample, drawn("main", scenario.worlds, asked, trains, _world))]
    exams.append(exam("null", main, asked, sample, _coins(scenario, f"{kind} null", scenario.worlds, len(asked))))
    planted, few = _plant(pool), np.setdiff1d(_active(pool, watchers), always)
    count = scenario.controls.planted_worlds
    if count and len(planted) and len(few):
        count *= math.ceil((PLANTED_CLIENTS - 1) / len(few))  # where a world has few to ask about, more of them are
        active = np.concatenate([few, always])
        own = _own(planted, active[np.arange(len(planted)) % len(active)], pool.clients)
        members = drawn("planted", count, few, own, over_trained)
        exams.append(exam("planted", np.arange(len(main), len(worlds)), few, own, members))
    return Draw(tuple(worlds), tuple(exams))


def _distinguish(scenario: Scenario, pool: Pool, game: DistinguishGame, watchers: frozenset[int]) -> Draw:
    """Worlds in which a coin decides for each client of the crowd on which of its two record sets it trains. A vantage
    that needs clients to see at work gets them into the crowd, and nobody is asked about them.
    """
    kind = title(game)
    everybody = np.concatenate([pool.candidates, pool.background])
    rng = generator(scenario.seed, "distinguish", "sets")  # the same in crowds of any size
    pairs = [_halves(pool, rows, rng) for rows in _own(everybody, pool.owner[everybody], pool.clients)]
    crowd = np.array(sorted(set(range(game.clients or pool.clients)) | watchers))
    if short := [int(client) for client in crowd if not len(pairs[client][0])]:
        raise ScenarioError(
            f"audits: no two records of client {short[0]} have the same label, so it has no two sets to choose from; "
            "use fewer clients or more candidates"
        )
    worlds: list[World] = []

    def drawn(what: Kind, count: int, crowd: Rows, pairs: list[tuple[Rows, Rows]], make: Callable[..., World]) -> Bools:
        coins = _coins(scenario, f"{kind} {what}", count, pool.clients)
        nothing = np.zeros(0, dtype=np.int64)
        for w in range(count):
            rows = [pairs[k][int(coins[w, k])] if k in crowd else nothing for k in range(pool.clients)]
            worlds.append(make(scenario, f"{kind}-{what}-{w:04d}", rows))
        return coins

    def exam(what: Kind, positions: Rows, crowd: Rows, pairs: list[tuple[Rows, Rows]], coins: Bools) -> Exam:
        asked = np.setdiff1d(crowd, sorted(watchers))[:DISTINGUISHED]
        owner = np.repeat(asked, [len(pairs[client][0]) for client in asked])
        no, yes = (_records(pool, np.concatenate([pairs[k][side] for k in asked]), owner) for side in (0, 1))
        known = np.stack([np.bincount(pool.y[pairs[k][0]], minlength=pool.classes) for k in asked])
        blind = np.concatenate([np.eye(len(asked)), known], axis=1)
        return Exam(
            kind=what,
            worlds=positions,
            ask=DistinguishAsk(asked, no, yes, _records(pool, pool.population)),
            members=coins[:, asked],
            targets=np.ones(len(positions), dtype=bool),
            references=_everyone_else(len(positions)),
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
    exams = [exam("main", main, crowd, pairs, drawn("main", scenario.worlds, crowd, pairs, _world))]
    coins = _coins(scenario, f"{kind} null", scenario.worlds, pool.clients)
    exams.append(exam("null", main, crowd, pairs, coins))
    planted, few = _plant(pool), _active(pool, watchers)
    alike = planted[np.argsort(pool.y[planted], kind="stable")]  # each client gets some with equal labels
    dealt = [_halves(pool, rows, rng) for rows in _own(alike, np.sort(np.resize(few, len(alike))), pool.clients)]
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


def _world(scenario: Scenario, name: str, rows: list[Rows]) -> World:
    return World(name, tuple(rows), scenario.model, scenario.federation)


def _bare(scenario: Scenario, name: str, rows: list[Rows]) -> World:
    """Return a world that trains as the scenario says, without noise or drop-outs."""
    own = scenario.federation
    federation = Federation(
        rounds=scenario.controls.planted_rounds,
        strategy=Plugin(name="fedavg"),
        local=own.local,
        clients_per_round=own.clients_per_round,
        secure_aggregation=_fine(own.secure_aggregation),
    )
    return World(name, tuple(rows), scenario.model, federation)


def _fine(secure: SecureAggregation | None) -> SecureAggregation | None:
    """Return secure aggregation with steps so fine that no planted leak is lost in them."""
    if secure is None:
        return None
    steps = Quantisation(clip_range=max(PLANTED_RANGE, secure.quantisation.clip_range), bits=24)
    return secure.model_copy(update={"quantisation": steps})


def over_trained(scenario: Scenario, name: str, rows: list[Rows]) -> World:
    """Return a world whose recipe memorises: plain FedAvg, everybody in every round, many local epochs, nothing that
    regularises. Secure aggregation stays, with fine steps: attacks on what it opens have their own way through it.
    """
    epochs = PLANTED_EPOCHS[scenario.model.name]
    local = Local(epochs=epochs, batch_size=8, learning_rate=0.1, momentum=0.9)
    federation = Federation(
        rounds=scenario.controls.planted_rounds,
        strategy=Plugin(name="fedavg"),
        local=local,
        secure_aggregation=_fine(scenario.federation.secure_aggregation),
    )
    return World(name, tuple(rows), scenario.model.model_copy(update={"dropout": 0.0}), federation)


def _property(scenario: Scenario, pool: Pool, game: PropertyGame) -> Draw:
    """Worlds in which one of several shares of the records, of all or of one client's, has a property."""
    drawn = property_game.populations(scenario, pool, game)
    no, yes, holders = (_records(pool, rows) for rows in (drawn.no, drawn.yes, drawn.holders))
    ask = PropertyAsk(no, yes, drawn.shares, game.client, holders=holders)
    worlds: list[World] = []
    exams: list[Exam] = []
    for kind in dict.fromkeys(each.kind for each in drawn.worlds):
        first, mine = len(worlds), [each for each in drawn.worlds if each.kind == kind]
        for w, each in enumerate(mine):
            rows = _own(each.rows, each.owner, pool.clients)
            worlds.append(_world(scenario, f"{title(game)}-{kind}-{w:04d}", rows))
        victims = np.array([each.victim for each in mine])
        labels = [
            pool.y[each.rows[each.owner == game.client] if game.client is not None else each.rows] for each in mine
        ]
        counts = np.stack([np.bincount(each, minlength=pool.classes) for each in labels])
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
                facts={"property_label_correlation": drawn.correlation},
            )
        )
    return Draw(tuple(worlds), tuple(exams))


def _labels(scenario: Scenario, pool: Pool, game: LabelGame) -> Draw:
    """Worlds in which a random half of the classes is in one client's data, or in all."""
    whose = None if game.client == "all" else game.client
    held = label_game.holdings(scenario, pool, game)
    prior = np.bincount(pool.y[victim_rows(pool)], minlength=pool.classes) / len(victim_rows(pool))
    blind = np.concatenate([np.eye(pool.classes), prior[:, None]], axis=1)
    worlds: list[World] = []

    def exam(kind: Kind, positions: Rows, members: Bools, quantity: NDArray[np.float64] | None) -> Exam:
        return Exam(
            kind=kind,
            worlds=positions,
            ask=LabelAsk(whose, _records(pool, pool.population), pool.classes),
            members=members,
            targets=np.ones(len(positions), dtype=bool),
            references=_everyone_else(len(positions)),
            blind=np.broadcast_to(blind, (len(positions), *blind.shape)),
            owner=np.full(pool.classes, -1 if whose is None else whose),
            new_items=False,
            quantity=quantity,
        )

    def played(kind: Kind) -> Exam:
        first, mine = len(worlds), [each for each in held if each.kind == kind]
        worlds.extend(_world(scenario, f"{title(game)}-{kind}-{w:04d}", list(each.rows)) for w, each in enumerate(mine))
        counts = np.stack([each.counts for each in mine])
        return exam(kind, np.arange(first, len(worlds)), counts > 0, counts.astype(np.float64))

    exams = [played("main")]
    coins = _coins(scenario, f"{title(game)} null", scenario.worlds, pool.classes)
    exams.append(exam("null", exams[0].worlds, coins, None))
    if scenario.controls.planted_worlds:
        exams.append(played("planted"))
    return Draw(tuple(worlds), tuple(exams))


def _client_property(scenario: Scenario, pool: Pool, game: ClientPropertyGame, watchers: frozenset[int]) -> Draw:
    """Worlds in which a coin decides for each client whether it has records with a property. Nobody is asked about
    clients of a vantage.
    """
    active = _active(pool, watchers)
    drawn = client_property_game.holders(scenario, pool, game, active)
    population = _records(pool, pool.population)
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
            references=_everyone_else(len(positions)),
            blind=np.stack([_tally(pool, [worlds[int(w)].rows[int(k)] for k in asked]) for w in positions]),
            owner=asked,
            new_items=False,
            facts=facts,
        )

    def played(kind: Kind, asked: Rows) -> Exam:
        first, mine = len(worlds), [each for each in drawn.worlds if each.kind == kind]
        make = _bare if kind == "planted" else _world
        worlds.extend(make(scenario, f"{title(game)}-{kind}-{w:04d}", list(each.rows)) for w, each in enumerate(mine))
        return exam(kind, np.arange(first, len(worlds)), asked, np.stack([each.secret for each in mine]))

    asked, few = (np.setdiff1d(clients, sorted(watchers)) for clients in (np.arange(pool.clients), active))
    exams = [played("main", asked)]
    coins = _coins(scenario, f"{title(game)} null", scenario.worlds, pool.clients)
    exams.append(exam("null", exams[0].worlds, asked, coins))
    if scenario.controls.planted_worlds and len(few):
        exams.append(played("planted", few))
    return Draw(tuple(worlds), tuple(exams))


def _batches(scenario: Scenario, pool: Pool, game: BatchGame) -> Draw:
    """Worlds in which a coin decides for each round whether a client trains on records with a property."""
    drawn = batch_game.rounds(scenario, pool, game)
    population = _records(pool, pool.population)
    facts = {"property_label_correlation": drawn.correlation}
    worlds: list[World] = []

    def exam(kind: Kind, positions: Rows, members: Bools) -> Exam:
        tried, has = (drawn.planted, drawn.has_planted) if kind == "planted" else (drawn.practice, drawn.has)
        count = members.shape[1]
        return Exam(
            kind=kind,
            worlds=positions,
            ask=BatchAsk(game.client, population, tried.no, tried.yes, count, has[pool.population]),
            members=members,
            targets=np.ones(len(positions), dtype=bool),
            references=_everyone_else(len(positions)),
            blind=np.stack(
                [_tally(pool, [rows_in(worlds[int(w)], game.client, t + 1) for t in range(count)]) for w in positions]
            ),
            owner=np.full(count, game.client),
            new_items=False,
            facts=facts,
        )

    def played(kind: Kind) -> Exam:
        first, mine = len(worlds), [each for each in drawn.worlds if each.kind == kind]
        for w, each in enumerate(mine):
            make = _bare if kind == "planted" else _world
            world = make(scenario, f"{title(game)}-{kind}-{w:04d}", list(each.rows))
            worlds.append(dataclasses.replace(world, batches=(game.client, each.batches)))
        return exam(kind, np.arange(first, len(worlds)), np.stack([each.secret for each in mine]))

    exams = [played("main")]
    coins = _coins(scenario, f"{title(game)} null", scenario.worlds, scenario.federation.rounds)
    exams.append(exam("null", exams[0].worlds, coins))
    if scenario.controls.planted_worlds:
        exams.append(played("planted"))
    return Draw(tuple(worlds), tuple(exams))


def _tally(pool: Pool, parts: Sequence[Rows]) -> NDArray[np.float64]:
    """Return the place, the size and the label counts of each part [parts, 2 + classes]: what shows without a model."""
    counts = [np.bincount(pool.y[rows], minlength=pool.classes) for rows in parts]
    sizes = [[place, len(rows)] for place, rows in enumerate(parts)]
    return np.concatenate([np.array(sizes), np.array(counts)], axis=1).astype(np.float64)


def _canaries(scenario: Scenario, pool: Pool, game: CanaryGame) -> Draw:
    """Worlds that all train on the same records, and differ in who of the canaries takes part."""
    kind = title(game)
    canaries = Canaries(game.unit, game.direction, game.count, derive(scenario.seed, kind))
    everybody = np.concatenate([pool.candidates, pool.background])
    rows = tuple(_own(everybody, pool.owner[everybody], pool.clients))
    worlds: list[World] = []

    def drawn(what: Kind, count: int, federation: Federation) -> Bools:
        members = _coins(scenario, f"{kind} {what}", count, game.count)
        for w in range(count):
            present = tuple(np.flatnonzero(members[w]).tolist())
            worlds.append(World(f"{kind}-{what}-{w:04d}", rows, scenario.model, federation, canaries, present))
        return members

    def exam(what: Kind, positions: Rows, members: Bools, first: int) -> Exam:
        return Exam(
            kind=what,
            worlds=positions,
            ask=CanaryAsk(canaries, first, game.count),
            members=members,
            targets=np.ones(len(positions), dtype=bool),
            references=_everyone_else(len(positions)),
            blind=np.broadcast_to(np.arange(game.count, dtype=np.float64)[:, None], (len(positions), game.count, 1)),
            owner=np.full(game.count, -1),
            new_items=False,  # the auditor made them alike, and asks about all of them
        )

    main = np.arange(scenario.worlds)
    exams = [exam("main", main, drawn("main", scenario.worlds, scenario.federation), 0)]
    exams.append(exam("null", main, _coins(scenario, f"{kind} null", scenario.worlds, game.count), game.count))
    if count := scenario.controls.planted_worlds:
        members = drawn("planted", count, undefended(scenario.federation, game))
        exams.append(exam("planted", np.arange(scenario.worlds, len(worlds)), members, 0))
    return Draw(tuple(worlds), tuple(exams))


def undefended(federation: Federation, game: CanaryGame) -> Federation:
    """Return a federation without defences; canary records need the steps of DP-SGD, and get them without noise."""
    norm = federation.privacy.clipping_norm if federation.privacy else 1.0
    bare = RecordPrivacy(name="record", clipping_norm=norm, noise_multiplier=0.0) if game.unit == "record" else None
    return federation.model_copy(update={"privacy": bare, "secure_aggregation": None, "drop_out": DropOut()})
