"""A board as Markdown, LaTeX (booktabs) and CSV: the same rows, in board order."""

import csv
import io
import re
from collections.abc import Sequence

from tabulate import tabulate

from robustbench_ft.compare.text import MISSING, p_text, points
from robustbench_ft.metrics import ACCURACY
from robustbench_ft.recipe import in_words

from . import paper
from .table import Board, Row, caption

NONE = MISSING
p_value = p_text


def rank(row: Row) -> str:
    if row.rank is None:
        return NONE
    return str(row.rank.low) if row.rank.low == row.rank.high else f"{row.rank.low}-{row.rank.high}"


def against(row: Row) -> str:
    return NONE if row.against is None else f"{points(row.against, signed=True)}, p {p_value(row.p_adjusted)}"


def gain(row: Row) -> str:
    return NONE if row.gain is None else points(row.gain, signed=True)


def number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:,.{digits}f}"


def header(board: Board) -> list[str]:
    others = [board.title_of(name) for name in board.shown_columns[1:]]
    others = ["ID, %" if name == "ID" else name for name in others]
    difference = [f"vs {board.baseline}, points"] if board.baseline else []
    recipe = ["recipe"] if len(board.recipes) > 1 else []
    return [
        "method",
        "seeds",
        "mean OOD, %",
        "letters",
        "rank",
        *difference,
        *others,
        "gain at equal ID, points",
        *recipe,
    ]


def line(board: Board, row: Row) -> list[str]:
    """Plain texts under `header`."""
    mean, *cells = [points(row.estimate(column)) for column in board.shown_columns]
    difference = [against(row)] if board.baseline else []
    recipe = [recipe_name(row)] if len(board.recipes) > 1 else []
    return [
        row.name,
        str(len(row.seeds)),
        mean,
        row.letters or NONE,
        rank(row),
        *difference,
        *cells,
        gain(row),
        *recipe,
    ]


def recipe_name(row: Row) -> str:
    return f"R{row.recipe}" if row.recipe else NONE


def recipes_text(board: Board) -> str:
    """Recipes of a board: one sentence where there is one recipe, else a line for each."""
    found = {number: in_words(recipe) for number, recipe in board.recipes.items()}
    if len(found) < 2:
        return "".join(f"Recipe of every trained row: {text}." for text in found.values())
    return " ".join(f"R{number}: {text}." for number, text in found.items())


