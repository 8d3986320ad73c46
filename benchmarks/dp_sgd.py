"""Record-level DP-SGD: `python -m benchmarks.dp_sgd [--quick]` times one step, ours and others', and prints a table.

A step is the gradient of each of 128 records, clipped to length 1, their mean, and SGD with momentum. Everybody has one
thread and keeps freed memory, and nobody adds noise: it costs the same on all sides. Contenders take turns; seconds are
the processor's. After three steps all private ones must have the same parameters.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from statistics import median
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.opponents.local import module, optimizer
from benchmarks.report import Record, show
from benchmarks.workloads import CLASSES, LOCAL, WORKLOADS, Task, Workload, records
from fedsim.gradients import Apply, clipped_sum
from fedsim.models import build
from fedsim.randomness import torch_generator
from fedsim.threads import pinned, tune_allocator
from fedsim.training import sgd

Mode = Literal["full", "quick"]

BATCH = 128
NORM = 1.0
CLOSE = 1e-5  # parameters after three steps in float32 differ by less
TURN_SECONDS = 0.05
TURNS = {"full": {"W2": 60, "W3": 30}, "quick": {"W2": 10, "W3": 4}}


class Contender(NamedTuple):
    """A step to take again and again, and the parameters that it moves."""

    step: Callable[[], None]
    parameters: Sequence[Tensor]


def ours(task: Task) -> Contender:
    """Return fedsim's private step."""
    names, leaves, apply = _model(task)
    move = sgd(LOCAL.model_copy(update={"learning_rate": LOCAL.learning_rate / BATCH}))  # the mean, not the sum

    def step() -> None:
        total, _ = clipped_sum(apply, dict(zip(names, leaves, strict=True)), task.x, task.y, NORM)
        move(leaves, list(total.values()))

    return Contender(step, leaves)


def not_private(task: Task) -> Contender:
    """Return fedsim's step without privacy."""
    names, leaves, apply = _model(task)
    move = sgd(LOCAL)

    def step() -> None:
        learned = [leaf.detach().requires_grad_() for leaf in leaves]
        loss = F.cross_entropy(apply(dict(zip(names, learned, strict=True)), task.x), task.y)
        move(leaves, list(torch.autograd.grad(loss, learned)))

    return Contender(step, leaves)


def _model(task: Task) -> tuple[list[str], list[Tensor], Apply]:
    """The names and values of our parameters, and our model without dropout."""
    model = build(task.model, tuple(task.x.shape[1:]), CLASSES)
    names = list(model.init(torch.Generator()))
    return names, [value.clone() for value in task.start], lambda params, x: model.apply(dict(params), x, None)


def one_at_a_time(task: Task) -> Contender:
    """Return the definition in plain PyTorch: a backward pass for each record."""
    model = module(task)
    parameters = list(model.parameters())
    move = optimizer(parameters)

    def step() -> None:
        total = [torch.zeros_like(parameter) for parameter in parameters]
        for x, y in zip(torch.split(task.x, 1), torch.split(task.y, 1), strict=True):
            gradients = torch.autograd.grad(F.cross_entropy(model(x), y), parameters)
            scale = (NORM / torch.nn.utils.get_total_norm(gradients)).clamp(max=1.0)
            torch._foreach_add_(total, torch._foreach_mul(gradients, scale))
        for parameter, value in zip(parameters, total, strict=True):
            parameter.grad = value / BATCH
        move.step()

    return Contender(step, parameters)


def opacus(task: Task) -> Contender:
    """Return Opacus' step as its users run it."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    model = module(task)
    private = GradSampleModule(model)
    move = DPOptimizer(
        optimizer(model.parameters()), noise_multiplier=0.0, max_grad_norm=NORM, expected_batch_size=BATCH
    )

    def step() -> None:
        move.zero_grad()
        F.cross_entropy(private(task.x), task.y).backward()  # type: ignore[no-untyped-call]
        move.step()

    return Contender(step, list(model.parameters()))


def opacus_ghost(task: Task) -> Contender:
    """Return Opacus' step with ghost clipping: lengths in one backward pass, the clipped sum in another."""
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    model = module(task)
    private = GradSampleModuleFastGradientClipping(model, max_grad_norm=NORM, use_ghost_clipping=True)
    move = DPOptimizerFastGradientClipping(
        optimizer(model.parameters()), noise_multiplier=0.0, max_grad_norm=NORM, expected_batch_size=BATCH
    )
    loss = DPLossFastGradientClipping(private, move, nn.CrossEntropyLoss())

    def step() -> None:
        move.zero_grad()
        loss(private(task.x), task.y).backward()
        move.step()

    return Contender(step, list(model.parameters()))


