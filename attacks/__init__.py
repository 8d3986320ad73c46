"""Privacy attacks: signals, tests, and one table of named rows. Nothing here imports Flower, the data loaders or the
game.
"""

from attacks.adaptive import ADAPTIVE, NEEDS_PUBLIC
from attacks.table import ATTACKS

__all__ = ["ADAPTIVE", "ATTACKS", "NEEDS_PUBLIC"]
