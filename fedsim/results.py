"""The results of a run: one versioned record (`results.json`), the scores behind it (`evidence/`), and their folder.

A number that is not known is null and stands beside a `reason`. The order of the fields is the order in the file; only
the last block, `machine`, may differ between two runs of one scenario with one seed.
"""

import errno
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Discriminator, Tag, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from fedsim.errors import RunError, ScenarioError
from fedsim.intervals import Measured, Unresolved
from fedsim.metrics import parse_metric
from fedsim.scenario import Name
from fedsim.scenario import Scenario as Asked

SCHEMA: Final = "fedsim.results/1"
RESULTS = "results.json"
EVIDENCE = "evidence"

Json = dict[str, Any]
GameName = Literal[
    "record", "property", "labels", "canaries", "source", "client", "distinguish", "client_property", "batches"
]
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@validated(frozen=True, config=STRICT)
class Quantity:
    """A measured number with its interval, or null numbers and the reason why there are none."""

    estimate: float | None
    low: float | None
    high: float | None
    confidence: float
    method: str | None
    members: int | None  # entries with the answer yes that it rests on; null for what is not about members
    non_members: int | None
    false_positives: int | None  # only for a true-positive rate at a false-positive rate
    reason: str | None  # null where the number is known
    infinite: tuple[Literal["estimate", "high"], ...] = ()  # which of the numbers are so, and null therefore

    def __post_init__(self) -> None:
        """Refuse a half-known number."""
        numbers = {"estimate": self.estimate, "low": self.low, "high": self.high}
        if any(numbers[name] is not None for name in self.infinite):
            raise ValueError("an infinite number is null")
        known = [value is not None or name in self.infinite for name, value in numbers.items()]
        if not (all(known) and self.reason is None) and not (not any(known) and self.reason):
            raise ValueError("a quantity has estimate, low and high, or none of them and a reason")


@validated(frozen=True, config=STRICT)
class Scenario:
    """What was asked for: `given` as the user wrote it, `effective` with every default filled in, and its digest."""

    given: Json
    effective: Json
    digest: str


@validated(frozen=True, config=STRICT)
class Data:
    """Which records the run stood on."""

    source: str
    digest: str
    records: int
    dropped_duplicates: int
    synthetic: bool
    citation: str
    licence: str


@validated(frozen=True, config=STRICT)
class OwnColumn:
    """A column that a function of the user's own computed: FILE:FUNCTION, and the SHA-256 of the file."""

    name: str
    function: str
    sha256: str


@validated(frozen=True, config=STRICT)
class Provenance:
    """What made the numbers: versions by package, the commit and whether it was changed, data, seed, engine, the
    ClientApp where it is not fedsim's own, and the columns that are not the source's own.
    """

    fedsim: str
    packages: dict[str, str]
    commit: str | None
    dirty: bool | None
    commit_reason: str | None  # why the commit is unknown
    data: Data
    seed: int
    engine: str
    client_app: str | None = None
    properties: tuple[OwnColumn, ...] = ()


@validated(frozen=True, config=STRICT)
class Client:
    """A client and how many candidate records it holds."""

    client: int
    candidates: int


@validated(frozen=True, config=STRICT)
class Sight:
    """What a vantage saw of one world: messages by kind, whether any carried model parameters, and the release."""

    vantage: str
    messages: dict[str, int]
    parameters: bool
    released: str  # in words: "answers to queries: class probabilities", "the final model's parameters"
    setup: str | None = None  # null: the federation as it stands
    adversary: str | None = None  # in that world; null: nobody acts


@validated(frozen=True, config=STRICT)
class Federation:
    """What ran: `transcripts` are the SHA-256 of each world's messages, `parameters` counts the model's values."""

    clients: tuple[Client, ...]
    worlds: int
    rounds: int
    parameters: int
    transcripts: tuple[str, ...]
    sights: tuple[Sight, ...]

    def __post_init__(self) -> None:
        """Refuse a federation of nobody."""
        if not self.clients:
            raise ValueError("a federation has at least one client")


@validated(frozen=True, config=STRICT)
class Band:
    """A mean over worlds with its interval."""

    mean: float
    low: float
    high: float


@validated(frozen=True, config=STRICT)
class Round:
    """Utility after one round, over the worlds."""

    round: int
    train_accuracy: Band
    test_accuracy: Band
    train_loss: Band
    test_loss: Band


