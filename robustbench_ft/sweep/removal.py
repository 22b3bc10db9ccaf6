"""Remove a cell: `done` first, so that what a kill leaves is no record. Torch-free."""

import shutil
from contextlib import suppress
from pathlib import Path

from robustbench_ft.errors import RbftError

from . import lock, planned
from .lock import Observer


def remove(folder: Path, stale: bool = False) -> None:
    """Remove a cell and forget that it was planned; `stale` says that its worker was found dead.

    Raises `RbftError` where a worker holds it.
    """
    root = next((path for path in folder.parents if any(path.glob(planned.PATTERN))), None)
    if folder.exists():
        old = lock.read(folder) if stale else None
        held = lock.take(folder, Observer(), old.number if old else 0)
        if held is None:
            raise RbftError(f"{folder} is held by a worker: stop it first")
        try:
            (folder / "done").unlink(missing_ok=True)
            for path in folder.iterdir():
                if path != held.path:
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except OSError as error:
            raise RbftError(f"cannot remove {folder}: {error.strerror}; correct its permissions") from error
        finally:
            held.release(finished=True)
        for path in (folder, folder.parent):
            with suppress(OSError):  # other seeds are in it
                path.rmdir()
    if root:
        planned.forget(root, [folder])
