"""Signals of what groups of clients did together: the sums that secure aggregation opens, compared with each other and
with the gradients of single records.

A group is a set of clients whose updates somebody knows the sum of. An update that comes in clear is a group of one.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from attacks.folds import beside, broadcast, mean_of, number, per_item, trained_reply
from attacks.gradients import comparable, cosine, due, owned_by, record_ask
from fedsim.attack import Bools, Equations, Signal
from fedsim.errors import NotVisible
from fedsim.randomness import generator
from fedsim.transcript import AGGREGATE, Arrays, Event
from fedsim.vectors import flat
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
    if broadcast(event):
        if event.round != state.number:
            state = Rounds(event.round, event.arrays)
        return state._replace(invited=state.invited | {event.receiver}), None
    if event.round != state.number or state.model is None:
        return state, None
    if event.kind == "train-reply":
        if not trained_reply(event, state.model):
            return state._replace(answered=state.answered | {event.sender}), None
        weight = number(event, "num-examples")
        weight = 1.0 if weight is None else weight
        descent = (flat(state.model) - flat(event.arrays)) * weight
        return state, Group(event.round, state.model, frozenset({event.sender}), descent, weight)
    if event.kind != AGGREGATE or not comparable(state.model, event.arrays):
        return state, None
    weight, clients = number(event, "weight"), number(event, "clients")
    assert weight is not None  # whoever opened the sum notes both
    assert clients is not None
    named = [party for party in (state.answered, state.invited) if len(party) == clients]
    members = named[0] if named else frozenset()
    return state, Group(event.round, state.model, members, -flat(event.arrays) * weight, weight, int(clients))


# Means of cosines: with each sum that the owner is in, or with what two sums differ in.


class Cosines(NamedTuple):
    """Weighted sums of cosines [items] and the weights in them [items]; when each owner was last compared with what it
    did alone; the newest sum over more than one client.
    """

    public: Public
    ask: RecordAsk
    owned: Mapping[str, Ints]
    total: Floats
    weight: Floats
    alone: Mapping[str, int] = {}
    rounds: Rounds = Rounds()
    before: Group | None = None


def start(public: Public, ask: Ask) -> Cosines:
    """Return the state before anything was seen; TypeError for an ask about something else than records."""
    asked = record_ask(ask)
    nothing = np.zeros(len(asked.items))
    return Cosines(public, asked, owned_by(asked.items), nothing, nothing)


def add(state: Cosines, group: Group, weight: float) -> Cosines:
    """Return the state after the records of a group's members were compared with its sum, at a weight.

    What a client did alone is compared as seldom as its updates are elsewhere; sums, which say less each, every time.
    """
    mine = sorted(group.members & state.owned.keys())
    if len(group.members) == 1:
        mine = [party for party in mine if due(state.public, state.alone.get(party), group.round)]
        state = state._replace(alone={**state.alone, **dict.fromkeys(mine, group.round)})
    if not mine:
        return state
    rows = np.concatenate([state.owned[party] for party in mine])
    total, weights = state.total.copy(), state.weight.copy()
    total[rows] += weight * cosine(beside(state.public, state.ask.items, rows, group.model, group.descent))
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
    return per_item(mean_of(state.total, state.weight), state.ask)


NO_SUM = "no sum of updates that a client alleged to hold one of these records is known to be in crossed this vantage"
AGGREGATE_COSINE = Signal(start, partial(_step_sums, weight=alike), partial(finish, unseen=NO_SUM), "sum")
"""Mean cosine [rows] of a record's gradient with the sums that its alleged owner is in; NaN for an owner that is in
none, and for the population.
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


class Unsolved(NamedTuple):
    """A^T A [clients, clients], A^T P [clients, items] and A^T S [clients, sketch] for rounds t, with A_tk = 1 where
    client k is in sum t, P_tx the inner product of record x's unit gradient with sum t, and S_t the sum, sketched; when
    each client was last seen alone in a sum.
    """

    public: Public
    ask: RecordAsk
    counts: Floats
    products: Floats
    sketches: Floats
    rounds: Rounds = Rounds()
    sums: int = 0
    alone: Mapping[str, int] = {}