@validated(frozen=True, config=STRICT)
class Utility:
    """What the final models are good for, over the worlds, and how they got there."""

    train_accuracy: Quantity
    test_accuracy: Quantity
    train_loss: Quantity
    test_loss: Quantity
    rounds: tuple[Round, ...]


@validated(frozen=True, config=STRICT)
class Control:
    """A check of the measurement itself. `passed` is null where it did not run; then `auc.reason` says why."""

    auc: Quantity
    passed: bool | None
    text: str


@validated(frozen=True, config=STRICT)
class Exposed:
    """An item the attack tells apart well across worlds; `owner` is a party such as "client:3"."""

    item: int  # column of the evidence
    source_row: int  # row of the record in the source, from 0
    owner: str
    auc: float


@validated(frozen=True, config=STRICT)
class BoundFound:
    """What the scores of an attack say about epsilon; without a number, `reason` says why.

    ceiling: what so many canaries could show at most. accounted: the accountant's epsilon for the same unit and
    observer (null: infinite).
    """

    name: str
    title: str
    kind: Literal["lower bound", "estimate"]
    unit: Literal["client", "record"]
    observer: Literal["server", "participant", "public"]
    epsilon: float | None
    delta: float
    confidence: float
    correction: str
    canaries: int
    ceiling: float | None
    detail: str
    accounted: float | None
    reason: str | None
    assumes: str = ""  # about the mechanism; empty: nothing


@validated(frozen=True, config=STRICT)
class Monitored:
    """What the monitor of the release makes of an attack's queries, and of ordinary ones.

    radius: how close a query must lie to an earlier one of its window to count. windows, flagged: of the attack, over
    worlds that were asked different things. detection: share of the attack's windows flagged. false_alarms: share of
    windows of ordinary queries flagged, on records that had no part in setting the radius.
    """

    window: int
    near_duplicates: int
    radius: float
    stated_rate: float | None  # of false alarms, at which the radius was set; null: the scenario gave the radius
    windows: int
    flagged: int
    clusters: int  # of near-duplicates, in the world that was asked most
    largest_cluster: int
    detection: Quantity
    false_alarms: Quantity


@validated(frozen=True, config=STRICT)
class Queries:
    """What an attack asked the released model in the world that was asked most; a query is one record asked about.

    Attacks of an audit that measure the same thing share its answers, and each is counted as if it were alone.
    """

    released: str  # what a query answers, in words
    budget: int | None  # null: any number
    sent: int
    answered: int
    per_question: float  # queries about the items, for each item that the audit asks about
    batches: tuple[tuple[int, int], ...]  # (queries in a batch, how many such batches)
    monitored: Monitored | None = None  # null: there is no monitor
    public: int = 0  # of those sent, about public records


@validated(frozen=True, config=STRICT)
class Spread:
    """A number of each world attacked: the mean, the least and the most."""

    mean: float
    least: float
    most: float


@validated(frozen=True, config=STRICT)
class Equations:
    """What an attack solves for clients from: sums of updates with names, clients, the rank of the matrix of who was in
    which sum, and how many clients these single out.
    """

    sums: Spread
    clients: Spread
    rank: Spread
    singled_out: Spread


