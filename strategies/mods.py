"""Flower's own client mods, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flwr.clientapp import mod as flower
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
}
