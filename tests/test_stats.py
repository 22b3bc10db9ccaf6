"""Two-way t intervals against reference values and against sums done by hand."""

import math
from typing import Any

import golden
import numpy as np
import pytest

from robustbench_ft import stats
from robustbench_ft.stats import Estimate, Matrix


def matrix(rows: Any) -> Matrix:
    return np.array(rows, np.float64)  # [S, n]


def two_methods(name: str) -> tuple[list[Matrix], list[Matrix]]:
    inputs = golden.statistics(name)["inputs"]
    return [matrix(inputs["correct_a"])], [matrix(inputs["correct_b"])]


def reference(name: str, quantity: str) -> Any:
    """One expected value, with the tolerance of its vector."""
    vector = golden.statistics(name)
    return pytest.approx(vector["expected"][quantity], rel=vector["tol"]["rtol"], abs=vector["tol"]["atol"])


def interval(estimate: Estimate) -> list[float]:
    return [estimate.value - estimate.half_width, estimate.value + estimate.half_width]


def test_difference_of_unpaired_seeds_is_the_reference() -> None:
    name = "two_way_t_interval"
    found = stats.difference(*two_methods(name))
    assert found.value == reference(name, "diff")
    assert found.v_seed == reference(name, "v_seed")
    assert found.v_examples == reference(name, "v_examples")
    assert found.se == reference(name, "se")
    assert found.df == reference(name, "df")
    assert found.p == reference(name, "p")
    assert interval(found) == reference(name, "ci95")
    assert found.seeds == 3  # four of the one, three of the other


def test_difference_of_paired_seeds_is_the_reference() -> None:
    name = "two_way_t_interval_paired_seeds"
    found = stats.difference(*two_methods(name), paired_seeds=True)
    assert found.value == reference(name, "diff")
    assert found.v_seed == reference(name, "v_seed")
    assert found.v_examples == reference(name, "v_examples")
    assert found.se == reference(name, "se")
    assert found.df == reference(name, "df")


def test_swapping_methods_turns_the_sign_and_nothing_else() -> None:
    a, b = two_methods("two_way_t_interval")
    there, back = stats.difference(a, b), stats.difference(b, a)
    assert there.value == -back.value
    assert (there.half_width, there.p, there.df) == pytest.approx((back.half_width, back.p, back.df))


def test_mean_over_two_sets_by_hand() -> None:
    """Two seeds, two examples: suite means of the seeds are 1/2 and 1, residuals +-1/4, example means 1 and 1/2.

    Seeds: variance 1/8, less (1/4) / 2 of each set over 2^2, so (1/8 - 1/16) / 2. Examples: twice (1/8) / 2 / 2^2.
    """
    found = stats.mean([matrix([[1, 0], [1, 1]]), matrix([[0, 1], [1, 1]])])
    assert (found.value, found.v_seed, found.v_examples, found.se) == (3 / 4, 1 / 32, 1 / 32, 1 / 4)
    assert found.df == 1.0  # (1/16)^2 / ((1/16)^2 + 2 (1/64)^2) is below the floor
    assert found.half_width == pytest.approx(math.tan(0.475 * math.pi) / 4)  # one degree of freedom: Cauchy
    assert found.p == pytest.approx(1 - 2 * math.atan(3) / math.pi)


def test_every_set_weighs_the_same_whatever_its_size() -> None:
    assert stats.mean([matrix([[1, 1]]), matrix([[0] * 10])]).value == 1 / 2


def test_one_seed_gives_an_interval_over_examples() -> None:
    found = stats.mean([matrix([[1, 1, 1, 0]])])
    assert (found.value, found.v_seed, found.v_examples, found.se) == (3 / 4, 0, 1 / 16, 1 / 4)
    assert (found.df, found.seeds) == (3.0, 1)
    assert found.half_width == pytest.approx(3.182446305284263 / 4)  # t(3, .975), from tables


def test_seeds_that_agree_add_no_variance() -> None:
    """Nothing observed is left after the debiasing, and nothing negative either. Example means: 1/2, 1/2, 1, 1."""
    found = stats.mean([matrix([[1, 0, 1, 1], [0, 1, 1, 1]])])
    assert found.v_seed == 0
    assert found.v_examples == pytest.approx(1 / 48)
    assert found.df == pytest.approx(3)


def test_comparing_a_run_with_itself_gives_zero_and_no_doubt() -> None:
    runs = [matrix([[1, 0, 1, 1], [1, 1, 0, 1]])]
    for found in (stats.difference(runs, runs, paired_seeds=True), stats.difference([runs[0][:1]], [runs[0][:1]])):
        assert interval(found) == [0, 0]
        assert found.p == 1
