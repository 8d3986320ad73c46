"""The noise of differential privacy: clipping, its laws, and integers that a secure aggregation can add up.

Everywhere: an update is float64 [d]; `norm` is the largest L2 length that one client's update may have (> 0); `std` is
a standard deviation in each coordinate (>= 0).
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Unsigned = NDArray[np.uint32]
Law = Literal["discrete_gaussian", "skellam"]


@cache
def dp_library() -> Any:
    """Return dp_accounting, which takes a second to import and is not needed before something is private."""
    import dp_accounting  # type: ignore[import-untyped]

    return dp_accounting


def clip(update: Floats, norm: float) -> Floats:
    """Return the update, scaled down to length `norm` where it is longer (a zero update stays zero).

    Raises:
        ValueError: the norm is not positive, or the update is not finite (no scale would bound it).
    """
    _positive("the norm to clip to", norm)
    length = float(np.linalg.norm(update))
    if not math.isfinite(length):
        raise ValueError("an update must be finite to be clipped, got numbers that are not")
    return update * (norm / length) if length > norm else update


def gaussian(shape: tuple[int, ...], std: float, rng: np.random.Generator) -> Floats:
    """Return independent Gaussian noise float64 [*shape] of mean 0."""
    return rng.standard_normal(shape) * std


# Adaptive clipping


def count_std(clients: float) -> float:
    """Return the standard deviation of the noise on the number of short updates: a twentieth of the expected number of
    clients of a round.

    Source: Andrew et al., "Differentially private learning with adaptive clipping" (2021),
        https://arxiv.org/abs/1905.03871
    """
    return clients / 20


def update_noise_multiplier(noise_multiplier: float, clients: float) -> float:
    """Return the noise multiplier for the updates, so that updates and count together cost no more than Gaussian noise
    of `noise_multiplier` on the updates alone.

    Args:
        noise_multiplier: of the whole, >= 0.
        clients: the expected number of clients of a round.

    Raises:
        ValueError: the count alone costs more: noise_multiplier >= clients / 10.

    Source: Andrew et al. (2021), theorem 1, https://arxiv.org/abs/1905.03871
    """
    if noise_multiplier == 0:
        return 0.0
    count = 2 * count_std(clients)  # a client moves the centred count by 1/2
    if noise_multiplier >= count:
        raise ValueError(
            f"adaptive clipping with {clients:g} clients a round needs a noise multiplier below {count:g} (a tenth of "
            f"them), got {noise_multiplier:g}: its noisy count alone costs more; use fixed clipping or more clients"
        )
    return float((noise_multiplier**-2 - count**-2) ** -0.5)


def next_norm(
    norm: float, short: NDArray[np.bool_], clients: float, quantile: float, rate: float, rng: np.random.Generator
) -> float:
    """Return the clipping norm of the next round: larger where fewer updates than `quantile` were short, by a noisy
    count.

    Args:
        norm: of this round, > 0.
        short: bool [n], of the updates received: its length was at most `norm`.
        clients: the expected number of clients of a round, public.
        quantile: the share of updates that should be short, in (0, 1).
        rate: step of the norm's logarithm, > 0.
        rng: draws the noise of the count.

    Source: Andrew et al. (2021), algorithm 1, https://arxiv.org/abs/1905.03871
    """
    centred = float(np.sum(short - 0.5)) + float(gaussian((), count_std(clients), rng))
    return norm * math.exp(-rate * (centred / clients + 0.5 - quantile))


# Integer noise


def discrete_gaussian(shape: tuple[int, ...], std: float, rng: np.random.Generator) -> Integers:
    """Return independent integers int64 [*shape] with probability proportional to exp(-k^2 / (2 std^2)); their standard
    deviation is `std` up to a vanishing amount from `std` = 1 on. Exact up to the precision of float64.

    Source: Canonne, Kamath and Steinke, "The discrete Gaussian for differential privacy" (2020), algorithm 3,
        https://arxiv.org/abs/2004.00010
    """
    if std == 0:
        return np.zeros(shape, dtype=np.int64)
    scale = math.floor(std) + 1
    stop = -math.expm1(-1 / scale)
    found = np.empty(math.prod(shape), dtype=np.int64)
    filled = 0
    while filled < found.size:
        size = 2 * (found.size - filled) + 16
        laplace = rng.geometric(stop, size) - rng.geometric(stop, size)
        keep = rng.random(size) < np.exp(-((np.abs(laplace) - std**2 / scale) ** 2) / (2 * std**2))
        kept = laplace[keep][: found.size - filled]
        found[filled : filled + kept.size] = kept
        filled += kept.size
    return found.reshape(shape)


def skellam(shape: tuple[int, ...], std: float, rng: np.random.Generator) -> Integers:
    """Return independent differences int64 [*shape] of two Poisson numbers of mean std^2 / 2; sums of them are of the
    same law.

    Source: Agarwal, Kairouz and Liu, "The Skellam mechanism for differentially private federated learning" (2021),
        https://arxiv.org/abs/2110.04995
    """
    return rng.poisson(std**2 / 2, shape) - rng.poisson(std**2 / 2, shape)


LAWS: dict[Law, Callable[[tuple[int, ...], float, np.random.Generator], Integers]] = {
    "discrete_gaussian": discrete_gaussian,
    "skellam": skellam,
}

MODULUS_BITS = 32
WRAP = 1e-9
"""Largest probability that any coordinate of a round's sum leaves the range of the modulus."""
FINEST = 2.0**14
"""Standard deviation of a client's integers beyond which a finer grid gains nothing: what rounding adds to the norm is
negligible, and float64 still evaluates the law of so large integers to six digits.
"""
ROUNDING = math.exp(-0.5)
"""Largest chance that stochastic rounding exceeds the norm bound and is repeated (beta of Kairouz et al.)."""


