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
from functools import lru_cache
from math import pi
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fedsim.dp_sgd import train_alone
from fedsim.models import ACTIVATIONS, Dense, Model, Params
from fedsim.scenario import Local
from fedsim.training import OPTIMIZERS, Task, Trained, adjust

STACKED_NUMBERS = 2**21
"""Models are trained together while what they work on stays below so many numbers: about what a processor's own cache
holds."""
LARGE_LAYER = 2**15
"""From so many weights on, one product at a time is as fast as a stack of products, and needs no copy of the weights.
"""


BATCHES_NOT_KEPT = 4
"""The inner products of the records of so few batches are computed anew as fast as they are put in order."""


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
    def linear(self) -> bool:
        """Whether what a gradient does to a model is linear in it."""
        return self.local.optimizer == "sgd" and self.local.clip_gradient is None

    @property
    def implicit(self) -> bool:
        """Whether the first layer's weight is kept as a sum over records while it trains."""
        return self.linear and self.places * self.local.epochs <= self.dense.widths[0]

    @property
    def kept(self) -> int:
        """How many numbers of a client are kept from round to round: the inner products of its records, which are never
        more than the records themselves.
        """
        few = self.local.epochs == 1 and len(self.batches) <= BATCHES_NOT_KEPT
        return self.places**2 if self.implicit and not few else 0

    @property
    def together(self) -> int:
        """How many models to train together."""
        widths, places = self.dense.widths, self.places
        layers = [a * b for a, b in itertools.pairwise(widths)]
        if self.implicit:
            turns = places * self.local.epochs
            own = places * widths[0] + turns * (turns + 3 * widths[1]) + 3 * sum(layers[1:])
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
    alone = task.private is not None or task.aside is not None
    if task.x.device.type != "cpu" or alone or not stackable(task.model, task.local):
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
        alone = task.private is not None, task.aside is not None
        key = (dense, id(task.local), task.proximal_mu, size, id(task.x), id(task.y), *alone)
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
    """The records of some clients, in the order of their first epoch; an empty place, at the end, holds the client's
    first record and weighs nothing.
    """

    rows: Tensor  # [models, places]: of all the records there are
    x: Tensor  # [models, places, features]
    goal: Tensor  # [models, places, classes]: what the softmax should say
    turns: list[Tensor]  # the places [models, places] in the order of each later epoch
    own: Tensor  # [models, places]: which of a client's rows is at a place
    weight: Tensor  # [models, places, 1]: one over the size of the batch, in the order of an epoch
    share: Tensor  # [models, places]: one over the number of records
    counts: list[int]


def _records(recipe: Recipe, tasks: Sequence[Task]) -> _Records:
    models, places, epochs = len(tasks), recipe.places, recipe.local.epochs
    size, counts = recipe.local.batch_size, np.array([len(task.rows) for task in tasks])
    order = np.tile(np.arange(places), (epochs, models, 1))
    rows = np.empty((models, places), dtype=np.int64)
    for k, (task, count) in enumerate(zip(tasks, counts.tolist(), strict=True)):
        shuffled, held = task.order.permutation(count), task.rows.numpy()
        for epoch in range(epochs):
            order[epoch, k, :count] = task.order.permutation(shuffled)
        rows[k, :count] = held[order[0, k, :count]]
        rows[k, count:] = held[0]  # must hold something, and what is the client's own can do it no harm
    where = np.argsort(order[0], axis=1) if epochs > 1 else order[0]
    batch = np.arange(places) // size
    real = np.arange(places) < counts[:, None]
    weight = np.where(real, 1 / np.clip(counts[:, None] - batch * size, 1, size), 0.0)
    chosen = torch.from_numpy(rows.reshape(-1))
    return _Records(
        chosen.view(models, places),
        tasks[0].x.flatten(1).index_select(0, chosen).view(models, places, -1),
        _goals(recipe.dense, recipe.local, tasks[0].y.index_select(0, chosen), recipe.dtype).view(models, places, -1),
        [torch.from_numpy(np.take_along_axis(where, turn, axis=1)) for turn in order[1:]],
        torch.from_numpy(order[0]),
        torch.from_numpy(weight).to(recipe.dtype).unsqueeze(2),
        torch.from_numpy(np.where(real, 1 / counts[:, None], 0.0)).to(recipe.dtype),
        counts.tolist(),
    )


