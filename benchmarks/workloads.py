"""The workloads of the benchmark, their data, and one federation of each as plain arrays that any simulator can run.

Everything random comes from `SEED`: who holds which records, who takes part in a round, and the order of the records.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fedsim.apps import Stock, bench, cohort, initial
from fedsim.data import load_dataset
from fedsim.errors import ScenarioError
from fedsim.job import Job, Probe, Recipes
from fedsim.randomness import generator
from fedsim.scenario import Audit, Data, Federation, Local, ModelChoice, Scenario
from fedsim.views import Vantage
from fedsim.world import World
from strategies import average, build_mods, build_strategy, min_clients

Rows = NDArray[np.int64]
Precision = Literal["float32", "float64"]

SEED = 7
LOCAL = Local(epochs=1, batch_size=32, learning_rate=0.05, momentum=0.9)
RECIPES = Recipes(build_strategy, build_mods, min_clients, average)
RAGGED = 0.5  # sigma of the log-normal law of client sizes
SHAPES = {"digits": (1, 8, 8), "fashion_mnist": (1, 28, 28)}
CLASSES = 10
MARKERS = 2  # the first worlds of each job: one round of one record, which tell what starting the workers costs


class Size(NamedTuple):
    """How much of a workload is run."""

    worlds: int  # ours
    rounds: int  # ours
    opponent_rounds: int  # theirs, in one federation


@dataclass(frozen=True)
class Workload:
    """One row of the benchmark. half: each world trains on a random half of the records. close: the largest difference
    of a parameter, between two engines, that rounding explains.
    """

    name: str
    title: str
    source: str
    records: int
    test: int
    clients: int
    per_round: int
    model: ModelChoice
    size: Size
    half: bool = False
    close: float = 1e-3


# Some rounds of ours have an evaluation in them, always a handful, so it counts for little only where rounds are many.
MLP = ModelChoice(name="mlp", hidden=(256,))
W1 = Workload(
    "W1", "100 clients, 10 a round, MLP 64-128-10", "digits", 1437, 360, 100, 10,
    ModelChoice(name="mlp", hidden=(128,)), Size(64, 100, 20),
)  # fmt: skip
W2 = Workload(
    "W2", "10 clients, half of the images a world, MLP 784-256-10", "fashion_mnist", 10_000, 1000, 10, 10,
    MLP, Size(64, 20, 6), half=True,
)  # fmt: skip
# Rounding turns a few units on or off, and max-pooling to another pixel; in float64 nothing of the kind is left.
W3 = Workload(
    "W3", "10 clients, LeNet-like network", "fashion_mnist", 10_000, 1000, 10, 10,
    ModelChoice(name="cnn", channels=16), Size(2, 20, 3), close=0.2,
)  # fmt: skip
W4 = Workload(
    "W4", "1,000 clients, 100 a round, MLP 784-256-10", "fashion_mnist", 60_000, 1000, 1000, 100, MLP, Size(4, 50, 4)
)
WORKLOADS = (W1, W2, W3, W4)
QUICK = (
    replace(W1, size=Size(16, 20, 8)),
    replace(W2, size=Size(4, 5, 3)),
    replace(W3, size=Size(2, 3, 2), records=1000),
    replace(W4, size=Size(2, 4, 2)),
)


class Records(NamedTuple):
    """Records to train on first, held-out ones last."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    synthetic: bool


@lru_cache(maxsize=1)
def _source(name: str) -> Records:
    """Return a source; where its files are not there, noise around one prototype a class stands in."""
    try:
        dataset = load_dataset(Data(source=name, candidates=4))
    except ScenarioError:
        rng = generator(SEED, "stand-in", name)
        y = rng.integers(CLASSES, size=70_000)
        prototypes = rng.random((CLASSES, *SHAPES[name]), dtype=np.float32)
        x = prototypes[y]
        x += rng.standard_normal(x.shape, dtype=np.float32) / 2
        return Records(np.clip(x, 0, 1, out=x), y, synthetic=True)
    everyone = np.arange(len(dataset.y))
    return Records(dataset.encode(dataset.features, everyone), dataset.y, dataset.synthetic)


def records(workload: Workload) -> Records:
    """Return the records of a workload."""
    source = _source(workload.source)
    rng = generator(SEED, workload.name, "records")
    chosen = rng.permutation(len(source.y))[: workload.records + workload.test]
    return Records(source.x[chosen].reshape(-1, *SHAPES[workload.source]), source.y[chosen], source.synthetic)


def owners(workload: Workload, world: int) -> Rows:
    """Return who holds each record: sizes from a log-normal law, at least one record a client."""
    rng = generator(SEED, workload.name, "owners", 0 if workload.half else world)
    weights = rng.lognormal(sigma=RAGGED, size=workload.clients)
    dealt = rng.choice(workload.clients, workload.records, p=weights / weights.sum())
    dealt[: workload.clients] = np.arange(workload.clients)
    return np.asarray(rng.permutation(dealt))


def _rows(workload: Workload, world: int) -> tuple[Rows, ...]:
    """Return the rows of each client of a world."""
    owner = owners(workload, world)
    if workload.half:
        owner = np.where(generator(SEED, workload.name, "coins", world).random(len(owner)) < 0.5, owner, -1)
    return tuple(np.flatnonzero(owner == client) for client in range(workload.clients))


