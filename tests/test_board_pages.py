"""Boards: equal claims give equal bytes, stale pages are noticed, letters decide what is bold, nothing is injected."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import made
import numpy as np
import pytest
from click.testing import CliRunner, Result

from robustbench_ft import stats
from robustbench_ft.board import build, paper, ranking, text
from robustbench_ft.board.table import Board
from robustbench_ft.claims import claim_store
from robustbench_ft.claims.schema import Trust
from robustbench_ft.cli.main import main
from robustbench_ft.compare import compare, load
from robustbench_ft.record import store
from robustbench_ft.stats import ranks
from robustbench_ft.stats.multiplicity import holm

TRUST = Trust("rerun")
METHODS = {name: made.SKILLS[name] for name in ("zero-shot", "ft", "wise-ft", "lipsum")}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four methods, one of them with one seed only at another learning rate, and rows from papers."""
    root = tmp_path_factory.mktemp("built")
    runs = made.write(root / "runs", made.World(skills=METHODS, n=150, groups={"drawn": ("clipart", "sketch")}))
    single = made.World(skills={"ft": (1.0, 0.3)}, n=150, lr=1e-5, seeds=(0,), groups={"drawn": ("clipart", "sketch")})
    made.write(root / "runs", single)
    boards = root / "boards"
    claim_store.add([runs], boards, TRUST)
    (boards / paper.FILE).write_text(json.dumps([entry("FT", "ImageNet-val", 81.3), *IMAGENET]))
    build.write(boards, build.files(boards))
    return boards


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "boards"))


def entry(method: str, dataset: str, value: float, std: float | None = None) -> dict[str, object]:
    return {
        "method": method, "paper": "A paper", "year": 2024, "model": "ViT-B/16", "pretrained": "openai",
        "suite": "ImageNet", "dataset": dataset, "metric": "top1_acc_pct", "value": value, "std": std, "seeds": None,
        "source": "A paper, Table 1", "source_kind": "primary",
    }  # fmt: skip


IMAGENET = [
    entry("FT", "ImageNet-V2", 70.6, 0.1), entry("FT", "ImageNet-R", 65.6), entry("FT", "ImageNet-A", 36.6),
    entry("FT", "ImageNet-Sketch", 45.1), entry("TPGM", "ImageNet-val", 80.0), entry("TPGM", "ImageNet-V2", 71.0),
]  # fmt: skip


def board_of(root: Path) -> Board:
    return ranking.boards(claim_store.find(root))[0]


def rbft(*words: object) -> Result:
    return CliRunner().invoke(main, ["leaderboard", *map(str, words)])


def test_building_twice_gives_the_same_bytes(root: Path) -> None:
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert "0 of" in rbft("build", "--root", root).output
    again = build.files(root)
    assert {root / name: content.encode() for name, content in again.items()}.items() <= before.items()


