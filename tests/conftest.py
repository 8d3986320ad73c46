"""One thread for every test: several processes test at once, and with a thread a core each would wait for others."""

import gc
from collections.abc import Iterator

import pytest

from fedsim.threads import pin

pin()


def pytest_collection_finish() -> None:
    """Some of Flower's strategies collect garbage after every reply: let them look at what is new only."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def figures_as_svg_only(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every report of a small run is written, but for the PDF of its figures: they take longer than the run, and show
    what the SVG shows. The tests of reports write them.
    """
    with pytest.MonkeyPatch.context() as patch:
        if request.module.__name__ != "tests.test_report":
            patch.setattr("fedsim.report.to_pdf", lambda _figure: b"%PDF-")
        yield


@pytest.fixture(autouse=True, scope="module")
def nothing_old_is_garbage() -> None:
    """What earlier modules left, and imported since the tests were collected, is no more looked at by Flower either."""
    gc.collect()
    gc.freeze()
