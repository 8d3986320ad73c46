"""From a scenario to what has to run: the pool, the worlds of each game, and what is measured in them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedsim.accounting import Facts, fewest, noise_multiplier
from fedsim.actors import acting, adversary_title, with_adversary
from fedsim.apps import stock
from fedsim.attack import Attack
from fedsim.data import Computed, Dataset, Pool, draw_pool, load_dataset, with_computed
from fedsim.defences import canary_clients, lost
from fedsim.errors import ScenarioError
from fedsim.games import draw, title
from fedsim.job import Job, Probe, Recipes
from fedsim.models import parameter_count
from fedsim.monitor import NotEnough, calibrated_radius
from fedsim.randomness import generator
from fedsim.scenario import (
    Adversary,
    Audit,
    CanaryGame,
    DistributedPrivacy,
    Federation,
    PropertyPoisoning,
    Release,
    Scenario,
    in_setup,
)
from fedsim.scenario_file import Loaded
from fedsim.views import Vantage, parse_vantage
from fedsim.world import Draw, Exam, asked, asked_from

Attacks = Mapping[str, Attack]
ProbeKey = tuple[str, str]
"""(kind of exam, attack)."""
TrialKey = tuple[str | None, str, Adversary | None, frozenset[str]]
"""(setup, game, what an adversary does, who of the vantage does it)."""


@dataclass(frozen=True)
class PreparedAudit:
    """An audit, its vantage, the name of the probe that measures each attack's signal in each exam, and the output
    policy that it meets, its monitor calibrated.
    """

    audit: Audit
    vantage: Vantage
    probes: Mapping[ProbeKey, str]
    release: Release


@dataclass(frozen=True)
class Trial:
    """One game in one setup: its worlds and exams, the audits that share them, and the job that runs them."""

    setup: str | None
    federation: Federation
    facts: Facts
    bare: Facts  # the same without an auditor's canaries: the federation that is spoken of
    draw: Draw
    audits: tuple[PreparedAudit, ...]
    job: Job
    adversary: str | None = None  # who does what, in words

    @property
    def main(self) -> Exam:
        """The exam that is not a control."""
        return self.draw.exams[0]


@dataclass(frozen=True)
class Prepared:
    """A scenario made concrete; equal for equal scenario, data and seed."""

    scenario: Scenario
    pool: Pool
    trials: tuple[Trial, ...]
    computed: tuple[Computed, ...] = ()


def prepare(loaded: Loaded, attacks: Attacks, recipes: Recipes, computed: Sequence[Computed] = ()) -> Prepared:
    """Return what a scenario asks to run. computed: columns of the user's own beside those of the source.

    Raises ScenarioError where the data are missing or damaged, or the settings do not fit them.
    """
    scenario = loaded.scenario
    _check_strategy(scenario, recipes)
    dataset: Dataset = with_computed(load_dataset(scenario.data, loaded.path.parent), computed)
    pool = draw_pool(dataset, scenario.data, generator(scenario.seed, "pool"))
    alike: dict[TrialKey, list[tuple[int, Audit]]] = {}
    for number, audit in enumerate(scenario.audits):
        alike.setdefault(_trial_key(audit, pool.clients), []).append((number, audit))
    policies = _policies(scenario, pool)
    trials = []
    for setup in dict.fromkeys(setup for setup, *_ in alike):
        games = [audits for (name, *_), audits in alike.items() if name == setup]
        whole = in_setup(scenario, setup)
        known = _calibrated(whole, setup, pool, games, recipes)
        trials += [_trial(known, setup, pool, audits, attacks, recipes, policies) for audits in games]
    order = list(alike)
    trials.sort(key=lambda trial: order.index(_trial_key(trial.audits[0].audit, pool.clients)))
    return Prepared(scenario, pool, tuple(trials), tuple(computed))


def _trial_key(audit: Audit, clients: int) -> TrialKey:
    """Return what audits have in common that share their worlds."""
    who = acting(audit.adversary, parse_vantage(audit.vantage, clients)) if audit.adversary else frozenset[str]()
    return audit.setup, title(audit.game), audit.adversary, who


def facts(scenario: Scenario, pool: Pool, worlds: Draw, recipes: Recipes, *, canaries: bool = True) -> Facts:
    """Return what the accountant needs to know of the main worlds of a draw, with their canary clients or without."""
    federation, model = scenario.federation, scenario.model
    wanted, secure = federation.clients_per_round, federation.secure_aggregation
    main = [worlds.worlds[int(index)] for index in worlds.exams[0].worlds]
    sizes = {len(rows) for world in main for rows in world.rows if len(rows)}
    extra = canary_clients(main[0]) if canaries else 0
    clients = pool.clients + extra
    return Facts(
        clients=clients,
        rounds=federation.rounds,
        sampling="all" if wanted is None else "fixed" if isinstance(wanted, int) else "poisson",
        per_round=clients if wanted is None else wanted,
        sizes=tuple(sorted(sizes)),
        local_epochs=federation.local.epochs,
        batch_size=federation.local.batch_size,
        parameters=parameter_count(model, pool.x.shape[1:], pool.classes),
        secure=secure.protocol if secure else None,
        drop_out_update=lost(federation.drop_out),
        threshold=secure.threshold if secure else 1.0,
        quantisation_step=secure.quantisation.clip_range / (2 ** (secure.quantisation.bits - 1) - 1) if secure else 0.0,
        drawn_from=min(sum(len(rows) > 0 for rows in world.rows) for world in main) + extra,
        own_client=recipes.client is not None,
        clear_metrics=federation.evaluate_clients
        or (secure is not None and secure.metadata == "clear" and isinstance(federation.privacy, DistributedPrivacy)),
    )


def _calibrated(
    scenario: Scenario, setup: str | None, pool: Pool, games: Sequence[Sequence[tuple[int, Audit]]], recipes: Recipes
) -> Scenario:
    """Return a scenario whose noise is known: where it asks for an epsilon, the noise that buys it in the worlds of
    every game that is played in this setup.
    """
    privacy = scenario.federation.privacy
    if privacy is None or privacy.noise_multiplier is not None:
        return scenario
    try:
        found = max(
            noise_multiplier(privacy, facts(scenario, pool, worlds, recipes, canaries=canaries))
            for worlds in (_drawn(scenario, pool, audits) for audits in games)
            for canaries in (True, False)
        )
    except ValueError as error:
        place = "federation" if setup is None else f"setups.{[each.name for each in scenario.setups].index(setup)}"
        raise ScenarioError(f"{place}.privacy: {error}") from None
    known = privacy.model_copy(update={"noise_multiplier": found, "epsilon": None})
    return scenario.model_copy(update={"federation": scenario.federation.model_copy(update={"privacy": known})})


def _drawn(scenario: Scenario, pool: Pool, audits: Sequence[tuple[int, Audit]]) -> Draw:
    """Return the worlds that some audits of one game share."""
    watchers = frozenset[int]().union(*(parse_vantage(audit.vantage, pool.clients).clients for _, audit in audits))
    plan = audits[0][1].adversary
    victim = getattr(plan, "client", None)
    try:
        drawn = draw(scenario, pool, audits[0][1].game, watchers if victim is None else watchers | {victim})
    except ScenarioError as error:  # a game does not know which audit plays it
        raise ScenarioError(re.sub("^audits:", f"audits.{audits[0][0]}.game:", str(error))) from None
    if plan is None:
        return drawn
    if isinstance(plan, PropertyPoisoning) and plan.label >= pool.classes:
        raise ScenarioError(
            f"audits.{audits[0][0]}.adversary.label: got {plan.label}; classes are 0 to {pool.classes - 1}"
        )
    return with_adversary(drawn, plan, acting(plan, parse_vantage(audits[0][1].vantage, pool.clients)))


def _trial(
    scenario: Scenario,
    setup: str | None,
    pool: Pool,
    audits: list[tuple[int, Audit]],
    attacks: Attacks,
    recipes: Recipes,
    policies: Sequence[Release],
) -> Trial:
    vantages = [parse_vantage(audit.vantage, pool.clients) for _, audit in audits]
    worlds = _drawn(scenario, pool, audits)
    if recipes.client is not None and audits[0][1].adversary is not None:
        raise ScenarioError("--client-app: clients of one's own know no adversary; leave `adversary` out of the audits")
    if recipes.client is not None and any(world.batches for world in worlds.worlds):
        raise ScenarioError(
            "--client-app: clients of one's own train on the rows of their world, and the game batches gives another "
            "batch in each round"
        )
    for world in worlds.worlds:
        if not any(len(rows) for rows in world.rows):
            raise ScenarioError(
                f"data.candidates: the coins leave world {world.name} without a single record; use more"
            )
    known_facts = facts(scenario, pool, worlds, recipes)
    _check_noise(worlds, known_facts)
    _check_canaries(audits[0], known_facts.parameters)
    probes: dict[str, Probe] = {}
    prepared = []
    for (number, audit), vantage in zip(audits, vantages, strict=True):
        if not asked(worlds.exams[0], vantage.clients).any():
            raise ScenarioError(
                f"audits.{number}.vantage: {audit.vantage} owns every record that could be asked about, so "
                "nothing is left to ask"
            )
        names: dict[ProbeKey, str] = {}
        release = policies[number]
        for exam in worlds.exams:
            for attack in audit.attacks:
                _check_references(number, audit, attacks[attack], exam)
                probe = _probe(vantage, exam, audit, attack, attacks, release)
                probes[probe.name] = probe
                names[exam.kind, attack] = probe.name
        prepared.append(PreparedAudit(audit, vantage, names, release))
    job = Job(
        scenario=scenario,
        stock=stock(pool),
        worlds=worlds.worlds,
        probes=tuple(probes.values()),
        vantages=tuple(dict.fromkeys(vantages)),
        recipes=recipes,
    )
    bare = facts(scenario, pool, worlds, recipes, canaries=False)
    actor = worlds.worlds[0].adversary
    does = adversary_title(actor.plan, actor.parties) if actor else None
    return Trial(setup, scenario.federation, known_facts, bare, worlds, tuple(prepared), job, does)


def _policies(scenario: Scenario, pool: Pool) -> tuple[Release, ...]:
    """Return the output policy that each audit meets; each that differs is worked out once."""
    known: dict[Release, Release] = {}
    for number, audit in enumerate(scenario.audits):
        release = audit.release or scenario.release
        if release not in known:
            known[release] = _policy(scenario, number, audit, pool)
    return tuple(known[audit.release or scenario.release] for audit in scenario.audits)


def _policy(scenario: Scenario, number: int, audit: Audit, pool: Pool) -> Release:
    """Return the output policy that an audit meets; the radius of its monitor is set on the public records."""
    release = audit.release or scenario.release
    if release.output == "top_k" and release.k >= pool.classes:
        key = f"audits.{number}.release.k" if audit.release else "release.k"
        raise ScenarioError(
            f"{key}: got {release.k}, and the data have {pool.classes} classes, so nothing would be left out; at most "
            f"{pool.classes - 1}"
        )
    monitor = release.monitor
    if monitor is None or monitor.radius is not None:
        return release
    place = f"audits.{number}.release.monitor" if audit.release else "release.monitor"
    try:
        radius = calibrated_radius(
            pool.x[pool.population],
            monitor.window,
            monitor.near_duplicates,
            monitor.false_alarm_rate,
            generator(scenario.seed, "monitor", "calibration"),
        )
    except NotEnough as error:
        raise ScenarioError(f"{place}.window: {error} (`data.population`)") from None
    return release.model_copy(update={"monitor": monitor.model_copy(update={"radius": radius})})


def _probe(vantage: Vantage, exam: Exam, audit: Audit, attack: str, attacks: Attacks, release: Release) -> Probe:
    """Return the probe of an attack's signal; attacks of an audit with the same signal share one."""
    first = next(name for name in audit.attacks if attacks[name].signal is attacks[attack].signal)
    return Probe(
        name=f"{vantage}/{exam.kind}/{audit.name}/{first}",
        vantage=vantage,
        ask=asked_from(exam.ask, vantage.clients),
        signal=attacks[attack].signal,
        worlds=frozenset(int(world) for world in exam.worlds),
        release=release,
    )


