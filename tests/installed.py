"""What the registry finds while a test runs."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from robustbench_ft import registry


@contextmanager
def registered(shelf: Path) -> Generator[None, None, None]:
    """While this is open, the registry offers what is installed in `shelf`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(shelf)
        registry.entries.cache_clear()
        yield
    registry.entries.cache_clear()
