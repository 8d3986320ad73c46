"""The report of a run, made from its results and evidence alone: one HTML page that works offline, and figure files."""

import base64
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from fedsim.errors import RunError, ScenarioError
from fedsim.figures import (
    OBSERVERS,
    UNITS,
    Drawing,
    draw,
    epsilon,
    epsilon_name,
    has_curve,
    label,
    to_pdf,
    to_svg,
    tpr_metric,
)
from fedsim.intervals import in_percent
from fedsim.metrics import parse_metric
from fedsim.results import (
    FULL,
    RESULTS,
    BoundFound,
    Claim,
    EpsilonRow,
    Equations,
    Exposed,
    Finding,
    GameName,
    Json,
    Quantity,
    Queries,
    Results,
    SetupFound,
    Sight,
    Spread,
    read,
)

REPORT = "report.html"
FIGURES = "figures"
KINDS = {
    "train": "models received for training",
    "keys and shares": "keys and shares",
    "train-reply": "updates",
    "masked-reply": "masked updates",
    "aggregate": "sums of updates",
    "abort": "rounds given up",
    "refusals": "refusals",
    "evaluate": "models received for evaluation",
    "evaluate-reply": "evaluation results",
    "final": "final model",
}
ORDER = ("auc", "tpr", "advantage", "balanced_accuracy", "precision", "mae", "n_leaked")


class Words(NamedTuple):
    """How the report speaks of a game; a member is whatever the true answer is yes for."""

    question: str
    member: str
    non_member: str
    item: str


GAMES: dict[GameName, Words] = {
    "record": Words("Was this record in the training data?", "a record that was in", "one that was out", "record"),
    "property": Words("Does the training population have the property?", "a “yes” world", "a “no” world", "population"),
    "labels": Words("Does the client hold this class?", "a class that it holds", "one that it does not hold", "class"),
    "canaries": Words("Which canaries took part?", "a canary that took part", "one that did not", "canary"),
    "source": Words(
        "Does the client hold this record?", "a record that the client named holds", "one that another holds", "record"
    ),
    "client": Words("Did this client take part at all?", "a client that took part", "one that did not", "client"),
    "distinguish": Words(
        "Which of two known record sets does this client hold?",
        "a client that holds the second",
        "one that holds the first",
        "client",
    ),
    "client_property": Words(
        "Does this client have records with the property?", "a client that has some", "one that has none", "client"
    ),
    "batches": Words(
        "In which rounds did the client train on records with the property?",
        "a round with such records",
        "one without",
        "round",
    ),
}
CONTROLS = {
    "null": ("Null", "no leak is possible, so the AUC must cover 0.5"),
    "planted": ("Planted leak", "worlds with a leak made on purpose, so the attack must find it"),
    "blind": ("Blind baseline", "a guess from the data alone, without any model; its AUC must cover 0.5"),
}
SLICES = {"mislabelled": "records with a wrong label", "most_exposed_tenth": "most exposed tenth"}
OBSERVED = {"server": "the server", "participant": "a participant", "public": "the public"}
PROTECTED = {"client": "a client’s whole data", "record": "one record"}
STANDS = "the federation as it stands"
MECHANISMS = {
    "central": "central: the server clips each client’s update and adds Gaussian noise to their sum",
    "adaptive": "adaptive: the server clips each client’s update at a norm that follows the quantile {quantile:g} of "
    "their norms, and adds Gaussian noise to their sum",
    "local": "local: each client clips its update and adds Gaussian noise before it sends it",
    "distributed": "distributed: each client adds a little integer noise ({noise}) inside secure aggregation, so that "
    "only the sum carries enough",
    "record": "record level: DP-SGD inside each client, which clips each record’s gradient and adds Gaussian noise",
}
SPECIMENS = {
    "reused_seed": "every round is masked with the same stream",
    "flower_dp_weighted": "Flower’s own wrapper around an average that is weighted by examples",
    "noise_tenth": "a tenth of the noise that is accounted for",
    "no_clipping": "updates are not clipped",
    "tiny_sensitivity": "noise for a sensitivity 10,000 times below the clipping norm",
}
LOST = {
    "keys": "its keys",
    "shares": "the shares of its secrets",
    "update": "its update",
    "unmask": "the shares that unmask the sum",
}
TOLD = "tpr@fpr=0.01"
"""The rate in which the note of an epsilon says what it permits."""
STATUS_SIGNS = {"refuted": "✕", "not refuted": "○", "inconclusive": "?"}


