"""Robustness beyond accuracy: lines through standard models, and curves met at equal ID accuracy.

Formulas: docs/statistics.md, 'Gains at matched ID accuracy'.

Intervals are those of `intervals`: a function of accuracies is linearised, its gradient times the per-example scores
takes the place of the scores, and ID and OOD parts of one run stay together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # whose parts are imported where they are first used

from robustbench_ft.errors import RbftError

from .intervals import LEVEL, Estimate, Examples, Matrix, Sample, estimate
from .tails import t_quantile


def logit(p: Matrix) -> Matrix:
    return np.log(p / (1 - p))


def sigmoid(x: Matrix) -> Matrix:
    return 1 / (1 + np.exp(-x))


def inner(accuracy: float, n: int) -> float:
    """(k + .5) / (n + 1) where nothing or all is right, whose logit is infinite; else the accuracy."""
    return accuracy if 0 < accuracy < 1 else (accuracy * n + 0.5) / (n + 1)


@dataclass(frozen=True)
class Line:
    """Least squares of logit(OOD) on logit(ID) over standard-training models."""

    slope: float
    intercept: float
    n: int
    r2: float
    residual_sd: float  # in logits, ddof 2
    centre: float  # mean logit(ID) of the fit set
    spread: float  # sum of squares of logit(ID) about it
    id_range: tuple[float, float]  # accuracies; outside it the line extrapolates
    er_sd: float  # of the fit set's own effective robustness, ddof 2: is a gain inside the baseline's scatter?

    @property
    def explains(self) -> bool:
        """True if R2 is at least .5; another model is not judged by a line that explains less."""
        return self.r2 >= 0.5

    @property
    def covariance(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Covariance matrix of (intercept, slope)."""
        s2, cross = self.residual_sd**2, -(self.residual_sd**2) * self.centre / self.spread
        return (s2 * (1 / self.n + self.centre**2 / self.spread), cross), (cross, s2 / self.spread)


def fit_line(identity: Matrix, ood: Matrix) -> Line:
    """The line through accuracies [n] in (0, 1), one point for each standard model."""
    x, y = logit(identity), logit(ood)
    found = scipy.stats.linregress(x, y)
    residual = y - found.intercept - found.slope * x
    gains = ood - sigmoid(found.intercept + found.slope * x)
    return Line(
        float(found.slope), float(found.intercept), len(x), float(found.rvalue) ** 2,
        float(np.sqrt((residual**2).sum() / (len(x) - 2))), float(x.mean()), float(((x - x.mean()) ** 2).sum()),
        (float(identity.min()), float(identity.max())), float(gains.std(ddof=2)),
    )  # fmt: skip


@dataclass(frozen=True)
class EffectiveRobustness:
    """OOD accuracy minus what the line expects at this ID accuracy, with its three intervals apart."""

    value: float
    expected: float
    line_interval: tuple[float, float]  # uncertainty of the line alone, t with n - 2 df
    prediction_interval: tuple[float, float]  # of a standard model: off the line?
    extrapolated: bool
    measured: Estimate | None = None  # seeds and examples: ID and OOD of a run move together


def effective_robustness(line: Line, identity: float, ood: float) -> EffectiveRobustness:
    """Effective robustness and its line and prediction intervals, from accuracies in (0, 1).

    RbftError where R2 of the line is below .5.
    """
    if not line.explains:
        raise RbftError(f"the line explains R2 = {line.r2:.2f} of its standard models: no effective robustness from it")
    x = float(logit(np.asarray(identity)))
    centre = line.intercept + line.slope * x
    t = t_quantile(0.5 + LEVEL / 2, line.n - 2)
    leverage = 1 / line.n + (x - line.centre) ** 2 / line.spread
    expected = float(sigmoid(np.asarray(centre)))

    def interval(factor: float) -> tuple[float, float]:
        half = t * line.residual_sd * factor**0.5
        return ood - float(sigmoid(np.asarray(centre + half))), ood - float(sigmoid(np.asarray(centre - half)))

    inside = line.id_range[0] <= identity <= line.id_range[1]
    return EffectiveRobustness(ood - expected, expected, interval(leverage), interval(1 + leverage), not inside)


def measured_effective_robustness(line: Line, identity: Examples, ood: Examples) -> EffectiveRobustness:
    """Effective robustness from correctness [S, n], with its interval over seeds and examples.

    Delta method: d ER = d OOD - c1 q (1 - q) / (p (1 - p)) d ID, with q the expected OOD accuracy.
    """
    p = inner(float(identity.runs.mean()), identity.scores.shape[1])
    found = effective_robustness(line, p, float(ood.runs.mean()))
    slope = line.slope * found.expected * (1 - found.expected) / (p * (1 - p))
    # the constant makes the mean of the linearised scores the effective robustness itself
    moved = Examples(slope * (identity.scores - identity.runs.mean()) + found.expected, identity.clusters)
    measured = estimate([[ood, moved]], weights=(1.0, -1.0))
    return EffectiveRobustness(
        found.value, found.expected, found.line_interval, found.prediction_interval, found.extrapolated, measured
    )


