"""Tables as notebooks show them: HTML, and pandas frames. Torch-free."""

from collections.abc import Mapping, Sequence
from typing import Any

from .compare.text import Text, grid
from .errors import RbftError


def frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A DataFrame of plain dicts. Raises `RbftError` where pandas is not installed."""
    try:
        import pandas
    except ImportError as error:
        raise RbftError("pandas is not installed: run `pip install pandas`, or take the plain dicts") from error
    return pandas.DataFrame(list(rows))


def html(text: Text) -> str:
    """A table with its title and caption."""
    head, body = map(_escaped, text.header), [list(map(_escaped, row)) for row in text.body]
    table = grid(list(head), body, "unsafehtml")
    return f"<p><b>{_escaped(text.title)}</b></p>\n{table}\n<p><small>{_escaped(text.caption)}</small></p>"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
