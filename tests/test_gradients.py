"""Gradients of single records against differentiating one record at a time, in float64."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedsim import gradients
from fedsim.gradients import Apply, Parameters, clipped_sum, gradient_norms
from fedsim.models import ACTIVATIONS, MODELS, build
from fedsim.randomness import generator, torch_generator
from fedsim.scenario import ModelChoice

SHAPES = {"softmax": (12,), "mlp": (12,), "cnn": (1, 8, 8), "resnet": (2, 8, 8)}
CLASSES = 3
CLOSE: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}

Case = tuple[Apply, Parameters, Tensor, Tensor]


def _records(shape: tuple[int, ...], n: int = 6) -> tuple[Tensor, Tensor]:
    rng = generator(3, "records", n)
    return torch.from_numpy(rng.standard_normal((n, *shape))), torch.from_numpy(rng.integers(0, CLASSES, n))


def _case(name: str, activation: str = "relu", dtype: torch.dtype = torch.float64, dropout: float = 0.0) -> Case:
    choice = ModelChoice.model_validate(
        {"name": name, "hidden": (7, 5), "activation": activation, "channels": 4, "dropout": dropout}
    )
    model = build(choice, SHAPES[name], CLASSES)
    params = {key: value.to(dtype) for key, value in model.init(torch_generator(1, "init")).items()}
    x, y = _records(SHAPES[name])
    return (lambda params, x: model.apply(dict(params), x, None)), params, x.to(dtype), y


def _one_by_one(apply: Apply, params: Parameters, x: Tensor, y: Tensor) -> Tensor:
    """The oracle: each record's whole gradient, [n, parameters]."""
    leaves = [value.clone().requires_grad_() for value in params.values()]
    found = []
    for i in range(len(y)):
        losses = F.cross_entropy(apply(dict(zip(params, leaves, strict=True)), x), y, reduction="none")
        parts = torch.autograd.grad(losses[i], leaves, allow_unused=True, materialize_grads=True)
        found.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(found)


def _flat(params: Parameters) -> Tensor:
    return torch.cat([value.flatten() for value in params.values()])


def _like(params: Parameters, seed: int) -> dict[str, Tensor]:
    rng = generator(seed, "direction")
    return {name: torch.as_tensor(rng.standard_normal(tuple(value.shape))) for name, value in params.items()}


def _clipped(whole: Tensor, norm: float) -> Tensor:
    """The sum of the rows of `whole`, each projected onto the ball of radius `norm`."""
    lengths = whole.norm(dim=1)
    return torch.stack(
        [row if length <= norm else row * norm / length for row, length in zip(whole, lengths, strict=True)]
    ).sum(dim=0)


def _inner_products(apply: Apply, params: Parameters, x: Tensor, y: Tensor, direction: Parameters) -> Tensor:
    pieces = gradients.record_gradients(apply, params, x, y)
    return torch.cat([gradients.inner(piece, direction) for piece in pieces])


def _agree(case: Case) -> None:
    """Lengths, inner products and clipped sums are those of whole gradients."""
    whole = _one_by_one(*case)
    lengths, direction = whole.norm(dim=1), _like(case[1], 4)
    torch.testing.assert_close(gradient_norms(*case), lengths, **CLOSE)
    torch.testing.assert_close(_inner_products(*case, direction), whole @ _flat(direction), **CLOSE)
    middle = float(lengths.median())  # clips about half of the records
    for norm in (0.3 * middle, middle, 1e6):
        total, before = clipped_sum(*case, norm)
        assert list(total) == list(case[1])
        assert [value.shape for value in total.values()] == [value.shape for value in case[1].values()]
        torch.testing.assert_close(_flat(total), _clipped(whole, norm), **CLOSE)
        torch.testing.assert_close(before, lengths, **CLOSE)


def _refused(*_: Any) -> Any:
    raise AssertionError("differentiated one record at a time")


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", MODELS)
def test_every_model_by_its_layers(name: str, activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "_one_by_one", _refused)
    _agree(_case(name, activation))