def _goals(dense: Dense, local: Local, y: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what the softmax should say [n, classes] of records with the labels y [n]."""
    classes, smoothing = dense.widths[-1], local.label_smoothing
    goal = F.one_hot(y, classes).to(dtype)
    return goal.mul_(1 - smoothing).add_(smoothing / classes) if smoothing else goal


def _in_turn(values: Tensor, turns: Sequence[Tensor]) -> Tensor:
    """Return values [models, places, ...] in the order of all the epochs [models, epochs * places, ...]."""
    if not turns:
        return values
    first = torch.arange(len(values)).unsqueeze(1)
    return torch.cat([values, *(values[first, turn] for turn in turns)], dim=1)


class _Reach(NamedTuple):
    """How far a unit gradient moves a weight from the step after it on, and what is left of the starting weight."""

    start: list[float]  # [steps + 1]: what is left at each step
    moved: Tensor  # [turns, turns]: how far the gradient at one turn has moved what another finds; 0 for later ones
    faded: Tensor  # [turns, 1]: how far in the end


def _reach(recipe: Recipe) -> _Reach:
    local = recipe.local
    rule = local.learning_rate, local.momentum, local.weight_decay, recipe.proximal_mu
    return _response(rule, local.epochs, local.batch_size, recipe.full, recipe.rest, recipe.dtype)


@lru_cache(maxsize=64)
def _response(
    rule: tuple[float, float, float, float], epochs: int, size: int, full: int, rest: int, dtype: torch.dtype
) -> _Reach:
    """Return the response of momentum descent with decay and pull, which are linear, to unit gradients."""
    learning_rate, momentum, decay, pull = rule
    places, batches = full * size + rest, full + (rest > 0)
    moved, left, speed, drift = [0.0], [1.0], 0.0, 0.0
    for step in range(epochs * batches):
        speed = momentum * speed + (1.0 if step == 0 else 0.0) + (pull + decay) * moved[-1]
        drift = momentum * drift + pull * (left[-1] - 1) + decay * left[-1]
        moved.append(moved[-1] - learning_rate * speed)
        left.append(left[-1] - learning_rate * drift)
    by_age = torch.tensor(moved, dtype=dtype)
    when = (torch.arange(epochs).unsqueeze(1) * batches + torch.arange(places) // size).flatten()
    ages = (when.unsqueeze(1) - when).clamp_(min=0)
    return _Reach(left, by_age[ages], by_age[epochs * batches - when].unsqueeze(1))


class _Implicit:
    """First layers kept as `alpha W + sum_i c_i x_i`, over the records in the order of their turns; the bias is the
    weight of a feature that is always 1.

    alike: all the models start from the same parameters, so that products with them are one.
    """

    def __init__(self, recipe: Recipe, tasks: Sequence[Task], records: _Records, alike: bool) -> None:
        self.x, self.turns, self.alike = records.x, records.turns, alike
        self.weights = [task.params["layer0.weight"] for task in (tasks[:1] if alike else tasks)]
        self.biases = [task.params["layer0.bias"] for task in (tasks[:1] if alike else tasks)]
        self.answers = _in_turn(self._answers(), records.turns)
        self.reach = _reach(recipe)
        self.inner = self._inner(tasks, records) if recipe.kept else None
        self.pulls = torch.empty_like(self.answers)

    @property
    def small(self) -> bool:
        """Whether products with a stack of the weights pay."""
        return self.weights[0].numel() < LARGE_LAYER

    def _answers(self) -> Tensor:
        """Return the products [models, places, out] of all records with the starting weights."""
        if self.alike:
            flat = torch.addmm(self.biases[0], self.x.flatten(0, 1), self.weights[0].t())
            return flat.view(*self.x.shape[:2], -1)
        if self.small:
            return torch.baddbmm(torch.stack(self.biases).unsqueeze(1), self.x, torch.stack(self.weights).mT)
        out = self.x.new_empty(*self.x.shape[:2], len(self.biases[0]))
        for k, weight in enumerate(self.weights):
            torch.addmm(self.biases[k], self.x[k], weight.t(), out=out[k])
        return out

    def _inner(self, tasks: Sequence[Task], records: _Records) -> Tensor:
        """Return the inner products of the records at all turns [models, turns, turns], times how far an earlier one
        has moved what a later one finds; those of a client's rows are kept from round to round.
        """
        found = []
        for k, task in enumerate(tasks):
            memory = {} if task.memory is None else task.memory
            own, turns = records.own[k], [turn[k] for turn in records.turns]
            if "inner" not in memory:
                held = torch.empty_like(self.x[k])
                held[own] = self.x[k]
                memory["inner"] = torch.mm(held, held.t()).add_(1)
            at = torch.cat([own, *(own[turn] for turn in turns)]) if turns else own
            found.append(memory["inner"].index_select(0, at).index_select(1, at).mul_(self.reach.moved))
        return found[0].unsqueeze(0) if len(found) == 1 else torch.stack(found)

    def forward(self, step: int, first: int, size: int) -> Tensor:
        """Return what the records at the turns from `first` on give [models, size, out] with the weights as they are at
        `step`.
        """
        z = self.answers[:, first : first + size]
        if self.reach.start[step] != 1:
            z = z * self.reach.start[step]
        if step == 0:
            return z
        if self.inner is not None:
            weighted = self.inner[:, first : first + size, :first]
        else:
            weighted = torch.bmm(self.x[:, first : first + size], self.x[:, :first].mT).add_(1)
            weighted.mul_(self.reach.moved[first, :first])
        return torch.baddbmm(z, weighted, self.pulls[:, :first])

    def backward(self, first: int, size: int, dz: Tensor) -> None:
        """Take in the gradients dz [models, size, out] at what the records at the turns from `first` on gave."""
        self.pulls[:, first : first + size] = dz

    def sums(self) -> Tensor:
        """Return the weight c [models, places, out] of each record in the end."""
        places = self.x.shape[1]
        pulls = self.pulls.mul_(self.reach.faded)
        total, rows = pulls[:, :places], torch.arange(len(pulls)).unsqueeze(1)
        for epoch, turn in enumerate(self.turns, start=1):
            total.index_put_((rows, turn), pulls[:, epoch * places : (epoch + 1) * places], accumulate=True)
        return total

    def finish(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the weights [out, in] and the biases [out] after the last step."""
        sums, left = self.sums(), self.reach.start[-1]
        biases = [*torch.add(sums.sum(dim=1), torch.stack(self.biases), alpha=left)]
        if self.small:
            return [*torch.baddbmm(torch.stack(self.weights), sums.mT, self.x, beta=left)], biases
        return [torch.addmm(w, sums[k].t(), self.x[k], beta=left) for k, w in enumerate(self.weights)], biases


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
    moved = _moved(recipe, tasks)
    values = {name: [*leaf] for name, leaf in moved.leaves.items()}
    if moved.implicit is not None:
        values["layer0.weight"], values["layer0.bias"] = moved.implicit.finish()
    return [
        Trained({name: values[name][k] for name in task.params}, loss, moved.steps)
        for k, (task, loss) in enumerate(zip(tasks, moved.losses.tolist(), strict=True))
    ]


class _Moved(NamedTuple):
    """Models after their training, the first layers not formed where they are implicit."""

    records: _Records
    leaves: dict[str, Tensor]  # [models, ...]
    implicit: _Implicit | None
    losses: Tensor  # [models]
    steps: int


def _moved(recipe: Recipe, tasks: Sequence[Task], alike: bool = False) -> _Moved:
    """Return what the models of some tasks come to; alike: they all start from the same parameters."""
    dense, local, models = recipe.dense, recipe.local, len(tasks)
    last, activation, derivative = len(dense.widths) - 2, FORWARD[dense.activation], BACKWARD[dense.activation]
    records, batches, places = _records(recipe, tasks), recipe.batches, recipe.places
    implicit = _Implicit(recipe, tasks, records, alike) if recipe.implicit else None
    names = [name for name in tasks[0].params if implicit is None or not name.startswith("layer0.")]
    leaves = {name: torch.stack([task.params[name] for task in tasks]) for name in names}
    values = list(leaves.values())
    start = [leaf.clone() for leaf in values] if recipe.proximal_mu else []
    move = OPTIMIZERS[local.optimizer](local)
    speeds = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()} if recipe.linear else {}
    said = torch.empty(models, places, dense.widths[-1], dtype=recipe.dtype)  # logits in the last epoch
    for epoch in range(local.epochs):
        turn = [] if epoch == 0 else records.turns[epoch - 1 : epoch]
        x, goal = (_in_turn(part, turn)[:, -places:] for part in (records.x, records.goal))
        for number, (first, size) in enumerate(batches):
            step, part = epoch * len(batches) + number, slice(first, first + size)
            masks = [*_masks(recipe, tasks, records.counts, first, size)] if dense.dropout else []

            inputs: list[Tensor] = []  # of each layer; the first one's are not used where it is implicit
            shown: list[tuple[Tensor, Tensor]] = []  # what each activation got and gave
            for i in range(last + 1):
                if i == 0:
                    inputs.append(x[:, part])
                if i == 0 and implicit is not None:
                    z = implicit.forward(step, epoch * places + first, size)
                else:
                    z = torch.baddbmm(leaves[f"layer{i}.bias"].unsqueeze(1), inputs[i], leaves[f"layer{i}.weight"].mT)
                if i < last:
                    shown.append((z, activation(z)))
                    inputs.append(shown[i][1] * masks[i] if masks else shown[i][1])

            said[:, part] = z
            dz = torch.softmax(z, dim=2).sub_(goal[:, part]).mul_(records.weight[:, part])
            gradients: dict[str, Tensor] = {}
            for i in range(last, -1, -1):
                if i == 0 and implicit is not None:
                    implicit.backward(epoch * places + first, size, dz)
                    break
                weight, bias = f"layer{i}.weight", f"layer{i}.bias"
                if recipe.linear:  # the gradient is added to the momentum as it is made
                    speeds[weight].baddbmm_(dz.mT, inputs[i], beta=local.momentum)
                    speeds[bias].mul_(local.momentum).add_(dz.sum(dim=1))
                else:
                    gradients[weight], gradients[bias] = torch.bmm(dz.mT, inputs[i]), dz.sum(dim=1)
                if i > 0:
                    dz = torch.bmm(dz, leaves[f"layer{i}.weight"])
                    dz = derivative(dz.mul_(masks[i - 1]) if masks else dz, *shown[i - 1])

            if not leaves:
                continue
            if recipe.linear:
                ordered = [speeds[name] for name in names]
                adjust(values, start, ordered, local, recipe.proximal_mu, _clip)
                torch._foreach_add_(values, ordered, alpha=-local.learning_rate)
            else:
                ordered = [gradients[name] for name in names]
                adjust(values, start, ordered, local, recipe.proximal_mu, _clip)
                move(values, ordered)
    lost = (F.log_softmax(said, dim=2) * goal).sum(dim=2)
    return _Moved(records, leaves, implicit, -(lost * records.share).sum(dim=1), local.epochs * len(batches))


