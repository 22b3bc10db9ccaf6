"""Worst group: values, resamples and what they are held to."""

import numpy as np
import pytest

from robustbench_ft import stats
from robustbench_ft.errors import RbftError
from robustbench_ft.metrics.classes import worst_group
from robustbench_ft.stats.intervals import Examples
from robustbench_ft.stats.macro_f1 import stack
from robustbench_ft.stats.worst_group import worst_group_draws

RNG = np.random.default_rng


def world(seed: int, n: int, runs: int, levels: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Correctness [runs, n] and groups -1..K-1 [n], larger ones first."""
    rng = RNG(seed)
    share = np.arange(len(levels) + 1, 0, -1, dtype=float)
    group = rng.choice(np.arange(len(levels) + 1), n, p=share / share.sum()) - 1
    return rng.random((runs, n)) < np.array([*levels, 0.0])[group], group


@pytest.mark.parametrize("n", [300, 5000])
def test_values_are_the_metric_of_each_run(n: int) -> None:
    correct, group = world(0, n, 4, (0.7, 0.72, 0.9))
    found = worst_group_draws(correct, group, 20, "test")
    inside = group >= 0  # examples in no group are all wrong: counting them would show
    assert [float(d.runs[0]) for d in found] == [worst_group(row[inside], group[inside]).accuracy for row in correct]


@pytest.mark.parametrize("n", [400, 20_000])
def test_a_worst_group_far_from_others_is_that_group(n: int) -> None:
    correct, group = world(1, n, 3, (0.9, 0.5, 0.95))
    found = stats.mean([stack(worst_group_draws(correct, group, 2000, "test"))])
    alone = stats.mean([Examples(correct[:, group == 1])])
    assert found.value == pytest.approx(alone.value)
    assert found.se == pytest.approx(alone.se, rel=0.06)
    assert worst_group_draws(correct, group, 2, "test")[0].df == (group == 1).sum() - 1


def test_clusters_in_the_worst_group_are_its_units() -> None:
    correct, group = world(2, 3000, 2, (0.9, 0.5))
    year = RNG(3).integers(0, 5, 3000)
    correct[:, (group == 1) & (year == 2)] = RNG(4).random((2, ((group == 1) & (year == 2)).sum())) < 0.2
    found = stats.mean([stack(worst_group_draws(correct, group, 4000, "test", clusters=group * 7 + year + 7))])
    alone = stats.mean([Examples(correct[:, group == 1], year[group == 1])])
    assert found.v_examples == pytest.approx(alone.v_examples, rel=0.1)
    assert found.df == pytest.approx(alone.df, rel=0.1)
    assert found.se > 2 * stats.mean([stack(worst_group_draws(correct, group, 4000, "test"))]).se


def test_the_minimum_is_taken_again_in_every_draw() -> None:
    correct, group = world(5, 4000, 1, (0.7, 0.7, 0.7))
    drawn = worst_group_draws(correct, group, 3000, "test")[0]
    assert drawn.draws.mean() < drawn.runs[0] - 0.002  # tied groups: below the observed minimum
    assert drawn.draws.min() >= 0


def test_draws_are_shared_by_all_runs_and_methods() -> None:
    correct, group = world(6, 3000, 1, (0.8, 0.6))
    found = worst_group_draws(np.repeat(correct, 3, axis=0), group, 50, "test")
    assert stats.difference([found[0]], [stack(found[1:])]).half_width == 0.0
    again = worst_group_draws(correct, group, 50, "test")[0]
    assert np.allclose(again.draws, found[0].draws)


def test_without_any_group_there_is_no_worst_one() -> None:
    with pytest.raises(RbftError, match="no example is in a group"):
        worst_group_draws(np.ones((1, 6), np.bool_), np.full(6, -1), 5, "test")


def test_a_cluster_that_is_its_whole_group_is_fixed_as_the_group_is() -> None:
    correct, group = world(7, 900, 1, (0.8, 0.5))
    alone, own = (worst_group_draws(correct, group, 400, "test", clusters=c)[0] for c in (None, group))
    assert np.array_equal(alone.draws, own.draws)
    assert own.df == alone.df == (group == int(np.argmin([correct[0, group == k].mean() for k in (0, 1)]))).sum() - 1
    assert worst_group_draws(np.array([[True, False]]), np.array([0, 3]), 5, "test")[0].df == 1


def test_a_runs_draws_do_not_depend_on_the_runs_beside_it() -> None:
    correct, group = world(8, 500, 1, (0.8, 0.6, 0.7))
    other, clusters = ~correct, np.arange(group.size) % 40
    for codes in (None, clusters):
        alone = worst_group_draws(correct, group, 100, "test", clusters=codes)[0]
        beside = worst_group_draws(np.concatenate([other, correct]), group, 100, "test", clusters=codes)[1]
        assert np.allclose(alone.draws, beside.draws, rtol=1e-13)
        assert alone.df == beside.df


@pytest.mark.parametrize("levels", [(0.75, 0.75, 0.75), (0.75, 0.9, 0.95)])
def test_equal_methods_are_rarely_told_apart(levels: tuple[float, ...]) -> None:
    rejected = 0
    for k in range(100):
        correct, group = world(100 + k, 300, 6, levels)
        drawn = worst_group_draws(correct, group, 200, k)
        rejected += stats.difference([stack(drawn[:3])], [stack(drawn[3:])]).p < 0.05
    assert rejected <= 0.06 * 100 + 4
