"""Where nothing varies, and where a range ends: identical answers, all right, all different."""

from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from robustbench_ft import stats
from robustbench_ft.stats import Estimate, limits
from robustbench_ft.stats.intervals import Examples, Resamples, Sample

RNG = np.random.default_rng


def same(kind: str, seed: int, n: int, runs: int) -> Sample:
    """`runs` runs with the same answers, whose means are no binary fractions."""
    rng = RNG(seed)
    if kind == "draws":
        return Resamples(
            np.full(runs, rng.random()), np.repeat(rng.random((1, 200)), runs, axis=0), n - 1.0, (0.0, 1.0)
        )
    row: Any = rng.random((1, n)) < 0.7 if kind == "answers" else rng.normal(2.3, 1, (1, n))
    clusters = np.arange(n) % 7 if kind == "clusters" else None
    return Examples(np.repeat(row, runs, axis=0), clusters)


@pytest.mark.parametrize("kind", ["answers", "scores", "clusters", "draws"])
@pytest.mark.parametrize("runs", range(1, 13))
def test_identical_answers_are_identical_whatever_the_number_of_seeds(kind: str, runs: int) -> None:
    for n in (29, 350, 1777):
        for world in range(5):
            one, many = [same(kind, s, n, 1) for s in (world, 50 + world)], [
                same(kind, s, n, runs) for s in (world, 50 + world)
            ]  # fmt: skip
            found = [stats.difference(one, many), stats.difference(many, one), stats.difference(many, many)]
            found.append(stats.difference(many, many, paired_seeds=True))
            for e in found:
                assert (e.value, e.half_width, e.low, e.high, e.p) == (0.0, 0.0, 0.0, 0.0, 1.0)


def test_one_changed_answer_in_a_million_is_no_rounding() -> None:
    a = np.zeros((1, 10**6), np.bool_)
    b = a.copy()
    b[0, 5] = True
    found = stats.difference([Examples(a)], [Examples(b)])
    assert found.value == -1e-6
    assert found.half_width == pytest.approx(1.96e-6, rel=1e-3)


@pytest.mark.parametrize("runs", [1, 3])
def test_nine_of_nine_right_is_no_certainty(runs: int) -> None:
    found = stats.mean([Examples(np.ones((runs, 9), np.bool_))])
    t = float(scipy_stats.t.ppf(0.975, 8))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(9 / (9 + t**2))  # Wilson's, by hand
    assert found.half_width == pytest.approx(1 - found.low)
    assert not found.symmetric
    none = stats.mean([Examples(np.zeros((runs, 9), np.bool_))])
    assert (none.low, none.high) == (0.0, pytest.approx(found.half_width))
    assert none.p == 1.0


def test_all_right_on_two_sets_knows_more_than_on_one() -> None:
    sure = [Examples(np.ones((2, n), np.bool_)) for n in (30, 30)]
    assert 1 - stats.mean(sure).low == pytest.approx((1 - stats.mean(sure[:1]).low) / 2, rel=0.1)
    clustered = stats.mean([Examples(np.ones((2, 30), np.bool_), np.arange(30) // 6)])
    assert clustered.low == pytest.approx(5 / (5 + scipy_stats.t.ppf(0.975, 4) ** 2))


@pytest.mark.parametrize(("p", "n"), [(0.97, 40), (0.03, 40), (0.995, 400), (0.9, 12)])
def test_intervals_of_shares_stay_in_their_range_and_cover(p: float, n: int) -> None:
    covered, rng = 0, RNG(int(1000 * p) + n)
    for _ in range(500):
        found = stats.mean([Examples(rng.random((1, n)) < p)])
        assert 0 <= found.low <= found.value <= found.high <= 1
        covered += found.low <= p <= found.high
    assert covered >= 0.93 * 500


def test_intervals_inside_their_range_are_the_t_interval() -> None:
    found = stats.mean([Examples(RNG(0).random((3, 500)) < 0.8)])
    assert found.symmetric
    assert found == stats.mean([(RNG(0).random((3, 500)) < 0.8).astype(np.float64)])  # of no known range


def test_a_range_that_is_given_holds() -> None:
    scores = np.abs(RNG(1).normal(0, 0.3, (1, 4)))
    free, low = stats.mean([scores - 0.15]), stats.mean([Examples(scores - 0.15 * 0, None, (0.0, float("inf")))])
    assert free.low < 0
    assert low.low >= 0
    assert low.high == low.value + low.half_width
    brier = stats.mean([Examples(np.array([[2.0, 2.0, 1.5, 2.0]]), None, (0.0, 2.0))])
    assert brier.high <= 2
    assert brier.low > 1


@pytest.mark.parametrize("n", [2, 3, 5, 6, 9, 40, 5000])
def test_where_every_example_differs_the_sign_test_speaks(n: int) -> None:
    found = stats.difference([Examples(np.ones((1, n), np.bool_))], [Examples(np.zeros((2, n), np.bool_))])
    assert found.value == found.high == 1
    assert found.p == max(2.0 ** (1 - n), np.finfo(float).tiny)
    assert found.p > 0
    assert (found.low > 0) == (found.p < 0.05)
    share = scipy_stats.binomtest(n, n).proportion_ci(0.95, "exact").low
    assert found.low == pytest.approx(max(-1.0, 2 * share - 1))


def test_the_sign_test_counts_clusters() -> None:
    code = np.arange(40) // 8
    found = stats.difference(
        [Examples(np.ones((1, 40), np.bool_), code)], [Examples(np.zeros((2, 40), np.bool_), code)]
    )
    assert found.p == 2.0**-4


def test_differences_stay_between_minus_one_and_one() -> None:
    right, wrong = np.ones((1, 6), np.bool_), np.zeros((1, 6), np.bool_)
    wrong[0, 0] = True
    found = stats.difference([Examples(right)], [Examples(wrong)])
    assert found.high == 1
    assert found.low == found.value - found.half_width


def test_p_is_never_zero() -> None:
    a, b = RNG(2).random((1, 200_000)) < 0.999, RNG(3).random((1, 200_000)) < 0.001
    assert 0 < stats.difference([Examples(a)], [Examples(b)]).p < 1e-300


def test_estimates_are_read_as_written_and_old_ones_too() -> None:
    bent, plain = (
        stats.mean([Examples(np.ones((1, 9), np.bool_))]),
        stats.mean([Examples(RNG(0).random((2, 90)) < 0.6)]),
    )
    assert Estimate.read(bent.written()) == bent
    assert Estimate.read(plain.written()) == plain
    assert set(bent.written()) - set(plain.written()) == {"low", "high"}
    assert Estimate.read(plain.written()).low == plain.value - plain.half_width


def test_ranges_add_up() -> None:
    assert limits.total([(0.5, (0.0, 1.0)), (-0.5, (0.0, 1.0))]) == (-0.5, 0.5)
    assert limits.total([(1.0, (0.0, float("inf"))), (-1.0, (0.0, float("inf")))]) == limits.UNBOUNDED
