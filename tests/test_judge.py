"""From scores to findings: what a finding must not do to flatter an attack."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from attacks import ATTACKS
from fedsim import judge, results
from fedsim.accounting import Spent
from fedsim.attack import Attack
from fedsim.audit import Bound
from fedsim.controls import AUC
from fedsim.intervals import Measured, measure
from fedsim.judge import Questioned, Scored, Tried
from fedsim.scenario import Claim, DifferenceClaim, EpsilonClaim, MetricClaim
from fedsim.views import RecordAsk, Records
from tests import worlds


def _null(attack: Attack, rng: np.random.Generator, count: int, items: int) -> tuple[Questioned, Tried]:
    """Signals that know nothing of the coins, scored as a run would score them."""
    signals = rng.standard_normal((count, items)) + 2 * rng.standard_normal((1, items))
    members = rng.random((count, items)) < 0.5
    nobody = Records(np.zeros((0, 1), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64))
    asks = Records(np.zeros((items, 1), np.float32), np.zeros(items, np.int64), np.zeros(items, np.int64))
    exam: Any = SimpleNamespace(
        members=members,
        targets=np.ones(count, bool),
        references=~np.eye(count, dtype=bool),
        ask=RecordAsk(asks, nobody),
        new_items=True,
        quantity=None,
    )
    shared: Any = SimpleNamespace(
        prepared=SimpleNamespace(scenario=SimpleNamespace(seed=0)),
        each=SimpleNamespace(vantage=SimpleNamespace(clients=frozenset())),
    )
    scores = judge._score(shared, attack, exam, signals, exam.targets, exam.references)
    return shared, Tried(exam, signals, scores, np.ones(members.shape, bool))


@pytest.mark.parametrize("name", ["lira", "watson", "attack_r"])
def test_the_most_exposed_tenth_of_a_null_is_at_chance(name: str) -> None:
    """Picking with scores whose references include the world that is then measured gave .58 for LiRA at this size.

    Mean of 40 within 5 standard errors of 0.5: false alarm 6e-7.
    """
    rng, found = np.random.default_rng(11), []
    for _ in range(40):
        shared, tried = _null(ATTACKS[name], rng, 16, 60)
        mask = judge._most_exposed(shared, ATTACKS[name], tried)
        assert mask is not None
        assert (mask.sum(axis=1) == 6).all()
        measured = measure(AUC, tried.scores, tried.exam.members, mask)
        assert isinstance(measured, Measured)
        found.append(measured.estimate)
    assert abs(np.mean(found) - 0.5) < 5 * np.std(found) / np.sqrt(40)


def _findings(**changes: Any) -> dict[tuple[str, str], Any]:
    from pathlib import Path

    from fedsim.engine import run_worlds
    from fedsim.prepare import prepare
    from fedsim.scenario_file import Loaded

    prepared = prepare(Loaded(worlds.scenario(**changes), {}, Path("t.yaml"), {}), ATTACKS, worlds.RECIPES)
    found = {}
    for trial in prepared.trials:
        left = dict(run_worlds(trial.job, range(len(trial.draw.worlds))))
        for each in judge.findings(prepared, trial, left, ATTACKS):
            found[each.finding.audit, each.finding.attack] = each.finding
    return found


def test_worlds_that_the_attacker_sat_out_do_not_hide_the_others() -> None:
    audits = ({"name": "guest", "vantage": "client:0", "attacks": ("loss_trajectory", "lira")},)
    federation = {"clients_per_round": 2, "rounds": 1}
    found = _findings(audits=audits, worlds=12, federation=federation)["guest", "loss_trajectory"]
    assert found.status == "measured"
    assert (
        1 < found.worlds < 12
    )  # takes part in a world with probability one half: all or at most one in 0.4 % of seeds


def test_a_participant_is_not_asked_about_its_own_and_cannot_look_for_them_in_its_updates() -> None:
    found = _findings(audits=({"name": "guest", "vantage": "client:0", "attacks": ("update_cosine", "loss")},))
    assert found["guest", "update_cosine"].status == "not visible"
    everybody = _findings()["outsider", "loss"]
    own = found["guest", "loss"]
    assert own.members + own.non_members < everybody.members + everybody.non_members


# Claims. The scores are made up: members score so many standard deviations higher, which is the leak.

ITEMS = 40


def _scored(
    audit: str,
    leak: float | None,
    *,
    reason: str = "no update",
    passed: dict[str, bool | None] | None = None,
    groups: Any = None,
    caveat: str | None = None,
) -> Scored:
    """One attack of an audit; leak None: it saw nothing, for `reason`."""
    rng = np.random.default_rng(5)
    members = rng.random((16, ITEMS)) < 0.5
    scores = rng.standard_normal(members.shape) + (leak or 0.0) * members
    passes: dict[str, bool | None] = {"null": True, "planted": True, "blind": True, **(passed or {})}
    controls = {name: SimpleNamespace(passed=value) for name, value in passes.items()}
    exam: Any = SimpleNamespace(members=members, new_items=True, quantity=None, groups=groups)
    finding: Any = SimpleNamespace(
        aborted=0,
        tried=1,
        audit=audit,
        attack="loss",
        controls={} if leak is None else controls,
        reason=None if leak is not None else reason,
        caveat=caveat,
        worlds=len(members),
        groups=None if groups is None else len(set(groups.tolist())),
    )
    return Scored(finding, None if leak is None else Tried(exam, scores, scores, np.ones(members.shape, bool)), None)


def test_worlds_that_share_records_count_as_one_in_a_verdict() -> None:
    statement = MetricClaim(audit="open", attack="loss", metric="auc", at_most=0.9)
    apart, together = (_judge(statement, _scored("open", 0.7, groups=g)) for g in (None, np.arange(16) // 3))
    assert (apart.status, together.status) == ("not refuted", "not refuted")
    assert apart.estimate == together.estimate
    assert together.high is not None
    assert apart.high is not None
    assert together.high > apart.high
    assert together.reason.endswith("The 16 worlds draw from 6 blocks of records; those of a block count as one.")
    assert "block" not in apart.reason


def test_a_claim_says_what_the_intervals_it_rests_on_do_not_cover() -> None:
    open_, hidden = _scored("open", 0.7, caveat="Old records only."), _scored("hidden", 0.0)
    statement = MetricClaim(audit="open", attack="loss", metric="auc", at_most=0.9)
    assert _judge(statement, open_, hidden).reason.endswith("claimed 0.9. Old records only.")
    difference = DifferenceClaim(audit="hidden", attack="loss", lower_than="open", by=0.05)
    assert _judge(difference, open_, hidden).reason.endswith("Old records only.")
    assert "Old" not in _judge(statement.model_copy(update={"audit": "hidden"}), open_, hidden).reason


def test_a_claim_speaks_of_the_worlds_of_the_attack_that_decided_it_alone() -> None:
    weak, strong = _scored("open", 0.0, groups=np.arange(16) // 2), _scored("open", 2.0, groups=np.arange(16) // 3)
    strong.finding.attack = "lira"  # type: ignore[misc]
    found = _judge(MetricClaim(audit="open", metric="auc", at_most=0.6), weak, strong)
    assert found.status == "refuted"
    assert "lira: " in found.reason
    assert found.reason.count("draw from") == 1
    assert "draw from 6 blocks" in found.reason
    about_loss = MetricClaim(audit="open", attack="loss", metric="auc", at_most=0.9)
    assert "draw from 8 blocks" in _judge(about_loss, weak, strong).reason
    assert "draw from 6 blocks" not in _judge(about_loss, weak, strong).reason


LESS = DifferenceClaim(audit="hidden", attack="loss", lower_than="open", by=0.2)


def _judge(statement: Claim, *scored: Scored, **given: Any) -> results.Claim:
    (found,) = judge.claims([statement], scored, **given)
    return found


def test_a_difference_is_judged_from_both_audits() -> None:
    found = _judge(LESS, _scored("hidden", 0.0), _scored("open", 2.0))
    assert found.status == "not refuted"
    assert found.claim == results.DifferenceStated("hidden", "loss", "auc", "open", 0.2, 0.95)
    assert found.sentence == "hidden: the AUC of the attack loss is lower than in open by at least 0.2."
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.estimate <= found.high  # type: ignore[operator]
    assert found.confidence == pytest.approx(0.95)
    assert _judge(LESS, _scored("hidden", 2.0), _scored("open", 2.0)).status == "refuted"
    assert _judge(LESS, _scored("hidden", 2.0), _scored("open", 0.0)).status == "refuted"


def test_two_attacks_of_one_audit_can_be_compared() -> None:
    weak, strong = _scored("open", 0.0), _scored("open", 2.0)
    strong.finding.attack = "lira"  # type: ignore[misc]
    claim = LESS.model_copy(update={"audit": "open", "lower_than_attack": "lira"})
    found = _judge(claim, weak, strong)
    assert found.status == "not refuted"
    assert found.sentence == "open: the AUC of the attack loss is lower than that of lira by at least 0.2."
    turned = claim.model_copy(update={"attack": "lira", "lower_than_attack": "loss", "by": 0.0})
    assert _judge(turned, weak, strong).status == "refuted"
    elsewhere = claim.model_copy(update={"audit": "hidden", "by": 0.0})
    assert _judge(elsewhere, _scored("hidden", 0.0), strong).sentence.endswith(
        "is no higher than that of lira in open."
    )


def test_each_half_of_a_difference_is_measured_more_surely_than_the_whole() -> None:
    wide = _judge(LESS, _scored("hidden", 0.0), _scored("open", 2.0))
    ends = [measure(AUC, *_arrays(_scored(name, leak)), confidence=0.975) for name, leak in (("h", 0.0), ("o", 2.0))]
    below, above = (end for end in ends if isinstance(end, Measured))
    assert (wide.low, wide.high) == (above.low - below.high, above.high - below.low)


def _arrays(scored: Scored) -> tuple[Any, Any, Any]:
    assert scored.main is not None
    return scored.main.scores, scored.main.exam.members, scored.main.asked


def test_an_attack_that_sees_nothing_guesses_and_is_not_measured() -> None:
    found = _judge(LESS, _scored("hidden", None), _scored("open", 2.0))
    above = measure(AUC, *_arrays(_scored("open", 2.0)), confidence=0.95)
    assert isinstance(above, Measured)
    assert (found.low, found.high) == (above.low - 0.5, above.high - 0.5)
    assert found.status == "not refuted"
    assert "In hidden the attack sees nothing to compute with, so it counts as guessing (0.5 exactly)" in found.reason
    other = LESS.model_copy(update={"metric": "advantage"})
    assert "(0 exactly)" in _judge(other, _scored("hidden", None), _scored("open", 2.0)).reason


def test_nothing_to_see_where_the_leak_should_be_decides_nothing() -> None:
    for hidden in (0.0, None):
        found = _judge(LESS, _scored("hidden", hidden), _scored("open", None))
        assert found.status == "inconclusive"
        assert "Attack loss cannot run here: no update." in found.reason


def test_an_attack_that_saw_something_somewhere_is_not_taken_for_guessing() -> None:
    """As `judge` words it where too few worlds showed the attack anything."""
    shared: Any = SimpleNamespace(
        each=SimpleNamespace(probes={("main", "lira"): "probe"}),
        left={
            w: SimpleNamespace(signals={"probe": np.zeros(3)} if w < 2 else {}, not_visible={}, equations={})
            for w in range(8)
        },
    )
    exam: Any = SimpleNamespace(
        kind="main", worlds=range(8), targets=np.ones(8, bool), references=~np.eye(8, dtype=bool)
    )
    reason = judge._try(shared, ATTACKS["lira"], exam)
    assert isinstance(reason, str)
    found = _judge(LESS, _scored("hidden", None, reason=reason), _scored("open", 2.0))
    assert found.status == "inconclusive"
    assert "it saw something in 2 of 8 worlds" in found.reason


@pytest.mark.parametrize("audit", ["hidden", "open"])
@pytest.mark.parametrize(
    ("control", "passed", "word"),
    [
        ("null", False, "failed in"),
        ("null", None, "did not run in"),
        ("planted", False, "failed in"),
        ("planted", None, "did not run in"),
        ("blind", False, "failed in"),
        ("blind", None, ""),
    ],
)
def test_a_difference_rests_on_the_controls_of_both_audits(
    audit: str, control: str, passed: bool | None, word: str
) -> None:
    for hidden in (0.0, 2.0):
        scored = [
            _scored(name, leak, passed={control: passed} if name == audit else {})
            for name, leak in (("hidden", hidden), ("open", 2.0))
        ]
        found = _judge(LESS, *scored)
        if word:
            assert found.status == "inconclusive"
            assert f"{word} {audit}" in found.reason
        else:
            assert found.status == ("refuted" if hidden else "not refuted")


def test_claims_of_a_run_share_their_confidence() -> None:
    known = measure(AUC, *_arrays(_scored("open", 2.0)))
    assert isinstance(known, Measured)
    bounded = [MetricClaim(audit="open", attack="loss", at_most=bound) for bound in (0.5, known.estimate)]
    alone, clear = _judge(bounded[1], _scored("open", 2.0)), _judge(bounded[0], _scored("open", 2.0))
    assert (clear.status, alone.status) == ("refuted", "inconclusive")
    first, second = judge.claims(bounded, [_scored("open", 2.0)])
    assert first.confidence == pytest.approx(0.975)
    assert second.confidence == pytest.approx(0.975)  # the wider of the two at which nothing was decided
    assert second.low is not None
    assert alone.low is not None
    assert second.low < alone.low
    assert first.status == "refuted"
    assert "97.5 % interval" in first.reason


def _bound(epsilon: float, confidence: float) -> Bound:
    return Bound("one_run", epsilon, 1e-5, confidence, "lower bound", "none", 100, 9.0, "")


def test_an_epsilon_is_judged_by_bounds_that_hold_together() -> None:
    asked: list[float] = []

    def bounds(_: EpsilonClaim, confidence: float) -> list[Bound]:
        asked.append(confidence)
        return [_bound(3.0, confidence), _bound(1.0, confidence)]

    claim = EpsilonClaim(epsilon=2.0, setup="noisy")
    account = Spent("client", "public", 1.5, 1e-5, "PLD", "add or remove a client", "Composed.")
    found = _judge(claim, bounds=bounds, accounted=lambda _: account)
    assert found.status == "refuted"
    assert asked[-1] == pytest.approx(0.975)
    assert "confidence 97.5 %" in found.reason
    assert (found.estimate, found.low, found.high) == (None, 3.0, 1.5)
    said = (
        "noisy: to the public, the whole training is (epsilon 2, delta 1e-05)-differentially private for each client."
    )
    assert found.sentence == said
    infinite = Spent("client", "public", np.inf, 1e-5, "none", "", "The server sees each update in clear.")
    silent = _judge(claim, bounds=lambda _, at: [_bound(1.0, at)], accounted=lambda _: infinite)
    assert (silent.status, silent.low, silent.high) == ("inconclusive", 1.0, None)
    assert _judge(claim).status == "inconclusive"


@pytest.mark.parametrize(
    ("metric", "by", "words"),
    [
        (
            "tpr@fpr=0.01",
            0.1,
            "the true-positive rate at a false-positive rate of 0.01 of the attack loss is lower than",
        ),
        ("precision@prior=0.2", 0.1, "the precision at a prior of 0.2 of the attack loss is lower than in open by at"),
        ("balanced_accuracy", 0.0, "the balanced accuracy of the attack loss is no higher than in open."),
    ],
)
def test_a_difference_in_words(metric: str, by: float, words: str) -> None:
    statement = LESS.model_copy(update={"metric": metric, "by": by})
    assert words in _judge(statement, _scored("hidden", 0.0), _scored("open", 2.0)).sentence


def test_the_interval_of_an_accuracy_is_made_of_accuracies() -> None:
    """Around a mean near 1 the t interval reaches beyond it, and so it does beyond 0; a loss may be as large as it
    likes.
    """
    accuracies, losses = np.array([1.0, 1.0, 1.0, 0.8]), np.array([0.0, 0.0, 0.0, 9.0])
    table = np.stack([accuracies, losses, 1 - accuracies, losses], axis=1)[:, None, :]  # [worlds, points, 4]
    found = judge.utility([SimpleNamespace(utility=each) for each in table], (3,))  # type: ignore[misc]
    (point,) = found.rounds
    for high, low in ((found.train_accuracy, found.test_accuracy), (point.train_accuracy, point.test_accuracy)):
        assert high.high == 1.0
        assert low.low == 0.0
        assert high.low == pytest.approx(1 - (low.high or 0.0)) == pytest.approx(0.95 - 3.182446 * 0.05)
    assert found.test_loss.low == 0.0
    assert (found.test_loss.high or 0.0) == pytest.approx(2.25 + 3.182446 * 2.25)


def test_where_sums_single_out_nobody_the_attack_knows_nothing_and_is_judged_there_too() -> None:
    """Three worlds: in one the equations were solved, in one not, and in one no sum was seen."""
    left = {
        w: SimpleNamespace(
            signals={"probe": np.array([0.4, -0.4])} if w == 0 else {},
            not_visible={"probe": "nobody"},
            equations={"probe": {"sums": sums}},
        )
        for w, sums in enumerate((3, 3, 0))
    }
    shared: Any = SimpleNamespace(
        each=SimpleNamespace(probes={("main", "prolin"): "probe"}, vantage=SimpleNamespace(clients=frozenset())),
        prepared=SimpleNamespace(scenario=SimpleNamespace(seed=0)),
        left=left,
    )
    exam: Any = SimpleNamespace(
        kind="main",
        worlds=range(3),
        ask=None,
        members=np.array([[True, False]] * 3),
        targets=np.ones(3, bool),
        references=~np.eye(3, dtype=bool),
        owner=np.arange(2),
        put=None,
        quantity=None,
    )
    found = judge._try(shared, ATTACKS["prolin"], exam)
    assert isinstance(found, judge.Tried)
    np.testing.assert_array_equal(found.asked, [[True] * 2, [True] * 2, [False] * 2])
    np.testing.assert_array_equal(found.scores[:2], [[0.4, -0.4], [0, 0]])
