"""Signals of the labels game: how many records of each class a client holds, or all together, read from the last layer
of updates, or of their sum.
"""

from collections.abc import Callable, Mapping
from functools import partial
from math import ceil
from typing import NamedTuple

import numpy as np
import scipy  # its parts take a second to import; each is loaded when it is first used

from attacks.aggregates import Group, Rounds, follow
from attacks.folds import number, trained_reply
from fedsim.attack import Signal
from fedsim.errors import NotVisible
from fedsim.transcript import AGGREGATE, Arrays, Event, client
from fedsim.vectors import flat, shaped
from fedsim.views import Ask, Floats, LabelAsk, Oracle, Public, query, softmax

UPDATES = 3
"""Only the first updates, or sums, count: unmixing is exact for an untrained model and blurs as the model learns."""
SUM = "sum"


class Moved(NamedTuple):
    """A model, what became of it on the mean over some clients, how many they are, and how many records they hold."""

    broadcast: Arrays
    reply: Arrays
    clients: int
    examples: float


Estimate = Callable[[Public, LabelAsk, Moved], Floats]
"""How many records of each class [classes] the clients hold together; the counts sum to their examples."""


class Histograms(NamedTuple):
    """Sums of the estimated counts a client [classes], and how many estimates are in each: by client where updates come
    in clear, and under one name for all sums.
    """

    public: Public
    ask: LabelAsk
    totals: Mapping[str, Floats]
    updates: Mapping[str, int]
    rounds: Rounds = Rounds()


def _start(public: Public, ask: Ask) -> Histograms:
    if not isinstance(ask, LabelAsk):
        raise TypeError(f"a signal of classes needs a LabelAsk, got {type(ask).__name__}")
    return Histograms(public, ask, {}, {})


def _step(state: Histograms, event: Event, estimate: Estimate, sums: bool) -> Histograms:
    wanted = None if state.ask.client is None else client(state.ask.client)
    key = SUM if event.kind == AGGREGATE else event.sender
    if trained_reply(event, state.rounds.model):
        examples = number(event, "num-examples")
        if wanted not in (None, event.sender) or examples is None or examples <= 0:
            return state  # whose update comes in clear is of no use to whoever follows the sums
    if state.updates.get(key) == UPDATES:
        return state
    rounds, group = follow(state.rounds, event)
    state = state._replace(rounds=rounds)
    if group is None or (key == SUM and not sums) or last_bias(group.model, state.ask.count) is None:
        return state
    if wanted is not None and wanted not in group.members:
        return state
    if not len(state.ask.population):
        raise NotVisible("the attacker holds no public records to estimate the average answer to each class")
    if key == SUM and np.isclose(group.weight, group.size):
        raise NotVisible("clients count alike in the sums, and how many records they hold crossed this vantage nowhere")
    counts = estimate(state.public, state.ask, moved(group)) / group.size
    return state._replace(
        totals={**state.totals, key: state.totals.get(key, np.zeros(state.ask.count)) + counts},
        updates={**state.updates, key: state.updates.get(key, 0) + 1},
    )


def moved(group: Group) -> Moved:
    """Return where the mean over a group's clients led."""
    reply = shaped(flat(group.model) - group.descent / group.weight, group.model)
    return Moved(group.model, reply, group.size, group.weight)


def _finish(state: Histograms, released: Oracle, sums: bool) -> Floats:  # noqa: ARG001 - the updates say it all
    if not state.totals:
        whom = "any client" if state.ask.client is None else f"client {state.ask.client}"
        raise NotVisible(f"no readable update of {whom}{' and no sum with it' if sums else ''} crossed this vantage")
    each = np.mean([total / state.updates[key] for key, total in state.totals.items()], axis=0)
    return np.asarray(each * (state.public.clients if state.ask.client is None else 1))


def histogram(estimate: Estimate, *, sums: bool) -> Signal:
    """Return the signal of an estimate, from updates in clear, or from sums over several clients too."""
    return Signal(
        _start,
        partial(_step, estimate=estimate, sums=sums),
        partial(_finish, sums=sums),
        "sum" if sums else "update",
    )


def last_bias(arrays: Arrays, classes: int) -> str | None:
    """Return the name of the last vector of length `classes`, the bias of the last layer; None where there is none."""
    return next((name for name in reversed(list(arrays)) if arrays[name].shape == (classes,)), None)


def label_counts(public: Public, ask: LabelAsk, broadcast: Arrays, reply: Arrays, examples: float) -> Floats:
    """Return how many records of each class [classes] make up one update; they sum to `examples`."""
    return unmixed(public, ask, Moved(broadcast, reply, 1, examples))


def unmixed(public: Public, ask: LabelAsk, update: Moved) -> Floats:
    """Return how many records of each class [classes] make up an update, or the mean of several.

    The gradient of the cross-entropy with respect to the last bias is the mean of f(x) - onehot(y). Summed over the
    local steps of plain SGD, (broadcast - reply) / (learning rate x steps) = (P - I) q, where q is the share of each
    class and column c of P the mean answer to records of class c, estimated on public records at both ends of the local
    training. q is the least-squares solution on the simplex. For other optimisers the sign is right and the size is
    not. All of it is linear, so it holds for a mean of updates too, as far as clients take equally many steps.

    Source: Wainakh et al., "User-level label leakage from gradients in federated learning", PETS 2022,
    https://arxiv.org/abs/2105.09369, in its bias form.
    """
    name = last_bias(update.broadcast, ask.count)
    assert name is not None
    descent = np.asarray(update.broadcast[name], dtype=np.float64) - np.asarray(update.reply[name], dtype=np.float64)
    ends = [softmax(query(public, arrays, ask.population.x)) for arrays in (update.broadcast, update.reply)]
    answers = (ends[0] + ends[1]) / 2  # [m, classes]
    own = np.eye(ask.count)[ask.population.y]  # [m, classes]
    size = own.sum(axis=0)
    mean = np.where(size > 0, answers.T @ own / np.maximum(size, 1), answers.mean(axis=0)[:, None])  # [classes, class]
    target = descent / (public.learning_rate * local_steps(public, update))
    return update.examples * simplex_least_squares(mean - np.eye(ask.count), target)


def local_steps(public: Public, update: Moved) -> int:
    """Return how many steps a client took, where each holds as many records as the others."""
    return public.local_epochs * ceil(update.examples / update.clients / public.batch_size)


def simplex_least_squares(matrix: Floats, target: Floats) -> Floats:
    """Return q >= 0 with sum 1 that minimises |matrix q - target|."""
    weight = 1e4 * max(1.0, float(np.abs(matrix).max()))  # makes the constraint sum(q) = 1 outweigh every residual
    solution, _ = scipy.optimize.nnls(np.vstack([matrix, np.full(matrix.shape[1], weight)]), np.append(target, weight))
    return np.asarray(solution / solution.sum())


LABEL_COUNTS = histogram(unmixed, sums=False)
"""Estimated number of records of each class [classes], mean over the client's first updates."""
POOLED_COUNTS = histogram(unmixed, sums=True)
"""The same from sums too: the mean count a client in the sums that the client asked about is in; or of all clients."""