class Column(NamedTuple):
    """An audit as a column of the table of attacks."""

    audit: str
    vantage: str
    setup: str | None
    adversary: str | None
    cost: Quantity | None


class Grid(NamedTuple):
    """The table of attacks (rows) and audits (columns) of one game."""

    words: Words
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, str, tuple[Finding | None, ...]], ...]  # attack, title, one finding a column


class Cell(NamedTuple):
    """A quantity in a table, or the number of the note that says why there is none."""

    quantity: Quantity
    note: int | None


class Promise(NamedTuple):
    """What a setup promised to whom: its defences, epsilon by unit and observer, and why it is what it is."""

    found: SetupFound
    title: str
    specimens: tuple[str, ...]  # deliberate mistakes, in words
    defences: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[tuple[EpsilonRow, int], ...]], ...]  # unit, an epsilon and its note for each observer
    notes: tuple[str, ...]
    picture: str | None  # name of its figure


class BoundRow(NamedTuple):
    """A bound on epsilon, and whose it is."""

    finding: Finding
    title: str  # of the setup
    bound: BoundFound


class Count(NamedTuple):
    """How much the attacks of an audit were asked."""

    audit: str
    attacks: tuple[str, ...]
    members: int
    non_members: int
    worlds: int
    groups: int | None


class Measures(NamedTuple):
    """The table of every metric of every finding, with notes."""

    metrics: tuple[str, ...]
    rows: tuple[tuple[Finding, str, tuple[Cell | None, ...]], ...]  # finding, slice in words, one cell a metric
    notes: tuple[str, ...]


def write_report(folder: Path) -> Path:
    """Write `report.html` and `figures/*` into the run folder, from its results alone, and return the path of the page.

    Args:
        folder: a finished run. Existing reports are replaced.

    Raises:
        ScenarioError: the results or the evidence are missing or damaged, or the folder cannot be written.
        RunError: the disk is full.
    """
    record = read(folder)
    drawings = draw(record, folder)
    pictures = {name: to_svg(drawing.figure) for name, drawing in drawings.items()}
    files = {f"{FIGURES}/{name}.svg": svg.encode() for name, svg in pictures.items()}
    files |= {f"{FIGURES}/{name}.pdf": to_pdf(drawing.figure) for name, drawing in drawings.items()}
    write_all(folder, files | {REPORT: _page(record, drawings, pictures).encode()})
    return folder / REPORT


def write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write all files (path in the folder -> content), under other names first, so that none is ever half there.

    Raises:
        ScenarioError: the folder cannot be written.
        RunError: the disk is full.
    """
    partial = folder / f".{REPORT}.{secrets.token_hex(4)}.partial"
    try:
        for path in (partial, partial / FIGURES):
            path.mkdir()
        for name, content in files.items():
            (partial / name).write_bytes(content)
        (folder / FIGURES).mkdir(exist_ok=True)
        for name in files:
            (partial / name).replace(folder / name)
    except OSError as error:
        if error.errno in FULL:
            raise RunError(f"cannot write {REPORT} and {FIGURES}/: {error.strerror}; nothing of it was kept") from None
        where = str(error.filename2 or error.filename).replace(str(partial), str(folder))
        raise ScenarioError(f"cannot write {REPORT} and {FIGURES}/: {where}: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def render(record: Results, folder: Path) -> str:
    """Return the report as one self-contained HTML page.

    Args:
        record: the results.
        folder: the run folder, for the evidence that the ROC curves are drawn from.

    Raises:
        ScenarioError: the evidence is missing or damaged.
    """
    drawings = draw(record, folder)
    return _page(record, drawings, {name: to_svg(drawing.figure) for name, drawing in drawings.items()})


def _page(record: Results, drawings: Mapping[str, Drawing], pictures: Mapping[str, str]) -> str:
    """The page from a record and its figures."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fedsim"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "percent": percent, "label": label, "https": https, "shown": shown}
    environment.filters |= {"count": "{:,}".format, "epsilon": epsilon, "setup_title": setup_title}
    environment.filters |= {"under": under, "in_percent": in_percent}
    asking = [finding for finding in record.findings if finding.queries is not None]
    return environment.get_template("report.html.j2").render(
        record=record,
        scenario=record.scenario.effective,
        drawings=drawings,
        sources={name: _data_address(svg) for name, svg in pictures.items()},
        headline=headline(record.claims, record.findings),
        signs=STATUS_SIGNS,
        coins=coins(record),
        scale=scale(record.findings),
        contrast=contrast(record.findings),
        setting=setting(record),
        kinds=message_kinds(record.federation.sights),
        kind_names=KINDS,
        tally=tally,
        several=any(found.name is not None for found in record.setups),
        promises=promises(record, drawings),
        bounds=bound_rows(record.findings),
        observers=OBSERVED,
        protected=PROTECTED,
        tpr=tpr_metric(record.findings),
        grids=grids(record.findings),
        asking=asking,
        solving=[(each, equations_in_words(each.equations)) for each in record.findings if each.equations],
        monitored=any(finding.queries and finding.queries.monitored for finding in asking),
        rocs=[name for name in drawings if name.startswith("roc-")],
        curveless=[finding for finding in record.findings if finding.status == "measured" and not has_curve(finding)],
        counts=counts(record.findings),
        caveats=caveats(record.findings),
        measures=measures(record.findings),
        controls=CONTROLS,
        words=GAMES,
        attacks=list({finding.attack: finding for finding in record.findings}.values()),
        exposed=exposed(record.findings),
        resolution=resolution(record.findings),
    )


