"""Runs worlds. Every world is one Flower federation; signals are measured while its messages pass, so no transcript is
kept.
"""

import gc
import importlib.util
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import lru_cache, partial
from math import ceil
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from flwr.serverapp import ServerApp

from fedsim.apps import Bench, Outcome, bench, cohort_size, nodes, server_app
from fedsim.errors import ScenarioError
from fedsim.grid import task_identity
from fedsim.job import Job, WorldResult
from fedsim.lockstep import make_client, run_together, serve
from fedsim.models import build, parameter_count
from fedsim.processes import MEMORY, side_by_side
from fedsim.stacked import Recipe, places, stackable
from fedsim.tape import Recorder
from fedsim.threads import pin, pinned, settled, tune_allocator
from fedsim.transcript import Event
from fedsim.watch import Watch

EngineName = Literal["lockstep", "serial", "ray"]

MODELS_TOGETHER = 64
"""Beyond so many small models, training them together gains nothing more."""
PIECES = 2
"""Pieces of work for each process, at least."""


def run_world(
    job: Job, index: int, setup: Bench, engine: EngineName = "serial", spare: Callable[[Event], None] | None = None
) -> WorldResult:
    """Return what world `index` of the job leaves behind, alone on an engine that runs one world at a time; `spare`, if
    given, receives every event too (tests, transcripts on disk).

    Raises RunError where a client fails or the final model is not finite.
    """
    world, outcome = job.worlds[index], Outcome()
    watch = Watch(job, index, setup, spare)
    server = server_app(setup, world, partial(job.recipes.strategy, world.federation.strategy), watch.see, outcome)
    if engine == "ray":
        _run_on_ray(job, index, setup, server)
    else:
        with task_identity():
            serve(server, make_client(job, index, lambda: setup), nodes(setup, world))
    return watch.finish(outcome)


def _run_on_ray(job: Job, index: int, setup: Bench, server: ServerApp) -> None:
    """Run a world on Flower's own simulation engine, one actor a processor; each reads the bench once from a file."""
    if importlib.util.find_spec("ray") is None:
        raise ScenarioError("engine ray needs Flower's simulation extra: pip install 'fedsim-privacy[ray]'")
    from flwr.simulation import run_simulation

    with task_identity(), tempfile.TemporaryDirectory(prefix="fedsim-") as folder:
        path = Path(folder) / "bench.pt"
        torch.save({field.name: getattr(setup, field.name) for field in fields(setup)}, path)
        run_simulation(
            server_app=server,
            client_app=make_client(job, index, partial(_bench_from, str(path))),
            num_supernodes=nodes(setup, job.worlds[index]),
            backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
        )


@lru_cache(maxsize=1)
def _bench_from(path: str) -> Bench:
    pin()
    return Bench(**torch.load(path, weights_only=True))


# Worlds in worker processes


class _How(NamedTuple):
    """How worlds are to be run."""

    engine: EngineName
    messages: bool
    tapes: Path | None


_worker: dict[str, tuple[Job, Bench, _How]] = {}  # what the initializer of a worker process leaves for its tasks


def _start_worker(given: tuple[Job, _How]) -> None:
    job, how = given
    pin()
    tune_allocator()
    _worker["job"] = (job, bench(job.scenario, job.stock), how)
    gc.freeze()  # see `settled`


def _run(job: Job, indices: Sequence[int], setup: Bench, how: _How) -> Iterator[tuple[int, WorldResult]]:
    """Yield what each world leaves behind; its tape, if one is wanted, is finished by then."""
    tapes = {index: Recorder(tape_of(how.tapes, index)) for index in indices} if how.tapes else {}

    def spare(index: int) -> Callable[[Event], None] | None:
        return tapes[index].add if tapes else None

    try:
        if how.engine == "lockstep":
            worlds = run_together(job, indices, setup, messages=how.messages, spare=spare)
        else:
            worlds = ((index, run_world(job, index, setup, how.engine, spare(index))) for index in indices)
        for index, left in worlds:
            if tapes:
                tapes.pop(index).finish()
            yield index, left
    finally:
        for unfinished in tapes.values():
            unfinished.discard()


