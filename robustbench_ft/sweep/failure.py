"""A failed cell: a small file in its folder that says why, and `error.log` with all of it. Torch-free."""

import json
import re
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from robustbench_ft import atomic
from robustbench_ft.errors import RbftError

from .process import this

SCHEMA = 1
FILE, ERROR = "failed.json", "error.log"
LINES = 20  # of what a worker wrote last, kept in error.log
WIDTH = 300  # characters of a reason

Kind = Literal["error", "refused", "died"]


@dataclass(frozen=True)
class Failure:
    """Why a cell has no result."""

    kind: Kind  # 'error' in its work; 'refused' before anything was done; 'died': the worker is no more
    reason: str  # one line
    when: str  # ISO 8601, UTC
    worker: str  # 'host:pid'
    attempts: int = 1  # in this command
    detail: str = ""  # traceback and last output; written to error.log and not to failed.json


def of_error(error: BaseException) -> Failure:
    """The failure that an exception is."""
    detail = "".join(traceback.format_exception(error))
    return Failure("error", _reason(error), now(), this().text, detail=detail)


def refused(error: RbftError) -> Failure:
    """The failure of a cell that cannot be begun."""
    return Failure("refused", str(error), now(), this().text)


def died(status: int, worker: str, output: str, attempts: int) -> Failure:
    """The failure of a worker that ended while it was at a cell; `status` is that of `subprocess`."""
    if status < 0:
        how = f"was killed by signal {-status}" + (" (out of memory?)" if status == -9 else "")
    else:
        how = f"ended with exit code {status} in the middle of the cell"
    return Failure("died", f"the worker {worker} {how}", now(), worker, attempts, output)


def _reason(error: BaseException) -> str:
    """'ValueError: what it says (file.py, line 3)', one line."""
    if isinstance(error, SystemExit):
        text = f"the method ended the program, sys.exit({error.code!r})"
    elif isinstance(error, RbftError):
        return one_line(str(error))
    else:
        text = traceback.format_exception_only(error)[-1]
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return one_line(text) + place


def one_line(text: str) -> str:
    """The text without line breaks, cut where it is long."""
    flat = re.sub(r"\s+", " ", text).strip()
    return flat if len(flat) <= WIDTH else f"{flat[: WIDTH - 3]}..."


def now() -> str:
    """The time, in seconds, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def write(folder: Path, failure: Failure) -> None:
    """Record a failure. A folder that cannot be written keeps none: the command's summary names it all the same."""
    content = {key: value for key, value in asdict(failure).items() if key != "detail"}
    with suppress(RbftError):
        atomic.write_bytes(folder / ERROR, f"{failure.reason}\n{failure.detail}".rstrip().encode() + b"\n", "")
        text = json.dumps({"schema": SCHEMA, **content}, indent=2, sort_keys=True)
        atomic.write_bytes(folder / FILE, text.encode() + b"\n", "")


def add_printed(folder: Path, failure: Failure, text: str) -> Failure:
    """Record with a failure what its worker printed."""
    if not text:
        return failure
    found = replace(failure, detail=f"{failure.detail}\nIt printed:\n{text}")
    write(folder, found)
    return found


def printed(path: Path) -> str:
    """The end of what a worker printed into a file."""
    return "\n".join(tail(path, LINES))


def read(folder: Path) -> Failure | None:
    """The failure of a cell's last attempt; None where it did not fail. A damaged file is a failure, too."""
    try:
        content = json.loads((folder / FILE).read_bytes())
        return Failure(**{f.name: content[f.name] for f in fields(Failure) if f.name in content})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError):
        return Failure("error", f"{folder / FILE} cannot be read", "", "")


def clear(folder: Path) -> None:
    """Forget the failure of an earlier attempt."""
    for name in (FILE, ERROR):
        with suppress(OSError):
            (folder / name).unlink(missing_ok=True)


def tail(path: Path, lines: int) -> Sequence[str]:
    """The last lines of a text file; none where there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 400 * lines))
            return file.read().decode("utf-8", "replace").splitlines()[-lines:]
    except OSError:
        return []
