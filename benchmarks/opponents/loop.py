"""A plain PyTorch loop: one module, one client after the other."""

import torch

from benchmarks.opponents.local import average, load, module, train
from benchmarks.race import Tick
from benchmarks.workloads import Task


def run(task: Task, tick: Tick, threads: int = 1) -> None:
    """Run the task with so many threads."""
    torch.set_num_threads(threads)
    model = module(task)
    shared = [parameter.detach().clone() for parameter in model.parameters()]
    for turns in task.rounds:
        trained = []
        for turn in turns:
            load(model, shared)
            train(model, task, turn)
            trained.append([parameter.detach().clone() for parameter in model.parameters()])
        shared = average(trained, [len(turn.rows) for turn in turns])
        tick(shared)
