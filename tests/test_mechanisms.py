"""Mechanisms against their definitions. All generators are seeded by the test's parameter; a test states how often it
would fail if seeds were drawn at random.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedsim import mechanisms as m
from fedsim.randomness import generator

VECTORS = arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e6, 1e6))
NORMS = st.floats(1e-3, 1e3)


@settings(deadline=None)
@given(VECTORS, NORMS)
def test_clipping_bounds_the_length_and_keeps_the_direction(update: m.Floats, norm: float) -> None:
    found = m.clip(update, norm)
    length = float(np.linalg.norm(update))
    assert np.linalg.norm(found) <= norm * (1 + 1e-12)
    if length <= norm:
        assert np.array_equal(found, update)
    else:
        np.testing.assert_allclose(found * length, update * norm, rtol=1e-9, atol=1e-300)


def test_a_zero_update_stays_zero() -> None:
    assert np.array_equal(m.clip(np.zeros(3), 1.0), np.zeros(3))


@pytest.mark.parametrize("norm", [0.0, -1.0, math.nan, math.inf])
def test_a_norm_that_bounds_nothing_is_refused(norm: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        m.clip(np.ones(2), norm)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_update_without_length_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        m.clip(np.array([1.0, bad]), 1.0)


# Adaptive clipping


@settings(deadline=None)
@given(st.floats(0.01, 9.9), st.integers(100, 1000))
def test_updates_and_count_together_cost_what_the_whole_states(multiplier: float, clients: int) -> None:
    """Independent Gaussian releases add up as squares of sensitivity over noise; a client moves the count by 1/2."""
    updates = m.update_noise_multiplier(multiplier, clients)
    assert updates**-2 + (0.5 / m.count_std(clients)) ** 2 == pytest.approx(multiplier**-2, rel=1e-9)


def test_too_few_clients_for_a_noisy_count_are_refused() -> None:
    with pytest.raises(ValueError, match="10 clients a round needs a noise multiplier below 1"):
        m.update_noise_multiplier(1.0, 10)
    assert m.update_noise_multiplier(0.0, 10) == 0


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("start", [0.01, 100.0])
def test_the_clipping_norm_settles_at_the_quantile(quantile: float, start: float) -> None:
    """Noise moves the share of short updates by 1/20 a round; the mean of the last 200 norms stands for it within 0.04
    (over 500 seeds the largest difference was below 0.02).
    """
    rng, norm, seen = generator(5, "norms"), start, []
    for _ in range(400):
        lengths = rng.exponential(2.0, size=200)
        norm = m.next_norm(norm, lengths <= norm, 200, quantile, 0.2, rng)
        seen.append(norm)
    share = float(np.mean(scipy.stats.expon.cdf(seen[200:], scale=2.0)))
    assert share == pytest.approx(quantile, abs=0.04)


# Laws of noise


def _gaussian_fits(sample: m.Floats, std: float) -> bool:
    return bool(scipy.stats.kstest(sample, "norm", args=(0, std)).pvalue > 1e-6)


def _mass(law: m.Law, std: float, k: m.Integers) -> m.Floats:
    if law == "skellam":
        return np.asarray(scipy.stats.skellam.pmf(k, std**2 / 2, std**2 / 2), dtype=np.float64)
    support = np.arange(-math.ceil(20 * std) - 5, math.ceil(20 * std) + 6)
    weights = np.exp(-(support**2) / (2 * std**2))
    return np.asarray(np.exp(-(k**2) / (2 * std**2)) / weights.sum(), dtype=np.float64)


def _integers_fit(sample: m.Integers, law: m.Law, std: float) -> bool:
    """Chi-square with every integer that is expected at least 20 times as a cell of its own."""
    reach = math.ceil(6 * std) + 3
    k = np.arange(-reach, reach + 1)
    expected = _mass(law, std, k) * sample.size
    cells = expected >= 20
    seen = np.array([np.count_nonzero(sample == value) for value in k[cells]])
    rest = sample.size - expected[cells].sum()
    statistic = float((np.square(seen - expected[cells]) / expected[cells]).sum())
    degrees = int(cells.sum()) - 1
    if rest > 20:
        statistic += (sample.size - seen.sum() - rest) ** 2 / rest
        degrees += 1
    return bool(scipy.stats.chi2.sf(statistic, degrees) > 1e-6)


# Each accepts the right law but once in a million seeds, and must reject two thirds and three halves of the noise (at
# this size the power is 1 up to far less than one in a million).


@pytest.mark.parametrize("seed", range(3))
def test_gaussian_noise_has_the_standard_deviation_asked_for(seed: int) -> None:
    sample = m.gaussian((50, 400), 1.7, generator(seed, "gaussian")).ravel()
    assert _gaussian_fits(sample, 1.7)
    assert not _gaussian_fits(sample, 1.7 * 2 / 3)
    assert not _gaussian_fits(sample, 1.7 * 3 / 2)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("std", [0.6, 1.0, 3.3, 12.0])
@pytest.mark.parametrize("law", ["discrete_gaussian", "skellam"])
def test_integer_noise_has_the_law_asked_for(law: m.Law, std: float, seed: int) -> None:
    sample = m.LAWS[law]((200, 200), std, generator(seed, law)).ravel()
    assert _integers_fit(sample, law, std)
    assert not _integers_fit(sample, law, std * 2 / 3)
    assert not _integers_fit(sample, law, std * 3 / 2)


def test_the_two_laws_are_told_apart() -> None:
    sample = m.skellam((40_000,), 0.6, generator(1, "skellam"))
    assert not _integers_fit(sample, "discrete_gaussian", 0.6)


@pytest.mark.parametrize("law", ["discrete_gaussian", "skellam"])
def test_integer_noise_at_the_scale_that_is_used_is_gaussian_to_the_eye(law: m.Law) -> None:
    sample = m.LAWS[law]((20_000,), m.FINEST, generator(2, law)).astype(np.float64)
    assert _gaussian_fits(sample, m.FINEST)
    assert not _gaussian_fits(sample, m.FINEST * 3 / 2)


@pytest.mark.parametrize("law", ["discrete_gaussian", "skellam"])
def test_no_noise_is_none(law: m.Law) -> None:
    assert not m.LAWS[law]((100,), 0.0, generator(0, law)).any()


# Integers for secure aggregation


def _sum(codec: m.Codec, updates: list[m.Floats], rng: np.random.Generator) -> m.Unsigned:
    total = np.zeros(updates[0].size, dtype=np.uint32)
    for update in updates:
        total += codec.encode(update, rng)  # wraps as the protocol does
    return total


@settings(max_examples=200, deadline=None)
@given(VECTORS, st.floats(0.5, 50.0), st.integers(0, 2**32))
def test_rounding_never_exceeds_the_norm_and_moves_no_coordinate_by_one(
    values: m.Floats, norm: float, seed: int
) -> None:
    values = m.clip(values, norm)
    root = math.sqrt(values.size)
    bound = min(math.sqrt(norm**2 + values.size / 4 + norm + root / 2), norm + root)
    found = m.rounded(values, bound, np.random.default_rng(seed))
    assert np.linalg.norm(found) <= bound
    assert (np.abs(found - values) < 1).all()


def test_rounding_is_right_on_average() -> None:
    """Four standard errors in each of 8 coordinates: fails for 1 seed in 2,000; nearest rounding is off by 60."""
    values = np.array([0.1, -0.3, 2.5, -7.75, 0.0, 3.0, 0.9, -0.01])
    rng = generator(4, "rounding")
    drawn = np.array([m.rounded(values, 100.0, rng) for _ in range(20_000)])
    share = values - np.floor(values)
    error = 4 * np.sqrt(share * (1 - share) / len(drawn)) + 1e-12
    assert (np.abs(drawn.mean(axis=0) - values) <= error).all()
    assert not (np.abs(np.round(values) - values) <= error).all()


@settings(deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(0, 100), st.integers(1, 10**6), st.floats(0.01, 1), st.integers(1, 10**7))
def test_nothing_wraps_around_even_at_the_extremes(
    norm: float, multiplier: float, most: int, rate: float, parameters: int
) -> None:
    """Every client sends its whole norm in the same coordinate, and the noise is as large as its bound allows."""
    grid = m.lattice(norm, multiplier, rate * most, most, parameters)
    signal = most * (norm / grid.granularity + 1)
    variance = most * grid.std**2
    low, high = 0.0, 2.0**33
    for _ in range(200):  # the smallest t with 2 d exp(-t^2 / (2 (variance + t / 3))) <= WRAP
        t = (low + high) / 2
        safe = math.log(2 * parameters) - t**2 / (2 * (variance + t / 3)) <= math.log(m.WRAP)
        low, high = (low, t) if safe else (t, high)
    assert signal + high <= 2**31 - 1 + 1e-3
    assert grid.std <= m.FINEST * (1 + 1e-12)


@pytest.mark.parametrize("law", ["discrete_gaussian", "skellam"])
def test_the_bound_on_the_noise_holds_for_the_law(law: m.Law) -> None:
    """Bernstein's bound, which the lattice relies on, against the exact tail of each law."""
    for std in (0.7, 3.0, 10.0):
        k = np.arange(0, math.ceil(40 * std) + 60)
        tail = 2 * np.cumsum(_mass(law, std, k)[::-1])[::-1]
        t = k[1:]
        assert (tail[1:] <= 2 * np.exp(-(t**2) / (2 * (std**2 + t / 3))) * (1 + 1e-9)).all()


