"""What pages are made of: tables of cells, and the templates that turn them into HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .table import PAPER_PART, RANKED_PART, REFERENCE_PART, UNRANKED_PART, Row

TEMPLATES = Path(__file__).with_name("templates")
PARTS = (REFERENCE_PART, RANKED_PART, UNRANKED_PART, PAPER_PART)


@dataclass(frozen=True)
class Cell:
    text: str
    sort: float | str | None = None  # raw value; None sorts last
    kind: str = ""  # CSS class
    links: tuple[tuple[str, str], ...] = ()  # (text, where it leads), in place of the text
    heat: float | None = None  # in [0, 1]: how strongly it is tinted


@dataclass(frozen=True)
class Line:
    row: str  # key of a board's row, or ''
    cells: tuple[Cell, ...]
    kind: str = RANKED_PART
    id: str = ""  # a link that stays: of the row of a main table
    data: Mapping[str, str] = field(default_factory=dict[str, str])  # what readers filter by
    note: str = ""  # below the first cell
    group: str = ""  # lines of one group stay together, too


@dataclass(frozen=True)
class Table:
    name: str
    caption: str
    head: tuple[str, ...]
    lines: tuple[Line, ...]
    words: tuple[str, ...] = ()  # columns that hold words: aligned left
    bodies: tuple[tuple[Line, ...], ...] = field(init=False)

    def __post_init__(self) -> None:
        # the reference stays above the others and rows without a claim below, whatever a reader sorts by
        order = [(group, kind) for group in dict.fromkeys(line.group for line in self.lines) for kind in PARTS]
        parts = [tuple(line for line in self.lines if (line.group, line.kind) == key) for key in order]
        object.__setattr__(self, "bodies", tuple(part for part in parts if part))


def line_of(row: Row, cells: Sequence[Cell]) -> Line:
    """A line of a board's row, with what a reader must know of it below its name."""
    note = "reference" if row.reference else "" if row.ranked else row.note
    return Line(row.key, tuple(cells), row.kind, note=note)


def choices_of(lines: Sequence[Line], names: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """(attribute, title, values) of filters that have something to choose from."""
    titles = {"kind": "rows"}
    found = [(name, titles.get(name, name), sorted({line.data[name] for line in lines})) for name in names]
    return [one for one in found if len(one[2]) > 1]


def render(template: str, **values: Any) -> str:
    """The page of a template, with our own style and script."""
    return _environment().get_template(template).render(style=_part("style.css"), script=_part("script.js"), **values)


@lru_cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip


def _part(name: str) -> Markup:
    """Our own style and script go in as they are."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))
