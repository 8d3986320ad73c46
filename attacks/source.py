"""Signals of the source game: which client's updates know a record best?"""

from collections.abc import Mapping
from math import ceil
from typing import NamedTuple

import numpy as np

from attacks.final import cross_entropy
from attacks.folds import beside, broadcast, mean_of, number, trained_reply
from attacks.gradients import cosine, owned_by
from attacks.labels import UPDATES, label_counts, last_bias
from fedsim.attack import Signal
from fedsim.errors import NotVisible
from fedsim.transcript import Arrays, Event
from fedsim.vectors import flat
from fedsim.views import Ask, Floats, Ints, LabelAsk, Oracle, Public, SourceAsk, query, softmax

ROUNDS_COMPARED = 10
"""At most about so many rounds are looked at, evenly spaced: each costs an answer of every client's model."""
NOTHING_TO_COMPARE = "in no round did updates of two clients cross this vantage, so there is nothing to compare"


def _asked(ask: Ask) -> SourceAsk:
    if not isinstance(ask, SourceAsk):
        raise TypeError(f"a signal of sources needs a SourceAsk, got {type(ask).__name__}")
    return ask


class Watched(NamedTuple):
    """Sums over the rounds looked at, by how much the alleged owner of a record stands out [items], and how many rounds
    they cover [items]; the broadcast of the round that is under way.
    """

    public: Public
    ask: SourceAsk
    owned: Mapping[str, Ints]
    total: Floats
    rounds: Ints
    broadcast: Arrays | None = None
    number: int = -1


def _watch(public: Public, ask: Ask) -> Watched:
    asked = _asked(ask)
    nothing = np.zeros(len(asked.items))
    return Watched(public, asked, owned_by(asked.items), nothing, nothing.astype(np.int64))


def _opens_round(watched: Watched, event: Event) -> bool:
    return broadcast(event) and event.round != watched.number


def _counts(watched: Watched, event: Event) -> bool:
    """Return whether an event is a client's trained model in a round that is looked at."""
    return (
        event.round == watched.number
        and event.round % ceil(watched.public.rounds / ROUNDS_COMPARED) == 0
        and trained_reply(event, watched.broadcast)
    )


def _noted(watched: Watched, above: Floats) -> Watched:
    """Add the round that is over, in which each alleged owner stood out by `above` [items]; NaN where it was not there
    or nobody else was.
    """
    seen = ~np.isnan(above)
    return watched._replace(total=watched.total + np.where(seen, above, 0.0), rounds=watched.rounds + seen)


def _mean(watched: Watched) -> Floats:
    if not watched.rounds.any():
        raise NotVisible(NOTHING_TO_COMPARE)
    return mean_of(watched.total, watched.rounds)


class Losses(NamedTuple):
    """In the round under way, the loss of each record under its alleged owner's model and the lowest under any other
    client's, [items]; NaN where there was none.
    """

    watched: Watched
    own: Floats
    others: Floats


def _start_losses(public: Public, ask: Ask) -> Losses:
    return _no_losses(_watch(public, ask))


def _no_losses(watched: Watched) -> Losses:
    unknown = np.full(len(watched.ask.items), np.nan)
    return Losses(watched, unknown, unknown)


def _step_losses(state: Losses, event: Event) -> Losses:
    if _opens_round(state.watched, event):
        return _no_losses(_with_losses(state)._replace(broadcast=event.arrays, number=event.round))
    if not _counts(state.watched, event):
        return state
    watched, items = state.watched, state.watched.ask.items
    losses = cross_entropy(softmax(query(watched.public, event.arrays, items.x)), items.y)
    alleged = np.zeros(len(items), dtype=bool)
    alleged[watched.owned.get(event.sender, [])] = True
    return Losses(
        watched,
        own=np.where(alleged, losses, state.own),
        others=np.where(alleged, state.others, np.fmin(state.others, losses)),
    )


def _with_losses(state: Losses) -> Watched:
    return _noted(state.watched, state.others - state.own)


def _finish_losses(state: Losses, released: Oracle) -> Floats:  # noqa: ARG001 - the updates say it all
    return _mean(_with_losses(state))


SOURCE_LOSS = Signal(_start_losses, _step_losses, _finish_losses, "updates")
"""Lowest loss [items] under any other client's model minus that under the alleged owner's, mean over the rounds: in a
single round positive where the alleged owner's is the lowest. NaN for an owner never compared.

Source: Hu, Salcic, Sun, Dobbie, Zhang, "Source inference attacks in federated learning", ICDM 2021,
https://arxiv.org/abs/2109.05659
"""


class Directions(NamedTuple):
    """In the round under way, the cosine of each record's gradient with its alleged owner's update [items], NaN where
    there was none; the sum of all updates, each scaled to length 1; and how many there were.
    """

    watched: Watched
    own: Floats
    together: Floats
    updates: int