@dataclass(frozen=True, eq=False)
class Point:
    """A model (or one alpha) with the same seeds on the ID test set and on every shift."""

    identity: Examples
    ood: tuple[Examples, ...]

    @property
    def id_accuracy(self) -> float:
        return float(self.identity.runs.mean())

    @property
    def ood_accuracy(self) -> float:
        return float(np.mean([x.runs.mean() for x in self.ood]))

    def row(self) -> list[Sample]:
        return [*self.ood, self.identity]


@dataclass(frozen=True, eq=False)
class Curve:
    """Points in order of rising ID accuracy, joined by straight lines."""

    points: tuple[Point, ...]

    @property
    def id_range(self) -> tuple[float, float]:
        return self.points[0].id_accuracy, self.points[-1].id_accuracy


def rising(points: Sequence[Point]) -> Curve:
    """The branch of an alpha curve from its start (zero-shot) to its ID peak: there ID accuracy names one point."""
    peak = int(np.argmax([point.id_accuracy for point in points]))
    kept: list[Point] = []
    for point in points[: peak + 1]:
        if not kept or point.id_accuracy > kept[-1].id_accuracy:
            kept.append(point)
    return Curve(tuple(kept))


def frontier(points: Sequence[Point]) -> Curve:
    """Points that no other one beats on both axes. Chosen by the test means themselves: a description."""
    ordered = sorted(points, key=lambda point: (-point.id_accuracy, -point.ood_accuracy))
    kept: list[Point] = []
    for point in ordered:
        if not kept or point.ood_accuracy > kept[-1].ood_accuracy:
            kept.append(point)
    return Curve(tuple(reversed(kept)))


def at_identity(curve: Curve, x: float) -> tuple[list[Sample], float]:
    """(scores on each shift and on ID, slope beta) of the curve at ID accuracy x: the scores sum to its OOD accuracy.

    y = (1-w) y_k + w y_(k+1), w = (x - x_k) / (x_(k+1) - x_k); its slopes are beta in x, -beta (1-w) in x_k and
    -beta w in x_(k+1).
    """
    low, high = curve.id_range
    if not low <= x <= high or len(curve.points) < 2:
        raise RbftError(f"ID accuracy {100 * x:.2f} % is outside the curve's range {100 * low:.2f}-{100 * high:.2f} %")
    xs = [point.id_accuracy for point in curve.points]
    k = min(int(np.searchsorted(xs, x, side="right")), len(xs) - 1) - 1
    a, b = curve.points[k], curve.points[k + 1]
    w = (x - xs[k]) / (xs[k + 1] - xs[k])
    beta = (b.ood_accuracy - a.ood_accuracy) / (xs[k + 1] - xs[k])
    scores: list[Sample] = [_mix(p, q, w) for p, q in zip(a.ood, b.ood, strict=True)]
    mixed = _mix(a.identity, b.identity, w)
    return [*scores, Examples(-beta * (mixed.scores - x), mixed.clusters)], beta


def matched_id(curve: Curve, x: float) -> Estimate:
    """OOD accuracy of the curve at ID accuracy x, with its interval; refused outside the curve."""
    return estimate([at_identity(curve, x)[0]], weights=_weights(len(curve.points[0].ood)))


def matched_id_gap(a: Curve, b: Curve, x: float) -> Estimate:
    """Difference of two curves at ID accuracy x, on the same examples, seeds independent."""
    weights = _weights(len(a.points[0].ood))
    return estimate([at_identity(a, x)[0], at_identity(b, x)[0]], (1.0, -1.0), weights)


def matched_id_gain(point: Point, reference: Curve, paired_seeds: bool = False) -> Estimate:
    """OOD accuracy minus the reference curve's (zero-shot to FT, over alpha) at the same ID accuracy.

    `paired_seeds`: run s of the method and run s of the curve belong together (made from one another).
    """
    curve, beta = at_identity(reference, point.id_accuracy)
    moved = Examples(beta * (point.identity.scores - point.id_accuracy), point.identity.clusters)
    # d gain = d OOD - beta d ID - d curve; the ID part has mean 0, its interval matters
    own: list[Sample] = [*point.ood, Examples(-moved.scores, moved.clusters)]
    weights = _weights(len(point.ood))
    if paired_seeds:
        return estimate([[x.minus(y) for x, y in zip(own, curve, strict=True)]], weights=weights)
    return estimate([own, curve], (1.0, -1.0), weights)


def curve_area(curve: Curve) -> float | None:
    """Mean OOD accuracy along the curve's ID range (trapezoids); None for a single point."""
    low, high = curve.id_range
    if len(curve.points) < 2:
        return None
    ys = [point.ood_accuracy for point in curve.points]
    return float(np.trapezoid(ys, [point.id_accuracy for point in curve.points]) / (high - low))


def _mix(a: Examples, b: Examples, w: float) -> Examples:
    return Examples((1 - w) * a.scores.astype(np.float64) + w * b.scores, a.clusters)


def _weights(shifts: int) -> list[float]:
    return [1 / shifts] * shifts + [1.0]
