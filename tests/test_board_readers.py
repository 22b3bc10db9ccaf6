"""Boards for readers: the reference, the order, pairs, classes, papers that contradict themselves, links and lists."""

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import made
import numpy as np
import pytest
from click.testing import CliRunner, Result

from robustbench_ft.board import build, by_class, cite, detail, pairs, paper, ranking, text
from robustbench_ft.board.table import Board, Row
from robustbench_ft.claims import claim_store
from robustbench_ft.claims.schema import Trust
from robustbench_ft.cli.main import main
from robustbench_ft.suite_ref import load

REPO = Path(__file__).parent.parent
COMMITTED = REPO / "leaderboards"
METHODS = {name: made.SKILLS[name] for name in ("zero-shot", "ft", "wise-ft", "lipsum", "lp-ft")}
EVIL = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readers")
    runs = made.write(folder / "runs", made.World(skills=METHODS, n=150))
    claim_store.add([runs], folder / "boards", Trust("rerun", "Ada & <Bob>", date="2026-03-04"))
    build.write(folder / "boards", build.files(folder / "boards"))
    return folder / "boards"


@pytest.fixture(scope="module")
def board(root: Path) -> Board:
    return ranking.boards(claim_store.find(root))[0]


def row(board: Board, name: str) -> Row:
    return next(one for one in board.rows if one.name == name)


def rbft(*words: object) -> Result:
    return CliRunner().invoke(main, ["leaderboard", *map(str, words)])


# -- the reference and the order --------------------------------------------------------------------------------------


def test_zero_shot_is_first_and_never_ranked_bold_or_underlined(tmp_path: Path) -> None:
    skills = {**METHODS, "zero-shot": (3.0, 3.0)}  # better than everything
    claim_store.add([made.write(tmp_path / "runs", made.World(skills=skills, n=150))], tmp_path / "b", Trust("rerun"))
    board = ranking.boards(claim_store.find(tmp_path / "b"))[0]
    first = board.rows[0]
    assert (first.name, first.letters, first.ranked) == ("zero-shot", "a", True)
    assert (first.rank, first.tied, first.first_over_shifts) == (None, None, None)
    assert first.key not in {*board.bold, board.underlined}
    assert board.bold == {one.key for one in board.placed if one.tied == 1} != set()
    assert min(one.rank.low for one in board.placed if one.rank) == 1
    assert sum(one.rank.p_best for one in board.placed if one.rank) == pytest.approx(1)
    assert "Zero-shot is a reference line and has no rank" in text.markdown(board)


def test_rows_stand_by_gain_where_there_is_one_and_the_page_says_why(root: Path, board: Board) -> None:
    assert board.by_gain
    assert board.curve == "wise-ft (alpha=0.5)"
    ranked = [one for one in board.ranked if not one.reference]
    gains = [one.gain.value if one.gain else 0.0 for one in ranked if one.on_curve or one.gain]
    assert gains == sorted(gains, reverse=True)
    assert {one.name for one in ranked if one.on_curve} == {"wise-ft (alpha=0.5)", "wise-ft (alpha by ID val)"}
    means = [one.estimate("mean OOD").value for one in ranked]
    assert means != sorted(means, reverse=True)  # else either order would pass
    for name in ("shapes-v2.md", "site/shapes-v2.html"):
        assert "Rows stand by gain at equal ID" in (root / name).read_text()


def test_rows_without_a_gain_follow_by_mean_ood(tmp_path: Path) -> None:
    # two beyond the curve's ID accuracy, and one on it
    skills = {**METHODS, "lipsum": (3.5, 0.4), "lp-ft": (3.6, 0.6), "ft": (1.1, -0.6)}
    claim_store.add([made.write(tmp_path / "runs", made.World(skills=skills, n=150))], tmp_path / "b", Trust("rerun"))
    board = ranking.boards(claim_store.find(tmp_path / "b"))[0]
    ranked = [one for one in board.ranked if not one.reference]
    assert [one.name for one in ranked[-2:]] == ["lp-ft", "lipsum"]
    assert all(one.gain is None and not one.on_curve for one in ranked[-2:])
    assert ranked[-2].estimate("mean OOD").value > ranked[0].estimate("mean OOD").value


