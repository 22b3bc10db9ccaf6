"""One worker for each cell: a lock in its folder that its owner renews, and that tells how far the work is. Torch-free.

The lock is a file `lock-N.json`; the one with the highest N counts. It is created whole by a hard link, which one
process alone can do, on NFS too. Who finds that the owner of `lock-N.json` let it go, or is dead, creates
`lock-N+1.json`: again one alone can. So a process that is killed at any moment leaves nothing that blocks.

An owner on this machine is dead when its process is gone. One on another machine is dead when its lock was looked at
for `DEAD` seconds and did not change: no two clocks are compared.
"""

import json
import os
import re
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from robustbench_ft.errors import RbftError

from . import process
from .process import Process

SCHEMA = 1
BEAT = 2.0  # seconds between two renewals
DEAD = 120.0  # seconds without one, seen by one observer; NFS may show a file as it was a minute ago
_NAME = re.compile(r"lock-([0-9]{1,9})\.json")


class LostLockError(RbftError):
    """Another worker took the cell over: this process stood still for longer than `DEAD`."""


@dataclass(frozen=True)
class Work:
    """How far a cell is. Written with every renewal."""

    phase: str = ""  # 'fit', 'evaluate', ...
    done: int = 0
    total: int = 0
    unit: str = ""  # 'steps', 'images'
    rate: float = 0.0  # units per second

    @property
    def left(self) -> float | None:
        """Seconds until the phase ends; None where that is not known."""
        return (self.total - self.done) / self.rate if self.rate > 0 and self.total else None


@dataclass(frozen=True)
class Held:
    """A lock as it was read."""

    path: Path
    number: int
    owner: Process | None = None  # None: it cannot be read, or only just now
    beat: int = 0  # how often it was renewed
    released: bool = False  # its owner stopped in good order
    work: Work = field(default_factory=Work)
    changed: int = 0  # when the file was written, in ns of the file server's clock

    @property
    def sign_of_life(self) -> tuple[int, int, int]:
        """Differs between two looks where the owner renewed the lock."""
        return self.number, self.beat, self.changed

    @property
    def is_dead(self) -> bool:
        """Whether the owner is of this machine and is no more."""
        return self.owner is not None and self.owner.is_local and not self.owner.lives


def read(folder: Path) -> Held | None:
    """The lock that counts in the folder of a cell; None where there is none."""
    number = max(_numbers(folder), default=0)
    return _read(folder / f"lock-{number}.json", number) if number else None


def _numbers(folder: Path) -> list[int]:
    try:
        return [int(found[1]) for name in os.listdir(folder) if (found := _NAME.fullmatch(name))]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RbftError(f"cannot look into {folder}: {error.strerror}; correct its permissions") from error


def _read(path: Path, number: int) -> Held:
    try:
        with path.open("rb") as file:  # opened anew, so that NFS asks the server
            content, changed = json.loads(file.read()), os.fstat(file.fileno()).st_mtime_ns
        owner, work = Process(**content["owner"]), _work(content["work"])
        return Held(path, number, owner, int(content["beat"]), bool(content["released"]), work, changed)
    except (OSError, ValueError, KeyError, TypeError):
        return Held(path, number)


def _work(content: Mapping[str, Any]) -> Work:
    """A later version may tell more."""
    return Work(**{key: value for key, value in content.items() if key in {f.name for f in fields(Work)}})


class Observer:
    """Tells whether the owner of a lock is dead, by what it saw of it so far."""

    def __init__(self, dead: float = DEAD) -> None:
        self.dead = dead
        self.seen: dict[Path, tuple[tuple[int, int, int], float]] = {}  # last sign of life, and when it came

    def look(self, folder: Path) -> tuple[Literal["free", "held", "dead"], Held | None]:
        """'free' where nobody holds the cell: nobody ever did, or its owner let it go."""
        held = read(folder)
        if held is None or held.released:
            return "free", held
        if held.owner and held.owner.is_local:
            return ("dead" if held.is_dead else "held"), held
        now = time.monotonic()
        sign, since = self.seen.get(folder, ((0, 0, 0), now))
        if sign != held.sign_of_life:
            self.seen[folder] = held.sign_of_life, now
            return "held", held
        return ("dead" if now - since >= self.dead else "held"), held


