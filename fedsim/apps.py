"""Flower's ServerApp and ClientApp for one world of a scenario. The same apps run in this process, on Ray and on a
SuperLink.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedsim.adversaries import active, poisoned, pushed_update, with_second_task
from fedsim.canaries import LOUD, coordinates, direction, holder, spare
from fedsim.data.pool import Pool
from fedsim.defences import around, canary_clients, canary_weight, drawn, guarded, plain, recipe, server_side, silent
from fedsim.dp_sgd import train_alone
from fedsim.grid import (
    ARRAYS,
    CONFIG,
    METRICS,
    PROXIMAL,
    Decoder,
    ScenarioGrid,
    ask_roster,
    party_of,
    round_of,
    who_reply,
)
from fedsim.models import Model, Params, build, parameter_count
from fedsim.randomness import derive, flower_globals, generator, torch_generator
from fedsim.scenario import RecordPrivacy, Scenario
from fedsim.secagg.flower import Recipe
from fedsim.training import Private, Task, Trained, evaluate
from fedsim.transcript import Arrays, Event
from fedsim.vectors import Floats, flat, shaped
from fedsim.views import Train
from fedsim.world import World, rows_in
from fedsim.world import cohort as world_cohort

MEASURED = 5
"""The utility of a world is measured this many times after the start."""
ALMOST_STILL = 1e-3
"""How far a canary that does not take part moves, in a direction that nobody is asked about."""
MEASURED_RECORDS = 2000
"""The utility is measured on so many records at most; each world draws its own, once."""


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


class Inbox:
    """Receives parameters as tensors of a bench; messages that carry the same bytes share theirs."""

    def __init__(self) -> None:
        self._decode = Decoder()
        self._arrays: Arrays = {}
        self._params: Params = {}

    def __call__(self, setup: Bench, record: ArrayRecord) -> Params:
        """Return the parameters in a message; nobody may move them in place."""
        arrays = self._decode(record)
        if arrays is not self._arrays:
            self._arrays = arrays
            self._params = {
                name: torch.from_numpy(np.array(array)).to(setup.x.device, setup.x.dtype)
                for name, array in arrays.items()
            }
        return self._params


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
    """Return the clients that take part in round `number` of a world, canaries included."""
    return world_cohort(setup.seed, world, number, range(setup.clients, nodes(setup, world)))


def nodes(setup: Bench, world: World) -> int:
    """Return how many clients a world has, canaries included."""
    return setup.clients + canary_clients(world)


def cohort_size(world: World) -> float:
    """Return how many clients take part in a round, on average."""
    active = sum(len(rows) > 0 for rows in world.rows) + canary_clients(world)
    return drawn(world.federation.clients_per_round, active)


def local_task(
    setup: Bench,
    world: World,
    party: int,
    number: int,
    params: Params,
    proximal_mu: float,
    memory: dict[str, torch.Tensor],
) -> Task:
    """Return the local training of client `party` in round `number` of a world."""
    names = (world.name, "client", party, "round", number)
    same = world.batches is None or party != world.batches[0]
    return Task(
        setup.model(world),
        params,
        setup.x,
        setup.y,
        torch.from_numpy(rows_in(world, party, number)),
        world.federation.local,
        generator(setup.seed, *names),
        torch_generator(setup.seed, *names) if world.model.dropout else None,
        proximal_mu,
        memory if same else None,
        _private(setup, world, party, number, params),
    )


def rehearse(setup: Bench, world: World) -> Train:
    """Return what anybody can run who knows a world's recipe: its local training, on records of one's own. What mods,
    FedProx's pull and defences around training change is left out.
    """
    model, local, privacy = setup.model(world), world.federation.local, world.federation.privacy
    device, dtype = setup.x.device, setup.x.dtype

    def train(
        arrays: Arrays, x: NDArray[np.float32], y: NDArray[np.int64], rng: np.random.Generator
    ) -> dict[str, Floats]:
        noise, private = None, None
        if world.model.dropout:
            noise = torch.Generator().manual_seed(int(rng.integers(2**63)))
        if isinstance(privacy, RecordPrivacy):
            assert privacy.noise_multiplier is not None
            private = Private(privacy.clipping_norm, privacy.noise_multiplier, rng)
        params = {name: torch.from_numpy(np.array(array)).to(device, dtype) for name, array in arrays.items()}
        records, labels = torch.from_numpy(np.array(x)).to(device, dtype), torch.from_numpy(np.array(y)).to(device)
        task = Task(model, params, records, labels, torch.arange(len(y)), local, rng, noise, private=private)
        return {name: value.numpy(force=True).astype(np.float64) for name, value in train_alone(task).params.items()}

    return train


def _private(setup: Bench, world: World, party: int, number: int, params: Params) -> Private | None:
    """Return how a client protects its records, if it does."""
    privacy = world.federation.privacy
    if not isinstance(privacy, RecordPrivacy):
        return None
    assert privacy.noise_multiplier is not None
    own: tuple[int, ...] = ()
    if world.canaries and world.canaries.unit == "record":
        pushed = coordinates(world.canaries, sum(value.numel() for value in params.values()))
        own = tuple(
            int(pushed[which]) for which in world.present if holder(world.canaries, which, setup.clients) == party
        )
    noise = generator(setup.seed, world.name, "private", party, "round", number)
    return Private(privacy.clipping_norm, privacy.noise_multiplier, noise, own)


def _canary_update(setup: Bench, world: World, party: int, params: Params) -> Params:
    """Return the model with which a canary client answers: the one it got, pushed in the direction of its own where it
    takes part.
    """
    assert world.canaries is not None
    which, privacy = party - setup.clients, world.federation.privacy
    before = {name: value.numpy(force=True) for name, value in params.items()}
    push = LOUD * (privacy.clipping_norm if privacy else 1.0)
    if which not in world.present:
        which, push = spare(world.canaries), ALMOST_STILL  # Flower's clipping divides by the length
    vector = flat(before)
    vector += push * direction(world.canaries, which, len(vector))
    return {name: torch.from_numpy(value) for name, value in shaped(vector, before).items()}


def client_app(
    world: World,
    prepare: Callable[[], Bench],
    mods: Sequence[Mod],
    train_task: Callable[[Task], Trained] = train_alone,
) -> ClientApp:
    """Return the ClientApp of a world. `prepare` loads the bench where the client runs (another process, on Ray);
    `train_task` does the local training.
    """
    app = ClientApp()
    receive = Inbox()
    kept: dict[int, dict[str, torch.Tensor]] = {}

    def seeded(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Seed what Flower's own mods draw from, so that a client's noise is its own on every engine."""
        names = (world.name, "mods", party_of(context), round_of(message))
        with flower_globals(derive(prepare().seed, *names)):
            return call_next(message, context)

    @app.train(mods=[seeded, *mods] if mods else [])
    def train_message(message: Message, context: Context) -> Message:
        setup = prepare()
        party = party_of(context)
        mu = float(_config(message).get(PROXIMAL, 0.0))  # type: ignore[arg-type]
        params = receive(setup, _model(message))
        if party >= setup.clients:
            examples = canary_weight(world) if party - setup.clients in world.present else 1
            said = {"num-examples": examples, "train_loss": 0.0}
            return _reply(message, said, _canary_update(setup, world, party, params))
        if (pushed := pushed_update(world, setup.model(world), params, party, round_of(message))) is not None:
            return _reply(message, {"num-examples": len(world.rows[party]), "train_loss": 0.0}, pushed)
        task = local_task(setup, world, party, round_of(message), params, mu, kept.setdefault(party, {}))
        task = with_second_task(world, party, round_of(message), poisoned(world, party, task, setup.classes))
        trained = train_task(task)
        examples = len(rows_in(world, party, round_of(message)))
        return _reply(message, {"num-examples": examples, "train_loss": trained.loss}, trained.params)

    @app.evaluate()
    def evaluate_message(message: Message, context: Context) -> Message:
        setup = prepare()
        party = party_of(context)
        held = rows_in(world, party, round_of(message)) if party < setup.clients else world.rows[0][:0]
        rows = torch.from_numpy(held)
        if not len(rows):
            return _reply(message, {"num-examples": 0, "loss": 0.0, "accuracy": 0.0})
        result = evaluate(
            setup.model(world),
            receive(setup, _model(message)),
            setup.x[rows],
            setup.y[rows],
        )
        return _reply(message, {"num-examples": len(rows), "loss": result.loss, "accuracy": result.accuracy})

    answer_who(app)
    return _guarded(app, world, prepare)


