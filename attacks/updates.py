"""Signals of client updates: did the alleged owner move the model the way this record alone would have moved it?

The gradients of the records asked about are taken once a round, at the broadcast model, and compared with the update of
each client as it comes by; no update is kept.
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from attacks.final import asked_records
from attacks.folds import UNSEEN_OWNER, broadcast, mean_of, next_model, per_item, trained_reply
from attacks.gradients import (
    Match,
    Measure,
    Slopes,
    cosine,
    difference,
    due,
    interval,
    match,
    owned_by,
    record_ask,
    rows_of,
    slopes,
)
from fedsim.attack import Signal
from fedsim.errors import NotVisible
from fedsim.gradients import gradient_norms
from fedsim.transcript import Arrays, Event
from fedsim.views import Ask, Floats, Ints, Oracle, Public, RecordAsk

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
    if broadcast(event):
        if event.round != state.round:
            state = state._replace(round=event.round, broadcast=event.arrays, cohort=frozenset(), spans={}, slopes=None)
        return state._replace(cohort=state.cohort | {event.receiver})
    if event.round != state.round or not _due(state, event.sender) or not trained_reply(event, state.broadcast):
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
    rows, spans = rows_of(parties, state.owned)
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
    if not next_model(event, state.round):
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
    if not broadcast(event) or not due(state.public, state.last_round, event.round):
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
