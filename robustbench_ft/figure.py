"""The picture of a table: ID accuracy against mean OOD accuracy. Torch-free."""

from collections.abc import Iterable
from pathlib import Path

from .errors import RbftError
from .report import Row, Table
from .rows import BY_VAL

MARKERS = "osD^vPX*<>hp"


def scatter(table: Table, path: Path) -> None:
    """Rows as points with 95 % intervals, families as lines through their alphas, settings of one method joined."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 5.0), dpi=150, layout="constrained")
    methods = list(dict.fromkeys(row.method for row in table.rows))
    for k, method in enumerate(methods):
        rows = sorted((row for row in _points(table) if row.method == method), key=lambda row: row.sort_key)
        colour, crowded = f"C{k}", len(rows) > 1
        for row in rows:
            if row.name in table.curves:
                _, xs, ys = zip(*table.curves[row.name], strict=True)
                axes.plot(
                    _percent(xs), _percent(ys), "-", marker=".", markersize=4, linewidth=1, color=colour, alpha=0.6
                )
        if crowded and rows[0].name not in table.curves:
            xs, ys = ([row.cells[name].value for row in rows] for name in ("ID", "mean OOD"))
            axes.plot(_percent(xs), _percent(ys), "--", color=colour, linewidth=1)
        for j, row in enumerate(rows):
            x, y = row.cells["ID"], row.cells["mean OOD"]
            axes.errorbar(
                100 * x.value,
                100 * y.value,
                xerr=None if crowded else 100 * x.half_width,
                yerr=100 * y.half_width,
                fmt=MARKERS[k % len(MARKERS)],
                color=colour,
                markersize=6,
                capsize=2,
                linewidth=1,
                label=method if j == 0 else None,
                zorder=3,
            )
            if crowded and row.name not in table.curves:  # a curve's points are told by its line
                place = (100 * x.value, 100 * y.value)
                axes.annotate(row.setting, place, textcoords="offset points", xytext=(6, -9), fontsize=6)
    grid = any(len([row for row in _points(table) if row.method == method]) > 1 for method in methods)
    axes.set_xlabel("ID top-1 accuracy, %")
    axes.set_ylabel(f"mean OOD top-1 accuracy over {len(table.shifts)} shifts, %")
    marks = "bars: 95 % intervals over seeds and examples; solid: weight interpolation"
    axes.set_title(f"{table.title}\n{marks}{'; dashed: settings of a method' if grid else ''}", fontsize=8.5)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Software": None})
    except OSError as error:
        raise RbftError(f"cannot write the figure {path}: {error.strerror}") from error
    finally:
        plt.close(figure)


def _percent(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(100 * value for value in values)


def _points(table: Table) -> list[Row]:
    """One point per fit: rows that only re-select a candidate of the same fit lie on its curve anyway."""
    return [row for row in table.rows if not row.setting.endswith(BY_VAL)]
