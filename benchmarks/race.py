"""One run of an opponent in a process of its own, with the time of each round and the memory that it took."""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.workloads import Task, read_task
from fedsim.processes import METHOD, warm_up

Tick = Callable[[Sequence[Tensor]], None]
"""Called by an opponent at the end of each round with the shared model's parameters."""

SAMPLES_A_SECOND = 2
PATIENCE = 900.0  # seconds that an opponent may take


class Opponent(NamedTuple):
    """A simulator to compare with. `needs`: the package without which it cannot run, and how to get it."""

    title: str
    module: str
    needs: str
    options: dict[str, int]
    has_path: bool = False


OPPONENTS = {
    "ray": Opponent("Flower's Ray engine", "benchmarks.opponents.flower_ray", "ray", {}, has_path=True),
    "blazefl": Opponent("BlazeFL, 2 threads", "benchmarks.opponents.blazefl_threads", "blazefl", {"threads": 2}),
    "pfl": Opponent("pfl-research", "benchmarks.opponents.pfl_research", "pfl", {}),
    "loop": Opponent("PyTorch loop, 1 thread", "benchmarks.opponents.loop", "torch", {"threads": 1}),
    "loop-2": Opponent("PyTorch loop, 2 threads", "benchmarks.opponents.loop", "torch", {"threads": 2}),
}


class Model(NamedTuple):
    """A shared model after the last round."""

    parameters: NDArray[np.float64]  # [parameters], from the first layer's weight to the last layer's bias
    accuracy: float  # on held-out records


class Run(NamedTuple):
    """What one run took. Opponents: seconds from the end of the first round to the end of the last; starting up lasts
    until the end of the first.
    """

    seconds_a_round: float
    start_up_seconds: float
    peak_bytes: int
    model: Model | None = None


class Skipped(Exception):
    """An opponent that cannot be run here; the text says why."""


def missing(opponent: Opponent) -> str | None:
    """Return why an opponent cannot run here, or None."""
    if find_spec(opponent.needs) is not None:
        return None
    return f"the package {opponent.needs} is not installed"


def race(name: str, path: Path) -> Run:
    """Return one run of an opponent on the task in `path`.

    Raises: Skipped where it is not installed or fails.
    """
    opponent = OPPONENTS[name]
    if reason := missing(opponent):
        raise Skipped(reason)
    context = processes()
    ours, theirs = context.Pipe(duplex=False)
    log = path.with_suffix(f".{name}.log")
    # pfl has no distributed context, and fails, in a process that is called anything else.
    child = context.Process(target=_child, args=(name, path, log, theirs), name="MainProcess", daemon=True)
    with peak_memory(lambda: child.pid) as memory:
        child.start()
        theirs.close()
        answer = _answer(ours)
    if isinstance(answer, str):
        child.kill()
        raise Skipped(f"{answer}; last line of its log: {_last_line(log)}")
    child.join()
    times, model = answer
    return Run((times[-1] - times[1]) / (len(times) - 2), times[1] - times[0], memory[0], model)


def _answer(ours: Connection) -> tuple[list[float], Model] | str:
    """Return what a child says within `PATIENCE`, or what went wrong."""
    if not ours.poll(PATIENCE):
        return f"no answer in {PATIENCE:.0f} seconds"
    try:
        return ours.recv()  # type: ignore[no-any-return]
    except EOFError:
        return "its process died"


def processes() -> Any:
    """Return how fedsim makes processes: forked from one that has torch and Flower in memory."""
    warm_up()
    return multiprocessing.get_context(METHOD)


def _child(name: str, path: Path, log: Path, answer: Connection) -> None:
    with log.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    opponent = OPPONENTS[name]
    task = read_task(path)
    last: list[Tensor] = []
    times: list[float] = []

    def tick(parameters: Sequence[Tensor]) -> None:
        times.append(time.perf_counter())
        last[:] = parameters

    try:
        run = import_module(opponent.module).run
        times.append(time.perf_counter())
        run(task, tick, **opponent.options, **({"path": path} if opponent.has_path else {}))
        if len(times) != len(task.rounds) + 1:
            raise RuntimeError(f"expected {len(task.rounds)} rounds, got {len(times) - 1}")
        answer.send((times, _model(task, last)))
    except Exception as error:
        answer.send(f"{type(error).__name__}: {error}")
        raise


def _model(task: Task, parameters: Sequence[Tensor]) -> Model:
    from benchmarks.opponents.local import load, module

    network = module(task)
    load(network, parameters)
    with torch.no_grad():
        right = network(task.x[task.test]).argmax(dim=1) == task.y[task.test]
    flat = torch.cat([value.flatten() for value in parameters]).double().numpy()
    return Model(flat, float(right.double().mean()))


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "(empty)"


@contextmanager
def peak_memory(pid: Callable[[], int | None]) -> Iterator[list[int]]:
    """Yield a list whose one number, after the block, is the largest sum of the resident bytes of a process and all
    its descendants; a page that two of them share counts twice.
    """
    peak, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(1 / SAMPLES_A_SECOND):
            if root := pid():
                peak[0] = max(peak[0], _resident(root))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def _resident(root: int) -> int:
    total = 0
    try:
        tree = [psutil.Process(root), *psutil.Process(root).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in tree:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def peak_flops(count: int, seconds: float = 1.0) -> float:
    """Return the floating-point operations a second of torch's product of two 1024 x 1024 matrices, summed over so
    many single-thread processes at work at the same time.
    """
    context = processes()
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    start = context.Barrier(count)
    children = [context.Process(target=_multiply, args=(start, seconds, sender)) for _, sender in pipes]
    for child in children:
        child.start()
    rates = [receiver.recv() for receiver, _ in pipes]
    for child in children:
        child.join()
    return float(sum(rates))


def _multiply(start: "threading.Barrier", seconds: float, answer: Connection) -> None:
    torch.set_num_threads(1)
    a, b = torch.full((1024, 1024), 0.5), torch.full((1024, 1024), 0.25)
    out = torch.mm(a, b)
    start.wait()
    rates = []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        torch.mm(a, b, out=out)
        rates.append(2 * 1024**3 / (time.perf_counter() - begin))
    answer.send(median(rates))