def test_recipes_stand_apart_and_the_page_says_so(tmp_path: Path) -> None:
    skills = {name: METHODS[name] for name in ("zero-shot", "ft", "lipsum")}
    made.write(tmp_path / "runs", made.World(skills=skills, n=100))
    made.write(tmp_path / "more", made.World(skills={"lp-ft": (2.0, 2.0)}, n=100, changed={"steps": 20}))
    claim_store.add([tmp_path / "runs", tmp_path / "more"], tmp_path / "b", Trust("rerun"))
    board = ranking.boards(claim_store.find(tmp_path / "b"))[0]
    assert board.rows[0].name == "zero-shot"
    assert [one.recipe for one in board.rows[1:]] == [1, 1, 2]
    assert board.placed[0].name == board.rows[-1].name == "lp-ft (steps=20)"  # the best, and yet below
    assert "Rows stand by recipe, and inside each by mean OOD" in text.order(board)


def test_without_a_curve_rows_stand_by_mean_ood_and_the_page_says_so(tmp_path: Path) -> None:
    skills = {name: skill for name, skill in METHODS.items() if name != "wise-ft"}
    claim_store.add([made.write(tmp_path / "runs", made.World(skills=skills, n=150))], tmp_path / "b", Trust("rerun"))
    board = ranking.boards(claim_store.find(tmp_path / "b"))[0]
    means = [one.estimate("mean OOD").value for one in board.placed]
    assert [one.key for one in board.rows[1:]] == [one.key for one in board.placed]
    assert means == sorted(means, reverse=True)
    assert not board.by_gain
    shown = text.markdown(board)
    assert "Rows stand by mean OOD: no gain at equal ID is known here" in shown
    assert "gain at equal ID, points" not in shown


