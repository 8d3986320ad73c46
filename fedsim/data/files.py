"""The user's own data. How to encode it is learned from the public records alone."""

import csv
import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsim.data.dataset import Dataset, Encode, Features, as_they_are, dataset, pixels
from fedsim.data.request import Request, whole_options
from fedsim.errors import ScenarioError

MOST_CATEGORIES = 256
MOST_CLASSES = 1000
NO_LABEL = ("", "nan", "inf", "infinity")
LARGEST = float(np.finfo(np.float32).max)
LARGEST_STANDARDISED = 1e18
"""In units of the public spread. A model squares its inputs, in float32."""


def csv_table(request: Request) -> Dataset:
    """Return the records of a CSV file with a header: numbers stay numbers, a column with any other text is a category.

    The label and the column of a natural partition are no features; columns named in `data.columns` are.
    """
    whole_options(request.data, {})
    path = _path(request)
    label = request.data.label
    if label is None:
        raise ScenarioError("data.label: source csv needs the name of the label column")
    columns, lines = _read_csv(path)

    def place(row: int) -> str:
        return f"{path}:{lines[row]}"

    wanted = set(request.data.columns) | ({request.data.partition.column} if request.data.partition.column else set())
    for name in (label, *sorted(wanted)):
        if name not in columns:
            raise ScenarioError(f"{path}: there is no column {name!r}; columns: {', '.join(columns)}")
    class_names, labels = _classes(columns[label], path, label, place)
    names = tuple(name for name in columns if name not in (label, request.data.partition.column))
    if not names:
        raise ScenarioError(f"{path}: there is no feature besides the label {label!r}")
    parsed = [_feature(columns[name], path, name, place) for name in names]
    return dataset(
        np.stack([feature.values for feature in parsed], axis=1),
        labels,
        class_names,
        fitted_on_public(path, names, tuple(feature.category for feature in parsed)),
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
    arrays = _read_npz(path, ("x", "y", *wanted))
    x, y, columns = arrays["x"], arrays["y"], {name: arrays[name] for name in wanted}
    if x.ndim not in (2, 3, 4) or y.shape != x.shape[:1] or any(column.shape != y.shape for column in columns.values()):
        raise ScenarioError(
            f"{path}: expected x [n, d], [n, h, w] or [n, channels, h, w], and y and columns [n]; found x {x.shape}, "
            f"y {y.shape}, " + ", ".join(f"{name} {column.shape}" for name, column in columns.items())
        )
    if x.size == 0:
        raise ScenarioError(f"{path}: expected records and features in x, found x {x.shape}, which holds no value")
    if x.dtype.kind not in "buif":
        raise ScenarioError(f"{path}: expected numbers in x, found type {x.dtype}")
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    if y.dtype.kind not in "buifU":
        raise ScenarioError(f"{path}: expected numbers or text in y, found type {y.dtype}")
    x = x[:, None, :, :] if x.ndim == 3 else x
    class_names, labels = _classes(y.astype(str), path, "y", lambda row: f"{path}: record {row + 1}")
    names = tuple(f"x[{place}]" for place in range(x.shape[1])) if x.ndim == 2 else ()
    return dataset(
        x, labels, class_names, _array_encoding(x, names, path), feature_names=names, columns=columns, checked=False
    )


def fitted_on_public(path: Path, names: tuple[str, ...], categories: tuple[bool, ...]) -> Encode:
    """Return an encoding: numbers standardised by the public rows, categories one-hot over those of the public rows.

    A category that no public row has is all zeros: its mere existence is private.

    Args: path, names: of the file and its columns, for errors; categories: which columns are categories.
    """

    def encode(features: Features, public_rows: NDArray[np.int64]) -> NDArray[np.float32]:
        if len(public_rows) < 2:
            raise ScenarioError(
                "data.population: the encoding of your own data is learned from public records, and there are "
                f"{len(public_rows)}; "
                "give population 2 or more"
            )
        blocks = []
        for place, (name, is_category) in enumerate(zip(names, categories, strict=True)):
            column = features[:, place] if is_category else features[:, place].astype(np.float64)
            public = column[public_rows]
            if is_category:
                blocks.append((column[:, None] == np.unique(public)).astype(np.float32))
                continue
            spread = public.std() if public.std() > 0 else 1.0
            with np.errstate(over="ignore"):
                standardised = (column - public.mean()) / spread
            if (too_large := np.abs(standardised) > LARGEST_STANDARDISED).any():
                raise ScenarioError(
                    f"{path}: column {name!r} has the value {column[too_large][0]:g}, too large beside the spread "
                    f"{spread:g} of the public records; values may lie at most {LARGEST_STANDARDISED:g} spreads apart"
                )
            blocks.append(standardised.astype(np.float32)[:, None])
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


class _Table(NamedTuple):
    """The text columns of a file, and the line of each record."""

    columns: dict[str, NDArray[np.str_]]
    lines: list[int]


def _read_csv(path: Path) -> _Table:
    """Return the records of a CSV file."""
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ScenarioError(f"{path}:{line}: expected a CSV file in UTF-8: {error.reason}") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ScenarioError(f"{path}:{line}: expected a CSV file in UTF-8: there is a NUL byte in it")
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    rows, lines = [], []
    try:
        header = [name.strip() for name in next(reader, [])]
        for row in reader:
            if row:
                rows.append(_values(row, header, f"{path}:{reader.line_num}"))
                lines.append(reader.line_num)
    except csv.Error as error:
        raise ScenarioError(f"{path}:{reader.line_num}: expected a CSV file in UTF-8: {error}") from error
    if len(set(header)) != len(header) or not all(header):
        raise ScenarioError(f"{path}:1: expected a header of different names, found {', '.join(header)}")
    if not rows:
        raise ScenarioError(f"{path}: there are no records below the header")
    columns = {name: np.asarray(column) for name, column in zip(header, zip(*rows, strict=True), strict=True)}
    return _Table(columns, lines)


def _values(row: list[str], header: list[str], place: str) -> list[str]:
    """Return the values of a record."""
    if len(row) != len(header):
        raise ScenarioError(f"{place}: expected {len(header)} values as in the header, found {len(row)}")
    values = [value.strip() for value in row]
    if "" in values:
        name = header[values.index("")]
        raise ScenarioError(f"{place}: column {name!r} has no value; fill it in, or write a category such as unknown")
    return values


def _read_npz(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Return the arrays of these names in an npz file."""
    # Asked first because numpy.load takes any other file for a single array or for a pickle.
    if not zipfile.is_zipfile(path):
        raise ScenarioError(f"{path}: is not an npz file; expected plain arrays as numpy.savez writes them")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if missing := [name for name in names if name not in archive.files]:
                raise ScenarioError(
                    f"{path}: expected arrays x, y and the columns, found {', '.join(archive.files)}; no {missing[0]!r}"
                )
            arrays = {name: archive[name] for name in names}
    except (
        OSError,
        ValueError,
        TypeError,
        EOFError,
        RuntimeError,
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = "pickled Python objects" if "pickle" in str(error) else f"{error}"
        raise ScenarioError(f"{path}: expected an npz file of plain arrays, found: {reason}") from error
    # numpy.load gives the bytes of a member that is no array.
    if bad := [name for name in names if not isinstance(arrays[name], np.ndarray)]:
        raise ScenarioError(f"{path}: expected an npz file of plain arrays; {bad[0]!r} is no array")
    return arrays


def _feature(text: NDArray[np.str_], path: Path, name: str, place: Callable[[int], str]) -> _Feature:
    """Return a text column as numbers, or as codes of its categories."""
    try:
        numbers = text.astype(np.float64)
    except ValueError:
        values, codes = np.unique(text, return_inverse=True)
    else:
        for row in np.flatnonzero(~(np.abs(numbers) <= LARGEST))[:1]:
            wrong = "not a number; fill it in" if np.isnan(numbers[row]) else f"too large; allowed: up to {LARGEST:.2g}"
            raise ScenarioError(f"{place(row)}: column {name!r} is {text[row]}, {wrong}, or leave the record out")
        return _Feature(numbers, category=False)
    if len(values) > MOST_CATEGORIES:
        raise ScenarioError(
            f"{path}: column {name!r} has {len(values)} different texts, for instance {str(values[0])!r}; "
            f"expected numbers or at most {MOST_CATEGORIES} categories; leave names and identifiers out"
        )
    return _Feature(codes.astype(np.float64), category=True)


def _classes(
    values: NDArray[np.str_], path: Path, name: str, place: Callable[[int], str]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the class names, numbers in their order, and the label of each record."""
    found, first, labels = np.unique(values, return_index=True, return_inverse=True)
    for row in sorted(first):
        if values[row].strip().lower().lstrip("+-") in NO_LABEL:
            raise ScenarioError(
                f"{place(row)}: label {name!r} is {str(values[row])!r}, no class; fill it in, or leave the record out"
            )
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


def _array_encoding(x: NDArray[Any], names: tuple[str, ...], path: Path) -> Encode:
    """Return how to encode: bytes by their range, other images as they are, tables by the public rows."""
    if x.ndim == 2:
        return fitted_on_public(path, names, (False,) * x.shape[1])
    if x.shape[1] not in (1, 3):
        raise ScenarioError(f"{path}: expected images with 1 or 3 channels, found x {x.shape}")
    if x.dtype == np.uint8:
        return pixels
    if x.min() < 0 or x.max() > 1:
        raise ScenarioError(f"{path}: expected images of bytes, or of numbers in [0, 1]; found {x.min()}..{x.max()}")
    return as_they_are
