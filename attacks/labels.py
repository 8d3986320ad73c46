"""Signals of the labels game: how many records of each class a client holds, read from the bias of its last layer."""

from math import ceil
from typing import NamedTuple

import numpy as np
import scipy  # its parts take a second to import; each is loaded when it is first used

from attacks.gradients import comparable
from fedsim.attack import Signal
from fedsim.errors import NotVisible
from fedsim.transcript import SERVER, Arrays, Event, client
from fedsim.views import Ask, Floats, LabelAsk, Oracle, Public, query, softmax

UPDATES = 3
"""Only the client's first updates count: the unmixing is exact for an untrained model and blurs as the model learns."""


class Histogram(NamedTuple):
    """Sum of the estimated counts [classes] over the updates seen."""

    public: Public
    ask: LabelAsk
    total: Floats
    updates: int = 0
    broadcast: Arrays | None = None
    broadcast_round: int = -1


def _start(public: Public, ask: Ask) -> Histogram:
    if not isinstance(ask, LabelAsk):
        raise TypeError(f"a signal of classes needs a LabelAsk, got {type(ask).__name__}")
    return Histogram(public, ask, np.zeros(ask.count))


def _step(state: Histogram, event: Event) -> Histogram:
    if event.kind == "train" and event.sender == SERVER and event.arrays and event.round != state.broadcast_round:
        return state._replace(broadcast=event.arrays, broadcast_round=event.round)
    if event.kind != "train-reply" or event.sender != client(state.ask.client) or event.round != state.broadcast_round:
        return state
    if state.updates == UPDATES or state.broadcast is None or not comparable(state.broadcast, event.arrays):
        return state
    examples = event.facts.get("num-examples")
    if not isinstance(examples, int | float) or examples <= 0 or last_bias(state.broadcast, state.ask.count) is None:
        return state
    if not len(state.ask.population):
        raise NotVisible("the attacker holds no public records to estimate the average answer to each class")
    counts = label_counts(state.public, state.ask, state.broadcast, event.arrays, float(examples))
    return state._replace(total=state.total + counts, updates=state.updates + 1)


def last_bias(arrays: Arrays, classes: int) -> str | None:
    """Return the name of the last vector of length `classes`, the bias of the last layer; None where there is none."""
    return next((name for name in reversed(list(arrays)) if arrays[name].shape == (classes,)), None)


def label_counts(public: Public, ask: LabelAsk, broadcast: Arrays, reply: Arrays, examples: float) -> Floats:
    """Return how many records of each class [classes] make up one update; they sum to `examples`.

    The gradient of the cross-entropy with respect to the last bias is the mean of f(x) - onehot(y). Summed over the
    local steps of plain SGD, (broadcast - reply) / (learning rate x steps) = (P - I) q, where q is the share of each
    class and column c of P the mean answer to records of class c, estimated on public records at both ends of the local
    training. q is the least-squares solution on the simplex. For other optimisers the sign is right and the size is
    not.

    Source: Wainakh et al., "User-level label leakage from gradients in federated learning", PETS 2022,
    https://arxiv.org/abs/2105.09369, in its bias form.
    """
    name = last_bias(broadcast, ask.count)
    assert name is not None
    steps = public.local_epochs * ceil(examples / public.batch_size)
    moved = np.asarray(broadcast[name], dtype=np.float64) - np.asarray(reply[name], dtype=np.float64)
    ends = [softmax(query(public, arrays, ask.population.x)) for arrays in (broadcast, reply)]
    answers = (ends[0] + ends[1]) / 2  # [m, classes]
    own = np.eye(ask.count)[ask.population.y]  # [m, classes]
    size = own.sum(axis=0)
    mean = np.where(size > 0, answers.T @ own / np.maximum(size, 1), answers.mean(axis=0)[:, None])  # [classes, class]
    return examples * simplex_least_squares(mean - np.eye(ask.count), moved / (public.learning_rate * steps))


def simplex_least_squares(matrix: Floats, target: Floats) -> Floats:
    """Return q >= 0 with sum 1 that minimises |matrix q - target|."""
    weight = 1e4 * max(1.0, float(np.abs(matrix).max()))  # makes the constraint sum(q) = 1 outweigh every residual
    solution, _ = scipy.optimize.nnls(np.vstack([matrix, np.full(matrix.shape[1], weight)]), np.append(target, weight))
    return np.asarray(solution / solution.sum())


def _finish(state: Histogram, released: Oracle) -> Floats:  # noqa: ARG001 - the updates say it all
    if not state.updates:
        raise NotVisible(f"no readable update of client {state.ask.client} crossed this vantage")
    return state.total / state.updates


LABEL_COUNTS = Signal(_start, _step, _finish, "update")
"""Estimated number of records of each class [classes], mean over the client's first updates."""
