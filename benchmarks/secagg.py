"""`python -m benchmarks.secagg`: what a round of secure aggregation costs without training, beside Flower's SecAgg+.

Both run over the same Grid in this process, on one thread, on the same graph: 4 neighbours of which 3 shares give a
secret back (Flower counts the client itself: `num_shares=5`), or all clients. `--quick` takes the small sizes only.
Prints a table; each row is checked to give the mean it should.
"""

import os

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}

import argparse
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.app.user_config import UserConfig
from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import ndarrays_to_parameters
from flwr.server import LegacyContext, ServerConfig, SimpleClientManager
from flwr.server.strategy import FedAvg as LegacyFedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp.strategy import FedAvg

from fedsim.grid import RUN_ID, LocalGrid, ScenarioGrid, task_identity
from fedsim.randomness import generator
from fedsim.scenario import Quantisation
from fedsim.secagg.codec import fixed_point
from fedsim.secagg.flower import Chance, Recipe, client_entropy, secure_app, secure_replies
from fedsim.secagg.protocol import Settings

EXAMPLES = 100  # of each client
MOVED = 0.25  # what each client adds to each parameter
CLOSE = 1e-3
NEIGHBOURS, SHARE = 4, 0.6


class Size(NamedTuple):
    """clients, parameters, and whether each client shares with all others."""

    clients: int
    parameters: int
    all_neighbours: bool


FULL = [Size(clients, parameters, False) for clients in (8, 32, 64, 128) for parameters in (10_000, 100_000)]
FULL += [Size(clients, parameters, True) for clients in (8, 32) for parameters in (10_000, 100_000)]
SMALL = [Size(8, 10_000, False), Size(8, 100_000, False), Size(8, 10_000, True)]


def ours(size: Size) -> tuple[float, np.ndarray]:
    """Return the seconds of one round of Flower's FedAvg over our protocol, and the new model."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:  # noqa: ARG001
        before = message.content.array_records["arrays"]["w"].numpy()
        metrics = MetricRecord({"num-examples": EXAMPLES})
        content = RecordDict({"arrays": ArrayRecord({"w": Array(before + np.float32(MOVED))}), "metrics": metrics})
        return Message(content, reply_to=message)

    settings = Settings(None if size.all_neighbours else NEIGHBOURS, SHARE)
    recipe = Recipe(settings, fixed_point(Quantisation(), size.clients, EXAMPLES), "masked", "examples", "hidden")
    chance = Chance(
        partial(client_entropy, 0, "bench"), partial(generator, 0, "rounding"), partial(generator, 0, "graph")
    )
    grid = ScenarioGrid(
        LocalGrid(secure_app(app, lambda: recipe, chance), size.clients),
        {node: node - 1 for node in range(1, size.clients + 1)},
        lambda number: range(size.clients),  # noqa: ARG005
        lambda event: None,  # noqa: ARG005
        partial(secure_replies, recipe, chance),
    )
    strategy = FedAvg(fraction_evaluate=0.0)
    first = ArrayRecord({"w": Array(np.zeros(size.parameters, np.float32))})
    start = time.perf_counter()
    result = strategy.start(grid=grid, initial_arrays=first, num_rounds=1)
    return time.perf_counter() - start, result.arrays["w"].numpy()


class _Adds(NumPyClient):
    def fit(self, parameters: list[np.ndarray], config: dict[str, Any]) -> tuple[list[np.ndarray], int, dict[str, Any]]:  # noqa: ARG002
        return [array + np.float32(MOVED) for array in parameters], EXAMPLES, {}


def flowers(size: Size) -> tuple[float, np.ndarray]:
    """Return the seconds of one round of Flower's own SecAgg+, and the new model."""
    app = ClientApp(client_fn=lambda context: _Adds().to_client(), mods=[secaggplus_mod])  # noqa: ARG005
    grid = LocalGrid(app, size.clients)
    first = ndarrays_to_parameters([np.zeros(size.parameters, np.float32)])
    found: list[np.ndarray] = []

    def keep(number: int, arrays: list[np.ndarray], config: dict[str, Any]) -> None:  # noqa: ARG001
        found[:] = arrays

    strategy = LegacyFedAvg(fraction_evaluate=0.0, initial_parameters=first, evaluate_fn=keep)
    state = Context(run_id=RUN_ID, node_id=0, node_config=UserConfig(), state=RecordDict(), run_config=UserConfig())
    context = LegacyContext(
        state, config=ServerConfig(num_rounds=1), strategy=strategy, client_manager=SimpleClientManager()
    )
    shares, threshold = (1.0, SHARE) if size.all_neighbours else (NEIGHBOURS + 1, 3)
    secure = SecAggPlusWorkflow(shares, threshold, max_weight=float(EXAMPLES), clipping_range=1.0)
    start = time.perf_counter()
    DefaultWorkflow(fit_workflow=secure)(grid, context)
    return time.perf_counter() - start, found[0]


def timed(once: Callable[[Size], tuple[float, np.ndarray]], size: Size, runs: int) -> float:
    """Return the median seconds of some runs, each of which must give the mean it should."""
    seconds = []
    for _ in range(runs):
        taken, model = once(size)
        if not np.allclose(model, MOVED, atol=CLOSE):
            raise AssertionError(f"{once.__name__} at {size}: expected {MOVED} everywhere, got {model[:3]}")
        seconds.append(taken)
    return median(seconds)


def rows(sizes: Sequence[Size], runs: int) -> Iterator[str]:
    """Yield the table, line by line."""
    yield "| clients | parameters | graph | fedsim, s | Flower's SecAgg+, s | times faster |"
    yield "|---:|---:|---|---:|---:|---:|"
    for size in sizes:
        graph = "all" if size.all_neighbours else f"{NEIGHBOURS} neighbours"
        mine, theirs = timed(ours, size, runs), timed(flowers, size, runs)
        what = f"| {size.clients} | {size.parameters // 1000}k | {graph}"
        yield f"{what} | {mine:.3f} | {theirs:.2f} | {theirs / mine:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes only, one run each")
    quick = parser.parse_args().quick
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with task_identity():
        ours(SMALL[0])  # what is loaded or compiled at the first call is nobody's cost
        flowers(SMALL[0])
        for line in rows(SMALL if quick else FULL, 1 if quick else 3):
            print(line, flush=True)


if __name__ == "__main__":
    main()
