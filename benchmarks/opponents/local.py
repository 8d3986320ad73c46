"""What every opponent computes: the model as a plain `nn.Module`, and one client's local training with torch's SGD."""

import itertools
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.workloads import CLASSES, LOCAL, Task, Turn


def module(task: Task) -> nn.Module:
    """Return the model of a task with its first parameters."""
    if task.model.name == "cnn":
        colours, height, width = task.x.shape[1:]
        first, second = task.model.channels, 2 * task.model.channels
        model = nn.Sequential(
            nn.Conv2d(colours, first, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(first, second, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(second * (height // 4) * (width // 4), 128), nn.ReLU(), nn.Linear(128, CLASSES),
        )  # fmt: skip
    else:
        widths = (task.x[0].numel(), *task.model.hidden, CLASSES)
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        model = nn.Sequential(*layers[:-1])
    model.to(task.x.dtype)
    load(model, task.start)
    return model


def load(model: nn.Module, values: Iterable[Tensor]) -> None:
    """Set the parameters of a model."""
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(value)


def optimizer(parameters: Iterable[Tensor], lr: float = LOCAL.learning_rate) -> torch.optim.SGD:
    """Return torch's SGD in its fastest form on a processor."""
    return torch.optim.SGD(parameters, lr=lr, momentum=LOCAL.momentum, fused=True)


def train(model: nn.Module, task: Task, turn: Turn) -> None:
    """Train a model, in place, as one client does in one round."""
    step = optimizer(model.parameters())
    for batch in torch.split(torch.from_numpy(turn.rows), LOCAL.batch_size):
        step.zero_grad()
        F.cross_entropy(model(task.x[batch]), task.y[batch]).backward()  # type: ignore[no-untyped-call]
        step.step()


def average(models: Sequence[Sequence[Tensor]], weights: Sequence[int]) -> list[Tensor]:
    """Return the weighted mean of each parameter."""
    total = sum(weights)
    mean = [torch.zeros_like(value) for value in models[0]]
    for model, weight in zip(models, weights, strict=True):
        torch._foreach_add_(mean, list(model), alpha=weight / total)
    return mean
