"""The command line: parsing and printing. Nothing heavy is imported before a command needs it."""

import os
import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustbench_ft import __version__, registry
from robustbench_ft.errors import PlanError, RbftError

from . import bench as cli_bench
from . import compare as cli_stats
from .bench import set_threads
from .cache import cache_group
from .compare import FOLDER, PARTIAL, ROOT, SUITE, WIDE, WORKERS, find
from .data import data
from .leaderboard import leaderboard
from .new import new

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from robustbench_ft.checks import Check
    from robustbench_ft.compare.report import Table
    from robustbench_ft.plan import Cell, Request

EPILOG = """\b
Examples
  rbft run --method lipsum --suite shapes
  rbft run --method ft --method lipsum --suite shapes --seeds 0-4 --set lipsum.strength=0.5
  rbft run --method ft --method wise-ft --suite shapes --set lr=1e-4 --set lr=3e-4      (a grid)
  rbft run --method flyp --suite shapes --model ViT-B-16 --pretrained openai --device cuda
  rbft report runs --format markdown
"""


class _Cli(click.Group):
    """Turns errors a user can cause into one line (or one line each) and exit code 2."""

    def main(self, *args: Any, **extra: Any) -> Any:
        if not extra.pop("standalone_mode", True):
            return super().main(*args, **extra, standalone_mode=False)
        try:
            code = super().main(*args, **extra, standalone_mode=False)
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "rbft"
            click.echo(f"rbft: {error.format_message()} (see `{command} --help`)", err=True)
            sys.exit(2)
        except click.Abort:
            sys.exit(2)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PlanError as error:
            _fail(ctx, error, error.problems)
        except RbftError as error:
            _fail(ctx, error, (str(error),))
        except KeyboardInterrupt:
            _fail(ctx, None, ("interrupted; run the same command again to resume from the last checkpoint",))


def _fail(ctx: click.Context, error: RbftError | None, lines: tuple[str, ...]) -> None:
    if ctx.params.get("traceback") and error is not None:
        raise error
    for line in lines:
        click.echo(f"rbft: {line}", err=True)
    sys.exit(2)


@click.group(
    cls=_Cli, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="rbft")
@click.option("--traceback", is_flag=True, help="Show where an error came from.")
def main(traceback: bool) -> None:
    """Robust fine-tuning of CLIP: run methods over shift suites, compare them honestly."""


@main.command("list", context_settings=WIDE)
@click.argument("kind", type=click.Choice(["all", "methods", "suites"]), default="all")
def list_command(kind: str) -> None:
    """Show the registered methods and suites."""
    for title, key in (("Methods", "method"), ("Suites", "suite")):
        if kind not in ("all", title.lower()):
            continue
        click.echo(f"{title}")
        for entry in sorted(registry.entries(key).values(), key=lambda e: e.name):
            origin = "" if entry.shelf == "builtin" else f" [{entry.shelf}]"
            click.echo(f"  {entry.name:<17} {entry.summary}{origin}")


@main.command(context_settings=WIDE)
@click.argument("name")
def show(name: str) -> None:
    """Show one method or suite: what it is, its settings, its recipe, its data."""
    from .describe import describe

    click.echo(describe(name))


