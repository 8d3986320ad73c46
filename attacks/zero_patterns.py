"""Signals of what stood still: a column of the first layer moves only if a record with that feature was trained on.

The gradient of a weight of the first layer is the feature it multiplies times an error. Where no record has the
feature, the weight is not touched at all, however many steps are taken.
Source: Melis, Song, De Cristofaro, Shmatikov, "Exploiting unintended feature leakage in collaborative learning",
IEEE S&P 2019, https://arxiv.org/abs/1805.04049
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attacks.folds import UNSEEN_OWNER, broadcast, next_model, per_item, trained_reply
from attacks.gradients import comparable, owned_by, record_ask
from fedsim.attack import Bools, Signal
from fedsim.errors import NotVisible
from fedsim.transcript import Array, Arrays, Event
from fedsim.views import Ask, Floats, Ints, Oracle, Public, RecordAsk


def first_layer(arrays: Arrays, features: int) -> str | None:
    """Return the name of the first matrix with one column for each input feature; None where there is none."""
    return next((name for name, array in arrays.items() if array.ndim == 2 and array.shape[1] == features), None)


def moved_exactly(before: Array, after: Array) -> Bools:
    """Return which columns [features] of a matrix differ in any bit."""
    return np.asarray((before != after).any(axis=0))


def moved_beyond_rounding(before: Array, after: Array, terms: int) -> Bools:
    """Return which columns [features] differ by more than the rounding of a mean of `terms` equal matrices."""
    old, new = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    room = (terms + 1) * float(np.finfo(str(after.dtype)).eps) * np.maximum(np.abs(old), np.abs(new))
    return np.asarray((np.abs(new - old) > room).any(axis=0))


def still(x: NDArray[np.float32], moved: Bools) -> Floats:
    """Return how many of the features that each record [n, ...] has are among those that never moved [features]."""
    return np.asarray((x.reshape(len(x), -1) != 0).astype(np.float64) @ (~moved).astype(np.float64))


def _features(ask: RecordAsk) -> int:
    return int(np.prod(ask.items.x.shape[1:]))


NO_FIRST_LAYER = "the model has no first layer with a column for each input feature"


class Patterns(NamedTuple):
    """Which columns [features] each alleged owner ever moved, by party name; and the newest broadcast."""

    public: Public
    ask: RecordAsk
    owned: Mapping[str, Ints]
    moved: Mapping[str, Bools]
    round: int = -1
    broadcast: Arrays | None = None
    unreadable: bool = False


def _start(public: Public, ask: Ask) -> Patterns:
    asked = record_ask(ask)
    return Patterns(public, asked, owned_by(asked.items), {})


def _step(state: Patterns, event: Event) -> Patterns:
    if broadcast(event):
        return state._replace(round=event.round, broadcast=event.arrays)
    if event.round != state.round or not trained_reply(event, state.broadcast, state.owned):
        return state
    assert state.broadcast is not None
    name = first_layer(state.broadcast, _features(state.ask))
    if name is None:
        return state._replace(unreadable=True)
    moved = moved_exactly(state.broadcast[name], event.arrays[name])
    earlier = state.moved.get(event.sender, np.zeros_like(moved))
    return state._replace(moved={**state.moved, event.sender: earlier | moved})


def _finish(state: Patterns, released: Oracle) -> Floats:  # noqa: ARG001 - the updates say it all
    if not state.moved:
        if state.unreadable:
            raise NotVisible(NO_FIRST_LAYER)
        raise NotVisible(f"no update {UNSEEN_OWNER}")
    count = np.full(len(state.ask.items), np.nan)
    for party, moved in state.moved.items():
        rows = state.owned[party]
        count[rows] = still(state.ask.items.x[rows], moved)
    return per_item(count, state.ask)


STILL_FEATURES = Signal(_start, _step, _finish, "update")
"""How many of a record's features [rows] no update of its alleged owner ever moved: 0 for members, as long as training
is plain; NaN for an owner never seen and for the population.
"""


class Movement(NamedTuple):
    """Which columns [features] of the global model ever moved, and the newest model."""

    public: Public
    ask: RecordAsk
    moved: Bools | None = None
    round: int = -1
    model: Arrays | None = None
    unreadable: bool = False


def _start_movement(public: Public, ask: Ask) -> Movement:
    return Movement(public, record_ask(ask))


def _follow(state: Movement, event: Event) -> Movement:
    if not next_model(event, state.round):
        return state
    newest = state._replace(round=event.round, model=event.arrays)
    if state.model is None or not comparable(state.model, event.arrays):
        return newest
    name = first_layer(state.model, _features(state.ask))
    if name is None:
        return newest._replace(unreadable=True)
    moved = moved_beyond_rounding(state.model[name], event.arrays[name], state.public.clients)
    return newest._replace(moved=moved if state.moved is None else state.moved | moved)


def _finish_movement(state: Movement, released: Oracle) -> Floats:  # noqa: ARG001 - the movements say it all
    if state.unreadable:
        raise NotVisible(NO_FIRST_LAYER)
    if state.moved is None or not state.moved.any():
        raise NotVisible("no two different global models crossed this vantage")
    return per_item(still(state.ask.items.x, state.moved), state.ask)


STILL_IN_ALL = Signal(_start_movement, _follow, _finish_movement, "models")
"""How many of a record's features [rows] never moved in the global model, beyond the rounding of an average: features
that no record of any client has, as secure aggregation shows them too; NaN for the population.
"""
