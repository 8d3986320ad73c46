"""Transcripts on disk: what is read is what was written, to the bit, or a clear error; and it stays on disk."""

import hashlib
import json
import mmap
import os
import re
import shutil
import tempfile
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from attacks import ATTACKS
from fedsim import tape
from fedsim.attack import fold
from fedsim.engine import run_world
from fedsim.errors import NotVisible, RunError
from fedsim.games import draw
from fedsim.job import Probe
from fedsim.release import released
from fedsim.scenario import Release
from fedsim.transcript import SERVER, Event, Fact, digest, frozen
from fedsim.views import parse_vantage, visible
from fedsim.watch import public_facts
from fedsim.world import asked_from
from tests import worlds


def _record(folder: Path, events: Iterable[Event]) -> Path:
    recorder = tape.Recorder(folder)
    try:
        for event in events:
            recorder.add(event)
        recorder.finish()
    except BaseException:
        recorder.discard()
        raise
    return folder


def _some_events() -> list[Event]:
    rng = np.random.default_rng(0)
    broadcast, final = (frozen({"w": rng.standard_normal((3, 2)), "b": np.arange(3)}) for _ in range(2))
    replies = [frozen({"w": rng.standard_normal((3, 2)).astype(np.float32)}) for _ in range(2)]
    sent = [Event(1, "train", SERVER, f"client:{k}", broadcast, {"lr": 0.1}) for k in range(2)]
    back = [Event(1, "train-reply", f"client:{k}", SERVER, replies[k], {"num-examples": 3 + k}) for k in range(2)]
    return [*sent, *back, Event(1, "final", SERVER, SERVER, final, {})]


# What was written

FLOATS = st.floats(allow_nan=False)  # a NaN, which is not equal to itself, is in an example of its own
SCALARS = st.one_of(FLOATS, st.integers(), st.text(), st.booleans(), st.binary())
FACTS = st.one_of(SCALARS, st.lists(SCALARS, max_size=3).map(tuple))
DTYPES = st.one_of(
    npst.floating_dtypes(endianness="?"),
    npst.integer_dtypes(endianness="?"),
    npst.complex_number_dtypes(),
    npst.boolean_dtypes(),
    npst.unicode_string_dtypes(min_len=1, max_len=3),
    npst.byte_string_dtypes(min_len=1, max_len=3),
)


@st.composite
def _models(draw: st.DrawFn) -> Any:
    """Arrays of any sort, with their axes in any order in memory."""
    arrays = {}
    for name in draw(st.lists(st.text(), max_size=3, unique=True)):
        array = draw(npst.arrays(DTYPES, npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)))
        arrays[name] = array.transpose(draw(st.permutations(range(array.ndim))))
    return frozen(arrays)


PARTIES = st.one_of(st.just(SERVER), st.text())
EVENTS = st.builds(Event, st.integers(), st.text(), PARTIES, PARTIES, _models(), st.dictionaries(st.text(), FACTS))


@settings(deadline=None, max_examples=60)
@given(st.lists(EVENTS, max_size=3))
def test_what_is_read_is_what_was_written(events: list[Event]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        again = list(tape.read(_record(Path(folder) / "world", events)))
        assert digest(again) == digest(events)
        for one, other in zip(again, events, strict=True):
            words = (one.round, one.kind, one.sender, one.receiver, repr(list(one.facts.items())))
            assert words == (other.round, other.kind, other.sender, other.receiver, repr(list(other.facts.items())))
            assert list(one.arrays) == list(other.arrays)
            for name, array in one.arrays.items():
                assert (array.dtype, array.shape) == (other.arrays[name].dtype, other.arrays[name].shape)
                assert array.tobytes() == other.arrays[name].tobytes()


def test_numbers_that_equal_nothing_or_each_other_stay_what_they_are(tmp_path: Path) -> None:
    array = np.array([np.nan, -0.0, np.inf, np.uint64(0x7FF8000000000001).view(np.float64)])
    facts: Mapping[str, Fact] = {
        "nan": float("nan"),
        "inf": (float("-inf"), -0.0),
        "one": 1,
        "true": True,
        "float": 1.0,
        "none": (),
    }
    event = Event(1, "train", SERVER, "client:0", frozen({"w": array}), facts)
    (again,) = tape.read(_record(tmp_path / "world", [event]))
    assert repr(again.facts) == repr(facts)
    assert again.arrays["w"].tobytes() == array.tobytes()


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 2, 1, 0)], ids=["plain", "channels last", "Fortran"])
def test_arrays_keep_their_order_in_memory(axes: tuple[int, ...], tmp_path: Path) -> None:
    """A sum runs along memory, so another order would change last digits."""
    array = np.arange(120.0).reshape(2, 3, 4, 5).transpose(axes).copy()
    array = array.transpose(np.argsort(axes))
    event = Event(1, "train", SERVER, "client:0", frozen({"w": array}), {})
    (again,) = tape.read(_record(tmp_path / "world", [event]))
    assert again.arrays["w"].strides == array.strides
    assert np.array_equal(again.arrays["w"], array)


