"""What comes from files is text wherever it is shown: no markup, no formula, no tag, no line of its own."""

import csv
import io
import json
from pathlib import Path

import made
import pytest
from click.testing import CliRunner

from robustbench_ft.board import build
from robustbench_ft.claims import claim_store
from robustbench_ft.claims.schema import Trust
from robustbench_ft.cli.main import main

ODD = made.World(
    suite="=cmd$x", model="a\\b|<i>x$y](z)", shifts=("fog$1", "=sum", "cl_ip", "+at"), n=30,
    skills={name: made.SKILLS[name] for name in ("zero-shot", "ft", "wise-ft")},
)  # fmt: skip


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("odd")
    made.write(folder / "runs", ODD)
    for path in (folder / "runs").rglob("env.json"):
        content = json.loads(path.read_text())
        content["cpu"] = "cpu | x\n<script>alert(1)</script>"
        path.write_text(json.dumps(content))
    claim_store.add([folder / "runs"], folder / "boards", Trust("rerun", "me<script>alert(2)</script>", None, "=1+1"))
    return {Path(name).suffix: content for name, content in build.files(folder / "boards", "=cmd$x").items()}


def test_a_spreadsheet_computes_nothing(pages: dict[str, str]) -> None:
    rows = list(csv.DictReader(io.StringIO(pages[".csv"])))
    words = ("suite", "model", "protocol", "row", "method", "letters", "column", "metric")
    assert not [row[word] for row in rows for word in words if row[word].startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert {row["suite"] for row in rows} == {"'=cmd$x"}
    assert {"'=sum", "'+at"} < {row["column"] for row in rows}
    assert all(float(row["value"]) >= 0 for row in rows)


def test_a_page_runs_no_script(pages: dict[str, str]) -> None:
    assert "alert(1)" not in pages[".html"].replace("&lt;script&gt;alert(1)", "")
    assert "<script>alert" not in pages[".html"]
    assert "<i>x" not in pages[".html"]


def test_markdown_stays_in_its_cells(pages: dict[str, str]) -> None:
    assert "\n<script>" not in pages[".md"]
    assert r"## =cmd$x v2, a\\b\|\<i>x$y\](z), protocol clean" in pages[".md"]
    assert r"cpu \| x \<script>alert(1)\</script>" in pages[".md"]


def test_latex_is_escaped(pages: dict[str, str]) -> None:
    assert r"fog\$1 & =sum & cl\_ip" in pages[".tex"]
    begun = ("%", "\\", "Method", "zero-shot", "ft", "wise-ft")
    assert all(line.startswith(begun) for line in pages[".tex"].splitlines() if line)


@pytest.mark.parametrize(("key", "value"), [("model", "two\nlines"), ("protocol", "clean\n# more")])
def test_a_name_of_several_lines_is_refused_where_it_is_read(key: str, value: str, tmp_path: Path) -> None:
    made.write(tmp_path, made.World(skills={"ft": (1.0, 0.1)}, n=20, seeds=(0,)))
    [path] = tmp_path.rglob("cell.json")
    cell = json.loads(path.read_text())
    cell[key] = {**cell["model"], "name": value} if key == "model" else value
    path.write_text(json.dumps(cell))
    done = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert done.exit_code == 2
    assert f"{path} is damaged: {key}" in done.output


def test_dollar_signs_are_drawn(tmp_path: Path) -> None:
    made.write(tmp_path / "runs", ODD)
    done = CliRunner().invoke(main, ["report", str(tmp_path / "runs"), "--figure", str(tmp_path / "x.png")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "x.png").exists()
