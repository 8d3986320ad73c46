"""Which parties of the worlds of a game deviate from the protocol, and what they know."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fedsim.scenario import ACTS_AS, Adversary
from fedsim.transcript import SERVER, client
from fedsim.views import Ask, BatchAsk, PropertyAsk, RecordAsk, Records, Vantage
from fedsim.world import Actor, Draw


def acting(plan: Adversary, vantage: Vantage) -> frozenset[str]:
    """Return which parties of a vantage act: the server if it can and is there, else every client there."""
    roles = ACTS_AS[plan.name]
    if "server" in roles and SERVER in vantage.parties:
        return frozenset({SERVER})
    return frozenset(client(index) for index in vantage.clients) if "client" in roles else frozenset()


def with_adversary(drawn: Draw, plan: Adversary, parties: frozenset[str]) -> Draw:
    """Return the same worlds with an adversary in each; it knows the questions of all exams that are put to its world,
    but for those about its own records.
    """
    exams_of = [tuple(n for n, exam in enumerate(drawn.exams) if w in exam.worlds) for w in range(len(drawn.worlds))]
    actors = {
        numbers: _actor(plan, parties, [drawn.exams[n].ask for n in numbers]) for numbers in dict.fromkeys(exams_of)
    }
    worlds = (
        dataclasses.replace(world, adversary=actors[numbers])
        for world, numbers in zip(drawn.worlds, exams_of, strict=True)
    )
    return Draw(tuple(worlds), drawn.exams)


def _actor(plan: Adversary, parties: frozenset[str], asks: Sequence[Ask]) -> Actor:
    """Return an adversary that knows some questions."""
    first = asks[0]
    if isinstance(first, BatchAsk):  # the null control asks about the same batches
        places = first.yes[first.holders[first.yes]], first.no.ravel()
        x, y, owner = first.population.x, first.population.y, first.population.owner
        return Actor(plan, parties, *(Records(x[rows], y[rows], owner[rows]) for rows in places))
    asked = [given for ask in asks if (given := _given(ask)) is not None]
    x, y, owner = (np.concatenate([getattr(items, part) for items in asked]) for part in ("x", "y", "owner"))
    known = ~np.isin(owner, sorted(Vantage(parties).clients))
    return Actor(plan, parties, Records(x[known], y[known], owner[known]))


def _given(ask: Ask) -> Records | None:
    """Return the records by which an adversary goes about a question."""
    if isinstance(ask, RecordAsk):
        return ask.items
    return ask.holders if isinstance(ask, PropertyAsk) else None


def adversary_title(plan: Adversary, parties: frozenset[str]) -> str:
    """Return who does what, in words."""
    options = ", ".join(f"{key} {value:g}" for key, value in plan if isinstance(value, int | float))
    return f"{plan.name} by {'+'.join(sorted(parties))}" + (f" ({options})" if options else "")
