"""Defences at work in whole federations: what the server gets, what the model becomes, and that engines agree."""

import importlib.util
from typing import Any

import numpy as np
import pytest
from scipy import stats

from attacks import ATTACKS
from fedsim.canaries import LOUD, coordinates
from fedsim.engine import EngineName, run_world, run_worlds
from fedsim.games import draw
from fedsim.job import Job, Probe, WorldResult
from fedsim.scenario import CanaryGame, Scenario, in_setup
from fedsim.transcript import ABORTED, AGGREGATE, AGGREGATOR, SERVER, Event
from fedsim.vectors import Floats, flat
from fedsim.views import RecordAsk, parse_vantage
from fedsim.world import World
from tests import worlds

SECAGG: dict[str, Any] = {"quantisation": {"clip_range": 4.0, "bits": 24, "rounding": "nearest"}}
UNIFORM = {**SECAGG, "weights": "uniform"}
CENTRAL: dict[str, Any] = {"name": "central", "clipping_norm": 1e3, "noise_multiplier": 0.0}


def scenario(**federation: Any) -> Scenario:
    return worlds.scenario(
        model={"name": "softmax"},
        federation={"rounds": 2, "local": {"epochs": 1, "batch_size": 8, "learning_rate": 0.2}, **federation},
    )


def events(chosen: Scenario, drawn: World | None = None) -> list[Event]:
    """The transcript of a world."""
    job = worlds.job(chosen, worlds=[drawn] if drawn else ())
    seen: list[Event] = []
    run_world(job, 0, worlds.setup(job), spare=seen.append)
    return seen


def final(chosen: Scenario, drawn: World | None = None) -> Floats:
    """The last global model of a world."""
    return flat(next(event.arrays for event in events(chosen, drawn) if event.kind == "final"))


def canary_world(chosen: Scenario, present: int, count: int = 4, **game: Any) -> World:
    """A world in which exactly so many of the canaries take part."""
    from dataclasses import replace

    kind = CanaryGame(name="canaries", count=count, **game)
    first = draw(chosen, worlds.pool(chosen), kind, frozenset()).worlds[0]
    return replace(first, present=tuple(range(present)))


# Secure aggregation


@pytest.mark.parametrize("drop_out", [{}, {"keys": 0.05, "shares": 0.05, "update": 0.15, "unmask": 0.1}])
@pytest.mark.parametrize("weights", ["examples", "uniform"])
def test_masked_and_ideal_give_the_same_models_bit_for_bit(drop_out: dict[str, float], weights: str) -> None:
    """And they give up the same rounds."""
    settings = {"threshold": 0.6, "weights": weights, "quantisation": {"clip_range": 4.0, "bits": 18}}
    left = {}
    for protocol in ("ideal", "masked"):
        chosen = scenario(secure_aggregation={"protocol": protocol, **settings}, drop_out=drop_out, rounds=4)
        job = worlds.job(chosen.model_copy(update={"data": chosen.data.model_copy(update={"clients": 8})}))
        left[protocol] = [run_world(job, index, worlds.setup(job)) for index in range(4)]
    pairs = list(zip(left["ideal"], left["masked"], strict=True))
    assert all(ideal.model == masked.model and ideal.aborted == masked.aborted for ideal, masked in pairs)
    assert any(ideal.aborted for ideal, _ in pairs) == bool(drop_out)
    assert any(ideal.aborted < 4 for ideal, _ in pairs)


def test_secure_aggregation_changes_the_model_by_no_more_than_rounding_explains() -> None:
    """Each coordinate of a client's update moves by half a step of 2 x 4 / 2^24 at most, and errors do not add up over
    two rounds by more than a few times that."""
    plain, secure = final(scenario()), final(scenario(secure_aggregation=SECAGG))
    assert 0 < np.abs(plain - secure).max() < 1e-5
    coarse = {"quantisation": {"clip_range": 4.0, "bits": 6, "rounding": "nearest"}}
    assert np.abs(plain - final(scenario(secure_aggregation=coarse))).max() > 1e-3


