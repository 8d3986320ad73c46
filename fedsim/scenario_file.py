"""Reading a scenario from disk: a `Scenario`, or one line that says where, what was found and what is allowed.

Three steps, each of which may refuse: `_parse` (YAML to plain values and the line of each), pydantic (types, ranges,
unknown keys) and `_semantic` (what names and numbers mean together; the names of attacks, strategies and sources arrive
as an argument).
"""

import difflib
import importlib.resources
import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import pydantic
import yaml

from fedsim.errors import ScenarioError
from fedsim.lint import lint, untried, without_public_records
from fedsim.scenario import (
    ACTS_AS,
    ACTS_IN,
    AdaptivePrivacy,
    Audit,
    BatchGame,
    CentralPrivacy,
    Claim,
    DifferenceClaim,
    DistinguishGame,
    EpsilonClaim,
    LabelGame,
    MetricClaim,
    Option,
    Plugin,
    PropertyGame,
    Scenario,
    in_setup,
)

FEWEST_PLANTED = 4  # each needs others as references, with the record asked about in some and out of some
LARGEST_FILE_BYTES = 1_000_000
DEEPEST_NESTING = 16

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Known:
    """The names a scenario may use. Options map a name to an `Option`, or to a default value where any will do."""

    attacks: Mapping[str, str]  # name -> game
    strategies: Mapping[str, Mapping[str, object]]  # name -> options
    mods: Mapping[str, Mapping[str, object]]  # name -> options
    sources: Collection[str]
    bounds: Collection[str] = ()
    follows: Mapping[str, Collection[str]] = field(default_factory=dict)  # attack -> adversaries, one of which must act
    adaptive: Mapping[str, Collection[str]] = field(default_factory=dict)  # defence -> attacks that know it
    needing_public: Collection[str] = ()  # attacks that cannot run without public records


@dataclass(frozen=True)
class Loaded:
    """A scenario and where it came from."""

    scenario: Scenario
    given: Mapping[str, Any]  # what was asked for: the file with `--set` and `--seed` applied, defaults not filled in
    path: Path
    places: Mapping[KeyPath, str]  # key path -> "file:line", or the option of the command line that set it


class _Problem(NamedTuple):
    """Something wrong at a place in the scenario."""

    path: KeyPath
    message: str


def load(path_or_name: str, overrides: Sequence[str] = (), seed: int | None = None, *, known: Known) -> Loaded:
    """Return the scenario in a file, or the shipped one of that name, with the overrides applied.

    Args:
        path_or_name: path of a YAML file, or the name of a shipped scenario, such as "quickstart".
        overrides: "a.b.c=value" each, the value in YAML; list items by number, e.g. "audits.0.vantage=server".
        seed: replaces the scenario's seed.
        known: the names a scenario may use.

    Raises ScenarioError with one line, `path:line: key: what was found; what is allowed`.
    """
    path = _find(path_or_name)
    data, places = _parse(_text(path), lambda line: f"{_printable(str(path))}:{line}")
    if not isinstance(data, dict):
        raise ScenarioError(f"{places[()]}: a scenario is a mapping (`key: value`), got {_shown(data)}")
    changed = [_override(data, text) for text in overrides]
    if seed is not None:
        data["seed"] = seed
        changed.append((("seed",), f"--seed {seed}"))
    for place, option in changed:
        places = {place: option} | {other: where for other, where in places.items() if other[: len(place)] != place}
    try:
        scenario = Scenario.model_validate_json(json.dumps(data))
    except pydantic.ValidationError as error:
        raise _error(_structural(error, data), places) from None
    if problems := list(_semantic(scenario, known)):
        raise _error(problems, places)
    return Loaded(scenario, data, path, places)


def located(error: ScenarioError, loaded: Loaded) -> ScenarioError:
    """Return `error` with the place in front where its message starts with a key ("data.label: ...")."""
    key = str(error).partition(":")[0]
    path = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
    return ScenarioError(f"{loaded.places[_known_part(path, loaded.places)]}: {error}") if _schemas(path) else error


def warnings(loaded: Loaded, known: Known) -> list[str]:
    """Return what weakens the privacy that a scenario describes, or its proof: `path:line: key: what is wrong; the
    remedy` each.
    """
    found = [remark for remark in lint(loaded.scenario) if remark.level == "warning"]
    found += untried(loaded.scenario, known.adaptive, known.attacks)
    found += without_public_records(loaded.scenario, known.needing_public)
    order = list(loaded.places)
    found.sort(key=lambda remark: order.index(_known_part(remark.place, loaded.places)))
    return [f"{loaded.places[_known_part(each.place, loaded.places)]}: {_dotted(each.place)}: {each}" for each in found]


