"""Comparisons from records: who may claim what, and what is refused."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import run
from typing import Any

import numpy as np
import pytest
import synthetic
from click.testing import CliRunner
from synthetic import World

import robustbench_ft.compare as compare
from robustbench_ft.cli.main import main
from robustbench_ft.compare import designs, tables, text, tradeoffs
from robustbench_ft.errors import RbftError
from robustbench_ft.record import store
from robustbench_ft.stats import letters

SKILLS = {"zero-shot": 0.2, "ft": 0.8, "lipsum": 1.6, "flyp": 0.8}
ALPHAS = (0.0, 0.5, 0.75, 1.0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five methods, three seeds, two shifts; lipsum is clearly better than ft."""
    root = tmp_path_factory.mktemp("runs")
    synthetic.write(root, World(), {**SKILLS, "wise-ft": 0.0}, 3, ALPHAS)
    return root


@pytest.fixture
def own(runs: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(runs, tmp_path / "runs"))


def compared(root: Path, **options: Any) -> compare.Comparison:
    (run_set,) = compare.load(store.find_records([root]), options.pop("metric", "official"))
    return compare.compare(run_set, options.pop("baseline", "ft"), **options)


def claim(found: compare.Comparison, row: str) -> compare.Claim:
    return next(c for c in found.claims if c.row == row)


def line(found: compare.Comparison, row: str) -> compare.Line:
    return next(x for x in found.lines if x.row.name == row)


def refusal(*arguments: object) -> str:
    """The one line of a command that must fail with exit code 2 and print nothing else."""
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 2, result.output
    lines = [line for line in result.output.splitlines() if not line.startswith("note: ")]  # records are of old
    assert len(lines) == 1
    assert lines[0].startswith("rbft: ")
    return lines[0]


def prediction_file(root: Path, method: str = "lipsum", split: str = "sketch") -> Path:
    return sorted(root.glob(f"*/*/{method}-*/seed-1/predictions/*/{split}.parquet"))[0]


def test_a_clear_winner_wins_and_equals_do_not(runs: Path) -> None:
    found = compared(runs)
    assert found.pairs[0] == "lipsum"
    assert claim(found, "lipsum").verdict == "higher"
    assert claim(found, "flyp").verdict == "unresolved"
    assert line(found, "lipsum").letters == "a"
    rank = line(found, "lipsum").rank
    assert rank is not None
    assert (rank.low, rank.high) == (1, 1)
    assert rank.p_best > 0.99


def test_adding_a_row_moves_adjusted_p_and_no_raw_p(runs: Path) -> None:
    whole = compared(runs)
    fewer = [r for r in store.find_records([runs]) if r.cell["method"] in ("ft", "flyp")]
    (run_set,) = compare.load(fewer)
    pair = claim(compare.compare(run_set, "ft"), "flyp")
    assert pair.estimate == claim(whole, "flyp").estimate
    assert pair.p_adjusted == pair.estimate.p
    assert whole.family_size == 5


def test_oracle_rows_are_shown_and_never_ranked(runs: Path) -> None:
    oracle = next(x for x in compared(runs).lines if x.row.oracle)
    assert (oracle.status, oracle.letters, oracle.rank) == ("oracle", "", None)


def test_families_made_from_a_run_are_paired_with_it(runs: Path) -> None:
    found = compared(runs)
    assert claim(found, "wise-ft (alpha=0.5)").paired_seeds
    assert not claim(found, "lipsum").paired_seeds


def test_ft_gains_nothing_over_the_curve_that_ends_in_it(runs: Path) -> None:
    more = tradeoffs.beyond(compared(runs))
    gain = next(g for g in more.gains if g.row == "ft")
    assert gain.paired_seeds
    assert gain.estimate is not None
    assert gain.estimate.value == pytest.approx(0)


def test_one_seed_makes_no_claim(tmp_path: Path) -> None:
    synthetic.write(tmp_path, World(), SKILLS, 1)
    found = compared(tmp_path)
    assert not any(c.tested for c in found.claims)
    assert claim(found, "lipsum").verdict == "no claim"
    assert line(found, "lipsum").rank is None
    assert "no comparison is tested" in tables.assumptions(found)
    assert tables.as_json(found)["comparisons"][0]["p"] is None


def test_two_seeds_are_tested_but_get_no_letters(tmp_path: Path) -> None:
    synthetic.write(tmp_path, World(), SKILLS, 2)
    found = compared(tmp_path)
    assert claim(found, "lipsum").tested
    assert line(found, "lipsum").letters == ""


def test_a_missing_cell_blocks_the_mean_and_the_rank(own: Path) -> None:
    prediction_file(own).unlink()
    found = compared(own)
    lipsum = line(found, "lipsum")
    assert "mean OOD" not in lipsum.cells
    assert "painting" in lipsum.cells
    assert (lipsum.rank, lipsum.missing) == (None, ("sketch",))
    assert all(c.row != "lipsum" for c in found.claims)
    assert "missing sketch" in text.markdown(tables.main_table(found))


