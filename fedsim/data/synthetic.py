"""Generated records: nobody's."""

import numpy as np

from fedsim.data.dataset import Dataset, as_they_are, dataset
from fedsim.data.request import Request, whole_options
from fedsim.randomness import generator

FEATURES = 600
FLIPPED = 0.4  # so close to one half that a model must see many records of a class to learn its prototype


def purchase_like(request: Request) -> Dataset:
    """Return records shaped like Purchase-100: 600 binary features, a random prototype a class.

    A record copies each bit of its class's prototype and flips it with probability 0.4. Options: classes (10), rows
    (5000), seed (0); the seed is the data's own, so that two scenarios with different seeds share the same records.
    """
    chosen = whole_options(
        request.data, {"classes": (10, 2, 1000), "rows": (5000, 10, 500_000), "seed": (0, 0, 2**31 - 1)}
    )
    rng = generator(chosen["seed"], "purchase_like")
    prototypes = rng.integers(0, 2, size=(chosen["classes"], FEATURES), dtype=np.uint8)
    labels = rng.integers(0, chosen["classes"], size=chosen["rows"])
    flips = rng.random((chosen["rows"], FEATURES), dtype=np.float32) < FLIPPED
    return dataset(
        prototypes[labels] ^ flips.astype(np.uint8),
        labels,
        tuple(f"style {style}" for style in range(chosen["classes"])),
        as_they_are,
        feature_names=tuple(f"product {product}" for product in range(FEATURES)),
        synthetic=True,
        notes=(
            "Synthetic: generated records, not the Purchase-100 data. Results on it say nothing about real purchases.",
        ),
    )
