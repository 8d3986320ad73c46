"""How a process that computes is set up. One thread for all arithmetic: with more, the order of a sum depends on the
machine, and so do the bytes.
"""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


def pin() -> None:
    """Hold torch and the BLAS behind NumPy to one thread, for the rest of this process."""
    torch.set_num_threads(1)
    threadpool_limits(1)


@contextmanager
def pinned() -> Iterator[None]:
    """Hold torch and the BLAS behind NumPy to one thread inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def settled() -> Iterator[None]:
    """Spare the garbage collector, inside the block, what exists now.

    Some of Flower's strategies (median, trimmed mean, Krum, Bulyan) collect garbage after every reply they read, which
    takes a tenth of a second where torch and Flower are loaded: far longer than the training of a small model.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def cpu_capability() -> str:
    """Return the instruction set that torch computes with; sums differ between them."""
    return torch.backends.cpu.get_cpu_capability()


def tune_allocator() -> None:
    """Let glibc keep large blocks that are freed, for the rest of this process.

    By default each temporary of a few megabytes is mapped, zeroed and unmapped again, which doubles the time of many a
    step. Other C libraries are left as they are.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
