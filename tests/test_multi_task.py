"""A participant that learns a property along: the gradient it follows, what it knows, what it sends, who may do it."""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from fedsim import adversaries
from fedsim.actors import with_adversary
from fedsim.adversaries import fitted_head, last_layer
from fedsim.dp_sgd import train_private
from fedsim.engine import EngineName, run_world, run_worlds
from fedsim.errors import ScenarioError
from fedsim.games import draw
from fedsim.job import Job, WorldResult
from fedsim.models import Params, build
from fedsim.randomness import generator, torch_generator
from fedsim.scenario import BatchGame, EarlyStopping, Local, ModelChoice, MultiTask, Scenario
from fedsim.scenario_file import Loaded, load
from fedsim.stacked import train_many
from fedsim.tables import known
from fedsim.training import Aside, Task, train
from fedsim.transcript import ACT, Event, digest
from fedsim.views import BatchAsk
from fedsim.world import Draw
from tests import worlds

CLASSES, FEATURES, RECORDS = 3, 4, 10
LAST = "layer1.weight", "layer1.bias"
SMALL = ModelChoice(name="mlp", hidden=(5,), activation="tanh")


def _aside(weight: float, shape: tuple[int, ...] = (FEATURES,), width: int = 5, seed: int = 2) -> Aside:
    rng = generator(seed, "aside")
    head = dict(zip(LAST, (torch.from_numpy(rng.standard_normal(size)) for size in ((2, width), 2)), strict=True))
    no, yes = (torch.from_numpy(rng.standard_normal((count, *shape))) for count in (9, 6))
    return Aside(weight, head, no, yes, generator(seed, "batches"))


def _task(
    weight: float | None, choice: ModelChoice = SMALL, shape: tuple[int, ...] = (FEATURES,), **local: Any
) -> Task:
    """A training of ten records; None: without the second task."""
    model, rng = build(choice, shape, CLASSES), generator(1, "records")
    return Task(
        model,
        {name: value.double() for name, value in model.init(torch_generator(1, "init")).items()},
        torch.from_numpy(rng.standard_normal((RECORDS, *shape))),
        torch.from_numpy(rng.integers(0, CLASSES, RECORDS)),
        torch.arange(RECORDS),
        Local.model_validate({"batch_size": 4, "learning_rate": 0.3, **local}),
        generator(1, "order"),
        torch_generator(1, "dropout") if choice.dropout else None,
        aside=None if weight is None else _aside(weight, shape, 128 if choice.name == "cnn" else 5),
    )


def _equal(some: Params, others: Params) -> bool:
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)


# The gradient


def _joint_loss(task: Task, params: dict[str, np.ndarray[Any, Any]], drawn: list[np.ndarray[Any, Any]]) -> float:
    """The loss written out in NumPy, of all the records and of the drawn ones of the second task."""
    assert task.aside is not None

    def loss(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], weight: str, bias: str) -> float:
        hidden = np.tanh(x @ params["layer0.weight"].T + params["layer0.bias"])
        logits = hidden @ params[weight].T + params[bias]
        return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]))

    first = loss(task.x.numpy(), task.y.numpy(), *LAST)
    second = loss(np.concatenate(drawn), np.repeat([0, 1], [len(each) for each in drawn]), "head.weight", "head.bias")
    return (1 - task.aside.weight) * first + task.aside.weight * second


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_step_goes_down_the_joint_loss(weight: float) -> None:
    """Central differences of the loss written out in NumPy, coordinate by coordinate, to a millionth."""
    task = _task(weight, batch_size=RECORDS)
    assert task.aside is not None
    order, half = generator(2, "batches"), RECORDS // 2
    drawn = [part[order.integers(len(part), size=half)].numpy() for part in (task.aside.no, task.aside.yes)]
    params = {name: value.numpy().copy() for name, value in task.params.items()}
    params |= {"head.weight": task.aside.head[LAST[0]].numpy(), "head.bias": task.aside.head[LAST[1]].numpy()}
    after = train(task).params
    assert list(after) == list(task.params)
    for name, value in task.params.items():
        slope = np.zeros(tuple(value.shape))
        for place in np.ndindex(*value.shape):
            sides = []
            for nudge in (1e-5, -1e-5):
                moved = params[name].copy()
                moved[place] += nudge
                sides.append(_joint_loss(task, {**params, name: moved}, drawn))
            slope[place] = (sides[0] - sides[1]) / 2e-5
        np.testing.assert_allclose(((value - after[name]) / task.local.learning_rate).numpy(), slope, atol=1e-6)


