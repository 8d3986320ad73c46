"""Mistakes with secure aggregation and differential privacy that show in a scenario before anything is trained.

A rule is a small function: one of `PER_DEFENCE` looks at one set of defences (the federation's own, or a setup's), one
of `PER_SCENARIO` at all of it. Names that do not exist are `scenario_file`'s to refuse.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from fedsim.scenario import (
    AdaptivePrivacy,
    Audit,
    CanaryGame,
    CentralPrivacy,
    ClientGame,
    DifferenceClaim,
    DistributedPrivacy,
    DropOut,
    EpsilonClaim,
    LocalPrivacy,
    Options,
    Privacy,
    RecordPrivacy,
    Release,
    Scenario,
    SecureAggregation,
    in_setup,
)

Place = tuple[str | int, ...]

COMPARES_UPDATES = frozenset({"fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan", "qfedavg"})
"""Strategies that need each client's update, and not only their sum."""
FLOWER_LOCAL_DP = "flower_local_dp"
LOCAL_DP_DEFAULTS = {"clipping_norm": 1.0, "sensitivity": 1.0, "epsilon": 1.0}
LARGEST_CLIPPING_NORM = 1e3
"""No update of a model that learns is this long, so a larger norm clips nothing."""
LARGEST_QUANTILE = 0.9
ENDED_BY_CONSISTENCY = ("inconsistent_models", "canary_gradient")
"""Adversaries that clients refuse once they compare what they were sent."""
FEWEST_TO_BETRAY = 5
"""With fewer neighbours needed to unmask a client, a handful that collude with the server sees its update."""


@dataclass(frozen=True)
class Remark:
    """A mistake: where it stands, what is wrong, and what to do. An error cannot run, a warning weakens a guarantee."""

    place: Place
    level: Literal["error", "warning"]
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.text}; {self.remedy}"


class Defences(NamedTuple):
    """One set of defences, where it stands, and what the rest of the scenario makes of it."""

    scenario: Scenario
    place: Place
    name: str | None  # of the setup; None for the federation as it stands
    secure: SecureAggregation | None
    privacy: Privacy | None
    drop_out: DropOut

    @property
    def audits(self) -> list[Audit]:
        """The audits that attack it."""
        return [audit for audit in self.scenario.audits if audit.setup == self.name]

    @property
    def claims(self) -> list[tuple[Place, EpsilonClaim]]:
        """The epsilons claimed of it."""
        return [
            (("claims", index), claim)
            for index, claim in enumerate(self.scenario.claims)
            if isinstance(claim, EpsilonClaim) and claim.setup == self.name
        ]

    @property
    def cohort(self) -> int:
        """Clients a round, on average."""
        wanted, clients = self.scenario.federation.clients_per_round, self.scenario.data.clients
        return min(wanted, clients) if isinstance(wanted, int) else int(clients * (wanted or 1))


Remarks = Iterator[Remark]


def lint(scenario: Scenario) -> tuple[Remark, ...]:
    """Return the mistakes in a scenario's defences, errors first.

    Args:
        scenario: well-formed; what its names mean need not be right.
    """
    found = [remark for defences in defences_of(scenario) for rule in PER_DEFENCE.values() for remark in rule(defences)]
    found += [remark for rule in PER_SCENARIO.values() for remark in rule(scenario)]
    return tuple(sorted(dict.fromkeys(found), key=lambda remark: remark.level != "error"))


def defences_of(scenario: Scenario) -> list[Defences]:
    """Return the federation's own defences and those of each setup."""
    own = scenario.federation
    return [
        Defences(scenario, ("federation",), None, own.secure_aggregation, own.privacy, own.drop_out),
        *(
            Defences(
                in_setup(scenario, each.name),
                ("setups", index),
                each.name,
                each.secure_aggregation,
                each.privacy,
                each.drop_out,
            )
            for index, each in enumerate(scenario.setups)
        ),
    ]


def _unit(privacy: Privacy) -> Literal["client", "record"]:
    """What a mechanism protects."""
    return "record" if isinstance(privacy, RecordPrivacy) else "client"


