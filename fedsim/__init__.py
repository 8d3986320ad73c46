"""fedsim: run a federation as a scenario describes it, attack it, and say how much it leaks."""

import os

# Flower reads these when it is imported, so they are set before anything else can import it.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "1")

__version__ = "0.1.0"
