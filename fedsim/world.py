"""What a game draws: worlds, each a federation with a secret, and the exams that ask for it."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedsim.canaries import Canaries
from fedsim.randomness import generator
from fedsim.scenario import Adversary, Federation, ModelChoice
from fedsim.transcript import SERVER
from fedsim.views import Ask, RecordAsk, Records, SourceAsk, Vantage

Bools = NDArray[np.bool_]
Rows = NDArray[np.int64]
Kind = Literal["main", "null", "planted"]


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


def cohort(seed: int, world: World, number: int, more: Sequence[int] = ()) -> list[int]:
    """Return the clients that take part in round `number` of a world, which counts from 1: of those with records and of
    `more`, all, a fixed number, or each by a coin flip. seed: that of the scenario.
    """
    available = [*(k for k, rows in enumerate(world.rows) if len(rows)), *more]
    wanted = world.federation.clients_per_round
    rng = generator(seed, world.name, "cohort", number)
    if wanted is None:
        return available
    if isinstance(wanted, int):
        return sorted(int(k) for k in rng.choice(available, min(wanted, len(available)), replace=False))
    return [k for k, coin in zip(available, rng.random(len(available)), strict=True) if coin < wanted]


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
    groups: int64 [w]: worlds with the same number share the records that the question is about, and vary together;
        None: every world its own.
    sizes: float64 [w, clients], how many records each client trains on where that may follow the secret: the server
        knows it of all, a client of itself.
    put: bool [w, items], which questions are put at all; None: all.
    caveat: what intervals over these worlds do not cover, in a sentence.
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
    groups: Rows | None = None
    sizes: NDArray[np.float64] | None = None
    put: Bools | None = None
    caveat: str | None = None


@dataclass(frozen=True)
class Draw:
    """All the worlds of one game, and its exams: main, the null control and the planted leak."""

    worlds: tuple[World, ...]
    exams: tuple[Exam, ...]


def asked(exam: Exam, vantage_clients: frozenset[int]) -> Bools:
    """Return which questions count [w, items]: those put in target worlds, but not about the attacker's own data."""
    counts = exam.targets[:, None] & ~np.isin(exam.owner, sorted(vantage_clients))[None, :]
    return counts if exam.put is None else counts & exam.put


def groups_of(exam: Exam, mask: Bools) -> int | None:
    """Return how many groups of worlds that share no records the questions of `mask` [w, items] come from; None where
    no two worlds share any.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    groups = len(rows) if exam.groups is None else len(np.unique(exam.groups[rows]))
    return groups if groups < len(rows) else None


def blind_to_models(exam: Exam, vantage: Vantage) -> NDArray[np.float64]:
    """Return all that a vantage can know without any model [w, items, features]."""
    if exam.sizes is None:
        return exam.blind
    known = slice(None) if SERVER in vantage.parties else sorted(vantage.clients)
    sizes = exam.sizes[:, None, known]
    return np.concatenate([exam.blind, np.broadcast_to(sizes, (*exam.blind.shape[:2], sizes.shape[2]))], axis=2)


def asked_from(ask: Ask, vantage_clients: frozenset[int]) -> Ask:
    """Return the questions as they are put to a vantage: the records of its own clients have no owner to look for."""
    if not isinstance(ask, RecordAsk | SourceAsk) or not vantage_clients:
        return ask
    owner = np.where(np.isin(ask.items.owner, sorted(vantage_clients)), -1, ask.items.owner)
    return dataclasses.replace(ask, items=dataclasses.replace(ask.items, owner=owner))