def take(folder: Path, observer: Observer, seen_dead: int = 0, beat: float = BEAT) -> "Lock | None":
    """Lock the cell of this folder; None where another worker holds it.

    `seen_dead` is the number of a lock whose owner was found dead elsewhere. Raises `RbftError` where nothing can be
    written.
    """
    state, held = observer.look(folder)
    number = held.number if held else 0
    if state == "held" and number != seen_dead:
        return None
    lock = Lock(folder, number + 1, beat)
    if not lock.create():
        return None
    if max(_numbers(folder), default=0) > number + 1:  # others took it over, twice, since we looked
        lock.path.unlink(missing_ok=True)
        return None
    for old in _numbers(folder):
        if old <= number:
            (folder / f"lock-{old}.json").unlink(missing_ok=True)
    lock.start()
    return lock


def clear(folder: Path) -> None:
    """Remove all locks of a cell."""
    for number in _numbers(folder):
        with suppress(OSError):
            (folder / f"lock-{number}.json").unlink(missing_ok=True)


class Lock:
    """A cell that this process holds. A thread renews it until it is let go."""

    def __init__(self, folder: Path, number: int, beat: float = BEAT) -> None:
        self.folder, self.number, self.interval = folder, number, beat
        self.path = folder / f"lock-{number}.json"
        self.work = Work()
        self.count, self.released, self.lost = 0, False, False
        self.renewed = time.monotonic()
        self._ended, self._owner = threading.Event(), process.this()
        self._thread = threading.Thread(target=self._renew, name="lock", daemon=True)

    def create(self) -> bool:
        """Write the lock where there is none; False where there is one."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = self._temporary()
            try:
                temporary.write_text(self._text(), encoding="utf-8")
                return _link(temporary, self.path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise RbftError(
                f"cannot write {self.path}: {error.strerror}; free some space, or choose another folder with --out"
            ) from error

    def start(self) -> None:
        self._thread.start()

    def is_lost(self) -> bool:
        """Whether another worker took the cell over. Asked after every step, so files are looked at only where due."""
        if not self.lost and time.monotonic() - self.renewed > DEAD / 2:
            self._look()
        return self.lost

    def check(self) -> None:
        """Raise `LostLockError` where another worker took the cell over."""
        self._look()
        if self.lost:
            raise LostLockError(f"another worker took {self.folder} over while this one stood still")

    def release(self, finished: bool) -> None:
        """Let the cell go. Nothing stays of a finished one; of another, how far it is, and which number comes next."""
        self._ended.set()
        if self._thread.ident:
            self._thread.join()
        self._look()
        if self.lost:
            return
        if finished:
            clear(self.folder)
            return
        self.released = True
        self._write()

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._ended.is_set():
            self.release(finished=False)

    def _renew(self) -> None:
        while not self._ended.wait(self.interval):
            self._look()
            if self.lost:
                return
            self._write()

    def _look(self) -> None:
        with suppress(RbftError):  # a folder that cannot be read now
            self.lost = max(_numbers(self.folder), default=0) > self.number
            self.renewed = time.monotonic()

    def _write(self) -> None:
        self.count += 1
        temporary = self._temporary()
        try:
            temporary.write_text(self._text(), encoding="utf-8")
            temporary.replace(self.path)
        except OSError:  # a full disk
            with suppress(OSError):
                os.utime(self.path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _temporary(self) -> Path:
        return (
            self.folder / f".{os.getpid()}.{threading.get_ident()}.lock-{self.number}.json"
        )  # `atomic.sweep` knows it

    def _text(self) -> str:
        content = {"schema": SCHEMA, "owner": asdict(self._owner), "beat": self.count, "released": self.released}
        return json.dumps({**content, "work": asdict(self.work)}, sort_keys=True)


def _link(temporary: Path, path: Path) -> bool:
    """Create `path` with the content of `temporary`; False where it exists."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return os.stat(temporary).st_nlink == 2  # NFS may have carried it out, and lost the answer
    except FileNotFoundError:  # swept away by a worker that was faster
        return False
    except OSError:  # a file system without hard links
        try:
            number = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        with os.fdopen(number, "wb") as file:
            file.write(temporary.read_bytes())
    return True
