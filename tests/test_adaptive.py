"""Defences and the attacks that know them: the table, the warning, and what the new rows do to the defence."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.app.user_config import UserConfig

from attacks import ADAPTIVE, ATTACKS, NEEDS_PUBLIC
from fedsim import judge
from fedsim.attack import fold
from fedsim.engine import run_worlds
from fedsim.errors import ScenarioError
from fedsim.grid import RUN_ID, task_identity
from fedsim.lint import PER_SCENARIO, untried, without_public_records
from fedsim.prepare import prepare
from fedsim.release import released
from fedsim.scenario import Plugin, Release, in_setup
from fedsim.scenario_file import Loaded, load, shipped
from fedsim.tables import known
from strategies import build_mods
from tests import worlds
from tests.leaky_worlds import record_study, view

GAMES = {name: row.game for name, row in ATTACKS.items()}
MASKS = ("top_k", "rounded", "temperature", "label")


def test_the_table_names_attacks_that_exist() -> None:
    for defence, attacks in ADAPTIVE.items():
        assert set(attacks) <= ATTACKS.keys(), defence
    assert set(MASKS) <= ADAPTIVE.keys()


@pytest.mark.parametrize(
    ("release", "attacks", "vantage", "warned"),
    [
        ({"output": "label"}, ("gap",), "public", 0),
        ({"output": "rounded"}, ("loss", "gap"), "public", 1),
        ({"output": "rounded"}, ("loss",), "client:0", 0),  # it was sent the model
        ({"output": "temperature"}, ("lira",), "public", 1),
        ({"output": "temperature"}, ("lira_untempered",), "public", 0),
        ({"budget": 100, "monitor": {"radius": 1.0}}, ("lira",), "public", 2),
        ({"budget": 100, "monitor": {"radius": 1.0}}, ("label_only",), "public", 0),
    ],
)
def test_a_defence_that_nobody_tries_is_remarked(
    release: dict[str, Any], attacks: tuple[str, ...], vantage: str, warned: int
) -> None:
    chosen = worlds.scenario(release=release, audits=({"name": "a", "attacks": attacks, "vantage": vantage},))
    assert len(list(untried(chosen, ADAPTIVE, GAMES))) == warned


def test_one_audit_of_a_defence_is_enough_and_setups_are_told_apart() -> None:
    audits = (
        {"name": "a", "attacks": ("loss",), "setup": "s", "vantage": "server"},
        {"name": "b", "attacks": ("update_cosine",), "setup": "s", "vantage": "server"},
        {"name": "c", "attacks": ("loss",), "vantage": "server"},
    )
    setups = ({"name": "s", "mods": ({"name": "sparsify"},)},)
    assert not list(untried(worlds.scenario(audits=audits, setups=setups), ADAPTIVE, GAMES))
    alone = list(untried(worlds.scenario(audits=audits[:1], setups=setups), ADAPTIVE, GAMES))
    assert [remark.place for remark in alone] == [("audits", 0, "attacks")]
    assert "update_cosine" in str(alone[0])


def test_a_server_that_clients_refuse_needs_no_attack_that_knows_better() -> None:
    """Where clients compare what they were sent nothing is singled out, and nobody can know a way round that."""
    for consistency, acts, warned in ((True, True, 0), (False, True, 1), (True, False, 1)):
        adversary = {"adversary": {"name": "canary_gradient"}} if acts else {}
        audit = {"name": "a", "attacks": ("canary_gradient",), "vantage": "server", "setup": "s"} | adversary
        setups = ({"name": "s", "secure_aggregation": {"protocol": "ideal", "consistency": consistency}},)
        chosen = worlds.scenario(audits=(audit,), setups=setups)
        known_to = ADAPTIVE | {"secure_aggregation": ("update_cosine",)}
        assert len(list(untried(chosen, known_to, GAMES))) == warned


@pytest.mark.parametrize("name", shipped())
def test_shipped_scenarios_have_no_setup_or_budget_for_nothing(name: str) -> None:
    chosen = load(name, known=known()).scenario
    rules = ("unattacked", "same_again", "party_twice", "asked_by_the_holder", "budget_below_one")
    assert not [remark for rule in rules for remark in PER_SCENARIO[rule](chosen)]
    assert not list(without_public_records(chosen, NEEDS_PUBLIC))


@pytest.mark.parametrize("name", NEEDS_PUBLIC)
def test_what_needs_public_records_says_so_without_them(name: str) -> None:
    games = {"labels": {"name": "labels", "client": 1}, "distinguish": {"name": "distinguish"}}
    game = ATTACKS[name].game
    audit = {"name": "a", "vantage": "server", "game": games.get(game, game), "attacks": (name,)}
    chosen = worlds.scenario(
        data={"population": 0}, federation={"rounds": 1}, controls={"planted_worlds": 0}, audits=(audit,)
    )
    prepared = prepare(Loaded(chosen, {}, Path("t.yaml"), {}), ATTACKS, worlds.RECIPES)
    (trial,) = prepared.trials
    left = dict(run_worlds(trial.job, range(len(trial.draw.worlds))))
    (found,) = judge.findings(prepared, trial, left, ATTACKS)
    assert "public records" in str(found.finding.reason)


def test_leaving_nothing_out_is_refused() -> None:
    """Digits have ten classes."""
    for k, refused in ((9, False), (10, True)):
        release = {"output": "top_k", "k": k}
        for where, given in (
            ("release.k", {"release": release}),
            ("audits.0.release.k", {"audits": ({"name": "a", "attacks": ("loss",), "release": release},)}),
        ):
            loaded = Loaded(worlds.scenario(controls={"planted_worlds": 0}, **given), {}, Path("t.yaml"), {})
            if refused:
                with pytest.raises(ScenarioError, match=f"{where}: got 10, and the data have 10 classes"):
                    prepare(loaded, ATTACKS, worlds.RECIPES)
            else:
                prepare(loaded, ATTACKS, worlds.RECIPES)


@pytest.mark.parametrize("name", shipped())
def test_shipped_scenarios_try_their_defences(name: str) -> None:
    assert not list(untried(load(name, known=known()).scenario, ADAPTIVE, GAMES))


def test_temperature_is_undone_exactly() -> None:
    """What the softened answers give is what the answers themselves give, to rounding."""
    study = record_study(0)
    final = study.worlds[0].events[-1].arrays
    plain, soft = (released(study.setup, final, release) for release in (Release(), SOFT))
    setup = dataclasses.replace(study.setup, temperature=SOFT.temperature)
    events = view(study.worlds[0], "public")
    lira, undone = ATTACKS["lira"].signal, ATTACKS["lira_untempered"].signal
    expected = fold(lira, study.setup, study.ask, events, plain)
    np.testing.assert_allclose(fold(undone, setup, study.ask, events, soft), expected, rtol=1e-6, atol=1e-6)
    assert not np.allclose(fold(lira, setup, study.ask, events, soft), expected, atol=0.1)


SOFT = Release(output="temperature", temperature=20.0)


def test_one_round_is_the_first_of_the_pooled_cosine() -> None:
    study = record_study(0)
    events = view(study.worlds[0], "server")
    first = [event for event in events if event.round == 1 or event.kind == "final"]
    once, pooled = ATTACKS["update_cosine_once"].signal, ATTACKS["update_cosine"].signal
    oracle = study.worlds[0].released
    found = fold(once, study.setup, study.ask, events, oracle)
    np.testing.assert_array_equal(found, fold(pooled, study.setup, study.ask, first, oracle))
    assert not np.array_equal(found, fold(pooled, study.setup, study.ask, events, oracle))


# The sparsification mod.


def sent_through(share: float, before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the model in the reply when the client got `before` and trained it to `after`."""

    def record(arrays: dict[str, np.ndarray]) -> ArrayRecord:
        return ArrayRecord({name: Array(array) for name, array in arrays.items()})

    context = Context(run_id=RUN_ID, node_id=0, node_config=UserConfig(), state=RecordDict(), run_config=UserConfig())
    (mod,) = build_mods([Plugin(name="sparsify", options={"share": share})])
    with task_identity():
        message = Message(RecordDict({"arrays": record(before)}), dst_node_id=1, message_type="train")
        reply = mod(message, context, lambda got, _: Message(RecordDict({"arrays": record(after)}), reply_to=got))
    (kept,) = reply.content.array_records.values()
    return {name: array.numpy() for name, array in kept.items()}


