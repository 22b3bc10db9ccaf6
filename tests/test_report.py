"""Reports and boards against the stored predictions: clusters, paired seeds, frontiers, reference curves, pictures."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import made
import numpy as np
import pytest
from click.testing import CliRunner

from robustbench_ft import stats
from robustbench_ft.board import figures, ranking
from robustbench_ft.claims import claim_store
from robustbench_ft.claims.schema import Trust
from robustbench_ft.cli.main import main
from robustbench_ft.compare import compare, figure, load, report, tradeoffs
from robustbench_ft.record import store
from robustbench_ft.stats.intervals import Examples

TRUST = Trust("rerun")


def correct(root: Path, method: str, candidate: str, split: str) -> Any:
    """[S, n] of the records under `root`, seeds in order."""
    folders = sorted(root.glob(f"*/*/{method}-*/seed-*"))
    return np.stack([store.Record(folder).predictions(candidate, split).correct for folder in folders])


def test_reports_take_clusters_as_units(tmp_path: Path) -> None:
    world = made.World(skills={"ft": made.SKILLS["ft"]}, n=120, cluster=20, shifts=("sketch",))
    made.write(tmp_path, world)
    done = CliRunner().invoke(main, ["report", str(tmp_path), "--format", "json"], catch_exceptions=False)
    (row,) = json.loads(done.stdout)[0]["rows"]
    codes, scores = np.arange(120) // 20, correct(tmp_path, "ft", "final", "sketch")
    expected, plain = stats.mean([Examples(scores, codes)]), stats.mean([Examples(scores)])
    assert row["cells"]["sketch"]["low"] == pytest.approx(expected.low, rel=1e-9)
    assert row["cells"]["sketch"]["high"] == pytest.approx(expected.high, rel=1e-9)
    assert abs(expected.half_width / plain.half_width - 1) > 0.05
    identity = stats.mean([Examples(correct(tmp_path, "ft", "final", "test"))])  # no clusters declared there
    assert row["cells"]["ID"]["high"] == pytest.approx(identity.high, rel=1e-9)


@pytest.fixture(scope="module")
def derived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs in which wise-ft is made from ft, and a board of them."""
    root = tmp_path_factory.mktemp("derived")
    skills = {name: made.SKILLS[name] for name in ("zero-shot", "ft", "wise-ft", "lipsum")}
    made.write(root / "runs", made.World(skills=skills, n=150, derived=True, seed_sd=0.4))
    claim_store.add([root / "runs"], root / "boards", TRUST)
    return root


def test_boards_pair_the_seeds_of_rows_made_from_one_another(derived: Path) -> None:
    (board,) = ranking.boards(claim_store.find(derived / "boards"))
    rows = {row.name: row for row in board.rows}
    base = [correct(derived / "runs", "ft", "final", split) for split in made.SHIFTS]
    for name, method, candidate, paired in (
        ("wise-ft (alpha=0.5)", "wise-ft", "alpha-0.5", True), ("lipsum", "lipsum", "final", False),
    ):  # fmt: skip
        own = [correct(derived / "runs", method, candidate, split) for split in made.SHIFTS]
        expected, other = (stats.difference(_examples(own), _examples(base), p) for p in (paired, not paired))
        found = rows[name].against
        assert found is not None
        assert rows[name].ranked
        assert found.half_width == pytest.approx(expected.half_width, rel=1e-9), name
        assert abs(other.half_width / expected.half_width - 1) > 0.02


def _examples(sets: list[Any]) -> list[Examples]:
    return [Examples(scores) for scores in sets]


def test_frontiers_meet_at_shared_id_accuracies(tmp_path: Path) -> None:
    """Two methods, two learning rates each: the higher one gains ID accuracy and loses OOD accuracy."""
    for lr, shift in ((1e-4, (0.8, 0.6)), (1e-3, (1.8, -0.4))):
        skills = {"ft": shift, "lipsum": (shift[0], shift[1] + 0.5)}
        made.write(tmp_path, made.World(skills=skills, n=300, lr=lr, seed_sd=0.01))
    (run_set,) = load(store.find_records([tmp_path]))
    more = tradeoffs.beyond(compare(run_set, "ft (lr=0.0001)"))
    found = {f.method: f for f in more.frontiers}
    assert found.keys() == {"ft", "lipsum"}
    low, middle, high = more.places
    assert low < middle < high
    for f in found.values():
        assert f.points == 2
        assert f.id_range[0] <= low
        assert high <= f.id_range[1]
        assert f.at[0].value > f.at[1].value > f.at[2].value  # OOD falls as ID rises
    assert found["ft"].gap == ()
    for place, gap in enumerate(found["lipsum"].gap):
        assert gap.value == pytest.approx(found["lipsum"].at[place].value - found["ft"].at[place].value)
        assert gap.value > 0.03
        assert gap.low > 0
    shown = [text.title for text in tradeoffs.sections(more)]
    assert "Frontiers over settings and alphas" in shown


