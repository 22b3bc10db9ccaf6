"""A user's own suite: a `suite.toml` beside folders of images."""

from pathlib import Path

from .suite import Suite


def read(path: Path, partial: bool = False) -> Suite:
    """The suite that the file describes."""
    raise NotImplementedError
