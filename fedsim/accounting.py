"""What ran, as (epsilon, delta)-differential privacy: for whom it protects, and from whom.

The arithmetic is dp_accounting's. This decides what was composed for each pair of a unit (a client's whole data, or one
record) and an observer: the server, another participant (who knows its own updates and noise), or the public (who sees
the final model, and is granted every round's). Where a mechanism hides nothing, epsilon is infinite and the reason says
why; no number here is smaller than what can be proved.

Neighbours of the unit `client` differ in one client, whose updates are there or are zero (or who never joins, under
Poisson sampling); each moves a sum by `clipping_norm` at most. Under local privacy the client's data may be replaced by
any other, which moves its update by twice as much. Neighbours of the unit `record` differ in one record of one client:
where only whole updates are clipped, its update may turn round, which again is twice the norm.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import scipy  # its parts take a second to import; each is loaded when it is first used
from numpy.typing import NDArray

from fedsim import mechanisms
from fedsim.mechanisms import dp_library, lattice, update_noise_multiplier
from fedsim.scenario import AdaptivePrivacy, CentralPrivacy, DistributedPrivacy, Privacy

Unit = Literal["client", "record"]
Observer = Literal["server", "participant", "public"]
Method = Literal["exact", "PLD", "RDP", "none"]
UNITS: tuple[Unit, ...] = ("client", "record")
OBSERVERS: tuple[Observer, ...] = ("server", "participant", "public")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Facts:
    """What ran, as far as accounting needs to know."""

    clients: int
    """Clients of the federation."""
    rounds: int
    """Rounds."""
    sampling: Literal["all", "fixed", "poisson"]
    """Who joins a round: all, a fixed number drawn afresh, or each with the same probability."""
    per_round: float
    """poisson: that probability; fixed: that number; all: the number of clients."""
    sizes: tuple[int, ...]
    """Every number of records that a client may have (in any world); the one that costs most is accounted for."""
    local_epochs: int
    """Passes over a client's records a round."""
    batch_size: int
    """Records a step."""
    parameters: int
    """Coordinates of an update."""
    secure: Literal["masked", "ideal"] | None = None
    """Secure aggregation, if any."""
    drop_out_update: float = 0.0
    """Chance that a client of a round is lost before its update has arrived, at whichever stage."""
    threshold: float = 1.0
    """With drop-outs or Poisson sampling: a round whose sum has fewer clients than this share of those expected is
    given up before the sum is opened.
    """
    quantisation_step: float = 0.0
    """Central privacy inside secure aggregation: the distance of two neighbouring values after quantisation, by which
    rounding may lengthen an update in each coordinate.
    """
    drawn_from: int | None = None
    """Clients among whom a fixed number is drawn, at the fewest: those that hold records (None: all)."""
    own_client: bool = False
    """Whether the clients run an app of their own, of whose local training nothing is known."""
    clear_metrics: bool = False
    """Whether clients send the training loss, or anything else computed from their data, beside the update."""


@dataclass(frozen=True)
class Spent:
    """What the whole training costs one unit, in the eyes of one observer."""

    unit: Unit
    observer: Observer
    epsilon: float
    """math.inf where there is no guarantee."""
    delta: float
    method: Method
    """exact: closed form of Gaussian noise; PLD: privacy loss distributions; RDP: Rényi divergences, an upper bound."""
    adjacency: str
    """In what two neighbouring federations differ."""
    reason: str
    """What was composed, or why there is no guarantee."""


class Cost(NamedTuple):
    """A row without its unit, observer and delta."""

    epsilon: float
    method: Method
    adjacency: str
    reason: str


CLIENT = "one client's updates, or zero in their place"
JOINS = "one client, in the federation or not"
OTHER_CLIENT = "one client, replaced by any other"
OTHER_RECORD = "one record of a client, replaced, added or removed; its update may change by twice the clipping norm"
RECORD = "one record's gradients, or zero in their place; the number of records is public"
NOTHING = "any"


