"""The start: nothing is imported that the first round can do without, and Ctrl-C is heard from then on."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from fedsim.data import load_dataset
from fedsim.errors import Stopped
from fedsim.processes import PRELOADED, late_interrupt, side_by_side, warm_up
from fedsim.scenario import Data
from tests import errands

ROOT = Path(__file__).parent.parent

HEAVY = (
    "flwr.simulation",
    "jax",
    "jinja2",
    "matplotlib",
    "networkx",
    "pandas",
    "ray",
    "scipy.integrate",
    "scipy.optimize",
    "scipy.special",
    "scipy.stats",
    "sklearn",
    "sympy",
    "torch._dynamo",
    "torch._inductor",
)
"""What takes a tenth of a second or more to import and is for other commands, other scenarios, or after the worlds."""

UNTIL_THE_FIRST_WORLD_IS_DONE = """
import sys
from contextlib import nullcontext

from fedsim import cli


def progress(done, _total, text):
    if done and text == "running worlds":
        print(*sys.modules)
        sys.exit()


cli._progress = lambda _quiet: nullcontext(progress)
cli.main(["run", "quickstart", "--workers", "1", "--out", sys.argv[1], "--set", "federation.rounds=1"])
"""


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def test_a_run_imports_nothing_heavy_before_its_first_world_is_done(tmp_path: Path) -> None:
    command = python("-c", UNTIL_THE_FIRST_WORLD_IS_DONE, str(tmp_path / "run"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert {"torch", "flwr", "fedsim.engine"} <= loaded, done.stderr  # it did run
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("arguments", [["--version"], ["schema"], ["list", "scenarios"], ["run", "--help"]])
def test_words_alone_need_no_torch(arguments: list[str]) -> None:
    code = f"import sys; from fedsim.cli import main; main({arguments}); print(*sys.modules)"
    done = subprocess.run(python("-c", code), cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"torch", "flwr", "numpy", *HEAVY}.isdisjoint(done.stdout.splitlines()[-1].split())


def test_a_report_is_written_without_torch() -> None:
    code = "import sys; import fedsim.report; print(*sys.modules)"
    done = subprocess.run(python("-c", code), cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"torch", "flwr", *HEAVY}.isdisjoint(done.stdout.split())


def test_digits_are_those_of_scikit_learn() -> None:
    """They are read without it, from its file; this is how we learn that the file has moved."""
    digits = load_dataset(Data(source="digits", candidates=10))
    truth = load_digits()
    x = digits.encode(digits.features, np.arange(len(digits.y)))
    np.testing.assert_array_equal(x[:, 0] * 16, truth.images.astype(np.float32))
    np.testing.assert_array_equal(digits.y, truth.target)


# Worker processes


def test_workers_are_forked_with_their_imports_done() -> None:
    """The server that forks them skips what it cannot import without a word."""
    (_, loaded), *_ = side_by_side(errands.modules, [0], 1, errands.nothing, None)
    assert {PRELOADED, "fedsim.cli", "fedsim.engine", "attacks", "strategies"} <= loaded


def test_workers_import_nothing_heavy() -> None:
    code = f"import sys, {PRELOADED}; print(*sys.modules)"
    done = subprocess.run(python("-c", code), cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()).isdisjoint(HEAVY)


def test_side_by_side_is_a_map_in_another_order() -> None:
    items = list(range(7))
    assert sorted(side_by_side(errands.twice, items, 2, errands.nothing, None)) == [(item, 2 * item) for item in items]
    assert list(side_by_side(errands.twice, [], 2, errands.nothing, None)) == []


def test_workers_do_not_hear_ctrl_c() -> None:
    assert not dict(side_by_side(errands.hears_interrupts, [0], 1, errands.nothing, None))[0]


def test_what_a_worker_raises_comes_out_and_leaves_no_process() -> None:
    with pytest.raises(ValueError, match="no 3"):
        list(side_by_side(errands.fails, [3], 1, errands.nothing, None))
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_stops_the_run() -> None:
    with pytest.raises(Stopped, match="a worker process died"):
        list(side_by_side(errands.dies, [0], 1, errands.nothing, None))


def test_who_wants_no_more_waits_for_nobody() -> None:
    results = side_by_side(errands.waits_for_ever_after_the_first, [0, 1, 2], 2, errands.nothing, None)
    assert next(results) == (0, 0)
    results.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


def test_an_interrupt_is_heard_at_the_end_of_the_block() -> None:
    before = signal.getsignal(signal.SIGINT)
    went_on = False
    with pytest.raises(KeyboardInterrupt), late_interrupt():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        went_on = True
    assert went_on
    assert signal.getsignal(signal.SIGINT) is before
    with late_interrupt():
        pass


STOPPED_IN_AN_IMPORT = """
import os, signal, sys


