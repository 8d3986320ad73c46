"""Lower bounds on epsilon: known values, slow oracles, false alarms on nothing, and mechanisms of known epsilon."""

import os
from collections.abc import Callable
from math import comb, inf, log

import numpy as np
import pytest
from scipy.stats import beta, binom, norm

from fedsim.audit import (
    BOUNDS,
    Bound,
    clopper_pearson_epsilon,
    clopper_pearson_mu,
    f_dp_excludes,
    f_dp_one_run_mu,
    gaussian_epsilon,
    gaussian_pair_epsilon,
    one_run_epsilon,
    one_run_p_value,
)
from fedsim.intervals import Unresolved
from fedsim.metrics import Bools, Floats

LOWER = [name for name, row in BOUNDS.items() if row.kind == "lower bound"]
SIGMAS = (0.5, 1.0, 2.0, 4.0)
DELTA = 1e-5
Draw = Callable[[np.random.Generator], tuple[Floats, Bools]]


@pytest.fixture
def seed() -> int:
    """The seed of every draw here; the tests pass for any, so another may be tried from outside."""
    return int(os.environ.get("FEDSIM_TEST_SEED", "42"))


def gaussian(worlds: int, items: int, mu: float, *, shift: float = 0.0) -> Draw:
    """Scores of a Gaussian mechanism on each item, plus noise that a world's items share."""

    def draw(rng: np.random.Generator) -> tuple[Floats, Bools]:
        members = rng.random((worlds, items)) < 0.5
        shared = shift * rng.standard_normal((worlds, 1))
        return rng.standard_normal((worlds, items)) + mu * members + shared, members

    return draw


def some_worlds_tell_all(worlds: int, items: int, delta: float) -> Draw:
    """A (0, delta)-DP mechanism whose items stand and fall together: a world tells all with probability delta."""

    def draw(rng: np.random.Generator) -> tuple[Floats, Bools]:
        members = rng.random((worlds, items)) < 0.5
        open_worlds = rng.random((worlds, 1)) < delta
        return np.where(open_worlds, 10.0 * members - 5, rng.standard_normal((worlds, items))), members

    return draw


def bound(
    name: str, scores: Floats, members: Bools, rng: np.random.Generator, delta: float = DELTA, confidence: float = 0.95
) -> Bound:
    found = BOUNDS[name].make(scores, members, np.ones_like(members), delta, confidence, rng)
    assert isinstance(found, Bound), found
    return found


def alarms(name: str, draw: Draw, repeats: int, truth: float, rng: np.random.Generator, delta: float = DELTA) -> int:
    """How often the bound lies above the truth."""
    return sum(bound(name, *draw(rng), rng, delta).epsilon > truth for _ in range(repeats))


def most(repeats: int) -> float:
    """More alarms than this come once in a million tests where each comes with probability 0.05."""
    return float(binom.isf(1e-6, repeats, 0.05))


def errors_at(scores: Floats, members: Bools, threshold: float) -> tuple[int, int, int, int]:
    """False positives, non-members, false negatives, members."""
    yes = scores >= threshold
    return int((yes & ~members).sum()), int((~members).sum()), int((~yes & members).sum()), int(members.sum())


# Known values.


@pytest.mark.parametrize(
    ("coins", "guesses", "right", "delta", "expected"),
    [
        (1000, 1000, 600, 0.0, 0.2975),
        (1000, 1000, 600, 1e-5, 0.2972),
        (1000, 100, 90, 1e-5, 1.6261),
        (1000, 100, 100, 1e-5, 3.4654),
        (5000, 500, 450, 1e-5, 1.9414),
        (200, 200, 130, 1e-5, 0.3662),
        (1000, 1000, 450, 1e-5, 0.0),
        (1000, 1000, 0, 1e-5, 0.0),
    ],
)
def test_one_run_known_values(coins: int, guesses: int, right: int, delta: float, expected: float) -> None:
    assert one_run_epsilon(coins, guesses, right, delta, 0.95) == pytest.approx(expected, abs=6e-5)


