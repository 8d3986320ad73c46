"""One thread for all arithmetic: with more, the order of a sum depends on the machine, and so do the bytes."""

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
