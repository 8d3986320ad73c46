"""Attacks on how a record's answer changes from round to round: in the global models, or in the models that its alleged
owner sends back.

Sources: Gu, Bai, Xu, "CS-MIA: membership inference attack based on prediction confidence series in federated learning",
JISA 2022, https://doi.org/10.1016/j.jisa.2022.103201; Zari, Xu, Neglia, "Efficient passive membership inference attack
in federated learning", 2021, https://arxiv.org/abs/2111.00430
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from attacks import rmia
from attacks.decide import side_means, unseen_to
from attacks.final import cross_entropy, margin, softened
from attacks.folds import UNSEEN_OWNER, broadcast, due_rounds, slot_of, trained_reply
from attacks.gradients import UPDATES_OF_AN_OWNER, owned_by, record_ask
from attacks.learned import logistic_log_odds
from fedsim.attack import Case, Signal
from fedsim.errors import NotVisible
from fedsim.transcript import Arrays, Event
from fedsim.views import Ask, Floats, Ints, Oracle, Public, RecordAsk, query, softmax

POINTS = 20
"""A longer series is averaged to so many points before a classifier sees it."""
SMALLEST_LOSS = 1e-15
"""Below it the log-odds of a confidence are rounding."""
ROUNDING = 1e-9
"""A spread this small beside the mean is rounding."""
WORLDS = 16
"""Reference worlds, drawn at random, that a classifier of few features learns from."""


# The models that the alleged owner of a record sends back.


class Replies(NamedTuple):
    """A measure [rows, slots] of each record under its alleged owner's models, NaN where none was seen; whose rows are
    whose; what the newest broadcast looked like; and the slots of each owner that are filled.
    """

    public: Public
    ask: RecordAsk
    held: Mapping[str, Ints]
    due: Ints
    values: Floats
    broadcast: Arrays | None = None
    filled: frozenset[tuple[str, int]] = frozenset()


def dealt(ask: RecordAsk) -> Mapping[str, Ints]:
    """Return the rows of each alleged owner, by party name, with the population dealt to the owners in turn, as if each
    were alleged to hold a part of it.
    """
    owned = owned_by(ask.items)
    population = np.arange(len(ask.items), len(ask.items) + len(ask.population))
    return {
        party: np.concatenate([rows, population[place :: len(owned)]])
        for place, (party, rows) in enumerate(owned.items())
    }


def _start(public: Public, ask: Ask) -> Replies:
    asked = record_ask(ask)
    due = due_rounds(public.rounds, UPDATES_OF_AN_OWNER)
    rows = len(asked.items) + len(asked.population)
    return Replies(public, asked, dealt(asked), due, np.full((rows, len(due)), np.nan))


def _start_last(public: Public, ask: Ask) -> Replies:
    """One slot for the whole run, and only the items asked about."""
    asked = record_ask(ask)
    nothing = np.full((len(asked.items) + len(asked.population), 1), np.nan)
    return Replies(public, asked, owned_by(asked.items), due_rounds(public.rounds, 1), nothing)


def _step(state: Replies, event: Event, measure: Callable[[Floats, Ints], Floats], newest: bool = False) -> Replies:
    """Measure the first model in each slot; the newest instead, if that is what is asked."""
    if broadcast(event):
        return state._replace(broadcast=event.arrays)
    place = (event.sender, slot_of(event.round, state.due))
    if (place in state.filled and not newest) or not trained_reply(event, state.broadcast, state.held):
        return state
    rows, count = state.held[event.sender], len(state.ask.items)
    own, public = rows[rows < count], rows[rows >= count] - count
    x = np.concatenate([state.ask.items.x[own], state.ask.population.x[public]])
    y = np.concatenate([state.ask.items.y[own], state.ask.population.y[public]])
    values = state.values.copy()
    values[rows, place[1]] = measure(softmax(query(state.public, event.arrays, x)), y)
    return state._replace(values=values, filled=state.filled | {place})


def _finish(state: Replies, released: Oracle) -> Floats:  # noqa: ARG001 - the replies say it all
    if not state.filled:
        raise NotVisible(f"no model {UNSEEN_OWNER}")
    return state.values


def _finish_mean(state: Replies, released: Oracle) -> Floats:
    return mean_of_seen(_finish(state, released))


def _finish_last(state: Replies, released: Oracle) -> Floats:
    return _finish(state, released)[:, 0]


OWNER_LOSSES = Signal(_start, partial(_step, measure=cross_entropy), _finish, "update")
"""Loss [rows, slots] under the models that the alleged owner sent back, at most ten, evenly spaced; NaN where it sent
none. Public records are dealt to the owners.
"""

OWNER_SOFTENED = Signal(_start, partial(_step, measure=softened), _finish_mean, "update")
"""Mean probability [rows] of the label at temperature 2 under the models that the alleged owner sent back; NaN for an
owner never seen. Public records are dealt to the owners.
"""


OWNER_LOSS = Signal(_start_last, partial(_step, measure=cross_entropy, newest=True), _finish_last, "update")
"""Loss [rows] of the newest model of the alleged owner; NaN for an owner never seen, and for the population."""

OWNER_MARGIN = Signal(_start_last, partial(_step, measure=margin, newest=True), _finish_last, "update")
"""Logit margin [rows] at the newest model of the alleged owner; NaN likewise."""


# Tests.


def mean_of_seen(values: Floats) -> Floats:
    """Return the mean [n] of the entries of each row of [n, k] that are not NaN; NaN where all are."""
    return side_means(values.T, np.ones(values.T.shape, dtype=np.bool_))


def neutral(case: Case) -> Case:
    """Return the case with every value not seen (NaN) put where it is no evidence: at the record's mean over the
    references, or where there is none at the mean of all records.
    """
    references, reference_population = _filled(case.references), _filled(case.reference_population)
    return replace(
        case,
        references=references,
        reference_population=reference_population,
        target=_filled(case.target, references),
        population=_filled(case.population, reference_population),
    )


def _filled(values: Floats, references: Floats | None = None) -> Floats:
    """Return `values` [n, ...], or [r, n, ...] if they are references themselves, without NaN."""
    if not np.isnan(values).any():
        return values
    normal = values if references is None else references
    count = normal.shape[1]
    mean = side_means(normal, np.ones(normal.shape[:2], dtype=np.bool_))
    overall = side_means(mean[:, None], np.ones((count, 1), dtype=np.bool_))
    mean = np.where(np.isnan(mean), np.nan_to_num(overall), mean)
    return np.where(np.isnan(values), mean, values)


def points(losses: Floats) -> Floats:
    """Return the log-odds of the label's probability [..., points] from a series of losses [..., rounds], averaged to
    at most 20 points; NaN where nothing was seen.

    Log-odds because confidences of a model that has learned its records all press against 1.
    """
    kept = np.maximum(losses, SMALLEST_LOSS)
    odds = -kept - np.log(-np.expm1(-kept))
    parts = np.array_split(odds, min(POINTS, odds.shape[-1]), axis=-1)
    means = [mean_of_seen(part.reshape(-1, part.shape[-1])).reshape(part.shape[:-1]) for part in parts]
    return np.stack(means, axis=-1)


def standing(references: Floats, target: Floats) -> tuple[Floats, Floats]:
    """Return where each record stood in each slot, in standard deviations from the mean of all records of all
    references: [r, n, slots x numbers] and [n, slots x numbers] from [r, n, slots, numbers] and [n, slots, numbers].

    A slot in which a record was not seen (NaN) takes its mean standing in those in which it was, and 0, which is no
    evidence, where there is none: so an owner drawn for few rounds is judged by these.
    """
    everybody = references.reshape(-1, *references.shape[2:])
    everywhere = np.ones(everybody.shape[:2], dtype=np.bool_)
    mean = side_means(everybody, everywhere)
    spread = np.sqrt(side_means((everybody - mean) ** 2, everywhere))
    unit = np.where(spread > ROUNDING * np.abs(mean), spread, np.inf)
    reference_standing, target_standing = ((values - mean) / unit for values in (references, target))
    return _carried(reference_standing), _carried(target_standing)


def _carried(values: Floats) -> Floats:
    """Return `values` [..., slots, numbers] with NaN put at the mean over slots, or at 0; slots and numbers as one."""
    slots = np.moveaxis(values, -2, 0)
    mean = np.nan_to_num(side_means(slots, np.ones(slots.shape[:2], dtype=np.bool_)))
    return np.asarray(np.where(np.isnan(values), mean[..., None, :], values).reshape(*values.shape[:-2], -1))


def learned_series(case: Case) -> Floats:
    """Return the log-odds [n] of "in" from a logistic regression on the series of confidences of the references."""
    references, target = standing(points(case.references)[..., None], points(case.target)[..., None])
    return logistic_log_odds(references, case.members, target, WORLDS, case.rng)


def mean_gain(case: Case) -> Floats:
    """Return minus the mean loss [n] over the models seen; the mean of the others for an owner never seen."""
    gain = -mean_of_seen(case.target)
    seen = ~np.isnan(gain)
    return unseen_to(gain, gain[seen].mean() if seen.any() else 0.0)


def relative(case: Case) -> Floats:
    """Return the relative score [n] of each record among public records, all under their owners' models."""
    return rmia.online(neutral(case))
