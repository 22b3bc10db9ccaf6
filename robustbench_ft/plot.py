"""Pictures of records, for notebooks. Torch-free."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .compare import figure, report
from .errors import RbftError
from .record.store import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def scatter(records: Iterable[Record], path: str | Path | None = None) -> "Figure":
    """ID against mean OOD accuracy with 95 % intervals, of records on one suite; also written to `path` if given.

    >>> import robustbench_ft as rb
    >>> picture = rb.plot.scatter(rb.load("runs"), "scatter.png")
    >>> picture.axes[0].get_xlabel()
    'ID top-1 accuracy, %'
    """
    found = report.tables(records)
    if len(found) != 1:
        titles = "; ".join(table.title for table in found)
        raise RbftError(f"a picture shows one table, and these records make {len(found)} ({titles}): choose with .of()")
    if path is not None:
        figure.scatter(found[0], Path(path))
    return figure.draw(found[0])