def _noiseless(privacy: Privacy | None) -> bool:
    return privacy is None or privacy.noise_multiplier == 0


def _local_dp(scenario: Scenario) -> Iterator[tuple[Place, Options]]:
    """The options of each of Flower's LocalDpMod, defaults filled in."""
    for index, mod in enumerate(scenario.federation.mods):
        if mod.name == FLOWER_LOCAL_DP:
            yield ("federation", "mods", index), {**LOCAL_DP_DEFAULTS, **mod.options}


# What cannot run


def single_updates(d: Defences) -> Remarks:
    """A strategy that compares updates gets one aggregated reply."""
    name = d.scenario.federation.strategy.name
    if name not in COMPARES_UPDATES:
        return
    if d.secure:
        text = f"{name} compares the clients' updates, and secure aggregation shows their sum only"
        yield Remark((*d.place, "secure_aggregation"), "error", text, "use a strategy that averages, such as fedavg")
    elif isinstance(d.privacy, CentralPrivacy | AdaptivePrivacy):
        text = f"{name} compares the clients' updates, and {d.privacy.name} privacy hands it their noisy sum only"
        yield Remark((*d.place, "privacy"), "error", text, "use a strategy that averages, such as fedavg")


def distributed_in_clear(d: Defences) -> Remarks:
    """Distributed noise needs the sum to be all that is seen."""
    if isinstance(d.privacy, DistributedPrivacy) and not d.secure:
        text = "each client adds a small part of the noise, which protects nobody unless only the sum is seen"
        yield Remark((*d.place, "privacy", "name"), "error", text, "add `secure_aggregation`, or use name: local")


def sum_of_one(d: Defences) -> Remarks:
    """A sum over one client is its update."""
    if d.secure and d.cohort < 2:
        text = "with fewer than two clients a round, the sum is one client's update, and every round is given up"
        yield Remark((*d.place, "secure_aggregation"), "error", text, "use more clients, or more of them a round")


def rounds_given_up(d: Defences) -> Remarks:
    """A round needs the threshold's share of its clients to arrive."""
    if d.secure is None or d.cohort < 2:
        return
    stays, least = 1.0, math.ceil(d.secure.threshold * d.cohort - 1e-9)
    for stage in ("keys", "shares", "update", "unmask"):
        stays *= 1 - getattr(d.drop_out, stage)
    chance = sum(math.comb(d.cohort, k) * stays**k * (1 - stays) ** (d.cohort - k) for k in range(least, d.cohort + 1))
    if chance < 0.5:
        text = f"with these drop-outs a round comes to its end about {chance:.0%} of the time"
        yield Remark((*d.place, "drop_out"), "warning", text, "lower the threshold, or the drop-outs")


def weights_by_examples(d: Defences) -> Remarks:
    """The sensitivity of a mechanism on clients assumes that all count the same."""
    if d.secure and d.secure.weights == "examples" and d.privacy and _unit(d.privacy) == "client":
        text = "weights by number of examples let one client count for more than the noise is made for"
        yield Remark((*d.place, "secure_aggregation", "weights"), "error", text, "set weights: uniform")


def training_looks_back(d: Defences) -> Remarks:
    """DP-SGD covers the noisy gradients and nothing else that looks at the records."""
    local = d.scenario.federation.local
    if not isinstance(d.privacy, RecordPrivacy):
        return
    if local.early_stopping:
        text = "early stopping looks at records without noise, which the epsilon of DP-SGD does not count"
        yield Remark((*d.place, "privacy"), "error", text, "leave `federation.local.early_stopping` out")
    if local.label_smoothing:
        text = "private training on records knows no label smoothing"
        yield Remark((*d.place, "privacy"), "error", text, "leave `federation.local.label_smoothing` out")


def adaptive_in_secret(d: Defences) -> Remarks:
    """Adaptive clipping counts the short updates."""
    if isinstance(d.privacy, AdaptivePrivacy) and d.secure:
        text = "the server cannot count how many updates are short when it sees their sum only"
        yield Remark((*d.place, "privacy", "name"), "error", text, "use name: central, or leave secure aggregation out")