def slow_p_value(coins: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """The formula term by term."""
    share = np.exp(epsilon) / (1 + np.exp(epsilon))
    mass = [comb(guesses, k) * share**k * (1 - share) ** (guesses - k) for k in range(guesses + 1)]
    steps = [sum(mass[right - i : right]) / i for i in range(1, right + 1)]
    return float(min(1.0, sum(mass[right:]) + 2 * coins * delta * max(steps)))


@pytest.mark.parametrize("delta", [0.0, 1e-4, 1e-2])
@pytest.mark.parametrize("epsilon", [0.0, 0.7, 3.0])
def test_one_run_p_value_is_the_formula(epsilon: float, delta: float) -> None:
    for guesses, right in ((50, 45), (50, 50), (50, 1), (20, 12), (900, 700)):
        expected = slow_p_value(1000, guesses, right, epsilon, delta)
        assert one_run_p_value(1000, guesses, right, epsilon, delta) == pytest.approx(expected, rel=1e-9)


def test_one_run_p_value_known_values() -> None:
    assert one_run_p_value(1000, 100, 90, 1.0, 1e-5) == pytest.approx(8.41289e-4, rel=1e-5)
    assert one_run_p_value(1000, 1000, 760, 1.0, 0.0) == pytest.approx(0.0203471, rel=1e-5)
    assert one_run_p_value(1000, 1000, 760, 1.0, 1e-5) == pytest.approx(0.0207348, rel=1e-5)
    assert one_run_p_value(100, 50, 45, 1.5, 1e-3) == pytest.approx(0.110709, rel=1e-5)


@pytest.mark.parametrize(("coins", "right", "delta"), [(1000, 600, 1e-5), (1000, 900, 1e-4), (100, 95, 1e-3)])
def test_one_run_epsilon_is_where_the_p_value_first_crosses_the_error(coins: int, right: int, delta: float) -> None:
    found = one_run_epsilon(coins, coins, right, delta, 0.95)
    below = [one_run_p_value(coins, coins, right, epsilon, delta) for epsilon in np.linspace(0, found - 1e-5, 50)]
    assert max(below) < 0.05 <= one_run_p_value(coins, coins, right, found + 1e-5, delta)


@pytest.mark.parametrize(("trials", "at_95", "at_99"), [(100, 3.28, 2.91), (250, 4.21, 3.84), (1000, 5.60, 5.24)])
def test_what_clopper_pearson_can_reach(trials: int, at_95: float, at_99: float) -> None:
    assert clopper_pearson_epsilon(0, trials, 0, trials, 0.0, 0.95) == pytest.approx(at_95, abs=0.006)
    assert clopper_pearson_epsilon(0, trials, 0, trials, 0.0, 0.99) == pytest.approx(at_99, abs=0.006)
    largest = 1 - 0.025 ** (1 / trials)  # no error in so many trials
    assert clopper_pearson_epsilon(0, trials, 0, trials, 0.1, 0.95) == pytest.approx(log((0.9 - largest) / largest))


@pytest.mark.parametrize(("coins", "expected"), [(100, 3.49), (500, 5.10), (1000, 5.78), (5000, 7.28)])
def test_what_one_run_can_reach(coins: int, expected: float) -> None:
    assert one_run_epsilon(coins, coins, coins, DELTA, 0.95) == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize(
    ("mu", "at_5", "at_6"),
    [(0.25, 0.9263, 1.0607), (0.5, 1.9931, 2.2541), (1, 4.3772, 4.8866), (2, 9.9973, 10.9972), (3, 16.6755, 18.1634)],
)
def test_epsilon_of_a_gaussian_mechanism(mu: float, at_5: float, at_6: float) -> None:
    assert gaussian_epsilon(mu, 1e-5) == pytest.approx(at_5, abs=6e-5)
    assert gaussian_epsilon(mu, 1e-6) == pytest.approx(at_6, abs=6e-5)


@pytest.mark.parametrize("ratio", [0.3, 0.9, 1.0, 1 + 1e-12, 1.2, 3.0])
@pytest.mark.parametrize("shift", [0.0, 0.5, -2.0])
def test_epsilon_of_two_gaussians_leaves_delta(shift: float, ratio: float) -> None:
    """The larger of the two integrals of (p - e^epsilon q)+ is delta."""
    delta = 1e-3
    epsilon = gaussian_pair_epsilon(5 + 2 * shift, 2 * ratio, 5.0, 2.0, delta)

    x = np.linspace(-40, 40, 400_001)

    def left(first: tuple[float, float], second: tuple[float, float]) -> float:
        gain = np.maximum(norm.pdf(x, *first) - np.exp(epsilon) * norm.pdf(x, *second), 0.0)
        return float(gain.sum() * (x[1] - x[0]))

    worst = max(left((shift, ratio), (0.0, 1.0)), left((0.0, 1.0), (shift, ratio)))
    assert worst == pytest.approx(delta, rel=1e-3) if epsilon > 0 else worst <= delta


def test_epsilon_of_gaussians_far_apart_is_finite() -> None:
    # Far apart the curve is nearly its tangent: epsilon = mu^2 / 2 + mu times the normal quantile of delta.
    assert gaussian_epsilon(100.0, 1e-5) == pytest.approx(5000 + 100 * norm.isf(1e-5), rel=1e-3)


def test_gaussian_trade_off_of_one_coin_is_closed_form() -> None:
    # One fair coin is guessed right with probability Phi(mu / 2) at the most.
    for error in (0.6, 0.9):
        mu = 2 * norm.ppf(error)
        assert f_dp_excludes(1, 1, 1, mu - 1e-6, error)
        assert not f_dp_excludes(1, 1, 1, mu + 1e-6, error)


@pytest.mark.parametrize(
    ("sigma", "epsilon", "one_run", "f_dp"),
    [(0.5, 9.99, 4.99, 8.16), (1.0, 4.37, 2.61, 3.61), (2.0, 1.99, 1.33, 1.59), (4.0, 0.92, 0.61, 0.82)],
)
def test_published_table_of_gaussian_mechanisms(sigma: float, epsilon: float, one_run: float, f_dp: float) -> None:
    """Mahloujifar et al. (2025): the best over numbers of guesses, all with their expected right ones."""
    coins, mu = 1_000_000 if sigma == 4 else 100_000, 1 / sigma
    ours, gauss = [0.0], [0.0]
    for threshold in np.linspace(0.3, 4.5, 25):  # guess where the centred score is beyond this
        right, wrong = norm.sf(threshold - mu / 2), norm.sf(threshold + mu / 2)
        guesses, correct = int(coins * (right + wrong)), int(coins * right)
        if guesses > 10:
            ours.append(one_run_epsilon(coins, guesses, correct, DELTA, 0.95))
            gauss.append(gaussian_epsilon(f_dp_one_run_mu(coins, guesses, correct, 0.95), DELTA))
    assert gaussian_epsilon(mu, DELTA) == pytest.approx(epsilon, abs=0.01)
    assert max(ours) == pytest.approx(one_run, abs=0.15)
    assert max(gauss) == pytest.approx(f_dp, rel=0.12)
    assert max(ours) < max(gauss) < epsilon


# False alarms where nothing leaks, and what the test of them must reject.


@pytest.mark.parametrize("shift", [0.0, 3.0])
@pytest.mark.parametrize("name", LOWER)
def test_nothing_leaks_nothing_found(seed: int, name: str, shift: float) -> None:
    # The bounds' own error is 0.05 a draw at most; see `most`.
    draw = gaussian(40, 20, 0.0, shift=shift)
    assert alarms(name, draw, 300, 0.0, np.random.default_rng(seed)) <= most(300)


def test_the_number_of_guesses_picked_on_the_same_coins_is_rejected(seed: int) -> None:
    rng, repeats, found = np.random.default_rng(seed), 300, 0
    for _ in range(repeats):
        scores, members = gaussian(1, 500, 0.0)(rng)
        ordered = members[0][np.argsort(scores[0])]
        right = np.cumsum(ordered[::-1]) + np.cumsum(~ordered)
        found += any(one_run_epsilon(500, 2 * k, int(right[k - 1]), 0.0, 0.95) > 0 for k in range(1, 251))
    assert found > most(repeats)


def best_on_the_same_trials(ranked: Bools) -> float:
    """The largest Clopper-Pearson bound over 150 thresholds, from the coins in the order of their scores."""
    above = np.unique(np.geomspace(1, ranked.size / 2, 150).astype(int))
    inside, found = int(ranked.sum()), np.cumsum(ranked)[above - 1]
    largest_fnr = beta.isf(0.025, inside - found + 1, found)
    largest_fpr = beta.isf(0.025, above - found + 1, ranked.size - inside - above + found)
    return float(np.log((1 - largest_fnr) / largest_fpr).max())


def test_the_threshold_picked_on_the_same_trials_is_rejected(seed: int) -> None:
    """Laplace noise has one likelihood ratio, e^epsilon, at all thresholds far out: there is much to pick from."""
    rng, repeats, trials, epsilon = np.random.default_rng(seed), 400, 60_000, 4.0
    picked = fixed = 0
    for _ in range(repeats):
        members = rng.random(trials) < 0.5
        scores = rng.laplace(size=trials) + epsilon * members
        fixed += clopper_pearson_epsilon(*errors_at(scores, members, epsilon), 0.0, 0.95) > epsilon
        ranked = members[np.argsort(-scores)]
        picked += max(best_on_the_same_trials(ranked), best_on_the_same_trials(~ranked[::-1])) > epsilon
    assert fixed <= most(repeats) < picked


def test_items_of_a_world_are_one_trial(seed: int) -> None:
    """Where whole worlds tell all with probability delta, epsilon is 0; counting every item would find it large."""
    rng, repeats, delta = np.random.default_rng(seed), 300, 0.3
    draw = some_worlds_tell_all(32, 50, delta)
    for name in ("clopper_pearson", "one_run"):
        assert alarms(name, draw, repeats, 0.0, rng, delta) <= most(repeats)
    pooled = 0
    for _ in range(repeats):
        scores, members = draw(rng)
        pooled += clopper_pearson_epsilon(*errors_at(scores, members, 4.5), delta, 0.95) > 0
    assert pooled > most(repeats)


def test_tied_scores_tell_nothing(seed: int) -> None:
    # Each bound alarms once in 10^9 runs. Were ties left in the order of the items, every guess would be right.
    rng = np.random.default_rng(seed)
    members = np.arange(800)[None, :] >= 400
    for name in ("one_run", "f_dp_one_run"):
        assert bound(name, np.zeros(members.shape), members, rng, confidence=1 - 1e-9).epsilon == 0


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 3.0])
@pytest.mark.parametrize("name", LOWER)
def test_nothing_leaks_nothing_found_in_thousands_of_runs(seed: int, name: str, shift: float) -> None:
    draw = gaussian(64, 50, 0.0, shift=shift)
    assert alarms(name, draw, 3000, 0.0, np.random.default_rng(seed)) <= most(3000)


