"""Epsilon of a run: what the accountant gives each observer, and what the attacks' scores say against it."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fedsim import results
from fedsim.accounting import (
    Observer,
    Spent,
    Unit,
    gdp_mu,
    max_advantage,
    max_advantage_gdp,
    max_auc,
    max_auc_gdp,
    max_tpr,
    max_tpr_gdp,
    spent,
)
from fedsim.audit import BOUNDS, Bound
from fedsim.claims import counts_against
from fedsim.intervals import Unresolved, in_percent
from fedsim.metrics import DEFAULT_METRICS
from fedsim.prepare import PreparedAudit, Trial
from fedsim.randomness import generator
from fedsim.results import Evidence
from fedsim.scenario import (
    AdaptivePrivacy,
    CanaryGame,
    CentralPrivacy,
    ClientGame,
    DistributedPrivacy,
    EpsilonClaim,
    Federation,
    RecordPrivacy,
)
from fedsim.transcript import SERVER
from fedsim.views import Vantage

ALARM = 0.01
"""Chance that a run of sound mechanisms raises an alarm at all, shared among its bounds."""
UNASKED = "one_run"
"""The bound that an alarm rests on where an audit asks for none: it assumes nothing about the mechanism."""


class Scores(NamedTuple):
    """The scores behind one finding, and where they are from."""

    trial: Trial
    audit: PreparedAudit
    attack: str
    evidence: Evidence
    leans: bool  # on reference worlds, whose coins are judged too


def observer(vantage: Vantage) -> Observer:
    """Return what the accountant calls a vantage."""
    return "server" if SERVER in vantage.parties else "participant" if vantage.clients else "public"


def unit(audit: PreparedAudit) -> Unit:
    """Return whose presence an audit asks about."""
    game = audit.audit.game
    if isinstance(game, CanaryGame):
        return game.unit
    return "client" if isinstance(game, ClientGame) else "record"


def hides_presence(trial: Trial) -> bool:
    """Return whether the epsilon accounted for holds between a federation with a client and one without it.

    The server of central privacy divides by the number of clients expected, whoever comes, so that a client that is not
    there is one whose updates are zero. Elsewhere the others fill its place, or the number of terms in a mean, or a
    round given up, tells. Without privacy epsilon is infinite, which no bound contradicts.
    """
    privacy, facts = trial.federation.privacy, trial.facts
    if privacy is None:
        return True
    drawn = facts.sampling == "fixed" and facts.per_round < facts.clients
    return isinstance(privacy, CentralPrivacy | AdaptivePrivacy) and facts.secure is None and not drawn


def reads_numbers(scores: Scores) -> bool:
    """Return whether an attack on records meets clients' numbers of records in clear under DP-SGD, whose accounting
    takes them as public: zero stands in a record's place there, and a coin of the game removes it.
    """
    audit, federation = scores.audit, scores.trial.federation
    if audit.audit.game != "record" or not isinstance(federation.privacy, RecordPrivacy):
        return False
    secure = federation.secure_aggregation
    told = secure is None or secure.metadata == "clear" or federation.evaluate_clients
    return told and SERVER in audit.vantage.parties


def worst(trials: Sequence[Trial], delta: float | None = None) -> tuple[Spent, ...]:
    """Return what the accountant gives every observer of a setup: the largest epsilon of its games, whose worlds differ
    in who is there, with canary clients and without.
    """
    asked = dict.fromkeys((trial.federation.privacy, each) for trial in trials for each in (trial.bare, trial.facts))
    tables = [spent(privacy, facts, delta) for privacy, facts in asked]
    return tuple(max(row, key=lambda each: each.epsilon) for row in zip(*tables, strict=True))


def accounted_for(trial: Trial, what: Unit, who: Observer, delta: float) -> Spent:
    """Return what the accountant gives one observer."""
    table = spent(trial.federation.privacy, trial.facts, delta)
    return next(row for row in table if (row.unit, row.observer) == (what, who))


def bound(scores: Scores, name: str, confidence: float, seed: int) -> Bound | Unresolved:
    """Return one bound on epsilon from the scores of an attack."""
    if scores.leans:
        return Unresolved(
            "A bound rests on worlds whose scores owe nothing to each other's coins, and this attack learns from the "
            "other worlds; take one that needs no references."
        )
    if isinstance(scores.audit.audit.game, ClientGame) and not hides_presence(scores.trial):
        return Unresolved(
            "What is accounted for in this federation is the content of a client's updates, and this game asks whether "
            "there are any; use canaries of unit client, or central privacy without secure aggregation, with all "
            "clients or Poisson sampling."
        )
    if reads_numbers(scores):
        return Unresolved(
            "What is accounted for is zero in a record's place, with the number of records public; this game removes "
            "the record, and the server is told the number in clear; use canaries of unit record, or secure "
            "aggregation with hidden metadata."
        )
    rng = generator(seed, "bound", scores.audit.audit.name, scores.attack, name)
    found, delta = scores.evidence, scores.audit.audit.delta
    return BOUNDS[name].make(found.scores, found.members, found.asked, delta, confidence, rng)


def found_bounds(scores: Scores, confidence: float, seed: int) -> tuple[results.BoundFound, ...]:
    """Return the bounds that an audit asks for, from the scores of one of its attacks."""
    return tuple(_row(scores, name, bound(scores, name, confidence, seed), confidence) for name in _names(scores))


def _names(scores: Scores) -> tuple[str, ...]:
    return scores.audit.audit.bounds


def _row(scores: Scores, name: str, found: Bound | Unresolved, confidence: float) -> results.BoundFound:
    what, who, delta = unit(scores.audit), observer(scores.audit.vantage), scores.audit.audit.delta
    epsilon = accounted_for(scores.trial, what, who, delta).epsilon
    return results.BoundFound(
        name=name,
        title=BOUNDS[name].title,
        kind=BOUNDS[name].kind,
        unit=what,
        observer=who,
        epsilon=found.epsilon if isinstance(found, Bound) else None,
        delta=delta,
        confidence=confidence,
        correction=found.correction if isinstance(found, Bound) else "",
        canaries=found.canaries if isinstance(found, Bound) else 0,
        ceiling=found.ceiling if isinstance(found, Bound) else None,
        detail=found.detail if isinstance(found, Bound) else "",
        accounted=finite(epsilon),
        reason=found.reason if isinstance(found, Unresolved) else None,
        assumes=found.assumes if isinstance(found, Bound) else "",
    )


def finite(epsilon: float) -> float | None:
    """Return epsilon as a record has it: null where it is infinite."""
    return epsilon if math.isfinite(epsilon) else None


def permitted(row: Spent) -> dict[str, float]:
    """Return the largest value of each metric that an accounted epsilon leaves to any attack; a metric that it does not
    limit is left out.

    Where noise is Gaussian and all of it was composed in closed form, its whole curve limits attacks, which is much
    nearer than the one point (epsilon, delta) of it.
    """
    if not math.isfinite(row.epsilon):
        return {}
    if row.method == "exact":
        mu = gdp_mu(row.epsilon, row.delta)
        auc, advantage = max_auc_gdp(mu), max_advantage_gdp(mu)
        tpr = {level: max_tpr_gdp(level, mu) for level in TPR_LEVELS}
    else:
        auc, advantage = max_auc(row.epsilon, row.delta), max_advantage(row.epsilon, row.delta)
        tpr = {level: max_tpr(level, row.epsilon, row.delta) for level in TPR_LEVELS}
    found = {"auc": auc, "advantage": advantage, "balanced_accuracy": (1 + advantage) / 2}
    found |= {f"tpr@fpr={level:g}": most for level, most in tpr.items()}
    return {name: most for name, most in found.items() if most < 1}


TPR_LEVELS = tuple(metric.level for metric in DEFAULT_METRICS if metric.kind == "tpr")


def caps(scores: Scores) -> dict[str, float]:
    """Return, by metric, what the accounted epsilon leaves to the attack of these scores; empty where nothing is ruled
    out, where the attack asks about something else, and for a collusion, which nobody accounts for.
    """
    audit, game = scores.audit, scores.audit.audit.game
    present = (game == "record" and not reads_numbers(scores)) or isinstance(game, CanaryGame)
    present |= isinstance(game, ClientGame) and hides_presence(scores.trial)
    if not present or len(audit.vantage.parties) > 1:
        return {}
    delta = scores.trial.federation.privacy.delta if scores.trial.federation.privacy else audit.audit.delta
    return permitted(accounted_for(scores.trial, unit(audit), observer(audit.vantage), delta))


def rows(trials: Sequence[Trial]) -> tuple[results.EpsilonRow, ...]:
    """Return the table of a setup as a record has it."""
    return tuple(
        results.EpsilonRow(
            unit=row.unit,
            observer=row.observer,
            epsilon=finite(row.epsilon),
            delta=row.delta,
            method=row.method,
            adjacency=row.adjacency,
            reason=row.reason,
            caps=permitted(row),
        )
        for row in worst(trials)
    )


def speaks_of(found: Bound, limit: Spent) -> bool:
    """Return whether a bound says something about the mechanism that was accounted for: one that assumes Gaussian noise
    does not where other noise, or sampling, was composed.
    """
    return not found.assumes or limit.method == "exact"


def alarms(everything: Sequence[Scores], seed: int) -> Iterator[str]:
    """Yield a sentence for each lower bound that lies above the epsilon accounted for; all of them together are wrong
    with a chance of `ALARM` where mechanisms and accounting are sound.
    """
    tried = [(each, name) for each in everything for name in _tests(each)]
    for each, name in tried:
        confidence = 1 - ALARM / len(tried)
        found = bound(each, name, confidence, seed)
        audit = each.audit.audit
        limit = accounted_for(each.trial, unit(each.audit), observer(each.audit.vantage), audit.delta)
        if isinstance(found, Unresolved) or not speaks_of(found, limit):
            continue
        if found.epsilon > limit.epsilon:
            yield (
                f"{audit.name}, {each.attack}: epsilon is at least {found.epsilon:.3g} ({BOUNDS[name].title}, delta "
                f"{audit.delta:g}, confidence {in_percent(confidence)}), but {limit.epsilon:.3g} was accounted for: "
                f"{_why(each.trial.federation)}"
            )


def _tests(scores: Scores) -> list[str]:
    """Return the bounds that may raise an alarm: those asked for, and where none is, one wherever there are caps. (That
    an interval lies above a cap is no proof: intervals over worlds hold about as often as they say, not at least.)
    """
    if len(scores.audit.vantage.parties) > 1:  # nobody accounts for collusion
        return []
    lower = [name for name in _names(scores) if BOUNDS[name].kind == "lower bound"]
    return lower or ([UNASKED] if caps(scores) and not scores.leans else [])


def _why(federation: Federation) -> str:
    """Return what to make of an alarm."""
    privacy, secure = federation.privacy, federation.secure_aggregation
    mistake = (isinstance(privacy, CentralPrivacy) and privacy.specimen) or (secure and secure.specimen)
    return f"the deliberate mistake {mistake}" if mistake else "a bug in the mechanism or in the accounting"


def against(everything: Sequence[Scores], claim: EpsilonClaim, confidence: float, seed: int) -> list[Bound]:
    """Return the lower bounds that speak about a claim, each at `confidence`."""
    found = [
        (bound(each, name, confidence, seed), accounted_for(each.trial, claim.unit, claim.observer, claim.delta))
        for each in everything
        for name in _names(each)
        if BOUNDS[name].kind == "lower bound"
        and each.trial.setup == claim.setup
        and counts_against(
            claim,
            each.audit.vantage.parties,
            unit=unit(each.audit),
            noise_of_clients=isinstance(each.trial.federation.privacy, DistributedPrivacy),
        )
    ]
    return [each for each, limit in found if isinstance(each, Bound) and speaks_of(each, limit)]
