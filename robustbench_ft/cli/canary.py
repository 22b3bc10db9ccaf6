"""`rbft canary`, and what `rbft run` says of zero-shot records: is the setup right?"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustbench_ft.errors import RbftError, unknown

from . import completion
from .options import DEVICE, FORMAT, PARTIAL, ROOT, THREADS, WIDE, WORKERS, set_threads
from .show import show

if TYPE_CHECKING:
    from robustbench_ft.plan import Plan
    from robustbench_ft.reference import Reference
    from robustbench_ft.runner import RunOptions
    from robustbench_ft.suite import Suite

OUTSIDE = 1  # exit code where a number is outside its tolerance


@click.command(context_settings=WIDE)
@click.argument("suite", shell_complete=completion.suites)
@click.option("--model", metavar="NAME", help="As `rbft run` takes it.  [default: the suite's]")
@click.option("--pretrained", metavar="TAG", help="open_clip tag, or a .safetensors file.")
@click.option(
    "--as", "like", default="", metavar="TAG",
    help="The open_clip tag (or NAME:TAG) that weights from a file, folder or hub are.",
)  # fmt: skip
@click.option("--split", "splits", multiple=True, metavar="NAME", help="Test set; repeat for several.  [default: ID]")
@click.option("--all", "everything", is_flag=True, help="Every test set with a published number.")
@click.option("--images", type=click.IntRange(100, 10_000), default=2000, show_default=True, help="Of each test set.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@FORMAT
@ROOT
@PARTIAL
@DEVICE
@THREADS
@WORKERS
def canary(suite: str, **options: Any) -> None:
    """Hold a model's zero-shot number on SUITE against the published one, on a fixed subset, before hours are spent.

    A number outside its tolerance comes with the likely causes, each checked where it can be, and exit code 1. Nothing
    is written.
    """
    from robustbench_ft import environment, model_ref, suite_ref
    from robustbench_ft.canary import Setup
    from robustbench_ft.canary import canary as check
    from robustbench_ft.images import roots
    from robustbench_ft.progress import choose
    from robustbench_ft.reference import key_of, report

    set_threads(options["threads"])
    loaded = suite_ref.load(suite, roots.choose(options["root"], os.environ), options["allow_partial"])
    own = model_ref.default(loaded)
    name = options["model"] or own.name
    ref = model_ref.resolve(name, options["pretrained"] or (None if options["model"] else own.pretrained or None))
    key = key_of(ref.name, ref.pretrained, options["like"])
    published = _published(key, loaded, options)
    device = environment.choose_device(options["device"])
    setup = Setup(loaded, ref, key, device, options["images"], options["workers"] or 0, choose())
    answer = check(setup, published)
    title = f"{' '.join(key)} on {loaded.name}"
    if options["as_json"] or options["style"] == "json":
        click.echo(json.dumps(report.as_json(answer.verdicts, answer.findings), indent=2))
    elif options["style"] != "terminal":
        show(report.table(title, answer.verdicts, answer.findings), options["style"])
    else:
        click.echo("\n".join(report.lines(title, answer.verdicts, answer.findings, answer.notes)))
    if not answer.right:
        sys.exit(OUTSIDE)


def _published(key: tuple[str, str], suite: "Suite", options: dict[str, Any]) -> "dict[str, list[Reference]]":
    """Split -> published numbers, of the splits that were asked for. Raises `RbftError` where there is none."""
    from robustbench_ft.reference import find
    from robustbench_ft.reference.numbers import every

    found = {split: some for split, some in find(key, suite.name).items() if split in suite.known}
    if not found:
        having = [" ".join(k) for k, some in every().items() if any(one.suite == suite.base for one in some)]
        if not having:
            raise RbftError(f"no zero-shot number on suite '{suite.name}' is known here, of any model")
        raise RbftError(
            f"no zero-shot number of {' '.join(filter(None, key))} on {suite.name} is known here; {len(having)} models "
            f"have one, e.g. {having[0]}: --as TAG (or NAME:TAG) says which weights a file or folder holds"
        )
    asked = options["splits"] or (tuple(found) if options["everything"] else (suite.test,))
    if lacking := [split for split in asked if split not in found]:
        raise RbftError(unknown(f"split of {suite.name} with a published number", lacking[0], found))
    return {split: found[split] for split in asked}


def after_run(plan: "Plan", folders: Sequence[Path], how: "RunOptions") -> None:
    """Print a verdict for each zero-shot cell that has published numbers, and the causes where it is outside."""
    from robustbench_ft import reference
    from robustbench_ft.canary import Setup, explain
    from robustbench_ft.record.store import Record
    from robustbench_ft.reference import report

    for cell, folder in zip(plan, folders, strict=True):
        record = Record(folder)
        verdicts = reference.of_record(record)
        if not verdicts:
            continue
        suite, default = plan.suite_of(cell), record.summary.default
        stored = {verdict: record.predictions(default, verdict.split) for verdict in verdicts}
        key = reference.key_of(cell.model.name, cell.model.pretrained)
        setup = Setup(suite, cell.model, key, how.device, workers=how.workers, progress=how.progress)
        found = explain(setup, stored)
        suite.forget()
        title = f"{' '.join(key)} on {cell.suite}"
        click.echo("\n".join(report.lines(title, found.verdicts, found.findings, found.notes)))
