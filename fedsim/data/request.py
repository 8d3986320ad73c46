"""What a source is asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fedsim.errors import ScenarioError
from fedsim.scenario import Data


class Request(NamedTuple):
    """The data section of a scenario, and the folders that its paths and its source refer to."""

    data: Data
    folder: Path
    """Where the source's published files lie."""
    scenario_folder: Path
    """What `data.path` is relative to."""


def whole_options(data: Data, allowed: Mapping[str, tuple[int, int, int]]) -> dict[str, int]:
    """Return the whole-number options of a source; `allowed` maps each name to (default, smallest, largest)."""
    if unknown := sorted(set(data.options) - set(allowed)):
        known = ", ".join(allowed) or "none"
        raise ScenarioError(f"data.options: source {data.source} has no option {unknown[0]!r}; options: {known}")
    chosen: dict[str, int] = {}
    for name, (default, smallest, largest) in allowed.items():
        value = data.options.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not smallest <= value <= largest:
            raise ScenarioError(f"data.options.{name}: expected a whole number in {smallest}..{largest}, got {value!r}")
        chosen[name] = value
    return chosen
