"""Tests of the property game that need no network: the distance to models of either kind, and a fitted line.

Where the game asks for one of more than two shares, the references' shares are known (`Case.amounts`), and the score is
an estimate of the share.
"""

import numpy as np
import scipy  # its parts take a second to import; each is loaded when it is first used

from attacks.decide import learned_threshold, share_of
from fedsim.attack import Case
from fedsim.views import Floats, PropertyAsk

CLIP = 1e-4
"""Smallest probability inside the divergence, as in the authors' code."""


def threshold_or_line(case: Case) -> Floats:
    """Return the signed distance from a learned threshold (Suri and Evans 2022); of several shares, the one at which
    the least-squares line through the references' accuracies stands.
    """
    if case.amounts is None:
        return learned_threshold(case)
    references, shares = case.references[:, 0], case.amounts[:, 0]  # [r, 2], [r]
    columns = np.column_stack([references, np.ones(len(shares))])
    line = np.linalg.lstsq(columns, shares, rcond=1e-6)[0]
    found = np.append(case.target[0], 1.0) @ line
    return np.array([np.clip(found, shares.min(), shares.max())])


def divergence_votes(case: Case) -> Floats:
    """Return the share of pairs of a "no" and a "yes" reference of which the "yes" one answers more like the target;
    ties are ordered by how much nearer the "yes" references are on average.

    Nearness is the Kullback-Leibler divergence KL(reference || target), averaged over a sample; both samples vote. Of
    several shares, the score is the mean share of the nearest references, as many as there are of each share on
    average.
    Source: Suri, Lu, Chen and Evans, "Dissecting distribution inference", SaTML 2023, https://arxiv.org/abs/2212.07591;
    there a random 80 % of the pairs vote, here all.
    """
    assert isinstance(case.ask, PropertyAsk)
    far = _divergences(case, len(case.ask.no))  # [2, r]
    if case.amounts is not None:
        shares, total = case.amounts[:, 0], (far / np.maximum(far.mean(axis=1, keepdims=True), 1e-300)).sum(axis=0)
        nearest = np.argsort(total, kind="stable")[: max(1, round(len(shares) / len(np.unique(shares))))]
        return np.array([shares[nearest].mean()])
    yes = case.members[:, 0]
    if yes.all() or not yes.any():
        return np.zeros(1)
    gaps = far[:, ~yes, None] - far[:, None, yes]  # [2, no, yes]
    votes = (gaps > 0).sum() + (gaps == 0).sum() / 2
    lean = gaps.mean() / max(float(far.mean()), 1e-300)
    return share_of(np.array([float(votes)]), np.array([float(gaps.size)]), scipy.special.expit(np.array([lean])))


def _divergences(case: Case, first: int) -> Floats:
    """Return KL(reference || target) averaged over each of the two samples [2, r]; the first has `first` records."""
    target, references = _clipped(case.target[0]), _clipped(case.references[:, 0])
    each = (references * (np.log(references) - np.log(target))).sum(axis=-1)  # [r, records]
    return np.stack([each[:, :first].mean(axis=1), each[:, first:].mean(axis=1)])


def _clipped(p: Floats) -> Floats:
    p = np.maximum(p, CLIP)
    return np.asarray(p / p.sum(axis=-1, keepdims=True))
