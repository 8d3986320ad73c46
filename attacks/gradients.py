"""Signals of client updates: did the alleged owner move the model the way this record alone would have moved it?

The gradients of the records asked about are taken once a round, at the broadcast model, and compared with the update of
each client as it comes by; no update is kept.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from attacks.final import asked_records
from attacks.folds import UNSEEN_OWNER, mean_of, per_item
from fedsim.attack import Signal
from fedsim.errors import NotVisible
from fedsim.gradients import NUMBERS, Gradients, Outer, gradient_norms, inner, norms, record_gradients
from fedsim.transcript import SERVER, Arrays, Event, client
from fedsim.views import Ask, Floats, Ints, Oracle, Public, RecordAsk, Records

UPDATES_OF_AN_OWNER = 10
"""At most this many updates of a client are compared: the mean has settled by then, and each costs one gradient a
record.
"""


def comparable(broadcast: Arrays, reply: Arrays) -> bool:
    """Return whether a reply can be a trained copy of the broadcast model: same names, same shapes, real numbers."""
    return broadcast.keys() == reply.keys() and all(
        reply[name].shape == array.shape and np.issubdtype(reply[name].dtype, np.floating)
        for name, array in broadcast.items()
    )


def interval(public: Public) -> int:
    """Return the rounds from one comparison to the next, so that they are spread evenly over the run."""
    return ceil(public.rounds / UPDATES_OF_AN_OWNER)


def due(public: Public, last: int | None, number: int) -> bool:
    """Return whether a client that was compared in round `last` is to be compared again in round `number`: spaced
    evenly, whether or not it takes part in every round.
    """
    return last is None or number - last >= interval(public)


def record_ask(ask: Ask) -> RecordAsk:
    """Return an ask about records; TypeError for any other."""
    if not isinstance(ask, RecordAsk):
        raise TypeError(f"a signal of records needs a RecordAsk, got {type(ask).__name__}")
    return ask


def owned_by(records: Records) -> Mapping[str, Ints]:
    """Return the rows of each alleged owner, by party name."""
    return {client(int(index)): np.flatnonzero(records.owner == index) for index in np.unique(records.owner)}


# The gradients of some records at one model, and an update beside them.


class Slopes(NamedTuple):
    """Gradients of n records at a model: their lengths float64 [n], and all of them where they are few numbers;
    otherwise they are computed again for each update.
    """

    parameters: Mapping[str, Tensor]
    x: Tensor
    y: Tensor
    lengths: Tensor
    kept: Gradients | None


def slopes(public: Public, model: Arrays, records: Records, rows: Ints) -> Slopes:
    """Return the gradients of some rows of `records` at a model."""
    parameters = {name: torch.tensor(array) for name, array in model.items()}
    dtype = next(iter(parameters.values())).dtype
    x, y = torch.from_numpy(records.x[rows]).to(dtype), torch.from_numpy(records.y[rows])
    lengths, pieces = [], []
    for piece in record_gradients(public.apply, parameters, x, y):
        lengths.append(norms(piece))
        if _numbers(piece) * len(y) <= NUMBERS * len(lengths[-1]):
            pieces.append(piece)
    kept = _joined(pieces) if len(pieces) == len(lengths) else None
    return Slopes(parameters, x, y, torch.cat(lengths), kept)


def _numbers(gradients: Gradients) -> int:
    return sum(
        value.error.numel() + value.input.numel() if isinstance(value, Outer) else value.numel()
        for value in gradients.values()
    )


def _joined(pieces: list[Gradients]) -> Gradients:
    """Return pieces of consecutive records as one."""

    def join(parts: list[Tensor | Outer]) -> Tensor | Outer:
        factors = [part for part in parts if isinstance(part, Outer)]
        if factors:
            return Outer(*(torch.cat(column) for column in zip(*factors, strict=True)))
        return torch.cat([part for part in parts if isinstance(part, Tensor)])

    return pieces[0] if len(pieces) == 1 else {name: join([piece[name] for piece in pieces]) for name in pieces[0]}


def _some(gradients: Gradients, part: slice) -> Gradients:
    return {
        name: Outer(value.error[part], value.input[part]) if isinstance(value, Outer) else value[part]
        for name, value in gradients.items()
    }


class Match(NamedTuple):
    """Records beside an update D, the descent `broadcast - reply`: <D, g> [n], |g| [n] and |D|, for gradients g."""

    products: Floats
    lengths: Floats
    moved: float


def along(public: Public, at: Slopes, direction: Mapping[str, Tensor], part: slice = slice(None)) -> Floats:
    """Return the inner product [n] of the gradients of some of the records with a direction."""
    pieces: Iterator[Gradients] = (
        iter([_some(at.kept, part)])
        if at.kept is not None
        else record_gradients(public.apply, at.parameters, at.x[part], at.y[part])
    )
    return np.asarray(torch.cat([inner(piece, direction) for piece in pieces]).numpy())


def match(public: Public, at: Slopes, broadcast: Arrays, reply: Arrays, part: slice = slice(None)) -> Match:
    """Return how the gradients of some of the records match a client's update."""
    dtype = at.x.dtype
    moved = {name: torch.as_tensor(np.subtract(array, reply[name]), dtype=dtype) for name, array in broadcast.items()}
    length = norms({name: value[None] for name, value in moved.items()})
    return Match(along(public, at, moved, part), at.lengths[part].numpy(), float(length))


