"""A client's side of secure aggregation: pure functions state -> (state, answer).

The state holds nothing but numbers, bytes and lists of them, so it can live wherever a client keeps what it must
remember between two messages.
"""

from typing import Literal, TypedDict

import numpy as np

from fedsim.secagg.crypto import KEY_BYTES, Words, agree, derive, public_key, seal, stream, unseal
from fedsim.secagg.protocol import (
    Keys,
    KeysRequest,
    Refused,
    Settings,
    Shares,
    SharesRequest,
    Unmask,
    UnmaskRequest,
    UpdateRequest,
    own,
    pair,
    plan,
    point,
)
from fedsim.secagg.shamir import SHARE_BYTES, split

Stage = Literal["keys", "shares", "opened", "masked", "done"]


class State(TypedDict):
    """What a client remembers. stage: what it did last in `round`. Everything below `member` is of that round."""

    stage: Stage
    round: int
    member: int
    degree: int
    threshold: int
    encryption: bytes  # private key
    masking: bytes  # private key
    seed: bytes  # of the self mask
    sharing: bytes  # what the shares' polynomials are drawn from
    told: bytes  # hash of the model
    neighbours: list[int]
    agreed: list[bytes]  # with each neighbour, to encrypt with
    masking_keys: list[bytes]  # public keys of the neighbours
    senders: list[int]  # whose shares it holds: itself (of the seed only), and neighbours
    seeds: list[bytes]  # shares of the senders' seeds
    keys: list[bytes]  # and of their masking keys


def start(member: int) -> State:
    """Return the state of client `member` (from 0) before the first round."""
    return State(
        stage="done",
        round=0,
        member=member,
        degree=0,
        threshold=0,
        encryption=b"",
        masking=b"",
        seed=b"",
        sharing=b"",
        told=b"",
        neighbours=[],
        agreed=[],
        masking_keys=[],
        senders=[],
        seeds=[],
        keys=[],
    )


def send_keys(settings: Settings, entropy: bytes, state: State, request: KeysRequest) -> tuple[State, Keys]:
    """Return the state of a new round, and the public keys.

    entropy: 32 bytes of this client's own; the secrets of each round are derived from it. Raises Refused for a round
    that is not after the last one, and where nobody else was invited.
    """
    number, invited = request["round"], request["invited"]
    if number <= state["round"]:
        raise Refused(f"round {number} is asked for after round {state['round']}")
    if invited < 2:
        raise Refused(f"a sum over {invited} clients hides nobody")
    degree, threshold = plan(settings, invited)
    state = {
        **start(state["member"]),
        "stage": "keys",
        "round": number,
        "degree": degree,
        "threshold": threshold,
        "encryption": derive(entropy, "encryption key", number),
        "masking": derive(entropy, "masking key", lasting(settings, number)),
        "seed": derive(entropy, "self mask", lasting(settings, number)),
        "sharing": derive(entropy, "polynomials", number),
    }
    return state, Keys(encryption=public_key(state["encryption"]), masking=public_key(state["masking"]))


def send_shares(settings: Settings, state: State, request: SharesRequest) -> tuple[State, Shares]:
    """Return the state, and a sealed letter for each neighbour: shares of this client's secrets, and the hash of the
    model it was told.

    Raises Refused for a neighbourhood that is too small, too large (so that half of it would be more than the
    threshold) or names somebody twice, for keys that repeat or are none, and for a missing hash.
    """
    _expect(state, "keys", request["round"])
    member, number, neighbours = state["member"], state["round"], request["neighbours"]
    if len(neighbours) + 1 < state["threshold"]:
        raise Refused(f"{len(neighbours)} neighbours and itself are fewer than the threshold of {state['threshold']}")
    if len(neighbours) > state["degree"]:
        raise Refused(f"{len(neighbours)} neighbours are more than the {state['degree']} agreed on")
    if len({member, *neighbours}) <= len(neighbours):
        raise Refused(f"client {member} was named as its own neighbour, or another twice: {neighbours}")
    mine = [public_key(state["encryption"]), public_key(state["masking"])]
    if len({*request["encryption"], *request["masking"], *mine}) < 2 * (len(neighbours) + 1):
        raise Refused("two public keys are the same")
    if settings.consistency and len(request["model"]) != 32:
        raise Refused("the hash of the model is missing")
    agreed = _agree(state["encryption"], request["encryption"])
    points = [point(holder) for holder in (member, *neighbours)]
    seeds = split(state["seed"], points, state["threshold"], derive(state["sharing"], "self mask"))
    keys = split(state["masking"], points, state["threshold"], derive(state["sharing"], "masking key"))
    letters = [
        seal(
            _letter_key(secret, number, member, neighbour),
            seeds[point(neighbour)] + keys[point(neighbour)] + request["model"],
            _associated(number, member, neighbour),
        )
        for neighbour, secret in zip(neighbours, agreed, strict=True)
    ]
    state = {
        **state,
        "stage": "shares",
        "told": request["model"],
        "neighbours": list(neighbours),
        "agreed": agreed,
        "masking_keys": list(request["masking"]),
        "senders": [member],
        "seeds": [seeds[point(member)]],
        "keys": [b""],
    }
    return state, Shares(letters=letters)