@validated(frozen=True, config=STRICT)
class Finding:
    """One attack of one audit: what it is, what it found, and what the finding is worth."""

    audit: Name  # names files, so it is held to the scenario's rule
    game: GameName
    vantage: str
    attack: Name
    title: str
    summary: str
    knowledge: str
    paper: str
    link: str
    status: Literal["measured", "not visible", "not run"]
    reason: str | None  # null where the status is "measured"
    members: int  # asked entries over all worlds whose answer is yes
    non_members: int
    worlds: int
    metrics: dict[str, Quantity]
    slices: dict[
        str, dict[str, Quantity]
    ]  # "mislabelled", "most_exposed_tenth": metrics on that part of the items alone
    controls: dict[str, Control]  # "null", "planted", "blind"
    exposed: tuple[Exposed, ...]
    evidence: str | None  # path in the run folder; null where nothing was measured
    setup: str | None = None  # null: the federation as it stands
    bounds: tuple[BoundFound, ...] = ()
    caps: dict[str, float] = field(default_factory=dict)  # metric -> the most that its accounted epsilon permits
    adversary: str | None = None  # who does what beside looking; null: nobody does
    cost: Quantity | None = None  # test accuracy that the adversary costs, in the same worlds; null without one
    queries: Queries | None = None  # null: it never asked the released model
    aborted: int = 0  # rounds that secure aggregation gave up in the worlds attacked
    tried: int = 0  # rounds of those worlds
    equations: Equations | None = None  # null: it solves none, or never got as far
    groups: int | None = None  # of worlds, each taken as one because its worlds share records; null: no two worlds do
    caveat: str | None = None  # what its intervals do not cover, beside what none of them does
    facts: dict[str, float] = field(default_factory=dict)  # of its worlds, such as the shares that they really have

    def __post_init__(self) -> None:
        """Refuse a finding that is silent about why it has no numbers."""
        if (self.status == "measured") != (self.reason is None) or (self.status == "measured") != (
            self.evidence is not None
        ):
            raise ValueError("a finding is measured and has evidence, or gives the reason why not")
        if self.status == "measured" and "auc" not in self.metrics:
            raise ValueError("a measured finding has at least the metric auc")
        for name in [*self.metrics, *self.caps, *(name for part in self.slices.values() for name in part)]:
            parse_metric(name)


@validated(frozen=True, config=STRICT)
class ClaimStated:
    """The bound on a metric that the scenario claims."""

    audit: str
    attack: str
    metric: str
    at_most: float
    confidence: float

    def __post_init__(self) -> None:
        """Refuse a metric that does not exist."""
        parse_metric(self.metric)


@validated(frozen=True, config=STRICT)
class DifferenceStated:
    """The difference between two audits that the scenario claims."""

    audit: str
    attack: str
    metric: str
    lower_than: str
    by: float
    confidence: float
    lower_than_attack: str | None = None  # null: the same attack

    def __post_init__(self) -> None:
        """Refuse a metric that does not exist."""
        parse_metric(self.metric)


@validated(frozen=True, config=STRICT)
class EpsilonStated:
    """The epsilon that the scenario claims."""

    epsilon: float
    delta: float
    unit: Literal["client", "record"]
    observer: Literal["server", "participant", "public"]
    setup: str | None
    confidence: float


def _kind(claim: object) -> str:
    """Which of the three a claim is, by the key that only it has."""
    keys = claim if isinstance(claim, dict) else getattr(claim, "__dataclass_fields__", ())
    return "epsilon" if "epsilon" in keys else "difference" if "lower_than" in keys else "metric"


Stated = Annotated[
    Annotated[ClaimStated, Tag("metric")]
    | Annotated[DifferenceStated, Tag("difference")]
    | Annotated[EpsilonStated, Tag("epsilon")],
    Discriminator(_kind),
]


@validated(frozen=True, config=STRICT)
class Claim:
    """A claim, the same as a sentence, and what the run says about it.

    estimate, low, high: of a metric or a difference, the measured value and its interval; of an epsilon, low is the
    largest lower bound found and high the accounted value, null where there is none.
    """

    claim: Stated
    sentence: str
    status: Literal["refuted", "not refuted", "inconclusive"]
    estimate: float | None
    low: float | None
    high: float | None
    reason: str
    confidence: float | None = None  # at which it was decided, with all claims of the run
    infinite: tuple[Literal["estimate", "high"], ...] = ()  # of a metric: which numbers are so, and null therefore


@validated(frozen=True, config=STRICT)
class EpsilonRow:
    """The epsilon of the mechanism that ran, as one observer gets to see it (null: infinite), and why."""

    unit: Literal["client", "record"]
    observer: Literal["server", "participant", "public"]
    epsilon: float | None
    delta: float
    method: str
    adjacency: str
    reason: str
    caps: dict[str, float] = field(default_factory=dict)  # metric -> the most that this epsilon permits attacks


@validated(frozen=True, config=STRICT)
class SetupFound:
    """The federation as it stands (name null) or in a setup: its defences, what they account for, what they cost.

    noise_multiplier: that ran, solved for where the scenario asked for an epsilon. aborted: rounds that secure
    aggregation gave up, over all worlds. Both utility and aborted are of worlds in which nobody does more than look, if
    any audit of the setup has such.
    """

    name: str | None
    secure_aggregation: Json | None
    privacy: Json | None
    noise_multiplier: float | None
    epsilons: tuple[EpsilonRow, ...]
    utility: Utility
    rounds: int
    aborted: int
    tried: int  # rounds, over all worlds
    adversary: str | None = None  # in the worlds that utility and aborted are counted in; null: nobody acts


