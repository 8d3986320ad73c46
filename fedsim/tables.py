"""The tables of attacks and strategies, joined with what checks and runs a scenario.

The tables bring torch and Flower, so each function imports what it needs.
"""

import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fedsim.errors import ScenarioError
from fedsim.scenario_file import Known

if TYPE_CHECKING:
    from fedsim.job import MakeClient, Recipes


def known() -> Known:
    """Return the names that a scenario may use, with their options."""
    from attacks import ADAPTIVE, ATTACKS, NEEDS_PUBLIC
    from attacks.coverage import FOLLOWS
    from fedsim.audit import BOUNDS
    from fedsim.data import SOURCES
    from strategies import MODS, STRATEGIES

    return Known(
        attacks={name: row.game for name, row in ATTACKS.items()},
        strategies={name: row.options for name, row in STRATEGIES.items()},
        mods={name: row.options for name, row in MODS.items()},
        sources=SOURCES,
        bounds=BOUNDS,
        follows={name: FOLLOWS[row.signal.reads] for name, row in ATTACKS.items() if row.signal.reads in FOLLOWS},
        adaptive=ADAPTIVE,
        needing_public=NEEDS_PUBLIC,
    )


def recipes(client: str | None = None) -> "Recipes":
    """Return how the names of strategies and mods become Flower objects.

    client: MODULE:FUNCTION that makes a ClientApp in place of fedsim's own, found from the working directory on. Raises
    ScenarioError where there is none.
    """
    from fedsim.job import Recipes
    from strategies import average, build_mods, build_strategy, min_clients

    return Recipes(build_strategy, build_mods, min_clients, average, own_client(client) if client else None)


def own_client(name: str) -> "MakeClient":
    """Return the function that `name` (MODULE:FUNCTION) means: (world, prepare) -> ClientApp."""
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ScenarioError(f"--client-app: got {name!r}, expected MODULE:FUNCTION, such as my_clients:make")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever a stranger's module does while it is imported
        raise ScenarioError(f"--client-app: cannot import {module_name}: {type(error).__name__}: {error}") from None
    make: MakeClient | None = getattr(module, attribute, None)
    if not inspect.isfunction(make) or make.__qualname__ != attribute:
        raise ScenarioError(f"--client-app: {module_name} defines no function {attribute!r}")
    return make
