"""What both sides of secure aggregation agree on, and what they send each other.

The protocol is that of Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning", CCS
2017, https://doi.org/10.1145/3133956.3133982, on the sparse graph of Bell et al., "Secure single-server aggregation
with (poly)logarithmic overhead", CCS 2020, https://doi.org/10.1145/3372297.3417885. A round has four exchanges:

1. keys: each client sends two public keys, one to encrypt and one to mask with.
2. shares: each client is told its neighbours and their keys, and sends every neighbour, sealed, a share of its masking
   key and a share of the seed of its self mask.
3. update: each client is sent the shares meant for it, and sends its vector under its self mask and, for each neighbour
   whose shares arrived, a mask that the neighbour takes away again.
4. unmask: for each neighbour that sent its vector a client gives its share of the seed; for each that did not, its
   share of the masking key. Never both.

The vectors' sum loses its pairwise masks by itself; the server takes off the rest with the secrets it could recover.
"""

import math
from typing import NamedTuple, TypedDict

from fedsim.randomness import Name


class Refused(Exception):
    """A client would give more away than the protocol allows, and does not answer."""


class Aborted(Exception):
    """Too few clients are left to finish the round; nothing was revealed."""


class Settings(NamedTuple):
    """What the parties agreed on before the first round.

    neighbours: with how many others each client shares keys (None: with all). share: of a client's neighbourhood
    (itself and its neighbours), how much gives its secrets away and must survive; in (0.5, 1]. consistency: clients
    compare the hashes of the models they are told. reused_seed: the deliberate mistake, masks drawn from 32 bits that
    are the same in each round.
    """

    neighbours: int | None = None
    share: float = 2 / 3
    consistency: bool = False
    reused_seed: bool = False


class Plan(NamedTuple):
    """degree: neighbours of a client. threshold: shares that give a secret back."""

    degree: int
    threshold: int


def plan(settings: Settings, invited: int) -> Plan:
    """Return degree and threshold of a round to which `invited` clients are.

    The degree is the number of neighbours asked for, rounded up to an even one (half on each side of a circle), or all.
    The threshold is ceil(share x (degree + 1)), at least 2: a client keeps a share of its own seed. It is set by who
    was invited, so that whoever falls silent, at whatever stage, uses up the same allowance. It is always more than
    half a neighbourhood: two groups of holders that large have a member in common, and an honest one gives only one
    kind of share.
    """
    degree = invited - 1
    if settings.neighbours is not None:
        degree = min(degree, settings.neighbours + settings.neighbours % 2)
    # Rounded first, as 0.55 x 20 is a hair above 11 in floating point; and above half, where the share is by a hair.
    wanted = math.ceil(round(settings.share * (degree + 1), 9))
    return Plan(degree, max(2, (degree + 1) // 2 + 1, wanted))


def point(member: int) -> int:
    """Return where the shares that `member` (from 0) holds are taken from their polynomials."""
    return member + 1


def pair(number: int, one: int, other: int) -> tuple[Name, ...]:
    """Return the name of the mask that two members share in round `number`."""
    return ("pairwise mask", number, min(one, other), max(one, other))


def own(number: int, member: int) -> tuple[Name, ...]:
    """Return the name of a member's self mask in round `number`."""
    return ("self mask", number, member)


class KeysRequest(TypedDict):
    """1, server to client."""

    round: int
    invited: int


class Keys(TypedDict):
    """1, client to server: public keys [32 bytes]."""

    encryption: bytes
    masking: bytes


class SharesRequest(TypedDict):
    """2, server to client: its neighbours, their public keys, and the hash of the model that will be sent (or none)."""

    round: int
    neighbours: list[int]
    encryption: list[bytes]
    masking: list[bytes]
    model: bytes


class Shares(TypedDict):
    """2, client to server: a sealed letter for each neighbour, in the order they were named."""

    letters: list[bytes]


class UpdateRequest(TypedDict):
    """3, server to client, beside the model: the letters to it, and who sent them."""

    round: int
    senders: list[int]
    letters: list[bytes]


class UnmaskRequest(TypedDict):
    """4, server to client: who of it and its neighbours sent a vector, and who sent shares but no vector."""

    round: int
    survivors: list[int]
    dropped: list[int]


class Unmask(TypedDict):
    """4, client to server: a share of the seed of each survivor, and of the masking key of each that dropped out."""

    seeds: list[bytes]
    keys: list[bytes]
