"""Accounting against closed forms, exact divergences, other accountants, and the order that guarantees must keep."""

import math
import warnings
from dataclasses import replace
from typing import Any

import dp_accounting  # type: ignore[import-untyped]
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fedsim import accounting as a
from fedsim.mechanisms import lattice, update_noise_multiplier
from fedsim.scenario import Privacy

DELTA = 1e-5
FACTS = a.Facts(
    clients=100,
    rounds=20,
    sampling="all",
    per_round=100,
    sizes=(37, 50, 64),
    local_epochs=2,
    batch_size=10,
    parameters=10_000,
    secure="masked",
)
POISSON = replace(FACTS, sampling="poisson", per_round=0.1)
JOINING = replace(POISSON, secure=None)
FIXED = replace(FACTS, sampling="fixed", per_round=10)
MECHANISMS = ("central", "adaptive", "local", "distributed", "record")


def _privacy(name: str, **settings: Any) -> Privacy:
    settings = settings or {"noise_multiplier": 0.9}
    found: Privacy = TypeAdapter(Privacy).validate_python({"name": name, **settings})
    return found


def _epsilon(privacy: Privacy, facts: a.Facts, unit: str = "client", observer: str = "public") -> float:
    return next(row.epsilon for row in a.spent(privacy, facts) if (row.unit, row.observer) == (unit, observer))


# The algebra


@pytest.mark.parametrize(
    ("mu", "epsilon_5", "epsilon_6", "advantage", "auc", "tpr_1", "tpr_01"),
    [
        (0.25, 0.9263, 1.0607, 0.0995, 0.5702, 0.0189, 0.0023),
        (0.5, 1.9931, 2.2541, 0.1974, 0.6382, 0.0339, 0.0048),
        (1, 4.3772, 4.8866, 0.3829, 0.7602, 0.0924, 0.0183),
        (2, 9.9973, 10.9972, 0.6827, 0.9214, 0.3721, 0.1378),
        (3, 16.6755, 18.1634, 0.8664, 0.9831, 0.7497, 0.4641),
    ],
)
def test_what_gaussian_noise_allows(
    mu: float, epsilon_5: float, epsilon_6: float, advantage: float, auc: float, tpr_1: float, tpr_01: float
) -> None:
    assert a.gdp_epsilon(mu, 1e-5) == pytest.approx(epsilon_5, abs=1e-4)
    assert a.gdp_epsilon(mu, 1e-6) == pytest.approx(epsilon_6, abs=1e-4)
    assert a.max_advantage_gdp(mu) == pytest.approx(advantage, abs=1e-4)
    assert a.max_auc_gdp(mu) == pytest.approx(auc, abs=1e-4)
    assert a.max_tpr_gdp(0.01, mu) == pytest.approx(tpr_1, abs=1e-4)
    assert a.max_tpr_gdp(0.001, mu) == pytest.approx(tpr_01, abs=1e-4)


@pytest.mark.parametrize(
    ("epsilon", "advantage", "auc", "tpr_01"),
    [
        (0.5, 0.2449, 0.6225, 0.0016),
        (1, 0.4621, 0.7311, 0.0027),
        (2, 0.7616, 0.8808, 0.0074),
        (4, 0.9640, 0.9820, 0.0546),
    ],
)
def test_what_pure_privacy_allows(epsilon: float, advantage: float, auc: float, tpr_01: float) -> None:
    assert a.max_advantage(epsilon, 0) == pytest.approx(advantage, abs=1e-4)
    assert a.max_auc(epsilon, 0) == pytest.approx(auc, abs=1e-4)
    assert a.max_tpr(0.001, epsilon, 0) == pytest.approx(tpr_01, abs=1e-4)


@settings(deadline=None)
@given(st.floats(0, 30), st.floats(0, 0.5))
def test_the_largest_auc_and_advantage_are_those_of_the_largest_roc(epsilon: float, delta: float) -> None:
    fpr = np.append(np.linspace(0, 1, 501), (1 - delta) / (1 + math.exp(epsilon)))
    fpr.sort()
    tpr = np.array([a.max_tpr(float(x), epsilon, delta) for x in fpr])
    assert np.trapezoid(tpr, fpr) == pytest.approx(a.max_auc(epsilon, delta), abs=1e-6)
    assert (tpr - fpr).max() == pytest.approx(a.max_advantage(epsilon, delta), abs=1e-9)


