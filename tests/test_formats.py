"""Every command that prints a table prints it for other programs too: parseable, unrounded, nothing else on stdout."""

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import made
import numpy as np
import pytest
from click.testing import CliRunner, Result

from robustbench_ft import cache, registry, tabular
from robustbench_ft.cli.main import main
from robustbench_ft.compare import report
from robustbench_ft.record import store
from robustbench_ft.tabular import Shown, Text

Ask = Callable[..., str]


def rbft(*words: object) -> Result:
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code in (0, 1), done.output
    return done


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.write(tmp_path_factory.mktemp("formats") / "runs")


def blocks(text: str, delimiter: str = ",") -> list[list[dict[str, str]]]:
    """The tables of a CSV or TSV: blocks apart by an empty line, each with a header; no line is longer or shorter."""
    found: list[list[dict[str, str]]] = []
    for block in text.strip("\n").split("\n\n"):
        head, *rows = csv.reader(io.StringIO(block), delimiter=delimiter)
        assert len(set(head)) == len(head)
        assert all(len(row) == len(head) for row in rows)
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


def held_to_every_format(*words: object) -> dict[str, Any]:
    """Ask in every format; CSV and TSV say the same. Returns what each printed, parsed where it is for programs."""
    said = {style: rbft(*words, "--format", style).stdout for style in tabular.STYLES}
    comma, tabs = blocks(said["csv"]), blocks(said["tsv"], "\t")
    assert comma == tabs
    assert any("|" in line for line in said["markdown"].splitlines())
    assert said["terminal"]
    return {**said, "csv": comma, "json": json.loads(said["json"])}


# -- the piece itself --------------------------------------------------------------------------------------------------

INTERVAL, TINY = tabular.interval("71.3 ± 0.4", 71.25, 70.85, 71.65), tabular.number(1e-17, text="< .001")
TEXT = Text(
    "A table", ("method", "mean OOD", "p", "note"),
    (
        ("=cmd|' /C calc'!A0", INTERVAL, TINY, "-"),
        ("a,b\t\"c\"", tabular.MISSING, tabular.number(None), "+1"),
        ("ft", tabular.number(math.nan, ".1f"), tabular.number(3), "@home"),
    ),
    "A caption.",
)  # fmt: skip


def test_csv_holds_all_digits_and_nothing_a_spreadsheet_would_compute() -> None:
    [rows] = blocks(tabular.separated([TEXT]))
    assert [*rows[0]] == ["method", "mean OOD", "mean OOD low", "mean OOD high", "p", "note"]
    assert rows[0] == {
        "method": "'=cmd|' /C calc'!A0", "mean OOD": "71.25", "mean OOD low": "70.85", "mean OOD high": "71.65",
        "p": "1e-17", "note": "'-",
    }  # fmt: skip
    assert [*rows[1].values()] == ['a,b\t"c"', "", "", "", "", "'+1"]
    assert [*rows[2].values()] == ["ft", "", "", "", "3", "'@home"]
    assert blocks(tabular.separated([TEXT], "\t"), "\t") == [rows]


def test_several_tables_are_blocks_with_their_titles() -> None:
    one, other = blocks(tabular.separated([TEXT, Text("=other", ("x",), (("1",),))]))
    assert {row["table"] for row in one} == {"A table"}
    assert other == [{"table": "'=other", "x": "1"}]


def test_json_names_columns_and_keeps_numbers() -> None:
    [found] = json.loads(tabular.as_json([TEXT]))
    assert (found["title"], found["caption"]) == ("A table", "A caption.")
    assert found["rows"][0]["mean OOD"] == {"value": 71.25, "low": 70.85, "high": 71.65}
    assert [row["p"] for row in found["rows"]] == [1e-17, None, 3]
    assert found["rows"][2]["mean OOD"] is None  # JSON has no NaN
    assert found["rows"][0]["method"] == "=cmd|' /C calc'!A0"  # nothing computes from JSON


def test_a_shown_number_is_its_text_everywhere_else() -> None:
    cell = tabular.number(71.26, ".1f")
    assert cell == "71.3"
    assert f"{cell:>6}" == "  71.3"
    assert isinstance(cell, Shown)
    assert tabular.starred(cell, "*") == "71.3*"
    [row] = json.loads(tabular.as_json([Text("", ("x",), ((tabular.starred(cell, "*"),),))]))[0]["rows"]
    assert row == {"x": 71.26}


