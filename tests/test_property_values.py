"""What may be a property: a value, bounds on numbers, or what a function of the user's own says of a record."""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from attacks import ATTACKS
from fedsim import cli, report
from fedsim.data import Computed, Dataset, Pool, load_dataset, with_computed
from fedsim.errors import ScenarioError
from fedsim.games import draw, title
from fedsim.games.holders import with_properties, with_property
from fedsim.prepare import prepare
from fedsim.scenario import BatchGame, ClientPropertyGame, Data, PropertyGame, Span, property_words
from fedsim.scenario_file import Loaded, dump, load, located
from fedsim.tables import known, own_columns
from tests import worlds

TABLE = {"source": "diabetes", "clients": 4, "candidates": 180, "population": 100, "test": 40}


@pytest.fixture(scope="module")
def pool() -> Pool:
    """The 442 patients, aged 19 to 79, and their ages as text beside."""
    found = worlds.pool(worlds.scenario(data=TABLE))
    text = np.array([f"{age:g}" for age in found.columns["age"]])
    half = np.where(text == "40", "?", text)
    return worlds.with_columns(found, words=text, gaps=half, old=found.columns["age"] > 60, same=np.ones(len(text)))


# Bounds.


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["above", "at_least", None]),
    st.sampled_from(["below", "at_most", None]),
    st.integers(19, 45),
    st.integers(1, 30),
)
def test_bounds_hold_whom_they_say(pool: Pool, low: str | None, high: str | None, at: int, wide: int) -> None:
    """By Python's own comparisons, record by record; of numbers and of numbers in words alike."""
    ends = ({low: at} if low else {}) | ({high: at + wide} if high else {})
    if not ends:
        return
    span = Span.model_validate(ends)
    compare: dict[str, Callable[[float, float], bool]] = {
        "above": float.__gt__,
        "at_least": float.__ge__,
        "below": float.__lt__,
        "at_most": float.__le__,
    }
    wanted = [all(compare[end](float(age), float(bound)) for end, bound in ends.items()) for age in pool.columns["age"]]
    if not any(wanted) or all(wanted):
        with pytest.raises(ScenarioError, match=r"^audits: (every|no) record has age .*; values here: 19 to 79$"):
            with_property(pool, "age", span)
        return
    assert with_property(pool, "age", span).tolist() == wanted
    assert with_property(pool, "words", span).tolist() == wanted


def test_one_number_is_itself_and_true_is_true(pool: Pool) -> None:
    age = pool.columns["age"]
    for value in ("40", "40.0", Span(at_least=40, at_most=40)):
        np.testing.assert_array_equal(with_property(pool, "age", value), age == 40)
    for told in (True, "true", "True"):
        np.testing.assert_array_equal(with_property(pool, "old", told), age > 60)
    np.testing.assert_array_equal(with_property(pool, "old", False), age <= 60)
    both = with_properties(pool, {"sex": "1", "age": Span(below=30)})
    np.testing.assert_array_equal(both, (pool.columns["sex"] == "1") & (age < 30))


def test_every_game_draws_by_bounds(pool: Pool) -> None:
    """Half or a tenth of a world's records, a half of some clients' and all of some batches are of people under 45."""
    young, span = pool.columns["age"] < 45, {"below": 45}
    chosen = worlds.scenario(data=TABLE, worlds=4)
    drawn = draw(
        chosen,
        pool,
        PropertyGame.model_validate(
            {"name": "property", "column": "age", "value": span, "shares": (0.5, 0.1), "records": 40}
        ),
        frozenset(),
    )
    for place, secret in zip(drawn.exams[0].worlds, drawn.exams[0].members[:, 0], strict=True):
        assert young[np.concatenate(drawn.worlds[place].rows)].sum() == (4 if secret else 20)
    clients = {"name": "client_property", "column": "age", "value": span, "records": 10}
    drawn = draw(chosen, pool, ClientPropertyGame.model_validate(clients), frozenset())
    for place, members in zip(drawn.exams[0].worlds, drawn.exams[0].members, strict=True):
        assert [young[rows].sum() for rows in drawn.worlds[place].rows] == [5 * int(member) for member in members]
    batches = {"name": "batches", "column": "age", "value": span, "records": 6}
    drawn = draw(chosen, pool, BatchGame.model_validate(batches), frozenset())
    for place, members in zip(drawn.exams[0].worlds, drawn.exams[0].members, strict=True):
        told = drawn.worlds[place].batches
        assert told is not None
        assert [young[rows].mean() for rows in told[1]] == members.astype(float).tolist()


