"""How records are dealt to clients. A partition is a function; every record it uses has exactly one owner."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.errors import ScenarioError
from fedsim.scenario import Partition

Labels = NDArray[np.int64]
Owner = NDArray[np.int64]
Columns = Mapping[str, NDArray[Any]]
Deal = Callable[[Labels, Columns, int, Partition, np.random.Generator], Owner]

UNUSED = -1
DIRICHLET_TRIES = 100


def iid(labels: Labels, columns: Columns, clients: int, options: Partition, rng: np.random.Generator) -> Owner:
    """Return owners int64 [n] in 0..clients-1, dealt like cards: sizes differ by one at most.

    Args: labels int64 [n]; columns and options are not used; clients in 1..n.
    Raises: ScenarioError with more clients than records.
    """
    del columns, options
    _enough(len(labels), clients, 1)
    return rng.permutation(np.arange(len(labels), dtype=np.int64) % clients)


def dirichlet(labels: Labels, columns: Columns, clients: int, options: Partition, rng: np.random.Generator) -> Owner:
    """Return owners int64 [n]: each class is spread over the clients by shares drawn from Dirichlet(alpha).

    A draw that leaves a client without records is drawn again. Large alpha: every client has the same mix; small
    alpha: every class sits at one client.

    Args: labels int64 [n]; columns is not used; `options.alpha` > 0.
    Raises: ScenarioError with more clients than records, or when 100 draws each left some client empty.
    Source: Yurochkin et al. (2019) https://arxiv.org/abs/1905.12022
    """
    del columns
    _enough(len(labels), clients, 1)
    owner = np.empty(len(labels), dtype=np.int64)
    for _ in range(DIRICHLET_TRIES):
        for label in np.unique(labels):
            rows = rng.permutation(np.flatnonzero(labels == label))
            counts = rng.multinomial(len(rows), rng.dirichlet(np.full(clients, options.alpha)))
            owner[rows] = np.repeat(np.arange(clients), counts)
        if len(np.unique(owner)) == clients:
            return owner
    raise ScenarioError(
        f"data.partition: Dirichlet shares with alpha {options.alpha:g} left one of {clients} clients without records "
        "in each of "
        f"{DIRICHLET_TRIES} draws over {len(labels)} records of {len(np.unique(labels))} classes; "
        "take a larger alpha, fewer clients or more records"
    )


def shards(labels: Labels, columns: Columns, clients: int, options: Partition, rng: np.random.Generator) -> Owner:
    """Return owners int64 [n]: the records sorted by label are cut into equal shards, and each client is dealt a few.

    Args: labels int64 [n]; columns is not used; `options.shards_per_client` shards each.
    Raises: ScenarioError with more shards than records.
    Source: McMahan et al. (2017) https://arxiv.org/abs/1602.05629 (the "pathological" split)
    """
    del columns
    _enough(len(labels), clients, options.shards_per_client)
    shuffled = rng.permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    pieces = np.array_split(by_label, clients * options.shards_per_client)
    owner = np.empty(len(labels), dtype=np.int64)
    for piece, client in zip(pieces, rng.permutation(np.arange(len(pieces)) % clients), strict=True):
        owner[piece] = client
    return owner


def quantity(labels: Labels, columns: Columns, clients: int, options: Partition, rng: np.random.Generator) -> Owner:
    """Return owners int64 [n]: client sizes follow Dirichlet(alpha), labels are mixed; every client has a record.

    Args: labels int64 [n]; columns is not used; `options.alpha` > 0, large means equal sizes.
    Raises: ScenarioError with more clients than records.
    Source: Li et al. (2022) https://arxiv.org/abs/2102.02079
    """
    del columns
    _enough(len(labels), clients, 1)
    sizes = 1 + rng.multinomial(len(labels) - clients, rng.dirichlet(np.full(clients, options.alpha)))
    return rng.permutation(np.repeat(np.arange(clients, dtype=np.int64), sizes))


def natural(labels: Labels, columns: Columns, clients: int, options: Partition, rng: np.random.Generator) -> Owner:
    """Return owners int64 [n]: a client is a value of the column; values beyond the largest `clients` are -1 (unused).

    Clients are numbered in the order of `natural_names`.

    Args: labels is not used; columns holds `options.column` [n]; rng is not used.
    Raises: ScenarioError where the column is missing or has fewer values than clients.
    """
    del labels, rng
    client_of = {name: client for client, name in enumerate(natural_names(columns, clients, options))}
    values, codes = np.unique(columns[options.column or ""].astype(np.str_), return_inverse=True)
    return np.asarray([client_of.get(str(value), UNUSED) for value in values], dtype=np.int64)[codes]


def natural_names(columns: Columns, clients: int, options: Partition) -> tuple[str, ...]:
    """Return the values of the column that become clients: the `clients` largest, in the order of their size."""
    if options.column is None or options.column not in columns:
        raise ScenarioError(
            f"data.partition.column: there is no column {options.column!r}; columns here: "
            f"{', '.join(sorted(columns)) or 'none'}"
        )
    values, counts = np.unique(columns[options.column].astype(np.str_), return_counts=True)
    if len(values) < clients:
        raise ScenarioError(
            f"data.clients: column {options.column!r} has {len(values)} values, too few for {clients} clients; "
            f"set clients to {len(values)} or less"
        )
    return tuple(str(value) for value in values[np.argsort(-counts, kind="stable")[:clients]])


PARTITIONS: dict[str, Deal] = {
    "iid": iid,
    "dirichlet": dirichlet,
    "shards": shards,
    "quantity": quantity,
    "natural": natural,
}


def _enough(records: int, clients: int, each: int) -> None:
    """Raise unless every client can have so many records."""
    if records < clients * each:
        raise ScenarioError(
            f"data.clients: {clients} clients with at least {each} record(s) each need {clients * each} records, and "
            f"{records} are dealt"
        )
