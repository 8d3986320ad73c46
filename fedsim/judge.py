"""From what the worlds left behind to findings and verdicts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from fedsim import results
from fedsim.attack import Attack, score
from fedsim.claims import any_verdict, bonferroni, verdict
from fedsim.controls import AUC, CONFIDENCE, Found, blind_baseline, covers_chance, found_leak
from fedsim.engine import WorldResult
from fedsim.errors import NotVisible
from fedsim.game import Exam, asked, asked_from
from fedsim.intervals import Unresolved, exposure, measure, most_exposed_tenth
from fedsim.metrics import DEFAULT_METRICS, Metric, parse_metric
from fedsim.prepare import Attacks, Prepared, Trial, clients, probe_name
from fedsim.results import Evidence
from fedsim.scenario import Audit, ClaimStatement
from fedsim.transcript import client
from fedsim.views import Floats, RecordAsk, parse_vantage

LEVEL = 0.95
"""Confidence of every interval that no claim sets otherwise."""
MOST_EXPOSED = 10
EXPOSED_WORLDS = 16
"""With fewer worlds many records are told apart perfectly by luck."""
CARRIERS = {"train", "train-reply", "evaluate", "final"}  # kinds of message that carry parameters


class Scored(NamedTuple):
    """One attack of one audit: its finding, and the scores behind it (None where it saw nothing)."""

    finding: results.Finding
    evidence: Evidence | None


def findings(prepared: Prepared, trial: Trial, left: Mapping[int, WorldResult], attacks: Attacks) -> list[Scored]:
    """Return a finding for each attack of each audit of a trial."""
    scored = []
    for audit in trial.audits:
        own = clients(parse_vantage(audit.vantage, prepared.pool.clients))
        main = trial.draw.exams[0]
        blind = blind_baseline(
            main.blind,
            main.members,
            asked(main, own),
            prepared.scenario.seed,
            new_items=_new_items(attacks[audit.attacks[0]].game),
        )
        scored += [_finding(prepared, trial, audit, attacks[name], left, own, blind, attacks) for name in audit.attacks]
    return scored


def _new_items(game: str) -> bool:
    """Return whether other items could have been asked about; the classes of a task are all there are."""
    return game != "labels"


class _Tried(NamedTuple):
    """An attack's scores in one exam, or why there are none."""

    scores: Floats
    members: np.ndarray
    asked: np.ndarray
    hidden: str | None


def _try(
    prepared: Prepared,
    audit: Audit,
    attack: Attack,
    exam: Exam,
    left: Mapping[int, WorldResult],
    own: frozenset[int],
    attacks: Attacks,
) -> _Tried:
    name = probe_name(parse_vantage(audit.vantage, prepared.pool.clients), exam, audit, attack.name, attacks)
    mask = asked(exam, own)
    hidden = sorted({left[int(w)].not_visible[name] for w in exam.worlds if name in left[int(w)].not_visible})
    if hidden:
        return _Tried(np.zeros(exam.members.shape), exam.members, mask, hidden[0])
    signals = np.stack([left[int(w)].signals[name] for w in exam.worlds])
    ask, seed = asked_from(exam.ask, own), prepared.scenario.seed
    try:
        scores = score(attack, signals, exam.members, exam.targets, exam.references, ask, seed)
    except NotVisible as reason:
        return _Tried(np.zeros(exam.members.shape), exam.members, mask, str(reason))
    return _Tried(scores, exam.members, mask, None)


