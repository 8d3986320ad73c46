"""Signals of what groups of clients did together: the sums that secure aggregation opens, compared with each other and
with the gradients of single records.

A group is a set of clients whose updates somebody knows the sum of. An update that comes in clear is a group of one.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from attacks.gradients import Match, along, comparable, cosine, owned_by, record_ask, slopes
from fedsim.attack import Bools, Signal
from fedsim.errors import NotVisible
from fedsim.randomness import generator
from fedsim.transcript import AGGREGATE, SERVER, Arrays, Event
from fedsim.vectors import flat, shaped
from fedsim.views import Ask, Floats, Ints, Oracle, Public, RecordAsk

SKETCH = 4096
"""Numbers that stand for an update where only lengths are asked for; models with fewer parameters keep all of them."""


class Group(NamedTuple):
    """What a group of clients did in a round: the sum float64 [d] over them of weight x (broadcast - reply), the sum of
    their weights, and the model they started from. size: how many they are, where nobody is named too.
    """

    round: int
    model: Arrays
    members: frozenset[str]
    descent: Floats
    weight: float
    size: int = 1


class Rounds(NamedTuple):
    """The round under way: its number, its broadcast, who was sent it and who answered under a mask."""

    number: int = -1
    model: Arrays | None = None
    invited: frozenset[str] = frozenset()
    answered: frozenset[str] = frozenset()


def follow(state: Rounds, event: Event) -> tuple[Rounds, Group | None]:
    """Return the state after an event, and the group whose sum it shows, if it does.

    Whose updates are in a sum that is noted without names follows from who answered or, where answers go to a trusted
    party, from who was asked; where neither agrees with how many are in it, nobody is named.
    """
    if event.kind == "train" and event.sender == SERVER and event.arrays:
        if event.round != state.number:
            state = Rounds(event.round, event.arrays)
        return state._replace(invited=state.invited | {event.receiver}), None
    if event.round != state.number or state.model is None:
        return state, None
    if event.kind == "train-reply":
        if not comparable(state.model, event.arrays):
            return state._replace(answered=state.answered | {event.sender}), None
        weight = float(event.facts.get("num-examples", 1))  # type: ignore[arg-type]
        descent = (flat(state.model) - flat(event.arrays)) * weight
        return state, Group(event.round, state.model, frozenset({event.sender}), descent, weight)
    if event.kind != AGGREGATE or not comparable(state.model, event.arrays):
        return state, None
    weight = float(event.facts["weight"])  # type: ignore[arg-type]
    named = [party for party in (state.answered, state.invited) if len(party) == event.facts["clients"]]
    descent = -flat(event.arrays) * weight
    members = named[0] if named else frozenset()
    return state, Group(event.round, state.model, members, descent, weight, int(event.facts["clients"]))  # type: ignore[arg-type]


def beside(public: Public, ask: RecordAsk, rows: Ints, model: Arrays, descent: Floats) -> Match:
    """Return some rows of the records asked about beside a descent [d] from a model."""
    at = slopes(public, model, ask.items, rows)
    direction = {name: torch.as_tensor(array, dtype=at.x.dtype) for name, array in shaped(descent, model).items()}
    return Match(along(public, at, direction), at.lengths.numpy(), float(np.linalg.norm(descent)))


# Means of cosines: with each sum that the owner is in, or with what two sums differ in.


class Cosines(NamedTuple):
    """Weighted sums of cosines [items] and the weights in them [items]; the newest sum over more than one client."""

    public: Public
    ask: RecordAsk
    owned: Mapping[str, Ints]
    total: Floats
    weight: Floats
    rounds: Rounds = Rounds()
    before: Group | None = None


def start(public: Public, ask: Ask) -> Cosines:
    """Return the state before anything was seen; TypeError for an ask about something else than records."""
    asked = record_ask(ask)
    nothing = np.zeros(len(asked.items))
    return Cosines(public, asked, owned_by(asked.items), nothing, nothing)


def add(state: Cosines, group: Group, weight: float) -> Cosines:
    """Return the state after the records of a group's members were compared with its sum, at a weight."""
    mine = [state.owned[party] for party in sorted(group.members & state.owned.keys())]
    if not mine:
        return state
    rows = np.concatenate(mine)
    total, weights = state.total.copy(), state.weight.copy()
    total[rows] += weight * cosine(beside(state.public, state.ask, rows, group.model, group.descent))
    weights[rows] += weight
    return state._replace(total=total, weight=weights)


