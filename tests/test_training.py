"""Local training against torch's own optimisers and against limits that can be derived."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fedsim.models import MODELS, Model, Params, build
from fedsim.randomness import generator, torch_generator
from fedsim.scenario import EarlyStopping, Local, ModelChoice
from fedsim.training import Task, evaluate, train

SHAPES = {"softmax": (12,), "mlp": (12,), "cnn": (1, 8, 8), "resnet": (1, 8, 8)}


def _records(shape: tuple[int, ...], n: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    rng = generator(0, "records", n)
    return torch.from_numpy(rng.standard_normal((n, *shape))), torch.from_numpy(rng.integers(0, 3, n))


def _start(choice: ModelChoice) -> tuple[Params, tuple[torch.Tensor, torch.Tensor]]:
    model = build(choice, SHAPES[choice.name], 3)
    params = {name: value.double() for name, value in model.init(torch_generator(1, "init")).items()}
    return params, _records(SHAPES[choice.name])


def _task(
    model: Model, params: Params, x: torch.Tensor, y: torch.Tensor, local: Local, proximal_mu: float = 0.0
) -> Task:
    noise = torch_generator(5, "noise")
    return Task(model, params, x, y, torch.arange(len(y)), local, generator(5, "order"), noise, proximal_mu)


def _torch_loop(
    choice: ModelChoice, local: Local, make: Callable[[list[torch.Tensor]], torch.optim.Optimizer], mu: float
) -> Params:
    """The same job written with torch.optim, as an independent oracle."""
    params, (x, y) = _start(choice)
    model = build(choice, SHAPES[choice.name], 3)
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    optimizer = make(list(leaves.values()))
    order = generator(5, "order")
    rows = order.permutation(len(y))
    for _ in range(local.epochs):
        for batch in torch.split(torch.from_numpy(order.permutation(rows)), local.batch_size):
            loss = F.cross_entropy(model.apply(leaves, x[batch], None), y[batch], label_smoothing=local.label_smoothing)
            for name, leaf in leaves.items():
                loss = loss + mu / 2 * (leaf - params[name]).square().sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if local.clip_gradient is not None:
                torch.nn.utils.clip_grad_norm_(list(leaves.values()), local.clip_gradient)
            optimizer.step()
    return {name: leaf.detach() for name, leaf in leaves.items()}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("local", "make", "mu"),
    [
        (Local(epochs=3, batch_size=7, learning_rate=0.1), lambda p: torch.optim.SGD(p, lr=0.1), 0.0),
        (
            Local(epochs=2, batch_size=7, learning_rate=0.1, momentum=0.9),
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
            0.3,
        ),
        (
            Local(epochs=2, batch_size=7, learning_rate=0.1, weight_decay=0.05, label_smoothing=0.2),
            lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.05),
            0.0,
        ),
        (
            Local(epochs=2, batch_size=7, learning_rate=0.1, clip_gradient=0.05),
            lambda p: torch.optim.SGD(p, lr=0.1),
            0.0,
        ),
        (
            Local(epochs=3, batch_size=7, optimizer="adam", learning_rate=0.01, weight_decay=0.01),
            lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.01),
            0.0,
        ),
    ],
    ids=["sgd", "momentum+proximal", "decay+smoothing", "clipping", "adam"],
)
def test_training_equals_torch(
    name: str, local: Local, make: Callable[[list[torch.Tensor]], torch.optim.Optimizer], mu: float
) -> None:
    choice = ModelChoice.model_validate({"name": name, "hidden": (9,), "channels": 4})
    params, (x, y) = _start(choice)
    before = {key: value.clone() for key, value in params.items()}
    model = build(choice, SHAPES[name], 3)
    found = train(_task(model, params, x, y, local, mu)).params
    oracle = _torch_loop(choice, local, make, mu)
    for key in params:
        assert torch.equal(params[key], before[key]), "the arguments are left as they were"
        torch.testing.assert_close(found[key], oracle[key], rtol=0, atol=1e-10)
        assert not torch.equal(found[key], before[key])


def test_dropout_is_drawn_from_the_generator_given_and_keeps_the_mean() -> None:
    choice = ModelChoice(hidden=(4000,), dropout=0.4)
    model = build(choice, (12,), 3)
    params = model.init(torch_generator(0, "init"))
    x, _ = _records((12,), 5)
    x = x.float()
    once, again = (model.apply(params, x, torch_generator(7, "noise")) for _ in range(2))
    other = model.apply(params, x, torch_generator(8, "noise"))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    draws = torch.stack([model.apply(params, x, torch_generator(seed, "noise")) for seed in range(200)])
    error = (draws.mean(0) - model.apply(params, x, None)) / (draws.std(0) / 200**0.5)
    # 15 z values: one beyond 5 by chance in about 1e-5 of seeds; keeping no mean would shift them by tens.
    assert error.abs().max() < 5


def test_early_stopping_stops_when_the_held_out_loss_rises() -> None:
    x, _ = _records((12,), 40)
    y = torch.from_numpy(
        generator(1, "labels").integers(0, 3, 40)
    )  # labels without a pattern: held-out loss soon rises
    model = build(ModelChoice(hidden=(64,)), (12,), 3)
    params = {name: value.double() for name, value in model.init(torch_generator(0, "init")).items()}
    plain = Local(epochs=60, batch_size=8, learning_rate=0.5)
    stopped = plain.model_copy(update={"early_stopping": EarlyStopping(patience=2, holdout=0.25)})
    long, short = (train(_task(model, params, x, y, local)) for local in (plain, stopped))
    assert long.steps == 60 * 5
    assert short.steps < 60 * 4


def test_one_record_and_one_batch_larger_than_the_client() -> None:
    x, y = _records((12,), 1)
    model = build(ModelChoice(name="softmax"), (12,), 3)
    params = {name: value.double() for name, value in model.init(torch_generator(0, "init")).items()}
    local = Local(epochs=1, batch_size=100, learning_rate=0.5, early_stopping=EarlyStopping())
    assert train(_task(model, params, x, y, local)).steps == 1


def test_evaluate_is_the_mean_over_all_records() -> None:
    x, y = _records((12,), 2500)
    model = build(ModelChoice(name="softmax"), (12,), 3)
    params = {name: value.double() for name, value in model.init(torch_generator(0, "init")).items()}
    logits = x @ params["layer0.weight"].T + params["layer0.bias"]
    found = evaluate(model, params, x, y)
    assert found.accuracy == pytest.approx(float((logits.argmax(1) == y).double().mean()), abs=1e-12)
    assert found.loss == pytest.approx(
        float(np.mean(-torch.log_softmax(logits, 1)[torch.arange(2500), y].numpy())), abs=1e-12
    )


def test_no_model_mixes_the_records_of_a_batch() -> None:
    for name, shape in SHAPES.items():
        choice = ModelChoice.model_validate({"name": name, "channels": 4})
        model = build(choice, shape, 3)
        params = {key: value.double() for key, value in model.init(torch_generator(0, "init")).items()}
        x, _ = _records(shape, 6)
        together = model.apply(params, x, None)
        alone = torch.cat([model.apply(params, x[i : i + 1], None) for i in range(6)])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
