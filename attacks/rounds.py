"""Signals of every visible global model: the loss of a record after each round."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from attacks.final import answers, asked_records, cross_entropy
from attacks.folds import rounds_behind, shown_model
from fedsim.attack import Signal
from fedsim.errors import NotVisible
from fedsim.transcript import Arrays, Event
from fedsim.views import Ask, Floats, Oracle, Public, query, softmax


class Trajectory(NamedTuple):
    """Losses [rows] by the number of rounds the model has behind it."""

    public: Public
    ask: Ask
    losses: Mapping[int, Floats]
    broadcasts: int = 0


def _start(public: Public, ask: Ask) -> Trajectory:
    return Trajectory(public, ask, {})


def _step(state: Trajectory, event: Event) -> Trajectory:
    if not shown_model(event):
        return state
    column = state.public.rounds if event.kind == "final" else rounds_behind(event)
    seen = state._replace(broadcasts=state.broadcasts + (event.kind != "final"))
    if column in state.losses:
        return seen
    return seen._replace(losses={**state.losses, column: _losses(state, event.arrays)})


def _losses(state: Trajectory, arrays: Arrays) -> Floats:
    asked = asked_records(state.ask)
    logits = np.concatenate([query(state.public, arrays, x) for x in asked.x])
    return cross_entropy(softmax(logits), asked.y)


def _finish(state: Trajectory, released: Oracle) -> Floats:
    if not state.broadcasts:
        raise NotVisible("no broadcast model crossed this vantage, so there is no trajectory over rounds")
    rounds = state.public.rounds
    losses = dict(state.losses)
    if rounds not in losses:
        asked = asked_records(state.ask)
        shown = answers(released, *asked.x).probabilities
        if shown is not None and not np.isnan(shown).any():
            losses[rounds] = cross_entropy(shown, asked.y)
    unseen = np.full(len(next(iter(losses.values()))), np.nan)
    return np.stack([losses.get(column, unseen) for column in range(rounds + 1)], axis=1)


LOSS_TRAJECTORY = Signal(_start, _step, _finish, "models")
"""Loss [rows, rounds + 1]: column t is the model after t rounds (0: the initial one), NaN where it was not seen.

The first model seen of a column counts; the last column comes from the final parameters, or from the released model if
it shows whole probability vectors.
"""
