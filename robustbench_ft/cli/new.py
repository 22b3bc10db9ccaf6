"""The commands that start something new: parsing and printing. Nothing heavy is imported before a command needs it."""

import shlex
from pathlib import Path

import click

from robustbench_ft.errors import PlanError, RbftError

from .options import FOLDER, WIDE

FEW = 30  # images of a validation split: with fewer, its accuracy moves by three points with each image


@click.group(context_settings=WIDE)
def new() -> None:
    """Start a method or a suite of your own."""


@new.command("suite", short_help="Write a suite.toml for a folder of images.", context_settings=WIDE)
@click.argument("folder", type=FOLDER)
@click.option("--train", metavar="NAME", help="The folder or manifest to learn from.  [default: train]")
@click.option("--name", metavar="NAME", help="Name of the suite.  [default: the folder's]")
def new_suite(folder: Path, train: str | None, name: str | None) -> None:
    """Look at a FOLDER of splits and write a commented suite.toml into it.

    A split is a folder with one folder of images for each class, or a manifest (CSV or JSON). What is called neither
    train, val nor test is taken for a shift. An existing suite.toml is never touched.
    """
    from robustbench_ft import model_ref, suite_ref
    from robustbench_ft.custom import draft

    file = draft.write(folder, train, name)
    click.echo(f"written  {file}")
    try:
        suite = suite_ref.load(str(file))
        model = model_ref.default(suite)
        model_ref.check_prompts(model.name, suite)
    except RbftError as error:
        for line in error.problems if isinstance(error, PlanError) else (str(error),):
            click.echo(f"to do    {line}")
        return
    click.echo(f"splits   {', '.join(f'{split} {n:,}' for split, n in suite.card.counts.items())}")
    click.echo(f"classes  {len(suite.classes)}: {', '.join(suite.classes[:9])}{', ...' * (len(suite.classes) > 9)}")
    if suite.card.counts.get(suite.val, FEW) < FEW:
        n = suite.card.counts[suite.val]
        click.echo(
            f"few      {n} images to choose on (val): each is {100 / n:.0f} points, so the choice is half chance"
        )
    click.echo(f"model    {model.text}")
    click.echo(f"next     rbft run --method zero-shot --method ft --method lipsum --suite {shlex.quote(str(file))}")


@new.command("method", short_help="Write a method that works, as a package or a file.", context_settings=WIDE)
@click.argument("name")
@click.option("--folder", type=FOLDER, metavar="DIR", help="Where to write it.  [default: NAME, or . with --single]")
@click.option("--single", is_flag=True, help="Write one file that `rbft run --method ./FILE` takes, and no package.")
def new_method(name: str, folder: Path | None, single: bool) -> None:
    """Write a method that works: FT with a penalty, to put your own in its place.

    It comes as a package that pip installs, with a test of the whole contract and a workflow that runs it; after
    `pip install -e`, `rbft list` shows it. Nothing that exists is overwritten.
    """
    from . import starter

    if single:
        file = shlex.quote(str(starter.write_file(name, folder or Path())))
        file = file if "/" in file else f"./{file}"
        click.echo(f"written  {file}")
        click.echo(f"next     rbft check method {file}")
        click.echo(f"next     rbft run --method ft --method {file} --suite shapes")
        return
    place = starter.write_package(name, folder)
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        click.echo(f"written  {path}")
    click.echo(f"next     pip install -e {shlex.quote(f'{place}[test]')} && pytest {shlex.quote(str(place))}")