@pytest.mark.parametrize("protocol", ["masked", "ideal"])
def test_the_server_gets_the_sum_and_nothing_that_is_a_clients(protocol: str) -> None:
    seen = events(scenario(secure_aggregation={"protocol": protocol, **SECAGG}))
    to_server = [event for event in seen if event.receiver == SERVER and event.kind.endswith("-reply")]
    assert all("num-examples" not in event.facts and "train_loss" not in event.facts for event in to_server)
    updates = [event for event in seen if event.kind == "train-reply"]
    assert {event.receiver for event in updates} == {SERVER if protocol == "masked" else AGGREGATOR}
    assert all(set(event.arrays) == {"masked"} for event in updates)
    sums = [event for event in seen if event.kind == AGGREGATE]
    assert [event.facts["clients"] for event in sums] == [4, 4]
    assert sums[0].arrays.keys() == next(event for event in seen if event.kind == "train").arrays.keys()


def test_metadata_in_clear_is_in_the_servers_view() -> None:
    seen = events(scenario(secure_aggregation={"metadata": "clear", **SECAGG}))
    told = [event.facts for event in seen if event.kind == "train-reply"]
    assert all({"num-examples", "train_loss"} <= facts.keys() for facts in told)


def test_with_too_few_survivors_a_round_is_given_up_and_the_model_stays() -> None:
    chosen = scenario(secure_aggregation={"threshold": 1.0, **SECAGG}, drop_out={"update": 0.6}, rounds=3)
    job = worlds.job(chosen)
    seen: list[Event] = []
    left = run_world(job, 0, worlds.setup(job), spare=seen.append)
    aborted = [event.round for event in seen if event.kind == ABORTED]
    assert left.aborted == len(aborted) > 0
    models = {event.round: flat(event.arrays) for event in seen if event.kind == "train" and event.arrays}
    for number in set(aborted) & {1, 2}:
        assert np.array_equal(models[number], models[number + 1])
    assert not any(event.kind == "train.secagg_unmask" and event.round in aborted for event in seen)


def _audited(setup: str | None, attack: str, vantage: str) -> WorldResult:
    chosen = worlds.scenario(
        setups=({"name": "secagg", "secure_aggregation": SECAGG},),
        audits=({"name": "a", "vantage": vantage, "attacks": (attack,)},),
    )
    changed = in_setup(chosen, setup)
    pool = worlds.pool(changed)
    drawn = draw(changed, pool, "record", frozenset())
    ask = drawn.exams[0].ask
    assert isinstance(ask, RecordAsk)
    spot = parse_vantage(vantage, pool.clients)
    job = worlds.job(changed, [Probe("p", spot, ask, ATTACKS[attack].signal, frozenset({0}))], [spot])
    return run_world(job, 0, worlds.setup(job))


def test_secure_aggregation_hides_single_updates_and_nothing_else() -> None:
    assert "p" in _audited(None, "update_cosine", "server").signals
    assert "p" in _audited("secagg", "update_cosine", "server").not_visible
    for attack, vantage in (("movement_cosine", "server"), ("movement_cosine", "client:0"), ("loss", "public")):
        plain, secure = (_audited(setup, attack, vantage).signals["p"] for setup in (None, "secagg"))
        np.testing.assert_allclose(plain, secure, atol=1e-4)


# Differential privacy


def test_central_privacy_without_noise_or_clipping_is_the_plain_mean() -> None:
    seen = events(scenario(privacy=CENTRAL, rounds=1))
    replies = [flat(event.arrays) for event in seen if event.kind == "train-reply"]
    assert len(replies) == 4
    np.testing.assert_allclose(final(scenario(privacy=CENTRAL, rounds=1)), np.mean(replies, axis=0), atol=1e-6)


def test_central_noise_has_the_law_that_is_accounted() -> None:
    """The difference to the run without noise is Gaussian with standard deviation multiplier x norm / clients.

    Kolmogorov-Smirnov at a false-alarm rate of 1e-4; it must reject two thirds and three halves of it."""
    quiet = scenario(privacy={**CENTRAL, "clipping_norm": 0.5}, rounds=1)
    loud = scenario(privacy={"name": "central", "clipping_norm": 0.5, "noise_multiplier": 2.0}, rounds=1)
    noise = final(loud) - final(quiet)
    for factor, right in ((1.0, True), (2 / 3, False), (1.5, False)):
        found = stats.kstest(noise / (factor * 2.0 * 0.5 / 4), "norm").pvalue
        assert (found > 1e-4) == right


