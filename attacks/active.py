"""Signals of worlds in which somebody does more than look: how far a pushed model recovers, and an update that was
singled out of a sum.

What the adversary aimed at is in its own notes (`ACT`), which only its vantage sees.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from attacks.final import cross_entropy
from attacks.folds import beside, broadcast, mean_of, next_model, per_item, trained_reply
from attacks.gradients import Match, comparable, cosine, owned_by, record_ask
from attacks.labels import last_bias
from fedsim.attack import Signal
from fedsim.errors import NotVisible
from fedsim.transcript import ACT, AGGREGATE, SERVER, Arrays, Event, client
from fedsim.vectors import flat
from fedsim.views import Ask, Floats, Ints, Oracle, Public, RecordAsk, groups_of, query, softmax

# How far a pushed model recovers.


class Push(NamedTuple):
    """A push that waits for the model of round `due`: the items it is about (1, else 0) [items], and their losses
    [items] before it.
    """

    due: int
    about: Floats
    before: Floats


class Recovery(NamedTuple):
    """Sums of how much lower losses were after a push and the answer to it than before [items], and after how many
    [items]; pushes without an answer so far; the round of the newest model, and what a participant is about to push
    against.
    """

    public: Public
    ask: RecordAsk
    fallen: Floats
    pushes: Floats
    waiting: tuple[Push, ...] = ()
    round: int = -1
    about: Floats | None = None


def _start_recovery(public: Public, ask: Ask) -> Recovery:
    nothing = np.zeros(len(record_ask(ask).items))
    return Recovery(public, record_ask(ask), nothing, nothing)


def _recover(state: Recovery, event: Event) -> Recovery:
    if event.kind == ACT and "groups" in event.facts:
        group, groups = int(str(event.facts["group"])), int(str(event.facts["groups"]))
        about = (groups_of(state.ask.items, groups) == group).astype(np.float64)
        if event.sender != SERVER:
            return state._replace(about=about)
        losses = _losses(state, event.arrays)  # of the model as it was, which nobody else gets to see in this round
        state = _answered(state, event.round, losses)
        return state._replace(round=event.round, waiting=(*state.waiting, Push(event.round + 1, about, losses)))
    if not next_model(event, state.round):
        return state
    number = event.round + (event.kind == "final")
    losses = _losses(state, event.arrays) if state.waiting or state.about is not None else np.zeros(0)
    state = _answered(state, number, losses)._replace(round=number)
    if state.about is not None:
        # A participant's push is in its update, so in the next model, and the one after that answers it.
        return state._replace(about=None, waiting=(*state.waiting, Push(number + 2, state.about, losses)))
    return state


def _losses(state: Recovery, model: Arrays) -> Floats:
    return cross_entropy(softmax(query(state.public, model, state.ask.items.x)), state.ask.items.y)


def _answered(state: Recovery, number: int, losses: Floats) -> Recovery:
    """Take in the losses [items] of the model of round `number` (one more than the last: the final one)."""
    fallen, pushes = state.fallen, state.pushes
    for push in state.waiting:
        if push.due <= number:
            fallen, pushes = fallen + push.about * (push.before - losses), pushes + push.about
    waiting = tuple(push for push in state.waiting if push.due > number)
    return state._replace(fallen=fallen, pushes=pushes, waiting=waiting)


def _finish_recovery(state: Recovery, released: Oracle) -> Floats:
    if any(push.due == state.public.rounds + 1 for push in state.waiting):  # its answer is the released model
        shown = released(state.ask.items.x).probabilities
        if shown is not None and not np.isnan(shown).any():
            state = _answered(state, state.public.rounds + 1, cross_entropy(shown, state.ask.items.y))
    if not state.pushes.any():
        raise NotVisible(
            "no push up the loss on these records, with a model from before and after, crossed this vantage"
        )
    return per_item(mean_of(state.fallen, state.pushes), state.ask)


ASCENT_RECOVERY = Signal(_start_recovery, _recover, _finish_recovery, "ascent")
"""How much lower the loss [rows] is after a push and the answer to it than before, mean over pushes; NaN for a
record that nobody pushed against and for the population.