@lru_cache(maxsize=256)  # asked for again for every bound
def spent(privacy: Privacy | None, facts: Facts, delta: float | None = None) -> tuple[Spent, ...]:
    """Return what the training cost: a row for each unit and observer, always all six.

    A deliberate mistake of the scenario (`specimen`) is left out of account: the rows say what the recipe states, and
    are what an audit is to refute.

    Args:
        privacy: the mechanism; None: there is none.
        facts: what ran.
        delta: of the guarantee (default: the mechanism's own; 1e-5 where there is none).

    Raises:
        ValueError: the facts contradict each other, or no noise reaches the scenario's epsilon.
    """
    _check(facts)
    delta = delta if delta is not None else privacy.delta if privacy else 1e-5
    multiplier = noise_multiplier(privacy, facts) if privacy else 0.0
    rows = []
    for unit in UNITS:
        for observer in OBSERVERS:
            cost = _cost(privacy, multiplier, facts, unit, observer, delta)
            if isinstance(privacy, CentralPrivacy) and privacy.specimen:
                cost = cost._replace(reason=f"specimen: as if nothing were wrong. {cost.reason}")
            rows.append(Spent(unit, observer, cost.epsilon, delta, cost.method, cost.adjacency, cost.reason))
    return tuple(rows)


def stated(privacy: Privacy) -> tuple[Unit, Observer]:
    """Return whom the mechanism is made to protect, and from whom: that is what its `epsilon` speaks of."""
    found: dict[str, tuple[Unit, Observer]] = {
        "central": ("client", "public"),
        "adaptive": ("client", "public"),
        "local": ("client", "server"),
        "distributed": ("client", "server"),
        "record": ("record", "server"),
    }
    return found[privacy.name]


MOST_NOISE = 1e6
"""The largest noise multiplier considered."""


@lru_cache(maxsize=256)
def noise_multiplier(privacy: Privacy, facts: Facts) -> float:
    """Return the noise multiplier of the mechanism: the scenario's, or the least (to 1 in 10,000) that reaches its
    epsilon at its delta for the unit and the observer that the mechanism is made for.

    Raises:
        ValueError: no noise multiplier up to a million reaches it; adaptive clipping: it is too large for so few
            clients.
    """
    _check(facts)
    found = privacy.noise_multiplier if privacy.epsilon is None else _solved(privacy, privacy.epsilon, facts)
    assert found is not None, "a mechanism has a noise multiplier or an epsilon"
    if isinstance(privacy, AdaptivePrivacy):
        update_noise_multiplier(found, _expected(facts))
    return found


def _solved(privacy: Privacy, epsilon: float, facts: Facts) -> float:
    """The noise multiplier for an epsilon; what clients tell beside their updates is no matter of noise."""
    unit, observer = stated(privacy)
    facts = replace(facts, clear_metrics=False)

    def excess(log_multiplier: float) -> float:
        found = _cost(privacy, math.exp(log_multiplier), facts, unit, observer, privacy.delta).epsilon
        return math.log(max(found, 1e-12) / epsilon) if found < math.inf else 1e3

    low = high = 0.0
    while excess(high) > 0:
        low, high = high, high + 1.0
        if high > math.log(MOST_NOISE):
            cost = _cost(privacy, MOST_NOISE, facts, unit, observer, privacy.delta)
            raise ValueError(
                f"no noise multiplier up to {MOST_NOISE:g} reaches epsilon {epsilon:g} at delta {privacy.delta:g} "
                f"(unit {unit}, observer {observer}); there it is {cost.epsilon:.3g}: {cost.reason}"
            )
    while excess(low) <= 0:
        low, high = low - 1.0, low
    root = float(scipy.optimize.brentq(excess, low, high, xtol=2e-5))
    while excess(root) > 0:  # the root is known to some digits only: err on the side of more noise
        root += 2e-5
    return math.exp(root)


def _cost(
    privacy: Privacy | None, multiplier: float, facts: Facts, unit: Unit, observer: Observer, delta: float
) -> Cost:
    if privacy is None:
        hidden = "Secure aggregation hides who said what; it adds no noise." if facts.secure else ""
        return _none(hidden or "Nothing is hidden by noise.")
    if multiplier == 0:
        return _none("The noise multiplier is 0.")
    return COSTS[privacy.name](privacy, multiplier, facts, unit, observer, delta)


def _none(reason: str) -> Cost:
    return Cost(math.inf, "none", NOTHING, reason)


CLEAR = "Clients send the training loss or other numbers from their data in clear, without noise."


