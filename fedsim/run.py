"""A whole run: prepare, run the worlds (resuming what an interrupted run left), judge, and write the run folder."""

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import fedsim
from fedsim import judge, results
from fedsim.apps import bench, initial
from fedsim.data import SOURCES
from fedsim.engine import EngineName, Recipes, WorldResult, run_worlds
from fedsim.errors import RunError, ScenarioError
from fedsim.plan import default_workers
from fedsim.prepare import Attacks, Prepared, Trial, prepare
from fedsim.release import in_words
from fedsim.report import write_report
from fedsim.scenario import digest
from fedsim.scenario_file import Loaded, dump

Progress = Callable[[int, int, str], None]
"""(steps done, steps in all, what is being done)."""


@dataclass(frozen=True)
class RunOutcome:
    """Where a run was written, and its record."""

    folder: Path
    record: results.Results


def execute(
    loaded: Loaded,
    attacks: Attacks,
    recipes: Recipes,
    *,
    out: Path | None,
    engine: EngineName,
    workers: int | None,
    progress: Progress,
) -> RunOutcome:
    """Run a scenario and return where its results are.

    out: the run folder, which must not exist (default: runs/NAME-TIME). workers: processes for the serial engine
    (default: one a processor).
    Worlds that are finished are kept beside the run folder until the run is complete, so an interrupted run goes on
    where it stopped.
    Raises ScenarioError (bad input; nothing is written) or RunError (the run failed).
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    folder = out or Path("runs") / f"{loaded.scenario.name}-{started:%Y%m%d-%H%M%S}"
    if os.path.lexists(folder):
        raise ScenarioError(
            f"{folder} exists already and is not overwritten; remove it, or choose another folder with --out"
        )
    with threadpool_limits(1):  # the number of threads changes the order of sums, and so the bytes
        progress(0, 1, "reading the data")
        prepared = prepare(loaded, attacks, recipes)
        cache = _Cache(folder.parent / f".fedsim-unfinished-{_key(prepared, engine)}")
        left = _run_all(prepared, engine, workers or default_workers(), cache, progress)
        progress(1, 1, "scoring the attacks")
        scored = [
            each
            for trial, worlds in zip(prepared.trials, left, strict=True)
            for each in judge.findings(prepared, trial, worlds, attacks)
        ]
        claims = tuple(judge.claim(statement, scored) for statement in prepared.scenario.claims)
        main = [
            [worlds[int(w)] for w in trial.draw.exams[0].worlds]
            for trial, worlds in zip(prepared.trials, left, strict=True)
        ]
        record = results.Results(
            schema=results.SCHEMA,
            status="complete",
            scenario=results.Scenario(
                dict(loaded.given), prepared.scenario.model_dump(mode="json"), digest(prepared.scenario)
            ),
            provenance=_provenance(prepared, engine),
            federation=_federation(prepared, main),
            utility=judge.utility(main[0]),
            findings=tuple(each.finding for each in scored),
            claims=claims,
            machine=results.Machine(
                started=started.isoformat(timespec="seconds"),
                wall_seconds=round(time.perf_counter() - clock, 3),
                platform=platform.platform(),
                python=platform.python_version(),
                processors=os.cpu_count() or 1,
            ),
        )
        progress(1, 1, "writing the report")
        with results.new_run_folder(folder) as fresh:
            for each in scored:
                if each.evidence is not None and each.finding.evidence is not None:
                    results.write_evidence(fresh / each.finding.evidence, each.evidence)
            (fresh / "scenario.yaml").write_text(dump(prepared.scenario), encoding="utf-8")
            results.write(record, fresh)
            write_report(fresh)
    cache.remove()
    return RunOutcome(folder, record)


def _run_all(
    prepared: Prepared, engine: EngineName, workers: int, cache: "_Cache", progress: Progress
) -> list[dict[int, WorldResult]]:
    """Run every world of every trial that the cache does not hold yet."""
    total = sum(len(trial.draw.worlds) for trial in prepared.trials)
    left: list[dict[int, WorldResult]] = []
    done = 0
    for number, trial in enumerate(prepared.trials):
        found = dict(cache.read(number, len(trial.draw.worlds)))
        done += len(found)
        missing = [index for index in range(len(trial.draw.worlds)) if index not in found]
        progress(done, total, f"running worlds ({len(found)} kept from before)" if found else "running worlds")
        for index, world in run_worlds(trial.job, missing, engine=engine, workers=workers):
            cache.write(number, index, world)
            found[index] = world
            done += 1
            progress(done, total, "running worlds")
        left.append({index: found[index] for index in sorted(found)})
    return left


@dataclass(frozen=True)
class _Cache:
    """Finished worlds of a run that is under way; the folder's name says of which scenario, data, code and engine."""

    folder: Path

    def read(self, trial: int, worlds: int) -> Iterator[tuple[int, WorldResult]]:
        for index in range(worlds):
            path = self._path(trial, index)
            if path.exists():
                yield index, _read_world(path)

    def write(self, trial: int, index: int, world: WorldResult) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self._path(trial, index)
            _write_world(path.with_suffix(".tmp"), world)
            path.with_suffix(".tmp").replace(path)
        except OSError as error:
            raise RunError(f"cannot keep finished worlds in {self.folder}: {error.strerror}") from None

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, trial: int, index: int) -> Path:
        return self.folder / f"{trial}-{index:05d}.npz"