def test_several_steps_are_those_of_one_optimiser_for_body_and_both_heads() -> None:
    """torch.optim with momentum and weight decay over all parameters, on the same batches."""
    settings: dict[str, Any] = {"momentum": 0.9, "weight_decay": 0.05, "epochs": 2}
    task = _task(0.4, **settings)
    assert task.aside is not None
    leaves = {name: value.clone().requires_grad_() for name, value in task.params.items()}
    head = {name: value.clone().requires_grad_() for name, value in task.aside.head.items()}
    optimizer = torch.optim.SGD([*leaves.values(), *head.values()], lr=0.3, momentum=0.9, weight_decay=0.05)
    order, other = generator(1, "order"), generator(2, "batches")
    rows = order.permutation(RECORDS)
    for _ in range(2):
        for batch in torch.split(torch.from_numpy(order.permutation(rows)), 4):
            parts = [part[other.integers(len(part), size=2)] for part in (task.aside.no, task.aside.yes)]
            first = F.cross_entropy(task.model.apply(leaves, task.x[batch], None), task.y[batch])
            logits = task.model.apply({**leaves, **head}, torch.cat(parts), None)
            loss = 0.6 * first + 0.4 * F.cross_entropy(logits, torch.tensor([0, 0, 1, 1]))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    for name, value in train(_task(0.4, **settings)).params.items():
        np.testing.assert_allclose(value.numpy(), leaves[name].detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("choice", "shape", "local"),
    [
        (SMALL, (FEATURES,), {"epochs": 3, "momentum": 0.9, "weight_decay": 0.1}),
        (SMALL.model_copy(update={"dropout": 0.5}), (FEATURES,), {"optimizer": "adam", "learning_rate": 0.01}),
        (SMALL, (FEATURES,), {"epochs": 4, "early_stopping": EarlyStopping(holdout=0.3)}),
        (ModelChoice(name="cnn", channels=2), (1, 8, 8), {"epochs": 2}),
    ],
    ids=["momentum", "dropout", "early stopping", "cnn"],
)
def test_without_weight_it_is_honest_to_the_bit(
    choice: ModelChoice, shape: tuple[int, ...], local: dict[str, Any]
) -> None:
    honest, idle, busy = (train(_task(weight, choice, shape, **local)) for weight in (None, 0.0, 0.5))
    assert _equal(honest.params, idle.params)
    assert (honest.loss, honest.steps) == (idle.loss, idle.steps)
    assert not _equal(honest.params, busy.params)


def test_it_trains_alone_among_those_that_train_together() -> None:
    honest, acting = _task(None), _task(0.5)
    together = train_many([honest, acting, honest._replace(order=generator(1, "order"))])
    assert _equal(together[1].params, train(_task(0.5)).params)
    for each in (together[0], together[2]):
        for name, value in train(_task(None)).params.items():
            np.testing.assert_allclose(each.params[name].numpy(), value.numpy(), rtol=1e-9, atol=1e-12)


def test_under_record_privacy_the_second_task_joins_after_clipping_and_noise() -> None:
    """A batch of all the records, nothing clipped, no noise: the same as without privacy. With weight 1 nothing of
    the client's own records is in what it sends.
    """
    plain = train(_task(0.3, batch_size=RECORDS)).params
    private = train_private(_task(0.3, batch_size=RECORDS), 1e6, 0.0, generator(0)).params
    for name, value in plain.items():
        np.testing.assert_allclose(private[name].numpy(), value.numpy(), rtol=1e-9, atol=1e-12)
    whole, task = _task(1.0, epochs=2), _task(1.0, epochs=2)
    noisy, silent = (train_private(each, 1.0, scale, generator(0)) for each, scale in ((whole, 5.0), (task, 0.0)))
    assert _equal(noisy.params, silent.params)


# The head


