"""Games: how the secret of each world is drawn, and what the attacker is asked. Only they and the results know it.

A file a game; `common` is what they share, `holders` what those about a property do.
"""

from fedsim.data.pool import Pool
from fedsim.games import batches, canaries, client, client_property, distinguish, labels, property, record, source
from fedsim.scenario import (
    BatchGame,
    CanaryGame,
    ClientGame,
    ClientPropertyGame,
    DistinguishGame,
    Game,
    LabelGame,
    PropertyGame,
    Scenario,
)
from fedsim.world import Draw


def draw(scenario: Scenario, pool: Pool, game: Game, watchers: frozenset[int]) -> Draw:
    """Return the worlds and exams of `game`; `watchers` are clients that a vantage needs to see at work in the control
    worlds too.
    """
    match game:
        case PropertyGame():
            return property.draw(scenario, pool, game)
        case LabelGame():
            return labels.draw(scenario, pool, game)
        case CanaryGame():
            return canaries.draw(scenario, pool, game)
        case ClientGame():
            return client.draw(scenario, pool, game, watchers)
        case DistinguishGame():
            return distinguish.draw(scenario, pool, game, watchers)
        case ClientPropertyGame():
            return client_property.draw(scenario, pool, game, watchers)
        case BatchGame():
            return batches.draw(scenario, pool, game)
        case "source":
            return source.draw(scenario, pool, watchers)
        case _:
            return record.draw(scenario, pool, watchers)


def title(game: Game) -> str:
    """Return the short name of a game, unique among different games."""
    match game:
        case PropertyGame():
            return property.title(game)
        case LabelGame():
            return labels.title(game)
        case CanaryGame():
            return canaries.title(game)
        case ClientGame():
            return client.title(game)
        case DistinguishGame():
            return distinguish.title(game)
        case ClientPropertyGame():
            return client_property.title(game)
        case BatchGame():
            return batches.title(game)
        case _:
            return game
