"""Strategies and mods: Flower takes what the ranges allow, and what they forbid is refused with its line."""

from pathlib import Path

import numpy as np
import pytest

from fedsim.errors import ScenarioError
from fedsim.scenario import Option, Plugin
from fedsim.scenario_file import Known, load
from strategies import MODS, STRATEGIES, build_mods, build_strategy, min_clients

KNOWN = Known(
    attacks={"loss": "record", "loss_test": "property"},
    strategies={name: row.options for name, row in STRATEGIES.items()},
    mods={name: row.options for name, row in MODS.items()},
    sources=("digits",),
)
OPTIONS = [(kind, row, name) for kind, table in (("strategy", STRATEGIES), ("mods", MODS)) for row in table
           for name in table[row].options]  # fmt: skip


def option_of(kind: str, row: str, name: str) -> Option:
    return STRATEGIES[row].options[name] if kind == "strategy" else MODS[row].options[name]


def edges(option: Option) -> tuple[list[float], list[float]]:
    """Values just inside and just outside the range."""
    whole = isinstance(option.default, int)
    inside: list[float] = []
    outside: list[float] = []
    for edge, is_open, away in ((option.low, option.low_open, -1), (option.high, option.high_open, 1)):
        if np.isfinite(edge):
            beyond = edge + away if whole else float(np.nextafter(edge, away * np.inf))
            before = edge - away if whole else float(np.nextafter(edge, -away * np.inf))
            inside.append(before if is_open else edge)
            outside.append(edge if is_open else beyond)
    return inside, outside


def read(folder: Path, *lines: str) -> Plugin:
    """Return the strategy, or else the mod, of a scenario with these lines (line 4 and on) in its federation."""
    path = folder / "scenario.yaml"
    head = ["name: small", "data: {source: digits, candidates: 40, clients: 4}", "federation:"]
    path.write_text("\n".join([*head, *lines, "audits: [{name: outsider, attacks: [loss]}]"]) + "\n")
    federation = load(str(path), known=KNOWN).scenario.federation
    return federation.mods[0] if federation.mods else federation.strategy


def lines_for(kind: str, row: str, name: str, value: float | str) -> list[str]:
    if kind == "strategy":
        return ["  strategy:", f"    name: {row}", "    options:", f"      {name}: {value}"]
    return ["  mods:", f"  - name: {row}", "    options:", f"      {name}: {value}"]


@pytest.mark.parametrize(("kind", "row", "name"), OPTIONS)
def test_the_edges_of_each_range(kind: str, row: str, name: str, tmp_path: Path) -> None:
    option = option_of(kind, row, name)
    inside, outside = edges(option)
    assert inside  # every option has a range
    for value in (option.default, *inside):
        plugin = read(tmp_path, *lines_for(kind, row, name, repr(value)))
        assert plugin.options[name] == value
        # Flower itself agrees.
        if kind == "strategy":
            assert getattr(build_strategy(plugin, evaluate_clients=False), name) == value
        else:
            assert getattr(build_mods([plugin])[0], name) == value
    for value in outside:
        with pytest.raises(ScenarioError) as caught:
            read(tmp_path, *lines_for(kind, row, name, repr(value)))
        for words in ("scenario.yaml:7: ", f"options.{name}: got {value!r}; allowed: a ", "number "):
            assert words in str(caught.value)


