"""From what the worlds left behind to findings and verdicts."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import scipy  # its parts take a second to import; each is loaded when it is first used

from fedsim import epsilon, results
from fedsim.accounting import Spent
from fedsim.apps import measured_rounds
from fedsim.attack import Attack, Bools, score
from fedsim.audit import Bound
from fedsim.claims import (
    Status,
    Verdict,
    bonferroni,
    deciding,
    difference,
    difference_verdict,
    epsilon_verdict,
    exactly,
    holm,
    verdict,
)
from fedsim.controls import AUC, CONFIDENCE, Found, blind_baseline, covers_chance, found_leak
from fedsim.epsilon import Scores, found_bounds
from fedsim.errors import NotVisible
from fedsim.intervals import (
    Measured,
    Unresolved,
    exposure,
    leaked,
    leaked_by_estimates,
    measure,
    most_exposed_tenth,
)
from fedsim.job import WorldResult
from fedsim.metrics import DEFAULT_METRICS, Metric, parse_metric
from fedsim.monitor import NotEnough, ordinary
from fedsim.prepare import Attacks, Prepared, PreparedAudit, Trial
from fedsim.randomness import generator
from fedsim.release import Log, in_words
from fedsim.results import Evidence
from fedsim.scenario import Claim, DifferenceClaim, EpsilonClaim, MetricClaim, Monitor
from fedsim.transcript import client
from fedsim.views import Floats, Ints, PropertyAsk, RecordAsk
from fedsim.world import Exam, asked, asked_from, blind_to_models, groups_of

N_LEAKED, BALANCED = parse_metric("n_leaked"), parse_metric("balanced_accuracy")
LEVEL = 0.95
"""Confidence of every interval that no claim sets otherwise."""
PARTLY_SEEN = "it saw something in"
"""How the reason starts where an attack cannot run although some worlds showed it something."""
MOST_EXPOSED = 10
DEALS = 20
"""How often held-out records are dealt into windows to count a monitor's false alarms."""
EXPOSED_WORLDS = 16
"""With fewer worlds many records are told apart perfectly by luck."""

Range = tuple[float, float]
"""The least and the largest value that a quantity can have."""
SHARE: Range = (0.0, 1.0)
LOSS: Range = (0.0, np.inf)


class Tried(NamedTuple):
    """An attack's scores in one exam. signals: [worlds, rows, ...], zeros in worlds where it saw nothing."""

    exam: Exam
    signals: Floats
    scores: Floats
    asked: Bools
    estimates: bool = False  # the scores estimate the quantity of the exam


class Scored(NamedTuple):
    """One attack of one audit: its finding, and the scores behind it (None where it saw nothing)."""

    finding: results.Finding
    main: Tried | None
    scores: Scores | None

    @property
    def evidence(self) -> Evidence | None:
        """The arrays to keep."""
        return self.scores.evidence if self.scores else None


class Questioned(NamedTuple):
    """All that the findings of one audit share."""

    prepared: Prepared
    trial: Trial
    each: PreparedAudit
    left: Mapping[int, WorldResult]
    blind: Found
    cost: results.Quantity | None
    false_alarms: results.Quantity | None  # of the monitor on the release that the audit meets; None without one


def findings(
    prepared: Prepared,
    trial: Trial,
    left: Mapping[int, WorldResult],
    attacks: Attacks,
    passive: Mapping[int, WorldResult] | None = None,
) -> list[Scored]:
    """Return a finding for each attack of each audit of a trial.

    passive: what the same worlds left behind without the trial's adversary, if they ran.
    """
    main, seed = trial.main, prepared.scenario.seed
    cost = None if trial.adversary is None else utility_cost(main.worlds, left, passive)
    scored = []
    for each in trial.audits:
        mask = asked(main, each.vantage.clients)
        known = blind_to_models(main, each.vantage)
        blind = blind_baseline(known, main.members, mask, seed, new_items=main.new_items, groups=main.groups)
        shared = Questioned(prepared, trial, each, left, blind, cost, _false_alarms(prepared, each.release.monitor))
        scored += [_finding(shared, attacks[name]) for name in each.audit.attacks]
    return scored


