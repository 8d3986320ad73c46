"""Tables with a published code book: one-hot over the documented categories, numbers over fixed ranges.

Nothing here looks at the records to decide how to encode them: the encoding of one says nothing about another.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsim.errors import ScenarioError

MISSING = "?"


class Number(NamedTuple):
    """A number that becomes (value - low) / (high - low); outside the range it is not clipped."""

    name: str
    low: float
    high: float
    logarithm: bool = False
    """log1p first: a count or an amount with a long tail."""
    can_miss: bool = False
    """Adds a column that is 1 where the value is missing; the value itself is then 0."""


class Category(NamedTuple):
    """A category that becomes one column a documented value; a missing value is all zeros."""

    name: str
    values: tuple[str, ...]


class Encoded(NamedTuple):
    """x float32 [n, d] and the d names of its columns."""

    x: NDArray[np.float32]
    names: tuple[str, ...]


def encode_table(columns: Mapping[str, NDArray[np.str_]], book: Sequence[Number | Category]) -> Encoded:
    """Return the encoded table.

    Args: columns: text columns [n], "?" where missing; book: what to do with each, in the order of the output.
    Raises: ScenarioError for a value that the code book does not know.
    """
    blocks: list[NDArray[np.float32]] = []
    names: list[str] = []
    for entry in book:
        text = columns[entry.name]
        missing = text == MISSING
        if isinstance(entry, Category):
            hits = text[:, None] == np.asarray(entry.values)  # [n, values]
            if (unknown := ~hits.any(axis=1) & ~missing).any():
                raise ScenarioError(
                    f"column {entry.name}: {str(text[unknown][0])!r} is not one of {', '.join(entry.values)}"
                )
            blocks.append(hits.astype(np.float32))
            names += [f"{entry.name}={value}" for value in entry.values]
            continue
        if missing.any() and not entry.can_miss:
            raise ScenarioError(f"column {entry.name}: row {int(np.argmax(missing)) + 1} has no value")
        blocks.append(_scale(text, missing, entry)[:, None])
        names.append(entry.name)
        if entry.can_miss:
            blocks.append(missing.astype(np.float32)[:, None])
            names.append(f"{entry.name} missing")
    return Encoded(np.concatenate(blocks, axis=1), tuple(names))


def _scale(text: NDArray[np.str_], missing: NDArray[np.bool_], entry: Number) -> NDArray[np.float32]:
    """Return a number column in about [0, 1], 0 where missing."""
    value = np.where(missing, "0", text).astype(np.float64)
    low, high = entry.low, entry.high
    if entry.logarithm:
        value, low, high = np.log1p(value), float(np.log1p(low)), float(np.log1p(high))
    return np.where(missing, 0.0, (value - low) / (high - low)).astype(np.float32)
