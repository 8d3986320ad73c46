"""Attacks on the sums that secure aggregation opens, against what they must find in sums made by hand."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

import attacks.gradients
from attacks import ATTACKS
from attacks.aggregates import SKETCH, sketch
from attacks.collusion import pooled
from attacks.distinguish import discriminant, set_of, simulated
from fedsim.attack import fold
from fedsim.errors import NotVisible
from fedsim.gradients import record_gradients
from fedsim.run import execute
from fedsim.scenario_file import load
from fedsim.secagg.collusion import open_sums
from fedsim.secagg.crypto import Words
from fedsim.secagg.flower import SHARES, UPDATE
from fedsim.secagg.protocol import Settings
from fedsim.tables import known, recipes
from fedsim.transcript import AGGREGATE, AGGREGATOR, SECRET, SERVER, Event, client, frozen
from fedsim.vectors import flat, shaped
from fedsim.views import DistinguishAsk, Floats, Public, RecordAsk, Records, Vantage, softmax, visible, white_box
from tests.leaky_worlds import CLIENTS, distinguish_study, public
from tests.test_secagg_flower import recipe, run

FEATURES, CLASSES = 6, 3
LIKE = {"layer0.weight": np.zeros((CLASSES, FEATURES)), "layer0.bias": np.zeros(CLASSES)}
D = CLASSES * FEATURES + CLASSES
Updates = Mapping[int, Floats]
"""What each client of a round adds to the sum [D], whatever its weight."""


def records(rng: np.random.Generator, each: int = 3) -> RecordAsk:
    """Return records of every client, and a few public ones."""

    def some(owner: NDArray[np.int64]) -> Records:
        x = rng.standard_normal((len(owner), FEATURES)).astype(np.float32)
        return Records(x, rng.integers(CLASSES, size=len(owner)), owner)

    return RecordAsk(some(np.repeat(np.arange(CLIENTS), each)), some(np.full(2, -1)))


def masked(models: Sequence[Floats], sums: Sequence[Updates], *, shown: bool = True, extra: int = 0) -> list[Event]:
    """Return what a server sees of rounds with secure aggregation.

    shown: whether answers come to the server, under a mask, or go to a trusted party. extra: how many more clients were
    asked than answered.
    """
    events = []
    for number, (model, updates) in enumerate(zip(models, sums, strict=True), start=1):
        sent = frozen(shaped(model, LIKE))
        asked = [*updates, *[each for each in range(CLIENTS) if each not in updates][:extra]]
        events += [Event(number, "train", SERVER, client(each), sent, {}) for each in asked]
        nonsense = frozen({"masked": np.arange(D, dtype=np.uint32)})
        receiver = SERVER if shown else AGGREGATOR
        if shown:
            events += [Event(number, "train-reply", client(each), receiver, nonsense, {}) for each in updates]
        weight = 10.0 * len(updates)
        mean = frozen(shaped(sum(updates.values(), np.zeros(D)) / weight, LIKE))
        events.append(Event(number, AGGREGATE, SERVER, SERVER, mean, {"clients": len(updates), "weight": weight}))
    return events


def gradients(model: Floats, items: Records) -> Floats:
    """Return the gradient [n, D] of each record's loss under softmax regression, by hand."""
    arrays = shaped(model, LIKE)
    weight, bias = (np.asarray(arrays[name], dtype=np.float64) for name in ("layer0.weight", "layer0.bias"))
    error = softmax(items.x @ weight.T + bias) - np.eye(CLASSES)[items.y]
    return np.stack(
        [
            flat({"layer0.weight": np.outer(each, x), "layer0.bias": each})
            for each, x in zip(error, items.x, strict=True)
        ]
    )


def cosines(model: Floats, items: Records, update: Floats) -> Floats:
    """Return the cosine [n] of each record's gradient with minus an update [D]."""
    g = gradients(model, items)
    return np.asarray(-(g @ update) / np.linalg.norm(g, axis=1) / np.linalg.norm(update))


def measured(name: str, ask: RecordAsk, events: Sequence[Event], setup: Public | None = None) -> Floats:
    """Return an attack's signal on the items asked."""
    setup = setup or public(CLASSES)
    found = fold(ATTACKS[name].signal, setup, ask, events, white_box(setup, LIKE))
    assert np.isnan(found[ask.count :]).all()
    return found[: ask.count]


