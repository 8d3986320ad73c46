"""The scenario: what a YAML file may say. Reading one from disk, with errors that carry a line, is `scenario_file`."""

import hashlib
import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Confidence = Annotated[float, Field(gt=0.5, le=0.9999)]
Options = dict[str, bool | int | float | str]


@dataclass(frozen=True)
class Option:
    """What may be set in a strategy or a mod: its default, whose type a value must have, and the range of a number."""

    default: bool | int | float | str
    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __str__(self) -> str:
        return str(self.default)


class Section(BaseModel):
    """A part of a scenario: read-only, no unknown keys, no silent conversions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Partition(Section):
    scheme: Literal["iid", "dirichlet", "shards", "quantity", "natural"] = "iid"
    """How records are dealt to clients."""
    alpha: Annotated[float, Field(gt=0)] = 0.5
    """dirichlet, quantity: concentration; small means skewed."""
    shards_per_client: Positive = 2
    """shards: how many label-sorted shards each client holds."""
    column: str | None = None
    """natural: the column whose values are the clients (hospital, speaker, ...)."""

    @model_validator(mode="after")
    def _column(self) -> Self:
        if (self.scheme == "natural") != (self.column is not None):
            raise ValueError("`column` goes with scheme natural, and scheme natural needs a `column`")
        return self


class VisualProperty(Section):
    """Something to be seen in a random share of the images; the column `visual` says in which."""

    name: Literal["rotation", "stroke_noise"]
    """rotation: the image is turned. stroke_noise: the strokes are mottled. Others have the value `plain`."""
    share: Share = 0.5
    """Share of all images that carry it."""
    angle: Annotated[float, Field(ge=-180, le=180)] = 30.0
    """rotation: degrees."""
    noise: Annotated[float, Field(gt=0, le=1)] = 0.3
    """stroke_noise: standard deviation of the brightness, which runs from 0 to 1."""

    @model_validator(mode="after")
    def _shows(self) -> Self:
        if self.name == "rotation" and self.angle == 0:
            raise ValueError("a rotation by `angle` 0 plants nothing; use another angle")
        return self


class Data(Section):
    source: str
    """Name of a data source; see `fedsim list sources`."""
    path: str | None = None
    """csv, npz: the file, relative to the scenario file."""
    label: str | None = None
    """csv: the label column."""
    columns: tuple[str, ...] = ()
    """csv, npz: columns kept raw for a natural partition or a property game."""
    options: Options = {}
    """Options of the source (purchase_like: classes, rows; ...)."""
    limit: Positive | None = None
    """Use a random subset of this many records."""
    clients: Positive = 10
    """Number of clients in the federation."""
    partition: Partition = Partition()
    """How records are dealt to clients."""
    candidates: Annotated[int, Field(ge=4)]
    """Records whose membership is drawn by a coin flip in each world; half of them train on average."""
    background: Annotated[int, Field(ge=0)] = 0
    """Records that train in every world and are never asked about."""
    null_candidates: Annotated[int, Field(ge=0)] | None = None
    """Records with coin flips that never train: the null control (default: as many as there are candidates, if the
    data allow).
    """
    population: Annotated[int, Field(ge=0)] | None = None
    """Public records an attacker owns, members of no world (default: chosen from the size of the data)."""
    test: Positive | None = None
    """Held-out records for utility only (default: chosen from the size of the data)."""
    mislabelled: Annotated[int, Field(ge=0)] = 0
    """How many candidates get a wrong label: worst-case canaries, reported as a slice of their own."""
    visual: VisualProperty | None = None
    """images: a property to plant, for property games on the column `visual`."""
    near_duplicates: Annotated[float, Field(ge=0)] = 0.0
    """Drop records closer to another than this share of the median nearest-neighbour distance (0: exact duplicates
    only).
    """


class ModelChoice(Section):
    name: Literal["softmax", "mlp", "cnn", "resnet"] = "mlp"
    """Architecture."""
    hidden: tuple[Annotated[int, Field(ge=1, le=100_000)], ...] = (128,)
    """mlp: width of each hidden layer."""
    activation: Literal["relu", "tanh", "gelu"] = "relu"
    """mlp, cnn: activation function."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """mlp, cnn: dropout rate while training."""
    channels: Positive = 16
    """cnn, resnet: width of the first convolution."""


class EarlyStopping(Section):
    patience: Positive = 1
    """Epochs without improvement before local training stops."""
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the client's records set aside to judge it."""


