"""From a scenario to what has to run: the pool, the worlds of each game, and what is measured in them."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedsim.apps import stock
from fedsim.attack import Attack
from fedsim.data import Dataset, Pool, draw_pool, load_dataset
from fedsim.engine import Job, Probe, Recipes
from fedsim.errors import ScenarioError
from fedsim.game import Draw, Exam, asked_from, draw, title
from fedsim.randomness import generator
from fedsim.scenario import Audit, Scenario
from fedsim.scenario_file import Loaded
from fedsim.views import Vantage, parse_vantage

Attacks = Mapping[str, Attack]


@dataclass(frozen=True)
class Trial:
    """One game: its worlds and exams, the audits that share them, and the job that runs them."""

    draw: Draw
    audits: tuple[Audit, ...]
    job: Job


@dataclass(frozen=True)
class Prepared:
    """A scenario made concrete; equal for equal scenario, data and seed."""

    scenario: Scenario
    pool: Pool
    trials: tuple[Trial, ...]


def prepare(loaded: Loaded, attacks: Attacks, recipes: Recipes) -> Prepared:
    """Return what a scenario asks to run.

    Raises ScenarioError where the data are missing or damaged, or the settings do not fit them.
    """
    scenario = loaded.scenario
    _check_strategy(scenario, recipes)
    dataset: Dataset = load_dataset(scenario.data, loaded.path.parent)
    pool = draw_pool(dataset, scenario.data, generator(scenario.seed, "pool"))
    by_game: dict[str, list[Audit]] = {}
    for audit in scenario.audits:
        by_game.setdefault(title(audit.game), []).append(audit)
    trials = []
    for audits in by_game.values():
        vantages = {audit.name: parse_vantage(audit.vantage, pool.clients) for audit in audits}
        watchers = frozenset[int]().union(*(clients(vantage) for vantage in vantages.values()))
        worlds = draw(scenario, pool, audits[0].game, watchers)
        probes = {}
        for audit in audits:
            for exam in worlds.exams:
                for name in audit.attacks:
                    _check_references(audit, attacks[name], exam)
                    probe = _probe(vantages[audit.name], exam, audit, name, attacks)
                    probes[probe.name] = probe
        job = Job(
            scenario=scenario,
            stock=stock(pool),
            worlds=worlds.worlds,
            probes=tuple(probes.values()),
            vantages=tuple(dict.fromkeys(vantages.values())),
            recipes=recipes,
        )
        trials.append(Trial(worlds, tuple(audits), job))
    return Prepared(scenario, pool, tuple(trials))


def clients(vantage: Vantage) -> frozenset[int]:
    """Return the clients in a vantage."""
    return frozenset(int(party.removeprefix("client:")) for party in vantage.parties if party.startswith("client:"))


def probe_name(vantage: Vantage, exam: Exam, audit: Audit, attack: str, attacks: Attacks) -> str:
    """Return the name of the probe that measures an attack's signal; attacks of an audit with the same signal share
    one.
    """
    first = next(name for name in audit.attacks if attacks[name].signal is attacks[attack].signal)
    return f"{vantage}/{exam.kind}/{audit.name}/{first}"


def _probe(vantage: Vantage, exam: Exam, audit: Audit, attack: str, attacks: Attacks) -> Probe:
    return Probe(
        name=probe_name(vantage, exam, audit, attack, attacks),
        vantage=vantage,
        ask=asked_from(exam.ask, clients(vantage)),
        signal=attacks[attack].signal,
        worlds=frozenset(int(world) for world in exam.worlds),
    )


def _check_references(audit: Audit, attack: Attack, exam: Exam) -> None:
    available = int(exam.references[exam.targets].sum(axis=1).min())
    if exam.kind == "main" and available < attack.min_references:
        raise ScenarioError(
            f"worlds: attack {attack.name!r} of audit {audit.name!r} needs {attack.min_references} reference "
            f"worlds, and there are {available}; "
            f"set worlds to {attack.min_references + 1} or more"
        )


def _check_strategy(scenario: Scenario, recipes: Recipes) -> None:
    """Refuse a strategy that would get too few replies to do what its name says."""
    federation = scenario.federation
    needed = recipes.min_clients(federation.strategy)
    wanted = federation.clients_per_round
    cohort = (
        scenario.data.clients
        if wanted is None
        else wanted
        if isinstance(wanted, int)
        else wanted * scenario.data.clients
    )
    if cohort < needed:
        raise ScenarioError(
            f"federation.strategy: {federation.strategy.name} with these options needs at least {needed} "
            f"clients a round, and there are {cohort:g}"
        )