COHORTS = ((0, 1, 2, 3), (0, 1), (1, 2, 3), (0, 1, 2), (0, 1, 2, 3), (1, 3))


def drawn(rng: np.random.Generator) -> tuple[list[Floats], list[dict[int, Floats]]]:
    """Return a model and everybody's update for each of the rounds with `COHORTS`."""
    models = [rng.standard_normal(D) for _ in COHORTS]
    return models, [{each: rng.standard_normal(D) for each in cohort} for cohort in COHORTS]


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize(("name", "weigh"), [("aggregate_cosine", lambda _: 1.0), ("smallest_sum", lambda k: 1 / k)])
def test_cosines_with_sums_are_means_over_the_owners_rounds(name: str, weigh, shown: bool) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(1)
    ask, (models, sums) = records(rng), drawn(rng)
    total, weights = np.zeros(ask.count), np.zeros(ask.count)
    for model, updates in zip(models, sums, strict=True):
        there = np.isin(ask.items.owner, list(updates))
        weight = weigh(len(updates))
        total += np.where(there, weight * cosines(model, ask.items, sum(updates.values(), np.zeros(D))), 0)
        weights += np.where(there, weight, 0)
    found = measured(name, ask, masked(models, sums, shown=shown))
    np.testing.assert_allclose(found, total / weights, rtol=1e-5, atol=1e-9)


def test_a_trusted_party_that_hides_who_answered_names_nobody() -> None:
    rng = np.random.default_rng(2)
    ask, (models, sums) = records(rng), drawn(rng)
    hidden = masked(models[1:2], sums[1:2], shown=False, extra=1)
    for name in ("aggregate_cosine", "smallest_sum", "round_difference", "disaggregated_cosine"):
        with pytest.raises(NotVisible):
            measured(name, ask, hidden)
    np.testing.assert_array_equal(
        measured("aggregate_cosine", ask, masked(models[1:2], sums[1:2], extra=1)),
        measured("aggregate_cosine", ask, masked(models[1:2], sums[1:2])),
    )


def test_two_sums_that_differ_in_one_client_give_its_update_away() -> None:
    """Others repeat themselves, so nothing else is left; who is never alone in a difference has no number."""
    rng = np.random.default_rng(3)
    ask, fixed = records(rng), rng.standard_normal((CLIENTS, D))
    models = [rng.standard_normal(D) for _ in range(3)]
    sums = [{each: fixed[each] for each in cohort} for cohort in ((0, 1, 2), (1, 2), (1, 2, 3))]
    found, owner = measured("round_difference", ask, masked(models, sums)), ask.items.owner
    for party, model in ((0, models[0]), (3, models[2])):
        expected = cosines(model, ask.items, fixed[party])
        np.testing.assert_allclose(found[owner == party], expected[owner == party], rtol=1e-5, atol=1e-9)
    assert np.isnan(found[np.isin(owner, (1, 2))]).all()
    two_apart = [sums[0], {each: fixed[each] for each in (2,)}, sums[2]]
    with pytest.raises(NotVisible, match="differ in just one"):
        measured("round_difference", RecordAsk(_of(ask.items, (0, 1)), ask.population), masked(models, two_apart))


def _of(items: Records, owners: Sequence[int]) -> Records:
    rows = np.isin(items.owner, owners)
    return Records(items.x[rows], items.y[rows], items.owner[rows])


@pytest.mark.parametrize("clear", [True, False])
def test_disaggregation_recovers_updates_that_stay_the_same(clear: bool) -> None:
    rng = np.random.default_rng(4)
    ask, fixed, model = records(rng), rng.standard_normal((CLIENTS, D)), rng.standard_normal(D)
    sums = [{each: fixed[each] for each in cohort} for cohort in COHORTS]
    rounds = (in_clear if clear else masked)([model] * len(sums), sums)
    found, owner = measured("disaggregated_cosine", ask, rounds), ask.items.owner
    for party in range(CLIENTS):
        expected = cosines(model, ask.items, fixed[party])
        np.testing.assert_allclose(found[owner == party], expected[owner == party], rtol=1e-4, atol=1e-6)


