"""What an engine is given to run, and what it gives back: plain data that any process can be sent."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import Strategy

from fedsim.apps import Bench, Stock
from fedsim.attack import Signal
from fedsim.release import Log
from fedsim.scenario import Plugin, Release, Scenario
from fedsim.views import Ask, Floats, Vantage
from fedsim.world import World

MakeClient = Callable[[World, Callable[[], Bench]], ClientApp]
"""(world, what loads the records where the client runs) -> the ClientApp of all its clients."""


def client_name(make: MakeClient) -> str:
    """Return the name by which a run states a ClientApp that is not fedsim's own."""
    return f"{getattr(make, '__module__', '')}:{getattr(make, '__qualname__', repr(make))}"


class Recipes(NamedTuple):
    """How names in a scenario become Flower objects; module-level functions, since worker processes receive them.

    strategy: (name and options, whether clients evaluate) -> the strategy. mods: the client mods. min_clients: fewest
    replies a round with which a strategy does what its name says. average: what a strategy that only averages the
    clients' models tells them in a round; None for any other. client: a ClientApp in place of fedsim's own.
    """

    strategy: Callable[[Plugin, bool], Strategy]
    mods: Callable[[Sequence[Plugin]], list[Mod]]
    min_clients: Callable[[Plugin], int]
    average: Callable[[Plugin], Mapping[str, float] | None]
    client: MakeClient | None = None


@dataclass(frozen=True)
class Probe:
    """One signal measured from one vantage on one set of questions, in some of the worlds; release: the output policy
    it meets (None: the scenario's).
    """

    name: str
    vantage: Vantage
    ask: Ask
    signal: Signal
    worlds: frozenset[int]
    release: Release | None = None


@dataclass(frozen=True)
class Job:
    """All that a process needs to run any world of a draw."""

    scenario: Scenario
    stock: Stock
    worlds: tuple[World, ...]
    probes: tuple[Probe, ...]
    vantages: tuple[Vantage, ...]
    recipes: Recipes


@dataclass(frozen=True)
class WorldResult:
    """What a world leaves behind.

    signals: probe name -> float64 [rows, ...]. not_visible: probe name -> why. utility: float64 [points, 4], a row for
    each of `apps.measured_rounds`: train accuracy, train loss, test accuracy, test loss. transcript: SHA-256 of all
    messages, their arrays by checksum, or by that of what they follow from where nobody need form them. model: SHA-256
    of the final parameters. sights: vantage -> messages by kind. carried: vantage -> whether parameters were among what
    it saw. aborted: rounds that secure aggregation gave up. queries: probe name -> what it asked the released model
    (`release.Log`). equations: probe name -> what its signal had to solve
    (`attack.Equations`).
    """

    signals: Mapping[str, Floats]
    not_visible: Mapping[str, str]
    utility: Floats
    transcript: str
    model: str
    sights: Mapping[str, Mapping[str, int]]
    carried: Mapping[str, bool] = field(default_factory=dict)
    aborted: int = 0
    queries: Mapping[str, Log] = field(default_factory=dict)
    equations: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
