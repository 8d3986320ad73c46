"""Small leaky federations for the tests of attacks: softmax regression, full-batch descent, messages made by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from fedsim.attack import Attack, Bools, fold, score
from fedsim.canaries import Canaries, direction
from fedsim.randomness import generator
from fedsim.transcript import ACT, SERVER, Event, client, frozen
from fedsim.vectors import shaped
from fedsim.views import (
    Answer,
    Ask,
    BatchAsk,
    CanaryAsk,
    ClientAsk,
    ClientPropertyAsk,
    DistinguishAsk,
    Floats,
    LabelAsk,
    Oracle,
    Parameters,
    PropertyAsk,
    Public,
    RecordAsk,
    Records,
    SourceAsk,
    Vantage,
    softmax,
    visible,
    white_box,
)

CLIENTS, ROUNDS, EPOCHS, RATE = 4, 4, 10, 0.3


def apply(parameters: Parameters, x: torch.Tensor) -> torch.Tensor:
    """Return the logits of softmax regression."""
    return x @ parameters["layer0.weight"].T + parameters["layer0.bias"]


def public(classes: int, rounds: int = ROUNDS, epochs: int = EPOCHS, batch: int = 10**6) -> Public:
    """Return what everybody knows of these federations."""
    return Public(classes, CLIENTS, rounds, apply, epochs, batch, RATE, "sgd")


@dataclass(frozen=True)
class World:
    """One finished federation: its messages, what the public may query, and its secrets."""

    events: tuple[Event, ...]
    released: Oracle
    members: Bools


Party = tuple[NDArray[np.float32], NDArray[np.int64]]


def run(
    setup: Public, parties: Sequence[Party], features: int, members: Bools, batches: Sequence[Records] = ()
) -> World:
    """Return the world in which `parties` train together from zero, all of them in every round. batches: what one more
    client, which comes first, trains on in each round.
    """
    fixed = parties
    model = {"layer0.weight": np.zeros((setup.classes, features)), "layer0.bias": np.zeros(setup.classes)}
    events = []
    for number in range(1, setup.rounds + 1):
        broadcast, replies = frozen(model), []
        parties = [(batches[number - 1].x, batches[number - 1].y), *fixed] if batches else fixed
        events += [Event(number, "train", SERVER, client(index), broadcast, {}) for index in range(len(parties))]
        for index, (x, y) in enumerate(parties):
            replies.append(_descend(setup, model, x, y))
            facts = {"num-examples": len(y)}
            events.append(Event(number, "train-reply", client(index), SERVER, frozen(replies[-1]), facts))
        weights = np.array([len(y) for _, y in parties]) / sum(len(y) for _, y in parties)
        model = {name: sum(w * reply[name] for w, reply in zip(weights, replies, strict=True)) for name in model}
    events.append(Event(setup.rounds, "final", SERVER, SERVER, frozen(model), {}))
    return World(tuple(events), white_box(setup, model), members)


def _descend(
    setup: Public, model: dict[str, Floats], x: NDArray[np.float32], y: NDArray[np.int64]
) -> dict[str, Floats]:
    weight, bias = model["layer0.weight"], model["layer0.bias"]
    for _ in range(setup.local_epochs):
        error = softmax(x @ weight.T + bias) - np.eye(setup.classes)[y]
        weight, bias = weight - RATE * error.T @ x / len(y), bias - RATE * error.mean(axis=0)
    return {"layer0.weight": weight, "layer0.bias": bias}


@dataclass(frozen=True)
class Study:
    """Several worlds of one game and what is asked of each."""

    setup: Public
    ask: Ask
    worlds: tuple[World, ...]

    @property
    def members(self) -> Bools:
        """Secrets [worlds, items]."""
        return np.stack([world.members for world in self.worlds])


def record_study(
    seed: int, worlds: int = 12, items: int = 80, features: int = 60, classes: int = 4, population: int = 150
) -> Study:
    """Return half-split worlds whose labels are pure noise: what the model knows of them it has memorised."""
    rng = generator(seed, "records")

    def draw(count: int, owners: bool) -> Records:
        x = rng.standard_normal((count, features)).astype(np.float32)
        owner = np.arange(count) % CLIENTS if owners else np.full(count, -1)
        return Records(x, rng.integers(classes, size=count), owner.astype(np.int64))

    ask, setup = RecordAsk(draw(items, True), draw(population, False)), public(classes)
    results = []
    for _ in range(worlds):
        members = rng.permuted(np.arange(items) % 2 == 0)
        held = [members & (ask.items.owner == index) for index in range(CLIENTS)]
        results.append(run(setup, [(ask.items.x[mask], ask.items.y[mask]) for mask in held], features, members))
    return Study(setup, ask, tuple(results))


def sparse_study(seed: int, worlds: int = 12, items: int = 80, features: int = 120, classes: int = 4) -> Study:
    """Return half-split worlds of records with few of many features, whose labels are pure noise."""
    rng = generator(seed, "sparse records")

    def draw(count: int, owners: bool) -> Records:
        x = (rng.random((count, features)) < 0.04).astype(np.float32)
        owner = np.arange(count) % CLIENTS if owners else np.full(count, -1)
        return Records(x, rng.integers(classes, size=count), owner.astype(np.int64))

    ask, setup = RecordAsk(draw(items, True), draw(60, False)), public(classes)
    results = []
    for _ in range(worlds):
        members = rng.random(items) < 0.5  # coins: how many are in says something about each
        held = [members & (ask.items.owner == index) for index in range(CLIENTS)]
        results.append(run(setup, [(ask.items.x[mask], ask.items.y[mask]) for mask in held], features, members))
    return Study(setup, ask, tuple(results))


def noted(given: Study) -> Study:
    """Return the same worlds with what an active server would note at the start of each round: whom it singles out."""

    def with_notes(world: World) -> World:
        events: list[Event] = []
        for event in world.events:
            if event.kind == "train" and (not events or event.round != events[-1].round):
                aims = {"victim": (event.round - 1) % CLIENTS, "group": 0, "groups": 1}
                events.append(Event(event.round, ACT, SERVER, SERVER, event.arrays, aims))
            events.append(event)
        return replace(world, events=tuple(events))

    return replace(given, worlds=tuple(with_notes(world) for world in given.worlds))


def property_study(seed: int, worlds: int = 24, size: int = 120) -> Study:
    """Return worlds of two populations in which the label follows another feature for records with the property."""
    rng = generator(seed, "property")

    def draw(count: int, share: float) -> Records:
        x = rng.standard_normal((count, 4)).astype(np.float32)
        has = rng.random(count) < share
        return Records(x, np.where(has, x[:, 0] > 0, x[:, 1] > 0).astype(np.int64), np.full(count, -1))

    setup, results = public(2), []
    for answer in rng.random(worlds) < 0.5:  # independent coins: exact halves would give the last secret away
        parts = [draw(size // CLIENTS, 0.7 if answer else 0.3) for _ in range(CLIENTS)]
        results.append(run(setup, [(part.x, part.y) for part in parts], 4, np.array([answer])))
    return Study(setup, PropertyAsk(draw(400, 0.3), draw(400, 0.7)), tuple(results))


def poisoned_study(seed: int, worlds: int = 24, size: int = 120, poison: int = 20) -> Study:
    """Return worlds in which a share of the records has a property that the last feature shows, and the first client
    says class 1 of further ones; what it does is noted in the server's name, like the acts of `noted`.
    """
    rng = generator(seed, "poisoned")

    def draw(has: Bools) -> Records:
        x = np.column_stack([rng.standard_normal((len(has), 3)), has]).astype(np.float32)
        return Records(x, (x[:, 0] > 0).astype(np.int64), np.full(len(has), -1))

    setup, results, holders = public(2), [], draw(np.ones(200, dtype=bool))
    for answer in rng.random(worlds) < 0.5:
        parts = [draw(rng.random(size // CLIENTS) < (0.6 if answer else 0.2)) for _ in range(CLIENTS)]
        held = [(part.x, part.y) for part in parts]
        held[0] = np.concatenate([held[0][0], holders.x[:poison]]), np.append(held[0][1], np.ones(poison, int))
        finished = run(setup, held, 4, np.array([answer]))
        note = Event(1, ACT, SERVER, SERVER, {}, {"label": 1, "records": poison})
        results.append(replace(finished, events=(note, *finished.events)))
    no, yes = (draw(rng.random(400) < share) for share in (0.2, 0.6))
    return Study(setup, PropertyAsk(no, yes, (0.2, 0.6), holders=holders), tuple(results))


def label_study(seed: int, worlds: int = 12, classes: int = 8) -> Study:
    """Return worlds in which client 0 holds a random half of the classes, and the others hold all. No feature is
    negative, as after a ReLU.
    """
    rng = generator(seed, "labels")
    centres = rng.standard_normal((classes, 10))

    def draw(labels: NDArray[np.int64]) -> Party:
        return np.abs(centres[labels] + rng.standard_normal((len(labels), 10))).astype(np.float32), labels

    setup, results = public(classes), []
    for _ in range(worlds):
        held = rng.permuted(np.arange(classes) < classes // 2)
        own = draw(rng.choice(np.flatnonzero(held), size=40))
        results.append(run(setup, [own, *(draw(rng.integers(classes, size=40)) for _ in range(CLIENTS - 1))], 10, held))
    x, y = draw(np.repeat(np.arange(classes), 20))
    return Study(setup, LabelAsk(0, Records(x, y, np.full(len(y), -1)), classes), tuple(results))


def canary_study(seed: int, worlds: int = 12, count: int = 8) -> Study:
    """Return worlds in which canary records that take part push their client's model in a coordinate, under noise."""
    rng = generator(seed, "canaries")
    setup, canaries = public(4), Canaries("record", "dirac", count, seed)
    shape = {"layer0.weight": (4, 10), "layer0.bias": (4,)}
    like, results = {name: np.zeros(size) for name, size in shape.items()}, []
    for _ in range(worlds):
        members = rng.random(count) < 0.5
        pushed = [
            sum(
                (direction(canaries, which, 44) for which in range(index, count, CLIENTS) if members[which]),
                np.zeros(44),
            )
            for index in range(CLIENTS)
        ]
        vector, events = np.zeros(44), []
        for number in range(1, setup.rounds + 1):
            replies = [vector - push + rng.normal(0.0, 0.5, 44) for push in pushed]
            sent = frozen(shaped(vector, like))
            for index, reply in enumerate(replies):
                events.append(Event(number, "train", SERVER, client(index), sent, {}))
                events.append(Event(number, "train-reply", client(index), SERVER, frozen(shaped(reply, like)), {}))
            vector = np.mean(replies, axis=0)
        model = frozen(shaped(vector, like))
        events.append(Event(setup.rounds, "final", SERVER, SERVER, model, {}))
        results.append(World(tuple(events), white_box(setup, model), members))
    return Study(setup, CanaryAsk(canaries, 0, count), tuple(results))


