"""Trade-offs in accuracy: matched-ID gain, frontiers, effective robustness.

Formulas: docs/statistics.md, 'Gains at matched ID accuracy', and docs/statistics.md, 'Effective robustness'.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustbench_ft.metrics import ACCURACY
from robustbench_ft.stats.intervals import Estimate
from robustbench_ft.stats.lines import Axis, axes
from robustbench_ft.stats.robustness import (
    Curve,
    EffectiveRobustness,
    Point,
    curve_area,
    frontier,
    matched_id,
    matched_id_gain,
    matched_id_gap,
    rising,
)

from .load import OFFICIAL, RunSet, examples_of
from .rows import Row, Run, curve_runs
from .text import MISSING, Text, number, points, starred
from .verdicts import Comparison

LINE = "wise-ft"  # the family that every other is measured by: weights on the line from zero-shot to fine-tuned
PLACES = (0.0, 0.5, 1.0)  # where frontiers are met, as shares of their common ID range


@dataclass(frozen=True)
class Gain:
    """A row's OOD accuracy minus the reference curve's at the same ID accuracy; None with the reason."""

    row: str
    estimate: Estimate | None
    paired_seeds: bool
    reason: str = ""


@dataclass(frozen=True)
class Frontier:
    """OOD accuracy of a method's best settings and alphas at fixed ID accuracies."""

    method: str
    points: int
    id_range: tuple[float, float]
    at: tuple[Estimate, ...]  # OOD accuracy at `Beyond.places`
    gap: tuple[Estimate, ...]  # minus the baseline method's frontier there


@dataclass(frozen=True)
class Beyond:
    """Empty parts are not shown."""

    reference: str  # the curve: which family
    gains: tuple[Gain, ...]
    areas: Mapping[str, float]  # family -> mean OOD accuracy along its curve's ID range
    places: tuple[float, ...]  # ID accuracies
    frontiers: tuple[Frontier, ...]
    refusal: str  # why frontiers are not compared
    effective: Mapping[str, Mapping[str, EffectiveRobustness]]  # row -> shift
    axes: Mapping[str, Axis]  # shift -> its lines
    chosen: str = ""  # digest of the configuration whose curve `reference` is


def beyond(found: Comparison, curve: str = "") -> Beyond:
    """The trade-offs of all rows; `curve` names the family whose interpolation curve gains are measured from.

    Without a name it is the family that was made from the baseline's runs, else the one with the most seeds.
    """
    run_set = found.run_set
    if run_set.metric not in (OFFICIAL, ACCURACY):
        return Beyond("", (), {}, (), (), "", {}, {})
    curves = _curves(run_set, found.baseline)
    chosen = next((digest for digest in curves if curve and digest.startswith(curve)), next(iter(curves), ""))
    names = {digest: _curve_name(run_set, digest) for digest in curves}
    gains = tuple[Gain, ...]()
    if chosen:
        # points of the curve gain nothing over it
        rivals = [row for row in run_set.rows if not row.oracle and not row.deterministic and not _is_of(row, chosen)]
        gains = tuple(_gain(run_set, row, *curves[chosen]) for row in rivals)
    areas = {names[key]: area for key, (line, _) in curves.items() if (area := curve_area(line)) is not None}
    places, met, refusal = frontiers(run_set, found.baseline.method if found.baseline else "")
    used = axes(run_set.suite, run_set.shifts)
    effective = {row.name: _effective(run_set, row, used) for row in run_set.rows} if used else {}
    return Beyond(names.get(chosen, ""), gains, areas, places, met, refusal, effective, used, chosen)


def _curve_name(run_set: RunSet, digest: str) -> str:
    """The name of the first row that is made of this family."""
    return next(row.name for row in run_set.rows if not row.oracle and _is_of(row, digest))


def _is_of(row: Row, digest: str) -> bool:
    """True if every run of the row belongs to this configuration."""
    return all(record.cell["digest"] == digest for record, _ in row.runs)


def _point(run_set: RunSet, runs: Sequence[Run]) -> Point | None:
    identity, ood = examples_of(run_set, runs, (run_set.test,)), examples_of(run_set, runs, run_set.shifts)
    return Point(identity[0], tuple(ood)) if identity and ood else None


