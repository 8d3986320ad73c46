"""From a scenario's words to Flower's objects."""

from collections.abc import Mapping, Sequence
from typing import Any

from flwr.clientapp.typing import Mod as FlowerMod
from flwr.serverapp import strategy as flower

from fedsim.scenario import Option, Plugin
from strategies.mods import MODS
from strategies.table import STRATEGIES


def build_strategy(plugin: Plugin, evaluate_clients: bool) -> flower.Strategy:
    """Return the Flower strategy a scenario names. It trains on all the nodes that the Grid offers, since the Grid
    draws the cohort.
    """
    row = STRATEGIES[plugin.name]
    return row.make(
        **_chosen(row.options, plugin),
        fraction_train=1.0,
        fraction_evaluate=1.0 if evaluate_clients else 0.0,
        min_train_nodes=0,
        min_evaluate_nodes=0,
        min_available_nodes=0,
    )


def build_mods(plugins: Sequence[Plugin]) -> list[FlowerMod]:
    """Return the Flower client mods a scenario names, outermost first."""
    return [MODS[plugin.name].make(**_chosen(MODS[plugin.name].options, plugin)) for plugin in plugins]


def min_clients(plugin: Plugin) -> int:
    """Return the fewest replies a round with which the strategy does what its name says."""
    row = STRATEGIES[plugin.name]
    return row.min_clients(_chosen(row.options, plugin))


def average(plugin: Plugin) -> Mapping[str, float] | None:
    """Return what a strategy that averages the clients' models tells them each round; None if it does anything else."""
    row = STRATEGIES[plugin.name]
    return row.average(_chosen(row.options, plugin)) if row.average else None


def _chosen(options: Mapping[str, Option], plugin: Plugin) -> dict[str, Any]:
    """Return the value of each option: the scenario's, or the default."""
    return {name: option.default for name, option in options.items()} | plugin.options