def drop_out_of_no_stage(d: Defences) -> Remarks:
    """Without secure aggregation a client sends its update and nothing else."""
    for stage in ("keys", "shares", "unmask"):
        if getattr(d.drop_out, stage) and not d.secure:
            text = f"there is no secure aggregation, and so no message with {stage} that could fail to come"
            yield Remark((*d.place, "drop_out", stage), "error", text, "use `drop_out.update`")


def specimen_without_masks(d: Defences) -> Remarks:
    """The ideal protocol has no masks to get wrong."""
    if d.secure and d.secure.protocol == "ideal" and d.secure.specimen:
        text = f"the specimen {d.secure.specimen} is about masks, and the ideal protocol has none"
        yield Remark((*d.place, "secure_aggregation", "specimen"), "error", text, "use protocol: masked")


def local_dp_in_secret(d: Defences) -> Remarks:
    """Flower's LocalDpMod and the masking do not compose."""
    if d.secure and any(_local_dp(d.scenario)):
        text = "Flower's LocalDpMod cannot work beside secure aggregation, which replaces the clients' replies"
        remedy = "use `privacy: {name: local}` in place of the mod"
        yield Remark((*d.place, "secure_aggregation"), "error", text, remedy)


def canary_records(scenario: Scenario) -> Remarks:
    """Canary records are clipped gradients; only DP-SGD has those."""
    privacies = {each.name: each.privacy for each in defences_of(scenario)}
    for index, audit in enumerate(scenario.audits):
        if not isinstance(audit.game, CanaryGame) or audit.game.unit != "record" or audit.setup not in privacies:
            continue
        if not isinstance(privacies[audit.setup], RecordPrivacy):
            text = "a canary record is a clipped gradient, and only privacy on records clips those"
            remedy = "set unit: client, or attack a setup with `privacy: {name: record}`"
            yield Remark(("audits", index, "game", "unit"), "error", text, remedy)


def bounds_without_coins(scenario: Scenario) -> Remarks:
    """Lower bounds on epsilon count how often independent coins are guessed."""
    for index, audit in enumerate(scenario.audits):
        if audit.bounds and _asked(audit) is None:
            text = "a lower bound on epsilon needs a coin for the presence of each client or record, and there is none"
            yield Remark(("audits", index, "bounds"), "error", text, "use the game record, client or canaries")


def difference_of_games(scenario: Scenario) -> Remarks:
    """What is asked must be the same for a difference to mean anything."""
    games = {audit.name: audit.game for audit in scenario.audits}
    for index, claim in enumerate(scenario.claims):
        if not isinstance(claim, DifferenceClaim) or not {claim.audit, claim.lower_than} <= set(games):
            continue
        if games[claim.audit] != games[claim.lower_than]:
            text = f"{claim.audit} and {claim.lower_than} play different games, so their difference means nothing"
            yield Remark(("claims", index, "lower_than"), "error", text, "compare two audits of one game")


# What weakens a guarantee


SPECIMENS = {
    "flower_dp_weighted": "an average weighted by examples lets one client count for more than the noise is made for",
    "noise_tenth": "a tenth of the noise is added, and epsilon is stated as for all of it",
    "no_clipping": "nothing is clipped, so no noise covers what one client can add",
    "tiny_sensitivity": "the noise is made for a sensitivity far below the clipping norm",
}


def planted_mistake(d: Defences) -> Remarks:
    """A specimen is there to be found by an audit."""
    if isinstance(d.privacy, CentralPrivacy) and d.privacy.specimen:
        text = f"the specimen {d.privacy.specimen} is a mistake on purpose: {SPECIMENS[d.privacy.specimen]}"
        yield Remark((*d.place, "privacy", "specimen"), "warning", text, "use it to try an audit, never to protect")
    if d.secure and d.secure.specimen:
        text = f"the specimen {d.secure.specimen} is a mistake on purpose: two rounds with one mask give both sums away"
        yield Remark(
            (*d.place, "secure_aggregation", "specimen"), "warning", text, "use it to try an audit, never to protect"
        )