def _data_address(svg: str) -> str:
    """The picture itself as an address, so that the page needs no file beside it."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def number(value: float | None) -> str:
    """Return a value with three decimals, or with three significant digits where that says more or it is large."""
    if value is None:
        return "–"
    return f"{value:.3f}" if 0.01 <= abs(value) < 1000 or abs(value) < 1e-12 else f"{value:.3g}"


def shown(found: Quantity | Claim, name: Literal["estimate", "high"]) -> str:
    """Return the estimate or the upper end of a quantity, or of a claim; ∞ where it is infinite."""
    return "∞" if name in found.infinite else number(getattr(found, name))


def percent(share: float) -> str:
    """Return a share as a percentage of at most three significant digits."""
    return f"{100 * share:.3g} %"


def https(link: str) -> bool:
    """Return whether a link may be followed from the page."""
    return re.fullmatch(r"https?://[^\s\"'<>]+", link) is not None


def headline(claims: Sequence[Claim], findings: Sequence[Finding]) -> str:
    """Return the verdict of the whole run in one line."""
    if not claims:
        measured = sum(finding.status == "measured" for finding in findings)
        return f"No privacy claim was made; {measured} attack{'s' * (measured != 1)} measured"
    noun = f"{len(claims)} claims"
    counts = {status: sum(claim.status == status for claim in claims) for status in STATUS_SIGNS}
    parts = [f"{count} {status}" for status, count in counts.items() if count]
    first, *rest = parts
    count, _, status = first.partition(" ")
    return ", ".join([f"{count} of {noun} {status}", *rest])


def coins(record: Results) -> list[str]:
    """Return a paragraph for each game that was played: what the coins decided, and what the attacker is asked."""
    effective, worlds = record.scenario.effective, record.federation.worlds
    facts = {each.audit: each.facts for each in record.findings}
    told = (_secret(audit["game"], effective, worlds, facts.get(audit["name"], {})) for audit in effective["audits"])
    return list(dict.fromkeys(told))


def scale(findings: Sequence[Finding]) -> str:
    """Return a paragraph that says how to read the numbers."""
    games = [words for game, words in GAMES.items() if any(finding.game == game for finding in findings)]
    higher = "; ".join(f"{words.member} scores higher than {words.non_member}" for words in games)
    text = (
        f"The attacker does not see the coins; it answers with a score. The AUC says how often {higher}: "
        "0.5 is guessing, 1.0 is certainty."
    )
    tpr = tpr_metric(findings)
    if tpr is None:
        return text
    level = parse_metric(tpr).level
    return (
        f"{text} {label(tpr)} (true-positive rate at a false-positive rate of {percent(level)}) is stricter: "
        f"if the attacker may accuse {percent(level)} of the non-members wrongly, which share of the members "
        f"does it find? {level:g} is guessing."
    )


def _secret(game: str | Json, effective: Json, worlds: int, facts: Mapping[str, float]) -> str:
    """What the coins decided, in one or two sentences; facts: of the findings."""
    if game == "source":
        candidates, clients = effective["data"]["candidates"], effective["data"]["clients"]
        return (
            f"All of {candidates:,} records were in the training data, each at one of {clients} clients. For each a "
            f"client was named; in each of {worlds} federations (“worlds”) the record was dealt anew, to the client "
            "named as often as to all others together where clients are alike. The attacker is asked of each record: "
            "does the client named hold it? Records that it holds are members, the others non-members."
        )
    if isinstance(game, str):
        candidates, clients = effective["data"]["candidates"], effective["data"]["clients"]
        return (
            f"For each of {candidates:,} records a coin decided whether it was in the training data of a federation "
            f"of {clients} clients. {worlds} such federations (“worlds”) were trained, each with its own coins. "
            "The attacker is asked of each record: was it in? Records that were in are members, the others non-members."
        )
    if game["name"] == "distinguish":
        return (
            f"The records of each of {game['clients'] or effective['data']['clients']} clients were cut into two sets "
            f"of equal size and with the same labels. In each of {worlds} federations (“worlds”) a coin decided for "
            "each client which of the two it trained on. The attacker knows both sets of the clients it is asked "
            "about, and says which: those with the second set are members, the others non-members. To know both is "
            "the worst case, as in the definition of differential privacy."
        )
    if game["name"] == "client":
        held = {
            "same": "the records that each of them trains on",
            "disjoint": "records of each of them that are held out of the training",
        }
        return (
            f"In each of {worlds} federations (“worlds”) a coin decided for each of {effective['data']['clients']} "
            "clients whether it took part at all; at least one always does, and nobody is asked about it. The attacker "
            f"holds {held[game['sample']]}, and is asked of each client: was it there? Those that were are members, "
            "the others non-members."
        )
    if game["name"] == "canaries":
        made = {"client": "clients that always send the same update", "record": "records with one fixed gradient"}
        return (
            f"An auditor made up {game['count']:,} canaries: {made[game['unit']]}, each in a direction of its own. In "
            f"each of {worlds} federations (“worlds”) a coin decided for each canary whether it took part. The "
            "attacker is asked of each: did it? Those that did are members, the others non-members. A mechanism "
            "protects nobody worse than canaries, so what is found about them says how good it can be at best."
        )
    if game["name"] == "property":
        return _property_secret(game, effective, worlds, facts)
    if game["name"] in ("client_property", "batches"):
        what = _is(game["column"], game["value"])
        who = "client, the same from the first round to the last," if game["name"] == "client_property" else "round"
        at = "" if game["name"] == "client_property" else f" at client {game['client']}"
        return (
            f"In each of {worlds} federations (“worlds”) a coin decided for each {who} whether "
            f"{percent(game['share'])} of the records trained on{at} have {what}, or none. Number of records and "
            f"labels are the same either way. The attacker is asked of each {who.split(',')[0]}: was it so? Those with "
            "such records are members, those without are non-members."
        )
    everybody = game["client"] == "all"
    whose, who = ("all clients", "does anybody") if everybody else (f"client {game['client']}", "does this client")
    return (
        f"In each of {worlds} federations (“worlds”) a random half of the classes was in the data of {whose}. The "
        f"attacker is asked of each class: {who} hold it? Classes held are members, the others non-members."
    )


def _is(column: str, value: str | bool | Json) -> str:
    """Return a property in words: a column and its value, or the bounds of its numbers."""
    if isinstance(value, dict):
        bounds = [f"{key.replace('_', ' ')} {bound:.15g}" for key, bound in value.items() if bound is not None]
        return f"“{column}” {' and '.join(bounds)}"
    return f"“{column}” = “{str(value).lower() if isinstance(value, bool) else value}”"


def _property_secret(game: Json, effective: Json, worlds: int, facts: Mapping[str, float]) -> str:
    """What the coins decided of a property, and what privacy of records and clients has to do with it."""
    parts = game["where"] or {game["column"]: game["value"]}
    named = " and ".join(_is(column, value) for column, value in parts.items())
    count = f"{facts['records']:.0f} " if "records" in facts else ""
    noun = "training records" if game["client"] is None else f"records of client {game['client']}"
    whose = f"the {count}{noun}"
    # Of whole records, what a share comes to is seldom exactly what was asked for.
    real = [facts.get(f"share {place}", share) for place, share in enumerate(game["shares"], start=1)]
    shares = [f"{100 * share:.4g} %" for share in real]
    if len(shares) > 2:
        secret = f"{', '.join(shares[:-1])} or {shares[-1]}"
        asked = (
            "The attacker estimates the share; worlds nearer to the last share than to the first are members, the "
            "others non-members."
        )
    else:
        secret = f"{shares[0]} (no) or {shares[1]} (yes)"
        asked = "The attacker is asked which; “yes” worlds are members, “no” worlds non-members."
    text = f"In each of {worlds} federations (“worlds”) a coin decided which share of {whose} have {named}: {secret}."
    private = [effective["federation"]["privacy"], *(setup["privacy"] for setup in effective["setups"])]
    if not any(private):
        return f"{text} {asked}"
    return (
        f"{text} {asked} Differential privacy was never meant to hide this: it protects single records or clients, and "
        "a share is a fact about all of them together."
    )


def contrast(findings: Sequence[Finding], most: int = 6) -> str | None:
    """Return how far the attacks of the first audit with two or more lie apart; None if there is no such audit."""
    metric = tpr_metric(findings) or "auc"
    reached: dict[str, dict[str, Quantity]] = {}
    for finding in findings:
        if metric in finding.metrics and finding.metrics[metric].estimate is not None:
            reached.setdefault(finding.audit, {})[finding.attack] = finding.metrics[metric]
    audit = next((audit for audit, attacks in reached.items() if len(attacks) > 1), None)
    if audit is None:
        return None
    ranked = sorted(reached[audit].items(), key=lambda pair: pair[1].estimate or 0.0)
    shown = ranked if len(ranked) <= most else [*ranked[: most // 2], *ranked[-most // 2 :]]
    if metric == "auc":
        found = f"By AUC, {', '.join(f'{attack} reaches {number(value.estimate)}' for attack, value in shown)}."
    else:
        shares = ", ".join(f"{attack} finds {percent(value.estimate or 0.0)}" for attack, value in shown)
        level = percent(parse_metric(metric).level)
        found = f"Allowed to accuse {level} of the non-members, {shares} of the members."
    weakest, strongest = ranked[0][1], ranked[-1][1]
    moral = (
        "A weak attack that finds little does not show that little leaks."
        if (weakest.high or 0.0) < (strongest.low or 0.0)
        else "These attacks cannot be told apart here: the intervals of the lowest and the highest overlap."
    )
    return f"Same models, same questions ({audit}). {found} {moral}"


DEALING = frozenset({"property", "labels", "client_property", "batches"})
"""Games whose worlds train on a part of the candidates that the game draws."""


def setting(record: Results) -> list[tuple[str, str]]:
    """Return what was simulated as pairs of a name and a sentence."""
    effective, data = record.scenario.effective, record.provenance.data
    model, federation, release = effective["model"], effective["federation"], effective["release"]
    local, strategy = federation["local"], federation["strategy"]
    sizes = sorted({client.candidates for client in record.federation.clients})
    spread = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else f"{sizes[0]}"
    names = {game["name"] for audit in effective["audits"] if isinstance(game := audit["game"], dict)}
    dealt = "; audits of a property or of labels deal each world a part of them" if names & DEALING else ""
    shared = any(finding.groups is not None or finding.caveat is not None for finding in record.findings)
    hidden = f", hidden layers {', '.join(map(str, model['hidden']))}" if model["name"] == "mlp" else ""
    access = {
        "black_box": f"answers to queries ({release['output']})",
        "white_box": "the parameters of the final model",
    }
    return [
        (
            "Data",
            f"{data.source}{', SYNTHETIC' if data.synthetic else ''}: {data.records:,} records, "
            f"{data.dropped_duplicates:,} duplicates dropped",
        ),
        (
            "Clients",
            f"{len(record.federation.clients)} ({effective['data']['partition']['scheme']} partition), "
            f"{spread} candidate records each{dealt}",
        ),
        ("Model", f"{model['name']}{hidden}; {record.federation.parameters:,} parameters"),
        (
            "Federation",
            f"{record.federation.rounds} rounds, {_taking_part(federation['clients_per_round'])} in each; "
            f"strategy {_named(strategy)}; mods: {', '.join(map(_named, federation['mods'])) or 'none'}",
        ),
        (
            "Local training",
            f"{local['epochs']} epochs of {local['optimizer']} a round, batches of {local['batch_size']}, "
            f"learning rate {local['learning_rate']:g}",
        ),
        *(
            pair
            for found in record.setups
            if found.name is None
            for pair in defences(federation, found.noise_multiplier)
        ),
        ("Released", access[release["access"]]),
        *((f"Setup {setup['name']}", changes) for setup in effective["setups"] if (changes := _changes(setup))),
        (
            "Worlds",
            f"{record.federation.worlds} {'' if shared else 'independent '}federations, each with its own coins and "
            f"initial model{'; some share records, and those of a block count as one' if shared else ''}",
        ),
    ]


def _changes(setup: Json) -> str:
    """What a setup changes in how the federation learns, in words; empty where nothing."""
    said = []
    if model := setup["model"]:
        said.append(f"model {model['name']}, dropout {model['dropout']:g}")
    if setup["rounds"]:
        said.append(f"{setup['rounds']} rounds")
    if local := setup["local"]:
        stopping = f", early stopping after {local['early_stopping']['patience']}" if local["early_stopping"] else ""
        said.append(
            f"{local['epochs']} epochs of {local['optimizer']}, learning rate {local['learning_rate']:g}, weight decay "
            f"{local['weight_decay']:g}{stopping}"
        )
    if setup["mods"] is not None:
        said.append(f"mods: {', '.join(map(_named, setup['mods'])) or 'none'}")
    return "; ".join(said)


def defences(asked: Json, noise_multiplier: float | None) -> list[tuple[str, str]]:
    """Return the defences of a federation or a setup as pairs of a name and a sentence.

    Args:
        asked: the section `federation`, or one of `setups`, of the effective scenario.
        noise_multiplier: that ran; None: unknown.
    """
    secure, privacy, lost = asked["secure_aggregation"], asked["privacy"], asked["drop_out"]
    chances = [f"{percent(lost[stage])} before it sends {what}" for stage, what in LOST.items() if lost[stage]]
    return [
        ("Secure aggregation", _secure(secure) if secure else "none: the server receives each client’s update"),
        ("Differential privacy", _private(privacy, noise_multiplier) if privacy else "none"),
        (
            "Drop-outs",
            f"in a round, a client falls silent with a chance of {', '.join(chances)}" if chances else "none",
        ),
    ]


def _secure(secure: Json) -> str:
    """Secure aggregation in a sentence."""
    integers = secure["quantisation"]
    how = {
        "masked": "SecAgg+ with real keys, shares and masks, "
        f"{secure['neighbours'] or 'all the others of the round as'} neighbours of each client",
        "ideal": "a trusted party adds up the same integers that SecAgg+ would",
    }
    metadata = {"clear": "in clear", "hidden": "kept by the clients"}
    weights = {"examples": "by its number of examples", "uniform": "as much as any other"}
    check = "; clients check that all were sent the same model" if secure["consistency"] else ""
    return (
        f"{how[secure['protocol']]}; a round is given up when fewer than {percent(secure['threshold'])} survive; each "
        f"client counts {weights[secure['weights']]}; number of examples and loss {metadata[secure['metadata']]}; "
        f"{integers['bits']} bits a coordinate, cut off at ±{integers['clip_range']:g}, {integers['rounding']} "
        f"rounding{check}{_mistake(secure['specimen'])}"
    )


def _private(privacy: Json, noise_multiplier: float | None) -> str:
    """A mechanism of differential privacy in a sentence."""
    found = noise_multiplier if noise_multiplier is not None else privacy["noise_multiplier"]
    solved = f", which follows from the epsilon of {privacy['epsilon']:g} asked for" if privacy["epsilon"] else ""
    noise = "unknown" if found is None else f"{found:.4g}"
    first = "first clipping norm" if privacy["name"] == "adaptive" else "clipping norm"
    return (
        f"{MECHANISMS[privacy['name']].format_map(privacy).replace('_', ' ')}; {first} {privacy['clipping_norm']:g}; "
        f"noise multiplier {noise}{solved}; delta {privacy['delta']:g}{_mistake(privacy.get('specimen'))}"
    )


def _mistake(specimen: str | None) -> str:
    """How a sentence about a defence ends where it is a deliberate mistake."""
    return f"; a deliberate mistake: {SPECIMENS[specimen]}" if specimen else ""


def setup_title(name: str | None) -> str:
    """Return what the page calls a setup."""
    return STANDS if name is None else name


def queries_in_words(queries: Queries) -> str:
    """Return how many queries an attack sent in one world, about what, and how many were answered."""
    public = f", {queries.public:,} about public records" if queries.public else ""
    answered = "all" if queries.answered == queries.sent else f"{queries.answered:,}"
    return f"{queries.sent - queries.public:,} queries about the items{public}; {answered} answered"


def equations_in_words(found: Equations) -> str:
    """Return what an attack had to solve: 40 sums over 8 clients, of rank 7.5 (7 to 8); 6 (4 to 8) are singled out."""

    def spread(each: Spread) -> str:
        return f"{each.mean:.3g}" + (f" ({each.least:g} to {each.most:g})" if each.least < each.most else "")

    return (
        f"{spread(found.sums)} sums over {spread(found.clients)} clients, of rank {spread(found.rank)}; "
        f"{spread(found.singled_out)} are singled out"
    )


def under(adversary: str | None) -> str:
    """Return how a sentence about worlds goes on where somebody did more than look in them."""
    return "" if adversary is None else f", under {adversary}"


def promises(record: Results, drawings: Mapping[str, Drawing]) -> list[Promise]:
    """Return what was promised to whom, for each setup, where any of them has privacy or secure aggregation.

    Raises:
        ScenarioError: a setup is in the results and not in their scenario.
    """
    if not any(found.privacy or found.secure_aggregation for found in record.setups):
        return []
    federation = record.scenario.effective["federation"]
    asked: dict[str | None, Json] = {None: federation}
    asked |= {setup["name"]: setup for setup in record.scenario.effective["setups"]}
    sampling = ("Sampling", f"{_taking_part(federation['clients_per_round'])} in each of {federation['rounds']} rounds")
    found = []
    for setup in record.setups:
        if setup.name not in asked:
            raise ScenarioError(f"{RESULTS}: setups: {setup.name!r} is not in the scenario of these results")
        mine, picture = asked[setup.name], epsilon_name(setup)
        rows, notes = _epsilons(setup)
        mistakes = [(mine[part] or {}).get("specimen") for part in ("secure_aggregation", "privacy")]
        found.append(
            Promise(
                setup,
                setup_title(setup.name),
                tuple(SPECIMENS[mistake] for mistake in mistakes if mistake),
                (*defences(mine, setup.noise_multiplier), sampling),
                rows,
                notes,
                picture if picture in drawings else None,
            )
        )
    return found


def _epsilons(setup: SetupFound) -> tuple[tuple[tuple[str, tuple[tuple[EpsilonRow, int], ...]], ...], tuple[str, ...]]:
    """The epsilons of a setup by unit, each with the number of its note, and the notes; equal reasons share one."""
    notes: dict[str, int] = {}
    at = {(row.unit, row.observer): row for row in setup.epsilons}
    rows = []
    for unit in UNITS:
        mine = [at[unit, observer] for observer in OBSERVERS if (unit, observer) in at]
        cells = tuple((row, notes.setdefault(_why(row), len(notes) + 1)) for row in mine)
        rows += [(PROTECTED[unit], cells)] if cells else []
    return tuple(rows), tuple(notes)


def _why(row: EpsilonRow) -> str:
    """The reason of an epsilon, and for whom it holds."""
    if row.epsilon is None:
        return row.reason
    account = f"{row.reason} Two federations are neighbours that differ in {row.adjacency}. Accounting: {row.method}."
    if TOLD not in row.caps:
        return account
    most, level = percent(row.caps[TOLD]), percent(parse_metric(TOLD).level)
    auc = f", and none has an AUC above {number(row.caps['auc'])}" if "auc" in row.caps else ""
    return f"{account} No attack can then find more than {most} of them while it wrongly accuses {level}{auc}."


def bound_rows(findings: Sequence[Finding]) -> list[BoundRow]:
    """Return every bound on epsilon that was drawn from the scores of an attack."""
    return [BoundRow(each, setup_title(each.setup), bound) for each in findings for bound in each.bounds]


def _taking_part(clients: int | float | None) -> str:
    """Who joins a round: all, a number of clients, or each with a probability."""
    if clients is None:
        return "all clients"
    return f"{clients} clients" if isinstance(clients, int) else f"each client with probability {clients:g}"


def _named(plugin: Json) -> str:
    """A strategy or a mod with its options."""
    options = ", ".join(f"{key} {value}" for key, value in plugin["options"].items())
    return f"{plugin['name']} ({options})" if options else str(plugin["name"])


def message_kinds(sights: Sequence[Sight]) -> list[str]:
    """Return the kinds of message that any vantage saw, in the order of a round, those of a group as one."""
    seen = {kind for sight in sights for kind, count in tally(sight).items() if count}
    return [kind for kind in KINDS if kind in seen] + sorted(seen - set(KINDS))


def tally(sight: Sight) -> dict[str, int]:
    """Return how many messages of each kind a vantage saw; the exchanges beside the update are one kind."""
    counts: dict[str, int] = {}
    for kind, count in sight.messages.items():
        refused, beside = kind.endswith("-refusal"), kind.startswith("train.secagg_")
        name = "refusals" if refused else "keys and shares" if beside else kind
        counts[name] = counts.get(name, 0) + count
    return counts


def grids(findings: Sequence[Finding]) -> list[Grid]:
    """Return one table of attacks and audits for each game that was played."""
    tables = []
    for game, words in GAMES.items():
        mine = [finding for finding in findings if finding.game == game]
        if not mine:
            continue
        columns = tuple(
            dict.fromkeys(Column(each.audit, each.vantage, each.setup, each.adversary, each.cost) for each in mine)
        )
        titles = {finding.attack: finding.title for finding in mine}
        at = {(finding.audit, finding.attack): finding for finding in mine}
        rows = tuple(
            (attack, title, tuple(at.get((column.audit, attack)) for column in columns))
            for attack, title in titles.items()
        )
        tables.append(Grid(words, columns, rows))
    return tables


def counts(findings: Sequence[Finding]) -> list[Count]:
    """Return how many members, non-members, worlds and groups of worlds each audit asked about; equal counts share a
    row.
    """
    rows: dict[tuple[str, int, int, int, int | None], list[str]] = {}
    for finding in findings:
        if finding.status == "measured":
            key = (finding.audit, finding.members, finding.non_members, finding.worlds, finding.groups)
            rows.setdefault(key, []).append(finding.attack)
    return [
        Count(audit, tuple(attacks), members, others, worlds, groups)
        for (audit, members, others, worlds, groups), attacks in rows.items()
    ]


def caveats(findings: Sequence[Finding]) -> dict[str, str]:
    """Return by audit what its intervals do not cover."""
    return {each.audit: each.caveat for each in findings if each.status == "measured" and each.caveat is not None}


def measures(findings: Sequence[Finding]) -> Measures:
    """Return every metric of every finding and of its slices; equal reasons for a missing number share a note."""
    rows = [
        (finding, part, metrics)
        for finding in findings
        for part, metrics in (
            ("", finding.metrics),
            *((SLICES.get(name, name), found) for name, found in finding.slices.items()),
        )
        if metrics
    ]
    names = sorted({name for _, _, part in rows for name in part}, key=_order)
    notes: dict[str, int] = {}

    def cell(found: Quantity | None) -> Cell | None:
        if found is None:
            return None
        return Cell(found, None if found.reason is None else notes.setdefault(found.reason, len(notes) + 1))

    table = tuple((finding, part, tuple(cell(metrics.get(name)) for name in names)) for finding, part, metrics in rows)
    return Measures(tuple(names), table, tuple(notes))


def _order(metric: str) -> tuple[int, float]:
    """Position of a metric in tables."""
    parsed = parse_metric(metric)
    return ORDER.index(parsed.kind), -parsed.level


def exposed(findings: Sequence[Finding], most: int = 10) -> list[tuple[Finding, tuple[Exposed, ...]]]:
    """Return the most exposed items of the strongest attack of each audit that has any."""
    strongest: dict[str, Finding] = {}
    for finding in findings:
        area = finding.metrics["auc"].estimate if "auc" in finding.metrics else None
        best = strongest.get(finding.audit)
        if finding.exposed and area is not None and (best is None or area > (best.metrics["auc"].estimate or 0.0)):
            strongest[finding.audit] = finding
    return [(finding, finding.exposed[:most]) for finding in strongest.values()]


def resolution(findings: Sequence[Finding]) -> list[tuple[str, int, str | None]]:
    """Return, for each audit, its number of non-members and the smallest false-positive rate they resolve, if any."""
    noes: dict[str, int] = {}
    for finding in findings:
        if finding.status == "measured":
            noes[finding.audit] = max(noes.get(finding.audit, 0), finding.non_members)
    return [(audit, count, percent(10 / count) if count > 10 else None) for audit, count in noes.items()]
