"""Signals of the game client_property: which clients have records with a property, read from sums of updates by one
linear function of them.

What a linear function says of a sum is the sum of what it says of the updates in it. So the sums of many rounds, and
who was in each, are a system of linear equations for what it says of each client.
Source: Kerkouche, Acs, Fritz, "Client-specific property inference against secure aggregation in federated learning",
WPES 2023, https://arxiv.org/abs/2303.03908
"""

from collections.abc import Mapping
from math import ceil
from typing import NamedTuple

import numpy as np

from attacks.aggregates import Rounds, equations, follow, indicator, singled_out, undetermined
from attacks.folds import broadcast, trained_reply
from attacks.zero_patterns import NO_FIRST_LAYER, first_layer, moved_exactly
from fedsim.attack import Bools, Equations, Signal
from fedsim.errors import NotVisible
from fedsim.randomness import generator
from fedsim.transcript import Arrays, Event, client
from fedsim.vectors import flat
from fedsim.views import Ask, ClientPropertyAsk, Floats, Ints, Oracle, Public, Records

REHEARSALS = 60
"""In so many rounds at most, evenly spaced, the attacker practises on public record sets: dozens of trainings each."""
RIDGE = 0.1
"""Weight of the penalty on the linear function, as a share of the mean squared length of what it is trained on."""
PRIOR = 4.0
"""One over the variance of a fair coin: how strongly the solution is drawn to not knowing."""


def client_property_ask(ask: Ask) -> ClientPropertyAsk:
    """Return an ask about properties of clients; TypeError for any other."""
    if not isinstance(ask, ClientPropertyAsk):
        raise TypeError(f"a signal of clients' properties needs a ClientPropertyAsk, got {type(ask).__name__}")
    return ask


class Meta(NamedTuple):
    """A linear function of updates: direction . (update - centre) is `slope` higher, in the mean, for an update of a
    record set with the property than for one without, with this variance about both means.
    """

    direction: Floats
    centre: Floats
    slope: float
    variance: float


def learned(no: Floats, yes: Floats) -> Meta:
    """Return the ridge regression of the answer (-1/2 or 1/2) on updates [m, d] without and with the property. Slope
    and variance are those of updates left out of it, so that nothing is believed that was only learned by heart.
    """
    updates = np.concatenate([no, yes])
    answers = np.repeat([-0.5, 0.5], [len(no), len(yes)])
    centre = updates.mean(axis=0)
    rest = updates - centre
    products = rest @ rest.T
    penalty = RIDGE * float(np.trace(products)) / len(updates)
    if not penalty:
        return Meta(np.zeros(len(centre)), centre, 0.0, 1.0)
    inverted = np.linalg.inv(products + penalty * np.eye(len(updates)))
    hat = products @ inverted + 1 / len(updates)  # the mean is fitted too
    left_out = answers - (answers - products @ inverted @ answers) / (1 - np.diag(hat))
    without, with_it = left_out[: len(no)], left_out[len(no) :]
    variance = float((without.var(ddof=1) + with_it.var(ddof=1)) / 2)
    return Meta(rest.T @ (inverted @ answers), centre, float(with_it.mean() - without.mean()), variance + 1e-12)


def rehearsed(public: Public, model: Arrays, population: Records, sets: Ints, rng: np.random.Generator) -> Floats:
    """Return the descents [sets, d] of local training from a model on some public record sets [sets, records]."""
    if public.train is None:
        raise NotVisible("the attacker needs the training recipe to practise on public records")
    before = flat(model)
    return np.stack([before - flat(public.train(model, population.x[rows], population.y[rows], rng)) for rows in sets])


class System(NamedTuple):
    """A^T A [clients, clients] over the sums seen; the same and A^T b [clients] with each sum weighted by what its
    answer is worth; the linear function, and since which round it holds.
    """

    public: Public
    ask: ClientPropertyAsk
    counts: Floats
    weighted: Floats
    products: Floats
    rounds: Rounds = Rounds()
    sums: int = 0
    meta: Meta | None = None
    since: int = 0


def _start(public: Public, ask: Ask) -> System:
    square = np.zeros((public.clients, public.clients))
    return System(public, client_property_ask(ask), square, square, np.zeros(public.clients))