# Mechanisms whose epsilon is known.


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", LOWER)
def test_bounds_lie_below_the_truth(seed: int, name: str, sigma: float) -> None:
    draw, truth = gaussian(40, 50, 1 / sigma), gaussian_epsilon(1 / sigma, DELTA)
    assert alarms(name, draw, 60, truth, np.random.default_rng(seed)) <= most(60)


@pytest.mark.parametrize("name", ["clopper_pearson", "one_run"])
def test_bounds_of_a_pure_mechanism_lie_below_the_truth(seed: int, name: str) -> None:
    """Randomised response is the mechanism at which these bounds have nothing to spare."""
    epsilon = 1.0

    def draw(rng: np.random.Generator) -> tuple[Floats, Bools]:
        members = rng.random((200, 5)) < 0.5
        honest = rng.random(members.shape) < np.exp(epsilon) / (1 + np.exp(epsilon))
        return (members == honest) + 1e-3 * rng.standard_normal(members.shape), members

    rng = np.random.default_rng(seed)
    assert alarms(name, draw, 300, epsilon, rng, 0.0) <= most(300)
    assert alarms(name, draw, 300, epsilon / 2, rng, 0.0) > most(300)  # a mechanism worse than claimed is caught


@pytest.mark.parametrize("sigma", SIGMAS)
def test_gdp_is_tight(sigma: float) -> None:
    """Expected counts at the best threshold of 100 000 trials a side: below the truth and within 20 %."""
    trials, mu = 100_000, 1 / sigma
    wrong = int(np.ceil(norm.sf(mu / 2) * trials))
    truth = gaussian_epsilon(mu, DELTA)
    assert 0.8 * truth < gaussian_epsilon(clopper_pearson_mu(wrong, trials, wrong, trials, 0.95), DELTA) < truth