def test_designs_that_cannot_reach_significance_say_so(runs: Path) -> None:
    found = compared(runs)
    assert found.permutation["power"] == "impossible"
    assert "permutation test cannot reach Holm's first step" in tables.assumptions(found)


def test_per_split_family_is_corrected_by_holm(runs: Path) -> None:
    found = compared(runs, family="per-split")
    tested = [c for c in found.exploratory if c.tested]
    smallest = min(tested, key=lambda c: c.estimate.p)
    assert smallest.p_adjusted == pytest.approx(min(1, smallest.estimate.p * len(tested)))
    assert found.family_size == len(tested) == 10


def test_exact_and_gaussian_draws_agree(runs: Path) -> None:
    one, two = compared(runs), compared(runs, exact=True)
    for name in one.pairs:
        a, b = line(one, name).rank, line(two, name).rank
        assert a is not None
        assert b is not None
        assert a.p_best == pytest.approx(b.p_best, abs=0.05)


@pytest.mark.parametrize("metric", ["nll", "brier", "macro_f1"])
def test_other_metrics_are_compared_too(runs: Path, metric: str) -> None:
    found = compared(runs, metric=metric)
    assert claim(found, "lipsum").verdict == ("higher" if metric == "macro_f1" else "lower")
    assert found.pairs[0] == "lipsum"


def test_clusters_widen_intervals_where_the_suite_declares_them(tmp_path: Path) -> None:
    synthetic.write(tmp_path, World(clusters=8), {"ft": 0.8, "flyp": 0.8}, 3)
    found = compared(tmp_path)
    assert "places" in tables.assumptions(found)
    (run_set,) = compare.load(store.find_records([tmp_path]))
    assert run_set.sets(run_set.rows[0])[0].df == 7


def test_learning_rates_are_selected_by_two_named_rules(tmp_path: Path) -> None:
    for lr, skill in ((1e-4, 0.3), (1e-3, 1.2)):
        synthetic.write(tmp_path, World(), {"ft": skill, "lipsum": skill}, 3, recipes={"ft": lr, "lipsum": lr})
    found = compared(tmp_path, baseline="ft (lr by best ID val)")
    assert line(found, "ft (lr=0.001)").row.also == ("lr by best ID val", "lr by one-SE rule")
    more = tradeoffs.beyond(found)
    assert more.frontiers == ()  # the higher rate is better on both axes: no method has a trade-off


def test_power_table_knows_what_it_cannot_know(runs: Path, tmp_path: Path) -> None:
    (run_set,) = compare.load(store.find_records([runs]))
    assert all(d.design is not None for d in designs.designs(run_set))
    synthetic.write(tmp_path, World(), SKILLS, 1)
    (run_set,) = compare.load(store.find_records([tmp_path]))
    assert "1 seed: unknown" in text.markdown(designs.power_table(run_set, 3))


