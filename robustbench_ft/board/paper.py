"""Rows from papers: shown as printed, with their source, never ranked with rows that were run here."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, FiniteFloat

from robustbench_ft.claims.schema import Identity
from robustbench_ft.errors import RbftError
from robustbench_ft.record.summary import RESTORE, read_as

FILE = "published_results.json"  # beside the boards
METRIC = "top1_acc_pct"
# the papers' names of a suite and its splits -> ours; sets that a suite does not have are left out
SUITES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "ImageNet": (
        "imagenet",
        {"ImageNet-val": "ID", "ImageNet-V2": "v2", "ImageNet-R": "r", "ImageNet-A": "a", "ImageNet-Sketch": "sketch"},
    ),
    "DomainNet": (
        "domainnet",
        {"real": "ID", **{name: name for name in ("painting", "clipart", "infograph", "sketch")}},
    ),
}
METHODS = {"FT": "ft", "LP-FT": "lp-ft", "FLYP": "flyp", "Lipsum-FT": "lipsum", "zero-shot": "zero-shot"}


@dataclass(frozen=True)
class Printed:
    """One entry of the file: one number of one method on one data set, as its source prints it."""

    method: str
    paper: str
    model: str
    pretrained: str
    suite: str  # as the paper calls it
    dataset: str
    metric: str
    value: FiniteFloat
    std: FiniteFloat | None
    seeds: Annotated[list[int], Field(min_length=1)] | str | None
    source: str
    source_kind: str  # 'primary' where it was read in the paper or its code
    note: str | None = None
    year: int | None = None


@dataclass(frozen=True)
class Cell:
    """A printed number, in %."""

    value: float
    spread: float | None  # what the paper prints behind its ±
    digits: int  # JSON drops trailing zeros: as many as the longest number of its row has

    @property
    def text(self) -> str:
        value = f"{self.value:.{self.digits}f}"
        return value if self.spread is None else f"{value} ± {self.spread:.{self.digits}f}"


@dataclass(frozen=True)
class Row:
    """One method in one table of one paper."""

    suite: str
    model: str
    pretrained: str
    method: str
    paper: str
    source: str
    secondary: bool  # not read in the paper itself
    seeds: str
    note: str
    cells: Mapping[str, Cell]  # by our column names

    def mean_ood(self, shifts: Sequence[str]) -> float | None:
        """Computed here from the printed shifts; none while one is missing."""
        found = [self.cells[shift].value for shift in shifts if shift in self.cells]
        return sum(found) / len(found) if len(found) == len(shifts) else None

    @property
    def open_clip_name(self) -> str:
        return self.model.replace("/", "-")


def load(path: Path) -> list[Row]:
    """All rows of suites that `rbft` has, by suite, model, source, in the file's order."""
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RbftError(f"cannot read published results {path}: {type(error).__name__}: {error}") from error
    rows: dict[tuple[str, ...], list[Printed]] = {}
    for entry in read_as(list[Printed], content, path, RESTORE):
        if entry.metric == METRIC and entry.dataset in SUITES.get(entry.suite, ("", {}))[1]:
            key = entry.suite, entry.model, entry.pretrained, entry.source, entry.method
            rows.setdefault(key, []).append(entry)
    found = [_row(group) for group in rows.values()]
    complete = [row for row in found if "ID" in row.cells and len(row.cells) > 1]
    return sorted(complete, key=lambda row: (row.suite, row.model, row.pretrained, row.source))


def _row(group: Sequence[Printed]) -> Row:
    first = group[0]
    suite, names = SUITES[first.suite]
    printed = [number for entry in group for number in (entry.value, entry.std) if number is not None]
    digits = max(1, *(len(f"{number:g}".partition(".")[2]) for number in printed))
    seeds = first.seeds
    return Row(
        suite=suite, model=first.model, pretrained=first.pretrained, method=first.method, paper=first.paper,
        source=first.source, secondary=first.source_kind != "primary",
        seeds="not said" if seeds is None else f"seed {seeds[0]}" if isinstance(seeds, list) else str(seeds),
        note=first.note or "",
        cells={names[entry.dataset]: Cell(entry.value, entry.std, digits) for entry in group},
    )  # fmt: skip


@dataclass(frozen=True)
class Delta:
    """rerun - paper in points, with the rerun's interval."""

    value: float
    half_width: float
    discrepant: bool  # further apart than the rerun's interval and the printed spread allow

    @property
    def text(self) -> str:
        return f"{self.value:+.1f} ± {self.half_width:.1f}{' discrepant' if self.discrepant else ''}"


def delta(value: float, half_width: float, cell: Cell) -> Delta:
    """Rerun minus paper in points, from a rerun's accuracy and half-width in [0, 1]."""
    gap, half = 100 * value - cell.value, 100 * half_width
    return Delta(gap, half, abs(gap) > half + (cell.spread or 0.0))


def comparable(row: Row, identity: Identity) -> bool:
    """Same suite, backbone and weights tag, the papers' own protocol, and the same method as far as names tell."""
    return (
        row.suite == identity.suite
        and row.open_clip_name == identity.model
        and row.pretrained == identity.pretrained
        and identity.protocol == "as-published"
        and METHODS.get(row.method) == identity.method
    )
