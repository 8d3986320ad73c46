"""A whole run: prepare, run the worlds (resuming what an interrupted run left), judge, and write the run folder."""

import hashlib
import importlib.metadata
import inspect
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fedsim
from fedsim import results
from fedsim.accounting import Spent
from fedsim.audit import Bound
from fedsim.data import SOURCES, Computed
from fedsim.engine import EngineName, run_worlds, tape_of
from fedsim.errors import ScenarioError, Stopped
from fedsim.games import title
from fedsim.job import Recipes, WorldResult, client_name
from fedsim.models import parameter_count
from fedsim.prepare import Attacks, Prepared, Trial, prepare
from fedsim.processes import MEMORY, default_workers
from fedsim.release import Log, in_words
from fedsim.report import write_report
from fedsim.scenario import EpsilonClaim, digest
from fedsim.scenario_file import Loaded, dump
from fedsim.tape import finished
from fedsim.threads import cpu_capability, pinned

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
    memory: int = MEMORY,
    transcripts: bool = False,
    computed: Sequence[Computed] = (),
) -> RunOutcome:
    """Run a scenario and return where its results are.

    out: the run folder, which must not exist (default: runs/NAME-TIME). workers: processes (default: one a
    processor). memory: bytes that the worlds under way may take. transcripts: keep every message of every world.
    computed: columns of the user's own beside those of the source.
    Worlds that are finished are kept beside the run folder until the run is complete, so an interrupted run goes on
    where it stopped.
    Raises ScenarioError (bad input; nothing is written) or RunError (the run failed).
    """
    started = datetime.now(UTC)
    folder = out or Path("runs") / f"{loaded.scenario.name}-{started:%Y%m%d-%H%M%S}"
    if os.path.lexists(folder):
        raise ScenarioError(
            f"{folder} exists already and is not overwritten; remove it, or choose another folder with --out"
        )
    with pinned():
        progress(0, 1, "reading the data")
        prepared = prepare(loaded, attacks, recipes, computed)
        _check_writable(folder)
        cache = _Cache(folder.parent / f".fedsim-unfinished-{_key(prepared, engine)}")
        try:
            machine = _Machine(engine, workers or default_workers(), memory, transcripts)
            left = _run_all(prepared, machine, cache, progress)
            progress(1, 1, "scoring the attacks")
            record, evidence = _judged(prepared, loaded, attacks, left, engine, started)
            progress(1, 1, "writing the report")
            with results.new_run_folder(folder) as fresh:
                for name, each in evidence.items():
                    results.write_evidence(fresh / name, each)
                (fresh / "scenario.yaml").write_text(dump(prepared.scenario), encoding="utf-8")
                results.write(record, fresh)
                write_report(fresh)
                if transcripts:
                    for leftover in cache.tapes.glob("*/.*.partial"):  # of a process that was ended half-way
                        shutil.rmtree(leftover)
                    cache.tapes.rename(fresh / "transcripts")
        except Stopped:
            raise
        except Exception:  # the same command would fail again, so there is nothing to go on with
            cache.remove()
            raise
    cache.remove()
    return RunOutcome(folder, record)


def _check_writable(folder: Path) -> None:
    """Find out before the first world runs whether the run folder can be made."""
    probe = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.partial"
    try:
        probe.mkdir(parents=True)
        probe.rmdir()
    except OSError as error:
        raise ScenarioError(f"cannot create {folder}: {error.strerror}; choose a writable folder with --out") from None
    except ValueError as error:  # a NUL byte in the name
        raise ScenarioError(f"cannot create the run folder: {error}; choose another with --out") from None


