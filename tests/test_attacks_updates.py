"""Attacks on single updates: each signal against one gradient at a time, a closed form, or its definition by loop."""

import gc
import weakref
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import kstest, norm
from scipy.stats import t as student

import attacks.gradients
from attacks import ATTACKS
from attacks.fedmia import FEDMIA_COSINE, FEDMIA_LOSS, OUTLIER, evidence, outlying
from attacks.gradients import Match, difference
from attacks.updates import GRADIENT_NORM, UPDATE_COSINE, UPDATE_DIFFERENCE
from fedsim.attack import Signal, fold
from fedsim.errors import NotVisible
from fedsim.gradients import record_gradients
from fedsim.transcript import SERVER, Arrays, Event, client, frozen
from fedsim.views import Floats, Oracle, Parameters, Public, RecordAsk, Records, white_box

SIGNALS = {
    "cosine": UPDATE_COSINE,
    "difference": UPDATE_DIFFERENCE,
    "fedmia_cosine": FEDMIA_COSINE,
    "fedmia_loss": FEDMIA_LOSS,
}
OF_UPDATES = pytest.mark.parametrize("signal", SIGNALS.values(), ids=SIGNALS.keys())
SHAPES = {"layer0.weight": (5, 3), "layer0.bias": (5,), "layer1.weight": (4, 5), "layer1.bias": (4,)}


def apply(parameters: Parameters, x: torch.Tensor) -> torch.Tensor:
    hidden = torch.tanh(torch.nn.functional.linear(x, parameters["layer0.weight"], parameters["layer0.bias"]))
    return torch.nn.functional.linear(hidden, parameters["layer1.weight"], parameters["layer1.bias"])


def setup(clients: int, rounds: int) -> Public:
    return Public(4, clients, rounds, apply, 1, 8, 0.1, "sgd")


def ask_of(seed: int, clients: int, count: int = 24) -> RecordAsk:
    rng = np.random.default_rng(seed)

    def draw(n: int) -> Records:
        return Records(rng.standard_normal((n, 3)).astype(np.float32), rng.integers(4, size=n), np.arange(n) % clients)

    return RecordAsk(draw(count), draw(6))


def some_model(rng: np.random.Generator) -> Arrays:
    return frozen({name: rng.standard_normal(shape) for name, shape in SHAPES.items()})


def some_rounds(seed: int, cohorts: Sequence[Sequence[int]]) -> list[Event]:
    """Return the messages of rounds in which the clients of each cohort send back arbitrary models."""
    rng, events = np.random.default_rng(seed), []
    for number, cohort in enumerate(cohorts, start=1):
        model = some_model(rng)
        events += [Event(number, "train", SERVER, client(k), model, {}) for k in cohort]
        events += [Event(number, "train-reply", client(k), SERVER, some_model(rng), {}) for k in cohort]
    return events


def oracle() -> Oracle:
    return white_box(setup(2, 1), some_model(np.random.default_rng(0)))


def measured(signal: Signal, ask: RecordAsk, events: Sequence[Event], rounds: int, clients: int) -> Floats:
    return fold(signal, setup(clients, rounds), ask, events, oracle())


def flat(arrays: Arrays) -> Floats:
    return np.concatenate([np.asarray(arrays[name], dtype=np.float64).ravel() for name in SHAPES])


def loss(model: Arrays, records: Records, i: int) -> tuple[float, Floats]:
    """Return the loss of one record at a model and its gradient, by plain automatic differentiation."""
    parameters = {name: torch.tensor(np.array(model[name]), requires_grad=True) for name in SHAPES}
    value = torch.nn.functional.cross_entropy(
        apply(parameters, torch.tensor(records.x[i : i + 1]).double()), torch.tensor(records.y[i : i + 1])
    )
    grads = torch.autograd.grad(value, list(parameters.values()))
    return float(value.detach()), torch.cat([grad.flatten() for grad in grads]).numpy()


def by_round(events: Sequence[Event]) -> Iterator[tuple[Arrays, dict[int, Arrays]]]:
    """Yield the broadcast of each round and the replies by client."""
    for number in sorted({event.round for event in events}):
        here = [event for event in events if event.round == number]
        replies = {int(event.sender.split(":")[1]): event.arrays for event in here if event.kind == "train-reply"}
        yield next(event.arrays for event in here if event.kind == "train"), replies


# The difference of an update and a step along a record's gradient.


