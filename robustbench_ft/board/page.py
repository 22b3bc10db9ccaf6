"""The static site: one self-contained HTML file per suite version, and an index. Works without a server or scripts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from robustbench_ft.claims import claim
from robustbench_ft.claims.schema import BY_REPORTED, BY_VALIDATION, ORACLE, Machine, Trust
from robustbench_ft.compare.tables import metric_title
from robustbench_ft.stats import lines as stats_lines
from robustbench_ft.suite import Card

from . import figures, paper, text
from .table import Board, Row, caption

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True, eq=False)
class Page:
    """All boards of one suite version."""

    suite: str
    version: int
    boards: tuple[Board, ...]
    paper: tuple[paper.Row, ...]
    shifts: tuple[str, ...]
    card: Card | None

    @property
    def name(self) -> str:
        return f"{self.suite}-v{self.version}"


@dataclass(frozen=True)
class Cell:
    text: str
    sort: float | str | None = None  # raw value; None sorts last
    kind: str = ""  # CSS class
    link: str = ""


@dataclass(frozen=True)
class Line:
    row: str  # key of a board's row, or ''
    cells: tuple[Cell, ...]
    ranked: bool = True


@dataclass(frozen=True)
class Table:
    name: str
    caption: str
    head: tuple[str, ...]
    lines: tuple[Line, ...]
    words: tuple[str, ...] = ()  # columns that hold words: aligned left
    bodies: tuple[tuple[Line, ...], ...] = field(init=False)

    def __post_init__(self) -> None:
        # rows without a claim stay below the others, whatever a reader sorts by
        parts = [tuple(line for line in self.lines if line.ranked is ranked) for ranked in (True, False)]
        object.__setattr__(self, "bodies", tuple(part for part in parts if part))


def render(page: Page, footer: Sequence[str]) -> str:
    """The page as HTML."""
    sections: list[dict[str, Any]] = []
    for k, board in enumerate(page.boards):
        styles = figures.looks(board)
        drawn = [
            (title, Markup(draw(board, f"b{k}-{kind}")))
            for kind, (title, draw) in figures.FIGURES.items()
            if figures.drawable(board, kind)
        ]  # the only markup that is not escaped: `svg.text` escapes what it is given
        sections.append({
            "key": f"b{k}", "board": board, "caption": caption(board), "meaning": text.meaning(board),
            "looks": styles, "figures": drawn, "main": _main(board, f"b{k}"),
            "more": _more(board, f"b{k}"),
        })  # fmt: skip
    lines = [
        (title, Markup(figures.published(page.paper, page.suite, shift, f"p-{shift}")))
        for shift, title in _lined(page).items()
    ]
    papers = {"table": _paper(page), "figures": lines, "note": text.PAPER_NOTE} if page.paper else None
    return _environment().get_template("board.html").render(
        page=page, sections=sections, papers=papers, footer=footer, style=_part("style.css"), script=_part("script.js"),
    )  # fmt: skip


def _lined(page: Page) -> dict[str, str]:
    """Shifts for which a line of standard models is shipped, where papers have rows on them."""
    # papers print the plain ID accuracy, so only lines over that can be drawn for them
    axes = stats_lines.axes(page.suite, page.shifts) if page.paper else {}
    shifts = [shift for shift, axis in axes.items() if axis.identity == "test"]
    return {shift: f"{shift} against ID, with the line of standard models" for shift in shifts}


def index(pages: Sequence[Page], footer: Sequence[str]) -> str:
    return _environment().get_template("index.html").render(pages=pages, footer=footer, style=_part("style.css"))


@lru_cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip


def _part(name: str) -> Markup:
    """Our own style and script go in as they are."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def _named(row: Row) -> Cell:
    return Cell(row.name, row.name, "name")


def _main(board: Board, key: str) -> Table:
    lines: list[Line] = []
    for row in board.rows:
        emphasis = "best" if row.key in board.bold else "next" if row.key == board.underlined else ""
        found = {column: row.estimate(column) for column in board.shown_columns}
        raw: list[float | str | None] = [row.name, len(row.seeds), found["mean OOD"].value, row.letters or None]
        raw.append(row.rank.low + row.rank.high / 1000 if row.rank else None)
        raw += [row.against.value if row.against else None] if board.baseline else []
        raw += [found[column].value for column in board.shown_columns[1:]]
        raw.append(row.gain.value if row.gain else None)
        raw += [text.recipe_name(row)] if len(board.recipes) > 1 else []
        kinds = ["name", "", emphasis, *("" for _ in raw[3:])]
        cells = [Cell(t, s, k) for t, s, k in zip(text.line(board, row), raw, kinds, strict=True)]
        lines.append(Line(row.key, tuple(cells), row.ranked))
    return Table(
        f"{key}-main",
        f"{metric_title(board.run_set).capitalize()}: {board.title}",
        tuple(text.header(board)),
        tuple(lines),
    )


def _more(board: Board, key: str) -> list[Table]:
    return [
        *_further(board, key),
        _scores(board, key),
        *_effective(board, key),
        _costs(board, key),
        _origin(board, key),
    ]


def _further(board: Board, key: str) -> list[Table]:
    if not board.further:
        return []
    lines = [
        Line(row.key, (_named(row), *(
            Cell(shown, row.further(column)[0])
            for shown, column in zip(text.further_cells(board, row), board.further, strict=True)
        )), row.ranked)
        for row in board.rows
    ]  # fmt: skip
    head = ("method", *(column.title for column in board.further))
    return [Table(f"{key}-further", text.FURTHER.rstrip("."), head, tuple(lines))]