class Lattice(NamedTuple):
    """The integers that clients send: an update is divided by `granularity`, rounded, and noise of standard deviation
    `std` is added. Before the noise no client's integers are longer than `norm` (L2) and `total` (L1).
    """

    granularity: float
    std: float
    norm: float
    total: float


def lattice(norm: float, noise_multiplier: float, expected: float, most: int, parameters: int) -> Lattice:
    """Return the finest useful integers with which a round's sum stays within 32 bits.

    Even if all `most` clients send the same largest coordinate, and the noise of all of them exceeds the bound of
    Bernstein's inequality (for both laws; probability below 1e-9 over all coordinates together), nothing wraps around.

    Args:
        norm: largest length of a client's update, in its own units.
        noise_multiplier: standard deviation of the noise of `expected` clients together, over `norm`; >= 0.
        expected: the number of clients on whom the noise is shared out, > 0.
        most: the largest number of clients that a round may have.
        parameters: coordinates of an update.

    Raises:
        ValueError: a norm that is not positive, or so many clients or parameters that nothing fits into 32 bits.

    Source: Kairouz, Liu and Steinke, "The distributed discrete Gaussian mechanism" (2021), theorem 1 for the norm after
        conditional rounding, https://arxiv.org/abs/2102.06387
    """
    _positive("the norm to clip to", norm)
    _positive("the expected number of clients", expected)
    tail = math.log(2 * parameters / WRAP)
    room = 2 ** (MODULUS_BITS - 1) - 1 - most - 2 * tail / 3
    reach = most + noise_multiplier * math.sqrt(most / expected * 2 * tail)  # in norms: the signal, and the noise
    if room < reach:
        raise ValueError(f"the sum of {most} clients' updates does not fit into {MODULUS_BITS} bits")
    share = noise_multiplier / math.sqrt(expected)  # a client's noise, in norms
    granularity = norm * max(reach / room, share / FINEST)
    longest = norm / granularity
    root = math.sqrt(parameters)
    spread = math.sqrt(-2 * math.log(ROUNDING)) * (longest + root / 2)
    rounded = min(math.sqrt(longest**2 + parameters / 4 + spread), longest + root)
    return Lattice(granularity, share * longest, rounded, rounded * min(root, rounded))


