"""Small federations for tests, made of the real parts."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from attacks import ATTACKS
from fedsim.apps import Bench, bench, stock
from fedsim.data import Pool, draw_pool, load_dataset
from fedsim.games import draw
from fedsim.job import Job, Probe, Recipes
from fedsim.randomness import generator
from fedsim.results import Results
from fedsim.run import execute
from fedsim.scenario import Scenario
from fedsim.scenario_file import Loaded
from fedsim.transcript import Event, checksums
from fedsim.views import Vantage
from fedsim.world import World
from strategies import average, build_mods, build_strategy, min_clients

RECIPES = Recipes(build_strategy, build_mods, min_clients, average)


def scenario(**changes: Any) -> Scenario:
    """Return a scenario of a second or less: four clients, three rounds, digits."""
    settings: dict[str, Any] = {
        "name": "small",
        "seed": 3,
        "data": {"source": "digits", "clients": 4, "candidates": 48, "population": 60, "test": 60},
        "model": {"name": "mlp", "hidden": (16,)},
        "federation": {"rounds": 3, "local": {"epochs": 2, "batch_size": 8, "learning_rate": 0.2}},
        "worlds": 4,
        "audits": ({"name": "outsider", "attacks": ("loss",)},),
        "controls": {"planted_worlds": 4, "planted_rounds": 2},
    }
    for key, value in changes.items():
        settings[key] = {**settings[key], **value} if isinstance(value, dict) and key in settings else value
    return Scenario.model_validate(settings)


def pool(chosen: Scenario) -> Pool:
    """Return the pool of a scenario."""
    return draw_pool(load_dataset(chosen.data), chosen.data, generator(chosen.seed, "pool"))


def job(
    chosen: Scenario, probes: Sequence[Probe] = (), vantages: Sequence[Vantage] = (), worlds: Sequence[World] = ()
) -> Job:
    """Return a job over the record worlds of a scenario."""
    stocked = pool(chosen)
    drawn = tuple(worlds) or draw(chosen, stocked, "record", frozenset()).worlds
    return Job(chosen, stock(stocked), drawn, tuple(probes), tuple(vantages), RECIPES)


def run(chosen: Scenario, out: Path) -> Results:
    """Return the record of a scenario that ran in this process, with its run folder at `out`."""
    outcome = execute(
        Loaded(chosen, {"name": chosen.name}, Path("test.yaml"), {}),
        ATTACKS,
        RECIPES,
        out=out,
        engine="lockstep",
        workers=1,
        progress=lambda _done, _all, _what: None,
        transcripts=False,
    )
    return outcome.record


def setup(chosen: Job) -> Bench:
    """Return the bench of a job."""
    return bench(chosen.scenario, chosen.stock)


def stated_digest(events: Iterable[Event]) -> str:
    """Return the SHA-256 (hex) that a run states of a world with these events."""
    return hashlib.sha256(b"".join(map(checksums, events))).hexdigest()


def with_columns(drawn: Pool, **columns: NDArray[Any]) -> Pool:
    """Return a pool with more raw columns."""
    return dataclasses.replace(drawn, columns={**drawn.columns, **columns})
