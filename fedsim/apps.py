"""Flower's ServerApp and ClientApp for one world of a scenario. The same apps run in this process, on Ray and on a
SuperLink.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedsim.data.pool import Pool
from fedsim.game import World
from fedsim.grid import ARRAYS, CONFIG, METRICS, ScenarioGrid, ask_roster, who_reply
from fedsim.models import Model, Params, build
from fedsim.randomness import derive, flower_globals, generator, torch_generator
from fedsim.scenario import Scenario
from fedsim.training import evaluate, train
from fedsim.transcript import Event


@dataclass(frozen=True)
class Bench:
    """What the parties of a scenario work with: the pool's records as tensors on the chosen device."""

    seed: int
    classes: int
    clients: int
    x: torch.Tensor
    y: torch.Tensor
    test: torch.Tensor  # rows held out for utility

    def model(self, world: World) -> Model:
        """Return the model of a world."""
        return build(world.model, tuple(self.x.shape[1:]), self.classes)

    def receive(self, record: ArrayRecord) -> Params:
        """Return the parameters in a message as tensors of this bench."""
        return {
            name: torch.from_numpy(np.array(array.numpy())).to(self.x.device, self.x.dtype)
            for name, array in record.items()
        }


class Stock(NamedTuple):
    """The part of a pool that training needs, as plain arrays that any process can be sent."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    test: NDArray[np.int64]
    classes: int
    clients: int


def stock(pool: Pool) -> Stock:
    """Return what training needs of a pool."""
    return Stock(pool.x, pool.y, pool.test, pool.classes, pool.clients)


def bench(scenario: Scenario, stock: Stock) -> Bench:
    """Return the bench of a scenario."""
    dtype = torch.float64 if scenario.dtype == "float64" else torch.float32
    x, y, test = (torch.from_numpy(np.array(part)).to(scenario.device) for part in (stock.x, stock.y, stock.test))
    return Bench(scenario.seed, stock.classes, stock.clients, x.to(dtype), y, test)


def initial(setup: Bench, world: World) -> Params:
    """Return the first global model of a world."""
    params = setup.model(world).init(torch_generator(setup.seed, world.name, "init"))
    return {name: value.to(setup.x.device, setup.x.dtype) for name, value in params.items()}


def cohort(setup: Bench, world: World, number: int) -> list[int]:
    """Return the clients that take part in round `number` of a world: those with records, all, a fixed number, or each
    by a coin flip.
    """
    available = [k for k, rows in enumerate(world.rows) if len(rows)]
    wanted = world.federation.clients_per_round
    rng = generator(setup.seed, world.name, "cohort", number)
    if wanted is None:
        return available
    if isinstance(wanted, int):
        return sorted(int(k) for k in rng.choice(available, min(wanted, len(available)), replace=False))
    return [k for k, coin in zip(available, rng.random(len(available)), strict=True) if coin < wanted]


def client_app(world: World, prepare: Callable[[], Bench], mods: Sequence[Mod]) -> ClientApp:
    """Return the ClientApp of a world. `prepare` loads the bench where the client runs (another process, on Ray)."""
    app = ClientApp()

    def seeded(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Seed what Flower's own mods draw from, so that a client's noise is its own on every engine."""
        names = (world.name, "mods", int(context.node_config["partition-id"]), _round(message))
        with flower_globals(derive(prepare().seed, *names)):
            return call_next(message, context)

    @app.train(mods=[seeded, *mods])
    def train_message(message: Message, context: Context) -> Message:
        setup = prepare()
        party = int(context.node_config["partition-id"])
        config = message.content.config_records[CONFIG]
        number = _round(message)
        rows = torch.from_numpy(world.rows[party])
        names = (world.name, "client", party, "round", number)
        trained = train(
            setup.model(world),
            setup.receive(message.content.array_records[ARRAYS]),
            setup.x[rows],
            setup.y[rows],
            world.federation.local,
            generator(setup.seed, *names),
            torch_generator(setup.seed, *names),
            proximal_mu=float(config.get("proximal-mu", 0.0)),  # type: ignore[arg-type]
        )
        return _reply(message, {"num-examples": len(rows), "train_loss": trained.loss}, trained.params)

    @app.evaluate()
    def evaluate_message(message: Message, context: Context) -> Message:
        setup = prepare()
        rows = torch.from_numpy(world.rows[int(context.node_config["partition-id"])])
        if not len(rows):
            return _reply(message, {"num-examples": 0, "loss": 0.0, "accuracy": 0.0})
        result = evaluate(
            setup.model(world), setup.receive(message.content.array_records[ARRAYS]), setup.x[rows], setup.y[rows]
        )
        return _reply(message, {"num-examples": len(rows), "loss": result.loss, "accuracy": result.accuracy})

    @app.query("who")
    def who_message(message: Message, context: Context) -> Message:
        return who_reply(message, context)

    return app


def _round(message: Message) -> int:
    return int(message.content.config_records[CONFIG]["server-round"])  # type: ignore[arg-type]


def _reply(message: Message, metrics: dict[str, int | float], params: Params | None = None) -> Message:
    content = RecordDict({METRICS: MetricRecord(dict(metrics))})
    if params is not None:
        content[ARRAYS] = ArrayRecord({name: value.cpu() for name, value in params.items()})
    return Message(content, reply_to=message)


@dataclass
class Outcome:
    """Filled in while a ServerApp runs: Flower gives no other way to hand a result back."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    utility: list[tuple[float, float, float, float]] = field(
        default_factory=list
    )  # train accuracy, train loss, test accuracy, test loss


def server_app(
    setup: Bench,
    world: World,
    make_strategy: Callable[[bool], Strategy],
    sink: Callable[[Event], None],
    outcome: Outcome,
) -> ServerApp:
    """Return the ServerApp of a world.

    make_strategy(evaluate_clients) builds the Flower strategy; sink receives every event; outcome receives the final
    model and, for each round from 0, the utility as an observer outside the federation measures it (never on the
    transcript).
    """
    app = ServerApp()
    members = torch.from_numpy(np.concatenate(world.rows))
    model = setup.model(world)

    def judge(_number: int, arrays: ArrayRecord) -> None:
        params = setup.receive(arrays)
        parts = [evaluate(model, params, setup.x[rows], setup.y[rows]) for rows in (members, setup.test)]
        outcome.utility.append((parts[0].accuracy, parts[0].loss, parts[1].accuracy, parts[1].loss))

    def who_is_in(number: int) -> Iterable[int]:
        return cohort(setup, world, number)

    @app.main()
    def main(grid: Grid, context: Context) -> None:  # noqa: ARG001
        taped = ScenarioGrid(grid, ask_roster(grid, setup.clients), who_is_in, sink)
        first = ArrayRecord({name: value.cpu() for name, value in initial(setup, world).items()})
        with flower_globals(derive(setup.seed, world.name, "flower")):
            result = make_strategy(world.federation.evaluate_clients).start(
                grid=taped,
                initial_arrays=first,
                num_rounds=world.federation.rounds,
                train_config=ConfigRecord(),
                evaluate_config=ConfigRecord(),
                evaluate_fn=judge,
            )
        final = result.arrays if len(result.arrays) else first  # empty where no round brought a reply
        outcome.arrays = {name: array.numpy() for name, array in final.items()}

    return app