def _central(privacy: Privacy, multiplier: float, facts: Facts, unit: Unit, observer: Observer, delta: float) -> Cost:
    """The server adds the noise; adaptive clipping costs what its parts cost together."""
    if observer == "server":
        sees = "the exact sum of the updates" if facts.secure else "each update"
        return _none(f"The server sees {sees} before it adds noise.")
    # Rounding may lengthen a clipped update: by a step in each coordinate at most.
    longer = facts.quantisation_step * math.sqrt(facts.parameters) if facts.secure else 0.0
    ratio = multiplier * privacy.clipping_norm / (privacy.clipping_norm + longer)
    noise = f"{_rounds(facts)} of Gaussian noise, standard deviation {ratio:.4g} times the largest length of an update"
    if isinstance(privacy, AdaptivePrivacy):
        noise += ", part of it spent on the count that moves the norm"
    twice = unit == "record"
    adaptive = isinstance(privacy, AdaptivePrivacy) and not twice
    if facts.sampling == "poisson" and not facts.secure:
        epsilon = _poisson(ratio, facts.per_round, facts.rounds, twice).epsilon(delta)
        reason = f"{noise}; each client joins with probability {facts.per_round:g}, unknown to others."
        return Cost(epsilon, "PLD", OTHER_RECORD if twice else JOINS, reason)
    if adaptive:  # zero in place of a long update moves the count by one, not by a half
        on_updates = update_noise_multiplier(multiplier, _expected(facts))
        ratio = (on_updates**-2 + mechanisms.count_std(_expected(facts)) ** -2) ** -0.5
    plain = gdp_epsilon((2 if twice else 1) * math.sqrt(facts.rounds) / ratio, delta)
    if facts.sampling == "poisson":
        reason = f"{noise}; as if each client were in every round: which rounds are given up depends on who joins."
        return Cost(plain, "exact", OTHER_RECORD if twice else CLIENT, reason)
    if facts.sampling == "all":
        reason = f"{noise}; each client is in every round."
        return Cost(plain, "exact", OTHER_RECORD if twice else CLIENT, reason)
    # A participant knows whether it was drawn itself; at worst it was not, and the others shared all the places.
    available = facts.clients if facts.drawn_from is None else facts.drawn_from
    others = available - (observer == "participant")
    share = min(1.0, facts.per_round / others) if others else 1.0
    drawn = _fixed(ratio / 2, share, facts.rounds, delta)
    if drawn < plain:
        adjacency = OTHER_RECORD if twice else OTHER_CLIENT
        reason = f"{noise}; {facts.per_round:g} of {available} clients drawn in secret each round (sensitivity 2)."
        return Cost(drawn, "RDP", adjacency, reason)
    reason = f"{noise}; a fixed number of clients is drawn, which gains nothing here: as if one were in every round."
    return Cost(plain, "exact", OTHER_RECORD if twice else CLIENT, reason)


def _local(_privacy: Privacy, multiplier: float, facts: Facts, unit: Unit, observer: Observer, delta: float) -> Cost:
    """Each client's own noise, which all observers meet; what the noise of the others adds is not counted."""
    if observer == "server" and facts.clear_metrics:
        return _none(CLEAR)
    epsilon = gdp_epsilon(2 * math.sqrt(facts.rounds) / multiplier, delta)
    reason = (
        f"{_rounds(facts)} of a client's own Gaussian noise, standard deviation {multiplier:.4g} times the clipping "
        "norm; a client that is in every round, which the server knows."
    )
    return Cost(epsilon, "exact", OTHER_CLIENT if unit == "client" else OTHER_RECORD, reason)