def dump(scenario: Scenario) -> str:
    """Return the effective scenario, defaults filled in, as YAML that loads back to an equal scenario."""
    data = scenario.model_dump(mode="json")
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))


def shipped() -> dict[str, Path]:
    """Return the scenarios that ship with fedsim: name -> file."""
    files = importlib.resources.files("scenarios").iterdir()
    return {Path(file.name).stem: Path(str(file)) for file in sorted(files, key=str) if file.name.endswith(".yaml")}


def describe(path: Path) -> str:
    """Return the description in a scenario file."""
    data, _ = _parse(_text(path), lambda line: f"{path}:{line}")
    return str(data.get("description", "")) if isinstance(data, dict) else ""


def nearest(name: str, names: Collection[str]) -> str:
    """Return "; did you mean X?" for the name in `names` that is closest to `name`, or nothing."""
    folded = {candidate.lower().replace("-", "_"): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower().replace("-", "_"), list(folded), n=1, cutoff=0.6)
    return f"; did you mean {folded[close[0]]}?" if close else ""


# Reading YAML


def _find(path_or_name: str) -> Path:
    """Return the file that is meant."""
    path = Path(path_or_name)
    if path.is_file():
        return path
    if path_or_name in shipped():
        return shipped()[path_or_name]
    if path.is_dir():
        raise ScenarioError(f"{_printable(path_or_name)}: is a folder; a scenario is a YAML file")
    hint = nearest(path_or_name, shipped())
    raise ScenarioError(f"{_printable(path_or_name)}: no such file; shipped scenarios are {', '.join(shipped())}{hint}")


def _text(path: Path) -> str:
    """Return the text of the file."""
    name = _printable(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise ScenarioError(f"{name}: cannot be read: {error.strerror}") from None
    if len(content) > LARGEST_FILE_BYTES:
        raise ScenarioError(f"{name}: is larger than {LARGEST_FILE_BYTES:,} bytes; this is hardly a scenario")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ScenarioError(f"{name}:{line}: not UTF-8 text (byte {error.start})") from None


def _parse(text: str, origin: Callable[[int], str]) -> tuple[Any, dict[KeyPath, str]]:
    """Return the plain values in a YAML text and the place, `origin(line)`, of each key path."""
    places: dict[KeyPath, str] = {}

    def refuse(event: Any, path: KeyPath, message: str) -> ScenarioError:
        key = f"{_dotted(path)}: " if path else ""
        return ScenarioError(f"{origin(event.start_mark.line + 1)}: {key}{message}")

    def value(event: Any, path: KeyPath) -> Any:
        # An alias can stand for a billion nodes, and a tag can ask for any object; a scenario needs neither.
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise refuse(event, path, "anchors and aliases (& and *) are not allowed; write the value out")
        if getattr(event, "tag", None) is not None:
            raise refuse(event, path, f"tag {_shown(event.tag)} is not allowed; write a plain value")
        if len(path) > DEEPEST_NESTING:
            raise refuse(event, path[:3], f"nested deeper than {DEEPEST_NESTING} levels")
        places.setdefault(path, origin(event.start_mark.line + 1))
        if isinstance(event, yaml.ScalarEvent):
            try:
                return _scalar(event) if event.implicit[0] else event.value
            except ValueError as error:
                raise refuse(event, path, str(error)) from None
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(item := next(events), yaml.SequenceEndEvent):
                items.append(value(item, (*path, len(items))))
            return items
        mapping: dict[str, Any] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                value(event, path)
                raise refuse(event, path, "a key is a word, not a list or a mapping")
            key = value(event, (*path, event.value))
            here = (*path, event.value)
            if not isinstance(key, str):
                raise refuse(event, path, f"a key is a word, got {_shown(key)}")
            if key in mapping:
                raise refuse(event, here, "stands twice; keep one of the two")
            mapping[key] = value(next(events), here)
        return mapping

    try:
        events: Iterator[Any] = iter(yaml.parse(text, Loader=yaml.SafeLoader))
        next(events)  # stream start
        if isinstance(next(events), yaml.StreamEndEvent):
            raise ScenarioError(f"{origin(1)}: is empty")
        data = value(next(events), ())
        next(events)  # document end
        if not isinstance(event := next(events), yaml.StreamEndEvent):
            raise refuse(event, (), "a second document starts here; a file holds one scenario")
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ScenarioError(f"{origin(line)}: not YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ScenarioError(f"{origin(line)}: not text: character U+{int(error.character):04X}") from None
    return data, places


_CONSTANTS: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_CONSTANTS |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*|(?=\.[0-9]))(\.[0-9]*)?([eE][-+]?[0-9]+)?")
_STANDARD: Any = yaml.resolver.Resolver()


def _scalar(event: yaml.ScalarEvent) -> Any:
    """Return the value of an unquoted scalar; refuse what versions of YAML read differently (1e-3 excepted)."""
    text = event.value
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _DECIMAL.fullmatch(text):
        number: int | float = float(text)
        if abs(number) <= 2**63 and _WHOLE.fullmatch(text):
            number = int(text)  # exact, while 2**63 - 1 as a float is 2**63
        if not math.isfinite(number) or abs(number) >= 2**63:
            raise ValueError(f"{_shown(text)} is too large a number")
        return number
    kind = str(_STANDARD.resolve(yaml.ScalarNode, text, (True, False))).rpartition(":")[2]
    if kind == "float" and text.strip("+-.").lower() in ("nan", "inf"):
        raise ValueError(f"{_shown(text)} is not a number; write a finite one")
    if kind == "bool":
        raise ValueError(f'{_shown(text)} is true or false to some and text to others; write true, false or "{text}"')
    if kind != "str":
        advice = "write a decimal number, or quote it" if kind in ("int", "float") else "quote it"
        raise ValueError(f'{_shown(text)} is read as {kind} by some; {advice}: "{text}"')
    return text


class _Dumper(yaml.SafeDumper):
    """Writes every value out, and quotes text that looks like a number to `_scalar`."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def _text_node(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Return the node of a text; line breaks that YAML folds to spaces are only safe as escapes."""
    style = '"' if any(mark in text for mark in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _text_node)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_DECIMAL.pattern + "$"), list("-+.0123456789"))


