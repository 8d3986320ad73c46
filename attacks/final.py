"""Signals of the model as it stands at the end: one number, or one vector, for each record.

Which model answers? The parameters after the last round where they are visible; else the released model if it shows
whole probability vectors; else the latest broadcast model that crossed the vantage, queried as a white box; else the
released model, masked as it is.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsim.attack import Signal
from fedsim.errors import NotVisible
from fedsim.transcript import SERVER, Arrays, Event
from fedsim.views import Answer, Ask, Floats, Ints, Oracle, Public, RecordAsk, softmax, white_box

FLOOR = 1e-45
"""Smallest probability inside a logarithm (Carlini et al. 2022)."""


class Latest(NamedTuple):
    """The newest model that crossed the vantage."""

    public: Public
    ask: Ask
    arrays: Arrays | None = None
    final: bool = False


def watch(public: Public, ask: Ask) -> Latest:
    """Return the state before any event."""
    return Latest(public, ask)


def keep_latest(state: Latest, event: Event) -> Latest:
    """Keep the newest global model; nothing replaces the one after the last round."""
    if state.final or event.sender != SERVER or not event.arrays:
        return state
    if event.kind == "final":
        return state._replace(arrays=event.arrays, final=True)
    return state._replace(arrays=event.arrays) if event.kind in ("train", "evaluate") else state


class Asked(NamedTuple):
    """The items and then the population of a RecordAsk: their x [n, ...] and [m, ...], their labels together [n + m].

    The x stay apart, as they are: so the answer to each is remembered, whoever asks and beside whatever else.
    """

    x: tuple[NDArray[np.float32], NDArray[np.float32]]
    y: Ints


def asked_records(ask: Ask) -> Asked:
    """Return what a RecordAsk asks about."""
    if not isinstance(ask, RecordAsk):
        raise TypeError(f"a signal of records needs a RecordAsk, got {type(ask).__name__}")
    return Asked((ask.items.x, ask.population.x), np.concatenate([ask.items.y, ask.population.y]))


def answers(oracle: Oracle, *x: NDArray[np.float32]) -> Answer:
    """Return the answer to several batches, joined."""
    parts = [oracle(batch) for batch in x]
    shown = [part.probabilities for part in parts if part.probabilities is not None]
    joined = np.concatenate(shown) if len(shown) == len(parts) else None
    return Answer(np.concatenate([part.labels for part in parts]), joined)


def labels(state: Latest, released: Oracle, *x: NDArray[np.float32]) -> Ints:
    """Return the predicted classes [n] of the final model for all batches: every release shows them."""
    oracle = white_box(state.public, state.arrays) if state.final and state.arrays is not None else released
    return answers(oracle, *x).labels


def probabilities(state: Latest, released: Oracle, *x: NDArray[np.float32]) -> Floats:
    """Return the probabilities [n, classes] of the best visible model for all batches; NotVisible where only labels are
    shown.
    """
    if state.final and state.arrays is not None:
        return _shown(answers(white_box(state.public, state.arrays), *x).probabilities)
    shown = answers(released, *x).probabilities
    if (shown is None or np.isnan(shown).any()) and state.arrays is not None:
        shown = answers(white_box(state.public, state.arrays), *x).probabilities
    return _shown(shown)


def _shown(values: Floats | None) -> Floats:
    if values is None:
        raise NotVisible("the model shows only labels, and this attack needs its confidences")
    return imputed(values)


def imputed(values: Floats) -> Floats:
    """Return `values` [n, classes] with each withheld entry (NaN) set to an equal share of the mass not shown, and each
    zero to half of the smallest positive entry.

    Under top-k a share is at most the smallest entry shown, so a class outside the list is treated as charitably as the
    list allows; where nothing is shown, because the query was not answered, every class gets the same. A zero is what
    rounding leaves of a small probability: taken at its word it would drown every other difference in a logarithm.
    """
    hidden = np.isnan(values)
    if hidden.any():
        share = (1 - np.where(hidden, 0, values).sum(axis=1)) / np.maximum(hidden.sum(axis=1), 1)
        values = np.where(hidden, np.maximum(share, FLOOR)[:, None], values)
    positive = values[values > FLOOR]
    return np.where(values > FLOOR, values, max(positive.min() / 2, FLOOR)) if positive.size else values


def true_class(p: Floats, y: Ints) -> Floats:
    """Return the probability [n] of each record's own label."""
    return np.asarray(p[np.arange(len(y)), y])