def _step_sums(state: Cosines, event: Event, weight: Callable[[int], float]) -> Cosines:
    rounds, group = follow(state.rounds, event)
    state = state._replace(rounds=rounds)
    return add(state, group, weight(len(group.members))) if group and group.members else state


def alike(size: int) -> float:  # noqa: ARG001 - whatever the size
    """Return the same weight for a group of any size."""
    return 1.0


def inverse(size: int) -> float:
    """Return 1 / size, to which a record's share of a sum over `size` clients is proportional."""
    return 1.0 / size


def _step_differences(state: Cosines, event: Event) -> Cosines:
    rounds, group = follow(state.rounds, event)
    state = state._replace(rounds=rounds)
    if not group or not group.members:
        return state
    if len(group.members) == 1:  # that it differs from nothing needs no second sum
        return add(state, group, 1.0)
    found = difference(state.before, group) if state.before else None
    return (add(state, found, 1.0) if found else state)._replace(before=group)


def difference(one: Group, other: Group) -> Group | None:
    """Return what the one client that only one of two groups has did there, up to how far the others' updates changed
    in between; None where the groups do not differ in exactly one client.
    """
    if len(one.members ^ other.members) != 1:
        return None
    more, less = (one, other) if len(one.members) > len(other.members) else (other, one)
    return more._replace(
        members=more.members - less.members,
        descent=more.descent - less.descent,
        weight=more.weight - less.weight,
        size=1,
    )


def finish(state: Cosines, released: Oracle, unseen: str) -> Floats:  # noqa: ARG001 - the sums say it all
    """Return the weighted mean cosine of each row; NotVisible, with the reason `unseen`, where there was none."""
    if not state.weight.any():
        raise NotVisible(unseen)
    mean = np.divide(state.total, state.weight, out=np.zeros(len(state.total)), where=state.weight > 0)
    return np.concatenate([mean, np.zeros(len(state.ask.population))])


NO_SUM = "no sum of updates that a client alleged to hold one of these records is known to be in crossed this vantage"
AGGREGATE_COSINE = Signal(start, partial(_step_sums, weight=alike), partial(finish, unseen=NO_SUM), "sum")
"""Mean cosine [rows] of a record's gradient with the sums that its alleged owner is in; 0 for an owner that is in none,
and for the population.
"""
SMALLEST_SUM = Signal(start, partial(_step_sums, weight=inverse), partial(finish, unseen=NO_SUM), "sum")
"""The same mean, in which a round counts by 1 / the number of clients in the sum."""
ROUND_DIFFERENCE = Signal(
    start,
    _step_differences,
    partial(finish, unseen="no two sums in a row that differ in just one of these clients crossed this vantage"),
    "sums",
)
"""Mean cosine [rows] of a record's gradient with the differences of two sums in a row of which only one has its alleged
owner, and with the owner's own updates where they come in clear.
"""


# Sums of many rounds, solved for the clients' mean updates.


class Equations(NamedTuple):
    """A^T A [clients, clients], A^T P [clients, items] and A^T S [clients, sketch] for rounds t, with A_tk = 1 where
    client k is in sum t, P_tx the inner product of record x's unit gradient with sum t, and S_t the sum, sketched.
    """

    public: Public
    ask: RecordAsk
    counts: Floats
    products: Floats
    sketches: Floats
    rounds: Rounds = Rounds()
    sums: int = 0