def test_the_scale_of_the_steps_takes_away_most_of_the_update_together() -> None:
    rng = np.random.default_rng(0)
    gradients, update = rng.standard_normal((9, 30)), rng.standard_normal(30)
    update += 0.2 * gradients[:5].sum(axis=0)
    length = float(np.linalg.norm(update))

    def taken_away(scale: float) -> Floats:
        return np.array([1 - np.sum((update - scale * g) ** 2) / length**2 for g in gradients])

    best = minimize_scalar(lambda scale: -taken_away(scale).sum(), bounds=(0, 10), method="bounded").x
    found = difference(Match(gradients @ update, np.linalg.norm(gradients, axis=1), length))
    np.testing.assert_allclose(found, taken_away(best), rtol=0, atol=1e-6)


def test_the_difference_in_closed_form_for_gradients_at_right_angles() -> None:
    """Of n records with orthonormal gradients, m made the update D = c (g_1 + ... + g_m): the scale is c m / n."""
    n, m = 10, 4
    for c in (0.01, 1.0, 300.0):
        products = np.where(np.arange(n) < m, c, 0.0)
        found = difference(Match(products, np.ones(n), c * m**0.5))
        expected = np.where(np.arange(n) < m, 2 * m / n - (m / n) ** 2, -((m / n) ** 2)) / m
        np.testing.assert_allclose(found, expected)


def test_an_update_that_climbs_or_stands_still_is_no_evidence() -> None:
    assert not difference(Match(np.array([-1.0, -2.0]), np.ones(2), 1.0)).any()
    assert not difference(Match(np.zeros(2), np.ones(2), 0.0)).any()
    assert not difference(Match(np.zeros(2), np.zeros(2), 1.0)).any()


def test_difference_against_one_gradient_at_a_time() -> None:
    ask, events = ask_of(1, 3), some_rounds(1, [(0, 1, 2), (0, 2)])
    expected, seen = np.zeros(24), np.zeros(24)
    for broadcast, replies in by_round(events):
        for owner, reply in replies.items():
            update, rows = flat(broadcast) - flat(reply), np.flatnonzero(ask.items.owner == owner)
            own = np.stack([loss(broadcast, ask.items, int(i))[1] for i in rows])
            scale = max(0, (own @ update).sum()) / (own**2).sum()
            expected[rows] += 1 - ((update - scale * own) ** 2).sum(axis=1) / (update**2).sum()
            seen[rows] += 1
    found = measured(UPDATE_DIFFERENCE, ask, events, 2, 3)
    assert found[:24].any()
    np.testing.assert_allclose(found[:24], expected / seen, rtol=1e-6, atol=1e-12)
    assert np.isnan(found[24:]).all()


# One client among the others.


@pytest.mark.parametrize("others", [2, 3, 9])
def test_evidence_is_the_log_of_students_tail_by_loop(others: int) -> None:
    rng = np.random.default_rng(2)
    values, own = rng.standard_normal((40, others)), 3 * rng.standard_normal(40)
    found = evidence(own, values)
    for i in range(40):
        rest = np.delete(values[i], np.flatnonzero(outlying(values)[i]))
        k = len(rest)
        p = student.sf((own[i] - rest.mean()) / (rest.std(ddof=1) * np.sqrt(1 + 1 / k)), k - 1)
        assert found[i] == pytest.approx(-np.log(p) - 1)


@pytest.mark.parametrize("others", [2, 3, 5, 9])
def test_without_a_leak_the_tail_is_uniform_however_few_the_clients(others: int) -> None:
    """4,000 values: the distance of Kolmogorov and Smirnov stays below .043 but for once in 1e6; taking the spread
    of a few clients for the true one goes beyond.
    """
    rng = np.random.default_rng(3)
    values = rng.standard_normal((4000, others + 1)) * rng.uniform(0.1, 10, size=(4000, 1))
    own, rest = values[:, 0], values[:, 1:]
    assert kstest(np.exp(-evidence(own, rest) - 1), "uniform").statistic < 0.043
    assert abs(evidence(own, rest).mean()) < 5 * 4000**-0.5  # an exponential has a standard deviation of 1
    plugged_in = norm.sf((own - rest.mean(axis=1)) / rest.std(axis=1, ddof=1))
    if others <= 5:
        assert kstest(plugged_in, "uniform").statistic > 0.043