# -- commands ----------------------------------------------------------------------------------------------------------


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> dict[str, click.Command]:
    """Every command without subcommands, by its words."""
    if isinstance(command, click.Group):
        return {
            name: leaf for word, one in command.commands.items() for name, leaf in leaves(one, (*path, word)).items()
        }
    return {" ".join(path): command}


# what a command without tables prints instead
NO_TABLE = {
    "run": "bars and lines of a run that goes on; `report` has its tables", "reproduce": "the same",
    "logs": "what a cell said", "rm": "one line for each cell", "show": "a page in words", "export": "one line",
    "push": "one line", "leaderboard add": "one line for each claim", "leaderboard build": "one line for each file",
    "leaderboard export": "one line for each file; --to has forms", "leaderboard refresh": "one line for each claim",
    "leaderboard schema": "JSON", "leaderboard submit": "one line for each step", "cache prune": "one line",
    "new method": "one line for each file", "new suite": "one line for each file",
}  # fmt: skip


def choices(leaf: click.Command) -> list[str]:
    """What --format takes; nothing where there is none."""
    kinds = [one.type for one in leaf.params if one.name == "style"]
    return [*map(str, kinds[0].choices)] if kinds and isinstance(kinds[0], click.Choice) else []


def test_every_command_with_a_table_takes_every_format() -> None:
    taking = {name: choices(leaf) for name, leaf in leaves(main).items()}
    assert {name for name, some in taking.items() if not some} == set(NO_TABLE)
    assert all(some == list(tabular.STYLES) for some in taking.values() if some)


def test_report(runs: Path) -> None:
    said = held_to_every_format("report", runs, "--baseline", "ft")
    main_rows, against = said["csv"]
    [table] = report.tables(store.find_records([runs]))
    line = next(line for line in table.lines if line.row.name == "lipsum")
    [row] = [row for row in main_rows if row["method"] == "lipsum"]
    found = line.cells["mean OOD"].estimate
    assert float(row["mean OOD"]) == 100 * found.value
    assert (float(row["mean OOD low"]), float(row["mean OOD high"])) == (100 * found.low, 100 * found.high)
    assert float(row["seeds"]) == 3
    assert {row["method"] for row in against} >= {"lipsum", "zero-shot"}
    assert all(row["table"].endswith("difference to ft, points") for row in against)
    assert {row["name"] for row in said["json"][0]["rows"]} == {row["method"] for row in main_rows}
    assert "|:--" not in said["terminal"]  # a table of differences is drawn as the others are


def test_compare_names_the_suite_of_every_table(runs: Path, tmp_path: Path) -> None:
    target = tmp_path / "all.json"
    said = held_to_every_format("compare", runs)
    rbft("compare", runs, "--json", target)
    assert said["json"] == json.loads(target.read_text())
    assert len(said["csv"]) > 2
    assert all(row["table"].startswith("shapes v2") for block in said["csv"] for row in block)
    [claim] = [c for c in said["json"][0]["comparisons"] if c["row"] == "lipsum"]
    [row] = [row for row in said["csv"][0] if row["method"] == "lipsum"]
    assert float(row["difference to ft"]) == 100 * claim["value"]
    assert float(row["p"]) == claim["p"]
    [cells] = [block for block in said["csv"] if "Differences to ft" in block[0]["table"]]
    assert all(float(row["sketch"]) for row in cells)  # a star behind a number does not make it a text


def test_power_and_diff(runs: Path, tmp_path: Path) -> None:
    said = held_to_every_format("power", runs)
    assert float(said["csv"][0][0]["seed sd"]) > 0
    assert said["json"][0]["rows"][0]["seeds"] == 3
    a, b = sorted((runs / "shapes" / "embedded").glob("ft-*/seed-*"))[:2]
    said = held_to_every_format("diff", a, b)
    [answers] = [block for block in said["csv"] if block[0]["table"] == "Answers"]
    [split] = [split for split in said["json"]["splits"] if split["split"] == "sketch"]
    [row] = [row for row in answers if row["split"] == "sketch"]
    assert float(row["A"]) == 100 * split["accuracies"][0]
    assert float(row["B - A, pt low"]) < float(row["B - A, pt"]) < float(row["B - A, pt high"])


