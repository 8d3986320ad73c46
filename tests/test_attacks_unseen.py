"""What was never seen is not a measurement: it moves no bell curve and no mean, and is no evidence itself."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from attacks import lira
from attacks.active import ASCENT_RECOVERY, SINGLED_OUT_COSINE
from attacks.aggregates import AGGREGATE_COSINE, DISAGGREGATED_COSINE
from attacks.decide import above_out_mean, higher, lower
from attacks.fedmia import FEDMIA_COSINE
from attacks.trajectories import OWNER_LOSS, OWNER_LOSSES, OWNER_MARGIN, OWNER_SOFTENED
from attacks.updates import UPDATE_COSINE, UPDATE_DIFFERENCE
from attacks.zero_patterns import STILL_FEATURES
from fedsim.attack import Case, Signal, Test, fold
from fedsim.transcript import ACT, SERVER, Event, client
from fedsim.views import Floats, RecordAsk
from tests.leaky_worlds import record_study

CALIBRATED = {
    "lira": partial(lira.online, spread="per_example"),
    "lira_offline": partial(lira.offline, spread="per_example"),
    "watson": above_out_mean,
}
OF_OWNERS = {
    "update_cosine": UPDATE_COSINE,
    "update_difference": UPDATE_DIFFERENCE,
    "owner_loss": OWNER_LOSS,
    "owner_margin": OWNER_MARGIN,
    "owner_losses": OWNER_LOSSES,
    "owner_softened": OWNER_SOFTENED,
    "aggregate_cosine": AGGREGATE_COSINE,
    "disaggregated_cosine": DISAGGREGATED_COSINE,
    "still_features": STILL_FEATURES,
    "singled_out_cosine": SINGLED_OUT_COSINE,
    "ascent_recovery": ASCENT_RECOVERY,
    "fedmia_cosine": FEDMIA_COSINE,
}
ABSENT = 3


def some_case(seed: int, worlds: int = 9, items: int = 12) -> Case:
    """Return a case in which each record was seen in some references and not in others."""
    rng, given = np.random.default_rng(seed), record_study(seed, worlds=1, items=items)
    members = rng.permuted(np.arange(worlds)[:, None] % 2 == np.zeros(items), axis=0)
    references = 5 + rng.standard_normal((worlds, items)) + members
    for side in (members, ~members):  # two of each side are seen at least
        unseen = (rng.random(side.shape) < 0.4) & side & (np.cumsum(side, axis=0) > 2)
        references[unseen] = np.nan
    nobody = np.zeros((worlds, 0))
    return Case(5 + rng.standard_normal(items), nobody[0], references, nobody, members, given.ask, rng)


def without(case: Case, world: int) -> Case:
    kept = np.arange(len(case.references)) != world
    return Case(
        case.target,
        case.population,
        case.references[kept],
        case.reference_population[kept],
        case.members[kept],
        case.ask,
        case.rng,
    )


@pytest.mark.parametrize("test", CALIBRATED.values(), ids=CALIBRATED.keys())
@pytest.mark.parametrize("seed", range(3))
def test_a_reference_in_which_a_record_was_unseen_might_as_well_not_be_there(test: Test, seed: int) -> None:
    """And one in which it was seen may not: there the score moves."""
    case = some_case(seed)
    before = test(case)
    for world in range(len(case.references)):
        unseen = np.isnan(case.references[world])
        after = test(without(case, world))
        np.testing.assert_allclose(after[unseen], before[unseen], rtol=1e-9)
        counts = ~unseen & (~case.members[world] if test is not CALIBRATED["lira"] else True)
        assert (after[counts] != before[counts]).all()


@pytest.mark.parametrize("test", CALIBRATED.values(), ids=CALIBRATED.keys())
def test_a_number_in_the_place_of_nothing_would_move_the_score(test: Test) -> None:
    case = some_case(0)
    filled = Case(**{**vars(case), "references": np.nan_to_num(case.references)})
    touched = (np.isnan(case.references) & ~case.members).any(axis=0)
    assert touched.any()
    assert (test(filled)[touched] != test(case)[touched]).all()


@pytest.mark.parametrize("spread", ["auto", "pooled", "per_example"])
@pytest.mark.parametrize("score", [lira.online, lira.offline])
def test_the_width_that_all_records_share_is_that_of_what_was_seen(
    score: Callable[[Case, lira.Spread], Floats], spread: lira.Spread
) -> None:
    """Worlds in which nothing at all was seen change no score, whatever the width."""
    case = some_case(1)
    empty = np.full((3, case.references.shape[1]), np.nan)
    more = Case(
        **{
            **vars(case),
            "references": np.concatenate([case.references, empty]),
            "members": np.concatenate([case.members, case.members[:3]]),
        }
    )
    np.testing.assert_allclose(score(more, spread), score(case, spread), rtol=1e-9)


@pytest.mark.parametrize("test", [*CALIBRATED.values(), higher], ids=[*CALIBRATED.keys(), "higher"])
def test_a_record_unseen_in_the_target_or_in_all_references_scores_nothing(test: Test) -> None:
    case = some_case(2)
    target, references = case.target.copy(), case.references.copy()
    target[0], references[:, 1] = np.nan, np.nan
    scores = test(Case(**{**vars(case), "target": target, "references": references}))
    assert scores[0] == 0
    assert scores[1] == (target[1] if test is higher else 0)
    assert (scores[2:] != 0).all()
    none = Case(**{**vars(case), "references": np.full_like(references, np.nan)})
    assert np.isfinite(test(none)).all()


def test_lower_takes_the_unseen_for_the_median() -> None:
    case = some_case(0)
    target = np.array([1.0, np.nan, 5.0, 2.0, np.nan])
    np.testing.assert_array_equal(lower(Case(**{**vars(case), "target": target})), [-1, -2, -5, -2, -2])
    assert np.isfinite(lower(Case(**{**vars(case), "target": np.full(3, np.nan)}))).all()


@pytest.mark.parametrize("signal", OF_OWNERS.values(), ids=OF_OWNERS.keys())
def test_an_owner_never_seen_has_no_number(signal: Signal) -> None:
    """One client is not there at all: its records are NaN, all others a number."""
    given = record_study(0, worlds=1)
    assert isinstance(given.ask, RecordAsk)
    party, items = client(ABSENT), given.ask.items
    events: list[Event] = []
    for event in given.worlds[0].events:
        if event.kind == "train" and (not events or event.round != events[-1].round):
            aims = {"victim": (event.round - 1) % ABSENT, "group": event.round % ABSENT, "groups": ABSENT + 1}
            events.append(Event(event.round, ACT, SERVER, SERVER, event.arrays, aims))
        if party not in (event.sender, event.receiver):
            events.append(event)
    values = fold(signal, given.setup, given.ask, events, given.worlds[0].released)[: len(items)]
    lacking = np.isnan(values).reshape(len(items), -1).all(axis=1)
    if signal is ASCENT_RECOVERY:  # pushes are at groups of records, whoever holds them
        assert lacking.any()
        assert not lacking.all()
    else:
        np.testing.assert_array_equal(lacking, items.owner == ABSENT)