# `--set`


def _override(data: dict[str, Any], text: str) -> tuple[KeyPath, str]:
    """Set one value in `data` in place; return its path and how to name it in errors."""
    key, equals, given = text.partition("=")
    origin = _printable(f"--set {text}")
    if not equals or not key.strip():
        raise ScenarioError(f"{origin}: expected KEY=VALUE, e.g. federation.rounds=5")
    new, _ = _parse(given, lambda _: origin) if given.strip() else (None, {})
    parts = key.strip().split(".")
    place: list[str | int] = []
    here: Any = data
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if isinstance(here, list):
            if not (part.isascii() and part.isdigit() and int(part) < len(here)):
                allowed = f"0 to {len(here) - 1}" if here else "none: the list is empty"
                raise ScenarioError(f"{origin}: {_dotted(place)} has no item {_shown(part)}; items are {allowed}")
            index: str | int = int(part)
        elif isinstance(here, dict):
            index = part
            if not last and here.get(part) is None:
                _check_key((*place, part), origin)
                here[part] = _required((*place, part))
        else:
            name = _dotted(place)
            raise ScenarioError(f"{origin}: {name} is {_shown(here)} and has no parts; set {name} itself")
        place.append(index)
        if last:
            here[index] = new
        else:
            here = here[index]
    _check_key(tuple(place), origin)
    return tuple(place), origin


def _required(place: KeyPath) -> dict[str, Any]:
    """Return the default values of the keys that a mapping at `place` must have (a strategy its name)."""
    found: dict[str, Any] = {}
    for above in _schemas(place[:-1]):
        default = above.get("properties", {}).get(place[-1], {}).get("default")
        for schema in _schemas(place):
            found |= {
                key: default[key] for key in schema.get("required", ()) if isinstance(default, dict) and key in default
            }
    return found


def _check_key(place: KeyPath, origin: str) -> None:
    """Refuse a key path that no scenario has."""
    parent = _schemas(place[:-1])
    keys = _keys(parent)
    if isinstance(place[-1], str) and place[-1] not in keys and not _free(parent):
        allowed = f"keys are {', '.join(keys)}" if keys else "it has no parts"
        above = _dotted(place[:-1]) or "the scenario"
        raise ScenarioError(f"{origin}: no key {_shown(place[-1])} in {above}; {allowed}{nearest(place[-1], keys)}")


# What is wrong, in words


def _error(problems: Sequence[_Problem], places: Mapping[KeyPath, str]) -> ScenarioError:
    """Return the error that shows the first problem and says how many more there are."""
    order = list(places)
    first = min(problems, key=lambda problem: order.index(_known_part(problem.path, places)))
    more = len(problems) - 1
    rest = f" (and {more} more problem{'s' if more > 1 else ''})" if more else ""
    key = f"{_dotted(first.path)}: " if first.path else ""
    return ScenarioError(f"{places[_known_part(first.path, places)]}: {key}{first.message}{rest}")


