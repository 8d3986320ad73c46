"""Parties that do more than look: what they send in place of what the protocol asks for. Flower glue, like `defences`.

Everything they do is a message like any other, so it is on the transcript; beside it, each notes for itself what it
aims at (`ACT`), which its own vantage sees and nobody else.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, RecordDict

from fedsim.gradients import norms, record_gradients, weighted_sum
from fedsim.grid import Handle, ScenarioGrid, arrays_of, encoded, only
from fedsim.models import Model, Params
from fedsim.scenario import (
    CanaryGradient,
    GradientAscent,
    InconsistentModels,
    Isolation,
    LabelPoisoning,
    MultiTask,
    PropertyPoisoning,
)
from fedsim.training import Aside, Task
from fedsim.transcript import ACT, SERVER, Arrays, Fact, client
from fedsim.vectors import Floats
from fedsim.views import Ints, Records, groups_of
from fedsim.world import Actor, World

RIDGE = 1e-3
"""What is added to the covariance of the records, as a share of its mean diagonal, before it is inverted."""
HEAD_STEPS = 100
"""Steps in which a second task's last layer is fitted to the model that was sent."""
TINY = 1e-30
"""Below any length of a gradient that is not zero."""
LEAST_ROOM = 0.05
"""A canary unit leaves its record at least so much room, as a share of the spread of what the others give it."""


def due(actor: Actor, number: int) -> bool:
    """Return whether an adversary acts in round `number`."""
    return number % getattr(actor.plan, "every", 1) == 0


def turn(actor: Actor, number: int) -> int:
    """Return how many times an adversary that acts in round `number` acted before."""
    return number // getattr(actor.plan, "every", 1) - 1


# A participant


def pushed_update(world: World, model: Model, params: Params, party: int, number: int) -> Params | None:
    """Return the model that a participant sends which pushes it up the targets' loss; None for one that trains."""
    actor = world.adversary
    if actor is None or not isinstance(actor.plan, GradientAscent) or client(party) not in actor.parties:
        return None
    return (
        uphill(model, params, aimed_at(actor, actor.plan, number), actor.plan.strength) if due(actor, number) else None
    )


def poisoned(world: World, party: int, task: Task, classes: int) -> Task:
    """Return the local training of a participant: where it poisons, with records beside its own.

    Either mislabelled copies of the targets, where the wrong label of a record is the next class, the same wherever it
    is copied; or records with a property under one label, as many as its part of the share.
    Source: Tramer et al., "Truth serum: poisoning machine learning models to reveal their secrets", CCS 2022,
    https://arxiv.org/abs/2204.00032; Chaudhari et al., "SNAP: efficient extraction of private properties with
    poisoning", IEEE S&P 2023, https://arxiv.org/abs/2208.12348
    """
    actor = world.adversary
    if actor is None or client(party) not in actor.parties:
        return task
    plan, targets = actor.plan, actor.targets
    if isinstance(plan, LabelPoisoning):
        more_x = np.concatenate([targets.x] * plan.copies)
        more_y = np.concatenate([(targets.y + 1) % classes] * plan.copies)
    elif isinstance(plan, PropertyPoisoning):
        more_x = targets.x[_poison(world, actor, plan, client(party))]
        more_y = np.full(len(more_x), plan.label)
    else:
        return task
    x = torch.from_numpy(more_x).to(task.x.device, task.x.dtype)
    y = torch.from_numpy(more_y).to(task.y.device)
    own = task.rows.to(task.x.device)
    rows = torch.arange(len(own) + len(y))
    return task._replace(x=torch.cat([task.x[own], x]), y=torch.cat([task.y[own], y]), rows=rows)


def _poison(world: World, actor: Actor, plan: PropertyPoisoning, party: str) -> Ints:
    """Return which of the targets one of the acting parties trains on; together they use as many as the share, each
    once more wherever there are too few.
    """
    wanted = max(1, round(plan.share * sum(len(rows) for rows in world.rows)))
    parties = sorted(actor.parties)
    every = np.resize(np.arange(len(actor.targets)), wanted)
    return every[parties.index(party) :: len(parties)]


