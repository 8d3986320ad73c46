"""Every message of a world as it crossed the Grid: read-only copies, in order."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Arrays = Mapping[str, Array]
Scalar = float | int | str | bool | bytes
Fact = Scalar | tuple[Scalar, ...]

SERVER = "server"
PUBLIC = "public"


def client(index: int) -> str:
    """Return the party name of client `index`."""
    return f"client:{index}"


@dataclass(frozen=True)
class Event:
    """One message as it crossed the Grid.

    kind: "train" or "evaluate" (the server's broadcast), "train-reply" or "evaluate-reply" (a client's answer),
    "final" (the model after the last round; server to server, or server to public where the release is white-box).
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


def digest(events: Iterable[Event]) -> str:
    """Return the SHA-256 (hex) of a sequence of events; equal transcripts, equal digest."""
    state = hashlib.sha256()
    for event in events:
        update_digest(state, event)
    return state.hexdigest()


def update_digest(state: "hashlib._Hash", event: Event) -> None:
    """Feed one event to a running digest."""
    state.update(repr((event.round, event.kind, event.sender, event.receiver, sorted(event.facts.items()))).encode())
    for name in sorted(event.arrays):
        array = np.ascontiguousarray(event.arrays[name])
        state.update(f"{name}{array.dtype}{array.shape}".encode())
        state.update(array.data)
