"""DP-SGD against a naive loop, against Opacus, and against its own noise."""

import warnings
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import Tensor

from fedsim.dp_sgd import train_alone, train_private
from fedsim.models import build
from fedsim.randomness import generator, torch_generator
from fedsim.scenario import EarlyStopping, Local, ModelChoice
from fedsim.training import Private, Task, train

CLASSES, FEATURES, RECORDS = 3, 5, 12


def _task(seed: int = 1, model: dict[str, Any] | None = None, **local: Any) -> Task:
    choice = ModelChoice.model_validate({"name": "mlp", "hidden": (4,), **(model or {})})
    built = build(choice, (FEATURES,), CLASSES)
    rng = generator(seed, "records")
    return Task(
        built,
        {name: value.double() for name, value in built.init(torch_generator(seed, "init")).items()},
        torch.from_numpy(rng.standard_normal((RECORDS + 8, FEATURES))),
        torch.from_numpy(rng.integers(0, CLASSES, RECORDS + 8)),
        torch.from_numpy(rng.permutation(RECORDS + 8)[:RECORDS]),
        Local.model_validate({"epochs": 2, "batch_size": 4, "learning_rate": 0.3, **local}),
        generator(seed, "order"),
        torch_generator(seed, "dropout") if choice.dropout else None,
    )