def _distributed(
    privacy: Privacy, multiplier: float, facts: Facts, unit: Unit, observer: Observer, delta: float
) -> Cost:
    """The noise of the fewest clients with which a round completes; a participant subtracts its own."""
    assert isinstance(privacy, DistributedPrivacy)
    if observer == "server" and not facts.secure:
        return _none("Without secure aggregation the server sees each update, with a small part of the noise.")
    if observer == "server" and facts.clear_metrics:
        return _none(CLEAR)
    counted = fewest(facts) - (observer == "participant")
    if counted < 1:
        return _none("A participant knows the noise of the only client counted on, its own.")
    expected = _expected(facts)
    grid = lattice(privacy.clipping_norm, multiplier, expected, facts.clients, facts.parameters)
    if grid.std < 0.5:
        return _none(f"A client's integers have noise of standard deviation {grid.std:.2g}, too little to account for.")
    moved = 2 if unit == "record" else 1
    law = _skellam if privacy.noise == "skellam" else _discrete_gaussian
    divergence = law(grid.std, counted, moved * grid.norm, moved * grid.total, facts.parameters)
    epsilon = float(dp_library().rdp.compute_epsilon(ORDERS, facts.rounds * divergence, delta)[0])
    reason = (
        f"{_rounds(facts)} of {privacy.noise.replace('_', ' ')} noise in the sum, accounted for {counted} of "
        f"{expected:g} clients: "
        + ("the fewest with which a round completes" if fewest(facts) < expected else "all of a round")
        + (", less a participant's own. " if observer == "participant" else ". ")
        + "The server knows who takes part, so drawing clients gains nothing."
    )
    return Cost(epsilon, "RDP", OTHER_RECORD if unit == "record" else CLIENT, reason)


def _record(_privacy: Privacy, multiplier: float, facts: Facts, unit: Unit, observer: Observer, delta: float) -> Cost:
    """DP-SGD inside each client, accounted for the client that it costs most; nobody sees more than the server."""
    if observer == "server" and facts.clear_metrics:
        return _none(CLEAR)
    if facts.own_client:
        return _none("The clients train with an app of their own, and nothing is known of the noise in it.")
    if unit == "client":
        return _group(multiplier, facts, delta)
    sizes = _costly(multiplier, facts, delta)
    epsilon, size = max((_dp_sgd(multiplier, facts, size).epsilon(delta), size) for size in sizes)
    rate, steps = _batches(facts, size)
    reason = (
        f"{steps} steps of DP-SGD in the client that it costs most ({size} records), each record in a batch with "
        f"probability {rate:.3g}, Gaussian noise {multiplier:.4g} times the clipping norm; in every round."
    )
    return Cost(epsilon, "PLD", RECORD, reason)


COSTS: dict[str, Callable[[Privacy, float, Facts, Unit, Observer, float], Cost]] = {
    "central": _central,
    "adaptive": _central,
    "local": _local,
    "distributed": _distributed,
    "record": _record,
}


def fewest(facts: Facts) -> int:
    """Return the smallest number of clients with whose sum a round completes: without drop-outs all of the round, else
    the threshold's share of those expected. What opens the sum has to hold this line.
    """
    return mechanisms.fewest(
        _expected(facts),
        facts.threshold,
        facts.sampling != "poisson" and facts.drop_out_update == 0,
    )


def _expected(facts: Facts) -> float:
    return facts.per_round * facts.clients if facts.sampling == "poisson" else facts.per_round


def _rounds(facts: Facts) -> str:
    return "1 round" if facts.rounds == 1 else f"{facts.rounds} rounds"


def _check(facts: Facts) -> None:
    """Refuse facts that contradict each other."""
    fits = {
        "all": facts.per_round == facts.clients,
        "fixed": 1 <= facts.per_round <= facts.clients and facts.per_round == int(facts.per_round),
        "poisson": 0 < facts.per_round <= 1,
    }
    if not fits[facts.sampling]:
        raise ValueError(f"sampling {facts.sampling} does not go with per_round {facts.per_round} of {facts.clients}")
    if min(facts.clients, facts.rounds, facts.local_epochs, facts.batch_size, facts.parameters, *facts.sizes) < 1:
        raise ValueError(f"clients, rounds, epochs, batch size, parameters and sizes must be at least 1, got {facts}")
    if not facts.sizes:
        raise ValueError("sizes must name the number of records of at least one client")


# Composition


class Composed(NamedTuple):
    """A privacy loss distribution: epsilon(delta), and delta(epsilon) at epsilons [n]."""

    epsilon: Callable[[float], float]
    delta: Callable[[Floats], Floats]


