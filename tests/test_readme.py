"""What the README and the docs show can be typed: scenarios load, commands and their options exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from fedsim import cli
from fedsim.scenario_file import load, shipped
from fedsim.tables import known

ROOT = Path(__file__).parent.parent
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"))}
README = PAGES["README.md"]


def _blocks(language: str) -> list[tuple[str, str]]:
    return [
        (page, block)
        for page, text in PAGES.items()
        for block in re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    ]


def _laid_over(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return a scenario with what is given in place of its own, section by section."""
    both = {
        key: _laid_over(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        for key, value in given.items()
    }
    return base | both


@pytest.mark.parametrize(("page", "block"), _blocks("yaml"))
def test_a_scenario_shown_loads(page: str, block: str, tmp_path: Path) -> None:
    given = yaml.safe_load(block)
    base = yaml.safe_load(shipped()["quickstart"].read_text())
    if "claims" not in given:  # those of the quickstart speak of its own audits
        base["claims"] = []
    path = tmp_path / f"{page.replace('/', '-')}.yaml"
    path.write_text(yaml.safe_dump(_laid_over(base, given)))
    load(str(path), known=known())


def _commands() -> list[str]:
    shown = [line for _, block in _blocks("console") for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in shown if line.startswith("$ fedsim")] + re.findall(
        r"`(fedsim [a-z][^`]*)`", README
    )


@pytest.mark.parametrize("line", sorted(set(_commands())))
def test_a_command_shown_exists(line: str) -> None:
    _, *words = line.split()
    command: Any = get_command(cli.app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not getattr(command, "commands", {}), f"no such command: {line}"
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_the_options_of_run_are_those_it_has() -> None:
    row = next(line for line in README.splitlines() if line.startswith("| `fedsim run SCENARIO`"))
    options = {option for parameter in get_command(cli.app).commands["run"].params for option in parameter.opts}  # type: ignore[attr-defined]
    assert set(re.findall(r"`(--[a-z-]+)", row)) <= options


def test_every_shipped_scenario_is_in_the_readme() -> None:
    table = README.split("## Scenarios\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \|", table, re.MULTILINE)) == set(shipped())


def test_every_link_within_the_project_leads_somewhere() -> None:
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)#:\s]+)\)", text):
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"
