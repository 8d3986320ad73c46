"""Adversaries that act: what they send in closed form, who sees it, what stops it, and what it costs."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import ttest_ind

from attacks import ATTACKS
from attacks.active import ASCENT_RECOVERY, CANARY_GRADIENT, SINGLED_OUT_COSINE
from attacks.trajectories import OWNER_LOSS
from fedsim.actors import acting, with_adversary
from fedsim.adversaries import canary_model, dead, poisoned, pushed_update, uphill
from fedsim.attack import Signal, fold
from fedsim.engine import run_world, run_worlds
from fedsim.errors import ScenarioError
from fedsim.games import draw
from fedsim.job import Job, Probe, WorldResult
from fedsim.judge import utility_cost
from fedsim.models import build
from fedsim.prepare import prepare
from fedsim.report import render
from fedsim.scenario import (
    Adversary,
    CanaryGradient,
    GradientAscent,
    InconsistentModels,
    Isolation,
    LabelPoisoning,
    ModelChoice,
    Scenario,
)
from fedsim.scenario_file import load
from fedsim.tables import known, recipes
from fedsim.training import Task, train
from fedsim.transcript import ACT, AGGREGATE, SERVER, Event, client, frozen
from fedsim.vectors import flat
from fedsim.views import RecordAsk, Records, groups_of, parse_vantage, white_box
from fedsim.world import Actor, World
from tests import fakes
from tests.leaky_worlds import public
from tests.worlds import job, pool, scenario, setup

PUSH = GradientAscent(name="gradient_ascent", strength=0.5, every=2)
SERVER_PLANS: list[Adversary] = [
    PUSH,
    Isolation(name="isolation"),
    Isolation(name="isolation", client=1),
    InconsistentModels(name="inconsistent_models"),
    CanaryGradient(name="canary_gradient"),
]
CLIENT_PLANS: list[Adversary] = [PUSH, LabelPoisoning(name="label_poisoning", copies=2)]
MASKED = {"protocol": "masked", "quantisation": {"clip_range": 8.0, "bits": 28, "rounding": "nearest"}}


def adversarial(plan: Adversary, parties: str, chosen: Scenario, probes: tuple[tuple[Signal, str], ...] = ()) -> Job:
    """Return a job over the record worlds of a scenario with an adversary in them."""
    drawn = with_adversary(draw(chosen, pool(chosen), "record", frozenset()), plan, frozenset(parties.split("+")))
    ask = drawn.exams[0].ask
    asked = [
        Probe(f"{number}", parse_vantage(where, chosen.data.clients), ask, signal, frozenset(range(4)))
        for number, (signal, where) in enumerate(probes)
    ]
    return job(chosen, asked, [each.vantage for each in asked], drawn.worlds)


def events(made: Job, index: int = 0) -> list[Event]:
    """Return all messages of a world."""
    found: list[Event] = []
    run_world(made, index, setup(made), spare=found.append)
    return found


def ran(made: Job, index: int = 0) -> WorldResult:
    """Return what a world leaves behind."""
    return run_world(made, index, setup(made))


def actor(plan: Adversary, party: str, targets: Records) -> Actor:
    return Actor(plan, frozenset({party}), targets)


# What is sent, in closed form


def linear() -> tuple[Any, dict[str, torch.Tensor], Records]:
    """Return softmax regression with zero parameters in float64, and targets."""
    rng = np.random.default_rng(0)
    model = build(ModelChoice(name="softmax"), (3,), 4)
    params = {name: torch.zeros_like(value).double() for name, value in model.init(torch.Generator()).items()}
    records = Records(
        rng.standard_normal((5, 3)).astype(np.float32), np.array([0, 1, 2, 3, 0]), np.zeros(5, dtype=np.int64)
    )
    return model, params, records


def test_a_push_goes_up_the_gradient_by_its_length() -> None:
    """At zero, the gradient of softmax regression is the mean of (1/4 - onehot) x^T; each record counts alike, by its
    own gradient's direction.
    """
    model, params, targets = linear()
    error = 0.25 - np.eye(4)[targets.y]
    x = targets.x.astype(np.float64)
    length = np.linalg.norm(error, axis=1) * np.sqrt((x**2).sum(axis=1) + 1)
    weight, bias = (error / length[:, None]).T @ x, (error / length[:, None]).sum(axis=0)
    norm = np.sqrt((weight**2).sum() + (bias**2).sum())
    moved = uphill(model, params, targets, 0.7)
    np.testing.assert_allclose(moved["layer0.weight"].numpy(), 0.7 * weight / norm, rtol=1e-6)
    np.testing.assert_allclose(moved["layer0.bias"].numpy(), 0.7 * bias / norm, rtol=1e-6)
    assert all(not value.any() for value in params.values())


def test_nothing_to_push_against_leaves_the_model_alone() -> None:
    model, params, targets = linear()
    none = Records(targets.x[:0], targets.y[:0], targets.owner[:0])
    assert all(torch.equal(value, params[name]) for name, value in uphill(model, params, none, 1.0).items())


def test_who_acts_is_the_server_where_it_can_else_the_clients() -> None:
    poison = LabelPoisoning(name="label_poisoning")
    assert acting(PUSH, parse_vantage("server+client:1", 4)) == {SERVER}
    assert acting(PUSH, parse_vantage("client:1+client:2", 4)) == {"client:1", "client:2"}
    assert acting(poison, parse_vantage("server+client:1", 4)) == {"client:1"}
    assert acting(poison, parse_vantage("server", 4)) == frozenset()
    assert acting(Isolation(name="isolation"), parse_vantage("client:1", 4)) == frozenset()


def test_a_participant_pushes_in_its_rounds_and_poisons_with_the_next_label() -> None:
    model, params, targets = linear()
    world = World("w", (np.arange(2), np.arange(2)), ModelChoice(name="softmax"), scenario().federation)
    pushing = dataclasses.replace(world, adversary=actor(PUSH, "client:1", targets))
    assert pushed_update(world, model, params, 1, 2) is None
    assert pushed_update(pushing, model, params, 0, 2) is None
    assert pushed_update(pushing, model, params, 1, 3) is None
    sent = pushed_update(pushing, model, params, 1, 2)
    assert sent is not None
    assert float(torch.sqrt(sum((value**2).sum() for value in sent.values()))) == pytest.approx(0.5)  # type: ignore[arg-type]
    x, y = torch.arange(12.0).reshape(4, 3).double(), torch.tensor([0, 1, 2, 3])
    rng = np.random.default_rng(0)
    task = Task(model, params, x, y, torch.tensor([3, 1]), world.federation.local, rng, None)
    plan = LabelPoisoning(name="label_poisoning", copies=2)
    poisoning = dataclasses.replace(world, adversary=actor(plan, "client:1", targets))
    assert poisoned(poisoning, 0, task, 4) is task
    mixed = poisoned(poisoning, 1, task, 4)
    assert mixed.y.tolist() == [3, 1, *[1, 2, 3, 0, 1] * 2]
    assert mixed.rows.tolist() == list(range(12))
    np.testing.assert_array_equal(mixed.x[2:7].numpy(), targets.x)


@pytest.mark.parametrize(
    ("choice", "shape"),
    [
        (ModelChoice(name="mlp", hidden=(6, 5)), (4,)),
        (ModelChoice(name="cnn", channels=2), (1, 8, 8)),
        (ModelChoice(name="resnet", channels=4), (1, 8, 8)),
    ],
    ids=["mlp", "cnn", "resnet"],
)
def test_a_dead_model_moves_by_its_last_bias_alone(choice: ModelChoice, shape: tuple[int, ...]) -> None:
    model = build(choice, shape, 3)
    honest = {name: value.numpy() for name, value in model.init(torch.Generator().manual_seed(1)).items()}
    names = list(honest)
    params = {name: torch.from_numpy(value) for name, value in dead(honest, (names[-2], names[-1])).items()}
    x, y = torch.randn((12, *shape), generator=torch.Generator().manual_seed(2)), torch.arange(12) % 3
    task = Task(model, params, x, y, torch.arange(12), scenario().federation.local, np.random.default_rng(0), None)
    after = train(task).params
    moved = {name for name in params if not torch.equal(after[name], params[name])}
    assert moved == {names[-1]}


def test_a_canary_unit_answers_to_its_record_alone() -> None:
    rng = np.random.default_rng(3)
    model = build(ModelChoice(name="mlp", hidden=(6, 4)), (20,), 3)
    honest = {name: value.numpy() for name, value in model.init(torch.Generator().manual_seed(1)).items()}
    targets = Records(rng.standard_normal((12, 20)).astype(np.float32), np.arange(12) % 3, np.zeros(12, dtype=np.int64))
    crafted = canary_model(honest, ("layer2.weight", "layer2.bias"), targets, np.array([2, 5, 7]))
    given = np.maximum(targets.x @ crafted["layer0.weight"].T + crafted["layer0.bias"], 0)
    wanted = np.zeros((12, 6))
    wanted[[2, 5, 7], [0, 1, 2]] = 1
    np.testing.assert_allclose(given, wanted, atol=1e-4)
    np.testing.assert_array_equal(crafted["layer2.weight"], honest["layer2.weight"])


def test_groups_go_with_the_record_and_not_with_its_place() -> None:
    rng = np.random.default_rng(0)
    records = Records(rng.standard_normal((50, 2)).astype(np.float32), np.arange(50) % 3, np.zeros(50, dtype=np.int64))
    order = rng.permutation(50)
    turned = Records(records.x[order], records.y[order], records.owner[order])
    groups = groups_of(records, 4)
    assert set(groups) == {0, 1, 2, 3}
    np.testing.assert_array_equal(groups_of(turned, 4), groups[order])


def biased(value: float) -> dict[str, Any]:
    """Return softmax regression that gives class 0 a logit of `value`, and the other 0, whatever the record."""
    return dict(frozen({"layer0.weight": np.zeros((2, 3)), "layer0.bias": np.array([value, 0.0])}))


@pytest.mark.parametrize("pusher", ["server", "client:1"])
def test_recovery_is_the_loss_before_minus_the_loss_after_the_answer(pusher: str) -> None:
    """The server pushes what it sends, so the next model answers; a participant's push shows first in the next."""
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    ask = RecordAsk(
        Records(x, np.array([0, 1]), np.zeros(2, dtype=np.int64)), Records(x[:0], np.zeros(0, int), np.zeros(0, int))
    )
    aims = {"group": 0, "groups": 1}
    made = [Event(2, ACT, pusher, pusher, biased(1.0) if pusher == SERVER else {}, aims)]
    values = [9.0, 3.0] if pusher == SERVER else [1.0, 9.0, 3.0]
    made += [Event(2 + i, "train", SERVER, "client:1", biased(value), {}) for i, value in enumerate(values)]
    made += [Event(5, "final", SERVER, SERVER, biased(7.0), {})]
    found = fold(ASCENT_RECOVERY, public(2, rounds=5), ask, made, white_box(public(2), biased(7.0)))
    loss = np.log1p(np.exp(np.array([[-1.0, 1.0], [-3.0, 3.0]])))  # of classes 0 and 1, before and after
    np.testing.assert_allclose(found, loss[0] - loss[1], rtol=1e-12)