def tape_of(folder: Path, index: int) -> Path:
    """Return where the transcript of world `index` of a job is."""
    return folder / f"{index:05d}"


def _work(indices: Sequence[int]) -> list[tuple[int, WorldResult]]:
    job, setup, how = _worker["job"]
    return list(_run(job, indices, setup, how))


def world_bytes(job: Job, index: int) -> int:
    """Return about how much memory world `index` takes while it runs: the models of a round, as messages and as
    arrays, and the inner products that stacked training keeps.
    """
    world, shape = job.worlds[index], job.stock.x.shape[1:]
    model, local = build(world.model, shape, job.stock.classes), world.federation.local
    numbers = (3 * cohort_size(world) + 4) * parameter_count(world.model, shape, job.stock.classes)
    if model.dense is not None and stackable(model, local):
        kinds = Counter(places(len(rows), local, model.dense) for rows in world.rows if len(rows))
        dtype = torch.float64 if job.scenario.dtype == "float64" else torch.float32
        kept = ((Recipe(model.dense, local, 0.0, *kind, dtype).kept, count) for kind, count in kinds.items())
        numbers += sum(each * count for each, count in kept)
    return round(numbers) * (8 if job.scenario.dtype == "float64" else 4)


def _largest(job: Job, indices: Sequence[int]) -> int:
    """Return about how much memory the largest of some worlds takes, judged by a handful of them."""
    return max((world_bytes(job, index) for index in indices[:: max(1, len(indices) // 8)]), default=1)


def fitting_workers(job: Job, indices: Sequence[int], workers: int, memory: int) -> int:
    """Return how many of `workers` processes can each have a world under way in `memory` bytes; at least one."""
    return max(1, min(workers, memory // _largest(job, indices)))


def chunks(job: Job, indices: Sequence[int], workers: int, memory: int) -> list[Sequence[int]]:
    """Return `indices` in pieces that advance together: enough models to train at once, few enough to fit `memory`
    bytes with `workers` pieces under way, and several pieces a worker, so that nobody waits long for the last and
    little is lost when a run is stopped.
    """
    if not indices:
        return []
    smallest = min(cohort_size(job.worlds[index]) for index in indices)
    useful, fitting = ceil(MODELS_TOGETHER / max(smallest, 1)), memory // (workers * _largest(job, indices))
    size = max(1, min(useful, fitting, len(indices) // (PIECES * workers)))
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def run_worlds(
    job: Job,
    indices: Sequence[int],
    *,
    engine: EngineName = "lockstep",
    workers: int = 1,
    memory: int = MEMORY,
    messages: bool = False,
    tapes: Path | None = None,
) -> Iterator[tuple[int, WorldResult]]:
    """Yield (world, what it leaves behind) for each of `indices`, in the order they finish; the numbers do not depend
    on `workers` or `memory`.

    lockstep: worlds in pieces that advance together, `workers` processes fed from one queue. serial: each world alone,
    in `workers` processes. ray: one world after the other on Flower's simulation engine. memory: bytes that the worlds
    under way may take, besides the records and the code. messages: send every message through Flower, also where
    lockstep could do without. tapes: a folder to keep each world's transcript in, at `tape_of` it.
    """
    if engine == "lockstep":
        workers = fitting_workers(job, indices, workers, memory)
        pieces = chunks(job, indices, workers, memory)
    else:
        pieces = [[index] for index in indices]
    how = _How(engine, messages, tapes)
    if engine == "ray" or workers == 1 or len(pieces) == 1:
        with pinned(), settled():
            setup = bench(job.scenario, job.stock)
            for piece in pieces:
                yield from _run(job, piece, setup, how)
        return
    for _, done in side_by_side(_work, pieces, workers, _start_worker, (job, how)):
        yield from done
