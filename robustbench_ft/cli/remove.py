"""`rbft rm`: records that are no longer wanted. Parsing and printing only."""

from pathlib import Path

import click

from robustbench_ft.errors import PlanError, RbftError

from . import completion
from .options import FOLDER, WIDE
from .status import STATES


@click.command("rm", context_settings=WIDE)
@click.argument("cells", nargs=-1, type=FOLDER, required=True, shell_complete=completion.cells)
@click.option("--state", type=STATES, help="Only cells in this state, as `rbft status` names it.")
@click.option(
    "--boards", type=FOLDER, default=Path("leaderboards"), show_default=True, help="Claims there keep their records."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(cells: tuple[Path, ...], state: str | None, boards: Path, yes: bool) -> None:
    """Remove cells: records, failed and unfinished ones, and those that are only planned.

    CELLS are folders of cells, or folders that hold some. Cells that run and records that are published as claims are
    refused, and then nothing is removed.
    """
    from robustbench_ft import cache
    from robustbench_ft.sweep import removal, states

    found = [one for one in states.read(states.find(cells)) if state in (None, one.state)]
    if not found:
        raise RbftError(f"no cell{f' that is {state}' if state else ''} under {', '.join(map(str, cells))}")
    problems = [f"{one.folder} is running ({one.worker}): stop it first" for one in found if one.state == "running"]
    problems += [line for one in found if one.state == "done" and (line := _published(one.folder, boards))]
    if problems:
        raise PlanError(problems)
    size = sum(file.stat().st_size for one in found for file in one.folder.rglob("*") if file.is_file())
    what = f"{len(found)} cell{'s' * (len(found) != 1)}, {cache.size_text(size)}"
    if not yes:
        for one in found:
            click.echo(f"{one.state:<11} {one.folder}")
        click.confirm(f"Remove {what}?", abort=True)
    for one in found:
        removal.remove(one.folder, one.state == "stale")
    click.echo(f"removed {what}")


def _published(folder: Path, boards: Path) -> str:
    """One line where a claim holds this record."""
    from robustbench_ft.claims.claim import place_of
    from robustbench_ft.record.store import Record

    try:
        record = Record(folder)
        place = place_of(record.config)
    except RbftError:
        return ""  # a damaged record is in no claim
    if not (boards / place.run(record.seed)).exists():
        return ""
    return (
        f"{folder} is published in {boards / place.file}: remove the claim first, or name another folder with --boards"
    )
