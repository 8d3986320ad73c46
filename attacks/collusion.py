"""A signal of a server and clients that collude: each record beside the smallest sum with its owner that they can open
together.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np

from attacks.aggregates import NO_SUM, Cosines, Group, add, finish, follow, inverse, start
from attacks.folds import number
from fedsim.attack import Signal
from fedsim.secagg.collusion import Pooled, open_sums
from fedsim.secagg.crypto import Words
from fedsim.secagg.protocol import Keys, Settings, point
from fedsim.transcript import AGGREGATE, AGGREGATOR, SECRET, SERVER, Event, client
from fedsim.vectors import Floats
from fedsim.views import Ask, Oracle, Public

RECIPES = (Settings(), Settings(reused_seed=True))
"""How keys and masks may have been derived: as they should, or as in the specimen that reuses its seeds."""


class Pool(NamedTuple):
    """What was seen of secure aggregation in the round under way, and the cosines so far."""

    cosines: Cosines
    round: int = -1
    events: tuple[Event, ...] = ()


def _start(public: Public, ask: Ask) -> Pool:
    return Pool(start(public, ask))


def _step(state: Pool, event: Event) -> Pool:
    if event.round != state.round:
        state = state._replace(round=event.round, events=())
    if event.kind == SECRET or any(name.startswith("secagg/") for name in event.facts) or "masked" in event.arrays:
        state = state._replace(events=(*state.events, event))
    rounds, group = follow(state.cosines.rounds, event)
    cosines = state.cosines._replace(rounds=rounds)
    if group is None:
        return state._replace(cosines=cosines)
    for part in opened(group, event, state.events):
        cosines = add(cosines, part, inverse(len(part.members)))
    return state._replace(cosines=cosines, events=() if event.kind == AGGREGATE else state.events)


def opened(group: Group, event: Event, seen: tuple[Event, ...]) -> list[Group]:
    """Return the groups that the sum of an event falls into, with what was seen in the round: itself, where nothing
    more is known.
    """
    if event.kind != AGGREGATE or "step" not in event.facts:
        return [group] if group.members else []
    size, zero, step = len(group.descent), number(event, "zero"), number(event, "step")
    assert zero is not None
    assert step is not None  # the two come together

    def clear(members: frozenset[int], total: Words) -> Group:
        names, whole = frozenset(map(client, members)), total.astype(np.float64)
        weight = float(whole[size]) if len(whole) > size else float(len(members))
        return group._replace(members=names, descent=-(whole[:size] - len(members) * zero) * step, weight=weight)

    if any(each.kind == SECRET for each in seen):
        for settings in RECIPES:
            parts = [clear(members, total) for members, total in open_sums(pooled(seen), settings).items()]
            if parts and _add_up(parts, group):
                return parts
    # A trusted party opens what a helper sent to it, and the helper knows that as well.
    own = {each.sender: cast(Words, each.arrays["masked"]) for each in seen if each.receiver == AGGREGATOR}
    helpers = {int(name.removeprefix("client:")): vector for name, vector in own.items() if name in group.members}
    if not helpers or len(helpers) == len(group.members):
        return [group] if group.members else []
    alone = [clear(frozenset({member}), vector) for member, vector in helpers.items()]
    rest = group._replace(
        members=group.members - {client(member) for member in helpers},
        descent=group.descent - sum((each.descent for each in alone), np.zeros(size)),
        weight=group.weight - sum(each.weight for each in alone),
    )
    return [*alone, rest]


def _add_up(parts: list[Group], group: Group) -> bool:
    """Return whether sums that were opened are parts of the one the server got: wrong keys give noise."""
    total = sum((part.descent for part in parts), np.zeros(len(group.descent)))
    return bool(np.allclose(total, group.descent, rtol=0, atol=1e-3 * max(float(np.abs(group.descent).max()), 1e-9)))


def pooled(seen: tuple[Event, ...]) -> Pooled:
    """Return what the messages of a round told its server and the clients that collude with it."""
    keys: dict[int, Keys] = {}
    senders: dict[int, tuple[int, ...]] = {}
    letters: dict[tuple[int, int], bytes] = {}
    vectors: dict[int, Words] = {}
    asked: dict[int, Mapping[str, Any]] = {}
    seeds: dict[int, dict[int, bytes]] = {}
    masking: dict[int, dict[int, bytes]] = {}
    entropy: dict[int, bytes] = {}
    for event in seen:
        told: dict[str, Any] = {name.removeprefix("secagg/"): fact for name, fact in event.facts.items()}
        party = int((event.receiver if event.sender == SERVER else event.sender).removeprefix("client:"))
        match event.kind:
            case "secret":
                entropy[party] = told["entropy"]
            case "train.secagg_keys-reply":
                keys[party] = Keys(encryption=told["encryption"], masking=told["masking"])
            case "train":
                senders[party] = tuple(told["senders"])
                letters |= {
                    (other, party): letter for other, letter in zip(told["senders"], told["letters"], strict=True)
                }
            case "train-reply":
                vectors[party] = cast(Words, event.arrays["masked"])
            case "train.secagg_unmask":
                asked[party] = told
            case "train.secagg_unmask-reply":
                for shares, who, what in ((seeds, "survivors", "seeds"), (masking, "dropped", "keys")):
                    for other, share in zip(asked[party][who], told[what], strict=True):
                        shares.setdefault(other, {})[point(party)] = share
    return Pooled(seen[0].round, keys, senders, letters, vectors, seeds, masking, entropy)


def _finish(state: Pool, released: Oracle) -> Floats:
    return finish(state.cosines, released, NO_SUM)


COLLUSION_COSINE = Signal(_start, _step, _finish, "sum")
"""Mean cosine [rows] of a record's gradient with the smallest sums that its alleged owner is in and the vantage can
open; a sum counts by 1 / the number of clients in it.
"""