def test_disaggregation_says_nothing_of_clients_that_always_come_together() -> None:
    """Clients 0 and 1 cannot be told apart, 2 and 3 can; with all in every round nobody can."""
    rng = np.random.default_rng(5)
    ask, model = records(rng), rng.standard_normal(D)
    cohorts = ((0, 1, 2, 3), (0, 1, 2), (0, 1, 3), (2, 3))
    sums = [{each: rng.standard_normal(D) for each in cohort} for cohort in cohorts]
    found = measured("disaggregated_cosine", ask, masked([model] * len(sums), sums))
    together = np.isin(ask.items.owner, (0, 1))
    assert np.isnan(found[together]).all()
    assert (np.abs(found[~together]) > 0).all()
    everybody = [{each: rng.standard_normal(D) for each in range(CLIENTS)} for _ in range(6)]
    with pytest.raises(NotVisible, match=r"6 sums .* of rank 1 for 4 clients"):
        measured("disaggregated_cosine", ask, masked([model] * 6, everybody))


def in_clear(models: Sequence[Floats], sums: Sequence[Updates]) -> list[Event]:
    """Return what a server sees of the same rounds without secure aggregation."""
    events = []
    for number, (model, updates) in enumerate(zip(models, sums, strict=True), start=1):
        sent = frozen(shaped(model, LIKE))
        events += [Event(number, "train", SERVER, client(each), sent, {}) for each in updates]
        for each, moved in updates.items():
            reply = frozen(shaped(model + moved, LIKE))
            events.append(Event(number, "train-reply", client(each), SERVER, reply, {"num-examples": 7}))
    return events


@pytest.mark.parametrize("name", ["aggregate_cosine", "smallest_sum", "round_difference", "collusion_cosine"])
def test_in_clear_sums_are_update_cosine_however_many_the_rounds(name: str) -> None:
    rng = np.random.default_rng(8)
    ask, rounds = records(rng), 25
    models = [rng.standard_normal(D) for _ in range(rounds)]
    sums = [{each: rng.standard_normal(D) for each in range(CLIENTS) if rng.random() < 0.6} for _ in range(rounds)]
    events, setup = in_clear(models, sums), public(CLASSES, rounds=rounds)
    plain = fold(ATTACKS["update_cosine"].signal, setup, ask, events, white_box(setup, LIKE))
    np.testing.assert_allclose(measured(name, ask, events, setup), plain[: ask.count], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("clear", "times"), [(True, 9), (False, 25)])