def test_the_codec_returns_the_mean_of_what_was_clipped() -> None:
    """Without noise, to within the rounding: half the granularity a client, five standard deviations."""
    rng = generator(6, "codec")
    updates = [rng.standard_normal(50) * scale for scale in (0.01, 0.3, 5.0, 0.0)]
    codec = m.distributed_codec("skellam", 1.0, 0.0, expected=4, most=4, fewest=4, parameters=50)
    found = codec.decode(_sum(codec, updates, rng), 4)
    truth = np.mean([m.clip(update, 1.0) for update in updates], axis=0)
    np.testing.assert_allclose(found, truth, atol=5 * m.lattice(1.0, 0.0, 4, 4, 50).granularity)


@pytest.mark.parametrize("law", ["discrete_gaussian", "skellam"])
def test_the_noise_of_the_expected_clients_is_what_was_announced(law: m.Law) -> None:
    """The mean of 5 clients carries noise of std z C / 5: fails for 1 seed in a million, and must see a tenth less."""
    norm, multiplier, clients, d = 2.0, 1.5, 5, 20_000
    codec = m.distributed_codec(law, norm, multiplier, expected=clients, most=clients, fewest=3, parameters=d)
    rng = generator(7, law)
    updates = [m.clip(rng.standard_normal(d), norm) for _ in range(clients)]
    mean = codec.decode(_sum(codec, updates, rng), clients)
    noise = mean - np.mean(updates, axis=0)
    std = norm * multiplier / clients
    assert _gaussian_fits(noise, std)
    assert not _gaussian_fits(noise, 0.9 * std)
    assert codec.modulus_bits == 32


