"""Signals of canaries: how far the global model moved in the direction of each."""

from typing import NamedTuple

import numpy as np

from attacks.folds import broadcast, next_model, trained_reply
from fedsim.attack import Signal
from fedsim.canaries import holder, products
from fedsim.errors import NotVisible
from fedsim.transcript import Arrays, Event, client
from fedsim.vectors import Floats, flat
from fedsim.views import Ask, CanaryAsk, Oracle, Public


class Movement(NamedTuple):
    """The first and the newest global model seen, and the largest cosine of a single step with each canary."""

    ask: CanaryAsk
    first: Arrays | None
    newest: Arrays | None
    steepest: Floats


def _start(public: Public, ask: Ask) -> Movement:  # noqa: ARG001 - every signal starts from both
    if not isinstance(ask, CanaryAsk):
        raise TypeError(f"a signal of canaries needs a CanaryAsk, got {type(ask).__name__}")
    return Movement(ask, None, None, np.full(ask.count, -1.0))


def _keep(state: Movement, event: Event) -> Movement:
    if not next_model(event, -1):
        return state
    return state._replace(first=state.first or event.arrays, newest=event.arrays)


def _keep_steps(state: Movement, event: Event) -> Movement:
    if not next_model(event, -1) or (state.newest is not None and event.arrays is state.newest):
        return state
    steepest = state.steepest
    if state.newest is not None:
        moved = flat(event.arrays) - flat(state.newest)
        length = np.linalg.norm(moved)
        if length > 0:
            ask = state.ask
            steepest = np.maximum(steepest, products(ask.canaries, ask.first, ask.count, moved) / length)
    return _keep(state, event)._replace(steepest=steepest)


def _seen(state: Movement) -> Floats:
    if state.newest is None or state.first is None:
        raise NotVisible("no global model crossed this vantage, only answers to queries")
    return flat(state.newest) - (0.0 if state.first is state.newest else flat(state.first))


def _whole(state: Movement, released: Oracle) -> Floats:  # noqa: ARG001 - the models say it all
    return products(state.ask.canaries, state.ask.first, state.ask.count, _seen(state))


def _step_by_step(state: Movement, released: Oracle) -> Floats:  # noqa: ARG001 - the models say it all
    _seen(state)
    if state.first is state.newest:
        raise NotVisible("one global model shows no step")
    return state.steepest


class Updates(NamedTuple):
    """Sums [canaries] of what the clients of canary records pushed their way, and the newest broadcast."""

    ask: CanaryAsk
    clients: int
    total: Floats
    seen: bool
    broadcast: Arrays | None = None


def _start_updates(public: Public, ask: Ask) -> Updates:
    asked = _start(public, ask).ask
    return Updates(asked, public.clients, np.zeros(asked.count), seen=False)


def _add_update(state: Updates, event: Event) -> Updates:
    if broadcast(event):
        return state._replace(broadcast=event.arrays)
    if not trained_reply(event, state.broadcast):
        return state
    assert state.broadcast is not None
    ask = state.ask
    pushed = products(ask.canaries, ask.first, ask.count, flat(event.arrays) - flat(state.broadcast))
    own = np.array(
        [client(holder(ask.canaries, ask.first + i, state.clients)) == event.sender for i in range(ask.count)]
    )
    return state._replace(total=state.total + np.where(own, pushed, 0.0), seen=state.seen or bool(own.any()))


def _sum_of_updates(state: Updates, released: Oracle) -> Floats:  # noqa: ARG001 - the updates say it all
    if not state.seen:
        raise NotVisible("no update of a client that would hold a canary crossed this vantage")
    return state.total


CANARY_UPDATE = Signal(_start_updates, _add_update, _sum_of_updates, "update")
"""How far [canaries] the updates of the one client that would hold each canary went its way."""
CANARY_PRODUCT = Signal(_start, _keep, _whole, "models")
"""Inner product [canaries] of the whole movement seen with each canary's direction; of the final model alone where no
other was seen.
"""
CANARY_STEEPEST = Signal(_start, _keep_steps, _step_by_step, "models")
"""Largest cosine [canaries] of a movement between two models seen with each canary's direction."""
