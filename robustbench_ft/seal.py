"""The seal: while a method is being fitted and evaluated, no shift is loaded and nothing is drawn. Torch-free."""

import threading
from collections.abc import Generator
from contextlib import contextmanager

from .errors import SealedError

_open: list[None] = []  # one entry for each cell under way in this process: its threads are sealed too


class _Allowed(threading.local):
    """How many permitted loads are under way in this thread."""

    depth = 0


_allowed = _Allowed()


@contextmanager
def sealed() -> Generator[None, None, None]:
    """While this is open, every suite refuses to load anything but ID train and ID validation, and nothing is drawn."""
    _open.append(None)
    try:
        yield
    finally:
        _open.pop()


def is_sealed() -> bool:
    """Whether a method is being fitted or evaluated in this process."""
    return bool(_open)


@contextmanager
def permitted() -> Generator[None, None, None]:
    """What a suite opens while it loads a split that `fit` may see: drawn suites draw it."""
    _allowed.depth += 1
    try:
        yield
    finally:
        _allowed.depth -= 1


def check_drawing(what: str) -> None:
    """Raise `SealedError` where `what` may not be drawn."""
    if _open and not _allowed.depth:
        raise SealedError(
            f"{what} is sealed during fit: drawn pictures are what shifts are made of; use the images that fit is given"
        )
