"""Named randomness: every stream is derived from `(seed, names...)`, so no module needs a global generator."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

Name = str | int


def derive(seed: int, *names: Name) -> int:
    """Return a 63-bit seed for the stream called `names`; different names give independent streams."""
    text = "\x1f".join([str(seed), *(f"{type(name).__name__}:{name}" for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *names: Name) -> np.random.Generator:
    """Return the NumPy generator of the stream called `names`."""
    return np.random.default_rng(derive(seed, *names))


def torch_generator(seed: int, *names: Name) -> torch.Generator:
    """Return the CPU torch generator of the stream called `names`."""
    return torch.Generator().manual_seed(derive(seed, *names))


Globals = tuple[Any, Any, torch.Tensor]


def global_state() -> Globals:
    """Return the state of the global generators: the two that Flower draws from (`random`, `numpy.random`), and the one
    of torch, from which a ClientApp of one's own may draw.
    """
    return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002


def restore_globals(state: Globals) -> None:
    """Put the global generators back into a state."""
    random.setstate(state[0])
    np.random.set_state(state[1])  # noqa: NPY002
    torch.set_rng_state(state[2])


@contextmanager
def flower_globals(seed: int) -> Iterator[None]:
    """Seed the global generators inside the block, and restore them afterwards."""
    before = global_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
    try:
        yield
    finally:
        restore_globals(before)