ORDERS = np.concatenate([np.arange(2, 128), np.unique(np.geomspace(128, 1e5, 60).astype(int))]).astype(np.float64)
"""Whole orders of Rényi divergence: the bounds for integer noise are proved for these."""
FEW_ORDERS = np.concatenate([np.arange(2, 12), np.geomspace(12, 256, 20).astype(int)]).astype(np.float64)
"""Some of them, where each takes time."""


def _sampled_divergence(multiplier: float, rate: float) -> Floats:
    """Rényi divergences of one Poisson-sampled Gaussian release, at orders where that is quick."""
    event = dp_library().PoissonSampledDpEvent(rate, dp_library().GaussianDpEvent(multiplier))
    found: Floats = dp_library().rdp.RdpAccountant(FEW_ORDERS).compose(event).rdp
    return found


@lru_cache(maxsize=1024)
def _rough(multiplier: float, rate: float, count: int, delta: float) -> float:
    """An upper bound on epsilon of Poisson-sampled Gaussian noise, quickly."""
    divergence = count * _sampled_divergence(multiplier, rate)
    return float(dp_library().rdp.compute_epsilon(FEW_ORDERS, divergence, delta)[0])


@lru_cache(maxsize=256)
def _poisson(multiplier: float, rate: float, count: int, twice: bool) -> Composed:
    """`count` releases of Gaussian noise, each with a unit that joins with probability `rate`. twice: the unit is
    always in the federation, and what it contributes may turn round.
    """
    mu = (2 if twice else 1) * math.sqrt(count) / multiplier
    if rate == 1:
        # A delta below the range of float64 must not become 0.
        return Composed(
            lambda delta: gdp_epsilon(mu, delta),
            lambda epsilons: np.array([max(gdp_delta(float(epsilon), mu), 1e-300) for epsilon in epsilons]),
        )
    relation = dp_library().NeighboringRelation
    event = dp_library().PoissonSampledDpEvent(rate, dp_library().GaussianDpEvent(multiplier))
    size = max(_rough(multiplier / (2 if twice else 1), rate, count, 1e-5), 1e-6)
    with np.errstate(over="ignore"):  # of exp(loss), which then counts as infinite
        while True:
            # Losses are rounded to a grid. That only adds to epsilon, some count x interval^2: a few parts in 10,000.
            accountant = dp_library().pld.PLDAccountant(
                relation.REPLACE_ONE if twice else relation.ADD_OR_REMOVE_ONE,
                min(math.sqrt(3e-4 * size / count), size / 50),
            )
            accountant.compose(event, count)
            found = max(float(accountant.get_epsilon(1e-5)), 1e-6)
            if found > size / 3:
                break
            size = found

    def epsilon(delta: float) -> float:
        # Where losses in the thousands overflow in the library, what holds without sampling is finite still.
        with np.errstate(over="ignore"):
            return min(float(accountant.get_epsilon(delta)), gdp_epsilon(mu, delta))

    def deltas(epsilons: Floats) -> Floats:
        # The library loses digits near 1e-15 and overflows beyond exp(600); delta falls as epsilon grows.
        at_most = accountant.get_delta(list(np.minimum(epsilons, 600)))
        return np.maximum(np.asarray(at_most, dtype=np.float64), 1e-13)

    return Composed(epsilon, deltas)


@lru_cache(maxsize=256)
def _fixed(multiplier: float, share: float, count: int, delta: float) -> float:
    """Epsilon of `count` releases, each of a fixed share of the clients drawn without replacement.

    Source: Wang, Balle and Kasiviswanathan, "Subsampled Rényi differential privacy and analytical moments accountant"
        (2019), theorem 27, https://arxiv.org/abs/1808.00087
    """
    if share == 1:
        return gdp_epsilon(math.sqrt(count) / multiplier, delta)
    accountant = dp_library().rdp.RdpAccountant(FEW_ORDERS, dp_library().NeighboringRelation.REPLACE_ONE)
    whole = 10**9  # the library asks for sizes and uses their ratio only
    event = dp_library().SampledWithoutReplacementDpEvent(
        whole, share * whole, dp_library().GaussianDpEvent(multiplier)
    )
    return float(accountant.compose(event, count).get_epsilon(delta))


