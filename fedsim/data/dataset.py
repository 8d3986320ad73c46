"""Records as a source gives them, before anybody decides which are private."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.errors import ScenarioError

Features = NDArray[Any]
"""[n, ...]: one row a record, numbers only; a category is its code."""

Encode = Callable[[Features, NDArray[np.int64]], NDArray[np.float32]]
"""(features [n, ...], public rows [p]) -> x float32 [n, ...]. Statistics come from the public rows or from nowhere."""


@dataclass(frozen=True)
class Dataset:
    """All the records of a source, in the source's order.

    features: [n, ...] numbers, as small as the source allows (pixels are uint8); `encode` turns them into model input.
    y: int64 [n], labels in 0..classes-1.
    class_names: one for each class.
    feature_names: one for each column of `features`; empty for images.
    columns: raw columns [n] for natural partitions and property games (sex, hospital, speaker, ...).
    encode: features and the rows that are public -> x float32 [n, ...].
    checked: the source's features were verified against a published file, so a constant feature is no mistake.
    synthetic: nobody ever was a record of it.
    notes: what a reader of the results should know about the preparation.
    digest: SHA-256 over features, labels and columns.
    """

    features: Features
    y: NDArray[np.int64]
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]
    encode: Encode
    checked: bool
    synthetic: bool
    notes: tuple[str, ...]
    digest: str


def dataset(
    features: Features,
    labels: NDArray[np.integer[Any]],
    class_names: tuple[str, ...],
    encode: Encode,
    *,
    feature_names: tuple[str, ...] = (),
    columns: Mapping[str, NDArray[Any]] = MappingProxyType({}),
    checked: bool = True,
    synthetic: bool = False,
    notes: tuple[str, ...] = (),
) -> Dataset:
    """Return a `Dataset` with read-only arrays and its digest.

    Args: see `Dataset`; `labels` are integers [n].
    Raises: ScenarioError where lengths disagree or a label is out of range.
    """
    lengths = {"features": len(features), "labels": len(labels)} | {
        name: len(column) for name, column in columns.items()
    }
    if len(set(lengths.values())) != 1:
        raise ScenarioError(f"every column needs one value a record, got lengths {lengths}")
    if len(labels) == 0:
        raise ScenarioError("the data hold no records")
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise ScenarioError(f"labels must lie in 0..{len(class_names) - 1}, got {labels.min()}..{labels.max()}")
    y = read_only(labels.astype(np.int64))
    features = read_only(features)
    columns = MappingProxyType({name: read_only(column) for name, column in columns.items()})
    return Dataset(
        features=features,
        y=y,
        class_names=class_names,
        feature_names=feature_names,
        columns=columns,
        encode=encode,
        checked=checked,
        synthetic=synthetic,
        notes=notes,
        digest=array_digest(features, y, columns=columns),
    )


def take(whole: Dataset, rows: NDArray[np.int64]) -> Dataset:
    """Return the data set of the given rows [m]; its digest stays that of the whole."""
    return Dataset(
        features=read_only(whole.features[rows]),
        y=read_only(whole.y[rows]),
        class_names=whole.class_names,
        feature_names=whole.feature_names,
        columns=MappingProxyType({name: read_only(column[rows]) for name, column in whole.columns.items()}),
        encode=whole.encode,
        checked=whole.checked,
        synthetic=whole.synthetic,
        notes=whole.notes,
        digest=whole.digest,
    )


def as_they_are(features: Features, public_rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the features unchanged: the source scaled them by published ranges."""
    del public_rows
    return features.astype(np.float32)


def pixels(features: Features, public_rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return images in [0, 1]: a byte divided by its range."""
    del public_rows
    return features.astype(np.float32) / np.float32(255)


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view of the array, in one piece of memory."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def array_digest(*arrays: NDArray[Any], columns: Mapping[str, NDArray[Any]] = MappingProxyType({})) -> str:
    """Return the SHA-256 (hex) over shape, type and bytes of the arrays, and of the columns with their names.

    The order of the columns and the byte order of the machine make no difference.
    """
    total = hashlib.sha256()
    for array in arrays:
        _feed(total, array)
    for name in sorted(columns):
        total.update(f"column {name!r}".encode())
        _feed(total, columns[name])
    return total.hexdigest()


def _feed(total: "hashlib._Hash", array: NDArray[Any]) -> None:
    """Feed one array to a running digest."""
    total.update(f"{array.shape}{array.dtype.newbyteorder('<').str}".encode())
    if array.dtype.kind == "O":  # its bytes are addresses
        total.update(repr(array.tolist()).encode())
    else:
        plain = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        total.update(plain.reshape(-1).view(np.uint8).data)