def _guarded(app: ClientApp, world: World, prepare: Callable[[], Bench]) -> ClientApp:
    """Return a ClientApp behind the defences of its world."""
    if plain(world):
        return app

    def agreed() -> Recipe:
        setup = prepare()
        count = parameter_count(world.model, tuple(setup.x.shape[1:]), setup.classes)
        return recipe(world, setup.clients, count)

    return guarded(app, world, lambda: prepare().seed, agreed)


def seeded_app(app: ClientApp, world: World, prepare: Callable[[], Bench]) -> ClientApp:
    """Return a ClientApp of one's own as a world needs it: behind the world's defences, and with the global generators
    seeded for each message, by world, client, kind and round, so that one that draws from them repeats itself on every
    engine.
    """
    answer_who(app)

    class Seeded(ClientApp):
        def __call__(self, message: Message, context: Context) -> Message:
            kind, party = message.metadata.message_type, party_of(context)
            number = round_of(message) if CONFIG in message.content else 0
            with flower_globals(derive(prepare().seed, world.name, "own client", party, kind, number)):
                return app(message, context)

    return _guarded(Seeded(), world, prepare)


def answer_who(app: ClientApp) -> None:
    """Let a ClientApp say which client it is."""

    @app.query("who")
    def who_message(message: Message, context: Context) -> Message:
        return who_reply(message, context)