def _try(shared: Questioned, attack: Attack, exam: Exam) -> Tried | str:
    """Return the scores of an attack in an exam, or why there are none.

    A world in which the attack saw nothing (its client was never drawn, say) is neither asked about nor a reference.
    One in which it saw sums, and they single out nobody, is: it knows nothing there, and is not judged by the rest.
    """
    name = shared.each.probes[exam.kind, attack.name]
    worlds = [shared.left[int(w)] for w in exam.worlds]
    found = np.array([name in world.signals for world in worlds])
    if not found.any():
        return worlds[0].not_visible[name]
    seen = found | [world.equations.get(name, {}).get("sums", 0) > 0 for world in worlds]
    shape = next(world.signals[name].shape for world in worlds if name in world.signals)
    signals = np.stack([world.signals.get(name, np.full(shape, np.nan)) for world in worlds])
    signals[~seen] = 0
    targets, references = exam.targets & seen, exam.references & seen[None, :]
    fewest = int(references[targets].sum(axis=1).min()) if targets.any() else 0
    if fewest < attack.min_references:
        return f"{PARTLY_SEEN} {seen.sum()} of {len(seen)} worlds, too few to serve as references"
    mask = asked(exam, shared.each.vantage.clients) & seen[:, None]
    try:
        scores = _score(shared, attack, exam, signals, targets, references)
    except NotVisible as reason:
        return str(reason)
    return Tried(exam, signals, scores, mask, attack.estimates and exam.quantity is not None)


def _score(
    shared: Questioned, attack: Attack, exam: Exam, signals: Floats, targets: Bools, references: Bools
) -> Floats:
    ask = asked_from(exam.ask, shared.each.vantage.clients)
    seed = shared.prepared.scenario.seed
    return score(attack, signals, exam.members, targets, references, ask, seed, exam.quantity)


def _finding(shared: Questioned, attack: Attack) -> Scored:
    main = shared.trial.main
    tried = {exam.kind: _try(shared, attack, exam) for exam in shared.trial.draw.exams}
    found = tried["main"]
    mask = asked(main, shared.each.vantage.clients) if isinstance(found, str) else found.asked
    unseen = results.Finding(
        audit=shared.each.audit.name,
        game=attack.game,
        vantage=shared.each.audit.vantage,
        attack=attack.name,
        title=attack.title,
        summary=attack.summary,
        knowledge=attack.knowledge,
        paper=attack.paper.text,
        link=attack.paper.link,
        status="not visible",
        reason=found if isinstance(found, str) else "replaced below",
        members=int((main.members & mask).sum()),
        non_members=int((~main.members & mask).sum()),
        worlds=int(mask.any(axis=1).sum()),
        metrics={},
        slices={},
        controls={},
        exposed=(),
        evidence=None,
        setup=shared.trial.setup,
        adversary=shared.trial.adversary,
        cost=shared.cost,
        queries=_queries(shared, attack),
        aborted=sum(shared.left[int(world)].aborted for world in main.worlds),
        tried=len(main.worlds) * shared.trial.federation.rounds,
        equations=_equations(shared, attack),
        groups=groups_of(main, mask),
        caveat=main.caveat,
        facts=dict(main.facts),
    )
    if isinstance(found, str):
        return Scored(unseen, None, None)
    metrics = {metric.name: results.quantity(_measure(metric, found, LEVEL), LEVEL) for metric in DEFAULT_METRICS}
    amount = main.quantity if attack.estimates else None
    if amount is not None:
        error = parse_metric("mae")
        wrong = measure(error, found.scores, amount, found.asked, new_items=main.new_items, groups=main.groups)
        metrics[error.name] = results.quantity(wrong, LEVEL)
    if isinstance(main.ask, PropertyAsk):
        metrics[N_LEAKED.name] = results.quantity(_measure(N_LEAKED, found, LEVEL), LEVEL)
    evidence = Evidence(
        found.scores,
        main.members,
        found.asked,
        amount,
        main.groups,
        *_arrays(tried.get("null")),
        *_arrays(tried.get("planted")),
    )
    scores = Scores(shared.trial, shared.each, attack.name, evidence, attack.min_references > 0)
    finding = dataclasses.replace(
        unseen,
        status="measured",
        reason=None,
        metrics=metrics,
        slices=_slices(shared, attack, found),
        controls=_controls(shared.blind, main, tried.get("null"), tried.get("planted")),
        exposed=_exposed(shared.prepared, found),
        evidence=results.evidence_name(shared.each.audit.name, attack.name),
        bounds=found_bounds(scores, LEVEL, shared.prepared.scenario.seed),
        caps=epsilon.caps(scores),
    )
    return Scored(finding, found, scores)


