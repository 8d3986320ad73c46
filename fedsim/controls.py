"""Floor and ceiling of a measurement: the null control, the planted leak and the blind baseline."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from scipy.stats import rankdata
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from fedsim.intervals import Measured, Unresolved, measure
from fedsim.metrics import parse_metric
from fedsim.randomness import generator

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

CONFIDENCE = 0.99
"""Of the null control and the blind baseline. By chance the interval misses 0.5 in one run of a hundred; that of the
blind baseline in about one of twenty where it has fewer than FEW_ROWS answers that differ without meaning anything.
"""
BLIND_ROWS = 3000
FEW_ROWS = 200
AUC = parse_metric("auc")

Found = Measured | Unresolved


def covers_chance(found: Found) -> bool | None:
    """Return whether an AUC's interval covers 0.5; None where it is not known."""
    return found.low <= 0.5 <= found.high if isinstance(found, Measured) else None


def found_leak(found: Found) -> bool | None:
    """Return whether all of an AUC's interval lies above 0.5; None where it is not known."""
    return found.low > 0.5 if isinstance(found, Measured) else None


def blind_baseline(
    features: Floats,
    members: Bools,
    asked: Bools,
    seed: int,
    *,
    new_items: bool = True,
    groups: NDArray[np.int64] | None = None,
) -> Found:
    """Return the AUC of a classifier that sees the data and never a model, trained on some worlds and tried on others.

    It must be at chance: where it is not, members and non-members differ before any training, and no attack result
    means anything. Unresolved where even perfect guesses could not be told from chance.

    features: [worlds, items, d], all that is known without a model; members, asked: bool [worlds, items]; groups:
    [worlds], worlds with one number share records (None: none do).
    Source: Das, Zhang, Tramer, "Blind baselines beat membership inference attacks for foundation models" (2024), https://arxiv.org/abs/2406.16201
    """
    worlds, items = np.nonzero(asked)
    rng = generator(seed, "blind")
    if len(worlds) > BLIND_ROWS:
        chosen = np.sort(rng.choice(len(worlds), BLIND_ROWS, replace=False))
        worlds, items = worlds[chosen], items[chosen]
    kept = np.zeros(members.shape, dtype=bool)
    kept[worlds, items] = True
    apart = np.arange(len(members)) if groups is None else groups
    perfect = measure(
        AUC, members.astype(np.float64), members, kept, confidence=CONFIDENCE, new_items=new_items, groups=apart
    )
    if not found_leak(perfect):
        return Unresolved(
            f"The blind baseline has too few answers: over {len(np.unique(worlds))} worlds with "
            f"{int(members[kept].sum())} members and {int((~members[kept]).sum())} non-members even perfect guesses "
            "could not be told from chance."
        )
    few = len(worlds) < FEW_ROWS
    folds = GroupKFold(min(5 if few else 3, len(np.unique(apart[worlds]))))
    classifier = _linear() if few else _forest(len(worlds), int(rng.integers(2**31)))
    rows, truth = features[worlds, items], members[worlds, items]
    scores = np.zeros(members.shape)
    for train, test in folds.split(rows, truth, apart[worlds]):
        guesses = _guesses(classifier, rows[train], truth[train], rows[test])
        # Among few rows the part of members differs from fold to fold, so ranks within a fold would lose the leak.
        scores[worlds[test], items[test]] = guesses if few else rankdata(guesses) / len(test)
    return measure(AUC, scores, members, kept, confidence=CONFIDENCE, new_items=new_items, groups=apart)


def _linear() -> Pipeline:
    """A classifier for few rows, where trees find nothing to split."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1))


def _forest(rows: int, seed: int) -> RandomForestClassifier:
    return RandomForestClassifier(20, max_depth=8, min_samples_leaf=max(2, rows // 100), random_state=seed)


# A fold with more members leaves fewer to learn from. Without taking off the training prior, knowing nothing would
# therefore score below chance.
def _guesses(classifier: Any, rows: Floats, truth: Bools, new: Floats) -> Floats:
    """Return how much likelier than in the training rows each new row is to be a member, in log-odds."""
    if truth.all() or not truth.any():
        return np.zeros(len(new))
    yes = np.clip(classifier.fit(rows, truth).predict_proba(new)[:, 1], 1e-6, 1 - 1e-6)
    # Rounded, so that equal knowledge gives ties and not the optimiser's last digits.
    guesses: Floats = np.round(logit(yes) - logit(truth.mean()), 3)
    return guesses
