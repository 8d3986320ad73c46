"""The scenarios that ship: each loads, and explains each of its keys."""

import re
from pathlib import Path

import pytest
import yaml

from fedsim.scenario_file import describe, dump, load, shipped
from fedsim.tables import known

KNOWN = known()


@pytest.mark.parametrize("name", shipped())
def test_ships_loads_and_loads_back(name: str, tmp_path: Path) -> None:
    loaded = load(name, known=KNOWN)
    assert loaded.scenario.name == name
    assert loaded.scenario.description == describe(loaded.path)
    effective = tmp_path / "effective.yaml"
    effective.write_text(dump(loaded.scenario), encoding="utf-8")
    assert load(str(effective), known=KNOWN).scenario == loaded.scenario


@pytest.mark.parametrize("name", shipped())
def test_explains_each_key(name: str) -> None:
    text = shipped()[name].read_text(encoding="utf-8")
    assert yaml.safe_load(text) == load(name, known=KNOWN).given  # what other YAML readers see is what runs
    lines = text.splitlines()
    # A key that only opens a section may leave the explaining to the keys in it.
    silent = [
        line
        for line, below in zip(lines, [*lines[1:], ""], strict=True)
        if re.match(r"\s*(- )?[a-z_]+:", line) and " #" not in line and not _opens(line, below)
    ]
    assert silent == []


def _opens(line: str, below: str) -> bool:
    return line.rstrip().endswith(":") and _depth(below) > _depth(line)


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip(" -"))


def test_the_quickstart_is_there() -> None:
    assert "quickstart" in shipped()
