"""Signals for a model that shows only labels: how much noise does a record bear before its label falls?"""

from collections.abc import Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from attacks.final import Latest, hits, keep_latest, labels, watch
from fedsim.attack import Signal
from fedsim.randomness import generator
from fedsim.views import Floats, Oracle, RecordAsk

FLIPS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Chances of a two-valued feature to change its value, mildest first."""
SCALES = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Standard deviations of the noise on any other feature, as shares of the feature's own."""
COPIES = 100
"""Noisy copies of each record, where queries are free."""
MOST_COPIES = 1000
"""Noisy copies of each record, however large the budget: as many as the paper's largest experiment."""


def copies_within(budget: int | None, records: int) -> int:
    """Return how many noisy copies of each record a budget of queries pays for, beside the record itself."""
    return COPIES if budget is None else min(max(budget // max(records, 1) - 1, 0), MOST_COPIES)


def noisy(
    x: NDArray[np.float32], two_valued: NDArray[np.bool_], scale: Floats, other: NDArray[np.float32], copies: int
) -> Iterator[NDArray[np.float32]]:
    """Return copies of x [n, ...], one after the other, each with the same noise for every record.

    two_valued, scale [...]: what each feature is; other [n, ...]: x with every two-valued feature changed. copies:
    spread evenly over the strengths, mildest first.
    """
    rng = generator(0, "noise")
    for copy in range(copies):
        strength = (2 * copy + 1) * len(FLIPS) // (2 * copies)
        change = rng.random(x.shape[1:]) < FLIPS[strength]
        shift = (rng.standard_normal(x.shape[1:]) * SCALES[strength] * scale).astype(np.float32)
        yield np.where(two_valued, np.where(change, other, x), x + shift)


def _finish(state: Latest, released: Oracle) -> Floats:
    if not isinstance(state.ask, RecordAsk):
        raise TypeError(f"a signal of records needs a RecordAsk, got {type(state.ask).__name__}")
    items, everything = state.ask.items, np.concatenate([state.ask.items.x, state.ask.population.x])
    low, high = everything.min(axis=0), everything.max(axis=0)
    two_valued = ((everything == low) | (everything == high)).all(axis=0)
    free = state.final and state.arrays is not None
    count = copies_within(None if free else state.public.budget, len(items))
    copies = noisy(items.x, two_valued, everything.astype(np.float64).std(axis=0), low + high - items.x, count)
    kept = np.mean([hits(labels(state, released, copy), items.y) for copy in chain([items.x], copies)], axis=0)
    return np.concatenate([kept, np.full(len(everything) - len(items), np.nan)])


NOISE_ROBUSTNESS = Signal(watch, keep_latest, _finish, "labels")
"""Share of the record and its noisy copies that get the record's label [rows]; NaN for the population, which is not
queried, to save queries. The noise comes in several strengths, so that the share measures a distance and not only a
hit. There are as many copies as the release's budget of queries pays for.
"""
