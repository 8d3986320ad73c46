"""What a server and clients that collude can open of a masked round: sums over fewer clients than all, single updates
among them where enough shares come together.

They bring along what the protocol gave them: the server the masked vectors, the public keys and the shares that were
sent to unmask; each client its own secrets, and with them the letters it was sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedsim.secagg.client import lasting, letter_share, mask_key
from fedsim.secagg.crypto import Words, agree, derive, public_key, stream
from fedsim.secagg.protocol import Keys, Settings, own, pair, point
from fedsim.secagg.shamir import recover


@dataclass(frozen=True)
class Pooled:
    """What the server and its helpers know of round `number`.

    keys: member -> its public keys. senders: member -> whose shares it was sent, with which it masks. letters:
    (sender, receiver) -> a sealed letter. vectors: member -> its masked vector [d]. seeds, masking: member -> point ->
    share of its seed, of its masking key, as sent to unmask. entropy: helper -> the 32 bytes its secrets derive from.
    """

    number: int
    keys: Mapping[int, Keys]
    senders: Mapping[int, tuple[int, ...]]
    letters: Mapping[tuple[int, int], bytes]
    vectors: Mapping[int, Words]
    seeds: Mapping[int, Mapping[int, bytes]]
    masking: Mapping[int, Mapping[int, bytes]]
    entropy: Mapping[int, bytes]


def open_sums(pooled: Pooled, settings: Settings) -> dict[frozenset[int], Words]:
    """Return the sums [d], modulo the word size, that the pool opens: of disjoint groups of those who sent a vector,
    each as small as can be. None of them where some seed did not come back. Of `settings` it matters how keys and masks
    are derived.

    A pairwise mask is known where one of its two private keys is: a helper's, that of whoever dropped out (the server
    recovered it), and one of which the helpers hold as many shares as the threshold asks. Those whom masks join that
    nobody knows stay together.
    """
    seeds = {member: recover(shares, len(shares)) for member, shares in pooled.seeds.items()}
    if not pooled.vectors or not all(seeds.get(member) for member in pooled.vectors):
        return {}
    private = _private_keys(pooled, settings)
    opened: dict[frozenset[int], Words] = {}
    for group in _groups(pooled, frozenset(private)):
        total = np.zeros_like(pooled.vectors[min(group)])
        length, bits = len(total), 8 * total.dtype.itemsize
        for member in group:
            seed = seeds[member]
            assert seed is not None
            np.add(total, pooled.vectors[member], out=total)
            np.subtract(total, stream(mask_key(settings, seed, *own(pooled.number, member)), length, bits), out=total)
            for other in pooled.senders[member]:
                if other in group and not {member, other} & private.keys():
                    continue  # both halves of this mask are in the sum
                knows, asks = (member, other) if member in private else (other, member)
                if knows not in private:
                    return {}
                [secret] = agree(private[knows], [pooled.keys[asks]["masking"]])
                shared = stream(mask_key(settings, secret, *pair(pooled.number, member, other)), length, bits)
                (np.subtract if other > member else np.add)(total, shared, out=total)
        opened[group] = total
    return opened


def _private_keys(pooled: Pooled, settings: Settings) -> dict[int, bytes]:
    """Return the private masking keys that the pool holds or can put together, each checked by its public key."""
    number = pooled.number
    shares = {member: dict(held) for member, held in pooled.masking.items()}
    found = {}
    for helper, entropy in pooled.entropy.items():
        found[helper] = derive(entropy, "masking key", lasting(settings, number))
        encryption = derive(entropy, "encryption key", number)
        for sender in pooled.senders.get(helper, ()):
            theirs, letter = pooled.keys[sender]["encryption"], pooled.letters[sender, helper]
            share = letter_share(encryption, theirs, number, sender, helper, letter)
            if share is not None:
                shares.setdefault(sender, {})[point(helper)] = share
    for member, held in shares.items():
        secret = recover(held, len(held))  # all of them: fewer than the threshold give another key
        if secret is not None:
            found.setdefault(member, secret)
    return {
        member: secret
        for member, secret in found.items()
        if member in pooled.keys and public_key(secret) == pooled.keys[member]["masking"]
    }


def _groups(pooled: Pooled, known: frozenset[int]) -> list[frozenset[int]]:
    """Return who of those that sent a vector hang together by masks that nobody in the pool knows."""
    left, groups = set(pooled.vectors), []
    while left:
        reached: set[int] = set()
        ahead = {min(left)}
        while ahead:
            reached |= ahead
            joined = {other for member in ahead - known for other in pooled.senders[member]}
            ahead = (joined & left) - known - reached
        groups.append(frozenset(reached))
        left -= reached
    return groups