def _known_part(path: KeyPath, places: Mapping[KeyPath, str]) -> KeyPath:
    """Return the longest beginning of `path` that stands in the file or on the command line."""
    return next(path[:end] for end in range(len(path), -1, -1) if path[:end] in places)


def _structural(error: pydantic.ValidationError, data: Mapping[str, Any]) -> list[_Problem]:
    """Return the problems pydantic found: one for each place, without those that only follow from a deeper one."""
    found: dict[KeyPath, Any] = {}
    for detail in error.errors():
        place = _place(detail["loc"], data, detail["type"] == "missing")
        if detail["type"] == "union_tag_invalid" and detail["ctx"]["discriminator"] == "'name'":
            place = (*place, "name")
        found.setdefault(place, detail)
    problems = []
    for path, detail in found.items():
        if any(other[: len(path)] == path and other != path for other in found):
            continue
        if detail["type"] == "missing" and any(_explains(other, path) for other in found):
            continue
        problems.append(_Problem(path, _message(path, detail, data)))
    return problems


def _place(location: KeyPath, data: Any, missing: bool) -> KeyPath:
    """Return the key path in the file for pydantic's location, which also names the members of unions."""
    if location[:1] == ("claims",):  # the kind of a claim may have the name of one of its keys
        location = location[:2] + location[3:]
    path: list[str | int] = []
    here = data
    for part in location:
        if _has(here, part):
            here = here[part]
            path.append(part)
    if missing and isinstance(location[-1], str):
        path.append(location[-1])
    return tuple(path)


def _explains(other: KeyPath, missing: KeyPath) -> bool:
    """Return whether the key at `other` is a misspelling of the missing one beside it."""
    return other != missing and other[:-1] == missing[:-1] and bool(nearest(str(other[-1]), [str(missing[-1])]))


def _message(path: KeyPath, detail: Mapping[str, Any], data: Any) -> str:
    """Return what was found at `path` and what is allowed there."""
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    if detail["type"] == "missing" and not _within(path, data):
        return f"is missing; expected {_allowed(_schemas(path))}"
    got = detail["input"]
    if detail["type"] == "extra_forbidden":
        alternatives = _schemas(path[:-1])
        if path[-1] in _keys(alternatives) and not any(map(_tag, alternatives)):
            groups = "; or ".join(", ".join(_keys([schema])) for schema in alternatives)
            return f"does not go with the other keys here; these go together: {groups}"
        keys = _keys(_schemas(path[:-1], data))
        return f"unknown key; keys here are {', '.join(keys)}{nearest(str(path[-1]), keys)}"
    schemas = _schemas(path, data)
    choices = [choice for schema in schemas for choice in _choices(schema)]
    got = got.get("name", got) if detail["type"] == "union_tag_invalid" and isinstance(got, dict) else got
    hint = _spelt_out(got, schemas) or nearest(got, choices) if isinstance(got, str) else ""
    return f"got {_shown(got)}; allowed: {_allowed(schemas)}{hint}"


def _spelt_out(name: str, schemas: Sequence[Mapping[str, Any]]) -> str:
    """Return "; write {name: X}" where only the name of a mapping was given, with what else it must have."""
    keys = next((schema["required"] for schema in schemas if _tag(schema) == name), ())
    needed = [f"name: {name}", *(f"{key}: ..." for key in keys if key != "name")]
    return f"; write {{{', '.join(needed)}}}" if keys else ""


def _within(path: KeyPath, data: Any) -> bool:
    """Return whether the file says anything at `path`."""
    for part in path:
        if not _has(data, part):
            return False
        data = data[part]
    return True


def _has(value: Any, part: str | int) -> bool:
    """Return whether a mapping has the key, or a list the index, `part`."""
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, dict) and part in value


# What is allowed, read from the JSON Schema


@cache
def _root() -> dict[str, Any]:
    """Return the JSON Schema of a scenario."""
    return Scenario.model_json_schema()