def no_noise(d: Defences) -> Remarks:
    """Clipping alone is no privacy."""
    if d.privacy and _noiseless(d.privacy):
        text = "without noise there is no differential privacy at all, whatever is clipped"
        yield Remark((*d.place, "privacy", "noise_multiplier"), "warning", text, "set it above 0, or give `epsilon`")


def clips_nothing(d: Defences) -> Remarks:
    """A norm that nothing reaches only makes noise."""
    if d.privacy and d.privacy.clipping_norm > LARGEST_CLIPPING_NORM:
        text = f"a clipping norm of {d.privacy.clipping_norm:g} clips nothing and scales the noise up"
        remedy = "set it to about the usual norm (often 0.1 to 10)"
        yield Remark((*d.place, "privacy", "clipping_norm"), "warning", text, remedy)


def follows_the_outliers(d: Defences) -> Remarks:
    """A norm at a high percentile is set by the few whom privacy is for."""
    if isinstance(d.privacy, AdaptivePrivacy) and d.privacy.quantile > LARGEST_QUANTILE:
        text = (
            f"a clipping norm at the {d.privacy.quantile:g} quantile clips next to nothing, and the noise grows with it"
        )
        yield Remark((*d.place, "privacy", "quantile"), "warning", text, "use the median: quantile: 0.5")


def amplification(d: Defences) -> Remarks:
    """A fixed number of clients a round is not Poisson sampling."""
    wanted = d.scenario.federation.clients_per_round
    sampled = isinstance(wanted, int) and wanted < d.scenario.data.clients
    if not sampled or not isinstance(d.privacy, CentralPrivacy | AdaptivePrivacy | DistributedPrivacy):
        return
    if d.privacy.epsilon is not None or d.claims:
        text = "a fixed number of clients a round is not Poisson sampling, so no Poisson amplification is counted"
        remedy = "give a fraction: each client then joins with that probability"
        yield Remark(("federation", "clients_per_round"), "warning", text, remedy)


def large_delta(d: Defences) -> Remarks:
    """A delta of one in n allows giving one of the n away."""
    data = d.scenario.data
    count = {"client": data.clients, "record": data.candidates + data.background}
    stated: list[tuple[Place, str, float]] = [((*place, "delta"), claim.unit, claim.delta) for place, claim in d.claims]
    if d.privacy:
        stated.append(((*d.place, "privacy", "delta"), _unit(d.privacy), d.privacy.delta))
    for place, unit, delta in stated:
        if delta >= 1 / count[unit]:
            text = f"with {count[unit]} {unit}s a delta of {delta:g} allows giving one of them away whole"
            yield Remark(place, "warning", text, f"use a delta well below {1 / count[unit]:.2g}")


def nothing_behind_the_claim(d: Defences) -> Remarks:
    """An epsilon for which the accountant will give infinity."""
    for place, claim in d.claims:
        if _noiseless(d.privacy):
            aside = "; secure aggregation hides who said what and adds no noise" if d.secure else ""
            text = f"nothing adds noise here, so the accountant gives infinity{aside}"
            remedy = "add `privacy`, or claim a metric in place of an epsilon"
            yield Remark((*place, "epsilon"), "warning", text, remedy)
        elif claim.observer == "server" and isinstance(d.privacy, CentralPrivacy | AdaptivePrivacy):
            text = "the server adds the noise itself and sees what was there before, so to it epsilon is infinite"
            remedy = "set observer: public or participant, or use local or distributed privacy"
            yield Remark((*place, "observer"), "warning", text, remedy)
        elif claim.unit == "client" and isinstance(d.privacy, RecordPrivacy):
            text = "privacy on records says little about a whole client: epsilon grows with its number of records"
            yield Remark((*place, "unit"), "warning", text, "set unit: record, or use a mechanism on clients")