def _judged(
    prepared: Prepared,
    loaded: Loaded,
    attacks: Attacks,
    left: list[dict[int, WorldResult]],
    engine: EngineName,
    started: datetime,
) -> tuple[results.Results, dict[str, results.Evidence]]:
    """Return the record of a run, and the evidence by its path in the run folder."""
    from fedsim import epsilon, judge  # they bring scikit-learn, which the worlds are not to wait for

    passive = {
        (trial.setup, _game(trial)): worlds
        for trial, worlds in zip(prepared.trials, left, strict=True)
        if trial.adversary is None
    }
    scored = [
        each
        for trial, worlds in zip(prepared.trials, left, strict=True)
        for each in judge.findings(prepared, trial, worlds, attacks, passive.get((trial.setup, _game(trial))))
    ]
    main = [[worlds[int(w)] for w in trial.main.worlds] for trial, worlds in zip(prepared.trials, left, strict=True)]
    seed, scores = prepared.scenario.seed, [each.scores for each in scored if each.scores is not None]
    names = dict.fromkeys(trial.setup for trial in prepared.trials)
    in_setup = {name: [trial for trial in prepared.trials if trial.setup == name] for name in names}

    def against(claim: EpsilonClaim, confidence: float) -> list[Bound]:
        return epsilon.against(scores, claim, confidence, seed)

    def accounted(claim: EpsilonClaim) -> Spent | None:
        table = epsilon.worst(in_setup.get(claim.setup, []), claim.delta)
        return next((row for row in table if (row.unit, row.observer) == (claim.unit, claim.observer)), None)

    setups = []
    for trials in in_setup.values():  # a setup is judged by worlds without an adversary, if there are any
        trials.sort(key=lambda trial: trial.adversary is not None)
        first = next(number for number, trial in enumerate(prepared.trials) if trial is trials[0])
        setups.append(judge.setup(trials, main[first]))
    record = results.Results(
        schema=results.SCHEMA,
        status="complete",
        scenario=results.Scenario(
            dict(loaded.given), prepared.scenario.model_dump(mode="json"), digest(prepared.scenario)
        ),
        provenance=_provenance(prepared, engine),
        federation=_federation(prepared, main),
        utility=setups[0].utility,
        findings=tuple(each.finding for each in scored),
        claims=tuple(
            judge.claims(
                prepared.scenario.claims,
                scored,
                bounds=against,
                accounted=accounted,
                setups={setup.name: setup for setup in setups},
            )
        ),
        setups=tuple(setups),
        alarms=tuple(epsilon.alarms(scores, seed)),
        machine=results.Machine(
            started=started.isoformat(timespec="seconds"),
            wall_seconds=round((datetime.now(UTC) - started).total_seconds(), 3),
            platform=platform.platform(),
            python=platform.python_version(),
            processors=os.cpu_count() or 1,
        ),
    )
    evidence = {
        each.finding.evidence: each.evidence
        for each in scored
        if each.finding.evidence is not None and each.evidence is not None
    }
    return record, evidence


def _game(trial: Trial) -> str:
    return title(trial.audits[0].audit.game)


class _Machine(NamedTuple):
    """With what worlds are run; no number depends on it but through the engine."""

    engine: EngineName
    workers: int
    memory: int
    transcripts: bool


def _run_all(
    prepared: Prepared, machine: _Machine, cache: "_Cache", progress: Progress
) -> list[dict[int, WorldResult]]:
    """Run every world of every trial that the cache does not hold yet."""
    total = sum(len(trial.draw.worlds) for trial in prepared.trials)
    left: list[dict[int, WorldResult]] = []
    done = 0
    for number, trial in enumerate(prepared.trials):
        tapes = cache.tapes / f"{number}" if machine.transcripts else None
        found = dict(cache.read(number, len(trial.draw.worlds)))
        if tapes:
            found = {index: world for index, world in found.items() if finished(tape_of(tapes, index))}
        done += len(found)
        missing = [index for index in range(len(trial.draw.worlds)) if index not in found]
        progress(done, total, f"running worlds ({len(found)} kept from before)" if found else "running worlds")
        for index, world in run_worlds(
            trial.job, missing, engine=machine.engine, workers=machine.workers, memory=machine.memory, tapes=tapes
        ):
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

    @property
    def tapes(self) -> Path:
        """Where transcripts are kept until the run is complete."""
        return self.folder / "transcripts"

    def read(self, trial: int, worlds: int) -> Iterator[tuple[int, WorldResult]]:
        for index in range(worlds):
            path = self._path(trial, index)
            if path.exists() and (world := _read_world(path)) is not None:
                yield index, world

    def write(self, trial: int, index: int, world: WorldResult) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self._path(trial, index)
            partial = path.with_suffix(f".{secrets.token_hex(4)}.tmp")  # another run of the same scenario may write too
            _write_world(partial, world)
            partial.replace(path)
        except OSError as error:
            raise Stopped(
                f"cannot write beside the run folder, in {self.folder.parent}: {error.strerror} "
                "(the same command goes on from here)"
            ) from None

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
        "carried": world.carried,
        "aborted": world.aborted,
        "queries": {name: log._asdict() for name, log in world.queries.items()},
        "equations": {name: dict(each) for name, each in world.equations.items()},
    }
    arrays: dict[str, Any] = {f"signal/{name}": signal for name, signal in world.signals.items()}
    with path.open("wb") as file:
        np.savez(file, utility=world.utility, facts=np.array(json.dumps(facts)), **arrays)


