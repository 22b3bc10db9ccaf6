"""A record is one thing: `done`, written last, holds the digest of every other file, as `sha256sum -c done` reads it.

Records of versions before 0.4 list `cell.json` alone, or nothing: of them only what is listed can be held to.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from robustbench_ft import atomic
from robustbench_ft.errors import RbftError

DONE = "done"
PARTS = ("cell.json", "env.json", "metrics.json", "log.jsonl")
FOLDERS = ("predictions", "model", "models")
WEIGHTS = ("model/", "models/")  # what tables do not read
LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
AGAIN = "put it back as it was, or `rbft run --rerun` with the same words runs the cell again"


def mark(folder: Path, hint: str) -> None:
    """Finish a cell: write `done`, with a line for each file of the record."""
    names = [name for name in PARTS if (folder / name).is_file()]
    for part in FOLDERS:
        found = (folder / part).rglob("*") if (folder / part).is_dir() else ()
        names += [p.relative_to(folder).as_posix() for p in found if p.is_file() and not p.name.startswith(".")]
    lines = [f"{of_file(folder / name)}  {name}\n" for name in sorted(names)]
    atomic.write_bytes(folder / DONE, "".join(lines).encode(), hint)


def read(folder: Path) -> dict[str, str]:
    """File of a finished record -> its digest; {} for a record of old. Raises `RbftError` for a damaged list."""
    path = folder / DONE
    try:
        lines = path.read_bytes().decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RbftError(f"{path} is damaged: it cannot be read; {AGAIN}") from error
    found = [LINE.fullmatch(line) for line in lines]
    told = {match[2]: match[1] for match in found if match}
    if len(told) != len(lines) or (told and "cell.json" not in told):
        raise RbftError(f"{path} is damaged: it is no list of digests; {AGAIN}")
    return told


def is_complete(told: Mapping[str, str]) -> bool:
    """Whether a list names all files of its record, as it does from 0.4 on."""
    return "metrics.json" in told


def of_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def of_file(path: Path) -> str:
    """SHA-256 of a file. Raises `RbftError` where it cannot be read."""
    try:
        return atomic.digest(path)
    except OSError as error:
        raise RbftError(f"cannot read {path}: {error.strerror}; {AGAIN}") from error


def check(folder: Path, name: str, content: bytes, told: Mapping[str, str]) -> None:
    """Raise `RbftError` where `content`, read from a file of a record, is not what the cell finished with."""
    if name in told and of_bytes(content) != told[name]:
        raise RbftError(f"{folder / name} is damaged or was edited: it is not what its cell was finished with; {AGAIN}")
    if name not in told and is_complete(told):
        raise RbftError(f"{folder / name} is no part of the record beside it; move it away, or {AGAIN}")


def check_file(folder: Path, name: str, told: Mapping[str, str]) -> None:
    """Do the same with a file that is too large to be read at once, such as weights."""
    if name in told and of_file(folder / name) != told[name]:
        raise RbftError(f"{folder / name} is damaged or was edited: it is not what its cell was finished with; {AGAIN}")


def check_present(folder: Path, told: Mapping[str, str]) -> None:
    """Raise `RbftError` where a file of the record is missing; weights are large and may have been removed."""
    for name in told:
        if not name.startswith(WEIGHTS) and not (folder / name).is_file():
            raise RbftError(f"{folder / name} is missing: the record is not whole; {AGAIN}")


def damage(folder: Path, whole: bool) -> str:
    """The first line of `check` over a record, '' for one without damage; only `whole` reads the predictions."""
    try:
        told = read(folder)
        check_present(folder, told)
        for name in told:
            if name in PARTS or (whole and not name.startswith(WEIGHTS)):
                check(folder, name, (folder / name).read_bytes(), told)
    except (RbftError, OSError) as error:
        return str(error)
    return ""
