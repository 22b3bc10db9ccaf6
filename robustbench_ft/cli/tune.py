"""`rbft tune`: random search with the same budget for every method; chosen on ID validation alone."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustbench_ft import trackers
from robustbench_ft.errors import PlanError, StoppedError
from robustbench_ft.tabular import MACHINE, Text, number

from . import completion, launchers
from .launchers import LAUNCHER
from .options import (
    DEVICE,
    FOLDER,
    FORMAT,
    PARTIAL,
    PRECISION,
    ROOT,
    SUITES,
    THREADS,
    TRACK,
    WIDE,
    WORKERS,
    set_threads,
    way_of,
)  # fmt: skip
from .report import print_table
from .run import check_names
from .show import beside, show, under

if TYPE_CHECKING:
    from robustbench_ft.plan import Request
    from robustbench_ft.tuning.report import Tuned
    from robustbench_ft.tuning.search import Trial

FRESH = "1-5"  # seeds of the step after a search, which has seen its own


@click.command(context_settings=WIDE)
@click.option(
    "--method", multiple=True, metavar="NAME", shell_complete=completion.methods, help="Method; repeat for several."
)
@SUITES
@click.option("--trials", type=int, default=16, show_default=True, help="Random settings for each method.")
@click.option("--seeds", metavar="LIST", default="0", show_default=True, help="Training seeds of every trial.")
@click.option(
    "--fresh-seeds", metavar="LIST",
    help="Then run the winners with these seeds, which chose nothing, and compare them.  [default: not]",
)  # fmt: skip
@click.option(
    "--range", "ranges", multiple=True, metavar="KEY=RANGE",
    help="Where to look, e.g. lr=1e-5:1e-2:log, lipsum.strength=0.1:10:log, batch=64,128; repeat for several.  "
    "[default: the method's own; lr: a tenth to ten times the recipe's]",
)  # fmt: skip
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting that is the same in all trials; not tuned."
)
@click.option("--tuning-seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the drawn settings.")
@click.option("--model", multiple=True, metavar="NAME", help="As in `rbft run`.  [default: the suite's]")
@click.option("--pretrained", metavar="TAG", help="As in `rbft run`.")
@click.option("--recipe", metavar="NAME|FILE", help="Base recipe of all methods.  [default: each its own]")
@click.option("--protocol", metavar="NAME", default="clean", show_default=True, help="As in `rbft run`.")
@click.option("--out", type=FOLDER, default=Path("tuning"), show_default=True, help="Folder for records and results.")
@ROOT
@PARTIAL
@DEVICE
@PRECISION
@THREADS
@WORKERS
@TRACK
@LAUNCHER
@click.option(
    "--save-model/--no-save-model", default=False, show_default=True, help="Keep the tuned weights of every trial."
)
@click.option("--rerun", is_flag=True, help="Run finished trials again whose method's source has changed since.")
@click.option("--keep", is_flag=True, help="Take the numbers of finished trials whose method's source has changed.")
@FORMAT
@click.option("--dry-run", is_flag=True, help="Show the trials and what they cost, and run nothing.")
def tune(**options: Any) -> None:
    """Search the settings of methods, with the same number of random trials for each.

    Every trial is an ordinary record. Winners are chosen on ID validation only, by two rules: the best, and the
    smallest learning rate within one standard error of it. Each is written as a recipe for `rbft run --recipe`. The
    same command again runs only what is missing; a larger --trials goes on with the same search. --fresh-seeds runs
    the winners again and compares them with intervals and tests.
    """
    check_names(options)
    changed = way_of(options)
    launchers.check(options)
    trackers.check(options["track"])
    if sys.stderr.isatty():  # somebody waits
        click.echo("[...] loading torch and open_clip", err=True)
    from robustbench_ft import environment, plan, runner
    from robustbench_ft.images import roots
    from robustbench_ft.progress import choose
    from robustbench_ft.tuning import run as tuning
    from robustbench_ft.tuning.search import Search, plan_trials

    set_threads(options["threads"])
    device = launchers.device_there(options) or environment.choose_device(options["device"])
    data = roots.choose(options["root"], os.environ)
    request = _request(options, environment.choose_precision(options["precision"], device))
    again = plan.parse_seeds(options["fresh_seeds"]) if options["fresh_seeds"] else ()
    ranges = _pairs(options["ranges"], "--range", "RANGE")
    search = Search(request, options["trials"], options["tuning_seed"], ranges, again)
    trials = plan_trials(search, data, lambda line: click.echo(line, err=True))
    click.echo(_count(trials), err=True)
    if options["dry_run"]:
        _show_trials(trials, options["out"], options["style"])
        if search.fresh_seeds:
            beside(f"then the winners with seeds {options['fresh_seeds']}", options["style"])
        return
    how = runner.RunOptions(
        options["out"], device, choose(), save_model=options["save_model"], workers=options["workers"] or 0,
        changed=changed, track=options["track"],
    )  # fmt: skip
    try:
        found = tuning.run(search, trials, how, launchers.sweeper(options, how))
    except runner.InterruptedRun as error:
        raise StoppedError(f"{error}; nothing is lost: run the same command again to resume") from error
    _print(found, options["style"])


def _request(options: dict[str, Any], precision: str) -> "Request":
    from robustbench_ft import plan

    return plan.Request(
        options["method"], options["suite"], options["model"], options["pretrained"], options["seeds"],
        options["protocol"], precision, options["recipe"], _pairs(options["settings"], "--set", "VALUE"),
        options["allow_partial"],
    )  # fmt: skip


def _pairs(texts: Sequence[str], flag: str, what: str) -> tuple[tuple[str, str], ...]:
    malformed = [text for text in texts if "=" not in text]
    if malformed:
        example = "lr=1e-5:1e-2:log" if flag == "--range" else "steps=200"
        raise PlanError(f"{flag} {text}: write KEY={what}, e.g. {example}" for text in malformed)
    parts = (text.partition("=") for text in texts)
    return tuple((key.strip(), value.strip()) for key, _, value in parts)


def _count(trials: "Sequence[Trial]") -> str:
    """How many trials there are for each method, and which methods have none."""
    from robustbench_ft.tuning.run import cells_of

    tuned = list(dict.fromkeys(trial.method for trial in trials if trial.spaces))
    fixed = list(dict.fromkeys(trial.method for trial in trials if not trial.spaces))
    n = 1 + max(trial.index for trial in trials)
    cells = cells_of(trials)
    without = f"; not tuned: {', '.join(fixed)}" if fixed else ""
    return (
        f"{n} trial{'s' * (n != 1)} each of {', '.join(tuned)}{without}: "
        f"{len(cells)} cell{'s' * (len(cells) != 1)} in all"
    )


def _show_trials(trials: "Sequence[Trial]", out: Path, style: str) -> None:
    """Each trial with where it stands, then the cost of what is left."""
    from robustbench_ft import earlier
    from robustbench_ft.compare.rows import text_of
    from robustbench_ft.recipe import Recipe
    from robustbench_ft.record import store
    from robustbench_ft.tuning.run import cells_of

    rows = [
        (earlier.standing(cell, out / cell.folder).text, number(trial.index), str(out / cell.folder),
         text_of(trial.settings) or "not tuned")
        for trial in trials
        for cell in trial.cells
    ]  # fmt: skip
    if style == "terminal":
        for state, trial, folder, said in rows:
            click.echo(f"{state:<7} trial {trial:<3} {folder}  {said}")
    else:
        show([Text("", ("state", "trial", "cell", "settings"), tuple(rows), words=(0, 2, 3))], style)
    left = [cell for cell in cells_of(trials) if not store.is_done(out / cell.folder)]
    for suite, model in dict.fromkeys(trial.run_set for trial in trials):
        spaces = {t.method: t.spaces for t in trials if t.run_set == (suite, model)}
        for method, some in spaces.items():
            looked = ", ".join(f"{setting} {space.text}" for setting, space in some.items())
            said = f"in {looked}" if some else "not tuned"
            beside(f"{suite}, {model}: {method} {said}", style)
    steps = sum(Recipe(**cell.recipe).steps for cell in left if cell.recipe)
    epochs = sum(Recipe(**cell.recipe).epochs for cell in left if cell.recipe and not cell.recipe["steps"])
    length = " and ".join(filter(None, (f"{steps:,} steps" * bool(steps), f"{epochs:,} epochs" * bool(epochs))))
    beside(f"{len(left)} cells to run{f', {length}' if length else ''}{_time(trials, out)}", style)


def _time(trials: "Sequence[Trial]", out: Path) -> str:
    """How long the rest takes by the cells that are done, as text; '' where a method has none yet."""
    from robustbench_ft.record import store
    from robustbench_ft.tuning.run import cells_of

    seconds: dict[tuple[str, ...], list[float]] = {}
    left: list[tuple[str, ...]] = []
    for cell in cells_of(trials):
        key, folder = (cell.suite, cell.model.label, cell.method), out / cell.folder
        if store.is_done(folder):
            cost = store.Record(folder).environment.cost
            seconds.setdefault(key, []).append(cost.fit_seconds + (cost.evaluate_seconds or 0.0))
        else:
            left.append(key)
    if not left or not set(left) <= seconds.keys():
        return ""
    total = sum(sum(seconds[key]) / len(seconds[key]) for key in left)
    return f", about {total / 60:.0f} min by the cells that are done"


def _print(found: "Sequence[Tuned]", style: str) -> None:
    """The winners, the other tables, where everything is, and the next command."""
    from robustbench_ft.compare.report import sections as winners
    from robustbench_ft.tuning import report, winner

    if style == "json":
        click.echo(json.dumps([json.loads(report.as_json(one)) for one in found], indent=2, sort_keys=True))
    elif style in MACHINE:
        tables = [(one.every.title, [*winners(one.winners, val=True), *report.sections(one)]) for one in found]
        show([text for title, some in tables for text in under(title, some)], style)
    for one in found:
        if style == "markdown":
            click.echo(report.markdown(one))
        elif style == "terminal":
            print_table(one.winners, val=True)
            show(report.sections(one), style)
        aside = style != "terminal"
        click.echo(f"results  {one.folder}", err=aside)
        name, path = next(iter(one.recipes().items()))
        entrant = next(entrant for entrant in one.entrants if name == winner.file_name(entrant, "best"))
        step = winner.command(entrant.chosen("best").trial, str(path), FRESH)
        click.echo(f"next     {step}", err=aside)
