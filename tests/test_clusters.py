"""Clusters of unequal size: how many there are in effect, and draws as wide as the intervals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from robustbench_ft import stats
from robustbench_ft.stats import bootstrap
from robustbench_ft.stats.intervals import Examples, cluster_df, leveraged
from robustbench_ft.stats.macro_f1 import macro_f1_draws

RNG = np.random.default_rng


def unequal(seed: int, clusters: int, n: int, spread: float = 1.0) -> np.ndarray:
    rng = RNG(seed)
    shares = rng.dirichlet(np.full(clusters, spread))
    return np.sort(np.concatenate([np.arange(clusters), rng.choice(clusters, n - clusters, p=shares)]))


def test_effective_clusters_by_hand() -> None:
    assert cluster_df(np.repeat([0, 1, 2, 3], 5)) == 3.0  # equal ones count in full
    assert cluster_df(np.array([0] * 6 + [1] * 3 + [2])) == pytest.approx(100 / 46 - 1)
    assert cluster_df(np.array([0] * 98 + [1, 2])) == 1.0  # the floor
    code = np.array([0] * 6 + [1] * 3 + [2])
    found = stats.mean([Examples(RNG(0).random((1, 10)), code)])
    assert found.df == pytest.approx(100 / 46 - 1)
    said = RNG(1).integers(0, 3, (1, 10))
    assert macro_f1_draws(np.arange(10) % 3, said, 3, "test", clusters=code)[0].df == pytest.approx(100 / 46 - 1)


def test_units_of_clusters_are_the_jackknife_by_deletion() -> None:
    y, code = RNG(2).random((3, 60)), unequal(2, 6, 60)
    kept = np.array([y[:, code != g].mean() for g in range(6)])
    assert stats.mean([Examples(y, code)]).v_examples == pytest.approx(5 / 6 * float(((kept - y.mean()) ** 2).sum()))
    assert leveraged(y.mean(axis=0) - y.mean(), code) / 60 == pytest.approx(y.mean() - kept)


@pytest.mark.parametrize("clusters", [5, 10, 48])
@pytest.mark.parametrize("kind", [bootstrap.gaussian_draws, bootstrap.exact_draws])
def test_rank_draws_are_as_wide_as_the_interval_over_clusters(clusters: int, kind: Callable[..., Any]) -> None:
    code = unequal(clusters, clusters, 2_000)
    views = RNG(3).normal(0, 1, (2, clusters))[:, code]
    a, b = RNG(4).random((2, 2_000)) < 1 / (1 + np.exp(-1 - views))
    drawn = kind(np.stack([a, b]), 40_000, "test", clusters=code)
    gap = stats.difference([Examples(a[None], code)], [Examples(b[None], code)])
    assert drawn[:, 0].std() == pytest.approx(stats.mean([Examples(a[None], code)]).se, rel=0.03)
    assert (drawn[:, 0] - drawn[:, 1]).std() == pytest.approx(gap.se, rel=0.03)
    assert drawn.mean(axis=0) == pytest.approx([a.mean(), b.mean()], abs=4 * gap.se / 200)