def test_rows_given_in_another_order_make_the_same_pages(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for stored in reversed(claim_store.find(root)):
        for relative in (stored.place.file, stored.place.predictions):
            (other / relative).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (root / relative).is_dir() else shutil.copy
            copy(root / relative, other / relative)
    shutil.copy(root / paper.FILE, other)
    assert build.files(other) == build.files(root)


def test_check_finds_stale_missing_and_left_over_pages(root: Path) -> None:
    assert rbft("build", "--root", root, "--check").exit_code == 0
    page = root / "shapes-v2.md"
    page.write_text(page.read_text().replace("5", "6"))
    (root / "shapes-v2.csv").unlink()
    (root / "site" / "gone-v1.html").write_text("old")
    done = rbft("build", "--root", root, "--check")
    assert done.exit_code == 1
    for line in ("shapes-v2.md is stale", "shapes-v2.csv is missing", "site/gone-v1.html belongs to no claim"):
        assert line in done.output
    assert not (root / "shapes-v2.csv").exists()


def test_check_finds_one_changed_character_in_any_file_also_inside_a_drawing(root: Path) -> None:
    fresh = build.files(root)
    page = fresh["site/shapes-v2.html"]
    inside = page.index("<path ", page.index("<svg"))
    assert inside < page.index("</svg>")
    changes = {name: len(content) // 2 for name, content in fresh.items()} | {"site/shapes-v2.html": inside}
    for name, place in changes.items():
        old = fresh[name]
        (root / name).write_bytes((old[:place] + ("#" if old[place] != "#" else "+") + old[place + 1 :]).encode())
        assert build.stale(root, fresh) == [f"{name} is stale"]
        (root / name).write_bytes(old.encode())
    assert build.stale(root, fresh) == []


def test_a_claim_that_fails_its_audit_stops_the_build(root: Path) -> None:
    stored = next(one for one in claim_store.find(root) if one.place.name.startswith("lipsum"))
    content = json.loads(stored.path.read_text())
    content["results"]["rows"][0]["mean"]["accuracy"]["ID"] += 0.1
    stored.path.write_text(json.dumps(content))
    before = (root / "shapes-v2.md").read_bytes()
    done = rbft("build", "--root", root)
    assert done.exit_code == 2
    assert len(done.output.strip().splitlines()) == 1
    assert str(stored.place.file) in done.output
    assert (root / "shapes-v2.md").read_bytes() == before


def test_seeds_listed_and_not_stored_stop_the_build(root: Path) -> None:
    stored = next(one for one in claim_store.find(root) if one.place.name.startswith("lipsum"))
    shutil.rmtree(root / stored.place.run(1))
    done = rbft("build", "--root", root)
    assert done.exit_code == 2
    assert "seed 1 is listed and not stored" in done.output


def test_protocols_never_share_a_board(tmp_path: Path) -> None:
    for protocol in ("clean", "as-published"):
        made.write(tmp_path / protocol, made.World(skills={"ft": (1.0, 0.0)}, n=30, protocol=protocol))
    claim_store.add([tmp_path / "clean", tmp_path / "as-published"], tmp_path / "boards", TRUST)
    found = ranking.boards(claim_store.find(tmp_path / "boards"))
    assert [(board.protocol, len(board.rows)) for board in found] == [("as-published", 1), ("clean", 1)]
    assert [row.letters for board in found for row in board.rows] == ["", ""]  # one row is no comparison


def test_letters_come_from_holm_over_all_pairs(built: Path) -> None:
    board = board_of(built)
    sets = {row.key: [row.correct(split) for split in board.shifts] for row in board.ranked}
    pairs = [(a, b) for k, a in enumerate(board.ranked) for b in board.ranked[k + 1 :]]

    def p(a: str, b: str, same: bool) -> float:
        return stats.difference(sets[a], sets[b], paired_seeds=same).p

    adjusted = holm([p(a.key, b.key, a.source.place == b.source.place) for a, b in pairs])
    for (a, b), value in zip(pairs, adjusted, strict=True):
        assert bool(set(a.letters) & set(b.letters)) == (value >= 0.05), (a.name, b.name)


def test_rows_with_one_seed_make_no_claim(built: Path) -> None:
    board = board_of(built)
    single = next(row for row in board.rows if len(row.seeds) == 1 and not row.deterministic)
    assert (single.name, single.note) == ("ft (lr=1e-05)", "1 seed, no claim")
    assert (single.letters, single.rank, single.against) == ("", None, None)
    assert single.key not in board.bold
    assert next(row for row in board.rows if row.method == "zero-shot").ranked  # nothing random: one seed is all


def test_what_was_chosen_on_the_shifts_is_shown_last_and_unranked(built: Path) -> None:
    last = board_of(built).rows[-1]
    assert (last.name, last.ranked, last.letters, last.against) == ("wise-ft (oracle: alpha by OOD)", False, "", None)
    best = [max(point.mean_ood.value for point in last.claim.results.curve)]
    assert last.estimate("mean OOD").value >= best[0] - 1e-12


def test_boards_and_compare_tell_the_same(built: Path) -> None:
    run_set = load(store.find_records([built.parent / "runs"]))[0]
    found = compare(run_set, "ft (lr=0.0003)")
    told = {line.row.name: line for line in found.lines}
    trained = ranks.rank_intervals({name: drawn for name, drawn in found.resampled.items() if name != "zero-shot"})
    board = board_of(built)
    for row in board.rows:
        line = told[row.name]
        assert row.estimate("mean OOD").half_width == pytest.approx(line.cells["mean OOD"].estimate.half_width)
        assert row.letters == line.letters, row.name
        assert (row.rank is None) == (row.name not in trained)
        assert (row.name not in trained) == (line.rank is None or row.reference)
        if row.rank:  # their streams have other names
            rank = trained[row.name]
            assert (row.rank.low, row.rank.high) == (rank.low, rank.high)
            assert row.rank.p_best == pytest.approx(rank.p_best, abs=0.02)
    differences = {claim.row: claim for claim in compare(run_set, "ft (lr=0.0003)").claims}
    for row in board.ranked:
        if row.against is not None:
            assert row.against.value == pytest.approx(differences[row.name].estimate.value)
            assert row.p_adjusted == pytest.approx(differences[row.name].p_adjusted)


def test_bold_is_every_row_that_shares_the_best_ones_letter_and_zero_shot_never_is(built: Path) -> None:
    board = board_of(built)
    trained = [row for row in board.ranked if row.method != "zero-shot"]
    best = max(trained, key=lambda row: row.estimate("mean OOD").value)
    assert board.bold == {row.key for row in trained if set(row.letters) & set(best.letters)}
    assert best.key in board.bold
    shown = text.markdown(board)
    assert shown.count("**") == 2 * len(board.bold)


def test_markdown_latex_csv_and_json_tell_the_same_numbers(built: Path) -> None:
    board = board_of(built)
    found = json.loads((built / "shapes-v2.json").read_text())[0]["rows"]
    lines = [line.split(",") for line in (built / "shapes-v2.csv").read_text().splitlines()]
    csv = {line[4]: float(line[14]) for line in lines if line[12] == "mean OOD"}
    for row, plain in zip(board.rows, found, strict=True):
        estimate = row.estimate("mean OOD")
        assert plain["accuracy"]["mean OOD"]["value"] == pytest.approx(estimate.value, rel=1e-8)
        if "," not in row.name:
            assert csv[row.name] == pytest.approx(estimate.value, rel=1e-8)
        assert text.points(estimate) in (built / "shapes-v2.md").read_text()
        value, half = text.points(estimate).split(" ± ")
        tex = (built / "shapes-v2.tex").read_text()
        assert rf"\pm {half}$" in tex
        assert value in tex


def test_rows_from_papers_are_as_printed_and_unranked(built: Path) -> None:
    rows = paper.load(built / paper.FILE)
    assert [row.method for row in rows] == ["FT", "TPGM"]
    assert rows[0].mean_ood(("v2", "r", "a", "sketch")) == pytest.approx((70.6 + 65.6 + 36.6 + 45.1) / 4)
    assert rows[1].mean_ood(("v2", "r", "a", "sketch")) is None  # a hole blocks the mean
    shown = (built / "imagenet-v1.md").read_text()
    assert "No method has been run on this suite here yet" in shown
    assert "70.6 ± 0.1" in shown
    assert "| *TPGM*" in shown
    assert "effective robustness" in (built / "site" / "imagenet-v1.html").read_text()


def test_a_rerun_of_a_papers_row_shows_its_distance(tmp_path: Path) -> None:
    world = made.World(
        suite="imagenet", model="ViT-B-16", pretrained="openai", protocol="as-published", skills={"ft": (2.2, 0.9)},
        shifts=("v2", "r", "a", "sketch"), n=200,
    )  # fmt: skip
    claim_store.add([made.write(tmp_path / "runs", world)], tmp_path / "boards", TRUST)
    (tmp_path / "boards" / paper.FILE).write_text(json.dumps([entry("FT", "ImageNet-val", 81.3), *IMAGENET]))
    board = ranking.boards(claim_store.find(tmp_path / "boards"), paper.load(tmp_path / "boards" / paper.FILE))[0]
    told = text.deltas(board, board.paper[0], board.shifts)
    assert [name for name, _ in told] == ["ft"]
    rerun = board.rows[0].estimate("ID")
    assert told[0][1][1].startswith(f"{100 * rerun.value - 81.3:+.1f} ± {100 * rerun.half_width:.1f}")
    assert not text.deltas(board, board.paper[1], board.shifts)  # TPGM was not run
    assert set(board.rows[0].effective or {}) == {"v2", "sketch"}  # the shifts with a line of standard models
    clean = replace(world, protocol="clean")
    claim_store.add([made.write(tmp_path / "clean", clean)], tmp_path / "others", TRUST)
    other = ranking.boards(claim_store.find(tmp_path / "others"), board.paper)[0]
    assert not text.deltas(other, board.paper[0], board.shifts)  # another protocol is not comparable


def test_a_discrepant_rerun_is_marked() -> None:
    cell = paper.Cell(80.0, 0.5, 1)
    assert not paper.delta(0.805, 0.004, cell).discrepant
    assert paper.delta(0.812, 0.004, cell).discrepant
    assert paper.delta(0.812, 0.004, cell).text == "+1.2 ± 0.4 discrepant"


def test_what_a_submitter_writes_is_text_and_nothing_else(tmp_path: Path) -> None:
    runs = made.write(tmp_path / "runs", made.World(skills={"ft": (1.0, 0.0)}, n=30))
    evil = "<script>alert('x')</script>"
    claim_store.add([runs], tmp_path / "boards", Trust("submitted", evil, notes=evil))
    (tmp_path / "boards" / paper.FILE).write_text(
        json.dumps([{**row, "source": evil, "method": "a|b"} for row in [entry("FT", "ImageNet-val", 81.3), *IMAGENET]])
    )
    made_files = build.files(tmp_path / "boards")
    for name, content in made_files.items():
        if name.endswith(".html"):
            assert evil not in content
            assert content.count("<script>") <= 1  # our own
    assert "&lt;script&gt;" in made_files["site/shapes-v2.html"]
    assert r"a\|b" in made_files["imagenet-v1.md"]


def test_pages_stand_alone_and_tables_are_accessible(built: Path) -> None:
    page = (built / "site" / "shapes-v2.html").read_text()
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    assert page.count('<th scope="col"') > 20
    board = board_of(built)
    assert page.count('<th scope="row"') == 4 * len(board.rows) + len(board.placed)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert page.count('role="img" aria-labelledby=') == 4
    assert "var(--s0)" in page
    assert not re.findall(r"(?:fill|stroke):\s*#[0-9a-f]{6}", page)  # every colour follows the scheme


def test_no_page_names_a_folder_of_this_machine(built: Path, tmp_path: Path) -> None:
    for path in built.rglob("*"):
        if path.suffix in (".md", ".html", ".json", ".csv", ".tex"):
            assert str(tmp_path.parents[1]) not in path.read_text()


def test_gains_are_measured_from_the_interpolation_curve_and_not_outside_of_it(tmp_path: Path) -> None:
    skills = {"zero-shot": (0.4, 0.2), "wise-ft": (1.8, -0.3), "lipsum": (3.5, 0.4), "ft": (-0.5, -0.5),
              "lp-ft": (1.1, 1.0)}  # fmt: skip
    made.write(tmp_path / "runs", made.World(skills=skills, n=150))
    claim_store.add([tmp_path / "runs"], tmp_path / "boards", TRUST)
    board = board_of(tmp_path / "boards")
    rows = {row.method: row for row in board.rows if not row.curve}
    family = next(row for row in board.rows if row.curve)
    xs = [point.id.value for point in family.curve]
    ys = [point.mean_ood.value for point in family.curve]
    peak, inside = int(np.argmax(xs)), rows["lp-ft"]
    x = inside.estimate("ID").value
    assert xs[0] < x < xs[peak]
    assert inside.gain is not None
    expected = inside.estimate("mean OOD").value - np.interp(x, xs[: peak + 1], ys[: peak + 1])
    assert inside.gain.value == pytest.approx(expected, abs=0.02)
    assert expected > 0.05  # else a gain of 0 would pass
    assert family.gain is None
    assert rows["lipsum"].estimate("ID").value > max(xs)
    assert rows["ft"].estimate("ID").value < min(xs)
    assert all(rows[name].ranked and rows[name].gain is None for name in ("lipsum", "ft"))


def test_costs_are_means_over_seeds(built: Path) -> None:
    board = board_of(built)
    row = next(row for row in board.rows if row.method == "lipsum")
    found = [r.env["cost"]["fit_seconds"] for r in store.find_records([built.parent / "runs"])
             if r.cell["method"] == "lipsum"]  # fmt: skip
    assert row.cost.fit == pytest.approx(np.mean(found))
    assert next(r for r in board.rows if r.method == "zero-shot").cost.fit_rate is None
