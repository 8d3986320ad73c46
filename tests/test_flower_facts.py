"""Facts about Flower that the design rests on. A new version of Flower that changes one must fail here first."""

import random
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, FedMedian

from fedsim.grid import LocalGrid, ScenarioGrid, task_identity
from fedsim.randomness import flower_globals
from fedsim.transcript import Event


def _echo() -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Any) -> Message:
        arrays = message.content.array_records["arrays"]
        moved = ArrayRecord({"w": _array(arrays["w"].numpy() + context.node_id)})
        content = RecordDict(
            {"arrays": moved, "metrics": MetricRecord({"num-examples": context.node_id, "train_loss": 1.0})}
        )
        return Message(content, reply_to=message)

    return app


def _array(values: np.ndarray) -> Any:
    from flwr.app import Array

    return Array(values)


def _record() -> RecordDict:
    return RecordDict({"arrays": ArrayRecord({"w": _array(np.zeros(2))}), "config": ConfigRecord({"server-round": 1})})


def test_a_message_needs_a_task_identity() -> None:
    with pytest.raises(RuntimeError, match="is not set"):
        Message(RecordDict(), 1, "train")
    with task_identity():
        assert Message(RecordDict(), 1, "train").metadata.dst_node_id == 1
    with pytest.raises(RuntimeError, match="is not set"):
        Message(RecordDict(), 1, "train")


def test_strategies_empty_the_replies_they_aggregate_so_a_transcript_must_copy() -> None:
    with task_identity():
        replies = [_echo()(Message(_record(), node, "train"), _context(node)) for node in (1, 2)]
        FedMedian().aggregate_train(1, replies)
        assert len(replies[0].content.array_records["arrays"]) == 0


def _context(node: int) -> Any:
    from flwr.app import Context
    from flwr.app.user_config import UserConfig

    return Context(run_id=1, node_id=node, node_config=UserConfig(), state=RecordDict(), run_config=UserConfig())


def test_fedavg_puts_one_record_into_all_messages() -> None:
    with task_identity():
        grid = LocalGrid(_echo(), 3)
        strategy = FedAvg(min_train_nodes=0, min_available_nodes=0)
        messages = list(strategy.configure_train(1, _record().array_records["arrays"], ConfigRecord(), grid))
        assert messages[0].content is messages[1].content


def test_the_local_grid_gives_each_client_its_own_copy() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Any) -> Message:  # noqa: ARG001
        found = len(message.content.array_records["arrays"])
        message.content.array_records["arrays"].clear()
        return Message(RecordDict({"metrics": MetricRecord({"found": found})}), reply_to=message)

    with task_identity():
        shared = _record()
        replies = LocalGrid(app, 3).send_and_receive([Message(shared, node, "train") for node in (1, 2, 3)])
    assert [reply.content.metric_records["metrics"]["found"] for reply in replies] == [1, 1, 1]


def test_start_makes_two_exchanges_a_round_even_where_one_is_empty() -> None:
    events: list[Event] = []
    asked: list[int] = []

    def cohort(number: int) -> list[int]:
        asked.append(number)
        return [] if number == 2 else [0, 2]

    with task_identity():
        grid = ScenarioGrid(LocalGrid(_echo(), 3), {1: 0, 2: 1, 3: 2}, cohort, events.append)
        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=0, min_evaluate_nodes=0, min_available_nodes=0)
        result = strategy.start(grid, _record().array_records["arrays"], num_rounds=3)
    assert [(e.round, e.kind, e.sender, e.receiver) for e in events] == [
        (number, *message)
        for number in (1, 3)
        for message in (
            ("train", "server", "client:0"),
            ("train", "server", "client:2"),
            ("train-reply", "client:0", "server"),
            ("train-reply", "client:2", "server"),
        )
    ]
    assert sorted(set(asked)) == [1, 2, 3]
    # Each round adds the weighted mean of node ids: (1 * 1 + 3 * 3) / 4.
    np.testing.assert_allclose(result.arrays["w"].numpy(), 2 * 2.5)


def test_the_tape_holds_what_was_sent_whatever_the_strategy_does_to_it() -> None:
    events: list[Event] = []
    with task_identity():
        grid = ScenarioGrid(LocalGrid(_echo(), 3), {1: 0, 2: 1, 3: 2}, lambda _: [0, 1, 2], events.append)
        strategy = FedMedian(fraction_evaluate=0.0, min_train_nodes=0, min_evaluate_nodes=0, min_available_nodes=0)
        strategy.start(grid, _record().array_records["arrays"], num_rounds=1)
    sent = [event.arrays["w"] for event in events if event.kind == "train-reply"]
    np.testing.assert_array_equal(sent, [[1, 1], [2, 2], [3, 3]])
    assert events[-1].facts["num-examples"] == 3
    with pytest.raises(ValueError, match="read-only"):
        sent[0][0] = 7


def test_flowers_global_generators_are_seeded_and_restored() -> None:
    def drawn() -> tuple[float, float]:
        return random.random(), float(np.random.random())  # noqa: NPY002

    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = [drawn(), drawn()]
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    first = drawn()
    with flower_globals(9):
        inside = drawn()
    with flower_globals(9):
        assert drawn() == inside
    assert [first, drawn()] == expected
