"""The pages behind a suite's page: two rows side by side, and class by class. Small files, whole without scripts."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from robustbench_ft.compare.text import points

from . import by_class, cite, pairs, parts, text
from .page import Page
from .pairs import Flipped, Pair
from .parts import Cell, Line, Table, line_of
from .table import Board, Row

PAIRS_NOTE = (
    "Differences are first row minus second, in points, paired on images, ± half-width of the 95 % interval. They "
    "are unadjusted: read single shifts as a description. 'Only A right' is the share of images that A gets right and "
    "B does not, for one seed of each. Firm flips are images that every seed of one row gets right and no seed of the "
    "other."
)
CLASSES_NOTE = (
    "Accuracy in %, means over seeds, of the images of one class. Classes are small: with 50 images a difference of 15 "
    "points may be chance, and nothing here is tested."
)


def render_pairs(page: Page, footer: Sequence[str]) -> str:
    """The page of pairs as HTML."""
    sections = [_pairs(board, f"b{k}") for k, board in enumerate(page.boards)]
    return parts.render("pairs.html", page=page, sections=sections, note=PAIRS_NOTE, footer=footer)


def _pairs(board: Board, key: str) -> dict[str, Any]:
    found, links = pairs.pairs(board), cite.links(board)
    told = [pair_shown(pair, f"{key}-p{k}", _id(links, pair)) for k, pair in enumerate(found)]
    every = len(board.rows) * (len(board.rows) - 1) // 2
    cut = "" if len(found) == every else (
        f" {len(found)} of {every} pairs: each row beside {board.baseline or 'zero-shot'} and beside the best mean OOD."
    )  # fmt: skip
    caption = (
        "Mean OOD of the row minus that of the column, points; bold: told apart at Holm-adjusted p < .05 over all "
        f"pairs of ranked rows. A number leads to its pair.{cut}"
    )
    matrix = _matrix(board, key, found, links)
    return {"key": key, "board": board, "matrix": matrix, "caption": caption, "pairs": told}


def _id(links: dict[str, str], pair: Pair) -> str:
    return f"{links[pair.a.key]}--{links[pair.b.key]}"


def _matrix(board: Board, key: str, found: Sequence[Pair], links: dict[str, str]) -> Table:
    by_keys = {(pair.a.key, pair.b.key): pair for pair in found}
    beside = [row for row in board.rows if all((row.key, o.key) in by_keys or (o.key, row.key) in by_keys
                                               for o in board.rows if o is not row)]  # fmt: skip
    lines: list[Line] = []
    for row in board.rows:
        cells = [Cell(row.name, row.name, "name")]
        for other in beside:
            pair = by_keys.get((row.key, other.key)) or by_keys.get((other.key, row.key))
            if pair is None:
                cells.append(Cell(""))
                continue
            value = pair.lines[0].difference.value * (1 if pair.a is row else -1)
            words = f"{100 * value:+.1f}"
            cells.append(Cell(words, None, "best" if pair.told_apart else "", ((words, f"#{_id(links, pair)}"),)))
        lines.append(line_of(row, cells))
    return Table(f"{key}-matrix", f"All pairs: {board.title}", ("method", *(row.name for row in beside)), tuple(lines))


def pair_shown(pair: Pair, key: str, place: str) -> dict[str, Any]:
    """Words, table and images of one pair; `key` names the table, `place` is where links lead."""
    mean = points(pair.lines[0].difference, signed=True)
    apart = "told apart" if pair.told_apart else "not told apart" if pair.p_adjusted is not None else "not tested"
    p = "" if pair.p_adjusted is None else f", adjusted p {text.p_value(pair.p_adjusted)}"
    title = f"{pair.a.name} beside {pair.b.name}"
    a, b = pair.a.name, pair.b.name
    head = ("column", "difference, points", f"only {a} right", f"only {b} right", f"firm flips to {a}",
            f"firm flips to {b}")  # fmt: skip
    lines: list[Line] = []
    for line in pair.lines:
        shown = points(line.difference, signed=True)
        cells = [Cell(line.title, kind="name"), Cell(shown)]
        cells += [Cell(words) for words in _flips(line.flipped)]
        lines.append(Line("", tuple(cells)))
    notes = ["Seeds are paired: both rows were made from the same training runs."] if pair.paired_seeds else []
    notes += [f"{row.name}: {row.note}." for row in (pair.a, pair.b) if row.note and not row.ranked]
    return {
        "a": pair.a.key, "b": pair.b.key, "id": place, "title": title, "note": " ".join(notes),
        "said": f"mean OOD {mean}, {apart}{p}", "table": Table(key, title, head, tuple(lines)),
        "images": [words for line in pair.lines if (words := _images(line, pair))],
    }  # fmt: skip


def _flips(found: Flipped | None) -> list[str]:
    if found is None:
        return [""] * 4
    shares = [f"{100 * share:.1f} %" for share in (found.only_a, found.only_b)]
    return [*shares, str(found.firm_a), str(found.firm_b)]


def _images(line: pairs.Line, pair: Pair) -> str:
    """Some images of the firm flips, as 'sketch: 218 to lipsum, e.g. ...'; '' where there is none."""
    if line.flipped is None:
        return ""
    found = line.flipped
    sides = ((pair.a, found.firm_a, found.ids_a), (pair.b, found.firm_b, found.ids_b))
    some = [f"{n} to {row.name}, e.g. {', '.join(map(_short, ids))}" for row, n, ids in sides if n]
    return f"{line.title}: {'; '.join(some)}" if some else ""


def _short(example: str) -> str:
    """An example's id without the folder of its suite, which all of them share."""
    return example.partition("/")[2] or example


