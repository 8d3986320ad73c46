"""The command line: joins the engine with the tables of attacks and strategies; turns results into words and a code.

torch, Flower and scikit-learn take seconds to import, so each command imports what it needs; `--help`, `schema` and
`list scenarios` need none of them.
"""

import difflib
import json
import os
import re
import sys
import textwrap
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import click
import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from fedsim import __version__
from fedsim.errors import RunError, ScenarioError
from fedsim.processes import MEMORY, default_workers, heed_termination, late_interrupt, uncollected, warm_up
from fedsim.scenario_file import Loaded, describe, dump, load, located, nearest, shipped, warnings

if TYPE_CHECKING:
    from fedsim.plan import Plan
    from fedsim.results import Claim, Finding, Quantity, Results
    from fedsim.scenario import Section

MATRIX_WIDTH = 130
"""Columns of the coverage matrix, however narrow the terminal: folded it could not be read."""

NOTHING_REFUTED, SOMETHING_REFUTED, BAD_INPUT, RUN_FAILED, STOPPED = 0, 1, 2, 3, 130

Report = Callable[[int, int, str], None]
"""(steps done, steps in all, what is being done)."""

app = typer.Typer(
    name="fedsim",
    help="Run a federation as a scenario describes it, attack it, and say how much it leaks.",
    epilog="Start with: fedsim run quickstart. "
    "Exit codes: 0 no claim refuted, 1 some claim refuted, 2 bad input, 3 the run failed, 130 stopped.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Data sets: which are here, and how to get the others.")
app.add_typer(data_app, name="data")

