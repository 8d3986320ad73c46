"""Known answers of the attacks on who holds a record and on who took part: slow loops that keep every message."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from attacks import ATTACKS, source
from attacks.labels import label_counts
from fedsim.attack import Attack, fold
from fedsim.errors import NotVisible
from fedsim.run import execute
from fedsim.scenario_file import load
from fedsim.tables import known, recipes
from fedsim.transcript import SERVER, Arrays, Event, client, frozen
from fedsim.views import ClientAsk, Floats, LabelAsk, Records, SourceAsk, softmax
from tests.leaky_worlds import CLIENTS, Study, World, apply, client_study, source_study, view

OF_SOURCES = [attack for attack in ATTACKS.values() if attack.game == "source"]
SOURCES = pytest.mark.parametrize("attack", OF_SOURCES, ids=lambda attack: attack.name)


def asked(study: Study) -> SourceAsk:
    assert isinstance(study.ask, SourceAsk)
    return study.ask


def without(world: World, absent: set[tuple[int, int]]) -> tuple[Event, ...]:
    """Return the events of a world in which these clients are not there in these rounds: (client, round)."""
    gone = {(client(index), number) for index, number in absent}
    return tuple(e for e in world.events if not {(e.sender, e.round), (e.receiver, e.round)} & gone)


def rounds_of(events: tuple[Event, ...]) -> list[tuple[Arrays, dict[int, Arrays]]]:
    """Return for each round the broadcast and the clients' models."""
    found = []
    for number in sorted({event.round for event in events if event.kind == "train"}):
        here = [event for event in events if event.round == number]
        broadcast = next(event.arrays for event in here if event.kind == "train")
        models = {int(e.sender.split(":")[1]): e.arrays for e in here if e.kind == "train-reply"}
        found.append((broadcast, models))
    return found


def loss(model: Arrays, items: Records, item: int) -> float:
    """Return the cross-entropy of one record, by torch."""
    parameters = {name: torch.tensor(value) for name, value in model.items()}
    logits = apply(parameters, torch.tensor(items.x[item : item + 1], dtype=torch.float64))
    return float(F.cross_entropy(logits, torch.tensor(items.y[item : item + 1])))


def gradient(model: Arrays, items: Records, item: int) -> Floats:
    """Return the gradient of one record's loss as one vector, by autograd."""
    parameters = {name: torch.tensor(value, requires_grad=True) for name, value in model.items()}
    logits = apply(parameters, torch.tensor(items.x[item : item + 1], dtype=torch.float64))
    F.cross_entropy(logits, torch.tensor(items.y[item : item + 1])).backward()  # type: ignore[no-untyped-call]
    return np.concatenate([value.grad.numpy().ravel() for value in parameters.values() if value.grad is not None])


def cosine(a: Floats, b: Floats) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


ABSENT = {(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 3)}  # client 0 never comes; in round 3 only client 1 does


@pytest.mark.parametrize("absent", [set(), ABSENT], ids=["all", "some"])
def test_source_loss_is_the_lowest_other_loss_minus_the_alleged_owners(absent: set[tuple[int, int]]) -> None:
    study = source_study(0, worlds=1, items=12, features=6)
    events, items = without(study.worlds[0], absent), asked(study).items
    expected = np.zeros(len(items))
    for item in range(len(items)):
        margins = []
        for _, models in rounds_of(events):
            losses = {index: loss(model, items, item) for index, model in models.items()}
            own = losses.pop(int(items.owner[item]), None)
            if own is not None and losses:
                margins.append(min(losses.values()) - own)
        expected[item] = np.mean(margins) if margins else np.nan
    found = fold(source.SOURCE_LOSS, study.setup, study.ask, events, study.worlds[0].released)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert np.isnan(found).sum() == (3 if absent else 0)


@pytest.mark.parametrize("absent", [set(), ABSENT], ids=["all", "some"])
def test_source_cosine_is_the_own_cosine_minus_the_mean_of_the_others(absent: set[tuple[int, int]]) -> None:
    study = source_study(1, worlds=1, items=12, features=6)
    events, items = without(study.worlds[0], absent), asked(study).items
    expected = np.zeros(len(items))
    for item in range(len(items)):
        margins = []
        for broadcast, models in rounds_of(events):
            moved = {
                index: np.concatenate([np.subtract(broadcast[name], model[name]).ravel() for name in broadcast])
                for index, model in models.items()
            }
            angles = {index: cosine(gradient(broadcast, items, item), each) for index, each in moved.items()}
            own = angles.pop(int(items.owner[item]), None)
            if own is not None and angles:
                margins.append(own - np.mean(list(angles.values())))
        expected[item] = np.mean(margins) if margins else np.nan
    found = fold(source.SOURCE_COSINE, study.setup, study.ask, events, study.worlds[0].released)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    assert np.isnan(found).sum() == (3 if absent else 0)


