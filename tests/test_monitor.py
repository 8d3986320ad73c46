"""The monitor of queries: distances and clusters as counted by hand, false alarms at the stated rate, bursts caught."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsim.monitor import NotEnough, calibrated_radius, distances, inspect, nearest_earlier, ordinary


def records(count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.standard_normal((count, 8)).astype(np.float32)


def test_distances_are_those_of_every_pair() -> None:
    x = records(30, np.random.default_rng(0)).reshape(30, 2, 4) + 100
    x[7] = x[3]
    naive = [[np.linalg.norm(a.astype(np.float64) - b.astype(np.float64)) for b in x] for a in x]
    np.testing.assert_allclose(distances(x), naive, atol=1e-5)
    assert distances(x)[7, 3] == 0


def test_only_earlier_queries_count() -> None:
    line = np.array([0.0, 10.0, 1.0, 11.5])
    nearest = nearest_earlier(np.abs(line[:, None] - line[None, :]))
    np.testing.assert_array_equal(nearest, [np.inf, 10.0, 1.0, 1.5])


def test_clusters_are_counted() -> None:
    """A chain of three, a pair, and a loner; the chain's ends lie further apart than the radius."""
    x = np.array([[0.0], [50.0], [0.8], [100.0], [1.6], [50.5]], dtype=np.float32)
    assert inspect(x, 1.0) == (3, 2, 3)
    assert inspect(x, 0.1) == (0, 0, 0)
    assert inspect(np.zeros((4, 2), dtype=np.float32), 1e-6) == (3, 1, 4)


def test_windows_that_share_no_record() -> None:
    x = records(25, np.random.default_rng(1))
    assert ordinary(x, 10, np.random.default_rng(2)).shape == (2, 10)
    assert ordinary(x, 10, np.random.default_rng(2), 7).shape == (7, 10)
    with pytest.raises(NotEnough, match="30 ordinary queries cannot be drawn from 25"):
        ordinary(x, 30, np.random.default_rng(2))
    with pytest.raises(NotEnough, match="at most 12"):
        calibrated_radius(x, 13, 3, 0.05, np.random.default_rng(2))


def test_false_alarms_stay_within_the_stated_rate() -> None:
    """On new records, and on average over stocks that the radius is set on.

    Stated: 0.1; 30 stocks with 20 new windows each. The rate of a stock spreads by at most 0.1, so the mean of 30 has a
    standard error below 0.02: it exceeds 0.1 + 5 * 0.02 in less than one run in a million.
    """
    rng = np.random.default_rng()
    rates = []
    for _ in range(30):
        radius = calibrated_radius(records(120, rng), 30, 4, 0.1, rng)
        nearest = ordinary(records(600, rng), 30, rng)
        rates.append(((nearest < radius).sum(axis=1) >= 4).mean())
    assert np.mean(rates) <= 0.2
    assert np.mean(rates) > 0  # 600 windows of which none is flagged: a monitor that is asleep


def test_a_burst_is_caught() -> None:
    """Ten records, each asked ten times with a little noise: 90 near-duplicates in a window of 100."""
    rng = np.random.default_rng()
    stock = records(400, rng)
    radius = calibrated_radius(stock, 100, 10, 0.01, rng)
    burst = np.tile(records(10, rng), (10, 1)) + 0.01 * records(100, rng)
    found = inspect(burst, radius)
    assert found.near >= 90
    assert found.largest >= 10