Measure = Callable[[Match], Floats]


def cosine(found: Match) -> Floats:
    """Return the cosine [n] of each record's gradient with the update.

    A zero gradient or a zero update points nowhere: cosine 0.
    Source: Li, Li, Ribeiro, "Effective passive membership inference attacks in federated learning against
    overparameterized models", ICLR 2023, https://openreview.net/forum?id=QsCSLPP55Ku
    """
    lengths = found.lengths * found.moved
    return np.divide(found.products, lengths, out=np.zeros(len(lengths)), where=lengths > 0)


def difference(found: Match) -> Floats:
    """Return (|D|^2 - |D - s g|^2) / |D|^2 [n]: the share of the update's squared length that a step s g along the
    record's gradient g takes away.

    The scale s is one for all the records: the one with which their steps take away most together, not below 0. It
    needs no label of membership. A zero update is no evidence: 0.
    Source: Li, Li, Ribeiro, "Effective passive membership inference attacks in federated learning against
    overparameterized models", ICLR 2023, https://openreview.net/forum?id=QsCSLPP55Ku
    """
    squares = found.lengths**2
    if not (found.moved and squares.any()):
        return np.zeros(len(squares))
    scale = max(found.products.sum(), 0.0) / squares.sum()
    return np.asarray((2 * scale * found.products - scale**2 * squares) / found.moved**2)


# Each record beside the updates of its alleged owner.


class Updates(NamedTuple):
    """Sums of a measure [items] and how many updates of the owner they cover [items]; in which round each owner was
    compared last; the newest broadcast and who received it; the gradients at it of the records of those who are to be
    compared, one owner after the other.
    """

    public: Public
    ask: RecordAsk
    owned: Mapping[str, Ints]
    total: Floats
    updates: Ints
    last_round: Mapping[str, int]
    round: int = -1
    broadcast: Arrays | None = None
    cohort: frozenset[str] = frozenset()
    spans: Mapping[str, slice] = {}
    slopes: Slopes | None = None


def _start(public: Public, ask: Ask) -> Updates:
    asked = record_ask(ask)
    nothing = np.zeros(len(asked.items))
    return Updates(public, asked, owned_by(asked.items), nothing, nothing.astype(np.int64), {})


def _step(state: Updates, event: Event, measure: Measure) -> Updates:
    if event.kind == "train" and event.sender == SERVER and event.arrays:
        if event.round != state.round:
            state = state._replace(round=event.round, broadcast=event.arrays, cohort=frozenset(), spans={}, slopes=None)
        return state._replace(cohort=state.cohort | {event.receiver})
    if event.kind != "train-reply" or event.round != state.round or state.broadcast is None:
        return state
    if not _due(state, event.sender) or not comparable(state.broadcast, event.arrays):
        return state
    if event.sender not in state.spans:
        state = _opened(state, event.sender)
    assert state.broadcast is not None
    assert state.slopes is not None
    rows = state.owned[event.sender]
    total, updates = state.total.copy(), state.updates.copy()
    total[rows] += measure(match(state.public, state.slopes, state.broadcast, event.arrays, state.spans[event.sender]))
    updates[rows] += 1
    state = state._replace(total=total, updates=updates, last_round={**state.last_round, event.sender: event.round})
    return state if any(_due(state, party) for party in state.spans) else state._replace(spans={}, slopes=None)


def _due(state: Updates, party: str) -> bool:
    return party in state.owned and due(state.public, state.last_round.get(party), state.round)


def _opened(state: Updates, sender: str) -> Updates:
    """Take the gradients of all the records that this round's updates will be compared with."""
    assert state.broadcast is not None
    parties = [party for party in state.owned if party in state.cohort | {sender} and _due(state, party)]
    ends = np.cumsum([0, *(len(state.owned[party]) for party in parties)]).tolist()
    spans = {party: slice(*ends[i : i + 2]) for i, party in enumerate(parties)}
    rows = np.concatenate([state.owned[party] for party in parties])
    return state._replace(spans=spans, slopes=slopes(state.public, state.broadcast, state.ask.items, rows))