@pytest.mark.parametrize(
    ("mistake", "factor"), [("noise_tenth", 0.1), ("tiny_sensitivity", 1e-4), (None, 1.0)], ids=str
)
def test_a_specimen_makes_the_mistake_it_is_named_for(mistake: str | None, factor: float) -> None:
    base = {"name": "central", "clipping_norm": 0.5}
    quiet = final(scenario(privacy={**base, "noise_multiplier": 0.0}, rounds=1))
    loud = final(scenario(privacy={**base, "noise_multiplier": 2.0, "specimen": mistake}, rounds=1))
    assert (loud - quiet).std() == pytest.approx(factor * 0.25, rel=0.15)


def test_local_noise_is_on_each_update_and_nothing_else_is_told() -> None:
    base = {"name": "local", "clipping_norm": 0.5}
    quiet, loud = (events(scenario(privacy={**base, "noise_multiplier": z}, rounds=1)) for z in (0.0, 2.0))
    updates = [[event for event in seen if event.kind == "train-reply"] for seen in (quiet, loud)]
    for one, other in zip(*updates, strict=True):
        assert (flat(other.arrays) - flat(one.arrays)).std() == pytest.approx(1.0, rel=0.15)
        assert dict(other.facts) == {"num-examples": 1, "train_loss": 0.0}
    sent = flat(next(event for event in quiet if event.kind == "train").arrays)
    assert all(np.linalg.norm(flat(event.arrays) - sent) <= 0.5 + 1e-5 for event in updates[0])


@pytest.mark.parametrize("law", ["skellam", "discrete_gaussian"])
def test_distributed_noise_adds_up_to_what_is_accounted(law: str) -> None:
    base = {"name": "distributed", "clipping_norm": 0.5, "noise": law}
    secure = {"protocol": "ideal", "weights": "uniform"}
    quiet, loud = (
        final(scenario(privacy={**base, "noise_multiplier": z}, secure_aggregation=secure, rounds=1))
        for z in (0.0, 2.0)
    )
    assert (loud - quiet).std() == pytest.approx(2.0 * 0.5 / 4, rel=0.15)


def test_central_noise_over_secure_aggregation_is_that_over_plain_updates() -> None:
    privacy = {"name": "central", "clipping_norm": 0.5, "noise_multiplier": 2.0}
    plain = final(scenario(privacy=privacy, rounds=1))
    secure = final(scenario(privacy=privacy, secure_aggregation=UNIFORM, rounds=1))
    np.testing.assert_allclose(plain, secure, atol=1e-5)


def test_noise_comes_even_where_nobody_takes_part() -> None:
    privacy = {"name": "central", "clipping_norm": 0.5, "noise_multiplier": 2.0}
    seen = events(scenario(privacy=privacy, clients_per_round=1e-6, rounds=2))
    assert not any(event.kind == "train-reply" for event in seen)
    chosen = scenario(privacy=privacy, clients_per_round=1e-6, rounds=2)
    job = worlds.job(chosen)
    from fedsim.apps import initial

    first = flat({name: value.numpy() for name, value in initial(worlds.setup(job), job.worlds[0]).items()})
    assert np.abs(final(chosen) - first).max() > 0.01


def test_an_adaptive_norm_follows_the_updates() -> None:
    privacy = {"name": "adaptive", "clipping_norm": 50.0, "noise_multiplier": 0.001, "learning_rate": 2.0}
    far = final(scenario(privacy=privacy, rounds=3))
    assert np.isfinite(far).all()
    fixed = final(scenario(privacy={**CENTRAL, "clipping_norm": 50.0, "noise_multiplier": 0.001}, rounds=3))
    assert np.abs(far - fixed).max() > 1e-3


# Canaries


def test_a_canary_client_moves_its_coordinate_by_the_clipping_norm_over_the_clients() -> None:
    """Exactly C / n in its own coordinate, with everybody else's push there: so the difference of two worlds is it."""
    chosen = scenario(privacy={"name": "central", "clipping_norm": 0.5, "noise_multiplier": 0.0}, rounds=1)
    without, with_one = (final(chosen, canary_world(chosen, present)) for present in (0, 1))
    world = canary_world(chosen, 1)
    assert world.canaries is not None
    place = coordinates(world.canaries, len(without))[0]
    difference = with_one - without
    assert difference[place] == pytest.approx(0.5 / 8, abs=1e-6)  # four clients and four canaries
    others = np.delete(difference, [place, coordinates(world.canaries, len(without))[-1]])
    assert np.abs(others).max() < 1e-6


