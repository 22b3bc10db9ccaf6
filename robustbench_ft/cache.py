"""A folder for what can be computed again: drawn splits, zero-shot heads. Keyed by content; torch-free.

`RBFT_CACHE` moves it: the one variable read below the command line, as suites need the folder wherever they are used.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .data import Bytes
from .errors import RbftError


def root() -> Path:
    """`RBFT_CACHE`, else `$XDG_CACHE_HOME/rbft`, else `~/.cache/rbft`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("RBFT_CACHE") or Path(base) / "rbft")


def entry(kind: str, key: str, suffix: str) -> Path:
    """Path of the entry for `key`; its folder exists."""
    return _folder(kind) / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}{suffix}"


def check() -> None:
    """Raise one line when nothing can be written here."""
    write(_folder("") / "probe", lambda temporary: None)
    (root() / "probe").unlink(missing_ok=True)


def _folder(kind: str) -> Path:
    folder = root() / kind
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RbftError(
            f"cannot create the cache folder {folder}: {error.strerror}; set RBFT_CACHE to another"
        ) from error
    return folder


def write(path: Path, save: Callable[[Path], None]) -> None:
    """Let `save` write a temporary neighbour and move it into place: readers see all of it or nothing."""
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        save(temporary)
        temporary.chmod(0o644)  # temporary files are private, and so are safetensors; records and caches are shared
        temporary.replace(path)
    except OSError as error:
        raise RbftError(f"cannot write {path}: {error.strerror}; free some space or set RBFT_CACHE") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def array(kind: str, key: str, make: Callable[[], Bytes]) -> Bytes:
    """The array for `key`: mapped from the cache, or made and stored. A damaged entry is made again."""
    path = entry(kind, key, ".npy")
    if path.exists():
        try:
            stored = np.load(path, mmap_mode="r", allow_pickle=False)
            if stored.dtype == np.uint8:
                return stored
        except (ValueError, EOFError, OSError):
            path.unlink(missing_ok=True)
    made = make()
    write(path, lambda temporary: np.save(temporary, made, allow_pickle=False))
    return np.load(path, mmap_mode="r", allow_pickle=False)
