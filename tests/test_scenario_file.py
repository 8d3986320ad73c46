"""Reading scenarios: what is wrong is named with its line, and what is right is read as written."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedsim.errors import ScenarioError
from fedsim.scenario import (
    Audit,
    Data,
    DifferenceClaim,
    EpsilonClaim,
    Federation,
    LabelGame,
    MetricClaim,
    Options,
    Partition,
    Plugin,
    PropertyGame,
    RecordPrivacy,
    Release,
    Scenario,
    Setup,
)
from fedsim.scenario_file import DEEPEST_NESTING, LARGEST_FILE_BYTES, Known, dump, load, located, warnings

KNOWN = Known(
    attacks={"loss": "record", "lira": "record", "loss_test": "property", "unmixing": "labels", "forest": "batches"},
    strategies={"fedavg": {}, "fedprox": {"proximal_mu": 0.1}, "krum": {"num_malicious_nodes": 0}},
    mods={"clip": {"norm": 1.0, "flat": True, "where": "here"}},
    sources=("digits", "adult"),
    bounds=("one_run", "gdp"),
)

VALID = """\
name: small
data: {source: digits, candidates: 40, clients: 4}
federation:
  rounds: 3
audits:
  - name: outsider
    attacks: [loss, lira]
"""


def written(folder: Path, text: str | bytes) -> str:
    path = folder / "scenario.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def refusal(path: str, *overrides: str, seed: int | None = None) -> str:
    """The one line with which `path` is refused, the path itself taken off."""
    with pytest.raises(ScenarioError) as caught:
        load(path, overrides, seed, known=KNOWN)
    message = str(caught.value)
    assert message.isprintable()  # one line, and nothing that drives a terminal
    return message.removeprefix(path)


class Bad(NamedTuple):
    """An edit of the valid scenario (old text -> new text), where it must be found, and what the message must say."""

    old: str
    new: str
    place: str
    says: tuple[str, ...]


END = VALID[-1:]
DIFFERENCE = """\
  - {{name: twin, attacks: [loss]}}
claims:
  - {{audit: outsider, attack: {}, lower_than: {}}}
