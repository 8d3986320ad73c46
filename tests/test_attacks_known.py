"""Known answers: each formula against a hand calculation, a slow loop or another library."""

import dataclasses
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint, minimize
from scipy.stats import norm

import fedsim.gradients
from attacks import ATTACKS, decide, final, labels, learned, lira, rmia, rounds, updates
from attacks.noise import FLIPS, NOISE_ROBUSTNESS, noisy
from fedsim.attack import Bools, Case, fold, score
from fedsim.errors import NotVisible
from fedsim.transcript import SERVER, Arrays, Event, client, frozen
from fedsim.views import Floats, LabelAsk, Oracle, Parameters, Public, RecordAsk, Records, softmax, white_box
from tests.leaky_worlds import apply, hide, public, record_study, run, view

P = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]])
Y = np.array([0, 2])


def some_case(
    seed: int, references: int = 21, items: int = 12, population: int = 15, shape: tuple[int, ...] = ()
) -> Case:
    """Return a case of random confidences in which records 0 and 1 lack a side."""
    rng = np.random.default_rng(seed)
    members = rng.random((references, items)) < 0.5
    members[:, :1], members[:, 1:2] = True, False
    records = [
        Records(rng.standard_normal((n, 3)).astype(np.float32), rng.integers(2, size=n), np.zeros(n, dtype=np.int64))
        for n in (items, population)
    ]
    return Case(
        target=rng.random((items, *shape)),
        population=rng.random((population, *shape)),
        references=rng.random((references, items, *shape)),
        reference_population=rng.random((references, population, *shape)),
        members=members,
        ask=RecordAsk(*records),
        rng=np.random.default_rng(seed),
    )


# The measures of one answer.


def test_measures_by_hand() -> None:
    np.testing.assert_allclose(final.cross_entropy(P, Y), [-np.log(0.7), -np.log(0.3)])
    np.testing.assert_allclose(final.margin(P, Y), [np.log(0.7 / 0.3), np.log(0.3 / 0.7)])
    by_hand = -0.3 * np.log(0.7) - 0.2 * np.log(0.8) - 0.1 * np.log(0.9)
    other = -0.7 * np.log(0.3) - 0.1 * np.log(0.9) - 0.6 * np.log(0.4)
    np.testing.assert_allclose(final.modified_entropy(P, Y), [by_hand, other])
    np.testing.assert_allclose(final.entropy(P, Y)[0], -(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1)))


def test_margin_is_the_logit_margin_and_never_infinite() -> None:
    logits = np.random.default_rng(0).standard_normal((5, 4)) * 8
    y = np.array([0, 1, 2, 3, 0])
    others = np.where(np.eye(4)[y] > 0, -np.inf, logits)
    expected = logits[np.arange(5), y] - np.log(np.exp(others).sum(axis=1))
    np.testing.assert_allclose(final.margin(softmax(logits), y), expected, rtol=1e-9)
    assert np.isfinite(final.margin(np.eye(2), np.array([0, 0]))).all()
    assert np.isfinite(final.modified_entropy(np.eye(2), np.array([0, 0]))).all()


def test_withheld_entries_share_the_mass_not_shown() -> None:
    shown = np.array([[0.6, np.nan, 0.3, np.nan], [0.25, 0.25, 0.25, 0.25]])
    np.testing.assert_allclose(final.imputed(shown)[0], [0.6, 0.05, 0.3, 0.05])
    np.testing.assert_array_equal(final.imputed(shown)[1], shown[1])
    assert (final.imputed(np.array([[1.0, np.nan]])) > 0).all()


# Which model answers.


