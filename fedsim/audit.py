"""Lower bounds on epsilon from an attack's scores: what a mechanism cannot be better than, said with a confidence.

Three laws keep a bound honest. Nothing is chosen on the coins that judge it: thresholds come from other worlds, numbers
of guesses are fixed beforehand. Whatever is tried more than once is paid for (Bonferroni). And the scores of a world
know nothing of the coins of another world that is judged: an attack that learns from reference worlds needs
worlds apart for that.

docs/epsilon-bounds.md says what each bound assumes, can reach, and reached on mechanisms whose epsilon is known.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import copysign, inf, log, sqrt
from typing import Literal, NamedTuple

import numpy as np
import scipy  # its parts take a second to import; each is loaded when it is first used

from fedsim.intervals import Unresolved
from fedsim.metrics import Bools, Floats, midpoints, roc

Kind = Literal["lower bound", "estimate"]
SHARES = (1.0, 0.5, 0.2, 0.1, 0.02)
"""Shares of the coins that the one-run bounds guess: half at the top of the ranking, half at its bottom."""
LARGEST_MU = 64.0


@dataclass(frozen=True)
class Bound:
    """What scores say about epsilon: at `confidence`, the mechanism is not (e, delta)-DP for any e < epsilon."""

    name: str
    epsilon: float  # >= 0, finite
    delta: float
    confidence: float | None  # None for an estimate: nothing guarantees it
    kind: Kind
    correction: str  # how it was kept from choosing on what judges it
    canaries: int  # trials or coins
    ceiling: float | None  # the largest value that so many canaries can reach; None for an estimate
    detail: str  # the counts behind it
    assumes: str = ""  # about the mechanism, beyond independent coins and worlds; empty: nothing

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < inf:
            raise ValueError(f"{self.name}: epsilon must be finite and at least 0, got {self.epsilon}")


Make = Callable[[Floats, Bools, Bools, float, float, np.random.Generator], Bound | Unresolved]


class BoundRow(NamedTuple):
    """One way to bound epsilon."""

    title: str
    summary: str
    paper: str
    link: str
    kind: Kind
    make: Make


class Trials(NamedTuple):
    """Independent trials at a threshold that they had no part in."""

    false_positives: int
    non_members: int
    false_negatives: int
    members: int
    worlds: int

    @property
    def detail(self) -> str:
        """The counts in words."""
        found = self.members - self.false_negatives
        return (
            f"{found} of {self.members} members and {self.false_positives} of {self.non_members} non-members above the "
            f"threshold; one item of each of {self.worlds} worlds"
        )


class Guesses(NamedTuple):
    """How often the top and the bottom of the ranking were guessed right, a pair for each number of guesses."""

    coins: int
    counts: list[tuple[int, int]]  # (guesses, right ones), most guesses first

    def confidence_each(self, confidence: float) -> float:
        """The confidence at which each number must hold so that all hold together (Bonferroni)."""
        return 1 - (1 - confidence) / len(self.counts)

    @property
    def correction(self) -> str:
        """The correction in words."""
        return f"Bonferroni over {len(self.counts)} numbers of guesses, fixed beforehand"


# Epsilon from counts.


def clopper_pearson_epsilon(
    false_positives: int, non_members: int, false_negatives: int, members: int, delta: float, confidence: float
) -> float:
    """Return a lower bound on epsilon from the errors of a test that was fixed beforehand; 0 if there is no evidence.

    Both error rates are bounded from above by Clopper and Pearson at half the error each.

    Args:
        false_positives, non_members: errors and independent trials where the coin said out; non_members >= 1.
        false_negatives, members: errors and independent trials where the coin said in; members >= 1.
        delta: in [0, 1).
        confidence: in (0, 1), of the bound.

    Raises:
        ValueError: an argument is out of range.

    Source: Jagielski, Ullman and Oprea, "Auditing differentially private machine learning" (2020),
        https://arxiv.org/abs/2006.07709; Kairouz, Oh and Viswanath, "The composition theorem for differential privacy"
        (2015), https://arxiv.org/abs/1311.0776
    """
    fpr, fnr = _largest_errors(false_positives, non_members, false_negatives, members, delta, confidence)
    return float(_epsilon_of_errors(fpr, fnr, delta))


def clopper_pearson_mu(
    false_positives: int, non_members: int, false_negatives: int, members: int, confidence: float
) -> float:
    """Return a lower bound on the mu of a Gaussian mechanism, whose outcomes in and out lie mu deviations apart.

    Args and errors: as `clopper_pearson_epsilon`.

    Source: Nasr et al., "Tight auditing of differentially private machine learning" (2023),
        https://arxiv.org/abs/2302.07956; Dong, Roth and Su, "Gaussian differential privacy" (2022),
        https://arxiv.org/abs/1905.02383
    """
    fpr, fnr = _largest_errors(false_positives, non_members, false_negatives, members, 0.0, confidence)
    return float(_mu_of_errors(fpr, fnr))


@lru_cache(maxsize=4096)
def one_run_epsilon(coins: int, guesses: int, right: int, delta: float, confidence: float) -> float:
    """Return a lower bound on epsilon from `right` of `guesses` coins guessed right, `guesses` being fixed beforehand.

    The coins are fair, and independent of each other and of all else; the guesses are made from the output alone.

    Args:
        coins: how many were thrown, guessed at or not.
        guesses: 1 to `coins`.
        right: 0 to `guesses`.
        delta: in [0, 1).
        confidence: in (0.5, 1), of the bound.

    Raises:
        ValueError: an argument is out of range.

    Source: Steinke, Nasr and Jagielski, "Privacy auditing with one (1) training run" (2023),
        https://arxiv.org/abs/2305.08846
    """
    _check_guesses(coins, guesses, right, delta, confidence)
    if right == 0:
        return 0.0
    error = 1 - confidence
    # With delta = 0 the binomial tail alone decides, and Clopper and Pearson solve it.
    highest = float(scipy.special.logit(scipy.stats.beta.ppf(error, right, guesses - right + 1)))
    if highest <= 0:
        return 0.0
    if delta == 0:
        return highest
    if one_run_p_value(coins, guesses, right, 0.0, delta) >= error:
        return 0.0

    def excess(epsilon: float) -> float:
        return one_run_p_value(coins, guesses, right, epsilon, delta) - error

    return _crossing(excess, highest)


def one_run_p_value(coins: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Return an upper bound on P(at least `right` of `guesses` guesses right) under (epsilon, delta)-DP.

    Args:
        epsilon: at least 0.
        coins, guesses, right, delta: as `one_run_epsilon`.

    Source: as `one_run_epsilon`.
    """
    if right == 0:
        return 1.0
    share = float(scipy.special.expit(epsilon))
    pure = float(scipy.stats.binom.sf(right - 1, guesses, share))
    if delta == 0:
        return min(1.0, pure)
    # Going down from `right`, the mean of the masses passed falls once they are beyond the mode: no need to go to 0.
    lowest = guesses * share - 40 * sqrt(guesses * share * (1 - share))
    passed = np.arange(right - 1, max(-1, min(right - 2, int(lowest) - 1)), -1)
    below = np.cumsum(scipy.stats.binom.pmf(passed, guesses, share))  # P(right > X >= right - i)
    worst = float(np.max(below / np.arange(1, passed.size + 1)))
    return min(1.0, pure + 2 * coins * delta * worst)


