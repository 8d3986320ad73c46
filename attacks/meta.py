"""Meta-classifiers of the property game: small networks that learn, from the references alone, how a model that was
trained on one share differs from a model trained on another.

They judge many targets by the same references, so the last trained ones are remembered. All start from the same
weights: so where references differ from target to target, scores can still be compared.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fedsim.attack import Case
from fedsim.randomness import torch_generator
from fedsim.views import Floats, Ints

HIDDEN = (20, 8)
"""Hidden layers of a meta-classifier on a vector, as in Zhang et al. 2021."""
NEURON = (64, 8)
"""Layers that read one neuron, as in Ganju et al. 2018; the last is how many numbers stand for a neuron."""
EPOCHS = 100
RATE = 5e-3
DECAY = 1e-2
REMEMBERED = 2

Weights = list[Tensor]
Forward = Callable[[Weights, Tensor], Tensor]
"""(weights, what is known of each model [models, ...]) -> log-odds, or standardised shares [models]."""


class Network(NamedTuple):
    """A network without its weights."""

    init: Callable[[torch.Generator], Weights]
    forward: Forward


class Trained(NamedTuple):
    """A trained network, and how to read it: scale x output + offset, between low and high."""

    apply: Callable[[Tensor], Tensor]
    scale: float
    offset: float
    low: float
    high: float


@dataclass(frozen=True)
class _Lesson:
    """References and their answers; equal where the digest is."""

    digest: str
    build: Callable[[Tensor], Network]
    inputs: Floats = field(compare=False, repr=False)  # [r, ...]
    answers: Floats = field(compare=False, repr=False)  # [r]
    shares: bool


def black_box(case: Case) -> Floats:
    """Return the log-odds of "yes", or an estimate of the share, from the probabilities for all records of both
    samples.

    Source: Zhang, Tople and Ohrimenko, "Leakage of dataset properties in multi-party machine learning", USENIX Security
    2021, https://arxiv.org/abs/2006.07267
    """
    return _judged(case, _flat, _perceptron)


def flattened(case: Case) -> Floats:
    """Return the same from the parameters in the order in which they stand: the first baseline of Ganju et al. 2018."""
    return _judged(case, _parameters, _perceptron)


def in_sorted_order(case: Case) -> Floats:
    """Return the same with the neurons of each hidden layer sorted by their sum: the second baseline of Ganju et al."""
    return _judged(case, lambda models: _parameters(sorted_neurons(models)), _perceptron)


def deep_sets(case: Case) -> Floats:
    """Return the same from the set of neurons of each layer, in whatever order they stand.

    Each neuron is read by one small network for its layer: its bias, and its incoming weights, which in the first layer
    stand for features and in later ones multiply what was read of the neurons before. A layer is the mean over its
    neurons, and the answer a linear function of all layers. The neurons of the last layer are the classes, which do
    have an order, so each is told its own.
    Source: Ganju, Wang, Yang, Gunter and Borisov, "Property inference attacks on fully connected neural networks using
    permutation invariant representations", CCS 2018, https://doi.org/10.1145/3243734.3243834
    """
    return _judged(case, lambda models: models, _sets)


def _judged(case: Case, view: Callable[[Floats], Floats], build: Callable[[Tensor], Network]) -> Floats:
    answers = case.members[:, 0].astype(np.float64) if case.amounts is None else case.amounts[:, 0]
    if len(np.unique(answers)) < 2:
        return np.array([0.0 if case.amounts is None else answers[0]])
    state = hashlib.sha256(np.ascontiguousarray(case.references).tobytes())
    state.update(answers.tobytes() + repr((view.__qualname__, case.references.shape)).encode())
    inputs = case.references[:, 0]
    trained = _trained(_Lesson(state.hexdigest(), build, view(inputs), answers, case.amounts is not None))
    with torch.no_grad():
        found = float(trained.apply(torch.tensor(view(case.target)))[0])
    return np.array([min(max(trained.scale * found + trained.offset, trained.low), trained.high)])


@lru_cache(maxsize=REMEMBERED)
def _trained(lesson: _Lesson) -> Trained:
    """Return the network after full-batch Adam with weight decay, on inputs brought to one scale."""
    inputs = torch.tensor(lesson.inputs)
    answers, low, high, scale, offset = lesson.answers, -np.inf, np.inf, 1.0, 0.0
    if lesson.shares:
        low, high, scale, offset = answers.min(), answers.max(), answers.std(), answers.mean()
    wanted = torch.tensor((answers - offset) / scale)
    network = lesson.build(inputs)
    weights = network.init(torch_generator(0, "meta-classifier"))
    for weight in weights:
        weight.requires_grad_()
    optimiser = torch.optim.AdamW(weights, lr=RATE, weight_decay=DECAY)
    # Both sides weigh as much, or the references' own odds would be learned.
    sides = None if lesson.shares else wanted / wanted.mean() + (1 - wanted) / (1 - wanted.mean())
    for _ in range(EPOCHS):
        optimiser.zero_grad()
        output = network.forward(weights, inputs)
        if sides is None:
            error = F.mse_loss(output, wanted)
        else:
            error = F.binary_cross_entropy_with_logits(output, wanted, weight=sides)
        error.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    final = [weight.detach() for weight in weights]
    return Trained(lambda x: network.forward(final, x), float(scale), float(offset), float(low), float(high))


def _flat(models: Floats) -> Floats:
    return models.reshape(len(models), -1)


def _parameters(models: Floats) -> Floats:
    """Return the parameters alone [models, parameters] of rows of neurons [models, neurons, 2 + widest]."""
    cells = models[:, :, 2:]
    return np.asarray(cells[:, ~np.isnan(cells[0])])


def _dense(generator: torch.Generator, inputs: int, outputs: int) -> Weights:
    """Weight [in, out] and bias of a layer, in He's range."""
    bound = (6 / inputs) ** 0.5
    weight = (2 * torch.rand(inputs, outputs, generator=generator, dtype=torch.float64) - 1) * bound
    return [weight, torch.zeros(outputs, dtype=torch.float64)]