def rounded(values: Floats, norm: float, rng: np.random.Generator) -> Integers:
    """Return the values [d] rounded up or down at random, right on average, drawn again until the result is no longer
    than `norm`.

    Raises ValueError where even the mean of the roundings is longer than `norm`, for which there may be no end.
    """
    if np.linalg.norm(values) > norm:
        raise ValueError(f"values of length {np.linalg.norm(values):g} cannot be rounded to length {norm:g}")
    floor = np.floor(values)
    while True:
        drawn = floor + (rng.random(values.shape) < values - floor)
        if np.linalg.norm(drawn) <= norm:
            return drawn.astype(np.int64)


def fewest(expected: float, threshold: float, all_come: bool) -> int:
    """Return the smallest number of clients whose sum may be opened: all of the round where nobody can be lost, else
    the threshold's share of those expected. Their noise is what is accounted for.
    """
    return round(expected) if all_come else max(1, math.ceil(threshold * expected - 1e-9))


class Codec(NamedTuple):
    """How an update travels through a sum modulo 2^modulus_bits.

    encode(update [d], rng) -> uint32 [d]: one client's integers, noise and all.
    decode(total uint32 [d], survivors) -> float64 [d]: the mean update. It divides by the expected number of clients,
    which is public, and not by the number that came: the sum is then as private as before whoever may know who took
    part, the noise of the mean is what was announced, and a round that lost clients takes a smaller step.
    """

    encode: Callable[[Floats, np.random.Generator], Unsigned]
    decode: Callable[[Unsigned, int], Floats]
    modulus_bits: int


def distributed_codec(
    law: Law, norm: float, noise_multiplier: float, *, expected: float, most: int, fewest: int, parameters: int
) -> Codec:
    """Return how updates become noisy integers whose sum over the expected clients is differentially private.

    No rotation is made: the sum fits even where all clients agree in one coordinate.

    Args:
        law: of the integer noise.
        norm: each update is clipped to this length.
        noise_multiplier: standard deviation of the noise of `expected` clients together, over `norm`; >= 0.
        expected: clients of a round on average; each adds 1/expected of the variance, and the sum is divided by it.
        most: the largest number of clients that a round may have.
        fewest: the smallest number whose sum may be opened: its noise is what was accounted.
        parameters: coordinates of an update.

    Raises:
        ValueError: as `lattice`; encode: an update of another size; decode: a sum of fewer than `fewest` clients.

    Source: Kairouz, Liu and Steinke (2021), https://arxiv.org/abs/2102.06387; Agarwal, Kairouz and Liu (2021),
        https://arxiv.org/abs/2110.04995
    """
    grid = lattice(norm, noise_multiplier, expected, most, parameters)

    def encode(update: Floats, rng: np.random.Generator) -> Unsigned:
        if update.shape != (parameters,):
            raise ValueError(f"an update must be of shape ({parameters},), got {update.shape}")
        integers = rounded(clip(update, norm) / grid.granularity, grid.norm, rng)
        integers += LAWS[law](integers.shape, grid.std, rng)
        return np.asarray(integers % 2**MODULUS_BITS, dtype=np.uint32)

    def decode(total: Unsigned, survivors: int) -> Floats:
        if survivors < fewest:
            raise ValueError(f"the noise was accounted for a sum of at least {fewest} clients, got {survivors}")
        centred = total.astype(np.uint32).view(np.int32).astype(np.float64)
        return centred * (grid.granularity / expected)

    return Codec(encode, decode, MODULUS_BITS)


def _positive(what: str, value: float) -> None:
    """Refuse what is not a positive number."""
    if not 0 < value < math.inf:
        raise ValueError(f"{what} must be positive, got {value}")