def _finish(state: Updates, released: Oracle) -> Floats:  # noqa: ARG001 - the updates say it all
    if not state.updates.any():
        raise NotVisible(f"no update {UNSEEN_OWNER}")
    return per_item(mean_of(state.total, state.updates), state.ask)


UPDATE_COSINE = Signal(_start, partial(_step, measure=cosine), _finish, "update")
"""Mean cosine [rows] over the observed updates of the alleged owner; NaN for an owner never seen and the population."""

UPDATE_DIFFERENCE = Signal(_start, partial(_step, measure=difference), _finish, "update")
"""Mean `difference` [rows] over the observed updates of the alleged owner; NaN where there is none."""


def _first(state: Updates, event: Event) -> Updates:
    """Take one comparison of each owner: the first."""
    seen = event.kind == "train-reply" and event.sender in state.last_round
    return state if seen else _step(state, event, cosine)


UPDATE_COSINE_ONCE = Signal(_start, _first, _finish, "update")
"""Cosine [rows] with the first observed update of the alleged owner; otherwise as `UPDATE_COSINE`."""


# Each record beside the global models.


class Course(NamedTuple):
    """Sums over the movements of the global model: inner products [items] with each record's gradients, the squared
    lengths of these [items], and those of the movements; and the newest model.
    """

    public: Public
    ask: RecordAsk
    products: Floats
    squares: Floats
    moved: float = 0.0
    round: int = -1
    broadcast: Arrays | None = None


def _start_course(public: Public, ask: Ask) -> Course:
    nothing = np.zeros(len(record_ask(ask).items))
    return Course(public, record_ask(ask), nothing, nothing)


def _follow(state: Course, event: Event) -> Course:
    if event.sender != SERVER or event.kind not in ("train", "final") or not event.arrays:
        return state
    if event.kind == "train" and event.round == state.round:
        return state
    if state.broadcast is not None and state.round % interval(state.public) == 0:
        at = slopes(state.public, state.broadcast, state.ask.items, np.arange(len(state.products)))
        found = match(state.public, at, state.broadcast, event.arrays)
        state = state._replace(
            products=state.products + found.products,
            squares=state.squares + found.lengths**2,
            moved=state.moved + found.moved**2,
        )
    return state._replace(broadcast=event.arrays, round=event.round)


def _finish_course(state: Course, released: Oracle) -> Floats:  # noqa: ARG001 - the movements say it all
    if not state.moved:
        raise NotVisible("no two global models in a row crossed this vantage")
    found = cosine(Match(state.products, np.sqrt(state.squares), state.moved**0.5))
    return per_item(found, state.ask)


MOVEMENT_COSINE = Signal(_start_course, _follow, _finish_course, "models")
"""Cosine [rows] with what the whole cohort did to the global model, all rounds as one long vector, so that rounds count
by what happened in them: all that secure aggregation leaves; NaN for the population.
"""


class Steepness(NamedTuple):
    """Sums of gradient lengths [rows] over broadcasts, how many there were, and the round of the last one taken."""

    public: Public
    ask: Ask
    total: Floats
    broadcasts: int = 0
    last_round: int | None = None


def _start_steepness(public: Public, ask: Ask) -> Steepness:
    return Steepness(public, ask, np.zeros(len(asked_records(ask).y)))


def _climb(state: Steepness, event: Event) -> Steepness:
    if event.kind != "train" or event.sender != SERVER or not event.arrays:
        return state
    if state.last_round is not None and event.round - state.last_round < interval(state.public):
        return state
    asked = asked_records(state.ask)
    parameters = {name: torch.tensor(array) for name, array in event.arrays.items()}
    dtype = next(iter(parameters.values())).dtype
    x, y = torch.from_numpy(np.concatenate(asked.x)).to(dtype), torch.from_numpy(asked.y)
    lengths = gradient_norms(state.public.apply, parameters, x, y).numpy()
    return state._replace(total=state.total + lengths, broadcasts=state.broadcasts + 1, last_round=event.round)


def _finish_steepness(state: Steepness, released: Oracle) -> Floats:  # noqa: ARG001 - the broadcasts say it all
    if not state.broadcasts:
        raise NotVisible("no broadcast model crossed this vantage")
    return np.asarray(state.total / state.broadcasts)


GRADIENT_NORM = Signal(_start_steepness, _climb, _finish_steepness, "models")
"""Mean length [rows] of a record's gradient over the observed broadcast models."""
