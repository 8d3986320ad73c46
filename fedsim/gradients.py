"""Gradients of single records: lengths, inner products and clipped sums, without a copy of the whole model for each.

One forward and one backward pass over a batch give what goes into every layer and the gradient of what comes out of
it, record by record. The gradient of a linear layer's weight is the outer product of the two and is never multiplied
out (Goodfellow 2015, https://arxiv.org/abs/1510.01799); convolutions and group norms have few weights, and theirs are.
A model that uses a parameter in any other way is differentiated one record at a time.

Everywhere: `apply(params, x [n, ...]) -> logits [n, classes]` treats each record as if it were alone; x is in the
parameters' precision, y int64 [n] are labels; the loss of a record is the cross-entropy. Sums over parameters are in
float64.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.grad import conv2d_weight
from torch.overrides import TorchFunctionMode

Parameters = Mapping[str, Tensor]
Apply = Callable[[Parameters, Tensor], Tensor]

RECORDS = 256
"""Records are differentiated at most so many at a time ..."""
NUMBERS = 20_000_000
"""... and with at most so many numbers of their gradients in memory."""


class Outer(NamedTuple):
    """Matrices error[i] input[i]^T of records i, kept as their factors: error [n, out], input [n, in]."""

    error: Tensor
    input: Tensor


Gradients = Mapping[str, Tensor | Outer]
"""By parameter name, the gradients of n records: Tensor [n, *shape], or their factors."""


def gradient_norms(apply: Apply, params: Parameters, x: Tensor, y: Tensor) -> Tensor:
    """Return the Euclidean norm float64 [n], over all parameters, of the gradient of each record's loss."""
    return _joined([norms(piece) for piece in record_gradients(apply, params, x, y)])