def _equations(shared: Questioned, attack: Attack) -> results.Equations | None:
    """Return what an attack had to solve, over the main worlds; None if nothing."""
    main = shared.trial.main
    name = shared.each.probes[main.kind, attack.name]
    each = [shared.left[int(world)].equations.get(name) for world in main.worlds]
    table = {key: [found[key] for found in each if found] for key in next(filter(None, each), ())}
    spreads = {
        key: results.Spread(sum(values) / len(values), min(values), max(values)) for key, values in table.items()
    }
    return results.Equations(**spreads) if spreads else None


def _queries(shared: Questioned, attack: Attack) -> results.Queries | None:
    """Return what an attack asked the released model; None if nothing."""
    main, release = shared.trial.main, shared.each.release
    name = shared.each.probes[main.kind, attack.name]
    logs = [log for world in main.worlds if (log := shared.left[int(world)].queries.get(name)) and log.sent]
    if not logs:
        return None
    most = max(logs, key=lambda log: log.sent)
    return results.Queries(
        released=in_words(release),
        budget=release.budget,
        sent=most.sent,
        answered=most.answered,
        per_question=(most.sent - most.public) / main.ask.count,
        batches=most.batches,
        public=most.public,
        monitored=_monitored(shared, release.monitor, most, {log.stream: log for log in logs}.values()),
    )


def _monitored(
    shared: Questioned, monitor: Monitor | None, most: Log, logs: Collection[Log]
) -> results.Monitored | None:
    """Return what the monitor makes of logs that differ, and of ordinary queries."""
    if monitor is None or monitor.radius is None or shared.false_alarms is None:
        return None
    windows, flagged = sum(log.windows for log in logs), sum(log.flagged for log in logs)
    given = shared.each.audit.release or shared.prepared.scenario.release
    return results.Monitored(
        window=monitor.window,
        near_duplicates=monitor.near_duplicates,
        radius=monitor.radius,
        stated_rate=monitor.false_alarm_rate if given.monitor and given.monitor.radius is None else None,
        windows=windows,
        flagged=flagged,
        clusters=most.clusters,
        largest_cluster=most.largest_cluster,
        detection=_share(flagged, windows),
        false_alarms=shared.false_alarms,
    )


def _false_alarms(prepared: Prepared, monitor: Monitor | None) -> results.Quantity | None:
    """Return the share of windows of ordinary queries that a monitor flags, on records that its radius was not set on;
    None without a monitor.

    The records are dealt into windows several times; the interval counts only windows that share no record.
    """
    if monitor is None or monitor.radius is None:
        return None
    pool = prepared.pool
    held_out = pool.x[np.concatenate([pool.test, pool.null, pool.background, pool.candidates])]
    rng = generator(prepared.scenario.seed, "monitor", "ordinary")
    try:
        dealt = [ordinary(held_out, monitor.window, rng) for _ in range(DEALS)]
    except NotEnough as error:
        return results.unknown(str(error), LEVEL)
    flagged = (np.stack(dealt) < monitor.radius).sum(axis=2) >= monitor.near_duplicates  # [deals, windows]
    return _share(float(flagged.mean() * flagged.shape[1]), flagged.shape[1])


def _share(hits: float, of: int) -> results.Quantity:
    """Return hits / of with the interval of Clopper and Pearson; hits may be an average, and so no whole number."""
    half = (1 - LEVEL) / 2
    low = float(scipy.stats.beta.ppf(half, hits, of - hits + 1)) if hits > 0 else 0.0
    high = float(scipy.stats.beta.ppf(1 - half, hits + 1, of - hits)) if hits < of else 1.0
    return results.Quantity(hits / of, low, high, LEVEL, "Clopper and Pearson", None, None, None, None)


