"""`rbft reproduce`: a published row, run again as its authors ran it."""

import os
from pathlib import Path
from typing import Any

import click

from . import completion
from .options import DEVICE, FOLDER, PRECISION, ROOT, THREADS, WIDE, WORKERS, set_threads


@click.command(context_settings=WIDE)
@click.argument("method", shell_complete=completion.methods)
@click.argument("suite", shell_complete=completion.suites)
@click.option("--model", default="", metavar="NAME", help="As `rbft run` takes it.  [default: the suite's]")
@click.option("--pretrained", metavar="TAG")
@click.option("--seeds", default="", metavar="LIST", help="Seeds.  [default: those of the printed row, else 0]")
@click.option("--bench", type=FOLDER, metavar="FILE", help="What `rbft bench` printed on this machine, for GPU-hours.")
@click.option("--out", type=FOLDER, default=Path("runs"), show_default=True, help="Folder for the records.")
@click.option("--dry-run", is_flag=True, help="Only say what would be run, what is claimed, and what it takes.")
@ROOT
@DEVICE
@PRECISION
@THREADS
@WORKERS
def reproduce(method: str, suite: str, **options: Any) -> None:
    """Run METHOD on SUITE with the recipe and protocol of its authors, and put claimed beside measured.

    What is printed first says all of it: recipe, protocol, published numbers and their source, steps, images, memory,
    disk, and GPU-hours where a rate of this machine is given.
    """
    from robustbench_ft import environment, launch, runner
    from robustbench_ft import reproduce as reproductions
    from robustbench_ft.images import roots
    from robustbench_ft.progress import choose

    from .method_card import published_file

    set_threads(options["threads"])
    device = environment.choose_device(options["device"])
    found = reproductions.make(
        method, suite, published_file(), roots.choose(options["root"], os.environ), options["model"],
        options["pretrained"], options["seeds"], environment.choose_precision(options["precision"], device),
    )  # fmt: skip
    rate = reproductions.rate_of(options["bench"], found.method) if options["bench"] else None
    click.echo("\n".join(reproductions.describe(found, rate, options["out"])))
    if options["dry_run"]:
        return
    how = runner.RunOptions(options["out"], device, progress=choose(), workers=options["workers"] or 0)
    folders = launch.run_cells(found.plan, how)
    click.echo("\n".join(reproductions.compared(found, folders)))
    for folder in folders:
        click.echo(f"record   {folder}")