def _alternatives(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the schemas of which a value may follow any, references resolved."""
    if "$ref" in schema:
        return _alternatives(_root()["$defs"][schema["$ref"].rpartition("/")[2]])
    several = schema.get("anyOf") or schema.get("oneOf")
    return [found for one in several for found in _alternatives(one)] if several else [schema]


def _schemas(path: KeyPath, data: Any = None) -> list[Mapping[str, Any]]:
    """Return the schemas for the value at `path`; `data` picks among alternatives: by its `name`, or by its keys."""
    found: list[Mapping[str, Any]] = [_root()]
    for part in path:
        below: list[Mapping[str, Any]] = []
        for schema in found:
            if isinstance(part, int):
                items = schema.get("prefixItems")
                child = items[part] if items and part < len(items) else schema.get("items")
            else:
                child = schema.get("properties", {}).get(part) or schema.get("additionalProperties")
            below += _alternatives(child) if child else []
        data = data[part] if _has(data, part) else None
        name = data.get("name") if isinstance(data, dict) else None
        found = [schema for schema in below if name is not None and _tag(schema) == name] or _likeliest(below, data)
    return found


def _likeliest(schemas: list[Mapping[str, Any]], data: Any) -> list[Mapping[str, Any]]:
    """Return the schemas that fit the keys of a mapping best: nothing missing, then most keys known."""
    if not isinstance(data, dict):
        return schemas

    def fit(schema: Mapping[str, Any]) -> tuple[bool, int]:
        known = len(data.keys() & schema.get("properties", {}).keys())
        return known > 0 and data.keys() >= set(schema.get("required", ())), known

    best = max(map(fit, schemas), default=None)
    return [schema for schema in schemas if fit(schema) == best]


def _keys(schemas: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys a mapping may have."""
    return list(dict.fromkeys(key for schema in schemas for key in schema.get("properties", ())))


def _free(schemas: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a mapping may have keys of the user's own."""
    return any(schema.get("additionalProperties") for schema in schemas)


def _choices(schema: Mapping[str, Any]) -> list[str]:
    """Return the words a value may be."""
    return [word for word in (*schema.get("enum", ()), schema.get("const"), _tag(schema)) if isinstance(word, str)]


def _tag(schema: Mapping[str, Any]) -> str | None:
    """Return the `name` that tells this mapping from its alternatives."""
    tag: str | None = schema.get("properties", {}).get("name", {}).get("const")
    return tag


def _allowed(schemas: Sequence[Mapping[str, Any]]) -> str:
    """Return in words what a value may be."""
    names = [tag for schema in schemas if (tag := _tag(schema)) is not None]
    if len(names) > 1:
        others = [_words(schema) for schema in schemas if _tag(schema) is None]
        return " or ".join([*others, f"a mapping with name: {', '.join(names)}"])
    return " or ".join(dict.fromkeys(_words(schema) for schema in schemas))


def _words(schema: Mapping[str, Any]) -> str:
    """Return in words what one alternative is."""
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    kind = schema.get("type")
    if kind in ("integer", "number"):
        signs = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
        bounds = " and ".join(f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema)
        return ("a whole number " if kind == "integer" else "a number ") + bounds if bounds else "a number"
    if kind == "array":
        items = schema.get("prefixItems")
        if items:
            return f"a list of {len(items)}, each {_allowed(_alternatives(items[0]))}"
        least = f" of at least {schema['minItems']}" if "minItems" in schema else ""
        return f"a list{least}, each {_allowed(_alternatives(schema['items']))}"
    if kind == "object" and "properties" in schema:
        tag = _tag(schema)
        keys = (f"name: {tag}" if tag and key == "name" else key for key in schema["properties"])
        return f"a mapping {{{', '.join(keys)}}}"
    if kind == "object":
        return f"a mapping of names, each {_allowed(_alternatives(schema['additionalProperties']))}"
    if kind == "string" and "pattern" in schema:
        return "1 to 64 letters, digits, _ . or -, the first a letter or a digit"
    return {"string": "text", "boolean": "true or false", "null": "null"}[str(kind)]


# What names mean


def _semantic(scenario: Scenario, known: Known) -> Iterator[_Problem]:
    """Yield what is wrong with the names and numbers of a well-formed scenario."""
    data, federation = scenario.data, scenario.federation
    if data.source not in known.sources:
        yield _Problem(("data", "source"), _unknown("data source", data.source, known.sources))
    records = data.candidates + data.background
    if data.clients > records:
        yield _Problem(("data", "clients"), f"{data.clients} clients, but only {records} records to deal")
    if isinstance(federation.clients_per_round, int) and federation.clients_per_round > data.clients:
        message = f"got {federation.clients_per_round}, but there are {data.clients} clients (`data.clients`)"
        yield _Problem(("federation", "clients_per_round"), message)
    yield from _plugin(("federation", "strategy"), federation.strategy, known.strategies, "strategy")
    for index, mod in enumerate(federation.mods):
        yield from _plugin(("federation", "mods", index), mod, known.mods, "client mod")
    names = [audit.name for audit in scenario.audits]
    for index, audit in enumerate(scenario.audits):
        if audit.name in names[:index]:
            yield _Problem(("audits", index, "name"), f"{_shown(audit.name)} stands twice; audit names must differ")
        yield from _audit(("audits", index), audit, data.clients, known)
        yield from _setup(("audits", index), audit.setup, scenario)
        yield from _adversary(("audits", index), audit, scenario)
        yield from _release(("audits", index, "release"), audit, scenario)
    for index, setup in enumerate(scenario.setups):
        for number, mod in enumerate(setup.mods or ()):
            yield from _plugin(("setups", index, "mods", number), mod, known.mods, "client mod")
    setups = [setup.name for setup in scenario.setups]
    for index, name in enumerate(setups):
        if name in setups[:index]:
            yield _Problem(("setups", index, "name"), f"{_shown(name)} stands twice; setup names must differ")
    for index, claim in enumerate(scenario.claims):
        yield from _claim(("claims", index), claim, scenario)
        if claim in scenario.claims[:index]:
            yield _Problem(("claims", index), "the same claim stands twice; keep one of the two")
    planted = scenario.controls.planted_worlds
    if 0 < planted < FEWEST_PLANTED:
        message = f"got {planted}; allowed: 0 (no planted control), or at least {FEWEST_PLANTED}"
        yield _Problem(("controls", "planted_worlds"), message)
    for remark in lint(scenario):
        if remark.level == "error":
            yield _Problem(remark.place, str(remark))


def _setup(place: KeyPath, name: str | None, scenario: Scenario) -> Iterator[_Problem]:
    """Yield what is wrong with the setup that an audit or a claim names."""
    setups = [setup.name for setup in scenario.setups]
    if name is not None and name not in setups:
        yield _Problem((*place, "setup"), _unknown("setup", name, setups))


def _release(place: KeyPath, audit: Audit, scenario: Scenario) -> Iterator[_Problem]:
    """Yield what is wrong with the output policy that an audit asks for."""
    if audit.release is not None and "white_box" in (audit.release.access, scenario.release.access):
        message = (
            "an audit's own release is for comparing answers to queries, and white_box gives the parameters away to "
            "everybody; set `release.access` for the whole scenario, or leave this out"
        )
        yield _Problem(place, message)


def _audit(place: KeyPath, audit: Audit, clients: int, known: Known) -> Iterator[_Problem]:
    """Yield what is wrong with the vantage, the game, the attacks and the bounds of an audit."""
    # Imported here because they bring torch, which `list` and `schema` do without.
    from fedsim.transcript import PUBLIC, SERVER
    from fedsim.views import Vantage, parse_vantage

    try:
        vantage = parse_vantage(audit.vantage, clients)
    except ValueError as error:
        vantage = Vantage(frozenset())
        yield _Problem((*place, "vantage"), f"{error}{nearest(audit.vantage, (PUBLIC, SERVER))}")
    game = audit.game if isinstance(audit.game, str) else audit.game.name
    if isinstance(audit.game, LabelGame | BatchGame) and audit.game.client != "all":
        asked = audit.game.client
        if asked >= clients:
            yield _Problem((*place, "game", "client"), f"got {asked}; clients are 0 to {clients - 1}")
        if asked in vantage.clients:
            known_to_it = "labels" if isinstance(audit.game, LabelGame) else "batches"
            message = (
                f"client {asked} knows its own {known_to_it}; ask about a client outside the vantage (`game.client`)"
            )
            yield _Problem((*place, "vantage"), message)
    if isinstance(audit.game, DistinguishGame) and (audit.game.clients or 0) > clients:
        yield _Problem((*place, "game", "clients"), f"got {audit.game.clients}; allowed: 2 to {clients}, data.clients")
    attacks = known.attacks
    fitting = [name for name, its_game in attacks.items() if its_game == game]
    for number, attack in enumerate(audit.attacks):
        here = (*place, "attacks", number)
        if attack not in attacks:
            yield _Problem(here, _unknown("attack", attack, fitting))
        elif attack not in fitting:
            theirs, allowed = attacks[attack], ", ".join(fitting)
            yield _Problem(here, f"{attack} plays the game {theirs}, not this audit's {game}; allowed: {allowed}")
        elif attack in audit.attacks[:number]:
            yield _Problem(here, f"{attack} stands twice; keep one of the two")
        wanted = known.follows.get(attack, ())
        if wanted and (audit.adversary is None or audit.adversary.name not in wanted):
            acts = " or ".join(f"{{name: {name}}}" for name in wanted)
            yield _Problem(here, f"{attack} reads what follows on an act; set this audit's `adversary` to {acts}")
    for number, bound in enumerate(audit.bounds):
        here = (*place, "bounds", number)
        if bound not in known.bounds:
            yield _Problem(here, _unknown("bound", bound, known.bounds))
        elif bound in audit.bounds[:number]:
            yield _Problem(here, f"{bound} stands twice; keep one of the two")


def _adversary(place: KeyPath, audit: Audit, scenario: Scenario) -> Iterator[_Problem]:
    """Yield why an audit's adversary cannot act: who is in the vantage, what is asked, the model, the defences."""
    from fedsim.transcript import SERVER  # imported here, as in `_audit`
    from fedsim.views import parse_vantage

    attacked = in_setup(scenario, audit.setup)
    plan, clients, model, here = audit.adversary, scenario.data.clients, attacked.model, (*place, "adversary")
    try:
        vantage = parse_vantage(audit.vantage, clients)
    except ValueError:
        return  # `_audit` says so
    if plan is None:
        return
    roles, victim = ACTS_AS[plan.name], getattr(plan, "client", None)
    by_server = "server" in roles and SERVER in vantage.parties
    if not by_server and not ("client" in roles and vantage.clients):
        words = {"server": "the server", "client": "a participant (client:K)"}
        who = " or ".join(words[role] for role in roles)
        yield _Problem((*place, "vantage"), f"{plan.name} is an act of {who}, and {_shown(audit.vantage)} has none")
    game = audit.game if isinstance(audit.game, str) else audit.game.name
    if plan.name in ACTS_IN and game != ACTS_IN[plan.name]:
        message = f"{plan.name} acts in the game {ACTS_IN[plan.name]}, and this audit's is {game}"
        yield _Problem((*here, "name"), message)
    if plan.name not in ACTS_IN and game != "record":
        others = " and ".join(f"{name} in {its_game}" for name, its_game in ACTS_IN.items())
        message = f"{plan.name} acts on the records that are asked about, in the game record only; {others}"
        yield _Problem((*here, "name"), message)
    if victim is not None and victim >= clients:
        yield _Problem((*here, "client"), f"got {victim}; clients are 0 to {clients - 1}")
    if victim is not None and victim in vantage.clients:
        yield _Problem((*here, "client"), f"client {victim} is in the vantage; its own records are not asked about")
    rounds, every = attacked.federation.rounds, getattr(plan, "every", 1)
    last = rounds if by_server else rounds - 1  # what a participant does in the last round, it sees no answer to
    if every > last and plan.name not in ("label_poisoning", "property_poisoning"):
        yield _Problem(
            (*here, "every"), f"got {every}, and in {rounds} rounds nothing would come of it; at most {last}"
        )
    pushes, groups = last // every, getattr(plan, "groups", 1)
    if groups > pushes > 0:
        message = f"got {groups}, and in {rounds} rounds there {'is' if pushes == 1 else 'are'} {pushes} "
        message += f"push{'es' * (pushes > 1)} that something comes of; at most {pushes}"
        yield _Problem((*here, "groups"), message)
    crafted = {"inconsistent_models": ("mlp", "cnn", "resnet"), "canary_gradient": ("mlp",)}.get(plan.name)
    if crafted and (model.name not in crafted or (model.name != "resnet" and model.activation != "relu")):
        found = model.name if model.name == "softmax" else f"{model.name} with {model.activation}"
        needs = f"{plan.name} needs rectified units, and the model is {found}; use {' or '.join(crafted)}"
        yield _Problem((*here, "name"), f"{needs} with activation relu")
    if plan.name == "multi_task" and (model.name == "softmax" or (model.name == "mlp" and not model.hidden)):
        found = "softmax" if model.name == "softmax" else "mlp without any"
        message = (
            f"multi_task needs hidden layers for both tasks to share, and the model is {found}; use mlp, cnn or resnet"
        )
        yield _Problem((*here, "name"), message)
    mine = attacked.federation
    if plan.name == "isolation" and mine.secure_aggregation is not None:
        message = "isolation sends a client its own model back, which under secure aggregation the server never gets"
        yield _Problem((*here, "name"), message)
    if by_server and isinstance(mine.privacy, CentralPrivacy | AdaptivePrivacy):
        message = (
            "the server itself adds the noise of central privacy, and one that cheats would not; attack another setup"
        )
        yield _Problem((*here, "name"), message)


def _claim(place: KeyPath, claim: Claim, scenario: Scenario) -> Iterator[_Problem]:
    """Yield what is wrong with the names in a claim."""
    # Imported here because it brings scikit-learn, which `list` and `schema` do without.
    from fedsim.metrics import parse_metric

    if isinstance(claim, EpsilonClaim):
        yield from _setup(place, claim.setup, scenario)
        return
    audits = {audit.name: audit.attacks for audit in scenario.audits}
    named: dict[str, str] = {"audit": claim.audit}
    every: tuple[str, ...] = ("any",)
    other = claim.attack
    if isinstance(claim, DifferenceClaim):
        named, every = named | {"lower_than": claim.lower_than}, ()
        other = claim.lower_than_attack or claim.attack
        if claim.lower_than == claim.audit and other == claim.attack:
            message = f"got {claim.audit} twice; name the audit said to leak more, or another attack of this one "
            yield _Problem((*place, "lower_than"), message + "(`lower_than_attack`)")
    for key, name in named.items():
        allowed = (*every, *audits.get(name, ()))
        its_own = key == "lower_than" and isinstance(claim, DifferenceClaim) and claim.lower_than_attack is not None
        attack = other if key == "lower_than" else claim.attack
        if name not in audits:
            yield _Problem((*place, key), _unknown("audit", name, audits))
        elif attack not in allowed:
            here = (*place, "lower_than_attack" if its_own else "attack")
            yield _Problem(here, _unknown(f"attack of audit {name}", attack, allowed))
    try:
        kind = parse_metric(claim.metric).kind
        if kind == "n_leaked":
            yield from _records_leaked(place, claim, scenario)
        elif isinstance(claim, MetricClaim) and claim.at_most > 1:
            yield _Problem((*place, "at_most"), f"got {claim.at_most:g}; allowed: a number above 0, at most 1")
        if kind == "mae":
            message = "got mae, and a smaller error is a larger leak, so nothing is claimed by bounding it from above"
            yield _Problem((*place, "metric"), message)
    except ValueError as error:
        yield _Problem((*place, "metric"), str(error))


def _records_leaked(place: KeyPath, claim: MetricClaim | DifferenceClaim, scenario: Scenario) -> Iterator[_Problem]:
    """Yield what is wrong with a claim on how many records an attack is worth."""
    if isinstance(claim, DifferenceClaim):
        yield _Problem((*place, "metric"), "got n_leaked, which may be infinite, so it has no difference; use auc")
    games = {audit.name: audit.game for audit in scenario.audits}
    if not isinstance(games.get(claim.audit), PropertyGame | None):
        message = f"got n_leaked, and {claim.audit} does not play the game property, where alone it is defined"
        yield _Problem((*place, "metric"), message)


def _plugin(place: KeyPath, plugin: Plugin, known: Mapping[str, Mapping[str, object]], what: str) -> Iterator[_Problem]:
    """Yield what is wrong with the name and the options of a strategy or a mod."""
    if plugin.name not in known:
        yield _Problem((*place, "name"), _unknown(what, plugin.name, known))
        return
    options = known[plugin.name]
    for name, value in plugin.options.items():
        here = (*place, "options", name)
        if name not in options:
            yield _Problem(here, _unknown(f"option of {plugin.name}", name, options))
        elif not _fits(value, option := _option(options[name])):
            yield _Problem(here, f"got {_shown(value)}; allowed: {_KINDS[type(option.default)]}{_range(option)}")


def _unknown(what: str, name: str, names: Collection[str]) -> str:
    """Return the message for a name that is not in the table: what may have been meant first, for tables are long."""
    meant = nearest(name, names)
    return f"no {what} {_shown(name)}{meant}{' Allowed' if meant else '; allowed'}: {', '.join(names) or 'none'}"


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _option(given: object) -> Option:
    """Return an option that is given as such or by its default."""
    return given if isinstance(given, Option) else Option(cast(bool | int | float | str, given))


def _fits(value: object, option: Option) -> bool:
    """Return whether `value` may be given for an option; a whole number is a number, and true is not."""
    kind = type(option.default)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if not isinstance(value, (int, float)):
        return isinstance(value, kind)
    above = value > option.low if option.low_open else value >= option.low
    below = value < option.high if option.high_open else value <= option.high
    return kind in (float, type(value)) and above and below


def _range(option: Option) -> str:
    """Return the range of an option in words: nothing where any number will do."""
    low = f"{'above' if option.low_open else 'at least'} {option.low:.15g}" if option.low > -math.inf else ""
    high = f"{'below' if option.high_open else 'at most'} {option.high:.15g}" if option.high < math.inf else ""
    return f" {' and '.join(filter(None, (low, high)))}" if low or high else ""


def _dotted(path: Sequence[str | int]) -> str:
    """Return a key path as `--set` takes it."""
    return _printable(".".join(map(str, path)))


def _shown(value: object) -> str:
    """Return a value as one short printable piece of text."""
    text = "nothing" if value is None else json.dumps(value) if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _printable(text: str) -> str:
    """Return `text` on one line and without control characters: it can neither forge a line nor drive a terminal."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