@settings(deadline=None)
@given(st.floats(0.05, 20), st.floats(1e-10, 1e-2))
def test_epsilon_and_delta_of_gaussian_noise_are_inverse(mu: float, delta: float) -> None:
    epsilon = a.gdp_epsilon(mu, delta)
    if epsilon > 0:
        assert a.gdp_delta(epsilon, mu) == pytest.approx(delta, rel=1e-6)
    else:
        assert a.gdp_delta(0, mu) <= delta


@settings(deadline=None)
@given(st.floats(0.05, 20), st.floats(1e-10, 1e-2))
def test_the_noise_behind_an_epsilon_is_found_again(mu: float, delta: float) -> None:
    epsilon = a.gdp_epsilon(mu, delta)
    if epsilon > 0:
        assert a.gdp_mu(epsilon, delta) == pytest.approx(mu, rel=1e-6)
    else:  # so much noise that delta alone covers it: the least that would still do
        assert a.gdp_delta(0, a.gdp_mu(0, delta)) == pytest.approx(delta)
        assert a.gdp_mu(0, delta) >= mu


@settings(deadline=None)
@given(st.floats(0.05, 5), st.floats(0, 1), st.floats(0, 20))
def test_gaussian_noise_is_within_what_its_epsilon_and_delta_allow(mu: float, fpr: float, epsilon: float) -> None:
    assert a.max_tpr_gdp(fpr, mu) <= a.max_tpr(fpr, epsilon, a.gdp_delta(epsilon, mu)) + 1e-9


def test_nothing_is_allowed_without_a_guarantee_and_nothing_leaks_without_a_difference() -> None:
    assert a.max_tpr(0.01, math.inf, 0) == 1
    assert (a.max_advantage(math.inf, 0), a.max_auc(math.inf, 0)) == (1, 1)
    assert (a.gdp_epsilon(0, DELTA), a.gdp_delta(0, 0)) == (0, 0)


# Every table


@pytest.mark.parametrize("facts", [FACTS, POISSON, FIXED])
@pytest.mark.parametrize("name", MECHANISMS)
def test_a_table_has_every_unit_and_observer_and_a_reason_for_each(name: str, facts: a.Facts) -> None:
    rows = a.spent(_privacy(name, noise_multiplier=0.9), facts)
    assert [(row.unit, row.observer) for row in rows] == [(u, o) for u in a.UNITS for o in a.OBSERVERS]
    for row in rows:
        assert row.reason.endswith(".")
        assert row.adjacency
        assert row.epsilon > 0
        assert (row.epsilon == math.inf) == (row.method == "none")
        assert row.delta == 1e-5


@pytest.mark.parametrize("facts", [FACTS, POISSON, FIXED])
@pytest.mark.parametrize("name", MECHANISMS)
def test_who_sees_more_is_protected_against_less(name: str, facts: a.Facts) -> None:
    """The public sees no more than anybody. (A participant may do better than the server: it knows its own noise.)"""
    privacy = _privacy(name, noise_multiplier=0.9)
    for unit in a.UNITS:
        public = _epsilon(privacy, facts, unit)
        assert public <= _epsilon(privacy, facts, unit, "participant")
        assert public <= _epsilon(privacy, facts, unit, "server")


@pytest.mark.parametrize("facts", [FACTS, POISSON, FIXED])
@pytest.mark.parametrize("name", MECHANISMS)
def test_more_rounds_cost_more_and_more_noise_costs_less(name: str, facts: a.Facts) -> None:
    unit, observer = a.stated(_privacy(name))
    once = _epsilon(_privacy(name), facts, unit, observer)
    assert _epsilon(_privacy(name), replace(facts, rounds=2 * facts.rounds), unit, observer) > once
    assert _epsilon(_privacy(name, noise_multiplier=0.5), facts, unit, observer) > once
    assert math.isfinite(once)


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_larger_delta_needs_less_epsilon(name: str) -> None:
    unit, observer = a.stated(_privacy(name))

    def at(delta: float) -> float:
        rows = a.spent(_privacy(name), POISSON, delta)
        return next(row.epsilon for row in rows if (row.unit, row.observer) == (unit, observer))

    assert at(1e-3) < at(1e-5) < at(1e-7)