def test_names_of_games_tell_properties_apart_and_are_what_they_were() -> None:
    """Randomness is derived from them: a property that is a value keeps its worlds."""
    sex = PropertyGame(name="property", column="sex", value="1", records=24)
    assert title(sex) == "property:sex=1:0.5:0.2:24"
    assert title(ClientPropertyGame(name="client_property", column="a", value="b")) == "client_property:a=b:0.5:None"
    assert title(BatchGame(name="batches", column="a", value="b")) == "batches:0:a=b:1:None"
    spans = (Span(above=1), Span(at_least=1), Span(above=1, below=2), Span(above=1.0000001), Span(above=10_000_001))
    assert len({property_words("age", span) for span in (*spans, Span(above=10_000_002))}) == 6
    assert property_words("age", Span(at_least=20, below=40.5)) == "age at least 20 and below 40.5"
    assert property_words("ill", True) == "ill=true"


SCENARIO = """\
name: ages
data: {source: diabetes, candidates: 200, clients: 2, population: 100, test: 40}
model: {name: softmax}
federation: {rounds: 2}
worlds: 6
controls: {planted_worlds: 0}
audits:
  - name: age
    attacks: [property_loss]
    game:
      name: property
      column: age
      value: {at_least: 50}
      shares: [0.5, 0.2]
      records: 60
"""


def _read(path: Path, overrides: Sequence[str]) -> None:
    loaded = load(str(path), overrides, known=known())
    try:
        prepare(loaded, ATTACKS, worlds.RECIPES)
    except ScenarioError as error:
        raise located(error, loaded) from None


def refusal(folder: Path, old: str, new: str, *overrides: str) -> str:
    """The line with which a scenario is refused when it is read or prepared, from the line's number on."""
    path = folder / "ages.yaml"
    assert old in SCENARIO
    path.write_text(SCENARIO.replace(old, new))
    with pytest.raises(ScenarioError) as caught:
        _read(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{path}:")


KEYS = "above, at_least, below, at_most"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("{abov: 40}", f"13: audits.0.game.value.abov: unknown key; keys here are {KEYS}; did you mean above?"),
        ("{above: old}", "13: audits.0.game.value.above: got 'old'; allowed: a number or null"),
        ("40", f"13: audits.0.game.value: got 40; allowed: text or true or false or a mapping {{{KEYS}}}"),
        ("{}", "13: audits.0.game.value: got no bound; give `above` or `at_least`, `below` or `at_most`, or one of"),
        ("{above: 3, at_least: 4}", "13: audits.0.game.value: got above 3 and at least 4; give one of"),
        ("{above: 40, below: 40}", "13: audits.0.game.value: got above 40 and below 40, which no number is"),
        ("{at_least: 41, at_most: 40}", "13: audits.0.game.value: got at least 41 and at most 40, which no number is"),
        ("{above: 79}", "10: audits.0.game: no record has age above 79, so there is no secret; values here: 19 to 79"),
        ("{above: 18.5}", "10: audits.0.game: every record has age above 18.5, so there is no secret; values here: 19"),
        ('"forty"', "10: audits.0.game: column 'age' has no value 'forty'; values here: 19 to 79"),
        ("true", "10: audits.0.game: column 'age' has no value 'true'; values here: 19 to 79"),
    ],
)
def test_bounds_that_mean_nothing_are_refused_in_one_line(tmp_path: Path, given: str, says: str) -> None:
    assert refusal(tmp_path, "{at_least: 50}", given).startswith(says)


def test_what_stands_in_where_is_named_too(tmp_path: Path) -> None:
    pair = "column: age\n      value: {at_least: 50}"
    assert refusal(tmp_path, pair, "where: {sex: '1', age: {under: 3}}").startswith(
        "12: audits.0.game.where.age.under: unknown key; keys here are"
    )
    said = refusal(tmp_path, pair, "where: {sex: '1', age: {below: 20}, bone: x}")
    assert "there is no column 'bone'; columns here: age, sex (one of your own: `--property" in said
    assert "got 3; allowed: text or true or false or a mapping" in refusal(tmp_path, pair, "where: {sex: 3}")
    said = refusal(tmp_path, "name: ages", "name: ages", "audits.0.game.value={above: 90}")
    assert "no record has age above 90" in said


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"gaps": Span(above=50)}, "column 'gaps' cannot be compared with numbers, for not all it holds are numbers"),
        ({"old": Span(above=0)}, "column 'old' cannot be compared with numbers"),
        ({"same": "1"}, "every record has same=1, so there is no secret; values here: 1"),
        ({"age": Span(below=30), "old": True}, "no record has age below 30 & old=true, though some have each part"),
        ({"label": "1"}, "the label of a record says whether it has label=1, and every world has as many records of"),
    ],
)
def test_what_cannot_be_a_property_is_refused(pool: Pool, parts: dict[str, Any], says: str) -> None:
    columns = {**pool.columns, "label": pool.y.astype(str)}
    with pytest.raises(ScenarioError) as caught:
        with_properties(dataclasses.replace(pool, columns=columns), parts)
    assert str(caught.value).startswith(f"audits: {says}")