@pytest.mark.parametrize("name", MODELS)
def test_in_single_precision_too(name: str) -> None:
    """Rounding: a few parts in ten million a sum, and sums of some thousand terms."""
    apply, params, x, y = _case(name, dtype=torch.float32)
    exact = {key: value.double() for key, value in params.items()}
    total, lengths = clipped_sum(apply, params, x, y, 1.0)
    (piece,) = gradients.record_gradients(apply, params, x, y)
    products = gradients.inner(piece, params)
    assert lengths.dtype == gradients.norms(piece).dtype == products.dtype == torch.float64
    assert {value.dtype for value in total.values()} == {torch.float32}
    torch.testing.assert_close(lengths, gradient_norms(apply, exact, x.double(), y), rtol=1e-4, atol=1e-6)
    expected = _flat(clipped_sum(apply, exact, x.double(), y, 1.0)[0])
    torch.testing.assert_close(_flat(total).double(), expected, rtol=1e-3, atol=1e-5)


# Models of our own: which are known by their layers, and which are differentiated one record at a time.


def _matrix_product(p: Parameters, x: Tensor) -> Tensor:
    return torch.tanh(x @ p["a"]) @ p["b"]


def _half_known(p: Parameters, x: Tensor) -> Tensor:
    return F.linear(torch.tanh(x @ p["a"]), p["b"].T)


def _tied(p: Parameters, x: Tensor) -> Tensor:
    return F.linear(torch.tanh(F.linear(torch.tanh(F.linear(x, p["square"])), p["square"])), p["out"])


def _weight_also_elsewhere(p: Parameters, x: Tensor) -> Tensor:
    return F.linear(x, p["out"], p["bias"]) * p["bias"].square().sum()


def _normalised_weight(p: Parameters, x: Tensor) -> Tensor:
    return F.linear(x, p["out"] / p["out"].norm(dim=1, keepdim=True), p["bias"])


def _computed_bias(p: Parameters, x: Tensor) -> Tensor:
    return F.linear(x, p["out"], p["bias"].exp())


def _temperature(p: Parameters, x: Tensor) -> Tensor:
    return F.linear(x, p["out"]) * p["temperature"]


def _by_keyword(p: Parameters, x: Tensor) -> Tensor:
    return F.linear(input=x, weight=p["out"], bias=p["bias"])


def _options_by_keyword(p: Parameters, x: Tensor) -> Tensor:
    return F.linear(x, bias=p["bias"], weight=p["out"])


def _never_used(p: Parameters, x: Tensor) -> Tensor:
    return F.linear(x, p["out"])  # without p["bias"]


def _constant(p: Parameters, x: Tensor) -> Tensor:
    return x[:, : len(p["out"])]


def _sequence(p: Parameters, x: Tensor) -> Tensor:
    return F.linear(x.view(-1, 2, 3), p["step"], p["bias"]).square().sum(dim=1)


def _rows_of_records(p: Parameters, x: Tensor) -> Tensor:
    return F.linear(x.reshape(-1, 3), p["step"], p["bias"]).square().view(len(x), 2, -1).sum(dim=1)


def _input_is_a_parameter(p: Parameters, x: Tensor) -> Tensor:
    return x * F.linear(p["square"], p["out"]).sum() + F.linear(p["square"], p["out"], p["bias"]).sum()


def _output_not_used(p: Parameters, x: Tensor) -> Tensor:
    F.linear(x, p["square"])
    return F.linear(x, p["out"], p["bias"])


def _no_gradient_wanted(p: Parameters, x: Tensor) -> Tensor:
    with torch.no_grad():
        fixed = F.linear(x, p["square"])
    return F.linear(x + fixed, p["out"], p["bias"])


def _in_place(p: Parameters, x: Tensor) -> Tensor:
    hidden = F.linear(x, p["square"])
    hidden.mul_(2.0).sigmoid_()
    return F.linear(hidden, p["out"], p["bias"]).tanh_()


