"""The game canaries: which of the clients or records that an auditor made up took part?"""

import numpy as np

from fedsim.canaries import Canaries
from fedsim.data.pool import Pool
from fedsim.games.common import by_owner, everyone_else, flips
from fedsim.randomness import derive
from fedsim.scenario import CanaryGame, DropOut, Federation, RecordPrivacy, Scenario
from fedsim.views import CanaryAsk
from fedsim.world import Bools, Draw, Exam, Kind, Rows, World


def title(game: CanaryGame) -> str:
    """Return the short name of the game, unique among different ones."""
    return f"canaries:{game.unit}:{game.direction}:{game.count}"


def draw(scenario: Scenario, pool: Pool, game: CanaryGame) -> Draw:
    """Worlds that all train on the same records, and differ in who of the canaries takes part."""
    kind = title(game)
    canaries = Canaries(game.unit, game.direction, game.count, derive(scenario.seed, kind))
    everybody = np.concatenate([pool.candidates, pool.background])
    rows = tuple(by_owner(everybody, pool.owner[everybody], pool.clients))
    worlds: list[World] = []

    def drawn(what: Kind, count: int, federation: Federation) -> Bools:
        members = flips(scenario, f"{kind} {what}", count, game.count)
        for w in range(count):
            present = tuple(np.flatnonzero(members[w]).tolist())
            worlds.append(World(f"{kind}-{what}-{w:04d}", rows, scenario.model, federation, canaries, present))
        return members

    def exam(what: Kind, positions: Rows, members: Bools, first: int) -> Exam:
        return Exam(
            kind=what,
            worlds=positions,
            ask=CanaryAsk(canaries, first, game.count),
            members=members,
            targets=np.ones(len(positions), dtype=bool),
            references=everyone_else(len(positions)),
            blind=np.broadcast_to(np.arange(game.count, dtype=np.float64)[:, None], (len(positions), game.count, 1)),
            owner=np.full(game.count, -1),
            new_items=False,  # the auditor made them alike, and asks about all of them
        )

    main = np.arange(scenario.worlds)
    exams = [exam("main", main, drawn("main", scenario.worlds, scenario.federation), 0)]
    exams.append(exam("null", main, flips(scenario, f"{kind} null", scenario.worlds, game.count), game.count))
    if count := scenario.controls.planted_worlds:
        members = drawn("planted", count, undefended(scenario.federation, game))
        exams.append(exam("planted", np.arange(scenario.worlds, len(worlds)), members, 0))
    return Draw(tuple(worlds), tuple(exams))


def undefended(federation: Federation, game: CanaryGame) -> Federation:
    """Return a federation without defences; canary records need the steps of DP-SGD, and get them without noise."""
    norm = federation.privacy.clipping_norm if federation.privacy else 1.0
    bare = RecordPrivacy(name="record", clipping_norm=norm, noise_multiplier=0.0) if game.unit == "record" else None
    return federation.model_copy(update={"privacy": bare, "secure_aggregation": None, "drop_out": DropOut()})