def clipped_sum(
    apply: Apply, params: Parameters, x: Tensor, y: Tensor, norm: float
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the sum of the records' gradients, each first scaled down to length `norm` (> 0) where it is longer, and
    their lengths float64 [n] before that. No records: zeros.

    Raises ValueError where `norm` is not positive.
    Source: Abadi et al., "Deep learning with differential privacy", CCS 2016, https://arxiv.org/abs/1607.00133
    """
    if not norm > 0:
        raise ValueError(f"the norm to clip to must be positive, got {norm}")
    dtype = next(iter(params.values())).dtype
    sums, lengths = [], []
    for piece in record_gradients(apply, params, x, y):
        lengths.append(norms(piece))
        sums.append(weighted_sum(piece, (norm / lengths[-1]).clamp(max=1.0).to(dtype)))
    if not sums:
        return {name: torch.zeros_like(value) for name, value in params.items()}, _joined([])
    return {name: reduce(torch.add, [part[name] for part in sums]) for name in sums[0]}, _joined(lengths)


def record_gradients(apply: Apply, params: Parameters, x: Tensor, y: Tensor) -> Iterator[Gradients]:
    """Yield the gradient of each record's loss, in pieces of consecutive records (none where there are no records).

    What several questions need (lengths and inner products, several directions) is then computed once.
    """
    whole = sum(value.numel() for value in params.values() if value.dim() != 2)  # matrices stay in factors
    size = min(RECORDS, max(1, NUMBERS // max(1, whole)))
    for start in range(0, len(y), size):
        records, labels = x[start : start + size], y[start : start + size]
        piece = _by_layers(apply, params, records, labels)
        if piece is None:
            yield from _one_by_one(apply, params, records, labels)
        else:
            yield piece


def norms(gradients: Gradients) -> Tensor:
    """Return the length float64 [n] of each record's gradient."""
    return _length(torch.stack([_length(value) for value in gradients.values()], dim=1).double())


def inner(gradients: Gradients, direction: Parameters) -> Tensor:
    """Return the inner product float64 [n] of each record's gradient with `direction`."""
    parts = torch.stack([_product(value, direction[name]) for name, value in gradients.items()])
    return parts.sum(dim=0, dtype=torch.float64)


def weighted_sum(gradients: Gradients, weights: Tensor) -> dict[str, Tensor]:
    """Return the sum over records of weights [n] times gradient, by parameter name."""
    return {name: _weighted(value, weights) for name, value in gradients.items()}


def _length(gradient: Tensor | Outer) -> Tensor:
    if isinstance(gradient, Outer):
        return _length(gradient.error) * _length(gradient.input)
    length: Tensor = torch.linalg.vector_norm(_rows(gradient), dim=1, dtype=torch.float64)
    return length


def _product(gradient: Tensor | Outer, direction: Tensor) -> Tensor:
    if isinstance(gradient, Outer):
        return (gradient.error * F.linear(gradient.input, direction)).sum(dim=1)
    return _rows(gradient) @ direction.flatten()


def _weighted(gradient: Tensor | Outer, weights: Tensor) -> Tensor:
    if isinstance(gradient, Outer):
        return (gradient.error.T * weights) @ gradient.input
    return (weights @ _rows(gradient)).view(gradient.shape[1:])


def _rows(gradient: Tensor) -> Tensor:
    return gradient.reshape(len(gradient), -1)


def _joined(pieces: list[Tensor]) -> Tensor:
    return torch.cat([torch.zeros(0, dtype=torch.float64), *pieces])


# Layers: from the arguments of a call and the gradient `error` of its output to the gradients of weight and bias.

Pairs = list[tuple[Tensor | None, Tensor | Outer]]


def _linear(error: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Pairs:
    return [(weight, Outer(error, x.detach())), (bias, error)]


def _conv2d(
    error: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Pairs:
    # One convolution with the records as groups: no patches are copied out, and all runs in one call.
    n = len(x)
    shape = (n * len(weight), *weight.shape[1:])
    side_by_side = [part.flatten(0, 1)[None] for part in (x, error)]
    gradient: Tensor = conv2d_weight(  # type: ignore[no-untyped-call]
        side_by_side[0], shape, side_by_side[1], stride, padding, dilation, n * groups
    )
    return [(weight, gradient.view(n, *weight.shape)), (bias, error.sum(dim=(2, 3)))]


def _group_norm(
    error: Tensor,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Pairs:
    scaled = error * F.group_norm(x, num_groups, eps=eps)
    return [(weight, scaled.sum(dim=(2, 3))), (bias, error.sum(dim=(2, 3)))]


class Layer(NamedTuple):
    """How a call of a known function is differentiated, if its input has so many dimensions."""

    dimensions: int
    differentiate: Callable[..., Pairs]


LAYERS: dict[Callable[..., Tensor], Layer] = {
    F.linear: Layer(2, _linear),
    F.conv2d: Layer(4, _conv2d),
    F.group_norm: Layer(4, _group_norm),
}


class Call(NamedTuple):
    """One call of a layer, and its output's place in the graph, which stays when the output is changed in place."""

    layer: Layer
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: GradientEdge


class _Recorder(TorchFunctionMode):
    """Notes the calls of known layers on n records, and hides from the graph that they use `leaves`, each once."""

    def __init__(self, leaves: Parameters, n: int) -> None:
        super().__init__()
        self.n = n
        self.leaves = {id(leaf) for leaf in leaves.values()}
        self.calls: list[Call] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        layer = LAYERS.get(func)
        if layer is None or not self._known(layer, args, kwargs):
            return func(*args, **kwargs)
        output = func(*map(self._hidden, args), **{key: self._hidden(value) for key, value in kwargs.items()})
        if output.requires_grad:
            self.calls.append(Call(layer, args, kwargs, get_gradient_edge(output)))
        return output

    def _known(self, layer: Layer, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether the input is n records, and no option is a word (padding="same")."""
        return (
            bool(args)
            and args[0].dim() == layer.dimensions
            and len(args[0]) == self.n
            and not any(isinstance(value, str) for value in (*args, *kwargs.values()))
        )

    def _hidden(self, value: Any) -> Any:
        """A leaf's stand-in, the first time that it is used."""
        if id(value) not in self.leaves:
            return value
        self.leaves.remove(id(value))
        return value.detach().requires_grad_()


def _by_layers(apply: Apply, params: Parameters, x: Tensor, y: Tensor) -> Gradients | None:
    """The gradients of x [n, ...], y [n] (n >= 1); None where a parameter is not used by exactly one known layer."""
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    recorder = _Recorder(leaves, len(y))
    with torch.enable_grad():
        with recorder:
            logits = apply(leaves, x)
        loss = F.cross_entropy(logits, y, reduction="sum")
    if not loss.requires_grad:
        return None
    places: list[Any] = [call.output for call in recorder.calls]
    flows = torch.autograd.grad(loss, [*places, *leaves.values()], allow_unused=True)
    if any(flow is not None for flow in flows[len(recorder.calls) :]):
        return None
    names = {id(leaf): name for name, leaf in leaves.items()}
    with torch.no_grad():
        found = {
            names[id(parameter)]: gradient
            for call, error in zip(recorder.calls, flows, strict=False)
            if error is not None
            for parameter, gradient in call.layer.differentiate(error, *call.args, **call.kwargs)
            if id(parameter) in names
        }
    return {name: found[name] for name in params} if found.keys() == params.keys() else None


def _one_by_one(apply: Apply, params: Parameters, x: Tensor, y: Tensor) -> Iterator[Gradients]:
    """The gradients of x [n, ...], y [n] in pieces, whatever the model does with its parameters."""

    def loss(params: Parameters, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(apply(params, x[None]), y[None])

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0), randomness="different")
    size = max(1, NUMBERS // sum(value.numel() for value in params.values()))
    for start in range(0, len(y), size):
        yield gradients(dict(params), x[start : start + size], y[start : start + size])
