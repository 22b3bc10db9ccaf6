"""Turn a matplotlib figure into an inline SVG that takes fonts, colours and switches from the page.

Colours are drawn as placeholders and become CSS variables, so one drawing serves both schemes. Parts that belong to a
row carry its key and can be switched off. Equal figures give equal bytes: no date, a fixed salt for generated ids.
"""

import html
import io
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

INK, MUTED, RULE, PAPER = "#101112", "#707172", "#d0d1d2", "#fdfcfb"
SERIES = tuple(f"#a0b0{k:02x}" for k in range(10))
ROLES = {INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper"} | {c: f"s{k}" for k, c in enumerate(SERIES)}
SIZE = 9.5  # points, at the figure's own width
STYLE: dict[str, Any] = {
    "svg.hashsalt": "rbft", "svg.fonttype": "none", "font.size": SIZE, "axes.titlesize": SIZE, "axes.labelsize": SIZE,
    "xtick.labelsize": SIZE - 0.5, "ytick.labelsize": SIZE - 0.5, "text.color": INK, "axes.labelcolor": MUTED,
    "axes.titlecolor": INK, "xtick.color": RULE, "ytick.color": RULE, "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK, "axes.edgecolor": RULE, "axes.facecolor": "none", "figure.facecolor": "none",
    "grid.color": RULE, "grid.linewidth": 0.5, "axes.linewidth": 0.6, "axes.spines.top": False,
    "axes.spines.right": False, "axes.axisbelow": True, "xtick.major.size": 2.5, "ytick.major.size": 0,
    "xtick.major.width": 0.6, "axes.titlelocation": "left", "axes.titlepad": 4.0, "path.simplify": False,
}  # fmt: skip
_PREFIX = "row--"


@contextmanager
def figure(width: float, height: float, **layout: Any) -> Generator[tuple[Any, Any], None, None]:
    """(figure, axes) of this size in points, drawn in the page's manner and closed afterwards."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    settings: Any = {**mpl.rcParamsDefault, **STYLE, "backend": "Agg"}
    with mpl.rc_context(settings):
        drawn, axes = plt.subplots(figsize=(width / 72, height / 72), layout="constrained", squeeze=False, **layout)
        try:
            yield drawn, axes
        finally:
            plt.close(drawn)


def mark(row: str, *artists: Any) -> None:
    """These parts belong to a row."""
    for artist in artists:
        artist.set_gid(f"{_PREFIX}{row}")


def text(drawn: Any, name: str, title: str) -> str:
    """The SVG element; `name` is unique on its page, `title` is what a screen reader says."""
    sink = io.StringIO()
    drawn.savefig(sink, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    found = sink.getvalue()
    found = found[found.index("<svg") :]
    found = re.sub(r"<metadata>.*?</metadata>\s*", "", found, flags=re.DOTALL)
    found = re.sub(rf'<g id="{_PREFIX}([\w-]+)">', r'<g class="series" data-row="\1">', found)
    found = re.sub(r'<g id="[a-z]+[_\d.a-z]*">', "<g>", found)  # matplotlib's names: the same in every figure
    found = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', found)
    found = re.sub(r"(href=\"#|url\(#)", rf"\1{name}-", found)
    found = re.sub(r"font: ([\d.]+)px[^;\"]*", r"font-size: \1px", found)
    found = re.sub(r"#[0-9a-f]{6}", lambda m: f"var(--{ROLES[m[0]]})" if m[0] in ROLES else m[0], found)
    found = re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-labelledby="{name}-t">'
                   rf'<title id="{name}-t">{html.escape(title)}</title>', found, count=1)  # fmt: skip
    return "\n".join(line.strip() for line in found.strip().splitlines() if line.strip())