class Local(Section):
    epochs: Positive = 1
    """Passes over the client's records a round."""
    batch_size: Positive = 32
    """Records a step; the last, smaller batch is kept."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """Local optimiser, fresh each round."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    """Step size."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """sgd: momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty added to the gradient."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the label spread over all classes."""
    clip_gradient: Annotated[float, Field(gt=0)] | None = None
    """Largest L2 norm of a batch gradient."""
    early_stopping: EarlyStopping | None = None
    """Stop local training when a held-out share stops improving."""


class Plugin(Section):
    name: str
    """See `fedsim list strategies`."""
    options: Options = {}
    """Its settings, by keyword."""


class Quantisation(Section):
    clip_range: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Largest size of a coordinate of an update; what lies beyond is cut off."""
    bits: Annotated[int, Field(ge=2, le=30)] = 18
    """Bits a coordinate of one client takes."""
    rounding: Literal["stochastic", "nearest"] = "stochastic"
    """stochastic: right on average."""


class SecureAggregation(Section):
    protocol: Literal["masked", "ideal"] = "masked"
    """masked: SecAgg+ with real keys, shares and masks; ideal: a trusted party adds the same integers up, for speed."""
    neighbours: Positive | None = None
    """Clients with whom each one shares masks and keys (default: all the others of the round)."""
    threshold: Annotated[float, Field(gt=0.5, le=1)] = 2 / 3
    """Share of a client's neighbours whose shares give its secrets away, and that must survive."""
    weights: Literal["examples", "uniform"] = "examples"
    """Whether a client counts by its number of examples; with privacy on clients it must be uniform."""
    metadata: Literal["clear", "hidden"] = "hidden"
    """Whether number of examples and training loss of each client travel in clear, as with Flower's SecAgg+."""
    consistency: bool = False
    """Clients refuse to take part where they were not all sent the same model."""
    quantisation: Quantisation = Quantisation()
    """How an update becomes integers."""
    specimen: Literal["reused_seed"] | None = None
    """A deliberate mistake to be found: reused_seed masks every round with the same stream."""


class DropOut(Section):
    """Chance that a client falls silent in a round before it sends this (each round and client by itself)."""

    keys: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Its public keys (secure aggregation, masked)."""
    shares: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The shares of its secrets (secure aggregation, masked)."""
    update: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Its update."""
    unmask: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The shares of others that unmask the sum (secure aggregation, masked)."""


NoiseMultiplier = Annotated[float, Field(ge=0, le=1e6)]
Delta = Annotated[float, Field(gt=0, lt=1)]
Norm = Annotated[float, Field(gt=0, le=1e9)]


class Mechanism(Section):
    """What all mechanisms of differential privacy have in common."""

    clipping_norm: Norm = 1.0
    """Largest L2 norm of what one unit (a client's update, a record's gradient) adds; adaptive: in the first round."""
    noise_multiplier: NoiseMultiplier | None = None
    """Standard deviation of the noise as a multiple of the clipping norm."""
    epsilon: Annotated[float, Field(gt=0, le=1e4)] | None = None
    """In place of it: the epsilon of the whole training, from which it is computed."""
    delta: Delta = 1e-5
    """Delta of the guarantee."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.noise_multiplier is None) == (self.epsilon is None):
            raise ValueError("give `noise_multiplier` or `epsilon`, and only one of them")
        return self


class CentralPrivacy(Mechanism):
    """The server clips each client's update and adds Gaussian noise to their sum (McMahan et al. 2018)."""

    name: Literal["central"]
    specimen: Literal["flower_dp_weighted", "noise_tenth", "no_clipping", "tiny_sensitivity"] | None = None
    """A deliberate mistake to be found: Flower's own wrapper around an average weighted by examples, a tenth of the
    noise, no clipping, or noise for a sensitivity 10,000 times below the clipping norm.
    """


class AdaptivePrivacy(Mechanism):
    """Central, with a clipping norm that follows a quantile of the norms (Andrew et al. 2021)."""

    name: Literal["adaptive"]
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the updates that the norm is to leave whole."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.2
    """Step of the norm's logarithm."""


class LocalPrivacy(Mechanism):
    """Each client clips its update and adds Gaussian noise of its own before it sends it."""

    name: Literal["local"]


