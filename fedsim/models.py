"""Models as pure functions over a parameter dictionary; no state outside it.

Parameter names run from the first layer to the last; a linear layer `name` has `name.weight` [out, in] and `name.bias`
[out].
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fedsim.errors import ScenarioError
from fedsim.scenario import ModelChoice

Params = dict[str, Tensor]
Noise = torch.Generator | None
Apply = Callable[[Params, Tensor, Noise], Tensor]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "tanh": torch.tanh, "gelu": F.gelu}


class Dense(NamedTuple):
    """A chain of linear layers `layer0`, `layer1`, ...: their widths from the input to the classes, and what happens
    between them.
    """

    widths: tuple[int, ...]
    activation: str
    dropout: float


class Model(NamedTuple):
    """init(generator) -> parameters (float32, CPU); apply(parameters, x [n, ...], noise) -> logits [n, classes].

    `noise` is the generator of dropout masks; None means evaluation, without dropout. dense: what the model is where
    it is nothing but linear layers, so that many can be trained as one; else None.
    """

    init: Callable[[torch.Generator], Params]
    apply: Apply
    dense: Dense | None = None


Shape = tuple[int, ...]


def _uniform(generator: torch.Generator, fan_in: int, *shape: int) -> Tensor:
    """Uniform in +-1/sqrt(fan_in), the usual default for linear and convolution layers."""
    return (torch.rand(*shape, generator=generator) * 2 - 1) / math.sqrt(fan_in)


def _linear(generator: torch.Generator, name: str, inputs: int, outputs: int) -> Params:
    return {
        f"{name}.weight": _uniform(generator, inputs, outputs, inputs),
        f"{name}.bias": _uniform(generator, inputs, outputs),
    }


def _conv(generator: torch.Generator, name: str, inputs: int, outputs: int, size: int) -> Params:
    fan_in = inputs * size * size
    return {
        f"{name}.weight": _uniform(generator, fan_in, outputs, inputs, size, size),
        f"{name}.bias": _uniform(generator, fan_in, outputs),
    }


def _drop(x: Tensor, rate: float, noise: Noise) -> Tensor:
    if noise is None or rate == 0.0:
        return x
    kept = torch.rand(x.shape, generator=noise, dtype=x.dtype, device=noise.device).to(x.device) >= rate
    return x * kept / (1.0 - rate)


def _dense(params: Params, name: str, x: Tensor) -> Tensor:
    return F.linear(x, params[f"{name}.weight"], params[f"{name}.bias"])


def softmax_regression(_choice: ModelChoice, shape: Shape, classes: int) -> Model:
    """Return multinomial logistic regression on the flattened input."""
    return _mlp(Dense((math.prod(shape), classes), "relu", 0.0))


def mlp(choice: ModelChoice, shape: Shape, classes: int) -> Model:
    """Return a multi-layer perceptron with the chosen hidden widths, activation and dropout."""
    return _mlp(Dense((math.prod(shape), *choice.hidden, classes), choice.activation, choice.dropout))


def _mlp(dense: Dense) -> Model:
    widths, last, activation = dense.widths, len(dense.widths) - 2, ACTIVATIONS[dense.activation]

    def init(generator: torch.Generator) -> Params:
        params: Params = {}
        for i in range(last + 1):
            params |= _linear(generator, f"layer{i}", widths[i], widths[i + 1])
        return params

    def apply(params: Params, x: Tensor, noise: Noise = None) -> Tensor:
        x = x.flatten(1)
        for i in range(last):
            x = _drop(activation(_dense(params, f"layer{i}", x)), dense.dropout, noise)
        return _dense(params, f"layer{last}", x)

    return Model(init, apply, dense)


def _image_shape(name: str, shape: Shape, smallest: int) -> tuple[int, int, int]:
    if len(shape) != 3 or min(shape[1:]) < smallest:
        found = " x ".join(map(str, shape))
        raise ScenarioError(
            f"model.name: {name} needs images of at least {smallest} x {smallest} pixels, but a record of this "
            f"source is {found}; "
            "use mlp or softmax"
        )
    return shape[0], shape[1], shape[2]


# On a CPU, pooling and its gradient are several times faster where the channels of a pixel lie side by side. With one
# colour both orders are the same numbers in a row, and only a copy gets the strides that say so.
def _channels_last(x: Tensor) -> Tensor:
    """Return `x` [n, colours, height, width] with the colours of a pixel next to each other in memory."""
    return x.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)


def cnn(choice: ModelChoice, shape: Shape, classes: int) -> Model:
    """Return a LeNet-like network: two 5x5 convolutions with max-pooling, one hidden layer of 128 (LeCun et al.
    1998).
    """
    colours, height, width = _image_shape("cnn", shape, 8)
    first, second = choice.channels, 2 * choice.channels
    activation = ACTIVATIONS[choice.activation]
    flat = second * (height // 4) * (width // 4)

    def init(generator: torch.Generator) -> Params:
        return {
            **_conv(generator, "conv0", colours, first, 5),
            **_conv(generator, "conv1", first, second, 5),
            **_linear(generator, "layer0", flat, 128),
            **_linear(generator, "layer1", 128, classes),
        }

    def apply(params: Params, x: Tensor, noise: Noise = None) -> Tensor:
        x = _channels_last(x)
        for name in ("conv0", "conv1"):
            x = F.conv2d(x, params[f"{name}.weight"], params[f"{name}.bias"], padding=2)
            x = activation(F.max_pool2d(x, 2))
        x = _drop(activation(_dense(params, "layer0", x.flatten(1))), choice.dropout, noise)
        return _dense(params, "layer1", x)

    return Model(init, apply)


def resnet(choice: ModelChoice, shape: Shape, classes: int) -> Model:
    """Return a small residual network: three stages of one block, GroupNorm in place of BatchNorm (He et al. 2016; Wu
    and He 2018).

    BatchNorm would mix the records of a batch and average running statistics across clients.
    """
    colours, _, _ = _image_shape("resnet", shape, 8)
    widths = (choice.channels, 2 * choice.channels, 4 * choice.channels)

    def norm(params: Params, name: str, x: Tensor) -> Tensor:
        groups = math.gcd(x.shape[1], max(1, x.shape[1] // 4))
        return F.group_norm(x, groups, params[f"{name}.scale"], params[f"{name}.shift"])

    def init(generator: torch.Generator) -> Params:
        params = _conv(generator, "stem", colours, widths[0], 3)
        before = widths[0]
        for stage, channels in enumerate(widths):
            for part, inputs in (("a", before), ("b", channels)):
                name = f"block{stage}{part}"
                params |= {f"{name}.scale": torch.ones(inputs), f"{name}.shift": torch.zeros(inputs)}
                params |= _conv(generator, name, inputs, channels, 3)
            params |= _conv(generator, f"skip{stage}", before, channels, 1)
            before = channels
        return params | _linear(generator, "layer0", widths[-1], classes)

    def convolve(params: Params, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = params[f"{name}.weight"]
        return F.conv2d(x, weight, params[f"{name}.bias"], stride=stride, padding=weight.shape[-1] // 2)

    def apply(params: Params, x: Tensor, _noise: Noise = None) -> Tensor:
        x = convolve(params, "stem", x)
        for stage in range(len(widths)):
            stride = 1 if stage == 0 else 2
            inner = convolve(params, f"block{stage}a", F.relu(norm(params, f"block{stage}a", x)), stride)
            inner = convolve(params, f"block{stage}b", F.relu(norm(params, f"block{stage}b", inner)))
            x = inner + convolve(params, f"skip{stage}", x, stride)
        return _dense(params, "layer0", F.relu(x).mean(dim=(2, 3)))

    return Model(init, apply)


MODELS: dict[str, Callable[[ModelChoice, Shape, int], Model]] = {
    "softmax": softmax_regression,
    "mlp": mlp,
    "cnn": cnn,
    "resnet": resnet,
}


@lru_cache(maxsize=64)
def parameter_count(choice: ModelChoice, shape: Shape, classes: int) -> int:
    """Return how many parameters the chosen model has."""
    return sum(value.numel() for value in build(choice, shape, classes).init(torch.Generator().manual_seed(0)).values())


@lru_cache(maxsize=64)
def build(choice: ModelChoice, shape: Shape, classes: int) -> Model:
    """Return the chosen model for records of `shape` (without the batch axis) and `classes` labels."""
    return MODELS[choice.name](choice, shape, classes)
