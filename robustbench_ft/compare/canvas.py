"""What pictures of tables have in common: width, letters, marks. Torch-free.

A telephone shows a page 390 pixels wide. Every picture is one column of WIDTH inches, whose letters are about ten of
these pixels high.
"""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustbench_ft import palette
from robustbench_ft.errors import RbftError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 5.6  # inches
LETTER, SMALL = 10.0, 8.5  # points
LINE = 68  # small letters beside each other
MARKS: dict[str, Any] = {
    "circle": "o", "square": "s", "diamond": "D", "up": "^", "down": "v", "plus": "P", "cross": "X", "star": "*",
    "left": "<", "right": ">", "pentagon": "p", "hexagon": "h", "lozenge": "d", "triad": (3, 1, 0),
}  # fmt: skip
THIN = {"star": 1.5, "triad": 1.5, "plus": 1.25, "cross": 1.15, "diamond": 0.9}
REST = "0.62"  # grey of what is not the subject


def blank(height: float) -> "Figure":
    """An empty picture, `height` inches high; without pyplot, so a notebook keeps its own way of showing pictures."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), dpi=180, layout="constrained")


def save(figure: "Figure", path: Path) -> None:
    """Write a picture as PNG, in a folder that is made where there is none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Software": None})
    except OSError as error:
        raise RbftError(f"cannot write the figure {path}: {error.strerror}") from error


def style(method: str, size: float = 6.0) -> dict[str, Any]:
    """Colour, marker and size in points of a method, as matplotlib takes them; thin marks are drawn larger."""
    look = palette.look(method)
    return {"color": look.light, "marker": MARKS[look.mark], "markersize": size * THIN.get(look.mark, 1.0)}


def dress(axes: Any, x: str, y: str, title: str = "") -> None:
    """Names of the axes, a title in small letters that is wrapped, and a faint grid behind all."""
    axes.set_xlabel(plain(x), fontsize=LETTER)
    axes.set_ylabel(plain(y), fontsize=LETTER)
    if title:
        lines = [line for part in title.split("\n") for line in textwrap.wrap(part, LINE)]
        axes.set_title(plain("\n".join(lines)), fontsize=SMALL, loc="left")
    axes.tick_params(labelsize=SMALL)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend(figure: "Figure", axes: Any) -> None:
    """One legend below the picture, in as many columns as its words leave room for."""
    handles, names = axes.get_legend_handles_labels()
    if not names:
        return
    columns = max(1, min(len(names), int(1.15 * LINE) // (max(map(len, names)) + 7)))
    figure.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=SMALL, frameon=False)


def plain(text: str) -> str:
    """Dollar signs are no formulas."""
    return text.replace("$", r"\$")