@pytest.mark.parametrize("name", MECHANISMS)
def test_no_noise_is_no_privacy(name: str) -> None:
    rows = a.spent(_privacy(name, noise_multiplier=0.0), FACTS)
    assert all(row.epsilon == math.inf and "0" in row.reason for row in rows)


@pytest.mark.parametrize("secure", [None, "ideal", "masked"])
def test_without_a_mechanism_there_is_no_guarantee(secure: Any) -> None:
    for row in a.spent(None, replace(FACTS, secure=secure)):
        assert (row.epsilon, row.method) == (math.inf, "none")
        assert ("it adds no noise" in row.reason) == (secure is not None)


@pytest.mark.parametrize("name", ["central", "adaptive"])
def test_the_server_of_central_privacy_sees_everything(name: str) -> None:
    assert _epsilon(_privacy(name), FACTS, "client", "server") == math.inf
    assert "exact sum" in a.spent(_privacy(name), FACTS)[0].reason
    assert "each update" in a.spent(_privacy(name), replace(FACTS, secure=None))[0].reason


@pytest.mark.parametrize("name", ["local", "distributed", "record"])
def test_a_loss_sent_in_clear_undoes_the_guarantee_against_the_server(name: str) -> None:
    unit, _ = a.stated(_privacy(name))
    facts = replace(FACTS, clear_metrics=True)
    assert _epsilon(_privacy(name), facts, unit, "server") == math.inf
    assert _epsilon(_privacy(name), facts, unit) == _epsilon(_privacy(name), FACTS, unit)


def test_a_specimen_is_accounted_as_if_nothing_were_wrong() -> None:
    sound = a.spent(_privacy("central", noise_multiplier=1.0), FACTS)
    for name in ("flower_dp_weighted", "noise_tenth", "no_clipping", "tiny_sensitivity"):
        rows = a.spent(_privacy("central", noise_multiplier=1.0, specimen=name), FACTS)
        assert [row.epsilon for row in rows] == [row.epsilon for row in sound]
        assert all(row.reason.startswith("specimen: ") for row in rows)


# Central and local


def test_full_participation_composes_as_gaussian_noise_does() -> None:
    mu = math.sqrt(20) / 1.5
    privacy = _privacy("central", noise_multiplier=1.5)
    assert _epsilon(privacy, FACTS) == a.gdp_epsilon(mu, DELTA)
    assert _epsilon(privacy, FACTS, "record") == a.gdp_epsilon(2 * mu, DELTA)
    for unit in a.UNITS:
        for observer in a.OBSERVERS:
            assert _epsilon(_privacy("local", noise_multiplier=1.5), POISSON, unit, observer) == a.gdp_epsilon(
                2 * mu, DELTA
            )


def test_the_count_of_adaptive_clipping_is_paid_for_in_full() -> None:
    """Zero in place of a long update moves the count of short ones by one; its noise is a twentieth of the clients."""
    multiplier = update_noise_multiplier(1.5, 100)
    mu = math.sqrt(20) * math.sqrt(multiplier**-2 + (100 / 20) ** -2)
    assert _epsilon(_privacy("adaptive", noise_multiplier=1.5), FACTS) == pytest.approx(a.gdp_epsilon(mu, DELTA))
    assert mu > math.sqrt(20) / 1.5


def test_a_round_that_may_be_given_up_amplifies_nothing() -> None:
    privacy = _privacy("central", noise_multiplier=1.5)
    assert _epsilon(privacy, JOINING) < _epsilon(privacy, replace(JOINING, secure="masked"))
    assert _epsilon(privacy, replace(JOINING, secure="masked")) == pytest.approx(_epsilon(privacy, FACTS))


def test_who_holds_no_record_hides_nobody() -> None:
    """A fixed number is drawn from the clients with records only."""
    privacy = _privacy("central", noise_multiplier=4.0)
    few = replace(FIXED, drawn_from=12)
    assert _epsilon(privacy, FIXED, "record") < _epsilon(privacy, few, "record")
    assert _epsilon(privacy, replace(FIXED, drawn_from=10), "record") == _epsilon(privacy, FACTS, "record")


