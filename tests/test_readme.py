"""The README holds what was measured, and its example is a method that works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from robustbench_ft import registry
from robustbench_ft.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_tables_are_those_of_the_results() -> None:
    assert subprocess.run([sys.executable, ROOT / "docs" / "fill.py", "--check"], check=False).returncode == 0


def test_no_number_of_the_study_was_typed_in() -> None:
    page = ROOT / "docs" / "study" / "page.py"
    assert subprocess.run([sys.executable, page, "--check"], check=False).returncode == 0


def test_it_counts_the_methods_that_there_are() -> None:
    built_in = [entry for entry in registry.entries("method").values() if entry.shelf == "builtin"]
    assert {int(n) for n in re.findall(r"(\d+) methods", README)} == {len(built_in)}


def test_every_command_it_shows_exists() -> None:
    for command in re.findall(r"^    rbft ([a-z]+)", README, re.MULTILINE):
        assert command in main.commands


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))], ids=lambda p: p.name)
def test_every_file_a_page_links_exists(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


def test_its_method_in_25_lines_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = README.partition("<!-- method -->")[2].partition("```python\n")[2].partition("```")[0]
    assert len(source.strip().splitlines()) <= 27
    (tmp_path / "acme_methods").mkdir()
    (tmp_path / "acme_methods" / "__init__.py").write_text('"""A shelf."""\n')
    (tmp_path / "acme_methods" / "l2_sp.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    entry = registry._read("acme_methods.l2_sp", tmp_path / "acme_methods" / "l2_sp.py", "acme")  # pyright: ignore
    monkeypatch.setitem(registry.entries("method"), "l2-sp", entry)
    out = tmp_path / "runs"
    words = f"run --method l2-sp --suite digits --set steps=2 --set batch=8 --set strength=0.1 --out {out} --threads 1"
    done = CliRunner().invoke(main, words.split())
    assert done.exit_code == 0, done.output
    log = next(out.rglob("log.jsonl")).read_text()
    assert '"l2_sp"' in log
