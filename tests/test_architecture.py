"""Arrows between rooms go one way: this reads the imports and fails at any that is not listed here."""

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

from fedsim.scenario import Game

ROOT = Path(__file__).parent.parent
PACKAGES = ("fedsim", "attacks", "strategies")

# Room -> the other rooms of the project that it may import, anywhere in its code. A room is a package, or a module of
# fedsim; "fedsim" itself is the version and what is set before Flower loads.
MAY_IMPORT: dict[str, str] = {
    # The bottom: words and numbers.
    "fedsim": "",
    "fedsim.errors": "",
    "fedsim.randomness": "",
    "fedsim.threads": "",
    "fedsim.processes": "errors",
    "fedsim.transcript": "",
    "fedsim.vectors": "",
    "fedsim.canaries": "randomness vectors",
    "fedsim.scenario": "",
    "fedsim.metrics": "",
    "fedsim.gradients": "",
    "fedsim.intervals": "metrics",
    "fedsim.mechanisms": "",
    "fedsim.monitor": "",
    "fedsim.accounting": "mechanisms scenario",
    "fedsim.audit": "intervals metrics",
    "fedsim.claims": "accounting audit intervals scenario",
    "fedsim.lint": "scenario",
    "fedsim.controls": "intervals metrics randomness",
    "fedsim.views": "canaries transcript",
    "fedsim.tape": "errors transcript",
    "fedsim.attack": "randomness transcript views",
    "fedsim.scenario_file": "errors lint metrics scenario transcript views",
    # The federation.
    "fedsim.data": "errors randomness scenario",
    "fedsim.models": "errors scenario",
    "fedsim.training": "models scenario",
    "fedsim.dp_sgd": "gradients training",
    "fedsim.release": "monitor scenario transcript views",
    "fedsim.world": "canaries randomness scenario transcript views",
    "fedsim.actors": "scenario transcript views world",
    "fedsim.games": "canaries data errors randomness scenario views world",
    "fedsim.grid": "errors transcript",
    "fedsim.secagg": "grid randomness scenario transcript vectors",
    "fedsim.defences": "grid mechanisms randomness scenario secagg transcript vectors world",
    "fedsim.adversaries": "gradients grid models scenario training transcript vectors views world",
    "fedsim.apps": "adversaries canaries data defences dp_sgd grid models randomness scenario secagg training "
    "transcript vectors views world",
    # The engine: what it is given, how it measures, how many are trained at once, how worlds run.
    "fedsim.job": "apps attack release scenario views world",
    "fedsim.watch": "apps errors job release scenario transcript views world",
    "fedsim.stacked": "dp_sgd models scenario training",
    "fedsim.direct": "apps grid models stacked training transcript world",
    "fedsim.lockstep": "apps defences direct dp_sgd errors grid job models randomness scenario stacked training "
    "transcript watch",
    "fedsim.engine": "apps errors grid job lockstep models processes stacked tape threads transcript watch",
    # A run, and what it found.
    "fedsim.prepare": "accounting actors apps attack data defences errors games job models monitor randomness scenario "
    "scenario_file views world",
    "fedsim.plan": "apps attack data engine epsilon errors job lockstep prepare processes randomness scenario "
    "scenario_file threads views world",
    "fedsim.results": "errors intervals metrics scenario",
    "fedsim.epsilon": "accounting audit claims intervals metrics prepare randomness results scenario transcript views",
    "fedsim.judge": "accounting apps attack audit claims controls epsilon errors intervals job metrics monitor prepare "
    "randomness release results scenario transcript views world",
    "fedsim.run": "fedsim accounting audit data engine epsilon errors games job judge models prepare processes release "
    "report results scenario scenario_file tape threads",
    # The page, from a record alone.
    "fedsim.figures": "errors metrics results",
    "fedsim.report": "errors figures intervals metrics results",
    # Plugins: nothing of fedsim but their doors.
    "attacks": "attack canaries errors gradients metrics randomness secagg transcript vectors views",
    "strategies": "scenario",
    # Composition roots: the only rooms that know attacks and strategies by name.
    "fedsim.tables": "attacks strategies audit data errors job scenario_file",
    "fedsim.cli": "fedsim attacks strategies audit data errors models plan processes report results run scenario "
    "scenario_file tables",
    "fedsim.flower_app": "attacks strategies apps errors grid prepare scenario_file tables threads transcript world",
    "fedsim.preload": "attacks strategies cli engine processes",
    "fedsim.__main__": "cli",
}
MAY_IMPORT_FLOWER = {
    *(
        "fedsim.grid",
        "fedsim.secagg",
        "fedsim.adversaries",
        "fedsim.defences",
        "fedsim.apps",
        "fedsim.job",
        "fedsim.lockstep",
        "fedsim.engine",
        "fedsim.flower_app",
    ),
    "strategies",
}
UNPICKLERS = ("pickle", "joblib", "cloudpickle", "marshal", "shelve", "dill")


