"""What workers need: the server that forks them imports it once for all, and a fork takes no time."""

from fedsim.processes import uncollected

with uncollected():
    import attacks  # noqa: F401
    import fedsim.cli  # the program itself, which each worker would import again
    import fedsim.engine  # noqa: F401
    import strategies  # noqa: F401
