"""What the state machines of the signals share: which events count, which rounds, and what was never seen."""

from collections.abc import Container

import numpy as np
import torch
from numpy.typing import NDArray

from attacks.gradients import Match, along, comparable, slopes
from fedsim.transcript import SERVER, Arrays, Event
from fedsim.vectors import shaped
from fedsim.views import Floats, Ints, Public, RecordAsk, Records

UNSEEN_OWNER = "of a client that is alleged to hold one of these records crossed this vantage"
"""Why a signal of owners is not visible: "no update", "no model", ... and then this."""

# Which events count.


def broadcast(event: Event) -> bool:
    """Return whether an event is the model that the server sends somebody to train."""
    return event.kind == "train" and event.sender == SERVER and bool(event.arrays)


def next_model(event: Event, last: int) -> bool:
    """Return whether an event shows the next global model after the one that was sent to train in round `last` (-1:
    none yet): the first broadcast of another round, or the final parameters.
    """
    return (broadcast(event) and event.round != last) or final_model(event)


def final_model(event: Event) -> bool:
    """Return whether an event shows the parameters after the last round."""
    return event.kind == "final" and event.sender == SERVER and bool(event.arrays)


def shown_model(event: Event) -> bool:
    """Return whether an event shows a global model, whatever for."""
    return event.sender == SERVER and event.kind in ("train", "evaluate", "final") and bool(event.arrays)


def rounds_behind(event: Event) -> int:
    """Return how many rounds the model of an event has behind it: training in round t starts from the model after t - 1
    rounds; evaluation in round t and "final" show the one after t.
    """
    return event.round - 1 if event.kind == "train" else event.round


def trained_reply(event: Event, sent: Arrays | None, owners: Container[str] | None = None) -> bool:
    """Return whether an event is a trained copy, in clear, of the model that was `sent`, from one of `owners` (None:
    from anybody).
    """
    return (
        event.kind == "train-reply"
        and (owners is None or event.sender in owners)
        and sent is not None
        and comparable(sent, event.arrays)
    )


def number(event: Event, name: str) -> float | None:
    """Return a number that came in clear beside a message; None where there is none."""
    value = event.facts.get(name)
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


# Which rounds.


def due_rounds(rounds: int, count: int) -> Ints:
    """Return at most `count` rounds spread evenly from the first to the last; each opens a slot that lasts to the next.

    rounds, count: at least 1.
    """
    return np.unique(np.linspace(1, rounds, min(count, rounds)).round().astype(np.int64))


def slot_of(number: int, due: Ints) -> int:
    """Return the slot that a round lies in."""
    return int(np.searchsorted(due, number, side="right")) - 1


# What is measured, and what was never seen.


def beside(public: Public, records: Records, rows: Ints, model: Arrays, descent: Floats) -> Match:
    """Return the gradients of some rows of `records` at a model beside a descent [d] from it."""
    at = slopes(public, model, records, rows)
    direction = {name: torch.as_tensor(array, dtype=at.x.dtype) for name, array in shaped(descent, model).items()}
    return Match(along(public, at, direction), at.lengths.numpy(), float(np.linalg.norm(descent)))


def mean_of(total: Floats, count: NDArray[np.number]) -> Floats:
    """Return total / count [n]; NaN where the count is 0: what was never seen is not a number that was measured."""
    return np.asarray(np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0))


def per_item(values: Floats, ask: RecordAsk) -> Floats:
    """Return a signal [items + population] from its values [items]; NaN for the population, which nobody is alleged to
    hold.
    """
    return np.concatenate([values, np.full(len(ask.population), np.nan)])
