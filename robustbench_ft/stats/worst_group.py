"""Accuracy in the worst group, re-taken in every resample: the draws of its two-way t interval.

Formulas: docs/statistics.md, 'Metrics that are no mean'.
"""

import numpy as np
from numpy.typing import NDArray

from robustbench_ft.errors import RbftError

from .bootstrap import exact_draws
from .intervals import Matrix, Resamples, cluster_codes, cluster_df

DRAWS = 2_000
Ints = NDArray[np.int64]


def worst_group_draws(
    correct: NDArray[np.bool_], group: Ints, draws: int, *names: object, clusters: Ints | None = None
) -> list[Resamples]:
    """One `Resamples` for each of the runs [R, n]: least accuracy over groups [n] (-1: in none) in shared resamples.

    Groups are those with examples; each is resampled within itself, so that none can be empty: its examples, or where
    clusters [n] are given the clusters in it (what a cluster adds in several groups is taken as independent: only one
    group's variance counts in the end). A cluster that is its whole group is fixed as groups are: its examples are
    resampled. A run's draws and its df, those of its own worst group, do not depend on the runs beside it. RbftError
    where no example is in a group.

    The estimand is the expected metric on a test set of this size, as WILDS defines it: the minimum over groups is
    biased down where groups are close, and methods with equal true minima differ in it where one has tied groups.
    Measured for five groups of 4 to 38 % of 600 and 22,000 examples, groups tied, near-tied and apart, with and without
    clusters (docs/results/statistics_study.md): the two-way t test rejects true equality in at most .06, and in less
    than .02 where groups are tied. Taking each run's worst group as given rejects in up to .11 with clusters.
    """
    present = np.unique(group[group >= 0])
    if not len(present):
        raise RbftError("no example is in a group: there is no worst group; leave this metric out")
    parts = [_within(correct, group == k, draws, (*names, "worst-group", int(k)), clusters) for k in present]
    accuracies = np.stack([runs for runs, _, _ in parts])  # [K, R]
    values = np.min([drawn for _, drawn, _ in parts], axis=0)  # [draws, R]
    worst, whole = accuracies.argmin(axis=0), accuracies.min(axis=0)
    return [Resamples(whole[r : r + 1], values[:, r][None], parts[k][2], (0.0, 1.0)) for r, k in enumerate(worst)]


def _within(
    correct: NDArray[np.bool_], inside: NDArray[np.bool_], draws: int, names: tuple[object, ...], clusters: Ints | None
) -> tuple[Matrix, Matrix, float]:
    """(accuracies [R], their draws [draws, R], df) of one group. A group of one example has df 1, the least there is.

    Resamples are exact: those of a normal approximation would depend on which runs are drawn together.
    """
    runs = correct[:, inside]
    codes = None if clusters is None else cluster_codes(clusters[inside])
    if codes is not None and codes.max() == 0:
        codes = None
    df = max(1.0, runs.shape[1] - 1.0) if codes is None else cluster_df(codes)
    return runs.mean(axis=1), exact_draws(runs, draws, *names, clusters=codes), df
