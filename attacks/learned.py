"""Tests that train a model of their own: shadow classifiers and a regression of what is normal for a record.

scikit-learn takes a second to import, so each function imports what it needs.
"""

import warnings
from typing import TYPE_CHECKING

import numpy as np

from attacks.decide import STARVED, item_labels
from fedsim.attack import Bools, Case
from fedsim.errors import NotVisible
from fedsim.views import Floats, RecordAsk

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingRegressor

SHADOW_WORLDS = 8
"""Reference worlds, drawn at random, that the shadow classifiers learn from: more cost time and change little."""
HIDDEN = 64
"""Width of the attack networks, as in both papers."""
LEAST_PUBLIC = 100
"""Public records below which a regression says nothing about a single record."""
COMPONENTS = 16
"""Principal components of x that the regression sees."""
LARGEST = 10
"""Entries of the sorted vector that a network of all classes sees."""


def shadow_classifier_per_class(case: Case) -> Floats:
    """Return the log-odds [n] of "in" from one network per class, trained on the references' probability vectors [n,
    classes].

    A class with fewer than 10 members or non-members in the shadow worlds takes a network of all classes on the sorted
    vector.
    Source: Shokri et al., "Membership inference attacks against machine learning models", IEEE S&P 2017.
    """
    chosen = drawn_worlds(case, SHADOW_WORLDS)
    vectors, members, y = case.references[chosen], case.members[chosen], item_labels(case)
    scores = np.zeros(len(y))
    starved = np.ones(len(y), dtype=bool)
    for label in np.unique(y):
        rows = y == label
        if min(members[:, rows].sum(), (~members[:, rows]).sum()) >= STARVED:
            starved[rows] = False
            scores[rows] = network_log_odds(vectors[:, rows], members[:, rows], case.target[rows], case.rng)
    if starved.any():
        scores[starved] = network_log_odds(
            _largest(vectors, LARGEST), members, _largest(case.target[starved], LARGEST), case.rng
        )
    return scores


def shadow_classifier_top_three(case: Case) -> Floats:
    """Return the log-odds [n] of "in" from one network on the three largest probabilities, trained on one reference
    world.

    Source: Salem et al., "ML-Leaks", NDSS 2019 (adversary 1).
    """
    chosen = drawn_worlds(case, 1)
    return network_log_odds(
        _largest(case.references[chosen], 3), case.members[chosen], _largest(case.target, 3), case.rng
    )


def drawn_worlds(case: Case, worlds: int) -> list[int]:
    """Return some reference worlds, by chance."""
    return sorted(case.rng.permutation(len(case.references))[:worlds].tolist())


def _largest(vectors: Floats, count: int) -> Floats:
    """Return the `count` largest entries of each vector, largest first."""
    return np.asarray(-np.sort(-vectors, axis=-1)[..., :count])


def network_log_odds(
    vectors: Floats,
    members: Bools,
    target: Floats,
    rng: np.random.Generator,
    hidden_units: int = HIDDEN,
    decay: float = 0.01,
) -> Floats:
    """Return by how much likelier than in the references each of `target` [k, features] is to be a member, in log-odds
    [k], learned from `vectors` [worlds, n, features]; 0 where only one side is known.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler

    if members.all() or not members.any():
        return np.zeros(len(target))
    seed = int(rng.integers(2**31))
    network = MLPClassifier((hidden_units,), solver="lbfgs", alpha=decay, max_iter=50, random_state=seed)
    scale = StandardScaler().fit(vectors.reshape(-1, vectors.shape[-1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early is meant: it regularises
        network.fit(scale.transform(vectors.reshape(-1, vectors.shape[-1])), members.ravel())
    # Not predict_proba: a network that is sure gives 1.0 to many, and those ties hide who stands out.
    hidden = np.maximum(scale.transform(target) @ network.coefs_[0] + network.intercepts_[0], 0)
    return np.asarray((hidden @ network.coefs_[1] + network.intercepts_[1])[:, 0] - _prior(members), dtype=np.float64)


def _prior(members: Bools) -> float:
    """Return the log-odds of a member among the references: where the target world has more members than most, its
    references have fewer, so that with the prior left in, knowing nothing would score below chance.
    """
    share = members.mean()
    return float(np.log(share / (1 - share)))


def quantile_regression(case: Case) -> Floats:
    """Return (margin - mu(x, y)) / sigma(x, y) [n]: how far above what is normal for such a record, learned on public
    records alone.

    mu and log sigma^2 are gradient-boosted trees on the leading principal components of x and on y.
    Source: Bertran et al., "Scalable membership inference attacks via quantile regression", NeurIPS 2023.
    """
    from sklearn.decomposition import PCA

    if not isinstance(case.ask, RecordAsk):
        raise TypeError(f"a test of records needs a RecordAsk, got {type(case.ask).__name__}")
    if len(case.population) < LEAST_PUBLIC:
        raise NotVisible(f"needs at least {LEAST_PUBLIC} public records to learn from, got {len(case.population)}")
    public, items = case.ask.population, case.ask.items
    flat = [records.x.reshape(len(records), -1).astype(np.float64) for records in (public, items)]
    components = min(COMPONENTS, *flat[0].shape)
    solver = "randomized" if components < min(flat[0].shape) else "full"
    project = PCA(components, svd_solver=solver, random_state=0).fit(flat[0])
    features = np.column_stack([project.transform(flat[0]), public.y])
    asked = np.column_stack([project.transform(flat[1]), items.y])
    mean = _trees().fit(features, case.population)
    residual = case.population - mean.predict(features)
    floor = 1e-6 + 1e-3 * residual.var()
    spread = _trees().fit(features, np.log(residual**2 + floor))
    return np.asarray((case.target - mean.predict(asked)) / np.exp(spread.predict(asked) / 2), dtype=np.float64)


def _trees() -> "HistGradientBoostingRegressor":
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(max_iter=40, max_leaf_nodes=15, early_stopping=False, random_state=0)


def logistic_log_odds(
    references: Floats, members: Bools, target: Floats, worlds: int, rng: np.random.Generator
) -> Floats:
    """Return by how much likelier than in the references each of `target` [n, features] is to be a member, in log-odds
    [n], from a logistic regression on at most `worlds` worlds of `references` [r, n, features], drawn at random; 0
    where only one side is known.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    chosen = sorted(rng.permutation(len(references))[:worlds].tolist())
    rows, sides = in_order(references[chosen], members[chosen])
    if sides.all() or not sides.any():
        return np.zeros(len(target))
    scale = StandardScaler().fit(rows)
    model = LogisticRegression(max_iter=1000).fit(scale.transform(rows), sides)
    return np.asarray(model.decision_function(scale.transform(target)) - _prior(sides), dtype=np.float64)


def in_order(vectors: Floats, members: Bools) -> tuple[Floats, Bools]:
    """Return the vectors [worlds, n, features] as rows, and their sides, sorted: so what is learned from them does not
    depend, in the last bits, on the order in which the records were asked about.
    """
    rows, sides = vectors.reshape(-1, vectors.shape[-1]), members.ravel()
    order = np.lexsort([sides, *rows.T])
    return rows[order], sides[order]