# Averages of models that nobody need look at


class Joint(NamedTuple):
    """What some clients come to that started from the same model: the sum of their models, without forming each."""

    total: Params  # the sum of the models, each times its number of records
    losses: list[float]  # of each
    form: Callable[[int], Params]  # k -> the model of the k-th
    told: dict[str, Tensor]  # what the models follow from, given where they started and the records


def moves_once(model: Model, local: Local, records: int) -> bool:
    """Return whether local training on so many records is a single step, linear in the gradient and the same in
    whatever order.
    """
    plain = local.optimizer == "sgd" and local.clip_gradient is None and local.early_stopping is None
    only = local.epochs == 1 and records <= local.batch_size
    return plain and only and model.dense is not None and model.dense.dropout == 0


def step_once(model: Model, params: Params, x: Tensor, y: Tensor, rows: Sequence[Tensor], local: Local) -> Joint:
    """Return what clients come to that hold `rows` of x and y, each after its only step.

    All the gradients are taken at the same parameters, so the records of all the clients are one batch.
    """
    dense = model.dense
    assert dense is not None
    last, activation, derivative = len(dense.widths) - 2, FORWARD[dense.activation], BACKWARD[dense.activation]
    counts, chosen = [len(each) for each in rows], torch.cat([*rows])
    inputs, shown = [x.flatten(1).index_select(0, chosen)], list[Tensor]()
    for i in range(last + 1):
        shown.append(torch.addmm(params[f"layer{i}.bias"], inputs[i], params[f"layer{i}.weight"].t()))
        if i < last:
            inputs.append(activation(shown[i]))
    goal = _goals(dense, local, y.index_select(0, chosen), x.dtype)
    said = F.log_softmax(shown[last], dim=1)
    lost = (said * goal).sum(dim=1)
    pulls = [said.exp_().sub_(goal)]  # from the last layer to the first
    for i in range(last, 0, -1):
        pulls.append(derivative(pulls[-1].mm(params[f"layer{i}.weight"]), shown[i - 1], inputs[i]))
    pulls.reverse()
    ends = list(itertools.accumulate(counts))
    left = 1 - local.learning_rate * local.weight_decay

    def moved(part: slice, first: Tensor, start: float, step: float) -> Params:
        """Return `start` times the parameters, less `step` times the sum of the gradients of part of the records."""
        out: Params = {}
        for i, pull in enumerate(pulls):
            seen, own = first if i == 0 else inputs[i][part], pull[part]
            weight, bias = params[f"layer{i}.weight"], params[f"layer{i}.bias"]
            out[f"layer{i}.weight"] = torch.addmm(weight, own.t(), seen, beta=start, alpha=-step)
            out[f"layer{i}.bias"] = torch.add(own.sum(dim=0).mul_(-step), bias, alpha=start)
        return out

    def form(k: int) -> Params:
        part = slice(ends[k] - counts[k], ends[k])
        return moved(part, x.flatten(1).index_select(0, chosen[part]), left, local.learning_rate / counts[k])

    total = moved(slice(None), inputs[0], left * len(chosen), local.learning_rate)
    sums = np.add.reduceat(lost.numpy(), [0, *ends[:-1]])
    inputs[0] = torch.empty(0)  # large, and quick to look up again
    return Joint(total, (-sums / counts).tolist(), form, {"pulls": pulls[last]})


