"""The few errors a user can meet."""


class ScenarioError(Exception):
    """The input is at fault: one line that says where, what was found and what is allowed (exit code 2)."""


class RunError(Exception):
    """The run itself failed: a client raised, a model diverged, the disk is full (exit code 3)."""


class Stopped(RunError):
    """The run stopped before its time, and the same command goes on where it stopped (exit code 3)."""


class NotVisible(Exception):
    """What an attack needs did not cross its vantage: a result, not a failure."""
