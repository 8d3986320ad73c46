"""Signals of the game batches: in which rounds did a client train on records with a property?

A classifier practises on updates that the attacker computes itself, at the models that were sent out, on public batches
with the property and without; then it looks at what the client did. It is never tried on a round near those it
practised on.
Source: Melis, Song, De Cristofaro, Shmatikov, "Exploiting unintended feature leakage in collaborative learning",
IEEE S&P 2019, https://arxiv.org/abs/1805.04049
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from attacks.aggregates import Rounds, follow
from attacks.folds import next_model, trained_reply
from attacks.gradients import comparable
from attacks.prolin import rehearsed
from fedsim.attack import Signal
from fedsim.errors import NotVisible
from fedsim.randomness import generator
from fedsim.transcript import Arrays, Event, client
from fedsim.vectors import flat, shaped
from fedsim.views import Ask, BatchAsk, Floats, Ints, Oracle, Public

PRACTISED = 4
"""Public batches of each kind that are tried in a round."""
OTHERS = 8
"""Public batches that stand for the other clients' data in a round; each sum has some of them, drawn at random."""
POOLED = 64
"""Numbers that a larger weight is cut down to: the largest of each stretch of it."""
BLOCKS = 4
"""A round is judged by what was learned in the other blocks of consecutive rounds."""


class Round(NamedTuple):
    """Features of what was seen in a round [features], and of public batches [2 x PRACTISED, features], the first half
    of them without the property.
    """

    seen: Floats
    tried: Floats


class Watched(NamedTuple):
    """The rounds seen so far."""

    public: Public
    ask: BatchAsk
    seen: Mapping[int, Round]
    rounds: Rounds = Rounds()


def batch_ask(ask: Ask) -> BatchAsk:
    """Return an ask about batches; TypeError for any other."""
    if not isinstance(ask, BatchAsk):
        raise TypeError(f"a signal of batches needs a BatchAsk, got {type(ask).__name__}")
    return ask


def features(descent: Floats, like: Arrays) -> Floats:
    """Return what a classifier sees of an update [d]: the sizes of its entries weight by weight, biases left out, large
    weights pooled to the largest entry of each stretch, all of length 1 together.
    """
    parts = []
    for array in shaped(descent, {name: np.asarray(each, np.float64) for name, each in like.items()}).values():
        if array.ndim < 2 and any(each.ndim >= 2 for each in like.values()):
            continue
        size = np.abs(np.asarray(array, dtype=np.float64).ravel())
        starts = np.unique(np.arange(POOLED) * len(size) // POOLED)
        parts.append(np.maximum.reduceat(size, starts))
    whole = np.concatenate(parts)
    length = float(np.linalg.norm(whole))
    return whole / length if length else whole


def practised(public: Public, ask: BatchAsk, model: Arrays, number: int, others: int) -> Floats:
    """Return the features [2 x PRACTISED, features] of public batches, each added to what so many others do."""
    rng = generator(0, "batches", number)
    turn = (number * PRACTISED + np.arange(PRACTISED)) % len(ask.no)
    descents = np.concatenate([rehearsed(public, model, ask.population, sets[turn], rng) for sets in (ask.no, ask.yes)])
    if others:
        rows: Ints = rng.integers(len(ask.population), size=(OTHERS, ask.no.shape[1]))
        crowd = rehearsed(public, model, ask.population, rows, rng)
        descents = descents + np.stack([crowd[rng.integers(OTHERS, size=others)].sum(axis=0) for _ in descents])
    return np.stack([features(each, model) for each in descents])


def _start(public: Public, ask: Ask) -> Watched:
    return Watched(public, batch_ask(ask), {})


def _step(state: Watched, event: Event) -> Watched:
    party = client(state.ask.client)
    if event.sender != party and trained_reply(event, state.rounds.model):  # what another client did by itself
        return state
    rounds, group = follow(state.rounds, event)
    state = state._replace(rounds=rounds)
    if not group or party not in group.members or not 0 < group.round <= state.ask.count:
        return state
    tried = practised(state.public, state.ask, group.model, group.round, group.size - 1)
    return state._replace(seen={**state.seen, group.round: Round(features(group.descent, group.model), tried)})


def _finish(state: Watched, released: Oracle) -> Floats:  # noqa: ARG001 - the updates say it all
    if not state.seen:
        raise NotVisible(f"no update of client {state.ask.client}, and no sum with it, crossed this vantage")
    return judged(state.seen, state.ask.count)


def judged(seen: Mapping[int, Round], count: int) -> Floats:
    """Return how sure a forest is [count] that a round's batch has the property, each block of rounds judged by one
    that practised in the other blocks; a half, which is no evidence, for rounds that were not seen.
    """
    from sklearn.ensemble import RandomForestClassifier  # takes a second to import

    numbers = np.array(sorted(seen))
    blocks = (numbers - 1) * BLOCKS // count
    if len(np.unique(blocks)) < 2:
        raise NotVisible("all rounds that were seen lie in one block, and each block is judged by practice in others")
    scores = np.full(count, 0.5)
    for block in np.unique(blocks):
        elsewhere = [seen[int(number)].tried for number in numbers[blocks != block]]
        answers = np.tile(np.repeat([False, True], PRACTISED), len(elsewhere))
        forest = RandomForestClassifier(100, min_samples_leaf=5, random_state=0)
        forest.fit(np.concatenate(elsewhere), answers)
        here = numbers[blocks == block]
        scores[here - 1] = forest.predict_proba(np.stack([seen[int(number)].seen for number in here]))[:, 1]
    return scores


BATCHES = Signal(_start, _step, _finish, "sum")
"""How sure a forest is [rounds] that the client's batch had the property, from its updates or from sums with it."""


# Seen from the models alone: what all clients did together, less what the attackers did themselves.


class Followed(NamedTuple):
    """The rounds seen so far, the newest model and its round, and other clients' descents [d] that came in clear."""

    public: Public
    ask: BatchAsk
    seen: Mapping[int, Round]
    number: int = -1
    model: Arrays | None = None
    known: Mapping[str, Floats] = {}


def _start_models(public: Public, ask: Ask) -> Followed:
    return Followed(public, batch_ask(ask), {})


def _step_models(state: Followed, event: Event) -> Followed:
    if event.round == state.number and trained_reply(event, state.model):
        if event.sender == client(state.ask.client):
            return state
        assert state.model is not None
        return state._replace(known={**state.known, event.sender: flat(state.model) - flat(event.arrays)})
    if not next_model(event, state.number):
        return state
    newest = state._replace(number=event.round, model=event.arrays, known={})
    following = state.number if event.kind == "final" else state.number + 1
    if state.model is None or event.round != following or not comparable(state.model, event.arrays):
        return newest
    clients, number = state.public.clients, state.number
    if not 0 < number <= state.ask.count:
        return newest
    together = (flat(state.model) - flat(event.arrays)) * clients
    rest = together - np.sum(list(state.known.values()), axis=0) if state.known else together
    others = max(clients - 1 - len(state.known), 0)
    tried = practised(state.public, state.ask, state.model, number, others)
    return newest._replace(seen={**state.seen, number: Round(features(rest, state.model), tried)})


def _finish_models(state: Followed, released: Oracle) -> Floats:  # noqa: ARG001 - the models say it all
    if not state.seen:
        raise NotVisible("no two global models in a row crossed this vantage")
    return judged(state.seen, state.ask.count)


BATCHES_IN_MODELS = Signal(_start_models, _step_models, _finish_models, "models")
"""The same from two global models in a row, where all clients take part with equally many records."""
