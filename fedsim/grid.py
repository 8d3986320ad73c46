"""All contact with Flower's runtime. The facts about Flower this rests on are tested in
`tests/test_flower_facts.py`.
"""

import copy
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedsim.errors import RunError
from fedsim.transcript import SERVER, Array, Arrays, Event, Fact, Scalar, client

RUN_ID = 1
ERROR_CODE = 1
ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
PROXIMAL = "proximal-mu"
WHO = "query.who"
REFUSED = "Refused: "
"""How the error begins of a client that would rather not: it drops out, and the round goes on."""

logging.getLogger("flwr").setLevel(logging.ERROR)


@lru_cache(maxsize=1024)
def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether columns come first, and type, from the head of a NumPy file; parsing one is slow."""
    return np.lib.format.read_array_header_1_0(BytesIO(data))


def decoded(array: FlowerArray) -> Array:
    """Return what a Flower Array carries, read-only and without a copy of it: the bytes are the message's own."""
    data = array.data
    if array.stype != "numpy.ndarray" or data[:8] != b"\x93NUMPY\x01\x00":
        return array.numpy()
    start = 10 + int.from_bytes(data[8:10], "little")
    shape, columns_first, dtype = _header(data[8:start])
    if dtype.hasobject:
        return array.numpy()  # which refuses it
    return np.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if columns_first else "C")


def encoded(arrays: Arrays) -> ArrayRecord:
    """Return the record that carries arrays."""
    return ArrayRecord({name: FlowerArray(np.asarray(array)) for name, array in arrays.items()})


class Decoder:
    """Decodes the arrays of a record; one that carries the same bytes as the record before gives the same mapping."""

    def __init__(self) -> None:
        self._data: dict[str, bytes] = {}
        self._arrays: Arrays = {}

    def __call__(self, record: ArrayRecord) -> Arrays:
        """Return the arrays of a record by name, read-only."""
        data = {name: array.data for name, array in record.items()}
        if data.keys() != self._data.keys() or any(data[name] is not self._data[name] for name in data):
            self._data, self._arrays = data, read_only({name: decoded(array) for name, array in record.items()})
        return self._arrays


def read_only(arrays: Mapping[str, Array]) -> Arrays:
    """Return views of arrays, marked read-only."""
    views = {name: array.view() for name, array in arrays.items()}
    for view in views.values():
        view.setflags(write=False)
    return MappingProxyType(views)


class LocalGrid(Grid):
    """Runs the real ClientApp for each message, in this process and in the order of the clients."""

    def __init__(self, app: ClientApp, clients: int) -> None:
        self._app = app
        self._run = Run.create_empty(run_id=RUN_ID)
        self._contexts = {
            node: Context(
                run_id=RUN_ID,
                node_id=node,
                node_config=UserConfig({"partition-id": node - 1, "num-partitions": clients}),
                state=RecordDict(),
                run_config=UserConfig(),
            )
            for node in range(1, clients + 1)
        }
        self._replies: dict[str, Message] = {}
        self._names = itertools.count()

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        names = []
        for message in messages:
            name = f"{next(self._names)}"
            self._replies[name] = self._handle(message)
            names.append(name)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(name) for name in message_ids]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:  # noqa: ARG002
        return [self._handle(message) for message in sorted(messages, key=lambda m: m.metadata.dst_node_id)]

    def _handle(self, message: Message) -> Message:
        # Flower's strategies put one RecordDict into all the messages of a round; on a network each client would get
        # its own. The arrays' bytes cannot be changed and need no copy.
        records = [record for record in message.content.values() if isinstance(record, ArrayRecord)]
        arrays = [array for record in records for array in record.values()]
        own = copy.deepcopy(message, {id(array): array for array in arrays})
        try:
            return self._app(own, self._contexts[message.metadata.dst_node_id])
        except (
            Exception,
            SystemExit,
        ) as error:  # a client that fails answers with an error, as on every runtime of Flower's
            return Message(Error(ERROR_CODE, f"{type(error).__name__}: {error}"), reply_to=own)


Handle = Callable[[list[Message], "ScenarioGrid"], list[Message]]
"""What happens to the train messages of a round on their way: (messages, grid) -> the replies the strategy gets."""

Silent = Callable[[int, str, int], bool]
"""(round, kind of message, client) -> whether the client falls silent instead of answering."""


