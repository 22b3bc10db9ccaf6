"""A folder for what can be computed again: pixels, drawn splits, zero-shot heads. Keyed by content; torch-free.

`RBFT_CACHE` moves it and `RBFT_CACHE_LIMIT` says how large the pixels in it may grow: the only variables read below the
command line, as suites need the folder wherever they are used.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import platformdirs
from numpy.typing import NDArray

from . import atomic, checksums
from .errors import RbftError
from .progress import choose

LIMIT = 64 * 2**30  # bytes of pixels: ImageNet's validation set and its four shifts at 224 pixels take 21 GiB
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
HINT = "free some space or set RBFT_CACHE"
LEFTOVER = 24 * 3600.0  # seconds after which a temporary file is nobody's
ABOUT = ".json"  # beside an entry: what it is, for people
WORKING = (".lock", ".partial", ABOUT)


def root() -> Path:
    """`RBFT_CACHE`, else `$XDG_CACHE_HOME/rbft`, else `~/.cache/rbft` where it exists, else this system's cache folder.

    The last two are one place on Linux. Elsewhere earlier versions made `~/.cache/rbft`, which stays in use.
    """
    if chosen := os.environ.get("RBFT_CACHE"):
        return Path(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "rbft"
    earlier = Path.home() / ".cache" / "rbft"
    return earlier if earlier.exists() else platformdirs.user_cache_path("rbft", appauthor=False)


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
    atomic.write(path, save, HINT)


def array(kind: str, key: str, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The array for `key`: mapped from the cache, or made and stored. A damaged entry is made again, and it is said."""
    path = entry(kind, key, ".npy")
    if path.exists():
        try:
            sealed = checksums.opened(path)
            if sealed is not None and sealed.is_whole():
                return np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError):
            pass
        discard(path)

    def save(temporary: Path) -> None:
        np.save(temporary, made, allow_pickle=False)
        checksums.append(temporary)

    made = make()
    write(path, save)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def discard(path: Path) -> None:
    """Remove a damaged entry and say so."""
    with suppress(OSError):  # another user's cache
        path.unlink(missing_ok=True)
    choose().say(f"  cache: {path} was damaged, or of an earlier version: it is made again")


@dataclass(frozen=True)
class Entry:
    """One file of the cache."""

    kind: str
    path: Path
    size: int  # bytes
    used: float  # when it was last used, seconds since 1970
    about: Mapping[str, Any]  # what it is, where that was noted

    @property
    def text(self) -> str:
        """What it holds, in a few words."""
        return str(self.about.get("what", self.path.stem))


def touch(path: Path) -> None:
    """Note that an entry is used now: what was used longest ago is forgotten first."""
    with suppress(OSError):  # another user's cache
        os.utime(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write what is in memory, as `write` does."""
    atomic.write_bytes(path, content, HINT)


def write_about(path: Path, about: Mapping[str, Any]) -> None:
    """Note what an entry is."""
    write_bytes(path.with_suffix(ABOUT), json.dumps(dict(about), sort_keys=True).encode())


def entries() -> list[Entry]:
    """Every entry, by kind, the last used first."""
    found: list[Entry] = []
    for path in _files():
        if path.name.startswith(".") or path.suffix in WORKING or not path.is_file():
            continue
        with suppress(OSError):  # removed by another process meanwhile
            state = path.stat()
            found.append(Entry(path.parent.name, path, state.st_size, state.st_mtime, _about(path)))
    return sorted(found, key=lambda entry: (entry.kind, -entry.used, entry.path))


def _about(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.with_suffix(ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def forget(place: Path) -> None:
    """Remove the entry at this path. Readers that have it mapped keep it until they end."""
    try:
        for path in (place, place.with_suffix(ABOUT), place.with_suffix(".lock")):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise RbftError(f"cannot remove {place}: {error.strerror}; correct its permissions") from error


def shrink(limit: int, kinds: Collection[str]) -> None:
    """Forget what was used longest ago until the entries of these kinds take at most `limit` bytes."""
    for entry in surplus([entry for entry in entries() if entry.kind in kinds], limit):
        forget(entry.path)


def surplus(held: Collection[Entry], limit: int) -> list[Entry]:
    """Of these entries, those used longest ago without which they take at most `limit` bytes."""
    gone: list[Entry] = []
    size = sum(entry.size for entry in held)
    for entry in sorted(held, key=lambda entry: entry.used):
        if size <= limit:
            break
        gone.append(entry)
        size -= entry.size
    return gone


def sweep() -> int:
    """Remove what killed processes left behind; the bytes that were freed."""
    return sum(_remove(path) for path in _files() if _is_left_over(path))


def _files() -> list[Path]:
    """Everything in the folders of all kinds."""
    return list(root().glob("*/*")) if root().is_dir() else []


def _is_left_over(path: Path) -> bool:
    if path.suffix == ".partial":
        return not _is_filled(path)
    if path.suffix == ABOUT:
        return not any(path.with_suffix(suffix).exists() for suffix in (".npy", ".lock"))
    writer = path.name.split(".")[1] if path.name.startswith(".") else ""  # `atomic.write` names its process
    if writer.isdecimal() and atomic.lives(int(writer)):
        return False  # also where the clock jumped
    with suppress(OSError):
        return path.name.startswith(".") and time.time() - path.stat().st_mtime > LEFTOVER
    return False


def _is_filled(partial: Path) -> bool:
    """Whether a process is at work on it now."""
    try:
        with filelock.FileLock(partial.with_suffix(".lock"), timeout=0):
            return False
    except filelock.Timeout:
        return True


def _remove(path: Path) -> int:
    try:
        size = path.stat().st_size
        path.unlink(missing_ok=True)
    except OSError:
        return 0
    return size


def limit() -> int:
    """NDArray[np.uint8] of pixels to keep: `RBFT_CACHE_LIMIT`, e.g. 20GiB, or 64 GiB."""
    text = os.environ.get("RBFT_CACHE_LIMIT", "")
    return parse_size(text, "RBFT_CACHE_LIMIT") if text else LIMIT


def parse_size(text: str, name: str) -> int:
    """'500MB', '20 GiB', '0' -> bytes; both spellings count in powers of 1024."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if found is None:
        raise RbftError(f"{name}: '{text}' is no size; write e.g. 500MiB or 20GiB")
    return int(float(found.group(1)) * 1024 ** ("KMGT".find(found.group(2).upper()) + 1 if found.group(2) else 0))


def size_text(size: float) -> str:
    """'3.4 MiB'."""
    unit = 0
    while size >= 1024 and unit < len(UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {UNITS[unit]}" if unit == 0 or size >= 100 else f"{size:.1f} {UNITS[unit]}"