def test_which_model_answers() -> None:
    """Final parameters beat the release; a whole release beats a broadcast; a broadcast beats a masked release."""
    study = record_study(0, worlds=1, items=80, features=3)
    assert isinstance(study.ask, RecordAsk)
    world, items, setup = study.worlds[0], study.ask.items, study.setup
    last_broadcast = next(e for e in reversed(world.events) if e.kind == "train").arrays
    uniform = white_box(setup, {name: np.zeros_like(array) for name, array in last_broadcast.items()})

    def loss(oracle: Oracle, vantage: str) -> Floats:
        return fold(final.LOSS, setup, study.ask, view(world, vantage), oracle)[: len(items)]

    def expected(oracle: Oracle) -> Floats:
        probabilities = oracle(items.x).probabilities
        assert probabilities is not None
        return final.cross_entropy(probabilities, items.y)

    np.testing.assert_array_equal(loss(uniform, "server"), expected(world.released))
    np.testing.assert_array_equal(loss(uniform, "client:0"), expected(uniform))
    np.testing.assert_array_equal(loss(hide(uniform, "labels"), "client:0"), expected(white_box(setup, last_broadcast)))
    np.testing.assert_array_equal(
        loss(hide(world.released, "top_k"), "client:0"), expected(white_box(setup, last_broadcast))
    )
    np.testing.assert_array_equal(loss(hide(world.released, "top_k"), "server"), expected(world.released))
    top_two = hide(world.released, "top_k")(items.x).probabilities
    assert top_two is not None
    np.testing.assert_array_equal(
        loss(hide(world.released, "top_k"), "public"), final.cross_entropy(final.imputed(top_two), items.y)
    )
    with pytest.raises(NotVisible, match="labels"):
        loss(hide(uniform, "labels"), "public")


# Likelihood ratio.


def brute_lira(case: Case, item: int) -> tuple[float, float]:
    """Return the online and the offline score of one record, from the definition, one spread for all records."""

    def residuals(side: Bools) -> float:
        total, freedom = 0.0, 0
        for j in range(case.members.shape[1]):
            values = case.references[side[:, j], j]
            if len(values) > 1:
                total, freedom = total + float(((values - values.mean()) ** 2).sum()), freedom + len(values) - 1
        return float(np.sqrt(total / freedom))

    inside = np.median(case.references[case.members[:, item], item])
    outside = np.median(case.references[~case.members[:, item], item])
    x, s_in, s_out = case.target[item], residuals(case.members), residuals(~case.members)
    online = norm.logpdf(x, inside, s_in) - norm.logpdf(x, outside, s_out)
    return float(online), float((x - outside) / s_out)


def test_lira_is_the_ratio_of_two_normal_densities() -> None:
    case = some_case(1)
    for item in range(2, 12):
        online, offline = brute_lira(case, item)
        assert lira.online(case, "pooled")[item] == pytest.approx(online)
        assert lira.online(case, "auto")[item] == pytest.approx(online)
        assert lira.offline(case, "auto")[item] == pytest.approx(offline)
        inside, outside = case.references[case.members[:, item], item], case.references[~case.members[:, item], item]
        own = [norm.logpdf(case.target[item], np.median(v), v.std(ddof=1)) for v in (inside, outside)]
        assert lira.online(case, "per_example")[item] == pytest.approx(own[0] - own[1])


def test_lira_takes_a_spread_for_each_record_from_64_references_on() -> None:
    few, many = some_case(2, references=63), some_case(2, references=64)
    np.testing.assert_array_equal(lira.online(few, "auto"), lira.online(few, "pooled"))
    np.testing.assert_array_equal(lira.online(many, "auto"), lira.online(many, "per_example"))
    assert not np.allclose(lira.online(many, "pooled"), lira.online(many, "per_example"))


def test_lira_moves_the_side_it_has_by_the_mean_shift() -> None:
    """Records 0 (never out) and 1 (never in): the missing median is the other one, moved by the mean shift."""
    case = some_case(3)
    inside = [np.median(case.references[case.members[:, j], j]) for j in range(2, 12)]
    outside = [np.median(case.references[~case.members[:, j], j]) for j in range(2, 12)]
    shift = np.mean(np.subtract(inside, outside))
    sides = lira.fits(case, "pooled")
    assert sides[1].median[0] == pytest.approx(np.median(case.references[:, 0]) - shift)
    assert sides[0].median[1] == pytest.approx(np.median(case.references[:, 1]) + shift)


def test_offline_lira_never_saturates() -> None:
    case = some_case(4)
    far = lira.offline(dataclasses.replace(case, target=np.arange(12.0) * 1e3), "pooled")
    assert len(np.unique(far)) == 12


# Relative attack.