def with_second_task(world: World, party: int, number: int, task: Task) -> Task:
    """Return the local training of a participant in round `number`: where it acts by learning a second task along, with
    that task, on the public records that it knows. Its last layer is fitted anew each time: nothing is kept.

    Source: Melis, Song, De Cristofaro, Shmatikov, "Exploiting unintended feature leakage in collaborative learning",
    IEEE S&P 2019, https://arxiv.org/abs/1805.04049
    """
    actor = world.adversary
    if actor is None or not isinstance(actor.plan, MultiTask) or client(party) not in actor.parties:
        return task
    if not due(actor, number):
        return task
    assert actor.others is not None
    no, yes = (
        torch.from_numpy(np.array(each.x)).to(task.x.device, task.x.dtype) for each in (actor.others, actor.targets)
    )
    head = fitted_head(task.model, task.params, no, yes)
    (order,) = task.order.spawn(1)  # leaves the order of the client's own records as it was
    return task._replace(aside=Aside(actor.plan.weight, head, no, yes, order))


def fitted_head(model: Model, params: Params, no: torch.Tensor, yes: torch.Tensor) -> Params:
    """Return a last layer, by the names of the model's own, that tells `yes` [n, ...] from `no` [m, ...] by what the
    layers below make of them: logistic regression, both kinds of equal weight, by gradient descent from zero.
    """
    weight, bias = last_layer(model)
    width = params[weight].shape[1]
    like = params[weight].detach()
    shown = {**params, weight: torch.eye(width).to(like), bias: torch.zeros(width).to(like)}
    with torch.no_grad():
        sides = [torch.cat([model.apply(shown, part, None) for part in torch.split(x, 1000)]) for x in (no, yes)]
        middle = (sides[0].mean(dim=0) + sides[1].mean(dim=0)) / 2
        sides = [middle - sides[0], sides[1] - middle]  # all should come to lie above the middle
        largest = sum(float(side.square().sum(dim=1).mean()) for side in sides) / 8  # bounds the curvature
        rising = torch.zeros(width).to(like)
        for _ in range(HEAD_STEPS):
            pull = sum((torch.sigmoid(-side @ rising) @ side / len(side) for side in sides), torch.zeros_like(rising))
            rising = rising + pull / 2 / max(largest, TINY)
        level = rising @ middle
        return {weight: torch.stack([-rising, rising]) / 2, bias: torch.stack([level, -level]) / 2}


def aimed_at(actor: Actor, plan: GradientAscent, number: int) -> Records:
    """Return the targets that a push in round `number` is about."""
    return _some(actor.targets, groups_of(actor.targets, plan.groups) == turn(actor, number) % plan.groups)


def _some(records: Records, chosen: np.ndarray) -> Records:
    return Records(records.x[chosen], records.y[chosen], records.owner[chosen])


def uphill(model: Model, params: Params, targets: Records, length: float) -> Params:
    """Return parameters moved by a vector of `length` up the targets' losses, along the sum of their gradients'
    directions; unmoved where that is zero.

    Source: Nasr, Shokri, Houmansadr, "Comprehensive privacy analysis of deep learning", IEEE S&P 2019,
    https://arxiv.org/abs/1812.00910; there the step is a multiple of the gradient. Here each record counts alike and
    the length is fixed, or else records that the model has learned would hardly be pushed against.
    """
    like = next(iter(params.values()))
    x = torch.from_numpy(np.array(targets.x)).to(like.device, like.dtype)
    y = torch.from_numpy(np.array(targets.y)).to(like.device)
    directions = {name: torch.zeros_like(value) for name, value in params.items()}
    for piece in record_gradients(lambda given, records: model.apply(dict(given), records, None), params, x, y):
        lengths = norms(piece)
        weights = torch.where(lengths > 0, 1 / lengths.clamp(min=TINY), 0.0).to(like.dtype)
        part = weighted_sum(piece, weights)
        directions = {name: value + part[name] for name, value in directions.items()}
    norm = float(torch.nn.utils.get_total_norm([value.double() for value in directions.values()]))
    return {name: value + directions[name] * (length / norm if norm else 0.0) for name, value in params.items()}


# The server

Act = Callable[[list[Message], ScenarioGrid, Handle], list[Message]]
"""(train messages of a round, grid, what would deliver them) -> the replies that the strategy gets."""


