"""The user's own data. How to encode it is learned from the public records alone."""

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.data.dataset import Dataset, Encode, Features, as_they_are, dataset, pixels
from fedsim.data.request import Request, whole_options
from fedsim.errors import ScenarioError

MOST_CATEGORIES = 256
MOST_CLASSES = 1000


def csv_table(request: Request) -> Dataset:
    """Return the records of a CSV file with a header: numbers stay numbers, a column with any other text is a category.

    The label and the column of a natural partition are no features; columns named in `data.columns` are.
    """
    whole_options(request.data, {})
    path = _path(request)
    label = request.data.label
    if label is None:
        raise ScenarioError("data.label: source csv needs the name of the label column")
    columns = _read_csv(path)
    wanted = set(request.data.columns) | ({request.data.partition.column} if request.data.partition.column else set())
    for name in (label, *sorted(wanted)):
        if name not in columns:
            raise ScenarioError(f"{path}: there is no column {name!r}; columns: {', '.join(columns)}")
    class_names, labels = _classes(columns[label], path, label)
    names = tuple(name for name in columns if name not in (label, request.data.partition.column))
    if not names:
        raise ScenarioError(f"{path}: there is no feature besides the label {label!r}")
    parsed = [_feature(columns[name], path, name) for name in names]
    return dataset(
        np.stack([feature.values for feature in parsed], axis=1),
        labels,
        class_names,
        fitted_on_public(tuple(feature.category for feature in parsed)),
        feature_names=names,
        columns={name: columns[name] for name in sorted(wanted)},
        checked=False,
    )


def npz_arrays(request: Request) -> Dataset:
    """Return the records of an npz file: x (a table, or images of bytes or in [0, 1]), y [n] and columns [n]."""
    whole_options(request.data, {})
    path = _path(request)
    wanted = sorted(
        {*request.data.columns} | ({request.data.partition.column} if request.data.partition.column else set())
    )
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
            if missing := [name for name in ("x", "y", *wanted) if name not in archive.files]:
                raise ScenarioError(
                    f"{path}: expected arrays x, y and the columns, found {', '.join(archive.files)}; no {missing[0]!r}"
                )
            x, y, columns = archive["x"], archive["y"], {name: archive[name] for name in wanted}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise ScenarioError(f"{path}: expected an npz file of plain arrays: {error}") from error
    if x.ndim not in (2, 3, 4) or y.shape != x.shape[:1] or any(column.shape != y.shape for column in columns.values()):
        raise ScenarioError(
            f"{path}: expected x [n, d], [n, h, w] or [n, channels, h, w], and y and columns [n]; found x {x.shape}, "
            f"y {y.shape}, " + ", ".join(f"{name} {column.shape}" for name, column in columns.items())
        )
    if x.dtype.kind not in "buif":
        raise ScenarioError(f"{path}: expected numbers in x, found type {x.dtype}")
    x = x[:, None, :, :] if x.ndim == 3 else x
    class_names, labels = _classes(y.astype(str), path, "y")
    names = tuple(f"x[{place}]" for place in range(x.shape[1])) if x.ndim == 2 else ()
    return dataset(
        x, labels, class_names, _array_encoding(x, path), feature_names=names, columns=columns, checked=False
    )


def fitted_on_public(categories: tuple[bool, ...]) -> Encode:
    """Return an encoding: numbers standardised by the public rows, categories one-hot over those of the public rows.

    A category that no public row has is all zeros: its mere existence is private.
    """

    def encode(features: Features, public_rows: NDArray[np.int64]) -> NDArray[np.float32]:
        if len(public_rows) < 2:
            raise ScenarioError(
                "data.population: the encoding of your own data is learned from public records, and there are "
                f"{len(public_rows)}; "
                "give population 2 or more"
            )
        blocks = []
        for place, is_category in enumerate(categories):
            column = features[:, place]
            public = column[public_rows]
            if is_category:
                blocks.append((column[:, None] == np.unique(public)).astype(np.float32))
            else:
                spread = public.std()
                blocks.append(((column - public.mean()) / (spread if spread > 0 else 1.0)).astype(np.float32)[:, None])
        return np.concatenate(blocks, axis=1)

    return encode


