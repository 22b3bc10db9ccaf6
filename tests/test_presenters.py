"""One engine for every table: the same runs give the same digits, whoever presents them."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
from click.testing import CliRunner

from robustbench_ft import metrics, plan, stats
from robustbench_ft.board import ranking
from robustbench_ft.board import text as board_text
from robustbench_ft.claims import claim_store
from robustbench_ft.claims.schema import Trust
from robustbench_ft.cli.main import main
from robustbench_ft.compare import compare, load, report, tables, two_runs
from robustbench_ft.compare.rows import settings
from robustbench_ft.compare.text import markdown, points
from robustbench_ft.errors import RbftError
from robustbench_ft.record import store
from robustbench_ft.record.summary import read_cell
from robustbench_ft.stats import ranks

TRUST = Trust("rerun")
loading: Any = import_module("robustbench_ft.compare.load")  # the package has a function of this name
METHODS = {name: made.SKILLS[name] for name in ("zero-shot", "ft", "wise-ft", "lipsum")}
GROUPS = {"drawn": ("clipart", "sketch")}
WORLDS = {
    "accuracy": made.World(skills=METHODS, n=150, groups=GROUPS),
    "clusters": made.World(skills=METHODS, n=150, groups=GROUPS, cluster=10),
    "official": made.World(
        skills=METHODS, n=150, groups=GROUPS, cluster=50,
        official={"val": "macro_f1", "test": "macro_f1", "painting": "macro_f1", "sketch": "worst_group:camera"},
    ),
}  # fmt: skip


def rbft(*words: object) -> str:
    done = CliRunner().invoke(main, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def few_draws() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module", params=WORLDS)
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, few_draws: pytest.MonkeyPatch
) -> dict[str, Any]:
    """What each presenter says of one set of runs."""
    root = tmp_path_factory.mktemp(request.param)
    few_draws.setattr(loading, "DRAWS", 200)  # that presenters agree does not depend on it
    runs, boards = made.write(root / "runs", WORLDS[request.param]), root / "boards"
    claim_store.add([runs], boards, TRUST)
    rbft("leaderboard", "build", "--root", boards)
    rbft("compare", runs, "--json", root / "compare.json")
    rbft("compare", boards / "shapes-v2", "--json", root / "published.json")
    (compared,), (published,) = (json.loads((root / f"{n}.json").read_text()) for n in ("compare", "published"))
    (board,) = json.loads((boards / "shapes-v2.json").read_text())
    return {
        "runs": runs, "boards": boards, "compare": compared, "published": published, "board": board,
        "report": json.loads(rbft("report", runs, "--format", "json"))[0],
    }  # fmt: skip


def cells(presented: dict[str, Any]) -> dict[tuple[str, str], tuple[float, float, float]]:
    """(row, column) -> value and interval, of a report or of a comparison."""
    found: dict[tuple[str, str], tuple[float, float, float]] = {}
    for row in presented["rows"]:
        for column, cell in row["cells"].items():
            low, high = cell["interval"] if "interval" in cell else (cell["low"], cell["high"])
            found[row["name"], column] = cell["value"], low, high
    return found


def test_reports_comparisons_and_boards_have_the_same_cells(told: dict[str, Any]) -> None:
    compared, reported = cells(told["compare"]), cells(told["report"])
    shared = compared.keys() & reported.keys()
    wise = {"wise-ft (alpha=0.5)", "wise-ft (alpha by ID val)"}
    assert {row for row, _ in shared} == {"zero-shot", "ft", "lipsum", *wise}
    assert all(compared[key] == pytest.approx(reported[key], rel=1e-12) for key in shared)
    for row in told["board"]["rows"]:
        estimates = row.get("official", row["accuracy"])
        for column in ("ID", "painting", "clipart", "sketch", "mean drawn", "mean OOD"):
            found = stats.Estimate.read(estimates[column])
            shown = pytest.approx((found.value, found.low, found.high), rel=1e-8)
            assert compared[row["name"], column] == shown, (row["name"], column)


def test_published_runs_are_compared_as_own_ones(told: dict[str, Any]) -> None:
    assert told["published"] == told["compare"]


def test_boards_and_comparisons_have_the_same_letters_ranks_and_tests(told: dict[str, Any]) -> None:
    lines = {row["name"]: row for row in told["compare"]["rows"]}
    claims = {entry["row"]: entry for entry in told["compare"]["comparisons"]}
    (run_set,) = load(store.find_records([told["runs"]]))
    drawn = compare(run_set, "ft").resampled
    assert {name: asdict(rank) for name, rank in ranks.rank_intervals(drawn).items()} == {
        name: pytest.approx(line["rank"], rel=1e-8) for name, line in lines.items() if line["rank"]
    }
    trained = ranks.rank_intervals({name: draws for name, draws in drawn.items() if name != "zero-shot"})
    tested = 0
    for row in told["board"]["rows"]:
        line = lines[row["name"]]
        assert (row["letters"], row["ranked"]) == (line["letters"], line["status"] == "ranked")
        own = trained.get(row["name"])  # zero-shot has a rank in `compare` only
        assert row["rank"] == (own and pytest.approx(asdict(own), rel=1e-8))
        if row["against_baseline"]:
            tested += 1
            entry = claims[row["name"]]
            assert row["against_baseline"]["value"] == pytest.approx(entry["value"], rel=1e-8)
            assert row["against_baseline"]["half_width"] == pytest.approx(entry["half_width"], rel=1e-8)
            assert row["p_adjusted"] == pytest.approx(entry["p_adjusted"], rel=1e-8)
    assert tested == 4


def test_texts_print_the_same_digits(told: dict[str, Any]) -> None:
    (run_set,) = load(store.find_records([told["runs"]]))
    found = compare(run_set, "ft")
    board = ranking.boards(claim_store.find(told["boards"]))[0]
    texts = {
        "compare": markdown(tables.main_table(found)), "report": report.markdown(report.tables(run_set.records)[0]),
        "against": markdown(report.against(report.tables(run_set.records)[0], "ft")),
        "board": board_text.markdown(board),
        "page": re.sub(r"<[^>]*>", "", (told["boards"] / "site" / "shapes-v2.html").read_text()),
    }  # fmt: skip
    for line in found.lines:
        if line.row.oracle:
            continue
        for column in ("ID", "mean OOD"):
            shown = points(line.cells[column].estimate)
            assert all(shown in texts[name] for name in ("compare", "report", "board", "page")), (line.row.name, shown)
    for entry in found.claims:
        if entry.tested:
            shown = points(entry.estimate, signed=True)
            assert all(shown in texts[name] for name in ("compare", "against", "board", "page")), (entry.row, shown)


def test_gains_at_equal_id_are_the_same(told: dict[str, Any]) -> None:
    gains = {entry["row"]: entry["gain"] for entry in told["compare"]["matched_id"]["gains"]}
    shown = {row["name"]: row["gain_at_equal_id"] for row in told["board"]["rows"] if row["gain_at_equal_id"]}
    assert shown.keys() == {name for name, gain in gains.items() if gain}
    assert all(found["value"] == pytest.approx(gains[name]["value"], rel=1e-8) for name, found in shown.items())


# -- official metrics -------------------------------------------------------------------------------------------------


def worse_in_one_camera(folder: Path, split: str) -> None:
    """Answers that are all right but for those of the first camera, which are all wrong."""
    path = store.predictions_path(folder, "final", split)
    found = store.read_predictions(path)
    wrong = found.groups["camera"] == 0
    prediction = np.where(wrong, (found.label + 1) % made.CLASSES, found.label)
    top = np.stack([prediction, np.where(wrong, found.label, (found.label + 1) % made.CLASSES)], axis=1)
    store.write_predictions(path, type(found)(
        found.ids, found.label, prediction, found.confidence, found.log_prob, found.sum_sq, top, found.top_probs,
        found.groups,
    ))  # fmt: skip
    summary = store.read_json(folder / "metrics.json")
    summary["candidates"]["final"][split] = metrics.score(store.read_predictions(path))
    store.write_json(folder / "metrics.json", summary)


def test_the_official_metric_decides_who_is_first(tmp_path: Path) -> None:
    world = made.World(
        skills={"ft": (1.0, 0.3), "lipsum": (1.0, 0.3)}, n=300, cluster=60, shifts=("sketch",),
        official={"sketch": "worst_group:camera"},
    )  # fmt: skip
    for folder in made.write(tmp_path, world).glob("*/*/ft-*/seed-*"):
        worse_in_one_camera(folder, "sketch")
    records = store.find_records([tmp_path])
    official, accuracy = (compare(load(records, metric)[0], "ft") for metric in ("official", "accuracy"))
    assert accuracy.pairs[0] == "ft"
    assert official.pairs[0] == "lipsum"
    ft = next(line for line in official.lines if line.row.name == "ft")
    assert ft.cells["mean OOD"].estimate.value == 0
    assert ft.accuracies["mean OOD"].estimate.value == pytest.approx(0.8)
    shown = markdown(tables.main_table(official))
    assert "official metrics, %" in shown
    assert "mean OOD accuracy" in shown


def test_candidates_are_chosen_by_the_official_metric(tmp_path: Path) -> None:
    world = made.World(skills=METHODS, n=90, official={"val": "macro_f1"})
    made.write(tmp_path, world)
    (run_set,) = load(store.find_records([tmp_path]))
    row = next(row for row in run_set.rows if row.name == "wise-ft (alpha by ID val)")
    for record, candidate in row.runs:
        scores = {name: found["val"]["macro_f1"] for name, found in record.metrics["candidates"].items()}
        assert scores[candidate] == max(scores.values())


def test_of_equal_candidates_the_smallest_alpha_is_chosen_by_every_presenter(tmp_path: Path) -> None:
    made.write(tmp_path / "runs", made.World(skills=METHODS, n=60))
    for folder in tmp_path.glob("runs/*/*/wise-ft-*/seed-*"):
        summary = store.read_json(folder / "metrics.json")
        best = store.read_predictions(store.predictions_path(folder, "alpha-0.8", "val"))
        for name in ("alpha-0.3", "alpha-0.8", "alpha-1"):  # a tie, listed from the largest alpha down
            store.write_predictions(store.predictions_path(folder, name, "val"), perfect(best))
            summary["candidates"][name]["val"] = metrics.score(perfect(best))
        summary["axis"] = dict(sorted(summary["axis"].items(), key=lambda item: -item[1]))
        summary["candidates"] = {name: summary["candidates"][name] for name in summary["axis"]}
        (folder / "metrics.json").write_text(json.dumps(summary))
    told = json.loads(rbft("report", tmp_path / "runs", "--format", "json"))[0]
    row = next(row for row in told["rows"] if "by ID val" in row["name"])
    assert row["candidates"] == ["alpha-0.3"] * 3
    (one,) = [c for c in claim_store.add([tmp_path / "runs"], tmp_path / "boards", TRUST) if c.place.name[:4] == "wise"]
    assert one.claim.results.rows[1].candidates == ["alpha-0.3"] * 3


def perfect(found: Any) -> Any:
    top = np.stack([found.label, (found.label + 1) % made.CLASSES], axis=1)
    return type(found)(
        found.ids, found.label, found.label, found.confidence, found.log_prob, found.sum_sq, top, found.top_probs
    )


def test_settings_that_were_set_by_hand_name_a_row_and_rename_no_other() -> None:
    request = plan.Request(method=("lp-ft",), suite=("shapes",), precision="fp32")
    own, probed = (plan.make(replace(request, set=pairs))[0] for pairs in ((), (("probe", "logistic"),)))
    named = settings({cell.digest: read_cell(cell.to_json(), Path("cell.json")) for cell in (own, probed)})
    assert named == {own.digest: "", probed.digest: "probe=logistic"}


def test_no_two_rows_are_called_alike() -> None:
    (own,) = plan.make(plan.Request(method=("ft",), suite=("shapes",), precision="fp32"))
    older, cropped = replace(own, method_version=0), replace(own, shared={"crop-flip": 2})
    named = settings({cell.digest: read_cell(cell.to_json(), Path("cell.json")) for cell in (own, older, cropped)})
    assert list(named.values()) == ["version=1", "version=0", "version=1, crop-flip=2"]
    partial = replace(own, partial=True)  # differs in what no row shows
    named = settings({cell.digest: read_cell(cell.to_json(), Path("cell.json")) for cell in (own, partial)})
    assert sorted(named.values()) == sorted([own.digest[:8], partial.digest[:8]])


# -- what is said under a table ---------------------------------------------------------------------------------------


def test_recipes_that_differ_are_said_everywhere_and_grouped_on_boards(tmp_path: Path) -> None:
    made.write(tmp_path / "runs", made.World(skills={n: METHODS[n] for n in ("zero-shot", "ft")}, n=60))
    made.write(tmp_path / "runs", made.World(
        skills={"lipsum": METHODS["lipsum"]}, n=60, lr=1e-3, changed={"weight_decay": 0.1, "head": "scaled"},
    ))  # fmt: skip
    claim_store.add([tmp_path / "runs"], tmp_path / "boards", TRUST)
    rbft("leaderboard", "build", "--root", tmp_path / "boards")
    for text in (
        rbft("compare", tmp_path / "runs", "--format", "markdown"),
        rbft("report", tmp_path / "runs", "--format", "markdown"),
        (tmp_path / "boards" / "shapes-v2.md").read_text(),
    ):
        assert "Recipes differ: lr, weight decay, head." in text
        assert "lipsum (head=scaled, weight_decay=0.1)" in text.replace("\\", "")
    board = (tmp_path / "boards" / "shapes-v2.md").read_text()
    assert re.search(r"^\| ft .* R1 \|$", board, re.MULTILINE)
    assert re.search(r"^\| lipsum .* R2 \|$", board, re.MULTILINE)
    assert "R2: " in board


def test_one_recipe_is_said_to_be_one(tmp_path: Path) -> None:
    made.write(tmp_path, made.World(skills=METHODS, n=60))
    assert "All trained rows share one recipe." in rbft("report", tmp_path, "--format", "markdown")


@pytest.mark.parametrize("presenter", ["report", "compare", "board"])
def test_selection_on_reported_images_is_named(presenter: str, tmp_path: Path) -> None:
    world = made.World(skills=METHODS, n=60, val="test", protocol="as-published")
    made.write(tmp_path / "runs", world)
    stored = claim_store.add([tmp_path / "runs"], tmp_path / "boards", TRUST)
    rbft("leaderboard", "build", "--root", tmp_path / "boards")
    text = {
        "report": lambda: rbft("report", tmp_path / "runs", "--format", "markdown"),
        "compare": lambda: rbft("compare", tmp_path / "runs", "--format", "markdown"),
        "board": (tmp_path / "boards" / "shapes-v2.md").read_text,
    }[presenter]()
    assert "alpha by the reported ID set" in text
    assert "selected on images that the table reports" in text
    assert "ID val" not in text
    one = next(one for one in stored if one.place.name.startswith("wise"))
    assert one.claim.training.selection == "checkpoint by the reported ID set"
    assert [row.selection for row in one.claim.results.rows] == ["fixed", "reported_id", "oracle"]


def test_the_last_checkpoint_is_not_called_validated(tmp_path: Path) -> None:
    made.write(tmp_path / "runs", made.World(skills={"ft": METHODS["ft"]}, n=30, changed={"select": "last"}))
    (one,) = claim_store.add([tmp_path / "runs"], tmp_path / "boards", TRUST)
    assert one.claim.training.selection == "last checkpoint"


def test_few_images_are_said(tmp_path: Path) -> None:
    made.write(tmp_path, made.World(skills={"ft": METHODS["ft"], "lipsum": METHODS["lipsum"]}, n=9))
    for command in ("report", "compare"):
        assert "Few images: ID 9, painting 9" in rbft(command, tmp_path, "--format", "markdown")


def test_transductive_rows_are_shown_and_never_ranked(tmp_path: Path) -> None:
    made.write(tmp_path / "runs", made.World(skills=METHODS, n=60, transductive=("lipsum",)))
    (run_set,) = load(store.find_records([tmp_path / "runs"]))
    found = compare(run_set, "ft")
    line = next(line for line in found.lines if line.row.method == "lipsum")
    assert (line.status, line.letters, line.rank) == ("transductive", "", None)
    assert not next(c for c in found.claims if c.row == "lipsum").tested
    assert "transductive" in rbft("report", tmp_path / "runs", "--format", "markdown")
    claim_store.add([tmp_path / "runs"], tmp_path / "boards", TRUST)
    row = next(r for r in ranking.boards(claim_store.find(tmp_path / "boards"))[0].rows if r.method == "lipsum")
    assert not row.ranked
    assert row.note.startswith("transductive")


def test_seeds_run_with_two_states_of_a_method_are_no_row(tmp_path: Path) -> None:
    for seed, code in ((0, "a"), (1, "b")):
        made.write(tmp_path, made.World(skills={"ft": METHODS["ft"]}, n=30, seeds=(seed,), code=code))
    with pytest.raises(RbftError, match="two states of method 'ft'"):
        load(store.find_records([tmp_path]))


# -- commands ---------------------------------------------------------------------------------------------------------


def test_a_suite_that_cannot_be_compared_stops_no_other(tmp_path: Path) -> None:
    made.write(tmp_path, made.World(skills=METHODS, n=60))
    made.write(tmp_path, made.World(suite="digits", skills={"lipsum": METHODS["lipsum"]}, n=60))
    done = CliRunner().invoke(main, ["compare", str(tmp_path), "--format", "markdown"])
    assert done.exit_code == 2
    assert "no row 'ft' in digits v2" in done.output
    assert "shapes v2" in done.output
    assert "lipsum" in done.output
    assert "digits v1" not in rbft("compare", tmp_path, "--suite", "shapes")
    done = CliRunner().invoke(main, ["report", str(tmp_path), "--suite", "shape"])
    assert done.exit_code == 2
    assert "there are runs on digits, shapes" in done.output


def test_diff_reads_published_runs_and_names_images(told: dict[str, Any], tmp_path: Path) -> None:
    mine = next(iter(sorted(told["runs"].glob("*/*/ft-*/seed-0"))))
    theirs = next(iter(sorted(told["boards"].glob("shapes-v2/predictions/*/lipsum-*/seed-0"))))
    rbft("diff", mine, theirs, "--json", tmp_path / "diff.json")
    found = json.loads((tmp_path / "diff.json").read_text())
    left, right = (claim_store.find_run(folder).predictions("final", "sketch") for folder in (mine, theirs))
    split = next(split for split in found["splits"] if split["split"] == "sketch")
    expected = [name for name, a, b in zip(left.ids, left.correct, right.correct, strict=True) if a and not b]
    assert split["only_a"] == expected
    assert expected
    assert expected[0] in rbft("diff", mine, theirs, "--format", "markdown")


def test_diff_names_classes_where_a_run_tells_them(tmp_path: Path) -> None:
    made.write(tmp_path, made.World(skills={"ft": METHODS["ft"], "lipsum": METHODS["lipsum"]}, n=60, seeds=(0,)))
    a, b = (claim_store.find_run(next(tmp_path.glob(f"*/*/{m}-*/seed-0"))) for m in ("ft", "lipsum"))
    a.env["labels"] = {"classes": [f"kind {k}" for k in range(made.CLASSES)]}
    shown = "".join(map(markdown, two_runs.sections(two_runs.two_runs(a, b))))
    assert re.search(r"kind \d: \d+/\d+", shown)


def test_claims_say_which_numbers_are_official(told: dict[str, Any]) -> None:
    for one in claim_store.find(told["boards"]):
        by_metric = one.claim.results.rows[0].estimates
        assert ("official" in by_metric) == ("official" in told["board"]["rows"][0])
        if "official" in by_metric:
            value = by_metric["official"]["mean OOD"].value
            assert math.isfinite(value)
            assert value != by_metric["accuracy"]["mean OOD"].value
        assert one.claim.schema == 2
