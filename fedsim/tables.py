"""The tables of attacks and strategies, joined with what checks and runs a scenario.

The tables bring torch and Flower, so each function imports what it needs.
"""

import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from fedsim.errors import ScenarioError
from fedsim.scenario_file import Known

if TYPE_CHECKING:
    from fedsim.data import Computed
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


def own_columns(given: Sequence[str]) -> "tuple[Computed, ...]":
    """Return the columns that options `--property NAME=FILE.py:FUNCTION` ask for; files are found from the working
    directory on, and may import what lies beside them. Raises ScenarioError for what cannot be loaded.
    """
    return tuple(_own_column(text, given[:number]) for number, text in enumerate(given))


def _own_column(text: str, before: Sequence[str]) -> "Computed":
    from fedsim.data import Computed

    name, _, place = text.partition("=")
    file, _, attribute = place.rpartition(":")
    where = f"--property {text}:"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name) or not file or not attribute:
        raise ScenarioError(f"{where} expected NAME=FILE.py:FUNCTION, such as old=traits.py:over_forty")
    if any(other.partition("=")[0] == name for other in before):
        raise ScenarioError(f"{where} the name {name} stands twice; names of columns must differ")
    path = Path(file)
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise ScenarioError(f"{where} cannot read {file}: {getattr(error, 'strerror', None) or error}") from None
    if str(path.resolve().parent) not in sys.path:
        sys.path.append(str(path.resolve().parent))
    module = ModuleType(path.stem)
    module.__file__ = str(path.resolve())
    try:
        # Not imported: what runs is what the hash is of, whatever was compiled before.
        exec(compile(content, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:  # whatever a stranger's file does
        raise ScenarioError(f"{where} cannot load {file}: {type(error).__name__}: {error}") from None
    compute = getattr(module, attribute, None)
    if not inspect.isfunction(compute):
        raise ScenarioError(f"{where} {file} defines no function {attribute!r}")
    return Computed(name, compute, f"{path.name}:{attribute}", hashlib.sha256(content).hexdigest())