def _start_directions(public: Public, ask: Ask) -> Directions:
    return _no_directions(_watch(public, ask))


def _no_directions(watched: Watched) -> Directions:
    return Directions(watched, np.full(len(watched.ask.items), np.nan), np.zeros(()), 0)


def _step_directions(state: Directions, event: Event) -> Directions:
    watched = state.watched
    if _opens_round(watched, event):
        return _no_directions(_with_directions(state)._replace(broadcast=event.arrays, number=event.round))
    if not _counts(watched, event):
        return state
    assert watched.broadcast is not None
    moved = flat(watched.broadcast) - flat(event.arrays)
    length = float(np.linalg.norm(moved))
    step = moved / length if length > 0 else moved
    own, rows = state.own.copy(), watched.owned.get(event.sender, np.zeros(0, dtype=np.int64))
    own[rows] = _cosines(watched, step, rows)
    return Directions(watched, own, step + state.together, state.updates + 1)


def _with_directions(state: Directions) -> Watched:
    """The mean over the other clients is a difference of sums, so no update needs to be kept."""
    compared = np.flatnonzero(~np.isnan(state.own))
    if state.updates < 2 or not len(compared):
        return state.watched
    above = np.full(len(state.own), np.nan)
    own = state.own[compared]
    others = (_cosines(state.watched, state.together, compared) - own) / (state.updates - 1)
    above[compared] = own - others
    return _noted(state.watched, above)


def _cosines(watched: Watched, step: Floats, rows: Ints) -> Floats:
    """Return the inner product [rows] of a step [d] with the direction of each record's gradient at the broadcast
    model; 0 where that is zero.
    """
    assert watched.broadcast is not None
    if not len(rows):
        return np.zeros(0)
    return cosine(beside(watched.public, watched.ask.items, rows, watched.broadcast, step)._replace(moved=1.0))


def _finish_directions(state: Directions, released: Oracle) -> Floats:  # noqa: ARG001 - the updates say it all
    return _mean(_with_directions(state))


SOURCE_COSINE = Signal(_start_directions, _step_directions, _finish_directions, "updates")
"""Cosine [items] of the record's gradient with the alleged owner's update minus its mean over the other clients'
updates, mean over the rounds; NaN for an owner never compared.
"""


class Histograms(NamedTuple):
    """Sums of the estimated label counts of each client, [classes] by party, and how many updates they cover."""

    public: Public
    ask: SourceAsk
    total: Mapping[str, Floats]
    updates: Mapping[str, int]
    broadcast: Arrays | None = None
    number: int = -1


def _start_histograms(public: Public, ask: Ask) -> Histograms:
    return Histograms(public, _asked(ask), {}, {})


def _step_histograms(state: Histograms, event: Event) -> Histograms:
    if broadcast(event) and event.round != state.number:
        return state._replace(broadcast=event.arrays, number=event.round)
    if event.round != state.number or not trained_reply(event, state.broadcast):
        return state
    assert state.broadcast is not None
    sender, examples, classes = event.sender, number(event, "num-examples"), state.public.classes
    if state.updates.get(sender, 0) == UPDATES or examples is None or examples <= 0:
        return state
    if last_bias(state.broadcast, classes) is None:
        return state
    if not len(state.ask.population):
        raise NotVisible("the attacker holds no public records to estimate the average answer to each class")
    about = LabelAsk(0, state.ask.population, classes)  # who it is about does not matter to the estimate
    counts = label_counts(state.public, about, state.broadcast, event.arrays, examples)
    return state._replace(
        total={**state.total, sender: state.total.get(sender, 0.0) + counts},
        updates={**state.updates, sender: state.updates.get(sender, 0) + 1},
    )


def _finish_histograms(state: Histograms, released: Oracle) -> Floats:  # noqa: ARG001 - the updates say it all
    if len(state.total) < 2:
        raise NotVisible("no readable updates of two clients crossed this vantage, so there are no labels to compare")
    counts = {party: total / state.updates[party] for party, total in state.total.items()}
    everywhere = np.sum(list(counts.values()), axis=0)  # [classes]
    items, scores = state.ask.items, np.full(len(state.ask.items), 1 / state.public.clients)
    for party, rows in owned_by(state.ask.items).items():
        label = items.y[rows]
        if party in counts:
            known = everywhere[label] > 0
            scores[rows[known]] = counts[party][label[known]] / everywhere[label[known]]
    return scores


SOURCE_LABELS = Signal(_start_histograms, _step_histograms, _finish_histograms, "updates")
"""Share [items] of all records with the record's label that the alleged owner holds, as far as the updates' biases
tell; an equal share where they do not. It never looks at the record itself.
"""