def _skellam(std: float, clients: int, norm: float, total: float, _parameters: int) -> Floats:
    """Rényi divergences, at ORDERS, of one sum under the Skellam noise of so many clients.

    Source: Agarwal, Kairouz and Liu (2021), theorem 3.5 and corollary 4.1, https://arxiv.org/abs/2110.04995
    """
    variance = clients * std**2
    bound: Floats = ORDERS * norm**2 / (2 * variance) + np.minimum(
        ((2 * ORDERS - 1) * norm**2 + 6 * total) / (4 * variance**2), 3 * total / (2 * variance)
    )
    return bound


def _discrete_gaussian(std: float, clients: int, norm: float, total: float, parameters: int) -> Floats:
    """Rényi divergences, at ORDERS, of one sum under the discrete Gaussian noise of so many clients, each of `std` at
    least 1/2.

    Source: Kairouz, Liu and Steinke (2021), proposition 14, https://arxiv.org/abs/2102.06387
    """
    others = np.arange(1, clients)
    gap = 10 * float(np.exp(-2 * math.pi**2 * std**2 * others / (others + 1)).sum())  # to a single discrete Gaussian
    scale = math.sqrt(clients) * std
    two, one = norm / scale, total / scale
    bound: Floats = np.minimum(
        ORDERS / 2 * two**2 + gap * parameters,
        ORDERS / 2 * min(two**2 + 2 * one * gap + gap**2 * parameters, (two + math.sqrt(parameters) * gap) ** 2),
    )
    return bound


def _batches(facts: Facts, size: int) -> tuple[float, int]:
    """The chance of a record to be in a batch, and the number of steps, of a client with so many records."""
    steps = facts.rounds * facts.local_epochs * math.ceil(size / facts.batch_size)
    return min(1.0, facts.batch_size / size), steps


def _dp_sgd(multiplier: float, facts: Facts, size: int) -> Composed:
    rate, steps = _batches(facts, size)
    return _poisson(multiplier, rate, steps, False)


def _costly(multiplier: float, facts: Facts, delta: float) -> list[int]:
    """The numbers of records at which DP-SGD may cost most: with equal steps the smallest, and of these the ones that a
    quick upper bound does not rule out.
    """
    smallest: dict[int, int] = {}
    for size in sorted(set(facts.sizes), reverse=True):
        smallest[_batches(facts, size)[1]] = size
    bound = {size: _rough(multiplier, *_batches(facts, size), delta) for size in smallest.values()}
    worst = max(bound, key=lambda size: bound[size])
    sure = _dp_sgd(multiplier, facts, worst).epsilon(delta)
    return [size for size in bound if size == worst or bound[size] > sure]


@lru_cache(maxsize=64)
def _group(multiplier: float, facts: Facts, delta: float) -> Cost:
    """A client's protection, as the group of its records."""
    worst = 0.0
    for size in sorted(set(facts.sizes), reverse=True):
        worst = max(worst, group_epsilon(_dp_sgd(multiplier, facts, size).delta, size, delta))
        if worst == math.inf:
            return _none(
                f"Noise hides single records; by group privacy the {size} records of a client together would have an "
                f"epsilon above {USELESS:g}."
            )
    sizes = f"{max(facts.sizes)} records" if len(set(facts.sizes)) == 1 else f"up to {max(facts.sizes)} records"
    return Cost(worst, "PLD", CLIENT, f"Group privacy over all records of a client ({sizes}), from the row of records.")


USELESS = 1e4
"""An epsilon beyond this is called infinite."""


def group_epsilon(delta_of: Callable[[Floats], Floats], records: int, delta: float) -> float:
    """Return an epsilon at which a group of records is protected at `delta`, given what protects one: if one record has
    (e, d), then k records have (k e, d (exp(k e) - 1) / (exp(e) - 1)). Infinite where it would exceed 10,000; else at
    most 1 in 200 above the least such epsilon.

    Args:
        delta_of: epsilons [n] -> the delta of one record at each.
        records: k, at least 1.
        delta: asked of the group, in (0, 1).

    Source: Vadhan, "The complexity of differential privacy" (2017), lemma 2.2,
        https://doi.org/10.1007/978-3-319-57048-8_7
    """

    def excess(epsilons: Floats) -> Floats:
        with np.errstate(divide="ignore"):
            alone = np.log(delta_of(epsilons))
        found: Floats = (
            alone + (records - 1) * epsilons + np.log1p(-np.exp(-records * epsilons)) - np.log1p(-np.exp(-epsilons))
        )
        return found - math.log(delta)

    grid = np.geomspace(1e-4, USELESS, 4000) / records  # steps of 1 in 200
    enough = np.flatnonzero(excess(grid) <= 0)
    return float(grid[enough[0]]) * records if enough.size else math.inf