class DistributedPrivacy(Mechanism):
    """Each client adds integer noise inside secure aggregation; only the sum carries enough (Kairouz et al. 2021)."""

    name: Literal["distributed"]
    noise: Literal["discrete_gaussian", "skellam"] = "skellam"
    """The law of the integers."""


class RecordPrivacy(Mechanism):
    """DP-SGD inside each client: Poisson batches, each record's gradient clipped (Abadi et al. 2016)."""

    name: Literal["record"]


Privacy = Annotated[
    CentralPrivacy | AdaptivePrivacy | LocalPrivacy | DistributedPrivacy | RecordPrivacy, Field(discriminator="name")
]


class Federation(Section):
    rounds: Positive = 10
    """Federated rounds."""
    clients_per_round: Positive | Rate | None = None
    """A whole number: that many clients, drawn afresh each round; a fraction: each client joins with this probability
    (Poisson); default: all.
    """
    strategy: Plugin = Plugin(name="fedavg")
    """Flower strategy that aggregates."""
    mods: tuple[Plugin, ...] = ()
    """Flower client mods, outermost first."""
    local: Local = Local()
    """Local training."""
    evaluate_clients: bool = False
    """Also send each round's new model to all clients for evaluation (they reply with loss and accuracy in clear)."""
    secure_aggregation: SecureAggregation | None = None
    """Let the server learn the sum of the updates only."""
    privacy: Privacy | None = None
    """Differential privacy: {name: central | adaptive | local | distributed | record, ...}."""
    drop_out: DropOut = DropOut()
    """How often clients fall silent."""


class Setup(Section):
    """The same federation with other defences, or with other training. It states its defences whole: those it does not
    name it does not have, whatever `federation` has. Model, training, rounds and mods it does not name stay.
    """

    name: Name
    """What audits and the report call it."""
    secure_aggregation: SecureAggregation | None = None
    """Let the server learn the sum of the updates only."""
    privacy: Privacy | None = None
    """Differential privacy."""
    drop_out: DropOut = DropOut()
    """How often clients fall silent."""
    model: ModelChoice | None = None
    """Another model (dropout, width) in place of the scenario's."""
    local: Local | None = None
    """Another local training (weight decay, epochs, early stopping) in place of `federation.local`."""
    rounds: Positive | None = None
    """Another number of rounds in place of `federation.rounds`."""
    mods: tuple[Plugin, ...] | None = None
    """Other client mods (sparsification) in place of `federation.mods`."""


class Monitor(Section):
    """Flags a caller that sends bursts of near-duplicates; a burst is what attacks on labels alone live on."""

    window: Annotated[int, Field(ge=2, le=1000)] = 100
    """Queries of one caller that are looked at together: the first so many, the next so many, and so on."""
    near_duplicates: Positive = 10
    """Queries of a window that must lie close to an earlier one of it before the caller is flagged."""
    radius: Annotated[float, Field(gt=0)] | None = None
    """How close is close (L2 distance); default: set on public records, at `false_alarm_rate`."""
    false_alarm_rate: Annotated[float, Field(ge=0.001, le=0.5)] = 0.01
    """Share of windows of ordinary queries that may be flagged; sets the radius where none is given."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.near_duplicates >= self.window:
            raise ValueError(
                f"{self.near_duplicates} `near_duplicates` cannot be in a window of {self.window}: the first query has "
                "no earlier one; use fewer, or a larger `window`"
            )
        return self


class Release(Section):
    access: Literal["black_box", "white_box"] = "black_box"
    """Whether the public may query the final model or gets its parameters."""
    output: Literal["probabilities", "top_k", "rounded", "temperature", "label"] = "probabilities"
    """black_box: what a query answers."""
    k: Positive = 3
    """top_k: classes shown."""
    digits: Annotated[int, Field(ge=0, le=12)] = 3
    """rounded: decimals shown."""
    temperature: Annotated[float, Field(gt=0)] = 20.0
    """temperature: logits are divided by this."""
    budget: Positive | None = None
    """black_box: queries (records asked about) that one caller gets answers to (default: any number)."""
    monitor: Monitor | None = None
    """black_box: look for callers that send bursts of near-duplicates."""

    @model_validator(mode="after")
    def _white(self) -> Self:
        if self.access == "white_box" and (self.budget is not None or self.monitor is not None):
            raise ValueError(
                "white_box gives the parameters away, so nobody need ask: leave `budget` and `monitor` out"
            )
        if self.access == "white_box" and self.output != "probabilities":
            raise ValueError(
                "white_box gives the parameters away, so an output policy hides nothing: leave `output` out"
            )
        return self


class Span(Section):
    """Numbers between bounds, in place of one value: at least one of the four."""

    above: float | None = None
    """Larger than this."""
    at_least: float | None = None
    """This, or larger."""
    below: float | None = None
    """Smaller than this."""
    at_most: float | None = None
    """This, or smaller."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        lows, highs = (self.above, self.at_least), (self.below, self.at_most)
        if lows == highs == (None, None):
            raise ValueError("got no bound; give `above` or `at_least`, `below` or `at_most`, or one of each two")
        if None not in lows or None not in highs:
            raise ValueError(f"got {self}; give one of `above` and `at_least`, and one of `below` and `at_most`")
        low, high = (next((bound for bound in pair if bound is not None), None) for pair in (lows, highs))
        closed = self.at_least is not None and self.at_most is not None
        if low is not None and high is not None and not (low < high or (closed and low == high)):
            raise ValueError(f"got {self}, which no number is; let the lower bound lie below the upper one")
        return self

    def __str__(self) -> str:
        bounds = {"above": self.above, "at least": self.at_least, "below": self.below, "at most": self.at_most}
        return " and ".join(f"{word} {shortest(bound)}" for word, bound in bounds.items() if bound is not None)