@dataclass(frozen=True)
class _Feature:
    """A column as numbers [n]: its values, or the codes of its categories."""

    values: NDArray[np.float64]
    category: bool


def _path(request: Request) -> Path:
    """Return the user's file."""
    if request.data.path is None:
        raise ScenarioError(f"data.path: source {request.data.source} needs the path of a file")
    path = request.scenario_folder / request.data.path
    if not path.is_file():
        raise ScenarioError(f"data.path: there is no file {path}")
    return path


def _read_csv(path: Path) -> dict[str, NDArray[np.str_]]:
    """Return the text columns of a CSV file."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            lines = csv.reader(handle, skipinitialspace=True, strict=True)
            header = next(lines, [])
            rows = []
            for row in lines:
                if not row:
                    continue
                if len(row) != len(header):
                    raise ScenarioError(
                        f"{path}:{lines.line_num}: expected {len(header)} values as in the header, found {len(row)}"
                    )
                if "" in (stripped := [value.strip() for value in row]):
                    name = header[stripped.index("")]
                    raise ScenarioError(
                        f"{path}:{lines.line_num}: column {name!r} has no value; fill it in, or write a category such "
                        "as unknown"
                    )
                rows.append(stripped)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScenarioError(f"{path}: expected a CSV file in UTF-8: {error}") from error
    header = [name.strip() for name in header]
    if len(set(header)) != len(header) or not all(header):
        raise ScenarioError(f"{path}:1: expected a header of different names, found {', '.join(header)}")
    if not rows:
        raise ScenarioError(f"{path}: there are no records below the header")
    return {name: np.asarray(column) for name, column in zip(header, zip(*rows, strict=True), strict=True)}


def _feature(text: NDArray[np.str_], path: Path, name: str) -> _Feature:
    """Return a text column as numbers, or as codes of its categories."""
    try:
        return _Feature(text.astype(np.float64), category=False)
    except ValueError:
        values, codes = np.unique(text, return_inverse=True)
    if len(values) > MOST_CATEGORIES:
        raise ScenarioError(
            f"{path}: column {name!r} has {len(values)} different texts, for instance {str(values[0])!r}; "
            f"expected numbers or at most {MOST_CATEGORIES} categories; leave names and identifiers out"
        )
    return _Feature(codes.astype(np.float64), category=True)


def _classes(values: NDArray[np.str_], path: Path, name: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the class names, numbers in their order, and the label of each record."""
    found, labels = np.unique(values, return_inverse=True)
    if not 2 <= len(found) <= MOST_CLASSES:
        raise ScenarioError(
            f"{path}: label {name!r} has {len(found)} different values; expected 2 to {MOST_CLASSES} classes"
        )
    try:
        order = np.argsort(found.astype(np.float64), kind="stable")
    except ValueError:
        order = np.arange(len(found))
    rank = np.argsort(order)
    return tuple(str(value) for value in found[order]), rank[labels].astype(np.int64)


def _array_encoding(x: NDArray[Any], path: Path) -> Encode:
    """Return how to encode: bytes by their range, other images as they are, tables by the public rows."""
    if x.ndim == 2:
        return fitted_on_public((False,) * x.shape[1])
    if x.shape[1] not in (1, 3):
        raise ScenarioError(f"{path}: expected images with 1 or 3 channels, found x {x.shape}")
    if x.dtype == np.uint8:
        return pixels
    if x.min() < 0 or x.max() > 1:
        raise ScenarioError(f"{path}: expected images of bytes, or of numbers in [0, 1]; found {x.min()}..{x.max()}")
    return as_they_are
