"""A federation without Flower's containers, for strategies that only average. It holds the same conversation, event by
event, as Flower's FedAvg over the same apps; why it exists and what it buys is in `docs/decisions/`.

The mean of the clients' models is formed without forming each of them, where that is quicker. A client's model is then
formed only if somebody looks at its reply; that changes neither the mean nor any other reply.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial

import torch

from fedsim.apps import Bench, Outcome, cohort, initial, local_task, measured_rounds, utility
from fedsim.grid import PROXIMAL, read_only
from fedsim.models import Params
from fedsim.stacked import Joint, joint_parts, moves_once, step_once, train_jointly
from fedsim.training import Task, Trained
from fedsim.transcript import SERVER, Arrays, Event, Formed, array_checksums, client
from fedsim.world import World, rows_in

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
        said: dict[int, tuple[float, Arrays]] = {}  # client -> loss and model
        counts = {party: len(rows_in(world, party, number + 1)) for party in chosen}
        everyone = sum(counts.values())
        parts: list[tuple[float, Params]] = []  # what the mean is the weighted sum of

        once = [party for party in chosen if moves_once(setup.model(world), world.federation.local, counts[party])]
        if once:
            rows = [torch.from_numpy(rows_in(world, party, number + 1)) for party in once]
            joint = step_once(setup.model(world), params, setup.x, setup.y, rows, world.federation.local)
            said |= _answers(once, joint)
            parts.append((1 / everyone, joint.total))
        several = [party for party in chosen if party not in said]
        mu = config.get(PROXIMAL, 0.0)
        tasks = [
            local_task(setup, world, party, number + 1, params, mu, kept.setdefault(party, {})) for party in several
        ]
        for part in joint_parts(tasks):
            joint = train_jointly([tasks[k] for k in part])
            said |= _answers([several[k] for k in part], joint)
            parts.append((1 / everyone, joint.total))
        rest = [k for k, party in enumerate(several) if party not in said]
        results = (yield [tasks[k] for k in rest]) if rest else []
        for k, trained in zip(rest, results, strict=True):
            said[several[k]] = trained.loss, _arrays(trained.params)
            parts.append((counts[several[k]] / everyone, trained.params))
        for party in chosen:
            loss, model = said[party]
            report = {"num-examples": counts[party], "train_loss": loss}
            sink(Event(number + 1, "train-reply", client(party), SERVER, model, report))
        params = _sum(parts, params)
    outcome.arrays = {name: value.cpu().numpy() for name, value in params.items()}


def _arrays(params: Params) -> Arrays:
    """Return parameters as an event carries them; not copied, since nobody moves them any more."""
    return read_only({name: value.cpu().numpy() for name, value in params.items()})


def _answers(parties: Sequence[int], joint: Joint) -> dict[int, tuple[float, Arrays]]:
    """Return the loss of each party, and its model, to be formed if somebody looks."""
    told = array_checksums({name: value.numpy() for name, value in joint.told.items()})
    names = tuple(joint.total)
    return {
        party: (joint.losses[k], Formed(names, partial(_formed, joint.form, k), told))
        for k, party in enumerate(parties)
    }


def _formed(form: Callable[[int], Params], k: int) -> Arrays:
    return _arrays(form(k))


def _sum(parts: Sequence[tuple[float, Params]], like: Params) -> Params:
    """Return the weighted sum of parameters, in their order."""
    total: list[torch.Tensor] = []
    for weight, params in parts:
        values = [params[name] for name in like]
        if total:
            torch._foreach_add_(total, values, alpha=weight)
        else:
            total = list(torch._foreach_mul(values, weight))
    return dict(zip(like, total, strict=True))
