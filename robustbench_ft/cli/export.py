"""`rbft export` and `rbft push`: a run as a folder that others load. Parsing and printing only."""

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import FOLDER, WIDE

if TYPE_CHECKING:
    from robustbench_ft.export import Export
    from robustbench_ft.export.folder import Kind

CANDIDATE = click.option(
    "--candidate", default="", metavar="NAME", help="One that --save-candidates kept.  [default: the headline]"
)
LICENCE = click.option(
    "--license", "licence", default="", metavar="ID", help="Licence of the weights, as the hub names it."
)
BENCHMARK = click.option(
    "--benchmark", "benchmarks", multiple=True, metavar="SPLIT=ORG/DATASET:TASK",
    help="Benchmark of the hub whose leaderboard shows a test set, for .eval_results/; repeat for several.",
)  # fmt: skip
SOURCE = click.option(
    "--source", default="", metavar="URL", help="Where predictions and claim lie, for .eval_results/."
)


@click.command("export", context_settings=WIDE)
@click.argument("run", type=FOLDER)
@click.option("--to", "kind", type=click.Choice(["open-clip", "huggingface"]), default="open-clip", show_default=True)
@click.option("--out", type=FOLDER, required=True, metavar="FOLDER", help="Folder to write; it must be new or empty.")
@CANDIDATE
@LICENCE
@BENCHMARK
@SOURCE
@click.option("--dry-run", is_flag=True, help="List every file with its bytes and SHA-256, and write nothing.")
def export_command(run: Path, kind: "Kind", out: Path, dry_run: bool, **options: Any) -> None:
    """Write the model of RUN, the folder of one finished cell, as a folder that plain open_clip loads.

    It holds weights, configuration, a model card (data, recipe, results with intervals, limits, code) and rbft.json.
    With --to huggingface the results are also where the hub reads them.
    """
    made = _made(run, kind, options)
    _list(made)
    if dry_run:
        click.echo(f"{_count(made)} would be written to {out}")
        return
    made.write(out)
    click.echo(f"{_count(made)} written to {out}")
    if kind == "huggingface":
        click.echo(f"next     rbft push {shlex.quote(str(run))} --repo ORG/NAME --dry-run")
    else:
        click.echo(f"next     the code in {out / 'README.md'} loads it without rbft")


@click.command(context_settings=WIDE)
@click.argument("run", type=FOLDER)
@click.option(
    "--repo", required=True, metavar="ORG/NAME", help="Model repository of the hub; made where it is not there."
)
@click.option("--private", is_flag=True, help="A repository that is made is private.")
@CANDIDATE
@LICENCE
@BENCHMARK
@SOURCE
@click.option("--dry-run", is_flag=True, help="List every file with its bytes and SHA-256, and send nothing.")
def push(run: Path, repo: str, private: bool, dry_run: bool, **options: Any) -> None:
    """Send the model of RUN to the hub of Hugging Face, as `rbft export --to huggingface` writes it.

    It is sent with the token of `hf auth login` or HF_TOKEN. This is the only command that sends anything anywhere.
    """
    from robustbench_ft import export

    if not dry_run:
        export.check(repo)
    made = _made(run, "huggingface", options)
    _list(made)
    if dry_run:
        click.echo(f"{_count(made)} would be sent to {repo}")
        return
    with tempfile.TemporaryDirectory() as folder:
        click.echo(f"pushed   {export.push(made, Path(folder), repo, private)}")


def _made(run: Path, kind: "Kind", options: dict[str, Any]) -> "Export":
    from robustbench_ft import export
    from robustbench_ft.export import hub

    benchmarks = [hub.benchmark(words) for words in options["benchmarks"]]
    return export.export(run, kind, options["candidate"], options["licence"], benchmarks, options["source"])


def _list(made: "Export") -> None:
    for file in made.files:
        click.echo(f"{file.size:>12,}  {file.digest}  {file.name}")


def _count(made: "Export") -> str:
    return f"{len(made.files)} files, {sum(file.size for file in made.files):,} bytes,"
