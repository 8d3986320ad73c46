"""What a run would cost, measured on this machine, and what it could resolve."""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from fedsim.apps import Bench, bench, cohort_size
from fedsim.attack import Attack, Bools, score
from fedsim.data import Computed
from fedsim.engine import chunks, fitting_workers, world_bytes
from fedsim.epsilon import worst
from fedsim.errors import NotVisible
from fedsim.job import Job, Recipes, WorldResult, client_name
from fedsim.lockstep import batched, run_together
from fedsim.prepare import Attacks, Prepared, PreparedAudit, Trial, prepare
from fedsim.processes import MEMORY
from fedsim.randomness import generator
from fedsim.scenario import PropertyGame
from fedsim.scenario_file import Loaded
from fedsim.threads import pinned
from fedsim.views import ClientAsk, DistinguishAsk, Floats, PropertyAsk, RecordAsk
from fedsim.world import Exam, asked, asked_from, groups_of

START_SECONDS = 4.0  # worker processes import torch and Flower
FIGURE_SECONDS = 0.3
FINDING_SECONDS = 0.1  # intervals of its metrics, slices and controls
PROCESS_BYTES = 450 * 2**20  # a process with torch and Flower loaded
SHARE_MOVED = 0.005  # by which a share may miss what was asked for without a note


@dataclass(frozen=True)
class Plan:
    """What a run would cost and could resolve."""

    worlds: int
    client_rounds: int
    seconds: float
    memory_bytes: int
    resolution: tuple[str, ...]
    notes: tuple[str, ...]
    epsilons: Mapping[str, str]  # setup, unit and observer -> epsilon and why; empty where nothing is private


def plan(
    loaded: Loaded,
    attacks: Attacks,
    recipes: Recipes,
    workers: int,
    memory: int = MEMORY,
    computed: Sequence[Computed] = (),
) -> Plan:
    """Return the plan of a scenario on this machine with that many worker processes; it trains for a second or two to
    find the speed.
    """
    prepared = prepare(loaded, attacks, recipes, computed)
    workers = min(
        fitting_workers(trial.job, range(len(trial.job.worlds)), workers, memory) for trial in prepared.trials
    )
    worlds = [world for trial in prepared.trials for world in trial.draw.worlds]
    parallel = alone = 0.0
    with pinned():
        for trial in prepared.trials:
            training, measured = _world_seconds(trial.job, workers, memory)
            parallel += training
            alone += _scoring_seconds(prepared, trial, attacks, measured)
        crowding = _crowding(workers)
    pool_bytes = prepared.pool.x.nbytes
    live = max(
        sum(world_bytes(trial.job, index) for index in piece) * workers
        for trial in prepared.trials
        for piece in chunks(trial.job, range(len(trial.job.worlds)), workers, memory)[:1]
    )
    return Plan(
        worlds=len(worlds),
        client_rounds=round(sum(cohort_size(world) * world.federation.rounds for world in worlds)),
        seconds=START_SECONDS + _report_seconds(prepared) + parallel * crowding / min(workers, len(worlds)) + alone,
        memory_bytes=(workers + 1) * (PROCESS_BYTES + 2 * pool_bytes) + live,
        resolution=_resolution(prepared),
        notes=(*_notes(prepared), *_alone(prepared)),
        epsilons=_epsilons(prepared),
    )


