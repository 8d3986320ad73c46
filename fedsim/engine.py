"""Runs worlds. Every world is one Flower federation; signals are measured while its messages pass, so no transcript is
kept.
"""

import hashlib
import importlib.util
import multiprocessing
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from flwr.app import Context, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp.typing import Mod
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import Strategy

from fedsim.apps import Bench, Outcome, Stock, bench, client_app, server_app
from fedsim.attack import Signal
from fedsim.errors import NotVisible, RunError, ScenarioError, Stopped
from fedsim.game import World
from fedsim.grid import RUN_ID, LocalGrid, task_identity
from fedsim.release import released
from fedsim.scenario import Plugin, Scenario
from fedsim.threads import pin, pinned
from fedsim.transcript import PUBLIC, SERVER, Event, frozen, update_digest
from fedsim.views import Ask, Floats, Public, Vantage, sees

EngineName = Literal["serial", "ray"]


class Recipes(NamedTuple):
    """How names in a scenario become Flower objects; module-level functions, since worker processes receive them."""

    strategy: Callable[[Plugin, bool], Strategy]
    mods: Callable[[Sequence[Plugin]], list[Mod]]
    min_clients: Callable[[Plugin], int]  # fewest replies a round with which the strategy does what its name says


@dataclass(frozen=True)
class Probe:
    """One signal measured from one vantage on one set of questions, in some of the worlds."""

    name: str
    vantage: Vantage
    ask: Ask
    signal: Signal
    worlds: frozenset[int]


@dataclass(frozen=True)
class Job:
    """All that a process needs to run any world of a draw."""

    scenario: Scenario
    stock: Stock
    worlds: tuple[World, ...]
    probes: tuple[Probe, ...]
    vantages: tuple[Vantage, ...]
    recipes: Recipes


@dataclass(frozen=True)
class WorldResult:
    """What a world leaves behind.

    signals: probe name -> float64 [rows, ...]. not_visible: probe name -> why. utility: float64 [rounds + 1, 4]: train
    accuracy, train loss, test accuracy, test loss. transcript, model: SHA-256 of all messages, and of the final
    parameters. sights: vantage -> messages by kind.
    """

    signals: Mapping[str, Floats]
    not_visible: Mapping[str, str]
    utility: Floats
    transcript: str
    model: str
    sights: Mapping[str, Mapping[str, int]]
    carried: Mapping[str, bool]


def public_facts(setup: Bench, world: World) -> Public:
    """Return what every party of a world knows."""
    model = setup.model(world)
    local = world.federation.local
    return Public(
        classes=setup.classes,
        clients=setup.clients,
        rounds=world.federation.rounds,
        apply=lambda params, x: model.apply(dict(params), x, None),
        local_epochs=local.epochs,
        batch_size=local.batch_size,
        learning_rate=local.learning_rate,
        optimizer=local.optimizer,
    )


def run_world(
    job: Job, index: int, setup: Bench, engine: EngineName = "serial", spare: Callable[[Event], None] | None = None
) -> WorldResult:
    """Return what world `index` of the job leaves behind; `spare`, if given, receives every event too (tests,
    transcripts on disk).

    Raises RunError where a client fails or the final model is not finite.
    """
    world = job.worlds[index]
    facts = public_facts(setup, world)
    probes = [probe for probe in job.probes if index in probe.worlds]
    states = {probe.name: probe.signal.start(facts, probe.ask) for probe in probes}
    hidden: dict[str, str] = {}
    transcript = hashlib.sha256()
    sights: dict[str, Counter[str]] = {str(vantage): Counter() for vantage in job.vantages}
    carried = dict.fromkeys(sights, False)

    def watch(event: Event) -> None:
        update_digest(transcript, event)
        for vantage in job.vantages:
            if sees(vantage, event):
                sights[str(vantage)][event.kind] += 1
                carried[str(vantage)] |= bool(event.arrays)
        for probe in probes:
            if probe.name not in hidden and sees(probe.vantage, event):
                try:
                    states[probe.name] = probe.signal.step(states[probe.name], event)
                except NotVisible as reason:
                    hidden[probe.name] = str(reason)
        if spare is not None:
            spare(event)

    outcome = Outcome()
    _run_federation(job, world, setup, engine, watch, outcome)
    arrays = frozen(outcome.arrays)
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise RunError(
            f"world {world.name}: training diverged, the final model is not finite; lower "
            "federation.local.learning_rate"
        )
    receiver = PUBLIC if job.scenario.release.access == "white_box" else SERVER
    final = Event(world.federation.rounds, "final", SERVER, receiver, arrays, {})
    watch(final)
    oracle = released(facts, arrays, job.scenario.release)
    signals: dict[str, Floats] = {}
    for probe in probes:
        if probe.name not in hidden:
            try:
                signals[probe.name] = probe.signal.finish(states[probe.name], oracle)
            except NotVisible as reason:
                hidden[probe.name] = str(reason)
    model = hashlib.sha256()
    update_digest(model, final)
    return WorldResult(
        signals=signals,
        not_visible=hidden,
        utility=np.array(outcome.utility, dtype=np.float64),
        transcript=transcript.hexdigest(),
        model=model.hexdigest(),
        sights={name: dict(counts) for name, counts in sights.items()},
        carried=carried,
    )