def _measure(metric: Metric, found: Tried, confidence: float, within: Bools | None = None) -> Found:
    """Return a metric over the questions asked, or those of them that lie `within`."""
    mask = found.asked if within is None else found.asked & within
    if metric.kind == "n_leaked":
        return _leaked(found, confidence, mask)
    return _compared(metric, found.exam, found.scores, mask, confidence)


def _compared(metric: Metric, exam: Exam, scores: Floats, mask: Bools, confidence: float) -> Found:
    """Return a metric of scores against the truth of an exam."""
    return measure(
        metric, scores, exam.members, mask, confidence=confidence, new_items=exam.new_items, groups=exam.groups
    )


def _leaked(found: Tried, confidence: float, mask: Bools) -> Found:
    """Return how many records an attack on a property is worth."""
    ask, exam = found.exam.ask, found.exam
    if not isinstance(ask, PropertyAsk):
        return Unresolved("Records leaked are counted where a share of a property is asked for.")
    if exam.quantity is None:
        accuracy = _compared(BALANCED, exam, found.scores, mask, confidence)
        return leaked(accuracy, (ask.shares[0], ask.shares[-1]))
    if not found.estimates:
        return Unresolved("Of several shares, records leaked are counted by estimates, and this attack gives none.")
    return leaked_by_estimates(found.scores, exam.quantity, mask, confidence=confidence, groups=exam.groups)


def _arrays(tried: Tried | str | None) -> tuple[Floats, Bools, Bools] | tuple[None, None, None]:
    """Return scores, members and asked of a control, for the evidence."""
    return (tried.scores, tried.exam.members, tried.asked) if isinstance(tried, Tried) else (None, None, None)


CONTROL_WORDS: dict[str, dict[bool | None, str]] = {
    "null": {
        True: "on answers that have nothing to do with the training, its interval covers 0.5, as it must",
        False: "it sees a leak in answers that have nothing to do with the training: do not trust it here",
        None: "it did not run",
    },
    "planted": {
        True: "in worlds with a planted leak it finds the leak",
        False: "it does not even find a planted leak: its silence means nothing",
        None: "it did not run",
    },
    "blind": {
        True: "a classifier that sees the data and never a model is at chance, as it must be",
        False: "a classifier that never saw a model tells the answers apart: the worlds differ before any training",
        None: "it did not run",
    },
}


def _controls(
    blind: Found, main: Exam, null: Tried | str | None, planted: Tried | str | None
) -> dict[str, results.Control]:
    """Return the three controls of a finding: what each measured, whether it passed, and what that means."""
    no_leak = _control_auc(null, CONFIDENCE, "There is no null control: no record was set aside for it.")
    known_leak = _control_auc(planted, LEVEL, "The scenario asks for no planted worlds.")
    if isinstance(null, Tried) and covers_chance(no_leak) and not found_leak(_perfect(null, CONFIDENCE)):
        no_leak = Unresolved("The worlds are too few to tell even perfect answers from chance.")
    if isinstance(planted, Tried) and isinstance(known_leak, Measured) and not found_leak(known_leak):
        perfect = _perfect(planted, LEVEL)
        # 0 and 1 have a narrower interval than scores that rank as well: who ranks perfectly has not failed
        if not found_leak(perfect) or (isinstance(perfect, Measured) and known_leak.estimate >= perfect.estimate):
            known_leak = Unresolved("The planted worlds are too few to tell even a perfect attack from chance.")
    facts = "".join(f"; {name.replace('_', ' ')}: {value:.4g}" for name, value in main.facts.items())
    return {
        "null": _control("null", no_leak, CONFIDENCE, covers_chance(no_leak)),
        "planted": _control("planted", known_leak, LEVEL, found_leak(known_leak)),
        "blind": _control("blind", blind, CONFIDENCE, covers_chance(blind), facts),
    }


def _control(name: str, found: Found, confidence: float, passed: bool | None, facts: str = "") -> results.Control:
    return results.Control(results.quantity(found, confidence), passed, CONTROL_WORDS[name][passed] + facts)


def _perfect(tried: Tried, confidence: float) -> Found:
    """Return what a control measures of an attack that always answers right."""
    return _compared(AUC, tried.exam, tried.exam.members.astype(np.float64), tried.asked, confidence)