def joint_parts(tasks: Sequence[Task]) -> list[list[int]]:
    """Return which of some tasks of one cohort, by number, to give to `train_jointly`, part by part: those whose first
    layer is large and implicit.
    """
    alike: dict[Recipe, list[int]] = {}
    for number, task in enumerate(tasks):
        common = recipe(task)
        if common is not None and common.implicit and task.params["layer0.weight"].numel() >= LARGE_LAYER:
            alike.setdefault(common, []).append(number)
    return [
        members[start : start + common.together]
        for common, members in alike.items()
        for start in range(0, len(members), common.together)
    ]


def train_jointly(tasks: Sequence[Task]) -> Joint:
    """Return what the tasks of a part come to."""
    common, first = recipe(tasks[0]), tasks[0].params
    assert common is not None
    records, leaves, implicit, losses, _ = _moved(common, tasks, alike=True)
    assert implicit is not None
    counts = torch.tensor(records.counts, dtype=common.dtype)
    sums, left, x, rows = implicit.sums(), implicit.reach.start[-1], tasks[0].x, records.rows

    def moved(sums: Tensor, seen: Tensor, start: float) -> Params:
        """Return `start` times the first layer, and what the records seen, times their weights, add to it."""
        weight = torch.addmm(first["layer0.weight"], sums.t(), seen, beta=start)
        return {"layer0.weight": weight, "layer0.bias": torch.add(sums.sum(dim=0), first["layer0.bias"], alpha=start)}

    def form(k: int) -> Params:
        seen = x.flatten(1).index_select(0, rows[k])
        return moved(sums[k], seen, left) | {name: leaf[k] for name, leaf in leaves.items()}

    weighted = (sums * counts.view(-1, 1, 1)).flatten(0, 1)
    total = moved(weighted, records.x.flatten(0, 1), left * sum(records.counts))
    total |= {name: (counts @ leaf.flatten(1)).view(leaf.shape[1:]) for name, leaf in leaves.items()}
    return Joint(total, losses.tolist(), form, {"sums": sums, **leaves})