def test_an_app_of_ones_own_is_trusted_with_nothing() -> None:
    privacy = _privacy("record", noise_multiplier=4.0)
    assert _epsilon(privacy, replace(FACTS, own_client=True), "record") == math.inf
    assert _epsilon(privacy, FACTS, "record") < math.inf


def _hockey_stick(q: float, z: float, epsilon: float, *, twice: bool) -> float:
    """The exact delta of one sampled release, by integration; the larger of both orders."""

    def density(x: float, centre: float) -> float:
        return float((1 - q) * scipy.stats.norm.pdf(x, 0, z) + q * scipy.stats.norm.pdf(x, centre, z))

    centres = (1.0, -1.0) if twice else (1.0, 0.0)
    found = []
    for one, other in (centres, centres[::-1]):
        area, _ = scipy.integrate.quad(
            lambda x, one=one, other=other: max(0.0, density(x, one) - math.exp(epsilon) * density(x, other)),
            -12 * z - 1,
            12 * z + 1,
            limit=400,
        )
        found.append(area)
    return max(found)


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize(("q", "z"), [(0.1, 1.0), (0.5, 0.8), (0.02, 0.6)])
def test_one_sampled_release_costs_its_exact_divergence(q: float, z: float, twice: bool) -> None:
    epsilon = _epsilon(
        _privacy("central", noise_multiplier=z),
        replace(JOINING, per_round=q, rounds=1),
        "record" if twice else "client",
    )
    assert _hockey_stick(q, z, epsilon, twice=twice) == pytest.approx(DELTA, rel=0.02)
    assert _hockey_stick(q, z, epsilon, twice=twice) <= DELTA * (1 + 1e-3)


