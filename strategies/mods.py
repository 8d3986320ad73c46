"""Client mods by name: Flower's own, and a sparsification that Flower lacks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import mod as flower
from flwr.clientapp.typing import ClientAppCallable
from flwr.clientapp.typing import Mod as FlowerMod

from fedsim.scenario import Option
from strategies.table import LARGEST, above_zero


@dataclass(frozen=True)
class Mod:
    """A row: `make(**options)` builds the Flower mod; `options` are what a scenario may set."""

    title: str
    summary: str
    make: Callable[..., FlowerMod]
    options: Mapping[str, Option] = field(default_factory=dict)


@dataclass(frozen=True)
class Sparsify:
    """Keeps the coordinates of a client's update that are largest in size, and sends the others as they were received.

    share: of all coordinates, in (0, 1]; at least one is kept. Of equal ones the first are.
    """

    share: float

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Return the reply to `message` with a sparse update; replies without a model are left alone."""
        received = next(iter(message.content.array_records.values()), None)
        before = {} if received is None else {name: array.numpy() for name, array in received.items()}
        reply = call_next(message, context)
        if reply.has_error() or not before:
            return reply
        for key, record in reply.content.array_records.items():
            after = {name: array.numpy() for name, array in record.items()}
            if after.keys() != before.keys():
                continue
            sizes = np.concatenate([np.abs(after[name] - before[name]).ravel() for name in after])
            kept = np.zeros(sizes.size, dtype=bool)
            kept[np.argsort(-sizes, kind="stable")[: max(round(self.share * sizes.size), 1)]] = True
            ends = np.cumsum([array.size for array in after.values()])[:-1]
            masks = np.split(kept, ends)
            sparse = {
                name: Array(np.where(mask.reshape(after[name].shape), after[name], before[name]))
                for name, mask in zip(after, masks, strict=True)
            }
            reply.content[key] = ArrayRecord(sparse)
        return reply


MODS: dict[str, Mod] = {
    "message_size": Mod("Message size", "Logs the size of each message.", lambda: flower.message_size_mod),
    "arrays_size": Mod(
        "Arrays size", "Logs the number and size of the parameters in each message.", lambda: flower.arrays_size_mod
    ),
    "flower_local_dp": Mod(
        "Flower's LocalDpMod",
        "Clips a client's update and adds Gaussian noise by the classical formula, which holds only for epsilon "
        "< 1, with a sensitivity that "
        "is free of the clipping norm: noise to experiment with, not an accounted guarantee.",
        flower.LocalDpMod,
        {
            "clipping_norm": above_zero(1.0),
            "sensitivity": Option(1.0, 0, LARGEST),
            "epsilon": above_zero(1.0),
            "delta": Option(1e-5, 0, 1, low_open=True, high_open=True),
        },
    ),
    "sparsify": Mod(
        "Top-k sparsification",
        "Sends only the largest coordinates of a client's update (Aji, Heafield: Sparse communication for distributed "
        "gradient descent, EMNLP 2017). It saves bandwidth, and is no privacy mechanism.",
        Sparsify,
        {"share": Option(0.1, 0, 1, low_open=True)},
    ),
}