# In a federation


def test_the_servers_push_is_what_everybody_gets() -> None:
    made = adversarial(PUSH, SERVER, scenario(dtype="float64"))
    seen = events(made)
    notes = [event for event in seen if event.kind == ACT]
    assert [(event.round, event.sender, event.receiver) for event in notes] == [(2, SERVER, SERVER)]
    sent = [event for event in seen if event.kind == "train" and event.round == 2]
    assert len({flat(event.arrays).tobytes() for event in sent}) == 1
    assert np.linalg.norm(flat(sent[0].arrays) - flat(notes[0].arrays)) == pytest.approx(0.5)


def test_isolated_clients_get_their_own_model_back() -> None:
    seen = events(adversarial(Isolation(name="isolation", client=1), SERVER, scenario()))
    replies = {(e.round, e.sender): flat(e.arrays) for e in seen if e.kind == "train-reply"}
    sent = {(e.round, e.receiver): flat(e.arrays) for e in seen if e.kind == "train"}
    for number in (2, 3):
        np.testing.assert_array_equal(sent[number, "client:1"], replies[number - 1, "client:1"])
        others = [flat for (round, party), flat in sent.items() if round == number and party != "client:1"]
        assert len({each.tobytes() for each in others}) == 1
    rows = {client(k): len(own) for k, own in enumerate(setup_rows()) if len(own) and k != 1}
    last = [replies[3, party] * count for party, count in rows.items()]
    final = next(flat(event.arrays) for event in seen_final(Isolation(name="isolation", client=1)))
    np.testing.assert_allclose(final, np.sum(last, axis=0) / sum(rows.values()), rtol=1e-5, atol=1e-6)