def _run_federation(
    job: Job, world: World, setup: Bench, engine: EngineName, sink: Callable[[Event], None], outcome: Outcome
) -> None:
    server = server_app(setup, world, partial(job.recipes.strategy, world.federation.strategy), sink, outcome)
    mods = job.recipes.mods(world.federation.mods)
    if engine == "ray":
        _run_on_ray(world, setup, mods, server)
        return
    with task_identity():
        grid = LocalGrid(client_app(world, lambda: setup, mods), setup.clients)
        context = Context(
            run_id=RUN_ID, node_id=0, node_config=UserConfig(), state=RecordDict(), run_config=UserConfig()
        )
        server(grid, context)


def _run_on_ray(world: World, setup: Bench, mods: list[Mod], server: ServerApp) -> None:
    """Run a world on Flower's own simulation engine, one actor a processor; each reads the bench once from a file."""
    if importlib.util.find_spec("ray") is None:
        raise ScenarioError("engine ray needs Flower's simulation extra: pip install 'fedsim-privacy[ray]'")
    from flwr.simulation import run_simulation

    with task_identity(), tempfile.TemporaryDirectory(prefix="fedsim-") as folder:
        path = Path(folder) / "bench.pt"
        torch.save({field.name: getattr(setup, field.name) for field in fields(setup)}, path)
        run_simulation(
            server_app=server,
            client_app=client_app(world, partial(_bench_from, str(path)), mods),
            num_supernodes=setup.clients,
            backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
        )


@lru_cache(maxsize=1)
def _bench_from(path: str) -> Bench:
    pin()
    return Bench(**torch.load(path, weights_only=True))


# Worlds in worker processes


_worker: dict[str, tuple[Job, Bench]] = {}  # what the initializer of a worker process leaves for its tasks


def _start_worker(job: Job) -> None:
    pin()
    _worker["job"] = (job, bench(job.scenario, job.stock))


def _work(index: int) -> WorldResult:
    job, setup = _worker["job"]
    return run_world(job, index, setup)


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Let processes started inside the block ignore Ctrl-C: the parent hears it and ends them in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run_worlds(
    job: Job, indices: Sequence[int], *, engine: EngineName = "serial", workers: int = 1
) -> Iterator[tuple[int, WorldResult]]:
    """Yield (world, what it leaves behind) for each of `indices`, in the order they finish; the numbers do not depend
    on `workers`.

    serial: each world in one process, `workers` of them side by side. ray: one world after the other on Flower's
    simulation engine.
    """
    if engine == "ray" or workers == 1 or len(indices) == 1:
        with pinned():
            setup = bench(job.scenario, job.stock)
            for index in indices:
                yield index, run_world(job, index, setup, engine)
        return
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["fedsim.engine"])
    pool = ProcessPoolExecutor(min(workers, len(indices)), context, _start_worker, (job,))
    try:
        with _deaf_children():
            waiting = {pool.submit(_work, index): index for index in indices}
        for done in as_completed(waiting):
            yield waiting[done], done.result()
    except BrokenProcessPool:
        raise Stopped(
            "a worker process died, often for want of memory; try fewer --workers (the same command goes on "
            "where this stopped)"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