@pytest.mark.parametrize(
    ("row", "name", "value", "allowed"),
    [
        ("fedtrimmedavg", "beta", "0.9", "a number at least 0 and below 0.5"),
        ("fedtrimmedavg", "beta", "-1", "a number at least 0 and below 0.5"),
        ("krum", "num_malicious_nodes", "-1", "a whole number at least 0"),
        ("multikrum", "num_nodes_to_select", "0", "a whole number at least 1"),
        ("qfedavg", "client_learning_rate", "0", "a number above 0 and at most 1000000000"),
        ("qfedavg", "q", "-50", "a number at least 0 and at most 100"),
        ("fedprox", "proximal_mu", "-1", "a number at least 0 and at most 1000000000"),
        ("fedadam", "tau", "0", "a number above 0 and at most 1000000000"),
        ("fedadam", "beta_1", "2", "a number at least 0 and below 1"),
        ("fedyogi", "eta", "-1", "a number above 0 and at most 1000000000"),
        ("fedavgm", "server_momentum", "-3", "a number at least 0 and below 1"),
        ("fedavgm", "server_learning_rate", "0", "a number above 0 and at most 1000000000"),
        ("flower_local_dp", "clipping_norm", "0", "a number above 0 and at most 1000000000"),
        ("flower_local_dp", "sensitivity", "-1", "a number at least 0 and at most 1000000000"),
        ("flower_local_dp", "delta", "0", "a number above 0 and below 1"),
        ("flower_local_dp", "delta", "5", "a number above 0 and below 1"),
        ("flower_local_dp", "epsilon", "0", "a number above 0 and at most 1000000000"),
    ],
)
def test_values_without_sense(row: str, name: str, value: str, allowed: str, tmp_path: Path) -> None:
    kind = "strategy" if row in STRATEGIES else "mods"
    with pytest.raises(ScenarioError) as caught:
        read(tmp_path, *lines_for(kind, row, name, value))
    assert str(caught.value).endswith(f"options.{name}: got {value}; allowed: {allowed}")
    assert str(caught.value).startswith(f"{tmp_path / 'scenario.yaml'}:7: ")


def test_multikrum_cannot_select_more_than_reply() -> None:
    def needed(**options: int) -> int:
        return min_clients(Plugin(name="multikrum", options=dict(options)))

    assert needed(num_nodes_to_select=99) == 99
    assert needed(num_nodes_to_select=2, num_malicious_nodes=1) == 5
    assert needed() == 3


def test_defaults_are_shown_as_they_are() -> None:
    assert [f"{name} = {option}" for name, option in STRATEGIES["fedavgm"].options.items()] == [
        "server_learning_rate = 1.0",
        "server_momentum = 0.9",
    ]


SCENARIO = """\
name: small
data: {source: digits, candidates: 40, clients: 4}
audits: [{name: outsider, attacks: [loss]}]
claims:
- {audit: outsider, at_most: 0.6}
"""


@pytest.mark.parametrize(
    ("key", "low", "high", "below", "above"),
    [
        ("claims.0.at_most", 1e-9, 1, 0, 1.0001),
        ("claims.0.confidence", 0.51, 0.9999, 0.5, 0.99991),
        ("worlds", 2, 100_000, 1, 100_001),
        ("model.hidden", [1], [100_000], [0], [100_001]),
        ("seed", 0, 2**63 - 1, -1, 2**63),
    ],
)
def test_bounds_of_settings(key: str, low: object, high: object, below: object, above: object, tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    for value in (low, high):
        load(str(path), [f"{key}={value}"], known=KNOWN)
    for value in (below, above):
        with pytest.raises(
            ScenarioError, match=r"allowed: .*(whole )?number (at least|above) .* at most|too large a number"
        ):
            load(str(path), [f"{key}={value}"], known=KNOWN)


@pytest.mark.parametrize("seed", [0, 2**63 - 1, -1, 2**63, 10**40])
def test_a_seed_has_the_same_bounds_on_every_way_in(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    for overrides, option in (([f"seed={seed}"], None), ([], seed)):
        if 0 <= seed < 2**63:
            assert load(str(path), overrides, option, known=KNOWN).scenario.seed == seed
            continue
        with pytest.raises(ScenarioError, match=rf"seed.{seed}: .*(allowed|too large)"):
            load(str(path), overrides, option, known=KNOWN)


def test_a_claim_stands_once(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO + "- {audit: outsider, at_most: 0.7}\n- {at_most: 0.6, audit: outsider, metric: auc}\n")
    with pytest.raises(ScenarioError, match=r"yaml:7: claims\.2: the same claim stands twice"):
        load(str(path), known=KNOWN)
    path.write_text(SCENARIO + "- {audit: outsider, at_most: 0.7}\n")
    assert len(load(str(path), known=KNOWN).scenario.claims) == 2


def test_a_property_game_has_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    text = """\
name: small
data: {source: digits, candidates: 40, clients: 4}
audits:
- name: ratio
  attacks: [loss_test]
  game: {name: property, column: sex, value: f, shares: [0.4, SHARE]}
"""
    path.write_text(text.replace("SHARE", "0.4"))
    with pytest.raises(ScenarioError, match=r"yaml:6: audits\.0\.game: both `shares` are 0\.4, so there is no secret"):
        load(str(path), known=KNOWN)
    path.write_text(text.replace("SHARE", "0.5"))
    load(str(path), known=KNOWN)