def test_without_clipping_a_canary_is_as_loud_as_it_likes() -> None:
    privacy = {"name": "central", "clipping_norm": 0.5, "noise_multiplier": 0.0, "specimen": "no_clipping"}
    chosen = scenario(privacy=privacy, rounds=1)
    without, with_one = (final(chosen, canary_world(chosen, present)) for present in (0, 1))
    assert np.abs(with_one - without).max() == pytest.approx(LOUD * 0.5 / 8, abs=1e-6)


def test_a_canary_record_moves_its_coordinate_when_it_is_drawn() -> None:
    privacy = {"name": "record", "clipping_norm": 0.5, "noise_multiplier": 0.0}
    chosen = scenario(privacy=privacy, rounds=1, local={"epochs": 1, "batch_size": 1000, "learning_rate": 0.2})
    kind: dict[str, Any] = {"unit": "record"}
    without, with_one = (final(chosen, canary_world(chosen, present, **kind)) for present in (0, 1))
    world = canary_world(chosen, 1, **kind)
    assert world.canaries is not None
    own = len(world.rows[0]) + 0.0  # the whole of client 0 is one batch
    share = own / sum(len(rows) for rows in world.rows)
    difference = with_one - without
    place = coordinates(world.canaries, len(without))[0]
    assert difference[place] == pytest.approx(-0.2 * 0.5 / own * share, rel=1e-3)
    assert np.abs(np.delete(difference, place)).max() < 1e-7


# Engines


DEFENDED: dict[str, dict[str, Any]] = {
    "masked": {"secure_aggregation": SECAGG, "drop_out": {"update": 0.2, "unmask": 0.1}},
    "central": {"privacy": {**CENTRAL, "noise_multiplier": 0.001}, "clients_per_round": 0.7},
    "adaptive": {"privacy": {**CENTRAL, "name": "adaptive", "noise_multiplier": 0.001}},
    "weighted": {"privacy": {**CENTRAL, "clipping_norm": 1.0, "specimen": "flower_dp_weighted"}},
    "local": {"privacy": {**CENTRAL, "name": "local", "noise_multiplier": 0.001}},
    "record": {"privacy": {"name": "record", "noise_multiplier": 1.0}},
    "distributed": {
        "privacy": {"name": "distributed", "noise_multiplier": 1.0},
        "secure_aggregation": {"protocol": "masked", "weights": "uniform"},
    },
}


@pytest.mark.parametrize("name", DEFENDED)
def test_defended_worlds_are_the_same_on_serial_and_in_lockstep_however_they_are_cut(name: str) -> None:
    chosen = scenario(**DEFENDED[name]).model_copy(update={"dtype": "float64"})
    kind = CanaryGame(name="canaries", count=4, unit="record" if name == "record" else "client")
    drawn = draw(chosen, worlds.pool(chosen), kind, frozenset()).worlds[:3]
    job: Job = worlds.job(chosen, worlds=drawn)

    def ran(engine: EngineName, **options: Any) -> dict[int, WorldResult]:
        return dict(run_worlds(job, range(3), engine=engine, **options))

    serial, together, cut = ran("serial"), ran("lockstep"), ran("lockstep", workers=2)
    for index in range(3):
        assert together[index].model == cut[index].model
        assert together[index].transcript == cut[index].transcript
        np.testing.assert_allclose(serial[index].utility, together[index].utility, atol=1e-10)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the ray extra")
@pytest.mark.filterwarnings("ignore")  # Ray and Flower's simulation raise warnings of their own
@pytest.mark.parametrize("name", ["masked", "distributed", "central", "local", "record"])
def test_flowers_engine_gives_the_same_bytes_behind_defences(name: str) -> None:
    job = worlds.job(scenario(**DEFENDED[name]))
    serial, ray = (run_world(job, 0, worlds.setup(job), engine) for engine in ("serial", "ray"))
    assert (serial.transcript, serial.model) == (ray.transcript, ray.model)
