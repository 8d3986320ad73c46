"""The output policy: what the public gets to see of the final model, and a record of who asks how much."""

import hashlib
from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsim.monitor import inspect
from fedsim.scenario import Release
from fedsim.transcript import Arrays
from fedsim.views import Answer, Ask, Floats, Oracle, PropertyAsk, Public, Records, query, softmax


def released(public: Public, arrays: Arrays, release: Release) -> Oracle:
    """Return the oracle through which anybody may query the final model under the output policy.

    probabilities: all classes. top_k: the k largest, the rest NaN. rounded: to `digits` decimals. temperature:
    softmax(logits / temperature).
    label: the class alone.
    """

    def answer(x: NDArray[np.float32]) -> Answer:
        logits = query(public, arrays, x)
        return Answer(logits.argmax(axis=1), _shown(logits, release))

    return answer


def _shown(logits: Floats, release: Release) -> Floats | None:
    match release.output:
        case "label":
            return None
        case "temperature":
            return softmax(logits / release.temperature)
        case "rounded":
            return np.asarray(softmax(logits).round(release.digits))
        case "top_k":
            probabilities = softmax(logits)
            hidden = probabilities.argsort(axis=1, kind="stable")[:, : -release.k]
            np.put_along_axis(probabilities, hidden, np.nan, axis=1)
            return probabilities
        case "probabilities":
            return softmax(logits)


class Log(NamedTuple):
    """What one caller asked the released model in one world; plain numbers, small however much was asked.

    A query is one record asked about. public: of those sent, how many are about a public record as it is. stream to
    largest_cluster: the SHA-256 of all queries in order and what the monitor made of them; empty without one.
    """

    sent: int = 0
    public: int = 0
    answered: int = 0
    batches: tuple[tuple[int, int], ...] = ()  # (queries in a batch, how many such batches)
    stream: str = ""
    windows: int = 0
    flagged: int = 0
    near_duplicates: int = 0
    clusters: int = 0
    largest_cluster: int = 0


def public_records(ask: Ask | None) -> tuple[Records, ...]:
    """Return the public records that an attacker holds beside what it is asked about."""
    if isinstance(ask, PropertyAsk):
        return ask.no, ask.yes, *([] if ask.holders is None else [ask.holders])
    held = getattr(ask, "population", None)
    return () if held is None else (held,)


class Caller:
    """The oracle as one caller meets it: every query is counted, and past the budget none is answered."""

    def __init__(self, oracle: Oracle, release: Release, ask: Ask | None = None) -> None:
        self._oracle, self._budget, self._monitor = oracle, release.budget, release.monitor
        self._sent = self._about_public = 0
        self._public = tuple(records.x for records in public_records(ask))
        self._batches: Counter[int] = Counter()
        self._stream = hashlib.sha256()
        self._window: list[NDArray[np.float32]] = []
        self._seen = Log()

    def __call__(self, x: NDArray[np.float32]) -> Answer:
        """Return the answer to a batch; a query past the budget gets the class -1 and NaN."""
        left = len(x) if self._budget is None else max(self._budget - self._sent, 0)
        self._sent += len(x)
        # Attacks ask about the records they hold as they are, or about copies that they changed.
        self._about_public += len(x) if any(np.may_share_memory(x, held) for held in self._public) else 0
        self._batches[len(x)] += 1
        self._watch(x)
        answer = self._oracle(x)
        if left >= len(x):
            return answer
        labels = answer.labels.copy()
        labels[left:] = -1
        if answer.probabilities is None:
            return Answer(labels, None)
        probabilities = answer.probabilities.copy()
        probabilities[left:] = np.nan
        return Answer(labels, probabilities)

    def log(self) -> Log:
        """Return what was asked so far; a window that is not full counts only where there is no other."""
        seen = self._inspected(self._seen) if self._window and not self._seen.windows else self._seen
        return seen._replace(
            sent=self._sent,
            public=self._about_public,
            answered=self._sent if self._budget is None else min(self._sent, self._budget),
            batches=tuple(sorted(self._batches.items())),
            stream=self._stream.hexdigest() if self._monitor and self._sent else "",
        )

    def _watch(self, x: NDArray[np.float32]) -> None:
        """Fill windows and look at those that are full."""
        if self._monitor is None:
            return
        self._stream.update(np.ascontiguousarray(x).data)
        while len(x):
            room = self._monitor.window - sum(map(len, self._window))
            self._window.append(x[:room].copy())
            x = x[room:]
            if sum(map(len, self._window)) == self._monitor.window:
                self._seen = self._inspected(self._seen)
                self._window = []

    def _inspected(self, before: Log) -> Log:
        """Return the log with what the monitor finds in the window."""
        if self._monitor is None or self._monitor.radius is None:
            raise ValueError("the radius of a monitor is set before it looks at queries")
        found = inspect(np.concatenate(self._window), self._monitor.radius)
        return before._replace(
            windows=before.windows + 1,
            flagged=before.flagged + (found.near >= self._monitor.near_duplicates),
            near_duplicates=before.near_duplicates + found.near,
            clusters=before.clusters + found.clusters,
            largest_cluster=max(before.largest_cluster, found.largest),
        )


def in_words(release: Release) -> str:
    """Return what the public gets, in a few words."""
    if release.access == "white_box":
        return "the final model's parameters"
    least = f" to the first {release.budget:,} queries of a caller" if release.budget else " to queries"
    watched = ", monitored for near-duplicates" if release.monitor else ""
    shown = {
        "probabilities": "all class probabilities",
        "top_k": f"the {release.k} largest class probabilities",
        "rounded": f"class probabilities rounded to {release.digits} decimals",
        "temperature": f"class probabilities at temperature {release.temperature:g}",
        "label": "the predicted label only",
    }
    return f"answers{least}: {shown[release.output]}{watched}"