def shortest(number: float) -> str:
    """Return a number in as few digits as tell it from all others: 40, not 40.0."""
    return repr(float(number)).removesuffix(".0")


def _value_kind(value: object) -> str:
    if isinstance(value, dict | Span):
        return "span"
    return "truth" if isinstance(value, bool) else "text"


Value = Annotated[
    Annotated[str, Tag("text")] | Annotated[bool, Tag("truth")] | Annotated[Span, Tag("span")],
    Discriminator(_value_kind),
]
"""What a column must say of a record that has a property."""


def property_words(column: str, value: Value) -> str:
    """Return a property in words, unique among different ones: sex=Female, age at least 40."""
    if isinstance(value, Span):
        return f"{column} {value}"
    return f"{column}={str(value).lower() if isinstance(value, bool) else value}"


class PropertyGame(Section):
    """Which of two or more shares of a property does the training population, or one client's data, have?"""

    name: Literal["property"]
    column: str | None = None
    """The sensitive column."""
    value: Value | None = None
    """The value that has the property; of numbers also bounds: {above | at_least: 20, below | at_most: 40}."""
    where: dict[str, Value] = {}
    """In place of both, a sub-group: several columns and the value of each, all of which a record must have."""
    shares: Annotated[tuple[Share, ...], Field(min_length=2, max_length=21)] = (0.5, 0.2)
    """Share of records with the property in a "no" world and in a "yes" world; 0 and a very small one ask whether it
    exists at all (at least one record); more than two, in order: how large is the share?
    """
    client: Annotated[int, Field(ge=0)] | None = None
    """Ask about the data of this client only (default: about all training records together)."""
    records: Positive | None = None
    """Training records a world, or of the client asked about (default: as many as half the candidates are)."""

    @property
    def parts(self) -> dict[str, Value]:
        """The property: column -> value."""
        if self.where:
            return dict(self.where)
        assert self.column is not None
        assert self.value is not None
        return {self.column: self.value}

    @model_validator(mode="after")
    def _property(self) -> Self:
        pair = (self.column is not None) + (self.value is not None)
        if pair != (0 if self.where else 2):
            given = [name for name in ("column", "value", "where") if getattr(self, name) not in (None, {})]
            raise ValueError(
                f"got {' and '.join(given) or 'no property'}; a property is `column` and `value`, or several of both "
                "in `where: {column: value, ...}`"
            )
        return self

    @model_validator(mode="after")
    def _secret(self) -> Self:
        if len(self.shares) == 2 and self.shares[0] == self.shares[1]:
            raise ValueError(f"both `shares` are {self.shares[0]:g}, so there is no secret; give two different shares")
        if len(self.shares) > 2 and any(after <= before for before, after in pairwise(self.shares)):
            raise ValueError("more than two `shares` must rise, each above the one before")
        return self