def _convolution(**options: Any) -> Apply:
    def apply(p: Parameters, x: Tensor) -> Tensor:
        x = F.conv2d(x, p["kernel"], p["shift"], **options)
        return F.linear(torch.tanh(x).mean(dim=(2, 3)), p["out"])

    return apply


def _group_norm(p: Parameters, x: Tensor) -> Tensor:
    return F.linear(F.group_norm(x, 2, bias=p["shift"], weight=p["scale"], eps=0.1).tanh().mean(dim=(2, 3)), p["out"])


VECTOR = {"square": (6, 6), "out": (CLASSES, 6), "bias": (CLASSES,)}
IMAGE = {"kernel": (4, 2, 3, 2), "shift": (4,), "out": (CLASSES, 4)}
KNOWN: dict[str, tuple[Apply, dict[str, tuple[int, ...]], tuple[int, ...]]] = {
    "options by keyword": (_options_by_keyword, {"bias": (CLASSES,), "out": (CLASSES, 6)}, (6,)),
    "changed in place": (_in_place, VECTOR, (6,)),
    "strided": (_convolution(stride=(2, 1), padding=(1, 2)), IMAGE, (2, 7, 6)),
    "dilated": (_convolution(dilation=2), IMAGE, (2, 7, 6)),
    "grouped": (_convolution(groups=2), IMAGE | {"kernel": (4, 1, 3, 3)}, (2, 5, 5)),
    "group norm": (_group_norm, {"scale": (4,), "shift": (4,), "out": (CLASSES, 4)}, (4, 3, 3)),
}
UNKNOWN: dict[str, tuple[Apply, dict[str, tuple[int, ...]], tuple[int, ...]]] = {
    "matrix product": (_matrix_product, {"a": (6, 5), "b": (5, CLASSES)}, (6,)),
    "half known": (_half_known, {"a": (6, 5), "b": (5, CLASSES)}, (6,)),
    "tied weights": (_tied, {"square": (6, 6), "out": (CLASSES, 6)}, (6,)),
    "weight also elsewhere": (_weight_also_elsewhere, {"out": (CLASSES, 6), "bias": (CLASSES,)}, (6,)),
    "normalised weight": (_normalised_weight, {"out": (CLASSES, 6), "bias": (CLASSES,)}, (6,)),
    "computed bias": (_computed_bias, {"out": (CLASSES, 6), "bias": (CLASSES,)}, (6,)),
    "a single number": (_temperature, {"out": (CLASSES, 6), "temperature": ()}, (6,)),
    "input by keyword": (_by_keyword, {"out": (CLASSES, 6), "bias": (CLASSES,)}, (6,)),
    "a parameter never used": (_never_used, {"out": (CLASSES, 6), "bias": (CLASSES,)}, (6,)),
    "no parameter used": (_constant, {"out": (CLASSES, 6)}, (6,)),
    "sequence": (_sequence, {"step": (CLASSES, 3), "bias": (CLASSES,)}, (6,)),
    "records in several rows": (_rows_of_records, {"step": (CLASSES, 3), "bias": (CLASSES,)}, (6,)),
    "input is a parameter": (_input_is_a_parameter, VECTOR, (6,)),
    "output not used": (_output_not_used, VECTOR, (6,)),
    "no gradient wanted": (_no_gradient_wanted, VECTOR, (6,)),
    "padding in words": (_convolution(padding="same"), IMAGE | {"kernel": (4, 2, 3, 3)}, (2, 7, 6)),
}


def _own(model: tuple[Apply, dict[str, tuple[int, ...]], tuple[int, ...]]) -> Case:
    apply, shapes, shape = model
    params = _like({name: torch.zeros(size) for name, size in shapes.items()}, 5)
    return (apply, params, *_records(shape))


@pytest.mark.parametrize("name", KNOWN)
def test_a_model_of_known_layers_is_known(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "_one_by_one", _refused)
    _agree(_own(KNOWN[name]))