@lru_cache(maxsize=4096)
def f_dp_one_run_mu(coins: int, guesses: int, right: int, confidence: float) -> float:
    """Return a lower bound on the mu of a Gaussian mechanism from coins guessed right in one run.

    Args and errors: as `one_run_epsilon`.

    Source: Mahloujifar, Melis and Chaudhuri, "Auditing f-differential privacy in one run" (2025),
        https://arxiv.org/abs/2410.22235
    """
    _check_guesses(coins, guesses, right, 0.0, confidence)
    error = 1 - confidence
    if not f_dp_excludes(coins, guesses, right, 0.0, error):
        return 0.0
    low, high = 0.0, 1.0
    while f_dp_excludes(coins, guesses, right, high, error):
        low, high = high, 2 * high
        if low >= LARGEST_MU:  # beyond any number of coins
            return low
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (middle, high) if f_dp_excludes(coins, guesses, right, middle, error) else (low, middle)
    return low


def f_dp_excludes(coins: int, guesses: int, right: int, mu: float, error: float) -> bool:
    """Return whether a mu-Gaussian mechanism gives `right` or more right guesses with probability below `error`.

    Suppose it does not. Let R at i be the sum of (j / coins) P(j right) over j >= i, and W that of the wrong guesses,
    ((guesses - j) / coins) P(j right). Turning over one coin of those guessed right gives one guess less right, and the
    trade-off curve says how much rarer that may be at the most: so R at i forces W at i - 1, and with it R at i - 1. If
    going down to 0 asks for more than the share of the coins that are guessed, the supposition was wrong.

    Args:
        mu: at least 0.
        error: in (0, 1).
        coins, guesses, right: as `one_run_epsilon`.

    Source: as `f_dp_one_run_mu`.
    """
    wrong_mass, right_mass = error * (guesses - right) / coins, error * right / coins
    for left in range(right - 1, -1, -1):
        forced = float(scipy.special.ndtr(scipy.special.ndtri(right_mass) - mu))
        if forced <= wrong_mass:  # nothing new is forced, now or further down
            break
        right_mass += left / (guesses - left) * (forced - wrong_mass)
        wrong_mass = forced
        if right_mass + wrong_mass >= guesses / coins:
            return True
    return right_mass + wrong_mass >= guesses / coins


