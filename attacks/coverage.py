"""Who can run which attack: what each vantage sees, with and without secure aggregation. Tests run every cell."""

from typing import NamedTuple

from attacks.table import ATTACKS
from fedsim.attack import Attack, Input

PUBLIC: frozenset[Input] = frozenset({"labels", "confidences"})
TAKES_PART: frozenset[Input] = PUBLIC | {"models", "ascent"}
PARTICIPANT: frozenset[Input] = TAKES_PART | {"poisoning"}
SERVER: frozenset[Input] = TAKES_PART | {"update", "updates", "sum", "sums", "roll", "metadata", "inconsistency"}

VIEWS: dict[str, frozenset[Input]] = {
    "public": PUBLIC,
    "participant": PARTICIPANT,
    "server": SERVER,
    "secagg": SERVER - {"update", "updates", "metadata"},
}
"""What is to be had where: `secagg` is the server under secure aggregation with hidden metadata, and the participant is
another than the client that is asked about. Who takes part changes from round to round.
"""

BLOCKED_BY: dict[Input, str] = {
    "labels": "",
    "confidences": "labels only",
    "models": "",
    "update": "secagg",
    "updates": "secagg",
    "sum": "",
    "sums": "secagg, equal cohorts",
    "roll": "",
    "ascent": "",
    "inconsistency": "consistency check",
    "metadata": "hidden metadata",
    "poisoning": "",
}
"""What takes an input away from a vantage that would have it. Noise takes nothing away: it makes it worth less."""


FOLLOWS: dict[Input, tuple[str, ...]] = {
    "ascent": ("gradient_ascent",),
    "inconsistency": ("inconsistent_models", "canary_gradient"),
    "poisoning": ("property_poisoning",),
}
"""The adversaries on whose acts an input follows."""


class Coverage(NamedTuple):
    """A row of the matrix: the attack, where it runs (in the order of `VIEWS`), and what blocks it."""

    attack: Attack
    runs: tuple[bool, ...]
    blocked_by: str


def matrix() -> tuple[Coverage, ...]:
    """Return the coverage of every attack."""
    return tuple(
        Coverage(attack, tuple(attack.signal.reads in seen for seen in VIEWS.values()), BLOCKED_BY[attack.signal.reads])
        for attack in ATTACKS.values()
    )