def _told_apart(model: ModelChoice, steps: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    """Return a fitted head as arrays, and the features of both sides."""
    monkeypatch.setattr(adversaries, "HEAD_STEPS", steps)
    built, rng = build(model, (FEATURES,), CLASSES), generator(4, "sides")
    params = {name: value.double() for name, value in built.init(torch_generator(4, "init")).items()}
    no, yes = (
        torch.from_numpy(rng.standard_normal((count, FEATURES)) + push) for count, push in ((300, 0), (200, 0.7))
    )
    head = fitted_head(built, params, no, yes)
    first = [params[name].numpy() for name in ("layer0.weight", "layer0.bias")]
    sides = [np.tanh(x.numpy() @ first[0].T + first[1]) for x in (no, yes)]
    return *(head[name].numpy() for name in LAST), *sides


def test_the_first_step_of_the_head_is_along_the_difference_of_the_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """From zero, the gradient of the logistic loss is half of what each side's mean is off the middle, twice."""
    weight, bias, no, yes = _told_apart(SMALL, 1, monkeypatch)
    middle = (no.mean(axis=0) + yes.mean(axis=0)) / 2
    curvature = sum(((side - middle) ** 2).sum(axis=1).mean() for side in (no, yes)) / 8
    rising = (yes.mean(axis=0) - no.mean(axis=0)) / 4 / curvature
    np.testing.assert_allclose(weight, [-rising / 2, rising / 2], rtol=1e-9)
    np.testing.assert_allclose(bias, [rising @ middle / 2, -rising @ middle / 2], rtol=1e-9)


def test_the_head_comes_to_logistic_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-learn's, both classes of equal weight, without intercept from the middle of the two means."""
    weight, _, no, yes = _told_apart(SMALL, 20_000, monkeypatch)
    middle = (no.mean(axis=0) + yes.mean(axis=0)) / 2
    oracle = LogisticRegression(C=1e9, class_weight="balanced", fit_intercept=False, tol=1e-8, max_iter=10_000)
    oracle.fit(np.concatenate([no, yes]) - middle, np.repeat([0, 1], [len(no), len(yes)]))
    np.testing.assert_allclose(weight[1] - weight[0], oracle.coef_[0], rtol=1e-2, atol=1e-2)


def test_a_dead_model_gets_a_head_of_zeros() -> None:
    model = build(ModelChoice(name="mlp", hidden=(5,)), (FEATURES,), CLASSES)
    params = {name: torch.zeros_like(value) for name, value in model.init(torch_generator(1, "init")).items()}
    head = fitted_head(model, params, torch.ones((3, FEATURES)), torch.zeros((2, FEATURES)))
    assert tuple(head) == last_layer(model)
    assert all(not value.any() for value in head.values())


# In a federation

TABLE = {"source": "diabetes", "clients": 4, "candidates": 200, "population": 100, "test": 40}
PLAN = MultiTask(name="multi_task", weight=0.5)
GAME = BatchGame(name="batches", column="sex", value="1", records=6)


def _scenario(**changes: Any) -> Scenario:
    return worlds.scenario(**({"data": TABLE, "worlds": 4} | changes))


def _drawn(chosen: Scenario, plan: MultiTask = PLAN, share: float = 1.0) -> tuple[Draw, Draw]:
    """The worlds of the game, without and with the adversary."""
    game = GAME.model_copy(update={"share": share})
    drawn = draw(chosen, worlds.pool(chosen), game, frozenset({1}))
    return drawn, with_adversary(drawn, plan, frozenset({"client:1"}))


def _events(job: Job, index: int = 0) -> list[Event]:
    seen: list[Event] = []
    run_world(job, index, worlds.setup(job), spare=seen.append)
    return seen


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_it_knows_public_records_with_and_without_the_property_and_nothing_of_the_rounds(share: float) -> None:
    chosen = _scenario()
    pool, (drawn, acting) = worlds.pool(chosen), _drawn(chosen, share=share)
    public = pool.x[pool.population]
    has = np.asarray(pool.columns["sex"]).astype(str)[pool.population] == "1"
    main = [acting.worlds[int(w)] for w in acting.exams[0].worlds]
    actor = main[0].adversary
    assert actor is not None
    assert actor.others is not None
    for records, wanted in ((actor.targets, True), (actor.others, False)):
        assert len(records)
        for x in records.x:
            assert (has[(public == x).all(axis=1)] == wanted).all()
    assert all(world.adversary is actor for world in main)  # the same, whatever the coins of the world
    assert [dataclasses.replace(world, adversary=None) for world in acting.worlds] == list(drawn.worlds)


def test_the_planted_property_is_what_it_learns_where_the_leak_is_planted() -> None:
    chosen = _scenario()
    _, acting = _drawn(chosen)
    planted = next(each for each in acting.exams if each.kind == "planted")
    actor = acting.worlds[int(planted.worlds[0])].adversary
    assert actor is not None
    assert actor.others is not None
    assert isinstance(planted.ask, BatchAsk)
    assert len(actor.targets) == planted.ask.yes.size
    assert set(actor.targets.y) == {0}
    assert set(actor.others.y) == {1}


def test_it_sends_the_models_arrays_alone_and_acts_in_its_rounds_only() -> None:
    """Round 1 is honest, so all clients answer as without it; in round 2 its answer is another, and nobody else's."""
    chosen = _scenario(dtype="float64")
    drawn, acting = _drawn(chosen, MultiTask(name="multi_task", every=2))
    passive, active = (_events(worlds.job(chosen, worlds=each.worlds)) for each in (drawn, acting))
    notes = [event for event in active if event.kind == ACT]
    assert [(e.round, e.sender, e.receiver, dict(e.facts)) for e in notes] == [
        (2, "client:1", "client:1", {"weight": 0.5})
    ]
    shapes = {name: array.shape for name, array in passive[0].arrays.items()}
    for event in active:
        assert event.kind == ACT or {name: array.shape for name, array in event.arrays.items()} == shapes

    def replies(events: list[Event], number: int) -> dict[str, Event]:
        return {event.sender: event for event in events if event.kind == "train-reply" and event.round == number}

    for number, others in ((1, set[str]()), (2, {"client:1"})):
        before, after = replies(passive, number), replies(active, number)
        differ = {
            party
            for party in before
            if any(not np.array_equal(array, after[party].arrays[name]) for name, array in before[party].arrays.items())
        }
        assert differ == others
        assert all(set(before[p].facts) == set(after[p].facts) for p in before)
        assert all(before[p].facts["num-examples"] == after[p].facts["num-examples"] for p in before)


def test_without_weight_every_message_is_as_it_was() -> None:
    chosen = _scenario(worlds=2, dtype="float64")
    passive, active = (
        [event for event in _events(worlds.job(chosen, worlds=each.worlds)) if event.kind != ACT]
        for each in _drawn(chosen, MultiTask(name="multi_task", weight=0.0))
    )
    assert digest(active) == digest(passive)


def _acting() -> Job:
    chosen = _scenario(worlds=3, controls={"planted_worlds": 0}, federation={"rounds": 4}, dtype="float64")
    return worlds.job(chosen, worlds=_drawn(chosen)[1].worlds)


def test_it_comes_to_the_same_on_every_engine_however_worlds_are_cut() -> None:
    job = _acting()

    def ran(engine: EngineName, **options: Any) -> dict[int, WorldResult]:
        return dict(run_worlds(job, range(3), engine=engine, **options))

    serial, together, cut = ran("serial"), ran("lockstep"), ran("lockstep", workers=2)
    for index in range(3):
        assert together[index].transcript == cut[index].transcript
        assert together[index].model == cut[index].model
        np.testing.assert_allclose(serial[index].utility, together[index].utility, atol=1e-10)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the ray extra")
@pytest.mark.filterwarnings("ignore")  # Ray and Flower's simulation raise warnings of their own
def test_flowers_engine_gives_the_same_bytes() -> None:
    job = _acting()
    serial, ray = (run_world(job, 0, worlds.setup(job), engine) for engine in ("serial", "ray"))
    assert (serial.transcript, serial.model) == (ray.transcript, ray.model)


# From a scenario


def _loaded(tmp_path: Path, audit: str, model: str = "{name: mlp, hidden: [8]}", rounds: int = 4) -> Loaded:
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\n"
        "data: {source: diabetes, clients: 4, candidates: 200}\n"
        f"model: {model}\n"
        f"federation: {{rounds: {rounds}}}\n"
        "audits:\n"
        f"  - {{name: a, {audit}}}\n",
        encoding="utf-8",
    )
    return load(str(path), known=known())