def _epsilons(prepared: Prepared) -> dict[str, str]:
    """Return what the accountant gives each observer of each setup that adds noise."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in dict.fromkeys(trial.setup for trial in prepared.trials if trial.federation.privacy):
        for row in worst([trial for trial in prepared.trials if trial.setup == name]):
            value = f"{row.epsilon:.3g} ({row.delta:g})" if math.isfinite(row.epsilon) else "infinite"
            setup = f"{name}, " if name else ""
            why = f"{row.reason} Neighbours differ in {row.adjacency}." if math.isfinite(row.epsilon) else row.reason
            found.setdefault((value, why), []).append(f"{setup}{row.unit}, {row.observer}")
    return {"; ".join(who): f"{value}: {why}" for (value, why), who in found.items()}


class _Speed(NamedTuple):
    """How long worlds that advance together take: once, and for each round; and what a short run of them left."""

    once: float
    a_round: float
    left: WorldResult


def _world_seconds(job: Job, workers: int, memory: int) -> tuple[float, dict[str, Floats]]:
    """Return the processor seconds of all worlds of a job, and one signal of each probe, from short runs of a piece of
    each recipe.
    """
    total = 0.0
    signals: dict[str, Floats] = {}
    remaining = list(range(len(job.worlds)))
    setup = bench(job.scenario, job.stock)
    while remaining:
        first = job.worlds[remaining[0]]
        alike = [
            i for i in remaining if (job.worlds[i].federation, job.worlds[i].model) == (first.federation, first.model)
        ]
        piece = chunks(job, alike, workers, memory)[0]
        speed = _speed(job, piece, setup)
        total += len(alike) / len(piece) * (speed.once + speed.a_round * first.federation.rounds)
        signals |= speed.left.signals
        remaining = [i for i in remaining if i not in alike]
    return total, signals


def _speed(job: Job, piece: Sequence[int], setup: Bench) -> _Speed:
    """Return the speed of a piece from runs of one round and of three; a first run only warms up."""
    first = job.worlds[piece[0]]
    probes = tuple(
        dataclasses.replace(probe, worlds=frozenset(range(len(piece))))
        for probe in job.probes
        if piece[0] in probe.worlds
    )
    times: dict[int, float] = {}
    for rounds in (1, 1, 3):
        rounds = min(rounds, first.federation.rounds)
        short = tuple(
            dataclasses.replace(
                job.worlds[i], federation=job.worlds[i].federation.model_copy(update={"rounds": rounds})
            )
            for i in piece
        )
        start = time.perf_counter()
        left = dict(run_together(dataclasses.replace(job, worlds=short, probes=probes), range(len(piece)), setup))
        times[rounds] = time.perf_counter() - start
    most, least = max(times), min(times)
    a_round = max(times[most] - times[least], 0.0) / max(most - least, 1)
    return _Speed(max(times[least] - a_round * least, 0.0), a_round, left[0])


def _crowding(workers: int) -> float:
    """Return how much slower a processor computes while `workers` of them do: they share caches, memory and heat."""

    def work() -> float:
        numbers = torch.ones(384, 384)
        start = time.perf_counter()
        for _ in range(40):
            torch.mm(numbers, numbers)
        return time.perf_counter() - start

    work()
    alone = min(work() for _ in range(3))
    with ThreadPoolExecutor(workers) as pool:
        together = [done for _ in range(3) for done in pool.map(lambda _: work(), range(workers))]
    return max(1.0, float(np.median(together)) / alone)


def _report_seconds(prepared: Prepared) -> float:
    """Return the seconds that intervals and figures take: two of the attacks, two of accuracy and loss, a ROC for each
    audit.
    """
    audits = [each.audit for trial in prepared.trials for each in trial.audits]
    return FIGURE_SECONDS * (4 + len(audits)) + FINDING_SECONDS * sum(len(audit.attacks) for audit in audits)


def _scoring_seconds(prepared: Prepared, trial: Trial, attacks: Attacks, measured: dict[str, Floats]) -> float:
    """Return the seconds that scoring takes: each attack on one target world, its references made up from one
    signal; what needs references is scored again within each half of the worlds, to pick the most exposed records.
    """
    return sum(
        _attack_seconds(attacks[name], signal, exam, each, prepared.scenario.seed)
        for each in trial.audits
        for exam in trial.draw.exams
        for name in each.audit.attacks
        if (signal := measured.get(each.probes[exam.kind, name])) is not None
    )


def _attack_seconds(attack: Attack, signal: Floats, exam: Exam, each: PreparedAudit, seed: int) -> float:
    """Return the seconds that an attack's test takes on all targets of an exam."""
    one = np.arange(len(exam.targets)) == np.flatnonzero(exam.targets)[0]
    noise = generator(seed, "plan").standard_normal((len(one), *signal.shape)) * 1e-3
    made_up, ask = signal + np.abs(noise), asked_from(exam.ask, each.vantage.clients)
    used = [exam.references]
    if exam.kind == "main" and isinstance(exam.ask, RecordAsk) and attack.min_references:
        place = np.arange(len(one)) % 2
        used.append(exam.references & (place == place[one])[None, :])
    total = 0.0
    for references in used:
        if references[one].sum() < attack.min_references:
            continue
        seconds = []
        with suppress(NotVisible):
            for _ in range(2):  # the first one also imports what the attack needs
                start = time.perf_counter()
                score(attack, made_up, exam.members, one, references, ask, seed, exam.quantity)
                seconds.append(time.perf_counter() - start)
        total += min(seconds, default=0.0) * int(exam.targets.sum())
    return total


