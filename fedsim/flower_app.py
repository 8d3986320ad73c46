"""The apps that `flwr run` starts: one world of a scenario on Flower's own runtime (simulation or a SuperLink with
SuperNodes).

Run config: `scenario` (a file or the name of a shipped scenario) and `world` (a number). Each party reads the scenario
and the data itself.
"""

from functools import lru_cache, partial

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from attacks import ATTACKS
from fedsim.apps import Bench, Outcome, bench, client_app, server_app
from fedsim.errors import ScenarioError
from fedsim.grid import WHO
from fedsim.prepare import prepare
from fedsim.scenario_file import load
from fedsim.tables import known, recipes
from fedsim.threads import pin
from fedsim.transcript import SERVER, Event, digest, frozen
from fedsim.world import World
from strategies import build_mods, build_strategy


@lru_cache(maxsize=1)
def _setting(name: str, number: int) -> tuple[World, Bench]:
    """Return the world of that number in the scenario's first game, as `fedsim run` numbers them, and its bench."""
    pin()
    prepared = prepare(load(name, known=known()), ATTACKS, recipes())
    worlds = prepared.trials[0].draw.worlds
    if not 0 <= number < len(worlds):
        raise ScenarioError(f"world: got {number}; scenario {name} has worlds 0 to {len(worlds) - 1}")
    return worlds[number], bench(prepared.scenario, prepared.trials[0].job.stock)


def _chosen(context: Context) -> tuple[World, Bench]:
    return _setting(str(context.run_config["scenario"]), int(context.run_config["world"]))


def _inner(context: Context) -> ClientApp:
    world, setup = _chosen(context)
    return client_app(world, lambda: setup, build_mods(world.federation.mods))


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
    world, setup = _chosen(context)
    outcome = Outcome()
    make = partial(build_strategy, world.federation.strategy)
    server_app(setup, world, make, lambda _event: None, outcome)(grid, context)
    final = digest([Event(world.federation.rounds, "final", SERVER, SERVER, frozen(outcome.arrays), {})])
    train_accuracy, _, test_accuracy, _ = outcome.utility[-1]
    print(f"world {world.name}: train accuracy {train_accuracy:.4f}, test accuracy {test_accuracy:.4f}")
    print(f"final model sha256 {final}")
