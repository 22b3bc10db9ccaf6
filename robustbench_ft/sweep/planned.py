"""What a sweep is going to run: a small file under --out, so that cells that are not begun are known. Torch-free."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from robustbench_ft import atomic
from robustbench_ft.errors import RbftError

SCHEMA = 1
PATTERN = "sweep-*.json"


def write(out: Path, cells: Sequence[Path]) -> Path | None:
    """Note the folders, relative to `out`, of cells that are run together; one cell alone is no sweep.

    The same cells are the same file. Returns the file where it is new.
    """
    names = [cell.as_posix() for cell in cells]
    path = out / f"sweep-{hashlib.sha256(chr(10).join(sorted(names)).encode()).hexdigest()[:8]}.json"
    if len(names) < 2 or path.exists():
        return None
    _write(path, names)
    return path


def _write(path: Path, names: Sequence[str]) -> None:
    content = json.dumps({"schema": SCHEMA, "cells": names}, indent=0) + "\n"
    atomic.write_bytes(path, content.encode(), "free some space, or choose another folder with --out")


def read(out: Path) -> dict[Path, Path]:
    """Folder of every cell that was planned under `out` -> the file that says so, in the order of the plans."""
    found: dict[Path, Path] = {}
    for path in sorted(out.glob(PATTERN)):
        for name in _names(path):
            found.setdefault(out / name, path)
    return found


def _names(path: Path) -> list[str]:
    try:
        content = json.loads(path.read_bytes())
        names = content["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RbftError(
            f"cannot read {path}, the plan of a sweep: delete it; the same command writes it anew"
        ) from error
    outside = [
        name for name in names if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts
    ]
    if outside:
        raise RbftError(f"{path}, the plan of a sweep, names {outside[0]!r}, which is outside its folder: delete it")
    return names


def forget(out: Path, cells: Sequence[Path]) -> None:
    """Take these folders out of every plan under `out`."""
    gone = set(cells)
    for path in sorted(out.glob(PATTERN)):
        names = _names(path)
        left = [name for name in names if out / name not in gone]
        if not left:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        elif len(left) < len(names):
            _write(path, left)
