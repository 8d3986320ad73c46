"""Columns that a function of the user's own computes: any function of a record can be a property."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsim.data.dataset import Dataset, Features, read_only
from fedsim.data.visual import COLUMN
from fedsim.errors import ScenarioError

Compute = Callable[[Features, NDArray[np.int64], Mapping[str, NDArray[Any]]], object]
"""(features [n, ...] and labels [n] as the source gives them, its raw columns [n]) -> one value a record [n]."""


class Computed(NamedTuple):
    """A column to be: its name, the function that computes it, and what a run says of it: FILE:FUNCTION, and the
    SHA-256 (hex) of the file.
    """

    name: str
    compute: Compute
    function: str
    sha256: str


def with_computed(dataset: Dataset, computed: Sequence[Computed]) -> Dataset:
    """Return the records with a column more for each function; the digest stays that of the source.

    The functions see the records before anybody decides which of them are private, and must say of each record the same
    whichever others it stands among.

    Raises: ScenarioError for a name that is taken, a function that fails, and values that are not one a record, numbers
    (finite), text, or true and false.
    """
    columns = dict(dataset.columns)
    for each in computed:
        if each.name in columns or each.name == COLUMN:
            raise ScenarioError(f"--property {each.name}: the data have a column of this name; choose another")
        columns[each.name] = read_only(_column(dataset, each))
    return replace(dataset, columns=MappingProxyType(columns))


def _column(dataset: Dataset, each: Computed) -> NDArray[Any]:
    """Return the values [n] of a function, checked."""
    rows = np.arange(len(dataset.y), dtype=np.int64)
    values, some = _values(dataset, each, rows), rows[::-2]
    if not np.array_equal(_values(dataset, each, some), values[some]):
        raise ScenarioError(
            f"{_named(each)} gave a record another value when it stood among other records; a property must follow "
            "from the record alone, without chance (write numbers such as a median into the function)"
        )
    return values


def _values(dataset: Dataset, each: Computed, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return what a function says of some records [m]."""
    given = {name: read_only(column[rows]) for name, column in dataset.columns.items()}
    try:
        values = np.asarray(
            each.compute(read_only(dataset.features[rows]), read_only(dataset.y[rows]), MappingProxyType(given))
        )
    except (Exception, SystemExit) as error:  # whatever a stranger's function does
        raise ScenarioError(f"{_named(each)} failed: {type(error).__name__}: {error}") from None
    if values.shape != rows.shape:
        raise ScenarioError(
            f"{_named(each)} gave an array of shape {values.shape}; expected one value a record, {rows.shape} here"
        )
    if values.dtype.kind not in "buifU":
        raise ScenarioError(f"{_named(each)} gave values of type {values.dtype}; expected numbers, text, or booleans")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ScenarioError(f"{_named(each)} gave {values[~np.isfinite(values)][0]}; expected finite numbers")
    return values


def _named(each: Computed) -> str:
    return f"--property {each.name}={each.function}:"
