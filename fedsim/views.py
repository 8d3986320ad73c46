"""Vantages and what they see: the only door between a federation and its attackers.

A view is derived from the messages that touched a vantage, never declared by a flag.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import ref
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from fedsim.canaries import Canaries
from fedsim.transcript import PUBLIC, SERVER, Event, client

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Parameters = Mapping[str, torch.Tensor]

BATCH = 1000
"""Records that go through a model at once."""
MODELS_KNOWN = 2
"""Models of which answers are remembered: attacks turn to and fro between the released one and the last broadcast."""
BATCHES_KNOWN = 8
"""Answers of a model that are remembered: no exam asks about more than a few sets of records."""

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

    labels: Ints  # [n] predicted class; -1 where the query was not answered
    probabilities: (
        Floats | None
    )  # [n, classes]; NaN where the output policy withholds an entry; None where only labels are shown


Oracle = Callable[[NDArray[np.float32]], Answer]
"""A model one may query: x [n, ...] -> Answer."""


class Known(NamedTuple):
    """A model, and what it answered to the batches it was asked about: (x, logits), newest last. Model and batches are
    recognised while somebody holds them, and not held here.
    """

    arrays: Mapping[str, ref[NDArray[np.generic]]]
    answers: list[tuple[ref[NDArray[np.float32]], Floats]]


Train = Callable[
    [Mapping[str, NDArray[np.generic]], NDArray[np.float32], Ints, np.random.Generator], Mapping[str, Floats]
]
"""Local training by the public recipe: (parameters, x [n, ...], y [n], what draws the batches) -> parameters."""


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
    train: Train | None = None  # the same recipe, ready to run
    temperature: float = 1.0  # by which the released model divides its logits
    budget: int | None = None  # records that the released model answers one caller about; None: any number
    known: list[Known] = field(init=False, repr=False, compare=False, default_factory=list)  # see `query`


@dataclass(frozen=True)
class Records:
    """Records an attacker holds: x float32 [n, ...], y int64 [n], owner int64 [n] (the client alleged to hold it; -1:
    nobody). The arrays are read-only from here on.
    """

    x: NDArray[np.float32]
    y: Ints
    owner: Ints

    def __post_init__(self) -> None:
        for array in (self.x, self.y, self.owner):
            array.setflags(write=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()  # in a worker process: pickle forgets what is read-only

    def __len__(self) -> int:
        return len(self.y)


def groups_of(records: Records, groups: int) -> Ints:
    """Return which of so many groups each record is in [n]: by what it is, wherever it stands among the others."""
    names = (crc32(x.tobytes(), int(y)) for x, y in zip(np.ascontiguousarray(records.x), records.y, strict=True))
    return np.array([name % groups for name in names], dtype=np.int64)


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
    """Which of `shares` of the property does the training population have, or the data of `client`? The attacker holds
    a public sample with the first share and one with the last, and knows which public records have the property.
    """

    no: Records
    yes: Records
    shares: tuple[float, ...] = (0.0, 1.0)
    client: int | None = None  # None: everybody
    count: int = 1
    holders: Records | None = None  # the public records with the property; None: nobody says


@dataclass(frozen=True)
class LabelAsk:
    """Which classes does `client` hold (None: all clients together)? `population`: public records."""

    client: int | None
    population: Records
    count: int  # classes


@dataclass(frozen=True)
class CanaryAsk:
    """Which of `count` canaries, from number `first` on, took part?"""

    canaries: Canaries
    first: int
    count: int


@dataclass(frozen=True)
class SourceAsk:
    """All of `items` are in the training data of somebody: does the alleged owner of each hold it? `population`: public
    records.
    """

    items: Records
    population: Records

    @property
    def count(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class ClientAsk:
    """Did each of `clients` [n] take part at all? `sample`: records of theirs that the attacker holds, at least one of
    each, whose `owner` says whose.
    """

    clients: Ints
    sample: Records

    @property
    def count(self) -> int:
        return len(self.clients)


@dataclass(frozen=True)
class DistinguishAsk:
    """Does each of `clients` [n] hold its set in `yes` or the one in `no`? Both name the client as `owner` of each of
    their records. `population`: public records.
    """

    clients: Ints
    no: Records
    yes: Records
    population: Records

    @property
    def count(self) -> int:
        return len(self.clients)


@dataclass(frozen=True)
class ClientPropertyAsk:
    """Does each of `clients` [n] have records with the property? The attacker practises on public record sets as
    clients without it hold them, and with it: `no` and `yes` [sets, records] are places in `population`.
    """

    clients: Ints
    population: Records
    no: Ints
    yes: Ints

    @property
    def count(self) -> int:
        return len(self.clients)


@dataclass(frozen=True)
class BatchAsk:
    """In which of `count` rounds did `client` train on records with the property? The attacker practises on public
    batches without it and with it: `no` and `yes` [sets, records] are places in `population`. It knows which of the
    public records have the property: `holders` [population].
    """

    client: int
    population: Records
    no: Ints
    yes: Ints
    count: int
    holders: Bools


Ask = (
    RecordAsk
    | PropertyAsk
    | LabelAsk
    | CanaryAsk
    | SourceAsk
    | ClientAsk
    | DistinguishAsk
    | ClientPropertyAsk
    | BatchAsk
)


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Return the softmax of `logits` [n, classes] in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def query(public: Public, arrays: Mapping[str, NDArray[np.generic]], x: NDArray[np.float32]) -> Floats:
    """Return the logits [n, classes] of the public architecture with the given parameters, read-only: what anybody who
    holds a model can compute.

    Attacks ask the same model about the same records again and again, so the last answers are remembered, if the
    parameters and x are read-only: what may change is computed each time.
    """
    if x.flags.writeable or any(array.flags.writeable for array in arrays.values()):
        return _logits(public, arrays, x)
    model = next((each for each in public.known if _is(each, arrays)), None)
    if model is None:
        model = Known({name: ref(array) for name, array in arrays.items()}, [])
    public.known[:] = [model, *(each for each in public.known if each is not model)][:MODELS_KNOWN]
    for asked, logits in model.answers:
        if asked() is x:
            return logits
    model.answers[:] = [*model.answers, (ref(x), _logits(public, arrays, x))][-BATCHES_KNOWN:]
    return model.answers[-1][1]


def _is(model: Known, arrays: Mapping[str, NDArray[np.generic]]) -> bool:
    """Return whether `arrays` are the very arrays of a model that answered before."""
    return model.arrays.keys() == arrays.keys() and all(model.arrays[name]() is array for name, array in arrays.items())


def _logits(public: Public, arrays: Mapping[str, NDArray[np.generic]], x: NDArray[np.float32]) -> Floats:
    with torch.no_grad():
        parameters = {name: torch.tensor(array) for name, array in arrays.items()}
        dtype = next(iter(parameters.values())).dtype
        parts = [
            public.apply(parameters, torch.tensor(np.ascontiguousarray(x[start : start + BATCH]), dtype=dtype)).numpy()
            for start in range(0, max(len(x), 1), BATCH)
        ]
    logits = np.asarray(np.concatenate(parts), dtype=np.float64)
    logits.setflags(write=False)
    return logits


def white_box(public: Public, arrays: Mapping[str, NDArray[np.generic]]) -> Oracle:
    """Return the oracle of somebody who holds the parameters: nothing is withheld."""

    def answer(x: NDArray[np.float32]) -> Answer:
        probabilities = softmax(query(public, arrays, x))
        return Answer(probabilities.argmax(axis=1), probabilities)

    return answer