# Epsilon of Gaussians.


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the epsilon at `delta` of a Gaussian mechanism, whose two outcomes lie `mu` standard deviations apart.

    Args:
        mu: sensitivity / noise, at least 0.
        delta: in (0, 1).

    Source: Balle and Wang, "Improving the Gaussian mechanism for differential privacy" (2018),
        https://arxiv.org/abs/1805.06530
    """
    return gaussian_pair_epsilon(mu, 1.0, 0.0, 1.0, delta)


def gaussian_pair_epsilon(
    mean_in: float, deviation_in: float, mean_out: float, deviation_out: float, delta: float
) -> float:
    """Return the least epsilon at which two Gaussians are (epsilon, delta)-indistinguishable, both ways round.

    Args:
        mean_in, mean_out: any numbers.
        deviation_in, deviation_out: above 0.
        delta: in (0, 1).

    Raises:
        ValueError: an argument is out of range.

    Source: Andrew et al., "One-shot empirical privacy estimation for federated learning" (2024),
        https://arxiv.org/abs/2302.03098
    """
    if not (0 < deviation_in < inf and 0 < deviation_out < inf and 0 < delta < 1):
        raise ValueError(f"needs deviations > 0 and 0 < delta < 1, got {deviation_in}, {deviation_out} and {delta}")
    shift, ratio = (mean_in - mean_out) / deviation_out, deviation_in / deviation_out
    return max(
        _epsilon_against_standard(shift, ratio, delta), _epsilon_against_standard(shift / ratio, 1 / ratio, delta)
    )


# Bounds from scores. Each `make` takes scores [worlds, items], members and asked (bool, alike), delta, confidence and a
# generator, and returns a Bound or why there is none.


def clopper_pearson(
    scores: Floats, members: Bools, asked: Bools, delta: float, confidence: float, rng: np.random.Generator
) -> Bound | Unresolved:
    """Return the bound of a two-world game: one item of each world of the second half, a threshold from the first.

    Items of one world share its randomness, so only one of them counts; which one, a generator says. The coin of an
    item drawn by chance is as good as that of any one item: if each item's two worlds are (epsilon, delta)-close, so
    are their mixtures.

    Args:
        scores: float64 [worlds, items]; higher means "in". Of the first half of the worlds they may know everything; of
            the others, no other's coins.
        members: bool [worlds, items], fair coins, independent of each other and from world to world.
        asked: bool [worlds, items]; only these entries count, and it may not depend on coins or scores.
        delta: in [0, 1).
        confidence: in (0.5, 1), of the bound.
        rng: draws the items.

    Raises:
        ValueError: shapes or types do not fit, or a number is out of range.

    Source: as `clopper_pearson_epsilon`.
    """
    _check(scores, members, asked, delta, confidence)
    trials = _trials(scores, members, asked, lambda fpr, fnr: _epsilon_of_errors(fpr, fnr, delta), confidence, rng)
    if isinstance(trials, Unresolved):
        return trials
    return Bound(
        "clopper_pearson",
        clopper_pearson_epsilon(*trials[:4], delta, confidence),
        delta,
        confidence,
        "lower bound",
        "threshold from the first half of the worlds",
        trials.worlds,
        clopper_pearson_epsilon(0, trials.non_members, 0, trials.members, delta, confidence),
        trials.detail,
    )


def gdp(
    scores: Floats, members: Bools, asked: Bools, delta: float, confidence: float, rng: np.random.Generator
) -> Bound | Unresolved:
    """Return the bound of the same game as `clopper_pearson` for a mechanism known to be Gaussian.

    Args and errors: as `clopper_pearson`; delta above 0.

    Source: as `clopper_pearson_mu`.
    """
    _check(scores, members, asked, delta, confidence)
    if delta == 0:
        return Unresolved("A Gaussian mechanism has no epsilon at delta = 0.")
    trials = _trials(scores, members, asked, _mu_of_errors, confidence, rng)
    if isinstance(trials, Unresolved):
        return trials
    mu = clopper_pearson_mu(*trials[:4], confidence)
    return Bound(
        "gdp",
        gaussian_epsilon(mu, delta),
        delta,
        confidence,
        "lower bound",
        "threshold from the first half of the worlds",
        trials.worlds,
        gaussian_epsilon(clopper_pearson_mu(0, trials.non_members, 0, trials.members, confidence), delta),
        f"{trials.detail}; mu >= {mu:.3g}",
        assumes=GAUSSIAN,
    )


def one_run(
    scores: Floats, members: Bools, asked: Bools, delta: float, confidence: float, rng: np.random.Generator
) -> Bound | Unresolved:
    """Return the bound from guessing the coins of the highest and of the lowest scores, all worlds together.

    Why worlds may be pooled: independent runs, taken together, are one mechanism with as many coins. Turning over one
    coin changes one run, so the whole is (epsilon, delta)-DP in each coin if each run is, and the theorem speaks of any
    guesses made from its output: also of a ranking across worlds. One ranking, rather than one a world, serves a world
    with a single item too, and leaves it to the attack to make scores comparable. Noise that the items of a world share
    cannot raise false alarms, because only the coins are random in the theorem, and they are independent.

    Args and errors: as `clopper_pearson`, but the scores may know no other world's coins at all. rng: breaks ties.

    Source: as `one_run_epsilon`.
    """
    _check(scores, members, asked, delta, confidence)
    guesses = _guesses(scores, members, asked, rng)
    if isinstance(guesses, Unresolved):
        return guesses
    each = guesses.confidence_each(confidence)
    found = [one_run_epsilon(guesses.coins, made, right, delta, each) for made, right in guesses.counts]
    best = int(np.argmax(found))
    return Bound(
        "one_run",
        found[best],
        delta,
        confidence,
        "lower bound",
        guesses.correction,
        guesses.coins,
        max(one_run_epsilon(guesses.coins, made, made, delta, each) for made, _ in guesses.counts),
        _guessed(guesses, best),
    )


def f_dp_one_run(
    scores: Floats, members: Bools, asked: Bools, delta: float, confidence: float, rng: np.random.Generator
) -> Bound | Unresolved:
    """Return the bound from the same guesses as `one_run` for a mechanism known to be Gaussian.

    Independent runs may be pooled for the same reason: the whole has the trade-off curve of one run in each coin.

    Args and errors: as `one_run`; delta above 0.

    Source: as `f_dp_one_run_mu`.
    """
    _check(scores, members, asked, delta, confidence)
    if delta == 0:
        return Unresolved("A Gaussian mechanism has no epsilon at delta = 0.")
    guesses = _guesses(scores, members, asked, rng)
    if isinstance(guesses, Unresolved):
        return guesses
    each = guesses.confidence_each(confidence)
    found = [f_dp_one_run_mu(guesses.coins, made, right, each) for made, right in guesses.counts]
    best = int(np.argmax(found))
    highest = max(f_dp_one_run_mu(guesses.coins, made, made, each) for made, _ in guesses.counts)
    return Bound(
        "f_dp_one_run",
        gaussian_epsilon(found[best], delta),
        delta,
        confidence,
        "lower bound",
        guesses.correction,
        guesses.coins,
        gaussian_epsilon(highest, delta),
        f"{_guessed(guesses, best)}; mu >= {found[best]:.3g}",
        assumes=GAUSSIAN,
    )


def one_shot(
    scores: Floats,
    members: Bools,
    asked: Bools,
    delta: float,
    confidence: float,
    rng: np.random.Generator,  # noqa: ARG001 - all rows of the table are called alike
) -> Bound | Unresolved:
    """Return the epsilon of two Gaussians fitted to the scores of members and of non-members: an estimate.

    Args and errors: as `clopper_pearson`; delta above 0. confidence and rng change nothing.

    Source: Andrew et al. (2024), https://arxiv.org/abs/2302.03098; there the scores are cosines with canary clients'
        random updates and the non-members' Gaussian is known. Here both are fitted.
    """
    _check(scores, members, asked, delta, confidence)
    if delta == 0:
        return Unresolved("Two Gaussians have no epsilon at delta = 0.")
    inside, outside = scores[asked & members], scores[asked & ~members]
    if min(inside.size, outside.size) < 2 or np.ptp(inside) == 0 or np.ptp(outside) == 0:
        return Unresolved(
            f"A Gaussian needs two different scores at least; got {inside.size} members and {outside.size} non-members."
        )
    fit_in = float(inside.mean()), float(inside.std(ddof=1))
    fit_out = float(outside.mean()), float(outside.std(ddof=1))
    return Bound(
        "one_shot",
        gaussian_pair_epsilon(*fit_in, *fit_out, delta),
        delta,
        None,
        "estimate",
        "none",
        inside.size + outside.size,
        None,
        f"members {fit_in[0]:.3g} ± {fit_in[1]:.3g} ({inside.size}), "
        f"non-members {fit_out[0]:.3g} ± {fit_out[1]:.3g} ({outside.size})",
        assumes="both sides' scores are Gaussian and the canaries the worst there are",
    )


GAUSSIAN = "the whole mechanism has the trade-off curve of a Gaussian mechanism (no subsampling, no other noise)"

BOUNDS: dict[str, BoundRow] = {
    "clopper_pearson": BoundRow(
        "Clopper-Pearson",
        "Error rates of a threshold test, one item a world. Assumes nothing about the mechanism; needs many worlds.",
        "Jagielski, Ullman and Oprea 2020",
        "https://arxiv.org/abs/2006.07709",
        "lower bound",
        clopper_pearson,
    ),
    "gdp": BoundRow(
        "Gaussian trade-off",
        "The same trials, read through the trade-off curve of a Gaussian mechanism. Tight with few trials; worthless "
        "as proof where the mechanism is not Gaussian.",
        "Nasr et al. 2023",
        "https://arxiv.org/abs/2302.07956",
        "lower bound",
        gdp,
    ),
    "one_run": BoundRow(
        "One run",
        "Coins guessed from the highest and lowest scores, every item a trial. Assumes nothing about the mechanism; "
        "stays well below the truth where items share noise or delta matters.",
        "Steinke, Nasr and Jagielski 2023",
        "https://arxiv.org/abs/2305.08846",
        "lower bound",
        one_run,
    ),
    "f_dp_one_run": BoundRow(
        "One run, Gaussian trade-off",
        "The same guesses, read through the trade-off curve of a Gaussian mechanism. Worthless as proof where the "
        "mechanism is not Gaussian.",
        "Mahloujifar, Melis and Chaudhuri 2025",
        "https://arxiv.org/abs/2410.22235",
        "lower bound",
        f_dp_one_run,
    ),
    "one_shot": BoundRow(
        "One-shot estimate",
        "Epsilon of two Gaussians fitted to the scores. An estimate: it may lie above the truth as well as below.",
        "Andrew et al. 2024",
        "https://arxiv.org/abs/2302.03098",
        "estimate",
        one_shot,
    ),
}


def _largest_errors(
    false_positives: int, non_members: int, false_negatives: int, members: int, delta: float, confidence: float
) -> tuple[Floats, Floats]:
    """Upper bounds on both error rates, each at half the error."""
    if not (0 <= false_positives <= non_members and 0 <= false_negatives <= members and min(non_members, members) > 0):
        raise ValueError(
            "errors must be 0 to the number of trials and trials at least 1, got "
            f"{false_positives} of {non_members} and {false_negatives} of {members}"
        )
    _check_numbers(delta, confidence)
    tail = (1 - confidence) / 2
    return _upper(np.float64(false_positives), non_members, tail), _upper(np.float64(false_negatives), members, tail)


def _upper(errors: Floats | np.float64, trials: float, tail: float) -> Floats:
    """Clopper-Pearson upper bound on an error rate; `errors` need not be whole."""
    some = np.maximum(trials - errors, 1e-9)
    bound: Floats = np.where(errors < trials, scipy.stats.beta.isf(tail, errors + 1, some), 1.0)
    return bound


def _epsilon_of_errors(fpr: Floats, fnr: Floats, delta: float) -> Floats:
    """The least epsilon that permits two error rates, whichever side is called positive."""
    gain = np.maximum((1 - fnr - delta) / fpr, (1 - fpr - delta) / fnr)
    epsilon: Floats = np.log(np.maximum(gain, 1.0))
    return epsilon


def _mu_of_errors(fpr: Floats, fnr: Floats) -> Floats:
    """The least mu that permits two error rates."""
    mu: Floats = np.maximum(scipy.special.ndtri(1 - fpr) - scipy.special.ndtri(fnr), 0.0)
    return mu


def _trials(
    scores: Floats,
    members: Bools,
    asked: Bools,
    worth: Callable[[Floats, Floats], Floats],
    confidence: float,
    rng: np.random.Generator,
) -> Trials | Unresolved:
    """One item of each world of the second half, at the threshold of most `worth` in the first half."""
    worlds = np.flatnonzero(asked.any(axis=1))
    first, second = worlds[: len(worlds) // 2], worlds[len(worlds) // 2 :]
    learn = asked[first]
    truth = members[first][learn]
    if not truth.any() or truth.all():
        return Unresolved(f"A threshold is learned on half of {len(worlds)} worlds: it needs members and non-members.")
    item = np.argmax(np.where(asked[second], rng.random((len(second), asked.shape[1])), -1.0), axis=1)
    inside, score = members[second, item], scores[second, item]
    if not inside.any() or inside.all():
        return Unresolved(
            f"One item of each of {len(second)} worlds gave {int(inside.sum())} members; both are needed."
        )
    threshold = _threshold(scores[first][learn], truth, len(second) / 2, worth, confidence)
    yes = score >= threshold
    return Trials(
        int((yes & ~inside).sum()), int((~inside).sum()), int((~yes & inside).sum()), int(inside.sum()), len(second)
    )


def _threshold(
    scores: Floats, members: Bools, trials: float, worth: Callable[[Floats, Floats], Floats], confidence: float
) -> float:
    """The threshold that promises most when its rates here are met by so many trials a side."""
    curve, tail = roc(scores, members), (1 - confidence) / 2
    last = curve.thresholds.size - 1
    points = np.unique(np.linspace(0, last, min(last, int(16 * trials)) + 1).astype(np.int64))  # more tell nothing more
    fpr, fnr = curve.false_positive_rate[points], 1 - curve.true_positive_rate[points]
    promised = worth(_upper(fpr * trials, trials, tail), _upper(fnr * trials, trials, tail))
    # Where nothing is promised any threshold would do; the best advantage then has the best chance.
    best = points[np.lexsort((1 - fpr - fnr, promised))[-1]]
    return float(midpoints(curve.thresholds)[best])


def _guesses(scores: Floats, members: Bools, asked: Bools, rng: np.random.Generator) -> Guesses | Unresolved:
    """The coins of the highest and lowest scores, guessed; ties are broken by chance."""
    truth = members[asked]
    if truth.size < 2:
        return Unresolved(f"Guessing takes two coins at least, got {truth.size}.")
    ordered = truth[np.lexsort((rng.random(truth.size), scores[asked]))]  # lowest score first
    ends = sorted({max(1, int(share * truth.size / 2)) for share in SHARES}, reverse=True)
    counts = [(2 * end, int(ordered[-end:].sum() + (~ordered[:end]).sum())) for end in ends]
    return Guesses(truth.size, counts)


def _guessed(guesses: Guesses, best: int) -> str:
    made, right = guesses.counts[best]
    return f"{right} of {made} guesses right, of {guesses.coins} coins"


def _crossing(excess: Callable[[float], float], highest: float) -> float:
    """The root of a rising function on [0, highest]."""
    return float(scipy.optimize.brentq(excess, 0.0, highest, xtol=1e-6)) if excess(highest) > 0 else highest


def _epsilon_against_standard(shift: float, ratio: float, delta: float) -> float:
    """The least epsilon with P(X in S) <= e^epsilon P(Z in S) + delta for X ~ N(shift, ratio^2), Z ~ N(0, 1)."""

    def excess(epsilon: float) -> float:
        return delta - _hockey_stick(shift, ratio, epsilon)

    if excess(0.0) >= 0:
        return 0.0
    highest = 1.0
    while excess(highest) < 0:
        highest *= 2
    return _crossing(excess, highest)


def _hockey_stick(shift: float, ratio: float, epsilon: float) -> float:
    """The delta at epsilon of N(shift, ratio^2) against N(0, 1): P(S) - e^epsilon Q(S), S where p > e^epsilon q."""
    # log p/q - epsilon = curve x^2 + slope x + level
    curve, slope = (1 - ratio**-2) / 2, shift / ratio**2
    level = -(slope * shift) / 2 - log(ratio) - epsilon
    if curve == slope == 0:
        return 0.0
    if abs(curve) <= 1e-9 * abs(slope):  # a parabola this flat has its other root where no mass is
        root = -level / slope
        parts = [(root, inf)] if slope > 0 else [(-inf, root)]
    else:
        square = slope**2 - 4 * curve * level
        if square <= 0:
            return 0.0
        half = -(slope + copysign(sqrt(square), slope)) / 2  # the sum of two of one sign: nothing cancels
        low, high = sorted((half / curve, level / half))
        parts = [(-inf, low), (high, inf)] if curve > 0 else [(low, high)]
    found = 0.0
    for low, high in parts:
        mine = _log_mass((low - shift) / ratio, (high - shift) / ratio)
        other = epsilon + _log_mass(low, high)
        found += float(np.exp(mine) - np.exp(min(other, mine)))
    return found


def _log_mass(low: float, high: float) -> float:
    """log P(low < Z < high), also far out in a tail."""
    if low > 0:
        low, high = -high, -low
    upper, lower = float(scipy.special.log_ndtr(high)), float(scipy.special.log_ndtr(low))
    return upper + float(np.log1p(-np.exp(lower - upper))) if lower < upper else -inf


def _check(scores: Floats, members: Bools, asked: Bools, delta: float, confidence: float) -> None:
    """Refuse arrays that do not describe worlds and items, and numbers out of range."""
    if scores.ndim != 2 or scores.shape != members.shape or scores.shape != asked.shape:
        raise ValueError(
            "scores, members and asked must share one shape [worlds, items], "
            f"got {scores.shape}, {members.shape} and {asked.shape}"
        )
    if asked.dtype != np.bool_ or members.dtype != np.bool_:
        raise ValueError(f"asked and members must be bool, got {asked.dtype} and {members.dtype}")
    if not np.isfinite(scores[asked]).all():
        raise ValueError(f"asked scores must be finite, got {int((~np.isfinite(scores[asked])).sum())} that are not")
    _check_numbers(delta, confidence)


def _check_guesses(coins: int, guesses: int, right: int, delta: float, confidence: float) -> None:
    """Refuse counts that no run gives."""
    if not 0 <= right <= guesses <= coins or guesses < 1:
        raise ValueError(f"needs 0 <= right <= guesses <= coins and a guess, got {right}, {guesses} and {coins}")
    _check_numbers(delta, confidence)


def _check_numbers(delta: float, confidence: float) -> None:
    """Refuse a delta or a confidence out of range."""
    if not (0 <= delta < 1 and 0.5 < confidence < 1):
        raise ValueError(f"needs 0 <= delta < 1 and 0.5 < confidence < 1, got {delta} and {confidence}")
