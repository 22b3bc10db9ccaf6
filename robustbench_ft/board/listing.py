"""Every row of every suite and backbone in one list: shown, filtered and downloaded, never ranked across suites."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from robustbench_ft.compare.text import points
from robustbench_ft.stats import Estimate

from . import cite, paper, parts, text
from .page import Page, filtered_by
from .parts import Cell, Line, Table
from .table import PAPER_PART, Board, Row

PRINTED = "as printed"  # the protocol of papers' rows: what they did stands in them
NOTE = (
    "One line for every row of every page, in the order of its own page. Numbers of different suites, backbones or "
    "protocols are never pooled, ranked or tested together: filter to one of each before you compare. Rows from papers "
    "are as printed, without intervals of ours."
)


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One row of `rows.csv`; accuracies in [0, 1], None where a source does not say."""

    suite: str
    version: int
    backbone: str
    protocol: str
    row: str
    method: str = ""
    kind: str  # reference, ranked, unranked or paper
    seeds: str
    mean_ood: float | None
    mean_ood_low: float | None = None
    mean_ood_high: float | None = None
    id: float
    id_low: float | None = None
    id_high: float | None = None
    gain_at_equal_id: float | None = None
    letters: str = ""
    tied_rank: int | None = None
    trained_parameters: float | None = None
    fit_seconds: float | None = None
    passes_per_prediction: float | None = None
    date: str  # of the claim, or the year of the paper
    source: str  # of a claim its file, of a paper's row the table
    link: str  # below site/


def listed(pages: Sequence[Page]) -> list[tuple[Listed, Line]]:
    """Every row as data and as a line of the table, in page order."""
    found: list[tuple[Listed, Line]] = []
    for page in pages:
        for board in page.boards:
            links = cite.links(board)
            found += [_run(page, board, row, links[row.key]) for row in board.rows]
        found += [_printed(page, row) for row in page.paper]
    return found


def _run(page: Page, board: Board, row: Row, link: str) -> tuple[Listed, Line]:
    mean, identity, cost = row.estimate("mean OOD"), row.estimate("ID"), row.cost
    place = f"{page.name}.html#{link}"
    one = Listed(
        suite=page.suite, version=page.version, backbone=board.model, protocol=board.protocol, row=row.name,
        method=row.method, kind=row.kind, seeds=str(len(row.seeds)), mean_ood=mean.value, mean_ood_low=mean.low,
        mean_ood_high=mean.high, id=identity.value, id_low=identity.low, id_high=identity.high,
        gain_at_equal_id=row.gain.value if row.gain else None, letters=row.letters, tied_rank=row.tied,
        trained_parameters=cost.parameters, fit_seconds=cost.fit, passes_per_prediction=cost.passes,
        date=cite.date(row), source=row.source.place.file.as_posix(), link=place,
    )  # fmt: skip
    cells = [
        *_names(one), _estimate(mean), _estimate(identity),
        Cell(text.gain(row), row.gain.value if row.gain else None), Cell(text.tied(row), row.tied),
        *(Cell(text.number(value, digits), value) for value, digits in ((cost.parameters, 0), (cost.fit, 1))),
        _day(one),
    ]  # fmt: skip
    note = "reference" if row.reference else "" if row.ranked else row.note
    data = {"suite": page.name, **filtered_by(board, row), "kind": "run here"}
    return one, Line("", tuple(cells), row.kind, data=data, note=note, group=page.name)


def _estimate(found: Estimate) -> Cell:
    return Cell(points(found), found.value)


def _day(one: Listed) -> Cell:
    return Cell(one.date or text.NONE, one.date or None)


def _names(one: Listed) -> list[Cell]:
    name = Cell(one.row, one.row, "name", ((one.row, one.link),))
    return [name, Cell(f"{one.suite} v{one.version}"), Cell(one.backbone), Cell(one.protocol)]


def _printed(page: Page, row: paper.Row) -> tuple[Listed, Line]:
    means = [mean for one in (row, *row.further) if (mean := one.mean_ood(page.shifts)) is not None]
    backbone = f"{row.model} {row.pretrained}"
    one = Listed(
        suite=page.suite, version=page.version, backbone=backbone, protocol=PRINTED, row=row.method, kind=PAPER_PART,
        seeds=row.seeds, mean_ood=means[0] / 100 if means else None, id=row.cells["ID"].value / 100,
        date=str(row.year or ""), source=text.paper_source(row), link=f"{page.name}.html#papers",
    )  # fmt: skip
    shown = " / ".join(dict.fromkeys(f"{mean:.2f}" for mean in means)) or text.NONE
    cells = [
        *_names(one), Cell(shown, one.mean_ood), Cell(row.cells["ID"].text, one.id), *[Cell(text.NONE)] * 4, _day(one),
    ]  # fmt: skip
    data = {"suite": page.name, "backbone": backbone, "protocol": PRINTED}
    data |= {"parameters": "", "cost": "", "kind": "from papers"}
    return one, Line("", tuple(cells), PAPER_PART, data=data, note=text.paper_source(row), group=page.name)


def index(pages: Sequence[Page], lines: Sequence[Line], footer: Sequence[str]) -> str:
    """The page across suites and backbones as HTML, with the lines of `listed`."""
    head = ("row", "suite", "backbone", "protocol", "mean OOD, %", "ID, %", "gain at equal ID, points", "tied rank",
            "trained parameters", "fit, s", "date")  # fmt: skip
    table = Table("rows", "Rows of every suite and backbone", head, tuple(lines), words=head[1:4])
    choices = parts.choices_of(lines, ("suite", "backbone", "protocol", "kind"))
    return parts.render("index.html", pages=pages, listing=table, choices=choices, note=NOTE, footer=footer)


def as_csv(rows: Sequence[Listed]) -> str:
    """All rows, one line each."""
    sink = io.StringIO()
    out = csv.writer(sink, lineterminator="\n")
    out.writerow([one.name for one in fields(Listed)])
    for row in rows:
        out.writerow([_written(value) for value in asdict(row).values()])
    return sink.getvalue()


def _written(value: object) -> object:
    if isinstance(value, float):
        return text.plain(value)
    return "" if value is None else text.quoted(value) if isinstance(value, str) else value


def as_json(rows: Sequence[Listed]) -> str:
    """All rows, one line each."""
    plain = [{name: _rounded(value) for name, value in asdict(row).items()} for row in rows]
    return "[\n" + ",\n".join(json.dumps(row) for row in plain) + "\n]\n"


def _rounded(value: object) -> object:
    return float(text.plain(value)) if isinstance(value, float) else value