@pytest.mark.parametrize("seed", range(5))
def test_rmia_counts_the_public_records_it_beats(seed: int) -> None:
    case = some_case(seed)
    score = rmia.online(case)
    for x in range(2, 12):
        inside, outside = case.references[case.members[:, x], x].mean(), case.references[~case.members[:, x], x].mean()
        ratio = case.target[x] / ((inside + outside) / 2)
        beaten = sum(ratio / (z / case.reference_population[:, j].mean()) >= 2 for j, z in enumerate(case.population))
        assert int(score[x] * 16) == beaten
        assert score[x] * 16 - beaten == pytest.approx(ratio / (1 + ratio))


def test_offline_rmia_sees_only_references_without_the_record() -> None:
    case = some_case(6)
    outside = np.array([case.references[~case.members[:, x], x].mean() for x in range(1, 12)])
    a = rmia.tuned(case.references, case.members)
    p = ((1 + a) * outside + 1 - a) / 2
    np.testing.assert_allclose(rmia.offline(case)[1:], rmia.dominated(case, np.append(1.0, p))[1:])
    assert a in rmia.GRID


def test_rmia_tunes_a_to_the_best_auc_on_the_first_reference() -> None:
    """The best of the grid by a plain loop, in a world where p_in = a p_out + 1 - a with a = .2."""
    rng = np.random.default_rng(7)
    outside = rng.uniform(0.05, 0.95, size=400)
    members = rng.random((20, 400)) < 0.5
    references = np.where(members, 0.2 * outside + 0.8, outside) * rng.uniform(0.8, 1, size=members.shape)
    chosen = rmia.tuned(references, members)
    rest = np.array([references[1:][~members[1:, j], j].mean() for j in range(400)])

    def auc(a: float) -> float:
        ratio = references[0] / ((1 + a) * rest + 1 - a)
        return float(np.mean(ratio[members[0]][:, None] > ratio[~members[0]]))

    assert auc(chosen) == pytest.approx(max(auc(a) for a in rmia.GRID))


# Quantiles and calibration.


def test_population_and_reference_quantiles_by_loop() -> None:
    case = some_case(8)
    p, r = decide.population_quantile(case), decide.reference_quantile(case)
    for x in range(1, 12):
        share = np.mean(case.population > case.target[x])
        assert 0 <= p[x] - share < 1 / 15
        out = case.references[~case.members[:, x], x]
        assert 0 <= r[x] - np.mean(out > case.target[x]) < 1 / 21**2
    assert 0.5 <= r[0] < 0.5 + 1 / 21**2


def test_ties_of_a_quantile_follow_the_finer_order_and_never_overturn_a_share() -> None:
    """All shares with up to 12 references; the tie-break pushes the wrong way as hard as it can."""
    shares = [(k, of) for of in range(1, 13) for k in range(of + 1)]
    for (a, b), (c, d) in product(shares, shares):
        counts, of = np.array([a, c]), np.array([b, d])
        low, high = decide.share_of(counts, of, np.array([1.0, 0.0]))
        if a * d < c * b:
            assert low < high
        if (a, b) == (c, d):
            assert low > high


def test_watson_is_the_distance_from_the_out_mean() -> None:
    case = some_case(9)
    outside = np.array([case.references[~case.members[:, x], x].mean() for x in range(1, 12)])
    np.testing.assert_allclose(decide.above_out_mean(case)[1:], case.target[1:] - outside)


def test_best_threshold_against_all_thresholds() -> None:
    rng = np.random.default_rng(10)
    for _ in range(50):
        values, members = rng.integers(6, size=20).astype(float), rng.random(20) < 0.5
        members[:2] = True, False

        def accuracy(t: float, values: Floats = values, members: Bools = members) -> float:
            return float(np.mean(values[members] >= t) + np.mean(values[~members] < t))

        best = max(accuracy(t) for t in np.arange(-0.5, 7))
        assert accuracy(decide.best_threshold(values, members)) == pytest.approx(best)


