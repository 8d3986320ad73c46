"""A made-up run: scores from two bell curves, everything else as a real run would fill it in."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fedsim import __version__, metrics
from fedsim.metrics import DEFAULT_METRICS, Metric
from fedsim.results import (
    SCHEMA,
    Band,
    Claim,
    ClaimStated,
    Client,
    Control,
    Data,
    EpsilonRow,
    Evidence,
    Exposed,
    Federation,
    Finding,
    GameName,
    Machine,
    Provenance,
    Quantity,
    Results,
    Round,
    Scenario,
    SetupFound,
    Sight,
    Utility,
    evidence_name,
    unknown,
    write,
    write_evidence,
)
from fedsim.scenario import Scenario as GivenScenario
from fedsim.scenario import digest

ATTACKS = {  # name -> (how well members stand out, title, summary)
    "gap": (0.15, "Prediction gap", "Says that a record was in training when the model classifies it correctly."),
    "loss": (0.4, "Loss threshold", "Says that a record was in training when the model's loss on it is small."),
    "lira": (
        1.1,
        "Likelihood ratio (LiRA)",
        "Compares the model's confidence with models trained with and without the record.",
    ),
    "rmia": (1.0, "Relative membership (RMIA)", "Asks how many other records the record stands out against."),
    "loss_trajectory": (0.5, "Loss over the rounds", "Follows the loss on a record through all the models it saw."),
    "update_cosine": (
        0.9,
        "Cosine with the update",
        "Checks whether a client's update points where the record would push it.",
    ),
    "property_loss": (0.9, "Loss test", "Compares the model's loss on a sample of each hypothesis."),
    "label_unmixing": (
        3.0,
        "Label histogram",
        "Reads how often each class was trained from the last bias of an update.",
    ),
    "canary_product": (1.5, "Canary, whole movement", "Measures how far the model moved in the direction of a canary."),
    "source_loss": (1.5, "Lowest loss among the clients", "Asks which client's model fits the record best."),
    "client_loss": (1.5, "Loss on a client's records", "Averages the model's loss over records of a client."),
    "prolin": (2.0, "Property of a client", "Asks which clients have records with the property."),
    "batch_property": (2.0, "Property of a batch", "Asks in which rounds there were records with the property."),
    "lda": (2.0, "Linear discriminant", "Asks with which of two updates a sum is likelier."),
}


def quantity(metric: Metric, evidence: Evidence) -> Quantity:
    """The metric on the evidence, with a plain interval (not a correct one)."""
    scores, members = evidence.scores[evidence.asked], evidence.members[evidence.asked]
    non_members = int((~members).sum())
    if metric.kind == "tpr" and non_members < 10 / metric.level:
        return unknown(f"needs {10 / metric.level:.0f} non-members, has {non_members}", 0.95)
    tpr, fpr = metrics.rates(scores, members, float(np.median(scores)))
    false_positives = None
    match metric.kind:
        case "auc":
            value = metrics.auc(scores, members)
        case "tpr":
            point = metrics.tpr_at_fpr(scores, members, metric.level)
            value, false_positives = point.tpr, point.false_positives
        case "advantage":
            value = tpr - fpr
        case "balanced_accuracy":
            value = (1 + tpr - fpr) / 2
        case "precision":
            value = metric.level * tpr / (metric.level * tpr + (1 - metric.level) * fpr)
        case _:
            value = 1.0
    half = 0.4 / np.sqrt(evidence.asked.sum())
    low, high = max(value - 2 * half, 0.0), min(value + 2.3 * half, 1.0)
    return Quantity(value, low, high, 0.95, "made up", int(members.sum()), non_members, false_positives, None)


def evidence(effect: float, worlds: int, items: int, rng: np.random.Generator, coarse: bool = False) -> Evidence:
    """Scores whose members stand `effect` higher, more so for some items than for others."""
    members = rng.random((worlds, items)) < 0.5
    members[0], members[1] = True, False
    sensitivity = effect * rng.lognormal(-0.3, 0.8, items)
    scores = rng.normal(size=(worlds, items)) + members * sensitivity
    scores = np.where(scores > 0, 1.0, 0.0) if coarse else scores
    return Evidence(scores, members, np.ones_like(members))


def finding(
    audit: str, vantage: str, attack: str, game: GameName, folder: Path, worlds: int, items: int, seed: int
) -> Finding:
    """A measured finding; its evidence is written into `folder`."""
    rng = np.random.default_rng([seed, *f"{audit}.{attack}".encode()])
    effect, title, summary = ATTACKS[attack]
    found = evidence(effect, worlds, items, rng, coarse=attack == "gap")
    write_evidence(folder / evidence_name(audit, attack), found)
    auc = Metric("auc")
    null, planted = (evidence(size, worlds, max(items, 20), rng) for size in (0.0, 3.0))
    tenth = replace(found, asked=found.asked & (np.arange(items) < max(items // 10, 1)))
    return Finding(
        audit=audit,
        game=game,
        vantage=vantage,
        attack=attack,
        title=title,
        summary=summary,
        knowledge="Reference models trained the same way on records of the same kind.",
        paper="A. Author and B. Author, A paper about this attack, A Conference, 2022",
        link="https://arxiv.org/abs/2112.03570",
        status="measured",
        reason=None,
        members=int(found.members.sum()),
        non_members=int((~found.members).sum()),
        worlds=worlds,
        metrics={metric.name: quantity(metric, found) for metric in DEFAULT_METRICS},
        slices={"most_exposed_tenth": {metric.name: quantity(metric, tenth) for metric in DEFAULT_METRICS[:3]}},
        controls={
            "null": Control(quantity(auc, null), True, "Records that never trained: the interval covers 0.5."),
            "planted": Control(quantity(auc, planted), True, "Worlds with a planted leak: the attack found it."),
            "blind": Control(unknown("needs more public records", 0.95), None, "Not run: needs more public records."),
        },
        exposed=tuple(
            Exposed(int(i), 1700 - int(i), f"client:{i % 10}", 0.99 - 0.013 * place)
            for place, i in enumerate(np.argsort(found.scores[0])[:10])
        )
        if game == "record"
        else (),
        evidence=evidence_name(audit, attack),
    )


def not_visible(audit: str, vantage: str, attack: str, game: GameName = "record") -> Finding:
    """A finding whose attack lacks its input."""
    _, title, summary = ATTACKS[attack]
    return Finding(
        audit=audit,
        game=game,
        vantage=vantage,
        attack=attack,
        title=title,
        summary=summary,
        knowledge="Nothing more.",
        paper="A. Author, Another paper, 2023",
        link="https://openreview.net/forum?id=QsCSLPP55Ku",
        status="not visible",
        reason="no client's update crosses this vantage",
        members=0,
        non_members=0,
        worlds=0,
        metrics={},
        slices={},
        controls={},
        exposed=(),
        evidence=None,
    )


def given_scenario(game: GameName, worlds: int, items: int, **changes: object) -> GivenScenario:
    """The scenario of the made-up run."""
    games: dict[str, object] = {
        "record": "record",
        "property": {"name": "property", "column": "sex", "value": "Female"},
        "labels": {"name": "labels", "client": 0},
        "canaries": {"name": "canaries", "unit": "client", "count": 40},
        "source": "source",
        "client": {"name": "client"},
        "distinguish": {"name": "distinguish"},
        "client_property": {"name": "client_property", "column": "sex", "value": "Female"},
        "batches": {"name": "batches", "column": "sex", "value": "Female"},
    }
    attacks = {
        "record": ("gap", "loss", "lira", "rmia"),
        "property": ("property_loss",),
        "labels": ("label_unmixing",),
        "canaries": ("canary_product",),
        "source": ("source_loss",),
        "client": ("client_loss",),
        "distinguish": ("lda",),
        "client_property": ("prolin",),
        "batches": ("batch_property",),
    }
    first = {"name": "outsider", "game": games[game], "vantage": "public", "attacks": attacks[game]}
    second = {"name": "participant", "vantage": "client:0", "attacks": ("loss_trajectory", "lira", "update_cosine")}
    plain: dict[str, object] = {
        "name": "quickstart",
        "description": "Ten clients learn to read digits.",
        "seed": 7,
        "data": {"source": "digits", "candidates": items},
        "model": {"name": "mlp", "hidden": (256,)},
        "federation": {"rounds": 30, "local": {"epochs": 5, "batch_size": 8, "learning_rate": 0.3}},
        "worlds": worlds,
        "audits": (first, second) if game == "record" else (first,),
    }
    return GivenScenario.model_validate(plain | changes)


def run(
    folder: Path, game: GameName = "record", worlds: int = 24, items: int = 100, seed: int = 0, **changes: object
) -> Results:
    """The record of a made-up run, written with its evidence into `folder`."""
    scenario = given_scenario(game, worlds, items, **changes)
    fixed = {"property": 1, "labels": 10, "canaries": 40, "client": 9, "distinguish": 8}
    asked = fixed.get(game, items)
    audit = scenario.audits[0]
    findings = [finding(audit.name, "public", name, game, folder, worlds, asked, seed) for name in audit.attacks]
    if game == "record":
        other = ("participant", "client:0")
        findings += [finding(*other, name, game, folder, worlds, asked, seed) for name in ("loss_trajectory", "lira")]
        findings += [not_visible(*other, "update_cosine")]
    metric = "tpr@fpr=0.01" if game == "record" else "auc"
    claims = [_claim(each, metric, bound) for each, bound in zip(findings[:3], (0.5, 0.05, 0.02), strict=False)]
    flat = Quantity(0.921, 0.914, 0.928, 0.95, "Student t over worlds", None, None, None, None)
    utility = Utility(replace(flat, estimate=1.0, low=0.999, high=1.0), flat, flat, flat, _rounds(30))
    record = Results(
        schema=SCHEMA,
        status="complete",
        scenario=Scenario({"name": scenario.name}, scenario.model_dump(mode="json"), digest(scenario)),
        provenance=Provenance(
            fedsim=__version__,
            packages={"flwr": "1.41.0", "numpy": "2.4.6", "scipy": "1.17.0", "sklearn": "1.8.0", "torch": "2.13.0"},
            commit=None,
            dirty=None,
            commit_reason="not run from a git checkout",
            data=Data("digits", "ab" * 32, 1797, 0, False, "Alpaydin and Kaynak (1998), UCI", "CC BY 4.0"),
            seed=7,
            engine="serial",
        ),
        federation=Federation(
            clients=tuple(Client(k, items // 10) for k in range(10)),
            worlds=worlds,
            rounds=30,
            parameters=19210,
            transcripts=tuple(f"{world:064x}" for world in range(worlds)),
            sights=(
                Sight("public", {}, False, "answers to queries: class probabilities"),
                Sight("client:0", {"train": 30, "train-reply": 30}, True, "answers to queries: class probabilities"),
            )[: len(scenario.audits)],
        ),
        utility=utility,
        findings=tuple(findings),
        claims=tuple(claims),
        setups=(SetupFound(None, None, None, None, nothing_promised(), utility, 30, 0, 720),),
        alarms=(),
        machine=Machine("2025-01-01T00:00:00Z", 41.5, "Linux-6.1-x86_64", "3.11.7", 2),
    )
    write(record, folder)
    return record


def nothing_promised() -> tuple[EpsilonRow, ...]:
    """The epsilons of a federation without privacy."""
    reason = "Nothing is hidden by noise."
    return tuple(
        EpsilonRow(unit, observer, None, 1e-5, "none", "any", reason)
        for unit in ("client", "record")
        for observer in ("server", "participant", "public")
    )


def _claim(found: Finding, metric: str, bound: float) -> Claim:
    """A claim about a finding, judged by its interval alone."""
    stated = ClaimStated(found.audit, found.attack, metric, bound, 0.95)
    sentence = f"In {found.audit}, the attack {found.attack} reaches a {metric} of at most {bound:g}."
    number = found.metrics[metric]
    if number.low is None or number.high is None:
        return Claim(stated, sentence, "inconclusive", None, None, None, str(number.reason))
    if number.low > bound:
        return Claim(
            stated, sentence, "refuted", number.estimate, number.low, number.high, "All of the interval lies above."
        )
    if number.high <= bound:
        return Claim(stated, sentence, "not refuted", number.estimate, number.low, number.high, "All of it lies below.")
    return Claim(stated, sentence, "inconclusive", number.estimate, number.low, number.high, "The bound lies inside.")


def _rounds(count: int) -> tuple[Round, ...]:
    """Curves that rise and flatten."""

    def band(value: float) -> Band:
        return Band(value, value - 0.02, value + 0.02)

    def one(index: int) -> Round:
        left = float(np.exp(-index / 5))
        return Round(index, band(1 - 0.7 * left), band(0.92 - 0.6 * left), band(2.2 * left), band(0.3 + 1.9 * left))

    return tuple(one(index) for index in range(1, count + 1))
