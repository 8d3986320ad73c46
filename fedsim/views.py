"""Vantages and what they see: the only door between a federation and its attackers.

A view is derived from the messages that touched a vantage, never declared by a flag.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fedsim.transcript import PUBLIC, SERVER, Event, client

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Parameters = Mapping[str, torch.Tensor]

_CLIENT = re.compile(r"client:([0-9]{1,9})")


@dataclass(frozen=True)
class Vantage:
    """A set of parties that pool what they see (more than one party is collusion); "public" sees only what is
    released.
    """

    parties: frozenset[str]

    @property
    def clients(self) -> frozenset[int]:
        """The numbers of the clients among the parties."""
        return frozenset(int(match[1]) for party in self.parties if (match := _CLIENT.fullmatch(party)))

    def __str__(self) -> str:
        return "+".join(sorted(self.parties))


def parse_vantage(text: str, clients: int) -> Vantage:
    """Return the vantage that `text` names, e.g. "public", "server", "client:3", "server+client:0".

    Raises ValueError with what is allowed where a party does not exist in a federation of `clients` clients, or is not
    written as events name it (client:03).
    """
    parties = [part.strip() for part in text.split("+")]
    for party in parties:
        match = _CLIENT.fullmatch(party)
        if match and party != (written := client(int(match[1]))):
            raise ValueError(f"no party {party!r}; did you mean {written}?")
        if party not in (SERVER, PUBLIC) and not (match and int(match[1]) < clients):
            raise ValueError(
                f"no party {party!r}; parties are public, server, client:0 ... client:{clients - 1}, joined by +"
            )
    return Vantage(frozenset(parties))


def sees(vantage: Vantage, event: Event) -> bool:
    """Return whether `event` was sent to, from or within the vantage, or to everybody."""
    return event.receiver == PUBLIC or event.sender in vantage.parties or event.receiver in vantage.parties


def visible(vantage: Vantage, events: Iterable[Event]) -> tuple[Event, ...]:
    """Return the events that `vantage` sees, in order."""
    return tuple(event for event in events if sees(vantage, event))


class Answer(NamedTuple):
    """What one batch of queries to a model returns."""

    labels: Ints  # [n] predicted class
    probabilities: (
        Floats | None
    )  # [n, classes]; NaN where the output policy withholds an entry; None where only labels are shown


Oracle = Callable[[NDArray[np.float32]], Answer]
"""A model one may query: x [n, ...] -> Answer."""


@dataclass(frozen=True)
class Public:
    """What every party knows: the architecture and the training recipe that the server announces."""

    classes: int
    clients: int
    rounds: int
    apply: Callable[
        [Parameters, torch.Tensor], torch.Tensor
    ]  # (parameters, x [n, ...]) -> logits [n, classes], no dropout
    local_epochs: int
    batch_size: int
    learning_rate: float
    optimizer: str


@dataclass(frozen=True)
class Records:
    """Records an attacker holds: x float32 [n, ...], y int64 [n], owner int64 [n] (the client alleged to hold it; -1:
    nobody).
    """

    x: NDArray[np.float32]
    y: Ints
    owner: Ints

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class RecordAsk:
    """Was each of `items` in the training data of its alleged owner? `population`: public records that no world trains
    on.
    """

    items: Records
    population: Records

    @property
    def count(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class PropertyAsk:
    """Which share of the property does the training population have? The attacker holds a public sample of each
    hypothesis.
    """

    no: Records
    yes: Records
    count: int = 1


@dataclass(frozen=True)
class LabelAsk:
    """Which classes does `client` hold? `population`: public records."""

    client: int
    population: Records
    count: int  # classes


Ask = RecordAsk | PropertyAsk | LabelAsk


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Return the softmax of `logits` [n, classes] in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def query(
    public: Public, arrays: Mapping[str, NDArray[np.generic]], x: NDArray[np.float32], batch: int = 1000
) -> Floats:
    """Return the logits [n, classes] of the public architecture with the given parameters: what anybody who holds a
    model can compute.
    """
    with torch.no_grad():
        parameters = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        dtype = next(iter(parameters.values())).dtype
        parts = [
            public.apply(parameters, torch.from_numpy(np.ascontiguousarray(x[start : start + batch])).to(dtype)).numpy()
            for start in range(0, max(len(x), 1), batch)
        ]
    return np.asarray(np.concatenate(parts), dtype=np.float64)


def white_box(public: Public, arrays: Mapping[str, NDArray[np.generic]]) -> Oracle:
    """Return the oracle of somebody who holds the parameters: nothing is withheld."""

    def answer(x: NDArray[np.float32]) -> Answer:
        probabilities = softmax(query(public, arrays, x))
        return Answer(probabilities.argmax(axis=1), probabilities)

    return answer
