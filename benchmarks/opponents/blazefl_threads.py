"""BlazeFL in its thread mode, with one module a thread."""

import threading
from typing import NamedTuple

import torch
from blazefl.core import ThreadPoolClientTrainer, deserialize_model, serialize_model

from benchmarks.opponents.local import module, train
from benchmarks.race import Tick
from benchmarks.workloads import Task


class Uplink(NamedTuple):
    """What a client sends."""

    parameters: torch.Tensor
    records: int


class Trainer(ThreadPoolClientTrainer[Uplink, torch.Tensor]):  # type: ignore[misc]
    """BlazeFL's thread pool over the clients of a round."""

    def __init__(self, task: Task, threads: int) -> None:
        self.num_parallels, self.device, self.device_count = threads, "cpu", 0
        self.cache: list[Uplink] = []
        self.stop_event = threading.Event()
        self.task, self.number = task, 0
        self.models = threading.local()

    def worker(self, cid: int, device: str, payload: torch.Tensor, stop_event: threading.Event) -> Uplink:  # noqa: ARG002
        """Train one client."""
        model = getattr(self.models, "model", None) or module(self.task)
        self.models.model = model
        turn = next(turn for turn in self.task.rounds[self.number] if turn.client == cid)
        deserialize_model(model, payload)
        train(model, self.task, turn)
        return Uplink(serialize_model(model), len(turn.rows))


def run(task: Task, tick: Tick, threads: int = 2) -> None:
    """Run the task on so many threads of clients."""
    torch.set_num_threads(1)
    model = module(task)
    trainer = Trainer(task, threads)
    for number, turns in enumerate(task.rounds):
        trainer.number = number
        trainer.local_process(serialize_model(model), [turn.client for turn in turns])
        total = sum(package.records for package in trainer.cache)
        mean = torch.zeros_like(trainer.cache[0].parameters)
        for package in trainer.cache:
            mean.add_(package.parameters, alpha=package.records / total)
        trainer.cache.clear()
        deserialize_model(model, mean)
        tick([parameter.detach() for parameter in model.parameters()])