def other_unit_attacked(d: Defences) -> Remarks:
    """A claim that no audit with bounds puts to the test, or one about another unit."""
    tested = {_asked(audit) for audit in d.audits if audit.bounds} - {None}
    for place, claim in d.claims:
        if not tested:
            text = "no audit of this setup draws a lower bound on epsilon, so nothing can refute the claim"
            yield Remark((*place, "epsilon"), "warning", text, "give an audit of it `bounds`; see `fedsim list bounds`")
        elif claim.unit not in tested:
            other = "record" if claim.unit == "client" else "client"
            text = f"the claim is about a {claim.unit}, and the bounds of this setup come from attacks on a {other}"
            yield Remark((*place, "unit"), "warning", text, f"add an audit with canaries of unit: {claim.unit}")


def _asked(audit: Audit) -> Literal["client", "record"] | None:
    """The unit whose coins an audit guesses; None where it asks something else."""
    if isinstance(audit.game, CanaryGame):
        return audit.game.unit
    if isinstance(audit.game, ClientGame):
        return "client"
    return "record" if audit.game == "record" else None


def speaks_in_clear(d: Defences) -> Remarks:
    """What travels beside the update is in no epsilon and under no mask."""
    if d.secure and d.secure.metadata == "clear":
        text = "each client's number of examples and training loss travel in clear beside the masked update"
        yield Remark((*d.place, "secure_aggregation", "metadata"), "warning", text, "set metadata: hidden")
    hides = d.secure is not None or isinstance(d.privacy, LocalPrivacy | DistributedPrivacy | RecordPrivacy)
    if hides and d.scenario.federation.evaluate_clients:
        text = "clients evaluate each round's model and tell the server loss and accuracy on their records in clear"
        yield Remark(("federation", "evaluate_clients"), "warning", text, "set evaluate_clients: false")


def few_colluders(d: Defences) -> Remarks:
    """So many neighbours as the threshold asks for can unmask a client for the server."""
    if d.secure is None or d.secure.protocol == "ideal":
        return
    neighbours = max(min(d.secure.neighbours or d.cohort - 1, d.cohort - 1), 0)
    enough = min(math.ceil(d.secure.threshold * (neighbours + 1)), neighbours)  # a client is a holder of its own too
    if enough < FEWEST_TO_BETRAY:
        text = f"{enough} of a client's {neighbours} neighbours and the server together can unmask its update"
        key = "neighbours" if d.secure.neighbours else "threshold"
        remedy = "use more clients a round, more neighbours, or a higher threshold"
        yield Remark((*d.place, "secure_aggregation", key), "warning", text, remedy)


def flower_local_noise(scenario: Scenario) -> Remarks:
    """Flower's LocalDpMod leaves its sensitivity free and uses the classical formula."""
    for place, options in _local_dp(scenario):
        norm, sensitivity, epsilon = (float(options[name]) for name in LOCAL_DP_DEFAULTS)
        instead = "use `privacy: {name: local}`, which ties the noise to the clipping norm"
        if sensitivity < 2 * norm:
            below = (
                "the clipping norm" if sensitivity < norm else "twice the clipping norm, what replacing data can move"
            )
            text = f"the noise is made for a sensitivity of {sensitivity:g}, below {below} ({norm:g} is the norm)"
            yield Remark((*place, "options", "sensitivity"), "warning", text, instead)
        if epsilon > 1:
            text = f"the classical Gaussian formula holds up to epsilon 1, and this asks it for {epsilon:g}"
            yield Remark((*place, "options", "epsilon"), "warning", text, instead)
        if norm > LARGEST_CLIPPING_NORM:
            text = f"a clipping norm of {norm:g} clips nothing, and the noise does not grow with it"
            yield Remark((*place, "options", "clipping_norm"), "warning", text, instead)


def tuned_on_the_data(scenario: Scenario) -> Remarks:
    """Whoever tries several strengths of one mechanism and keeps the best has looked at the data more than once."""
    if not any(isinstance(claim, EpsilonClaim) for claim in scenario.claims):
        return
    seen: dict[str, Privacy] = {}
    for each in defences_of(scenario):
        if each.privacy is None:
            continue
        first = seen.setdefault(each.privacy.name, each.privacy)
        if first != each.privacy and _sound(first) and _sound(each.privacy):
            several = f"several settings of {each.privacy.name} privacy meet the same data"
            text = f"{several}, and epsilon omits the choice among them"
            remedy = "compare them freely, but do not claim the epsilon of the one that came out best"
            yield Remark((*each.place, "privacy"), "warning", text, remedy)


