"""What the state machines of the signals share."""

import numpy as np
from numpy.typing import NDArray

from fedsim.views import Floats, RecordAsk

UNSEEN_OWNER = "of a client that is alleged to hold one of these records crossed this vantage"
"""Why a signal of owners is not visible: "no update", "no model", ... and then this."""


def mean_of(total: Floats, count: NDArray[np.number]) -> Floats:
    """Return total / count [n]; NaN where the count is 0: what was never seen is not a number that was measured."""
    return np.asarray(np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0))


def per_item(values: Floats, ask: RecordAsk) -> Floats:
    """Return a signal [items + population] from its values [items]; NaN for the population, which nobody is alleged to
    hold.
    """
    return np.concatenate([values, np.full(len(ask.population), np.nan)])