SCORES = (("NLL", "nll", 3), ("Brier", "brier", 3), ("ECE, %", "ece", 1), ("macro-F1, %", "macro_f1", 1))


def _scores(board: Board, key: str) -> Table:
    head = ["method"] + [f"{title} on {c}" for title, _, _ in SCORES for c in ("ID", "mean OOD")]
    lines: list[Line] = []
    for row in board.rows:
        cells = [_named(row)]
        for title, metric, digits in SCORES:
            scale = 100 if title.endswith("%") else 1
            for column in ("ID", "mean OOD"):
                value = row.mean(metric, column)
                cells.append(Cell(text.number(None if value is None else scale * value, digits), value))
        lines.append(Line(row.key, tuple(cells), row.ranked))
    return Table(
        f"{key}-scores", "Calibration and further metrics, means over seeds (ECE: 15 equal-width bins, biased up)",
        tuple(head), tuple(lines),
    )  # fmt: skip


def _effective(board: Board, key: str) -> list[Table]:
    """Where a line of standard models is shipped for a shift."""
    shifts = [shift for shift in board.shifts if any(shift in (row.effective or {}) for row in board.rows)]
    if not shifts:
        return []
    lines: list[Line] = []
    for row in board.rows:
        cells = [_named(row)]
        for shift in shifts:
            found = (row.effective or {}).get(shift)
            if found is None:
                cells.append(Cell(text.NONE))
                continue
            half = found.measured.half_width if found.measured else 0.0
            far = ", extrapolated" if found.extrapolated else ""
            cells.append(Cell(f"{100 * found.value:+.1f} ± {100 * half:.1f}{far}", found.value))
        lines.append(Line(row.key, tuple(cells), row.ranked))
    head = ("method", *(f"{shift}, points above the line" for shift in shifts))
    note = "Effective robustness: OOD accuracy above what a standard model of the same ID accuracy reaches"
    return [Table(f"{key}-effective", note, head, tuple(lines))]


def _costs(board: Board, key: str) -> Table:
    lines: list[Line] = []
    for row in board.rows:
        cells = [_named(row)]
        cells += [Cell(text.number(value, digits), value) for value, digits in text.costs(row)]
        lines.append(Line(row.key, (*cells, Cell(text.machine(row), text.machine(row))), row.ranked))
    head = ("method", *text.COSTS, "on")
    return Table(f"{key}-costs", "Cost, means over seeds", head, tuple(lines), words=("on",))


def _origin(board: Board, key: str) -> Table:
    lines: list[Line] = []
    for row in board.rows:
        found, identity = row.claim.runs[0].environment, row.claim.identity
        seeds = ", ".join(map(str, row.seeds))
        cells = [
            _named(row),
            Cell(claim.digest(row.source.raw)[:12], link=f"../{row.source.place.file.as_posix()}"),
            Cell(row.claim.training.config_sha256[:12]), Cell(identity.weights[:12]), Cell(seeds),
            Cell(_selection_text(row)),
            Cell(_code_text(found)),
            Cell(_packages_text(found)),
            Cell(_origin_text(row.claim.trust)),
        ]  # fmt: skip
        lines.append(Line(row.key, tuple(cells), row.ranked))
    head = ("method", "claim", "configuration", "weights", "seeds", "selection", "code", "versions", "origin")
    return Table(f"{key}-origin", "Where each row comes from; digests are sha256", head, tuple(lines), words=head[1:])


SELECTIONS = {BY_VALIDATION: "alpha by ID validation", BY_REPORTED: "alpha by the reported ID set",
              ORACLE: "alpha by the shifts (oracle)"}  # fmt: skip


def _selection_text(row: Row) -> str:
    """How its checkpoint and its candidate were chosen."""
    found = [row.claim.training.selection, SELECTIONS.get(row.result.selection, "")]
    return ", ".join(part for part in found if part)


def _code_text(found: Machine) -> str:
    git = found.git
    code = "installed copy" if git is None else f"{git.commit[:10]}{' (changed)' if git.dirty else ''}"
    return f"rbft {found.rbft} {code}"


def _packages_text(found: Machine) -> str:
    packages = found.packages or {}
    return ", ".join(f"{name} {packages[name]}" for name in ("torch", "open_clip_torch") if packages.get(name))


def _origin_text(trust: Trust) -> str:
    by = f" by {trust.by}" if trust.by else ""
    level = f"; marked as verified ({trust.verified}) by {trust.verified_by}" if trust.verified != "none" else ""
    return f"{trust.origin}{by}{level}"


def _paper(page: Page) -> Table:
    head = tuple(text.paper_header(page.shifts))
    words = ("backbone", "seeds", "source")
    lines: list[Line] = []
    for row in page.paper:
        texts = text.paper_line(row, page.shifts)
        raw: list[float | None] = [row.mean_ood(page.shifts)]
        raw += [row.cells[name].value if name in row.cells else None for name in ("ID", *page.shifts)]
        sorts = [texts[0], texts[1], *raw, texts[-2], texts[-1]]
        kinds = ["name paper", *("" for _ in texts[1:])]
        lines.append(Line("", tuple(Cell(t, s, k) for t, s, k in zip(texts, sorts, kinds, strict=True))))
        for board in page.boards:
            for name, found in text.deltas(board, row, page.shifts):
                cells = [Cell(f"rerun - paper: {name}", texts[0], "name delta"), Cell("", texts[1])]
                cells += [Cell(t, s) for t, s in zip(found, raw, strict=True)]
                lines.append(Line("", (*cells, Cell(""), Cell(texts[-1], texts[-1]))))
    return Table("papers", "Rows from papers, as printed", head, tuple(lines), words=words)