def _model(message: Message) -> ArrayRecord:
    return cast(ArrayRecord, message.content[ARRAYS])


def _config(message: Message) -> ConfigRecord:
    return cast(ConfigRecord, message.content[CONFIG])


def _reply(message: Message, metrics: dict[str, int | float], params: Params | None = None) -> Message:
    content = RecordDict({METRICS: MetricRecord(dict(metrics))})
    if params is not None:
        content[ARRAYS] = ArrayRecord({name: value.cpu() for name, value in params.items()})
    return Message(content, reply_to=message)


@dataclass
class Outcome:
    """Filled in while a ServerApp runs: Flower gives no other way to hand a result back.

    utility: train accuracy, train loss, test accuracy and test loss at each of `measured_rounds`.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    utility: list[tuple[float, float, float, float]] = field(default_factory=list)


def measured_rounds(rounds: int) -> tuple[int, ...]:
    """Return after which rounds the utility is measured: a handful, from 0 to the last."""
    return tuple(sorted({round(part * rounds / MEASURED) for part in range(MEASURED + 1)}))


def utility(setup: Bench, world: World) -> Callable[[Params], tuple[float, float, float, float]]:
    """Return what measures train accuracy, train loss, test accuracy and test loss of a model of a world, as an
    observer outside the federation would (never on the transcript), each on `MEASURED_RECORDS` records at most.
    """
    samples = []
    for name, rows in (("members", np.concatenate(world.rows)), ("test", setup.test.numpy(force=True))):
        if len(rows) > MEASURED_RECORDS:
            rows = generator(setup.seed, world.name, "utility", name).choice(rows, MEASURED_RECORDS, replace=False)
        samples.append(torch.from_numpy(rows))
    model = setup.model(world)

    def measure(params: Params) -> tuple[float, float, float, float]:
        train_part, test_part = (evaluate(model, params, setup.x[rows], setup.y[rows]) for rows in samples)
        return train_part.accuracy, train_part.loss, test_part.accuracy, test_part.loss

    return measure


def server_app(
    setup: Bench,
    world: World,
    make_strategy: Callable[[bool], Strategy],
    sink: Callable[[Event], None],
    outcome: Outcome,
) -> ServerApp:
    """Return the ServerApp of a world.

    make_strategy(evaluate_clients) builds the Flower strategy; sink receives every event; outcome receives the final
    model and the utility on the way.
    """
    app = ServerApp()
    receive, decode = Inbox(), Decoder()
    latest = [ArrayRecord()]
    measure = utility(setup, world)

    def judge(number: int, arrays: ArrayRecord) -> None:
        latest[0] = arrays
        if number in measured_rounds(world.federation.rounds):
            outcome.utility.append(measure(receive(setup, arrays)))

    def who_is_in(number: int) -> Iterable[int]:
        return cohort(setup, world, number)

    @app.main()
    def main(grid: Grid, context: Context) -> None:  # noqa: ARG001
        roster = ask_roster(grid, nodes(setup, world))
        handle = server_side(setup.seed, world, setup.clients, lambda: decode(latest[0]))
        handle = active(world, setup.model(world), handle)
        taped = ScenarioGrid(grid, roster, who_is_in, sink, handle, silent(setup.seed, world))
        first = ArrayRecord({name: value.cpu() for name, value in initial(setup, world).items()})
        with flower_globals(derive(setup.seed, world.name, "flower")):
            strategy = around(make_strategy(world.federation.evaluate_clients), world, setup.clients)
            result = strategy.start(
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