def test_status(runs: Path) -> None:
    done = rbft("status", runs, "--all", "--format", "csv")
    [rows] = blocks(done.stdout)
    assert {row["state"] for row in rows} == {"done"}
    assert "13 cells under" in done.stderr
    said = held_to_every_format("status", runs, "--all")
    assert len(said["json"]) == len(rows) == 13


def test_list() -> None:
    said = held_to_every_format("list")
    [rows] = said["csv"]
    assert {"kind", "name", "summary", "shelf"} == set(rows[0])
    assert [row["name"] for row in said["json"][0]["rows"]] == [row["name"] for row in rows]
    assert {row["kind"] for row in blocks(rbft("list", "suites", "--format", "csv").stdout)[0]} == {"suite"}


def test_cache_ls() -> None:
    cache.array("drawn", "formats", lambda: np.zeros(3000, np.uint8))
    for words in ((), ("--all",)):
        said = held_to_every_format("cache", "ls", *words)
        assert sum(int(row["size"]) for row in said["csv"][0]) >= 3000
        assert all(row["last used"].endswith("+00:00") for row in said["csv"][0])


def test_verify_and_data(runs: Path, tmp_path: Path) -> None:
    rbft("leaderboard", "add", runs, "--boards", tmp_path / "boards")
    said = held_to_every_format("leaderboard", "verify", "--boards", tmp_path / "boards")
    assert {row["verdict"] for row in said["csv"][0]} == {"ok"}
    assert len(said["csv"][0]) == 5
    said = held_to_every_format("data", "where", "imagenet")
    assert any(row["fact"] for row in said["csv"][0])


def test_data_check(tree: Path, clinic_shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(clinic_shelf)
    registry.entries.cache_clear()
    try:
        said = held_to_every_format("data", "check", "clinic", "--root", tree)
    finally:
        registry.entries.cache_clear()
    images = {one["split"]: one.get("images") for one in said["json"]["splits"]}
    assert {row["split"]: int(row["images"]) for row in said["csv"][0]} == images


@pytest.mark.usefixtures("shelves")
def test_checks_of_a_method_and_a_suite() -> None:
    for words in (("method", "zero-shot"), ("suite", "tiny")):
        said = held_to_every_format("check", *words)
        assert {row["verdict"] for row in said["csv"][0]} == {"ok"}
        assert len(said["csv"][0]) == said["terminal"].count("ok ")


@pytest.mark.usefixtures("shelves")
def test_tune_shows_its_trials(tiny_model: str, tmp_path: Path) -> None:
    words = ("tune", "--method", "ft", "--suite", "tiny", "--model", tiny_model, "--trials", 2, "--out", tmp_path / "t")
    said = held_to_every_format(*words, "--dry-run")
    assert [row["trial"] for row in said["csv"][0]] == ["0", "1"]
    for style in ("csv", "json", "terminal"):
        said[style] = rbft(*words, "--format", style).stdout
    tables = blocks(said["csv"])
    assert any("Budget" in table[0]["table"] for table in tables)
    assert json.loads(said["json"])[0]["entrants"][0]["name"] == "ft"


@pytest.mark.usefixtures("shelves")
def test_bench(tiny_model: str) -> None:
    words = (
        "bench",
        "--suite",
        "tiny",
        "--model",
        tiny_model,
        "--batch",
        4,
        "--rounds",
        2,
        "--steps",
        1,
        "--method",
        "ft",
    )
    [rows] = blocks(rbft(*words, "--format", "csv").stdout)
    assert [row["contestant"] for row in rows] == ["bare loop", "ft"]
    assert all(float(row["ms/step"]) > 0 for row in rows)
    assert {*json.loads(rbft(*words, "--format", "json").stdout)["contestants"]} == {"bare loop", "ft"}


def test_bench_loader(tiny_model: str) -> None:
    words = ("bench-loader", "--model", tiny_model, "--images", 20, "--batch", 10, "--rounds", 1, "--workers", 1)
    [rows] = blocks(rbft(*words, "--format", "csv").stdout)
    found = json.loads(rbft(*words, "--format", "json").stdout)
    assert [row["loader"] for row in rows] == [*found["loaders"]]
    assert all(float(row["images/s"]) > 0 for row in rows)
    assert "/ torchvision low" in rows[0]
