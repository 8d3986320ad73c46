"""The labels game: which classes are in one client's data, or in everybody's."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsim.data.pool import Pool, victim_rows
from fedsim.errors import ScenarioError
from fedsim.games.common import bare_world, everyone_else, flips, records_of, world_of
from fedsim.randomness import generator
from fedsim.scenario import LabelGame, Scenario
from fedsim.views import LabelAsk
from fedsim.world import Bools, Draw, Exam, Kind, Rows, World


class Holding(NamedTuple):
    """What the clients of one world train on, and how many records of each class [classes] those asked about hold."""

    kind: Literal["main", "planted"]
    rows: tuple[Rows, ...]
    counts: Rows


def title(game: LabelGame) -> str:
    """Return the short name of a labels game, unique among different ones."""
    return f"labels:{game.client}" + (f":{game.records}" if game.records else "")


def holdings(scenario: Scenario, pool: Pool, game: LabelGame) -> list[Holding]:
    """Return worlds in which a random half of the classes is in one client's data, whose size stays the same, while the
    others hold a fresh iid draw; or in the data of all. Where the leak is planted, it is a single class.
    """
    private = victim_rows(pool)
    each = game.records or _default(pool, private, game)
    if each * pool.clients > len(private):
        raise ScenarioError(
            f"audits: {pool.clients} clients with {each} records each need {each * pool.clients} private records, and "
            f"there are {len(private)}; "
            "use fewer clients or more candidates"
        )
    rng = generator(scenario.seed, "labels", game.client)
    asked = each * (pool.clients if game.client == "all" else 1)

    def one(kind: Literal["main", "planted"]) -> Holding:
        coins = rng.random(pool.classes) < 0.5
        if kind == "planted" or not coins.any():
            coins = np.arange(pool.classes) == rng.integers(pool.classes)
        shuffled = rng.permutation(private)
        mine = shuffled[np.isin(pool.y[shuffled], np.flatnonzero(coins))][:asked]
        if len(mine) < asked:
            who, remedy = f"client {game.client}", "use more clients (each holds fewer records then)"
            if game.client == "all":
                who, remedy = "all clients together", "set `records` of the labels game lower"
            raise ScenarioError(
                f"audits: {who} should hold {asked} records of the classes drawn for it "
                f"({', '.join(pool.class_names[label] for label in np.flatnonzero(coins))}), but there are only "
                f"{len(mine)}; "
                f"{remedy}, or set `data.background` higher"
            )
        counts = np.bincount(pool.y[mine], minlength=pool.classes)
        if game.client == "all":
            return Holding(kind, tuple(np.array_split(mine, pool.clients)), counts)
        others = rng.permutation(shuffled[~np.isin(shuffled, mine)])  # or the next client would get what it left over
        dealt = np.array_split(others[: each * (pool.clients - 1)], max(pool.clients - 1, 1))
        return Holding(kind, (*dealt[: game.client], mine, *dealt[game.client : pool.clients - 1]), counts)

    found = [one("main") for _ in range(scenario.worlds)]
    return found + [one("planted") for _ in range(scenario.controls.planted_worlds)]


def _default(pool: Pool, private: Rows, game: LabelGame) -> int:
    """Return how many records each client holds where the game does not say."""
    held = len(pool.candidates) // 2
    if game.client == "all":
        held = min(held, *np.bincount(pool.y[private], minlength=pool.classes).tolist())
    return max(held // pool.clients, 1)


def draw(scenario: Scenario, pool: Pool, game: LabelGame) -> Draw:
    """Worlds in which a random half of the classes is in one client's data, or in all."""
    whose = None if game.client == "all" else game.client
    held = holdings(scenario, pool, game)
    prior = np.bincount(pool.y[victim_rows(pool)], minlength=pool.classes) / len(victim_rows(pool))
    blind = np.concatenate([np.eye(pool.classes), prior[:, None]], axis=1)
    worlds: list[World] = []

    def exam(kind: Kind, positions: Rows, members: Bools, quantity: NDArray[np.float64] | None) -> Exam:
        return Exam(
            kind=kind,
            worlds=positions,
            ask=LabelAsk(whose, records_of(pool, pool.population), pool.classes),
            members=members,
            targets=np.ones(len(positions), dtype=bool),
            references=everyone_else(len(positions)),
            blind=np.broadcast_to(blind, (len(positions), *blind.shape)),
            owner=np.full(pool.classes, -1 if whose is None else whose),
            new_items=False,
            quantity=quantity,
        )

    def played(kind: Kind) -> Exam:
        first, mine = len(worlds), [each for each in held if each.kind == kind]
        for w, each in enumerate(mine):
            name, rows = f"{title(game)}-{kind}-{w:04d}", list(each.rows)
            if kind == "planted":
                worlds.append(bare_world(scenario, name, rows, scenario.federation.rounds))
            else:
                worlds.append(world_of(scenario, name, rows))
        counts = np.stack([each.counts for each in mine])
        return exam(kind, np.arange(first, len(worlds)), counts > 0, counts.astype(np.float64))

    exams = [played("main")]
    coins = flips(scenario, f"{title(game)} null", scenario.worlds, pool.classes)
    exams.append(exam("null", exams[0].worlds, coins, None))
    if scenario.controls.planted_worlds:
        exams.append(played("planted"))
    return Draw(tuple(worlds), tuple(exams))
