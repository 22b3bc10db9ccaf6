"""Where every cell of a folder stands, from its files alone. Torch-free."""

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from robustbench_ft.errors import RbftError

from . import failure, lock, planned
from .lock import BEAT, Held, Observer, Work

State = Literal["done", "running", "failed", "stopped", "stale", "not started"]
STATES: tuple[State, ...] = ("running", "failed", "stale", "stopped", "not started", "done")  # as they are listed
LOG = "log.jsonl"
TAIL = 1 << 16  # bytes of a log that are read from its end
LINES = 3  # of error.log
QUIET = 10.0  # seconds: a lock of another machine that looks older is looked at twice


@dataclass(frozen=True)
class CellState:
    """Where one cell stands."""

    folder: Path
    state: State
    worker: str = ""  # 'host:pid'; of 'running', 'stale' and 'failed'
    work: Work = field(default_factory=Work)
    validation: str = ""  # the last ID validation, e.g. 'accuracy 0.783'
    reason: str = ""  # of 'failed', one line
    lines: tuple[str, ...] = ()  # of 'failed': the last of its error.log
    when: str = ""  # of 'failed', ISO 8601
    sign: float | None = None  # seconds since the last renewal of its lock, by this machine's clock


def find(roots: Sequence[Path]) -> dict[Path, bool]:
    """Folder of every cell under these folders -> whether it was begun; the other ones are planned.

    Raises `RbftError` where a folder does not exist.
    """
    found: dict[Path, bool] = {}
    for root in roots:
        if not root.is_dir():
            raise RbftError(f"no such folder: {root}; `rbft run` writes records to ./runs unless --out says otherwise")
        for folder, plans in _walk(root):
            if plans:
                found = dict.fromkeys(planned.read(folder), False) | found
            else:
                found[folder] = True
        above = next((path for path in root.absolute().parents if any(path.glob(planned.PATTERN))), None)
        if above and not any(root.glob(planned.PATTERN)):  # a part of the tree of a sweep
            inside = [cell for cell in planned.read(above) if cell.is_relative_to(root.absolute())]
            found = {root / cell.relative_to(root.absolute()): False for cell in inside} | found
    return dict(sorted(found.items()))


def _walk(root: Path) -> Iterator[tuple[Path, bool]]:
    """Folders of cells, False, and folders that hold the plans of sweeps, True."""
    for place, folders, files in os.walk(root):
        if any(name.startswith("sweep-") and name.endswith(".json") for name in files):
            yield Path(place), True
        if any(name in ("cell.json", "done", failure.FILE) or name.startswith("lock-") for name in files):
            yield Path(place), False
            folders.clear()


def read(cells: Iterable[Path], observer: Observer | None = None) -> list[CellState]:
    """The state of every cell.

    A worker of another machine is alive where its lock changes: locks that seem old are looked at again after a while,
    or, with an `observer` that has seen them before, at once.
    """
    looked = {folder: lock.read(folder) for folder in cells}
    silent = [folder for folder, held in looked.items() if held and _seems_dead(folder, held)]
    if silent and observer is None:
        time.sleep(2.5 * BEAT)
    alive = {folder for folder in silent if _is_alive(folder, looked[folder], observer)}
    return [_state(folder, held, folder in silent and folder not in alive) for folder, held in looked.items()]


def _seems_dead(folder: Path, held: Held) -> bool:
    if held.released or held.is_dead or (held.owner and held.owner.is_local) or (folder / "done").exists():
        return False
    return abs(time.time() - held.changed / 1e9) > QUIET


def _is_alive(folder: Path, before: Held | None, observer: Observer | None) -> bool:
    if observer:
        return observer.look(folder)[0] == "held"
    now = lock.read(folder)
    return now is not None and before is not None and now.sign_of_life != before.sign_of_life


def _state(folder: Path, held: Held | None, silent: bool) -> CellState:
    if (folder / "done").exists():
        return CellState(folder, "done")
    step, validation = _told(folder / LOG)
    work = held.work if held else step
    worker = held.owner.text if held and held.owner else ""
    if held and not held.released and not held.is_dead and not silent:
        return CellState(folder, "running", worker, work, validation, sign=_age(held))
    if found := failure.read(folder):
        lines = tuple(failure.tail(folder / failure.ERROR, LINES))
        return CellState(folder, "failed", found.worker, work, validation, found.reason, lines, found.when)
    if held and not held.released:
        return CellState(folder, "stale", worker, work, validation, sign=_age(held))
    if (folder / "cell.json").exists():
        return CellState(folder, "stopped" if held else "stale", worker, work, validation)
    return CellState(folder, "not started")


def _age(held: Held) -> float | None:
    return max(0.0, time.time() - held.changed / 1e9) if held.changed else None


def _told(log: Path) -> tuple[Work, str]:
    """How far a cell was by the end of its log, and its last validation there."""
    work, validation, total = Work(), "", 0
    for line in _events(log):
        if line.get("event") == "start":
            total = int(line.get("of", 0))
            work = Work("fit", int(line.get("step", 0)), total, "steps")
        elif line.get("event") == "step":
            work = Work("fit", int(line["step"]) + 1, total, "steps")
        elif line.get("event") == "validate":
            scores = {key[4:]: value for key, value in line.items() if key.startswith("val_")}
            shown = {key: value for key, value in scores.items() if key != "accuracy"} or scores
            validation = ", ".join(f"{key} {value:.3f}" for key, value in shown.items())
    return work, validation


def _events(log: Path) -> Iterator[dict[str, Any]]:
    """The last events of a log; none where there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            start = max(0, file.tell() - TAIL)
            file.seek(start)
            lines = file.read().splitlines()[1 if start else 0 :]
    except OSError:
        return
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # it is being written
        if isinstance(event, dict):
            yield event


def work_text(state: CellState) -> str:
    """'fit 120/500 steps, 3.1 steps/s, 2 min left'; '' where nothing is known."""
    work = state.work
    if not work.phase:
        return ""
    text = f"{work.phase} {work.done}/{work.total} {work.unit}".rstrip()
    if state.state == "running" and work.rate:
        text += f", {work.rate:.1f} {work.unit}/s"
        if work.left is not None:
            text += f", {duration(work.left)} left"
    return text


def duration(seconds: float) -> str:
    """'40 s', '12 min', '3.5 h'."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
