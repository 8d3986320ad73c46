"""Worker processes: how they start, and who hears Ctrl-C: the parent alone, which then ends them.

torch and Flower are not imported here, so that `warm_up` can start importing them in another process first.
"""

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from types import FrameType
from typing import TypeVar

from fedsim.errors import Stopped

Item = TypeVar("Item")
Result = TypeVar("Result")
Argument = TypeVar("Argument")

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PRELOADED = "fedsim.preload"
MEMORY = 2_000_000_000
"""Bytes that the worlds under way may take in all processes, unless a run says otherwise."""


def default_workers() -> int:
    """Return one process for each processor this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache  # a Ctrl-C that comes while the server starts is lost, so nobody may look again later whether it runs
def warm_up() -> None:
    """Return at once, and have the server that forks the workers import while this process goes on.

    The server ends with this process, or a moment later if it is still importing. Does nothing the second time, or
    where the system has none.
    """
    if METHOD == "forkserver":
        from multiprocessing import forkserver  # not on every system

        forkserver.set_forkserver_preload([PRELOADED])
        with _on_interrupt(signal.SIG_IGN):  # inherited by the server and by all that it forks
            forkserver.ensure_running()


def side_by_side(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    start: Callable[[Argument], None],
    argument: Argument,
) -> Iterator[tuple[Item, Result]]:
    """Yield (item, work(item)) in the order they finish, from `workers` processes that each call `start(argument)`
    first.

    Where it ends early, by Ctrl-C, an error or a caller that wants no more, the processes end at once.
    work, start: module-level functions; everything is pickled between the processes of this run.
    Raises Stopped where a process died.
    """
    if not items:
        return
    warm_up()
    others = multiprocessing.active_children()
    context = multiprocessing.get_context(METHOD)
    with ProcessPoolExecutor(min(workers, len(items)), context, _begin, (start, argument)) as pool:
        try:
            with late_interrupt():  # a worker half started would be forgotten, and stay
                waiting = {pool.submit(work, item): item for item in items}
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        except BrokenProcessPool:
            raise Stopped(
                "a worker process died, often for want of memory; try fewer --workers (the same command goes on "
                "where this stopped)"
            ) from None
        except BaseException:
            for process in set(multiprocessing.active_children()) - set(others):
                process.terminate()
            raise


def _begin(start: Callable[[Argument], None], argument: Argument) -> None:
    """Make a worker ready; it ignores Ctrl-C, also where it could not inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    start(argument)


@contextmanager
def uncollected() -> Iterator[None]:
    """Import inside the block without looking for garbage: there is none, and the search takes a fifth of the time.

    All that exists at its end is never searched again, so worker processes share it.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def heed_termination() -> None:
    """Answer SIGTERM, which `timeout`, containers and schedulers send, as Ctrl-C: workers end and nothing is lost."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda _number, _frame: signal.raise_signal(signal.SIGINT))


@contextmanager
def late_interrupt() -> Iterator[None]:
    """Hear a Ctrl-C inside the block at its end."""
    heard: list[int] = []
    with _on_interrupt(lambda number, _: heard.append(number)):
        yield
    if heard:
        raise KeyboardInterrupt


@contextmanager
def _on_interrupt(handler: signal.Handlers | Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Answer Ctrl-C inside the block with `handler`; only the main thread may, and only there does anybody hear it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
