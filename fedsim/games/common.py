"""What games share: how the worlds of an exam are made from the rows of a pool."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedsim.data.pool import Pool
from fedsim.randomness import generator
from fedsim.scenario import Federation, Local, Plugin, Quantisation, Scenario, SecureAggregation
from fedsim.views import Records
from fedsim.world import Bools, Kind, Rows, World

PLANTED_CLIENTS = 4
SMALLEST_PLANT = 8
PLANTED_EPOCHS = {"softmax": 20, "mlp": 10, "cnn": 5, "resnet": 5}
"""Cheap models get the time to learn their records by heart."""
PLANTED_RANGE = 8.0
"""No weight of a small over-trained model moves further than this in a round."""


def records_of(pool: Pool, rows: Rows, owner: Rows | None = None) -> Records:
    """Return rows of the pool as an attacker gets them; owner: who is said to hold each, in place of who does."""
    return Records(pool.x[rows], pool.y[rows], pool.owner[rows] if owner is None else owner)


def everyone_else(worlds: int) -> Bools:
    """Each world is a target once and a reference for all the others."""
    return ~np.eye(worlds, dtype=bool)


def by_owner(rows: Rows, owner: Rows, clients: int) -> list[Rows]:
    """Return the rows of each client."""
    return [rows[owner == k] for k in range(clients)]


# Independent coins, not exact halves: with exact halves the references' secrets would give the target's away.
def flips(scenario: Scenario, what: str, worlds: int, items: int) -> Bools:
    """Return fair coins [worlds, items], the same for the same words."""
    return generator(scenario.seed, "coins", what).random((worlds, items)) < 0.5


def planted_rows(pool: Pool) -> Rows:
    """Return the rows that a planted world learns by heart: few features hold few random labels."""
    return pool.planted[: max(SMALLEST_PLANT, math.prod(pool.x.shape[1:]))]


def active_clients(pool: Pool, watchers: frozenset[int]) -> Rows:
    """Return the clients of a planted world: a few, and those that a vantage needs to see at work."""
    return np.array(sorted(set(range(min(pool.clients, PLANTED_CLIENTS))) | watchers))


def world_of(scenario: Scenario, name: str, rows: list[Rows]) -> World:
    """Return a world that learns as the scenario says."""
    return World(name, tuple(rows), scenario.model, scenario.federation)


def bare_world(scenario: Scenario, name: str, rows: list[Rows], rounds: int | None = None) -> World:
    """Return a world that trains as the scenario says, without noise or drop-outs; rounds: as planted worlds have."""
    own = scenario.federation
    federation = Federation(
        rounds=rounds or scenario.controls.planted_rounds,
        strategy=Plugin(name="fedavg"),
        local=own.local,
        clients_per_round=own.clients_per_round,
        evaluate_clients=own.evaluate_clients,
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


def grouped(kind: Kind, groups: Sequence[int]) -> Rows | None:
    """Return which worlds of an exam [w] share records and vary together. Answers of the null control have nothing to
    do with the records, so its worlds vary one by one: None.
    """
    return None if kind == "null" else np.array(groups)


def tally(pool: Pool, parts: Sequence[Rows]) -> NDArray[np.float64]:
    """Return the place, the size and the label counts of each part [parts, 2 + classes]: what shows without a model."""
    counts = [np.bincount(pool.y[rows], minlength=pool.classes) for rows in parts]
    sizes = [[place, len(rows)] for place, rows in enumerate(parts)]
    return np.concatenate([np.array(sizes), np.array(counts)], axis=1).astype(np.float64)