def test_a_label_is_seen_through_wrong_labels() -> None:
    """A column with the true class is refused although some records are trained on with another."""
    chosen = worlds.scenario(data={**TABLE, "mislabelled": 20})
    found = worlds.pool(chosen)
    truth = load_dataset(chosen.data).y[found.source_rows]
    assert (truth != found.y).sum() > 20
    with pytest.raises(ScenarioError, match="ask about labels with the game labels"):
        with_property(worlds.with_columns(found, truth=truth), "truth", "1")


def test_bounds_and_truths_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "ages.yaml"
    path.write_text(SCENARIO.replace("column: age\n      value: {at_least: 50}", "where: {age: {above: 2}, old: true}"))
    first = load(str(path), known=known()).scenario
    path.write_text(dump(first))
    assert load(str(path), known=known()).scenario == first
    assert isinstance(first.audits[0].game, PropertyGame)
    assert first.audits[0].game.parts == {"age": Span(above=2), "old": True}
    with pytest.raises(ValidationError, match="got column; a property is"):
        PropertyGame(name="property", column="age")
    assert PropertyGame(name="property", column="old", value=False).parts == {"old": False}


def test_the_page_says_bounds_in_words() -> None:
    for value, words in (
        (Span(at_least=20, below=40.5), "“age” at least 20 and below 40.5"),
        (True, "“age” = “true”"),
        ("2", "“age” = “2”"),
    ):
        assert report._is("age", value.model_dump(mode="json") if isinstance(value, Span) else value) == words


# Functions of the user's own.


def computed(compute: Callable[..., Any], name: str = "mine") -> Computed:
    return Computed(name, compute, "file.py:function", "0" * 64)


@pytest.fixture(scope="module")
def patients() -> Dataset:
    return load_dataset(Data(source="diabetes", candidates=4))


def test_a_function_sees_what_the_source_gives_and_adds_a_column(patients: Dataset) -> None:
    def stout(x: Any, y: Any, columns: Any) -> Any:
        """Body mass at 30 or more, by the published range 10 to 50; and ill, and of one sex."""
        return (x[:, patients.feature_names.index("bmi")] >= 0.5) & (y == 1) & (columns["sex"] == "1")

    found = with_computed(patients, [computed(stout), computed(lambda x, _y, _c: ["a"] * len(x), "letter")])
    bmi = patients.features[:, patients.feature_names.index("bmi")]
    np.testing.assert_array_equal(
        found.columns["mine"], (bmi >= 0.5) & (patients.y == 1) & (patients.columns["sex"] == "1")
    )
    assert set(found.columns) == {"age", "sex", "mine", "letter"}
    assert found.digest == patients.digest, "the digest is the source's"
    assert not found.columns["mine"].flags.writeable


@pytest.mark.parametrize(
    ("compute", "says"),
    [
        (lambda x, _y, _c: x[:, 0] > np.median(x[:, 0]), "gave a record another value when it stood among other"),
        (lambda x, _y, _c: np.random.default_rng().random(len(x)), "gave a record another value"),
        (lambda _x, y, _c: y[:3], "gave an array of shape (3,); expected one value a record, (442,) here"),
        (lambda _x, _y, _c: True, "gave an array of shape (); expected one value a record"),
        (lambda x, _y, _c: [None] * len(x), "gave values of type object; expected numbers, text, or booleans"),
        (lambda x, _y, _c: np.full(len(x), np.inf), "gave inf; expected finite numbers"),
        (lambda _x, _y, c: c["bmi"], "failed: KeyError: 'bmi'"),
        (lambda x, _y, _c: x.sort(), "failed: ValueError: sort array is read-only"),
        (lambda _x, _y, _c: sys.exit(3), "failed: SystemExit: 3"),
        (lambda: 1, "failed: TypeError:"),
    ],
)
def test_a_function_that_says_nothing_of_a_record_is_refused(
    patients: Dataset, compute: Callable[..., Any], says: str
) -> None:
    with pytest.raises(ScenarioError) as caught:
        with_computed(patients, [computed(compute)])
    assert str(caught.value).startswith(f"--property mine=file.py:function: {says}")


