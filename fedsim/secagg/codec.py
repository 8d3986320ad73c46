"""How an update becomes integers that can be added up under masks, and how their sum becomes a mean update."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fedsim.scenario import Quantisation
from fedsim.secagg.crypto import Words
from fedsim.vectors import Floats


class Codec(NamedTuple):
    """encode(update float64 [d], weight, rng) -> unsigned integers [d] of `modulus_bits` bits.

    decode(total [d], survivors, total weight) -> the weighted mean update float64 [d], from the sum of what that many
    clients encoded. modulus_bits: 32 or 64. zero, step: a coordinate of that sum is survivors x zero + the sum of
    weight x update / step; step 0: it is something else.
    """

    encode: Callable[[Floats, float, np.random.Generator], Words]
    decode: Callable[[Words, int, float], Floats]
    modulus_bits: int
    zero: int = 0
    step: float = 0.0


def fixed_point(quantisation: Quantisation, clients: int, largest_weight: int | None) -> Codec:
    """Return the codec that cuts each coordinate to +-clip_range, scales it by weight / largest_weight and rounds it to
    one of 2^bits - 1 evenly spaced steps, zero among them; stochastic rounding is right on average.

    clients: how many can be in one sum (>= 1). largest_weight: of one client (its number of examples), or None where
    all count the same. Neither the coordinates nor the weights of so many clients can overflow the modulus, 2^32 or
    else 2^64. Raises ValueError where even that is too small.
    """
    steps = 2 ** (quantisation.bits - 1) - 1  # on each side of zero
    largest = max(clients * 2 * steps, clients * (largest_weight or 1))
    if clients < 1 or (largest_weight is not None and largest_weight < 1) or largest >= 2**64:
        raise ValueError(
            f"a sum over {clients} clients of {quantisation.bits} bits and weights up to {largest_weight} does not fit "
            "into 64 bits: use fewer `bits`, or uniform `weights`"
        )
    bits = 32 if largest < 2**32 else 64
    scale = steps / quantisation.clip_range

    def encode(update: Floats, weight: float, rng: np.random.Generator) -> Words:
        relative = 1.0 if largest_weight is None else weight / largest_weight
        if not 0 <= relative <= 1:
            raise ValueError(f"the weight of a client must be between 0 and {largest_weight}, got {weight}")
        if not np.isfinite(update).all():
            raise ValueError("an update that is not finite cannot be aggregated: did training diverge?")
        exact = np.clip(update, -quantisation.clip_range, quantisation.clip_range) * (scale * relative) + steps
        np.clip(exact, 0, 2 * steps, out=exact)  # the last bit of a product may lie outside
        if quantisation.rounding == "nearest":
            return _words(np.rint(exact), bits)
        below = np.floor(exact)
        return _words(below + (rng.random(len(exact)) < exact - below), bits)

    def decode(total: Words, survivors: int, total_weight: float) -> Floats:
        centred: Floats = total.astype(np.float64) - survivors * steps
        centred *= (largest_weight or 1) / (scale * total_weight)
        return centred

    return Codec(encode, decode, bits, steps, (largest_weight or 1) / scale)


def _words(whole: Floats, bits: int) -> Words:
    return whole.astype(np.uint32) if bits == 32 else whole.astype(np.uint64)
