"""Vantages: a party is named as the events name it, or refused. Queries: what is remembered changes nothing but the
cost.
"""

import dataclasses
from collections import Counter
from multiprocessing.reduction import ForkingPickler
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks import ATTACKS
from fedsim import watch
from fedsim.engine import run_world
from fedsim.games import draw
from fedsim.job import Probe
from fedsim.scenario import Release
from fedsim.transcript import PUBLIC, SERVER, Arrays, Event, client, frozen
from fedsim.views import (
    BATCHES_KNOWN,
    MODELS_KNOWN,
    Parameters,
    Public,
    RecordAsk,
    Records,
    Vantage,
    parse_vantage,
    query,
    sees,
)
from fedsim.world import asked_from
from tests import worlds

CLIENTS = 12


@settings(deadline=None)
@given(st.sets(st.integers(0, CLIENTS - 1) | st.sampled_from([SERVER, PUBLIC]), min_size=1))
def test_every_party_that_is_named_sees_its_own_events(chosen: set[int | str]) -> None:
    names = [party if isinstance(party, str) else client(party) for party in chosen]
    vantage = parse_vantage(" + ".join([*names, names[0]]), CLIENTS)
    assert vantage == Vantage(frozenset(names))
    assert vantage.clients == {party for party in chosen if isinstance(party, int)}
    assert parse_vantage(str(vantage), CLIENTS) == vantage
    for name in names:
        assert sees(vantage, Event(1, "train-reply", name, "somebody", {}, {}))


@pytest.mark.parametrize(("text", "canonical"), [("client:00", "client:0"), ("server+client:03", "client:3")])
def test_leading_zeros_are_refused_with_the_name_that_is_meant(text: str, canonical: str) -> None:
    with pytest.raises(ValueError, match=rf"^no party '.*'; did you mean {canonical}\?$"):
        parse_vantage(text, CLIENTS)


ARABIC_THREE = "\N{ARABIC-INDIC DIGIT THREE}"


@pytest.mark.parametrize(
    "party",
    ["client:" + ARABIC_THREE, "client:12", "client:-1", "client:", "client", "", "Server", "client:" + "9" * 5000],
)
def test_a_party_that_is_not_there_is_refused(party: str) -> None:
    for text in (party, f"server+{party}"):
        with pytest.raises(ValueError, match=r"^no party .*; parties are public, server, client:0 \.\.\. client:11"):
            parse_vantage(text, CLIENTS)


def _linear(parameters: Parameters, x: torch.Tensor) -> torch.Tensor:
    return x @ parameters["w"].T


def _public(apply: Any = _linear) -> Public:
    return Public(3, 4, 3, apply, 1, 8, 0.1, "sgd")


def _counted(public: Public) -> tuple[Public, Counter[bytes]]:
    """The same, and how often each pair of a model and a batch went through the architecture."""
    passes: Counter[bytes] = Counter()

    def apply(parameters: Parameters, x: torch.Tensor) -> torch.Tensor:
        passes[b"".join(part.numpy().tobytes() for part in (*parameters.values(), x))] += 1
        return public.apply(parameters, x)

    return dataclasses.replace(public, apply=apply), passes


def _model(number: int) -> Arrays:
    return frozen({"w": np.random.default_rng(number).standard_normal((3, 5)).astype(np.float32)})


def _batch(number: int, count: int = 7) -> Any:
    x = np.random.default_rng([1, number]).standard_normal((count, 5)).astype(np.float32)
    x.setflags(write=False)
    return x


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=60))
def test_whatever_was_asked_before_an_answer_stays_the_same_and_few_are_kept(order: list[tuple[int, int]]) -> None:
    models, batches, public = [_model(m) for m in range(4)], [_batch(b) for b in range(10)], _public()
    for m, b in [*order, *((0, b) for b in range(10)), *((m, 0) for m in range(4))]:
        expected = _batch(b) @ models[m]["w"].T
        np.testing.assert_allclose(query(public, models[m], batches[b]), expected, rtol=0, atol=1e-5)
        assert query(public, models[m], batches[b]).tobytes() == query(_public(), models[m], batches[b]).tobytes()
        assert len(public.known) <= MODELS_KNOWN
        assert all(len(known.answers) <= BATCHES_KNOWN for known in public.known)


def test_two_models_asked_in_turn_about_the_same_records_answer_once_each() -> None:
    public, passes = _counted(_public())
    models, batches = [_model(0), _model(1)], [_batch(0), _batch(1), _batch(2)]
    for _ in range(5):
        for x in batches:
            for model in models:
                query(public, model, x)
    assert sorted(passes.values()) == [1] * 6