@pytest.mark.parametrize("name", ["age", "visual"])
def test_a_name_that_is_taken_is_refused(patients: Dataset, name: str) -> None:
    with pytest.raises(ScenarioError, match=f"--property {name}: the data have a column of this name; choose another"):
        with_computed(patients, [computed(lambda _x, y, _c: y, name)])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["old"], "--property old: expected NAME=FILE.py:FUNCTION, such as old=traits.py:over_forty"),
        (["old=traits.py"], "--property old=traits.py: expected NAME=FILE.py:FUNCTION"),
        (["o d=traits.py:old"], "expected NAME=FILE.py:FUNCTION"),
        (["old=absent.py:old"], "--property old=absent.py:old: cannot read absent.py: No such file or directory"),
        (["old=.:old"], "cannot read .: Is a directory"),
        (["old=broken.py:old"], "--property old=broken.py:old: cannot load broken.py: SyntaxError: "),
        (["old=leaves.py:old"], "cannot load leaves.py: SystemExit: 1"),
        (["old=traits.py:young"], "--property old=traits.py:young: traits.py defines no function 'young'"),
        (["old=traits.py:LIMIT"], "traits.py defines no function 'LIMIT'"),
        (["old=traits.py:old", "old=traits.py:old"], "the name old stands twice; names of columns must differ"),
    ],
)
def test_what_is_no_file_with_a_function_is_refused(
    options: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("traits.py").write_text(TRAITS)
    Path("limits.py").write_text("AGE = 50\n")
    Path("broken.py").write_text("def old(:\n")
    Path("leaves.py").write_text("raise SystemExit(1)\n")
    with pytest.raises(ScenarioError) as caught:
        own_columns(options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


TRAITS = """\
from limits import AGE
LIMIT = 3
def old(x, y, columns):
    return columns["age"] >= AGE
"""
MINE = SCENARIO.replace("column: age\n      value: {at_least: 50}", "column: old\n      value: true")


def test_a_run_by_a_function_says_which_and_needs_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a user would: a file beside the scenario, check, run, the report, and the run's own scenario once more."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "limits", raising=False)
    Path("traits.py").write_text(TRAITS)
    Path("limits.py").write_text("AGE = 50\n")
    Path("mine.yaml").write_text(MINE)
    option = ["--property", "old=traits.py:old"]
    assert cli.main(["check", "mine.yaml", "--workers", "1"]) == cli.BAD_INPUT
    said = capsys.readouterr().err
    assert said.startswith(
        "error: mine.yaml:10: audits.0.game: there is no column 'old'; columns here: age, sex (one of"
    )
    assert cli.main(["run", "mine.yaml", *option, "--workers", "1", "--out", "run", "--quiet"]) == 0
    record = json.loads(Path("run/results.json").read_text())
    (own,) = record["provenance"]["properties"]
    assert (own["name"], own["function"], len(own["sha256"])) == ("old", "traits.py:old", 64)
    page = Path("run/report.html").read_text()
    assert "“old” = “true”" in page
    assert f"computed by traits.py:old, SHA-256 of the file <code>{own['sha256']}" in page
    capsys.readouterr()
    assert cli.main(["run", "run/scenario.yaml", "--workers", "1"]) == cli.BAD_INPUT
    assert "there is no column 'old'" in capsys.readouterr().err
    again = ["run", "run/scenario.yaml", *option, "--workers", "1", "--engine", "serial", "--out", "again", "--quiet"]
    assert cli.main(again) == 0
    findings = [json.loads(Path(name, "results.json").read_text())["findings"] for name in ("run", "again")]
    assert findings[0] == findings[1]


def test_another_function_makes_other_worlds(tmp_path: Path) -> None:
    """What an interrupted run kept is found by the pool, and the pool holds what the function said."""
    loaded = Loaded(load(str(_written(tmp_path)), known=known()).scenario, {}, tmp_path / "mine.yaml", {})

    def prepared(limit: int) -> Any:
        column = computed(lambda _x, _y, columns: columns["age"] >= limit, "old")
        return prepare(loaded, ATTACKS, worlds.RECIPES, [column])

    one, same, other = prepared(50), prepared(50), prepared(51)
    assert one.pool.digest == same.pool.digest != other.pool.digest
    assert one.pool.source_digest == other.pool.source_digest
    old = one.pool.columns["age"] >= 50
    main = one.trials[0].main
    for place, secret in zip(main.worlds, main.members[:, 0], strict=True):
        assert old[np.concatenate(one.trials[0].draw.worlds[place].rows)].sum() == (12 if secret else 30)


def _written(folder: Path) -> Path:
    path = folder / "mine.yaml"
    path.write_text(MINE)
    return path