def markdown(board: Board) -> str:
    """One section: the rows, those without a claim below, papers' rows apart, and what the numbers are."""
    head = header(board)
    body = [_marked(board, row, line(board, row)) for row in board.rows]
    table = tabulate(body, [_escape(h) for h in head], tablefmt="github", disable_numparse=True,
                     colalign=("left", *("right" for _ in head[1:])))  # fmt: skip
    parts = [f"## {_escape(board.title)}", table, caption(board), meaning(board)]
    parts += [further_markdown(board)] if board.further else []
    parts += [cost_markdown(board), paper_markdown(board.paper, board.shifts, board)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _marked(board: Board, row: Row, texts: list[str]) -> list[str]:
    name, *others = [_escape(text) for text in texts]
    if row.key in board.bold:
        others[1] = f"**{others[1]}**"
    elif row.key == board.underlined:
        others[1] = f"<u>{others[1]}</u>"
    return [f"{name} *({_escape(row.note)})*" if row.note else name, *others]


def meaning(board: Board) -> str:
    texts: list[str] = [recipes_text(board)] if board.recipes else []
    if board.no_baseline and len(board.rows) > 1:
        texts.append(f"No differences are shown: {board.no_baseline}.")
    if board.baseline:
        texts.append(
            f"Differences to {board.baseline} are paired on images; p is Holm-adjusted over "
            f"{sum(row.against is not None for row in board.rows)} comparisons, intervals are not."
        )
    if any(row.gain for row in board.rows):
        texts.append("Gain at equal ID: mean OOD above the zero-shot-to-FT interpolation curve at the row's own ID "
                     "accuracy; none outside that curve's range.")  # fmt: skip
    if not all(row.ranked or row.oracle for row in board.rows):
        texts.append("A row with fewer than three seeds carries no claim: no letter, no rank.")
    if any(row.oracle for row in board.rows):
        texts.append("Oracle: each seed's alpha is chosen by its accuracy on the shifts, which nobody may do; no test.")
    return " ".join([*texts, *board.notes])


FURTHER = (
    "Beside the official metrics: accuracy, further splits and label spaces, in %: means over seeds, sd behind them."
)


def further_cells(board: Board, row: Row) -> list[str]:
    found = [row.further(column) for column in board.further]
    return [f"{100 * mean:.1f}{'' if sd is None else f' (sd {100 * sd:.1f})'}" for mean, sd in found]


def further_markdown(board: Board) -> str:
    head = ["method", *(column.title for column in board.further)]
    body = [[_escape(row.name), *further_cells(board, row)] for row in board.rows]
    align = ("left", *("right" for _ in head[1:]))
    return f"{FURTHER}\n\n{tabulate(body, head, tablefmt='github', disable_numparse=True, colalign=align)}"


COSTS = (
    "fit, s", "fit, images/s", "evaluate, images/s", "peak memory, MiB", "trained parameters", "passes per prediction"
)  # fmt: skip


def costs(row: Row) -> tuple[tuple[float | None, int], ...]:
    """(value, decimals) under COSTS."""
    cost = row.cost
    rates = (cost.fit, 1), (cost.fit_rate, 0), (cost.evaluation_rate, 0)
    return *rates, (cost.memory, 0), (cost.parameters, 0), (cost.passes, 0)


def cost_markdown(board: Board) -> str:
    body = [
        [_escape(row.name), *(number(value, d) for value, d in costs(row)), _escape(machine(row))] for row in board.rows
    ]
    head = ["cost", *COSTS, "on"]
    align = ("left", *("right" for _ in COSTS), "left")
    return tabulate(body, head, tablefmt="github", disable_numparse=True, colalign=align)


def machine(row: Row) -> str:
    """Device of the first run."""
    found = row.claim.runs[0].environment
    return found.gpu or f"{found.cpu}, {found.threads} thread{'s' * (found.threads != 1)}"


def paper_header(shifts: Sequence[str]) -> list[str]:
    return ["paper row †", "backbone", "mean OOD", "ID", *shifts, "seeds", "source"]


def paper_line(row: paper.Row, shifts: Sequence[str]) -> list[str]:
    mean = row.mean_ood(shifts)
    cells = [row.cells[name].text if name in row.cells else NONE for name in ("ID", *shifts)]
    source = f"{row.source}{' (read second-hand)' if row.secondary else ''}"
    return [row.method, f"{row.model} {row.pretrained}", number(mean, 2), *cells, row.seeds, source]


def deltas(board: Board | None, row: paper.Row, shifts: Sequence[str]) -> list[tuple[str, list[str]]]:
    """(rerun's name, `rerun - paper` under mean OOD, ID and each shift) for each comparable rerun."""
    found: list[tuple[str, list[str]]] = []
    for rerun in board.rows if board else ():
        if paper.comparable(row, rerun.claim.identity):
            texts = [NONE]
            for name in ("ID", *shifts):
                if name in row.cells:
                    estimate = rerun.estimate(name, ACCURACY)
                    texts.append(paper.delta(estimate.value, estimate.half_width, row.cells[name]).text)
                else:
                    texts.append(NONE)
            found.append((rerun.name, texts))
    return found


PAPER_NOTE = (
    "† From papers, as printed: not run here, never ranked, no part of any test. ± is whatever the paper prints. Mean "
    "OOD is computed here from the printed shifts and missing where one of them is. A delta is rerun - paper in points "
    "with the rerun's 95 % half-width; 'discrepant' where it exceeds that and the printed ± together."
)


def paper_markdown(rows: Sequence[paper.Row], shifts: Sequence[str], board: Board | None = None) -> str:
    if not rows:
        return ""
    body: list[list[str]] = []
    for row in rows:
        body.append(
            [f"*{_escape(text)}*" if k == 0 else _escape(text) for k, text in enumerate(paper_line(row, shifts))]
        )
        for name, texts in deltas(board, row, shifts):
            body.append([f"rerun - paper: {_escape(name)}", "", *map(_escape, texts), "", ""])
    head = paper_header(shifts)
    align = ("left", "left", *("right" for _ in (*shifts, "ID", "mean")), "left", "left")
    table = tabulate(body, head, tablefmt="github", disable_numparse=True, colalign=align)
    return f"{table}\n\n{PAPER_NOTE}"


def _escape(text: str) -> str:
    """Escape a table's cell or a heading: one line, in which nothing is markup, a link or a tag."""
    return re.sub(r"([|*_<`\\]|\](?=[(\[]))", r"\\\1", _one_line(text))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    """Quote a text of a CSV that begins with a sign from which spreadsheets would compute."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


CSV_HEAD = (
    "suite", "version", "model", "protocol", "row", "method", "seeds", "ranked", "letters", "rank_low", "rank_high",
    "p_best", "column", "metric", "value", "low", "high", "se", "df", "accuracy", "nll", "brier", "ece", "recipe",
)  # fmt: skip


def as_csv(boards: Sequence[Board]) -> str:
    """Every row of a page, unrounded, in long form: one line per row and column."""
    sink = io.StringIO()
    out = csv.writer(sink, lineterminator="\n")
    out.writerow(CSV_HEAD)
    for board in boards:
        for row in board.rows:
            told = [_cell(text) for text in (board.model, board.protocol, row.name, row.method)]
            shared = [_cell(board.suite), board.version, *told, len(row.seeds), int(row.ranked), row.letters]
            ranks = [row.rank.low, row.rank.high, plain(row.rank.p_best)] if row.rank else ["", "", ""]
            for column in board.columns:
                found = row.estimate(column)
                metric = "+".join(sorted({board.run_set.metric_of(split) for split in board.columns[column]}))
                values = [found.value, found.low, found.high, found.se, found.df]
                values += [row.mean(metric, column) for metric in ("accuracy", "nll", "brier", "ece")]
                out.writerow(
                    [*shared, *ranks, _cell(column), _cell(metric), *(plain(v) for v in values), row.recipe or ""]
                )
    return sink.getvalue()


def plain(value: float | None) -> str:
    """Nine digits: the last ones differ between machines."""
    return "" if value is None else f"{value:.9g}"


def latex(board: Board) -> str:
    """A booktabs table; needs \\usepackage{booktabs}."""
    columns = board.shown_columns
    lines = [
        f"% {_one_line(board.title)}: rbft leaderboard build",
        rf"\begin{{tabular}}{{lr{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(["Method", "Rank", *(_tex(name) for name in columns)]) + r" \\",
        r"\midrule",
    ]
    ruled = False
    for row in board.rows:
        if not row.ranked and not ruled:
            lines.append(r"\midrule")
            ruled = True
        name = _tex(row.name) + (rf" \emph{{({_tex(row.note)})}}" if row.note else "")
        cells = [_tex_points(board, row, column) for column in columns]
        lines.append(" & ".join([name, rank(row).replace("-", "--").replace(NONE, "--"), *cells]) + r" \\")
    lines += [
        r"\bottomrule",
        r"\end{tabular}",
        *(f"% {_one_line(part).strip(' .')}." for part in caption(board).split(". ")),
    ]
    return "\n".join(lines) + "\n"


def _tex_points(board: Board, row: Row, column: str) -> str:
    value, _, spread = points(row.estimate(column)).partition(" ")
    spread = spread.replace("±", r"\pm")  # or '[low, high]'
    cell = rf"${value} {spread}$"
    if column != "mean OOD":
        return cell
    letters = f"$^{{{row.letters}}}$" if row.letters else ""
    if row.key in board.bold:
        cell = rf"$\mathbf{{{value}}} {spread}$"
    elif row.key == board.underlined:
        cell = rf"\underline{{{cell}}}"
    return cell + letters


def _tex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in _one_line(text))