def job(
    workload: Workload,
    worlds: int,
    rounds: int,
    probes: Sequence[Probe] = (),
    vantages: Sequence[Vantage] = (),
    dtype: Precision = "float32",
) -> Job:
    """Return fedsim's job: the marker worlds, then the worlds of the workload."""
    data = records(workload)
    federation = Federation(rounds=rounds, clients_per_round=workload.per_round, local=LOCAL)
    scenario = Scenario(
        name=f"benchmark-{workload.name}",
        seed=SEED,
        data=Data(source=workload.source, clients=workload.clients, candidates=workload.records),
        model=workload.model,
        federation=federation,
        worlds=max(2, worlds),
        audits=(Audit(name="none", attacks=("loss",)),),
        dtype=dtype,
    )
    nothing = np.arange(0)
    one_round = federation.model_copy(update={"rounds": 1})
    alone = (np.arange(1), *[nothing] * (workload.clients - 1))
    markers = [World(f"marker-{number}", alone, workload.model, one_round) for number in range(MARKERS)]
    real = [World(f"world-{number}", _rows(workload, number), workload.model, federation) for number in range(worlds)]
    test = np.arange(workload.records, workload.records + workload.test)
    stock = Stock(data.x, data.y, test, CLASSES, workload.clients)
    return Job(scenario, stock, (*markers, *real), tuple(probes), tuple(vantages), RECIPES)


class Turn(NamedTuple):
    """One client's part in one round: its records, in the order in which it trains on them."""

    client: int
    rows: Rows


class Task(NamedTuple):
    """One federation as an opponent gets it. `start` runs from the first layer's weight to the last layer's bias."""

    model: ModelChoice
    clients: int
    x: torch.Tensor
    y: torch.Tensor
    test: torch.Tensor
    start: tuple[torch.Tensor, ...]
    rounds: tuple[tuple[Turn, ...], ...]


def write_task(path: Path, one: Job, rounds: int) -> None:
    """Write the first real world of a job, so that other processes can read it with `read_task`."""
    setup, world = bench(one.scenario, one.stock), one.worlds[MARKERS]
    turns = [(k, _order(world, k, number)) for number in range(1, rounds + 1) for k in cohort(setup, world, number)]
    cohorts = [len(cohort(setup, world, number)) for number in range(1, rounds + 1)]
    arrays: dict[str, NDArray[Any]] = {
        "x": setup.x.numpy(),
        "y": one.stock.y,
        "test": one.stock.test,
        "model": np.array(world.model.model_dump_json()),
        "total": np.array(one.stock.clients),
        "cohorts": np.array(cohorts),
        "clients": np.array([k for k, _ in turns]),
        "sizes": np.array([len(order) for _, order in turns]),
        "rows": np.concatenate([order for _, order in turns]),
    }
    arrays |= {f"start{i}": value.numpy() for i, value in enumerate(initial(setup, world).values())}
    np.savez(path, allow_pickle=False, **arrays)


def _order(world: World, client: int, number: int) -> Rows:
    """Return a client's rows in the order of fedsim's local training (one epoch, no records set aside)."""
    rng = generator(SEED, world.name, "client", client, "round", number)
    order: Rows = rng.permutation(rng.permutation(len(world.rows[client])))
    return world.rows[client][order]


def read_task(path: Path) -> Task:
    """Return what `write_task` wrote."""
    with np.load(path) as file:
        stored = dict(file)
    rows = iter(np.split(stored["rows"], np.cumsum(stored["sizes"])[:-1]))
    clients = iter(stored["clients"].tolist())
    return Task(
        model=ModelChoice.model_validate_json(str(stored["model"])),
        clients=int(stored["total"]),
        x=torch.from_numpy(stored["x"]),
        y=torch.from_numpy(stored["y"]),
        test=torch.from_numpy(stored["test"]),
        start=tuple(torch.from_numpy(stored[name]) for name in stored if name.startswith("start")),
        rounds=tuple(tuple(Turn(next(clients), next(rows)) for _ in range(size)) for size in stored["cohorts"]),
    )


def flops_a_record(workload: Workload) -> float:
    """Return the nominal floating-point operations of one training step, for each record: forward, gradient of the
    weights, and gradient of the inputs of every layer but the first.
    """
    colours, height, width = SHAPES[workload.source]
    if workload.model.name == "cnn":
        first, second = workload.model.channels, 2 * workload.model.channels
        flat = second * (height // 4) * (width // 4)
        convolutions = [height * width * 25 * colours * first, height * width // 4 * 25 * first * second]
        products = [*convolutions, flat * 128, 128 * CLASSES]
    else:
        widths = (math.prod(SHAPES[workload.source]), *workload.model.hidden, CLASSES)
        products = [a * b for a, b in itertools.pairwise(widths)]
    return float(6 * sum(products) - 2 * products[0])


def records_trained(one: Job) -> int:
    """Return how many records all the real worlds of a job train on, counted with repeats."""
    setup = bench(one.scenario, one.stock)
    return sum(
        len(world.rows[client])
        for world in one.worlds[MARKERS:]
        for number in range(1, world.federation.rounds + 1)
        for client in cohort(setup, world, number)
    )