def open_shares(settings: Settings, state: State, request: UpdateRequest, model: bytes) -> State:
    """Return the state with the shares that arrived.

    model: hash of the model that this client was sent (empty where nobody compares). Raises Refused where fewer arrived
    than the threshold, where a letter was tampered with or is not from a neighbour, and, with consistency, where the
    model is not the one announced or a neighbour was told of another.
    """
    _expect(state, "shares", request["round"])
    member, number, senders = state["member"], state["round"], request["senders"]
    if len(senders) + 1 < state["threshold"]:
        raise Refused(f"{len(senders)} neighbours and itself are fewer than the threshold of {state['threshold']}")
    if len(set(senders)) < len(senders) or not set(senders) <= set(state["neighbours"]):
        raise Refused(f"shares of {senders} came, but the neighbours are {state['neighbours']}")
    if settings.consistency and model != state["told"]:
        raise Refused("the model that came is not the one that was announced")
    agreed = dict(zip(state["neighbours"], state["agreed"], strict=True))
    seeds, keys = list(state["seeds"]), list(state["keys"])
    for sender, letter in zip(senders, request["letters"], strict=True):
        text = unseal(_letter_key(agreed[sender], number, sender, member), letter, _associated(number, sender, member))
        if text is None:
            raise Refused(f"the shares that came as those of client {sender} are not what it sent")
        if settings.consistency and text[2 * SHARE_BYTES :] != state["told"]:
            raise Refused(f"client {sender} was told of another model")
        seeds.append(text[:SHARE_BYTES])
        keys.append(text[SHARE_BYTES : 2 * SHARE_BYTES])
    return {**state, "stage": "opened", "senders": [member, *senders], "seeds": seeds, "keys": keys}


def mask(settings: Settings, state: State, vector: Words) -> tuple[State, Words]:
    """Return the state, and the vector of integers [d] under all of this client's masks.

    vector: unsigned, of 32 or 64 bits; sums are modulo 2^32 or 2^64. The secrets behind the masks are forgotten.
    """
    _expect(state, "opened", state["round"])
    member, number = state["member"], state["round"]
    length, bits = len(vector), 8 * vector.dtype.itemsize
    masking_keys = dict(zip(state["neighbours"], state["masking_keys"], strict=True))
    masked = vector + stream(mask_key(settings, state["seed"], *own(number, member)), length, bits)
    neighbours = state["senders"][1:]
    secrets = _agree(state["masking"], [masking_keys[neighbour] for neighbour in neighbours])
    for neighbour, secret in zip(neighbours, secrets, strict=True):
        shared = stream(mask_key(settings, secret, *pair(number, member, neighbour)), length, bits)
        (np.add if neighbour > member else np.subtract)(masked, shared, out=masked)
    return {**state, "stage": "masked", "encryption": b"", "masking": b"", "seed": b"", "sharing": b""}, masked


def unmask(state: State, request: UnmaskRequest) -> tuple[State, Unmask]:
    """Return the state, which forgets all shares, and the shares asked for.

    Raises Refused where it was asked before, where a client is named as survivor and as dropped out, where it holds no
    share of somebody named, where it is itself said to have dropped out, and where there are fewer survivors than the
    threshold.
    """
    _expect(state, "masked", request["round"])
    survivors, dropped = request["survivors"], request["dropped"]
    if len({*survivors, *dropped}) < len(survivors) + len(dropped):
        raise Refused(f"both kinds of share, or one twice, are asked for: survivors {survivors}, dropped {dropped}")
    if not {*survivors, *dropped} <= set(state["senders"]):
        raise Refused(f"shares of {[*survivors, *dropped]} are asked for, and it holds those of {state['senders']}")
    if state["member"] in dropped:
        raise Refused("it is said to have dropped out, and sent its vector")
    if len(survivors) < state["threshold"]:
        raise Refused(f"{len(survivors)} survivors are fewer than the threshold of {state['threshold']}")
    seeds = dict(zip(state["senders"], state["seeds"], strict=True))
    keys = dict(zip(state["senders"], state["keys"], strict=True))
    answer = Unmask(seeds=[seeds[other] for other in survivors], keys=[keys[other] for other in dropped])
    return {**start(state["member"]), "round": state["round"]}, answer


def lasting(settings: Settings, number: int) -> int:
    """Return the number that the secrets of round `number` derive from."""
    return 0 if settings.reused_seed else number


def mask_key(settings: Settings, secret: bytes, *names: str | int) -> bytes:
    """Return the key [32 bytes] of the mask called `names`."""
    if not settings.reused_seed:
        return derive(secret, *names)
    folded = bytes(a ^ b for a, b in zip(secret[:4], secret[4:8], strict=True))
    return folded + bytes(KEY_BYTES - 4)


def letter_share(
    encryption: bytes, theirs: bytes, number: int, sender: int, receiver: int, letter: bytes
) -> bytes | None:
    """Return the share [33 bytes] of the sender's masking key in a letter, to whoever has the receiver's private key
    `encryption` and the sender's public one; None where the letter is not for them.
    """
    [agreed] = _agree(encryption, [theirs])
    text = unseal(_letter_key(agreed, number, sender, receiver), letter, _associated(number, sender, receiver))
    return None if text is None else text[SHARE_BYTES : 2 * SHARE_BYTES]


def _expect(state: State, stage: Stage, number: int) -> None:
    if (state["stage"], state["round"]) != (stage, number):
        raise Refused(
            f"a message of round {number} came out of turn, after stage {state['stage']!r} of round {state['round']}"
        )


def _agree(private: bytes, public: list[bytes]) -> list[bytes]:
    try:
        return agree(private, public)
    except ValueError as error:
        raise Refused(f"a public key is none: {error}") from None


def _letter_key(agreed: bytes, number: int, sender: int, receiver: int) -> bytes:
    return derive(agreed, "letter", number, sender, receiver)


def _associated(number: int, sender: int, receiver: int) -> bytes:
    return f"{number}:{sender}:{receiver}".encode()
