"""The picture of a table: ID accuracy against mean OOD accuracy. Torch-free."""

from pathlib import Path

from .errors import RbftError
from .report import BY_VAL, Row, Table

MARKERS = "osD^vPX*<>hp"


def scatter(table: Table, path: Path) -> None:
    """Rows as points with 95 % intervals, WiSE curves as lines through their alphas, learning rates of one method joined."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 5.0), dpi=150, layout="constrained")
    methods = list(dict.fromkeys(row.method for row in table.rows))
    colours = {method: f"C{k}" for k, method in enumerate(methods)}
    grid = any(len([r for r in _points(table) if r.method == m]) > 1 for m in methods)
    for name, curve in table.curves.items():
        method = next(row.method for row in table.rows if row.name == name)
        axes.plot(
            [100 * x for _, x, _ in curve], [100 * y for _, _, y in curve], "-", marker=".", markersize=4, linewidth=1,
            color=colours[method], alpha=0.45 if grid else 0.7, zorder=1,
        )  # fmt: skip
        if not grid:
            for alpha, x, y in (curve[0], curve[-1]):
                axes.annotate(f"α={alpha:g}", (100 * x, 100 * y), textcoords="offset points", xytext=(5, 5), fontsize=7)
    for k, method in enumerate(methods):
        rows = sorted((r for r in _points(table) if r.method == method), key=lambda r: r.setting)
        if len(rows) > 1 and method not in {r.method for r in table.rows if r.name in table.curves}:
            axes.plot(
                [100 * r.cells["ID"].value for r in rows], [100 * r.cells["mean OOD"].value for r in rows], "--",
                color=colours[method], linewidth=1, zorder=2,
            )  # fmt: skip
        for j, row in enumerate(rows):
            x, y = row.cells["ID"], row.cells["mean OOD"]
            axes.errorbar(
                100 * x.value, 100 * y.value, xerr=100 * x.half_width, yerr=100 * y.half_width, fmt=MARKERS[k % len(MARKERS)],
                color=colours[method], markersize=6, capsize=2, linewidth=1, label=method if j == 0 else None, zorder=3,
            )  # fmt: skip
            if len(rows) > 1:
                axes.annotate(
                    row.setting, (100 * x.value, 100 * y.value), textcoords="offset points", xytext=(6, -9), fontsize=6
                )
    axes.set_xlabel("ID top-1 accuracy, %")
    axes.set_ylabel(f"mean OOD top-1 accuracy over {len(table.shifts)} shifts, %")
    axes.set_title(
        f"{table.title}\nbars: 95 % intervals over seeds and examples; lines: weight interpolation", fontsize=9
    )
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Software": None})
    except OSError as error:
        raise RbftError(f"cannot write the figure {path}: {error.strerror}") from error
    finally:
        plt.close(figure)


def _points(table: Table) -> list[Row]:
    """One point per fit: rows that only re-select a candidate of the same fit lie on its curve anyway."""
    return [row for row in table.rows if not row.setting.endswith(BY_VAL)]