class LabelGame(Section):
    """Which labels does one client hold, or do all together?"""

    name: Literal["labels"]
    client: Annotated[int, Field(ge=0)] | Literal["all"] = 0
    """The client asked about: in each world a random half of the classes is in its data. all: it is in everybody's."""
    records: Positive | None = None
    """Records of each client (default: so many that half the candidates are held; all: that one class would do)."""


class CanaryGame(Section):
    """Which canaries took part? Each joins by a coin flip; they are what a mechanism protects worst."""

    name: Literal["canaries"]
    unit: Literal["client", "record"] = "client"
    """client: clients that send a fixed update; record: records with a fixed gradient (needs record-level privacy)."""
    count: Annotated[int, Field(ge=4, le=10_000)] = 100
    """Canaries, half of which take part on average."""
    direction: Literal["dirac", "random"] = "dirac"
    """dirac: one coordinate each; random: uniform on the sphere (what the one-shot estimate asks for)."""


class ClientGame(Section):
    """Which clients took part at all? In each world a coin decides for each; those that are out train nowhere."""

    name: Literal["client"]
    sample: Literal["same", "disjoint"] = "same"
    """Which records of a client the attacker holds. same: those it trains on; disjoint: half of its records, which are
    held out, so that only what they have in common with the other half can tell.
    """


class DistinguishGame(Section):
    """Which of two record sets does each client hold? A coin decides in each world; the two are disjoint, of equal size
    and with the same labels, and the attacker knows both.
    """

    name: Literal["distinguish"]
    clients: Annotated[int, Field(ge=2)] | None = None
    """Size of the crowd: only the first so many clients take part (default: all). What each holds stays the same."""


class ClientPropertyGame(Section):
    """Which clients have records with a property? In each world a coin decides for each: a share of its records has it,
    or none; number of records and labels are the same for all.
    """

    name: Literal["client_property"]
    column: str
    """The sensitive column."""
    value: Value
    """The value that has the property; of numbers also bounds: {above | at_least: 20, below | at_most: 40}."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of records with the property at a client that has it."""
    records: Annotated[int, Field(ge=2)] | None = None
    """Records of each client (default: so many that half the candidates are held)."""


class BatchGame(Section):
    """In which rounds did a client train on records with a property? In each round it trains on a new batch, of which a
    share has the property or none, as a coin says; the labels are the same in every round.
    """

    name: Literal["batches"]
    column: str
    """The sensitive column."""
    value: Value
    """The value that has the property; of numbers also bounds: {above | at_least: 20, below | at_most: 40}."""
    client: Annotated[int, Field(ge=0)] = 0
    """The client asked about; the others hold what they hold, from the first round to the last."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of records with the property in a batch that has it."""
    records: Annotated[int, Field(ge=2)] | None = None
    """Records of a batch, and of each other client (default: federation.local.batch_size)."""


def _game_name(value: object) -> str:
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", value)
    return str(name)


Game = Annotated[
    Annotated[Literal["record"], Tag("record")]
    | Annotated[Literal["source"], Tag("source")]
    | Annotated[PropertyGame, Tag("property")]
    | Annotated[LabelGame, Tag("labels")]
    | Annotated[CanaryGame, Tag("canaries")]
    | Annotated[ClientGame, Tag("client")]
    | Annotated[DistinguishGame, Tag("distinguish")]
    | Annotated[ClientPropertyGame, Tag("client_property")]
    | Annotated[BatchGame, Tag("batches")],
    Discriminator(_game_name),
]


class GradientAscent(Section):
    """The server (in the model it sends) or a participant (in its update) pushes the model up the loss on the records
    asked about; who trains on them pulls it down again (Nasr et al. 2019).
    """

    name: Literal["gradient_ascent"]
    strength: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """L2 length of a push."""
    every: Positive = 2
    """Rounds from one push to the next."""
    groups: Positive = 1
    """The records are dealt into so many groups, pushed in turn, so that fewer get in each other's way."""


class LabelPoisoning(Section):
    """A participant also trains on mislabelled copies of the records asked about, so that those who train on the
    right label stand out more (Tramer et al. 2022).
    """

    name: Literal["label_poisoning"]
    copies: Annotated[int, Field(ge=1, le=1000)] = 2
    """Copies of each record."""


class Isolation(Section):
    """The server sends a client its own last model in place of the global one (Nasr et al. 2019)."""

    name: Literal["isolation"]
    client: Annotated[int, Field(ge=0)] | None = None
    """The client isolated, whose model goes into no average any more (default: each client)."""