Who trains on a record takes back more than the push; others do not get back to where they were. The fall alone, from
the pushed model on, tells less: whoever is pushed far falls far.
Source: Nasr, Shokri, Houmansadr, "Comprehensive privacy analysis of deep learning", IEEE S&P 2019,
https://arxiv.org/abs/1812.00910; without its classifier.
"""


# An update that was singled out of a sum.


class Alone(NamedTuple):
    """Sums of a measure [items] over the rounds in which the record's owner was singled out, and how many [items] these
    were; in the current one the victim, and the model it was sent.
    """

    public: Public
    ask: RecordAsk
    owned: Mapping[str, Ints]
    total: Floats
    rounds: Floats
    round: int = -1
    victim: str = ""
    sent: Arrays | None = None


def _start_alone(public: Public, ask: Ask) -> Alone:
    asked = record_ask(ask)
    nothing = np.zeros(len(asked.items))
    return Alone(public, asked, owned_by(asked.items), nothing, nothing)


def _single(state: Alone, event: Event, measure: Callable[[Match], Floats]) -> Alone:
    if event.kind == ACT and "victim" in event.facts:
        return state._replace(round=event.round, victim=client(int(str(event.facts["victim"]))), sent=None)
    if event.round != state.round or state.victim not in state.owned:
        return state
    if broadcast(event) and event.receiver == state.victim:
        return state._replace(sent=event.arrays)
    if state.sent is None or not comparable(state.sent, event.arrays):
        return state
    if event.kind == AGGREGATE:
        descent = {name: np.negative(np.asarray(array, dtype=np.float64)) for name, array in event.arrays.items()}
    elif trained_reply(event, state.sent, {state.victim}):
        descent = {name: np.subtract(array, event.arrays[name]) for name, array in state.sent.items()}
    else:
        return state
    # The last bias moves at every client, whatever model it has; all else is the victim's alone.
    if (ours := last_bias(state.sent, state.public.classes)) is not None:
        descent[ours] = np.zeros_like(descent[ours])
    rows = state.owned[state.victim]
    total, rounds = state.total.copy(), state.rounds.copy()
    total[rows] += measure(beside(state.public, state.ask.items, rows, state.sent, flat(descent)))
    rounds[rows] += 1
    return state._replace(total=total, rounds=rounds, sent=None)


def _finish_alone(state: Alone, released: Oracle) -> Floats:  # noqa: ARG001 - the updates say it all
    if not state.rounds.any():
        raise NotVisible("no update that was singled out crossed this vantage")
    return per_item(mean_of(state.total, state.rounds), state.ask)


def share(found: Match) -> Floats:
    """Return <D, g> / |g|^2 [n]: which multiple of a record's gradient g is in the update D; 0 for a zero gradient."""
    squares = found.lengths**2
    return np.divide(found.products, squares, out=np.zeros(len(squares)), where=squares > 0)


SINGLED_OUT_COSINE = Signal(_start_alone, partial(_single, measure=cosine), _finish_alone, "inconsistency")
"""Mean cosine [rows] of a record's gradient with the updates that were singled out of the sum while its alleged owner
was the victim; NaN for an owner that never was, and for the population.

Source: Pasquini, Francati, Ateniese, "Eluding secure aggregation in federated learning via model inconsistency", CCS
2022, https://arxiv.org/abs/2111.07380
"""
CANARY_GRADIENT = Signal(_start_alone, partial(_single, measure=share), _finish_alone, "inconsistency")
"""Mean multiple [rows] of a record's gradient in those updates. At a model whose units answer to one record each, it is
0 for a record that is not in the victim's data, and for one that no unit answers to. (Source: the same.)"""