def test_threshold_per_class_is_learned_per_class() -> None:
    """Class 1 lies 10 above class 0, members 1 below their class: in both a member lies .5 below its threshold."""
    rng = np.random.default_rng(11)
    y = np.arange(40) % 2
    members = rng.random((10, 40)) < 0.5
    references = 10.0 * y - members + 0.01 * rng.random((10, 40))
    records = Records(np.zeros((40, 1), dtype=np.float32), y, np.zeros(40, dtype=np.int64))
    case = dataclasses.replace(
        some_case(0),
        target=np.asarray(10.0 * y - 1, dtype=np.float64),
        references=references,
        members=members,
        ask=RecordAsk(records, records),
    )
    np.testing.assert_allclose(decide.lower_per_class(case), 0.5, atol=0.02)


def test_trajectory_tests_skip_rounds_not_seen() -> None:
    case = some_case(12, shape=(3,))
    case.target[:, 1], case.references[:, :, 2] = np.nan, np.nan
    np.testing.assert_allclose(decide.lower_over_rounds(case), -(case.target[:, 0] + case.target[:, 2]) / 2)
    outside = np.array([case.references[~case.members[:, x], x, 0].mean() for x in range(1, 12)])
    np.testing.assert_allclose(decide.below_out_mean_over_rounds(case)[1:], outside - case.target[1:, 0])


# Learned.


def test_quantile_regression_takes_away_what_is_normal_for_a_record() -> None:
    """The margin is 5 x_0 + (1 or 4) noise: one standard deviation up counts the same, whatever x is."""
    rng = np.random.default_rng(13)

    def draw(n: int) -> Records:
        return Records(
            rng.uniform(-1, 1, (n, 2)).astype(np.float32), rng.integers(2, size=n), np.zeros(n, dtype=np.int64)
        )

    public_records, items = draw(4000), draw(300)

    def margin(records: Records, noise: Floats) -> Floats:
        return np.asarray(5.0 * records.x[:, 0] + np.where(records.x[:, 1] > 0, 4, 1) * noise, dtype=np.float64)

    case = dataclasses.replace(
        some_case(0),
        population=margin(public_records, rng.standard_normal(4000)),
        target=margin(items, np.ones(300)),
        ask=RecordAsk(items, public_records),
    )
    up = learned.quantile_regression(case)
    down = learned.quantile_regression(dataclasses.replace(case, target=margin(items, -np.ones(300))))
    unit = (up - down) / 2
    assert np.abs(np.median(up + down)) < 0.3
    assert np.median(unit[items.x[:, 1] > 0]) == pytest.approx(np.median(unit[items.x[:, 1] < 0]), rel=0.3)
    few = RecordAsk(items, Records(*(getattr(public_records, name)[:99] for name in ("x", "y", "owner"))))
    with pytest.raises(NotVisible, match="100"):
        learned.quantile_regression(dataclasses.replace(case, population=case.population[:99], ask=few))


def test_shadow_classifiers_learn_what_separates() -> None:
    """Members of class 0 are answered .9, others .6; in class 1 it is the other way round."""
    rng = np.random.default_rng(14)
    y = np.arange(100) % 2
    members = rng.random((9, 100)) < 0.5
    first = np.where(members == (y == 0), 0.9, 0.6) + 0.01 * rng.random((9, 100))
    vectors = np.stack([first, 1 - first], axis=-1)
    records = Records(np.zeros((100, 1), dtype=np.float32), y, np.zeros(100, dtype=np.int64))
    case = dataclasses.replace(
        some_case(0), target=vectors[0], references=vectors[1:], members=members[1:], ask=RecordAsk(records, records)
    )
    found = learned.shadow_classifier_per_class(case) > 0
    np.testing.assert_array_equal(found, members[0])
    blind = learned.shadow_classifier_top_three(dataclasses.replace(case, rng=np.random.default_rng(0))) > 0
    assert 0.3 < np.mean(blind == members[0]) < 0.7


# Noise.


