"""Signals of one client's update among those of all the others: does the alleged owner know the record better than
clients that do not hold it?

Source: Zhu, Li, Gu et al., "FedMIA: an effective membership inference attack exploiting all-for-one in federated
learning", CVPR 2025, https://arxiv.org/abs/2402.06289
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy  # its parts take a second to import; each is loaded when it is first used

from attacks.final import cross_entropy
from attacks.folds import UNSEEN_OWNER, broadcast, mean_of, per_item, trained_reply
from attacks.gradients import cosine, due, match, owned_by, record_ask, rows_of, slopes
from fedsim.attack import Bools, Signal
from fedsim.errors import NotVisible
from fedsim.transcript import Arrays, Event
from fedsim.views import Ask, Floats, Ints, Oracle, Public, RecordAsk, Records, query, softmax

OTHERS = 2
"""Fewest other clients in a round: fewer have no spread."""
OUTLIER = 0.00135
"""A value that another client would exceed so rarely is taken for that of a client that holds the record too: what lies
above three standard deviations (the paper's rule)."""

ROUNDING = 1e-12
"""A spread this small beside the mean is rounding."""


class Measure(NamedTuple):
    """What is measured of each client's model: what is needed of the broadcast, and (broadcast, that, reply) -> [rows],
    higher for a client that holds the record.
    """

    prepare: Callable[[Public, Arrays, Records, Ints], Any]
    of: Callable[[Public, Arrays, Any, Arrays], Floats]


class Round(NamedTuple):
    """One round: who received the broadcast, and a measure of each update so far for some records, those of one owner
    after the other.
    """

    number: int
    broadcast: Arrays
    cohort: frozenset[str] = frozenset()
    spans: Mapping[str, slice] | None = None  # None: no update has come yet
    prepared: Any = None
    columns: Mapping[str, Floats] = {}


class Contest(NamedTuple):
    """Sums of evidence [items] and over how many rounds [items], in which round each owner was judged last, and the
    round under way.
    """

    public: Public
    ask: RecordAsk
    owned: Mapping[str, Ints]
    total: Floats
    rounds: Ints
    last_round: Mapping[str, int]
    round: Round | None = None


def _start(public: Public, ask: Ask) -> Contest:
    asked = record_ask(ask)
    nothing = np.zeros(len(asked.items))
    return Contest(public, asked, owned_by(asked.items), nothing, nothing.astype(np.int64), {})


def _step(state: Contest, event: Event, measure: Measure) -> Contest:
    now = state.round
    if broadcast(event):
        if now is None or event.round != now.number:
            state, now = _judged(state), Round(event.round, event.arrays)
        return state._replace(round=now._replace(cohort=now.cohort | {event.receiver}))
    if now is None or event.round != now.number or not trained_reply(event, now.broadcast):
        return state
    if now.spans is None:
        now = _opened(state, now, measure)
    if now.spans:
        column = measure.of(state.public, now.broadcast, now.prepared, event.arrays)
        now = now._replace(columns={**now.columns, event.sender: column})
    if now.columns.keys() == now.cohort:
        now = now._replace(prepared=None)  # the round's last update came: what it was compared with may go
    return state._replace(round=now)


def _opened(state: Contest, now: Round, measure: Measure) -> Round:
    """Choose the records to judge in this round: those of clients that take part and were not judged just before."""
    last = state.last_round
    parties = [p for p in state.owned if p in now.cohort and due(state.public, last.get(p), now.number)]
    if not parties:
        return now._replace(spans={})
    rows, spans = rows_of(parties, state.owned)
    prepared = measure.prepare(state.public, now.broadcast, state.ask.items, rows)
    return now._replace(spans=spans, prepared=prepared)


def _judged(state: Contest) -> Contest:
    """Add the evidence of the round under way, and close it."""
    now = state.round
    if now is None or len(now.columns) <= OTHERS:
        return state._replace(round=None)
    total, rounds, judged = state.total.copy(), state.rounds.copy(), dict(state.last_round)
    for party, span in (now.spans or {}).items():
        if party in now.columns:
            others = [column[span] for other, column in now.columns.items() if other != party]
            total[state.owned[party]] += evidence(now.columns[party][span], np.stack(others, axis=1))
            rounds[state.owned[party]] += 1
            judged[party] = now.number
    return state._replace(total=total, rounds=rounds, last_round=judged, round=None)


def _finish(state: Contest, released: Oracle) -> Floats:  # noqa: ARG001 - the updates say it all
    state = _judged(state)
    if not state.rounds.any():
        raise NotVisible(f"no update {UNSEEN_OWNER} together with those of {OTHERS} others")
    return per_item(mean_of(state.total, state.rounds), state.ask)


def evidence(own: Floats, others: Floats) -> Floats:
    """Return -log p - 1 [n], where p is the probability that another client's value would exceed `own` [n], judged by
    the clients in `others` [n, at least 2].

    The values of clients without the record are taken to be normal, so that the next one, measured in units of their
    spread, has Student's distribution: few clients make weak evidence. Strong evidence never saturates, and
    without a leak the mean is 0. Where all the others are equal there is no unit, and no evidence.
    """
    kept = ~outlying(others)
    count = kept.sum(axis=1)
    mean = np.where(kept, others, 0).sum(axis=1) / count
    squares = np.where(kept, (others - mean[:, None]) ** 2, 0).sum(axis=1)
    unit = np.sqrt(squares / (count - 1) * (1 + 1 / count))
    told = unit > ROUNDING * np.abs(mean)
    t = np.divide(own - mean, unit, out=np.zeros(len(own)), where=told)
    tail = np.maximum(scipy.special.stdtr(count - 1, -np.abs(t)), np.finfo(np.float64).tiny)
    return np.where(told, np.where(t > 0, -np.log(tail), -np.log1p(-tail)) - 1, 0.0)


def outlying(values: Floats) -> Bools:
    """Return which of the values [n, clients] is the record's largest and far above the rest of them.

    It is judged by the others alone, without itself in their mean and spread: a value among k of them can lie at most
    sqrt(k - 1) of the spread that it takes part in above their mean, and so never three below 11 clients.
    """
    clients = values.shape[1]
    if clients <= OTHERS:
        return np.zeros(values.shape, dtype=np.bool_)
    largest = np.arange(clients) == values.argmax(axis=1)[:, None]
    rest = np.where(largest, np.nan, values)
    distance = values.max(axis=1) - np.nanmean(rest, axis=1)
    unit = np.nanstd(rest, axis=1, ddof=1) * np.sqrt(clients / (clients - 1))
    return np.asarray(largest & (distance > unit * -scipy.special.stdtrit(clients - 2, OUTLIER))[:, None])


def _cosines(public: Public, broadcast: Arrays, at: Any, reply: Arrays) -> Floats:
    return cosine(match(public, at, broadcast, reply))


def _records(_public: Public, _broadcast: Arrays, items: Records, rows: Ints) -> tuple[Any, Ints]:
    return items.x[rows], items.y[rows]


def _minus_losses(public: Public, _broadcast: Arrays, records: Any, reply: Arrays) -> Floats:
    x, y = records
    return -cross_entropy(softmax(query(public, reply, x)), y)


FEDMIA_COSINE = Signal(_start, partial(_step, measure=Measure(slopes, _cosines)), _finish, "updates")
"""Mean `evidence` [rows] over the rounds, from the cosines of a record's gradient with the updates of all clients;
NaN for an owner never seen and for the population, which nobody is alleged to hold.
"""

FEDMIA_LOSS = Signal(_start, partial(_step, measure=Measure(_records, _minus_losses)), _finish, "updates")
"""The same, from the losses of the clients' models on the record."""