def _scaled(inputs: Tensor, dims: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """What brings the entries of `inputs` to mean 0 and deviation 1 over `dims`; what never varies becomes 0."""
    mean, spread = inputs.mean(dim=dims), inputs.std(dim=dims, correction=0)
    factor = torch.where(spread > 1e-12, 1 / torch.clamp(spread, min=1e-12), torch.zeros_like(spread))
    return lambda x: (x - mean) * factor


def _joined(weights: int, spread: Tensor, rest: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """What divides the first `weights` entries by one number, and brings the others to scale one by one."""
    return lambda x: torch.cat([x[:, :, :weights] / spread, rest(x[:, :, weights:])], dim=2)


def _perceptron(inputs: Tensor) -> Network:
    """A network with two hidden layers on a vector [models, entries]."""
    scale, widths = _scaled(inputs, (0,)), (inputs.shape[1], *HIDDEN, 1)

    def init(generator: torch.Generator) -> Weights:
        return [part for i in range(3) for part in _dense(generator, widths[i], widths[i + 1])]

    def forward(weights: Weights, x: Tensor) -> Tensor:
        x = scale(x)
        for i in range(2):
            x = F.relu(x @ weights[2 * i] + weights[2 * i + 1])
        return (x @ weights[4] + weights[5])[:, 0]

    return Network(init, forward)


class _Layer(NamedTuple):
    """A layer in rows of neurons: which rows, how many incoming weights, how many cells."""

    rows: slice
    weights: int
    cells: int

    def positions(self, before: int) -> int:
        """Weights for each of `before` neurons, if they are all that this layer reads; else 0."""
        return self.weights // before if before and self.weights > 1 and self.weights % before == 0 else 0


def _layers(model: Floats) -> list[_Layer]:
    """Return the layers of rows of neurons [neurons, 2 + widest], by their two marks."""
    numbers = np.round(model[:, 0]).astype(np.int64)
    found = []
    for number in np.unique(numbers):
        rows = np.flatnonzero(numbers == number)
        cells = int((~np.isnan(model[rows[0], 2:])).sum())
        found.append(_Layer(slice(int(rows[0]), int(rows[-1]) + 1), int(np.round(model[rows[0], 1])), cells))
    return found


def sorted_neurons(models: Floats) -> Floats:
    """Return the same models [models, neurons, 2 + widest] with the neurons of each hidden layer in the order of their
    sums, and the weights of the next layer in line with it.
    """
    ordered = models.copy()
    for model in ordered:
        order: Ints | None = None
        layers = _layers(model)
        for number, layer in enumerate(layers):
            block = model[layer.rows, 2 : 2 + layer.cells]
            if order is not None and (positions := layer.positions(len(order))):
                weights = block[:, : layer.weights].reshape(len(block), len(order), positions)
                block[:, : layer.weights] = weights[:, order].reshape(len(block), -1)
            order = np.argsort(block.sum(axis=1), kind="stable") if number < len(layers) - 1 else None
            model[layer.rows, 2 : 2 + layer.cells] = block if order is None else block[order]
    return ordered


def _sets(inputs: Tensor) -> Network:
    """A network on sets of neurons [models, neurons, 2 + widest]."""
    layers = _layers(inputs[0].numpy())
    sizes = [layer.rows.stop - layer.rows.start for layer in layers]
    before = [0, *sizes[:-1]]
    scales = []
    for layer, earlier in zip(layers, before, strict=True):
        cells = inputs[:, layer.rows, 2 : 2 + layer.cells]
        if layer.positions(earlier):  # one scale for the weights to all neurons before: their order means nothing
            weights, rest = cells[:, :, : layer.weights], cells[:, :, layer.weights :]
            spread = torch.clamp(weights.std(correction=0), min=1e-12)
            scales.append(_joined(layer.weights, spread, _scaled(rest, (0, 1))))
        else:
            scales.append(_scaled(cells, (0, 1)))
    widths = []
    for layer, earlier, size in zip(layers, before, sizes, strict=True):
        positions = layer.positions(earlier)
        width = positions * NEURON[1] + layer.cells - layer.weights if positions else layer.cells
        widths.append(width + (size if layer is layers[-1] else 0))

    def init(generator: torch.Generator) -> Weights:
        each = [_dense(generator, width, NEURON[0]) + _dense(generator, *NEURON) for width in widths]
        return [*(part for parts in each for part in parts), *_dense(generator, NEURON[1] * len(layers), 1)]

    def forward(weights: Weights, x: Tensor) -> Tensor:
        read, means = x[:, :0], []
        for number, (layer, earlier, size) in enumerate(zip(layers, before, sizes, strict=True)):
            cells = scales[number](x[:, layer.rows, 2 : 2 + layer.cells])  # [models, neurons, cells]
            if positions := layer.positions(earlier):
                incoming = cells[:, :, : layer.weights].reshape(len(x), size, earlier, positions)
                joined = torch.einsum("mnep,med->mnpd", incoming, read).flatten(2) / earlier**0.5
                cells = torch.cat([joined, cells[:, :, layer.weights :]], dim=2)
            if layer is layers[-1]:
                own = torch.eye(size, dtype=cells.dtype).expand(len(x), size, size)
                cells = torch.cat([cells, own], dim=2)
            first, bias, second, shift = weights[4 * number : 4 * number + 4]
            read = F.relu(F.relu(cells @ first + bias) @ second + shift)
            means.append(read.mean(dim=1))
        return (torch.cat(means, dim=1) @ weights[-2] + weights[-1])[:, 0]

    return Network(init, forward)
