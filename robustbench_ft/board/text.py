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
MEAN = "mean OOD, %"
ON_CURVE = "the curve"  # a point of the curve gains nothing over it
p_value = p_text


def rank(row: Row) -> str:
    if row.rank is None:
        return NONE
    return str(row.rank.low) if row.rank.low == row.rank.high else f"{row.rank.low}-{row.rank.high}"


def tied(row: Row) -> str:
    return NONE if row.tied is None else str(row.tied)


def against(row: Row) -> str:
    return NONE if row.against is None else f"{points(row.against, signed=True)}, p {p_value(row.p_adjusted)}"


def gain(row: Row) -> str:
    if row.on_curve and row.ranked:
        return ON_CURVE
    return NONE if row.gain is None else points(row.gain, signed=True)


def number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:,.{digits}f}"


def header(board: Board) -> list[str]:
    others = [board.title_of(name) for name in board.shown_columns[1:]]
    others = ["ID, %" if name == "ID" else name for name in others]
    difference = [f"vs {board.baseline}, points"] if board.baseline else []
    recipe = ["recipe"] if len(board.recipes) > 1 else []
    gain = ["gain at equal ID, points"] if board.by_gain else []
    return [
        "method",
        "seeds",
        *gain,
        MEAN,
        "letters",
        "tied rank",
        "rank, 95 %",
        *difference,
        *others,
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
        *([gain(row)] if board.by_gain else []),
        mean,
        row.letters or NONE,
        tied(row),
        rank(row),
        *difference,
        *cells,
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
    parts = [f"## {_escape(board.title)}", *map(_escape, head_lines(board)), table, caption(board), meaning(board)]
    parts += [further_markdown(board)] if board.further else []
    parts += [cost_markdown(board), paper_markdown(board.paper, board.shifts, board)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _marked(board: Board, row: Row, texts: list[str]) -> list[str]:
    name, *others = [_escape(text) for text in texts]
    mean = header(board).index(MEAN) - 1
    if row.key in board.bold:
        others[mean] = f"**{others[mean]}**"
    elif row.key == board.underlined:
        others[mean] = f"<u>{others[mean]}</u>"
    return [f"{name} *({_escape(row.note)})*" if row.note else name, *others]


def head_lines(board: Board) -> list[str]:
    """What stands above a table: how much its order tells, and why it has this order."""
    return [line for line in (resolution(board), order(board)) if line]


def resolution(board: Board) -> str:
    """The share of pairs told apart, the tie at the top, and how often its first row stays first."""
    found = board.resolution
    if found is None:
        return ""
    first = board.placed[0]
    told = f"{found.told_apart} of {found.pairs} pairs of fine-tuned rows are told apart ({100 * found.share:.0f} %)"
    top = "1 row leads" if found.top == 1 else f"{found.top} rows tie"
    said = f"Resolution: {told}; {top} at the top. By mean OOD {first.name} "
    over = [f"in {percent(first.rank.p_best)} of resamples over seeds and images"] if first.rank else []
    if first.first_over_shifts is not None:
        over.append(f"in {percent(first.first_over_shifts)} of resamples over the {len(board.shifts)} shifts")
    return f"{said}stays first {' and '.join(over)}."


def order(board: Board) -> str:
    """Why rows stand as they do."""
    lines, stand = list[str](), "Rows stand by recipe, and inside each" if len(board.recipes) > 1 else "Rows stand"
    if any(row.reference for row in board.rows):
        lines.append("Zero-shot is a reference line and has no rank: nothing was trained.")
    if board.by_gain:
        lines.append(
            f"{stand} by gain at equal ID. Mean OOD alone does not see what a row gave up on ID: along the curve of "
            f"{board.curve}, from zero-shot to fine-tuned, one is traded for the other. Rows whose ID accuracy lies "
            "outside of that curve follow, by mean OOD."
        )
    elif len(board.ranked) > 1:
        lines.append(f"{stand} by mean OOD: no gain at equal ID is known here, as no curve from zero-shot is.")
    return " ".join(lines)


def percent(share: float) -> str:
    """Whole percents; never 0 or 100 where it is not."""
    if 0 < share < 0.005 or 0.995 <= share < 1:
        return "< 1 %" if share < 0.5 else "> 99 %"
    return f"{100 * share:.0f} %"


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
    means = dict.fromkeys(number(one.mean_ood(shifts), 2) for one in (row, *row.further))
    cells = [row.cells[name].text if name in row.cells else NONE for name in ("ID", *shifts)]
    return [row.method, f"{row.model} {row.pretrained}", " / ".join(means), *cells, row.seeds, paper_source(row)]


def paper_source(row: paper.Row) -> str:
    """Where a row is printed; where its tables contradict each other, by how much."""
    apart = f"; they differ by up to {row.contradiction:.2f} points" if row.contradiction else ""
    tables = " and ".join(_without_common_start(row.sources))
    return f"{tables}{apart}{' (read second-hand)' if row.secondary else ''}"


def _without_common_start(sources: Sequence[str]) -> list[str]:
    """'A paper, Table 1' and 'A paper, Table 2' -> 'A paper, Table 1' and 'Table 2'."""
    start = sources[0].rpartition(", ")[0]
    return [sources[0], *(text.removeprefix(f"{start}, ") if start else text for text in sources[1:])]


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
    "OOD is computed here from the printed shifts and missing where one of them is. Two values with / between them: "
    "two tables of one paper, which contradict each other. A delta is rerun - paper in points with the rerun's 95 % "
    "half-width (of two printed values to the nearer); 'discrepant' where it exceeds that and the printed ± together."
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
    return re.sub(r"([|*_<`\\]|\](?=[(\[]))", r"\\\1", one_line(text))


def one_line(text: str) -> str:
    """The text with every run of blanks as one space."""
    return " ".join(text.split())


def quoted(text: str) -> str:
    """Quote a text of a CSV that begins with a sign from which spreadsheets would compute."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


CSV_HEAD = (
    "suite", "version", "model", "protocol", "row", "method", "seeds", "ranked", "letters", "rank_low", "rank_high",
    "p_best", "column", "metric", "value", "low", "high", "se", "df", "accuracy", "nll", "brier", "ece", "recipe",
    "tied_rank", "first_over_shifts", "reference",
)  # fmt: skip


def as_csv(boards: Sequence[Board]) -> str:
    """Every row of a page, unrounded, in long form: one line per row and column."""
    sink = io.StringIO()
    out = csv.writer(sink, lineterminator="\n")
    out.writerow(CSV_HEAD)
    for board in boards:
        for row in board.rows:
            told = [quoted(text) for text in (board.model, board.protocol, row.name, row.method)]
            shared = [quoted(board.suite), board.version, *told, len(row.seeds), int(row.ranked), row.letters]
            ranks = [row.rank.low, row.rank.high, plain(row.rank.p_best)] if row.rank else ["", "", ""]
            for column in board.columns:
                found = row.estimate(column)
                metric = "+".join(sorted({board.run_set.metric_of(split) for split in board.columns[column]}))
                values = [found.value, found.low, found.high, found.se, found.df]
                values += [row.mean(metric, column) for metric in ("accuracy", "nll", "brier", "ece")]
                last = [row.recipe or "", row.tied or "", plain(row.first_over_shifts), int(row.reference)]
                out.writerow([*shared, *ranks, quoted(column), quoted(metric), *(plain(v) for v in values), *last])
    return sink.getvalue()


def plain(value: float | None) -> str:
    """Nine digits: the last ones differ between machines."""
    return "" if value is None else f"{value:.9g}"


def latex(board: Board) -> str:
    """A booktabs table; needs \\usepackage{booktabs}."""
    columns, gain_head = board.shown_columns, ["Gain at equal ID"] if board.by_gain else []
    lines = [
        f"% {one_line(board.title)}: rbft leaderboard build",
        rf"\begin{{tabular}}{{lr{'r' * (len(columns) + board.by_gain)}}}",
        r"\toprule",
        " & ".join(["Method", "Rank", *gain_head, *(tex(name) for name in columns)]) + r" \\",
        r"\midrule",
    ]
    kind = ""
    for row in board.rows:
        kind, last = row.kind, kind
        if last not in ("", kind):
            lines.append(r"\midrule")
        name = tex(row.name) + (rf" \emph{{({tex(row.note)})}}" if row.note else "")
        cells = [_tex_gain(row)] if board.by_gain else []
        cells += [_tex_points(board, row, column) for column in columns]
        lines.append(" & ".join([name, rank(row).replace("-", "--").replace(NONE, "--"), *cells]) + r" \\")
    lines += [
        r"\bottomrule",
        r"\end{tabular}",
        *(f"% {one_line(part).strip(' .')}." for part in caption(board).split(". ")),
    ]
    return "\n".join(lines) + "\n"


def _tex_gain(row: Row) -> str:
    return f"${gain(row).replace('±', chr(92) + 'pm')}$" if row.gain else gain(row).replace(NONE, "--")


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


def tex(text: str) -> str:
    """One line in which TeX's own signs are quoted."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in one_line(text))
