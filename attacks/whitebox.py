"""An attack on all that a model shows of a record: answers, gradients of every layer, what the last layer sees, over
several rounds, read by a small network.

Source: Nasr, Shokri, Houmansadr, "Comprehensive privacy analysis of deep learning", IEEE S&P 2019,
https://arxiv.org/abs/1812.00910. The paper's encoder of convolutions over raw gradients is replaced by summaries of
each layer, a few tens of numbers a record and round.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from attacks.final import FLOOR, cross_entropy
from attacks.folds import UNSEEN_OWNER, broadcast, due_rounds, rounds_behind, shown_model, slot_of, trained_reply
from attacks.gradients import owned_by, record_ask
from attacks.learned import SHADOW_WORLDS, drawn_worlds, in_order, network_log_odds
from attacks.trajectories import points, standing
from fedsim.attack import Case, Signal
from fedsim.errors import NotVisible
from fedsim.gradients import Gradients, Outer, norms, record_gradients
from fedsim.transcript import Arrays, Event
from fedsim.views import Ask, Floats, Ints, Oracle, Public, RecordAsk, Records, query, softmax

ROUNDS = 5
"""At most so many rounds are looked at, evenly spaced, as in the paper."""
OUTPUTS = 5
"""The largest entries of the answer that the encoder sees."""
HIDDEN = 32
DECAY = 100.0
"""Weight decay of the encoder (summed over its records): it has ten times the inputs of a plain attack network."""


def features(public: Public, model: Arrays, records: Records, rows: Ints) -> Floats:
    """Return what a model shows of some rows of `records` [n, features]: loss, log-odds of the label, the logarithms of
    the largest probabilities in order, the logarithm of the length of the gradient of each parameter array, and five
    numbers about what goes into the last layer (length, mean, deviation, largest, share of zeros).
    """
    x, y = records.x[rows], records.y[rows]
    probabilities = softmax(query(public, model, x))
    loss = cross_entropy(probabilities, y)
    largest = -np.sort(-probabilities, axis=1)[:, :OUTPUTS]
    parameters = {name: torch.tensor(array) for name, array in model.items()}
    dtype = next(iter(parameters.values())).dtype
    pieces = record_gradients(public.apply, parameters, torch.from_numpy(x).to(dtype), torch.from_numpy(y))
    layers = np.concatenate([_of_gradients(piece) for piece in pieces])
    return np.column_stack([loss, points(loss[:, None]), np.log(np.maximum(largest, FLOOR)), layers])


def _of_gradients(gradients: Gradients) -> Floats:
    """Return the summaries [n, numbers] of the gradients of n records."""
    lengths = torch.stack([norms({name: value}) for name, value in gradients.items()], dim=1)
    parts = [np.log(np.maximum(lengths.numpy(), FLOOR))]
    seen = [value.input for value in gradients.values() if isinstance(value, Outer)]
    if seen:
        parts.append(_activations(seen[-1].double()))
    return np.concatenate(parts, axis=1)


def _activations(values: Tensor) -> Floats:
    """Return five numbers [n, 5] about what goes into a layer [n, in]."""
    columns = [
        torch.linalg.vector_norm(values, dim=1),
        values.mean(dim=1),
        values.std(dim=1, correction=0),
        values.amax(dim=1),
        (values == 0).double().mean(dim=1),
    ]
    return np.asarray(torch.stack(columns, dim=1).numpy())


class Shown(NamedTuple):
    """What was seen of each item [items, numbers] so far: by slot, of the global model, and of the alleged owner's."""

    public: Public
    ask: RecordAsk
    owned: Mapping[str, Ints]
    due: Ints
    globally: Mapping[int, Floats]
    locally: Mapping[int, Floats]
    filled: frozenset[tuple[str, int]] = frozenset()
    broadcast: Arrays | None = None


def _start(public: Public, ask: Ask) -> Shown:
    asked = record_ask(ask)
    return Shown(public, asked, owned_by(asked.items), due_rounds(public.rounds, ROUNDS), {}, {})


def _watch_broadcasts(state: Shown, event: Event) -> Shown:
    if not shown_model(event):
        return state
    slot = slot_of(rounds_behind(event), state.due)
    if slot < 0 or slot in state.globally:  # nothing is learned yet in the model of the first round
        return state
    rows = np.arange(len(state.ask.items))
    found = features(state.public, event.arrays, state.ask.items, rows)
    return state._replace(globally={**state.globally, slot: found})


def _watch_all(state: Shown, event: Event) -> Shown:
    state = _watch_broadcasts(state, event)
    if broadcast(event):
        return state._replace(broadcast=event.arrays)
    slot = slot_of(event.round, state.due)
    if (event.sender, slot) in state.filled or not trained_reply(event, state.broadcast, state.owned):
        return state
    rows = state.owned[event.sender]
    found = features(state.public, event.arrays, state.ask.items, rows)
    values = state.locally.get(slot, np.full((len(state.ask.items), found.shape[1]), np.nan)).copy()
    values[rows] = found
    return state._replace(locally={**state.locally, slot: values}, filled=state.filled | {(event.sender, slot)})


def _stacked(state: Shown, *seen: Mapping[int, Floats]) -> Floats:
    """Return all that was seen [rows, slots, numbers], side by side; NaN where a slot is empty, and for the population,
    which nobody is alleged to hold.
    """
    width = next(values.shape[1] for by_slot in seen for values in by_slot.values())
    unseen, slots = np.full((len(state.ask.items), width), np.nan), range(len(state.due))
    parts = [np.stack([by_slot.get(slot, unseen) for slot in slots], axis=1) for by_slot in seen]
    items = np.concatenate(parts, axis=2)
    return np.concatenate([items, np.full((len(state.ask.population), *items.shape[1:]), np.nan)])


def _finish_participant(state: Shown, released: Oracle) -> Floats:  # noqa: ARG001 - the broadcasts say it all
    if not state.globally:
        raise NotVisible("no global model that had been trained crossed this vantage")
    return _stacked(state, state.globally)


def _finish_server(state: Shown, released: Oracle) -> Floats:  # noqa: ARG001 - the models say it all
    if not state.locally:
        raise NotVisible(f"no model {UNSEEN_OWNER}")
    return _stacked(state, state.globally, state.locally)


OF_BROADCASTS = Signal(_start, _watch_broadcasts, _finish_participant, "models")
"""`features` [rows, slots, numbers] of each record under at most five global models, evenly spaced over the run."""

OF_BROADCASTS_AND_REPLIES = Signal(_start, _watch_all, _finish_server, "update")
"""The same, and then the same under the models that the alleged owner sent back in about the same rounds."""


def encoder(case: Case) -> Floats:
    """Return the log-odds [n] of "in" from a small network on all features, learned from at most 8 reference worlds.

    What was not seen in a slot is taken from the others, by `standing`.
    """
    chosen = drawn_worlds(case, SHADOW_WORLDS)
    references, target = standing(case.references[chosen], case.target)
    rows, sides = in_order(references, case.members[chosen])
    return network_log_odds(rows[None], sides[None], target, case.rng, HIDDEN, DECAY)
