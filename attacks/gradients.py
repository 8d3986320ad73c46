"""Signals of client updates: does a record's own gradient point the way its alleged owner moved?"""

from collections.abc import Mapping
from math import ceil
from typing import NamedTuple

import numpy as np
import torch

from fedsim.attack import Signal
from fedsim.errors import NotVisible
from fedsim.gradients import inner, norms, record_gradients
from fedsim.transcript import SERVER, Arrays, Event, client
from fedsim.views import Ask, Floats, Ints, Oracle, Public, RecordAsk

UPDATES_OF_AN_OWNER = 10
"""At most this many updates of a client are compared: the mean has settled by then, and each costs one gradient a
record.
"""


class Alignment(NamedTuple):
    """Sums of cosines [items], how many updates of the owner they cover [items], which items are said to be whose, and
    the newest broadcast.
    """

    public: Public
    ask: RecordAsk
    owned: Mapping[str, Ints]
    total: Floats
    updates: Ints
    last_round: Mapping[str, int]
    broadcast: Arrays | None = None
    broadcast_round: int = -1


def _start(public: Public, ask: Ask) -> Alignment:
    if not isinstance(ask, RecordAsk):
        raise TypeError(f"a signal of records needs a RecordAsk, got {type(ask).__name__}")
    owner = ask.items.owner
    owned = {client(int(index)): np.flatnonzero(owner == index) for index in np.unique(owner)}
    return Alignment(public, ask, owned, np.zeros(len(owner)), np.zeros(len(owner), dtype=np.int64), {})


def comparable(broadcast: Arrays, reply: Arrays) -> bool:
    """Return whether a reply can be a trained copy of the broadcast model: same names, same shapes, real numbers."""
    return broadcast.keys() == reply.keys() and all(
        reply[name].shape == array.shape and np.issubdtype(reply[name].dtype, np.floating)
        for name, array in broadcast.items()
    )


def _step(state: Alignment, event: Event) -> Alignment:
    if event.kind == "train" and event.sender == SERVER and event.arrays and event.round != state.broadcast_round:
        return state._replace(broadcast=event.arrays, broadcast_round=event.round)
    rows = state.owned.get(event.sender)
    if event.kind != "train-reply" or event.round != state.broadcast_round or state.broadcast is None or rows is None:
        return state
    if not comparable(state.broadcast, event.arrays) or not _due(state, event):
        return state
    total, updates = state.total.copy(), state.updates.copy()
    total[rows] += cosines(state, event.arrays, rows)
    updates[rows] += 1
    return state._replace(total=total, updates=updates, last_round={**state.last_round, event.sender: event.round})


def _due(state: Alignment, event: Event) -> bool:
    """Space the comparisons evenly, whether or not the client takes part in every round."""
    last = state.last_round.get(event.sender)
    return last is None or event.round - last >= ceil(state.public.rounds / UPDATES_OF_AN_OWNER)


class Aligned(NamedTuple):
    """Inner products [rows] of records' gradients with a movement, their lengths [rows], and that of the movement."""

    product: Floats
    gradient: Floats
    movement: float


def cosines(state: Alignment, reply: Arrays, rows: Ints) -> Floats:
    """Return the cosine [rows] of each record's gradient at the broadcast model with the descent `broadcast - reply`.

    A zero gradient or a zero update points nowhere: cosine 0.
    Source: Li, Li, Ribeiro, "Effective passive membership inference attacks in federated learning against
    overparameterized models", ICLR 2023, https://openreview.net/forum?id=QsCSLPP55Ku
    """
    found = aligned(state, reply, rows)
    lengths = found.gradient * found.movement
    return np.divide(found.product, lengths, out=np.zeros(len(lengths)), where=lengths > 0)


def aligned(state: Alignment, reply: Arrays, rows: Ints) -> Aligned:
    """Return how each record's gradient at the broadcast model lies to the descent `broadcast - reply`."""
    assert state.broadcast is not None
    parameters = {name: torch.tensor(array) for name, array in state.broadcast.items()}
    dtype = next(iter(parameters.values())).dtype
    moved = {
        name: torch.as_tensor(np.subtract(array, reply[name]), dtype=dtype) for name, array in state.broadcast.items()
    }
    x, y = torch.from_numpy(state.ask.items.x[rows]).to(dtype), torch.from_numpy(state.ask.items.y[rows])
    pieces = [(inner(g, moved), norms(g)) for g in record_gradients(state.public.apply, parameters, x, y)]
    products, lengths = (torch.cat(parts).numpy() for parts in zip(*pieces, strict=True))
    return Aligned(products, lengths, float(norms({name: value[None] for name, value in moved.items()})))


def _finish(state: Alignment, released: Oracle) -> Floats:  # noqa: ARG001 - the updates say it all
    if not state.updates.any():
        raise NotVisible("no update of a client that is alleged to hold one of these records crossed this vantage")
    mean = state.total / np.maximum(state.updates, 1)
    return np.concatenate([mean, np.zeros(len(state.ask.population))])


UPDATE_COSINE = Signal(_start, _step, _finish)
"""Mean cosine [rows] over the observed updates of the alleged owner; 0, which is no evidence, for an owner never seen
and for the population, which nobody is alleged to hold.
"""


class Course(NamedTuple):
    """Sums over the movements of the global model: inner products [items] with each record's gradients, the squared
    lengths of these [items], and those of the movements.
    """

    alignment: Alignment
    product: Floats
    gradient: Floats
    movement: float


def _start_course(public: Public, ask: Ask) -> Course:
    alignment = _start(public, ask)
    nothing = np.zeros(len(alignment.ask.items))
    return Course(alignment, nothing, nothing, 0.0)


def _follow(state: Course, event: Event) -> Course:
    known = state.alignment
    if event.sender != SERVER or event.kind not in ("train", "final") or not event.arrays:
        return state
    if event.kind == "train" and event.round == known.broadcast_round:
        return state
    if known.broadcast is not None and _spaced(state):
        found = aligned(known, event.arrays, np.arange(len(known.ask.items)))
        state = state._replace(
            product=state.product + found.product,
            gradient=state.gradient + found.gradient**2,
            movement=state.movement + found.movement**2,
        )
    return state._replace(alignment=known._replace(broadcast=event.arrays, broadcast_round=event.round))


def _spaced(state: Course) -> bool:
    """Space the comparisons evenly over the rounds."""
    return state.alignment.broadcast_round % ceil(state.alignment.public.rounds / UPDATES_OF_AN_OWNER) == 0


def _finish_course(state: Course, released: Oracle) -> Floats:  # noqa: ARG001 - the movements say it all
    if not state.movement:
        raise NotVisible("no two global models in a row crossed this vantage")
    lengths = np.sqrt(state.gradient * state.movement)
    found = np.divide(state.product, lengths, out=np.zeros(len(lengths)), where=lengths > 0)
    return np.concatenate([found, np.zeros(len(state.alignment.ask.population))])


MOVEMENT_COSINE = Signal(_start_course, _follow, _finish_course)
"""Cosine [rows] with what the whole cohort did to the global model, all rounds as one long vector, so that rounds count
by what happened in them: all that secure aggregation leaves; 0 for the population.
"""
