"""Tables of text whose numbers keep all their digits, and the forms in which every command prints them.

Text cells of CSV and TSV that begin with a sign from which a spreadsheet would compute are quoted with an apostrophe.
"""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

MISSING = "—"
STYLES = ("terminal", "markdown", "csv", "tsv", "json")
MACHINE = ("csv", "tsv", "json")  # nothing but the tables goes to standard output
SIGNS = ("=", "+", "-", "@", "\t", "\r")
Value = str | int | float | bool | None


class Shown(str):
    """The text of a number as people read it, with the numbers behind it: ('', value), ('low', end), ('high', end)."""

    __slots__ = ("parts",)
    parts: tuple[tuple[str, Value], ...]

    def __new__(cls, text: str, *parts: tuple[str, Value]) -> "Shown":
        made = super().__new__(cls, text)
        made.parts = parts
        return made

    def __reduce__(self) -> tuple[type["Shown"], tuple[object, ...]]:
        return Shown, (str(self), *self.parts)


def number(value: float | bool | None, form: str = "", text: str | None = None) -> str:
    """A number by a format such as '.1f', or as `text`; None is missing."""
    if value is None:
        return MISSING if text is None else text
    return Shown(format(value, form) if text is None else text, ("", value))


def interval(text: str, value: float, low: float, high: float) -> Shown:
    """A number with the ends of its interval."""
    return Shown(text, ("", value), ("low", low), ("high", high))


def starred(cell: str, mark: str) -> str:
    """A cell with a sign behind its text, and the numbers that it had."""
    return Shown(f"{cell}{mark}", *(cell.parts if isinstance(cell, Shown) else (("", cell),)))


@dataclass(frozen=True)
class Text:
    """A table as it is printed."""

    title: str
    header: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    caption: str = ""
    rule_after: int = 0  # rows above this line are ranked; 0: no line
    words: tuple[int, ...] = (0,)  # columns that hold words: aligned to the left


def grid(
    header: Sequence[str], body: Sequence[Sequence[str]], style: str = "github", words: Sequence[int] = (0,)
) -> str:
    """Markdown of texts; columns in `words` are aligned to the left, all others to the right."""
    from tabulate import tabulate

    align = tuple("left" if k in words else "right" for k in range(len(header)))
    return tabulate([list(row) for row in body], list(header), tablefmt=style, disable_numparse=True, colalign=align)


def markdown(text: Text) -> str:
    """GitHub Markdown with bars escaped."""
    body = [[cell.replace("|", "\\|") for cell in row] for row in text.body]
    parts = [f"**{text.title}**" if text.title else "", grid(text.header, body, words=text.words), text.caption]
    return "\n\n".join(part for part in parts if part) + "\n"


def render(texts: Sequence[Text], style: str) -> str:
    """Tables in a form of `STYLES` but 'terminal', with the newline at its end."""
    if style == "json":
        return as_json(texts)
    if style == "markdown":
        return "\n".join(map(markdown, texts))
    return separated(texts, "," if style == "csv" else "\t")


def separated(texts: Sequence[Text], delimiter: str = ",") -> str:
    """CSV or TSV, unrounded: an interval takes the columns NAME, 'NAME low' and 'NAME high'.

    Of several tables each is a block with its title in the first column `table`; an empty line stands between them.
    """
    sink = io.StringIO()
    out = csv.writer(sink, delimiter=delimiter, lineterminator="\n")
    for k, text in enumerate(texts):
        named = len(texts) > 1
        names = [_names(text, column) for column in range(len(text.header))]
        if k:
            sink.write("\n")
        out.writerow([*(["table"] if named else []), *(safe(name) for some in names for name in some)])
        for row in text.body:
            cells = [
                cell for column, name in enumerate(names) for cell in _values(row[column], text.header[column], name)
            ]
            out.writerow([*([safe(text.title)] if named else []), *map(_written, cells)])
    return sink.getvalue()


def _names(text: Text, column: int) -> list[str]:
    """The machine's columns of one printed column."""
    parts = [cell.parts for row in text.body if isinstance(cell := row[column], Shown)]
    ends = dict.fromkeys(end for some in parts for end, _ in some if end)
    return [text.header[column], *(f"{text.header[column]} {end}" for end in ends)]


def _values(cell: str, header: str, names: Sequence[str]) -> list[Value]:
    """What stands of a cell under each of these columns."""
    parts = cell.parts if isinstance(cell, Shown) else (("", None if cell == MISSING else cell),)
    found = {f"{header} {end}" if end else header: value for end, value in parts}
    return [found.get(name) for name in names]


def _written(value: Value) -> str:
    if isinstance(value, str):
        return safe(value)
    if isinstance(value, float):
        return float.__repr__(value) if math.isfinite(value) else ""
    return "" if value is None else str(int(value))


def safe(text: str) -> str:
    """A text from which no spreadsheet computes."""
    return f"'{text}" if text.startswith(SIGNS) else text


def as_json(texts: Sequence[Text]) -> str:
    """A list of tables with title, caption and rows; a row's keys are the column names, an interval is an object."""
    content = [
        {
            "title": text.title, "caption": text.caption,
            "rows": [{name: _plain(cell) for name, cell in zip(text.header, row, strict=True)} for row in text.body],
        }
        for text in texts
    ]  # fmt: skip
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(cell: str) -> Value | dict[str, Value]:
    if not isinstance(cell, Shown):
        return None if cell == MISSING else cell
    if [end for end, _ in cell.parts] == [""]:
        return _finite(cell.parts[0][1])
    return {end or "value": _finite(value) for end, value in cell.parts}


def _finite(value: Value) -> Value:
    """JSON has no word for what is not a number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
