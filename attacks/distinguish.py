"""Signals of the game distinguish: which of two known record sets did a client train on, seen through a sum?"""

from collections.abc import Callable
from functools import partial
from math import ceil
from typing import NamedTuple

import numpy as np

from attacks.aggregates import Group, Rounds, follow
from attacks.folds import beside
from attacks.gradients import cosine
from fedsim.attack import Signal
from fedsim.errors import NotVisible
from fedsim.randomness import generator
from fedsim.transcript import Event, client
from fedsim.vectors import flat
from fedsim.views import Ask, DistinguishAsk, Floats, Ints, Oracle, Public, Records

ROUNDS_TESTED = 2
"""So many rounds of a client are tested, spread evenly: each costs the attacker dozens of trainings."""
DRAWS = 3
"""The order of a client's batches is its own: so many orders are tried with each of its two sets."""
SIMULATED = (8, 64)
"""Other clients that are simulated: as many as the public records make, without using one twice, within these."""
SHRINKAGE_OTHERS, SHRINKAGE_ORDER = 0.1, 0.5
"""How far each coordinate's variance is drawn towards their mean: estimated from many trainings, and from few."""


def discriminant(total: Floats, no: Floats, yes: Floats, others: Floats, variance: Floats) -> float:
    """Return the logarithm of how much more likely a sum is with `yes` than with `no` in it.

    Args:
        total: the sum [d].
        no, yes: the two vectors [d] of which one is in it.
        others: mean [d] of all the rest, which is normal with independent coordinates.
        variance: theirs [d], > 0.

    Source: Ngo, Ostman, Durisi, Graell i Amat, "Secure aggregation is not private against membership inference
    attacks", ECML PKDD 2024, https://arxiv.org/abs/2403.17775
    """
    return float((yes - no) / variance @ (total - others - (no + yes) / 2))


class Tests(NamedTuple):
    """Sums of what each client's rounds say [clients], and in how many rounds [clients] and when last [clients]."""

    public: Public
    ask: DistinguishAsk
    total: Floats
    tests: Ints
    last: Ints
    rounds: Rounds = Rounds()


def _start(public: Public, ask: Ask) -> Tests:
    if not isinstance(ask, DistinguishAsk):
        raise TypeError(f"a signal of two record sets needs a DistinguishAsk, got {type(ask).__name__}")
    nothing = np.zeros(ask.count, dtype=np.int64)
    return Tests(public, ask, np.zeros(ask.count), nothing, np.full(ask.count, -public.rounds))


def _step(state: Tests, event: Event, test: Callable[[Tests, Group, list[int]], Floats]) -> Tests:
    rounds, group = follow(state.rounds, event)
    state = state._replace(rounds=rounds)
    if not group:
        return state
    spacing = ceil(state.public.rounds / ROUNDS_TESTED)
    due = [
        place
        for place, each in enumerate(state.ask.clients)
        if client(int(each)) in group.members and group.round - state.last[place] >= spacing
    ]
    if not due:
        return state
    total, tests, last = state.total.copy(), state.tests.copy(), state.last.copy()
    total[due] += test(state, group, due)
    tests[due] += 1
    last[due] = group.round
    return state._replace(total=total, tests=tests, last=last)


def _sum(state: Tests, released: Oracle) -> Floats:  # noqa: ARG001 - the sums say it all
    if not state.tests.any():
        raise NotVisible("no sum of updates that a client asked about is known to be in crossed this vantage")
    return np.where(state.tests > 0, state.total, np.nan)


def set_of(records: Records, owner: int) -> Records:
    """Return the records of one owner."""
    rows = records.owner == owner
    return Records(records.x[rows], records.y[rows], records.owner[rows])


# The linear discriminant: knows both sets whole, and tries what each would have done.


def _likelihood(state: Tests, group: Group, due: list[int]) -> Floats:
    """Return the discriminant [due] of the group's sum for some of the clients asked about."""
    public, ask = state.public, state.ask
    if public.train is None or not len(ask.population):
        raise NotVisible("the attacker needs the training recipe and public records to simulate what clients do")
    before, size = flat(group.model), len(group.members)
    rng = generator(0, "distinguish", group.round)

    def descent(records: Records) -> Floats:
        assert public.train is not None
        return before - flat(public.train(group.model, records.x, records.y, rng))

    pairs = [[set_of(side, int(ask.clients[place])) for side in (ask.no, ask.yes)] for place in due]
    typical = ceil(np.mean([len(no) for no, _ in pairs]))
    others = np.stack([descent(each) for each in simulated(ask.population, typical, rng)]) if size > 1 else None
    found = []
    for pair in pairs:
        tried = np.stack([[descent(side) for _ in range(DRAWS)] for side in pair])  # [2, draws, d]
        mine = 1.0 if np.isclose(group.weight, size) else float(len(pair[0]))
        no, yes = mine * tried.mean(axis=1)
        variance = mine**2 * shrunk(tried.var(axis=1, ddof=1).mean(axis=0), SHRINKAGE_ORDER) * (1 + 1 / DRAWS)
        mean = np.zeros(len(before))
        if others is not None:
            weight = (group.weight - mine) / (size - 1)
            mean = (size - 1) * weight * others.mean(axis=0)
            spread = shrunk(others.var(axis=0, ddof=1), SHRINKAGE_OTHERS)
            variance = variance + (size - 1) * weight**2 * spread * (1 + (size - 1) / len(others))
        floor = 1e-6 * np.mean((yes - no) ** 2) + 1e-300  # where nothing is left to chance
        found.append(discriminant(group.descent, no, yes, mean, variance + floor))
    return np.array(found)


def shrunk(variance: Floats, share: float) -> Floats:
    """Return variances [d] drawn towards their mean by a share."""
    return np.asarray((1 - share) * variance + share * variance.mean())


def simulated(population: Records, size: int, rng: np.random.Generator) -> list[Records]:
    """Return record sets of a size that stand for other clients: disjoint ones, or some that overlap where public
    records are few.
    """
    fewest, most = SIMULATED
    count = min(max(len(population) // size, fewest), most)
    order = np.concatenate([rng.permutation(len(population)) for _ in range(ceil(count * size / len(population)))])
    chosen = [order[start : start + size] for start in range(0, count * size, size)]
    return [Records(population.x[rows], population.y[rows], population.owner[rows]) for rows in chosen]


TWO_UPDATES = Signal(_start, partial(_step, test=_likelihood), _sum, "sum")
"""Sum over rounds of the linear discriminant [clients] between the updates that a client's two sets would lead to."""


# One record of each set: what somebody may well know.


def _one_record(state: Tests, group: Group, due: list[int]) -> Floats:
    """Return how much closer [due] the group's sum is to the first record's gradient of the second set than to that of
    the first.
    """
    ask = state.ask
    found = []
    for side in (ask.no, ask.yes):
        rows = np.array([np.flatnonzero(side.owner == ask.clients[place])[0] for place in due])
        found.append(cosine(beside(state.public, side, rows, group.model, group.descent)))
    return np.asarray(found[1] - found[0])


ONE_RECORD = Signal(_start, partial(_step, test=_one_record), _sum, "sum")
"""Sum over rounds of the cosine of one record's gradient with the sum that its client is in, minus the same of one
record of the client's other set [clients].
"""