def _start_equations(public: Public, ask: Ask) -> Unsolved:
    asked, clients = record_ask(ask), public.clients
    return Unsolved(
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
    places, signs = _places(len(vector))
    return np.asarray(np.bincount(places, signs * vector, SKETCH), dtype=np.float64)


@lru_cache(maxsize=1)
def _places(length: int) -> tuple[Ints, Floats]:
    """Return where each of `length` coordinates goes in a sketch, and with which sign."""
    rng = generator(0, "sketch", length)
    return rng.integers(SKETCH, size=length), rng.choice(np.array([-1.0, 1.0]), size=length)


def _step_equations(state: Unsolved, event: Event) -> Unsolved:
    rounds, group = follow(state.rounds, event)
    state = state._replace(rounds=rounds)
    if not group or not group.members:
        return state
    if len(group.members) == 1:  # says the same again: the rank does not grow
        (party,) = group.members
        if not due(state.public, state.alone.get(party), group.round):
            return state
        state = state._replace(alone={**state.alone, party: group.round})
    there = indicator(group, state.public.clients)
    # Where updates come in clear no sum of several is opened, so no other client's records meet this equation.
    owner = state.ask.items.owner
    told = np.flatnonzero(there) if event.kind == "train-reply" else owner
    rows = np.flatnonzero(np.isin(owner, told))
    unit = np.zeros(len(owner))
    if len(rows):
        found = beside(state.public, state.ask.items, rows, group.model, group.descent)
        unit[rows] = np.divide(found.products, found.lengths, out=np.zeros(len(rows)), where=found.lengths > 0)
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


def equations(counts: Floats, sums: int) -> Equations:
    """Return what A^T A [clients, clients] over so many sums is made of, with A the matrix of who was in which."""
    if not sums:
        return Equations(0, len(counts), 0, 0)
    rank = int(np.linalg.matrix_rank(counts, tol=1e-9 * sums, hermitian=True))
    return Equations(sums, len(counts), rank, int(singled_out(counts)[1].sum()))


def undetermined(counts: Floats, sums: int) -> str:
    """Return how many sums there were, and of which rank, in the words of a reason why nobody is singled out."""
    found = equations(counts, sums)
    return (
        f"{sums} sums of updates with names crossed this vantage, of rank {found.rank} for {len(counts)} clients, "
        "and single out nobody"
    )


def indicator(group: Group, clients: int) -> Floats:
    """Return 1 for each client [clients] that is in a group, and 0 for the others."""
    there = np.zeros(clients)
    there[[int(party.removeprefix("client:")) for party in group.members]] = 1.0
    return there


def _finish_equations(state: Unsolved, released: Oracle) -> Floats:  # noqa: ARG001 - the sums say it all
    owner = state.ask.items.owner
    alleged = (owner >= 0) & (owner < state.public.clients)
    inverted, solved = singled_out(state.counts)
    told = alleged & solved[owner]
    if not told.any():
        raise NotVisible(f"{undetermined(state.counts, state.sums)} who is alleged to hold one of these records")
    lengths = np.linalg.norm(inverted @ state.sketches, axis=1)
    products = np.einsum("nk,kn->n", inverted[owner], state.products)
    cosines = np.divide(products, lengths[owner], out=np.zeros(len(owner)), where=lengths[owner] > 0)
    return per_item(np.where(told, cosines, np.nan), state.ask)


def _equations(state: Unsolved) -> Equations:
    return equations(state.counts, state.sums)


DISAGGREGATED_COSINE = Signal(_start_equations, _step_equations, _finish_equations, "sums", _equations)
"""Cosine [rows] of a record's gradient (of unit length, round by round) with the mean update of its alleged owner, as
least squares find it from the sums of all rounds and who was in each; NaN where they do not determine it, and for
the population.
"""