def _read_world(path: Path) -> WorldResult | None:
    """Return a kept world; None where the file is damaged, so that the world runs again."""
    try:
        with np.load(path, allow_pickle=False) as file:
            facts = json.loads(str(file["facts"]))
            signals = {name.removeprefix("signal/"): file[name] for name in file.files if name.startswith("signal/")}
            facts["queries"] = {
                name: Log(**log | {"batches": tuple(tuple(each) for each in log["batches"])})
                for name, log in facts["queries"].items()
            }
            return WorldResult(signals=signals, utility=file["utility"], **facts)
    except Exception:  # zipfile, zlib, numpy and json all have their own
        return None


def _key(prepared: Prepared, engine: EngineName) -> str:
    """Return what identifies the worlds of a run: scenario, data, engine, processor, and the code that runs them."""
    state = hashlib.sha256(
        f"{digest(prepared.scenario)}{prepared.pool.digest}{engine}{_packages()}{platform.machine()}{cpu_capability()}".encode()
    )
    for package in ("fedsim", "strategies", "attacks"):
        root = Path(fedsim.__file__).parent.parent / package
        for path in sorted(root.rglob("*.py")):
            state.update(path.read_bytes())
    own = prepared.trials[0].job.recipes.client
    if own is not None:
        state.update(client_name(own).encode())
        root = Path(inspect.getfile(own)).resolve().parent
        named = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
        files = {Path(name) for name in named if name and Path(name).is_absolute() and "site-packages" not in name}
        for file in sorted(file for file in files if root in file.parents and file.is_file()):
            state.update(file.read_bytes())  # what it imports from beside itself
    return state.hexdigest()[:16]


def _federation(prepared: Prepared, main: list[list[WorldResult]]) -> results.Federation:
    first = prepared.trials[0]
    owner = prepared.pool.owner[prepared.pool.candidates]
    model, shape = first.draw.worlds[0].model, prepared.pool.x.shape[1:]
    sights: dict[tuple[str | None, str, str], results.Sight] = {}  # in a world where nobody acts, if there is one
    pairs = sorted(zip(prepared.trials, main, strict=True), key=lambda pair: pair[0].adversary is not None)
    for trial, worlds in pairs:
        for each in trial.audits:
            name = str(each.vantage)
            sight = results.Sight(
                vantage=each.audit.vantage,
                messages=dict(worlds[0].sights[name]),
                parameters=worlds[0].carried[name],
                released=in_words(each.release),
                setup=trial.setup,
                adversary=trial.adversary,
            )
            sights.setdefault((trial.setup, each.audit.vantage, sight.released), sight)
    return results.Federation(
        clients=tuple(results.Client(k, int((owner == k).sum())) for k in range(prepared.pool.clients)),
        worlds=prepared.scenario.worlds,
        rounds=prepared.scenario.federation.rounds,
        parameters=parameter_count(model, shape, prepared.pool.classes),
        transcripts=tuple(world.transcript for worlds in main for world in worlds),
        sights=tuple(sights.values()),
    )


def _packages() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("flwr", "torch", "numpy", "scipy", "scikit-learn")}


def _provenance(prepared: Prepared, engine: EngineName) -> results.Provenance:
    pool = prepared.pool
    source = SOURCES[pool.source]
    commit, dirty, reason = _commit()
    own = prepared.trials[0].job.recipes.client
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
        client_app=None if own is None else client_name(own),
        properties=tuple(results.OwnColumn(each.name, each.function, each.sha256) for each in prepared.computed),
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