def test_json_holds_every_number(runs: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    result = CliRunner().invoke(main, ["compare", str(runs), "--json", str(target)])
    assert result.exit_code == 0, result.output
    (content,) = json.loads(target.read_text())
    first = content["comparisons"][0]
    assert {"p", "p_adjusted", "interval", "df", "se", "verdict"} <= set(first)
    cell = content["rows"][0]["cells"]["mean OOD"]
    assert {"sd", "S", "df", "interval", "per_seed"} <= set(cell)
    assert content["splits"]["painting"]["n"] == 400
    again = tmp_path / "again.json"
    CliRunner().invoke(main, ["compare", str(runs), "--json", str(again)])
    assert again.read_bytes() == target.read_bytes()


def test_commands_print(runs: Path) -> None:
    for arguments in (("compare", runs), ("compare", runs, "--format", "markdown"), ("power", runs)):
        result = CliRunner().invoke(main, [str(a) for a in arguments])
        assert result.exit_code == 0, result.output
        assert "lipsum" in result.output


def test_diff_names_causes_first_and_counts_flips(runs: Path) -> None:
    (a,), (b,) = (list(runs.glob(f"*/*/{m}-*/seed-0")) for m in ("ft", "lipsum"))
    result = CliRunner().invoke(main, ["diff", str(a), str(b), "--format", "markdown"])
    assert result.exit_code == 0, result.output
    assert result.output.index("configuration") < result.output.index("churn")
    left, right = (store.Record(f).predictions("final", "sketch").correct for f in (a, b))
    row = next(x for x in result.output.splitlines() if re.match(r"\| sketch +\| +400", x))
    numbers = [cell.strip() for cell in row.split("|")]
    assert str(int(np.sum(left & ~right))) in numbers
    assert str(int(np.sum(right & ~left))) in numbers


def test_a_run_differs_from_itself_in_nothing(runs: Path) -> None:
    (a,) = runs.glob("*/*/ft-*/seed-0")
    result = CliRunner().invoke(main, ["diff", str(a), str(a), "--format", "markdown"])
    assert "equal" in result.output
    assert "+0.00 ± 0.00" in result.stdout
    assert "-0.00" not in result.stdout
    assert "0.00 %" in result.output


def test_versions_and_protocols_never_meet(runs: Path, tmp_path: Path) -> None:
    synthetic.write(tmp_path / "v2", World(version=2), {"ft": 0.5}, 1)
    assert "different versions" in refusal("compare", runs, tmp_path / "v2")
    synthetic.write(tmp_path / "pub", World(protocol="as-published"), {"ft": 0.5}, 1)
    assert "different protocols" in refusal("compare", runs, tmp_path / "pub")


def test_other_data_is_refused(runs: Path, tmp_path: Path) -> None:
    synthetic.write(tmp_path, World(digest="other"), {"new": 0.5}, 1)
    assert "different data" in refusal("compare", runs, tmp_path)


def test_the_same_run_twice_is_refused(runs: Path, own: Path) -> None:
    assert "same cell" in refusal("compare", runs, own)


def ids(n: int = 400) -> list[str]:
    return [f"sketch/{i:06d}" for i in range(n)]


def damage_duplicate(path: Path) -> None:
    synthetic.rewrite(path, id=[*ids()[:-1], ids()[0]])


def damage_missing(path: Path) -> None:
    synthetic.rewrite(path, id=[*ids()[:-1], "sketch/elsewhere"])


def damage_order(path: Path) -> None:
    synthetic.rewrite(path, id=ids()[::-1])


def damage_nan(path: Path) -> None:
    synthetic.rewrite(path, confidence=[float("nan")] * 400)


def damage_label(path: Path) -> None:
    synthetic.rewrite(path, label=[0] * 400)


def damage_correct(path: Path) -> None:
    synthetic.rewrite(path, correct=[True] * 400)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_duplicate, "duplicate"), (damage_missing, "missing"), (damage_order, "another order"),
        (damage_nan, "NaN"), (damage_label, "disagree on labels"), (damage_correct, "wrong 'correct'"),
        (synthetic.truncate, "cannot read predictions"),
    ],
)  # fmt: skip
def test_damaged_predictions_are_one_line(own: Path, tmp_path: Path, damage: Any, message: str) -> None:
    damage(prediction_file(own))
    target = tmp_path / "never.json"
    assert message in refusal("compare", own, "--json", target)
    assert not target.exists()


def test_bad_requests_are_one_line(runs: Path, tmp_path: Path) -> None:
    assert "no finished cell" in refusal("compare", tmp_path)
    assert "no such folder" in refusal("compare", tmp_path / "nowhere")
    assert "no row 'nothing'" in refusal("compare", runs, "--baseline", "nothing")
    assert "no finished run" in refusal("diff", tmp_path, tmp_path)
    (a,) = runs.glob("*/*/ft-*/seed-0")
    assert "unknown candidate" in refusal("diff", a, a, "--candidate", "final", "alpha-9")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "cell.json").write_text("{}")
    (tmp_path / "x" / "done").touch()
    assert "cell.json is damaged: suite: field required;" in refusal("compare", tmp_path)


def test_an_ambiguous_baseline_lists_its_rows(tmp_path: Path) -> None:
    for lr in (1e-4, 1e-3):
        synthetic.write(tmp_path, World(), {"ft": 0.5}, 2, recipes={"ft": lr})
    with pytest.raises(RbftError, match=r"ft \(lr=0.0001\)"):
        compared(tmp_path)


def test_help_imports_neither_numpy_nor_torch() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from robustbench_ft.cli import main\n"
        "for a in (['--help'], ['list'], ['compare', '--help']): assert CliRunner().invoke(main, a).exit_code == 0\n"
        "sys.exit(any(m in sys.modules for m in ('numpy', 'torch', 'scipy')))"
    )
    assert run([sys.executable, "-c", code], check=False).returncode == 0


def test_comparing_needs_no_torch(runs: Path) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from robustbench_ft.cli import main\n"
        f"assert CliRunner().invoke(main, ['compare', {str(runs)!r}]).exit_code == 0\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert run([sys.executable, "-c", code], check=False).returncode == 0


def test_letters_are_a_column_while_they_are_letters(tmp_path: Path) -> None:
    few = letters.readable(["a", "ab", "z"])
    many = letters.readable(["a", "z(27)"])
    assert (few, many) == (True, False)
    synthetic.write(tmp_path, World(), SKILLS, 3)
    (run_set,) = compare.load(store.find_records([tmp_path]))
    found = compare.compare(run_set, "ft")
    assert "letters" in tables.main_table(found).header
    line = replace(found.lines[0], letters="z(27)")
    crowded = tables.main_table(replace(found, lines=(line, *found.lines[1:])))
    assert "letters" not in crowded.header
    assert {len(row) for row in crowded.body} == {len(crowded.header)}
    assert "letters (more than 26, in --json): Holm" in crowded.caption