@pytest.mark.parametrize(("q", "z", "rounds"), [(0.1, 1.0, 20), (0.5, 2.0, 50), (0.01, 0.7, 200)])
def test_other_accountants_agree_on_sampled_noise(q: float, z: float, rounds: int) -> None:
    """PLD is the tightest; Rényi divergences lie above it; Opacus' own convolution agrees within its stated error."""
    found = _epsilon(_privacy("central", noise_multiplier=z), replace(JOINING, per_round=q, rounds=rounds))
    event = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(z))
    orders = np.arange(2, 65)
    renyi = dp_accounting.rdp.RdpAccountant(orders).compose(event, rounds).get_epsilon(DELTA)
    assert found < renyi < 1.4 * found
    fine = dp_accounting.pld.PLDAccountant(value_discretization_interval=1e-4).compose(event, rounds)
    assert found == pytest.approx(fine.get_epsilon(DELTA), rel=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        accountants = pytest.importorskip("opacus.accountants")
        other = accountants.PRVAccountant()
        other.history = [(z, q, rounds)]
        assert found == pytest.approx(other.get_epsilon(DELTA), abs=0.03)


def test_a_certain_join_is_no_sampling() -> None:
    privacy = _privacy("central")
    assert _epsilon(privacy, replace(POISSON, per_round=1.0)) == _epsilon(privacy, FACTS)
    almost = _epsilon(privacy, replace(POISSON, per_round=0.9999))
    assert almost == pytest.approx(_epsilon(privacy, FACTS), rel=2e-3)


def test_a_fixed_number_gains_where_it_is_small_and_never_loses() -> None:
    privacy, few = _privacy("central", noise_multiplier=3.0), replace(FIXED, clients=1000)
    row = next(row for row in a.spent(privacy, few) if (row.unit, row.observer) == ("client", "public"))
    assert row.epsilon < a.gdp_epsilon(math.sqrt(20) / 3, DELTA)
    assert (row.method, row.adjacency) == ("RDP", a.OTHER_CLIENT)
    # A replaced client moves the sum by twice the norm; a participant that was not drawn knows that others were.
    for observer, others in (("public", 1000), ("participant", 999)):
        event = dp_accounting.SampledWithoutReplacementDpEvent(others, 10, dp_accounting.GaussianDpEvent(1.5))
        relation = dp_accounting.NeighboringRelation.REPLACE_ONE
        accountant = dp_accounting.rdp.RdpAccountant(a.FEW_ORDERS, relation)
        expected = accountant.compose(event, 20).get_epsilon(DELTA)
        assert _epsilon(privacy, few, "client", observer) == pytest.approx(expected, rel=1e-9)
    many = replace(FIXED, per_round=90)
    row = next(row for row in a.spent(privacy, many) if (row.unit, row.observer) == ("client", "public"))
    assert row.epsilon == a.gdp_epsilon(math.sqrt(20) / 3, DELTA)
    assert (row.method, row.adjacency) == ("exact", a.CLIENT)
    for facts in (few, many, replace(FIXED, clients=11)):
        assert _epsilon(privacy, facts) <= _epsilon(privacy, facts, "client", "participant")


def test_a_fixed_number_costs_more_than_poisson_sampling_at_the_same_rate() -> None:
    privacy = _privacy("central", noise_multiplier=2.0)
    assert _epsilon(privacy, FIXED) > _epsilon(privacy, JOINING)


def test_rounding_that_may_lengthen_an_update_is_paid_for() -> None:
    step = 0.25 / math.sqrt(FACTS.parameters)  # adds at most a quarter of the norm
    expected = a.gdp_epsilon(1.25 * math.sqrt(20), DELTA)
    assert _epsilon(_privacy("central", noise_multiplier=1.0), replace(FACTS, quantisation_step=step)) == pytest.approx(
        expected
    )


def test_adaptive_clipping_needs_enough_clients() -> None:
    with pytest.raises(ValueError, match=r"8 clients a round needs a noise multiplier below 0\.8"):
        a.spent(_privacy("adaptive"), replace(FACTS, clients=8, per_round=8))


# Distributed


def _renyi(p: a.Floats, q: a.Floats, order: float) -> float:
    keep = (p > 0) & (q > 0)
    terms = order * np.log(p[keep]) + (1 - order) * np.log(q[keep])
    return float(scipy.special.logsumexp(terms) / (order - 1))


def _sum_law(law: str, std: float, clients: int, k: np.ndarray[Any, np.dtype[np.int64]]) -> a.Floats:
    """The exact probabilities of the noise of so many clients at the integers k (symmetric around 0)."""
    if law == "skellam":
        half = clients * std**2 / 2
        return np.asarray(scipy.stats.skellam.pmf(k, half, half), dtype=np.float64)
    one = np.exp(-(k**2) / (2 * std**2))
    one /= one.sum()
    found = one
    for _ in range(clients - 1):
        found = np.convolve(found, one, mode="same")
    return found


@pytest.mark.parametrize("shift", [1, 3])
@pytest.mark.parametrize(("std", "clients"), [(0.7, 30), (2.0, 3), (5.0, 2)])
@pytest.mark.parametrize("law", ["skellam", "discrete_gaussian"])
def test_the_bounds_for_integer_noise_hold_and_are_not_idle(law: str, std: float, clients: int, shift: int) -> None:
    """Against the exact divergence in one dimension; what they would say of half as much noise again is refuted."""
    k = np.arange(-300, 301)
    p = _sum_law(law, std, clients, k)
    q = np.roll(p, shift)
    bound = {"skellam": a._skellam, "discrete_gaussian": a._discrete_gaussian}[law]
    stated = bound(std, clients, shift, shift, 1)
    flattered = bound(1.5 * std, clients, shift, shift, 1)
    for order in (2, 4):
        exact = _renyi(p, q, order)
        assert exact <= stated[order - 2] * (1 + 1e-9)
        assert exact > flattered[order - 2]


@pytest.mark.parametrize("law", ["skellam", "discrete_gaussian"])
def test_integer_noise_costs_a_little_more_than_gaussian_noise(law: str) -> None:
    """The excess is that of Rényi divergences over the exact curve; the integers themselves are fine enough."""
    for multiplier in (1.0, 4.0):
        privacy = _privacy("distributed", noise=law, noise_multiplier=multiplier)
        exact = a.gdp_epsilon(math.sqrt(20) / multiplier, DELTA)
        assert exact < _epsilon(privacy, FACTS, "client", "server") < 1.12 * exact
        event = dp_accounting.GaussianDpEvent(multiplier)
        renyi = dp_accounting.rdp.RdpAccountant(a.ORDERS).compose(event, 20).get_epsilon(DELTA)
        assert _epsilon(privacy, FACTS, "client", "server") == pytest.approx(renyi, rel=2e-3)


def test_the_norm_after_rounding_is_what_is_accounted() -> None:
    """With so many parameters that rounding counts, epsilon is that of the longer integers, not of the norm."""
    facts = replace(FACTS, parameters=10**9, clients=4, per_round=4)
    grid = lattice(1.0, 1.0, 4, 4, 10**9)
    longer = grid.norm * grid.granularity
    assert longer > 1.05
    privacy = _privacy("distributed", noise_multiplier=1.0)
    assert _epsilon(privacy, facts, "client", "server") > a.gdp_epsilon(longer * math.sqrt(20), DELTA)


def test_lost_clients_take_their_noise_along() -> None:
    privacy = _privacy("distributed")
    lossy = replace(FACTS, drop_out_update=0.1, threshold=0.64)
    assert (a.fewest(FACTS), a.fewest(lossy)) == (100, 64)
    weaker = _privacy("distributed", noise_multiplier=0.9 * 0.8)  # sqrt(64 / 100)
    assert _epsilon(privacy, lossy, "client", "server") == pytest.approx(
        _epsilon(weaker, FACTS, "client", "server"), rel=1e-3
    )
    assert a.fewest(replace(POISSON, threshold=0.64)) == 7


def test_a_participant_knows_its_own_noise() -> None:
    privacy, two = _privacy("distributed"), replace(FACTS, clients=2, per_round=2)
    halved = _privacy("distributed", noise_multiplier=0.9 * 0.5**0.5)
    participant = _epsilon(privacy, two, "client", "participant")
    assert participant > _epsilon(privacy, two, "client", "server")
    assert participant == pytest.approx(_epsilon(halved, two, "client", "server"), rel=1e-3)
    alone = replace(FACTS, clients=1, per_round=1)
    assert _epsilon(privacy, alone, "client", "participant") == math.inf


def test_without_secure_aggregation_the_server_sees_nearly_bare_updates() -> None:
    row = a.spent(_privacy("distributed"), replace(FACTS, secure=None))[0]
    assert (row.epsilon, row.observer) == (math.inf, "server")
    assert "Without secure aggregation" in row.reason


def test_a_record_may_turn_its_clients_update_round() -> None:
    """Twice the distance is half the noise."""
    halved = _privacy("distributed", noise_multiplier=0.45)
    expected = _epsilon(halved, FACTS, "client", "server")
    assert _epsilon(_privacy("distributed"), FACTS, "record", "server") == pytest.approx(expected, rel=1e-2)


def test_too_little_integer_noise_is_not_accounted_for() -> None:
    rows = a.spent(_privacy("distributed", noise_multiplier=1e-8), FACTS)
    assert all(row.epsilon == math.inf for row in rows)


# Records


def test_records_cost_what_the_worst_client_costs() -> None:
    """One record more than a full batch is a second step at nearly full rate: worse than any larger or smaller size."""
    privacy = _privacy("record", noise_multiplier=2.0)

    def alone(size: int) -> float:
        return _epsilon(privacy, replace(FACTS, sizes=(size,)), "record", "server")

    sizes = (10, 11, 19, 23, 50)
    assert _epsilon(privacy, replace(FACTS, sizes=sizes), "record", "server") == max(map(alone, sizes)) == alone(11)


def test_a_batch_of_all_records_is_plain_gaussian_noise() -> None:
    privacy = _privacy("record", noise_multiplier=3.0)
    facts = replace(FACTS, sizes=(8,))
    assert _epsilon(privacy, facts, "record", "server") == a.gdp_epsilon(math.sqrt(40) / 3, DELTA)


def test_steps_are_rounds_times_epochs_times_batches() -> None:
    privacy = _privacy("record", noise_multiplier=3.0)
    once = replace(FACTS, sizes=(40,), rounds=6, local_epochs=2)
    assert _epsilon(privacy, once, "record") == _epsilon(privacy, replace(once, rounds=3, local_epochs=4), "record")
    assert "48 steps" in a.spent(privacy, once)[3].reason


def _grouped(epsilon: float, mu: float, records: int) -> float:
    """The delta of a group at `epsilon`, from that of one record."""
    one = epsilon / records
    return a.gdp_delta(one, mu) * math.expm1(epsilon) / math.expm1(one)


@given(st.floats(0.02, 0.3), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_a_group_is_protected_by_the_closed_form(mu: float, records: int) -> None:
    """The solution meets delta, hardly a smaller one would, and it is not below what is exact for Gaussian noise."""

    def delta_of(epsilons: a.Floats) -> a.Floats:
        return np.array([max(a.gdp_delta(float(e), mu), 1e-300) for e in epsilons])

    found = a.group_epsilon(delta_of, records, DELTA)
    exact = a.gdp_epsilon(records * mu, DELTA)
    assert found >= exact * (1 - 1e-6)
    if exact > 0:
        assert _grouped(found, mu, records) <= DELTA * (1 + 1e-9) < _grouped(found / 1.01, mu, records)
    if records == 1 and exact > 1e-3:
        assert found == pytest.approx(exact, rel=1e-2)


def test_a_client_is_the_group_of_its_records() -> None:
    privacy = _privacy("record", noise_multiplier=60.0)
    facts = replace(FACTS, sizes=(3, 2), rounds=2, local_epochs=1, batch_size=1)
    client, record = (_epsilon(privacy, facts, unit, "server") for unit in a.UNITS)
    assert math.isfinite(client)
    assert client > record
    rows = a.spent(_privacy("record"), FACTS)
    assert rows[0].epsilon == math.inf
    assert "group privacy the 64 records" in rows[0].reason


# Solving for the noise


@pytest.mark.parametrize(("facts", "epsilon"), [(FACTS, 0.5), (POISSON, 8.0), (FIXED, 4.0)])
@pytest.mark.parametrize("name", MECHANISMS)
def test_the_noise_that_was_asked_for_buys_the_epsilon_and_hardly_more(
    name: str, facts: a.Facts, epsilon: float
) -> None:
    if name == "adaptive":
        facts = replace(facts, clients=10_000, per_round=facts.per_round * (1 if facts is POISSON else 100))
    privacy = _privacy(name, epsilon=epsilon)
    found = a.noise_multiplier(privacy, facts)
    unit, observer = a.stated(privacy)
    assert epsilon * (1 - 1e-3) < _epsilon(_privacy(name, noise_multiplier=found), facts, unit, observer) <= epsilon
    assert _epsilon(privacy, facts, unit, observer) <= epsilon


def test_what_is_sent_in_clear_is_no_matter_of_noise() -> None:
    """The noise is that of the mechanism; the table says that the guarantee is void all the same."""
    privacy, clear = _privacy("local", epsilon=3.0), replace(FACTS, clear_metrics=True)
    assert a.noise_multiplier(privacy, clear) == a.noise_multiplier(privacy, FACTS)
    assert _epsilon(privacy, clear, "client", "server") == math.inf


def test_a_given_noise_multiplier_is_kept() -> None:
    assert a.noise_multiplier(_privacy("central", noise_multiplier=0.7), FACTS) == 0.7


@pytest.mark.parametrize(
    ("name", "facts", "message"),
    [
        ("distributed", replace(FACTS, secure=None), "no noise multiplier up to 1e.06 reaches epsilon 1e-06"),
        ("adaptive", FACTS, "adaptive clipping with 100 clients"),
    ],
)
def test_an_epsilon_out_of_reach_is_refused(name: str, facts: a.Facts, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        a.noise_multiplier(_privacy(name, epsilon=1e-6 if name == "distributed" else 0.5), facts)


@pytest.mark.parametrize(
    "change",
    [
        {"per_round": 99},
        {"sampling": "poisson", "per_round": 1.5},
        {"sampling": "fixed", "per_round": 0},
        {"sampling": "fixed", "per_round": 101},
        {"rounds": 0},
        {"sizes": ()},
        {"sizes": (0,)},
    ],
)
def test_facts_that_contradict_each_other_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"per_round|at least 1|sizes"):
        a.spent(_privacy("central"), replace(FACTS, **change))
