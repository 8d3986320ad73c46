"""Signals of the property game: how well the final model fits a public sample of each hypothesis."""

import numpy as np

from attacks.final import Latest, cross_entropy, keep_latest, labels, probabilities, watch
from fedsim.attack import Signal
from fedsim.views import Ask, Floats, Oracle, PropertyAsk


def _samples(ask: Ask) -> PropertyAsk:
    if not isinstance(ask, PropertyAsk):
        raise TypeError(f"a signal of two samples needs a PropertyAsk, got {type(ask).__name__}")
    return ask


def _losses(state: Latest, released: Oracle) -> Floats:
    ask = _samples(state.ask)
    means = [cross_entropy(probabilities(state, released, sample.x), sample.y).mean() for sample in (ask.no, ask.yes)]
    return np.array([means], dtype=np.float64)


def _accuracies(state: Latest, released: Oracle) -> Floats:
    ask = _samples(state.ask)
    means = [np.mean(labels(state, released, sample.x) == sample.y) for sample in (ask.no, ask.yes)]
    return np.array([means], dtype=np.float64)


SAMPLE_LOSSES = Signal(watch, keep_latest, _losses, "confidences")
"""Mean loss on the sample without and on the sample with the property [1, 2]."""
SAMPLE_ACCURACIES = Signal(watch, keep_latest, _accuracies, "labels")
"""Accuracy on the sample without and on the sample with the property [1, 2]."""