class InconsistentModels(Section):
    """The server sends all clients but one a model with dead units, whose updates are zero, so that a sum of updates is
    the one client's (Pasquini et al. 2022).
    """

    name: Literal["inconsistent_models"]
    client: Annotated[int, Field(ge=0)] | None = None
    """The victim (default: each client in turn)."""
    every: Positive = 1
    """Rounds from one victim to the next."""


class CanaryGradient(Section):
    """The server sends all clients but one a model with dead units, as in inconsistent_models, and the victim a model
    each of whose units answers to one record asked about (Pasquini et al. 2022). Nothing is learned in such a round.
    """

    name: Literal["canary_gradient"]
    client: Annotated[int, Field(ge=0)] | None = None
    """The victim (default: each client in turn)."""
    every: Positive = 2
    """Rounds from one victim to the next."""


class PropertyPoisoning(Section):
    """A participant also trains on public records with the property, all under one label: the rarer the property is
    among the others' records, the more the model believes it (Chaudhari et al. 2023).
    """

    name: Literal["property_poisoning"]
    share: Annotated[float, Field(gt=0, le=1)] = 0.03
    """Poison records, as a share of the training records of all (at least one)."""
    label: Annotated[int, Field(ge=0)] = 1
    """The class that they are given."""


class MultiTask(Section):
    """A participant also trains the model's hidden layers to tell public records with the property from others, by a
    last layer of its own that it sends nobody. The better they tell them apart, the more a client's update shows which
    of them it trained on (Melis et al. 2019).
    """

    name: Literal["multi_task"]
    weight: Share = 0.5
    """Share of this second task in the participant's loss; the rest is what it trains for like everybody."""
    every: Positive = 1
    """Rounds from one such training to the next."""


Adversary = Annotated[
    GradientAscent | LabelPoisoning | Isolation | InconsistentModels | CanaryGradient | PropertyPoisoning | MultiTask,
    Field(discriminator="name"),
]
ACTS_AS: dict[str, tuple[str, ...]] = {
    "gradient_ascent": ("server", "client"),
    "label_poisoning": ("client",),
    "isolation": ("server",),
    "inconsistent_models": ("server",),
    "canary_gradient": ("server",),
    "property_poisoning": ("client",),
    "multi_task": ("client",),
}
"""Who of a vantage acts, by the adversary's name: the server if it can and is there, else every client there."""
ACTS_IN: dict[str, str] = {"property_poisoning": "property", "multi_task": "batches"}
"""The game that an adversary is for, by its name; where it is not here: record."""


class Audit(Section):
    name: Name
    """What the report calls it."""
    game: Game = "record"
    """What is secret and asked: record, source, {name: client, ...}, {name: property, ...}, {name: labels, ...},
    {name: canaries, ...}, {name: distinguish, ...}, {name: client_property, ...} or {name: batches, ...}.
    """
    vantage: str = "public"
    """Who attacks: public, server, client:K, or several joined by + (collusion)."""
    attacks: Annotated[tuple[str, ...], Field(min_length=1)]
    """Attacks to run; see `fedsim list attacks`."""
    setup: Name | None = None
    """The setup attacked (default: the federation as it stands)."""
    release: Release | None = None
    """How the same model is shown to this audit's attackers (default: `release`); to compare output policies or query
    budgets without training again.
    """
    bounds: tuple[str, ...] = ()
    """Lower bounds on epsilon to draw from the scores; see `fedsim list bounds`."""
    delta: Delta = 1e-5
    """bounds: the delta at which epsilon is bounded."""
    adversary: Adversary | None = None
    """What the vantage does beside looking (default: nothing): {name: gradient_ascent | label_poisoning | isolation |
    inconsistent_models | canary_gradient, ...}; in the game property {name: property_poisoning, ...}, in
    batches {name: multi_task, ...}.
    """


class MetricClaim(Section):
    """No attack of an audit does better than a bound."""

    audit: Name
    """The audit it is about."""
    attack: str = "any"
    """An attack of that audit, or `any`: no attack of the audit exceeds the bound (corrected for their number)."""
    metric: str = "auc"
    """auc, tpr@fpr=0.01, advantage, balanced_accuracy, precision@prior=0.5; n_leaked in a property game."""
    at_most: Annotated[float, Field(gt=0, le=1e9)]
    """The bound claimed: at most 1, but for n_leaked, which counts records."""
    confidence: Confidence = 0.95
    """Confidence of the verdict."""


