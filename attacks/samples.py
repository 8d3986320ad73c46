"""Signals of the property game: how a model answers to a public sample of each hypothesis, and its parameters.

Which model? Where the question is about one client and its own updates are visible, the last one, which is a model
too; else the final model, as everywhere (`attacks.final`).
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from attacks.final import Latest, cross_entropy, keep_latest, labels, margin, probabilities, watch
from attacks.gradients import comparable
from fedsim.attack import Signal
from fedsim.errors import NotVisible
from fedsim.transcript import ACT, Arrays, Event, client
from fedsim.views import Ask, Floats, Oracle, PropertyAsk, Public


class Seen(NamedTuple):
    """The newest global model that crossed the vantage, and the newest one of the client asked about."""

    latest: Latest
    ask: PropertyAsk
    reply: Arrays | None = None

    @property
    def model(self) -> Latest:
        """The model to question."""
        return self.latest if self.reply is None else self.latest._replace(arrays=self.reply, final=True)


def _start(public: Public, ask: Ask) -> Seen:
    if not isinstance(ask, PropertyAsk):
        raise TypeError(f"a signal of two samples needs a PropertyAsk, got {type(ask).__name__}")
    return Seen(watch(public, ask), ask)


def _affordable(state: Seen) -> PropertyAsk:
    """Return the samples, if the release answers enough queries to ask about both; a free model costs none."""
    ask, budget = state.ask, state.latest.public.budget
    needed = len(ask.no) + len(ask.yes)
    if budget is not None and budget < needed and not state.model.final:
        raise NotVisible(f"the release answers {budget} queries of one caller, and the two samples need {needed}")
    return ask


def _step(state: Seen, event: Event) -> Seen:
    if event.kind == "train-reply" and state.ask.client is not None and event.sender == client(state.ask.client):
        broadcast = state.latest.arrays
        readable = broadcast is not None and comparable(broadcast, event.arrays)
        return state._replace(reply=event.arrays) if readable else state
    return state._replace(latest=keep_latest(state.latest, event))


def _losses(state: Seen, released: Oracle) -> Floats:
    ask = _affordable(state)
    samples = (ask.no, ask.yes)
    means = [cross_entropy(probabilities(state.model, released, each.x), each.y).mean() for each in samples]
    return np.array([means], dtype=np.float64)


def _accuracies(state: Seen, released: Oracle) -> Floats:
    ask = _affordable(state)
    samples = (ask.no, ask.yes)
    return np.array([[np.mean(labels(state.model, released, each.x) == each.y) for each in samples]], dtype=np.float64)


def _answers(state: Seen, released: Oracle) -> Floats:
    ask = _affordable(state)
    return probabilities(state.model, released, ask.no.x, ask.yes.x)[None]


def _neurons(state: Seen, released: Oracle) -> Floats:  # noqa: ARG001 - it reads the parameters, and asks nothing
    if state.model.arrays is None:
        raise NotVisible("no model parameters crossed this vantage")
    return neurons(state.model.arrays)[None]


def neurons(arrays: Arrays) -> Floats:
    """Return a row for each neuron [neurons, 2 + widest]: its layer, its number of incoming weights, these, and then
    what else belongs to it (its bias); NaN where a layer is narrower than the widest.

    A layer is a weight [out, in, ...] and the vectors of length `out` behind it; vectors by themselves are one, too.
    """
    layers: list[list[Floats]] = []
    for array in arrays.values():
        values = np.asarray(array, dtype=np.float64)
        table = values.reshape(len(values), -1) if values.ndim > 1 else values.reshape(-1, 1)
        if values.ndim < 2 and layers and len(layers[-1][0]) == len(table):
            layers[-1].append(table)
        else:
            layers.append([table])
    widths = [sum(part.shape[1] for part in layer) for layer in layers]
    ends = np.cumsum([0, *(len(layer[0]) for layer in layers)])
    rows = np.full((ends[-1], 2 + max(widths)), np.nan)
    for number, ((first, last), layer, width) in enumerate(zip(pairwise(ends), layers, widths, strict=True)):
        rows[first:last, 0], rows[first:last, 1] = number, layer[0].shape[1]
        rows[first:last, 2 : 2 + width] = np.concatenate(layer, axis=1)
    return rows


SAMPLE_LOSSES = Signal(_start, _step, _losses, "confidences")
"""Mean loss on the sample without and on the sample with the property [1, 2]."""
SAMPLE_ACCURACIES = Signal(_start, _step, _accuracies, "labels")
"""Accuracy on the sample without and on the sample with the property [1, 2]."""
SAMPLE_ANSWERS = Signal(_start, _step, _answers, "confidences")
"""Probabilities for the records of both samples, one behind the other [1, records, classes]."""
NEURONS = Signal(_start, _step, _neurons, "models")
"""The parameters, a row for each neuron [1, neurons, 2 + widest], as `neurons` lays them out."""


# Records with the property, after poisoning.

QUERIES = 1000
"""Records with the property that a poisoner asks about, at most (Chaudhari et al. 2023)."""


class Poisoned(NamedTuple):
    """What was seen, and the class that the vantage itself gave to records with the property."""

    seen: Seen
    label: int | None = None


def _start_poisoned(public: Public, ask: Ask) -> Poisoned:
    return Poisoned(_start(public, ask))


def _step_poisoned(state: Poisoned, event: Event) -> Poisoned:
    if event.kind == ACT and "label" in event.facts:
        return state._replace(label=int(str(event.facts["label"])))
    return state._replace(seen=_step(state.seen, event))


def _belief(state: Poisoned, released: Oracle) -> Floats:
    model, holders, budget = state.seen.model, state.seen.ask.holders, state.seen.latest.public.budget
    if state.label is None or holders is None:
        raise NotVisible("nobody of this vantage poisoned the training with records that have the property")
    affordable = QUERIES if budget is None or model.final else min(budget, QUERIES)
    x = holders.x[-affordable:]  # the first ones are the poison
    beliefs = margin(probabilities(model, released, x), np.full(len(x), state.label))
    return np.array([beliefs.mean()])


POISONED_BELIEF = Signal(_start_poisoned, _step_poisoned, _belief, "poisoning")
"""Mean over records with the property of the log-odds of the class that they were poisoned with [1].

The poison shifts it the more, the fewer honest records with the property there are.
Source: Chaudhari et al., "SNAP: efficient extraction of private properties with poisoning", IEEE S&P 2023,
https://arxiv.org/abs/2208.12348
"""