def _files() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def _room(module: str) -> str:
    """The room of a module of the project: fedsim.data.pool -> fedsim.data, attacks.lira -> attacks."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "fedsim" else parts[0]


def _room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return _room(".".join(part for part in parts if part != "__init__"))


def _is_module(name: str) -> bool:
    return (ROOT / "fedsim" / name).is_dir() or (ROOT / "fedsim" / f"{name}.py").is_file()


def _imports(source: str) -> set[str]:
    """The modules that some code imports, wherever in it; `from fedsim import games` imports fedsim.games."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import; write the full name"
            if node.module == "fedsim":
                found |= {f"fedsim.{alias.name}" if _is_module(alias.name) else "fedsim" for alias in node.names}
            else:
                found.add(str(node.module))
    return found


def _trespasses(room: str, source: str) -> set[str]:
    """The rooms that some code of `room` imports and may not."""
    allowed = {room} | {name if name in PACKAGES else f"fedsim.{name}" for name in MAY_IMPORT[room].split()}
    flower = {"flwr"} if room in MAY_IMPORT_FLOWER else set()
    modules = _imports(source)
    rooms = {_room(module) for module in modules if module.split(".")[0] in PACKAGES}
    return (rooms - allowed) | ({module.split(".")[0] for module in modules} & {"flwr", "tests", "benchmarks"} - flower)


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_what_is_listed_and_nothing_else(path: Path) -> None:
    assert not _trespasses(_room_of(path), path.read_text())


def test_every_room_is_listed_and_there() -> None:
    assert {_room_of(path) for path in _files()} == set(MAY_IMPORT)
    assert set(MAY_IMPORT) >= MAY_IMPORT_FLOWER


def test_no_arrow_turns() -> None:
    """What the list allows has no circle, so no room can be above and below another."""
    left = {room: set(MAY_IMPORT[room].split()) for room in MAY_IMPORT}
    while left:
        bottom = {room for room, needs in left.items() if not needs}
        assert bottom, f"a circle among {sorted(left)}"
        left = {r: needs - {b.removeprefix("fedsim.") for b in bottom} for r, needs in left.items() if r not in bottom}


@pytest.mark.parametrize(
    ("room", "source", "trespass"),
    [
        ("attacks", "from fedsim import games", {"fedsim.games"}),
        ("attacks", "def late():\n    import fedsim.data.pool", {"fedsim.data"}),
        ("attacks", "from fedsim.prepare import Prepared", {"fedsim.prepare"}),
        ("attacks", "from fedsim import __version__", {"fedsim"}),
        ("attacks", "import flwr.app", {"flwr"}),
        ("fedsim.engine", "from attacks import ATTACKS", {"attacks"}),
        ("fedsim.report", "from fedsim.engine import Job", {"fedsim.engine"}),
        ("fedsim.games", "from flwr.app import Context", {"flwr"}),
        ("fedsim.run", "from fedsim import judge, results\nfrom fedsim import __version__", set()),
    ],
)
def test_the_check_sees_every_way_to_import(room: str, source: str, trespass: set[str]) -> None:
    assert _trespasses(room, source) == trespass


def test_relative_imports_are_refused() -> None:
    with pytest.raises(AssertionError, match="relative import"):
        _imports("from . import games")


def test_nothing_is_imported_by_a_name_made_up_at_run_time() -> None:
    """But for a ClientApp that the user names on the command line; a scenario may be a stranger's and names none."""
    found = [path for path in _files() if "import_module" in path.read_text() or "__import__" in path.read_text()]
    assert found == [ROOT / "fedsim" / "tables.py"]


def test_the_project_unpickles_nothing() -> None:
    for path in _files():
        text = path.read_text()
        assert not {module.split(".")[0] for module in _imports(text)} & set(UNPICKLERS)
        assert "allow_pickle=True" not in text
        assert "weights_only=False" not in text


def test_the_design_names_every_game() -> None:
    words = (ROOT / "docs" / "design.md").read_text().split("## The words")[1].split("## Laws")[0]
    names = {tag.tag for option in get_args(get_args(Game)[0]) for tag in get_args(option)[1:]}
    assert {"record", "source", "batches"} <= names
    assert {name for name in names if f"`{name}`" not in words} == set()


def test_the_design_names_every_room() -> None:
    plan = (ROOT / "docs" / "design.md").read_text().split("## Rooms")[1]
    rooms = {name.removeprefix("fedsim.") for name in MAY_IMPORT if name.startswith("fedsim.") and "__" not in name}
    assert {room for room in rooms if not re.search(rf"\b{room}\b", plan)} == set()