def _curves(run_set: RunSet, baseline: Row | None) -> dict[str, tuple[Curve, tuple[str, ...]]]:
    """Digest of a family -> its rising branch and its runs' origins, for families that go from alpha 0 to alpha 1.

    Those that share their runs with the baseline come first, then the straight line in weight space, then those with
    more seeds.
    """
    found: dict[str, tuple[Curve, tuple[str, ...]]] = {}
    for digest, members in curve_runs(run_set.records).items():
        alphas = [alpha for alpha, _ in members]
        made = [_point(run_set, runs) for _, runs in members]
        kept = [point for point in made if point is not None]
        if alphas[0] == 0 and alphas[-1] == 1 and len(kept) == len(made):
            curve = rising(kept)
            if len(curve.points) > 1:
                origins = tuple(run_set.origins[str(record.folder)] for record, _ in members[0][1])
                found[digest] = curve, origins
    base = set(run_set.origin(baseline)) if baseline else set[str]()
    lines = {record.config.digest for record in run_set.records if record.config.method == LINE}
    order = sorted(found, key=lambda key: (not base & set(found[key][1]), key not in lines, -len(found[key][1]), key))
    return {digest: found[digest] for digest in order}


def _gain(run_set: RunSet, row: Row, curve: Curve, origins: tuple[str, ...]) -> Gain:
    point = _point(run_set, row.runs)
    if point is None:
        return Gain(row.name, None, False, "missing predictions")
    low, high = curve.id_range
    if not low <= point.id_accuracy <= high:
        return Gain(row.name, None, False, f"ID outside {100 * low:.1f}-{100 * high:.1f} %")
    paired = len(row.runs) == len(origins) and bool(set(origins) & set(run_set.origin(row)))
    return Gain(row.name, matched_id_gain(point, curve, paired), paired)


def best_points(run_set: RunSet) -> dict[str, Curve]:
    """Method -> the points that no other of its settings and alphas beats on both axes; methods with two or more."""
    families = {record.cell["digest"] for record in run_set.records if record.metrics["axis"]}
    runs: dict[str, list[Sequence[Run]]] = {}
    for row in run_set.rows:
        if row.selection == "fixed" and row.runs[0][0].cell["digest"] not in families:
            runs.setdefault(row.method, []).append(row.runs)
    for members in curve_runs(run_set.records).values():
        method = members[0][1][0][0].cell["method"]
        runs.setdefault(method, []).extend(candidates for _, candidates in members)
    curves: dict[str, Curve] = {}
    for method, choices in runs.items():
        most = max(map(len, choices))  # points are joined run by run
        kept = [choice for choice in choices if len(choice) == most]
        made = [point for choice in kept if (point := _point(run_set, choice)) is not None]
        if len(made) > 1 and len((curve := frontier(made)).points) > 1:
            curves[method] = curve
    return curves


def frontiers(run_set: RunSet, baseline: str) -> tuple[tuple[float, ...], tuple[Frontier, ...], str]:
    """Methods with several points, met within the ID range that all of their frontiers share.

    Returns the ID accuracies where they meet, the frontiers there, and why they are not compared, if so. `baseline` is
    the method whose frontier the others are measured from; '' for none.
    """
    curves = best_points(run_set)
    if len(curves) < 2:
        return (), (), ""
    low = max(curve.id_range[0] for curve in curves.values())
    high = min(curve.id_range[1] for curve in curves.values())
    if low >= high:
        return (), (), "frontiers share no ID accuracy: nothing is compared at matched ID"
    places = tuple(low + share * (high - low) for share in PLACES)
    base = curves.get(baseline)
    return places, tuple(
        Frontier(
            method, len(curve.points), curve.id_range, tuple(matched_id(curve, x) for x in places),
            tuple(matched_id_gap(curve, base, x) for x in places) if base and method != baseline else (),
        )
        for method, curve in curves.items()
    ), ""  # fmt: skip


def _effective(run_set: RunSet, row: Row, used: Mapping[str, Axis]) -> dict[str, EffectiveRobustness]:
    found: dict[str, EffectiveRobustness] = {}
    for split, axis in used.items():
        identity, ood = (examples_of(run_set, row.runs, (name,)) for name in (axis.identity, split))
        effective = axis.robustness(identity[0], ood[0]) if identity and ood else None
        if effective is not None:
            found[split] = effective
    return found


