"""Measures a world while it runs: every signal folds the messages its vantage sees, and none is kept."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from fedsim.apps import Bench, Outcome, rehearse
from fedsim.errors import NotVisible, RunError
from fedsim.job import Job, WorldResult
from fedsim.release import Caller, Log, released
from fedsim.scenario import Release
from fedsim.transcript import ABORTED, MASKED, PUBLIC, SERVER, Arrays, Event, array_checksums, checksums, digest, frozen
from fedsim.views import Floats, Public, sees
from fedsim.world import World


def public_facts(setup: Bench, world: World) -> Public:
    """Return what every party of a world knows."""
    model = setup.model(world)
    local = world.federation.local
    return Public(
        classes=setup.classes,
        clients=setup.clients,
        rounds=world.federation.rounds,
        apply=lambda params, x: model.apply(dict(params), x, None),
        local_epochs=local.epochs,
        batch_size=local.batch_size,
        learning_rate=local.learning_rate,
        optimizer=local.optimizer,
        train=rehearse(setup, world),
    )


def _temperature(release: Release) -> float:
    """Return by what a released model divides its logits."""
    return release.temperature if release.output == "temperature" else 1.0


class Watch:
    """Sees every event of world `index` of a job, in order; then says what the world leaves behind.

    spare, if given, receives every event too (tests, transcripts on disk).
    """

    def __init__(self, job: Job, index: int, setup: Bench, spare: Callable[[Event], None] | None = None) -> None:
        self._job, self._world, self._spare = job, job.worlds[index], spare
        self._facts = public_facts(setup, self._world)
        self._probes = [probe for probe in job.probes if index in probe.worlds]
        self._releases = {probe.name: probe.release or job.scenario.release for probe in self._probes}
        self._known = {  # attacks that meet one policy share what they know, and so the answers that are remembered
            release: replace(self._facts, temperature=_temperature(release), budget=release.budget)
            for release in set(self._releases.values())
        }
        self._states = {
            probe.name: probe.signal.start(self._known[self._releases[probe.name]], probe.ask) for probe in self._probes
        }
        self._hidden: dict[str, str] = {}
        self._transcript = hashlib.sha256()
        self._summed: tuple[Arrays, bytes] = ({}, b"")
        self._copied: tuple[Arrays, Arrays] = ({}, {})
        self._sights: dict[str, Counter[str]] = {str(vantage): Counter() for vantage in job.vantages}
        self._carried = dict.fromkeys(self._sights, False)
        self._aborted = 0

    def _sum(self, arrays: Arrays) -> bytes:
        """Return the checksums of arrays; those of a broadcast, which many events share, are taken once."""
        if arrays is not self._summed[0]:
            self._summed = arrays, array_checksums(arrays)
        return self._summed[1]

    def _copy(self, arrays: Arrays) -> Arrays:
        """Return what attackers get to hold: copies, so that nothing they do reaches the federation; of a broadcast,
        one for all.
        """
        if arrays is not self._copied[0]:
            self._copied = arrays, frozen(arrays)
        return self._copied[1]

    def see(self, event: Event) -> None:
        """Take in one event."""
        self._transcript.update(checksums(event, self._sum))
        self._aborted += event.kind == ABORTED
        copied: Event | None = None
        for vantage in self._job.vantages:
            if sees(vantage, event):
                self._sights[str(vantage)][MASKED if event.arrays.keys() == {"masked"} else event.kind] += 1
                self._carried[str(vantage)] |= bool(event.arrays)
        for probe in self._probes:
            if probe.name not in self._hidden and sees(probe.vantage, event):
                copied = copied or replace(event, arrays=self._copy(event.arrays))
                try:
                    self._states[probe.name] = probe.signal.step(self._states[probe.name], copied)
                except NotVisible as reason:
                    self._hidden[probe.name] = str(reason)
        if self._spare is not None:
            self._spare(event)

    def finish(self, outcome: Outcome) -> WorldResult:
        """Return what the world leaves behind. Raises RunError where the final model is not finite."""
        arrays = frozen(outcome.arrays)
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise RunError(
                f"world {self._world.name}: training diverged, the final model is not finite; lower "
                "federation.local.learning_rate"
            )
        release = self._job.scenario.release
        receiver = PUBLIC if release.access == "white_box" else SERVER
        final = Event(self._world.federation.rounds, "final", SERVER, receiver, arrays, {})
        self.see(final)
        signals: dict[str, Floats] = {}
        queries: dict[str, Log] = {}
        equations: dict[str, Mapping[str, int]] = {}
        for probe in self._probes:
            if probe.name not in self._hidden:
                policy = self._releases[probe.name]
                caller = Caller(released(self._known[policy], self._copy(arrays), policy), policy, probe.ask)
                try:
                    signals[probe.name] = probe.signal.finish(self._states[probe.name], caller)
                except NotVisible as reason:
                    self._hidden[probe.name] = str(reason)
                queries[probe.name] = caller.log()
                if probe.signal.equations is not None:
                    equations[probe.name] = probe.signal.equations(self._states[probe.name])._asdict()
        return WorldResult(
            signals=signals,
            not_visible=self._hidden,
            utility=np.array(outcome.utility, dtype=np.float64),
            transcript=self._transcript.hexdigest(),
            model=digest([final]),
            sights={name: dict(counts) for name, counts in self._sights.items()},
            carried=self._carried,
            aborted=self._aborted,
            queries=queries,
            equations=equations,
        )