def setup_rows() -> tuple[np.ndarray, ...]:
    return adversarial(PUSH, SERVER, scenario()).worlds[0].rows


def seen_final(plan: Adversary) -> list[Event]:
    return [event for event in events(adversarial(plan, SERVER, scenario())) if event.kind == "final"]


@pytest.mark.parametrize("protocol", ["masked", "ideal"])
def test_the_sum_of_inconsistent_models_is_the_victims_update(protocol: str) -> None:
    """The same victim trains the same way where nothing is masked, so its update is known; 28 bits of 8 quantise it."""
    federation = {"secure_aggregation": {**MASKED, "protocol": protocol, "weights": "uniform"}}
    plan = InconsistentModels(name="inconsistent_models", client=2)
    seen = events(adversarial(plan, SERVER, scenario(federation=federation, dtype="float64")))
    clear = events(adversarial(plan, SERVER, scenario(dtype="float64")))
    mean = next(event for event in seen if event.kind == AGGREGATE)
    before = next(e.arrays for e in clear if e.kind == "train" and e.receiver == "client:2")
    after = next(e.arrays for e in clear if e.kind == "train-reply" and e.sender == "client:2")
    clients = int(str(mean.facts["clients"]))
    for name in before.keys() - {"layer1.bias"}:
        sent, got, opened = (np.asarray(each[name], dtype=np.float64) for each in (before, after, mean.arrays))
        np.testing.assert_allclose(opened * clients, got - sent, rtol=1e-6, atol=4e-7)
        assert np.abs(got - sent).max() > 1e-3
    # The server goes on from the honest model, not from a dead one.
    honest, later = (
        flat(next(e.arrays for e in seen if e.kind == "train" and e.receiver == "client:2" and e.round == number))
        for number in (1, 2)
    )
    np.testing.assert_allclose(later, honest + flat(mean.arrays), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("protocol", ["masked", "ideal"])
@pytest.mark.parametrize(
    ("plan", "signal"),
    [
        (InconsistentModels(name="inconsistent_models"), SINGLED_OUT_COSINE),
        (CanaryGradient(name="canary_gradient", every=1), CANARY_GRADIENT),
    ],
    ids=["inconsistent", "canary"],
)
def test_clients_that_compare_what_they_got_end_it(protocol: str, plan: Adversary, signal: Signal) -> None:
    for consistency in (True, False):
        federation = {"secure_aggregation": {**MASKED, "protocol": protocol, "consistency": consistency}}
        left = ran(adversarial(plan, SERVER, scenario(federation=federation), ((signal, SERVER),)))
        assert left.aborted == (3 if consistency else 0)
        assert ("0" in left.not_visible) == consistency


@pytest.mark.parametrize("plan", SERVER_PLANS, ids=lambda plan: plan.name)
def test_a_servers_act_is_the_same_on_every_path(plan: Adversary) -> None:
    made = adversarial(plan, SERVER, scenario(dtype="float64"))
    assert_paths_agree(made)


@pytest.mark.parametrize("plan", CLIENT_PLANS, ids=lambda plan: plan.name)
def test_a_participants_act_is_the_same_on_every_path(plan: Adversary) -> None:
    assert_paths_agree(adversarial(plan, "client:1", scenario(dtype="float64")))


def assert_paths_agree(made: Job) -> None:
    """Alone, and together with others, a world comes to the same."""
    together = dict(run_worlds(made, [0, 1]))
    alone = ran(made, 1)
    assert np.allclose(together[1].utility, alone.utility, rtol=1e-9, atol=1e-12)
    passive = ran(
        dataclasses.replace(made, worlds=tuple(dataclasses.replace(w, adversary=None) for w in made.worlds)), 1
    )
    assert passive.transcript != alone.transcript


def test_a_note_is_seen_by_its_author_alone() -> None:
    seen = events(adversarial(PUSH, "client:1", scenario()))
    assert {(e.sender, e.receiver) for e in seen if e.kind == ACT} == {("client:1", "client:1")}
    made = adversarial(PUSH, "client:1", scenario(), ((ASCENT_RECOVERY, "client:1"), (ASCENT_RECOVERY, "server")))
    left = ran(made)
    assert "0" in left.signals
    assert "1" in left.not_visible


def test_nobody_aims_at_records_of_its_own() -> None:
    made = adversarial(PUSH, "client:1", scenario())
    assert made.worlds[0].adversary is not None
    assert 1 not in made.worlds[0].adversary.targets.owner
    assert 0 in made.worlds[0].adversary.targets.owner


def test_canaries_find_members_through_secure_aggregation() -> None:
    """One visit to each client; a unit for each of its records."""
    changes: dict[str, Any] = {
        "federation": {"rounds": 4, "secure_aggregation": MASKED},
        "model": {"hidden": (32,)},
    }
    made = adversarial(
        CanaryGradient(name="canary_gradient", every=1), SERVER, scenario(**changes), ((CANARY_GRADIENT, SERVER),)
    )
    ask = made.probes[0].ask
    assert isinstance(ask, RecordAsk)
    world, found = made.worlds[0], ran(made).signals["0"][: len(ask.items)]
    x = made.stock.x[np.concatenate(world.rows)].reshape(-1, 64)
    members = (ask.items.x.reshape(-1, 1, 64) == x[None]).all(axis=2).any(axis=1)
    assert 0 < members.sum() < len(members)
    assert found[members].min() > found[~members].max()


def test_isolation_keeps_what_a_client_remembers() -> None:
    """The owner's loss falls further on its own records where no average brings other clients' models in.

    Welch's t of some 70 records on either side: above 5 by chance once in 1e6. An isolation that does nothing changes
    no loss and is rejected (t is 0); so is one that moves all losses alike.
    """
    apart: list[NDArray[np.float64]] = []
    changes: list[NDArray[np.float64]] = []
    for index in range(3):
        losses = {}
        for name, plan in (("together", PUSH), ("isolated", Isolation(name="isolation"))):
            made = adversarial(plan, SERVER, scenario(federation={"rounds": 6}), ((OWNER_LOSS, SERVER),))
            if name == "together":
                passive = tuple(dataclasses.replace(world, adversary=None) for world in made.worlds)
                made = dataclasses.replace(made, worlds=passive)
            ask, rows = made.probes[0].ask, np.concatenate(made.worlds[index].rows)
            assert isinstance(ask, RecordAsk)
            x = made.stock.x[rows].reshape(-1, 1, 64)
            members = (x == ask.items.x.reshape(1, -1, 64)).all(axis=2).any(axis=0)
            losses[name] = ran(made, index).signals["0"][: len(ask.items)]
        signs = np.where(members, 1.0, -1.0)
        apart.append(np.stack([signs, losses["together"]]))
        changes.append(np.stack([signs, losses["isolated"] - losses["together"]]))
    for signs, values in (np.concatenate(apart, axis=1), np.concatenate(changes, axis=1)):
        assert ttest_ind(values[signs < 0], values[signs > 0], equal_var=False).statistic > 5


# From a scenario


def written(folder: Path, audit: str, more: str = "") -> Path:
    path = folder / "s.yaml"
    path.write_text(
        "name: s\n"
        "data: {source: digits, clients: 4, candidates: 48, population: 60, test: 60}\n"
        "model: {name: mlp, hidden: [16]}\n"
        "federation: {rounds: 3}\n"
        "worlds: 4\n"
        "controls: {planted_worlds: 0}\n"
        f"{more}"
        "audits:\n"
        f"  - {{name: a, attacks: [loss], {audit}}}\n",
        encoding="utf-8",
    )
    return path


SECURE = "setups: [{name: secure, secure_aggregation: {protocol: ideal}}]\n"
NOISY = "setups: [{name: noisy, privacy: {name: central, noise_multiplier: 1.0}}]\n"
OTHER = "setups: [{name: other, model: {name: softmax}, rounds: 1}]\n"


@pytest.mark.parametrize(
    ("audit", "more", "says"),
    [
        ("vantage: public, adversary: {name: gradient_ascent}", "", "act of the server or a participant"),
        ("vantage: 'client:1', adversary: {name: isolation}", "", "isolation is an act of the server, and 'client:1'"),
        ("vantage: server, adversary: {name: label_poisoning}", "", "act of a participant"),
        ("vantage: server, adversary: {name: poison}", "", "allowed: gradient_ascent or label_poisoning"),
        ("vantage: server, adversary: {name: gradient_ascent, every: 4}", "", "at most 3"),
        ("vantage: 'client:0', adversary: {name: gradient_ascent, every: 3}", "", "at most 2"),
        (
            "vantage: server, adversary: {name: gradient_ascent, every: 1, groups: 900}",
            "",
            "groups: got 900, and in 3 rounds there are 3 pushes that something comes of; at most 3",
        ),
        ("vantage: 'client:0', adversary: {name: gradient_ascent, every: 1, groups: 3}", "", "are 2 pushes"),
        ("vantage: 'client:0', adversary: {name: gradient_ascent, groups: 2}", "", "there is 1 push that"),
        ("vantage: server, adversary: {name: isolation, client: 4}", "", "clients are 0 to 3"),
        ("vantage: server+client:1, adversary: {name: isolation, client: 1}", "", "client 1 is in the vantage"),
        ("setup: secure, vantage: server, adversary: {name: isolation}", SECURE, "the server never gets"),
        ("setup: noisy, vantage: server, adversary: {name: gradient_ascent}", NOISY, "one that cheats would not"),
        (
            "setup: other, vantage: server, adversary: {name: canary_gradient}",
            OTHER.replace("rounds: 1", "rounds: 3"),
            "is softmax",
        ),
        ("setup: other, vantage: server, adversary: {name: gradient_ascent, every: 2}", OTHER, "at most 1"),
    ],
)
def test_an_adversary_that_cannot_act_is_refused_in_one_line(tmp_path: Path, audit: str, more: str, says: str) -> None:
    with pytest.raises(ScenarioError, match=says) as caught:
        load(str(written(tmp_path, audit, more)), known=known())
    assert "\n" not in str(caught.value)
    assert "s.yaml:" in str(caught.value)


def test_an_adversary_is_measured_by_the_setup_that_it_attacks(tmp_path: Path) -> None:
    longer = "setups: [{name: longer, rounds: 6}]\n"
    plan = "{name: gradient_ascent, every: 5}"  # more than the three rounds without the setup
    path = written(tmp_path, f"setup: longer, vantage: server, adversary: {plan}", longer)
    adversary = load(str(path), known=known()).scenario.audits[0].adversary
    assert isinstance(adversary, GradientAscent)
    assert adversary.every == 5


@pytest.mark.parametrize("acts", ["", ", adversary: {name: isolation}"])
def test_an_attack_that_reads_what_an_act_brings_needs_that_act(tmp_path: Path, acts: str) -> None:
    path = written(tmp_path, f"vantage: server{acts}")
    path.write_text(path.read_text().replace("[loss]", "[canary_gradient]"))
    with pytest.raises(ScenarioError, match=r"s.yaml:8: audits.0.attacks.0: .*inconsistent_models} or {name: canary_g"):
        load(str(path), known=known())


@pytest.mark.parametrize(("who", "groups"), [("server", 3), ("'client:0'", 2)])
def test_so_many_groups_as_pushes_are_fine(who: str, groups: int, tmp_path: Path) -> None:
    plan = f"{{name: gradient_ascent, every: 1, groups: {groups}}}"
    adversary = (
        load(str(written(tmp_path, f"vantage: {who}, adversary: {plan}")), known=known()).scenario.audits[0].adversary
    )
    assert isinstance(adversary, GradientAscent)
    assert adversary.groups == groups


def test_adversaries_are_for_the_game_of_records(tmp_path: Path) -> None:
    path = written(tmp_path, "game: source, vantage: server, adversary: {name: gradient_ascent}")
    path.write_text(path.read_text().replace("[loss]", "[source_loss]"))
    with pytest.raises(ScenarioError, match="in the game record only"):
        load(str(path), known=known())


def test_dead_units_need_rectified_ones(tmp_path: Path) -> None:
    path = written(tmp_path, "vantage: server, adversary: {name: inconsistent_models}")
    path.write_text(path.read_text().replace("hidden: [16]", "hidden: [16], activation: tanh"))
    with pytest.raises(ScenarioError, match="needs rectified units, and the model is mlp with tanh"):
        load(str(path), known=known())


def test_audits_share_worlds_exactly_where_all_is_alike(tmp_path: Path) -> None:
    more = "".join(
        f"  - {{name: {name}, attacks: [loss], vantage: '{vantage}', adversary: {{name: gradient_ascent{options}}}}}\n"
        for name, vantage, options in [
            ("b", "server", ""),
            ("c", "server+client:1", ""),
            ("d", "server", ", strength: 2"),
            ("e", "client:1", ""),
        ]
    )
    path = written(tmp_path, "vantage: public")
    path.write_text(path.read_text() + more)
    (tmp_path / "passive").mkdir()
    alone = written(tmp_path / "passive", "vantage: public")
    passive = prepare(load(str(alone), known=known()), ATTACKS, recipes())
    trials = prepare(load(str(path), known=known()), ATTACKS, recipes()).trials
    assert [[each.audit.name for each in trial.audits] for trial in trials] == [["a"], ["b", "c"], ["d"], ["e"]]
    assert trials[3].adversary == "gradient_ascent by client:1 (strength 1, every 2, groups 1)"
    for trial in trials:
        for world, bare in zip(trial.draw.worlds, passive.trials[0].draw.worlds, strict=True):
            assert world.name == bare.name
            assert (world.adversary is None) == (trial.adversary is None)
            assert all((a == b).all() for a, b in zip(world.rows, bare.rows, strict=True))


# What it costs


def test_the_cost_is_the_accuracy_lost_world_by_world(tmp_path: Path) -> None:
    """Differences of .1, .2 and .3: a mean of .2, give or take t(.975, 2) sqrt(.01 / 3)."""

    def left(*accuracies: float) -> dict[int, WorldResult]:
        return {
            w: WorldResult({}, {}, np.array([[0.0, 0, 0, 0], [1, 0, accuracy, 0]]), "", "", {})
            for w, accuracy in enumerate(accuracies)
        }

    cost = utility_cost(np.arange(3), left(0.5, 0.6, 0.7), left(0.6, 0.8, 1.0))
    assert cost.estimate == pytest.approx(0.2)
    assert cost.high == pytest.approx(0.2 + 4.302653 * np.sqrt(0.01 / 3), rel=1e-6)
    assert "no audit attacks the same worlds" in str(utility_cost(np.arange(3), left(0.5, 0.6, 0.7), None).reason)
    record = fakes.run(tmp_path)
    acted = [dataclasses.replace(each, adversary="isolation by server", cost=cost) for each in record.findings]
    page = render(dataclasses.replace(record, findings=tuple(acted)), tmp_path)
    assert "isolation by server" in page
    assert "its cost: test accuracy lower by" in page
    assert "its cost" not in render(record, tmp_path)