ScenarioArgument = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="A YAML file, or the name of a shipped scenario.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a setting, e.g. federation.rounds=5 or audits.0.vantage=server."
    ),
]
WorkersOption = Annotated[int | None, typer.Option(min=1, metavar="N", help="Processes to use (default: all).")]
MemoryOption = Annotated[
    float,
    typer.Option(min=0.01, metavar="GB", help="Gigabytes for the worlds under way, besides data and code."),
]
ClientAppOption = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FUNCTION", help="Make each world's ClientApp with FUNCTION(world, prepare) of your own module."
    ),
]
PropertyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--property",
        metavar="NAME=FILE.py:FUNCTION",
        help="Add a column NAME for property games, one value a record, as FUNCTION(x, y, columns) of your own file "
        "says.",
    ),
]
SeedOption = Annotated[int | None, typer.Option(metavar="N", help="Use this seed. Same seed, same numbers.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code of the command line `arguments` (default: the process's own).

    Every error is one line on stderr; with FEDSIM_DEBUG=1 a traceback stands above it.
    """
    try:
        code = app(arguments, prog_name="fedsim", standalone_mode=False)
        if code == STOPPED:
            return _stopped()
    except ScenarioError as error:
        return _failed(str(error), BAD_INPUT)
    except RunError as error:
        return _failed(str(error), RUN_FAILED)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"; see `{context.command_path} --help`" if context else ""
        # Typer and click may each add the same suggestion.
        message = re.sub(r"( Did you mean [^?]*\?)\1", r"\1", error.format_message())
        return _failed(message.rstrip(".") + hint, BAD_INPUT)
    except (KeyboardInterrupt, click.Abort):
        return _stopped()
    except BrokenPipeError:
        # Whoever read the output has seen enough (`| head`); closing stdout must not trip over it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOTHING_REFUTED
    except Exception as error:
        return _failed(f"{type(error).__name__}: {error} (FEDSIM_DEBUG=1 shows where)", RUN_FAILED)
    return code if isinstance(code, int) else NOTHING_REFUTED


def _failed(message: str, code: int) -> int:
    """Print one line on stderr and return `code`."""
    if os.environ.get("FEDSIM_DEBUG") == "1":
        traceback.print_exc()
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    return code


def _stopped() -> int:
    """Print how to go on after Ctrl-C and return its exit code."""
    typer.echo("stopped; the same command goes on from here: the worlds that are finished are kept", err=True)
    return STOPPED


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"fedsim {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


ENGINES: dict[str, str] = {
    "lockstep": "All worlds advance together, round by round, and the clients of a round are trained as one (default).",
    "serial": "One world after the other in each process, each client alone; the reference.",
    "ray": "Flower's own simulation engine, one world at a time; needs the extra `ray`.",
}


# Scenarios


@app.command()
def run(
    scenario: ScenarioArgument,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The run folder, which must not exist yet.")] = None,
    set_: SetOption = None,
    seed: SeedOption = None,
    engine: Annotated[
        Literal["lockstep", "serial", "ray"],
        typer.Option(click_type=click.Choice(list(ENGINES)), help="What runs the worlds; see `fedsim list engines`."),
    ] = "lockstep",
    workers: WorkersOption = None,
    memory: MemoryOption = MEMORY / 1e9,
    client_app: ClientAppOption = None,
    property_: PropertyOption = None,
    transcripts: Annotated[
        bool, typer.Option("--transcripts", help="Keep every message of every world in the run folder.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for inconclusive claims too.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but the run folder.")] = False,
) -> None:
    """Run a scenario, attack it, and write results and a report."""
    heed_termination()
    if engine != "ray" and (workers or default_workers()) > 1:
        warm_up()
    with uncollected(), late_interrupt():  # torch may abort where Ctrl-C interrupts its import
        loaded = _load(scenario, set_, seed)
        from attacks import ATTACKS
        from fedsim.run import execute
        from fedsim.tables import own_columns, recipes

    with _progress(quiet) as report, _located(loaded):
        _check_device(loaded.scenario.device)
        outcome = execute(
            loaded,
            ATTACKS,
            recipes(client_app),
            out=out,
            engine=engine,
            workers=workers,
            progress=report,
            memory=round(memory * 1e9),
            transcripts=transcripts,
            computed=own_columns(property_ or ()),
        )
    if quiet:
        typer.echo(outcome.folder)
    else:
        _show_results(outcome.record, outcome.folder)
    if outcome.record.alarms:
        for alarm in outcome.record.alarms:
            typer.echo(f"ALARM: {alarm}", err=True)
        raise typer.Exit(RUN_FAILED)
    raise typer.Exit(_verdict_code([claim.status for claim in outcome.record.claims], strict))


@app.command()
def check(
    scenario: ScenarioArgument,
    set_: SetOption = None,
    seed: SeedOption = None,
    workers: WorkersOption = None,
    memory: MemoryOption = MEMORY / 1e9,
    client_app: ClientAppOption = None,
    property_: PropertyOption = None,
) -> None:
    """Check a scenario, and print what a run would cost and what it could resolve."""
    loaded = _load(scenario, set_, seed)
    from attacks import ATTACKS
    from fedsim.plan import plan
    from fedsim.tables import own_columns, recipes

    with _located(loaded):
        _check_device(loaded.scenario.device)
        own, many, most = own_columns(property_ or ()), workers or default_workers(), round(memory * 1e9)
        planned = plan(loaded, ATTACKS, recipes(client_app), many, most, own)
    _show_plan(loaded, planned)


@app.command()
def show(scenario: ScenarioArgument, set_: SetOption = None, seed: SeedOption = None) -> None:
    """Print the scenario with every default filled in."""
    typer.echo(dump(_load(scenario, set_, seed).scenario), nl=False)


@app.command()
def schema(out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it to this file.")] = None) -> None:
    """Print the JSON Schema of scenarios, with which editors complete and check them."""
    from fedsim.scenario import Scenario

    content = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Scenario.model_json_schema()}
    text = json.dumps(content, indent=2) + "\n"
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ScenarioError(f"{out}: cannot be written: {error.strerror}") from None


@app.command()
def report(folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")]) -> None:
    """Write the report of a finished run again, from its results alone."""
    from fedsim.report import write_report

    typer.echo(write_report(folder))


# Tables


@app.command("list")
def list_(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="sources, models, strategies, mods, attacks, adversaries, partitions, engines, defences, bounds or "
            "scenarios.",
        ),
    ],
) -> None:
    """List what a scenario can name."""
    _check_name("list", what, LISTS)
    if what == "attacks":
        _show_coverage()
    else:
        _show_rows(LISTS[what]())


@app.command()
def explain(
    attack: Annotated[
        str, typer.Argument(metavar="NAME", help="A name from `fedsim list attacks` or `fedsim list adversaries`.")
    ],
) -> None:
    """Say what an attack or an adversary does, what it needs and who invented it."""
    from attacks import ATTACKS

    adversaries = _adversary_kinds()
    if attack not in ATTACKS and attack not in adversaries:
        raise ScenarioError(_no_such(attack, (*ATTACKS, *adversaries)))
    if attack in ATTACKS:
        _explain_attack(attack)
    if attack in ATTACKS and attack in adversaries:  # one name for what is done and for what is made of it
        typer.echo()
    if attack in adversaries:
        _explain_adversary(attack)


def _explain_attack(name: str) -> None:
    """Print what an attack does, what it needs and whose it is."""
    from attacks import ATTACKS

    row = ATTACKS[name]
    typer.echo(f"{row.title} ({row.name}): {GAMES[row.game]}\n")
    typer.echo(_paragraph(row.summary) + "\n")
    worlds = f" At least {row.min_references} reference worlds." if row.min_references else ""
    for name, text in {"Needs": row.knowledge + worlds, "Paper": row.paper.text, "Link": row.paper.link}.items():
        typer.echo(_paragraph(text, f"{name + ':':7}"))


def _explain_adversary(name: str) -> None:
    """Print what an adversary does, who can be it, and its options."""
    from fedsim.scenario import ACTS_AS

    kind = _adversary_kinds()[name]
    who = {"server": "the server", "client": "a participant"}
    acts = " or ".join(who[role] for role in ACTS_AS[name])
    typer.echo(f"{name} (adversary): what {acts} does beside looking\n")
    typer.echo(_paragraph(" ".join((kind.__doc__ or "").split())) + "\n")
    for key, field in kind.model_fields.items():
        if key != "name":
            default = "" if field.default is None else f" (default: {field.default})"
            typer.echo(_paragraph(" ".join((field.description or "").split()) + default, f"{key + ':':10}"))
    typer.echo(_paragraph(f"in an audit, adversary: {{name: {name}}}", f"{'Written:':10}"))


def _no_such(name: str, names: Collection[str]) -> str:
    """Return the message for what cannot be explained: the few names that are close, of many."""
    close = difflib.get_close_matches(name.lower().replace("-", "_"), names, n=3, cutoff=0.6)
    close += [each for each in names if name and name.lower() in each and each not in close][: 3 - len(close)]
    hint = f"did you mean {' or '.join(close)}? See" if close else "see"
    return f"no attack or adversary {name!r}; {hint} `fedsim list attacks` and `fedsim list adversaries`"


@data_app.command("list")
def data_list() -> None:
    """List the data sources and whether they are here."""
    from fedsim.data import status

    rows = {}
    for row in status():
        rows[row.name] = (f"here: {row.path}" if row.path else row.how) if row.present else f"missing: {row.how}"
    _show_rows(rows)


@data_app.command("get")
def data_get(name: Annotated[str, typer.Argument(metavar="NAME", help="A name from `fedsim data list`.")]) -> None:
    """Download a data set, verify it, and keep it in the data folder."""
    from fedsim.data import SOURCES, get

    _check_name("data source", name, SOURCES)
    typer.echo(get(name))


@data_app.command("folder")
def data_folder() -> None:
    """Print the data folder (set FEDSIM_DATA to choose another)."""
    from fedsim.data.store import data_folder

    typer.echo(data_folder())


def _check_name(what: str, name: str, names: Collection[str]) -> None:
    """Refuse a name that is not in a table."""
    if name not in names:
        raise ScenarioError(f"no {what} {name!r}; allowed: {', '.join(names)}{nearest(name, names)}")


def _sources() -> dict[str, str]:
    """Return the data sources."""
    from fedsim.data import SOURCES

    return {name: source.title for name, source in SOURCES.items()}


def _models() -> dict[str, str]:
    """Return the models."""
    from fedsim.models import MODELS

    return {name: _first_paragraph(build.__doc__ or "").removeprefix("Return ") for name, build in MODELS.items()}


def _first_paragraph(text: str) -> str:
    """Return the first paragraph of a docstring in one line."""
    return " ".join(text.strip().partition("\n\n")[0].split())


def _strategies() -> dict[str, str]:
    """Return the strategies with their options."""
    from strategies import STRATEGIES

    return {name: row.summary + _options(row.options) for name, row in STRATEGIES.items()}


def _mods() -> dict[str, str]:
    """Return the client mods with their options."""
    from strategies import MODS

    return {name: row.summary + _options(row.options) for name, row in MODS.items()}


def _attacks() -> dict[str, str]:
    """Return the attacks with their games."""
    from attacks import ATTACKS

    return {name: f"{attack.title} ({attack.game})" for name, attack in ATTACKS.items()}


def _adversary_kinds() -> "dict[str, type[Section]]":
    """Return the section of a scenario that sets each adversary up."""
    from fedsim import scenario

    (union, _) = get_args(scenario.Adversary)
    return {get_args(kind.model_fields["name"].annotation)[0]: kind for kind in get_args(union)}


def _adversaries() -> dict[str, str]:
    """Return what parties can do beside looking, with their options."""
    return {
        name: " ".join((kind.__doc__ or "").split())
        + _options(
            {
                key: "each" if field.default is None else field.default
                for key, field in kind.model_fields.items()
                if key != "name"
            }
        )
        for name, kind in _adversary_kinds().items()
    }


def _defences() -> dict[str, str]:
    """Return the defences between the strategy and the clients."""
    from fedsim import scenario

    kinds = (
        scenario.CentralPrivacy,
        scenario.AdaptivePrivacy,
        scenario.LocalPrivacy,
        scenario.DistributedPrivacy,
        scenario.RecordPrivacy,
    )
    words = {"secure_aggregation": "The server learns the sum of the updates only: SecAgg+ with real keys, or ideal."}
    for kind in kinds:
        words[get_args(kind.model_fields["name"].annotation)[0]] = _first_paragraph(kind.__doc__ or "")
    return words | {"drop_out": _first_paragraph(scenario.DropOut.__doc__ or "")}


def _bounds() -> dict[str, str]:
    """Return the lower bounds on epsilon."""
    from fedsim.audit import BOUNDS

    return {name: f"{row.title} ({row.kind}): {row.summary}" for name, row in BOUNDS.items()}


def _scenarios() -> dict[str, str]:
    """Return the shipped scenarios."""
    return {name: describe(path) for name, path in shipped().items()}


LISTS: dict[str, Callable[[], dict[str, str]]] = {
    "sources": _sources,
    "models": _models,
    "strategies": _strategies,
    "mods": _mods,
    "attacks": _attacks,
    "adversaries": _adversaries,
    "partitions": lambda: PARTITIONS,
    "engines": lambda: ENGINES,
    "defences": _defences,
    "bounds": _bounds,
    "scenarios": _scenarios,
}

PARTITIONS: dict[str, str] = {
    "iid": "Dealt like cards: sizes differ by one at most.",
    "dirichlet": "Each class is spread unevenly over the clients; a small `alpha` means very unevenly.",
    "shards": "Sorted by label and cut up; each client gets `shards_per_client` pieces, so it knows few classes.",
    "quantity": "Clients of uneven size with the same mix of classes; a small `alpha` means very uneven.",
    "natural": "A `column` of the data says who holds what: one client for each hospital, speaker, ...",
}

GAMES = {
    "record": "was this record in the training data?",
    "property": "which share of a property does the training data have?",
    "labels": "which labels does one client hold, or all together?",
    "canaries": "which of the auditor's canaries took part?",
    "source": "does this client hold this record of the training data?",
    "client": "did this client take part at all?",
    "distinguish": "which of two known record sets does this client hold?",
    "client_property": "does this client have records with a property?",
    "batches": "in which rounds did a client train on records with a property?",
}


def _options(options: Mapping[str, object]) -> str:
    """Return options and their defaults in words."""
    return f" Options: {', '.join(f'{name} = {value}' for name, value in options.items())}." if options else ""


# Loading and running


def _load(scenario: str, overrides: list[str] | None, seed: int | None) -> Loaded:
    """Return the scenario, checked against the tables."""
    from fedsim.tables import known

    return load(scenario, overrides or (), seed, known=known())


def _check_device(device: Literal["cpu", "cuda", "mps"]) -> None:
    """Refuse a device that this machine does not have, before anything is read or run."""
    if device == "cpu":
        return
    import torch

    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present[device]:
        here = " or ".join(name for name, found in present.items() if found)
        raise ScenarioError(f"device: got {device}, which torch does not find on this machine; here: {here}")


@contextmanager
def _located(loaded: Loaded) -> Iterator[None]:
    """Give errors about a key of the scenario their file and line."""
    try:
        yield
    except ScenarioError as error:
        raise located(error, loaded) from None


@contextmanager
def _progress(quiet: bool) -> Iterator[Report]:
    """Yield what shows progress on stderr: a bar with the time left, or about ten lines where stderr is no terminal."""
    console = _console(stderr=True)
    if quiet:
        yield lambda _done, _total, _text: None
    elif not console.is_terminal:
        yield _lines(lambda line: typer.echo(line, err=True))
    else:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
        )
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
            task = bar.add_task("starting", total=None)
            yield lambda done, total, text: bar.update(task, completed=done, total=total, description=text)


def _lines(write: Callable[[str], None]) -> Report:
    """Return what writes a line whenever another tenth is done."""
    began = time.monotonic()
    starts: dict[int, tuple[float, int]] = {}  # total -> when it was first reported, and what was done before
    written: set[tuple[int, str]] = set()

    def report(done: int, total: int, text: str) -> None:
        now = time.monotonic()
        start, before = starts.setdefault(total, (now, done))
        tenth = 10 * done // max(total, 1)
        if (tenth, text) not in written:
            written.add((tenth, text))
            left = ""
            if before < done < total:
                left = f", about {_duration((now - start) / (done - before) * (total - done))} left"
            write(f"{10 * tenth:3} % after {_duration(now - began)}{left}: {text}")

    return report


# Words for people


def _console(stderr: bool = False) -> Console:
    """Return a console that takes text as it is: no markup, no emoji, no guesses what to highlight."""
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def _show_rows(rows: Mapping[str, str]) -> None:
    """Print names, and beside each what it is."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows.items():
        table.add_row(name, text)
    _console().print(table)


def _show_coverage() -> None:
    """Print the attacks: where each runs, what it reads and needs, and what blocks it."""
    from attacks.coverage import VIEWS, matrix

    table = _table("attack", "asks about", *VIEWS, "blocked by", "needs")
    for row in matrix():
        marks = ("x" if runs else "-" for runs in row.runs)
        least = row.attack.min_references
        needs = row.attack.signal.reads + (f", {least} reference{'s' * (least > 1)}" if least else "")
        table.add_row(row.attack.name, row.attack.game, *marks, row.blocked_by, needs)
    console = _console()
    console.width = max(console.width, MATRIX_WIDTH)
    console.print(table)
    _bullets(
        [
            "x: it runs from there; -: not visible there. Noise blocks nothing, it makes what is seen worth less.",
            "participant: one that is not asked about. secagg: the server under secure aggregation.",
            "labels only: a release that shows the public no confidences.",
            "needs: what it reads, and how many reference worlds it takes at least.",
            "fedsim explain ATTACK says what an attack does, what its attacker must know, and whose it is.",
        ]
    )


def _show_plan(loaded: Loaded, planned: "Plan") -> None:
    """Print what a run would cost and could resolve."""
    from fedsim.tables import known

    remarks = warnings(loaded, known())
    found = f"{len(remarks)} thing{'s' * (len(remarks) != 1)} to think about" if remarks else "nothing wrong with it"
    typer.echo(f"{loaded.path.name}: {found}\n")
    if remarks:
        _bullets(remarks)
        typer.echo()
    _show_rows(
        {
            "worlds": f"{planned.worlds:,}",
            "client-rounds": f"{planned.client_rounds:,}",
            "time": f"about {_duration(planned.seconds)}",
            "memory": f"about {_size(planned.memory_bytes)}",
        }
    )
    if planned.epsilons:
        typer.echo("\nEpsilon accounted for (delta)")
        _show_rows(planned.epsilons)
    for title, lines in {"What it can resolve": planned.resolution, "Notes": planned.notes}.items():
        if lines:
            typer.echo(f"\n{title}")
            _bullets(lines)


def _show_results(record: "Results", folder: Path) -> None:
    """Print what a run found."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("audit and attack", overflow="fold")
    table.add_column("AUC", no_wrap=True)
    counted = all("n_leaked" in finding.metrics for finding in record.findings if finding.status == "measured")
    table.add_column("records leaked" if counted else "TPR at 1% FPR", no_wrap=True)
    table.add_column("status", max_width=14)
    audit = None
    for finding in record.findings:
        if finding.audit != audit:
            audit = finding.audit
            table.add_section()
            table.add_row(f"{audit} ({finding.vantage})")
            if finding.adversary:
                table.add_row(f" {finding.adversary}")
        metrics = finding.metrics
        second = _records(metrics["n_leaked"]) if "n_leaked" in metrics else _range(metrics.get("tpr@fpr=0.01"))
        second += " rec." if "n_leaked" in metrics and not counted else ""
        cells = (_range(metrics.get("auc")), second)
        table.add_row(f"  {finding.attack}", *cells, _status(finding))
    _console().print(table)
    typer.echo()
    reasons = {f"{finding.audit}, {finding.attack}: {finding.reason}" for finding in record.findings if finding.reason}
    if reasons:
        _bullets(sorted(reasons))
        typer.echo()
    _show_equations(record)
    _show_privacy(record)
    _show_queries(record)
    for claim in record.claims:
        _show_claim(claim)
    for setup in record.setups:
        found = setup.utility
        whose = [setup.name or "the federation"] if len(record.setups) > 1 else []
        whose += [f"under {setup.adversary}"] if setup.adversary else []
        where = f" ({', '.join(whose)})" if whose else ""
        accuracy = f"training {_range(found.train_accuracy)}, test {_range(found.test_accuracy)}"
        typer.echo(f"Accuracy  {accuracy}{where}")
        if setup.aborted:
            typer.echo(f"          {setup.aborted} of {setup.tried} rounds were given up by secure aggregation{where}")
    for audit, finding in {each.audit: each for each in record.findings}.items():
        if finding.cost is not None:
            cost = finding.cost.reason or f"test accuracy lower by {_range(finding.cost)}"
            typer.echo(_paragraph(f"{audit}, {finding.adversary}: {cost}", "Cost      "))
    typer.echo(f"Time      {record.federation.worlds} worlds in {_duration(record.machine.wall_seconds)}")
    typer.echo(f"Report    {folder / 'report.html'}")


def _show_equations(record: "Results") -> None:
    """Print what the attacks that solve equations had to go on."""
    from fedsim.report import equations_in_words

    lines = [
        f"{finding.audit}, {finding.attack}: {equations_in_words(finding.equations)}"
        for finding in record.findings
        if finding.equations
    ]
    for line in lines:
        typer.echo(_paragraph(line, "Equations "))
    if lines:
        typer.echo()


def _show_queries(record: "Results") -> None:
    """Print how much each attack asked a released model that is limited or watched, and what the monitor made of it."""
    from fedsim.report import number, percent, queries_in_words

    asked: dict[str, dict[str, list[str]]] = {}
    alarms = []
    for finding in record.findings:
        if (queries := finding.queries) is None or not (queries.budget or queries.monitored):
            continue
        asked.setdefault(finding.audit, {}).setdefault(queries_in_words(queries), []).append(finding.attack)
        if found := queries.monitored:
            false = found.false_alarms
            alarms.append(
                f"{finding.audit}, {finding.attack}: the monitor flags {found.flagged} of {found.windows} windows of "
                f"its queries ({number(found.detection.low)} to {number(found.detection.high)}), and "
                + (
                    f"{percent(false.estimate)} of windows of ordinary ones ({number(false.low)} to "
                    f"{number(false.high)})"
                    if false.estimate is not None
                    else f"its false alarms are not measured: {false.reason}"
                )
            )
    for audit, counts in asked.items():
        each = ". ".join(f"{', '.join(attacks)}: {count}" for count, attacks in counts.items())
        typer.echo(_paragraph(f"{audit}, {each}", "Queries   "))
    if alarms:
        _bullets(alarms)
    if asked:
        typer.echo()


def _show_privacy(record: "Results") -> None:
    """Print the accounted epsilons and the bounds, where there are any."""
    private = [each for each in record.setups if each.privacy is not None]
    if private:
        table = _table("epsilon accounted for", "unit", "server", "participant", "public")
        for setup in private:
            for unit in ("client", "record"):
                mine = {row.observer: row for row in setup.epsilons if row.unit == unit}
                cells = [_epsilon(mine[who].epsilon) for who in ("server", "participant", "public")]
                table.add_row(setup.name or "the federation", unit, *cells)
        _console().print(table)
        typer.echo()
    bounds = [(finding, bound) for finding in record.findings for bound in finding.bounds]
    if bounds:
        table = _table("epsilon from attacks", "bound", "at least", "could reach", "accounted")
        for finding, bound in bounds:
            found = "-" if bound.epsilon is None else f"{bound.epsilon:.3g}"
            about = found if bound.kind == "lower bound" else f"about {found}"
            most = "-" if bound.ceiling is None else f"{bound.ceiling:.3g}"
            table.add_row(f"{finding.audit}, {finding.attack}", bound.name, about, most, _epsilon(bound.accounted))
        _console().print(table)
        typer.echo()
        _bullets(sorted({f"{f.audit}, {f.attack}, {b.name}: {b.reason}" for f, b in bounds if b.reason}))


def _table(*columns: str) -> Table:
    """Return an empty table; the first column may break."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number > 0)
    return table


def _epsilon(value: float | None) -> str:
    """Return an epsilon of a record, where null is infinite."""
    return "infinite" if value is None else f"{value:.3g}"


def _show_claim(claim: "Claim") -> None:
    """Print a claim and its verdict."""
    typer.echo(_paragraph(f"{claim.status.upper()}: {claim.sentence}", "Claim     "))
    typer.echo(_paragraph(claim.reason, " " * 10) + "\n")


def _bullets(lines: Sequence[str]) -> None:
    """Print sentences as a list."""
    for line in lines:
        typer.echo(_paragraph(line, "- "))


def _paragraph(text: str, head: str = "") -> str:
    """Return `text` in lines of 80 columns, the first behind `head` and the others indented as far."""
    return textwrap.fill(text, 80, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False)


def _range(quantity: "Quantity | None") -> str:
    """Return a number with its interval."""
    if quantity is None:
        return "-"
    if quantity.estimate is None:
        return "unresolved"
    return f"{quantity.estimate:.3f} [{quantity.low:.3f}, {quantity.high:.3f}]"


def _records(quantity: "Quantity") -> str:
    """Return how many records an attack on a property is worth, with the interval."""
    if quantity.reason is not None:
        return "unresolved"
    estimate, high = ("∞" if value is None else f"{value:.2g}" for value in (quantity.estimate, quantity.high))
    return f"{estimate} [{quantity.low:.2g}, {high}]"


def _status(finding: "Finding") -> str:
    """Return which controls of a finding failed, or else whether it was measured."""
    failed = [f"{name} failed" for name, control in finding.controls.items() if control.passed is False]
    return ", ".join(failed) or finding.status


def _verdict_code(statuses: Sequence[str], strict: bool) -> int:
    """Return the exit code that the verdicts call for."""
    wanted = {"refuted", "inconclusive"} if strict else {"refuted"}
    return SOMETHING_REFUTED if wanted & set(statuses) else NOTHING_REFUTED


def _duration(seconds: float) -> str:
    """Return a time span in words."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _size(count: float) -> str:
    """Return a number of bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"
