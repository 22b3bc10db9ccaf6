"""Statistics: numbers computed by hand, other libraries as oracles, and what a design cannot do."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import scikit_posthocs
from sklearn.metrics import f1_score
from statsmodels.stats.contingency_tables import mcnemar as sm_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.proportion import proportion_confint

from robustbench_ft import stats
from robustbench_ft.errors import RbftError
from robustbench_ft.stats import bootstrap, description, lines, pairs, power, proportions, ranks, seeds
from robustbench_ft.stats.intervals import Examples, Resamples
from robustbench_ft.stats.letters import compact_letters
from robustbench_ft.stats.macro_f1 import influence, macro_f1_draws, macro_recall_draws, per_class_f1, stack
from robustbench_ft.stats.multiplicity import benjamini_hochberg, holm
from robustbench_ft.stats.robustness import Point, at_identity, curve_area, frontier, matched_id_gain, rising
from robustbench_ft.stats.streams import generator

RNG = np.random.default_rng


def answers(seed: int, runs: int, n: int, p: float = 0.7) -> np.ndarray:
    return RNG(seed).random((runs, n)) < p


def examples(seed: int, runs: int, n: int, p: float = 0.7) -> Examples:
    return Examples(answers(seed, runs, n, p))


def test_one_seed_has_the_variance_of_its_examples() -> None:
    y = np.array([[1.0, 1.0, 1.0, 0.0]])
    found = stats.mean([y])
    assert (found.value, found.v_seed, found.df, found.seeds) == (0.75, 0.0, 3.0, 1)
    assert found.se == pytest.approx((0.25 / 4) ** 0.5)  # var(ddof 1) = 1/4


def test_suite_mean_weighs_sets_equally_not_examples() -> None:
    a, b = np.ones((2, 10)), np.zeros((2, 1000))
    assert stats.mean([a, b]).value == 0.5


def test_identical_rows_differ_by_nothing_with_certainty() -> None:
    y = answers(0, 1, 50)
    found = stats.difference([Examples(y)], [Examples(y)])
    assert (found.value, found.half_width, found.p) == (0.0, 0.0, 1.0)


def test_paired_seeds_are_the_one_method_interval_of_the_difference() -> None:
    a, b = answers(1, 4, 80), answers(2, 4, 80)
    paired = stats.difference([Examples(a)], [Examples(b)], paired_seeds=True)
    assert paired == stats.mean([a.astype(float) - b.astype(float)])


def test_clusters_of_one_example_are_the_jackknife_of_examples() -> None:
    y = answers(3, 3, 40)
    plain, clustered = stats.mean([Examples(y)]), stats.mean([Examples(y, np.arange(40))])
    assert clustered.v_examples == pytest.approx(plain.v_examples)


def test_one_cluster_has_no_interval() -> None:
    with pytest.raises(RbftError, match="one cluster"):
        stats.mean([Examples(answers(0, 2, 10), np.zeros(10, np.int64))])


def test_resamples_of_a_mean_give_its_closed_form() -> None:
    y = answers(4, 3, 300)
    drawn = bootstrap.exact_draws(y, 4000, "test")
    by_draws = stats.mean([Resamples(y.mean(axis=1), drawn.T, 299)])
    closed = stats.mean([Examples(y)])
    assert by_draws.v_examples == pytest.approx(closed.v_examples, rel=0.1)
    assert by_draws.se == pytest.approx(closed.se, rel=0.1)


def test_bootstrap_draws_have_the_variance_of_the_closed_form() -> None:
    y = answers(5, 4, 200)
    for kind in (bootstrap.exact_draws, bootstrap.gaussian_draws):
        drawn = kind(y, 20_000, "test", "set")
        seeds_drawn = bootstrap.generator("test", "w").multinomial(4, [0.25] * 4, 20_000) / 4
        assert (seeds_drawn * drawn).sum(axis=1).std() == pytest.approx(bootstrap.se_mean(y.astype(float)), rel=0.03)


def test_draws_do_not_depend_on_the_order_of_rows() -> None:
    scores = {name: answers(k, 3, 400) for k, name in enumerate("abc")}
    one = ranks.example_draws("s", ranks.TestSet("t", scores), 50)
    two = ranks.example_draws("s", ranks.TestSet("t", dict(reversed(scores.items()))), 50)
    assert all(np.array_equal(one[name], two[name]) for name in scores)


def test_rare_answers_are_drawn_exactly() -> None:
    assert ranks.needs_exact(ranks.TestSet("t", {"a": answers(0, 2, 1000, 0.99)}))
    assert not ranks.needs_exact(ranks.TestSet("t", {"a": answers(0, 2, 1000, 0.5)}))


def test_ranks_of_clear_winners_are_points_and_ties_share() -> None:
    noise = RNG(0).normal(0, 1e-4, 1000)
    found = ranks.rank_intervals({"low": noise, "high": 1 + noise, "same": 1 + noise})
    assert (found["low"].low, found["low"].high, found["low"].p_best) == (3, 3, 0.0)
    assert found["high"] == found["same"]
    assert found["high"].p_best == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_letters_say_exactly_what_the_tests_say(seed: int) -> None:
    p = RNG(seed).random((7, 7)) ** 3
    p = np.minimum(p, p.T)
    found = compact_letters(p)
    for i, j in combinations(range(7), 2):
        assert bool(set(found[i]) & set(found[j])) == (p[i, j] >= 0.05)
    assert "a" in found[0]


def test_p_values_adjust_as_in_statsmodels() -> None:
    p = RNG(1).random(20) ** 2
    for ours, name in ((holm, "holm"), (benjamini_hochberg, "fdr_bh")):
        oracle: Any = multipletests(p, method=name)[1]
        assert np.allclose(ours(p.tolist()), oracle)


@pytest.mark.parametrize(("b", "c"), [(3, 11), (0, 5), (40, 41)])
def test_mcnemar_is_that_of_statsmodels(b: int, c: int) -> None:
    table = [[10, b], [c, 10]]
    found = pairs.mcnemar(b, c)
    exact: Any = sm_mcnemar(table, exact=True)
    corrected: Any = sm_mcnemar(table, exact=False, correction=True)
    assert found.exact_p == pytest.approx(exact.pvalue)
    assert found.chi2_cc_p == pytest.approx(corrected.pvalue)
    assert found.mid_p < found.exact_p


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (712, 1000)])
def test_proportions_are_those_of_statsmodels(k: int, n: int) -> None:
    assert proportions.wilson(k, n) == pytest.approx(proportion_confint(k, n, method="wilson"))
    assert proportions.clopper_pearson(k, n) == pytest.approx(proportion_confint(k, n, method="beta"))


def test_ranks_over_sets_are_those_of_scikit_posthocs() -> None:
    scores = RNG(2).normal(size=(6, 4)).round(1)  # with ties
    found = description.friedman(scores)
    assert np.allclose(found.nemenyi_p, scikit_posthocs.posthoc_nemenyi_friedman(-scores), atol=1e-6)
    assert np.allclose(found.conover_p, scikit_posthocs.posthoc_conover_friedman(-scores), atol=1e-9)


def test_macro_f1_is_that_of_sklearn_over_classes_in_the_labels() -> None:
    label, said = RNG(3).integers(0, 6, 300), RNG(4).integers(0, 8, 300)
    expected = f1_score(label, said, labels=np.unique(label), average="macro")
    assert per_class_f1(label, said).mean() == pytest.approx(expected)


def test_macro_f1_draws_agree_with_its_linearisation_where_classes_are_large() -> None:
    label = RNG(5).integers(0, 4, 2000)
    said = np.where(RNG(6).random((2, 2000)) < 0.7, label, RNG(7).integers(0, 4, (2, 2000)))
    drawn = macro_f1_draws(label, said, 1000, "test")
    linear = influence(label, said[0]).std(ddof=1) / 2000**0.5
    assert drawn[0].draws.std() == pytest.approx(linear, rel=0.1)
    assert stack(drawn).runs.tolist() == [per_class_f1(label, s).mean() for s in said]


def test_seeds_needed_with_seed_noise_alone_are_those_of_statsmodels() -> None:
    n = TTestIndPower().solve_power(effect_size=0.5 / 0.4, power=0.8, alpha=0.05)
    assert power.exact_seeds(power.Design(0.4, 0.0), 0.5) == pytest.approx(n, rel=1e-4)


@pytest.mark.parametrize(
    ("v", "sd", "expected"),
    [(0.05, 0.1, (0.67, 0.65, 0.64)), (0.05, 1.0, (3.0, 2.1, 1.5)), (0.005, 0.3, (0.91, 0.63, 0.44))],
)
def test_detectable_differences_are_those_of_the_reference_table(
    v: float, sd: float, expected: tuple[float, ...]
) -> None:
    found = [power.detectable(power.Design(sd, v), s) for s in (3, 5, 10)]
    assert found == pytest.approx(expected, abs=0.05)


def test_examples_alone_can_make_a_difference_invisible() -> None:
    small = power.Design(0.1, 0.05)  # one set of 10,000, psi .05, in points
    assert power.seeds_needed(small, 0.5) is None
    assert power.example_floor(small) == pytest.approx(0.63, abs=0.005)
    assert [power.seeds_needed(power.Design(sd, 0.005), 0.5) for sd in (0.2, 0.3, 0.5, 1.0)] == [4, 8, 20, 76]


def test_designs_that_cannot_reach_significance() -> None:
    assert seeds.minimum_p_unpaired(3) == pytest.approx(0.1)
    assert [seeds.least_seeds(m) for m in (9, 45)] == [6, 7]
    assert [seeds.least_seeds(m, paired=True) for m in (9, 45)] == [9, 11]


def test_an_sd_from_three_seeds_is_hardly_known() -> None:
    assert seeds.sd_interval(1.0, 3) == pytest.approx((0.52, 6.28), abs=0.01)


def test_shipped_lines_are_those_of_the_reference() -> None:
    found = lines.load()
    assert {name: line.line.n for name, line in found.items()} == {
        "imagenet-v2": 85, "imagenet-sketch": 85, "imagenet-r": 80, "imagenet-a": 51, "imagenet-a-low": 33,
        "objectnet": 85,
    }  # fmt: skip
    r = found["imagenet-r"].line
    assert (r.slope, r.intercept, 100 * r.er_sd) == pytest.approx((0.6368, -2.1077, 2.27), abs=0.005)
    assert len({line.digest for line in found.values()}) == 6


def curve_of(*accuracies: tuple[float, float]) -> list[Point]:
    """Points of one run on 10 ID and 10 OOD examples."""

    def exact(p: float) -> Examples:
        return Examples((np.arange(10) < round(10 * p))[None])

    return [Point(exact(x), (exact(y),)) for x, y in accuracies]


def test_a_point_on_the_curve_gains_nothing_and_one_above_its_height() -> None:
    curve = rising(curve_of((0.2, 0.6), (0.6, 0.4), (0.5, 0.1)))
    assert curve.id_range == pytest.approx((0.2, 0.6))  # beyond the ID peak the curve is not used
    on, above = curve_of((0.4, 0.5), (0.4, 0.7))
    assert matched_id_gain(on, curve).value == pytest.approx(0.0)
    assert matched_id_gain(above, curve).value == pytest.approx(0.2)
    assert curve_area(curve) == pytest.approx(0.5)


def test_nothing_is_read_off_outside_a_curve() -> None:
    with pytest.raises(RbftError, match="outside"):
        at_identity(rising(curve_of((0.2, 0.6), (0.6, 0.4))), 0.7)


def test_a_frontier_keeps_what_nothing_beats() -> None:
    found = frontier(curve_of((0.2, 0.6), (0.3, 0.5), (0.3, 0.4), (0.5, 0.5), (0.6, 0.1)))
    kept = [(round(p.id_accuracy, 1), round(p.ood_accuracy, 1)) for p in found.points]
    assert kept == [(0.2, 0.6), (0.5, 0.5), (0.6, 0.1)]


def test_streams_are_named() -> None:
    assert generator("a", 1).random() == generator("a", 1).random() != generator("a", 2).random()


def test_macro_recall_is_sklearns_and_its_draws_are_centred_on_it() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 5, 400)
    predictions = np.where(rng.random((2, 400)) < 0.6, label, rng.integers(0, 7, (2, 400)))
    found = macro_recall_draws(label, predictions, 500, "test")
    for run, prediction in zip(found, predictions, strict=True):
        recalls = [(prediction == label)[label == k].mean() for k in range(5)]
        assert run.runs[0] == pytest.approx(np.mean(recalls))
        assert run.draws.mean() == pytest.approx(run.runs[0], abs=0.005)
        binomial = np.sqrt(np.sum([p * (1 - p) / (label == k).sum() for k, p in enumerate(recalls)])) / 5
        assert run.draws.std() == pytest.approx(binomial, rel=0.1)