def _control_auc(tried: Tried | str | None, confidence: float, absent: str) -> Found:
    if not isinstance(tried, Tried):
        return Unresolved(tried or absent)
    return _measure(AUC, tried, confidence)


def _slices(shared: Questioned, attack: Attack, found: Tried) -> dict[str, dict[str, results.Quantity]]:
    """Return the metrics on the worst cases: mislabelled records, and the tenth that the attack separates best."""
    if not isinstance(found.exam.ask, RecordAsk):
        return {}
    masks = {}
    exposed = _most_exposed(shared, attack, found)
    if exposed is not None:
        masks["most_exposed_tenth"] = exposed
    wrong = shared.prepared.pool.mislabelled[shared.prepared.pool.candidates]
    if wrong.any():
        masks["mislabelled"] = np.broadcast_to(wrong, found.asked.shape)
    return {
        name: {
            metric.name: results.quantity(_measure(metric, found, LEVEL, mask), LEVEL) for metric in DEFAULT_METRICS[:3]
        }
        for name, mask in masks.items()
    }


def _most_exposed(shared: Questioned, attack: Attack, found: Tried) -> Bools | None:
    """Return the questions [worlds, items] about the most exposed tenth, None with too few worlds.

    Picked in one half of the worlds and asked in the other, and the other way round. While picking, references come
    from the same half, so that the worlds in which an item is measured had no part in its being picked.
    """
    usable = np.flatnonzero(found.asked.any(axis=1))
    halves = usable[::2], usable[1::2]
    if len(halves[1]) < max(attack.min_references + 1, 4):
        return None
    chosen = np.zeros(found.asked.shape, dtype=bool)
    for own, other in (halves, halves[::-1]):
        inside = np.isin(np.arange(len(found.asked)), own)
        scores = found.scores
        if attack.min_references:
            references = found.exam.references & inside[None, :]
            scores = _score(shared, attack, found.exam, found.signals, inside, references)
        picked = most_exposed_tenth(scores[own], found.exam.members[own], found.asked[own])
        chosen[other] = picked[None, :]
    return chosen


def _exposed(prepared: Prepared, found: Tried) -> tuple[results.Exposed, ...]:
    if not isinstance(found.exam.ask, RecordAsk) or found.asked.any(axis=1).sum() < EXPOSED_WORLDS:
        return ()
    rows = prepared.pool.candidates
    each = exposure(found.scores, found.exam.members, found.asked)
    return tuple(
        results.Exposed(
            int(item),
            int(prepared.pool.source_rows[rows[item]]),
            client(int(prepared.pool.owner[rows[item]])),
            float(auc),
        )
        for item, auc in zip(each.items[:MOST_EXPOSED], each.auc[:MOST_EXPOSED], strict=True)
    )


Bounds = Callable[[EpsilonClaim, float], Sequence[Bound]]
"""(claim, confidence of each) -> the bounds that count against it, drawn from the same scores at every confidence."""
Accounted = Callable[[EpsilonClaim], Spent | None]
"""claim -> what the accountant says of its unit, observer and setup, at its delta."""


def claims(
    statements: Sequence[Claim],
    scored: Sequence[Scored],
    *,
    bounds: Bounds = lambda _claim, _confidence: (),
    accounted: Accounted = lambda _claim: None,
    setups: Mapping[str | None, results.SetupFound] = MappingProxyType({}),
) -> list[results.Claim]:
    """Return the verdict on each claim, all judged together.

    setups: what each setup came to. Nobody is cleared by a training most of whose rounds were given up.
    """

    def judge(statement: Claim, confidence: float) -> _Decided:
        match statement:
            case MetricClaim():
                return _metric_claim(statement, scored, confidence)
            case DifferenceClaim():
                return _difference_claim(statement, scored, confidence)
            case EpsilonClaim():
                specimen = _specimen(setups.get(statement.setup))
                return _Decided(_epsilon_claim(statement, bounds, accounted(statement), confidence, specimen), ())

    judges = [partial(judge, statement) for statement in statements]
    found = holm(judges, [statement.confidence for statement in statements])
    judged = []
    for decided, confidence in found:
        claim = dataclasses.replace(decided.claim, confidence=confidence)
        judged.append(_with_caveat(_trained(claim, _trainings(claim, scored, setups)), decided.by))
    return judged


