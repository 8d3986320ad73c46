"""Laws of the partitions: exact cover, sizes, limiting cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, chisquare

from fedsim.data.partition import PARTITIONS, UNUSED, dirichlet, iid, natural, natural_names, quantity, shards
from fedsim.errors import ScenarioError
from fedsim.scenario import Partition

# False-alarm rate of every statistical test here: 1e-6 a run.
FALSE_ALARM = 1e-6


def table(labels: NDArray[np.int64], owner: NDArray[np.int64], clients: int, classes: int) -> NDArray[np.int64]:
    """Return counts [clients, classes]."""
    counts = np.zeros((clients, classes), dtype=np.int64)
    np.add.at(counts, (owner, labels), 1)
    return counts


@given(
    scheme=st.sampled_from(["iid", "dirichlet", "shards", "quantity"]),
    records=st.integers(40, 200),
    clients=st.integers(1, 8),
    classes=st.integers(1, 12),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_every_record_has_one_owner_and_every_client_a_record(
    scheme: str, records: int, clients: int, classes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, records)
    options = Partition(scheme=scheme, alpha=10.0)  # type: ignore[arg-type]
    owner = PARTITIONS[scheme](labels, {}, clients, options, rng)
    assert owner.shape == (records,)
    assert owner.dtype == np.int64
    assert set(owner.tolist()) == set(range(clients))


def test_the_same_generator_gives_the_same_deal() -> None:
    labels = np.arange(100) % 5
    for scheme in ("iid", "dirichlet", "shards", "quantity"):
        options = Partition(scheme=scheme)
        first, again, other = (PARTITIONS[scheme](labels, {}, 4, options, np.random.default_rng(s)) for s in (1, 1, 2))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)


def test_iid_sizes_differ_by_one_at_most() -> None:
    sizes = np.bincount(iid(np.zeros(103, dtype=np.int64), {}, 10, Partition(), np.random.default_rng()))
    assert sizes.min() == 10
    assert sizes.max() == 11


def test_iid_mixes_labels_and_the_test_would_notice_if_it_did_not() -> None:
    rng = np.random.default_rng()
    labels = np.repeat(np.arange(5), 400)
    mixed = table(labels, iid(labels, {}, 5, Partition(), rng), 5, 5)
    assert chi2_contingency(mixed).pvalue > FALSE_ALARM
    skewed = table(labels, dirichlet(labels, {}, 5, Partition(scheme="dirichlet", alpha=1.0), rng), 5, 5)
    assert chi2_contingency(skewed).pvalue < FALSE_ALARM


def test_dirichlet_with_a_huge_alpha_is_an_even_spread() -> None:
    labels = np.repeat(np.arange(4), 500)
    owner = dirichlet(labels, {}, 5, Partition(scheme="dirichlet", alpha=1e9), np.random.default_rng())
    for label in range(4):
        assert chisquare(np.bincount(owner[labels == label], minlength=5)).pvalue > FALSE_ALARM


def test_dirichlet_with_a_tiny_alpha_puts_each_class_at_one_client() -> None:
    labels = np.repeat(np.arange(40), 50)
    owner = dirichlet(labels, {}, 3, Partition(scheme="dirichlet", alpha=1e-3), np.random.default_rng())
    largest = [np.bincount(owner[labels == label]).max() / 50 for label in range(40)]
    # At alpha 1e-3 a class is shared by two clients with probability of about 2 * alpha * log(50) < 1 %.
    assert np.median(largest) == 1.0
    assert np.mean(largest) > 0.9


def test_dirichlet_shares_have_the_variance_of_the_law() -> None:
    # The share of a client has mean 1/k and variance (k-1)/(k^2 (k alpha + 1)), plus multinomial noise (1 - sum p^2)/n.
    rng = np.random.default_rng()
    alpha, clients, count = 2.0, 4, 400
    labels = np.repeat(np.arange(300), count)
    owner = dirichlet(labels, {}, clients, Partition(scheme="dirichlet", alpha=alpha), rng)
    shares = table(labels, owner, clients, 300) / count
    dirichlet_variance = (clients - 1) / (clients**2 * (clients * alpha + 1))
    expected = dirichlet_variance * (1 - 1 / count) + (clients - 1) / clients**2 / count
    # The mean square over 900 free shares has a relative deviation below 6 %; five of them: a false alarm below 1e-6.
    assert shares.var() == pytest.approx(expected, rel=0.3)


def test_dirichlet_says_so_when_a_client_stays_empty() -> None:
    labels = np.repeat(np.arange(2), 50)
    with pytest.raises(ScenarioError, match=r"alpha 0\.0001 left one of 10 clients"):
        dirichlet(labels, {}, 10, Partition(scheme="dirichlet", alpha=1e-4), np.random.default_rng())


def test_shards_give_each_client_few_classes() -> None:
    labels = np.random.default_rng().permutation(np.repeat(np.arange(10), 60))
    owner = shards(labels, {}, 10, Partition(scheme="shards", shards_per_client=2), np.random.default_rng())
    assert np.bincount(owner).tolist() == [60] * 10
    # 20 shards of 30 align with the classes of 60, so no client can hold more than two of them.
    assert ((table(labels, owner, 10, 10) > 0).sum(axis=1) <= 2).all()


def test_quantity_skews_sizes_and_not_labels() -> None:
    rng = np.random.default_rng()
    labels = np.repeat(np.arange(2), 2000)
    skewed = quantity(labels, {}, 5, Partition(scheme="quantity", alpha=0.3), rng)
    even = quantity(labels, {}, 5, Partition(scheme="quantity", alpha=1e9), rng)
    assert chisquare(np.bincount(even)).pvalue > FALSE_ALARM
    assert chisquare(np.bincount(skewed)).pvalue < FALSE_ALARM
    assert chi2_contingency(table(labels, skewed, 5, 2) + 1).pvalue > FALSE_ALARM


def test_quantity_leaves_no_client_empty_however_skewed() -> None:
    options = Partition(scheme="quantity", alpha=1e-3)
    sizes = np.bincount(quantity(np.zeros(50, dtype=np.int64), {}, 10, options, np.random.default_rng()), minlength=10)
    assert sizes.min() == 1
    assert sizes.sum() == 50


def test_natural_clients_are_the_largest_values_of_the_column() -> None:
    column = np.asarray(["north"] * 3 + ["south"] * 5 + ["west"] * 1 + ["east"] * 4)
    options = Partition(scheme="natural", column="side")
    owner = natural(np.zeros(13, dtype=np.int64), {"side": column}, 3, options, np.random.default_rng())
    assert natural_names({"side": column}, 3, options) == ("south", "east", "north")
    assert owner.tolist() == [2] * 3 + [0] * 5 + [UNUSED] + [1] * 4


def test_natural_refuses_what_it_cannot_do() -> None:
    labels, rng = np.zeros(3, dtype=np.int64), np.random.default_rng()
    columns = {"side": np.asarray(["a", "b", "b"])}
    with pytest.raises(ScenarioError, match="has 2 values, too few for 3 clients"):
        natural(labels, columns, 3, Partition(scheme="natural", column="side"), rng)
    with pytest.raises(ScenarioError, match="no column 'town'; columns here: side"):
        natural(labels, columns, 2, Partition(scheme="natural", column="town"), rng)


@pytest.mark.parametrize("scheme", ["iid", "dirichlet", "shards", "quantity"])
def test_more_clients_than_records_is_an_error(scheme: str) -> None:
    options = Partition(scheme=scheme)  # type: ignore[arg-type]
    with pytest.raises(ScenarioError, match="5 clients"):
        PARTITIONS[scheme](np.zeros(4, dtype=np.int64), {}, 5, options, np.random.default_rng())
