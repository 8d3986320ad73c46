"""A property planted in images: a share of them is turned, or has noise on its strokes. Which, is a raw column."""

from typing import Any

import numpy as np
import scipy  # its parts take a second to import; each is loaded when it is first used
from numpy.typing import NDArray

from fedsim.errors import ScenarioError
from fedsim.scenario import VisualProperty

COLUMN = "visual"
"""Column that a property game asks for: the name of the property, or `plain`."""
PLAIN = "plain"
STROKE = 0.1
"""Brightness from which on a pixel belongs to a stroke."""


def plant(
    x: NDArray[np.float32], visual: VisualProperty, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Return the images of which a random share carries the property, and the column [n] that says which.

    Args:
        x: images [n, channels, height, width] in [0, 1].
        visual: what is planted, and in how many.
        rng: decides who carries it, and the noise.

    Raises: ScenarioError where the records are no images.
    """
    if x.ndim != 4:
        raise ScenarioError("data.visual: a visual property needs images, and these records are a table; leave it out")
    carries = np.zeros(len(x), dtype=bool)
    carries[rng.permutation(len(x))[: round(visual.share * len(x))]] = True
    changed = x.copy()
    if visual.name == "rotation":
        turned = scipy.ndimage.rotate(x[carries], visual.angle, axes=(2, 3), reshape=False, order=1, mode="constant")
        changed[carries] = np.clip(turned, 0, 1)
    else:
        noise = visual.noise * rng.standard_normal(changed[carries].shape)
        changed[carries] = np.clip(x[carries] + noise * (x[carries] >= STROKE), 0, 1)
    return changed, np.where(carries, visual.name, PLAIN)
