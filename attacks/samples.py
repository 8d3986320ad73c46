"""Signals of the property game: how well the final model fits a public sample of each hypothesis."""

import numpy as np

from attacks.final import Latest, cross_entropy, keep_latest, labels, probabilities, watch
from fedsim.attack import Signal
from fedsim.errors import NotVisible
from fedsim.views import Ask, Floats, Oracle, PropertyAsk


def _samples(ask: Ask) -> PropertyAsk:
    if not isinstance(ask, PropertyAsk):
        raise TypeError(f"a signal of two samples needs a PropertyAsk, got {type(ask).__name__}")
    return ask


def _affordable(state: Latest) -> PropertyAsk:
    """Return the samples, if the release answers enough queries to ask about both; a free model costs none."""
    ask, budget = _samples(state.ask), state.public.budget
    needed = len(ask.no) + len(ask.yes)
    if budget is not None and budget < needed and not state.final:
        raise NotVisible(f"the release answers {budget} queries of one caller, and the two samples need {needed}")
    return ask


def _losses(state: Latest, released: Oracle) -> Floats:
    ask = _affordable(state)
    means = [cross_entropy(probabilities(state, released, sample.x), sample.y).mean() for sample in (ask.no, ask.yes)]
    return np.array([means], dtype=np.float64)


def _accuracies(state: Latest, released: Oracle) -> Floats:
    ask = _affordable(state)
    means = [np.mean(labels(state, released, sample.x) == sample.y) for sample in (ask.no, ask.yes)]
    return np.array([means], dtype=np.float64)


SAMPLE_LOSSES = Signal(watch, keep_latest, _losses, "confidences")
"""Mean loss on the sample without and on the sample with the property [1, 2]."""
SAMPLE_ACCURACIES = Signal(watch, keep_latest, _accuracies, "labels")
"""Accuracy on the sample without and on the sample with the property [1, 2]."""
