"""Arrows between rooms go one way: this reads the imports and fails when one turns."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# room -> top-level packages, or modules of fedsim, that it must not import
FORBIDDEN = {
    "attacks": (
        "flwr",
        "strategies",
        "fedsim.data",
        "fedsim.game",
        "fedsim.engine",
        "fedsim.apps",
        "fedsim.grid",
        "fedsim.run",
        "fedsim.judge",
    ),
    "strategies": (
        "attacks",
        "fedsim.data",
        "fedsim.game",
        "fedsim.engine",
        "fedsim.apps",
        "fedsim.grid",
        "fedsim.run",
        "fedsim.judge",
    ),
}
FLOWER_ROOMS = {"fedsim/grid.py", "fedsim/apps.py", "fedsim/engine.py", "fedsim/flower_app.py"}
COMPOSITION_ROOTS = {"fedsim/cli.py", "fedsim/flower_app.py"}
BOTTOM = {  # may import nothing of the project but these
    "fedsim/errors.py": set(),
    "fedsim/randomness.py": set(),
    "fedsim/transcript.py": set(),
    "fedsim/scenario.py": set(),
    "fedsim/metrics.py": set(),
    "fedsim/intervals.py": {"fedsim.metrics"},
    "fedsim/claims.py": {"fedsim.intervals"},
    "fedsim/views.py": {"fedsim.transcript"},
    "fedsim/attack.py": {"fedsim.views", "fedsim.transcript", "fedsim.randomness"},
}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _files(*rooms: str) -> list[Path]:
    return [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]


def _hits(imports: set[str], names: tuple[str, ...]) -> list[str]:
    return [found for found in imports for name in names if found == name or found.startswith(name + ".")]


@pytest.mark.parametrize("path", _files("attacks", "strategies"), ids=lambda path: str(path.relative_to(ROOT)))
def test_attacks_and_strategies_reach_no_further_than_their_doors(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    assert not _hits(_imports(path), FORBIDDEN[room])


@pytest.mark.parametrize("path", _files("fedsim"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_engine_knows_no_attack_and_no_strategy_by_name(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    if name not in COMPOSITION_ROOTS:
        assert not _hits(_imports(path), ("attacks", "strategies"))
    if name not in FLOWER_ROOMS:
        assert not _hits(_imports(path), ("flwr",))


@pytest.mark.parametrize("name", BOTTOM)
def test_the_bottom_rooms_stand_on_nothing_above_them(name: str) -> None:
    own = {found for found in _imports(ROOT / name) if found.split(".")[0] in ("fedsim", "attacks", "strategies")}
    assert {
        found
        for found in own
        if not any(found == allowed or found.startswith(allowed + ".") for allowed in BOTTOM[name])
    } <= {"fedsim"}


def test_the_check_can_fail(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("import flwr.app\nfrom fedsim import game\n")
    assert _hits(_imports(bad), FORBIDDEN["attacks"])


def test_the_project_unpickles_nothing() -> None:
    for path in _files("fedsim", "attacks", "strategies"):
        text = path.read_text()
        assert not _hits(_imports(path), ("pickle", "joblib", "cloudpickle", "marshal", "shelve"))
        assert "allow_pickle=True" not in text
        assert "weights_only=False" not in text