@pytest.mark.parametrize("name", UNKNOWN)
def test_any_other_use_of_a_parameter_is_seen_and_differentiated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, calls = _own(UNKNOWN[name]), Counter[str]()
    one_by_one = gradients._one_by_one

    def counted(*given: Any) -> Any:
        calls["one by one"] += 1
        return one_by_one(*given)

    monkeypatch.setattr(gradients, "_one_by_one", counted)
    if name == "no parameter used":
        assert not gradient_norms(*case).any()
    else:
        _agree(case)
    assert calls


# Laws.


@pytest.mark.parametrize("name", MODELS)
def test_inner_products_are_linear_and_a_gradient_with_itself_gives_its_square(name: str) -> None:
    apply, params, x, y = _case(name)
    u, v = _like(params, 6), _like(params, 7)
    both = {key: 2.0 * u[key] - 3.0 * v[key] for key in u}
    product = partial(_inner_products, apply, params, x, y)
    torch.testing.assert_close(product(both), 2.0 * product(u) - 3.0 * product(v), **CLOSE)
    own, _ = clipped_sum(apply, params, x[:1], y[:1], 1e6)
    assert float(product(own)[0]) == pytest.approx(float(gradient_norms(apply, params, x, y)[0]) ** 2, rel=1e-10)


def test_one_record_moves_the_clipped_sum_by_at_most_the_norm() -> None:
    apply, params, x, y = _case("mlp")
    norm = 0.5 * float(gradient_norms(apply, params, x, y).min())
    whole, _ = clipped_sum(apply, params, x, y, norm)
    for i in range(len(y)):
        kept = torch.arange(len(y)) != i
        without, _ = clipped_sum(apply, params, x[kept], y[kept], norm)
        assert float((_flat(whole) - _flat(without)).norm()) == pytest.approx(norm, rel=1e-9)


def test_a_record_without_a_gradient() -> None:
    """The model is so sure of the right class that nothing is left to learn; the others count as ever."""
    apply, params, x, y = _case("softmax")
    sure = {"layer0.weight": params["layer0.weight"], "layer0.bias": torch.tensor([2000.0, 0.0, 0.0]).double()}
    y = torch.tensor([0, 0, 1, 0, 2, 0])
    assert (gradient_norms(apply, sure, x, y) > 0).tolist() == [False, False, True, False, True, False]
    assert not _inner_products(apply, sure, x, y, _like(sure, 8))[y == 0].any()
    total, _ = clipped_sum(apply, sure, x, y, 0.1)
    torch.testing.assert_close(_flat(total), _clipped(_one_by_one(apply, sure, x, y), 0.1), **CLOSE)
    assert not _flat(clipped_sum(apply, sure, x[y == 0], y[y == 0], 0.1)[0]).any()