@pytest.fixture(scope="module")
def two_curves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Families of two learning rates, each made from its own ft: three seeds of the one, five of the other."""
    root = tmp_path_factory.mktemp("curves")
    ends = {"zero-shot": (0.4, 0.2), "lipsum": (1.0, 0.5)}
    made.write(root, made.World(skills=ends, n=150))
    made.write(root, made.World(skills={"lipsum": (1.7, 0.0)}, n=150, lr=1e-3))
    for lr, skill, seeds in ((1e-4, (1.5, -0.2), (0, 1, 2)), (1e-3, (1.9, -0.5), (0, 1, 2, 3, 4))):
        made.write(root, made.World(skills={"ft": skill, "wise-ft": skill}, n=150, lr=lr, seeds=seeds, derived=True))
    return root


@pytest.mark.parametrize(
    ("baseline", "curve"),
    [("ft (lr=0.0001)", "lr=0.0001"), ("ft (lr=0.001)", "lr=0.001"), ("lipsum (lr=0.0003)", "lr=0.001"),
     ("zero-shot", "lr=0.001")],
)  # fmt: skip
def test_the_reference_curve_is_the_baselines_else_that_of_most_seeds(
    two_curves: Path, baseline: str, curve: str
) -> None:
    (run_set,) = load(store.find_records([two_curves]))
    more = tradeoffs.beyond(compare(run_set, baseline))
    seeds = {f.method: {e.seeds for e in f.at} for f in more.frontiers}
    assert seeds == {
        "wise-ft": {5},
        "lipsum": {3},
    }  # three seeds are not joined to five
    assert curve in more.reference.split("(")[1].replace(")", "").split(", "), more.reference


def test_of_families_that_share_the_baselines_runs_wise_ft_is_the_reference(tmp_path: Path) -> None:
    skills = {name: made.SKILLS[name] for name in ("zero-shot", "ft", "wise-ft")}
    made.write(tmp_path, made.World(skills=skills, n=150, derived=True))
    (own,) = tmp_path.glob("*/*/wise-ft-*")
    for name, letter in (("lines", "0"), ("paint", "f")):  # other families with the same end, whatever their digests
        twin = own.with_name(f"{name}-{own.name[-8:]}")
        shutil.copytree(own, twin)
        for cell in twin.glob("*/cell.json"):
            text = cell.read_text().replace('"method": "wise-ft"', f'"method": "{name}"')
            digest = json.loads(text)["digest"]
            cell.write_text(text.replace(digest, letter * len(digest)))
    (run_set,) = load(store.find_records([tmp_path]))
    assert len({record.config.method for record in run_set.records}) == 5
    assert tradeoffs.beyond(compare(run_set, "ft")).reference.startswith("wise-ft")


def test_headlines_leave_companions_and_other_alphas_out(derived: Path) -> None:
    records = store.find_records([derived / "runs"])
    (whole,), (short,) = report.tables(records), report.tables(records, headlines=True)
    names = [line.row.name for line in short.lines]
    assert names == [line.row.name for line in whole.lines if line.row.method != "wise-ft" or "0.5" in line.row.setting]
    assert len(names) == 4 < len(whole.lines)
    assert short.curves == whole.curves
    done = CliRunner().invoke(main, ["compare", str(derived / "runs"), "--headlines", "--format", "markdown"])
    assert "alpha=0.5" in done.output
    assert "alpha by ID val" not in done.output.split("matched")[0]


# -- pictures ----------------------------------------------------------------------------------------------------------


def segments(axes: Any) -> set[tuple[float, ...]]:
    """Ends of every straight line of two points that is drawn, rounded: (x0, y0, x1, y1)."""
    found = [line for part in axes.collections if hasattr(part, "get_segments") for line in part.get_segments()]
    found += [line.get_xydata() for line in axes.lines if len(line.get_xydata()) == 2]
    return {tuple(np.round(np.ravel(line), 6).tolist()) for line in found}


def test_the_scatter_of_a_report_draws_intervals(derived: Path, tmp_path: Path) -> None:
    (table,) = report.tables(store.find_records([derived / "runs"]))
    figure.scatter(table, tmp_path / "scatter.png")
    assert (tmp_path / "scatter.png").read_bytes()[:4] == b"\x89PNG"
    (axes,) = figure.draw(table).axes
    bars = segments(axes)
    for line in table.lines:
        if line.row.selection == "fixed":
            x, y = (line.cells[name].estimate for name in ("ID", "mean OOD"))
            place = round(100 * x.value, 6)
            assert (place, round(100 * y.low, 6), place, round(100 * y.high, 6)) in bars, line.row.name
            across = (round(100 * x.low, 6), round(100 * y.value, 6), round(100 * x.high, 6), round(100 * y.value, 6))
            assert across in bars


def test_many_methods_are_drawn_in_order_and_their_frontier_is_named(
    derived: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (table,) = report.tables(store.find_records([derived / "runs"]))
    monkeypatch.setattr(figure, "MANY", 3)
    scatter, ood, identity = figure.draw(table).axes
    numbers = {
        report.shown_name(line): (line.cells["ID"].estimate, line.cells["mean OOD"].estimate)
        for line in table.lines
        if line.row.selection == "fixed"
    }
    names = [label.get_text() for label in ood.get_yticklabels()]
    assert names == sorted(numbers, key=lambda name: numbers[name][1].value)
    assert len(names) == 4
    for k, name in enumerate(names):
        for axes, e in ((identity, numbers[name][0]), (ood, numbers[name][1])):
            assert tuple(np.round([100 * e.low, k, 100 * e.high, k], 6).tolist()) in segments(axes), name
    points = {name: (one.value, other.value) for name, (one, other) in numbers.items()}
    beaten = {
        a for a in points for b in points if points[a] != points[b] and np.all(np.less_equal(points[a], points[b]))
    }
    assert {text.get_text() for text in scatter.texts} == points.keys() - beaten | {"zero-shot", "ft"}
    assert beaten  # else a frontier of everything would pass


def parts_of(drawing: str, kind: str) -> list[tuple[str, list[list[tuple[float, float]]]]]:
    """(row, points of each of its lines) of every part of this kind, in the order of drawing."""
    groups = [group for group in ElementTree.fromstring(drawing).iter("g") if kind in group.attrib["class"].split()]
    return [(group.attrib["data-row"], [_points(path.attrib["d"]) for path in group.iter("path")]) for group in groups]


def _points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"([-\d.]+) ([-\d.]+)", path)]


def assert_straight(pairs: Sequence[tuple[float, float]]) -> None:
    """Places [points] are one straight map of numbers, up to the two decimals that are drawn."""
    numbers, places = np.array(pairs).T
    fitted = np.polyval(np.polyfit(numbers, places, 1), numbers)
    assert np.abs(fitted - places).max() < 0.02
    assert np.ptp(places) > 20


def test_the_figures_of_a_board_draw_intervals(derived: Path) -> None:
    (board,) = ranking.boards(claim_store.find(derived / "boards"))
    rows = {row.key: row for row in board.rows}
    drawn = parts_of(figures.scatter(board, "s"), "intervals")
    assert [key for key, _ in drawn] == list(rows)
    across, along = list[tuple[float, float]](), list[tuple[float, float]]()
    for key, (first, second) in drawn:
        x, y = rows[key].estimate("ID"), rows[key].estimate("mean OOD")
        across += [(x.low, first[0][0]), (x.high, first[1][0]), (x.value, second[0][0])]
        along += [(y.low, second[0][1]), (y.high, second[1][1]), (y.value, first[0][1])]
    assert_straight(across)
    assert_straight(along)
    drawing = figures.shifts(board, "t")
    bars, levels = parts_of(drawing, "bar"), parts_of(drawing, "level")
    others = [key for key, row in rows.items() if not row.reference]
    [reference] = [key for key, row in rows.items() if row.reference]
    columns = ("ID", *board.shifts)
    assert [key for key, _ in bars] == others * len(columns)
    assert [key for key, _ in levels] == [reference] * len(columns)
    for k, column in enumerate(columns):  # the reference is a line across all bars of its panel, at its accuracy
        mine = bars[k * len(others) : (k + 1) * len(others)]
        ends = [(rows[key].estimate(column), line) for key, (line,) in mine]
        level = levels[k][1][0]
        pairs = [pair for e, line in ends for pair in ((e.low, line[0][0]), (e.high, line[1][0]))]
        assert_straight([*pairs, *((rows[reference].estimate(column).value, x) for x, _ in level)])
