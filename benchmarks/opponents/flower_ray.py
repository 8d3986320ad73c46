"""Flower's own simulation engine: Ray, one actor a processor, each with the data in its memory."""

from collections.abc import Iterable
from functools import lru_cache, partial
from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from torch import nn

from benchmarks.opponents.local import load, module, train
from benchmarks.race import Tick
from benchmarks.workloads import Task, Turn, read_task
from fedsim.grid import ARRAYS, CONFIG, METRICS, ask_roster, who_reply


@lru_cache(maxsize=1)
def _actor(path: Path) -> tuple[Task, nn.Module, list[dict[int, Turn]]]:
    """Return what an actor keeps between messages."""
    torch.set_num_threads(1)
    task = read_task(path)
    return task, module(task), [{turn.client: turn for turn in turns} for turns in task.rounds]


def _train(path: Path, message: Message, context: Context) -> Message:
    task, model, rounds = _actor(path)
    number = int(message.content.config_records[CONFIG]["server-round"])  # type: ignore[arg-type]
    turn = rounds[number - 1][int(context.node_config["partition-id"])]
    load(model, message.content.array_records[ARRAYS].to_torch_state_dict().values())
    train(model, task, turn)
    content = RecordDict(
        {ARRAYS: ArrayRecord(model.state_dict()), METRICS: MetricRecord({"num-examples": len(turn.rows)})}
    )
    return Message(content, reply_to=message)


class Cohorts:
    """Flower's grid, offering the clients of a round where FedAvg would draw some."""

    def __init__(self, grid: Grid, task: Task) -> None:
        self._nodes = {party: node for node, party in ask_roster(grid, task.clients).items()}
        self._grid, self._task, self._exchanges = grid, task, 0

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes of this round."""
        return [self._nodes[turn.client] for turn in self._task.rounds[self._exchanges // 2]]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send through Flower's grid; a round is two exchanges, of which the one for evaluation is empty."""
        self._exchanges += 1
        return self._grid.send_and_receive(messages, timeout=timeout)


def run(task: Task, tick: Tick, path: Path) -> None:
    """Run the task on Ray; the actors read it from `path`."""
    from flwr.simulation import run_simulation

    client, server = ClientApp(), ServerApp()
    client.train()(partial(_train, path))
    client.query("who")(who_reply)

    def evaluate(number: int, arrays: ArrayRecord) -> None:
        if number:
            tick(list(arrays.to_torch_state_dict().values()))

    @server.main()
    def main(grid: Grid, context: Context) -> None:  # noqa: ARG001
        strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=0, min_available_nodes=0)
        strategy.start(
            grid=Cohorts(grid, task),  # type: ignore[arg-type]
            initial_arrays=ArrayRecord(module(task).state_dict()),
            num_rounds=len(task.rounds),
            evaluate_fn=evaluate,
        )

    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=task.clients,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": 2}},
    )
