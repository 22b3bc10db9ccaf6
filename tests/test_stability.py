"""How far the order of a table can be trusted: tied ranks, resolution, and who stays first over the shifts."""

from itertools import product

import numpy as np
import pytest

from robustbench_ft.stats.letters import compact_letters
from robustbench_ft.stats.stability import Resolution, first_over_sets, resolution, tied_ranks


def adjusted(m: int, apart: set[tuple[int, int]]) -> np.ndarray:
    """[m, m] of p: .01 for these pairs, .5 for all others."""
    p = np.full((m, m), 0.5)
    for i, j in apart:
        p[i, j] = p[j, i] = 0.01
    return p


def test_a_tied_rank_counts_the_rows_that_are_told_apart_above() -> None:
    p = adjusted(4, {(0, 3), (1, 2), (1, 3)})
    assert tied_ranks(p) == [1, 1, 2, 3]
    assert resolution(p) == Resolution(pairs=6, told_apart=3, top=2)
    assert resolution(p).share == 0.5


def test_a_row_below_does_not_count() -> None:
    assert tied_ranks(adjusted(3, {(0, 2), (1, 2)})) == [1, 1, 3]
    assert tied_ranks(adjusted(3, set())) == [1, 1, 1]


def test_one_row_and_none_have_no_pairs() -> None:
    assert resolution(adjusted(1, set())) == Resolution(0, 0, 1)
    assert (resolution(adjusted(0, set())), resolution(adjusted(0, set())).share) == (Resolution(0, 0, 0), 0.0)


@pytest.mark.parametrize("seed", range(20))
def test_rows_of_tied_rank_1_share_letters_with_each_row_above(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = np.triu(rng.random((7, 7)) * 0.2, 1)
    p += p.T
    letters, tied = compact_letters(p), tied_ranks(p)
    for k in range(7):
        above = [bool(set(letters[k]) & set(letters[i])) for i in range(k)]
        assert (tied[k] == 1) == all(above)
        assert tied[k] == 1 + above.count(False)


MEANS = {"a": [0.9, 0.2, 0.5], "b": [0.5, 0.6, 0.45], "c": [0.1, 0.1, 0.1]}


def exact(means: dict[str, list[float]]) -> dict[str, float]:
    """Over every list of T sets that can be drawn."""
    sets, found = len(next(iter(means.values()))), dict.fromkeys(means, 0.0)
    for drawn in product(range(sets), repeat=sets):
        sums = {name: sum(values[k] for k in drawn) for name, values in means.items()}
        best = [name for name, value in sums.items() if value > max(sums.values()) - 1e-9]
        for name in best:
            found[name] += 1 / len(best) / sets**sets
    return found


def test_shares_are_those_of_all_lists_that_can_be_drawn() -> None:
    found, wanted = first_over_sets(MEANS, "test"), exact(MEANS)
    assert 0.3 < wanted["a"] < 0.7  # else the same for everybody
    assert found == pytest.approx(wanted, abs=0.02)
    assert sum(found.values()) == pytest.approx(1)
    assert found["c"] == 0


def test_streams_are_named_and_the_order_of_rows_changes_nothing() -> None:
    found = first_over_sets(MEANS, "suite")
    assert found == first_over_sets(dict(reversed(MEANS.items())), "suite")
    assert found != first_over_sets(MEANS, "another suite")
    without = {name: MEANS[name] for name in ("a", "b")}
    assert first_over_sets(without, "suite") == {name: found[name] for name in without}  # c is never first


def test_ties_share_and_one_set_leaves_nothing_to_draw() -> None:
    assert first_over_sets({"a": [0.1, 0.3], "b": [0.1, 0.3]}, "t") == {"a": 0.5, "b": 0.5}
    assert first_over_sets({"a": [0.1], "b": [0.2]}, "t") == {}
    assert first_over_sets({}, "t") == {}
