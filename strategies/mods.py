"""Flower's own client mods, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flwr.clientapp import mod as flower
from flwr.clientapp.typing import Mod as FlowerMod

from strategies.table import Option


@dataclass(frozen=True)
class Mod:
    """A row: `make(**options)` builds the Flower mod; `options` are what a scenario may set, with their defaults."""

    title: str
    summary: str
    make: Callable[..., FlowerMod]
    options: Mapping[str, Option] = field(default_factory=dict)


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
        {"clipping_norm": 1.0, "sensitivity": 1.0, "epsilon": 1.0, "delta": 1e-5},
    ),
}