def active(world: World, model: Model, handle: Handle | None) -> Handle | None:
    """Return what happens to the train messages of a round where the world has an adversary, before and after `handle`
    (None: nothing more stands on their way).
    """
    actor = world.adversary
    if actor is None:
        return handle
    deliver = handle if handle is not None else _exchange
    act = _server_act(actor, model) if SERVER in actor.parties else partial(_note_participants, world, actor)

    def acted(messages: list[Message], grid: ScenarioGrid) -> list[Message]:
        if not messages or not due(actor, grid.round):
            return deliver(messages, grid)
        return act(messages, grid, deliver)

    return acted


def _exchange(messages: list[Message], grid: ScenarioGrid) -> list[Message]:
    return grid.exchange(messages)


def _server_act(actor: Actor, model: Model) -> Act:
    plan = actor.plan
    match plan:
        case GradientAscent():
            return partial(_push, actor, plan, model)
        case Isolation():
            return partial(_isolate, plan, {})
        case InconsistentModels() | CanaryGradient():
            return partial(_single_out, actor, plan, model)
        case _:
            raise ValueError(f"{plan.name} is no act of the server")


def _note_participants(
    world: World, actor: Actor, messages: list[Message], grid: ScenarioGrid, deliver: Handle
) -> list[Message]:
    """Write down for the participants that act in this round what they aim at; they act for themselves."""
    for party in sorted({client(grid.receiver(message)) for message in messages} & actor.parties):
        grid.note(ACT, party, party, {}, _aim(world, actor, party, grid.round))
    return deliver(messages, grid)


def _aim(world: World, actor: Actor, party: str, number: int) -> Mapping[str, Fact]:
    """Return what a participant does in a round in which it acts."""
    match actor.plan:
        case LabelPoisoning() as plan:
            return {"copies": plan.copies}
        case PropertyPoisoning() as plan:
            return {"label": plan.label, "records": len(_poison(world, actor, plan, party))}
        case MultiTask() as plan:
            return {"weight": plan.weight}
        case _:
            return _groups(actor, number)


def _groups(actor: Actor, number: int) -> Mapping[str, Fact]:
    groups = getattr(actor.plan, "groups", 1)
    return {"groups": groups, "group": turn(actor, number) % groups}


def _push(
    actor: Actor, plan: GradientAscent, model: Model, messages: list[Message], grid: ScenarioGrid, deliver: Handle
) -> list[Message]:
    """Send everybody the model moved up the targets' loss."""
    honest = arrays_of(messages[0])
    grid.note(ACT, SERVER, SERVER, honest, _groups(actor, grid.round))
    params = {name: torch.from_numpy(np.array(array)) for name, array in honest.items()}
    moved = uphill(model, params, aimed_at(actor, plan, grid.round), plan.strength)
    record = encoded({name: value.numpy() for name, value in moved.items()})
    return deliver([_with_model(message, record) for message in messages], grid)


def _isolate(
    plan: Isolation, kept: dict[int, ArrayRecord], messages: list[Message], grid: ScenarioGrid, deliver: Handle
) -> list[Message]:
    """Send the victims the model that they sent last; one that is alone goes into no average any more."""
    victims = {grid.receiver(message) for message in messages}
    if plan.client is not None:
        victims &= {plan.client}
    for victim in sorted(victims):
        grid.note(ACT, SERVER, SERVER, {}, {"isolated": victim})
    sent = []
    for message in messages:
        own = kept.get(grid.receiver(message))
        sent.append(message if own is None else _with_model(message, own))
    replies = deliver(sent, grid)
    kept |= {grid.sender(reply): only(reply.content, ArrayRecord) for reply in replies if grid.sender(reply) in victims}
    return replies if plan.client is None else [reply for reply in replies if grid.sender(reply) != plan.client]


def _single_out(
    actor: Actor,
    plan: InconsistentModels | CanaryGradient,
    model: Model,
    messages: list[Message],
    grid: ScenarioGrid,
    deliver: Handle,
) -> list[Message]:
    """Send all but the victim a model with dead units, so that what comes of this round is the victim's update."""
    by_party = {grid.receiver(message): message for message in messages}
    parties, number = sorted(by_party), turn(actor, grid.round)
    victim = parties[number % len(parties)] if plan.client is None else plan.client
    if victim not in by_party:
        return deliver(messages, grid)
    grid.note(ACT, SERVER, SERVER, {}, {"victim": victim})
    honest, last = arrays_of(by_party[victim]), last_layer(model)
    suppressed = encoded(dead(honest, last))
    # The victim's comes first: secure aggregation adds the mean update to the model of the first message.
    victims = by_party[victim]
    if isinstance(plan, CanaryGradient):
        visits = number // len(parties) if plan.client is None else number
        units = _canaries_of(actor.targets, victim, visits, len(next(iter(honest.values()))))
        victims = _with_model(victims, encoded(canary_model(honest, last, actor.targets, units)))
    others = [_with_model(by_party[party], suppressed) for party in parties if party != victim]
    replies = deliver([victims, *others], grid)
    if isinstance(plan, CanaryGradient):
        return []  # the crafted model is of no use to anybody; the next round goes on from the honest one
    return [reply for reply in replies if grid.sender(reply) == victim]


