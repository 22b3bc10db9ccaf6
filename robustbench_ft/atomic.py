"""Files are written whole or not at all, also under kill -9: the one way in which records, caches and weights are."""

import hashlib
import itertools
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .errors import RbftError

BLOCK = 1 << 20  # bytes that are hashed in one go
_NUMBERS = itertools.count()  # threads of one process may write the same file


def write(path: Path, save: Callable[[Path], None], hint: str, before: Callable[[], None] = lambda: None) -> None:
    """Let `save` write a neighbour of `path`, bring it to the disk and rename it; readers see all of it or nothing.

    `before` is called when the neighbour is whole, just before the rename. Raises `RbftError` that ends with `hint`
    where the system refuses; what was at `path` then stays.
    """
    temporary = path.with_name(f".{os.getpid()}.{next(_NUMBERS)}.{path.name}")  # libraries go by the suffix
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode
        save(temporary)
        temporary.chmod(mode)  # safetensors makes files that nobody else may read; records and caches are shared
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        before()
        temporary.replace(path)
    except OSError as error:
        raise RbftError(f"cannot write {path}: {error.strerror or error}; {hint}") from error
    finally:
        with suppress(OSError):  # a folder that cannot be reached holds no neighbour either
            temporary.unlink(missing_ok=True)


def digest(path: Path) -> str:
    """SHA-256 of a file, read block by block."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()


def write_bytes(path: Path, content: bytes, hint: str) -> None:
    """Write what is in memory, as `write` does."""

    def save(temporary: Path) -> None:
        temporary.write_bytes(content)

    write(path, save, hint)


def sweep(folder: Path) -> None:
    """Remove the neighbours that processes which are no more left under `folder`."""
    for path in folder.rglob(".*"):
        words = path.name.split(".")  # '.PID.N.NAME'; earlier versions wrote '.NAME.PID'
        pid = words[1] if len(words) > 3 and words[1].isdecimal() else words[-1]
        if pid.isdecimal() and len(words) > 2 and not lives(int(pid)):
            with suppress(OSError):  # another process was faster
                path.unlink()


def lives(pid: int) -> bool:
    """Whether there is such a process here. Where that cannot be asked, the system keeps open files from removal."""
    if os.name == "nt":
        return pid == os.getpid()
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # of another user
    return True
