"""What an attack is: a signal (what is measured through a view) and a test (how measurements become scores).

A signal is a fold over the visible events of one world, so it can run while the federation runs and keeps no
transcript. A test compares the target world's signal with those of reference worlds that the attacker trained itself.
Neither ever meets the target's secrets.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsim.randomness import generator
from fedsim.transcript import Event
from fedsim.views import Ask, Floats, Oracle, Public

Bools = NDArray[np.bool_]


Input = Literal[
    "labels",
    "confidences",
    "models",
    "update",
    "updates",
    "sum",
    "sums",
    "roll",
    "metadata",
    "ascent",
    "inconsistency",
    "poisoning",
]
"""What a signal reads: the answers of a model, or only their labels; the global models of several rounds; the update of
the client it is about; those of the others too; a sum of updates that it is in, or sums over sets of clients that
differ; who takes part; what travels in clear beside an update; or what follows on acts of one's own, gradient ascent,
inconsistent models or poisoning.
"""


class Equations(NamedTuple):
    """What a signal solves for clients from: how many sums of updates, over how many clients, the rank of the matrix of
    who was in which, and how many clients these determine.
    """

    sums: int
    clients: int
    rank: int
    singled_out: int


class Signal(NamedTuple):
    """Pure, picklable functions, and what they read. `finish` returns float64 [rows, ...]: for a RecordAsk one row for
    each item and then one for each population record; for other asks one row for each item asked. It raises
    `NotVisible` when what it needs never came by. `equations` says of a state what there is to solve, if anything."""

    start: Callable[[Public, Ask], Any]
    step: Callable[[Any, Event], Any]
    finish: Callable[[Any, Oracle], Floats]
    reads: Input
    equations: Callable[[Any], Equations] | None = None


@dataclass(frozen=True)
class Case:
    """All that a test may see of one target world."""

    target: Floats  # [n, ...] signal on the items asked
    population: Floats  # [m, ...] the same signal on public records (m = 0 for games that have none)
    references: Floats  # [r, n, ...] the same signal in worlds the attacker trained
    reference_population: Floats  # [r, m, ...]
    members: Bools  # [r, n] secrets of those reference worlds
    ask: Ask
    rng: np.random.Generator
    amounts: Floats | None = None  # [r, n] the true quantities of those worlds, where one is asked for


Test = Callable[[Case], Floats]
"""Scores float64 [n], higher means "yes, in"."""


class Paper(NamedTuple):
    """Where an attack was published: authors, title, venue and year; and a link to it."""

    text: str
    link: str


@dataclass(frozen=True)
class Attack:
    """A named row of the attack table."""

    name: str
    title: str
    game: Literal[
        "record", "property", "labels", "canaries", "source", "client", "distinguish", "client_property", "batches"
    ]
    signal: Signal
    test: Test
    summary: str  # what it does, in two sentences a newcomer understands
    knowledge: str  # what the attacker needs beyond its view
    paper: Paper
    min_references: int = 0  # reference worlds without which it cannot run
    estimates: bool = False  # scores are estimates of a quantity, so their error can be measured


def fold(signal: Signal, public: Public, ask: Ask, events: Iterable[Event], released: Oracle) -> Floats:
    """Return the signal of a finished world from its visible events."""
    state = signal.start(public, ask)
    for event in events:
        state = signal.step(state, event)
    return signal.finish(state, released)


def score(
    attack: Attack,
    signals: Floats,
    members: Bools,
    targets: Bools,
    references: Bools,
    ask: Ask,
    seed: int,
    amounts: Floats | None = None,
) -> Floats:
    """Return scores [worlds, n] with every world of `targets` [worlds] as a target (other rows are 0).

    signals: [worlds, rows, ...]; members: [worlds, n]; references: [worlds, worlds], True where the row's world may
    use the column's world as a reference; amounts: [worlds, n], for games with a quantity. The target's own row of
    `members` and `amounts` never reaches the test.
    """
    items = members.shape[1]
    scores = np.zeros(members.shape)
    for world in np.flatnonzero(targets):
        others = np.flatnonzero(references[world])
        if world in others:
            raise ValueError("a world cannot be its own reference")
        case = Case(
            target=signals[world, :items],
            population=signals[world, items:],
            references=signals[others, :items],
            reference_population=signals[others, items:],
            members=members[others],
            ask=ask,
            rng=generator(seed, "score", attack.name, int(world)),
            amounts=None if amounts is None else amounts[others],
        )
        scores[world] = attack.test(case)
    if not np.isfinite(scores).all():
        raise ValueError(f"attack {attack.name} gave a score that is not a finite number")
    return scores
