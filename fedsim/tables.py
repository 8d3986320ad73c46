"""The tables of attacks and strategies, joined with what checks and runs a scenario.

The tables bring torch and Flower, so each function imports what it needs.
"""

from typing import TYPE_CHECKING

from fedsim.scenario_file import Known

if TYPE_CHECKING:
    from fedsim.job import Recipes


def known() -> Known:
    """Return the names that a scenario may use, with their options."""
    from attacks import ATTACKS
    from fedsim.data import SOURCES
    from strategies import MODS, STRATEGIES

    return Known(
        attacks={name: row.game for name, row in ATTACKS.items()},
        strategies={name: row.options for name, row in STRATEGIES.items()},
        mods={name: row.options for name, row in MODS.items()},
        sources=SOURCES,
    )


def recipes() -> "Recipes":
    """Return how the names of strategies and mods become Flower objects."""
    from fedsim.job import Recipes
    from strategies import average, build_mods, build_strategy, min_clients

    return Recipes(build_strategy, build_mods, min_clients, average)