@validated(frozen=True, config=STRICT)
class Machine:
    """Where and when: the only block that may differ between two runs with one seed."""

    started: str  # ISO 8601, UTC
    wall_seconds: float
    platform: str
    python: str
    processors: int


@validated(frozen=True, config=STRICT)
class Results:
    """Everything a run found."""

    schema: Literal["fedsim.results/1"]
    status: Literal["complete"]
    scenario: Scenario
    provenance: Provenance
    federation: Federation
    utility: Utility
    findings: tuple[Finding, ...]
    claims: tuple[Claim, ...]
    setups: tuple[SetupFound, ...]
    alarms: tuple[str, ...]  # bounds above the accounted epsilon: a bug in the mechanism or in the accounting
    machine: Machine


def quantity(found: Measured | Unresolved, confidence: float) -> Quantity:
    """Return `found` as it stands in the record; `confidence` was asked for, and an unresolved number lacks it."""
    if isinstance(found, Unresolved):
        return unknown(found.reason, confidence)
    return Quantity(
        estimate=finite(found.estimate),
        low=float(found.low),
        high=finite(found.high),
        confidence=float(found.confidence),
        method=found.method,
        members=found.members,
        non_members=found.non_members,
        false_positives=found.false_positives,
        reason=None,
        infinite=infinite(found),
    )


def finite(value: float) -> float | None:
    """Return a value as a record has it: null where it is infinite."""
    return float(value) if math.isfinite(value) else None


def infinite(found: Measured) -> tuple[Literal["estimate", "high"], ...]:
    """Return which numbers of a measure are infinite."""
    names: tuple[Literal["estimate", "high"], ...] = ("estimate", "high")
    return tuple(name for name in names if math.isinf(getattr(found, name)))


def unknown(reason: str, confidence: float) -> Quantity:
    """Return a quantity without numbers, for `reason`."""
    return Quantity(None, None, None, confidence, None, None, None, None, reason)


def to_text(record: Results) -> str:
    """Return the record as JSON (fields in order, mappings sorted, floats as `repr`); equal records, equal text."""
    return json.dumps(_plain(record), allow_nan=False, ensure_ascii=False, indent=1) + "\n"


def write(record: Results, folder: Path) -> Path:
    """Write `results.json` into `folder` and return its path."""
    path = folder / RESULTS
    path.write_bytes(to_text(record).encode())
    return path


def read(folder: Path) -> Results:
    """Return the record of the run in `folder`.

    Raises:
        ScenarioError: there is no results file, it is of another version, or it is not a results record.
    """
    path = folder / RESULTS
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ScenarioError(f"{path}: no results here ({error.strerror}); give the folder of a finished run") from None
    at: tuple[str, ...] = ()
    try:
        record = TypeAdapter(Results).validate_json(text)
        at = ("scenario", "effective")
        Asked.model_validate_json(json.dumps(record.scenario.effective))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in (*at, *first["loc"])) or "file"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ScenarioError(f"{path}: not a {SCHEMA} record: {where}: {first['msg']}{more}") from None
    return record


