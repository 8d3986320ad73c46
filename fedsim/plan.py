"""What a run would cost, measured on this machine, and what it could resolve."""

import dataclasses
import os
import time
from dataclasses import dataclass

from fedsim.apps import bench
from fedsim.engine import Job, Recipes, one_thread, run_world
from fedsim.game import World, asked
from fedsim.prepare import Attacks, Prepared, clients, prepare
from fedsim.scenario import Federation, ModelChoice
from fedsim.scenario_file import Loaded
from fedsim.views import parse_vantage

START_SECONDS = 5.0  # worker processes import torch and Flower
PROCESS_BYTES = 450 * 2**20  # a process with torch and Flower loaded


@dataclass(frozen=True)
class Plan:
    """What a run would cost and could resolve."""

    worlds: int
    client_rounds: int
    seconds: float
    memory_bytes: int
    resolution: tuple[str, ...]
    notes: tuple[str, ...]


def plan(loaded: Loaded, attacks: Attacks, recipes: Recipes, workers: int) -> Plan:
    """Return the plan of a scenario on this machine with that many worker processes; it trains for a second or two to
    find the speed.
    """
    prepared = prepare(loaded, attacks, recipes)
    worlds = [world for trial in prepared.trials for world in trial.draw.worlds]
    seconds = sum(_seconds(trial.job) for trial in prepared.trials)
    pool_bytes = prepared.pool.x.nbytes
    return Plan(
        worlds=len(worlds),
        client_rounds=round(sum(_cohort_size(world) * world.federation.rounds for world in worlds)),
        seconds=START_SECONDS + seconds / min(workers, len(worlds)),
        memory_bytes=(workers + 1) * (PROCESS_BYTES + 2 * pool_bytes),
        resolution=_resolution(prepared),
        notes=_notes(prepared),
    )


def _cohort_size(world: World) -> float:
    active = sum(len(rows) > 0 for rows in world.rows)
    wanted = world.federation.clients_per_round
    return active if wanted is None else min(wanted, active) if isinstance(wanted, int) else wanted * active


def _seconds(job: Job) -> float:
    """Return the processor seconds of a job, from two short runs of one world of each recipe."""
    total = 0.0
    recipes: list[tuple[Federation, ModelChoice]] = []
    for world in job.worlds:
        if (world.federation, world.model) not in recipes:
            recipes.append((world.federation, world.model))
    with one_thread():
        setup = bench(job.scenario, job.stock)
        for recipe in recipes:
            alike = [i for i, world in enumerate(job.worlds) if (world.federation, world.model) == recipe]
            times = {}
            for rounds in (1, 1, 3):  # the first run only warms up
                federation = recipe[0].model_copy(update={"rounds": min(rounds, recipe[0].rounds)})
                world = dataclasses.replace(job.worlds[alike[0]], federation=federation)
                short = dataclasses.replace(
                    job,
                    worlds=(world,),
                    probes=tuple(
                        dataclasses.replace(probe, worlds=frozenset({0}))
                        for probe in job.probes
                        if alike[0] in probe.worlds
                    ),
                )
                start = time.perf_counter()
                run_world(short, 0, setup)
                times[federation.rounds] = time.perf_counter() - start
            spread = max(times) - min(times)
            a_round = (times[max(times)] - times[min(times)]) / spread if spread else 0.0
            once = max(times[min(times)] - a_round * min(times), 0.0)
            total += len(alike) * (once + max(a_round, 0.0) * recipe[0].rounds)
    return total


def _resolution(prepared: Prepared) -> tuple[str, ...]:
    """Say what false-positive rate each audit can quote."""
    lines = []
    for trial in prepared.trials:
        main = trial.draw.exams[0]
        for audit in trial.audits:
            mask = asked(main, clients(parse_vantage(audit.vantage, prepared.pool.clients)))
            without = int((mask & ~main.members).sum())
            lines.append(
                f"{audit.name}: {int(mask.sum()) - without} member and {without} non-member answers over "
                f"{int(mask.any(axis=1).sum())} worlds; "
                f"a true-positive rate can be quoted down to a false-positive rate of {10 / max(without, 1):.2g}"
            )
    return tuple(lines)


def _notes(prepared: Prepared) -> tuple[str, ...]:
    pool = prepared.pool
    notes = [f"{pool.dropped_duplicates} duplicate records were dropped"] if pool.dropped_duplicates else []
    if pool.synthetic:
        notes.append("the data are synthetic")
    empty = sum(
        len(rows) == 0
        for trial in prepared.trials
        for exam in trial.draw.exams
        if exam.kind == "main"
        for w in exam.worlds
        for rows in trial.draw.worlds[w].rows
    )
    if empty:
        notes.append(f"the coins leave a client without records {empty} time(s); it sits that world out")
    if prepared.scenario.controls.planted_worlds == 0:
        notes.append("without planted worlds no claim can be 'not refuted'")
    if len(pool.null) == 0:
        notes.append("the data are too few for a null control")
    return (*notes, *pool.notes)


def default_workers() -> int:
    """Return one process for each processor this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
