"""What the state machines of the signals share, event by event."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from attacks.final import cross_entropy, margin
from attacks.folds import beside, broadcast, mean_of, next_model, number, per_item, rounds_behind, trained_reply
from attacks.gradients import match, slopes
from attacks.trajectories import OWNER_LOSS, OWNER_MARGIN
from fedsim.attack import fold
from fedsim.transcript import SERVER, Arrays, Event, Fact, client, frozen
from fedsim.vectors import flat
from fedsim.views import RecordAsk, query, softmax
from tests.leaky_worlds import record_study

MODEL = frozen({"w": np.zeros((2, 3)), "b": np.ones(2)})
MASKED = frozen({"masked": np.zeros(8, dtype=np.uint32)})
NOTHING: Arrays = {}


def event(
    kind: str, sender: str = SERVER, arrays: Arrays = MODEL, round: int = 2, facts: Mapping[str, Fact] = {}
) -> Event:
    receiver = client(0) if sender == SERVER else SERVER
    return Event(round, kind, sender, receiver, arrays, facts)


@pytest.mark.parametrize(
    ("given", "sent", "following"),
    [
        (event("train"), True, True),
        (event("train", round=1), True, False),
        (event("train", arrays=NOTHING), False, False),
        (event("train", sender=client(1)), False, False),
        (event("train.secagg_keys"), False, False),
        (event("evaluate"), False, False),
        (event("final"), False, True),
        (event("final", round=1), False, True),
        (event("final", arrays=NOTHING), False, False),
        (event("train-reply", sender=client(1)), False, False),
    ],
)
def test_which_events_show_a_global_model(given: Event, sent: bool, following: bool) -> None:
    """The one of round 1 was seen before."""
    assert broadcast(given) == sent
    assert next_model(given, 1) == following


def test_which_replies_are_trained_copies() -> None:
    reply, owners = event("train-reply", sender=client(1)), {client(1): 0}
    assert trained_reply(reply, MODEL, owners)
    assert trained_reply(reply, MODEL)
    assert not trained_reply(reply, None)
    assert not trained_reply(reply, MODEL, {client(2): 0})
    assert not trained_reply(event("train-reply", sender=client(1), arrays=MASKED), MODEL)
    assert not trained_reply(event("train-reply", sender=client(1), arrays=frozen({"w": np.zeros((2, 3))})), MODEL)
    assert not trained_reply(event("evaluate-reply", sender=client(1)), MODEL)


def test_rounds_behind_a_model() -> None:
    assert [rounds_behind(event(kind, round=3)) for kind in ("train", "evaluate", "final")] == [2, 3, 3]


@pytest.mark.parametrize(
    ("facts", "expected"), [({}, None), ({"n": 3}, 3.0), ({"n": float("nan")}, None), ({"n": "3"}, None)]
)
def test_numbers_in_clear(facts: Mapping[str, Fact], expected: float | None) -> None:
    assert number(event("train-reply", facts=facts), "n") == expected


def test_what_was_never_seen_has_no_mean() -> None:
    given = record_study(0, worlds=1, population=2)
    assert isinstance(given.ask, RecordAsk)
    found = per_item(mean_of(np.array([2.0, 0.0, 0.0]), np.array([4, 0, 1])), given.ask)
    np.testing.assert_array_equal(found, [0.5, np.nan, 0, np.nan, np.nan])


def test_beside_a_descent_is_beside_the_update_that_makes_it() -> None:
    given = record_study(1, worlds=1, features=5)
    assert isinstance(given.ask, RecordAsk)
    rng, rows = np.random.default_rng(1), np.array([5, 1, 2])
    model, reply = (
        frozen({"layer0.weight": rng.standard_normal((4, 5)), "layer0.bias": rng.standard_normal(4)}) for _ in range(2)
    )
    at = slopes(given.setup, model, given.ask.items, rows)
    expected = match(given.setup, at, model, reply)
    found = beside(given.setup, given.ask.items, rows, model, flat(model) - flat(reply))
    np.testing.assert_allclose(found.products, expected.products, rtol=1e-9)
    np.testing.assert_allclose(found.lengths, expected.lengths)
    assert found.moved == pytest.approx(expected.moved)
    assert at.x.dtype == torch.float64


@pytest.mark.parametrize(("signal", "measure"), [(OWNER_LOSS, cross_entropy), (OWNER_MARGIN, margin)])
def test_of_an_owners_models_the_last_one_counts(signal, measure) -> None:  # type: ignore[no-untyped-def]
    given = record_study(2, worlds=1)
    assert isinstance(given.ask, RecordAsk)
    items, events = given.ask.items, given.worlds[0].events
    masked = event("train-reply", sender=client(1), arrays=MASKED, round=given.setup.rounds)
    found = fold(signal, given.setup, given.ask, [*events, masked], given.worlds[0].released)
    for index in range(given.setup.clients):
        last = [each for each in events if each.kind == "train-reply" and each.sender == client(index)][-1]
        rows = items.owner == index
        expected = measure(softmax(query(given.setup, last.arrays, items.x[rows])), items.y[rows])
        np.testing.assert_allclose(found[: len(items)][rows], expected)
    assert np.isnan(found[len(items) :]).all()
