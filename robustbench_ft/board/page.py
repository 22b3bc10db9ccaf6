"""The static site: one self-contained HTML file per suite version, and an index. Works without a server or scripts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from robustbench_ft.claims import claim
from robustbench_ft.claims.schema import BY_REPORTED, BY_VALIDATION, ORACLE, Machine, Trust
from robustbench_ft.compare.tables import metric_title
from robustbench_ft.stats import lines as stats_lines
from robustbench_ft.suite import Card

from . import cite, figures, paper, parts, text
from .parts import Cell, Line, Table, line_of
from .table import Board, Row, caption


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
            "more": _more(board, f"b{k}"), "entries": _entries(board),
            "head": [_unbroken(line) for line in text.head_lines(board)],
        })  # fmt: skip
    lines = [
        (title, Markup(figures.published(page.paper, page.suite, shift, f"p-{shift}")))
        for shift, title in _lined(page).items()
    ]
    papers = {"table": _paper(page), "figures": lines, "note": text.PAPER_NOTE} if page.paper else None
    choices = parts.choices_of([line for one in sections for line in one["main"].lines], ("backbone", "protocol"))
    return parts.render(
        "board.html", page=page, sections=sections, papers=papers, choices=choices, footer=footer,
    )  # fmt: skip


def _lined(page: Page) -> dict[str, str]:
    """Shifts for which a line of standard models is shipped, where papers have rows on them."""
    # papers print the plain ID accuracy, so only lines over that can be drawn for them
    axes = stats_lines.axes(page.suite, page.shifts) if page.paper else {}
    shifts = [shift for shift, axis in axes.items() if axis.identity == "test"]
    return {shift: f"{shift} against ID, with the line of standard models" for shift in shifts}


def _unbroken(words: str) -> str:
    """A number stays beside its sign."""
    return words.replace(" %", "\u00a0%")


def _entries(board: Board) -> list[tuple[str, str, str]]:
    """(name, permalink, BibTeX) of every row."""
    links = cite.links(board)
    return [(row.name, links[row.key], cite.bibtex(board, row)) for row in board.rows]


def _named(row: Row) -> Cell:
    return Cell(row.name, row.name, "name")


def _main(board: Board, key: str) -> Table:
    lines: list[Line] = []
    head, links = text.header(board), cite.links(board)
    for row in board.rows:
        emphasis = "best" if row.key in board.bold else "next" if row.key == board.underlined else ""
        found = {column: row.estimate(column) for column in board.shown_columns}
        raw: list[float | str | None] = [row.name, len(row.seeds)]
        if board.by_gain:
            raw.append(0.0 if row.on_curve and row.ranked else row.gain.value if row.gain else None)
        raw += [found["mean OOD"].value, row.letters or None]
        raw += [row.tied, row.rank.low + row.rank.high / 1000 if row.rank else None]
        raw += [row.against.value if row.against else None] if board.baseline else []
        raw += [found[column].value for column in board.shown_columns[1:]]
        raw += [text.recipe_name(row)] if len(board.recipes) > 1 else []
        kinds = [{"method": "name", text.MEAN: emphasis}.get(title, "") for title in head]
        cells = [Cell(t, s, k) for t, s, k in zip(text.line(board, row), raw, kinds, strict=True)]
        lines.append(replace(line_of(row, cells), id=links[row.key], data=filtered_by(board, row)))
    return Table(
        f"{key}-main",
        f"{metric_title(board.run_set).capitalize()}: {board.title}",
        tuple(head),
        tuple(lines),
    )


def filtered_by(board: Board, row: Row) -> dict[str, str]:
    """What readers filter a row by; '' where it is not known."""
    parameters, seconds = text.plain(row.cost.parameters), text.plain(row.cost.fit)
    return {"backbone": board.model, "protocol": board.protocol, "parameters": parameters, "cost": seconds}


def _more(board: Board, key: str) -> list[Table]:
    return [
        *_stability(board, key),
        *_further(board, key),
        _scores(board, key),
        *_effective(board, key),
        _costs(board, key),
        _origin(board, key),
    ]


def _stability(board: Board, key: str) -> list[Table]:
    """How firm the places by mean OOD are."""
    if len(board.placed) < 2:
        return []
    lines: list[Line] = []
    for row in board.placed:
        over = [row.rank.p_best if row.rank else None, row.first_over_shifts]
        cells = [_named(row), Cell(text.tied(row), row.tied), Cell(text.rank(row), row.rank.low if row.rank else None)]
        cells += [Cell(text.NONE if share is None else text.percent(share), share) for share in over]
        lines.append(line_of(row, cells))
    head = ("method", "tied rank", "rank, 95 %", "first in resamples of seeds and images",
            f"first in resamples of the {len(board.shifts)} shifts")  # fmt: skip
    note = "Places by mean OOD, among rows in which something was trained; docs/statistics.md, 'Ranks', says more"
    return [Table(f"{key}-places", note, head, tuple(lines))]


def _further(board: Board, key: str) -> list[Table]:
    if not board.further:
        return []
    lines = [
        line_of(row, [_named(row), *(
            Cell(shown, row.further(column)[0])
            for shown, column in zip(text.further_cells(board, row), board.further, strict=True)
        )])
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
        lines.append(line_of(row, cells))
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
        lines.append(line_of(row, cells))
    head = ("method", *(f"{shift}, points above the line" for shift in shifts))
    note = "Effective robustness: OOD accuracy above what a standard model of the same ID accuracy reaches"
    return [Table(f"{key}-effective", note, head, tuple(lines))]


def _costs(board: Board, key: str) -> Table:
    lines: list[Line] = []
    for row in board.rows:
        cells = [_named(row)]
        cells += [Cell(text.number(value, digits), value) for value, digits in text.costs(row)]
        lines.append(line_of(row, [*cells, Cell(text.machine(row), text.machine(row))]))
    head = ("method", *text.COSTS, "on")
    return Table(f"{key}-costs", "Cost, means over seeds", head, tuple(lines), words=("on",))


def _origin(board: Board, key: str) -> Table:
    lines: list[Line] = []
    for row in board.rows:
        found, identity = row.claim.runs[0].environment, row.claim.identity
        seeds = ", ".join(map(str, row.seeds))
        cells = [
            _named(row),
            Cell(cite.date(row) or text.NONE, cite.date(row) or None),
            Cell("", links=((claim.digest(row.source.raw)[:12], f"../{row.source.place.file.as_posix()}"),)),
            Cell(text.NONE, links=tuple((name, f"../../{cite.METHODS}/{name}") for name in cite.method_files(row))),
            Cell(row.claim.training.config_sha256[:12]), Cell(identity.weights[:12]), Cell(seeds),
            Cell(_selection_text(row)),
            Cell(_code_text(found)),
            Cell(_packages_text(found)),
            Cell(_origin_text(row.claim.trust)),
        ]  # fmt: skip
        lines.append(line_of(row, cells))
    head = (
        "method", "date", "claim", "method's file", "configuration", "weights", "seeds", "selection", "code",
        "versions", "origin",
    )  # fmt: skip
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
