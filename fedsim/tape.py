"""Transcripts on disk: the events of one world in a folder of two files, read back without holding them in memory.

arrays.bin: the bytes of the arrays one after the other, each from a multiple of 64 on; what the server sends to many is
there once. events.jsonl: one line an event, with the places and SHA-256 of its arrays; the last line seals both files.
Only the caller names a path: what travelled on the network is content.
"""

import base64
import hashlib
import json
import math
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.errors import RunError
from fedsim.transcript import SERVER, Array, Event, Fact, Scalar

ARRAYS, EVENTS = "arrays.bin", "events.jsonl"
ALIGN = 64
HEADER = b"fedsim transcript 1\n".ljust(ALIGN, b"\0")
NUMBERS_AND_TEXT = "biufcSU"
"""Kinds of NumPy array that are nothing but their bytes."""
NOT_OURS = (ValueError, LookupError, TypeError, AttributeError)
"""What is raised by lines that no recorder wrote."""

Place = tuple[int, str, tuple[int, ...], tuple[int, ...], str]
"""Where an array is: its first byte in the file, dtype, shape, axes from the slowest in memory to the fastest (models
may keep images channels-last, and a sum in floating point depends on it), SHA-256 of its bytes."""


class Recorder:
    """Writes the events of one world, in order, beside `folder`, which appears when the tape is finished.

    A crash leaves at most a hidden folder `.NAME.*.partial` beside it. No file stays open between events, so any number
    of worlds can be recorded side by side. Every method raises RunError where the disk does not take it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._partial = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.partial"
        self._size = len(HEADER)
        self._seal = hashlib.sha256()
        self._sent: dict[str, tuple[Array, Place]] = {}  # what the server sent last, by name
        with _writing(folder):
            self._partial.mkdir(parents=True)
            (self._partial / ARRAYS).write_bytes(HEADER)

    def add(self, event: Event) -> None:
        """Append one event."""
        with _writing(self._folder):
            places = {name: self._place(name, array) for name, array in event.arrays.items()}
            if event.sender == SERVER:
                self._sent = {name: (array, places[name]) for name, array in event.arrays.items()}
            facts = {name: _plain(fact) for name, fact in event.facts.items()}
            self._write(
                {
                    "round": event.round,
                    "kind": event.kind,
                    "sender": event.sender,
                    "receiver": event.receiver,
                    "arrays": places,
                    "facts": facts,
                }
            )

    def finish(self) -> None:
        """Seal the tape and give it its name, in one step; an earlier tape of that name gives way."""
        with _writing(self._folder):
            self._write({"bytes": self._size, "sha256": self._seal.hexdigest()})
            if self._folder.exists():
                for name in (EVENTS, ARRAYS):
                    (self._folder / name).unlink(missing_ok=True)
                self._folder.rmdir()
            self._partial.rename(self._folder)

    def discard(self) -> None:
        """Leave nothing of an unfinished tape."""
        shutil.rmtree(self._partial, ignore_errors=True)

    def _place(self, name: str, array: Array) -> Place:
        """Return where the array is, after appending it unless the server just sent the same."""
        if name in self._sent and self._sent[name][0] is array:
            return self._sent[name][1]
        if array.dtype.kind not in NUMBERS_AND_TEXT:
            raise RunError(f"an array of {array.dtype} cannot be kept in the transcript {self._folder}")
        axes = tuple(sorted(range(array.ndim), key=lambda axis: -array.strides[axis]))
        raw = np.ascontiguousarray(array.transpose(axes)).reshape(-1).view(np.uint8)
        place = (self._size, array.dtype.str, array.shape, axes, hashlib.sha256(raw.data).hexdigest())
        with (self._partial / ARRAYS).open("ab") as file:
            file.write(raw.data)
            file.write(bytes(-len(raw) % ALIGN))
            self._size = file.tell()
        return place

    def _write(self, content: Mapping[str, Any]) -> None:
        line = json.dumps(content, separators=(",", ":")).encode() + b"\n"
        with (self._partial / EVENTS).open("ab") as file:
            file.write(line)
        self._seal.update(line)


def finished(folder: Path) -> bool:
    """Return whether there is a finished tape in `folder`."""
    return (folder / EVENTS).is_file()


def read(folder: Path | str) -> Iterator[Event]:
    """Return the events of a tape, in order; each is made when it is asked for, and its arrays are read-only views of
    the file (np.memmap), checked against their SHA-256.

    Events of the server that carry the same arrays share them, as they did when they were sent.

    Raises:
        RunError: there is no whole tape in `folder`, at once or, for a damaged array, in place of its event.
    """
    folder = Path(folder)
    try:
        data = _opened(folder)
    except OSError as error:
        raise RunError(f"cannot read the transcript {folder}: {error.strerror}") from None
    except NOT_OURS as error:
        raise _damaged(folder, error) from None
    return _events(folder, data)


def _opened(folder: Path) -> NDArray[np.uint8]:
    """Return the bytes of the arrays, after checking the size of both files and every line of the index."""
    state, last = hashlib.sha256(), b""
    with (folder / EVENTS).open("rb") as lines:
        for line in lines:
            state.update(last)
            last = line
    seal = json.loads(last) if last.endswith(b"\n") else {}
    if seal.get("sha256") != state.hexdigest():
        raise ValueError(f"{EVENTS} is not as it was written")
    data = np.memmap(folder / ARRAYS, dtype=np.uint8, mode="r")
    if len(data) != seal["bytes"] or data[:ALIGN].tobytes() != HEADER:
        raise ValueError(f"{ARRAYS} is not as it was written")
    return data


def _events(folder: Path, data: NDArray[np.uint8]) -> Iterator[Event]:
    sent: dict[Place, Array] = {}  # what the server sent last
    with (folder / EVENTS).open("rb") as lines:
        for line in lines:
            try:
                content = json.loads(line)
                if "sha256" in content:  # the seal
                    return
                places = {name: _as_place(given) for name, given in content["arrays"].items()}
                arrays = {name: sent[place] if place in sent else _view(data, place) for name, place in places.items()}
                facts = {name: _fact(given) for name, given in content["facts"].items()}
                event = Event(
                    content["round"],
                    content["kind"],
                    content["sender"],
                    content["receiver"],
                    MappingProxyType(arrays),
                    facts,
                )
            except NOT_OURS as error:
                raise _damaged(folder, error) from None
            if event.sender == SERVER:
                sent = {place: arrays[name] for name, place in places.items()}
            yield event


def _as_place(given: Any) -> Place:
    offset, dtype, shape, axes, checksum = given
    return offset, dtype, tuple(shape), tuple(axes), checksum


def _view(data: NDArray[np.uint8], place: Place) -> Array:
    """Return the array at a place of the file; ValueError where the bytes are not those that were written."""
    offset, name, shape, axes, checksum = place
    dtype = np.dtype(name)
    raw = data[offset : offset + math.prod(shape) * dtype.itemsize]
    if hashlib.sha256(raw.data).hexdigest() != checksum:
        raise ValueError(f"{ARRAYS} is not as it was written")
    places = sorted(range(len(axes)), key=lambda axis: axes[axis])
    return raw.view(dtype).reshape([shape[axis] for axis in axes]).transpose(places)


def _plain(fact: Fact) -> Any:
    """Return a fact as JSON says it; bytes, which JSON lacks, as an object."""
    if isinstance(fact, tuple):
        return [_plain(each) for each in fact]
    return {"base64": base64.b64encode(fact).decode()} if isinstance(fact, bytes) else fact


def _fact(given: Any) -> Fact:
    return tuple(_scalar(each) for each in given) if isinstance(given, list) else _scalar(given)


def _scalar(given: Any) -> Scalar:
    value: Scalar = base64.b64decode(given["base64"], validate=True) if isinstance(given, dict) else given
    return value


def _damaged(folder: Path, error: Exception) -> RunError:
    return RunError(f"the transcript {folder} is damaged ({error}); remove it and run its world again")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write the transcript {folder}: {error.strerror}") from None