def _step(state: System, event: Event) -> System:
    rounds, group = follow(state.rounds, event)
    state = state._replace(rounds=rounds)
    if not group or not group.members:
        return state
    if state.meta is None or group.round - state.since >= ceil(state.public.rounds / REHEARSALS):
        rng = generator(0, "client property", group.round)
        no, yes = (
            rehearsed(state.public, group.model, state.ask.population, sets, rng)
            for sets in (state.ask.no, state.ask.yes)
        )
        state = state._replace(meta=learned(no, yes), since=group.round)
    assert state.meta is not None
    meta, there = state.meta, indicator(group, state.public.clients)
    state = state._replace(counts=state.counts + np.outer(there, there), sums=state.sums + 1)
    if meta.slope <= 0:  # it tells nothing, not even of public records
        return state
    answer = group.size * float(meta.direction @ (group.descent / group.weight - meta.centre))
    worth = 1 / (group.size * meta.variance)
    return state._replace(
        weighted=state.weighted + worth * meta.slope**2 * np.outer(there, there),
        products=state.products + worth * meta.slope * answer * there,
    )


def _solve(state: System, released: Oracle) -> Floats:  # noqa: ARG001 - the sums say it all
    _, solved = singled_out(state.counts)
    asked = state.ask.clients
    if not solved[asked].any():
        raise NotVisible(f"{undetermined(state.counts, state.sums)} who is asked about")
    found = np.linalg.solve(state.weighted + PRIOR * np.eye(len(state.counts)), state.products)
    return np.asarray(np.where(solved, found, 0.0)[asked])


def _average(state: System, released: Oracle) -> Floats:  # noqa: ARG001 - the sums say it all
    asked = state.ask.clients
    if not np.diag(state.counts)[asked].any():
        raise NotVisible("no sum of updates that a client asked about is known to be in crossed this vantage")
    return np.asarray((state.products / (np.diag(state.weighted) + PRIOR))[asked])


def _equations(state: System) -> Equations:
    return equations(state.counts, state.sums)


PROPERTY_OF_CLIENTS = Signal(_start, _step, _solve, "sums", _equations)
"""How much more than half a client has the property [clients], as ridge regression finds it from the sums of all rounds
and who was in each; 0 for a client that they do not single out.
"""
PROPERTY_OF_SUMS = Signal(_start, _step, _average, "sum")
"""The mean of what the sums that a client is in say [clients], whoever else is in them."""


# What stood still: a feature that only records with the property have.


class Marks(NamedTuple):
    """Which columns [features] of the first layer each client asked about ever moved, by party name."""

    public: Public
    ask: ClientPropertyAsk
    moved: Mapping[str, Bools]
    round: int = -1
    broadcast: Arrays | None = None


def marks(ask: ClientPropertyAsk) -> Bools:
    """Return the features [features] that occur in every public record set with the property and in none without."""
    there = ask.population.x.reshape(len(ask.population), -1) != 0
    every = np.stack([there[rows].any(axis=0) for rows in ask.yes]).all(axis=0)
    return np.asarray(every & ~there[ask.no.ravel()].any(axis=0))


def _start_marks(public: Public, ask: Ask) -> Marks:
    return Marks(public, client_property_ask(ask), {})


def _step_marks(state: Marks, event: Event) -> Marks:
    if broadcast(event):
        return state._replace(round=event.round, broadcast=event.arrays)
    asked = {client(int(k)) for k in state.ask.clients}
    if event.round != state.round or not trained_reply(event, state.broadcast, asked):
        return state
    assert state.broadcast is not None
    name = first_layer(state.broadcast, int(np.prod(state.ask.population.x.shape[1:])))
    if name is None:
        raise NotVisible(NO_FIRST_LAYER)
    columns = moved_exactly(state.broadcast[name], event.arrays[name])
    return state._replace(moved={**state.moved, event.sender: state.moved.get(event.sender, False) | columns})


def _finish_marks(state: Marks, released: Oracle) -> Floats:  # noqa: ARG001 - the updates say it all
    if not state.moved:
        raise NotVisible("no update of a client asked about crossed this vantage")
    of_property = marks(state.ask)
    found = [state.moved.get(client(int(k))) for k in state.ask.clients]
    return np.array([0.5 if each is None or not of_property.any() else each[of_property].mean() for each in found])


MARKS_MOVED = Signal(_start_marks, _step_marks, _finish_marks, "update")
"""Share [clients] of the features that mark the property whose weights a client's updates ever moved; a half, which is
no evidence, for a client never seen, and for all where nothing marks it.
"""
