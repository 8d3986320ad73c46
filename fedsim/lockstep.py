"""Worlds in lockstep: many worlds of a job in this process, round by round together, so that all the local trainings
of a round can be done as one.

Through Flower, each world's ServerApp and each message's ClientApp run in a coroutine of their own (a greenlet), so
neither knows that it was parked where it called for local training.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from flwr.app import Context, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from greenlet import getcurrent, greenlet

from fedsim import direct
from fedsim.apps import Bench, Outcome, client_app, nodes, seeded_app, server_app
from fedsim.defences import plain
from fedsim.direct import Course
from fedsim.dp_sgd import train_alone
from fedsim.errors import ScenarioError
from fedsim.grid import RUN_ID, LocalGrid, task_identity
from fedsim.job import Job, WorldResult, client_name
from fedsim.models import build
from fedsim.randomness import global_state, restore_globals
from fedsim.scenario import RecordPrivacy
from fedsim.stacked import stackable, train_many
from fedsim.training import Task, Trained
from fedsim.transcript import Event
from fedsim.watch import Watch

Spare = Callable[[int], Callable[[Event], None] | None]


def parked(task: Task) -> Trained:
    """Park the ClientApp that calls this until its local training is done."""
    grid = getcurrent().parent
    assert grid is not None
    trained = grid.switch(task)
    assert isinstance(trained, Trained)
    return trained


def parked_drawing(task: Task) -> Trained:
    """Park a ClientApp whose mods may be drawing from the global generators; they go on where they were."""
    drawn_from = global_state()
    trained = parked(task)
    restore_globals(drawn_from)
    return trained


class LockstepGrid(LocalGrid):
    """Runs the real ClientApp for each message; where one parks for local training, hands all that did to the engine
    and goes on when it has trained them.
    """

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:  # noqa: ARG002
        ordered = sorted(messages, key=lambda message: message.metadata.dst_node_id)
        clients = [greenlet(partial(self._handle, message)) for message in ordered]
        # Parked mods may leave their blocks in another order than they entered them, so what was global is put back.
        gradients_wanted, drawn_from = torch.is_grad_enabled(), global_state()
        said = []
        for each in clients:
            said.append(each.switch())
            restore_globals(drawn_from)
        while waiting := [i for i, each in enumerate(clients) if not each.dead]:
            engine = getcurrent().parent
            assert engine is not None
            results = engine.switch([said[i] for i in waiting])
            for i, trained in zip(waiting, results, strict=True):
                said[i] = clients[i].switch(trained)
        torch.set_grad_enabled(gradients_wanted)
        restore_globals(drawn_from)
        return said


def _through_flower(job: Job, index: int, setup: Bench, sink: Callable[[Event], None], outcome: Outcome) -> Course:
    """Return a world under way whose every message is a Flower Message."""
    world, recipes = job.worlds[index], job.recipes
    server = server_app(setup, world, partial(recipes.strategy, world.federation.strategy), sink, outcome)
    client = make_client(job, index, lambda: setup, parked_drawing if world.federation.mods else parked)
    run = greenlet(partial(serve, server, client, nodes(setup, world), LockstepGrid))
    waiting = run.switch()
    while not run.dead:
        waiting = run.switch((yield waiting))


def make_client(
    job: Job, index: int, prepare: Callable[[], Bench], train_task: Callable[[Task], Trained] = train_alone
) -> ClientApp:
    """Return the ClientApp of a world: fedsim's own, or the one the job brings."""
    world = job.worlds[index]
    if job.recipes.client is None:
        return client_app(world, prepare, job.recipes.mods(world.federation.mods), train_task)
    name, app = client_name(job.recipes.client), None
    try:
        app = job.recipes.client(world, prepare)
    except Exception as error:
        raise ScenarioError(f"--client-app: {name}(world, prepare) failed: {type(error).__name__}: {error}") from None
    if not isinstance(app, ClientApp):
        raise ScenarioError(f"--client-app: {name}(world, prepare) returned {type(app).__name__}, expected a ClientApp")
    return seeded_app(app, world, prepare)


def serve(server: ServerApp, client: ClientApp, clients: int, grid: type[LocalGrid] = LocalGrid) -> None:
    """Run a ServerApp over a grid in this process."""
    context = Context(run_id=RUN_ID, node_id=0, node_config=UserConfig(), state=RecordDict(), run_config=UserConfig())
    server(grid(client, clients), context)


def run_together(
    job: Job, indices: Sequence[int], setup: Bench, *, messages: bool = False, spare: Spare | None = None
) -> Iterator[tuple[int, WorldResult]]:
    """Yield (world, what it leaves behind) for each of `indices`, all run round by round together.

    messages: send every message through Flower, also where a world could do without. spare: world -> what receives
    its events too.
    """
    outcomes = {index: Outcome() for index in indices}
    watches = {index: Watch(job, index, setup, spare(index) if spare else None) for index in indices}
    running: dict[int, Course] = {}
    for index in indices:
        make = _through_flower if messages or not direct_world(job, index) else _directly
        running[index] = make(job, index, setup, watches[index].see, outcomes[index])
    answers: dict[int, list[Trained]] = {}
    with task_identity():
        while running:
            waiting: dict[int, list[Task]] = {}
            for index, course in [*running.items()]:
                try:
                    waiting[index] = course.send(answers[index]) if index in answers else next(course)
                except StopIteration:
                    del running[index]
                    yield index, watches.pop(index).finish(outcomes.pop(index))
            answers.clear()
            trained = iter(train_many([task for tasks in waiting.values() for task in tasks]))
            answers = {index: [next(trained) for _ in tasks] for index, tasks in waiting.items()}


def direct_world(job: Job, index: int) -> bool:
    """Return whether a world can do without Flower's containers: its strategy averages, and nothing sits between its
    parties.
    """
    world = job.worlds[index]
    federation = world.federation
    return (
        plain(world)
        and world.adversary is None
        and job.recipes.client is None
        and job.scenario.device == "cpu"
        and job.recipes.average(federation.strategy) is not None
        and not federation.mods
        and not federation.evaluate_clients
    )


def batched(job: Job, index: int) -> bool:
    """Return whether the local trainings of a world are done together with others."""
    world = job.worlds[index]
    model = build(world.model, job.stock.x.shape[1:], job.stock.classes)
    alone = isinstance(world.federation.privacy, RecordPrivacy)
    return job.recipes.client is None and not alone and stackable(model, world.federation.local)


def _directly(job: Job, index: int, setup: Bench, sink: Callable[[Event], None], outcome: Outcome) -> Course:
    world = job.worlds[index]
    config = job.recipes.average(world.federation.strategy)
    assert config is not None
    return direct.course(setup, world, config, sink, outcome)