def source_study(seed: int, worlds: int = 12, items: int = 80, features: int = 60, classes: int = 4) -> Study:
    """Return worlds that all train on the same records with labels of pure noise, each at the client it is said to be
    at or at another.
    """
    rng = generator(seed, "sources")

    def draw(count: int, owner: NDArray[np.int64]) -> Records:
        return Records(
            rng.standard_normal((count, features)).astype(np.float32), rng.integers(classes, size=count), owner
        )

    alleged = np.arange(items) % CLIENTS
    ask, setup = SourceAsk(draw(items, alleged), draw(150, np.full(150, -1))), public(classes)
    results = []
    for _ in range(worlds):
        members = rng.random(items) < 0.5
        owner = np.where(members, alleged, (alleged + rng.integers(1, CLIENTS, items)) % CLIENTS)
        held = [owner == index for index in range(CLIENTS)]
        results.append(run(setup, [(ask.items.x[mask], ask.items.y[mask]) for mask in held], features, members))
    return Study(setup, ask, tuple(results))


def client_study(seed: int, worlds: int = 12, clients: int = 9, each: int = 12, features: int = 60) -> Study:
    """Return worlds in which the first client and half of the others take part; labels are pure noise."""
    rng = generator(seed, "clients")
    x = rng.standard_normal((clients * each, features)).astype(np.float32)
    y, owner = rng.integers(4, size=clients * each), np.repeat(np.arange(clients), each)
    setup = replace(public(4), clients=clients)
    results = []
    for _ in range(worlds):
        members = rng.permuted(np.arange(clients - 1) % 2 == 0)
        present = [0, *(1 + np.flatnonzero(members))]
        finished = run(setup, [(x[owner == index], y[owner == index]) for index in present], features, members)
        names = {client(place): client(int(index)) for place, index in enumerate(present)}
        events = tuple(
            replace(
                event, sender=names.get(event.sender, event.sender), receiver=names.get(event.receiver, event.receiver)
            )
            for event in finished.events
        )
        results.append(replace(finished, events=events))
    asked = owner > 0
    return Study(setup, ClientAsk(np.arange(1, clients), Records(x[asked], y[asked], owner[asked])), tuple(results))


