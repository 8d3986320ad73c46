"""Local training of one client as a pure function of (parameters, records, randomness)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fedsim.models import Model, Params
from fedsim.scenario import Local


class Private(NamedTuple):
    """DP-SGD in place of plain steps: each record's gradient is clipped to `clipping_norm`, and noise of
    `noise_multiplier` times that is added to their sum. canaries: coordinates of the parameters, names in alphabetical
    order, in which made-up records push as far as they may.
    """

    clipping_norm: float
    noise_multiplier: float
    noise: np.random.Generator
    canaries: tuple[int, ...] = ()


class Aside(NamedTuple):
    """A second task that is learned along: to tell the records `yes` [n, ...] from `no` [m, ...] by a last layer of its
    own, which goes nowhere. weight: its share of the loss. head: that layer, by the names of the one whose place it
    takes: weight [2, width] and bias [2]. order: draws its batches, half of either kind.
    """

    weight: float
    head: Params
    no: Tensor
    yes: Tensor
    order: np.random.Generator


class Task(NamedTuple):
    """One local training: from `params`, on the records `rows` [n] of x [N, ...], y [N] (n >= 1).

    order: shuffles the records each epoch. noise: draws dropout masks (None: no dropout). proximal_mu: weight of
    FedProx's pull towards the parameters received (Li et al. 2020, https://arxiv.org/abs/1812.06127); 0 is plain
    training. memory: what an engine may keep between two trainings on the same records. private: how records are
    protected, if they are (see `dp_sgd`). aside: a second task, if there is one.
    """

    model: Model
    params: Params
    x: Tensor
    y: Tensor
    rows: Tensor
    local: Local
    order: np.random.Generator
    noise: torch.Generator | None
    proximal_mu: float = 0.0
    memory: dict[str, Tensor] | None = None
    private: Private | None = None
    aside: Aside | None = None


class Trained(NamedTuple):
    """What local training returns."""

    params: Params
    loss: float  # mean training loss over the last epoch
    steps: int


class Evaluated(NamedTuple):
    """How a model does on some records."""

    accuracy: float
    loss: float


def train(task: Task) -> Trained:
    """Return the parameters after local training (what the task holds is left as it was)."""
    model, params, local, order, aside = task.model, task.params, task.local, task.order, task.aside
    x, y = task.x[task.rows], task.y[task.rows]
    names = list(params)
    start = [value.detach() for value in (*params.values(), *(aside.head.values() if aside else ()))]
    moved = [value.clone().requires_grad_() for value in start]
    leaves, head = moved[: len(names)], moved[len(names) :]
    step = OPTIMIZERS[local.optimizer](local)
    stopping = local.early_stopping
    rows = order.permutation(len(y))
    held = torch.from_numpy(rows[: min(round(len(y) * stopping.holdout), len(y) - 1)] if stopping else rows[:0])
    rows = rows[len(held) :]
    best, patience = float("inf"), stopping.patience if stopping else 0
    epoch_loss, steps = 0.0, 0
    for _ in range(local.epochs):
        epoch_loss = 0.0
        for batch in torch.split(torch.from_numpy(order.permutation(rows)), local.batch_size):
            logits = model.apply(dict(zip(names, leaves, strict=True)), x[batch], task.noise)
            loss = F.cross_entropy(logits, y[batch], label_smoothing=local.label_smoothing)
            gradients = list(torch.autograd.grad(loss, leaves))
            if aside:
                given = dict(zip(names, leaves, strict=True))
                gradients = joint(aside, model, given, head, gradients, local.batch_size)
            with torch.no_grad():
                adjust(moved, start, gradients, local, task.proximal_mu, _clip)
                step(moved, gradients)
            epoch_loss += float(loss.detach()) * len(batch) / len(rows)
            steps += 1
        if len(held):
            held_loss = evaluate(model, dict(zip(names, leaves, strict=True)), x[held], y[held]).loss
            patience = stopping.patience if stopping and held_loss < best else patience - 1
            best = min(best, held_loss)
            if patience == 0:
                break
    return Trained({name: leaf.detach() for name, leaf in zip(names, leaves, strict=True)}, epoch_loss, steps)


def joint(
    aside: Aside, model: Model, params: Params, head: Sequence[Tensor], gradients: Sequence[Tensor], size: int
) -> list[Tensor]:
    """Return the gradients, of `params` and then of `head`, of (1 - weight) times the first task's loss plus weight
    times the second's; `gradients` are the first one's, of `params`.

    head: the second task's last layer as it is by now. size: about how many records the second loss is measured on,
    without dropout; they are drawn anew.
    """
    half = max(size // 2, 1)
    drawn = (part[torch.from_numpy(aside.order.integers(len(part), size=half))] for part in (aside.no, aside.yes))
    own = dict(zip(aside.head, head, strict=True))
    given = {name: value.detach().requires_grad_() for name, value in {**params, **own}.items()}
    with torch.enable_grad():
        logits = model.apply(given, torch.cat(list(drawn)), None)
        answers = torch.arange(2, device=logits.device).repeat_interleave(half)
        found = torch.autograd.grad(F.cross_entropy(logits, answers), list(given.values()))
    second = {name: aside.weight * gradient for name, gradient in zip(given, found, strict=True)}
    first = {name: (1 - aside.weight) * gradient for name, gradient in zip(params, gradients, strict=True)}
    mixed = [gradient if name in own else gradient + second[name] for name, gradient in first.items()]
    return mixed + [second[name] for name in own]


Clip = Callable[[list[Tensor], float], None]
"""Scales gradients down in place to a common length of so much at most."""


def adjust(
    leaves: list[Tensor], start: list[Tensor], gradients: list[Tensor], local: Local, proximal_mu: float, clip: Clip
) -> None:
    """Turn the gradients of the loss into those that a step follows, in place: FedProx's pull, clipping, weight decay.

    start: the parameters received (not read without a pull).
    """
    if proximal_mu:
        torch._foreach_add_(gradients, torch._foreach_sub(leaves, start), alpha=proximal_mu)
    if local.clip_gradient is not None:
        clip(gradients, local.clip_gradient)
    if local.weight_decay:
        torch._foreach_add_(gradients, leaves, alpha=local.weight_decay)


def _clip(gradients: list[Tensor], largest: float) -> None:
    norm = torch.nn.utils.get_total_norm(gradients)
    torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp(max=1.0))


Step = Callable[[list[Tensor], list[Tensor]], None]
"""Moves the parameters in place, given their gradients."""


def sgd(local: Local) -> Step:
    """Return stochastic gradient descent with (heavy-ball) momentum, as `torch.optim.SGD` does it."""
    velocity: list[Tensor] = []

    def step(leaves: list[Tensor], gradients: list[Tensor]) -> None:
        if local.momentum:
            if velocity:
                torch._foreach_mul_(velocity, local.momentum)
                torch._foreach_add_(velocity, gradients)
            else:
                velocity.extend(gradient.clone() for gradient in gradients)
            gradients = velocity
        torch._foreach_add_(leaves, gradients, alpha=-local.learning_rate)

    return step


def adam(local: Local, beta_1: float = 0.9, beta_2: float = 0.999, tiny: float = 1e-8) -> Step:
    """Return Adam (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980) with the usual constants, as
    `torch.optim.Adam` does it.
    """
    first: list[Tensor] = []
    second: list[Tensor] = []
    count = 0

    def step(leaves: list[Tensor], gradients: list[Tensor]) -> None:
        nonlocal count
        if not first:
            first.extend(torch.zeros_like(gradient) for gradient in gradients)
            second.extend(torch.zeros_like(gradient) for gradient in gradients)
        count += 1
        torch._foreach_lerp_(first, gradients, 1 - beta_1)
        torch._foreach_mul_(second, beta_2)
        torch._foreach_addcmul_(second, gradients, gradients, value=1 - beta_2)
        spread = torch._foreach_sqrt(second)
        torch._foreach_div_(spread, (1 - beta_2**count) ** 0.5)
        torch._foreach_add_(spread, tiny)
        torch._foreach_addcdiv_(leaves, first, spread, value=-local.learning_rate / (1 - beta_1**count))

    return step


# torch.optim's objects cost as much again as a small model's whole step, and their first use imports the compiler
# (over a second).
OPTIMIZERS: dict[str, Callable[[Local], Step]] = {"sgd": sgd, "adam": adam}


def evaluate(model: Model, params: Params, x: Tensor, y: Tensor) -> Evaluated:
    """Return accuracy and mean cross-entropy on x [n, ...], y [n] (n >= 1), without dropout."""
    with torch.no_grad():
        parts = [model.apply(params, chunk, None) for chunk in torch.split(x, 1000)]
        logits = torch.cat(parts)
        return Evaluated(
            accuracy=float((logits.argmax(dim=1) == y).double().mean()),
            loss=float(F.cross_entropy(logits.double(), y)),
        )
