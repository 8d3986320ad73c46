"""Signals of the client game: what a model knows of a client's records, and who answers the server."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from attacks.final import Latest, cross_entropy, keep_latest, margin, probabilities, watch
from fedsim.attack import Signal
from fedsim.errors import NotVisible
from fedsim.transcript import Event, client
from fedsim.views import Ask, ClientAsk, Floats, Ints, Oracle, Public


def _asked(ask: Ask) -> ClientAsk:
    if not isinstance(ask, ClientAsk):
        raise TypeError(f"a signal of clients needs a ClientAsk, got {type(ask).__name__}")
    return ask


def _mean(measure: Callable[[Floats, Ints], Floats], state: Latest, released: Oracle) -> Floats:
    """Return the mean of a measure over the sample of each client asked about."""
    ask = _asked(state.ask)
    values = measure(probabilities(state, released, ask.sample.x), ask.sample.y)
    return np.array([values[ask.sample.owner == each].mean() for each in ask.clients])


SAMPLE_LOSS = Signal(watch, keep_latest, partial(_mean, cross_entropy), "confidences")
"""Mean cross-entropy [clients] of the records the attacker holds of each client: low for clients that took part."""
SAMPLE_MARGIN = Signal(watch, keep_latest, partial(_mean, margin), "confidences")
"""Mean logit margin [clients] of the records the attacker holds of each client: high for clients that took part."""


class Answered(NamedTuple):
    """Whether each client asked about was seen to exchange a message with the server [clients]."""

    ask: ClientAsk
    seen: Floats


def _start(public: Public, ask: Ask) -> Answered:  # noqa: ARG001 - every signal starts from both
    asked = _asked(ask)
    return Answered(asked, np.zeros(asked.count))


def _step(state: Answered, event: Event) -> Answered:
    if not event.kind.startswith("train"):  # for an evaluation every client is asked
        return state
    there = [client(int(each)) in (event.sender, event.receiver) for each in state.ask.clients]
    return state._replace(seen=np.maximum(state.seen, there))


def _finish(state: Answered, released: Oracle) -> Floats:  # noqa: ARG001 - the senders say it all
    if not state.seen.any():
        raise NotVisible("no message of a client that is asked about crossed this vantage")
    return state.seen


ANSWERED = Signal(_start, _step, _finish, "roll")
"""1 where the client and the server exchanged anything in training, else 0 [clients]."""
