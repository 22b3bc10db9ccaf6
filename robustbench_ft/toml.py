"""Files of TOML, read in one place."""

import sys
from pathlib import Path
from typing import Any

from .errors import RbftError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read(path: Path, what: str) -> dict[str, Any]:
    """The content of a file; raises `RbftError` that calls it `what`, e.g. 'the plan'."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RbftError(f"cannot read {what} {path}: {error}") from error
    except ValueError as error:
        raise RbftError(f"{path} is not valid TOML: {error}") from error


def parse(text: str) -> dict[str, Any]:
    """The content of a text; raises `ValueError`, also for numbers of thousands of digits."""
    return tomllib.loads(text)