class _Decided(NamedTuple):
    """A claim with its verdict, and the findings whose intervals decided it."""

    claim: results.Claim
    by: tuple[results.Finding, ...]

    @property
    def status(self) -> Status:
        return self.claim.status


def _with_caveat(claim: results.Claim, findings: Sequence[results.Finding]) -> results.Claim:
    """Return a claim whose reason says what the intervals it rests on do not cover, or how few worlds differ in their
    records.
    """
    said = [
        each.caveat
        or f"The {each.worlds} worlds draw from {each.groups} blocks of records; those of a block count as one."
        for each in findings
        if each.caveat is not None or each.groups is not None
    ]
    return dataclasses.replace(claim, reason=" ".join((claim.reason, *dict.fromkeys(said))))


def _trainings(
    claim: results.Claim, scored: Sequence[Scored], setups: Mapping[str | None, results.SetupFound]
) -> list[results.SetupFound | results.Finding]:
    """Return what says how many rounds took place in the worlds that a claim is about."""
    stated = claim.claim
    if isinstance(stated, results.EpsilonStated):
        return [setups[stated.setup]] if stated.setup in setups else []
    return list(_concerned(stated, scored))


def _concerned(stated: results.Stated, scored: Sequence[Scored]) -> list[results.Finding]:
    """Return the findings of the audits that a claim is about."""
    if isinstance(stated, results.EpsilonStated):
        return []
    audits = {stated.audit, stated.lower_than} if isinstance(stated, results.DifferenceStated) else {stated.audit}
    return [each.finding for each in scored if each.finding.audit in audits]


def _trained(claim: results.Claim, trainings: Sequence[results.SetupFound | results.Finding]) -> results.Claim:
    """Return a claim, open where it would be cleared by a training that hardly took place."""
    given_up = next((each for each in trainings if each.aborted > each.tried / 2), None)
    if given_up is None or claim.status != "not refuted":
        return claim
    reason = f"{given_up.aborted} of {given_up.tried} rounds were given up, so there is next to no training to judge."
    return dataclasses.replace(claim, status="inconclusive", reason=reason)


def _specimen(setup: results.SetupFound | None) -> str | None:
    """Return the deliberate mistake of a setup, if there is one."""
    parts = (setup.privacy, setup.secure_aggregation) if setup else ()
    return next((str(part["specimen"]) for part in parts if part and part.get("specimen")), None)


def _metric_claim(statement: MetricClaim, scored: Sequence[Scored], confidence: float) -> _Decided:
    """Return the verdict from the findings of the claim's audit; of several attacks the one that decides it speaks."""
    metric = parse_metric(statement.metric)
    concerned = _of(scored, statement.audit, statement.attack)
    joint = bonferroni(confidence, len(concerned))
    measured = [_claimed(metric, each, joint) for each in concerned]
    verdicts = [
        verdict(
            found,
            statement.at_most,
            null=_passed(each.finding, "null"),
            planted=_passed(each.finding, "planted"),
            blind=_passed(each.finding, "blind"),
        )
        for found, each in zip(measured, concerned, strict=True)
    ]
    place = deciding(verdicts, measured)
    speaker = f"{concerned[place].finding.attack}: " if statement.attack == "any" else ""
    final = Verdict(verdicts[place].status, speaker + verdicts[place].reason)
    stated = results.ClaimStated(**statement.model_dump())
    claim = _judged(stated, f"{statement.audit}: {_sentence(statement)}", final, measured[place])
    return _Decided(claim, (concerned[place].finding,))


