"""Signals of what travels in clear beside the models: numbers of examples, losses, who is there and who drops out.

Source of the observation that these are not hidden by secure aggregation alone: Kairouz, McMahan et al., "Advances and
open problems in federated learning", 2021, https://arxiv.org/abs/1912.04977
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from attacks.decide import side_means
from attacks.folds import due_rounds, number, slot_of
from attacks.gradients import owned_by, record_ask
from attacks.learned import logistic_log_odds
from attacks.trajectories import ROUNDING, WORLDS
from fedsim.attack import Case, Signal
from fedsim.errors import NotVisible
from fedsim.transcript import SERVER, Event
from fedsim.views import Ask, Floats, Ints, Oracle, Public, RecordAsk

LOSSES = 5
"""Points to which the losses that a client reports are averaged."""


class Told(NamedTuple):
    """What is known of one client: sums of the examples it reported and how often, sums of its losses [slots] and how
    often [slots], and the rounds in which it was asked and in which it answered.
    """

    examples: float
    reports: int
    losses: Floats
    loss_reports: Floats
    asked: frozenset[int]
    answered: frozenset[int]


class Files(NamedTuple):
    """What is known of each alleged owner, by party name."""

    public: Public
    ask: RecordAsk
    due: Ints
    owned: Mapping[str, Ints]
    told: Mapping[str, Told]


def _start(public: Public, ask: Ask) -> Files:
    asked = record_ask(ask)
    return Files(public, asked, due_rounds(public.rounds, LOSSES), owned_by(asked.items), {})


def _step(state: Files, event: Event) -> Files:
    if not event.kind.startswith("train"):  # for an evaluation every client is asked, in training or not
        return state
    party = event.receiver if event.sender == SERVER else event.sender
    if party not in state.owned:
        return state
    slots = np.zeros(len(state.due))
    now = state.told.get(party, Told(0.0, 0, slots, slots, frozenset(), frozenset()))
    if event.sender == SERVER:
        return _noted(state, party, now._replace(asked=now.asked | {event.round}))
    examples, loss = number(event, "num-examples"), number(event, "train_loss")
    here = np.arange(len(slots)) == slot_of(event.round, state.due)
    if examples is not None:
        now = now._replace(examples=now.examples + examples, reports=now.reports + 1)
    if loss is not None:
        now = now._replace(losses=now.losses + loss * here, loss_reports=now.loss_reports + here)
    if examples is not None or loss is not None:
        now = now._replace(answered=now.answered | {event.round})
    return _noted(state, party, now)


def _noted(state: Files, party: str, told: Told) -> Files:
    return state._replace(told={**state.told, party: told})


def _finish(state: Files, released: Oracle) -> Floats:  # noqa: ARG001 - what is said in clear says it all
    if not any(told.answered for told in state.told.values()):
        raise NotVisible(
            "neither a number of examples nor a loss of a client that is alleged to hold one of these records crossed "
            "this vantage in clear"
        )
    rows = np.full((len(state.ask.items) + len(state.ask.population), 3 + len(state.due)), np.nan)
    for party, told in state.told.items():
        examples = told.examples / told.reports if told.reports else np.nan
        losses = np.divide(
            told.losses, told.loss_reports, out=np.full(len(state.due), np.nan), where=told.loss_reports > 0
        )
        rounds = state.public.rounds
        facts = [examples, len(told.asked) / rounds, len(told.asked - told.answered) / rounds, *losses]
        rows[state.owned[party]] = facts
    return rows


METADATA = Signal(_start, _step, _finish, "metadata")
"""What the alleged owner of a record said and did in clear [rows, 3 + slots]: its mean number of examples, the share of
rounds in which it was asked, the share in which it was asked and did not answer, and its mean loss in at most five
stretches of the run; NaN where nothing was said, and for the population.
"""


def learned_from_metadata(case: Case) -> Floats:
    """Return the log-odds [n] of "in" from a logistic regression on what a client says, in units of what is usual for
    that client in the references; where nothing was said it is taken for usual.
    """
    everywhere = np.ones(case.members.shape, dtype=np.bool_)
    usual = side_means(case.references, everywhere)
    apart = case.references - usual
    spread = np.sqrt(side_means(apart**2, everywhere))
    unit = np.where(spread > ROUNDING * np.abs(usual), spread, np.inf)  # what never varies tells nothing
    references, target = np.nan_to_num(apart / unit), np.nan_to_num((case.target - usual) / unit)
    return logistic_log_odds(references, case.members, target, WORLDS, case.rng)