def _resolution(prepared: Prepared) -> tuple[str, ...]:
    """Say what false-positive rate each audit can quote."""
    lines = []
    for trial in prepared.trials:
        for each in trial.audits:
            mask = asked(trial.main, each.vantage.clients)
            without = int((mask & ~trial.main.members).sum())
            smallest = 10 / max(without, 1)
            quoted = (
                f"a true-positive rate can be quoted down to a false-positive rate of {smallest:.2g}"
                if smallest < 1
                else "no true-positive rate can be quoted (more than 10 non-member answers are needed)"
            )
            lines.append(
                f"{each.audit.name}: {int(mask.sum()) - without} member and {without} non-member answers over "
                f"{_worlds(trial.main, mask)}; {quoted}"
            )
    return tuple(lines)


def _worlds(exam: Exam, mask: Bools) -> str:
    """Return over how many worlds questions are asked, and how many groups of them share no records."""
    worlds, groups = int(mask.any(axis=1).sum()), groups_of(exam, mask)
    return f"{worlds} worlds" + (f" in {groups} groups that share no records" if groups is not None else "")


def _alone(prepared: Prepared) -> tuple[str, ...]:
    """Say which local trainings cannot be done together, and why."""
    jobs = [trial.job for trial in prepared.trials]
    alone = sum(not batched(job, index) for job in jobs for index in range(len(job.worlds)))
    if not alone:
        return ()
    own = jobs[0].recipes.client
    if own is not None:
        return (f"the ClientApp {client_name(own)} trains in its own way, so clients are trained one by one",)
    return (
        f"in {alone} worlds clients are trained one by one: convolutions, early stopping, batches of one record and "
        "layers of one unit are not stacked",
    )


def _notes(prepared: Prepared) -> tuple[str, ...]:
    pool = prepared.pool
    notes = [f"{pool.dropped_duplicates} duplicate records were dropped"] if pool.dropped_duplicates else []
    if pool.synthetic:
        notes.append("the data are synthetic")
    empty = sum(
        len(rows) == 0
        for trial in prepared.trials
        for exam in trial.draw.exams
        if exam.kind == "main" and not isinstance(exam.ask, ClientAsk | DistinguishAsk)  # there it is the question
        for w in exam.worlds
        for rows in trial.draw.worlds[w].rows
    )
    if empty:
        notes.append(f"the coins leave a client without records {empty} time(s); it sits that world out")
    if prepared.scenario.controls.planted_worlds == 0:
        notes.append("without planted worlds no claim can be 'not refuted'")
    if len(pool.null) == 0:
        notes.append("the data are too few for a null control")
    for trial in prepared.trials:
        if trial.main.caveat is not None:
            notes.append(f"{', '.join(each.audit.name for each in trial.audits)}: {trial.main.caveat.rstrip('.')}")
        notes.extend(_moved(trial))
    return (*notes, *pool.notes)


def _moved(trial: Trial) -> list[str]:
    """Say which shares of a property whole records cannot make, for each audit."""
    notes, ask = [], trial.main.ask
    for each in trial.audits:
        game = each.audit.game
        if isinstance(game, PropertyGame) and isinstance(ask, PropertyAsk):
            pairs = zip(game.shares, ask.shares, strict=True)
            moved = [f"{real:.4g} in place of {wanted:g}" for wanted, real in pairs if abs(real - wanted) > SHARE_MOVED]
            if moved:
                notes.append(
                    f"{each.audit.name}: of {trial.main.facts['records']:.0f} records the share is {', '.join(moved)}"
                )
    return notes
