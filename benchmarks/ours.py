"""fedsim's side of the benchmark: whole runs of worlds, timed, and the same federation's model for comparison."""

import os
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from attacks import ATTACKS
from benchmarks.race import Model, Run, peak_memory
from benchmarks.workloads import MARKERS, Precision, Workload, job, owners
from fedsim.attack import Signal
from fedsim.engine import run_worlds
from fedsim.job import Job, Probe
from fedsim.transcript import Event
from fedsim.views import Ask, Floats, Oracle, Public, RecordAsk, Records, Vantage, parse_vantage

WORKERS = 2
CANDIDATES = 1000
AUDIT = {"lira": "public", "rmia": "public", "update_cosine": "server"}


def run(one: Job, worlds: Sequence[int], messages: bool) -> Run:
    """Time some real worlds of a job (numbered from 0), on the path through Flower's messages or the fastest one.

    Starting up is a run of worlds of one round of one record; what is left is training, aggregation and utility.
    """
    with peak_memory(os.getpid) as memory:
        start_up = _seconds(one, range(min(len(worlds), MARKERS)), messages)
        total = _seconds(one, [MARKERS + world for world in worlds], messages)
    rounds = sum(one.worlds[MARKERS + world].federation.rounds for world in worlds)
    return Run((total - start_up) / rounds, start_up, memory[0])


def _seconds(one: Job, indices: Sequence[int], messages: bool) -> float:
    begin = time.perf_counter()
    for _ in run_worlds(one, list(indices), engine="lockstep", workers=WORKERS, messages=messages):
        pass
    return time.perf_counter() - begin


def model(workload: Workload, rounds: int, dtype: Precision = "float32") -> Model:
    """Return the model of the first world after so many rounds: what an opponent's model must equal."""
    nobody = Records(np.zeros((1, 1), np.float32), np.zeros(1, np.int64), np.full(1, -1))
    probe = _probe("model", "server", RecordAsk(nobody, nobody), Signal(_start, _step, _finish, "models"), workload, 1)
    one = job(workload, 1, rounds, [probe], [probe.vantage], dtype)
    ((_, result),) = run_worlds(one, [MARKERS], engine="lockstep", workers=WORKERS)
    return Model(result.signals["model"], float(result.utility[-1, 2]))


def _start(_public: Public, _ask: Ask) -> Floats:
    return np.zeros(0)


def _step(state: Floats, event: Event) -> Floats:
    return np.concatenate([array.ravel() for array in event.arrays.values()]) if event.kind == "final" else state


def _finish(state: Floats, _oracle: Oracle) -> Floats:
    return state.astype(np.float64)


def audited(
    workload: Workload, one: Job, candidates: int = CANDIDATES, attacks: Mapping[str, str] = MappingProxyType(AUDIT)
) -> Job:
    """Return the job with an audit on it: the signals of some attacks, and from where each looks, for so many of the
    records that may train.
    """
    stock, worlds = one.stock, len(one.worlds) - MARKERS
    items = Records(stock.x[:candidates], stock.y[:candidates], owners(workload, 0)[:candidates])
    population = Records(stock.x[stock.test], stock.y[stock.test], np.full(len(stock.test), -1))
    probes = tuple(
        _probe(name, where, RecordAsk(items, population), ATTACKS[name].signal, workload, worlds)
        for name, where in attacks.items()
    )
    vantages: tuple[Vantage, ...] = tuple(dict.fromkeys(probe.vantage for probe in probes))
    return Job(one.scenario, stock, one.worlds, probes, vantages, one.recipes)


def _probe(name: str, where: str, ask: Ask, signal: Signal, workload: Workload, worlds: int) -> Probe:
    real = frozenset(range(MARKERS, MARKERS + worlds))
    return Probe(name, parse_vantage(where, workload.clients), ask, signal, real)
