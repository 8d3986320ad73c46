"""An update as integers, and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.scenario import Quantisation
from fedsim.secagg.codec import fixed_point
from fedsim.secagg.crypto import Words

FALSE_ALARM = 1e-9


def summed(vectors: list[Words]) -> Words:
    total = np.zeros_like(vectors[0])
    for vector in vectors:
        total += vector
    return total


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 30),
    st.floats(1e-3, 1e3),
    st.lists(st.tuples(st.floats(-2e3, 2e3), st.integers(0, 50)), min_size=1, max_size=6).filter(
        lambda clients: any(weight for _, weight in clients)
    ),
    st.sampled_from(["stochastic", "nearest"]),
    st.booleans(),
)
def test_the_mean_comes_back_to_a_step_a_client(
    bits: int, clip_range: float, clients: list[tuple[float, int]], rounding: str, weighted: bool
) -> None:
    quantisation = Quantisation(clip_range=clip_range, bits=bits, rounding=rounding)  # type: ignore[arg-type]
    codec = fixed_point(quantisation, len(clients), 50 if weighted else None)
    rng = np.random.default_rng(0)
    weights = [float(weight) if weighted else 1.0 for _, weight in clients]
    vectors = [
        codec.encode(np.array([value, 0.0]), weight, rng) for (value, _), weight in zip(clients, weights, strict=True)
    ]
    mean = codec.decode(summed(vectors), len(clients), sum(weights))
    cut = np.clip([value for value, _ in clients], -clip_range, clip_range)
    step = clip_range / (2 ** (bits - 1) - 1)
    scale = len(clients) * (50 if weighted else 1) / sum(weights)
    assert abs(mean[0] - np.average(cut, weights=weights)) <= step * scale * (1 + 1e-6) + 1e-9 * clip_range
    assert abs(mean[1]) <= 1e-9 * clip_range  # zero is one of the steps


@pytest.mark.parametrize("weight", [10.0, 3.0])
def test_stochastic_rounding_is_right_on_average_and_nearest_is_not(weight: float) -> None:
    """False alarm: FALSE_ALARM, by Hoeffding's inequality: one rounding is off by at most one step."""
    tries, value = 200_000, 0.3
    step = 1.0  # bits=2: -1, 0 and 1
    room = step * np.sqrt(np.log(2 / FALSE_ALARM) / (2 * tries))
    for rounding, fair in (("stochastic", True), ("nearest", False)):
        codec = fixed_point(Quantisation(bits=2, rounding=rounding), 1, 10)  # type: ignore[arg-type]
        encoded = codec.encode(np.full(tries, value), weight, np.random.default_rng(7))
        mean = codec.decode(encoded, 1, weight).mean()
        assert bool(abs(mean - value) <= room * 10 / weight) is fair


@pytest.mark.parametrize("clients", [1, 2**13, 2**14, 2**15])
def test_the_extremes_of_all_clients_fit(clients: int) -> None:
    """18 bits: 2^18 - 2 for each client; from 2^14 + 1 clients on, 64 bits are needed."""
    codec = fixed_point(Quantisation(clip_range=0.5, bits=18), clients, None)
    assert codec.modulus_bits == (32 if clients <= 2**14 else 64)
    rng = np.random.default_rng(0)
    top, bottom = (codec.encode(np.full(2, value), 1.0, rng) for value in (1e9, -1e9))
    assert (top.tolist(), bottom.tolist()) == ([2**18 - 2] * 2, [0, 0])
    assert int(top[0]) * clients < 2**codec.modulus_bits
    total = top * top.dtype.type(clients)
    assert codec.decode(total, clients, clients).tolist() == [0.5, 0.5]
    assert codec.decode(bottom, clients, clients).tolist() == [-0.5, -0.5]


def test_weights_that_do_not_fit_take_64_bits_or_are_refused() -> None:
    assert fixed_point(Quantisation(), 8, 2**28).modulus_bits == 32
    assert fixed_point(Quantisation(), 16, 2**28).modulus_bits == 64
    with pytest.raises(ValueError, match="does not fit into 64 bits"):
        fixed_point(Quantisation(), 16, 2**60)


@pytest.mark.parametrize("weight", [-1.0, 11.0, float("nan")])
def test_a_weight_that_was_not_agreed_on_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 10"):
        fixed_point(Quantisation(), 2, 10).encode(np.zeros(1), weight, np.random.default_rng(0))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_update_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        fixed_point(Quantisation(), 2, None).encode(np.array([value]), 1.0, np.random.default_rng(0))