class ScenarioGrid(Grid):
    """A Grid as one world needs it: it offers this round's cohort, tapes every message before a strategy can touch it,
    and returns the replies in the order of the clients (sums in floating point depend on it).

    inner: the Grid that delivers. roster: node id -> client. cohort: round -> the clients offered to the strategy for
    training. sink: receives each Event. handle: a defence between the strategy and the clients' training. silent: who
    drops out.
    """

    def __init__(
        self,
        inner: Grid,
        roster: Mapping[int, int],
        cohort: Callable[[int], Iterable[int]],
        sink: Callable[[Event], None],
        handle: Handle | None = None,
        silent: Silent | None = None,
    ) -> None:
        self._inner = inner
        self.roster = dict(roster)
        self._nodes = {party: node for node, party in self.roster.items()}
        self._cohort = cohort
        self._sink = sink
        self._handle = handle
        self._silent = silent
        self._decode = Decoder()
        self.memory: dict[str, float] = {}  # what a defence keeps from round to round
        self._phases = (
            0  # Strategy.start asks twice a round: training, then evaluation, even where one of them is empty
        )

    @property
    def round(self) -> int:
        """The round under way, from 1."""
        return self._phases // 2 + 1

    @property
    def _training(self) -> bool:
        return self._phases % 2 == 0

    def set_run(self, run: Run) -> None:
        self._inner.set_run(run)

    @property
    def run(self) -> Run:
        return self._inner.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return self._inner.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        clients = self._cohort(self.round) if self._training else sorted(self._nodes)
        return [self._nodes[party] for party in clients]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError("a strategy that sends without waiting has no rounds")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError("a strategy that sends without waiting has no rounds")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:  # noqa: ARG002
        if self._training and self._handle is not None:
            replies = self._handle(list(messages), self)
        else:
            replies = self.exchange(list(messages))
        self._phases += 1
        return replies

    def receiver(self, message: Message) -> int:
        """Return the client that a message is for."""
        return self.roster[message.metadata.dst_node_id]

    def sender(self, reply: Message) -> int:
        """Return the client that a reply is from."""
        return self.roster[reply.metadata.src_node_id]

    def exchange(self, messages: list[Message], receiver: str = SERVER) -> list[Message]:
        """Deliver messages and return the replies; `receiver` says who opens them."""
        out = []
        for message in sorted(messages, key=self.receiver):
            party, kind = self.receiver(message), message.metadata.message_type
            self._tape(kind, SERVER, client(party), message.content)
            if self._silent is None or not self._silent(self.round, kind, party):
                out.append(message)
        replies = []
        for reply in sorted(self._inner.send_and_receive(out) if out else [], key=self.sender):
            kind, sender = reply.metadata.message_type, client(self.sender(reply))
            if not reply.has_error():
                self._tape(f"{kind}-reply", sender, receiver, reply.content)
                replies.append(reply)
            elif (reason := str(reply.error.reason)).startswith(REFUSED):
                self.note(f"{kind}-refusal", sender, receiver, {}, {"reason": reason.removeprefix(REFUSED)})
            else:
                raise RunError(f"round {self.round}: {sender} failed: {reason}")
        return replies

    def note(self, kind: str, sender: str, receiver: str, arrays: Arrays, facts: Mapping[str, Fact]) -> None:
        """Tape what is no message of Flower's: what a party worked out for itself, or its refusal."""
        self._sink(Event(self.round, kind, sender, receiver, read_only(arrays), facts))

    def _tape(self, kind: str, sender: str, receiver: str, content: RecordDict) -> None:
        """Pass on all that a message carries. A model's arrays and the plain metrics keep their names; any other record
        is part of the name, so that nothing hides behind an equal one.
        """
        self._sink(Event(self.round, kind, sender, receiver, self._arrays(content), _facts(content)))

    def _arrays(self, content: RecordDict) -> Arrays:
        """Return the arrays of a message; the messages of one broadcast share theirs."""
        records = {name: record for name, record in content.items() if isinstance(record, ArrayRecord)}
        if records.keys() == {ARRAYS}:
            return self._decode(records[ARRAYS])
        return read_only(
            {
                name if record == ARRAYS else f"{record}/{name}": decoded(array)
                for record, values in records.items()
                for name, array in values.items()
            }
        )


# Flower's views of one kind of record (`content.array_records`, ...) are built anew at each look, slowly.
def _facts(content: RecordDict) -> dict[str, Fact]:
    facts: dict[str, Fact] = {}
    for kind in (MetricRecord, ConfigRecord):
        for record, values in content.items():
            if not isinstance(values, kind):
                continue
            for name, value in values.items():
                key = name if record in (METRICS, CONFIG) and name not in facts else f"{record}/{name}"
                facts[key] = tuple(map(_plain, value)) if isinstance(value, list) else _plain(value)
    return facts


def _plain(value: Scalar) -> Scalar:
    """Return a NumPy number, which Flower lets pass in this process, as the number that a network would deliver."""
    return float(value) if isinstance(value, np.floating) else value


Record = TypeVar("Record", ArrayRecord, MetricRecord)


def only(content: RecordDict, kind: type[Record]) -> Record:
    """Return the record of a kind, of which Flower's strategies too want exactly one."""
    found = [record for record in content.values() if isinstance(record, kind)]
    if len(found) != 1:
        raise ValueError(f"a message must carry one {kind.__name__}, got {len(found)}")
    return found[0]


def arrays_of(message: Message) -> Arrays:
    """Return the model that a message carries."""
    return {name: decoded(array) for name, array in only(message.content, ArrayRecord).items()}


def party_of(context: Context) -> int:
    """Return which client a context belongs to."""
    return int(context.node_config["partition-id"])


def round_of(message: Message) -> int:
    """Return the round that a message of a strategy belongs to."""
    config = message.content[CONFIG]
    assert isinstance(config, ConfigRecord)
    return int(config["server-round"])  # type: ignore[arg-type]


def ask_roster(grid: Grid, clients: int) -> dict[int, int]:
    """Return node id -> client index, by asking each node once all are connected (a runtime's node ids are random)."""
    if isinstance(grid, LocalGrid):
        return {node: node - 1 for node in grid.get_node_ids()}
    while len(nodes := list(grid.get_node_ids())) < clients:
        time.sleep(0.1)
    asked = [Message(RecordDict(), node, WHO) for node in nodes]
    roster = {}
    for reply in grid.send_and_receive(asked):
        if reply.has_error():
            raise RunError(f"a node did not say who it is: {reply.error.reason}")
        record = next(iter(reply.content.metric_records.values()))
        roster[reply.metadata.src_node_id] = int(record["client"])  # type: ignore[arg-type]
    return roster


def who_reply(message: Message, context: Context) -> Message:
    """Return a node's answer to `ask_roster`."""
    return Message(RecordDict({METRICS: MetricRecord({"client": party_of(context)})}), reply_to=message)


@contextmanager
def task_identity() -> Iterator[None]:
    """Give this process the run identity without which Flower refuses to build a Message; a runtime of Flower's sets
    its own.
    """
    before = TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, 0, RUN_ID
    try:
        yield
    finally:
        TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = before
