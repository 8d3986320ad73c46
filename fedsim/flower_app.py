"""The apps that `flwr run` starts: one world of a scenario on Flower's own runtime (simulation or a SuperLink with
SuperNodes).

Run config: `scenario` (a file or the name of a shipped scenario) and `world` (a number). Each party reads the scenario
and the data itself.
"""

from functools import lru_cache, partial
from typing import NamedTuple

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedsim.apps import Bench, Outcome, bench, client_app, server_app, stock
from fedsim.data import draw_pool, load_dataset
from fedsim.game import World, draw
from fedsim.grid import WHO
from fedsim.randomness import generator
from fedsim.scenario import Scenario
from fedsim.transcript import SERVER, Event, digest, frozen


class Setting(NamedTuple):
    """One world of a scenario, ready to run."""

    scenario: Scenario
    world: World
    setup: Bench


@lru_cache(maxsize=1)
def _setting(name: str, number: int) -> Setting:
    from attacks import ATTACKS
    from fedsim.data import SOURCES
    from fedsim.scenario_file import Known, load
    from strategies import MODS, STRATEGIES

    known = Known(
        attacks={row: attack.game for row, attack in ATTACKS.items()},
        strategies={row: strategy.options for row, strategy in STRATEGIES.items()},
        mods={row: mod.options for row, mod in MODS.items()},
        sources=SOURCES,
    )
    loaded = load(name, known=known)
    scenario = loaded.scenario
    pool = draw_pool(load_dataset(scenario.data, loaded.path.parent), scenario.data, generator(scenario.seed, "pool"))
    worlds = draw(scenario, pool, scenario.audits[0].game, frozenset()).worlds
    return Setting(scenario, worlds[number], bench(scenario, stock(pool)))


def _chosen(context: Context) -> Setting:
    return _setting(str(context.run_config["scenario"]), int(context.run_config["world"]))


def _inner(context: Context) -> ClientApp:
    from strategies import build_mods

    chosen = _chosen(context)
    return client_app(chosen.world, lambda: chosen.setup, build_mods(chosen.world.federation.mods))


client = ClientApp()
server = ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """Train as the scenario says."""
    return _inner(context)(message, context)


@client.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate as the scenario says."""
    return _inner(context)(message, context)


@client.query(WHO.removeprefix("query."))
def who(message: Message, context: Context) -> Message:
    """Say which client this node is."""
    return _inner(context)(message, context)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Run the world and print the digest of its final model, which is the same on every engine."""
    from strategies import build_strategy

    scenario, world, setup = _chosen(context)
    outcome = Outcome()

    make = partial(build_strategy, world.federation.strategy)
    server_app(setup, world, make, lambda _event: None, outcome)(grid, context)
    final = digest([Event(world.federation.rounds, "final", SERVER, SERVER, frozen(outcome.arrays), {})])
    train_accuracy, _, test_accuracy, _ = outcome.utility[-1]
    print(
        f"scenario {scenario.name}, world {world.name}: train accuracy {train_accuracy:.4f}, test accuracy "
        f"{test_accuracy:.4f}"
    )
    print(f"final model sha256 {final}")