def test_source_labels_is_the_share_of_the_label_and_nothing_else() -> None:
    """One full-batch step from zero: the last bias gives the true label counts of every client exactly."""
    study = source_study(2, worlds=1, items=40)
    setup = dataclasses.replace(study.setup, rounds=1, local_epochs=1)
    items = asked(study).items
    owner = np.random.default_rng(0).integers(CLIENTS, size=len(items))
    start = frozen({"layer0.weight": np.zeros((4, 60)), "layer0.bias": np.zeros(4)})
    events, held = [], []
    for index in range(CLIENTS):
        mine = owner == index
        error = softmax(np.zeros((mine.sum(), 4))) - np.eye(4)[items.y[mine]]
        moved = {"layer0.weight": -0.3 * error.T @ items.x[mine] / mine.sum(), "layer0.bias": -0.3 * error.mean(axis=0)}
        events.append(Event(1, "train", SERVER, client(index), start, {}))
        held.append(int(mine.sum()))
        facts = {"num-examples": held[-1]}
        events.append(Event(1, "train-reply", client(index), SERVER, frozen(moved), facts))
    counts = np.array([np.bincount(items.y[owner == index], minlength=4) for index in range(CLIENTS)])
    found = fold(source.SOURCE_LABELS, setup, study.ask, events, study.worlds[0].released)
    # The answers to public records are taken at both ends of the step; at the far end they have moved a little.
    replies, about = [e.arrays for e in events if e.kind == "train-reply"], LabelAsk(0, asked(study).population, 4)
    estimate = np.array(
        [label_counts(setup, about, start, reply, float(size)) for reply, size in zip(replies, held, strict=True)]
    )
    np.testing.assert_allclose(found, estimate[items.owner, items.y] / estimate.sum(axis=0)[items.y], rtol=1e-9)
    np.testing.assert_allclose(found, counts[items.owner, items.y] / counts.sum(axis=0)[items.y], atol=0.05)
    elsewhere = dataclasses.replace(items, x=np.roll(items.x, 1, axis=0))
    others = dataclasses.replace(asked(study), items=elsewhere)
    again = fold(source.SOURCE_LABELS, setup, others, events, study.worlds[0].released)
    assert again.tobytes() == found.tobytes()  # it never looks at the record


@SOURCES
def test_masked_updates_show_no_source(attack: Attack) -> None:
    study = source_study(3, worlds=1)
    masked = [
        dataclasses.replace(event, arrays=frozen({"masked": np.zeros(244, dtype=np.uint32)}))
        if event.kind == "train-reply"
        else event
        for event in study.worlds[0].events
    ]
    with pytest.raises(NotVisible):
        fold(attack.signal, study.setup, study.ask, masked, study.worlds[0].released)


def test_labels_cannot_be_counted_without_the_number_of_examples_or_public_records() -> None:
    study = source_study(3, worlds=1)
    hidden = [dataclasses.replace(event, facts={}) for event in study.worlds[0].events]
    with pytest.raises(NotVisible, match="no readable updates"):
        fold(source.SOURCE_LABELS, study.setup, study.ask, hidden, study.worlds[0].released)
    ask = asked(study)
    nobody = Records(ask.population.x[:0], ask.population.y[:0], ask.population.owner[:0])
    alone = dataclasses.replace(ask, population=nobody)
    with pytest.raises(NotVisible, match="no public records"):
        fold(source.SOURCE_LABELS, study.setup, alone, study.worlds[0].events, study.worlds[0].released)


@SOURCES
def test_order_of_the_questions_does_not_matter(attack: Attack) -> None:
    study = source_study(4, worlds=1)
    items = asked(study).items
    order = np.random.default_rng(2).permutation(len(items))
    turned = dataclasses.replace(asked(study), items=Records(items.x[order], items.y[order], items.owner[order]))
    world = study.worlds[0]
    before, after = (fold(attack.signal, study.setup, ask, world.events, world.released) for ask in (study.ask, turned))
    np.testing.assert_allclose(after, before[order], rtol=1e-6, atol=1e-9)


