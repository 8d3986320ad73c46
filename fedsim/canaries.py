"""Canaries: clients or records made up by an auditor, each of which pushes the model in a direction of its own.

A mechanism protects nobody worse than them, so what is learned about them bounds epsilon from below.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedsim.randomness import generator
from fedsim.vectors import Floats

Ints = NDArray[np.int64]

LOUD = 10.0
"""A canary client asks for so many times the clipping norm, so that clipping has something to do."""


@dataclass(frozen=True)
class Canaries:
    """What an auditor made up: `count` canaries that may take part, as many again that never do (the null control), and
    a spare. direction: dirac (one coordinate each) or random (uniform on the sphere).
    """

    unit: Literal["client", "record"]
    direction: Literal["dirac", "random"]
    count: int
    seed: int

    @property
    def needed(self) -> int:
        """How many coordinates a model must have."""
        return 2 * self.count + 1


def coordinates(canaries: Canaries, parameters: int) -> Ints:
    """Return the coordinate of each Dirac canary [2 count + 1], all different."""
    return generator(canaries.seed, "canaries").choice(parameters, canaries.needed, replace=False)


def holder(canaries: Canaries, which: int, clients: int) -> int:
    """Return the client that a canary is, or that holds it."""
    return clients + which if canaries.unit == "client" else which % clients


def direction(canaries: Canaries, which: int, parameters: int) -> Floats:
    """Return the unit vector [parameters] of a canary."""
    if canaries.direction == "dirac":
        vector = np.zeros(parameters)
        vector[coordinates(canaries, parameters)[which]] = 1.0
        return vector
    vector = generator(canaries.seed, "canary", which).standard_normal(parameters)
    return np.asarray(vector / np.linalg.norm(vector))


def spare(canaries: Canaries) -> int:
    """Return the canary whose direction nobody is asked about."""
    return 2 * canaries.count


def products(canaries: Canaries, first: int, count: int, moved: Floats) -> Floats:
    """Return how far a movement [parameters] went [count] the way that each of the canaries from `first` on pushes: a
    client along its direction, a record against it, as descent goes against a gradient.
    """
    moved = moved if canaries.unit == "client" else -moved
    if canaries.direction == "dirac":
        return np.asarray(moved[coordinates(canaries, len(moved))[first : first + count]])
    return np.array([direction(canaries, which, len(moved)) @ moved for which in range(first, first + count)])