def test_part_of_an_array_can_be_written_too(tmp_path: Path) -> None:
    """Events hold read-only views, which may have gaps, run backwards or repeat themselves."""
    whole = np.arange(24.0).reshape(4, 6)
    views = {"gaps": whole[::2, 1:4], "backwards": whole[::-1], "repeated": np.broadcast_to(whole[0], (3, 6))}
    (again,) = tape.read(_record(tmp_path / "world", [Event(1, "train", SERVER, "client:0", views, {})]))
    assert all(np.array_equal(again.arrays[name], view) for name, view in views.items())


@pytest.mark.parametrize("array", [np.array([None, {}]), np.zeros(2, "f4,i4"), np.zeros(2, "M8[s]")])
def test_an_array_that_is_more_than_its_bytes_is_refused(array: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be kept"):
        _record(tmp_path / "world", [Event(1, "train", SERVER, "client:0", {"w": array}, {})])
    assert not (tmp_path / "world").exists()


def test_what_names_say_is_never_a_path(tmp_path: Path) -> None:
    for name in ("../escaped", "/tmp/escaped", "a/b", "..", "\0", "a\nb", "con", "events.jsonl"):
        event = Event(1, name, name, name, frozen({name: np.zeros(1)}), {name: name})
        (again,) = tape.read(_record(tmp_path / "deep" / "world", [event]))
        assert (again.kind, again.sender, again.receiver, list(again.arrays), dict(again.facts)) == (
            (name, name, name, [name], {name: name})
        )
        found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
        assert found == {"deep", "deep/world", "deep/world/arrays.bin", "deep/world/events.jsonl"}


# On disk


def _mapped(array: Any) -> bool:
    while array.base is not None and not isinstance(array.base, mmap.mmap):
        array = array.base
    return isinstance(array.base, mmap.mmap)


def test_arrays_are_read_only_views_of_the_file(tmp_path: Path) -> None:
    for event in tape.read(_record(tmp_path / "world", _some_events())):
        for array in event.arrays.values():
            assert isinstance(array, np.memmap)
            assert _mapped(array)
            assert array.ctypes.data % tape.ALIGN == 0
            assert not array.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


def test_what_the_server_sends_to_many_is_on_disk_and_in_memory_once(tmp_path: Path) -> None:
    model = frozen({"w": np.arange(1000.0)})
    sent = [Event(1, "train", SERVER, f"client:{k}", model, {}) for k in range(50)]
    reply = [Event(1, "train-reply", f"client:{k}", SERVER, frozen({"w": np.arange(1000.0)}), {}) for k in range(3)]
    folder = _record(tmp_path / "world", [*sent, *reply])
    assert 4 * 8000 <= (folder / tape.ARRAYS).stat().st_size <= 4 * (8000 + tape.ALIGN) + tape.ALIGN
    again = list(tape.read(folder))
    assert len({id(event.arrays["w"]) for event in again[:50]}) == 1
    assert len({id(event.arrays["w"]) for event in again[50:]}) == 3


def test_a_fold_over_a_long_tape_holds_little_of_it_and_writing_one_too(tmp_path: Path) -> None:
    """100 models of a megabyte go by; at no time are more than a few in memory."""

    def events() -> Iterator[Event]:
        for number in range(100):
            model = frozen({"w": np.full(2**17, float(number))})
            yield Event(number, "train-reply", "client:0", SERVER, model, {"loss": 1.0})

    def peak(work: Callable[[], float]) -> tuple[float, int]:
        tracemalloc.start()
        try:
            return work(), tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def write() -> float:
        _record(tmp_path / "world", events())
        return 0.0

    assert peak(write)[1] < 5 * 2**20
    total, taken = peak(lambda: sum(float(event.arrays["w"][-1]) for event in tape.read(tmp_path / "world")))
    assert total == sum(range(100))
    assert taken < 2**19


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files where the system shows them")
def test_any_number_of_worlds_can_be_recorded_side_by_side(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    recorders = [tape.Recorder(tmp_path / f"{number}") for number in range(20)]
    for event in _some_events():
        for recorder in recorders:
            recorder.add(event)
    assert len(os.listdir("/proc/self/fd")) == before
    for recorder in recorders:
        recorder.finish()
    assert all(digest(tape.read(tmp_path / f"{k}")) == digest(_some_events()) for k in range(20))


# Whole or not there


def test_a_tape_appears_when_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "transcripts" / "world"
    recorder = tape.Recorder(folder)
    recorder.add(_some_events()[0])
    assert not folder.exists()
    assert not tape.finished(folder)
    recorder.finish()
    assert tape.finished(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["world"]


def test_a_world_given_up_leaves_no_tape(tmp_path: Path) -> None:
    recorder = tape.Recorder(tmp_path / "world")
    recorder.add(_some_events()[0])
    recorder.discard()
    assert not list(tmp_path.iterdir())


def test_after_a_crash_the_world_is_recorded_anew(tmp_path: Path) -> None:
    """A process that is killed can tidy nothing; what it left is in nobody's way."""
    tape.Recorder(tmp_path / "world").add(_some_events()[0])
    assert not tape.finished(tmp_path / "world")
    _record(tmp_path / "world", _some_events())
    assert digest(tape.read(tmp_path / "world")) == digest(_some_events())


def test_the_newest_tape_of_a_world_counts_even_where_two_runs_record_it(tmp_path: Path) -> None:
    one, other = tape.Recorder(tmp_path / "world"), tape.Recorder(tmp_path / "world")
    for event in _some_events():
        one.add(event)
        other.add(event)
    other.add(_some_events()[0])
    one.finish()
    assert digest(tape.read(tmp_path / "world")) == digest(_some_events())
    other.finish()
    assert len(list(tape.read(tmp_path / "world"))) == len(_some_events()) + 1
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_what_is_not_a_tape_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("folder", "file"):
        with pytest.raises(RunError, match=f"^cannot write the transcript .*{name}: "):
            _record(tmp_path / name, _some_events())
    assert (tmp_path / "folder" / "thesis.tex").read_text() == (tmp_path / "file").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "file"}
    with pytest.raises(RunError, match=r"^cannot write the transcript .*world: Not a directory$"):
        _record(tmp_path / "file" / "world", _some_events())


def test_where_there_is_no_tape_the_reader_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("nowhere", "empty"):
        with pytest.raises(RunError, match=f"^cannot read the transcript .*{name}: No such file"):
            tape.read(tmp_path / name)


# Damage


def _damaged(folder: Path) -> bool:
    """Whether the reader says, in one line, that the tape is damaged; else it must be what was written."""
    try:
        found = digest(tape.read(folder))
    except RunError as error:
        return (
            re.fullmatch(
                rf"the transcript {re.escape(str(folder))} is damaged \([^\n]*\); remove it and run its world again",
                str(error),
            )
            is not None
        )
    assert found == digest(_few_events())
    return False


def _few_events() -> list[Event]:
    return [_some_events()[0], _some_events()[2]]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _record(tmp_path_factory.mktemp("tapes") / "world", _few_events())


def _copy(small: Path, folder: Path, name: str, content: bytes) -> Path:
    shutil.copytree(small, folder)
    (folder / name).write_bytes(content)
    return folder


def test_any_changed_byte_of_the_index_is_noticed(small: Path, tmp_path: Path) -> None:
    content = (small / tape.EVENTS).read_bytes()
    folder = _copy(small, tmp_path / "world", tape.EVENTS, content)
    for place in range(len(content)):
        changed = bytes([content[place] ^ 1])
        (folder / tape.EVENTS).write_bytes(content[:place] + changed + content[place + 1 :])
        assert _damaged(folder), place


def test_any_changed_byte_of_an_array_is_noticed(small: Path, tmp_path: Path) -> None:
    """Padding belongs to no array: there the tape may stay what it was."""
    content = (small / tape.ARRAYS).read_bytes()
    folder = _copy(small, tmp_path / "world", tape.ARRAYS, content)
    damaged = 0
    for place in range(len(content)):
        changed = bytes([content[place] ^ 1])
        (folder / tape.ARRAYS).write_bytes(content[:place] + changed + content[place + 1 :])
        damaged += _damaged(folder)
    assert damaged == len(tape.HEADER) + sum(array.nbytes for event in _few_events() for array in event.arrays.values())


@pytest.mark.parametrize("name", [tape.EVENTS, tape.ARRAYS])
def test_a_file_cut_short_or_too_long_is_noticed_before_the_first_event(name: str, small: Path, tmp_path: Path) -> None:
    content = (small / name).read_bytes()
    folder = _copy(small, tmp_path / "world", name, content)
    sizes = (*range(0, len(content), 7), len(content) - 1)
    for wrong in (*(content[:size] for size in sizes), content + b"\0", content + b"\n", content * 2):
        (folder / name).write_bytes(wrong)
        with pytest.raises(RunError, match="is damaged"):
            tape.read(folder)


def test_lines_that_no_recorder_wrote_are_damage_even_under_a_right_seal(small: Path, tmp_path: Path) -> None:
    good = json.loads((small / tape.EVENTS).read_bytes().splitlines()[0])
    offset, dtype, shape, axes, checksum = good["arrays"]["w"]
    wrong: list[Any] = [
        5,
        [],
        None,
        {"kind": "train"},
        good | {"arrays": 3},
        good | {"arrays": {"w": [offset, dtype]}},
        good | {"facts": {"x": {"base64": "?"}}},
        good | {"facts": {"x": {}}},
        *(
            good | {"arrays": {"w": place}}
            for place in (
                [10**30, dtype, shape, axes, checksum],
                [-1, dtype, shape, axes, checksum],
                [offset, "O", shape, axes, checksum],
                [offset, "no such", shape, axes, checksum],
                [offset, dtype, [10**30], axes, checksum],
                [offset, dtype, [-1, 2], axes, checksum],
                [offset, dtype, [2], [0], checksum],
                [offset, dtype, shape, [0, 0], checksum],
                [offset, dtype, shape, [0, 7], checksum],
                [[0], dtype, shape, axes, checksum],
            )
        ),
    ]
    size = (small / tape.ARRAYS).stat().st_size
    for number, content in enumerate(wrong):
        line = json.dumps(content).encode() + b"\n"
        seal = json.dumps({"bytes": size, "sha256": hashlib.sha256(line).hexdigest()}).encode() + b"\n"
        assert _damaged(_copy(small, tmp_path / f"{number}", tape.EVENTS, line + seal)), content


# The same signals

VANTAGES = ("public", "client:2", "server")
SIGNALS = {attack.signal: name for name, attack in ATTACKS.items() if attack.game == "record"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"release": Release(access="white_box"), "federation": {"evaluate_clients": True, "rounds": 2}},
        {"release": Release.model_validate({"output": "top_k", "k": 2}), "dtype": "float64"},
    ],
    ids=["black box", "white box, evaluated", "largest two, float64"],
)
def test_signals_of_a_tape_are_those_of_the_live_run_to_the_bit(changes: dict[str, Any], tmp_path: Path) -> None:
    chosen = worlds.scenario(**changes)
    drawn = draw(chosen, worlds.pool(chosen), "record", frozenset())
    vantages = [parse_vantage(text, 4) for text in VANTAGES]
    probes = [
        Probe(
            f"{vantage}/{exam.kind}/{name}",
            vantage,
            asked_from(exam.ask, vantage.clients),
            signal,
            frozenset(exam.worlds.tolist()),
        )
        for vantage in vantages
        for exam in drawn.exams
        for signal, name in SIGNALS.items()
    ]
    job = worlds.job(chosen, probes, vantages, drawn.worlds)
    setup, folder = worlds.setup(job), tmp_path / "transcripts" / "0-00000"
    events: list[Event] = []
    recorder = tape.Recorder(folder)

    def spare(event: Event) -> None:
        events.append(event)
        recorder.add(event)

    left = run_world(job, 0, setup, spare=spare)
    recorder.finish()
    assert digest(tape.read(folder)) == digest(events)
    public = public_facts(setup, job.worlds[0])
    *_, last = tape.read(folder)
    oracle = released(public, last.arrays, chosen.release)
    measured = 0
    for probe in probes:
        if 0 not in probe.worlds:
            continue
        try:
            again = fold(probe.signal, public, probe.ask, visible(probe.vantage, tape.read(folder)), oracle)
        except NotVisible as reason:
            assert left.not_visible[probe.name] == str(reason)  # noqa: PT017
            continue
        assert again.tobytes() == left.signals[probe.name].tobytes(), probe.name
        measured += 1
    assert measured == len(left.signals) > len(SIGNALS)
