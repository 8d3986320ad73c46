"""Local training with differential privacy for each record: DP-SGD."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fedsim import training
from fedsim.gradients import Parameters, clipped_sum
from fedsim.training import OPTIMIZERS, Task, Trained, adjust, joint, train


def train_alone(task: Task) -> Trained:
    """Return the parameters after local training, private where the task says so."""
    return train(task) if task.private is None else train_private(task, *task.private)


def train_private(
    task: Task, clipping_norm: float, noise_multiplier: float, noise: np.random.Generator, canaries: Sequence[int] = ()
) -> Trained:
    """Return the parameters after DP-SGD on the task's records (what the task holds is left as it was).

    Each step joins every record with probability batch size / records (at most 1), sums their clipped gradients, adds
    Gaussian noise and divides by the expected batch size; an empty batch is noise alone. What follows (FedProx's pull,
    gradient clipping, weight decay, momentum, Adam) sees this sum only. There are epochs x ceil(records / batch size)
    steps. The loss returned is 0: the true one is not private, so it must not travel, and it is not computed.

    Args:
        task: the local training; `order` draws the batches.
        clipping_norm: largest length of a record's gradient, > 0.
        noise_multiplier: standard deviation of the noise in each coordinate, over the clipping norm; >= 0.
        noise: draws the Gaussian noise.
        canaries: coordinates of the parameters, names in alphabetical order; each stands for one more record, sampled
            like the others, whose gradient is always `clipping_norm` in that coordinate. The rate stays as it is.

    Raises:
        ValueError: the recipe stops early or smooths labels, a clipping norm that is not positive, a negative noise
            multiplier, or a canary that is no coordinate.

    Source: Abadi et al., "Deep learning with differential privacy" (2016), https://arxiv.org/abs/1607.00133
    """
    local, aside = task.local, task.aside
    start = [value.detach() for value in (*task.params.values(), *(aside.head.values() if aside else ()))]
    _check(task, clipping_norm, noise_multiplier, canaries)
    x, y = task.x[task.rows], task.y[task.rows]
    planted = np.asarray(canaries, dtype=np.int64)
    moved = [value.clone() for value in start]
    leaves, head = moved[: len(task.params)], moved[len(task.params) :]
    step = OPTIMIZERS[local.optimizer](local)
    batch = min(local.batch_size, len(y))
    order, size = sorted(task.params), sum(leaf.numel() for leaf in leaves)
    steps = local.epochs * math.ceil(len(y) / local.batch_size)

    def apply(params: Parameters, x: Tensor) -> Tensor:
        return task.model.apply(dict(params), x, task.noise)

    for _ in range(steps):
        joined = torch.from_numpy(np.flatnonzero(task.order.random(len(y)) < batch / len(y))).to(y.device)
        present = planted[task.order.random(len(planted)) < batch / len(y)]
        params = dict(zip(task.params, leaves, strict=True))
        total = clipped_sum(apply, params, x[joined], y[joined], clipping_norm)[0]
        added = noise.standard_normal(size) * (noise_multiplier * clipping_norm)
        np.add.at(added, present, clipping_norm)
        parts = dict(zip(order, torch.split(torch.from_numpy(added), [total[n].numel() for n in order]), strict=True))
        gradients = [(sums + parts[name].view(sums.shape).to(sums)) / batch for name, sums in total.items()]
        if aside:  # its records are not the client's own, and need no protection
            gradients = joint(aside, task.model, params, head, gradients, local.batch_size)
        adjust(moved, start, gradients, local, task.proximal_mu, training._clip)
        step(moved, gradients)
    return Trained(dict(zip(task.params, leaves, strict=True)), 0.0, steps)


def _check(task: Task, clipping_norm: float, noise_multiplier: float, canaries: Sequence[int]) -> None:
    """Refuse what would make the guarantee untrue."""
    if task.local.early_stopping is not None:
        raise ValueError("DP-SGD cannot stop early: when to stop would be read off the records without noise")
    if task.local.label_smoothing:
        raise ValueError("DP-SGD knows no label smoothing")
    if not clipping_norm > 0 or not noise_multiplier >= 0:
        raise ValueError(
            f"needs a clipping norm > 0 and a noise multiplier >= 0, got {clipping_norm} and {noise_multiplier}"
        )
    size = sum(value.numel() for value in task.params.values())
    if any(not 0 <= canary < size for canary in canaries):
        raise ValueError(f"canaries must be coordinates of the {size} parameters, got {list(canaries)}")