def _finding(
    prepared: Prepared,
    trial: Trial,
    audit: Audit,
    attack: Attack,
    left: Mapping[int, WorldResult],
    own: frozenset[int],
    blind: Found,
    attacks: Attacks,
) -> Scored:
    main = trial.draw.exams[0]
    tried = {exam.kind: _try(prepared, audit, attack, exam, left, own, attacks) for exam in trial.draw.exams}
    found = tried["main"]
    nothing = results.Finding(
        audit=audit.name,
        game=attack.game,
        vantage=audit.vantage,
        attack=attack.name,
        title=attack.title,
        summary=attack.summary,
        knowledge=attack.knowledge,
        paper=attack.paper,
        link=attack.link,
        status="not visible",
        reason=found.hidden or "not measured yet",
        members=int((found.members & found.asked).sum()),
        non_members=int((~found.members & found.asked).sum()),
        worlds=int(found.asked.any(axis=1).sum()),
        metrics={},
        slices={},
        controls={},
        exposed=(),
        evidence=None,
    )
    if found.hidden is not None:
        return Scored(nothing, None)
    new_items = _new_items(attack.game)
    metrics = {
        metric.name: results.quantity(measure(metric, *found[:3], new_items=new_items), LEVEL)
        for metric in DEFAULT_METRICS
    }
    amount = main.quantity if attack.estimates else None
    if amount is not None:
        error = parse_metric("mae")
        metrics[error.name] = results.quantity(
            measure(error, found.scores, amount, found.asked, new_items=new_items), LEVEL
        )
    null, planted = tried.get("null"), tried.get("planted")
    null_arrays = null[:3] if null and null.hidden is None else (None, None, None)
    planted_arrays = planted[:3] if planted and planted.hidden is None else (None, None, None)
    evidence = Evidence(found.scores, found.members, found.asked, amount, *null_arrays, *planted_arrays)
    finding = dataclasses.replace(
        nothing,
        status="measured",
        reason=None,
        metrics=metrics,
        slices=_slices(prepared, main, found),
        controls={
            "null": _null(null, new_items),
            "planted": _planted(planted, new_items),
            "blind": _blind(blind, main),
        },
        exposed=_exposed(prepared, main, found),
        evidence=results.evidence_name(audit.name, attack.name),
    )
    return Scored(finding, evidence)


def _null(tried: _Tried | None, new_items: bool) -> results.Control:
    found = _control_auc(tried, CONFIDENCE, "the data are too few for a null control", new_items)
    passed = covers_chance(found)
    words = {
        True: "on answers that have nothing to do with the training, its interval covers 0.5, as it must",
        False: "it sees a leak in answers that have nothing to do with the training: do not trust it here",
        None: "it did not run",
    }
    return results.Control(results.quantity(found, CONFIDENCE), passed, words[passed])


def _planted(tried: _Tried | None, new_items: bool) -> results.Control:
    found = _control_auc(tried, LEVEL, "the scenario asks for no planted worlds", new_items)
    passed = found_leak(found)
    words = {
        True: "in over-trained worlds with a planted leak it finds the leak",
        False: "it does not even find a planted leak: its silence means nothing",
        None: "it did not run",
    }
    return results.Control(results.quantity(found, LEVEL), passed, words[passed])


def _blind(found: Found, exam: Exam) -> results.Control:
    passed = covers_chance(found)
    words = {
        True: "a classifier that sees the data and never a model is at chance, as it must be",
        False: "a classifier that never saw a model tells the answers apart: the worlds differ before any training",
        None: "it did not run",
    }
    extra = "".join(f"; {name.replace('_', ' ')} {value:.3f}" for name, value in exam.facts.items())
    return results.Control(results.quantity(found, CONFIDENCE), passed, words[passed] + extra)


def _control_auc(tried: _Tried | None, confidence: float, absent: str, new_items: bool) -> Found:
    if tried is None:
        return Unresolved(absent[0].upper() + absent[1:] + ".")
    if tried.hidden is not None:
        return Unresolved(tried.hidden)
    return measure(AUC, *tried[:3], confidence=confidence, new_items=new_items)


def _slices(prepared: Prepared, exam: Exam, found: _Tried) -> dict[str, dict[str, results.Quantity]]:
    if not isinstance(exam.ask, RecordAsk):
        return {}
    masks = {"most_exposed_tenth": most_exposed_tenth(*found[:3])}
    wrong = prepared.pool.mislabelled[prepared.pool.candidates]
    if wrong.any():
        masks["mislabelled"] = found.asked & wrong[None, :]
    return {
        name: {
            metric.name: results.quantity(measure(metric, found.scores, found.members, mask), LEVEL)
            for metric in DEFAULT_METRICS[:3]
        }
        for name, mask in masks.items()
    }


def _exposed(prepared: Prepared, exam: Exam, found: _Tried) -> tuple[results.Exposed, ...]:
    if not isinstance(exam.ask, RecordAsk) or len(exam.worlds) < EXPOSED_WORLDS:
        return ()
    owner = prepared.pool.owner[prepared.pool.candidates]
    each = exposure(*found[:3])
    return tuple(
        results.Exposed(int(item), client(int(owner[item])), float(auc))
        for item, auc in list(zip(each.items, each.auc, strict=True))[:MOST_EXPOSED]
    )


