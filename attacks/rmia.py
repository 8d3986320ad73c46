"""The relative attack: is the model surer of this record, compared with other models, than it is of public records?

Source: Zarifzadeh, Liu, Shokri, "Low-cost high-power membership inference attacks", ICML 2024,
https://arxiv.org/abs/2312.03262
"""

import numpy as np

from attacks.decide import both_means
from attacks.final import FLOOR
from fedsim.attack import Bools, Case
from fedsim.errors import NotVisible
from fedsim.metrics import auc
from fedsim.views import Floats

GAMMA = 2.0
"""How many times the ratio of a record must exceed that of a public record (the paper's runs)."""
GRID = np.linspace(0, 1, 11)
UNTUNED = 0.3
"""The paper's value for images, where there are too few references to tune on."""


def online(case: Case) -> Floats:
    """Return the score [n] with p(x) the mean of the average IN and the average OUT confidence."""
    inside, outside = both_means(case.references, case.members)
    return dominated(case, (inside + outside) / 2)


def offline(case: Case) -> Floats:
    """Return the score [n] with p(x) = ((1 + a) p_out(x) + 1 - a) / 2, from references without the record; a is tuned
    on references.
    """
    outside = both_means(case.references, case.members)[1]
    return dominated(case, blend(outside, tuned(case.references, case.members)))


def blend(outside: Floats, a: float) -> Floats:
    """Return p(x) [n] under the model p_in = a p_out + 1 - a."""
    return ((1 + a) * outside + 1 - a) / 2


def dominated(case: Case, p: Floats) -> Floats:
    """Return the share of public records z with ratio_x / ratio_z >= gamma, where ratio = confidence / mean confidence
    of references.

    A grid of 1 / |z| makes ties, so equal shares are ordered by ratio_x; unequal ones never change places.
    """
    if not len(case.population):
        raise NotVisible("the attacker holds no public records to compare with")
    ratio = case.target / np.maximum(p, FLOOR)
    ratio_z = case.population / np.maximum(case.reference_population.mean(axis=0), FLOOR)
    count = np.searchsorted(np.sort(GAMMA * ratio_z), ratio, side="right")
    return (count + ratio / (1 + ratio)) / (len(ratio_z) + 1)


def tuned(references: Floats, members: Bools) -> float:
    """Return the `a` that attacks the first reference world best (AUC), with the others as its references."""
    target, truth = references[0], members[0]
    if len(references) < 2 or truth.all() or not truth.any():
        return UNTUNED
    outside = both_means(references[1:], members[1:])[1]
    aucs = [auc(target / np.maximum(blend(outside, a), FLOOR), truth) for a in GRID]
    return float(GRID[int(np.argmax(aucs))])
