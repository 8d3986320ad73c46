"""Shares of a secret, of which any `threshold` give it back and fewer tell nothing.

Source: Shamir, "How to share a secret", CACM 1979, https://doi.org/10.1145/359168.359176
Two things keep this from a library: the coefficients must come from the owner's own secret, so that the same seed gives
the same bytes; and many secrets shared among the same holders are to cost one interpolation.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod

from fedsim.secagg.crypto import KEY_BYTES, derive

PRIME = 2**256 + 297
"""The smallest prime above all secrets of 32 bytes."""
SHARE_BYTES = 33
_SPARE_BYTES = 16  # a coefficient is reduced from so many bytes more than it has, which makes it uniform to 2^-128


def split(secret: bytes, points: Sequence[int], threshold: int, entropy: bytes) -> dict[int, bytes]:
    """Return a share [33 bytes] of `secret` [32 bytes] for each of `points` (different, from 1), of which any
    `threshold` give it back.

    entropy: 32 bytes that nobody else knows and that share nothing else; the same ones give the same shares.
    Raises ValueError where points or threshold are impossible.
    """
    if not 1 <= threshold <= len(points):
        raise ValueError(f"the threshold must be between 1 and the {len(points)} shares, got {threshold}")
    if len(set(points)) < len(points) or not all(0 < point < PRIME for point in points):
        raise ValueError(f"the points of shares must be positive and different, got {list(points)}")
    size = KEY_BYTES + 1 + _SPARE_BYTES
    drawn = b"".join(derive(entropy, "coefficient", power, length=size) for power in range(1, threshold))
    coefficients = [
        int.from_bytes(drawn[start : start + size], "little") % PRIME for start in range(0, len(drawn), size)
    ]
    return {
        point: _polynomial(int.from_bytes(secret, "little"), coefficients, point).to_bytes(SHARE_BYTES, "little")
        for point in points
    }


def recover(shares: Mapping[int, bytes], threshold: int) -> bytes | None:
    """Return the secret [32 bytes] of shares by point, or None where they are not shares of one.

    Only the `threshold` shares of the smallest points are looked at. Raises ValueError where there are fewer.
    """
    if len(shares) < threshold:
        raise ValueError(f"{threshold} shares are needed, got {len(shares)}")
    points = tuple(sorted(shares)[:threshold])
    values = (int.from_bytes(shares[point], "little") for point in points)
    secret = sum(weight * value for weight, value in zip(_weights(points), values, strict=True)) % PRIME
    return secret.to_bytes(KEY_BYTES, "little") if secret < 2 ** (8 * KEY_BYTES) else None


def _polynomial(constant: int, coefficients: Sequence[int], point: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value + coefficient) * point % PRIME
    return (value + constant) % PRIME


@lru_cache(maxsize=4096)
def _weights(points: tuple[int, ...]) -> tuple[int, ...]:
    """The Lagrange basis polynomials at zero."""
    return tuple(
        prod(other for other in points if other != point)
        * pow(prod(other - point for other in points if other != point), -1, PRIME)
        % PRIME
        for point in points
    )