def floats(values: list[float] | list[list[float]]) -> np.ndarray:
    """Return values as parameters of a model."""
    return np.array(values, dtype=np.float32)


def test_the_largest_coordinates_are_kept() -> None:
    before = {"a": np.array([[1.0, 1.0], [1.0, 1.0]], dtype=np.float32), "b": np.zeros(4, dtype=np.float32)}
    after = {"a": before["a"] + floats([[0.1, -9.0], [0.3, 0.0]]), "b": floats([4.0, 0.2, -5.0, 0.0])}
    kept = sent_through(0.375, before, after)  # 3 of 8
    np.testing.assert_array_equal(kept["a"], floats([[1.0, -8.0], [1.0, 1.0]]))
    np.testing.assert_array_equal(kept["b"], floats([4.0, 0.0, -5.0, 0.0]))
    assert kept["a"].dtype == np.float32
    for name, array in sent_through(1.0, before, after).items():
        np.testing.assert_array_equal(array, after[name])


def test_a_setup_takes_the_place_of_model_training_rounds_and_mods() -> None:
    chosen = worlds.scenario(
        setups=(
            {"name": "drop", "model": {"name": "mlp", "hidden": (16,), "dropout": 0.5}},
            {"name": "short", "rounds": 1, "local": {"weight_decay": 0.01}, "mods": ({"name": "sparsify"},)},
        )
    )
    drop, short = (in_setup(chosen, setup.name) for setup in chosen.setups)
    assert drop.model.dropout == 0.5
    assert drop.federation == chosen.federation
    assert (short.federation.rounds, short.federation.local.weight_decay) == (1, 0.01)
    assert [mod.name for mod in short.federation.mods] == ["sparsify"]
    assert short.model == chosen.model