def _plain(value: object) -> object:
    """The value as dicts, lists and scalars."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


@dataclass(frozen=True)
class Evidence:
    """The scores behind a finding and its null and planted controls; all but `groups` [worlds, items] of their own
    experiment.
    """

    scores: NDArray[np.float64]
    members: NDArray[np.bool_]
    asked: NDArray[np.bool_]
    quantity: NDArray[np.float64] | None = None  # the true quantity, for attacks that estimate one
    groups: NDArray[np.int64] | None = None  # [worlds]; one number: they share records
    null_scores: NDArray[np.float64] | None = None
    null_members: NDArray[np.bool_] | None = None
    null_asked: NDArray[np.bool_] | None = None
    planted_scores: NDArray[np.float64] | None = None
    planted_members: NDArray[np.bool_] | None = None
    planted_asked: NDArray[np.bool_] | None = None


def evidence_name(audit: str, attack: str) -> str:
    """Return the path, inside a run folder, of the evidence of one attack of one audit."""
    return f"{EVIDENCE}/{audit}.{attack}.npz"


def write_evidence(path: Path, evidence: Evidence) -> None:
    """Write `evidence` as an npz of plain arrays; equal arrays, equal bytes.

    Raises:
        ValueError: arrays of one experiment differ in shape, or one holds anything but finite float64, bool or int64.
    """
    _check(evidence)
    arrays = {field.name: getattr(evidence, field.name) for field in fields(evidence)}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path, **{name: array for name, array in arrays.items() if array is not None}
    )  # dates its members 1980


def read_evidence(folder: Path, name: str) -> Evidence:
    """Return the evidence called `name` (as a finding states it) of the run in `folder`.

    Raises:
        ScenarioError: the name leads out of the folder, or the file is missing, damaged, or not what
            `write_evidence` writes.
    """
    if "\0" in name or not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise ScenarioError(f"{folder / RESULTS}: evidence {name!r} lies outside the run folder")
    path = folder / name
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # zipfile, zlib, struct and numpy all have their own for a damaged file
        raise ScenarioError(f"{path}: cannot read this evidence: {error}") from None
    known, needed = {field.name for field in fields(Evidence)}, {"scores", "members", "asked"}
    if not needed <= set(arrays) <= known:
        raise ScenarioError(
            f"{path}: not the evidence of an attack: expected the arrays {', '.join(sorted(needed))}, "
            f"got {', '.join(sorted(arrays)) or 'none'}"
        )
    evidence = Evidence(**arrays)
    try:
        _check(evidence)
    except ValueError as error:
        raise ScenarioError(f"{path}: not the evidence of an attack: {error}") from None
    return evidence


def _check(evidence: Evidence) -> None:
    """Raise ValueError where arrays of one experiment do not fit together."""
    arrays = {field.name: array for field in fields(evidence) if (array := getattr(evidence, field.name)) is not None}
    if (groups := arrays.pop("groups", None)) is not None and (
        groups.dtype != np.int64 or groups.shape != evidence.scores.shape[:1]
    ):
        raise ValueError(f"groups must be int64 [worlds], got {groups.dtype} {groups.shape} of {evidence.scores.shape}")
    for name, array in arrays.items():
        wanted = np.bool_ if name.endswith(("members", "asked")) else np.float64
        if array.dtype != wanted:
            raise ValueError(f"{name} must be {wanted.__name__}, got {array.dtype}")
        if array.ndim != 2:
            raise ValueError(f"{name} must be [worlds, items], got {array.ndim} axes")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
    experiments = (
        ("scores", "members", "asked", "quantity"),
        ("null_scores", "null_members", "null_asked"),
        ("planted_scores", "planted_members", "planted_asked"),
    )
    for names in experiments:
        shapes = {name: arrays[name].shape for name in names if name in arrays}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"{', '.join(shapes)} must share one shape, got {list(shapes.values())}")


@contextmanager
def new_run_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `out`, in one step, when the block ends well; otherwise nothing is left.

    Args:
        out: the run folder, which must not exist; missing parents are created.

    Raises:
        ScenarioError: `out` exists or cannot be created.
        RunError: the disk is full.
    """
    out = Path(os.path.abspath(out))
    if os.path.lexists(out):
        raise ScenarioError(
            f"{out} exists already and is not overwritten; remove it, or choose another folder with --out"
        )
    created = [parent for parent in out.parents if not parent.exists()]  # innermost first
    partial = out.parent / f".{out.name}.{secrets.token_hex(4)}.partial"
    try:
        with _disk_full_is_run_error(out):
            try:
                partial.mkdir(parents=True)
            except OSError as error:
                if error.errno in FULL:
                    raise
                raise ScenarioError(
                    f"cannot create {out}: {error.strerror}; choose a writable folder with --out"
                ) from None
            yield partial
            if os.path.lexists(out):
                raise ScenarioError(
                    f"{out} appeared while the run was under way and is not overwritten; choose another with --out"
                )
            partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        for parent in created:
            with suppress(OSError):
                parent.rmdir()
        raise


FULL: Final = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def _disk_full_is_run_error(out: Path) -> Iterator[None]:
    """Turn the two errors of a full disk into one line."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise RunError(f"cannot write {out}: {error.strerror}; nothing was kept") from None
        raise
