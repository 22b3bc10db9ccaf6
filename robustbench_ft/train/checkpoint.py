"""Resume checkpoints: written whole or not at all, checked by a digest when read, and the one before is kept.

A file is what `torch.save` writes, then a footer: `MARK` and the SHA-256 of everything before it. Readers of zip files
find their way from the end and pass over the footer, so torch reads the file as it is.
"""

import copy
import hashlib
import io
import pickle
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from robustbench_ft import atomic
from robustbench_ft.errors import RbftError

MARK = b"rbft-sha"
HINT = "free some space, then run the same command"
FOOTER = len(MARK) + hashlib.sha256().digest_size  # bytes
BLOCK = 1 << 20  # bytes that are hashed in one go


class _Hashed(io.BufferedWriter):
    """A file that hashes what is written to it, and remembers why it could not be written."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "wb"))
        self.sha256 = hashlib.sha256()
        self.failed: OSError | None = None

    def write(self, buffer: Any, /) -> int:
        self.sha256.update(buffer)
        try:
            return super().write(buffer)
        except OSError as error:  # torch makes a RuntimeError of it that does not say what happened
            self.failed = error
            raise


def save(content: Mapping[str, Any], path: Path) -> None:
    """Write `content` to `path` with its digest, also under kill -9; what was there becomes `previous(path)`.

    Raises `RbftError` when it cannot be written, e.g. on a full disk; what was there then stays.
    """

    def keep() -> None:
        if path.exists():  # a kill just after this leaves the previous one, which is whole
            path.replace(previous(path))

    atomic.write(path, lambda temporary: _write(content, temporary), HINT, keep)


def _write(content: Mapping[str, Any], path: Path) -> None:
    file = _Hashed(path)
    try:
        torch.save(content, file)
        file.write(MARK + file.sha256.digest())
        file.flush()
    except RuntimeError as error:
        raise file.failed or error from error
    finally:
        file.raw.close()  # past the buffer: what a full disk refused would be refused again


class Writer:
    """Writes the checkpoints of one stage in a thread: training waits for a copy of the state, not for the disk.

    There is never more than one under way. What went wrong is raised by the next call.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.thread: threading.Thread | None = None
        self.failed: BaseException | None = None

    def save(self, content: Mapping[str, Any]) -> None:
        """Copy `content` to memory of its own on the CPU, and begin to write it as `save` does."""
        self.wait()
        still = _copied(content)
        self.thread = threading.Thread(target=self._write, args=(still,), name=f"checkpoint {self.path.name}")
        self.thread.start()

    def wait(self) -> None:
        """Return when the last checkpoint is on the disk. Raises `RbftError` where it could not be written."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        if self.failed is not None:
            failed, self.failed = self.failed, None
            raise failed

    def _write(self, content: Mapping[str, Any]) -> None:
        try:
            save(content, self.path)
        except BaseException as error:  # raised where somebody can be told
            self.failed = error


def _copied(value: Any) -> Any:
    """The same nest of dictionaries and lists; tensors on the CPU, none of which is changed by later steps."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        items = [_copied(inner) for inner in cast(Sequence[Any], value)]
        return tuple(items) if isinstance(value, tuple) else items
    return copy.deepcopy(value)


def previous(path: Path) -> Path:
    """Where the checkpoint before the one at `path` is kept: 'resume-fit.pt' -> 'resume-fit.previous.pt'."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def load(
    path: Path, device: torch.device, needed: Collection[str], say: Callable[[str], object]
) -> dict[str, Any] | None:
    """The last whole checkpoint at `path` with the keys `needed`; None where there never was one.

    Where the last is damaged, the previous one takes its place, and `say` is told. Raises `RbftError` when none is
    left.
    """
    before = previous(path)
    if not path.exists() and before.exists():
        before.replace(path)  # killed between the two renames of `save`
    if not path.exists():
        return None
    content = _read(path, device, needed)
    if content is not None:
        return content
    content = _read(before, device, needed) if before.exists() else None
    if content is None:
        which = f"is damaged, and so is {before.name}: delete both" if before.exists() else "is damaged: delete it"
        raise RbftError(f"checkpoint {path} {which} to start the cell again")
    say(f"  checkpoint {path} is damaged: going back to the one before it")
    before.replace(path)
    return content


def _read(path: Path, device: torch.device, needed: Collection[str]) -> dict[str, Any] | None:
    """None when the file is damaged or holds something else."""
    try:
        if not _is_whole(path):
            return None
        with path.open("rb") as file:
            content = torch.load(file, map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        return None
    except OSError as error:
        raise RbftError(f"cannot read checkpoint {path}: {error.strerror}; run the same command again") from error
    return content if isinstance(content, dict) and set(needed) <= content.keys() else None


def _is_whole(path: Path) -> bool:
    digest, left = hashlib.sha256(), path.stat().st_size - FOOTER
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, BLOCK))):
            digest.update(block)
            left -= len(block)
        return left == 0 and file.read() == MARK + digest.digest()
