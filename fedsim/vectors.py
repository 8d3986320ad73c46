"""A model's parameters as one vector, names in alphabetical order."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Arrays = Mapping[str, NDArray[np.generic]]


def flat(arrays: Arrays) -> Floats:
    """Return parameters as one vector, float64 [d]."""
    return np.concatenate([np.asarray(arrays[name], dtype=np.float64).ravel() for name in sorted(arrays)])


def shaped(vector: Floats, like: Arrays) -> dict[str, NDArray[np.generic]]:
    """Return a vector [d] as parameters with the names, shapes and types of `like`, in its order."""
    ends = np.cumsum([like[name].size for name in sorted(like)])
    parts = dict(zip(sorted(like), np.split(vector, ends[:-1]), strict=True))
    return {name: parts[name].reshape(array.shape).astype(array.dtype) for name, array in like.items()}
