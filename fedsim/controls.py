"""Floor and ceiling of a measurement: the null control, the planted leak and the blind baseline."""

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import GroupKFold, cross_val_predict

from fedsim.intervals import Measured, Unresolved, measure
from fedsim.metrics import parse_metric
from fedsim.randomness import generator

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

CONFIDENCE = 0.99
"""Of the null control and the blind baseline: each fails by chance in one run of a hundred."""
BLIND_ROWS = 3000
AUC = parse_metric("auc")

Found = Measured | Unresolved


def covers_chance(found: Found) -> bool | None:
    """Return whether an AUC's interval covers 0.5; None where it is not known."""
    return found.low <= 0.5 <= found.high if isinstance(found, Measured) else None


def found_leak(found: Found) -> bool | None:
    """Return whether all of an AUC's interval lies above 0.5; None where it is not known."""
    return found.low > 0.5 if isinstance(found, Measured) else None


def blind_baseline(features: Floats, members: Bools, asked: Bools, seed: int, *, new_items: bool = True) -> Found:
    """Return the AUC of a classifier that sees the data and never a model, trained on some worlds and tried on others.

    It must be at chance: where it is not, members and non-members differ before any training, and no attack result
    means anything.

    features: [worlds, items, d], all that is known without a model; members, asked: bool [worlds, items].
    Source: Das, Zhang, Tramer, "Blind baselines beat membership inference attacks for foundation models" (2024), https://arxiv.org/abs/2406.16201
    """
    worlds, items = np.nonzero(asked)
    rng = generator(seed, "blind")
    if len(worlds) > BLIND_ROWS:
        chosen = np.sort(rng.choice(len(worlds), BLIND_ROWS, replace=False))
        worlds, items = worlds[chosen], items[chosen]
    folds = min(5, len(np.unique(worlds)))
    truth = members[worlds, items]
    if folds < 2 or truth.all() or not truth.any():
        return Unresolved("The blind baseline needs two worlds, and members as well as non-members.")
    classifier = HistGradientBoostingClassifier(
        max_iter=40, random_state=int(rng.integers(2**31)), early_stopping=False
    )
    guesses = cross_val_predict(
        classifier, features[worlds, items], truth, groups=worlds, cv=GroupKFold(folds), method="predict_proba"
    )
    scores, kept = np.zeros(members.shape), np.zeros(members.shape, dtype=bool)
    scores[worlds, items] = guesses[:, 1]
    kept[worlds, items] = True
    return measure(AUC, scores, members, kept, confidence=CONFIDENCE, new_items=new_items)