def _check_canaries(first: tuple[int, Audit], parameters: int) -> None:
    """Refuse more canaries than the model has coordinates for."""
    number, audit = first
    if not isinstance(audit.game, CanaryGame) or audit.game.direction != "dirac":
        return
    most = (parameters - 1) // 2
    if audit.game.count > most:
        raise ScenarioError(
            f"audits.{number}.game.count: got {audit.game.count}; a model of {parameters} parameters has coordinates "
            f"for {most} canaries and as many that never take part; use fewer, or direction: random"
        )


def _check_references(number: int, audit: Audit, attack: Attack, exam: Exam) -> None:
    available = int(exam.references[exam.targets].sum(axis=1).min()) if exam.targets.any() else 0
    if available < attack.min_references:
        key = "controls.planted_worlds" if exam.kind == "planted" else "worlds"
        raise ScenarioError(
            f"{key}: attack {attack.name!r} of audits.{number} ({audit.name}) needs {attack.min_references} reference "
            f"worlds, and there are {available}; set {key} to {attack.min_references + 1} or more"
        )


def _check_noise(worlds: Draw, known: Facts) -> None:
    """Refuse worlds in which too few clients have records to train on, and so to add the noise accounted for: every
    round would be given up.
    """
    for world in worlds.worlds:
        if isinstance(world.federation.privacy, DistributedPrivacy):
            active = sum(len(rows) > 0 for rows in world.rows) + canary_clients(world)
            if active < (needed := fewest(known)):
                raise ScenarioError(
                    f"data.candidates: {active} clients of world {world.name} have records, and distributed noise is "
                    f"accounted for {needed}; use more candidates or fewer clients"
                )


def _check_strategy(scenario: Scenario, recipes: Recipes) -> None:
    """Refuse a strategy that would get too few replies to do what its name says."""
    federation = scenario.federation
    needed = recipes.min_clients(federation.strategy)
    wanted = federation.clients_per_round
    cohort = wanted if isinstance(wanted, int) else scenario.data.clients
    if cohort < needed:
        raise ScenarioError(
            f"federation.strategy: {federation.strategy.name} with these options needs at least {needed} clients a "
            f"round, and there are {cohort}"
        )