def _difference_claim(statement: DifferenceClaim, scored: Sequence[Scored], confidence: float) -> _Decided:
    """Return the verdict on a difference. Where the attack said to do worse sees nothing at all, its scores could only
    be guesses, so its value is that of chance and costs no confidence.
    """
    metric = parse_metric(statement.metric)
    (less,) = _of(scored, statement.audit, statement.attack)
    (more,) = _of(scored, statement.lower_than, statement.lower_than_attack or statement.attack)
    hidden = less.main is None and not (less.finding.reason or "").startswith(PARTLY_SEEN)
    each = confidence if hidden else bonferroni(confidence, 2)
    above, below = _claimed(metric, more, each), _claimed(metric, less, each)
    if hidden and metric.chance is not None and isinstance(above, Measured):
        below = exactly(metric.chance, above.worlds)
    found = _minus(above, below)
    controls = [sentence for one in ((more,) if hidden else (more, less)) for sentence in _failed(one.finding)]
    final = difference_verdict(found, statement.by, controls)
    if hidden and isinstance(found, Measured):
        blind = f"In {statement.audit} the attack sees nothing to compute with, so it counts as guessing"
        final = Verdict(final.status, f"{blind} ({metric.chance:g} exactly). {final.reason}")
    stated = results.DifferenceStated(**statement.model_dump())
    claim = _judged(stated, f"{statement.audit}: {_difference_sentence(statement)}", final, found)
    return _Decided(claim, (more.finding,) if hidden else (less.finding, more.finding))


def _minus(above: Found, below: Found) -> Found:
    """Return the difference of two measures, or why there is none."""
    for each in (above, below):
        if isinstance(each, Unresolved):
            return each
    assert isinstance(above, Measured)
    assert isinstance(below, Measured)
    return difference(above, below)


def _epsilon_claim(
    statement: EpsilonClaim, bounds: Bounds, accounted: Spent | None, confidence: float, specimen: str | None
) -> results.Claim:
    """Return the verdict on an epsilon from all bounds that count against it, at a confidence they share."""
    several = sum(each.kind == "lower bound" for each in bounds(statement, confidence))
    found = bounds(statement, bonferroni(confidence, several)) if several > 1 else bounds(statement, confidence)
    final = epsilon_verdict(statement, accounted, found, specimen)
    lower = [each.epsilon for each in found if each.kind == "lower bound" and each.delta >= statement.delta]
    return results.Claim(
        claim=results.EpsilonStated(**statement.model_dump()),
        sentence=_epsilon_sentence(statement),
        status=final.status,
        estimate=None,
        low=max(lower, default=None),
        high=accounted.epsilon if accounted is not None and np.isfinite(accounted.epsilon) else None,
        reason=final.reason,
    )


def _judged(stated: results.Stated, sentence: str, final: Verdict, found: Found) -> results.Claim:
    """Return the claim with its verdict and the numbers behind it."""
    return results.Claim(
        claim=stated,
        sentence=sentence,
        status=final.status,
        estimate=None if isinstance(found, Unresolved) else results.finite(found.estimate),
        low=None if isinstance(found, Unresolved) else found.low,
        high=None if isinstance(found, Unresolved) else results.finite(found.high),
        reason=final.reason,
        infinite=() if isinstance(found, Unresolved) else results.infinite(found),
    )


def _of(scored: Sequence[Scored], audit: str, attack: str) -> list[Scored]:
    """Return the findings of an audit that a claim about `attack` concerns."""
    return [each for each in scored if each.finding.audit == audit and attack in ("any", each.finding.attack)]


def _claimed(metric: Metric, scored: Scored, confidence: float) -> Found:
    if scored.main is None:
        return Unresolved(f"Attack {scored.finding.attack} cannot run here: {scored.finding.reason}.")
    return _measure(metric, scored.main, confidence)


def _passed(finding: results.Finding, control: str) -> bool | None:
    return finding.controls[control].passed if control in finding.controls else None


def _failed(finding: results.Finding) -> list[str]:
    """Return a sentence for each control that does not let a difference rest on this finding."""
    words = {"null": "null control", "planted": "planted leak", "blind": "blind baseline"}
    where = f"in {finding.audit}, and a difference rests on both audits"
    wanted = [(name, _passed(finding, name)) for name in words]
    failed = [f"The {words[name]} failed {where}." for name, passed in wanted if passed is False]
    return failed + [f"The {words[name]} did not run {where}." for name, passed in wanted[:2] if passed is None]


def _sentence(statement: MetricClaim) -> str:
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
        case "n_leaked":
            return f"{attack} learns no more of the property than {bound:.4g} records of the population would tell."
        case "mae":
            raise ValueError("a smaller error is a larger leak, so no claim bounds it from above")


NOUNS = {"tpr": "true-positive rate", "precision": "precision", "auc": "AUC", "advantage": "advantage"}


