"""Quantiles of variances with several parts: few seeds beside many, and the worlds that measure them."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from robustbench_ft import stats
from robustbench_ft.stats import study, study_worlds
from robustbench_ft.stats.intervals import ExamplePart, Examples, SeedPart, combine
from robustbench_ft.stats.streams import generator
from robustbench_ft.stats.tails import Part, needs_separate, satterthwaite, separate, t_p

N, NOISE, VIEWS = 10_000, 6e-6, 7.8e-6  # examples, MSR / n and V_ex of the study's made-up methods


def square(p: float, parts: list[Part]) -> float:
    return sum(float(scipy_stats.t.ppf(1 - p / 2, part.df)) ** 2 * part.variance for part in parts)


def test_separate_quantiles_add_in_squares() -> None:
    parts = [Part(2.0, 2.0, 2), Part(1.0, 1.0, 9), Part(0.0, 0.5, 4), Part(0.5, 0.5, 999)]
    variance = sum(part.variance for part in parts)
    df, p = separate(3.0, variance, parts)
    assert scipy_stats.t.ppf(0.975, df) ** 2 * variance == pytest.approx(square(0.05, parts))
    assert square(p, parts) == pytest.approx(9.0)  # the interval of level 1 - p ends at 0
    assert df < satterthwaite(variance, parts[:3], parts[3:])


def test_one_part_is_a_t_test() -> None:
    df, p = separate(0.7, 0.09, [Part(0.09, 0.1, 5.5)])
    assert df == pytest.approx(5.5)
    assert p == pytest.approx(t_p(0.7 / 0.3, 5.5))
    assert separate(0.0, 0.09, [Part(0.09, 0.1, 5.5)])[1] == 1.0
    assert 0 < separate(1e120, 0.09, [Part(0.09, 0.1, 999)])[1] < 1e-300


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [((3, 10), True), ((10, 3), True), ((3, 1), True), ((2, 3), True), ((3, 5), True), ((4, 6), True),
     ((3, 3), False), ((3, 4), False), ((5, 10), False), ((5, 1), False), ((1, 1), False), ((3,), False)],
)  # fmt: skip
def test_few_seeds_beside_many(seeds: tuple[int, ...], expected: bool) -> None:
    assert needs_separate(seeds) == expected


def rejected(seeds: tuple[int, int], sds: tuple[float, float], replicates: int = 4000) -> float:
    """Share of p < .05 of two equal methods, from normal run means with the study's example noise."""
    rng, count = generator("tails", seeds, sds), 0
    for _ in range(replicates):
        rows, truth = list[SeedPart](), VIEWS
        for s, sd in zip(seeds, sds, strict=True):
            observed = (sd**2 + NOISE) * rng.chisquare(s - 1) / (s - 1) if s > 1 else 0.0
            rows.append(SeedPart(observed, max(0.0, observed - NOISE), s))
            truth += sd**2 / s
        sets = [ExamplePart(VIEWS * rng.chisquare(N - 1) / (N - 1), N - 1.0, N, 1.0)]
        found = combine(float(rng.normal(0, truth**0.5)), rows, sets)
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0) or abs(found.p - 0.05) < 1e-9
        count += found.p < 0.05
    return count / replicates


@pytest.mark.parametrize("seeds", [(3, 10), (3, 5), (3, 1)])
@pytest.mark.parametrize("sd", [0.01, 0.02])
def test_a_noisy_row_of_three_seeds_beside_a_quiet_one_keeps_its_level(seeds: tuple[int, int], sd: float) -> None:
    assert rejected(seeds, (sd, 0.001 if seeds[1] > 1 else 0.0)) <= 0.06  # .07 to .08 with Satterthwaite's df alone


def test_equal_numbers_of_seeds_keep_the_published_df() -> None:
    a, b = (np.random.default_rng(k).random((3, 400)) < 0.7 for k in range(2))
    found = stats.difference([Examples(a)], [Examples(b)])
    parts = [Part(0.0, float(x.mean(axis=1).var(ddof=1)) / 3, 2) for x in (a, b)]
    assert found.df == pytest.approx(satterthwaite(found.se**2, parts, [Part(0.0, found.v_examples, 399)]))


def test_the_study_says_what_unequal_seeds_change() -> None:
    equal = study_worlds.unequal(generator("test"), 3, 0.01, 3, 0.001).p
    before, after = equal.values()
    assert before == pytest.approx(after)
    before, after = study_worlds.unequal(generator("test"), 3, 0.01, 10, 0.001).p.values()
    assert after > before


def test_every_part_of_the_study_has_a_title_and_runs() -> None:
    first = {part: make for part, _, make in reversed(list(study.cells()))}
    assert set(first) == set(study.TITLES)
    for part, make in first.items():
        if part != "grouped":  # its truth takes a thousand worlds
            assert all(0 < p <= 1 for p in make(generator("test", part)).p.values())


def test_worst_groups_taken_as_fixed_are_the_metric() -> None:
    a, b, group, code = study_worlds.worlds_of_groups(generator("test"), study_worlds.SKILLS["tied"], 600, True, 3)
    accuracies = study_worlds.accuracies(a, group)
    assert accuracies[2, 1] == a[1, group == 2].mean()
    fixed = study_worlds.taken_as_fixed(a, group, code)
    assert fixed.runs == pytest.approx(accuracies.min(axis=0))
    assert a.shape == b.shape == (3, 600)
    assert code is not None
    assert len(np.unique(code)) == len(study_worlds.SHARES) * study_worlds.YEARS
