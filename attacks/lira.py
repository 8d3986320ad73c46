"""The likelihood-ratio attack: how much better do models trained with the record explain the answer than models trained
without it?

Source: Carlini et al., "Membership inference attacks from first principles", IEEE S&P 2022,
https://arxiv.org/abs/2112.03570
"""

from typing import Literal, NamedTuple

import numpy as np
import scipy  # its parts take a second to import; each is loaded when it is first used

from attacks.decide import mean_shift, side_means, unseen_to
from fedsim.attack import Bools, Case
from fedsim.views import Floats

PER_EXAMPLE_FROM = 64
"""References from which a spread for each record is better than one for all (the authors' rule)."""
SMALLEST_SPREAD = 1e-6

Spread = Literal["auto", "pooled", "per_example"]


class Side(NamedTuple):
    """Median [n] and standard deviation [n] of the margin over the references of one side; NaN where there is none."""

    median: Floats
    deviation: Floats


def side(references: Floats, chosen: Bools, spread: Spread) -> Side:
    """Return the normal fit [n] to `references` [r, n] where `chosen` [r, n] and something was seen (not NaN).

    "pooled": one spread for all records, of the residuals about each record's own mean, so that the differences between
    records do not count. A record with fewer than two values takes the pooled spread too.
    """
    chosen = chosen & ~np.isnan(references)
    values = np.where(chosen, references, np.nan)
    count = chosen.sum(axis=0)
    median = np.full(len(count), np.nan)
    median[count > 0] = np.nanmedian(values[:, count > 0], axis=0)
    squares = np.where(chosen, (references - side_means(references, chosen)) ** 2, 0).sum(axis=0)
    freedom = np.maximum(count - 1, 0)
    if freedom.sum():
        pooled = np.sqrt(squares.sum() / freedom.sum())
    else:
        either = references[chosen] if chosen.any() else references[~np.isnan(references)]
        pooled = either.std() if len(either) else 0.0
    per_example = spread == "per_example" or (spread == "auto" and len(references) >= PER_EXAMPLE_FROM)
    own = np.sqrt(squares / np.maximum(freedom, 1)) if per_example else np.full(len(count), pooled)
    return Side(median, np.maximum(np.where(freedom > 0, own, pooled), SMALLEST_SPREAD))


def fits(case: Case, spread: Spread) -> tuple[Side, Side]:
    """Return the IN and the OUT fit; a record that lacks a side takes the other's median, moved by the mean shift of
    all records.
    """
    inside, outside = side(case.references, case.members, spread), side(case.references, ~case.members, spread)
    shift = mean_shift(inside.median, outside.median)
    return (
        inside._replace(median=np.where(np.isnan(inside.median), outside.median + shift, inside.median)),
        outside._replace(median=np.where(np.isnan(outside.median), inside.median - shift, outside.median)),
    )


def online(case: Case, spread: Spread) -> Floats:
    """Return log N(margin; in) - log N(margin; out) [n]; 0 where there is nothing to compare."""
    inside, outside = fits(case, spread)
    score = scipy.stats.norm.logpdf(case.target, *inside) - scipy.stats.norm.logpdf(case.target, *outside)
    return unseen_to(np.asarray(score, dtype=np.float64), 0.0)


def offline(case: Case, spread: Spread) -> Floats:
    """Return the z-score [n] of the margin among models without the record: the order of the one-sided tail
    probability, unsaturated; 0 where there is nothing to compare.
    """
    outside = fits(case, spread)[1]
    return unseen_to((case.target - outside.median) / outside.deviation, 0.0)
