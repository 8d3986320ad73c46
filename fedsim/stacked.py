"""Local training of many clients at once: what `training.train` does, with a model axis in front and the backward pass
of linear layers written out.

Models of the same shape whose clients hold about as many records move together. Nothing a model gets depends on which
others it moves with: padding is a function of its own size, and every product is one of a stack of independent ones.

The first layer of a client with few records is never moved at all while it trains. Under plain or momentum descent its
weight is always `alpha W + sum_i c_i x_i`, so the products that training needs follow from the products of records with
each other; the sum is formed once, at the end.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from math import pi
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fedsim.dp_sgd import train_alone
from fedsim.models import ACTIVATIONS, Dense, Model
from fedsim.scenario import Local
from fedsim.training import OPTIMIZERS, Task, Trained, adjust

STACKED_NUMBERS = 2**21
"""Models are trained together while what they work on stays below so many numbers: about what a processor's own cache
holds."""
LARGE_LAYER = 2**15
"""From so many weights on, one product at a time is as fast as a stack of products, and needs no copy of the weights.
"""


class Recipe(NamedTuple):
    """What models must have in common to be trained together."""

    dense: Dense
    local: Local
    proximal_mu: float
    full: int  # full batches an epoch
    rest: int  # places in the last, smaller batch (0: none), some of them empty
    dtype: torch.dtype

    @property
    def places(self) -> int:
        """Places for the records of a client."""
        return self.full * self.local.batch_size + self.rest

    @property
    def batches(self) -> list[tuple[int, int]]:
        """First place and number of places of each batch of an epoch."""
        size = self.local.batch_size
        return [(i * size, size) for i in range(self.full)] + ([(self.full * size, self.rest)] if self.rest else [])

    @property
    def steady(self) -> bool:
        """Whether a gradient moves a model once and for all: no momentum, no decay, no pull."""
        return not (self.local.momentum or self.local.weight_decay or self.proximal_mu)

    @property
    def implicit(self) -> bool:
        """Whether the first layer's weight is kept as a sum over records while it trains."""
        local = self.local
        sums = self.places * (1 if self.steady else local.epochs)
        return local.optimizer == "sgd" and local.clip_gradient is None and sums <= self.dense.widths[0]

    @property
    def kept(self) -> int:
        """How many numbers of a client are kept from round to round: the inner products of its records, which are never
        more than the records themselves.
        """
        return self.places**2 if self.implicit else 0

    @property
    def together(self) -> int:
        """How many models to train together."""
        widths, places = self.dense.widths, self.places
        layers = [a * b for a, b in itertools.pairwise(widths)]
        if self.implicit:
            epochs = 1 if self.steady else self.local.epochs
            own = places * (widths[0] + places + (2 + epochs) * widths[1]) + 3 * sum(layers[1:])
        else:
            own = places * widths[0] + 3 * sum(layers)
        return max(1, STACKED_NUMBERS // own)


def stackable(model: Model, local: Local) -> bool:
    """Return whether models of a kind can be trained together.

    A product with an extent of one is another kernel for one matrix than for a stack of them, with other bits.
    """
    return (
        model.dense is not None
        and 1 not in model.dense.widths
        and local.batch_size > 1
        and local.early_stopping is None
    )


def recipe(task: Task) -> Recipe | None:
    """Return what decides with which others a task can be trained; None where it must be trained alone."""
    if task.x.device.type != "cpu" or task.private is not None or not stackable(task.model, task.local):
        return None
    dense = task.model.dense
    assert dense is not None
    size = places(len(task.rows), task.local, dense)
    return Recipe(dense, task.local, task.proximal_mu, *size, task.x.dtype)


def places(records: int, local: Local, dense: Dense) -> tuple[int, int]:
    """Return the full batches of an epoch, and the places of the last, smaller one: its records, rounded up; to a whole
    batch where layers are so small that fewer kinds of client save more than empty places cost.
    """
    full, rest = divmod(records, local.batch_size)
    step = local.batch_size if dense.widths[0] * dense.widths[1] < LARGE_LAYER else max(2, local.batch_size // 4)
    return full, min(local.batch_size, -(-rest // step) * step)


def train_many(tasks: Sequence[Task]) -> list[Trained]:
    """Return what `train` returns for each task, to rounding; one by one where they are of a kind that must be."""
    done: dict[int, Trained] = {}
    alike: dict[tuple[object, ...], list[int]] = {}
    for number, task in enumerate(tasks):  # settings by identity: to hash them takes as long as a small step
        dense = task.model.dense
        size = places(len(task.rows), task.local, dense) if dense else ()
        key = (dense, id(task.local), task.proximal_mu, size, id(task.x), id(task.y), task.private is None)
        alike.setdefault(key, []).append(number)
    with torch.no_grad():
        for members in alike.values():
            common = recipe(tasks[members[0]])
            if common is None:
                with torch.enable_grad():
                    done |= {number: train_alone(tasks[number]) for number in members}
                continue
            for start in range(0, len(members), common.together):
                part = members[start : start + common.together]
                done |= zip(part, _train(common, [tasks[number] for number in part]), strict=True)
    return [done[number] for number in range(len(tasks))]


class _Records(NamedTuple):
    """The records of some clients, in places; an empty place holds the first one and weighs nothing.

    A step is a batch; its places count over all the models.
    """

    x: Tensor  # [models, places, features]
    goal: Tensor  # [models * places, classes]: what the softmax should say
    steps: list[Tensor]  # places [models * batch] of each step
    weight: Tensor  # [models, places]: one over the size of the batch, in the order of an epoch
    share: Tensor  # [models, places]: one over the number of records, in the order of an epoch
    when: Tensor  # [models, epochs, places]: the step at which a place has its turn
    counts: list[int]


def _records(recipe: Recipe, tasks: Sequence[Task]) -> _Records:
    models, places, epochs = len(tasks), recipe.places, recipe.local.epochs
    classes, size, smoothing = recipe.dense.widths[-1], recipe.local.batch_size, recipe.local.label_smoothing
    counts = np.array([len(task.rows) for task in tasks])
    rows = np.zeros((models, places), dtype=np.int64)
    order = np.tile(np.arange(places), (epochs, models, 1))
    for k, (task, count) in enumerate(zip(tasks, counts.tolist(), strict=True)):
        own = task.rows.numpy()
        rows[k] = own[0]  # an empty place must hold something, and what is the client's own can do it no harm
        rows[k, :count] = own
        shuffled = task.order.permutation(count)
        for epoch in range(epochs):
            order[epoch, k, :count] = task.order.permutation(shuffled)
    chosen = torch.from_numpy(rows.reshape(-1))
    x = tasks[0].x.flatten(1).index_select(0, chosen).view(models, places, -1)
    goal = F.one_hot(tasks[0].y.index_select(0, chosen), classes).to(recipe.dtype)
    if smoothing:
        goal.mul_(1 - smoothing).add_(smoothing / classes)
    batch = np.arange(places) // size
    real = np.arange(places) < counts[:, None]
    weight = np.where(real, 1 / np.clip(counts[:, None] - batch * size, 1, size), 0.0)
    share = np.where(real, 1 / counts[:, None], 0.0)
    when = np.empty_like(order)
    np.put_along_axis(when, order, (np.arange(epochs)[:, None, None] * len(recipe.batches) + batch), axis=2)
    spots = torch.from_numpy(order + np.arange(models)[:, None] * places)
    return _Records(
        x,
        goal,
        [spots[e, :, a : a + b].reshape(-1) for e in range(epochs) for a, b in recipe.batches],
        torch.from_numpy(weight).to(recipe.dtype),
        torch.from_numpy(share).to(recipe.dtype),
        torch.from_numpy(when).transpose(0, 1).contiguous(),
        counts.tolist(),
    )


class _Reach(NamedTuple):
    """How far a gradient has moved a weight j steps after it was taken, and what is left of the starting weight."""

    gradient: list[float]  # [steps + 1]; 0 before the first step
    start: list[float]  # [steps + 1]


def _reach(recipe: Recipe, steps: int) -> _Reach:
    """Return the response of momentum descent with decay and pull, which are linear, to one unit gradient."""
    local, mu = recipe.local, recipe.proximal_mu
    moved, left, speed, drift = [0.0], [1.0], 0.0, 0.0
    for step in range(steps):
        speed = local.momentum * speed + (1.0 if step == 0 else 0.0) + (mu + local.weight_decay) * moved[-1]
        drift = local.momentum * drift + mu * (left[-1] - 1) + local.weight_decay * left[-1]
        moved.append(moved[-1] - local.learning_rate * speed)
        left.append(left[-1] - local.learning_rate * drift)
    return _Reach(moved, left)


class _Implicit:
    """First layers kept as `alpha W + sum_i c_i x_i`; the bias is the weight of a feature that is always 1."""

    def __init__(self, recipe: Recipe, tasks: Sequence[Task], records: _Records) -> None:
        models, places, width = len(tasks), recipe.places, recipe.dense.widths[1]
        epochs = 1 if recipe.steady else recipe.local.epochs
        self.recipe, self.x, self.when = recipe, records.x, records.when
        self.batches = len(recipe.batches)
        self.weights = [task.params["layer0.weight"] for task in tasks]
        self.biases = torch.stack([task.params["layer0.bias"] for task in tasks])
        self.answers = self._answers().view(models * places, width)
        self.inner = self._inner(tasks)
        self.reach = _reach(recipe, len(records.steps))
        self.pulls = torch.zeros(models, epochs * places, width, dtype=recipe.dtype)
        if not recipe.steady:
            self.moved = torch.tensor(self.reach.gradient, dtype=recipe.dtype)  # by the age of a gradient
            self.skipped = torch.arange(models).repeat_interleave(places) * ((epochs - 1) * places)

    @property
    def small(self) -> bool:
        """Whether products with a stack of the weights pay."""
        return self.weights[0].numel() < LARGE_LAYER

    def _answers(self) -> Tensor:
        """Return the products [models, places, out] of all records with the starting weights."""
        if self.small:
            return torch.baddbmm(self.biases.unsqueeze(1), self.x, torch.stack(self.weights).mT)
        out = self.x.new_empty(*self.x.shape[:2], self.recipe.dense.widths[1])
        for k, weight in enumerate(self.weights):
            torch.addmm(self.biases[k], self.x[k], weight.t(), out=out[k])
        return out

    def _inner(self, tasks: Sequence[Task]) -> Tensor:
        """Return the inner products of the records [models * places, places], kept from round to round."""
        found = []
        for k, task in enumerate(tasks):
            kept = None if task.memory is None else task.memory.get("inner")
            if kept is None:
                kept = torch.mm(self.x[k], self.x[k].t()).add_(1)
                if task.memory is not None:
                    task.memory["inner"] = kept
            found.append(kept)
        return found[0] if len(found) == 1 else torch.cat(found)

    def forward(self, step: int, index: Tensor) -> Tensor:
        """Return what the records at `index` give [models, batch, out] with the weights as they are at `step`."""
        models, places, _ = self.x.shape
        z = self.answers.index_select(0, index).view(models, -1, self.answers.shape[1])
        if self.reach.start[step] != 1:
            z.mul_(self.reach.start[step])
        if step == 0:
            return z
        inner = self.inner.index_select(0, index).view(models, -1, places)
        if self.recipe.steady:
            return z.baddbmm_(inner, self.pulls, alpha=-self.recipe.local.learning_rate)
        seen = step // self.batches + 1
        weight = self.moved[(step - self.when[:, :seen]).clamp_(min=0)]  # [models, seen, places]
        weighted = inner.unsqueeze(2) * weight.unsqueeze(1)  # [models, batch, seen, places]
        return z.baddbmm_(weighted.flatten(2), self.pulls[:, : seen * places])

    def backward(self, step: int, index: Tensor, dz: Tensor) -> None:
        """Take in the gradients dz [models, batch, out] at what the records at `index` gave."""
        places = self.x.shape[1]
        if self.pulls.shape[1] > places:  # a pull of its own for each epoch
            index = index + self.skipped.index_select(0, index) + step // self.batches * places
        self.pulls.view(-1, dz.shape[2]).index_add_(0, index, dz.reshape(-1, dz.shape[2]))

    def finish(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the weights [out, in] and the biases [out] after the last step."""
        models, places, _ = self.x.shape
        left = self.reach.start[-1]
        if self.recipe.steady:
            pulls = self.pulls.mul_(-self.recipe.local.learning_rate)
        else:
            parts = self.pulls.view(models, -1, places, self.pulls.shape[2])
            weight = self.moved[len(self.moved) - 1 - self.when].unsqueeze(3)  # [models, epochs, places, 1]
            pulls = parts[:, 0] * weight[:, 0]
            for epoch in range(1, parts.shape[1]):
                pulls += parts[:, epoch] * weight[:, epoch]
        biases = torch.add(pulls.sum(dim=1), self.biases, alpha=left)
        if self.small:
            return [*torch.baddbmm(torch.stack(self.weights), pulls.mT, self.x, beta=left)], [*biases]
        return [torch.addmm(w, pulls[k].t(), self.x[k], beta=left) for k, w in enumerate(self.weights)], [*biases]


# torch's own GELU gives an element other bits at the end of an array than within it, so it depends on the company.
def _gelu(z: Tensor) -> Tensor:
    return z * (0.5 * (1 + torch.erf(z * 0.5**0.5)))


def _backward_gelu(gradient: Tensor, before: Tensor, _after: Tensor) -> Tensor:
    density = torch.exp(before.square() * -0.5) * float((2 * pi) ** -0.5)
    return gradient * (0.5 * (1 + torch.erf(before * 0.5**0.5)) + before * density)


def _backward_relu(gradient: Tensor, _before: Tensor, after: Tensor) -> Tensor:
    moved: Tensor = torch.ops.aten.threshold_backward(gradient, after, 0)
    return moved


def _backward_tanh(gradient: Tensor, _before: Tensor, after: Tensor) -> Tensor:
    moved: Tensor = torch.ops.aten.tanh_backward(gradient, after)
    return moved


FORWARD: dict[str, Callable[[Tensor], Tensor]] = ACTIVATIONS | {"gelu": _gelu}
BACKWARD = {"relu": _backward_relu, "tanh": _backward_tanh, "gelu": _backward_gelu}
"""(gradient of the output, input, output) -> gradient of the input."""


def _masks(recipe: Recipe, tasks: Sequence[Task], counts: Sequence[int], first: int, size: int) -> Iterator[Tensor]:
    """Yield, for each hidden layer, what dropout multiplies its output [models, batch, width] with; each client draws
    for its own records only, layer by layer.
    """
    rate = recipe.dense.dropout
    for width in recipe.dense.widths[1:-1]:
        mask = torch.zeros(len(tasks), size, width, dtype=recipe.dtype)
        for k, (task, count) in enumerate(zip(tasks, counts, strict=True)):
            real = min(size, count - first)
            drawn = torch.rand((real, width), generator=task.noise, dtype=recipe.dtype)
            mask[k, :real] = (drawn >= rate).to(recipe.dtype) / (1.0 - rate)
        yield mask


def _clip(gradients: list[Tensor], largest: float) -> None:
    """Scale the gradients of each model down to a common length of `largest` at most."""
    squares = torch.zeros(len(gradients[0]), dtype=gradients[0].dtype)
    for gradient in gradients:
        squares += gradient.flatten(1).square().sum(dim=1)
    factor = (largest / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))


def _train(recipe: Recipe, tasks: Sequence[Task]) -> list[Trained]:
    """Return what each task comes to."""
    dense, local, models = recipe.dense, recipe.local, len(tasks)
    last, activation, derivative = len(dense.widths) - 2, FORWARD[dense.activation], BACKWARD[dense.activation]
    records = _records(recipe, tasks)
    implicit = _Implicit(recipe, tasks, records) if recipe.implicit else None
    names = [name for name in tasks[0].params if implicit is None or not name.startswith("layer0.")]
    leaves = {name: torch.stack([task.params[name] for task in tasks]) for name in names}
    values = list(leaves.values())
    start = [leaf.clone() for leaf in values] if recipe.proximal_mu else []
    move = OPTIMIZERS[local.optimizer](local)
    losses, batches = torch.zeros(models, dtype=recipe.dtype), recipe.batches
    for step, index in enumerate(records.steps):
        first, size = batches[step % len(batches)]
        masks = [*_masks(recipe, tasks, records.counts, first, size)] if dense.dropout else []

        inputs: list[Tensor] = []  # of each layer; the first one's are not needed where it is implicit
        shown: list[tuple[Tensor, Tensor]] = []  # what each activation got and gave
        for i in range(last + 1):
            if i == 0 and implicit is not None:
                inputs.append(index)
                z = implicit.forward(step, index)
            else:
                if i == 0:
                    inputs.append(records.x.view(-1, dense.widths[0]).index_select(0, index).view(models, size, -1))
                z = torch.baddbmm(leaves[f"layer{i}.bias"].unsqueeze(1), inputs[i], leaves[f"layer{i}.weight"].mT)
            if i < last:
                shown.append((z, activation(z)))
                inputs.append(shown[i][1] * masks[i] if masks else shown[i][1])

        goal = records.goal.index_select(0, index).view(models, size, -1)
        if step >= len(records.steps) - len(batches):
            lost = (F.log_softmax(z, dim=2) * goal).sum(dim=2)
            losses -= (lost * records.share[:, first : first + size]).sum(dim=1)
        dz = torch.softmax(z, dim=2).sub_(goal).mul_(records.weight[:, first : first + size].unsqueeze(2))

        gradients: dict[str, Tensor] = {}
        for i in range(last, -1, -1):
            if i == 0 and implicit is not None:
                implicit.backward(step, index, dz)
                break
            gradients[f"layer{i}.bias"] = dz.sum(dim=1)
            gradients[f"layer{i}.weight"] = torch.bmm(dz.mT, inputs[i])
            if i > 0:
                dz = torch.bmm(dz, leaves[f"layer{i}.weight"])
                dz = derivative(dz.mul_(masks[i - 1]) if masks else dz, *shown[i - 1])

        if not leaves:
            continue
        ordered = [gradients[name] for name in names]
        adjust(values, start, ordered, local, recipe.proximal_mu, _clip)
        move(values, ordered)
    moved = {name: [*leaf] for name, leaf in leaves.items()}
    if implicit is not None:
        moved["layer0.weight"], moved["layer0.bias"] = implicit.finish()
    means = losses.tolist()
    return [
        Trained({name: moved[name][k] for name in task.params}, means[k], len(records.steps))
        for k, task in enumerate(tasks)
    ]