def _difference_sentence(statement: DifferenceClaim) -> str:
    """The claim in words."""
    metric = parse_metric(statement.metric)
    where = {"tpr": f" at a false-positive rate of {metric.level:g}", "precision": f" at a prior of {metric.level:g}"}
    noun = NOUNS.get(metric.kind, metric.kind.replace("_", " ")) + where.get(metric.kind, "")
    parts = [f"that of {statement.lower_than_attack}"] if statement.lower_than_attack else []
    parts += [f"in {statement.lower_than}"] if statement.lower_than != statement.audit else []
    other = " ".join(parts)
    relation = f"lower than {other} by at least {statement.by:g}" if statement.by else f"no higher than {other}"
    return f"the {noun} of the attack {statement.attack} is {relation}."


def _epsilon_sentence(statement: EpsilonClaim) -> str:
    """The claim in words."""
    setup = statement.setup or "the federation as it stands"
    observer = {"server": "the server", "participant": "a participant", "public": "the public"}[statement.observer]
    pair = f"(epsilon {statement.epsilon:g}, delta {statement.delta:g})"
    return f"{setup}: to {observer}, the whole training is {pair}-differentially private for each {statement.unit}."


def setup(trials: Sequence[Trial], left: Sequence[WorldResult]) -> results.SetupFound:
    """Return what a setup came to: its defences, what they buy in the worlds of all its games, what they cost in those
    of the first.
    """
    trial = trials[0]
    federation = trial.federation
    privacy, secure = federation.privacy, federation.secure_aggregation
    return results.SetupFound(
        name=trial.setup,
        secure_aggregation=secure.model_dump(mode="json") if secure else None,
        privacy=privacy.model_dump(mode="json") if privacy else None,
        noise_multiplier=privacy.noise_multiplier if privacy else None,
        epsilons=epsilon.rows(trials),
        utility=utility(left, measured_rounds(federation.rounds)),
        rounds=federation.rounds,
        aborted=sum(each.aborted for each in left),
        tried=len(left) * federation.rounds,
        adversary=trial.adversary,
    )


def utility_cost(
    worlds: Ints, left: Mapping[int, WorldResult], passive: Mapping[int, WorldResult] | None
) -> results.Quantity:
    """Return by how much the final test accuracy is lower than in the same worlds without the adversary."""
    if passive is None:
        reason = "no audit attacks the same worlds without the adversary, so there is nothing to compare with"
        return results.unknown(reason, LEVEL)
    lost = [float(passive[int(w)].utility[-1, 2] - left[int(w)].utility[-1, 2]) for w in worlds]
    mean, low, high = _mean_interval(np.array(lost), (-1.0, 1.0))
    return results.Quantity(mean, low, high, LEVEL, "t interval over pairs of worlds", None, None, None, None)


def utility(left: Sequence[WorldResult], rounds: Sequence[int]) -> results.Utility:
    """Return what the models of these worlds are good for after each of `rounds`, which is when it was measured."""
    table = np.stack([each.utility for each in left])  # [worlds, points, 4]
    columns = (("train_accuracy", SHARE), ("train_loss", LOSS), ("test_accuracy", SHARE), ("test_loss", LOSS))
    return results.Utility(
        **{name: _over_worlds(table[:, -1, i], range_) for i, (name, range_) in enumerate(columns)},
        rounds=tuple(
            results.Round(
                round=number, **{name: _band(table[:, point, i], range_) for i, (name, range_) in enumerate(columns)}
            )
            for point, number in enumerate(rounds)
        ),
    )


def _over_worlds(values: Floats, range_: Range) -> results.Quantity:
    mean, low, high = _mean_interval(values, range_)
    return results.Quantity(mean, low, high, LEVEL, "t interval over worlds", None, None, None, None)


def _band(values: Floats, range_: Range) -> results.Band:
    return results.Band(*_mean_interval(values, range_))


def _mean_interval(values: Floats, range_: Range) -> tuple[float, float, float]:
    """Return the mean and its interval, of which no part lies where no value can."""
    mean = float(values.mean())
    error = float(scipy.stats.sem(values))
    if error == 0.0:
        return mean, mean, mean
    low, high = scipy.stats.t.interval(LEVEL, len(values) - 1, loc=mean, scale=error)
    return mean, max(float(low), range_[0]), min(float(high), range_[1])