ASKS = "game: {name: batches, column: sex, value: '1'}, attacks: [batch_property_models]"
ACTS = "adversary: {name: multi_task}"


@pytest.mark.parametrize(
    ("audit", "model", "says"),
    [
        (f"vantage: server, {ASKS}, {ACTS}", None, "multi_task is an act of a participant"),
        (f"vantage: 'client:0', {ASKS}, {ACTS}", None, "client 0 knows its own batches"),
        (f"vantage: 'client:1', attacks: [loss], {ACTS}", None, "acts in the game batches, and this audit's is record"),
        (f"vantage: 'client:1', {ASKS}, adversary: {{name: label_poisoning}}", None, "multi_task in batches"),
        (f"vantage: 'client:1', {ASKS}, {ACTS}", "{name: softmax}", "hidden layers .* the model is softmax; use mlp"),
        (f"vantage: 'client:1', {ASKS}, {ACTS}", "{name: mlp, hidden: []}", "the model is mlp without any"),
        (f"vantage: 'client:1', {ASKS}, {ACTS.replace('}', ', every: 4}')}", None, "every: got 4, .* at most 3"),
        (f"vantage: 'client:1', {ASKS}, {ACTS.replace('}', ', weight: 1.5}')}", None, "weight"),
    ],
)
def test_where_it_cannot_act_says_so_in_one_line(tmp_path: Path, audit: str, model: str | None, says: str) -> None:
    with pytest.raises(ScenarioError, match=says) as raised:
        _loaded(tmp_path, audit, model or "{name: mlp, hidden: [8]}")
    assert "\n" not in str(raised.value)
    assert "s.yaml:6" in str(raised.value)


def test_a_server_that_looks_may_have_a_client_that_acts(tmp_path: Path) -> None:
    audit = ASKS.replace("batch_property_models", "batch_property")
    plan = _loaded(tmp_path, f"vantage: server+client:1, {audit}, {ACTS}").scenario.audits[0].adversary
    assert plan == PLAN