def test_all_clients_at_the_same_extreme_do_not_wrap() -> None:
    """Six standard deviations of the noise; nothing else would put the sum on the other side."""
    for sign in (1.0, -1.0):
        update = np.array([sign * 100.0, 0.0, 0.0])
        codec = m.distributed_codec("skellam", 100.0, 1.0, expected=40, most=40, fewest=30, parameters=3)
        mean = codec.decode(_sum(codec, [update] * 40, generator(8, "extreme")), 40)
        assert mean[0] == pytest.approx(sign * 100, abs=6 * 100 / 40)


def test_a_lost_client_makes_the_mean_smaller_and_too_few_are_refused() -> None:
    codec = m.distributed_codec("skellam", 1.0, 0.0, expected=4, most=4, fewest=3, parameters=2)
    rng = generator(9, "lost")
    total = _sum(codec, [np.array([0.8, 0.0])] * 3, rng)
    assert codec.decode(total, 3)[0] == pytest.approx(0.6, abs=1e-6)
    with pytest.raises(ValueError, match="at least 3 clients, got 2"):
        codec.decode(total, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: m.lattice(1.0, 1.0, 1.0, 2**31, 10), "does not fit into 32 bits"),
        (lambda: m.lattice(0.0, 1.0, 1.0, 1, 10), "must be positive"),
        (lambda: m.lattice(1.0, 1.0, 0.0, 1, 10), "must be positive"),
        (lambda: m.rounded(np.ones(4), 1.5, np.random.default_rng(0)), "cannot be rounded"),
        (
            lambda: m.distributed_codec("skellam", 1.0, 1.0, expected=2, most=2, fewest=2, parameters=3).encode(
                np.zeros(4), np.random.default_rng(0)
            ),
            r"shape \(3,\)",
        ),
    ],
)
def test_what_cannot_be_encoded_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_the_same_generator_gives_the_same_integers() -> None:
    codec = m.distributed_codec("discrete_gaussian", 1.0, 1.0, expected=4, most=4, fewest=4, parameters=100)
    update = np.linspace(-1, 1, 100)
    once, again = (codec.encode(update, generator(3, "encode")) for _ in range(2))
    assert np.array_equal(once, again)
    assert once.dtype == np.uint32