def _sound(privacy: Privacy) -> bool:
    """Return whether a mechanism is no specimen, which nobody would choose."""
    return not (isinstance(privacy, CentralPrivacy) and privacy.specimen)


# What comes to nothing


def unattacked(scenario: Scenario) -> Remarks:
    """A setup is trained for the audits that attack it."""
    attacked = {audit.setup for audit in scenario.audits}
    for index, setup in enumerate(scenario.setups):
        if setup.name not in attacked:
            text = f"no audit attacks the setup {setup.name}, so it is never run"
            yield Remark(("setups", index), "warning", text, f"give an audit `setup: {setup.name}`, or leave it out")


def same_again(scenario: Scenario) -> Remarks:
    """A setup without any key is the federation without its defences; where there are none, it is the same."""
    for index, setup in enumerate(scenario.setups):
        if in_setup(scenario, setup.name) == scenario:
            text = f"the setup {setup.name} is the federation as it stands, so its worlds are run twice for nothing"
            yield Remark(("setups", index), "warning", text, "say what differs, or leave it out")


def party_twice(scenario: Scenario) -> Remarks:
    """A coalition is a set."""
    for index, audit in enumerate(scenario.audits):
        parties = _parties(audit)
        for party in sorted({party for party in parties if parties.count(party) > 1}):
            yield Remark(("audits", index, "vantage"), "warning", f"{party} stands twice", "name each party once")


def asked_by_the_holder(scenario: Scenario) -> Remarks:
    """Who holds the final model computes its answers and asks nobody."""
    for index, audit in enumerate(scenario.audits):
        release = audit.release or scenario.release
        if "server" not in _parties(audit) or not (
            audit.release or all("server" in _parties(a) for a in scenario.audits)
        ):
            continue
        place: Place = ("audits", index, "release") if audit.release else ("release",)
        for key in ("budget", "monitor"):
            if getattr(release, key) is not None:
                text = f"the server holds the final model and asks no queries, so a {key} has no effect on it"
                yield Remark((*place, key), "warning", text, f"leave `{key}` out, or attack from public")


def budget_below_one(scenario: Scenario) -> Remarks:
    """An attack that asks about every record needs a query for each."""
    for index, audit in enumerate(scenario.audits):
        budget, records = (audit.release or scenario.release).budget, scenario.data.candidates
        if budget is not None and budget < records and _parties(audit) == ["public"] and audit.game in ASK_EACH_RECORD:
            place: Place = ("audits", index, "release", "budget") if audit.release else ("release", "budget")
            text = (
                f"a budget of {budget:,} pays for less than one query for each of the {records:,} records asked about"
            )
            remedy = f"use at least {records:,}, or take what it hides for the defence itself"
            yield Remark(place, "warning", text, remedy)


ASK_EACH_RECORD = ("record", "source")
"""Games whose items are the candidates."""


DEALT = {
    "labels": "each client as many records drawn at random, but for the classes of those asked about",
    "client_property": "each client as many records of each label",
    "batches": "each client as many records drawn at random, and the one asked about batches of equal labels",
}
"""Games that deal records to clients themselves: how."""


def dealt_by_the_game(scenario: Scenario) -> Remarks:
    """A partition that no game follows is a mistake; one that some do not follow is easily forgotten."""
    names = [audit.game if isinstance(audit.game, str) else audit.game.name for audit in scenario.audits]
    own, scheme = [index for index, name in enumerate(names) if name in DEALT], scenario.data.partition.scheme
    if scheme == "iid" or not own:
        return
    if len(own) == len(names):
        how = "; ".join(f"the game {name} deals {DEALT[name]}" for name in dict.fromkeys(names))
        text = f"no audit follows the scheme {scheme}: {how}"
        yield Remark(("data", "partition"), "error", text, "leave `partition` out")
        return
    for index in own:
        text = f"the game {names[index]} does not follow the scheme {scheme}: it deals {DEALT[names[index]]}"
        remedy = "read it as a federation of its own, or give it a scenario without `data.partition`"
        yield Remark(("audits", index, "game"), "warning", text, remedy)