@pytest.mark.parametrize("case", [_case("cnn"), _own(UNKNOWN["matrix product"])], ids=["layers", "one by one"])
@pytest.mark.parametrize(("limit", "value"), [("RECORDS", 4), ("RECORDS", 1), ("NUMBERS", 1), ("NUMBERS", 100)])
def test_pieces_change_nothing(case: Case, limit: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, limit, value)
    assert len(list(gradients.record_gradients(*case))) > 1
    _agree(case)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No piece holds more numbers of gradients than allowed, matrices in factors aside."""
    monkeypatch.setattr(gradients, "NUMBERS", 2500)
    for case in (_case("resnet"), _own(UNKNOWN["matrix product"])):
        size = sum(
            value[0].numel() for value in next(gradients.record_gradients(*case)).values() if isinstance(value, Tensor)
        )
        for piece in gradients.record_gradients(*case):
            assert sum(value.numel() for value in piece.values() if isinstance(value, Tensor)) <= max(2500, size)


@pytest.mark.parametrize("case", [_case("cnn"), _own(UNKNOWN["matrix product"])], ids=["layers", "one by one"])
def test_no_records(case: Case) -> None:
    """A random batch may be empty."""
    apply, params, x, y = case
    total, lengths = clipped_sum(apply, params, x[:0], y[:0], 1.0)
    assert len(lengths) == len(gradient_norms(apply, params, x[:0], y[:0])) == 0
    assert not _flat(total).any()
    assert [value.shape for value in total.values()] == [value.shape for value in params.values()]


def test_what_is_given_stays_and_the_mode_of_differentiation_does_not_matter() -> None:
    apply, params, x, y = _case("cnn")
    before = {key: value.clone() for key, value in params.items()}
    expected = gradient_norms(apply, params, x, y)
    with torch.no_grad():
        assert torch.equal(gradient_norms(apply, params, x, y), expected)
    learned = {key: value.requires_grad_() for key, value in params.items()}
    found = gradient_norms(apply, learned, x, y)
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert all(value.grad is None and torch.equal(value, before[key]) for key, value in params.items())


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan")])
def test_a_norm_that_is_not_positive_is_refused(norm: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        clipped_sum(*_case("softmax"), norm)


# Dropout: each record meets its own mask, once.


def _noisy(model: Callable[..., Tensor], seed: int = 9) -> Apply:
    """The same masks at each call."""
    return lambda params, x: model(dict(params), x, torch.Generator().manual_seed(seed))


def test_masks_of_dropout_are_part_of_the_model() -> None:
    choice = ModelChoice(name="mlp", hidden=(7, 5), dropout=0.5)
    _, params, x, y = _case("mlp")
    _agree((_noisy(build(choice, SHAPES["mlp"], CLASSES).apply), params, x, y))


def test_masks_of_an_unknown_model_differ_between_records() -> None:
    """Two equal records: their gradients are equal with the same mask, which has a chance of 2^-40, and not else."""

    def apply(params: dict[str, Tensor], x: Tensor, noise: torch.Generator) -> Tensor:
        kept = torch.rand(x.shape, generator=noise, dtype=x.dtype) >= 0.5
        return (x * kept) @ params["w"]

    params = _like({"w": torch.zeros(40, CLASSES)}, 10)
    x, y = _records((40,), 1)
    first, second = gradient_norms(_noisy(apply), params, x.expand(2, -1), y.expand(2)).tolist()
    assert first != second


# Another library.


@pytest.mark.filterwarnings("ignore")  # what Opacus and its hooks say of themselves
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_clipped_sums_are_those_of_opacus(name: str) -> None:
    wrap = pytest.importorskip("opacus", reason="opacus is not installed").GradSampleModule
    optimizer = pytest.importorskip("opacus.optimizers").DPOptimizer
    apply, params, x, y = _case(name, "relu")
    flat, relu, pool = torch.nn.Flatten, torch.nn.ReLU, partial(torch.nn.MaxPool2d, 2)
    dense = [flat(), torch.nn.Linear(12, 7), relu(), torch.nn.Linear(7, 5), relu(), torch.nn.Linear(5, CLASSES)]
    images = [torch.nn.Conv2d(1, 4, 5, padding=2), relu(), pool(), torch.nn.Conv2d(4, 8, 5, padding=2), relu(), pool()]
    top = [flat(), torch.nn.Linear(32, 128), relu(), torch.nn.Linear(128, CLASSES)]
    module = torch.nn.Sequential(*(dense if name == "mlp" else [*images, *top])).double()
    with torch.no_grad():
        for own, value in zip(module.parameters(), params.values(), strict=True):
            own.copy_(value)
    private = wrap(module, loss_reduction="sum")
    norm = float(gradient_norms(apply, params, x, y).median())
    step = optimizer(
        torch.optim.SGD(module.parameters(), lr=1.0), noise_multiplier=0.0, max_grad_norm=norm, expected_batch_size=1
    )
    F.cross_entropy(private(x), y, reduction="sum").backward()  # type: ignore[no-untyped-call]
    step.clip_and_accumulate()
    theirs = torch.cat([parameter.summed_grad.flatten() for parameter in step.params])
    # Opacus adds 1e-6 to each norm before it divides, which shortens each clipped gradient by less than 1e-6.
    assert float((_flat(clipped_sum(apply, params, x, y, norm)[0]) - theirs).norm()) < len(y) * 1e-6