def test_strong_evidence_never_saturates() -> None:
    others = np.tile(np.random.default_rng(4).standard_normal(9), (9, 1))
    steps = np.logspace(-2, 6, 9)
    assert (np.diff(evidence(steps, others)) > 0.001).all()
    assert norm.cdf(10.0) == norm.cdf(100.0)  # what it stands in for


def test_equal_others_are_no_evidence() -> None:
    for value in (0.0, 0.1, 1e3):  # nine times .1 is not .9 in floating point
        assert not evidence(np.array([value, value + 5]), np.full((2, 9), value)).any()


@pytest.mark.parametrize("others", [3, 4, 9, 10])
def test_a_second_client_with_the_record_does_not_count(others: int) -> None:
    """Where three standard deviations can never be exceeded, the leave-one-out rule finds it; and seldom another."""
    rng = np.random.default_rng(5)
    values = rng.standard_normal((3000, others))
    held = values.copy()
    held[:, 1] += 1e4
    z = (held[:, 1] - held.mean(axis=1)) / held.std(axis=1)
    assert z.max() <= (others - 1) ** 0.5 + 1e-9 <= 3 + 1e-9
    assert (outlying(held) == (np.arange(others) == 1)).mean() > 0.99
    # of one value among k it is sure to be OUTLIER; the largest of k: at most k times that, here 5 deviations above
    assert outlying(values).sum() <= 3000 * others * OUTLIER + 5 * (3000 * others * OUTLIER) ** 0.5
    own, found = rng.standard_normal(3000), outlying(held)[:, 1]
    alone = np.delete(held, 1, axis=1)[found]
    clean = ~outlying(alone).any(axis=1)
    np.testing.assert_allclose(evidence(own, held)[found][clean], evidence(own[found], alone)[clean])


@pytest.mark.parametrize("kind", ["cosine", "loss"])
def test_all_for_one_against_the_definition(kind: str) -> None:
    """In round 2 client 4 does not take part; in round 3 only two do, so nobody can be judged."""
    ask, events = ask_of(6, 5), some_rounds(6, [(0, 1, 2, 3, 4), (0, 1, 2, 3), (1, 2)])
    expected, rounds = np.zeros(24), np.zeros(24)
    for broadcast, replies in by_round(events):
        for i in range(24):
            values = {}
            for k, reply in replies.items():
                update, gradient = flat(broadcast) - flat(reply), loss(broadcast, ask.items, i)[1]
                cosine = update @ gradient / np.linalg.norm(update) / np.linalg.norm(gradient)
                values[k] = cosine if kind == "cosine" else -loss(reply, ask.items, i)[0]
            own = values.pop(int(ask.items.owner[i]), None)
            if own is not None and len(values) >= 2:
                expected[i] += evidence(np.array([own]), np.array([list(values.values())]))[0]
                rounds[i] += 1
    found = measured(FEDMIA_COSINE if kind == "cosine" else FEDMIA_LOSS, ask, events, 3, 5)
    assert set(rounds) == {1, 2}
    np.testing.assert_allclose(found[:24], expected / rounds, rtol=1e-6, atol=1e-9)
    assert np.isnan(found[24:]).all()


@pytest.mark.parametrize("signal", [FEDMIA_COSINE, FEDMIA_LOSS])
def test_two_clients_are_too_few_to_compare(signal: Signal) -> None:
    ask = ask_of(7, 3)
    with pytest.raises(NotVisible, match="2 others"):
        measured(signal, ask, some_rounds(7, [(0, 1)]), 1, 3)
    found = measured(signal, ask, some_rounds(7, [(0, 1, 2)]), 1, 3)
    assert found[:24].all()


# The length of a gradient.


def test_gradient_norm_against_one_gradient_at_a_time() -> None:
    ask, events = ask_of(8, 2), some_rounds(8, [(0, 1), (1,)])
    found = measured(GRADIENT_NORM, ask, events, 2, 2)
    for records, first in ((ask.items, 0), (ask.population, 24)):
        for i in range(len(records)):
            lengths = [np.linalg.norm(loss(broadcast, records, i)[1]) for broadcast, _ in by_round(events)]
            assert found[first + i] == pytest.approx(np.mean(lengths))


