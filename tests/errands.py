"""What tests give worker processes to do; they find it by name, so this imports little."""

import os
import signal
import sys


def nothing(_: None) -> None:
    """Start a worker that needs no start."""


def modules(_: int) -> set[str]:
    """Return what is imported."""
    return set(sys.modules)


def twice(number: int) -> int:
    """Return 2 x number."""
    return 2 * number


def hears_interrupts(_: int) -> bool:
    """Return whether Ctrl-C does anything to this process."""
    return signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def fails(number: int) -> int:
    """Raise an error."""
    raise ValueError(f"no {number}")


def dies(_: int) -> None:
    """End this process as the system does when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def waits_for_ever_after_the_first(number: int) -> int:
    """Return for 0 alone."""
    if number:
        signal.pause()
    return number
