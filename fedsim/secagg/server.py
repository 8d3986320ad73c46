"""The server's side of secure aggregation: whom it asks for what, and how it takes the masks off the sum."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedsim.secagg.client import mask_key
from fedsim.secagg.crypto import Words, agree, public_key, stream
from fedsim.secagg.protocol import (
    Aborted,
    Keys,
    KeysRequest,
    Plan,
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
from fedsim.secagg.shamir import recover

Graph = Mapping[int, tuple[int, ...]]
"""Member -> its neighbours, in ascending order."""


@dataclass(frozen=True)
class Round:
    """A round under way. shared: who sent shares. survivors: who sent a vector."""

    settings: Settings
    number: int
    plan: Plan
    graph: Graph
    keys: Mapping[int, Keys]
    shared: frozenset[int] = frozenset()
    survivors: frozenset[int] = frozenset()


def graph(members: Sequence[int], degree: int, rng: np.random.Generator) -> dict[int, tuple[int, ...]]:
    """Return the neighbours of each member: those up to degree / 2 places away on a circle in random order, or all the
    others where there are no more than `degree` (even, or all) of them.

    Source: Bell et al. 2020, section 3, https://doi.org/10.1145/3372297.3417885
    """
    circle = [members[i] for i in rng.permutation(len(members))]
    if len(circle) <= degree + 1:
        return {member: tuple(sorted(set(circle) - {member})) for member in sorted(circle)}
    steps = [step for step in range(-(degree // 2), degree // 2 + 1) if step]
    return {
        member: tuple(sorted(circle[(place + step) % len(circle)] for step in steps))
        for member, place in sorted(zip(circle, range(len(circle)), strict=True))
    }


def invite(number: int, invited: Sequence[int]) -> dict[int, KeysRequest]:
    """Return what is sent to each of the clients `invited` to round `number`.

    Raises Aborted where there are fewer than two.
    """
    if len(invited) < 2:
        raise Aborted(f"{len(invited)} invited, and a sum over fewer than two hides nobody")
    return {member: KeysRequest(round=number, invited=len(invited)) for member in invited}


def ask_shares(
    settings: Settings,
    number: int,
    invited: int,
    keys: Mapping[int, Keys],
    model: Mapping[int, bytes],
    rng: np.random.Generator,
) -> tuple[Round, dict[int, SharesRequest]]:
    """Return the round among those whose keys came, and what is sent to each.

    model: member -> hash of the model it will be sent (empty where nobody compares). rng: draws the graph. Raises
    Aborted where a neighbourhood is smaller than the threshold.
    """
    agreed = plan(settings, invited)
    neighbours = graph(sorted(keys), agreed.degree, rng)
    under_way = Round(settings, number, agreed, neighbours, keys)
    _enough(under_way, "sent keys", frozenset(keys))
    return under_way, {
        member: SharesRequest(
            round=number,
            neighbours=list(others),
            encryption=[keys[other]["encryption"] for other in others],
            masking=[keys[other]["masking"] for other in others],
            model=model[member],
        )
        for member, others in neighbours.items()
    }


def ask_updates(under_way: Round, shares: Mapping[int, Shares]) -> tuple[Round, dict[int, UpdateRequest]]:
    """Return the round among those whose shares came, and what is sent to each beside the model: the letters to it.

    Raises Aborted where somebody would get fewer than the threshold.
    """
    under_way = replace(under_way, shared=frozenset(shares))
    _enough(under_way, "sent shares", under_way.shared)
    letters = {
        (sender, receiver): letter
        for sender, sent in shares.items()
        for receiver, letter in zip(under_way.graph[sender], sent["letters"], strict=True)
    }
    requests = {}
    for member in sorted(shares):
        senders = [other for other in under_way.graph[member] if other in shares]
        requests[member] = UpdateRequest(
            round=under_way.number, senders=senders, letters=[letters[sender, member] for sender in senders]
        )
    return under_way, requests


def ask_unmask(under_way: Round, survivors: Sequence[int]) -> tuple[Round, dict[int, UnmaskRequest]]:
    """Return the round among those whose vectors came, and what is asked of each.

    Raises Aborted where a survivor has fewer of them in its neighbourhood than the threshold, and where the graph falls
    apart: the sum of each part would show.
    """
    under_way = replace(under_way, survivors=frozenset(survivors))
    _enough(under_way, "sent an update", under_way.survivors)
    if not _connected(under_way.graph, under_way.survivors):
        raise Aborted("no neighbours join all of those who sent an update, so sums over fewer of them would show")
    lost = under_way.shared - under_way.survivors
    return under_way, {
        member: UnmaskRequest(
            round=under_way.number,
            survivors=sorted(under_way.survivors & {member, *under_way.graph[member]}),
            dropped=sorted(lost & {*under_way.graph[member]}),
        )
        for member in sorted(survivors)
    }


Lost = Callable[[str, int], bool]
"""(stage, member) -> whether a member falls silent before it answers; stages: keys, shares, update, unmask."""


def rehearse(settings: Settings, number: int, invited: Sequence[int], lost: Lost, rng: np.random.Generator) -> Round:
    """Return the round as it would be when updates are asked for, without a key; for a trusted party that is to give up
    the same rounds as the protocol does.

    Raises Aborted as `invite`, `ask_shares` and `ask_updates` would.
    """
    invite(number, invited)
    there = [member for member in invited if not lost("keys", member)]
    agreed = plan(settings, len(invited))
    under_way = Round(settings, number, agreed, graph(sorted(there), agreed.degree, rng), {})
    _enough(under_way, "sent keys", frozenset(there))
    under_way = replace(under_way, shared=frozenset(member for member in there if not lost("shares", member)))
    _enough(under_way, "sent shares", under_way.shared)
    return under_way


def check_unmasking(under_way: Round, lost: Lost) -> None:
    """Refuse, as `unmasked_sum` would, to open a rehearsed round for whose secrets too few shares would come."""
    answering = {member for member in under_way.survivors if not lost("unmask", member)}
    for member in sorted(under_way.shared):
        neighbours = {*under_way.graph[member]}
        if member in under_way.survivors:
            neighbours.add(member)  # a client keeps a share of its own seed
        elif not neighbours & under_way.survivors:
            continue
        came = len(neighbours & answering)
        if came < under_way.plan.threshold:
            raise Aborted(
                f"{came} shares of client {member} would come, fewer than the threshold of {under_way.plan.threshold}"
            )


def unmasked_sum(
    under_way: Round,
    vectors: Mapping[int, Words],
    requests: Mapping[int, UnmaskRequest],
    answers: Mapping[int, Unmask],
) -> Words:
    """Return the sum [d] of the survivors' vectors modulo their word size, without any mask.

    vectors: member -> its masked vector [d]. requests, answers: what was asked of each member, and what it said.
    Raises Aborted where too few shares of a secret came, or they are not shares of it.
    """
    settings, number, threshold = under_way.settings, under_way.number, under_way.plan.threshold
    seeds, keys = _collected(requests, answers)
    total = np.zeros_like(next(iter(vectors.values())))
    for vector in vectors.values():
        np.add(total, vector, out=total)
    length, bits = len(total), 8 * total.dtype.itemsize
    for member in sorted(under_way.survivors):
        seed = _recovered(seeds.get(member, {}), threshold, member)
        np.subtract(total, stream(mask_key(settings, seed, *own(number, member)), length, bits), out=total)
    for member in sorted(under_way.shared - under_way.survivors):
        left = sorted(under_way.survivors & {*under_way.graph[member]})
        if not left:
            continue
        private = _recovered(keys.get(member, {}), threshold, member)
        if public_key(private) != under_way.keys[member]["masking"]:
            raise Aborted(f"the shares of the masking key of client {member} give another key")
        secrets = agree(private, [under_way.keys[survivor]["masking"] for survivor in left])
        for survivor, secret in zip(left, secrets, strict=True):
            shared = stream(mask_key(settings, secret, *pair(number, member, survivor)), length, bits)
            (np.subtract if member > survivor else np.add)(total, shared, out=total)
    return total


def _enough(under_way: Round, did: str, there: frozenset[int]) -> None:
    """Refuse to go on where a neighbourhood has become smaller than the threshold."""
    threshold = under_way.plan.threshold
    if not there:
        raise Aborted(f"nobody {did}")
    fewest = min(len(there & {member, *under_way.graph[member]}) for member in there)
    if fewest < threshold:
        raise Aborted(f"only {fewest} of a neighbourhood {did}, fewer than the threshold of {threshold}")


def _connected(graph: Graph, members: frozenset[int]) -> bool:
    """Whether neighbours that are all `members` lead from each of them to all others."""
    reached: set[int] = set()
    ahead = {min(members)}
    while ahead:
        reached |= ahead
        ahead = {other for member in ahead for other in graph[member]} & members - reached
    return reached == members


Collected = dict[int, dict[int, bytes]]


def _collected(requests: Mapping[int, UnmaskRequest], answers: Mapping[int, Unmask]) -> tuple[Collected, Collected]:
    """The shares that came, by owner and point: of seeds, and of masking keys."""
    seeds: Collected = {}
    keys: Collected = {}
    for holder, answer in answers.items():
        for owner, share in zip(requests[holder]["survivors"], answer["seeds"], strict=True):
            seeds.setdefault(owner, {})[point(holder)] = share
        for owner, share in zip(requests[holder]["dropped"], answer["keys"], strict=True):
            keys.setdefault(owner, {})[point(holder)] = share
    return seeds, keys


def _recovered(shares: Mapping[int, bytes], threshold: int, owner: int) -> bytes:
    if len(shares) < threshold:
        raise Aborted(f"{len(shares)} shares of client {owner} came, fewer than the threshold of {threshold}")
    secret = recover(shares, threshold)
    if secret is None:
        raise Aborted(f"the shares of client {owner} do not belong together")
    return secret