def distinguish_study(seed: int, worlds: int = 12, each: int = 8, features: int = 60) -> Study:
    """Return worlds in which every client trains on one of its two sets of records, whose labels are pure noise."""
    rng = generator(seed, "sets")
    owner = np.repeat(np.arange(CLIENTS), each)

    def draw(owner: NDArray[np.int64]) -> Records:
        x = rng.standard_normal((len(owner), features)).astype(np.float32)
        return Records(x, rng.integers(4, size=len(owner)), owner)

    def train(
        arrays: Mapping[str, NDArray[np.generic]], x: NDArray[np.float32], y: NDArray[np.int64], _: np.random.Generator
    ) -> dict[str, Floats]:
        return _descend(setup, {name: np.asarray(array, np.float64) for name, array in arrays.items()}, x, y)

    setup = replace(public(4), train=train)
    sides, results = (draw(owner), draw(owner)), []
    for _ in range(worlds):
        members = rng.random(CLIENTS) < 0.5
        held = [(sides[int(secret)], owner == index) for index, secret in enumerate(members)]
        results.append(run(setup, [(side.x[mask], side.y[mask]) for side, mask in held], features, members))
    return Study(setup, DistinguishAsk(np.arange(CLIENTS), *sides, draw(np.full(10 * each, -1))), tuple(results))