"""
STRUCTURE = {
    "typo in a section": Bad(
        "federation:", "federtion:", ":3: federtion", ("unknown key", "release", "mean federation?")
    ),
    "typo in a key": Bad("rounds", "rouds", ":4: federation.rouds", ("clients_per_round", "did you mean rounds?")),
    "typo in a needed key": Bad("attacks", "atacks", ":7: audits.0.atacks", ("did you mean attacks?",)),
    "missing key": Bad(", candidates: 40", "", ":2: data.candidates", ("is missing", "a whole number at least 4")),
    "text for a number": Bad("rounds: 3", "rounds: three", ":4: federation.rounds", ("got 'three'", "a whole number")),
    "number for text": Bad("digits", "3", ":2: data.source", ("got 3", "text")),
    "fraction for a count": Bad("rounds: 3", "rounds: 3.5", ":4: federation.rounds", ("got 3.5", "a whole number")),
    "truth for a count": Bad("rounds: 3", "rounds: true", ":4: federation.rounds", ("got true", "a whole number")),
    "nothing": Bad("rounds: 3", "rounds:", ":4: federation.rounds", ("got nothing", "a whole number at least 1")),
    "negative": Bad("rounds: 3", "rounds: -3", ":4: federation.rounds", ("got -3", "at least 1")),
    "neither count nor rate": Bad(
        "rounds: 3",
        "clients_per_round: 0",
        ":4: federation.clients_per_round",
        ("got 0;", "a whole number at least 1 or a number above 0 and at most 1"),
    ),
    "text for a mapping": Bad(
        "rounds: 3", "strategy: fedavg", ":4: federation.strategy", ("got 'fedavg'", "name, options")
    ),
    "text for a list": Bad(
        "[loss, lira]", "loss", ":7: audits.0.attacks", ("got 'loss'", "a list of at least 1, each text")
    ),
    "empty list": Bad("[loss, lira]", "[]", ":7: audits.0.attacks", ("got []", "at least 1")),
    "list item": Bad("[loss, lira]", "[loss, 3]", ":7: audits.0.attacks.1", ("got 3", "text")),
    "list for an option": Bad(
        "rounds: 3",
        "strategy: {name: krum, options: {a: [1]}}",
        ":4: federation.strategy.options.a",
        ("got [1]", "number"),
    ),
    "no such choice": Bad(
        "rounds: 3", "rounds: 3\nmodel: {name: mpl}", ":5: model.name", ("softmax, mlp", "did you mean mlp?")
    ),
    "no such game": Bad(
        "attacks:", "game: recrod\n    attacks:", ":7: audits.0.game", ("name: property", "did you mean record?")
    ),
    "nameless game": Bad(
        "attacks:",
        "game: {a: 1}\n    attacks:",
        ":7: audits.0.game",
        ("got {'a': 1}", "name: property, labels, canaries"),
    ),
    "key of another game": Bad(
        "attacks:",
        "game: {name: labels, column: x}\n    attacks:",
        ":7: audits.0.game.column",
        ("keys here are name, client",),
    ),
    "more clients in a crowd than there are": Bad(
        "attacks: [loss",
        "game: {name: distinguish, clients: 99}\n    attacks: [two_sets",
        ":7: audits.0.game.clients",
        ("got 99", "allowed: 2 to"),
    ),
    "half a game": Bad(
        "attacks:",
        "game: {name: property, column: x}\n    attacks:",
        ":7: audits.0.game",
        ("got column", "`column` and `value`"),
    ),
    "path in the name": Bad("small", "../small", ":1: name", ("got '../small'", "letters, digits")),
    "html in the name": Bad("small", "<b>small</b>", ":1: name", ("got '<b>small</b>'", "letters, digits")),
    "terminal codes in the name": Bad("small", r'"\e[31m\n"', ":1: name", (r"\x1b[31m\n", "letters, digits")),
    "column without natural": Bad(
        "clients: 4", "partition: {column: x}", ":2: data.partition", ("scheme natural needs a `column`",)
    ),
    "key of another kind of claim": Bad(
        END,
        END + "claims:\n- {epsilon: 1, at_most: 0.5}\n",
        ":9: claims.0.at_most",
        ("does not go with the other keys here",),
    ),
    "value in a claim of metric": Bad(
        END, END + "claims:\n- {audit: outsider, metric: auc, at_most: 3}\n", ":9: claims.0.at_most", ("got 3",)
    ),
    "value in a claim of epsilon": Bad(
        END, END + "claims:\n- {epsilon: 1, delta: 4}\n", ":9: claims.0.delta", ("got 4", "above 0 and below 1")
    ),
    "half a difference": Bad(
        END,
        END + "claims:\n- {audit: outsider, lower_than: outsider}\n",
        ":9: claims.0.attack",
        ("is missing", "text"),
    ),
    "nameless claim": Bad(END, END + "claims:\n- {}\n", ":9: claims.0.audit", ("is missing",)),
    "masked white box": Bad(
        "rounds: 3", "rounds: 3\nrelease: {access: white_box, output: label}", ":5: release", ("leave `output` out",)
    ),
}

MEANING = {
    "only the name of a game": Bad(
        "attacks:", "game: distinguish\n    attacks:", ":7: audits.0.game", ("write {name: distinguish}",)
    ),
    "only the name of a game that needs more": Bad(
        "attacks:",
        "game: property\n    attacks:",
        ":7: audits.0.game",
        ("write {name: property",),
    ),
    "only the name of an adversary": Bad(
        "attacks:", "adversary: isolation\n    attacks:", ":7: audits.0.adversary", ("; write {name: isolation}",)
    ),
    "no such source": Bad("digits", "digit", ":2: data.source", ("digits, adult", "did you mean digits?")),
    "no such strategy": Bad(
        "rounds: 3",
        "strategy: {name: fed-avg}",
        ":4: federation.strategy.name",
        ("fedavg, fedprox", "did you mean fedavg?"),
    ),
    "no such option": Bad(
        "rounds: 3",
        "strategy: {name: fedprox, options: {proximal_nu: 1}}",
        ":4: federation.strategy.options.proximal_nu",
        ("did you mean proximal_mu?",),
    ),
    "option of another kind": Bad(
        "rounds: 3",
        "strategy: {name: fedprox, options: {proximal_mu: true}}",
        ":4: federation.strategy.options.proximal_mu",
        ("got true", "a number"),
    ),
    "fractional whole option": Bad(
        "rounds: 3",
        "strategy: {name: krum, options: {num_malicious_nodes: 0.5}}",
        ":4: federation.strategy.options.num_malicious_nodes",
        ("got 0.5", "a whole number"),
    ),
    "no such mod": Bad("rounds: 3", "mods:\n    - name: clop", ":5: federation.mods.0.name", ("did you mean clip?",)),
    "no such attack": Bad(
        "[loss, lira]", "[loss, lyra]", ":7: audits.0.attacks.1", ("loss, lira", "did you mean lira?")
    ),
    "attack of another game": Bad(
        "[loss, lira]",
        "[unmixing]",
        ":7: audits.0.attacks.0",
        ("plays the game labels", "this audit's record", "loss, lira"),
    ),
    "attack twice": Bad("[loss, lira]", "[loss, loss]", ":7: audits.0.attacks.1", ("twice",)),
    "no such party": Bad(
        "attacks:", "vantage: servr\n    attacks:", ":7: audits.0.vantage", ("client:3", "did you mean server?")
    ),
    "no such client": Bad(
        "attacks:", 'vantage: "client:4"\n    attacks:', ":7: audits.0.vantage", ("client:0 ... client:3",)
    ),
    "no such client in collusion": Bad(
        "attacks:", 'vantage: "server+client:9"\n    attacks:', ":7: audits.0.vantage", ("no party 'client:9'",)
    ),
    "client with leading zeros": Bad(
        "attacks:",
        'vantage: "client:03"\n    attacks:',
        ":7: audits.0.vantage",
        ("'client:03'; did you mean client:3?",),
    ),
    "labels of an attacker": Bad(
        "attacks: [loss, lira]",
        'game: {name: labels, client: 2}\n    vantage: "server+client:2"\n    attacks: [unmixing]',
        ":8: audits.0.vantage",
        ("client 2 knows its own labels", "game.client"),
    ),
    "too few planted worlds": Bad(
        END, END + "controls: {planted_worlds: 3}\n", ":8: controls.planted_worlds", ("got 3", "0 ", "at least 4")
    ),
    "batches of an attacker": Bad(
        "attacks: [loss, lira]",
        'game: {name: batches, column: a, value: b, client: 2}\n    vantage: "client:2"\n    attacks: [forest]',
        ":8: audits.0.vantage",
        ("client 2 knows its own batches", "game.client"),
    ),
    "batches of no client": Bad(
        "attacks: [loss, lira]",
        "game: {name: batches, column: a, value: b, client: 9}\n    attacks: [forest]",
        ":7: audits.0.game.client",
        ("got 9", "clients are 0 to 3"),
    ),
    "labels of nobody": Bad(
        "attacks: [loss, lira]",
        "game: {name: labels, client: everybody}\n    attacks: [unmixing]",
        ":7: audits.0.game.client",
        ("got 'everybody'", "or all"),
    ),
    "labels of no client": Bad(
        "attacks: [loss, lira]",
        "game: {name: labels, client: 4}\n    attacks: [unmixing]",
        ":7: audits.0.game.client",
        ("got 4", "clients are 0 to 3"),
    ),
    "more clients than records": Bad("clients: 4", "clients: 41", ":2: data.clients", ("41 clients", "40 records")),
    "more clients a round than clients": Bad(
        "rounds: 3", "clients_per_round: 5", ":4: federation.clients_per_round", ("got 5", "4 clients")
    ),
    "no such metric": Bad(
        END,
        END + "claims:\n  - {audit: outsider, metric: acu, at_most: 1}\n",
        ":9: claims.0.metric",
        ("auc", "tpr@fpr"),
    ),
    "audit named twice": Bad(
        "[loss, lira]",
        "[loss]\n  - {name: outsider, attacks: [loss]}",
        ":8: audits.1.name",
        ("'outsider' stands twice",),
    ),
    "claim about no audit": Bad(
        END,
        END + "claims:\n  - {audit: outsidr, at_most: 1}\n",
        ":9: claims.0.audit",
        ("no audit", "did you mean outsider?"),
    ),
    "claim about no attack": Bad(
        END,
        END + "claims:\n- {audit: outsider, attack: los, at_most: 1}\n",
        ":9: claims.0.attack",
        ("any, loss", "mean loss?"),
    ),
    "setup named twice": Bad(
        END,
        END + "setups:\n- {name: one}\n- {name: one}\n",
        ":10: setups.1.name",
        ("'one' stands twice", "setup names must differ"),
    ),
    "audit of no setup": Bad(
        END,
        END + "    setup: oen\nsetups:\n- {name: one}\n",
        ":8: audits.0.setup",
        ("no setup 'oen'", "did you mean one?"),
    ),
    "claim about no setup": Bad(
        END, END + "claims:\n- {epsilon: 1, setup: one}\n", ":9: claims.0.setup", ("no setup 'one'", "none")
    ),
    "no such bound": Bad(
        END, END + "    bounds: [one-rn]\n", ":8: audits.0.bounds.0", ("one_run, gdp", "did you mean one_run?")
    ),
    "bound twice": Bad(END, END + "    bounds: [gdp, gdp]\n", ":8: audits.0.bounds.1", ("twice",)),
    "difference to no audit": Bad(
        END, END + DIFFERENCE.format("loss", "insider"), ":10: claims.0.lower_than", ("no audit 'insider'",)
    ),
    "difference to itself": Bad(
        END, END + DIFFERENCE.format("loss", "outsider"), ":10: claims.0.lower_than", ("outsider twice",)
    ),
    "difference to an attack that is not there": Bad(
        END,
        END + DIFFERENCE.format("loss", "outsider, lower_than_attack: los"),
        ":10: claims.0.lower_than_attack",
        ("no attack of audit outsider 'los'", "did you mean loss?"),
    ),
    "difference of an attack to itself": Bad(
        END,
        END + DIFFERENCE.format("loss", "outsider, lower_than_attack: loss"),
        ":10: claims.0.lower_than",
        ("outsider twice", "another attack of this one (`lower_than_attack`)"),
    ),
    "difference of any attack": Bad(
        END, END + DIFFERENCE.format("any", "twin"), ":10: claims.0.attack", ("no attack of audit outsider 'any'",)
    ),
    "difference of an attack of one audit": Bad(
        END,
        END + DIFFERENCE.format("lira", "twin"),
        ":10: claims.0.attack",
        ("no attack of audit twin 'lira'", "allowed: loss"),
    ),
    "difference of errors": Bad(
        END,
        END + DIFFERENCE.format("loss", "twin, metric: mae"),
        ":10: claims.0.metric",
        ("a smaller error is a larger leak",),
    ),
    "a mistake in the defences": Bad(
        "rounds: 3",
        "privacy: {name: distributed, noise_multiplier: 1}",
        ":4: federation.privacy.name",
        ("protects nobody unless only the sum is seen; add `secure_aggregation`",),
    ),
    "a mistake in a setup": Bad(
        END,
        END + "setups:\n- name: one\n  drop_out: {keys: 0.1}\n",
        ":10: setups.0.drop_out.keys",
        ("no secure aggregation",),
    ),
}

YAML = {
    "duplicate key": Bad("rounds: 3", "rounds: 3\n  rounds: 4", ":5: federation.rounds", ("twice",)),
    "duplicate key, quoted": Bad("name: small", 'name: small\n"name": small', ":2: name", ("twice",)),
    "alias": Bad("rounds: 3", "rounds: *r", ":4: federation.rounds", ("aliases",)),
    "anchor": Bad("rounds: 3", "rounds: &r 3", ":4: federation.rounds", ("aliases",)),
    "anchor on a key": Bad("rounds: 3", "&r rounds: 3", ":4: ", ("aliases",)),
    "tag": Bad(
        "rounds: 3", "rounds: !!python/object/apply:os.getcwd []", ":4: federation.rounds", ("tag", "python/object")
    ),
    "local tag": Bad("rounds: 3", "rounds: !x 3", ":4: federation.rounds", ("tag '!x'",)),
    "merge": Bad("rounds: 3", "<<: {rounds: 3}", ":4: federation", ("'<<'",)),
    "two documents": Bad("audits:", "---\naudits:", ":5: ", ("a second document",)),
    "not a number": Bad("rounds: 3", "rounds: .nan", ":4: federation.rounds", ("'.nan' is not a number",)),
    "infinite": Bad("rounds: 3", "rounds: -.INF", ":4: federation.rounds", ("not a number",)),
    "overflow": Bad("rounds: 3", "rounds: 1e999", ":4: federation.rounds", ("too large",)),
    "huge": Bad("rounds: 3", "rounds: " + "9" * 5000, ":4: federation.rounds", ("too large",)),
    "yes": Bad("rounds: 3", "evaluate_clients: yes", ":4: federation.evaluate_clients", ("write true, false",)),
    "date": Bad("small", "2026-01-31", ":1: name", ("timestamp", 'quote it: "2026-01-31"')),
    "octal": Bad("rounds: 3", "rounds: 010", ":4: federation.rounds", ("'010'", "a decimal number")),
    "base sixty": Bad("rounds: 3", "rounds: 1:30", ":4: federation.rounds", ("'1:30'", "a decimal number")),
    "number as key": Bad("rounds: 3", "3: rounds", ":4: federation", ("a key is a word, got 3",)),
    "list as key": Bad("rounds: 3", "? [a]\n  : 3", ":4: federation", ("a key is a word, not a list",)),
    "tab": Bad("  rounds", "\trounds", ":4: ", ("not YAML", "'\\t'")),
    "unclosed": Bad("[loss, lira]", "[loss, lira", ":8: ", ("not YAML",)),
    "control character": Bad("small", "sm\0all", ":1: ", ("U+0000",)),
    "deep": Bad("rounds: 3", "rounds: " + "[" * 100_000, ":4: federation.rounds", (f"deeper than {DEEPEST_NESTING}",)),
}


@pytest.mark.parametrize("name", [*STRUCTURE, *MEANING, *YAML])
def test_refuses(name: str, tmp_path: Path) -> None:
    bad = (STRUCTURE | MEANING | YAML)[name]
    assert bad.old in VALID
    before, _, after = VALID.rpartition(bad.old)
    message = refusal(written(tmp_path, before + bad.new + after))
    assert message.startswith(bad.place), message
    for words in bad.says:
        assert words in message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", ":1: is empty"),
        (b"# only a comment\n", ":1: is empty"),
        (b"- a\n", ":1: a scenario is a mapping"),
        (b"small", ":1: a scenario is a mapping"),
        (b"name: small\n\xff\xfe\x00", ":2: not UTF-8"),
        (b"\x7fELF\x02\x01", ":1: not "),
        (b" " * (LARGEST_FILE_BYTES + 1), ": is larger than 1,000,000 bytes"),
    ],
)
def test_refuses_what_is_no_scenario(content: bytes, says: str, tmp_path: Path) -> None:
    assert refusal(written(tmp_path, content)).startswith(says)


def test_refuses_a_yaml_bomb_before_it_grows(tmp_path: Path) -> None:
    rows = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    rows += [f"{new}: &{new} [{', '.join(['*' + old] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    assert refusal(written(tmp_path, "\n".join(rows))).startswith(":1: a: anchors and aliases")


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    assert refusal(str(tmp_path)) == ": is a folder; a scenario is a YAML file"
    assert "no such file" in refusal(str(tmp_path / "absent.yaml"))
    assert refusal("quikstart").endswith("did you mean quickstart?")
    assert "\\x1b" in refusal("\x1b[31m")


def test_the_first_of_several_problems_is_shown_and_the_rest_counted(tmp_path: Path) -> None:
    text = VALID.replace("rounds: 3", "rounds: 0\n  local: {epochs: 0}").replace("[loss, lira]", "[]")
    assert re.fullmatch(r":4: federation\.rounds: .* \(and 2 more problems\)", refusal(written(tmp_path, text)))


def test_reads_what_is_written(tmp_path: Path) -> None:
    loaded = load(
        written(tmp_path, VALID.replace("rounds: 3", "local: {learning_rate: 1e-3, momentum: .5}")), known=KNOWN
    )
    assert loaded.scenario.federation.local.learning_rate == 0.001
    assert loaded.scenario.federation.local.momentum == 0.5
    assert loaded.scenario.data.clients == 4
    assert loaded.given["federation"] == {"local": {"learning_rate": 0.001, "momentum": 0.5}}
    assert loaded.places["audits", 0, "attacks", 1] == f"{tmp_path / 'scenario.yaml'}:7"
    assert loaded.path == tmp_path / "scenario.yaml"


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    plain = load(written(tmp_path, VALID), known=KNOWN).scenario
    assert (
        load(written(tmp_path, b"\xef\xbb\xbf" + VALID.replace("\n", "\r\n").encode()), known=KNOWN).scenario == plain
    )


def test_overrides_reach_every_level(tmp_path: Path) -> None:
    path = written(tmp_path, VALID)
    sets = [
        "worlds=5",
        "data.clients=2",
        "audits.0.vantage=client:1",
        "audits.0.attacks.1=loss",
        "audits.0.attacks.0=lira",
        "federation.local.epochs=7",
        "federation.strategy={name: fedprox, options: {proximal_mu: 2}}",
        "release.output=label",
        "description=",
    ]
    scenario = load(path, [*sets[:-1], 'description="a=b"'], 11, known=KNOWN).scenario
    assert (scenario.worlds, scenario.data.clients, scenario.seed, scenario.description) == (5, 2, 11, "a=b")
    assert scenario.audits[0] == Audit(name="outsider", vantage="client:1", attacks=("lira", "loss"))
    assert (scenario.federation.rounds, scenario.federation.local.epochs) == (3, 7)
    assert scenario.federation.strategy == Plugin(name="fedprox", options={"proximal_mu": 2})
    assert scenario.release == Release(output="label")


def test_an_option_of_the_default_strategy_can_be_set(tmp_path: Path) -> None:
    message = refusal(written(tmp_path, VALID), "federation.strategy.options.eta=1")
    assert message.startswith(
        "--set federation.strategy.options.eta=1: federation.strategy.options.eta: no option of fedavg"
    )


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("federation.rounds=0", "federation.rounds: got 0; allowed: a whole number at least 1"),
        ("federation.round=2", "no key 'round' in federation; keys are rounds,"),
        ("federatoin.rounds=2", "did you mean federation?"),
        ("audits.1.vantage=server", "audits has no item '1'; items are 0 to 0"),
        ("audits.x.vantage=server", "audits has no item 'x'"),
        ("audits.0.vantage=servr", "no party 'servr'"),
        ("data.source.x=1", "data.source is 'digits' and has no parts; set data.source itself"),
        ("federation.local={epochs: 0}", "federation.local.epochs: got 0"),
        ("worlds=[1", "not YAML"),
        ("worlds=*a", "anchors and aliases"),
        ("worlds", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("data.options.a.b=3", "data.options.a"),
        ("name=a\nb", "name: got 'a b'"),
    ],
)
def test_refuses_an_override_by_its_own_name(override: str, says: str, tmp_path: Path) -> None:
    message = refusal(written(tmp_path, VALID), override)
    assert message.startswith(f"--set {override}: ".replace("\n", r"\n"))
    assert says in message


def test_accepts_what_is_just_inside_the_bounds(tmp_path: Path) -> None:
    text = VALID.replace(
        "attacks: [loss, lira]",
        'game: {name: labels, client: 2}\n    vantage: "server+server+client:3"\n    attacks: [unmixing]',
    )
    for planted in (0, 4):
        scenario = load(written(tmp_path, text), [f"controls.planted_worlds={planted}"], known=KNOWN).scenario
        assert scenario.controls.planted_worlds == planted


def test_what_weakens_privacy_is_told_with_its_place_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = VALID.replace("rounds: 3", "privacy:\n    name: central\n    specimen: noise_tenth\n    noise_multiplier: 1")
    path = written(tmp_path, text + "claims:\n- {epsilon: 1, observer: server}\n")
    found = warnings(load(path, ["federation.privacy.delta=0.3"], known=KNOWN), KNOWN)
    assert [line.partition(": ")[0] for line in found] == [
        "--set federation.privacy.delta=0.3",
        f"{path}:6",
        f"{path}:12",
        f"{path}:12",
    ]
    assert "federation.privacy.specimen: the specimen noise_tenth is a mistake on purpose" in found[1]
    assert warnings(load(written(tmp_path, VALID), known=KNOWN), KNOWN) == []


def test_later_errors_about_a_key_get_its_place(tmp_path: Path) -> None:
    path = written(tmp_path, VALID)
    loaded = load(path, ["worlds=9"], known=KNOWN)
    for message, place in {
        "data.source: is damaged": f"{path}:2",
        "data.label: has one class": f"{path}:2",
        "audits.0: has no reference worlds": f"{path}:6",
        "worlds: are too few": "--set worlds=9",
    }.items():
        assert str(located(ScenarioError(message), loaded)) == f"{place}: {message}"
    assert str(located(ScenarioError("disk: is slow"), loaded)) == "disk: is slow"


def test_a_negative_seed_is_blamed_on_the_option(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, VALID), seed=-1).startswith("--seed -1: seed: got -1")


words = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["1e5", "yes", "null", "010", "1:30", "~", "<<"]
)
numbers = st.floats(min_value=1e-9, max_value=1e9)
options = st.dictionaries(words, st.booleans() | st.integers(-(2**62), 2**62) | numbers | words, max_size=3)


@example("\x85\U000633ae", {"\u2028a": "\u2029"}, 1.0, None)  # line breaks of Unicode
@settings(deadline=None)
@given(words, options, numbers, st.none() | st.integers(1, 10) | st.floats(min_value=1e-6, max_value=1))
def test_what_is_dumped_loads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, text: str, options: Options, number: float, rate: int | float | None
) -> None:
    plugin = Plugin(name=text, options=options)
    scenario = Scenario(
        name="any",
        description=text,
        data=Data(source="adult", candidates=40, columns=(text,), options=options, partition=Partition(alpha=number)),
        federation=Federation(clients_per_round=rate, strategy=plugin, mods=(plugin, plugin)),
        audits=(
            Audit(name="a", attacks=("loss",)),
            Audit(name="b", game=PropertyGame(name="property", column=text, value=text), attacks=("loss_test",)),
            Audit(name="c", game=LabelGame(name="labels", client=3), attacks=("unmixing",)),
            Audit(name="d", attacks=("loss",), setup="s", bounds=("gdp",)),
        ),
        setups=(Setup(name="s", privacy=RecordPrivacy(name="record", noise_multiplier=1.0)),),
        claims=(
            MetricClaim(audit="a", at_most=min(1.0, number)),
            DifferenceClaim(audit="a", attack="loss", lower_than="d", by=0.25),
            EpsilonClaim(epsilon=min(1e4, number), setup="s", observer="server"),
        ),
    )
    known = Known(
        KNOWN.attacks, strategies={text: options}, mods={text: options}, sources=KNOWN.sources, bounds=KNOWN.bounds
    )
    written_out = dump(scenario)
    assert load(written(tmp_path_factory.getbasetemp(), written_out), known=known).scenario == scenario
    # Other programs read a run's scenario with an ordinary YAML reader.
    assert yaml.safe_load(written_out) == scenario.model_dump(mode="json")
