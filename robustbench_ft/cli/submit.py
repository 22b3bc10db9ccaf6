"""`rbft leaderboard submit`: a row to hand in. Parsing and printing only."""

import os
from pathlib import Path

import click

from .leaderboard import DATA_ROOT, NOTES, PLACE, ROOT, SOURCE, checked_place, today
from .options import FOLDER, WIDE


@click.command(short_help="Make, verify and commit claims of RUNS.", context_settings=WIDE)
@click.argument("runs", nargs=-1, type=FOLDER, required=True)
@ROOT
@click.option("--author", "--by", "by", metavar="NAME", required=True, help="Who made the runs.")
@SOURCE
@NOTES
@PLACE
@DATA_ROOT
@click.option("--dry-run", is_flag=True, help="Make and verify the claims aside, print the text, and change nothing.")
def submit(
    runs: tuple[Path, ...], root: Path, by: str, source: str | None, notes: str | None, place: str | None,
    data_root: tuple[str, ...], dry_run: bool,
) -> None:  # fmt: skip
    """Make claims of RUNS, verify them as CI does, and commit them to a new branch of this checkout.

    The text of a pull request is written beside it. Nothing is pushed.
    """
    from robustbench_ft.board import submit as submissions
    from robustbench_ft.claims.schema import Trust
    from robustbench_ft.images import roots

    trust = Trust("submitted", by, source, notes, date=today(), predictions=checked_place(place))
    found = submissions.prepare(runs, root, trust, roots.choose(data_root, os.environ))
    for name in found.names:
        click.echo(f"ok       {name}")
    for remark in found.remarks:
        click.echo(f"remark   {remark}")
    if dry_run:
        click.echo(f"branch   {found.branch} would be made, with this text:\n\n{found.text}")
        return
    text = submissions.commit(runs, root, trust, found)
    click.echo(f"branch   {found.branch}\ntext     {text}")
    if place:
        click.echo(f"next     copy the ignored predictions.parquet files below {root} to {place}, in the same folders")
    click.echo(f"next     git push -u origin {found.branch}, and open a pull request with that text")
