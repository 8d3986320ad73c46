"""Flower's strategies and client mods, by the names a scenario uses."""

from strategies.build import build_mods, build_strategy, min_clients
from strategies.mods import MODS, Mod
from strategies.table import STRATEGIES, Strategy

__all__ = ["MODS", "STRATEGIES", "Mod", "Strategy", "build_mods", "build_strategy", "min_clients"]