def _write_world(path: Path, world: WorldResult) -> None:
    facts = {
        "not_visible": dict(world.not_visible),
        "transcript": world.transcript,
        "model": world.model,
        "sights": world.sights,
    }
    arrays: dict[str, Any] = {f"signal/{name}": signal for name, signal in world.signals.items()}
    with path.open("wb") as file:
        np.savez(file, utility=world.utility, facts=np.array(json.dumps(facts)), **arrays)


def _read_world(path: Path) -> WorldResult:
    with np.load(path, allow_pickle=False) as file:
        facts = json.loads(str(file["facts"]))
        signals = {name.removeprefix("signal/"): file[name] for name in file.files if name.startswith("signal/")}
        return WorldResult(signals=signals, utility=file["utility"], **facts)


def _key(prepared: Prepared, engine: EngineName) -> str:
    """Return what identifies the worlds of a run: scenario, data, engine, and the code that runs them."""
    state = hashlib.sha256(f"{digest(prepared.scenario)}{prepared.pool.digest}{engine}{_packages()}".encode())
    for package in ("fedsim", "strategies", "attacks"):
        root = Path(fedsim.__file__).parent.parent / package
        for path in sorted(root.rglob("*.py")):
            state.update(path.read_bytes())
    return state.hexdigest()[:16]


def _federation(prepared: Prepared, main: list[list[WorldResult]]) -> results.Federation:
    first = prepared.trials[0]
    owner = prepared.pool.owner[prepared.pool.candidates]
    start = initial(bench(prepared.scenario, first.job.stock), first.draw.worlds[0])
    return results.Federation(
        clients=tuple(results.Client(k, int((owner == k).sum())) for k in range(prepared.pool.clients)),
        worlds=prepared.scenario.worlds,
        rounds=prepared.scenario.federation.rounds,
        parameters=sum(value.numel() for value in start.values()),
        transcripts=tuple(world.transcript for worlds in main for world in worlds),
        sights=tuple(
            results.Sight(
                vantage=name,
                messages=dict(counts),
                parameters=any(counts.get(kind, 0) for kind in judge.CARRIERS),
                released=in_words(prepared.scenario.release),
            )
            for name, counts in _sights(prepared.trials, main).items()
        ),
    )


def _sights(trials: tuple[Trial, ...], main: list[list[WorldResult]]) -> Mapping[str, Mapping[str, int]]:
    """Return what each vantage saw in the first world of its game."""
    seen: dict[str, Mapping[str, int]] = {}
    for trial, worlds in zip(trials, main, strict=True):
        for audit in trial.audits:
            for name, counts in worlds[0].sights.items():
                if name == "+".join(sorted(part.strip() for part in audit.vantage.split("+"))):
                    seen.setdefault(audit.vantage, counts)
    return seen


def _packages() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("flwr", "torch", "numpy", "scipy", "scikit-learn")}


def _provenance(prepared: Prepared, engine: EngineName) -> results.Provenance:
    pool = prepared.pool
    source = SOURCES[pool.source]
    commit, dirty, reason = _commit()
    return results.Provenance(
        fedsim=fedsim.__version__,
        packages=_packages(),
        commit=commit,
        dirty=dirty,
        commit_reason=reason,
        data=results.Data(
            source=pool.source,
            digest=pool.source_digest,
            records=len(pool.y),
            dropped_duplicates=pool.dropped_duplicates + pool.dropped_near_duplicates,
            synthetic=pool.synthetic,
            citation=source.citation,
            licence=source.licence,
        ),
        seed=prepared.scenario.seed,
        engine=engine,
    )


def _commit() -> tuple[str | None, bool | None, str | None]:
    """Return the commit of the code that runs and whether it had local changes, or why that is unknown."""
    root = Path(fedsim.__file__).parent.parent
    if not (root / ".git").exists():
        return None, None, "installed, not run from a checkout"
    try:
        head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changes = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None, None, "git gave no answer"
    return head.stdout.strip(), bool(changes.stdout.strip()), None