def _start_equations(public: Public, ask: Ask) -> Equations:
    asked, clients = record_ask(ask), public.clients
    return Equations(
        public,
        asked,
        np.zeros((clients, clients)),
        np.zeros((clients, len(asked.items))),
        np.zeros((clients, SKETCH)),
    )


def sketch(vector: Floats) -> Floats:
    """Return a linear image [SKETCH] of a vector [d] of about its length: itself where it fits, else each coordinate
    with a fixed random sign in a fixed random place.

    Source: Charikar, Chen, Farach-Colton, "Finding frequent items in data streams", ICALP 2002,
    https://doi.org/10.1007/3-540-45465-9_59
    """
    if len(vector) <= SKETCH:
        return np.pad(vector, (0, SKETCH - len(vector)))
    rng = generator(0, "sketch", len(vector))
    places, signs = rng.integers(SKETCH, size=len(vector)), rng.integers(2, size=len(vector)) * 2.0 - 1.0
    return np.asarray(np.bincount(places, signs * vector, SKETCH), dtype=np.float64)


def _step_equations(state: Equations, event: Event) -> Equations:
    rounds, group = follow(state.rounds, event)
    state = state._replace(rounds=rounds)
    if not group or not group.members:
        return state
    there = indicator(group, state.public.clients)
    found = beside(state.public, state.ask, np.arange(len(state.ask.items)), group.model, group.descent)
    unit = np.divide(found.products, found.lengths, out=np.zeros(len(found.lengths)), where=found.lengths > 0)
    return state._replace(
        counts=state.counts + np.outer(there, there),
        products=state.products + np.outer(there, unit),
        sketches=state.sketches + np.outer(there, sketch(group.descent)),
        sums=state.sums + 1,
    )


def singled_out(counts: Floats) -> tuple[Floats, Bools]:
    """Return the pseudo-inverse of A^T A [clients, clients], and which clients [clients] the equations determine."""
    inverted = np.linalg.pinv(counts, rcond=1e-9, hermitian=True).astype(np.float64)
    return inverted, np.isclose(np.diag(inverted @ counts), 1.0, atol=1e-6)  # alone in what the equations say of it


def undetermined(counts: Floats, sums: int) -> str:
    """Return how many sums there were, and of which rank, in the words of a reason why nobody is singled out."""
    rank = np.linalg.matrix_rank(counts, tol=1e-9 * max(sums, 1), hermitian=True) if sums else 0
    return (
        f"{sums} sums of updates with names crossed this vantage, of rank {rank} for {len(counts)} clients, and single "
        "out nobody"
    )


def indicator(group: Group, clients: int) -> Floats:
    """Return 1 for each client [clients] that is in a group, and 0 for the others."""
    there = np.zeros(clients)
    there[[int(party.removeprefix("client:")) for party in group.members]] = 1.0
    return there


def _finish_equations(state: Equations, released: Oracle) -> Floats:  # noqa: ARG001 - the sums say it all
    owner = state.ask.items.owner
    alleged = (owner >= 0) & (owner < state.public.clients)
    inverted, solved = singled_out(state.counts)
    told = alleged & solved[owner]
    if not told.any():
        raise NotVisible(f"{undetermined(state.counts, state.sums)} who is alleged to hold one of these records")
    lengths = np.linalg.norm(inverted @ state.sketches, axis=1)
    products = np.einsum("nk,kn->n", inverted[owner], state.products)
    scores = np.divide(products, lengths[owner], out=np.zeros(len(owner)), where=told & (lengths[owner] > 0))
    return np.concatenate([scores, np.zeros(len(state.ask.population))])


DISAGGREGATED_COSINE = Signal(_start_equations, _step_equations, _finish_equations, "sums")
"""Cosine [rows] of a record's gradient (of unit length, round by round) with the mean update of its alleged owner, as
least squares find it from the sums of all rounds and who was in each; 0 where they do not determine it, and for the
population.
"""