def test_the_head_tells_resolution_and_who_stays_first(board: Board) -> None:
    found, placed = board.resolution, board.placed
    assert found is not None
    apart = sum(
        not set(a.letters) & set(b.letters) for k, a in enumerate(placed) for b in placed[k + 1 :]
    )  # letters say exactly what the tests say
    assert (found.told_apart, found.pairs) == (apart, len(placed) * (len(placed) - 1) // 2)
    assert found.top == len(board.bold)
    said, first = text.resolution(board), placed[0]
    assert f"{apart} of {found.pairs} pairs" in said
    assert first.rank is not None
    assert first.first_over_shifts is not None
    for share in (first.rank.p_best, first.first_over_shifts):
        assert text.percent(share) in said
    assert f"resamples over the {len(board.shifts)} shifts" in said


@pytest.mark.parametrize(
    ("share", "said"), [(0.0, "0 %"), (0.001, "< 1 %"), (0.754, "75 %"), (0.9999, "> 99 %"), (1.0, "100 %")]
)
def test_nothing_is_rounded_to_certainty(share: float, said: str) -> None:
    assert text.percent(share) == said


# -- two rows side by side --------------------------------------------------------------------------------------------


def test_pairs_are_recomputed_from_stored_predictions(board: Board) -> None:
    found = {(pair.a.name, pair.b.name): pair for pair in pairs.pairs(board)}
    assert len(found) == len(board.rows) * (len(board.rows) - 1) // 2
    pair = found["lipsum", "ft"]
    for line in pair.lines:
        splits = board.columns[line.column]
        a, b = ([row(board, name).correct(split).scores for split in splits] for name in ("lipsum", "ft"))
        gap = np.mean([x.mean() - y.mean() for x, y in zip(a, b, strict=True)])
        assert line.difference.value == pytest.approx(gap, abs=1e-12)
        if line.flipped:
            (x,), (y,) = a, b
            only = [np.mean([(s & ~t).mean() for s in one for t in two]) for one, two in ((x, y), (y, x))]
            assert [line.flipped.only_a, line.flipped.only_b] == pytest.approx(only)
            assert line.flipped.only_a - line.flipped.only_b == pytest.approx(gap)
            firm = np.flatnonzero(x.all(axis=0) & ~y.any(axis=0))
            ids = pair.a.source.runs[0].any(splits[0]).ids
            assert line.flipped.firm_a == len(firm)
            assert set(line.flipped.ids_a) <= {ids[k] for k in firm}
            assert len(line.flipped.ids_a) == min(pairs.MOST_IMAGES, len(firm))
    assert any(line.flipped and line.flipped.firm_a for line in pair.lines)


def test_a_pair_is_told_apart_where_letters_say_so(board: Board) -> None:
    ranked = {one.key for one in board.ranked}
    kinds = set()
    for pair in pairs.pairs(board):
        if {pair.a.key, pair.b.key} <= ranked:
            assert pair.told_apart == (not set(pair.a.letters) & set(pair.b.letters))
            kinds.add(pair.told_apart)
        else:
            assert pair.p_adjusted is None
    assert kinds == {True, False}


def test_a_long_board_shows_the_pairs_that_matter_and_says_so(
    root: Path, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = len(pairs.chosen(board))
    monkeypatch.setattr(pairs, "MOST_ROWS", 3)
    kept = pairs.chosen(board)
    fixed = {"ft", board.placed[0].name}
    assert 0 < len(kept) < every
    assert all({a.name, b.name} & fixed for a, b in kept)
    page = build.files(root)["site/shapes-v2-pairs.html"]
    assert f"{len(kept)} of {every} pairs: each row beside ft and beside the best mean OOD." in page
    assert page.count('<details class="pair"') == len(kept)


# -- class by class ---------------------------------------------------------------------------------------------------


def test_classes_are_recomputed_from_stored_predictions(board: Board) -> None:
    found = by_class.by_class(board)
    assert (len(found.classes), found.total, found.left_out) == (made.CLASSES, made.CLASSES, ())
    one, names = found.classes[3], load("shapes").classes
    assert one.name == names[one.label]
    lipsum = row(board, "lipsum")
    shifts = []
    for split in board.shifts:
        of_class = lipsum.source.runs[0].any(split).label == one.label
        shifts.append(float(lipsum.correct(split).scores[:, of_class].mean()))
        assert one.accuracy[lipsum.key][split] == pytest.approx(shifts[-1])
        assert one.images[split] == of_class.sum()
    assert one.mean_ood[lipsum.key] == pytest.approx(np.mean(shifts))


def test_many_classes_are_cut_to_those_that_differ_most(
    root: Path, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = by_class.by_class(board).classes
    monkeypatch.setattr(by_class, "MOST_CELLS", 1)
    found = by_class.by_class(board)
    assert len(found.classes) == 5
    assert min(one.spread for one in found.classes) >= sorted((one.spread for one in every), reverse=True)[4]
    page = build.files(root)["site/shapes-v2-classes.html"]
    assert f"The 5 of {made.CLASSES} classes with the widest spread." in page
    monkeypatch.setattr(by_class, "MOST_ROWS", 2)
    assert [one.name for one in by_class.by_class(board).rows] == ["zero-shot", "ft"]  # the first, and the baseline


def test_a_shift_that_may_number_its_own_classes_is_left_out(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    run = board.rows[0].source.runs[0]
    shift = board.shifts[0]
    few = {name: replace(p, label=p.label % 3) for name, p in run.scored[shift].items()}
    monkeypatch.setitem(run.scored, shift, few)  # type: ignore[arg-type]
    found = by_class.by_class(board)
    assert found.left_out == (shift,)
    assert shift not in found.columns


# -- rows from papers -------------------------------------------------------------------------------------------------


def test_two_tables_of_one_paper_are_one_row_with_both_values() -> None:
    printed = paper.load(COMMITTED / paper.FILE)
    rows = paper.one_per_paper(printed)
    keys = [(one.suite, one.model, one.pretrained, one.paper, one.method) for one in rows]
    assert len(keys) == len(set(keys)) < len(printed)
    tracer = next(one for one in rows if one.method == "LP-FT" and one.paper.startswith("TRACER"))
    assert tracer.sources == ("TRACER paper, Table 1", "TRACER paper, Table 2")
    assert tracer.cells["a"].text == "49.28 ± 0.31 / 46.32 ± 0.30"
    assert tracer.contradiction == pytest.approx(2.96)
    shown = text.paper_line(tracer, ("v2", "r", "a", "sketch"))
    assert shown[2] == "61.29 / 59.38"  # means of either table
    assert shown[-1] == "TRACER paper, Table 1 and Table 2; they differ by up to 2.96 points (read second-hand)"
    agreed = next(one for one in rows if one.method == "zero-shot" and one.paper.startswith("TRACER"))
    assert (len(agreed.sources), agreed.contradiction, agreed.cells["a"].text) == (2, 0, "49.95")


def test_a_rerun_is_held_against_the_nearer_of_two_printed_values() -> None:
    cell = paper.Cell(82.0, 0.1, 1, (paper.Cell(80.0, 0.1, 1),))
    assert paper.delta(0.801, 0.002, cell).text == "+0.1 ± 0.2"
    assert paper.delta(0.819, 0.002, cell).text == "-0.1 ± 0.2"
    assert paper.delta(0.81, 0.002, cell).discrepant


# -- links, dates, BibTeX, lists --------------------------------------------------------------------------------------


def test_a_link_stays_when_a_row_is_added(root: Path, board: Board, tmp_path: Path) -> None:
    before = {one.name: link for one, link in zip(board.rows, cite.links(board).values(), strict=True)}
    assert len(set(before.values())) == len(before)
    shutil.copytree(root, tmp_path / "boards")
    runs = made.write(tmp_path / "runs", made.World(skills={"flyp": (2.5, 0.9)}, n=150))
    claim_store.add([runs], tmp_path / "boards", Trust("submitted"))
    other = ranking.boards(claim_store.find(tmp_path / "boards"))[0]
    after = {one.name: link for one, link in zip(other.rows, cite.links(other).values(), strict=True)}
    assert before.items() < after.items()
    page = (root / "site" / "shapes-v2.html").read_text()
    for link in before.values():
        assert page.count(f' id="{link}"') == 1
        assert page.count(f'href="#{link}"') == 2


@pytest.mark.parametrize("name", ["shapes-v2", "shapes-v2-pairs", "shapes-v2-classes", "index"])
def test_links_inside_a_page_and_between_pages_lead_somewhere(root: Path, name: str) -> None:
    site = root / "site"
    page = (site / f"{name}.html").read_text()
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    links = [link for link in re.findall(r'href="([^"]+)"', page) if not link.startswith(("data:", "../../methods/"))]
    assert links
    for link in links:
        file, _, place = link.partition("#")
        target = (site / file).read_text() if file else page
        assert not place or f' id="{place}"' in target, link


def test_pages_link_the_methods_file_and_tell_the_day(root: Path) -> None:
    page = (root / "site" / "shapes-v2.html").read_text()
    for name in ("lipsum.py", "wise_ft.py", "zero_shot.py"):
        assert (REPO / "methods" / name).exists()
        assert f'<a href="../../methods/{name}">{name}</a>' in page
    assert "2026-03-04" in page


def test_bibtex_quotes_what_submitters_write_and_tells_the_numbers(board: Board) -> None:
    entry = cite.bibtex(board, row(board, "lipsum"))
    assert entry.startswith("@misc{rbft-shapes-v2-embedded.lipsum-")
    assert r"Ada \& <Bob>" in entry
    assert "year = {2026}" in entry
    assert "month = mar" in entry
    value, half = text.points(row(board, "lipsum").estimate("mean OOD")).split(" ± ")
    assert rf"mean OOD {value} $\pm$ {half}" in entry
    assert entry.count("{") == entry.count("}")


def test_the_day_is_written_when_a_claim_is_made_and_no_other_text_is_taken(tmp_path: Path) -> None:
    runs = made.write(tmp_path / "runs", made.World(skills={"ft": (1.0, 0.0)}, n=30))
    assert rbft("add", runs, "--root", tmp_path / "boards").exit_code == 0
    (stored,) = claim_store.find(tmp_path / "boards")
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", stored.claim.trust.date or "")
    assert rbft("verify", "--root", tmp_path / "boards").exit_code == 0
    content = json.loads(stored.path.read_text())
    for day in ("yesterday", "2026-13-01", EVIL):
        content["trust"]["date"] = day
        stored.path.write_text(json.dumps(content))
        done = rbft("build", "--root", tmp_path / "boards")
        assert (done.exit_code, done.output.count("\n")) == (2, 1)
        assert "date" in done.output
    del content["trust"]["date"]
    stored.path.write_text(json.dumps(content))
    assert rbft("build", "--root", tmp_path / "boards").exit_code == 0


def test_all_rows_are_in_one_list_with_the_numbers_of_their_boards(root: Path, board: Board) -> None:
    listed = json.loads((root / "rows.json").read_text())
    plain = {one["name"]: one for one in json.loads((root / "shapes-v2.json").read_text())[0]["rows"]}
    table = list(csv.DictReader(io.StringIO((root / "rows.csv").read_text())))
    assert [one["row"] for one in listed] == [one["row"] for one in table] == [one.name for one in board.rows]
    for one, line, own in zip(listed, table, board.rows, strict=True):
        assert one["mean_ood"] == pytest.approx(own.estimate("mean OOD").value, rel=1e-8)
        assert float(line["id_low"]) == pytest.approx(own.estimate("ID").low, rel=1e-8)
        assert one["tied_rank"] == own.tied
        assert line["trained_parameters"] == text.plain(own.cost.parameters)
        assert one["link"] == f"shapes-v2.html#{cite.links(board)[own.key]}"
        assert (plain[own.name]["link"], plain[own.name]["date"]) == (cite.links(board)[own.key], "2026-03-04")
        assert (one["backbone"], one["protocol"], one["date"]) == ("embedded", "clean", "2026-03-04")


def test_committed_lists_hold_every_suite_and_backbone() -> None:
    listed = json.loads((COMMITTED / "rows.json").read_text())
    assert {"shapes", "digits", "imagenet", "domainnet"} <= {one["suite"] for one in listed}
    assert {"embedded", "ViT-B/16 openai", "ViT-B/32 openai"} <= {one["backbone"] for one in listed}
    assert all(one["mean_ood_low"] is None for one in listed if one["kind"] == "paper")


def test_pages_escape_what_files_say(tmp_path: Path) -> None:
    runs = made.write(tmp_path / "runs", made.World(skills=METHODS, n=60))
    claim_store.add([runs], tmp_path / "boards", Trust("submitted", EVIL, EVIL, EVIL))
    printed = json.loads((COMMITTED / paper.FILE).read_text())[:60]
    texts = {"method": EVIL, "source": EVIL, "model": EVIL, "paper": EVIL}
    (tmp_path / "boards" / paper.FILE).write_text(json.dumps([{**one, **texts} for one in printed]))
    made_files = build.files(tmp_path / "boards")
    pages = {name: content for name, content in made_files.items() if name.endswith(".html")}
    assert len(pages) == 6
    for name, content in pages.items():
        assert EVIL not in content, name
        assert content.count("<script>") == 1, name  # our own
    assert "&lt;script&gt;" in pages["site/index.html"]


def test_ids_of_images_are_escaped(board: Board) -> None:
    pair = next(pair for pair in pairs.pairs(board) if any(line.flipped and line.flipped.ids_a for line in pair.lines))
    lines = tuple(
        replace(line, flipped=replace(line.flipped, firm_a=1, ids_a=(f"shapes-v2/{EVIL}",))) if line.flipped else line
        for line in pair.lines
    )
    shown = detail.pair_shown(replace(pair, lines=lines), "k", "p")
    page = detail.parts.render(
        "pairs.html", page=_Page(), note="", footer=[],
        sections=[{"key": "b0", "board": board, "matrix": shown["table"], "caption": "", "pairs": [shown]}],
    )  # fmt: skip
    assert "alert" in page
    assert EVIL not in page


class _Page:
    name, suite, version = "shapes-v2", "shapes", 2


def test_committed_pages_are_small() -> None:
    for path in (COMMITTED / "site").glob("*.html"):
        assert path.stat().st_size < 300_000, path.name