def sections(found: Beyond) -> list[Text]:
    """Tables of what there is."""
    made: list[Text] = []
    if found.gains:
        body = tuple(
            (gain.row, points(gain.estimate, signed=True) if gain.estimate else f"{MISSING} {gain.reason}",
             "paired" if gain.paired_seeds else "independent")
            for gain in found.gains
        )  # fmt: skip
        areas = "; ".join(f"{name}: {100 * area:.1f} %" for name, area in found.areas.items())
        made.append(Text(
            "OOD at matched ID accuracy", ("method", "matched-ID gain", "seeds"), body,
            f"Points of mean OOD above the curve zero-shot to fine-tuned over alpha of {found.reference}, at equal ID "
            "accuracy; 95 % intervals over seeds and examples, unadjusted, exploratory; one seed: examples only. "
            f"Mean OOD along each curve's ID range: {areas}.",
        ))  # fmt: skip
    if found.frontiers:
        header = ("method", "points", "ID range", *(f"OOD at ID {100 * x:.1f} %" for x in found.places),
                  *(f"gap at {100 * x:.1f} %" for x in found.places))  # fmt: skip
        body = tuple(
            (f.method, number(f.points), f"{100 * f.id_range[0]:.1f}-{100 * f.id_range[1]:.1f}", *map(points, f.at),
             *((points(gap, signed=True) for gap in f.gap) if f.gap else [""] * len(found.places)))
            for f in found.frontiers
        )  # fmt: skip
        made.append(Text(
            "Frontiers over settings and alphas", header, body,
            "Each method's points that no other of its points beats on both axes, joined by lines, within the ID range "
            "that all share; gap: to the baseline's frontier. Settings with fewer seeds than others of their method "
            "are left out. The frontier is chosen on test means: exploratory.",
        ))  # fmt: skip
    if found.refusal:
        made.append(Text("Frontiers over settings and alphas", ("",), ((found.refusal,),), ""))
    if found.effective:
        header = ("method", *found.axes)
        body = tuple(
            (row, *(_effective_text(cells.get(split)) for split in found.axes))
            for row, cells in found.effective.items()
        )  # fmt: skip
        lines = "; ".join(
            f"{shift} (ID: {axis.identity}): line {n.id} {n.digest[:8]}, sd {100 * n.line.er_sd:.1f}"
            for shift, axis in found.axes.items()
            for n in axis.lines
        )
        made.append(Text(
            "Effective robustness, points", header, body,
            f"95 % intervals over seeds and examples; ! extrapolates beyond the line's models, {MISSING}: the line "
            f"explains less than half of their variance. {lines} points of standard models themselves.",
        ))  # fmt: skip
    return made


def _effective_text(found: EffectiveRobustness | None) -> str:
    if found is None or found.measured is None:
        return MISSING
    return starred(points(found.measured, signed=True), "!" if found.extrapolated else "")


def as_json(found: Beyond) -> dict[str, Any]:
    def plain(estimate: Estimate | None) -> Any:
        return estimate and {"value": estimate.value, "interval": [estimate.low, estimate.high], "se": estimate.se,
                             "df": estimate.df, "seeds": estimate.seeds}  # fmt: skip

    return {
        "matched_id": {
            "reference": found.reference, "curve_areas": dict(found.areas),
            "gains": [{"row": g.row, "gain": plain(g.estimate), "paired_seeds": g.paired_seeds, "reason": g.reason}
                      for g in found.gains],
        },
        "frontiers": {
            "id_accuracies": list(found.places), "refusal": found.refusal,
            "methods": [{"method": f.method, "points": f.points, "id_range": list(f.id_range),
                         "at": [*map(plain, f.at)], "gap": [*map(plain, f.gap)]} for f in found.frontiers],
        },
        "effective_robustness": {
            "lines": {
                split: [{"id": line.id, "sha256": line.digest, "identity": axis.identity} for line in axis.lines]
                for split, axis in found.axes.items()
            },
            "rows": {
                row: {split: {"value": e.value, "expected": e.expected, "line_interval": list(e.line_interval),
                              "prediction_interval": list(e.prediction_interval), "extrapolated": e.extrapolated,
                              "measured": plain(e.measured)} for split, e in cells.items()}
                for row, cells in found.effective.items()
            },
        },
    }  # fmt: skip