def render_classes(page: Page, footer: Sequence[str]) -> str:
    """The page of classes as HTML."""
    sections = [_classes(board, f"b{k}") for k, board in enumerate(page.boards)]
    return parts.render("classes.html", page=page, sections=sections, note=CLASSES_NOTE, footer=footer)


def _classes(board: Board, key: str) -> dict[str, Any]:
    found = by_class.by_class(board)
    said: list[str] = ["Spread: between the best and the worst row, points of the mean over shifts."]
    if len(found.classes) < found.total:
        said.append(f"The {len(found.classes)} of {found.total} classes with the widest spread.")
    if len(found.rows) < len(board.rows):
        said.append(f"{len(found.rows)} of {len(board.rows)} rows: the first ones, and the baseline.")
    if found.left_out:
        said.append(f"Left out, as their classes may be others than those of ID: {', '.join(found.left_out)}.")
    head = ("class", "images, ID", "spread", *(row.name for row in found.rows))
    lines = [_overview(one, found.rows, f"{key}-c{one.label}") for one in found.classes]
    overview = Table(f"{key}-classes", f"Mean over shifts by class: {board.title}", head, tuple(lines))
    shown = [_class(one, found, f"{key}-c{one.label}") for one in found.classes]
    return {"key": key, "board": board, "overview": overview, "caption": " ".join(said), "classes": shown}


def _overview(one: by_class.ClassTable, rows: Sequence[Row], place: str) -> Line:
    name = Cell("", one.name, "name", ((one.name, f"#{place}"),))
    cells = [name, Cell(f"{one.images['ID']:,}", one.images["ID"]), Cell(f"{100 * one.spread:.0f}", one.spread)]
    return Line("", (*cells, *(_tinted(one.mean_ood.get(row.key)) for row in rows)))


def _class(one: by_class.ClassTable, found: by_class.ByClass, place: str) -> dict[str, Any]:
    columns = [column for column in found.columns if column in one.images]
    head = ("method", "mean over shifts", *(f"{column}, n = {one.images[column]:,}" for column in columns))
    lines = [
        line_of(row, [
            Cell(row.name, row.name, "name"), _share(one.mean_ood.get(row.key)),
            *(_share(one.accuracy[row.key].get(column)) for column in columns),
        ])
        for row in found.rows
    ]  # fmt: skip
    said = f"spread {100 * one.spread:.0f} points"
    table = Table(f"{place}-t", one.name, head, tuple(lines))
    return {"id": place, "name": one.name, "said": said, "table": table}


def _share(value: float | None) -> Cell:
    return Cell(text.NONE) if value is None else Cell(f"{100 * value:.0f}", round(value, 4))


def _tinted(value: float | None) -> Cell:
    return _share(value) if value is None else replace(_share(value), kind="heat", heat=round(value, 2))
