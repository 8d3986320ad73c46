"""Every message of a world as it crossed the Grid, in order; what attackers get of it are copies."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Arrays = Mapping[str, Array]
Scalar = float | int | str | bool | bytes
Fact = Scalar | tuple[Scalar, ...]

SERVER = "server"
PUBLIC = "public"
AGGREGATOR = "aggregator"
"""A trusted third party, which no vantage includes."""
ABORTED = "abort"
"""What the server notes where secure aggregation gives a round up."""
MASKED = "masked-reply"
"""What a count of messages calls a client's reply that carries a masked vector in place of a model."""
SECRET = "secret"
"""What a client notes for itself, as nobody else sees it: the bytes that its keys of secure aggregation derive from."""
ACT = "act"
"""What an adversary notes for itself in a round in which it acts: whom or what it aims at."""
AGGREGATE = "aggregate"
"""What the server notes when it has learned the sum of the updates of a round, as their mean."""


def client(index: int) -> str:
    """Return the party name of client `index`."""
    return f"client:{index}"


@dataclass(frozen=True)
class Event:
    """One message as it crossed the Grid.

    kind: "train" or "evaluate" (the server's broadcast), "train-reply" or "evaluate-reply" (a client's answer),
    "final" (the model after the last round; server to server, or server to public where the release is white-box), and
    what secure aggregation adds: its own messages (train.secagg_...), `AGGREGATE`, `ABORTED`, `SECRET`.
    arrays: model parameters by name, read-only. facts: everything that travelled in clear beside them (number of
    examples, losses, ...).
    """

    round: int
    kind: str
    sender: str
    receiver: str
    arrays: Arrays
    facts: Mapping[str, Fact]


def frozen(arrays: Mapping[str, Array]) -> Arrays:
    """Return read-only copies of `arrays`."""
    copies = {}
    for name, array in arrays.items():
        copies[name] = np.array(array, copy=True)
        copies[name].setflags(write=False)
    return MappingProxyType(copies)


class Formed(Mapping[str, Array]):
    """Arrays that are formed when somebody first looks at them.

    told: tells them from any others that might stand in their place, without forming them. form: returns them,
    read-only, the same whenever it is called.
    """

    def __init__(self, names: tuple[str, ...], form: Callable[[], Arrays], told: bytes) -> None:
        self.told = told
        self._names, self._form = names, form
        self._arrays: Arrays = {}

    def __getitem__(self, name: str) -> Array:
        self._arrays = self._arrays or self._form()
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


def digest(events: Iterable[Event]) -> str:
    """Return the SHA-256 (hex) of a sequence of events; equal transcripts, equal digest."""
    state = hashlib.sha256()
    for event in events:
        update_digest(state, event)
    return state.hexdigest()


@lru_cache(maxsize=64)
def _weights(count: int, which: int) -> NDArray[np.uint64]:
    """Return `count` fixed odd numbers."""
    return np.random.default_rng(which).integers(2**63, size=count, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def checksum(array: Array) -> tuple[int, int]:
    """Return sum_i w_i a_i modulo 2^64 over the 64-bit words a_i of an array, with fixed odd w_i; and the same, with
    other weights, of the words read backwards byte by byte.

    Any change within one word changes both. Differences that lie in high bits only (signs, exponents) say little in the
    first sum and much in the second. Source: multilinear hashing (Carter and Wegman 1979,
    https://doi.org/10.1016/0022-0000(79)90044-8). It notices accidents at the speed of memory; it is no protection
    against somebody who wants two arrays to agree.
    """
    data = np.ascontiguousarray(array).reshape(-1)
    if data.nbytes % 8:
        data = np.concatenate([data.view(np.uint8), np.zeros(-data.nbytes % 8, dtype=np.uint8)])
    words = data.view(np.uint64)
    room = 1 << len(words).bit_length()
    forwards = np.dot(words, _weights(room, 0)[: len(words)])
    return int(forwards), int(np.dot(words.byteswap(), _weights(room, 1)[: len(words)]))


def array_checksums(arrays: Arrays) -> bytes:
    """Return a line that tells arrays from any others: names, types, shapes, checksums; of those not yet formed, the
    line that tells what they are formed from.
    """
    if isinstance(arrays, Formed):
        return arrays.told
    return repr(
        [(name, arrays[name].dtype.str, arrays[name].shape, checksum(arrays[name])) for name in sorted(arrays)]
    ).encode()


def checksums(event: Event, of_arrays: Callable[[Arrays], bytes] = array_checksums) -> bytes:
    """Return a line that tells an event from any other: all its words and facts, and the checksum of each array."""
    words = (event.round, event.kind, event.sender, event.receiver, sorted(event.facts.items()))
    return repr(words).encode() + of_arrays(event.arrays)


def update_digest(state: "hashlib._Hash", event: Event) -> None:
    """Feed one event to a running digest."""
    state.update(repr((event.round, event.kind, event.sender, event.receiver, sorted(event.facts.items()))).encode())
    for name in sorted(event.arrays):
        array = np.ascontiguousarray(event.arrays[name])
        state.update(f"{name}{array.dtype}{array.shape}".encode())
        state.update(array.data)