def _parties(audit: Audit) -> list[str]:
    return [part.strip() for part in audit.vantage.split("+")]


PER_DEFENCE: dict[str, Callable[[Defences], Remarks]] = {
    rule.__name__: rule
    for rule in (
        single_updates,
        distributed_in_clear,
        weights_by_examples,
        sum_of_one,
        rounds_given_up,
        training_looks_back,
        adaptive_in_secret,
        drop_out_of_no_stage,
        specimen_without_masks,
        local_dp_in_secret,
        planted_mistake,
        no_noise,
        clips_nothing,
        follows_the_outliers,
        amplification,
        large_delta,
        nothing_behind_the_claim,
        other_unit_attacked,
        speaks_in_clear,
        few_colluders,
    )
}
PER_SCENARIO: dict[str, Callable[[Scenario], Remarks]] = {
    rule.__name__: rule
    for rule in (
        canary_records,
        bounds_without_coins,
        difference_of_games,
        flower_local_noise,
        tuned_on_the_data,
        unattacked,
        same_again,
        party_twice,
        asked_by_the_holder,
        budget_below_one,
        dealt_by_the_game,
    )
}


def without_public_records(scenario: Scenario, needing: Collection[str]) -> Remarks:
    """An attack that learns from public records has none.

    needing: attacks that cannot run without them.
    """
    if scenario.data.population != 0:
        return
    for index, audit in enumerate(scenario.audits):
        for number, attack in enumerate(audit.attacks):
            if attack in needing:
                text = f"{attack} needs public records, and `data.population` is 0"
                yield Remark(("audits", index, "attacks", number), "warning", text, "give the attackers some")


# Defences that no attack was made for


def untried(scenario: Scenario, adaptive: Mapping[str, Collection[str]], games: Mapping[str, str]) -> Remarks:
    """A defence is met only by attacks that do not know it.

    adaptive: defence -> attacks that know it. games: attack -> the game that it plays.
    """
    met: dict[tuple[str, str | None, Release | None, str], list[int]] = {}
    for index, audit in enumerate(scenario.audits):
        game = audit.game if isinstance(audit.game, str) else audit.game.name
        for defence in _defences_met(scenario, audit):
            met.setdefault((defence, audit.setup, audit.release, game), []).append(index)
    for (defence, _, _, played), audits in met.items():
        fitting = [name for name in adaptive.get(defence, ()) if games.get(name) == played]
        tried = {name for index in audits for name in scenario.audits[index].attacks}
        if fitting and not tried & set(fitting):
            text = (
                f"no attack here knows the defence it meets ({str(defence).replace('_', ' ')}), so it says little of it"
            )
            yield Remark(("audits", audits[0], "attacks"), "warning", text, f"add one of {', '.join(fitting[:4])}")


def _defences_met(scenario: Scenario, audit: Audit) -> list[str]:
    """Return the defences that stand between an audit's vantage and what it attacks."""
    federation = in_setup(scenario, audit.setup).federation
    release, parties = audit.release or scenario.release, set(_parties(audit))
    found: list[str] = []
    if parties == {"public"}:
        found += [release.output] if release.output != "probabilities" else []
        found += ["budget"] if release.budget is not None else []
        found += ["monitor"] if release.monitor is not None else []
    if "server" in parties:
        secure, acts = federation.secure_aggregation, audit.adversary
        ends = secure is not None and secure.consistency and acts is not None and acts.name in ENDED_BY_CONSISTENCY
        found += ["secure_aggregation"] if secure and not ends else []  # nobody can know a way round a refusal
        found += [mod.name for mod in federation.mods]
    return found + (["privacy"] if federation.privacy else [])