def test_noise_flips_two_valued_features_and_blurs_the_others() -> None:
    x = np.random.default_rng(15).choice([-1.0, 2.0], size=(50, 400)).astype(np.float32)
    x[:, 200:] = np.random.default_rng(16).standard_normal((50, 200))
    two_valued, scale = np.arange(400) < 200, x.std(axis=0, dtype=np.float64)
    scale[300:] = 0
    copies = np.stack(list(noisy(x, two_valued, scale, 1 - x, 100)))
    assert np.isin(copies[:, :, :200], [-1, 2]).all()
    changed = (copies != x)[:, 0, :200].reshape(len(FLIPS), -1).mean(axis=1)
    # 20 copies x 200 features each: 5 standard deviations of a binomial share, false alarm 3e-6
    assert (np.abs(changed - FLIPS) < 5 * np.sqrt(np.array(FLIPS) / 4000)).all()
    np.testing.assert_array_equal(copies[:, :, 300:], np.broadcast_to(x[:, 300:], (100, 50, 100)))
    assert np.std(copies[-20:, 0, 200:300] - x[0, 200:300]) > 5 * np.std(copies[:20, 0, 200:300] - x[0, 200:300])


def test_robustness_grows_with_the_distance_from_the_border() -> None:
    """The border is at 0: the further on the right side, the more copies keep the label; on the wrong side, few do."""
    x = np.array([[-3.0], [-0.5], [0.1], [1.0], [6.0]], dtype=np.float32)
    items = Records(x, np.ones(5, dtype=np.int64), np.zeros(5, dtype=np.int64))
    setup = public(2)
    oracle = white_box(setup, {"layer0.weight": np.array([[0.0], [1.0]]), "layer0.bias": np.zeros(2)})
    kept = fold(NOISE_ROBUSTNESS, setup, RecordAsk(items, items), (), hide(oracle, "labels"))[:5]
    assert (np.diff(kept) > 0).all()
    assert kept[1] < 0.5 < kept[2]
    assert kept[4] > 0.9


# Rounds.


def test_trajectory_columns_are_rounds_behind_the_model() -> None:
    study = record_study(1, worlds=1, items=80, features=3)
    assert isinstance(study.ask, RecordAsk)
    world, setup, items = study.worlds[0], study.setup, study.ask.items
    values = fold(rounds.LOSS_TRAJECTORY, setup, study.ask, view(world, "server"), world.released)[:80]
    assert values.shape == (80, setup.rounds + 1)
    np.testing.assert_allclose(values[:, 0], np.log(4))  # the initial model knows nothing of 4 classes
    trains = {e.round: e.arrays for e in world.events if e.kind == "train"}
    for number, arrays in trains.items():
        answer = white_box(setup, arrays)(items.x).probabilities
        assert answer is not None
        np.testing.assert_array_equal(values[:, number - 1], final.cross_entropy(answer, items.y))
    missed = tuple(e for e in view(world, "client:2") if e.round != 2)
    hidden = hide(world.released, "labels")
    absent = np.isnan(fold(rounds.LOSS_TRAJECTORY, setup, study.ask, missed, hidden)).all(axis=0)
    np.testing.assert_array_equal(absent, [False, True, False, False, True])
    evaluated = (Event(2, "evaluate", SERVER, client(2), trains[3], {}),)
    seen = fold(rounds.LOSS_TRAJECTORY, setup, study.ask, evaluated, hidden)[:80]
    np.testing.assert_array_equal(seen[:, 2], values[:, 2])
    again = (*evaluated, Event(3, "train", SERVER, client(2), trains[1], {}))
    np.testing.assert_array_equal(fold(rounds.LOSS_TRAJECTORY, setup, study.ask, again, hidden)[:80], seen)


# Updates.


def two_layers(parameters: Parameters, x: torch.Tensor) -> torch.Tensor:
    hidden = torch.tanh(x @ parameters["layer0.weight"].T + parameters["layer0.bias"])
    return hidden @ parameters["layer1.weight"].T + parameters["layer1.bias"]


def two_known_layers(parameters: Parameters, x: torch.Tensor) -> torch.Tensor:
    hidden = torch.tanh(torch.nn.functional.linear(x, parameters["layer0.weight"], parameters["layer0.bias"]))
    return torch.nn.functional.linear(hidden, parameters["layer1.weight"], parameters["layer1.bias"])


def numbers(arrays: Arrays) -> dict[str, Floats]:
    return {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}