# The algebra of guarantees


def gdp_delta(epsilon: float, mu: float) -> float:
    """Return the delta at which Gaussian noise has this epsilon.

    Args:
        epsilon: >= 0.
        mu: distance of two neighbours over the standard deviation of the noise, >= 0.

    Source: Balle and Wang (2018), theorem 8, https://arxiv.org/abs/1805.06530; Dong, Roth and Su, "Gaussian
        differential privacy" (2022), corollary 2.13, https://arxiv.org/abs/1905.02383
    """
    if mu == 0:
        return 0.0
    upper, lower = (
        float(scipy.special.log_ndtr(mu / 2 - epsilon / mu)),
        epsilon + float(scipy.special.log_ndtr(-mu / 2 - epsilon / mu)),
    )
    return math.exp(upper) * -math.expm1(min(0.0, lower - upper))


def gdp_epsilon(mu: float, delta: float) -> float:
    """Return the epsilon of Gaussian noise at this delta.

    Args:
        mu: distance of two neighbours over the standard deviation of the noise, >= 0; composition adds up squares.
        delta: in (0, 1).

    Source: as `gdp_delta`
    """
    return float(dp_library().get_epsilon_gaussian(1 / mu, delta)) if mu > 0 else 0.0


def gdp_mu(epsilon: float, delta: float) -> float:
    """Return how far apart Gaussian noise leaves two neighbours whose (epsilon, delta) it has: the inverse of
    `gdp_epsilon`, and the largest such distance where epsilon is 0.

    Args:
        epsilon: >= 0, finite.
        delta: in (0, 1).

    Source: as `gdp_delta`
    """
    most = math.sqrt(2 * epsilon) + 2 * float(scipy.special.ndtri((1 + delta) / 2)) + 20
    return float(scipy.optimize.brentq(lambda mu: gdp_delta(epsilon, mu) - delta, 0.0, most, xtol=1e-12))


def max_tpr(fpr: float, epsilon: float, delta: float) -> float:
    """Return the largest true-positive rate that any attack has at this false-positive rate under (epsilon, delta)-DP.

    Source: Kairouz, Oh and Viswanath, "The composition theorem for differential privacy" (2015), theorem 2.1,
        https://arxiv.org/abs/1311.0776
    """
    return min(1.0, math.exp(min(epsilon, 700)) * fpr + delta, 1 - math.exp(-epsilon) * (1 - delta - fpr))


def max_advantage(epsilon: float, delta: float) -> float:
    """Return the largest true-positive rate minus false-positive rate under (epsilon, delta)-DP."""
    return delta + (1 - delta) * math.tanh(epsilon / 2)


def max_auc(epsilon: float, delta: float) -> float:
    """Return the largest area under the ROC curve under (epsilon, delta)-DP: that under `max_tpr`."""
    # Straight from (0, delta) by way of (corner, 1 - corner) to (1 - delta, 1).
    corner = (1 - delta) / (1 + math.exp(min(epsilon, 700)))
    return 1 - (1 - delta) * corner


def max_tpr_gdp(fpr: float, mu: float) -> float:
    """Return the largest true-positive rate at this false-positive rate under Gaussian noise (mu as in `gdp_delta`).

    Source: Dong, Roth and Su (2022), https://arxiv.org/abs/1905.02383
    """
    return float(scipy.special.ndtr(scipy.special.ndtri(fpr) + mu))


def max_advantage_gdp(mu: float) -> float:
    """Return the largest true-positive rate minus false-positive rate under Gaussian noise (mu as in `gdp_delta`)."""
    return float(2 * scipy.special.ndtr(mu / 2) - 1)


def max_auc_gdp(mu: float) -> float:
    """Return the largest area under the ROC curve under Gaussian noise (mu as in `gdp_delta`)."""
    return float(scipy.special.ndtr(mu / math.sqrt(2)))