@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_gdp_is_tight_through_scores(sigma: float) -> None:
    """20 000 worlds with scores at even quantiles of the two Gaussians, threshold learned on one half."""
    even = norm.ppf((np.arange(5000) + 0.5) / 5000)
    half = np.concatenate([even, even + 1 / sigma])
    scores, members = np.tile(half, 2)[:, None], np.tile(np.arange(10_000) >= 5000, 2)[:, None]
    truth = gaussian_epsilon(1 / sigma, DELTA)
    assert 0.8 * truth < bound("gdp", scores, members, np.random.default_rng(0)).epsilon < truth


@pytest.mark.parametrize("sigma", SIGMAS)
def test_clopper_pearson_is_tight_where_delta_is_large(sigma: float) -> None:
    """At delta = 0.01 the worst threshold is not out of reach of 10^6 trials a side: within 20 %."""
    delta, mu, trials = 0.01, 1 / sigma, 1_000_000
    truth = gaussian_epsilon(mu, delta)
    found = []
    for threshold in np.linspace(-1, 5, 61):
        counts = int(np.ceil(norm.sf(threshold) * trials)), trials
        found.append(
            clopper_pearson_epsilon(*counts, int(np.ceil(norm.cdf(threshold - mu) * trials)), trials, delta, 0.95)
        )
    assert max(found) < truth
    if truth > 0.2:  # at sigma = 4 nearly all of the distance is forgiven by delta
        assert max(found) > 0.8 * truth


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0, 4.0])
def test_bounds_of_randomised_response_are_tight(epsilon: float) -> None:
    trials = 20_000
    wrong = int(np.ceil(trials / (1 + np.exp(epsilon))))
    assert 0.8 * epsilon < clopper_pearson_epsilon(wrong, trials, wrong, trials, 0.0, 0.95) < epsilon
    assert 0.8 * epsilon < one_run_epsilon(trials, trials, trials - wrong, 0.0, 0.95) < epsilon