@main.command(context_settings=WIDE)
@click.option("--method", multiple=True, metavar="NAME", help="Method; repeat for several.")
@click.option("--suite", multiple=True, metavar="NAME", help="Suite, or the path of a suite.toml; repeat for several.")
@click.option(
    "--model",
    multiple=True,
    metavar="NAME",
    help="'embedded' (default), an open_clip name, local-dir:PATH or hf-hub:ORG/NAME.",
)
@click.option("--pretrained", metavar="TAG", help="open_clip tag, a .safetensors file, or 'random'.")
@click.option("--seeds", metavar="LIST", help="Seeds, e.g. 0, 0-4 or 0,2,5-7.  [default: 0]")
@click.option(
    "--recipe",
    metavar="NAME|FILE",
    help="Base recipe of all methods: that of lipsum, wise-ft or flyp, or a TOML file.  [default: each its own]",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Setting of a method or recipe, for all methods or for one (lipsum.strength=0.5); repeat a key for a grid.",
)
@click.option(
    "--protocol",
    metavar="NAME",
    help="'clean' (default) selects on held-out ID data, 'as-published' does what the papers did.",
)
@click.option("--config", type=FOLDER, metavar="PLAN.TOML", help="A file with the options above; flags win over it.")
@click.option("--out", type=FOLDER, default=Path("runs"), show_default=True, help="Folder for the records.")
@ROOT
@PARTIAL
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32 or bf16 (image tower, training).")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; a run repeats to the bit with as many.")
@WORKERS
@click.option("--gpu-decode", is_flag=True, help="Decode training JPEGs on the GPU; evaluation pixels stay exact.")
@click.option(
    "--checkpoint-seconds",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Time between resume checkpoints.",
)
@click.option(
    "--save-model/--no-save-model", default=True, show_default=True, help="Keep the tuned weights in the record."
)
@click.option("--rerun", is_flag=True, help="Run finished cells again whose method's source has changed since.")
@click.option(
    "--keep", is_flag=True, help="Take the numbers of finished cells whose method's source has changed since."
)
@click.option("--dry-run", is_flag=True, help="Show the cells and run nothing.")
def run(**options: Any) -> None:
    """Fit methods on a suite, evaluate them on its shifts, and write records.

    Every combination of method, suite, model, setting and seed is a cell. Finished cells are skipped, cut ones resume.
    """
    from robustbench_ft import environment, plan, runner
    from robustbench_ft.images import roots
    from robustbench_ft.progress import choose

    if options["rerun"] and options["keep"]:
        raise RbftError("--rerun and --keep exclude each other: run changed cells again, or take their old numbers")
    set_threads(options["threads"])
    device = environment.choose_device(options["device"])
    if options["gpu_decode"] and device.type != "cuda":
        raise RbftError(
            f"--gpu-decode needs a GPU, and the device is {device.type}; leave it out, or use --device cuda"
        )
    request = _request(options, device)
    roots = roots.choose(options["root"], os.environ)
    cells = plan.make(request, roots)
    if request.precision == "auto":
        click.echo(plan.precision_text(cells), err=True)
    if options["dry_run"]:
        _show_plan(cells, options["out"])
        click.echo(f"{len(cells)} cells, {device.type}, {request.precision}")
        return
    workshop = runner.Workshop(
        options["out"],
        device,
        roots,
        choose(),
        options["checkpoint_seconds"],
        options["save_model"],
        plan.suite_files(request),
        options["workers"] or 0,
        options["gpu_decode"],
        "rerun" if options["rerun"] else "keep" if options["keep"] else "refuse",
    )
    try:
        folders = runner.run_cells(cells, workshop)
    except runner.InterruptedRun as error:
        raise RbftError(f"{error}; nothing is lost: run the same command again to resume") from error
    _print_results(folders, options["out"])


def _request(options: dict[str, Any], device: Any) -> "Request":
    """Flags over the plan file over the defaults."""
    from robustbench_ft import environment, plan

    values: dict[str, Any] = plan.read_toml(options["config"]) if options["config"] else {}
    for key in ("method", "suite", "model", "pretrained", "seeds", "recipe", "protocol"):
        if options[key]:
            values[key] = options[key]
    malformed = [text for text in options["settings"] if "=" not in text]
    if malformed:
        raise PlanError(f"--set {text}: write KEY=VALUE, e.g. lr=1e-4" for text in malformed)
    pairs = [(key.strip(), value.strip()) for key, _, value in (text.partition("=") for text in options["settings"])]
    flagged = {key for key, _ in pairs}
    kept = tuple(pair for pair in values.get("set", ()) if pair[0] not in flagged)
    asked = values.get("precision", "auto") if options["precision"] == "auto" else options["precision"]
    values["allow_partial"] = options["allow_partial"] or bool(values.get("allow_partial"))
    values |= {"set": (*kept, *pairs), "precision": environment.choose_precision(asked, device)}
    return plan.Request(**values)


def _show_plan(cells: "Iterable[Cell]", out: Path) -> None:
    """Each cell and where it stands, the recipe of each configuration, and how those of one suite differ."""
    from robustbench_ft import earlier, recipe

    for _, members in groupby(cells, lambda cell: cell.suite):
        recipes: dict[str, Mapping[str, Any]] = {}
        for _, seeds in groupby(members, lambda cell: cell.folder.parent):
            some = tuple(seeds)
            for cell in some:
                folder = out / cell.folder
                click.echo(f"{earlier.standing(cell, folder).text:<7} {folder}")
            if (found := some[0].recipe) is None:
                click.echo("        nothing is trained")
            else:
                click.echo(f"        {some[0].recipe_source}: {recipe.in_words(found)}")
                recipes[some[0].digest] = found
        if recipes:
            words = recipe.differing(recipes)
            click.echo(f"recipes differ: {', '.join(words)}" if words else "one recipe for all methods")


