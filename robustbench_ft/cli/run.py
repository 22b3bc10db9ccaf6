"""`rbft run`: from flags and a plan file to records."""

import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustbench_ft import trackers
from robustbench_ft.errors import FailedError, PlanError, RbftError, StoppedError

from . import canary, completion, launchers
from .launchers import LAUNCHER
from .options import (
    CHANNELS_LAST,
    COMPILE,
    DEVICE,
    DEVICES,
    FOLDER,
    PARTIAL,
    PRECISION,
    ROOT,
    SUITES,
    THREADS,
    TRACK,
    WIDE,
    WORKERS,
    devices_of,
    set_threads,
    way_of,
)  # fmt: skip
from .report import print_table

if TYPE_CHECKING:
    import torch

    from robustbench_ft.compare.report import Table
    from robustbench_ft.plan import Cell, Plan, Request
    from robustbench_ft.ranks import Ranks
    from robustbench_ft.record.store import Record


@click.command(context_settings=WIDE)
@click.option(
    "--method",
    multiple=True,
    metavar="NAME",
    shell_complete=completion.methods,
    help="Method, or the path of its .py file; repeat for several.",
)
@SUITES
@click.option(
    "--model",
    multiple=True,
    metavar="NAME",
    help="'embedded', an open_clip name, local-dir:PATH or hf-hub:ORG/NAME[@REVISION].  [default: the suite's]",
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
@DEVICE
@PRECISION
@THREADS
@WORKERS
@TRACK
@COMPILE
@CHANNELS_LAST
@LAUNCHER
@click.option("--gpu-decode", is_flag=True, help="Decode training JPEGs on the GPU; evaluation pixels stay exact.")
@click.option(
    "--checkpoint-seconds",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Time between resume checkpoints.",
)
@click.option(
    "--checkpoint-steps", type=click.IntRange(min=0), default=0, metavar="N", help="Also one after every N steps."
)
@click.option(
    "--save-model/--no-save-model", default=True, show_default=True, help="Keep the tuned weights in the record."
)
@click.option(
    "--save-candidates",
    is_flag=True,
    help="Also keep the weights of every other candidate (each alpha) in models/.",
)
@DEVICES
@click.option("--rerun", is_flag=True, help="Run finished cells again whose method's source has changed since.")
@click.option(
    "--keep", is_flag=True, help="Take the numbers of finished cells whose method's source has changed since."
)
@click.option("--dry-run", is_flag=True, help="Show the cells and run nothing.")
def run(**options: Any) -> None:
    """Fit methods on a suite, evaluate them on its shifts, and write records.

    Every combination of method, suite, model, setting and seed is a cell. Finished cells are skipped, cut ones resume.
    """
    from robustbench_ft import distributed

    check_names(options)
    way_of(options)
    launchers.check(options)
    trackers.check(options["track"])
    where = distributed.place(os.environ)
    if where is not None and (options["launcher"] != "local" or (options["jobs"] or 1) > 1):
        raise RbftError("--jobs and --launcher are for one process that starts others, and here are several already")
    if where is None and options["devices"] > 1 and options["launcher"] == "local" and not options["dry_run"]:
        sys.exit(distributed.start_workers(options["devices"], sys.argv[1:]))
    if where is not None and options["devices"] not in (1, where.world):
        raise RbftError(f"--devices {options['devices']}, but {where.world} processes were started; leave it out")
    if sys.stderr.isatty() and (where is None or where.rank == 0):  # somebody waits
        click.echo("[...] loading torch and open_clip", err=True)
    with distributed.joined(where, "cpu" if options["launcher"] != "local" else options["device"]) as (device, ranks):
        set_threads(options["threads"])
        _run(options, launchers.device_there(options) or device, ranks)


def _run(options: Mapping[str, Any], device: "torch.device", ranks: "Ranks") -> None:
    from robustbench_ft import plan, runner
    from robustbench_ft.images import roots
    from robustbench_ft.progress import Progress, choose

    if options["gpu_decode"] and device.type != "cuda":
        raise RbftError(
            f"--gpu-decode needs a GPU, and the device is {device.type}; leave it out, or use --device cuda"
        )
    request = _request(options, device)
    cells = plan.make(request, roots.choose(options["root"], os.environ), lambda line: click.echo(line, err=True))
    click.echo(_count(cells, request.seeds), err=True)
    for suite in cells.suites.values():
        for split, told in suite.remarks.items():
            click.echo(f"note: {suite.name}, split '{split}' {told}", err=True)
    if request.precision == "auto":
        click.echo(plan.precision_text(cells), err=True)
    if options["dry_run"]:
        _show_plan(cells, options["out"])
        _show_needs(cells, max(0, devices_of(options, ranks).micro_batch), options["devices"])
        click.echo(f"{len(cells)} cells, {device.type}, {request.precision}")
        return
    how = runner.RunOptions(
        options["out"],
        device,
        progress=choose() if ranks.first else Progress(),
        checkpoint_seconds=options["checkpoint_seconds"],
        checkpoint_steps=options["checkpoint_steps"],
        save_model=options["save_model"],
        save_candidates=options["save_candidates"],
        workers=options["workers"] or 0,
        gpu_decode=options["gpu_decode"],
        changed=way_of(options),
        track=options["track"],
        devices=devices_of(options, ranks),
        compiled=options["compiled"],
        channels_last=options["channels_last"],
    )
    try:
        folders = launchers.sweeper(options, how)(cells, how)
    except runner.InterruptedRun as error:
        raise StoppedError(f"{error}; nothing is lost: run the same command again to resume") from error
    except FailedError as error:
        _print_results(error.done, options["out"])
        raise
    if not ranks.first:
        return
    _print_results(folders, options["out"])
    canary.after_run(cells, folders, replace(how, device=launchers.device_here(options, device)))
    if step := _next_step(cells, options["out"]):
        click.echo(f"next     {step}")


def check_names(options: Mapping[str, Any]) -> None:
    """Refuse a method or suite that is not registered, before torch is imported for it."""
    from robustbench_ft import registry, suite_ref, toml

    content = toml.read(options["config"], "the plan") if options.get("config") else {}
    problems: list[str] = []
    for kind in ("method", "suite"):
        found: Any = options[kind] or content.get(kind, ())
        asked: list[Any] = list(found) if isinstance(found, list | tuple) else [found]
        names = [name for name in asked if isinstance(name, str)]
        if kind == "suite":  # files are read later, and so is a folder that is called like no suite
            registered = [name for name in names if not suite_ref.is_file(name) and not Path(name).exists()]
            names = [suite_ref.versioned(name.partition("+")[0])[0] for name in registered]
        problems += registry.check(kind, dict.fromkeys(names))
    if problems:
        raise PlanError(problems)


def _count(cells: "Sequence[Cell]", asked: str) -> str:
    """How many cells there are, with which seeds. A single number is a seed and no count of seeds."""
    several = asked.isdigit() and int(asked) > 1 and any(not cell.deterministic for cell in cells)
    hint = f" (for {asked} seeds: --seeds 0-{int(asked) - 1})" if several else ""
    return f"{len(cells)} cell{'s' * (len(cells) != 1)}, seed{'' if asked.isdigit() else 's'} {asked}{hint}"


def _next_step(cells: "Sequence[Cell]", out: Path) -> str:
    """A command that compares what was run; '' where there is nothing to compare in any suite."""
    rows: dict[tuple[str, str], dict[str, set[str]]] = {}
    for cell in cells:
        rows.setdefault((cell.suite, cell.model.label), {}).setdefault(cell.method, set()).add(cell.digest)
    for (suite, model), methods in rows.items():
        single = [method for method, settings in methods.items() if len(settings) == 1]
        if len(methods) > 1 and single:
            baseline = "ft" if "ft" in single else single[0]
            return f"rbft compare {shlex.quote(str(out / suite / model))} --baseline {baseline}"
    return ""


def _request(options: Mapping[str, Any], device: Any) -> "Request":
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


def _show_needs(plan: "Plan", at_once: int, devices: int) -> None:
    """Once for each suite and model: steps, images, memory and disk, from cards and configurations alone."""
    from robustbench_ft import model_ref, needs
    from robustbench_ft.recipe import Recipe

    for (name, ref), members in groupby(plan, lambda cell: (cell.suite, cell.model)):
        some = list(members)
        some = [cell for cell in some if cell.recipe is not None] or some  # what is trained needs the most
        fetched = "fetched at run time" if model_ref.is_fetched(ref.name, ref.pretrained) else "on this machine"
        click.echo(f"{name}: {' '.join(filter(None, (ref.name, ref.pretrained)))}, weights {fetched}")
        told = dict[str, None]()
        for cell in some:
            recipe = None if cell.recipe is None else Recipe(**cell.recipe)
            told |= dict.fromkeys(needs.lines(plan.suites[name], recipe, ref, cell.protocol, at_once, devices))
        click.echo("\n".join(f"  {line}" for line in told))


def _print_results(folders: Sequence[Path], out: Path) -> None:
    """The table of these cells, a picture beside them, and where everything is."""
    from robustbench_ft.compare import figure, report
    from robustbench_ft.record import store

    records = [store.Record(folder) for folder in folders]
    for table in report.tables(records):
        print_table(table)
        picture = out / table.run_set.suite / f"{table.run_set.records[0].folder.parents[1].name}-scatter.png"
        figure.scatter(_with_earlier(table, folders), picture)
        click.echo(f"figure   {picture}")
    for record in records:
        if _learned_nothing(record):
            click.echo(
                f"nothing was learned: {record.folder} answers like zero-shot on every split; raise lr or steps "
                "(--set lr=3e-4 --set steps=500)"
            )
    for folder in dict.fromkeys(folder.parent for folder in folders):
        click.echo(f"records  {folder}")


def _with_earlier(table: "Table", folders: Sequence[Path]) -> "Table":
    """The table with the other finished runs beside these ones, where all of them go together."""
    from robustbench_ft.compare import report
    from robustbench_ft.record import store

    place = table.run_set.records[0].folder.parents[1]
    beside = [record for record in store.find_records([place]) if record.folder not in folders]
    own = table.run_set.records
    try:
        made = report.tables([*own, *beside]) if beside else []
    except RbftError:  # e.g. two states of a method: `rbft report` says so
        return table
    return next((one for one in made if one.title == table.title), table)


def _learned_nothing(record: "Record") -> bool:
    """Whether a trained model gives the answers of the zero-shot record beside it on every split; False without one."""
    import numpy as np

    from robustbench_ft.record import store

    beside = [f for f in sorted(record.folder.parents[1].glob("zero-shot-*/seed-*")) if store.is_done(f)]
    if not beside or record.cell["recipe"] is None:
        return False
    start, default = store.Record(beside[0]), record.metrics["default"]
    splits = [name for name in record.metrics["official"] if name in start.metrics["official"]]
    return all(
        np.array_equal(
            record.predictions(default, name).prediction, start.predictions(start.metrics["default"], name).prediction
        )
        for name in splits
    )
