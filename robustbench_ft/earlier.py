"""Cells that were begun before: are they the work that is asked for, by today's code, and how is one begun anew."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from . import provenance, registry
from .errors import PlanError, RbftError
from .method import Method
from .plan import Cell
from .record import digests, store
from .record.store import Json
from .sweep import failure

Way = Literal["refuse", "rerun", "keep"]  # with records of other code


@dataclass(frozen=True)
class Standing:
    """What the folder of a cell tells of an earlier run."""

    done: bool = False
    coded: bool = True  # False: it was begun by a version that did not note the method's code
    changed: tuple[str, ...] = ()  # source files of the method that are not what they were then
    edited: bool = False  # cell.json is not what it was when the cell was finished
    folder: Path = Path()
    whole: bool = False  # whether `damage` reads the predictions, too

    @cached_property
    def damage(self) -> str:
        """One line on a file of the record that is not what it was; '' where all are. Read where it is asked for."""
        return digests.damage(self.folder, self.whole) if self.done else ""

    @property
    def text(self) -> str:
        """One word for a list."""
        if self.edited or self.damage or self.changed:
            return "edited" if self.edited else "damaged" if self.damage else "changed"
        return "done" if self.done else "to do"

    @property
    def note(self) -> str:
        """Of a finished cell that is taken as it is."""
        if self.changed:
            return f"done before, by other code ({', '.join(self.changed)})"
        return "done before" if self.coded else "done before, by a version that did not note the method's code"


def standing(cell: Cell, folder: Path, whole: bool = False) -> Standing:
    """Where a cell stands; `whole` reads its predictions. Raises `RbftError` when the folder holds another cell."""
    now = provenance.code_of(registry.load("method", cell.method, Method))  # of new cells too, before hours of work
    done = store.is_done(folder)
    if not (folder / "cell.json").exists():
        return Standing(done, folder=folder, whole=whole)
    code = check_same(cell, folder).get("code")
    edited = store.was_edited(folder)
    if not isinstance(code, dict):
        return Standing(done, coded=False, edited=edited, folder=folder, whole=whole)
    return Standing(done, changed=provenance.changed(code, now), edited=edited, folder=folder, whole=whole)


def to_renew(cells: Sequence[Cell], folders: Sequence[Path], way: Way) -> set[Path]:
    """Folders that have to be begun anew. Raises `PlanError` where `way` does not say what to do with one."""
    renewed: set[Path] = set()
    problems: list[str] = []
    changed: dict[tuple[str, bool, tuple[str, ...]], list[Path]] = {}
    for cell, folder in zip(cells, folders, strict=True):
        found = standing(cell, folder, whole=way == "rerun")
        if found.edited:
            problems.append(_edited(folder))
        elif found.damage:
            problems.append(found.damage)
        elif found.changed and not (way == "keep" and found.done):
            changed.setdefault((cell.method, found.done, found.changed), []).append(folder)
        else:
            continue
        renewed.add(folder)
    problems += [_changed(*what, some) for what, some in changed.items()]
    if problems and way != "rerun":
        raise PlanError(problems)
    return renewed


def _edited(folder: Path) -> str:
    return (
        f"{folder / 'cell.json'} was edited after its cell was finished: put it back as it was, or --rerun runs the "
        "cell again"
    )


def _changed(method: str, done: bool, files: Sequence[str], folders: Sequence[Path]) -> str:
    more = f" and {len(folders) - 1} more" if len(folders) > 1 else ""
    ways = "--rerun runs it again, --keep takes the old numbers, or raise its version"
    if not done:
        ways = "--rerun starts it over; or put the old code back, to finish it"
    return f"{method} changed since {folders[0]}{more} was {'run' if done else 'begun'} ({', '.join(files)}): {ways}"


def clear(folder: Path) -> None:
    """Remove a record: `done` first, so that it counts as finished no more, and the name of its code last.

    A kill in between leaves an unfinished cell of the old code, which is not resumed.
    """
    written: Iterable[Path] = [folder / name for name in ("done", "metrics.json", "env.json", "log.jsonl")]
    try:
        for path in (*written, *folder.glob("resume-*.pt")):
            path.unlink(missing_ok=True)
        for path in (folder / "predictions", folder / "model", folder / "models"):
            if path.exists():
                shutil.rmtree(path)
        failure.clear(folder)
        (folder / "cell.json").unlink(missing_ok=True)
    except OSError as error:
        raise RbftError(f"cannot remove the old record {folder}: {error.strerror}; correct its permissions") from error


def check_same(cell: Cell, folder: Path) -> Json:
    """What is stored of the cell in `folder`, {} where nothing is. Raises `RbftError` when it is another cell."""
    path = folder / "cell.json"
    stored: Any = store.read_json(path) if path.exists() else {}
    if stored != {} and (not isinstance(stored, dict) or _identity(stored) != _identity(cell.to_json())):
        raise RbftError(
            f"{path} describes another cell than the one asked for; move {folder} away or choose another --out"
        )
    return stored


def _identity(stored: Json) -> Json:
    """Of a cell.json: all but the words it was asked for in, where files lie, and the code that carried it out."""
    model, settings, contents = (stored.get(name) for name in ("model", "settings", "contents"))
    named = [model.get("name"), model.get("weights")] if isinstance(model, dict) else []
    if isinstance(settings, dict) and isinstance(contents, dict):
        settings = {**settings, **contents}  # as in `Cell.digest`
    return {**stored, "model": named, "settings": settings, "recipe_source": "", "code": ""}