def _print_results(folders: list[Path], out: Path) -> None:
    """The table of these cells, a picture beside them, and where everything is."""
    from robustbench_ft.compare import figure, report
    from robustbench_ft.record import store

    for table in report.tables([store.Record(folder) for folder in folders]):
        _print_table(table)
        picture = out / table.arena.suite / f"{table.arena.records[0].folder.parents[1].name}-scatter.png"
        figure.scatter(table, picture)
        click.echo(f"figure   {picture}")
    for folder in dict.fromkeys(folder.parent for folder in folders):
        click.echo(f"records  {folder}")


def _print_table(table: "Table", val: bool = False) -> None:
    """In one piece where the terminal is wide enough, else the means first and the single shifts below."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table as RichTable

    from robustbench_ft.compare import report

    console = Console(width=None if sys.stdout.isatty() else 240)
    head = table.header(val)
    whole = _rich(table, range(len(head)), val)
    if Measurement.get(console, console.options.update(width=1000), whole).maximum <= console.width:
        console.print(whole)
    else:
        singles = [k for k, name in enumerate(("method", "seeds", *table.columns(val))) if name in table.arena.shifts]
        console.print(_rich(table, [k for k in range(len(head)) if k not in singles], val))
        console.print(_rich(table, [0, *singles], val))
    console.print(report.footnote(table), highlight=False, style="dim")
    if table.further:
        more = RichTable()
        for k, name in enumerate(("method", *(column.title for column in table.further))):
            more.add_column(name, justify="right" if k else "left")
        for line in table.lines:
            more.add_row(*table.further_texts(line))
        console.print(more)
        console.print(report.FURTHER, highlight=False, style="dim")


def _rich(table: "Table", columns: "Sequence[int]", val: bool) -> Any:
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=table.title, title_justify="left")
    head = table.header(val)
    for k in columns:
        shown.add_column(head[k], justify="right" if k else "left", no_wrap=True)
    for line in table.lines:
        texts = table.texts(line, val)
        shown.add_row(*(Text(texts[k]) for k in columns))  # intervals may hold brackets, which are no markup
    return shown


@main.command("report", context_settings=WIDE)
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--format", "style", type=click.Choice(["terminal", "markdown", "json"]), default="terminal", show_default=True
)
@SUITE
@click.option("--val", is_flag=True, help="Also show ID validation, on which everything is chosen.")
@click.option("--against", metavar="ROW", help="Also show differences to this row (a method or a row's name).")
@click.option(
    "--figure", "picture", type=click.Path(path_type=Path), help="Also draw ID against OOD accuracy into this PNG."
)
def report_command(
    runs: tuple[Path, ...], suite: str | None, style: str, val: bool, against: str | None, picture: Path | None
) -> None:
    """Tables from records, without torch. RUNS are folders of records or of published claims (default: runs)."""
    from robustbench_ft.compare import figure, report

    found = report.tables(find(runs, suite))
    if style == "json":
        click.echo(report.as_json(found), nl=False)
    for table in found:
        if style == "markdown":
            click.echo(report.markdown(table, val))
        elif style == "terminal":
            _print_table(table, val)
        if against and style != "json":
            click.echo(report.against(table, against))
    if picture:
        for k, table in enumerate(found):
            path = picture if len(found) == 1 else picture.with_stem(f"{picture.stem}-{table.arena.suite}-{k}")
            figure.scatter(table, path)
            click.echo(f"figure   {path}", err=True)


@main.group(context_settings=WIDE)
def check() -> None:
    """Does a method or a suite keep its contract? For authors, built-in or not."""


@check.command("method", context_settings=WIDE)
@click.argument("name")
def check_method_command(name: str) -> None:
    """Fit the method on a small model and random images, and hold it to what every method promises."""
    from robustbench_ft import checks
    from robustbench_ft.method import Method

    _run_checks(checks.check_method(registry.load("method", name, Method)))


@check.command("suite", context_settings=WIDE)
@click.argument("name")
@ROOT
@PARTIAL
def check_suite_command(name: str, root: tuple[str, ...], allow_partial: bool) -> None:
    """Load every split of the suite and hold it to its card."""
    from robustbench_ft import checks, suite_ref
    from robustbench_ft.images import roots

    _run_checks(checks.check_suite(suite_ref.load(name, roots.choose(root, os.environ), allow_partial)))


def _run_checks(found: "Iterator[Check]") -> None:
    failed = 0
    for item in found:
        try:
            item.run()
            click.echo(f"ok      {item.name}")
        except AssertionError as error:
            failed += 1
            click.echo(f"FAILED  {item.name}: {error}")
    sys.exit(1 if failed else 0)


for _command in cli_stats.COMMANDS:
    main.add_command(_command)
main.add_command(leaderboard)
main.add_command(cache_group)
for _command in cli_bench.COMMANDS:
    main.add_command(_command)
main.add_command(data)
main.add_command(new)