class DifferenceClaim(Section):
    """An attack does worse in one audit than in another, or than another attack, by so much at least."""

    audit: Name
    """The audit that is said to leak less."""
    attack: str
    """An attack of the audit, and without `lower_than_attack` of the other too."""
    metric: str = "auc"
    """auc, tpr@fpr=0.01, advantage, balanced_accuracy, precision@prior=0.5."""
    lower_than: Name
    """The audit that is said to leak more; with `lower_than_attack` it may be the same."""
    lower_than_attack: str | None = None
    """The attack that is said to do better there (default: the same attack)."""
    by: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """By how much, at least."""
    confidence: Confidence = 0.95
    """Confidence of the verdict."""


class EpsilonClaim(Section):
    """The federation is (epsilon, delta)-differentially private to somebody."""

    epsilon: Annotated[float, Field(gt=0, le=1e4)]
    """The epsilon claimed, of the whole training."""
    delta: Delta = 1e-5
    """The delta claimed."""
    unit: Literal["client", "record"] = "client"
    """What is protected: all of a client's data, or one record."""
    observer: Literal["server", "participant", "public"] = "public"
    """To whom."""
    setup: Name | None = None
    """The setup it is about (default: the federation as it stands)."""
    confidence: Confidence = 0.95
    """Confidence of the verdict."""


def _claim_kind(value: object) -> str:
    if isinstance(value, BaseModel):
        value = type(value).model_fields
    keys: Collection[object] = value if isinstance(value, Collection) else ()
    return "epsilon" if "epsilon" in keys else "difference" if "lower_than" in keys else "metric"


Claim = Annotated[
    Annotated[MetricClaim, Tag("metric")]
    | Annotated[DifferenceClaim, Tag("difference")]
    | Annotated[EpsilonClaim, Tag("epsilon")],
    Discriminator(_claim_kind),
]


class Controls(Section):
    planted_worlds: Annotated[int, Field(ge=0)] = 12
    """Small over-trained federations in which every attack should find the leak: at least 4, references for each other
    (0: none, then no claim can be 'not refuted').
    """
    planted_rounds: Positive = 20
    """Rounds of those federations (games property, labels and canaries: as many as the others have)."""


class Scenario(Section):
    name: Name
    """Names the run folder."""
    description: str = ""
    """One or two sentences for the report."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """Same seed, same bytes."""
    data: Data
    """Which records, and how they are dealt."""
    model: ModelChoice = ModelChoice()
    """What is learned."""
    federation: Federation = Federation()
    """How the federation learns."""
    release: Release = Release()
    """How the final model is shown to the public."""
    worlds: Annotated[int, Field(ge=2, le=100_000)] = 32
    """Independent federations, each with its own secrets."""
    audits: Annotated[tuple[Audit, ...], Field(min_length=1)]
    """Who attacks, from where, with what."""
    claims: tuple[Claim, ...] = ()
    """Bounds to be put to the test."""
    controls: Controls = Controls()
    """Floor and ceiling that every audit carries."""
    setups: tuple[Setup, ...] = ()
    """Other defences or training to compare with, on the same worlds; audits name the one they attack."""
    device: Literal["cpu", "cuda", "mps"] = "cpu"
    """Where local training runs."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of parameters and training."""


def in_setup(scenario: Scenario, name: str | None) -> Scenario:
    """Return the scenario with what the setup of that name puts in place of its own; None: as it stands."""
    setup = next((each for each in scenario.setups if each.name == name), None)
    if setup is None:
        return scenario
    own = scenario.federation
    federation = own.model_copy(
        update={
            "secure_aggregation": setup.secure_aggregation,
            "privacy": setup.privacy,
            "drop_out": setup.drop_out,
            "local": setup.local or own.local,
            "rounds": setup.rounds or own.rounds,
            "mods": own.mods if setup.mods is None else setup.mods,
        }
    )
    return scenario.model_copy(update={"federation": federation, "model": setup.model or scenario.model})


def digest(scenario: Scenario) -> str:
    """Return the SHA-256 (hex) of the effective scenario: equal for equal meaning, whatever the file looked like."""
    return hashlib.sha256(json.dumps(scenario.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
