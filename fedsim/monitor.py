"""A monitor of queries: who sends many queries that lie close to each other?

A caller's queries are cut into windows. A window is flagged where at least `near_duplicates` of its queries lie within
the radius of an earlier one. The radius is set on windows of ordinary queries, and how often it gives a false alarm is
measured on others: see docs/attacks.md.
"""

import bisect
from typing import NamedTuple

import numpy as np
import scipy  # its parts take a second to import; each is loaded when it is first used
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CALIBRATION_WINDOWS = 300
"""Windows of ordinary queries on which the radius is set."""
LARGEST_SAMPLE = 2000
"""Records that ordinary queries are drawn from, at most: all their distances are held at once."""


class NotEnough(ValueError):
    """There are too few records to draw a window of ordinary queries from."""


class Flag(NamedTuple):
    """What a monitor finds in one window: near-duplicates, the clusters that they form with what they are close to, and
    the size of the largest.
    """

    near: int
    clusters: int
    largest: int


def distances(x: NDArray[np.float32]) -> Floats:
    """Return the L2 distances [n, n] between queries x [n, ...]; equal queries have distance 0 exactly."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    flat = flat - flat.mean(axis=0, keepdims=True)  # less is lost where squares are subtracted
    squares = (flat**2).sum(axis=1)
    gaps = squares[:, None] + squares[None, :] - 2 * flat @ flat.T
    close = gaps <= 1e-9 * (squares[:, None] + squares[None, :])
    return np.sqrt(np.where(close, 0.0, np.maximum(gaps, 0.0)))


def nearest_earlier(gaps: Floats) -> Floats:
    """Return the distance [n] from each query of a window to the nearest earlier one; infinite for the first.

    gaps: [n, n] distances, in the order of the queries.
    """
    earlier = np.tri(len(gaps), k=-1, dtype=bool)
    return np.asarray(np.where(earlier, gaps, np.inf).min(axis=1, initial=np.inf))


def inspect(x: NDArray[np.float32], radius: float) -> Flag:
    """Return what a monitor finds in a window of queries x [n, ...]."""
    gaps = distances(x)
    near = nearest_earlier(gaps) < radius
    sizes: list[int] = []
    cluster = np.zeros(len(x), dtype=np.int64)
    for query in range(len(x)):
        if near[query]:
            cluster[query] = cluster[int(gaps[query, :query].argmin())]
            sizes[cluster[query]] += 1
        else:
            cluster[query] = len(sizes)
            sizes.append(1)
    several = [size for size in sizes if size > 1]
    return Flag(int(near.sum()), len(several), max(several, default=0))


def ordinary(x: NDArray[np.float32], window: int, rng: np.random.Generator, windows: int | None = None) -> Floats:
    """Return the distance to the nearest earlier query [windows, window] in windows of ordinary queries.

    An ordinary caller asks about records that it happens to have, each once: windows are drawn from x [n, ...] without
    putting back. windows: each drawn from all records anew; None: as many as share no record.

    Raises:
        NotEnough: there are fewer records than a window has queries.
    """
    if len(x) < window:
        raise NotEnough(f"a window of {window} ordinary queries cannot be drawn from {len(x)} records")
    sample = rng.permutation(len(x))[: max(window, LARGEST_SAMPLE)]
    gaps = distances(x[sample])
    orders = (
        [rng.permutation(len(gaps))[:window] for _ in range(windows)]
        if windows is not None
        else np.split(np.arange(len(gaps) // window * window), len(gaps) // window)
    )
    return np.stack([nearest_earlier(gaps[np.ix_(order, order)]) for order in orders])


def calibrated_radius(
    x: NDArray[np.float32], window: int, near_duplicates: int, false_alarm_rate: float, rng: np.random.Generator
) -> float:
    """Return the largest radius at which a window of new ordinary queries is flagged with at most
    `false_alarm_rate`, on average over draws of the public records.

    The near-duplicates of a window are taken to follow a gamma law. Its mean and variance are those over windows drawn
    from x. Such windows share records and so differ too little: where each takes a share w = window / n of them, the
    variance over windows of new records is larger by 1 / (1 - w), and the mean over so few records may be off by a
    further w of it (sampling without putting back: Cochran, "Sampling techniques", 1977, chapter 2).

    Args:
        x: [n, ...] public records, at least two windows of them.
        window, near_duplicates: as in the scenario.
        false_alarm_rate: in (0, 1).

    Raises:
        NotEnough: there are too few records.
    """
    if len(x) < 2 * window:
        raise NotEnough(
            f"got {window}; the radius is set on at least two windows of public records, and there are {len(x)}; use a "
            f"window of at most {len(x) // 2}, or give a `radius`"
        )
    nearest = ordinary(x, window, rng, CALIBRATION_WINDOWS)
    share = window / min(len(x), LARGEST_SAMPLE)

    def rate(radius: float) -> float:
        counts = (nearest < radius).sum(axis=1)
        mean, variance = counts.mean(), counts.var(ddof=1) * (1 + share) / (1 - share)
        if mean == 0:
            return 0.0
        variance = max(variance, mean)  # a few lucky windows say little of the rare: no less than Poisson's
        return float(scipy.stats.gamma.sf(near_duplicates - 0.5, mean**2 / variance, scale=variance / mean))

    radii = np.unique(nearest[np.isfinite(nearest)])
    allowed = bisect.bisect_right(range(len(radii)), false_alarm_rate, key=lambda index: rate(float(radii[index])))
    return float(radii[max(allowed - 1, 0)])