def cross_entropy(p: Floats, y: Ints) -> Floats:
    """Return the loss -log f_y [n], in nats."""
    return -np.log(np.maximum(true_class(p, y), FLOOR))


def entropy(p: Floats, y: Ints) -> Floats:  # noqa: ARG001 - every measure takes (p, y)
    """Return the entropy -sum f log f [n], in nats."""
    return np.asarray(-np.sum(p * np.log(np.maximum(p, FLOOR)), axis=1))


def modified_entropy(p: Floats, y: Ints) -> Floats:
    """Return -(1 - f_y) log f_y - sum_{i != y} f_i log(1 - f_i) [n]: low if sure and right, high if sure and wrong.

    Source: Song and Mittal, "Systematic evaluation of privacy risks of machine learning models", USENIX Security 2021.
    """
    own = true_class(p, y)
    others = p * np.log(np.maximum(1 - p, FLOOR))
    return np.asarray(-(1 - own) * np.log(np.maximum(own, FLOOR)) - (others.sum(axis=1) - true_class(others, y)))


def margin(p: Floats, y: Ints) -> Floats:
    """Return phi = log f_y - log sum_{i != y} f_i [n]: the loss on a scale where it is nearly normal.

    Source: Carlini et al., "Membership inference attacks from first principles", IEEE S&P 2022.
    """
    others = p.copy()
    others[np.arange(len(y)), y] = 0
    return np.asarray(np.log(np.maximum(true_class(p, y), FLOOR)) - np.log(np.maximum(others.sum(axis=1), FLOOR)))


def softened(p: Floats, y: Ints) -> Floats:
    """Return the probability of the label [n] at temperature 2: f_y^(1/2) / sum f_i^(1/2), which a sure model does not
    press against 1.

    Source: the runs of Zarifzadeh, Liu and Shokri, "Low-cost high-power membership inference attacks", ICML 2024.
    """
    root = np.sqrt(np.maximum(p, FLOOR))
    return true_class(root / root.sum(axis=1, keepdims=True), y)


def whole(p: Floats, y: Ints) -> Floats:  # noqa: ARG001 - every measure takes (p, y)
    """Return the whole probability vector [n, classes]."""
    return p


def _measure(measure: Callable[[Floats, Ints], Floats], state: Latest, released: Oracle) -> Floats:
    asked = asked_records(state.ask)
    return measure(probabilities(state, released, *asked.x), asked.y)


def hits(predicted: Ints, y: Ints) -> Floats:
    """Return 1 where the predicted class is the label, 0 where it is not, and 1/2 where there was no answer [n]."""
    return np.where(predicted < 0, 0.5, predicted == y)


def _hits(state: Latest, released: Oracle) -> Floats:
    asked = asked_records(state.ask)
    return hits(labels(state, released, *asked.x), asked.y)


def _of_probabilities(measure: Callable[[Floats, Ints], Floats]) -> Signal:
    return Signal(watch, keep_latest, partial(_measure, measure), "confidences")


def _untempered(state: Latest, released: Oracle) -> Floats:
    """Return the logit margin after raising the probabilities to the power of the temperature that the release
    announces; a model that is held whole, or a broadcast one, has none.
    """
    asked = asked_records(state.ask)
    if state.final:
        return margin(probabilities(state, released, *asked.x), asked.y)
    logs = state.public.temperature * np.log(np.maximum(probabilities(state, released, *asked.x), FLOOR))
    return margin(softmax(logs), asked.y)


CORRECT = Signal(watch, keep_latest, _hits, "labels")
"""1 where the predicted class is the record's label, else 0 [rows]."""
LOSS = _of_probabilities(cross_entropy)
"""Cross-entropy [rows]: low for members."""
CONFIDENCE = _of_probabilities(true_class)
"""Probability of the record's label [rows]: high for members."""
SOFTENED = _of_probabilities(softened)
"""Probability of the record's label at temperature 2 [rows]: high for members."""
ENTROPY = _of_probabilities(entropy)
"""Entropy of the answer [rows]: low for members."""
MODIFIED_ENTROPY = _of_probabilities(modified_entropy)
"""Modified entropy [rows]: low for members."""
MARGIN = _of_probabilities(margin)
"""Logit margin of the record's label [rows]: high for members."""
UNTEMPERED = Signal(watch, keep_latest, _untempered, "confidences")
"""Logit margin [rows] as it was before the release divided the logits by its temperature: high for members."""
PROBABILITIES = _of_probabilities(whole)
"""Whole probability vector [rows, classes]."""