def test_a_model_that_answered_lately_is_not_the_one_forgotten() -> None:
    """Each vantage has its own last broadcast; the released model is between all of them."""
    public, passes = _counted(_public())
    released, x = _model(0), _batch(0)
    for number in (1, 2, 3):
        query(public, released, x)
        query(public, _model(number), x)
    assert sorted(passes.values()) == [1] * 4


def test_what_may_change_is_computed_each_time() -> None:
    public, x, model = _public(), np.ones((2, 5), dtype=np.float32), {"w": np.ones((3, 5), dtype=np.float32)}
    still, fixed = _batch(0), frozen(model)
    assert (query(public, fixed, x) == 5).all()
    x *= 2  # an attack that moves along a line needs one buffer only
    assert (query(public, fixed, x) == 10).all()
    before = query(public, model, still)
    model["w"] *= 2
    assert np.array_equal(query(public, model, still), 2 * before)
    shut = dict(frozen(model))
    before = query(public, shut, still)
    shut["w"] = np.array(shut["w"] * 2)
    shut["w"].setflags(write=False)
    assert np.array_equal(query(public, shut, still), 2 * before)
    assert np.array_equal(query(public, shut, still[:3]), 2 * before[:3])
    assert np.array_equal(query(public, shut, still[::-1]), 2 * before[::-1])


def test_a_model_is_not_kept_for_its_answers() -> None:
    public, x, model = _public(), _batch(0), _model(0)
    query(public, model, x)
    array = ref(model["w"])
    del model
    assert array() is None
    for number in range(5):  # a new model may get the memory of one that is gone
        assert query(public, _model(number), x).tobytes() == query(_public(), _model(number), x).tobytes()


def test_an_answer_is_shared_so_nobody_can_write_to_it() -> None:
    public = _public()
    with pytest.raises(ValueError, match="read-only"):
        query(public, _model(0), _batch(0))[0, 0] = 1


def test_another_architecture_knows_none_of_the_answers() -> None:
    public, x, model = _public(), _batch(0), _model(0)
    before = query(public, model, x)
    twice = dataclasses.replace(public, apply=lambda parameters, x: 2 * _linear(parameters, x))
    assert np.array_equal(query(twice, model, x), 2 * before)


def test_records_cannot_change_here_nor_in_a_worker_and_stay_shared_there() -> None:
    items, population = (Records(np.ones((2, 5), np.float32), np.zeros(2, int), np.arange(2)) for _ in range(2))
    ask = RecordAsk(items, population)
    hidden = asked_from(ask, frozenset({1}))
    assert isinstance(hidden, RecordAsk)
    sent: tuple[RecordAsk, RecordAsk] = ForkingPickler.loads(ForkingPickler.dumps((ask, hidden)))
    for one, other in ((ask, hidden), sent):
        assert one.items.x is other.items.x
        assert one.population is other.population
        for records in (one.items, other.items, one.population):
            assert not any(array.flags.writeable for array in (records.x, records.y, records.owner))
    assert sent[1].items.owner.tolist() == [0, -1]


SIGNALS = ("loss", "entropy", "modified_entropy", "confidence", "lira", "rmia", "gap", "loss_trajectory", "shokri")


@pytest.mark.parametrize("output", ["probabilities", "top_k", "label"])
def test_in_a_world_no_model_answers_twice_to_the_same_records(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many attacks, exams and vantages ask: among them noisy copies, and a trajectory through the rounds."""
    counts: list[Counter[bytes]] = []

    def counted(*given: Any) -> Public:
        public, passes = _counted(public_facts(*given))
        counts.append(passes)
        return public

    public_facts = watch.public_facts
    monkeypatch.setattr(watch, "public_facts", counted)
    chosen = worlds.scenario(release=Release.model_validate({"output": output}))
    drawn = draw(chosen, worlds.pool(chosen), "record", frozenset())
    vantages = [parse_vantage(text, 4) for text in ("public", "client:0", "server", "server+client:1")]
    probes = [
        Probe(
            f"{vantage}/{exam.kind}/{name}",
            vantage,
            asked_from(exam.ask, vantage.clients),
            ATTACKS[name].signal,
            frozenset(exam.worlds.tolist()),
        )
        for vantage in vantages
        for exam in drawn.exams
        for name in (*SIGNALS, *(["label_only"] if vantage == vantages[0] else []))
    ]
    job = worlds.job(chosen, probes, vantages, drawn.worlds)
    left = run_world(job, 0, worlds.setup(job))
    (passes,) = counts
    assert set(passes.values()) == {1}
    # Items of main and null and the population, by the released model and three broadcasts; noisy copies of the items.
    assert len(passes) == 3 * 4 + 2 * 100
    assert len(left.signals) + len(left.not_visible) == 2 * (len(vantages) * len(SIGNALS) + 1)