@SOURCES
def test_at_most_about_ten_rounds_are_looked_at(attack: Attack) -> None:
    """What an update of a round that is passed over says makes no difference."""
    study = source_study(5, worlds=1)
    setup = dataclasses.replace(study.setup, rounds=25)  # every third round
    world = study.worlds[0]
    garbled = tuple(
        dataclasses.replace(event, arrays=frozen({name: value + 1 for name, value in event.arrays.items()}))
        if event.kind == "train-reply" and event.round in (1, 2, 4)
        else event
        for event in world.events
    )
    whole, part = (fold(attack.signal, setup, study.ask, events, world.released) for events in (world.events, garbled))
    assert (whole.tobytes() == part.tobytes()) == (attack.name != "source_labels")  # which takes the first few


def test_a_client_is_judged_by_the_mean_over_its_own_records() -> None:
    study = client_study(0, worlds=2, clients=5, each=4, features=6)
    assert isinstance(study.ask, ClientAsk)
    sample = study.ask.sample
    for world in study.worlds:
        p = world.released(sample.x).probabilities
        assert p is not None
        own = p[np.arange(len(sample)), sample.y]
        for name, values in (("client_loss", -np.log(own)), ("client_lira", np.log(own / (1 - own)))):
            found = fold(ATTACKS[name].signal, study.setup, study.ask, view(world, "public"), world.released)
            expected = [values[4 * place : 4 * place + 4].mean() for place in range(4)]
            np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_who_takes_part_is_read_from_training_messages_alone() -> None:
    study = client_study(1, worlds=1)
    world, attack = study.worlds[0], ATTACKS["taking_part"]
    judged = Event(1, "evaluate-reply", client(1), SERVER, {}, {})
    everybody = tuple(dataclasses.replace(judged, sender=client(index)) for index in range(9))
    for events in (world.events, (*world.events, *everybody), tuple(e for e in world.events if e.sender == SERVER)):
        found = fold(attack.signal, study.setup, study.ask, events, world.released)
        np.testing.assert_array_equal(found, world.members.astype(float))
    masked = tuple(dataclasses.replace(event, arrays={}, facts={}) for event in world.events)
    found = fold(attack.signal, study.setup, study.ask, masked, world.released)
    np.testing.assert_array_equal(found, world.members.astype(float))


def test_whole_runs_find_sources_and_clients_and_secure_aggregation_hides_the_sources(tmp_path: Path) -> None:
    """What must be found lies far above; null and blind controls fail by chance in about 5 % of other seeds in all."""
    attacks = [attack.name for attack in OF_SOURCES]
    settings = {
        "name": "whose",
        "seed": 1,
        "data": {"source": "digits", "clients": 4, "candidates": 80, "population": 100, "test": 50},
        "model": {"name": "softmax"},
        "federation": {"rounds": 4, "local": {"epochs": 10, "batch_size": 8, "learning_rate": 0.3}},
        "worlds": 12,
        "audits": [
            {"name": "whose", "game": "source", "vantage": "server", "attacks": attacks},
            {"name": "masked", "game": "source", "vantage": "server", "attacks": attacks, "setup": "secret"},
            {"name": "who", "game": {"name": "client"}, "vantage": "server", "attacks": ["client_loss", "taking_part"]},
        ],
        "setups": [{"name": "secret", "secure_aggregation": {"protocol": "ideal"}}],
        "controls": {"planted_worlds": 6, "planted_rounds": 6},
    }
    path = tmp_path / "whose.yaml"
    path.write_text(json.dumps(settings))
    loaded = load(str(path), known=known())
    outcome = execute(
        loaded,
        ATTACKS,
        recipes(),
        out=tmp_path / "run",
        engine="lockstep",
        workers=1,
        progress=lambda _done, _total, _text: None,
    )
    assert load(str(tmp_path / "run" / "scenario.yaml"), known=known()).scenario == loaded.scenario
    found = {(finding.audit, finding.attack): finding for finding in outcome.record.findings}
    assert all(found["masked", name].status == "not visible" for name in attacks)
    for audit, name, least in (
        ("whose", "source_loss", 0.6),
        ("whose", "source_cosine", 0.6),
        ("who", "taking_part", 1.0),
    ):
        finding = found[audit, name]
        area = finding.metrics["auc"].estimate
        assert area is not None
        assert area >= least
        assert finding.controls["null"].passed
        assert finding.controls["blind"].passed is not False
        assert name == "taking_part" or finding.controls["planted"].passed