def marked(rng: np.random.Generator, count: int, has: Bools, classes: int = 4) -> Records:
    """Return records, most of one class, whose features lie elsewhere where they have the property; one marks it."""
    centre = np.where(has[:, None], 1.0, -1.0) * np.linspace(0.3, 1, 12)
    x = np.concatenate([rng.standard_normal((count, 12)) + centre, has[:, None] * 1.0], axis=1)
    y = np.where(rng.random(count) < 0.6, 0, rng.integers(classes, size=count))
    return Records(x.astype(np.float32), y, np.full(count, -1))


def rehearsal(setup: Public) -> Public:
    """Return the same facts with the recipe ready to run."""

    def train(
        arrays: Mapping[str, NDArray[np.generic]], x: NDArray[np.float32], y: NDArray[np.int64], _: np.random.Generator
    ) -> dict[str, Floats]:
        return _descend(setup, {name: np.asarray(array, np.float64) for name, array in arrays.items()}, x, y)

    return replace(setup, train=train)


def practice(rng: np.random.Generator, has: Bools, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return places of record sets without the property, and of sets all of which have it."""
    no, yes = (rng.choice(np.flatnonzero(has == side), (16, size)) for side in (False, True))
    return no, yes


def client_property_study(seed: int, worlds: int = 24, each: int = 16) -> Study:
    """Return worlds in which all records of some clients have a property and none of the others'."""
    rng = generator(seed, "properties")
    has = np.arange(160) % 2 == 0
    population, setup, results = marked(rng, 160, has), rehearsal(public(4, epochs=2)), []
    for _ in range(worlds):
        members = rng.random(CLIENTS) < 0.5
        held = [marked(rng, each, np.full(each, secret)) for secret in members]
        results.append(run(setup, [(own.x, own.y) for own in held], 13, members))
    return Study(setup, ClientPropertyAsk(np.arange(CLIENTS), population, *practice(rng, has, each)), tuple(results))


def batch_study(seed: int, worlds: int = 12, each: int = 16, rounds: int = 12) -> Study:
    """Return worlds in which client 0 trains in some rounds on records that have a property, and never the others."""
    rng = generator(seed, "batches")
    has = np.arange(160) % 2 == 0
    population, setup, results = marked(rng, 160, has), rehearsal(public(4, rounds=rounds, epochs=2)), []
    for _ in range(worlds):
        members = rng.random(rounds) < 0.5
        others = [marked(rng, each, rng.random(each) < 0.5) for _ in range(CLIENTS - 1)]
        own = [marked(rng, each, np.full(each, secret)) for secret in members]
        results.append(run(setup, [(other.x, other.y) for other in others], 13, members, own))
    return Study(setup, BatchAsk(0, population, *practice(rng, has, each), rounds, has), tuple(results))


def view(world: World, vantage: str) -> tuple[Event, ...]:
    """Return the events that parties joined by + see."""
    return visible(Vantage(frozenset(vantage.split("+"))), world.events)


def signals(attack: Attack, study: Study, vantage: str = SERVER) -> Floats:
    """Return the signal of every world [worlds, rows, ...]."""
    folded = (
        fold(attack.signal, study.setup, study.ask, view(world, vantage), world.released) for world in study.worlds
    )
    return np.stack(list(folded))


def scores(
    attack: Attack, study: Study, measured: Floats, members: Bools, targets: Sequence[int] | None = None
) -> Floats:
    """Return the scores [worlds, items] with every world as a target, or only those listed."""
    chosen = np.isin(np.arange(len(study.worlds)), range(len(study.worlds)) if targets is None else targets)
    return score(attack, measured, members, chosen, ~np.eye(len(chosen), dtype=bool), study.ask, seed=0)


def hide(oracle: Oracle, release: str) -> Oracle:
    """Return the oracle behind an output policy: all probabilities, the largest two, or only the label."""

    def answer(x: NDArray[np.float32]) -> Answer:
        labels, whole = oracle(x)
        if release == "labels" or whole is None:
            return Answer(labels, None)
        if release == "top_k" and whole.shape[1] > 2:
            return Answer(labels, np.where(whole >= np.sort(whole, axis=1)[:, -2:-1], whole, np.nan))
        return Answer(labels, whole)

    return answer
