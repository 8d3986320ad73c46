"""Gradients of the records asked about at a model, and an update beside them; no update is kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedsim.gradients import NUMBERS, Gradients, Outer, inner, norms, record_gradients
from fedsim.transcript import Arrays, client
from fedsim.views import Ask, Floats, Ints, Public, RecordAsk, Records

UPDATES_OF_AN_OWNER = 10
"""At most this many updates of a client are compared: the mean has settled by then, and each costs one gradient a
record.
"""


def comparable(broadcast: Arrays, reply: Arrays) -> bool:
    """Return whether a reply can be a trained copy of the broadcast model: same names, same shapes, real numbers."""
    return broadcast.keys() == reply.keys() and all(
        reply[name].shape == array.shape and np.issubdtype(reply[name].dtype, np.floating)
        for name, array in broadcast.items()
    )


def interval(public: Public) -> int:
    """Return the rounds from one comparison to the next, so that they are spread evenly over the run."""
    return ceil(public.rounds / UPDATES_OF_AN_OWNER)


def due(public: Public, last: int | None, number: int) -> bool:
    """Return whether a client that was compared in round `last` is to be compared again in round `number`: spaced
    evenly, whether or not it takes part in every round.
    """
    return last is None or number - last >= interval(public)


def record_ask(ask: Ask) -> RecordAsk:
    """Return an ask about records; TypeError for any other."""
    if not isinstance(ask, RecordAsk):
        raise TypeError(f"a signal of records needs a RecordAsk, got {type(ask).__name__}")
    return ask


def rows_of(parties: Sequence[str], owned: Mapping[str, Ints]) -> tuple[Ints, Mapping[str, slice]]:
    """Return the rows of some owners, at least one, one after the other, and where among them those of each are."""
    ends = np.cumsum([0, *(len(owned[party]) for party in parties)]).tolist()
    spans = {party: slice(*ends[i : i + 2]) for i, party in enumerate(parties)}
    return np.concatenate([owned[party] for party in parties]), spans


def owned_by(records: Records) -> Mapping[str, Ints]:
    """Return the rows of each alleged owner, by party name."""
    return {client(int(index)): np.flatnonzero(records.owner == index) for index in np.unique(records.owner)}


# The gradients of some records at one model, and an update beside them.


class Slopes(NamedTuple):
    """Gradients of n records at a model: their lengths float64 [n], and all of them where they are few numbers;
    otherwise they are computed again for each update.
    """

    parameters: Mapping[str, Tensor]
    x: Tensor
    y: Tensor
    lengths: Tensor
    kept: Gradients | None


def slopes(public: Public, model: Arrays, records: Records, rows: Ints) -> Slopes:
    """Return the gradients of some rows of `records` at a model."""
    parameters = {name: torch.tensor(array) for name, array in model.items()}
    dtype = next(iter(parameters.values())).dtype
    x, y = torch.from_numpy(records.x[rows]).to(dtype), torch.from_numpy(records.y[rows])
    lengths, pieces = [], []
    for piece in record_gradients(public.apply, parameters, x, y):
        lengths.append(norms(piece))
        if _numbers(piece) * len(y) <= NUMBERS * len(lengths[-1]):
            pieces.append(piece)
    kept = _joined(pieces) if len(pieces) == len(lengths) else None
    return Slopes(parameters, x, y, torch.cat(lengths), kept)


def _numbers(gradients: Gradients) -> int:
    return sum(
        value.error.numel() + value.input.numel() if isinstance(value, Outer) else value.numel()
        for value in gradients.values()
    )


def _joined(pieces: list[Gradients]) -> Gradients:
    """Return pieces of consecutive records as one."""

    def join(parts: list[Tensor | Outer]) -> Tensor | Outer:
        factors = [part for part in parts if isinstance(part, Outer)]
        if factors:
            return Outer(*(torch.cat(column) for column in zip(*factors, strict=True)))
        return torch.cat([part for part in parts if isinstance(part, Tensor)])

    return pieces[0] if len(pieces) == 1 else {name: join([piece[name] for piece in pieces]) for name in pieces[0]}


def _some(gradients: Gradients, part: slice) -> Gradients:
    return {
        name: Outer(value.error[part], value.input[part]) if isinstance(value, Outer) else value[part]
        for name, value in gradients.items()
    }


class Match(NamedTuple):
    """Records beside an update D, the descent `broadcast - reply`: <D, g> [n], |g| [n] and |D|, for gradients g."""

    products: Floats
    lengths: Floats
    moved: float


def along(public: Public, at: Slopes, direction: Mapping[str, Tensor], part: slice = slice(None)) -> Floats:
    """Return the inner product [n] of the gradients of some of the records with a direction."""
    pieces: Iterator[Gradients] = (
        iter([_some(at.kept, part)])
        if at.kept is not None
        else record_gradients(public.apply, at.parameters, at.x[part], at.y[part])
    )
    return np.asarray(torch.cat([inner(piece, direction) for piece in pieces]).numpy())


def match(public: Public, at: Slopes, broadcast: Arrays, reply: Arrays, part: slice = slice(None)) -> Match:
    """Return how the gradients of some of the records match a client's update."""
    dtype = at.x.dtype
    moved = {name: torch.as_tensor(np.subtract(array, reply[name]), dtype=dtype) for name, array in broadcast.items()}
    length = norms({name: value[None] for name, value in moved.items()})
    return Match(along(public, at, moved, part), at.lengths[part].numpy(), float(length))


Measure = Callable[[Match], Floats]


def cosine(found: Match) -> Floats:
    """Return the cosine [n] of each record's gradient with the update.

    A zero gradient or a zero update points nowhere: cosine 0.
    Source: Li, Li, Ribeiro, "Effective passive membership inference attacks in federated learning against
    overparameterized models", ICLR 2023, https://openreview.net/forum?id=QsCSLPP55Ku
    """
    lengths = found.lengths * found.moved
    return np.divide(found.products, lengths, out=np.zeros(len(lengths)), where=lengths > 0)


def difference(found: Match) -> Floats:
    """Return (|D|^2 - |D - s g|^2) / |D|^2 [n]: the share of the update's squared length that a step s g along the
    record's gradient g takes away.

    The scale s is one for all the records: the one with which their steps take away most together, not below 0. It
    needs no label of membership. A zero update is no evidence: 0.
    Source: Li, Li, Ribeiro, "Effective passive membership inference attacks in federated learning against
    overparameterized models", ICLR 2023, https://openreview.net/forum?id=QsCSLPP55Ku
    """
    squares = found.lengths**2
    if not (found.moved and squares.any()):
        return np.zeros(len(squares))
    scale = max(found.products.sum(), 0.0) / squares.sum()
    return np.asarray((2 * scale * found.products - scale**2 * squares) / found.moved**2)