class Finder:
    @staticmethod
    def find_spec(name, *_):
        if name == "torch._C":
            os.killpg(0, signal.SIGINT)


sys.meta_path.insert(0, Finder)
from fedsim.cli import main
code = main(["run", "quickstart", "--out", sys.argv[1]])
sys.exit(code if "torch" in sys.modules else "torch was not imported to the end")
"""


def test_ctrl_c_while_it_imports_stops_a_run(tmp_path: Path) -> None:
    """What is raised inside the import of torch may meet C++ code that ends the process, so it waits."""
    command = python("-c", STOPPED_IN_AN_IMPORT, str(tmp_path / "run"))
    # All processes that the run starts hold its stderr, so this returns when the last of them is gone.
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, start_new_session=True)
    assert done.returncode == 130, done.stderr
    assert done.stderr.startswith("stopped; ")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_ctrl_c_while_workers_start_stops_a_run(tmp_path: Path) -> None:
    command = python("-m", "fedsim", "run", "quickstart", "--out", str(tmp_path / "run"), "--workers", "2")
    options: dict[str, Any] = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    # A shell starts what it runs in the background deaf to Ctrl-C, and this test with it.
    options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, cwd=ROOT, **options) as run:
        assert run.stderr is not None
        assert run.stderr.readline().endswith(": reading the data\n")
        os.killpg(run.pid, signal.SIGINT)
        rest = run.stderr.read()
    assert run.returncode == 130, rest
    assert "stopped; " in rest
    assert "Traceback" not in rest
    assert not (tmp_path / "run").exists()


def test_nobody_shuts_an_ear_to_ctrl_c_again_once_the_server_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server must start deaf, and so this process is deaf meanwhile; a run that looked again lost a Ctrl-C."""
    warm_up()
    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", lambda: pytest.fail("looked again"))
    warm_up()


def test_a_client_app_of_ones_own_runs_from_its_folder(tmp_path: Path) -> None:
    """Through the command line, in processes of their own, with what the module imports from beside itself."""
    (tmp_path / "step.py").write_text("SHRINK = 0.9\n")
    (tmp_path / "mine.py").write_text(
        "from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict\n"
        "from flwr.clientapp import ClientApp\n"
        "from step import SHRINK\n"
        "def make(world, prepare):\n"
        "    app = ClientApp()\n"
        "    @app.train()\n"
        "    def train(message, context):\n"
        "        arrays = {n: Array(a.numpy() * SHRINK) for n, a in message.content['arrays'].items()}\n"
        "        metrics = MetricRecord({'num-examples': 1})\n"
        "        reply = {'arrays': ArrayRecord(arrays), 'metrics': metrics}\n"
        "        return Message(RecordDict(reply), reply_to=message)\n"
        "    return app\n"
    )
    command = [sys.executable, "-m", "fedsim", "run", "quickstart", "--out", "run", "--workers", "2", "--quiet"]
    command += ["--client-app", "mine:make", "--set", "worlds=4", "--set", "federation.rounds=2"]
    command += ["--set", "controls.planted_rounds=2"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert '"client_app": "mine:make"' in (tmp_path / "run" / "results.json").read_text()