def test_the_estimate_is_no_bound(seed: int) -> None:
    """It is near the truth when fitted well, and as often above as below: its table row must say so."""
    rng, truth = np.random.default_rng(seed), gaussian_epsilon(1.0, DELTA)
    found = [bound("one_shot", *gaussian(10, 1000, 1.0)(rng), rng) for _ in range(60)]
    assert np.median([each.epsilon for each in found]) == pytest.approx(truth, rel=0.15)
    assert sum(each.epsilon > truth for each in found) > most(60)
    assert {(each.kind, each.confidence, each.ceiling) for each in found} == {("estimate", None, None)}


# The table's contract.


@pytest.mark.parametrize("name", LOWER)
def test_perfect_scores_reach_the_ceiling(seed: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    members = rng.permuted(np.tile(np.arange(40)[:, None] < 20, 30), axis=0)  # as many in as out
    found = bound(name, members.astype(np.float64), members, rng)
    assert found.ceiling is not None
    assert found.epsilon == pytest.approx(found.ceiling)
    assert 0 < found.epsilon < inf
    assert found.canaries == (20 if name in ("clopper_pearson", "gdp") else 1200)


@pytest.mark.parametrize("name", ["one_run", "f_dp_one_run"])
def test_five_numbers_of_guesses_are_paid_for(name: str) -> None:
    members = np.arange(1000)[None, :] % 2 == 0
    found = bound(name, members.astype(np.float64), members, np.random.default_rng(0))
    each = 1 - 0.05 / 5

    def alone(guesses: int) -> float:
        if name == "one_run":
            return one_run_epsilon(1000, guesses, guesses, DELTA, each)
        return gaussian_epsilon(f_dp_one_run_mu(1000, guesses, guesses, each), DELTA)

    assert found.epsilon == pytest.approx(max(alone(guesses) for guesses in (1000, 500, 200, 100, 20)))
    assert "5 numbers" in found.correction


@pytest.mark.parametrize("name", ["clopper_pearson", "gdp"])
def test_the_threshold_comes_from_the_first_half_of_the_worlds(seed: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    members = rng.permuted(np.tile(np.arange(40)[:, None] % 2 == 0, 5), axis=0)
    perfect = members.astype(np.float64)
    assert bound(name, perfect, members, rng).epsilon > 0
    moved = perfect + 10 * (np.arange(40)[:, None] >= 20)  # all of the second half is now above the threshold
    assert bound(name, moved, members, rng).epsilon == 0


@pytest.mark.parametrize("name", BOUNDS)
def test_what_is_not_asked_changes_nothing(seed: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    scores, members = gaussian(40, 30, 2.0)(rng)
    asked = rng.random(members.shape) < 0.7
    other = np.where(asked, scores, np.nan), np.where(asked, members, ~members)
    one = BOUNDS[name].make(scores, members, asked, DELTA, 0.95, np.random.default_rng(1))
    assert one == BOUNDS[name].make(*other, asked, DELTA, 0.95, np.random.default_rng(1))
    assert isinstance(one, Bound)
    assert (one.name, one.kind, one.delta) == (name, BOUNDS[name].kind, DELTA)
    assert bool(one.assumes) == (name not in ("clopper_pearson", "one_run"))


@pytest.mark.parametrize("name", LOWER)
def test_more_confidence_and_more_delta_never_raise_a_bound(seed: int, name: str) -> None:
    scores, members = gaussian(400, 20, 2.0)(np.random.default_rng(seed))
    all_asked = np.ones_like(members)

    def at(delta: float, confidence: float) -> float:
        found = BOUNDS[name].make(scores, members, all_asked, delta, confidence, np.random.default_rng(1))
        assert isinstance(found, Bound)
        return found.epsilon

    if name not in ("clopper_pearson", "gdp"):  # their threshold moves with both
        assert at(1e-5, 0.99) < at(1e-5, 0.95)
    assert at(1e-2, 0.95) < at(1e-5, 0.95)


@pytest.mark.parametrize("name", BOUNDS)
def test_too_little_is_unresolved(name: str) -> None:
    rng = np.random.default_rng(0)
    members = np.array([[True]])
    assert isinstance(BOUNDS[name].make(np.zeros((1, 1)), members, members, DELTA, 0.95, rng), Unresolved)
    nobody = np.zeros((4, 4), dtype=np.bool_)
    assert isinstance(BOUNDS[name].make(np.zeros((4, 4)), nobody, nobody, DELTA, 0.95, rng), Unresolved)


@pytest.mark.parametrize("name", ["gdp", "f_dp_one_run", "one_shot"])
def test_gaussians_need_a_delta(name: str) -> None:
    rng = np.random.default_rng(0)
    scores, members = gaussian(40, 30, 2.0)(rng)
    assert isinstance(BOUNDS[name].make(scores, members, np.ones_like(members), 0.0, 0.95, rng), Unresolved)


@pytest.mark.parametrize("name", BOUNDS)
def test_what_makes_no_sense_is_refused(name: str) -> None:
    rng = np.random.default_rng(0)
    scores, members = gaussian(8, 4, 1.0)(rng)
    asked = np.ones_like(members)
    make = BOUNDS[name].make
    with pytest.raises(ValueError, match="one shape"):
        make(scores[:, :2], members, asked, DELTA, 0.95, rng)
    with pytest.raises(ValueError, match="bool"):
        make(scores, scores, asked, DELTA, 0.95, rng)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="finite"):
        make(np.where(members, np.nan, scores), members, asked, DELTA, 0.95, rng)
    for delta, confidence in ((-0.1, 0.95), (1.0, 0.95), (DELTA, 0.4), (DELTA, 1.0)):
        with pytest.raises(ValueError, match="delta < 1"):
            make(scores, members, asked, delta, confidence, rng)


def test_counts_that_no_run_gives_are_refused() -> None:
    with pytest.raises(ValueError, match="number of trials"):
        clopper_pearson_epsilon(3, 2, 0, 5, 0.0, 0.95)
    with pytest.raises(ValueError, match="number of trials"):
        clopper_pearson_mu(0, 0, 0, 5, 0.95)
    for counts in ((10, 20, 5), (10, 5, 6), (10, 0, 0)):
        with pytest.raises(ValueError, match="right <= guesses"):
            one_run_epsilon(*counts, 0.0, 0.95)
        with pytest.raises(ValueError, match="right <= guesses"):
            f_dp_one_run_mu(*counts, 0.95)
    with pytest.raises(ValueError, match="deviations"):
        gaussian_pair_epsilon(1.0, 0.0, 0.0, 1.0, DELTA)
