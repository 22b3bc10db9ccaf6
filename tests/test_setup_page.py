"""docs/setup-check.md and docs/results/setup_check.md: their commands exist, their numbers are those of the data."""

import re
import shlex
from pathlib import Path

import click
import pytest
from test_setup import FAULTS

from robustbench_ft.cli.main import main
from robustbench_ft.reference import numbers
from robustbench_ft.reference.causes import CAUSES

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = (DOCS / "setup-check.md").read_text(encoding="utf-8")
RESULTS = (DOCS / "results" / "setup_check.md").read_text(encoding="utf-8")
LEDGER = (DOCS / "reproduce.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("line", re.findall(r"^    rbft (.+)$", PAGE + LEDGER, re.MULTILINE))
def test_its_commands_parse(line: str) -> None:
    name, *words = shlex.split(line)
    with main.commands[name].make_context(name, words) as context:
        assert isinstance(context, click.Context)


def test_its_table_of_numbers_counts_what_is_there() -> None:
    every = [reference for some in numbers.every().values() for reference in some]
    for suite, source in {(r.suite, r.source) for r in every}:
        models = len({(r.model, r.pretrained) for r in every if (r.suite, r.source) == (suite, source)})
        own = (
            "same" if suite.startswith("wilds") or suite == "domainnet" else source.partition("/")[2].partition(",")[0]
        )
        shown = str(models) if models > 1 else "ViT-B-16 openai"
        rows = [line for line in PAGE.splitlines() if line.startswith(f"| {suite} ") and own in line]
        assert any(f"| {shown} |" in row for row in rows), (suite, source, models)


def test_its_allowances_are_those_of_the_data() -> None:
    prose = re.sub(r"\s+", " ", PAGE)
    columns = numbers.COLUMNS
    for name, words in {"ObjectNet": "1.5 points", "iWildCam": "1,", "FMoW": "2,", "Camelyon17": "5."}.items():
        assert f"{100 * columns[name].allowance:g}" == words.partition(" ")[0].rstrip(".,")
        assert re.search(rf"{name} (\([^)]*\) )?{re.escape(words)}", prose), name
    assert f"{100 * columns['ImageNet 1k'].allowance:g} points where transform and prompts are the same" in prose
    assert f"authors made: {100 * numbers.LIPSUM_ALLOWANCE:.1f} points" in prose


def test_every_cause_is_explained_and_every_fault_was_shown() -> None:
    assert [row for row in re.findall(r"^\| ([a-z0-9 ]+) \|", PAGE, re.MULTILINE) if row in CAUSES] == list(CAUSES)
    rows = dict(re.findall(r"^\| ([^|]+) \| (.*) \|$", RESULTS, re.MULTILINE))
    assert "| inside |" in rows["none"]
    for name, (_, split, cause, text) in FAULTS.items():
        assert rows[name].startswith(f"{split} | ")
        assert f"| outside | {cause} (found) | " in rows[name]
        assert text in rows[name]
