"""`rbft status` and `rbft logs`: how a sweep stands, and what one cell said. Parsing and printing only."""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustbench_ft.errors import RbftError
from robustbench_ft.tabular import MACHINE, Text

from . import completion
from .completion import RUNS
from .options import FOLDER, FORMAT, WIDE
from .show import beside, show

if TYPE_CHECKING:
    from robustbench_ft.sweep.states import CellState

SHOWN = 10  # cells that are not started, where not all are asked for
EVERY = 2.0  # seconds between two looks
STATES = click.Choice(["running", "failed", "stale", "stopped", "not started", "done"])


@click.command(context_settings=WIDE)
@click.argument("runs", nargs=-1, type=FOLDER)
@click.option("--all", "every", is_flag=True, help="Also list what is done, and everything that is not started.")
@click.option("--watch", is_flag=True, help="Look again every two seconds, until nothing is left to do.")
@FORMAT
def status(runs: tuple[Path, ...], every: bool, watch: bool, style: str) -> None:
    """Show where every cell stands, from files alone. RUNS are folders of records (default: runs).

    A cell is running, failed, stale (its worker was killed), stopped (in good order), not started or done. The command
    that began them goes on with all that is not done.
    """
    from robustbench_ft.sweep import states
    from robustbench_ft.sweep.lock import Observer

    roots, observer = runs or (RUNS,), Observer() if watch else None
    while True:
        found = states.read(states.find(roots), observer)
        if watch and style == "terminal" and sys.stdout.isatty():
            click.clear()
        _show(found, roots, every, style)
        if not watch or all(state.state in ("done", "failed") for state in found):
            return
        try:
            time.sleep(EVERY)
        except KeyboardInterrupt:
            return


def _show(found: "Sequence[CellState]", roots: Sequence[Path], every: bool, style: str) -> None:
    from robustbench_ft.sweep.states import STATES as ORDER

    if style == "json":
        click.echo(json.dumps([asdict(one) | {"folder": one.folder.as_posix()} for one in found], indent=2))
        return
    counts = Counter(one.state for one in found)
    told = ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])
    head = f"{len(found)} cell{'s' * (len(found) != 1)} under {', '.join(map(str, roots))}{told and f': {told}'}"
    listed = [one for state in ORDER for one in found if one.state == state and (every or state != "done")]
    if not every:
        waiting = [one for one in listed if one.state == "not started"]
        listed = [one for one in listed if one not in waiting[SHOWN:]] if len(waiting) > SHOWN else listed
    beside(f"{head}\n" if style == "markdown" and listed else head, style)
    if style == "terminal":
        for one in listed:
            click.echo("\n".join(_lines(one)))
    elif listed or style in MACHINE:
        rows = tuple((one.state, one.folder.as_posix(), _told(one)) for one in listed)
        show([Text("", ("state", "cell", "what"), rows, words=(0, 1, 2))], style)
    if hidden := len(found) - len(listed) - (0 if every else counts["done"]):
        beside(f"... and {hidden} more that are not started (--all lists them)", style)


def _lines(one: "CellState") -> Iterator[str]:
    """What the terminal shows of a cell."""
    yield f"{one.state:<11} {one.folder}{'  ' if (told := _told(one)) else ''}{told}"
    yield from (f"{'':<11}   {line}" for line in one.lines if one.reason not in line)


def _told(one: "CellState") -> str:
    """Steps, time left, validation, worker, reason: what there is to tell of its state."""
    from robustbench_ft.sweep.states import duration, work_text

    words = [work_text(one), one.validation and f"ID validation {one.validation}", one.reason]
    if one.state == "running":
        beat = f", heartbeat {duration(one.sign)} ago" if one.sign is not None else ""
        words.append(f"{one.worker}{beat}")
    if one.state == "stale" and one.worker:
        words.append(f"its worker {one.worker} is gone")
    return "; ".join(word for word in words if word and one.state != "done")


@click.command(context_settings=WIDE)
@click.argument("cell", shell_complete=completion.cells)
@click.option("--runs", type=FOLDER, default=RUNS, show_default=True, help="Where to look for the cell.")
@click.option("-n", "lines", type=click.IntRange(min=1), default=20, show_default=True, help="Last lines to show.")
@click.option("-f", "--follow", is_flag=True, help="Go on as the cell does.")
def logs(cell: str, runs: Path, lines: int, follow: bool) -> None:
    """Show what a cell said. CELL is its folder, or a part of its path that no other has, e.g. ft-965592ac/seed-0."""
    from robustbench_ft.sweep import failure, states

    folder = find_cell(cell, runs)
    path, place = folder / states.LOG, 0
    if path.exists():
        place = path.stat().st_size
        for text in failure.tail(path, lines):
            click.echo(_event(text))
    while follow:
        [state] = states.read([folder])
        place = _print_from(path, place)
        if state.state not in ("running", "not started"):
            break
        try:
            time.sleep(EVERY / 4)
        except KeyboardInterrupt:
            return
    [state] = states.read([folder])
    for text in failure.tail(folder / failure.ERROR, 10 * lines) if state.state == "failed" else ():
        click.echo(text)
    click.echo(f"{state.state}{'; ' if (told := _told(state)) else ''}{told}", err=True)


def _print_from(path: Path, place: int) -> int:
    """Print the whole lines of a log from a byte on; returns where they end."""
    if not path.exists():
        return place
    with path.open("rb") as file:
        file.seek(place)
        whole, newline, _ = file.read().rpartition(b"\n")
    for line in whole.splitlines():
        click.echo(_event(line.decode("utf-8", "replace")))
    return place + len(whole) + len(newline)


def _event(line: str) -> str:
    """A line of log.jsonl for people: 'step 12 loss 0.31 lr 0.0003'."""
    try:
        event: Any = json.loads(line)
        name = str(event.pop("event"))
        step = event.pop("step", None)
    except (ValueError, AttributeError, KeyError):
        return line
    values = (f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in event.items())
    return " ".join((name, *(() if step is None else (str(step),)), *values))


def find_cell(text: str, runs: Path) -> Path:
    """The folder of one cell, by its path or by a part of it. Raises `RbftError` where it is none or several."""
    from robustbench_ft.sweep import states

    if Path(text).is_dir() and list(states.find([Path(text)])) == [Path(text)]:
        return Path(text)
    roots = [Path(text)] if Path(text).is_dir() else [runs]
    known = list(states.find(roots))
    found = known if Path(text).is_dir() else [cell for cell in known if text in cell.as_posix()]
    if len(found) == 1:
        return found[0]
    some = ", ".join(map(str, (found or known)[:3])) + (", ..." if len(found or known) > 3 else "")
    if found:
        raise RbftError(f"{len(found)} cells are called so: {some}; write more of the path")
    raise RbftError(
        f"no cell '{text}' under {roots[0]}" + (f"; there are {some}" if known else "; nothing was run there")
    )
