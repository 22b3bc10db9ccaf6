"""Rank correlations of each measure with accuracy under shift, over the models of one seed. Torch-free.

Nam, Heo, Lee (ICLR 2024) say that accuracy under shift falls with the energy gap, and not so with feature distortion:
the correlation of the gap is then the more negative one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # whose parts are imported where they are first used

from robustbench_ft.stats.proportions import LEVEL
from robustbench_ft.stats.tails import t_quantile

from .points import TITLES, Diagnosis, Point

SAME = 1e-9
FEWEST = 3  # models; two are always in order or in reverse
DIFFERENCE = "energy gap - feature distortion"


@dataclass(frozen=True)
class OverSeeds:
    """A mean over seeds with its 95 % t interval."""

    value: float
    seeds: int
    low: float | None  # None: one seed has no interval, nor have seeds that agree
    high: float | None


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of one measure with mean OOD accuracy, or a difference of two of them."""

    name: str
    by_seed: Mapping[int, float | None]  # None: a constant, or too few models
    over_seeds: OverSeeds | None  # of the seeds that have one; None: no seed has


@dataclass(frozen=True)
class Correlations:
    """Every measure, and the difference that the paper's claim is about."""

    models: Mapping[int, int]  # seed -> models that were ranked
    measures: Mapping[str, Correlation]  # name of the measure -> its correlation
    difference: Correlation | None  # None: no energy gap was measured


@dataclass(frozen=True)
class Scopes:
    """Correlations over which models, and with accuracy on which shifts."""

    every: Correlations  # all models, mean over all shifts
    headlines: Correlations | None  # default candidates only; None: there are no others
    groups: Mapping[str, Correlations]  # kind of shift -> all models, mean over its shifts


def scopes(found: Diagnosis) -> Scopes:
    """Correlations of all models and of headline models, over all shifts and over each kind of shift."""
    several = any(not point.headline for point in found.points)
    groups = {name: correlations(found, shifts) for name, shifts in found.groups.items()}
    return Scopes(correlations(found), correlations(found, headlines=True) if several else None, groups)


def correlations(found: Diagnosis, shifts: Sequence[str] = (), headlines: bool = False) -> Correlations:
    """Over a measure's mean over shifts, and the mean of their official metrics; without `shifts` over all."""
    by_seed, shifts = models_of_seeds(found, headlines), shifts or found.shifts
    measures = {name: _of_measure(name, by_seed, shifts) for name in found.measured}
    difference = None
    if found.texts:
        gap, moved = measures["energy_gap"].by_seed, measures["distortion"].by_seed
        difference = _correlation(DIFFERENCE, {seed: _minus(gap[seed], moved[seed]) for seed in by_seed}, 2.0)
    return Correlations({seed: len(some) for seed, some in by_seed.items()}, measures, difference)


def models_of_seeds(found: Diagnosis, headlines: bool = False) -> dict[int, list[Point]]:
    """Seed -> its models, or its headline models. Those that agree in every number are one model.

    WiSE-FT at alpha 1 is FT, and the last step of a path is the end of it. Zero-shot is the origin and no model, and so
    is alpha 0.
    """
    origins = {point.numbers() for point in found.points if not point.trained}
    models: dict[int, dict[object, Point]] = {}
    for point in sorted(found.points, key=_plainness):  # which of several names a model goes by
        if point.trained and point.numbers() not in origins and (point.headline or not headlines):
            models.setdefault(point.seed, {}).setdefault(point.numbers(), point)
    return {seed: [p for p in found.points if p in models[seed].values()] for seed in sorted(models)}


def _plainness(point: Point) -> tuple[bool, int]:
    """Headlines first, and 'ft' before 'ft+path'."""
    return not point.headline, len(point.method)


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None for fewer than three pairs, or a constant."""
    if len(a) < FEWEST or len(set(a)) < 2 or len(set(b)) < 2:
        return None
    return float(scipy.stats.spearmanr(a, b).statistic)


def over_seeds(values: Sequence[float], bound: float = 1.0) -> OverSeeds | None:
    """Mean and 95 % t interval of one value per seed, cut at -bound and bound.

    Ranks of few models take few values, so seeds may agree to the bit. That is no interval of length 0: it has none.
    """
    if not values:
        return None
    mean, n = float(np.mean(values)), len(values)
    if n < 2 or np.ptp(values) < SAME:
        return OverSeeds(mean, n, None, None)
    half = t_quantile(0.5 + LEVEL / 2, n - 1) * float(np.std(values, ddof=1)) / n**0.5
    return OverSeeds(mean, n, max(-bound, mean - half), min(bound, mean + half))


def _of_measure(name: str, by_seed: Mapping[int, Sequence[Point]], shifts: Sequence[str]) -> Correlation:
    values: dict[int, float | None] = {}
    for seed, points in by_seed.items():
        measured = [point.mean(name, shifts) for point in points]
        values[seed] = spearman([v for v in measured if v is not None], [point.score(shifts) for point in points])
    return _correlation(TITLES[name], values)


def _correlation(name: str, by_seed: Mapping[int, float | None], bound: float = 1.0) -> Correlation:
    return Correlation(name, by_seed, over_seeds([v for v in by_seed.values() if v is not None], bound))


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
