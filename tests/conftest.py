"""One thread for every test: several processes test at once, and with a thread a core each would wait for others."""

import gc

from fedsim.threads import pin

pin()


def pytest_collection_finish() -> None:
    """Some of Flower's strategies collect garbage after every reply: let them look at what is new only."""
    gc.freeze()