def test_gradients_for_equations_are_taken_once_a_round(
    clear: bool, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In clear, whoever takes part in all of 25 rounds is compared in every third; of sums each is an equation."""
    rng = np.random.default_rng(9)
    ask, rounds = records(rng), 25
    models = [rng.standard_normal(D) for _ in range(rounds)]
    cohorts = [range(CLIENTS) if clear else COHORTS[number % len(COHORTS)] for number in range(rounds)]
    sums = [{each: rng.standard_normal(D) for each in cohort} for cohort in cohorts]
    calls = []

    def counted(*args: object) -> object:
        calls.append(len(cast(NDArray[np.int64], args[3])))
        return record_gradients(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(attacks.gradients, "record_gradients", counted)
    measured("disaggregated_cosine", ask, (in_clear if clear else masked)(models, sums), public(CLASSES, rounds=rounds))
    assert sum(calls) == times * ask.count


def test_a_sketch_is_linear_and_keeps_lengths() -> None:
    """Above its size the squared length has a standard deviation of sqrt(2 / SKETCH) = 2.2 %; 5 of them: 6e-7."""
    rng = np.random.default_rng(6)
    for size in (SKETCH, 5 * SKETCH):
        one, other = rng.standard_normal((2, size))
        np.testing.assert_allclose(sketch(one + 2 * other), sketch(one) + 2 * sketch(other), atol=1e-9)
        ratio = np.sum(sketch(one) ** 2) / np.sum(one**2)
        assert abs(ratio - 1) <= (1e-12 if size == SKETCH else 5 * np.sqrt(2 / SKETCH))


# Which of two updates is in a sum?


@pytest.mark.parametrize(("clients", "success"), [(10, 0.991), (100, 0.761), (1000, 0.589)])
def test_the_discriminant_wins_as_often_as_theory_says(clients: int, success: float) -> None:
    """Coordinates of everything are standard normal: with d = 100 the sums lie sqrt(2 d / (n - 1)) standard deviations
    apart, so it is right with probability Phi(half of it). Standard deviations below .008; five of them: one in 1e6.
    """
    rng, d, trials = np.random.default_rng(7), 100, 4000
    right = 0
    for trial in range(trials):
        no, yes = rng.standard_normal((2, d))
        total = (yes if trial % 2 else no) + rng.normal(0, np.sqrt(clients - 1), d)
        said = discriminant(total, no, yes, np.zeros(d), np.full(d, clients - 1.0))
        right += (said > 0) == bool(trial % 2)
    theory = norm.cdf(np.sqrt(2 * d / (clients - 1)) / 2)
    assert theory == pytest.approx(success, abs=1e-3)
    assert right / trials == pytest.approx(theory, abs=5 * np.sqrt(theory * (1 - theory) / trials) + 1e-3)


def test_the_discriminant_is_the_ratio_of_two_normal_densities() -> None:
    rng = np.random.default_rng(8)
    total, no, yes, others = rng.standard_normal((4, 5))
    variance = rng.uniform(0.1, 2.0, 5)
    logs = [np.sum(norm.logpdf(total, each + others, np.sqrt(variance))) for each in (no, yes)]
    assert discriminant(total, no, yes, others, variance) == pytest.approx(logs[1] - logs[0])


@pytest.mark.parametrize("weighted", [True, False])
def test_lda_finds_the_set_in_sums_of_whole_rounds(weighted: bool) -> None:
    """Updates that are the records themselves, shifted, so that theory gives the success of an attacker who knows mean
    and spread: Phi(sqrt(2 d / (n - 1)) / 2) = .997 with d = 60 and n = 5. An estimate of both costs a little.
    """
    rng, d, n, size = np.random.default_rng(9), 60, 5, 4 if weighted else 1
    like = {"layer0.weight": np.zeros((1, d))}

    def drawn(owner: NDArray[np.int64]) -> Records:
        x = rng.normal(3.0, 1.0, (len(owner), d)).astype(np.float32)
        return Records(x, np.zeros(len(owner), dtype=np.int64), owner)

    def train(arrays: Mapping[str, NDArray[np.generic]], x: NDArray[np.float32], *_: object) -> dict[str, Floats]:
        return {"layer0.weight": np.asarray(arrays["layer0.weight"], np.float64) + x.mean(axis=0)}

    setup = replace(public(1, rounds=1), clients=n, train=train)
    right = []
    for _ in range(60):
        owner = np.repeat(np.arange(n), size)
        ask = DistinguishAsk(np.arange(n), drawn(owner), drawn(owner), drawn(np.full(64 * size, -1)))
        secrets = rng.random(n) < 0.5
        total = sum((ask.yes if secrets[k] else ask.no).x[owner == k].mean(axis=0, dtype=np.float64) for k in range(n))
        sent = frozen(like)
        events = [Event(1, "train", SERVER, client(k), sent, {}) for k in range(n)]
        mean, weight = frozen({"layer0.weight": total[None] / n}), float(n * size if weighted else n)
        events.append(Event(1, AGGREGATE, AGGREGATOR, SERVER, mean, {"clients": n, "weight": weight}))
        found = fold(ATTACKS["lda"].signal, setup, ask, events, white_box(setup, like))
        right += list((found > 0) == secrets)
    assert np.mean(right) >= 0.95  # 300 trials at .98 or more: a false alarm in fewer than one in 1e3 of other seeds


def test_lda_needs_a_recipe_and_public_records() -> None:
    study = distinguish_study(0, worlds=1)
    events = study.worlds[0].events
    ask = study.ask
    assert isinstance(ask, DistinguishAsk)
    nobody = replace(ask, population=set_of(ask.population, 0))
    for setup, asked in ((replace(study.setup, train=None), ask), (study.setup, nobody)):
        with pytest.raises(NotVisible, match="recipe and public records"):
            fold(ATTACKS["lda"].signal, setup, asked, events, study.worlds[0].released)


def test_simulated_clients_share_no_record_where_there_are_enough() -> None:
    rng = np.random.default_rng(10)
    for records_there, size, count, disjoint in ((640, 10, 64, True), (200, 10, 20, True), (30, 10, 8, False)):
        public_records = Records(
            np.arange(records_there, dtype=np.float32)[:, None],
            np.zeros(records_there, int),
            np.full(records_there, -1),
        )
        sets = simulated(public_records, size, rng)
        assert [len(each) for each in sets] == [size] * count
        used = np.concatenate([each.x.ravel() for each in sets])
        assert (len(np.unique(used)) == len(used)) == disjoint


# What a server and clients that collude can open of a real masked round.

CODEC = recipe().codec
LOST = {"nobody": None, "update": 5, "shares": 4}
"""Who falls silent before it sends what."""


def ran(protocol: Literal["masked", "ideal"], settings: Settings, lost: str) -> list[Event]:
    """Return the events of a run of the protocol over Flower's messages in which a client falls silent."""
    kinds = {"nobody": (), "update": (UPDATE,), "shares": (SHARES,) if protocol == "masked" else (UPDATE,)}[lost]
    return run(recipe(protocol, settings), silent=lambda _, kind, party: kind in kinds and party == LOST[lost]).events


def opened_by(
    helpers: Sequence[int], events: Sequence[Event], number: int, settings: Settings
) -> dict[frozenset[int], Words]:
    """Return what the server and its helpers open of a round."""
    vantage = Vantage(frozenset({SERVER, *map(client, helpers)}))
    seen = [event for event in visible(vantage, events) if event.round == number]
    useful = [event for event in seen if event.kind != AGGREGATE and (event.facts or event.arrays.keys() == {"masked"})]
    return open_sums(pooled(tuple(useful)), settings)


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize(("neighbours", "reused"), [(None, False), (4, False), (None, True)])
def test_colluders_open_what_the_protocol_leaves_and_no_more(lost: str, neighbours: int | None, reused: bool) -> None:
    """Six clients; on the whole graph four shares give a key back, and on the sparse one three."""
    settings = Settings(neighbours, 0.6, reused_seed=reused)
    masked_run, ideal = ran("masked", settings, lost), ran("ideal", settings, lost)
    plain = {(e.round, e.sender): cast(Words, e.arrays["masked"]) for e in ideal if e.receiver == AGGREGATOR}
    there = frozenset(range(6)) - {LOST[lost]}
    threshold = 4 if neighbours is None else 3
    for number in (1, 2):
        for helpers in ((), (0,), (0, 1), (0, 2, 3), (0, 1, 2, 3)):
            found = opened_by(helpers, masked_run, number, settings)
            assert frozenset().union(*found) == there
            for group, total in found.items():
                vectors = [plain[number, client(member)] for member in group]
                np.testing.assert_array_equal(total, np.sum(vectors, axis=0, dtype=total.dtype))
            assert all(frozenset({helper}) in found for helper in helpers)
            if neighbours is None:
                honest = there - set(helpers)
                alone = {frozenset({member}) for member in honest}
                assert set(found) - {frozenset({h}) for h in helpers} == (
                    alone if len(helpers) >= threshold else {honest}
                )
            elif len(helpers) == 4:
                assert all(len(group) == 1 for group in found)


def test_a_letter_that_does_not_open_and_a_seed_that_did_not_come_back_open_nothing() -> None:
    events = ran("masked", Settings(None, 0.6), "nobody")
    helpers = (0, 1, 2, 3)
    seen = [e for e in visible(Vantage(frozenset({SERVER, *map(client, helpers)})), events) if e.round == 1]
    known = pooled(tuple(e for e in seen if e.kind != AGGREGATE and (e.facts or e.arrays.keys() == {"masked"})))
    assert len(open_sums(known, Settings())) == 6
    spoiled = {who: bytes(len(letter)) if who == (5, 0) else letter for who, letter in known.letters.items()}
    assert frozenset({4, 5}) not in open_sums(
        replace(known, letters=spoiled), Settings()
    )  # 4's key still comes back, and joins them
    both = {who: bytes(len(letter)) if who[1] == 0 else letter for who, letter in known.letters.items()}
    assert frozenset({4, 5}) in open_sums(replace(known, letters=both), Settings())
    assert open_sums(replace(known, seeds={}), Settings()) == {}


@pytest.mark.parametrize("protocol", ["masked", "ideal"])
@pytest.mark.parametrize("helpers", [(), (1,), (1, 3), (0, 1, 2, 3)])
def test_colluders_compare_records_with_what_is_left(
    protocol: Literal["masked", "ideal"], helpers: tuple[int, ...]
) -> None:
    """A model of the same shape whose gradients are known by hand; the ideal protocol has no shares to pool."""
    events = ran(protocol, Settings(None, 0.6), "nobody")
    moved = {}
    for event in ran("ideal", Settings(None, 0.6), "nobody"):
        if event.receiver == AGGREGATOR:
            whole = event.arrays["masked"].astype(np.float64)
            moved[event.round, event.sender] = (whole[:-1] - CODEC.zero) * CODEC.step
    rng = np.random.default_rng(11)
    x, y, owner = rng.standard_normal((12, 4)).astype(np.float32), rng.integers(3, size=12), np.arange(12) % 6
    nobody = Records(x[:0], y[:0], owner[:0])
    setup = replace(public(3), clients=6, apply=lambda p, x: x @ p["weight"] + p["bias"])
    seen = visible(Vantage(frozenset({SERVER, *map(client, helpers)})), events)
    ask = RecordAsk(Records(x, y, owner), nobody)
    found = fold(ATTACKS["collusion_cosine"].signal, setup, ask, seen, white_box(setup, {}))
    models = {event.round: event.arrays for event in events if event.kind == "train"}
    total, weights = np.zeros(12), np.zeros(12)
    for number, model in models.items():
        error = (
            softmax(x @ np.asarray(model["weight"], np.float64) + np.asarray(model["bias"], np.float64)) - np.eye(3)[y]
        )
        slopes = np.stack([np.concatenate([e, np.outer(r, e).ravel()]) for e, r in zip(error, x, strict=True)])
        for item in range(12):
            together = {int(owner[item])}
            if not together & set(helpers) and not (protocol == "masked" and len(helpers) == 4):
                together = set(range(6)) - set(helpers)
            update = sum((moved[number, client(member)] for member in together), np.zeros(15))
            cos = -(slopes[item] @ update) / np.linalg.norm(slopes[item]) / np.linalg.norm(update)
            total[item] += cos / len(together)
            weights[item] += 1 / len(together)
    np.testing.assert_allclose(found, total / weights, rtol=1e-4, atol=1e-6)


def test_only_the_client_itself_sees_its_secret() -> None:
    events = ran("masked", Settings(None, 0.6), "nobody")
    for vantage, expected in (
        ("server", 0),
        ("public", 0),
        ("client:1", 2),
        ("server+client:1", 2),
        ("client:1+client:2", 4),
    ):
        seen = visible(Vantage(frozenset(vantage.split("+"))), events)
        assert sum(event.kind == SECRET for event in seen) == expected


def test_whole_runs_see_through_sums_and_colluders_through_masks(tmp_path: Path) -> None:
    """Twelve worlds have 48 coins for the sets: a blind attack has an AUC with a standard deviation of .085, and is
    above .9 once in 1e6. The threshold's three helpers leave one client alone: 25 records a world, a standard deviation
    of .034, above .665 once in 1e6. Helpers that open nothing would do what `aggregate_cosine` does, and no better.
    """
    helpers = "server+client:0+client:1+client:2"
    settings = {
        "name": "sums",
        "seed": 1,
        "data": {"source": "digits", "clients": 4, "candidates": 100, "population": 100, "test": 50},
        "model": {"name": "softmax"},
        "federation": {
            "rounds": 2,
            "local": {"epochs": 2, "batch_size": 8, "learning_rate": 0.3},
            "secure_aggregation": {"protocol": "masked", "threshold": 0.6},
        },
        "worlds": 12,
        "audits": [
            {
                "name": "sets",
                "game": {"name": "distinguish"},
                "vantage": "server",
                "attacks": ["lda", "one_record"],
            },
            {
                "name": "alone",
                "vantage": "server",
                "attacks": ["aggregate_cosine", "collusion_cosine", "update_cosine"],
            },
            {"name": "together", "vantage": helpers, "attacks": ["collusion_cosine"]},
        ],
        "controls": {"planted_worlds": 0},
    }
    path = tmp_path / "sums.yaml"
    path.write_text(json.dumps(settings))
    outcome = execute(
        load(str(path), known=known()),
        ATTACKS,
        recipes(),
        out=tmp_path / "run",
        engine="lockstep",
        workers=1,
        progress=lambda _done, _total, _text: None,
    )
    found = {(finding.audit, finding.attack): finding for finding in outcome.record.findings}
    areas = {name: finding.metrics["auc"].estimate for name, finding in found.items() if finding.metrics}
    assert cast(float, areas["sets", "lda"]) > 0.9
    assert found["alone", "update_cosine"].status == "not visible"
    assert areas["alone", "collusion_cosine"] == pytest.approx(areas["alone", "aggregate_cosine"], abs=0.01)
    assert cast(float, areas["together", "collusion_cosine"]) > 0.665
    assert cast(float, areas["together", "collusion_cosine"]) > cast(float, areas["alone", "aggregate_cosine"])