class Opponent(NamedTuple):
    """What our step is compared with; target: of the ratio, by workload."""

    title: str
    make: Callable[[Task], Contender]
    target: Mapping[str, float]
    private: bool = True
    needs: str = "torch"


OPPONENTS = (
    Opponent("a step without privacy", not_private, {"W2": 1.3}, private=False),
    Opponent("PyTorch, one record at a time", one_at_a_time, {}),
    Opponent("Opacus, DPOptimizer", opacus, {"W2": 8, "W3": 1.2}, needs="opacus"),
    Opponent("Opacus, ghost clipping", opacus_ghost, {}, needs="opacus"),
)


def compare(mode: Mode) -> list[Record]:
    """Return the records of the benchmark; a round is a step. Against the step without privacy, the ratio is ours over
    its.
    """
    workloads = {workload.name: workload for workload in WORKLOADS}
    tune_allocator()
    with warnings.catch_warnings(), pinned():
        warnings.simplefilter("ignore")  # what Opacus and its hooks say of themselves
        return [record for name, turns in TURNS[mode].items() for record in _compare(workloads[name], turns)]


def _compare(workload: Workload, turns: int) -> Iterator[Record]:
    data = records(workload)
    start = build(workload.model, data.x.shape[1:], CLASSES).init(torch_generator(0, "start"))
    x, y = torch.from_numpy(data.x[:BATCH]), torch.from_numpy(data.y[:BATCH])
    task = Task(workload.model, 1, x, y, torch.arange(0), tuple(start.values()), ())
    us, them = ours(task), {each.title: each.make(task) for each in OPPONENTS if find_spec(each.needs)}
    for contender in (us, *them.values()):
        for _ in range(3):
            contender.step()
    apart = {title: _largest_difference(us, other) for title, other in them.items()}
    seconds, *theirs = _take_turns([us, *them.values()], turns)
    spent = dict(zip(them, theirs, strict=True))
    for opponent in OPPONENTS:
        record = Record(
            workload=f"W5 {workload.model.name}",
            title=f"a step of DP-SGD, {BATCH} records",
            opponent=opponent.title,
            target=opponent.target.get(workload.name),
            at_most=not opponent.private,
            seconds_a_round=median(seconds),
            seconds_a_round_range=(min(seconds), max(seconds)),
            runs=turns,
            synthetic_data=data.synthetic,
        )
        if opponent.title not in spent:
            yield replace(record, skipped=f"the package {opponent.needs} is not installed")
            continue
        times = spent[opponent.title]
        yield replace(
            record,
            ratio=median(times) / median(seconds) if opponent.private else median(seconds) / median(times),
            opponent_seconds_a_round=median(times),
            opponent_seconds_a_round_range=(min(times), max(times)),
            parameter_difference=apart[opponent.title] if opponent.private else None,
        )


def _take_turns(contenders: Sequence[Contender], turns: int) -> list[list[float]]:
    """Return the processor's seconds that a step took each contender, turn by turn."""
    return [list(column) for column in zip(*([_turn(each) for each in contenders] for _ in range(turns)), strict=True)]


def _turn(contender: Contender) -> float:
    begin, steps = time.process_time(), 0
    while (spent := time.process_time() - begin) < TURN_SECONDS:
        contender.step()
        steps += 1
    return spent / steps


def _largest_difference(one: Contender, other: Contender) -> float:
    pairs = zip(one.parameters, other.parameters, strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def main() -> None:
    """Print the table; fail where a private step ended with other parameters than ours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer turns")
    found = compare("quick" if parser.parse_args().quick else "full")
    show(found, "record-level DP-SGD (milliseconds a step)")
    if any((record.parameter_difference or 0) > CLOSE for record in found):
        raise SystemExit("a contender's parameters differ from ours: they do not take the same step")


if __name__ == "__main__":
    main()
