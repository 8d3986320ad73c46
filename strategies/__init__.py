"""Flower's strategies and client mods, by the names a scenario uses."""

from strategies.build import average, build_mods, build_strategy, min_clients
from strategies.mods import MODS, Mod
from strategies.table import STRATEGIES, Strategy

__all__ = ["MODS", "STRATEGIES", "Mod", "Strategy", "average", "build_mods", "build_strategy", "min_clients"]
