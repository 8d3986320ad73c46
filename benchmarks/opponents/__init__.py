"""Other simulators, each running the same federation."""