def claim(statement: ClaimStatement, scored: Sequence[Scored]) -> results.Claim:
    """Return the verdict on a claim from the findings of its audit."""
    metric = parse_metric(statement.metric)
    concerned = [
        each
        for each in scored
        if each.finding.audit == statement.audit and statement.attack in ("any", each.finding.attack)
    ]
    confidence = bonferroni(statement.confidence, len(concerned))
    measured = [_claimed(metric, each, confidence) for each in concerned]
    verdicts = [
        verdict(found, statement.at_most, null_ok=_sound(each.finding), planted_ok=_passed(each.finding, "planted"))
        for found, each in zip(measured, concerned, strict=True)
    ]
    final = any_verdict(verdicts) if len(verdicts) > 1 else verdicts[0]
    known = [found for found in measured if not isinstance(found, Unresolved)]
    worst = max(known, key=lambda found: found.low, default=None)
    stated = results.ClaimStated(**statement.model_dump())
    return results.Claim(
        claim=stated,
        sentence=f"{statement.audit}: {_sentence(statement)}",
        status=final.status,
        estimate=worst.estimate if worst else None,
        low=worst.low if worst else None,
        high=worst.high if worst else None,
        reason=final.reason,
    )


def _claimed(metric: Metric, scored: Scored, confidence: float) -> Found:
    evidence = scored.evidence
    if evidence is None:
        return Unresolved(f"Attack {scored.finding.attack} cannot run here: {scored.finding.reason}")
    new_items = _new_items(scored.finding.game)
    return measure(
        metric, evidence.scores, evidence.members, evidence.asked, confidence=confidence, new_items=new_items
    )


def _passed(finding: results.Finding, control: str) -> bool:
    return control in finding.controls and finding.controls[control].passed is True


def _sound(finding: results.Finding) -> bool:
    """A verdict may rest on it unless a control shows a leak where there is none."""
    return all(finding.controls[name].passed is not False for name in ("null", "blind") if name in finding.controls)


def _sentence(statement: ClaimStatement) -> str:
    """The claim in words."""
    metric, bound = parse_metric(statement.metric), statement.at_most
    attack = "any attack" if statement.attack == "any" else f"the attack {statement.attack}"
    match metric.kind:
        case "tpr":
            level, most = f"{metric.level * 100:g} %", f"{bound * 100:g} %"
            return f"while wrongly accusing {level} of the non-members, {attack} finds at most {most} of the members."
        case "precision":
            return f"at a prior of {metric.level:g}, at most {bound:.4g} of those whom {attack} accuses are members."
        case "auc":
            return f"the AUC of {attack} is at most {bound:.4g} (0.5 is guessing)."
        case "advantage":
            return f"the advantage of {attack} over guessing is at most {bound:.4g}."
        case "balanced_accuracy":
            return f"at most {bound:.4g} of the balanced guesses of {attack} are right."
        case "mae":
            raise ValueError("a smaller error is a larger leak, so no claim bounds it from above")


def utility(left: Sequence[WorldResult]) -> results.Utility:
    """Return what the models of these worlds are good for, after each round."""
    rounds = min(len(each.utility) for each in left)
    table = np.stack([each.utility[:rounds] for each in left])  # [worlds, rounds + 1, 4]
    columns = ("train_accuracy", "train_loss", "test_accuracy", "test_loss")
    return results.Utility(
        **{name: _over_worlds(table[:, -1, i]) for i, name in enumerate(columns)},
        rounds=tuple(
            results.Round(round=number, **{name: _band(table[:, number, i]) for i, name in enumerate(columns)})
            for number in range(rounds)
        ),
    )


def _over_worlds(values: Floats) -> results.Quantity:
    mean, low, high = _mean_interval(values)
    return results.Quantity(mean, low, high, LEVEL, "t interval over worlds", None, None, None, None)


def _band(values: Floats) -> results.Band:
    return results.Band(*_mean_interval(values))


def _mean_interval(values: Floats) -> tuple[float, float, float]:
    mean = float(values.mean())
    error = float(stats.sem(values))
    if error == 0.0:
        return mean, mean, mean
    low, high = stats.t.interval(LEVEL, len(values) - 1, loc=mean, scale=error)
    return mean, float(low), float(high)
