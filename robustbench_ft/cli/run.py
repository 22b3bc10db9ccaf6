"""`rbft run`: from flags and a plan file to records."""

import os
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustbench_ft.errors import PlanError, RbftError

from .options import FOLDER, PARTIAL, ROOT, WIDE, WORKERS, set_threads
from .report import print_table

if TYPE_CHECKING:
    from robustbench_ft.plan import Cell, Request


@click.command(context_settings=WIDE)
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
        print_table(table)
        picture = out / table.arena.suite / f"{table.arena.records[0].folder.parents[1].name}-scatter.png"
        figure.scatter(table, picture)
        click.echo(f"figure   {picture}")
    for folder in dict.fromkeys(folder.parent for folder in folders):
        click.echo(f"records  {folder}")
