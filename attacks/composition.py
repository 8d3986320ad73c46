"""Estimates of the classes behind an update from the weights of the last layer: by the sign and size of each class's
gradient, and by comparison with the gradients of public records.
"""

import numpy as np
import scipy  # its parts take a second to import; each is loaded when it is first used
import torch

from attacks.labels import Moved, histogram, local_steps
from fedsim.errors import NotVisible
from fedsim.transcript import Arrays
from fedsim.views import Floats, LabelAsk, Public

NO_PUBLIC = "the attacker holds no public records of class"


def last_weight(arrays: Arrays, classes: int) -> str | None:
    """Return the name of the last matrix with a row for each class; None where there is none."""
    fitting = [name for name, array in arrays.items() if array.ndim == 2 and array.shape[0] == classes]
    return fitting[-1] if fitting else None


def placed(sums: Floats, impact: float, labels: int) -> Floats:
    """Return how often each class is placed [classes]: first once where the sum is negative, then one label after the
    other at the class whose sum is lowest. Each label placed takes its impact off.

    Args:
        sums: of each class's gradients [classes].
        impact: what one label adds to the sum of its class, < 0.
        labels: how many there are to place.
    """
    negative = np.argsort(sums, kind="stable")[: min(int((sums < 0).sum()), labels)]
    counts = np.zeros(len(sums))
    counts[negative] = 1
    left = sums - impact * counts
    for _ in range(labels - len(negative)):
        lowest = int(left.argmin())
        counts[lowest] += 1
        left[lowest] -= impact
    return counts


def _descent(update: Moved, classes: int) -> tuple[str, Floats]:
    """Return the last weight's name and how far it was moved against its gradient [classes, features]."""
    name = last_weight(update.broadcast, classes)
    if name is None:
        raise NotVisible("the model has no last matrix with a row for each class")
    before, after = (np.asarray(arrays[name], dtype=np.float64) for arrays in (update.broadcast, update.reply))
    return name, before - after


def by_sign(public: Public, ask: LabelAsk, update: Moved) -> Floats:  # noqa: ARG001 - an estimate needs no more
    """Return the counts [classes] that the row sums of the last weight's gradient tell: negative only for a class that
    is there, if what goes into the layer is not negative (as after a ReLU).

    The impact of a label is the mean over all of them, (sum of the negative sums) / labels x (1 + 1 / classes); only
    its size beside the sums counts, so neither learning rate nor number of steps is needed.
    Source: Wainakh et al., "User-level label leakage from gradients in federated learning", PETS 2022 (LLG),
    https://arxiv.org/abs/2105.09369
    """
    sums = _descent(update, ask.count)[1].sum(axis=1)
    labels = round(update.examples)
    impact = float(sums[sums < 0].sum()) / labels * (1 + 1 / ask.count)
    return placed(sums, impact, labels) if impact else np.full(ask.count, labels / ask.count)


def by_impact(public: Public, ask: LabelAsk, update: Moved) -> Floats:
    """Return the counts [classes] of the same, with impact and offset measured on public records of each class.

    The offset of a class is the mean of what the other classes' records add to its sum, and comes off first; the impact
    is what a record of the class adds beyond that, mean over classes.
    Source: Wainakh et al., "User-level label leakage from gradients in federated learning", PETS 2022 (LLG+),
    https://arxiv.org/abs/2105.09369
    """
    name, descent = _descent(update, ask.count)
    steps, labels = local_steps(public, update), round(update.examples)
    added = class_gradients(public, ask, update, name).sum(axis=2)  # [class of the records, class of the row]
    own = np.diag(added)
    offset = (added.sum(axis=0) - own) / max(ask.count - 1, 1)
    impact = float((own - offset).mean()) * steps / labels
    sums = descent.sum(axis=1) / public.learning_rate - offset * steps
    return placed(sums, impact, labels) if impact < 0 else np.full(ask.count, labels / ask.count)


def by_composition(public: Public, ask: LabelAsk, update: Moved) -> Floats:
    """Return the counts [classes] with which the gradients of public records of each class add up best to the movement
    of the last weight: least squares without negative counts, of any scale, so that neither learning rate nor number of
    steps is needed.

    Source: Wang L. et al., "Eavesdrop the composition proportion of training labels in federated learning", 2019,
    https://arxiv.org/abs/1910.06044, with all rows of the last layer solved together.
    """
    name, descent = _descent(update, ask.count)
    columns = class_gradients(public, ask, update, name).reshape(ask.count, -1).T
    shares, _ = scipy.optimize.nnls(columns, descent.ravel())
    if not shares.any():
        return np.full(ask.count, update.examples / ask.count)
    return np.asarray(update.examples * shares / shares.sum())


def class_gradients(public: Public, ask: LabelAsk, update: Moved, name: str) -> Floats:
    """Return the mean gradient of the last weight for public records of each class [classes, classes, features], mean
    of both ends of the local training.
    """
    found = np.zeros((ask.count, *update.broadcast[name].shape))
    for arrays in (update.broadcast, update.reply):
        parameters = {key: torch.tensor(array) for key, array in arrays.items()}
        weight = parameters[name].requires_grad_()
        for label in range(ask.count):
            rows = ask.population.y == label
            if not rows.any():
                raise NotVisible(f"{NO_PUBLIC} {label}")
            answers = public.apply(parameters, torch.tensor(ask.population.x[rows], dtype=weight.dtype))
            loss = torch.nn.functional.cross_entropy(answers, torch.from_numpy(ask.population.y[rows]))
            found[label] += torch.autograd.grad(loss, weight)[0].numpy() / 2
    return found


LLG = histogram(by_sign, sums=False)
"""Counts [classes] by the sign and size of the last weight's row sums, mean over the client's first updates."""
LLG_PLUS = histogram(by_impact, sums=False)
"""The same with impact and offset measured on public records."""
COMPOSITION = histogram(by_composition, sums=False)
"""Counts [classes] with which gradients of public records make up the update, mean over the client's first updates."""
