"""Laws of the pool: disjoint roles, exchangeable null rows, honest sizes, errors that say what to do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2_contingency, ks_2samp

from fedsim.data.dataset import Dataset, as_they_are, dataset
from fedsim.data.pool import Pool, draw_pool, resolve_sizes, victim_rows
from fedsim.data.sources import load_dataset
from fedsim.errors import ScenarioError
from fedsim.scenario import Data, Partition

# False-alarm rate of every statistical test here: 1e-6 a run.
FALSE_ALARM = 1e-6
ROLES = ("candidates", "null", "background", "planted", "population", "test")


def toy(rows: int = 600, classes: int = 3, checked: bool = True) -> Dataset:
    """Return records whose one feature is their number."""
    features = np.arange(rows, dtype=np.float64)[:, None]
    labels = np.arange(rows) % classes
    columns = {"site": np.asarray(["a", "b", "c", "d"])[np.arange(rows) % 7 % 4]}
    return dataset(features, labels, tuple("uvwxyz"[:classes]), as_they_are, feature_names=("number",), columns=columns,
                   checked=checked)  # fmt: skip


def draw(data: Data, records: Dataset | None = None, seed: int | None = None) -> Pool:
    """Return a pool of the toy records."""
    return draw_pool(records or toy(), data, np.random.default_rng(seed))


@given(
    candidates=st.integers(20, 120),
    background=st.integers(0, 60),
    clients=st.integers(1, 5),
    scheme=st.sampled_from(["iid", "quantity", "shards", "dirichlet"]),
    mislabelled=st.integers(0, 20),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=50, deadline=None)
def test_roles_are_disjoint_owned_and_encoded(
    candidates: int, background: int, clients: int, scheme: Any, mislabelled: int, seed: int
) -> None:
    partition = Partition(scheme=scheme, alpha=5.0)
    data = Data(
        source="toy", candidates=candidates, background=background, clients=clients, partition=partition,
        mislabelled=mislabelled,
    )  # fmt: skip
    records = toy()
    pool = draw(data, records, seed)
    every = np.concatenate([getattr(pool, role) for role in ROLES])
    assert np.array_equal(np.sort(every), np.arange(len(pool.x)))
    assert len(set(pool.source_rows.tolist())) == len(pool.x)
    assert np.array_equal(pool.x, records.features[pool.source_rows].astype(np.float32))
    assert np.array_equal(pool.columns["site"], records.columns["site"][pool.source_rows])
    assert len(pool.candidates) == candidates
    assert len(pool.background) == background
    trains = np.concatenate([pool.candidates, pool.background])
    assert set(pool.owner[trains].tolist()) == set(range(clients))
    assert (pool.owner[np.concatenate([victim_rows(pool), pool.planted])] >= 0).all()
    assert (pool.owner[np.concatenate([pool.population, pool.test])] == -1).all()
    true = records.y[pool.source_rows]
    assert np.array_equal(
        pool.y != true, pool.mislabelled | (np.isin(np.arange(len(true)), pool.planted) & (pool.y != true))
    )
    assert pool.mislabelled[pool.candidates].sum() == mislabelled
    assert pool.mislabelled.sum() == mislabelled + round(mislabelled * len(pool.null) / candidates)
    for array in (pool.x, pool.y, pool.owner, pool.candidates, pool.columns["site"]):
        assert not array.flags.writeable


def test_the_same_generator_gives_the_same_pool() -> None:
    data = Data(source="toy", candidates=50, clients=3)
    assert draw(data, seed=5).digest == draw(data, seed=5).digest
    assert draw(data, seed=5).digest != draw(data, seed=6).digest


def test_the_digest_depends_on_the_columns() -> None:
    data = Data(source="toy", candidates=50, clients=3)
    records = toy()
    moved = replace(records, columns={"site": np.roll(records.columns["site"], 1)})
    renamed = replace(records, columns={"town": records.columns["site"]})
    assert len({draw(data, each, seed=5).digest for each in (records, moved, renamed)}) == 3


@pytest.mark.parametrize("partition", [Partition(), Partition(scheme="dirichlet", alpha=0.5)])
def test_null_rows_follow_the_law_of_the_candidates(partition: Partition) -> None:
    data = Data(source="toy", candidates=400, clients=4, partition=partition, population=50, test=50)
    records = toy(1000)
    pool = draw(data, records)
    number = records.features[pool.source_rows, 0]
    assert ks_2samp(number[pool.candidates], number[pool.null]).pvalue > FALSE_ALARM
    counts = np.asarray([np.bincount(pool.owner[rows], minlength=4) for rows in (pool.candidates, pool.null)])
    assert chi2_contingency(counts + 1).pvalue > FALSE_ALARM
    # What the test must reject: a split by the order of the file.
    assert ks_2samp(number[number < 400], number[(number >= 400) & (number < 800)]).pvalue < FALSE_ALARM


def test_wrong_labels_are_spread_over_the_other_classes() -> None:
    data = Data(source="toy", candidates=400, mislabelled=400, null_candidates=0)
    records = toy(1000, classes=3)
    pool = draw(data, records)
    shift = (pool.y - records.y[pool.source_rows])[pool.candidates] % 3
    assert set(shift.tolist()) == {1, 2}
    assert binomtest(int((shift == 1).sum()), 400, 0.5).pvalue > FALSE_ALARM


def test_planted_labels_are_random() -> None:
    records = toy(1000, classes=2)
    pool = draw(Data(source="toy", candidates=100), records)
    assert len(pool.planted) == 40
    agree = int((pool.y == records.y[pool.source_rows])[pool.planted].sum())
    assert binomtest(agree, 40, 0.5).pvalue > FALSE_ALARM
    assert binomtest(40, 40, 0.5).pvalue < FALSE_ALARM


def test_duplicates_are_dropped_whatever_their_label() -> None:
    features = np.repeat(np.arange(100, dtype=np.float64), 3)[:, None]
    features[0] = -0.0
    labels = np.arange(300) % 2
    doubled = dataset(features, labels, ("a", "b"), as_they_are)
    pool = draw(Data(source="toy", candidates=10, clients=2), doubled)
    assert pool.dropped_duplicates == 200
    assert len(np.unique(pool.x)) == len(pool.x)


def test_near_duplicates_are_dropped_and_far_ones_kept() -> None:
    twins = np.concatenate([np.arange(200.0), np.arange(20.0) + 0.1])[:, None]
    records = dataset(twins, np.arange(220) % 2, ("a", "b"), as_they_are)
    data = Data(source="toy", candidates=10, clients=2, near_duplicates=0.5)
    pool = draw(data, records)
    assert pool.dropped_near_duplicates == 20
    assert np.diff(np.sort(pool.x[:, 0])).min() >= 0.5
    assert draw(data.model_copy(update={"near_duplicates": 0.0}), records).dropped_near_duplicates == 0


def test_limit_draws_before_everything_else() -> None:
    pool = draw(Data(source="toy", candidates=20, clients=2, limit=120, near_duplicates=0.1))
    assert len(pool.x) == 120


def test_natural_clients_own_their_records_and_the_others_play_no_part() -> None:
    data = Data(source="toy", candidates=40, clients=2, partition=Partition(scheme="natural", column="site"))
    pool = draw(data)
    assert pool.client_names == ("a", "b")
    owned = pool.owner >= 0
    owned[pool.planted] = False
    assert np.array_equal(np.asarray(pool.client_names)[pool.owner[owned]], pool.columns["site"][owned])
    assert set(pool.columns["site"].tolist()) == {"a", "b"}


def test_sizes_shrink_in_order_and_given_sizes_never() -> None:
    data = Data(source="toy", candidates=100)
    assert resolve_sizes(10_000, data)._asdict() == {
        "candidates": 100, "null": 100, "background": 0, "planted": 40, "population": 1000, "test": 1000,
    }  # fmt: skip
    short = resolve_sizes(500, data)
    assert (short.null, short.planted, sum(short)) == (100, 40, 500)
    shorter = resolve_sizes(260, data)
    assert (shorter.population, shorter.test, shorter.null, shorter.planted) == (20, 20, 100, 20)
    shortest = resolve_sizes(152, data)
    assert shortest == (100, 4, 0, 8, 20, 20)
    with pytest.raises(ScenarioError, match="at most 99 candidates are possible"):
        resolve_sizes(151, data)
    given = data.model_copy(update={"population": 300, "test": 60, "null_candidates": 50})
    assert resolve_sizes(550, given)[1:] == (50, 0, 40, 300, 60)
    with pytest.raises(ScenarioError, match="population 300"):
        resolve_sizes(517, given)


@given(records=st.integers(152, 5000), candidates=st.integers(4, 100), background=st.integers(0, 100))
def test_resolved_sizes_fill_no_more_than_there_is(records: int, candidates: int, background: int) -> None:
    data = Data(source="toy", candidates=candidates, background=background)
    try:
        sizes = resolve_sizes(records, data)
    except ScenarioError:
        assert records < candidates + background + 4 + 8 + 20 + 20
        return
    assert sum(sizes) <= records
    roomy = sum(resolve_sizes(10**6, data))
    assert sum(sizes) == min(records, roomy)


def test_bad_records_are_named() -> None:
    data = Data(source="toy", candidates=20, clients=2)
    rows = np.random.default_rng(0).normal(size=(300, 2))
    labels = np.arange(300) % 2

    def records(x: Any, y: Any = labels) -> Dataset:
        return dataset(x, y, ("a", "b"), as_they_are, feature_names=("height", "weight"), checked=False)

    holed = rows.copy()
    holed[7, 1] = np.nan
    with pytest.raises(ScenarioError, match="source toy: record 8: feature 'weight' is nan, not a number"):
        draw(data, records(holed))
    holed[7, 1] = -1e39
    with pytest.raises(
        ScenarioError, match=r"record 8: feature 'weight' is -1e\+39, too large; allowed: up to 3.4e\+38"
    ):
        draw(data, records(holed))
    halves = rows.astype(np.float16)
    halves[7, 1] = np.inf
    with pytest.raises(ScenarioError, match="record 8: feature 'weight' is inf"):
        draw(data, records(halves))
    flat = rows.copy()
    flat[:, 0] = 3
    with pytest.raises(ScenarioError, match=r"feature 'height' is constant \(the same in all 300 records\)"):
        draw(data, records(flat))
    with pytest.raises(ScenarioError, match="source toy: all features are constant"):
        draw(data, records(np.ones((300, 2))))
    with pytest.raises(ScenarioError, match="source toy: class 'b' has 1 record"):
        draw(data, records(rows, np.eye(300, dtype=np.int64)[0]))
    assert len(draw(data, records(rows)).x) > 0


def test_impossible_scenarios_are_refused() -> None:
    with pytest.raises(ScenarioError, match="30 clients need a record each, and there are 20"):
        draw(Data(source="toy", candidates=20, clients=30))
    with pytest.raises(ScenarioError, match="21 is more than the 20 candidates"):
        draw(Data(source="toy", candidates=20, clients=2, mislabelled=21))
    with pytest.raises(ScenarioError, match="600 candidates"):
        draw(Data(source="toy", candidates=600))
    skewed = Partition(scheme="quantity", alpha=0.01)
    with pytest.raises(ScenarioError, match="left one of 19 clients without a record"):
        draw(Data(source="toy", candidates=20, clients=19, partition=skewed), toy())


def test_own_data_are_encoded_by_public_records_alone(tmp_path: Path) -> None:
    """Change every private value: the encoding of the public records stays bit-identical."""
    rng = np.random.default_rng(3)
    np.savez(tmp_path / "own.npz", x=rng.normal(5, 2, size=(400, 3)), y=np.arange(400) % 2)
    data = Data(source="npz", path="own.npz", candidates=60, clients=2, population=100)
    records = load_dataset(data, tmp_path)
    pool = draw(data, records, seed=1)
    private = np.setdiff1d(np.arange(400), pool.source_rows[pool.population])
    shifted = records.features.copy()
    shifted[private] += 1000 * rng.random((len(private), 3))
    other = draw(data, replace(records, features=shifted), seed=1)
    assert np.array_equal(other.source_rows, pool.source_rows)
    assert np.array_equal(other.x[pool.population], pool.x[pool.population])
    assert not np.array_equal(other.x[pool.candidates], pool.x[pool.candidates])
    assert pool.x[pool.population].mean(axis=0) == pytest.approx(np.zeros(3), abs=1e-5)
    assert pool.x[pool.population].std(axis=0) == pytest.approx(np.ones(3), abs=1e-5)
