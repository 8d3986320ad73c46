"""The pool: which records may be private, which never train, and who would own them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsim.data.dataset import Dataset, Features, array_digest, read_only, take
from fedsim.data.partition import PARTITIONS, UNUSED, natural, natural_names
from fedsim.data.visual import COLUMN, plant
from fedsim.errors import ScenarioError
from fedsim.scenario import Data

Rows = NDArray[np.int64]

PLANTED_ROWS = 40
DEAL_TRIES = 50


@dataclass(frozen=True)
class Pool:
    """The records of a scenario, encoded, and their roles. Every role is an array of row numbers; no row has two roles.

    source: name of the data source (a key of `SOURCES`).
    x: float32 [rows, ...]: images [rows, channels, height, width] in [0, 1], tables [rows, d].
    y: int64 [rows]: the labels that are trained on, wrong ones included.
    class_names: one for each class.
    columns: raw columns [rows] for property games.
    client_names: one for each client; the value of the column for a natural partition.
    owner: int64 [rows]: the client that would train on the row; -1 for population and test.
    candidates: int64 [n], in random order: rows with a coin flip in each world.
    null: int64: rows of the same law as the candidates, with coin flips, that never train.
    background: int64: rows that train in every world.
    population: int64: the attackers' public records, members of no world.
    test: int64: held-out records, for utility only.
    planted: int64: rows with random labels for over-trained control worlds.
    mislabelled: bool [rows]: candidates and null rows whose label was replaced by a wrong one.
    source_rows: int64 [rows]: the row in the source.
    dropped_duplicates: records dropped because another has the same features.
    dropped_near_duplicates: records dropped because another is too close.
    synthetic: the records are generated.
    notes: what a reader of the results should know about the data.
    digest: SHA-256 over x, y, columns, owner and roles.
    source_digest: SHA-256 over the whole source.
    """

    source: str
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    class_names: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]
    client_names: tuple[str, ...]
    owner: NDArray[np.int64]
    candidates: Rows
    null: Rows
    background: Rows
    population: Rows
    test: Rows
    planted: Rows
    mislabelled: NDArray[np.bool_]
    source_rows: Rows
    dropped_duplicates: int
    dropped_near_duplicates: int
    synthetic: bool
    notes: tuple[str, ...]
    digest: str
    source_digest: str

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def clients(self) -> int:
        """Number of clients."""
        return len(self.client_names)


class Sizes(NamedTuple):
    """How many rows each role gets; the rows of a pool stand in this order."""

    candidates: int
    null: int
    background: int
    planted: int
    population: int
    test: int


class _Range(NamedTuple):
    """A size that was not given: what is wished, and what still makes sense."""

    wish: int
    least: int


def draw_pool(dataset: Dataset, data: Data, rng: np.random.Generator) -> Pool:
    """Return the pool of a scenario: records checked, thinned of duplicates, given a role and an owner, and encoded.

    Candidates, null and background are drawn together, dealt to clients together, and only then told apart by their
    random order, so a null row differs from a candidate in nothing but never being trained on. Every client owns at
    least one candidate or background row.

    Args: dataset: all records of the source; data: sizes, clients, partition; rng: decides everything random.
    Raises: ScenarioError for values that are no numbers, constant features, a class with one record, too few records.
    """
    _check(dataset, data.path or f"source {data.source}")
    if data.mislabelled > data.candidates:
        raise ScenarioError(f"data.mislabelled: {data.mislabelled} is more than the {data.candidates} candidates")
    if data.clients > data.candidates + data.background:
        raise ScenarioError(
            f"data.clients: {data.clients} clients need a record each, and there are "
            f"{data.candidates + data.background} (candidates and background)"
        )
    owner, client_names = _natural_clients(dataset, data, rng)
    rows = np.flatnonzero(owner != UNUSED)
    if data.limit is not None and data.limit < len(rows):
        rows = np.sort(rng.choice(rows, data.limit, replace=False))
    unique = rows[_first_of_each(dataset.features[rows])]
    kept = unique[_far_apart(take(dataset, unique), data.near_duplicates)] if data.near_duplicates > 0 else unique
    sizes = resolve_sizes(len(kept), data)
    used, dealt = _deal(dataset.y, owner, kept, data, sizes, rng)
    roles = _roles(sizes)
    y, mislabelled = _wrong_labels(dataset.y[used], len(dataset.class_names), data.mislabelled, roles, rng)
    x = dataset.encode(dataset.features[used], roles.population)
    raw = {name: column[used] for name, column in dataset.columns.items()}
    if data.visual is not None:
        x, raw[COLUMN] = plant(x, data.visual, rng)
    columns = MappingProxyType({name: read_only(column) for name, column in raw.items()})
    return Pool(
        source=data.source,
        x=read_only(x),
        y=read_only(y),
        class_names=dataset.class_names,
        columns=columns,
        client_names=client_names,
        owner=read_only(dealt),
        **roles._asdict(),
        mislabelled=read_only(mislabelled),
        source_rows=read_only(used),
        dropped_duplicates=len(rows) - len(unique),
        dropped_near_duplicates=len(unique) - len(kept),
        synthetic=dataset.synthetic,
        notes=dataset.notes,
        digest=array_digest(x, y, dealt, mislabelled, np.asarray(sizes, dtype=np.int64), columns=columns),
        source_digest=dataset.digest,
    )


def victim_rows(pool: Pool) -> Rows:
    """Return the rows that games over whole training populations draw from: candidates, null and background."""
    return np.concatenate([pool.candidates, pool.null, pool.background])


def resolve_sizes(records: int, data: Data) -> Sizes:
    """Return the size of each role, given so many usable records.

    Sizes that the scenario gives are kept to the letter. The others shrink when records are short: first population
    and test, then the planted rows, then the null rows.

    Raises: ScenarioError that says how many candidates are possible.
    """
    given = {"null": data.null_candidates, "population": data.population, "test": data.test}
    wishes = {
        "null": _Range(data.candidates, 4),
        "planted": _Range(PLANTED_ROWS, 8),
        "population": _Range(int(np.clip(2 * data.candidates, 1000, 5000)), 20),
        "test": _Range(1000, 20),
    } | {name: _Range(size, size) for name, size in given.items() if size is not None}
    sizes = {name: wish.wish for name, wish in wishes.items()}
    fixed = data.candidates + data.background
    for group in (("population", "test"), ("planted",), ("null",)):
        short = max(0, fixed + sum(sizes.values()) - records)
        slack = {name: wishes[name].wish - wishes[name].least for name in group}
        cut = min(short, sum(slack.values()))
        for name in group:
            share = cut * slack[name] // max(1, sum(slack.values()))
            sizes[name] -= share
            cut, slack[name] = cut - share, 0
    if fixed + sum(sizes.values()) > records:
        parts = ", ".join(f"{name} {size}" for name, size in {"background": data.background, **sizes}.items() if size)
        possible = records - data.background - sum(sizes.values())
        raise ScenarioError(
            f"data.candidates: {data.candidates} candidates and at least {parts} need {fixed + sum(sizes.values())} "
            f"records, and {data.source} has {records} (after duplicates, limit and partition); "
            + (f"at most {possible} candidates are possible" if possible >= 4 else "reduce the other parts")
        )
    return Sizes(candidates=data.candidates, background=data.background, **sizes)


class _Roles(NamedTuple):
    """The rows of each role."""

    candidates: Rows
    null: Rows
    background: Rows
    planted: Rows
    population: Rows
    test: Rows


def _roles(sizes: Sizes) -> _Roles:
    """Return consecutive rows, in the order of `Sizes`."""
    ends = np.cumsum(sizes)
    return _Roles(
        *(read_only(np.arange(end - size, end, dtype=np.int64)) for size, end in zip(sizes, ends, strict=True))
    )


def _check(dataset: Dataset, where: str) -> None:
    """Raise for values that no model can be trained on; published and verified features may be constant."""
    features = dataset.features
    largest = np.finfo(np.float32).max
    if features.dtype.kind == "f" and not (fits := np.abs(features) <= largest).all():
        place = np.argwhere(~fits)[0]
        value = features[tuple(place)]
        wrong = "not a number" if np.isnan(value) else f"too large; allowed: up to {largest:.2g}"
        raise ScenarioError(f"{where}: record {place[0] + 1}: {_name(dataset, place[1:])} is {value}, {wrong}")
    if dataset.checked or dataset.synthetic:
        return
    flat = features.reshape(len(features), -1)
    constant = np.flatnonzero((flat == flat[0]).all(axis=0))
    if len(constant) == flat.shape[1]:
        raise ScenarioError(f"{where}: all features are constant: there is nothing to learn from them")
    if len(constant) and features.ndim == 2:
        raise ScenarioError(
            f"{where}: {_name(dataset, constant[:1])} is constant (the same in all {len(flat)} records); "
            f"remove {len(constant)} constant feature(s) from the file"
        )
    counts = np.bincount(dataset.y, minlength=len(dataset.class_names))
    if (counts < 2).any():
        rare = int(np.argmin(counts))
        raise ScenarioError(
            f"{where}: class {dataset.class_names[rare]!r} has {counts[rare]} record(s); every class needs 2 or more"
        )


def _name(dataset: Dataset, place: NDArray[np.int64]) -> str:
    """Return what to call a feature."""
    return (
        f"feature {dataset.feature_names[place[0]]!r}"
        if dataset.feature_names
        else f"feature {tuple(int(i) for i in place)}"
    )


def _natural_clients(dataset: Dataset, data: Data, rng: np.random.Generator) -> tuple[Rows, tuple[str, ...]]:
    """Return who owns each record by nature (0 where that is for the deal to say), and what the clients are called."""
    if data.partition.scheme != "natural":
        return np.zeros(len(dataset.y), dtype=np.int64), tuple(str(client) for client in range(data.clients))
    names = natural_names(dataset.columns, data.clients, data.partition)
    return natural(dataset.y, dataset.columns, data.clients, data.partition, rng), names


def _first_of_each(features: Features) -> Rows:
    """Return the first of each group of identical rows; twins with different labels count as identical."""
    flat = np.ascontiguousarray(features.reshape(len(features), -1))
    flat = (
        flat + flat.dtype.type(0) if flat.dtype.kind == "f" else flat
    )  # -0.0 becomes 0.0, so that equal numbers have equal bytes
    as_bytes = flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1])))[:, 0]
    return np.sort(np.unique(as_bytes, return_index=True)[1]).astype(np.int64)


def _far_apart(dataset: Dataset, share: float) -> Rows:
    """Return rows no two of which are closer than `share` times the median distance to the nearest other."""
    from sklearn.neighbors import NearestNeighbors  # takes a second to import, and few scenarios ask for it

    everyone = np.arange(len(dataset.y), dtype=np.int64)
    # All rows may set the scale here: which records exist is decided before any coin is flipped, and is the same in
    # every world.
    x = dataset.encode(dataset.features, everyone).reshape(len(everyone), -1)
    search = NearestNeighbors().fit(x)
    nearest = search.kneighbors(n_neighbors=1)[0][:, 0]
    close = search.radius_neighbors(radius=share * float(np.median(nearest)), return_distance=False)
    kept = np.ones(len(everyone), dtype=np.bool_)
    for row, neighbours in enumerate(close):
        kept[row] = not kept[neighbours[neighbours < row]].any()
    return np.flatnonzero(kept)


def _deal(
    labels: NDArray[np.int64], natural_owner: Rows, kept: Rows, data: Data, sizes: Sizes, rng: np.random.Generator
) -> tuple[Rows, Rows]:
    """Return source rows [rows] in random order, and their owners, with every client owning a row that may train."""
    joint = sizes.candidates + sizes.null + sizes.background
    trains = np.r_[np.arange(sizes.candidates), np.arange(sizes.candidates + sizes.null, joint)]
    for _ in range(DEAL_TRIES):
        drawn = rng.permutation(kept)[: sum(sizes)]
        if data.partition.scheme == "natural":
            dealt = natural_owner[drawn[:joint]]
        else:
            dealt = PARTITIONS[data.partition.scheme](labels[drawn[:joint]], {}, data.clients, data.partition, rng)
        if len(np.unique(dealt[trains])) < data.clients:
            continue
        planted = rng.permutation(np.arange(sizes.planted, dtype=np.int64) % data.clients)
        return drawn, np.concatenate([dealt, planted, np.full(sizes.population + sizes.test, UNUSED, dtype=np.int64)])
    raise ScenarioError(
        f"data.partition: in each of {DEAL_TRIES} draws, scheme {data.partition.scheme} left one of {data.clients} "
        f"clients without a record among {len(trains)} candidates and background; take more candidates, fewer clients "
        "or less skew"
    )


def _wrong_labels(
    labels: NDArray[np.int64], classes: int, mislabelled: int, roles: _Roles, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the labels to train on, and which candidates and null rows got a wrong one."""
    y = labels.copy()
    wrong = np.zeros(len(y), dtype=np.bool_)
    # Candidates and null stand in random order, so the first of them are random ones.
    wrong[roles.candidates[:mislabelled]] = True
    wrong[roles.null[: round(mislabelled * len(roles.null) / len(roles.candidates))]] = True
    y[wrong] = (y[wrong] + rng.integers(1, classes, size=int(wrong.sum()))) % classes
    y[roles.planted] = rng.integers(0, classes, size=len(roles.planted))
    return y, wrong