def _flat(params: dict[str, Tensor]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.concatenate([params[name].numpy().ravel() for name in sorted(params)])


def _naive(task: Task, clip: float) -> dict[str, Tensor]:
    """Plain SGD, one record after the other, without noise."""
    x, y, order = task.x[task.rows], task.y[task.rows], generator(1, "order")
    params = {name: value.clone() for name, value in task.params.items()}
    batch = min(task.local.batch_size, RECORDS)
    for _ in range(task.local.epochs * -(-RECORDS // task.local.batch_size)):
        joined = [i for i, draw in enumerate(order.random(RECORDS)) if draw < batch / RECORDS]
        sums = {name: torch.zeros_like(value) for name, value in params.items()}
        for i in joined:
            leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
            loss = F.cross_entropy(task.model.apply(leaves, x[i : i + 1], None), y[i : i + 1])
            gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
            length = float(torch.sqrt(torch.stack([(g**2).sum() for g in gradients.values()]).sum()))
            for name, gradient in gradients.items():
                sums[name] += gradient * min(1.0, clip / length)
        for name in params:
            params[name] = params[name] - task.local.learning_rate * sums[name] / batch
    return params


@pytest.mark.parametrize("clip", [0.05, 0.7, 100.0])
@pytest.mark.parametrize("batch_size", [1, 4, 5, 40])
def test_without_noise_it_is_a_loop_over_records(clip: float, batch_size: int) -> None:
    found = train_private(_task(batch_size=batch_size), clip, 0.0, generator(0, "noise"))
    expected = _naive(_task(batch_size=batch_size), clip)
    for name, value in found.params.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-12)
    assert found.steps == 2 * -(-RECORDS // batch_size)
    assert found.loss == 0


def test_a_full_batch_with_a_loose_norm_is_plain_training() -> None:
    """Nothing is sampled away and nothing clipped; weight decay and momentum act as always."""
    recipe: dict[str, Any] = {"batch_size": RECORDS, "momentum": 0.9, "weight_decay": 0.01, "epochs": 5}
    private = train_private(_task(**recipe), 1e6, 0.0, generator(0, "noise"))
    plain = train(_task(**recipe))
    for name, value in private.params.items():
        torch.testing.assert_close(value, plain.params[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_each_optimiser_follows_the_private_sum(optimizer: str) -> None:
    recipe: dict[str, Any] = {"optimizer": optimizer, "batch_size": RECORDS, "clip_gradient": 0.5}
    task = _task(**recipe)._replace(proximal_mu=0.1)
    plain = train(_task(**recipe)._replace(proximal_mu=0.1))
    private = train_private(task, 1e6, 0.0, generator(0, "noise"))
    np.testing.assert_allclose(_flat(private.params), _flat(plain.params), rtol=1e-8, atol=1e-10)


def test_opacus_sums_the_same_clipped_gradients() -> None:
    opacus = pytest.importorskip("opacus")
    clip = 0.4
    task = _task(batch_size=RECORDS, epochs=1, learning_rate=1.0)
    module = torch.nn.Sequential(torch.nn.Linear(FEATURES, 4), torch.nn.ReLU(), torch.nn.Linear(4, CLASSES)).double()
    with torch.no_grad():
        for mine, theirs in zip(task.params.values(), module.parameters(), strict=True):
            theirs.copy_(mine)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Opacus's hooks warn about the version of torch
        wrapped = opacus.GradSampleModule(module)
        optimizer = opacus.optimizers.DPOptimizer(
            torch.optim.SGD(wrapped.parameters(), lr=1.0),
            noise_multiplier=0.0,
            max_grad_norm=clip,
            expected_batch_size=RECORDS,
        )
        torch.autograd.backward(F.cross_entropy(wrapped(task.x[task.rows]), task.y[task.rows]))
        optimizer.step()
    found = train_private(task, clip, 0.0, generator(0, "noise")).params
    for mine, theirs in zip(found.values(), module.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs.detach(), rtol=1e-5, atol=1e-7)  # Opacus divides by length + 1e-6


def _noise(multiplier: float, clip: float, batch_size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What noise adds to the parameters in one step of length 1, over many runs."""
    drawn = []
    still = _flat(train_private(_task(epochs=1, learning_rate=1.0, batch_size=12), clip, 0.0, generator(0, "n")).params)
    for run in range(200):
        task = _task(epochs=1, learning_rate=1.0, batch_size=batch_size)
        drawn.append(_flat(train_private(task, clip, multiplier, generator(run, "noise")).params) - still)
    return np.concatenate(drawn)


def test_the_noise_has_the_standard_deviation_that_is_accounted_for() -> None:
    """z C / batch, in every coordinate: rejected for 1 seed in a million; 2/3 and 3/2 of it must be."""
    noise = _noise(1.3, 0.5, RECORDS)
    std = 1.3 * 0.5 / RECORDS
    assert scipy.stats.kstest(noise, "norm", args=(0, std)).pvalue > 1e-6
    for wrong in (std * 2 / 3, std * 3 / 2):
        assert scipy.stats.kstest(noise, "norm", args=(0, wrong)).pvalue < 1e-6


def test_an_empty_batch_is_noise_alone() -> None:
    """A batch of 1 in 12 is empty in a third of the steps. The noise of each arrives; gradients are negligible."""
    for seed in range(20):
        task = _task(batch_size=1, epochs=1)._replace(order=generator(seed, "order"))
        found = train_private(task, 1e-9, 1e9, generator(seed, "noise"))
        drawn = generator(seed, "noise").standard_normal((found.steps, len(_flat(task.params)))).sum(axis=0)
        np.testing.assert_allclose(_flat(found.params), _flat(task.params) - 0.3 * drawn, atol=1e-7)


def test_batches_are_poisson() -> None:
    """Each of 12 records joins each of 600 steps with probability 1/3: rejected for 1 seed in a million. Batches of the
    same size every time must be rejected.
    """
    task, sizes = _task(epochs=200, learning_rate=1e-3), list[int]()

    def counted(params: dict[str, Tensor], x: Tensor, noise: torch.Generator | None) -> Tensor:
        sizes.append(len(x))
        return task.model.apply(params, x, noise)

    train_private(task._replace(model=task.model._replace(apply=counted)), 1.0, 0.0, generator(0, "noise"))

    def fits(sizes: list[int]) -> bool:
        seen = np.bincount(sizes, minlength=RECORDS + 1)
        seen[0] += 600 - len(sizes)  # empty batches ask nothing of the model
        cells = [[0, 1], [2], [3], [4], [5], [6], [7, 8, 9, 10, 11, 12]]
        law = scipy.stats.binom.pmf(np.arange(RECORDS + 1), RECORDS, 1 / 3)
        expected = [600 * law[cell].sum() for cell in cells]
        return bool(scipy.stats.chisquare([seen[cell].sum() for cell in cells], expected).pvalue > 1e-6)

    assert fits(sizes)
    assert not fits([4] * 600)


def test_canaries_join_as_often_as_records() -> None:
    """10,000 of them in one coordinate, 3 steps at 1/3: 10,000 pushes within five standard deviations (1 seed in a
    million fails); the 12 records add a push each at most.
    """
    still = _task(epochs=1, learning_rate=1.0)
    moved = train_private(_task(epochs=1, learning_rate=1.0), 1.0, 0.0, generator(0, "noise"), [0] * 10_000)
    pushes = (_flat(still.params) - _flat(moved.params))[0] * 4
    assert pushes == pytest.approx(10_000, abs=5 * (30_000 * 2 / 9) ** 0.5 + 36)


def test_a_canary_pushes_one_coordinate_as_far_as_a_record_may() -> None:
    """Names in alphabetical order; with full batches it joins every step, and moves nothing else."""
    recipe: dict[str, Any] = {"batch_size": RECORDS, "epochs": 1, "learning_rate": 1.0}
    plain = train_private(_task(**recipe), 0.3, 0.0, generator(0, "noise"))
    planted = train_private(_task(**recipe), 0.3, 0.0, generator(0, "noise"), [2, 7, 7])
    moved = _flat(planted.params) - _flat(plain.params)
    expected = np.zeros(len(moved))
    expected[2], expected[7] = -0.3 / RECORDS, -2 * 0.3 / RECORDS
    np.testing.assert_allclose(moved, expected, atol=1e-12)


def test_dropout_draws_its_masks() -> None:
    once, again, other = (
        _flat(train_private(_task(model={"dropout": 0.5})._replace(noise=noise), 1.0, 0.0, generator(0, "n")).params)
        for noise in (torch_generator(1, "masks"), torch_generator(1, "masks"), None)
    )
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


def test_same_randomness_same_bytes_and_the_task_is_left_as_it_was() -> None:
    task = _task()
    before = _flat(task.params).copy()
    once = train_private(task, 1.0, 1.0, generator(3, "noise"))
    again = train_private(_task(), 1.0, 1.0, generator(3, "noise"))
    assert np.array_equal(_flat(once.params), _flat(again.params))
    assert np.array_equal(_flat(task.params), before)


def test_a_task_that_asks_for_it_is_trained_privately() -> None:
    private = Private(0.5, 1.0, generator(3, "noise"), (1,))
    found = train_alone(_task()._replace(private=private))
    expected = train_private(_task(), 0.5, 1.0, generator(3, "noise"), (1,))
    assert np.array_equal(_flat(found.params), _flat(expected.params))
    assert np.array_equal(_flat(train_alone(_task()).params), _flat(train(_task()).params))


@pytest.mark.parametrize(
    ("local", "clip", "multiplier", "canaries", "message"),
    [
        ({"early_stopping": EarlyStopping()}, 1.0, 1.0, [], "stop early"),
        ({"label_smoothing": 0.1}, 1.0, 1.0, [], "label smoothing"),
        ({}, 0.0, 1.0, [], "clipping norm > 0"),
        ({}, 1.0, -1.0, [], "noise multiplier >= 0"),
        ({}, 1.0, 1.0, [10_000], "coordinates of the"),
    ],
)
def test_what_would_break_the_guarantee_is_refused(
    local: dict[str, Any], clip: float, multiplier: float, canaries: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train_private(_task(**local), clip, multiplier, generator(0, "noise"), canaries)
