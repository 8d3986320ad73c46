"""Named randomness: every stream is derived from `(seed, names...)`, so no module needs a global generator."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def flower_globals(seed: int) -> Iterator[None]:
    """Seed the two global generators that Flower draws from (`random`, `numpy.random`), and restore them afterwards."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
