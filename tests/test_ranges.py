"""Ranges of settings, and the expected best of n draws from them."""

import itertools

import numpy as np
import pytest

from robustbench_ft import registry
from robustbench_ft.method import Method
from robustbench_ft.metrics.across import Setting, select_best
from robustbench_ft.ranges import Choices, Range, read
from robustbench_ft.stats.best_of import best_of, chances


@pytest.mark.parametrize(
    ("space", "quantiles"),
    [
        (Range(0.0, 4.0), (0.0, 1.0, 2.0, 3.0, 4.0)),
        (Range(1e-4, 1.0, "log"), (1e-4, 1e-3, 1e-2, 1e-1, 1.0)),
        (Range(0.0, 0.9999, "log1m"), (0.0, 0.9, 0.99, 0.999, 0.9999)),
    ],
)
def test_a_range_is_even_on_its_scale(space: Range, quantiles: tuple[float, ...]) -> None:
    found = [space.at(u) for u in (0.0, 0.25, 0.5, 0.75, 1 - 1e-12)]
    assert found == pytest.approx(quantiles, abs=1e-9)
    assert all(space.low <= value <= space.high for value in found)


def test_whole_numbers_and_choices_are_equally_likely() -> None:
    us = (np.arange(1200) + 0.5) / 1200
    for values in ([Range(1, 4).at(u, True) for u in us], [Choices((1, 2, 3, 4)).at(u) for u in us]):
        assert np.bincount(values).tolist() == [0, 300, 300, 300, 300]
    assert {Range(1, 64, "log").at(u, True) for u in us} >= {1, 2, 64}


@pytest.mark.parametrize("text", ["0.1:10:log", "0.9:0.999:log1m", "0:1", "a,b,c"])
def test_a_range_is_read_as_it_is_written(text: str) -> None:
    assert read(text).text == text


@pytest.mark.parametrize("name", sorted(registry.entries("method")))
def test_ranges_of_methods_hold_their_defaults(name: str) -> None:
    kind = registry.load("method", name, Method)
    for setting, space in kind.ranges.items():
        if isinstance(space, Range):
            assert space.low <= getattr(kind(), setting) <= space.high


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_expected_best_is_that_of_all_draws(n: int) -> None:
    values, others, ties = [0.5, 0.9, 0.7, 0.9, 0.5], [0.1, 0.2, 0.35, 0.4, 0.5], [3e-4, 1e-3, 1e-4, 3e-4, 3e-4]
    settings = [Setting(lr, value, 100) for lr, value in zip(ties, values, strict=True)]
    best: list[int] = []
    for places in itertools.product(range(5), repeat=n):
        ordered = sorted(places)  # of equals the first trial
        best.append(ordered[select_best([settings[k] for k in ordered])])
    found = best_of(values, others, ties, "test")[n - 1]
    assert found.n == n
    assert found.best == pytest.approx(np.mean([values[k] for k in best]))
    assert found.best_sd == pytest.approx(np.std([values[k] for k in best]))
    assert found.other == pytest.approx(np.mean([others[k] for k in best]))
    assert found.other_sd == pytest.approx(np.std([others[k] for k in best]))


def test_the_expected_best_grows_and_its_interval_holds_it() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(12).tolist()
    found = best_of(values, values, [0.0] * 12, "test")
    assert found[0].best == pytest.approx(np.mean(values))
    assert np.diff([one.best for one in found]).min() > 0
    assert found[-1].best < max(values)
    assert all(low <= one.best <= high for one in found for low, high in [one.best_interval])
    assert [one.best for one in found] == [one.other for one in found]
    assert best_of(values, values, [0.0] * 12, "test") == found
    assert chances(12, 5).sum() == pytest.approx(1)


def test_the_bootstrap_interval_of_one_trial_is_that_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(size=400).tolist()
    low, high = best_of(values, values, [0.0] * 400, "test", draws=4000)[0].best_interval
    se = np.std(values) / 20
    assert (high - low) / 2 == pytest.approx(1.96 * se, rel=0.05)
