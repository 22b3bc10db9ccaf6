"""Rows from papers: shown as printed, with their source, never ranked with rows that were run here."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    others: tuple["Cell", ...] = ()  # other values that the same paper prints for it elsewhere

    @property
    def text(self) -> str:
        value = f"{self.value:.{self.digits}f}"
        own = value if self.spread is None else f"{value} ± {self.spread:.{self.digits}f}"
        return " / ".join([own, *(other.text for other in self.others)])

    @property
    def readings(self) -> tuple["Cell", ...]:
        """Every value that is printed, the first source's first."""
        return (self, *self.others)


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
    year: int | None = None
    further: tuple["Row", ...] = ()  # the same method in other tables of the same paper

    def mean_ood(self, shifts: Sequence[str]) -> float | None:
        """Computed here from the printed shifts; none while one is missing."""
        found = [self.cells[shift].value for shift in shifts if shift in self.cells]
        return sum(found) / len(found) if len(found) == len(shifts) else None

    @property
    def sources(self) -> tuple[str, ...]:
        """All tables that the row is printed in."""
        return (self.source, *(row.source for row in self.further))

    @property
    def contradiction(self) -> float:
        """The most by which its sources differ in one number, in points; 0 where they agree or there is one."""
        return max(
            (abs(cell.value - other.value) for cell in self.cells.values() for other in cell.others), default=0.0
        )

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
        note=first.note or "", year=first.year,
        cells={names[entry.dataset]: Cell(entry.value, entry.std, digits) for entry in group},
    )  # fmt: skip


def one_per_paper(rows: Sequence[Row]) -> list[Row]:
    """Rows of one method in several tables of one paper as one row, with every value where the tables differ."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.suite, row.model, row.pretrained, row.paper, row.method), []).append(row)
    return [_joined(group) if len(group) > 1 else group[0] for group in groups.values()]


def _joined(group: Sequence[Row]) -> Row:
    cells: dict[str, Cell] = {}
    for name in dict.fromkeys(name for row in group for name in row.cells):
        first, *others = [row.cells[name] for row in group if name in row.cells]
        values = {first.value: first}
        for other in others:
            values.setdefault(other.value, other)
        cells[name] = replace(first, others=tuple(values.values())[1:])
    return replace(group[0], cells=cells, further=tuple(group[1:]))


@dataclass(frozen=True)
class Delta:
    """rerun - paper in points, with the rerun's interval; of several printed values the nearest."""

    value: float
    half_width: float
    discrepant: bool  # further apart than the rerun's interval and the printed spread allow

    @property
    def text(self) -> str:
        return f"{self.value:+.1f} ± {self.half_width:.1f}{' discrepant' if self.discrepant else ''}"


def delta(value: float, half_width: float, cell: Cell) -> Delta:
    """Rerun minus paper in points, from a rerun's accuracy and half-width in [0, 1]."""
    nearest = min(cell.readings, key=lambda one: abs(100 * value - one.value))
    gap, half = 100 * value - nearest.value, 100 * half_width
    return Delta(gap, half, abs(gap) > half + (nearest.spread or 0.0))


def comparable(row: Row, identity: Identity) -> bool:
    """Same suite, backbone and weights tag, the papers' own protocol, and the same method as far as names tell."""
    return (
        row.suite == identity.suite
        and row.open_clip_name == identity.model
        and row.pretrained == identity.pretrained
        and identity.protocol == "as-published"
        and METHODS.get(row.method) == identity.method
    )
