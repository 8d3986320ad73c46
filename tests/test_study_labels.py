"""A study: what blurs the label histogram that the last layer gives away. Run with `make test-slow`."""

from pathlib import Path

import pytest

from tests import worlds

pytestmark = pytest.mark.slow
ROWS = ("llg", "llg_plus", "label_composition", "label_unmixing")
SETUPS = (
    {"name": "noise", "privacy": {"name": "local", "clipping_norm": 1.0, "noise_multiplier": 0.05}},
    {"name": "sparse", "mods": ({"name": "sparsify", "options": {"share": 0.02}},)},
    {"name": "long", "local": {"epochs": 60, "batch_size": 200, "learning_rate": 0.5}},
)


def test_noise_compression_and_training_blur_what_one_step_of_an_untrained_network_shows(tmp_path: Path) -> None:
    audits = [
        {"name": name, "vantage": "server", "game": {"name": "labels", "client": 0}, "attacks": ROWS}
        | ({"setup": name} if name != "plain" else {})
        for name in ("plain", *(setup["name"] for setup in SETUPS))
    ]
    scenario = worlds.scenario(
        seed=6,
        data={"source": "digits", "clients": 4, "candidates": 600, "population": 400, "test": 40},
        model={"name": "mlp", "hidden": (64,)},
        federation={"rounds": 1, "local": {"epochs": 1, "batch_size": 200, "learning_rate": 0.05}},
        setups=SETUPS,
        audits=tuple(audits),
        worlds=16,
        controls={"planted_worlds": 0},
    )
    record = worlds.run(scenario, tmp_path / "run")
    found = {(each.audit, each.attack): each.metrics["mae"] for each in record.findings}
    print({place: error.estimate for place, error in found.items()})
    plain = found["plain", "label_unmixing"].high
    assert plain is not None
    assert plain < 0.1  # of some 75 records, class by class: the histogram is exact up to a record or two
    for row in ROWS:
        clear = found["plain", row].estimate
        assert clear is not None
        for setup, times in (("noise", 2), ("sparse", 1), ("long", 1)):
            worse = found[setup, row].estimate
            assert worse is not None
            assert worse > times * clear