def _with_model(message: Message, model: ArrayRecord) -> Message:
    """Return a message with another model in it, and all else as it was."""
    records = {name: model if isinstance(record, ArrayRecord) else record for name, record in message.content.items()}
    sent = message.metadata
    return Message(RecordDict(records), sent.dst_node_id, sent.message_type, ttl=sent.ttl, group_id=sent.group_id)


# Crafted models


def last_layer(model: Model) -> tuple[str, str]:
    """Return the names of the weight and the bias that give the logits."""
    names = list(model.init(torch.Generator().manual_seed(0)))
    return names[-2], names[-1]


def dead(arrays: Arrays, last: tuple[str, str]) -> dict[str, np.ndarray]:
    """Return a model whose rectified units are never active: all gradients but that of the last bias are zero.

    Every weight below the last layer is 0 and every bias -1, so that no unit depends on the record.
    Source: Pasquini, Francati, Ateniese, "Eluding secure aggregation in federated learning via model inconsistency",
    CCS 2022, https://arxiv.org/abs/2111.07380
    """
    return {
        name: np.array(array) if name in last else np.full_like(array, -1 if array.ndim == 1 else 0)
        for name, array in arrays.items()
    }


def _canaries_of(targets: Records, victim: int, visits: int, units: int) -> Ints:
    """Return the targets [at most `units`] that the units of the victim's model answer to, the next ones each visit."""
    own = np.flatnonzero(targets.owner == victim)
    return np.roll(own, -visits * units)[:units]


def canary_model(arrays: Arrays, last: tuple[str, str], targets: Records, chosen: Ints) -> dict[str, np.ndarray]:
    """Return a multi-layer perceptron whose first units answer to one of the `chosen` targets each, and to no other
    target if that can be: the gradient of such a unit's weights is non-zero only if its record is in the batch.

    arrays: the honest model, layer after layer; its last layer stays. A unit's weight is the record's own direction
    among all targets, whitened; its threshold lies half-way to the target that comes next.
    Source: Pasquini, Francati, Ateniese, "Eluding secure aggregation in federated learning via model inconsistency",
    CCS 2022, https://arxiv.org/abs/2111.07380 (there the units are trained)
    """
    crafted = dead(arrays, last)
    names = [name for name in arrays if arrays[name].ndim == 2 and name not in last]
    x: Floats = targets.x.reshape(len(targets), -1).astype(np.float64)
    for unit, (weight, bias) in enumerate(_units(x, chosen)):
        crafted[names[0]][unit], crafted[names[0].removesuffix("weight") + "bias"][unit] = weight, bias
    for name in names[1:]:
        rows, columns = crafted[name].shape
        crafted[name][np.arange(columns) % rows, np.arange(columns)] = 1
        crafted[name.removesuffix("weight") + "bias"][:] = 0
    return crafted


def _units(x: Floats, chosen: Ints) -> list[tuple[Floats, float]]:
    """Return weight and bias of a unit that gives 1 on each chosen row of x [n, d], and nothing on others."""
    centred = x - x.mean(axis=0)
    covariance = centred.T @ centred / len(x)
    ridge = RIDGE * max(float(np.trace(covariance)) / len(covariance), 1e-12)
    directions = np.linalg.solve(covariance + ridge * np.eye(len(covariance)), centred[chosen].T).T
    found = []
    for row, direction in zip(chosen, directions, strict=True):
        given = x @ direction
        others = np.delete(given, np.flatnonzero((x == x[row]).all(axis=1)))
        room = float(given[row] - others.max()) / 2 if len(others) else 1.0
        room = max(room, LEAST_ROOM * float(given.std()), 1e-12)
        found.append((direction / room, float(1 - given[row] / room)))
    return found