def two_layer_world(seed: int) -> tuple[Public, RecordAsk, list[Event]]:
    """Return one round of two clients with arbitrary updates, and records of three alleged owners."""
    rng = np.random.default_rng(seed)
    shapes = {"layer0.weight": (5, 3), "layer0.bias": (5,), "layer1.weight": (4, 5), "layer1.bias": (4,)}
    model = frozen({name: rng.standard_normal(shape) for name, shape in shapes.items()})
    events = []
    for k in (0, 1):
        reply = frozen({name: array + rng.standard_normal(array.shape) for name, array in numbers(model).items()})
        events += [
            Event(1, "train", SERVER, client(k), model, {}),
            Event(1, "train-reply", client(k), SERVER, reply, {}),
        ]
    records = Records(rng.standard_normal((7, 3)).astype(np.float32), rng.integers(4, size=7), np.arange(7) % 3)
    return Public(4, 3, 1, two_layers, 1, 8, 0.1, "sgd"), RecordAsk(records, records), events


@pytest.mark.parametrize("model", [two_layers, two_known_layers])
def test_cosine_against_one_gradient_at_a_time(
    model: Callable[[Parameters, torch.Tensor], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fedsim.gradients, "NUMBERS", 20)  # few enough that there are pieces to join
    setup, ask, events = two_layer_world(17)
    setup = dataclasses.replace(setup, apply=model)
    result = fold(updates.UPDATE_COSINE, setup, ask, events, white_box(setup, events[0].arrays))
    for i in range(7):
        owner = int(ask.items.owner[i])
        if owner == 2:
            assert np.isnan(result[i])  # never seen
            continue
        parameters = {n: torch.tensor(np.array(a), requires_grad=True) for n, a in events[0].arrays.items()}
        x, y = torch.tensor(ask.items.x[i : i + 1]).double(), torch.tensor(ask.items.y[i : i + 1])
        torch.nn.functional.cross_entropy(two_layers(parameters, x), y).backward()  # type: ignore[no-untyped-call]
        grads = [p.grad for p in parameters.values()]
        own = torch.cat([g.flatten() for g in grads if g is not None]).numpy()
        reply = numbers(events[2 * owner + 1].arrays)
        moved = np.concatenate([(a - reply[n]).ravel() for n, a in numbers(events[0].arrays).items()])
        assert result[i] == pytest.approx(own @ moved / np.linalg.norm(own) / np.linalg.norm(moved))
    assert np.isnan(result[7:]).all()


def test_a_reply_in_another_precision_is_the_same_update() -> None:
    setup, ask, events = two_layer_world(17)
    broadcast = frozen({name: np.asarray(array, dtype=np.float32) for name, array in events[0].arrays.items()})
    results = []
    for precision in (np.float32, np.float64):
        replies = [{name: np.asarray(array, dtype=precision) for name, array in e.arrays.items()} for e in events]
        sent = [
            dataclasses.replace(e, arrays=broadcast if e.kind == "train" else frozen(reply))
            for e, reply in zip(events, replies, strict=True)
        ]
        results.append(fold(updates.UPDATE_COSINE, setup, ask, sent, white_box(setup, broadcast)))
    assert results[0].any()
    np.testing.assert_allclose(results[0], results[1], rtol=0, atol=1e-5)


def test_a_client_that_did_not_move_gives_no_evidence() -> None:
    setup, ask, events = two_layer_world(18)
    still = [dataclasses.replace(e, arrays=events[0].arrays) for e in events]
    found = fold(updates.UPDATE_COSINE, setup, ask, still, white_box(setup, events[0].arrays))
    assert (found[:7][ask.items.owner < 2] == 0).all()


def test_masked_updates_are_not_updates() -> None:
    """A sum in a finite field, a missing array or another shape is no trained copy of the model."""
    setup, ask, events = two_layer_world(19)
    reply = events[1].arrays
    for masked in (
        {name: array.astype(np.int64) for name, array in reply.items()},
        {name: array for name, array in reply.items() if name != "layer1.bias"},
        {name: array.ravel() for name, array in reply.items()},
    ):
        hidden = [e if e.kind == "train" else dataclasses.replace(e, arrays=frozen(masked)) for e in events]
        with pytest.raises(NotVisible):
            fold(updates.UPDATE_COSINE, setup, ask, hidden, white_box(setup, events[0].arrays))


@pytest.mark.parametrize("every", [1, 3])
def test_an_owner_is_compared_at_most_ten_times(every: int) -> None:
    """60 rounds, in each or in every third of which the client takes part."""
    setup, ask, events = two_layer_world(20)
    setup = dataclasses.replace(setup, rounds=60)
    stream = [dataclasses.replace(e, round=t) for t in range(1, 61, every) for e in events[:2]]
    state = updates.UPDATE_COSINE.start(setup, ask)
    for event in stream:
        state = updates.UPDATE_COSINE.step(state, event)
    assert 7 <= state.updates[0] <= 10
    once = fold(updates.UPDATE_COSINE, setup, ask, events[:2], white_box(setup, events[0].arrays))
    np.testing.assert_allclose(updates.UPDATE_COSINE.finish(state, white_box(setup, events[0].arrays)), once)


# Labels.


def test_unmixing_is_exact_for_one_full_step_from_zero() -> None:
    """Untrained, f(x) is uniform, so the bias moves by learning rate x (1/classes - share)."""
    rng = np.random.default_rng(21)
    counts = np.array([5, 0, 12, 3])
    y = np.repeat(np.arange(4), counts)
    setup = dataclasses.replace(public(4, rounds=1, epochs=1), clients=1)
    world = run(setup, [(rng.standard_normal((20, 6)).astype(np.float32), y)], 6, np.array([True]))
    others = Records(rng.standard_normal((9, 6)).astype(np.float32), rng.integers(4, size=9), np.full(9, -1))
    ask = LabelAsk(0, others, 4)
    found = fold(labels.LABEL_COUNTS, setup, ask, view(world, "server"), world.released)
    # the answers after the step stand for half of the estimate of f(x), so it is exact only up to the size of the step
    np.testing.assert_allclose(found, counts, atol=1.0)
    before = world.events[0].arrays
    uniform = labels.label_counts(
        dataclasses.replace(setup, apply=uniform_answer), ask, before, world.events[1].arrays, 20
    )
    np.testing.assert_allclose(uniform, counts, atol=1e-6)
    twice = dataclasses.replace(setup, apply=uniform_answer, learning_rate=setup.learning_rate * 2)
    assert not np.allclose(labels.label_counts(twice, ask, before, world.events[1].arrays, 20), counts, atol=0.5)


def test_unmixing_counts_the_local_steps() -> None:
    """3 epochs of 20 records in batches of 8 are 9 steps, and so the bias moves 9 times as far."""
    setup = dataclasses.replace(public(4, epochs=3, batch=8), apply=uniform_answer)
    share = np.array([0.25, 0, 0.6, 0.15])
    model = {"layer0.weight": np.zeros((4, 2)), "layer0.bias": np.zeros(4)}
    reply = {**model, "layer0.bias": -setup.learning_rate * 9 * (0.25 - share)}
    ask = LabelAsk(0, Records(np.zeros((8, 2), dtype=np.float32), np.arange(8) % 4, np.full(8, -1)), 4)
    np.testing.assert_allclose(labels.label_counts(setup, ask, model, reply, 20), 20 * share, atol=1e-6)


def uniform_answer(parameters: Parameters, x: torch.Tensor) -> torch.Tensor:
    return apply(parameters, x) * 0


def test_unmixing_needs_the_number_of_examples_and_a_bias() -> None:
    study = record_study(0, worlds=1, items=80, features=3)
    world = study.worlds[0]
    ask = LabelAsk(1, Records(np.zeros((4, 3), dtype=np.float32), np.arange(4), np.full(4, -1)), 4)
    silent = tuple(dataclasses.replace(e, facts={}) for e in world.events)
    without = tuple(dataclasses.replace(e, arrays={"layer0.weight": e.arrays["layer0.weight"]}) for e in world.events)
    for events in (silent, without, view(world, "client:0")):
        with pytest.raises(NotVisible, match="client 1"):
            fold(labels.LABEL_COUNTS, study.setup, ask, events, world.released)


def test_last_bias_is_the_last_vector_of_the_right_length() -> None:
    arrays = {"a.bias": np.zeros(3), "b.weight": np.zeros((3, 3)), "b.bias": np.zeros(3), "c.scale": np.zeros(4)}
    assert labels.last_bias(arrays, 3) == "b.bias"
    assert labels.last_bias(arrays, 5) is None


def test_simplex_least_squares_against_a_general_solver() -> None:
    rng = np.random.default_rng(22)
    for _ in range(10):
        matrix, target = rng.standard_normal((5, 4)), rng.standard_normal(5)

        def error(q: NDArray[np.float64], matrix: Floats = matrix, target: Floats = target) -> float:
            return float(np.sum((matrix @ q - target) ** 2))

        simplex = LinearConstraint(np.ones(4), 1, 1)
        slow = minimize(error, np.full(4, 0.25), bounds=[(0, 1)] * 4, constraints=[simplex], method="SLSQP", tol=1e-12)
        fast = labels.simplex_least_squares(matrix, target)
        assert fast.sum() == pytest.approx(1)
        assert (fast >= 0).all()
        assert error(fast) <= slow.fun + 1e-5


# Property.


def test_loss_test_by_hand_and_threshold_test_learns_the_direction() -> None:
    case = some_case(23, items=1, shape=(2,))
    np.testing.assert_allclose(decide.lower_on_yes(case), case.target[:, 0] - case.target[:, 1])
    members = np.array([[True], [False], [True], [False]])
    references = np.array([[[0.5, 0.1]], [[0.5, 0.3]], [[0.6, 0.2]], [[0.4, 0.4]]])
    for value, sign in ((0.0, 1), (0.9, -1)):
        found = decide.learned_threshold(
            dataclasses.replace(case, target=np.array([[0.5, value]]), references=references, members=members)
        )
        # the second column parts them: in is low, with the border at .25
        np.testing.assert_allclose(found, sign * abs(value - 0.25))


def test_property_attacks_find_nothing_where_there_is_nothing() -> None:
    """400 victims judged by 400 other worlds: AUC .5 with a standard deviation of .029; 5 of them, false alarm 6e-7."""
    rng = np.random.default_rng(24)
    victims = np.arange(800) < 400
    apart = victims[:, None] & ~victims[None, :]
    ask = some_case(0).ask
    for attack in (ATTACKS["property_loss"], ATTACKS["property_threshold"]):
        secrets = rng.random((800, 1)) < 0.5
        null = rng.standard_normal((800, 1, 2))
        leak = null + np.array([1.0, 0.0]) * secrets[:, :, None]
        for values, low, high in ((null, 0.355, 0.645), (leak, 0.65, 1.0)):
            found = score(attack, values, secrets, victims, apart, ask, 0)[victims]
            wins = found[secrets[victims]][:, None] > found[~secrets[victims]]
            assert low <= np.mean(wins) <= high


def test_the_softened_probability_is_the_softmax_at_temperature_two() -> None:
    logits = np.random.default_rng(0).normal(scale=4, size=(50, 6))
    y = np.random.default_rng(1).integers(0, 6, 50)
    expected = softmax(logits / 2)[np.arange(50), y]
    np.testing.assert_allclose(final.softened(softmax(logits), y), expected, rtol=1e-12)


def test_a_rounded_zero_is_half_of_the_smallest_probability_shown() -> None:
    rounded = np.array([[1.0, 0.0], [0.98, 0.02], [0.6, 0.4]])
    np.testing.assert_allclose(final.imputed(rounded), [[1.0, 0.01], [0.98, 0.02], [0.6, 0.4]])


def test_what_is_learned_from_references_leaves_their_share_of_members_out() -> None:
    """Features that say nothing: the score is near 0 however many of the references are members, so that worlds with
    more members than others, whose references have fewer, do not rank below them. With the prior left in, it would be
    the log-odds of that share, 1.39 and -1.39.
    """
    rng = np.random.default_rng(3)
    for share in (0.2, 0.8):
        vectors, members = rng.standard_normal((10, 300, 2)), rng.random((10, 300)) < share
        target = np.zeros((5, 2))
        found = learned.logistic_log_odds(vectors, members, target, 10, np.random.default_rng(0))
        assert np.abs(found).max() < 0.3  # a standard error is .045; the intercept is that of 3,000 coins
        network = learned.network_log_odds(vectors, members, target, np.random.default_rng(0), decay=100.0)
        assert np.abs(network).max() < 0.6
