"""Claims on their way into a leaderboards folder: a kill at any moment leaves the old ones or the new ones.

They are made in a folder of their own, `.adding-...`. Once all of them are whole it is renamed to `.moving-...`. From
then on they count: what a process that died then did not move, the next one that reads the boards moves.
"""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from robustbench_ft import atomic
from robustbench_ft.errors import RbftError
from robustbench_ft.sweep import process

_NAME = re.compile(r"\.(adding|moving)-([0-9a-f]{8})-([0-9]{1,9})-([^-]*)-\w+")  # machine, process, its start
_OLD = ".adding-"  # earlier versions named no process
LEFTOVER = 24 * 3600.0  # seconds after which a folder of another machine, or of no known process, is nobody's
OUT = "out"  # inside a moving folder: predictions that were there before


@dataclass(frozen=True)
class Staging:
    """A folder beside the claims, in their layout."""

    root: Path
    folder: Path

    def move(self) -> None:
        """Put every claim of the folder in its place. Raises `RbftError` where the system refuses."""
        try:
            _sync(self.folder)
            moving = self.folder.rename(_named(self.root, "moving"))
        except OSError as error:
            raise _refused(self.folder, error) from error
        _finish(self.root, moving)


@contextmanager
def stage(root: Path) -> Generator[Staging, None, None]:
    """A folder for new claims; it is gone afterwards, and so is `root` where nothing is in it."""
    root.mkdir(parents=True, exist_ok=True)
    folder = _named(root, "adding")
    folder.mkdir()
    try:
        yield Staging(root, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            root.rmdir()


def recover(root: Path) -> None:
    """Finish moves that dead processes began, and remove what they only made."""
    for folder in sorted(root.glob(".*-*")):
        found = _NAME.fullmatch(folder.name)
        if not (found or folder.name.startswith(_OLD)) or not _is_left_over(folder, found):
            continue
        if found and found[1] == "moving":
            with suppress(FileNotFoundError):  # another process is faster
                _finish(root, folder.rename(_named(root, "moving")))
        else:
            shutil.rmtree(folder, ignore_errors=True)


def is_on_its_way(path: Path) -> bool:
    """Whether a path lies in a folder of claims that are not in place yet."""
    return any(part.startswith((".adding-", ".moving-")) for part in path.parts)


def _named(root: Path, what: str) -> Path:
    """A new path that says which process it is of."""
    own = process.this()
    return root / f".{what}-{_short(own.machine)}-{own.pid}-{_plain(own.started)}-{uuid4().hex[:8]}"


def _short(machine: str) -> str:
    return hashlib.sha256(machine.encode()).hexdigest()[:8]


def _plain(started: str) -> str:
    return re.sub(r"\W", "", started)


def _is_left_over(folder: Path, found: re.Match[str] | None) -> bool:
    """Whether the process that a folder is of is no more."""
    own = process.this()
    if found and found[2] == _short(own.machine):
        pid = int(found[3])
        return not atomic.lives(pid) or _plain(process.started(pid)) != found[4]
    with suppress(OSError):
        return time.time() - folder.stat().st_mtime > LEFTOVER
    return False


def _finish(root: Path, moving: Path) -> None:
    """Move each claim that is still in the folder: its predictions, then its file. Any part may be done already."""
    try:
        for file in sorted(path for path in moving.glob("*/*/*.json") if path.parts[-3] != "predictions"):
            relative = file.relative_to(moving)
            predictions = Path(relative.parts[0]) / "predictions" / relative.parts[1] / file.stem
            new, old = moving / predictions, root / predictions
            if new.is_dir():
                old.parent.mkdir(parents=True, exist_ok=True)
                if old.is_dir():
                    (moving / OUT).mkdir(exist_ok=True)
                    old.rename(moving / OUT / uuid4().hex)
                new.rename(old)
            (root / relative).parent.mkdir(parents=True, exist_ok=True)
            file.replace(root / relative)
        shutil.rmtree(moving)
    except OSError as error:
        raise _refused(moving, error) from error


def _refused(folder: Path, error: OSError) -> RbftError:
    return RbftError(
        f"cannot move the claims in {folder} into place: {error.strerror or error}; free some space or correct its "
        "permissions, then give the command again"
    )


def _sync(folder: Path) -> None:
    """Bring every file to the disk: a machine that stops must not leave empty ones in the place of good ones."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