@pytest.mark.parametrize("every", [1, 3])
def test_at_most_ten_broadcasts_are_looked_at(every: int) -> None:
    events = some_rounds(9, [(0,) if number % every == 0 else () for number in range(60)])
    state = GRADIENT_NORM.start(setup(2, 60), ask_of(9, 2))
    for event in events:
        state = GRADIENT_NORM.step(state, event)
    assert 7 <= state.broadcasts <= 10


# What all signals of updates keep.


@OF_UPDATES
def test_masked_updates_are_not_updates(signal: Signal) -> None:
    """Under secure aggregation a reply is one array of another name."""
    masked = frozen({"masked": np.arange(44.0)})
    hidden = [
        event if event.kind == "train" else Event(event.round, event.kind, event.sender, SERVER, masked, {})
        for event in some_rounds(10, [(0, 1, 2)] * 2)
    ]
    with pytest.raises(NotVisible):
        measured(signal, ask_of(10, 3), hidden, 2, 3)


@OF_UPDATES
def test_no_update_is_kept(signal: Signal) -> None:
    state, left = signal.start(setup(3, 2), ask_of(11, 3)), []
    for number, event in enumerate(some_rounds(11, [(0, 1, 2)] * 2)):
        state = signal.step(state, event)
        if event.kind == "train-reply":
            left += [(number, weakref.ref(array)) for array in event.arrays.values()]
        del event
    gc.collect()
    assert len(left) == 2 * 3 * len(SHAPES)
    assert not [number for number, array in left if array() is not None]


def test_gradients_are_dropped_with_the_last_update_of_a_round() -> None:
    """Worlds that advance together would otherwise hold theirs all at once."""
    for signal in SIGNALS.values():
        state, events = signal.start(setup(3, 1), ask_of(11, 3)), some_rounds(11, [(0, 1, 2)])
        held = []
        for event in events:
            state = signal.step(state, event)
            now = state.slopes if hasattr(state, "slopes") else state.round.prepared
            held.append(now is not None)
        assert held == [False] * 3 + [True] * 2 + [False]


@pytest.mark.parametrize("name", ["cosine", "difference", "fedmia_cosine"])
@pytest.mark.parametrize("kept", [True, False])
def test_gradients_are_taken_once_a_round_where_they_can_be_kept(
    name: str, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, events = ask_of(12, 4), some_rounds(12, [range(4)] * 3)
    expected = measured(SIGNALS[name], ask, events, 3, 4)
    calls = []

    def counted(*args: object) -> object:
        calls.append(args)
        return record_gradients(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(attacks.gradients, "record_gradients", counted)
    if not kept:
        monkeypatch.setattr(attacks.gradients, "NUMBERS", 100)
    np.testing.assert_allclose(measured(SIGNALS[name], ask, events, 3, 4), expected, rtol=1e-9)
    assert len(calls) == (3 if kept else 3 * (1 + 4))


@pytest.mark.parametrize("name", ["cosine", "difference"])
def test_answers_between_broadcasts_change_nothing(name: str) -> None:
    ask, events = ask_of(13, 3), some_rounds(13, [(0, 1, 2)])
    one_by_one = [events[i] for i in (0, 3, 1, 4, 2, 5)]
    expected = measured(SIGNALS[name], ask, events, 1, 3)
    np.testing.assert_allclose(measured(SIGNALS[name], ask, one_by_one, 1, 3), expected, rtol=1e-9)


@OF_UPDATES
def test_a_run_is_compared_at_most_ten_times(signal: Signal) -> None:
    """Sixty times the same round, in all of which or in a third of which clients take part: the mean is that of one."""
    ask, once = ask_of(14, 3), some_rounds(14, [(0, 1, 2)])
    expected = measured(signal, ask, once, 1, 3)
    for every in (1, 3):
        state = signal.start(setup(3, 60), ask)
        for number in range(1, 61, every):
            for event in once:
                state = signal.step(state, Event(number, event.kind, event.sender, event.receiver, event.arrays, {}))
        np.testing.assert_allclose(signal.finish(state, oracle()), expected, rtol=1e-9)
        counts: NDArray[np.int64] = state.updates if hasattr(state, "updates") else state.rounds
        assert set(counts) <= {7, 8, 9, 10}


def test_calibrated_forms_measure_the_mean_cosine_once() -> None:
    """Attacks of an audit share a measurement only where the signal is the very same object."""
    for name in ("update_cosine", "update_lira", "update_lira_offline", "update_watson"):
        assert ATTACKS[name].signal is UPDATE_COSINE
