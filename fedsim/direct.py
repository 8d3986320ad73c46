"""A federation without Flower's containers, for strategies that only average. It holds the same conversation, event by
event, as Flower's FedAvg over the same apps; why it exists and what it buys is in `docs/decisions/`.
"""

from collections.abc import Callable, Generator, Mapping

import torch

from fedsim.apps import Bench, Outcome, cohort, initial, local_task, measured_rounds, utility
from fedsim.game import World
from fedsim.grid import PROXIMAL, read_only
from fedsim.models import Params
from fedsim.training import Task, Trained
from fedsim.transcript import SERVER, Arrays, Event, client

Course = Generator[list[Task], list[Trained], None]
"""A world under way: yields the local trainings it waits for, and is sent what they came to."""


def course(
    setup: Bench, world: World, config: Mapping[str, float], sink: Callable[[Event], None], outcome: Outcome
) -> Course:
    """Return a world under way; sink and outcome receive what they would from Flower's ServerApp.

    config: what the strategy tells the clients each round.
    """
    params, measure = initial(setup, world), utility(setup, world)
    rounds, measured = world.federation.rounds, measured_rounds(world.federation.rounds)
    kept: dict[int, dict[str, torch.Tensor]] = {}
    for number in range(rounds + 1):
        if number in measured:
            outcome.utility.append(measure(params))
        if number == rounds:
            break
        chosen = cohort(setup, world, number + 1)
        arrays = _arrays(params)
        facts = {**config, "server-round": number + 1}
        for party in chosen:
            sink(Event(number + 1, "train", SERVER, client(party), arrays, facts))
        if not chosen:
            continue
        tasks = [
            local_task(setup, world, party, number + 1, params, config.get(PROXIMAL, 0.0), kept.setdefault(party, {}))
            for party in chosen
        ]
        results = yield tasks
        for party, task, trained in zip(chosen, tasks, results, strict=True):
            said = {"num-examples": len(task.rows), "train_loss": trained.loss}
            sink(Event(number + 1, "train-reply", client(party), SERVER, _arrays(trained.params), said))
        params = _mean(results, [len(task.rows) for task in tasks])
    outcome.arrays = {name: value.cpu().numpy() for name, value in params.items()}


def _arrays(params: Params) -> Arrays:
    """Return parameters as an event carries them; not copied, since nobody moves them any more."""
    return read_only({name: value.cpu().numpy() for name, value in params.items()})


def _mean(results: list[Trained], counts: list[int]) -> Params:
    """Return the mean weighted by the number of records, summed in the order of the clients."""
    names = list(results[0].params)
    total: list[torch.Tensor] = []
    for trained, count in zip(results, counts, strict=True):
        values, weight = [trained.params[name] for name in names], count / sum(counts)
        if total:
            torch._foreach_add_(total, values, alpha=weight)
        else:
            total = list(torch._foreach_mul(values, weight))
    return dict(zip(names, total, strict=True))
