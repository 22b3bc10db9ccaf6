"""What the first words typed at a shell are answered with: help by purpose, and names completed."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.shell_completion import CompletionItem
from click.testing import CliRunner

from robustbench_ft import registry
from robustbench_ft.cli import completion
from robustbench_ft.cli.main import EPILOG, SECTIONS, WIDEST, main

CONTEXT = click.Context(main)
OPTION = click.Option(["--name"])
Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def test_every_command_stands_in_one_section() -> None:
    listed = [command.name for commands in SECTIONS.values() for command in commands]
    assert sorted(map(str, listed)) == sorted(main.commands)
    assert max(len(name) for name in main.commands) <= WIDEST


def test_help_is_by_purpose_and_whole_at_80_columns() -> None:
    shown = CliRunner().invoke(main, [], terminal_width=80).output
    for heading, commands in SECTIONS.items():
        assert f"\n{heading}:\n" in shown
        assert all(line in shown for line in commands.values()), "no line is cut or wrapped"
    assert max(map(len, shown.splitlines())) <= 80


def test_every_example_of_the_help_is_a_command_that_parses() -> None:
    examples = [line.strip().partition("  ")[0].split() for line in EPILOG.splitlines() if line.startswith("  rbft")]
    assert len(examples) > 3
    for words in examples:
        main.commands[words[1]].make_context(words[1], [*map(str, words[2:])], parent=CONTEXT)


@pytest.mark.parametrize(
    ("complete", "typed", "offered"),
    [
        (completion.methods, "lip", ["lipsum"]),
        (completion.methods, "lipsum+wise", ["lipsum+wise-ft"]),
        (completion.suites, "dig", ["digits"]),
        (completion.both, "fl", ["flyp"]),
        (completion.both, "shap", ["shapes"]),
    ],
)
def test_names_are_completed(complete: Complete, typed: str, offered: list[str]) -> None:
    assert [item.value for item in complete(CONTEXT, OPTION, typed)] == offered


def test_nothing_typed_offers_everything_with_its_line() -> None:
    found = {item.value: item.help for item in completion.methods(CONTEXT, OPTION, "")}
    assert found == {name: entry.summary for name, entry in registry.entries("method").items()}


def test_a_path_is_left_to_the_shell() -> None:
    (item,) = completion.methods(CONTEXT, OPTION, "./my_met")
    assert (item.value, item.type) == ("./my_met", "file")


def test_cells_are_offered_where_runs_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs/shapes/embedded/ft-4f358087/seed-0").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    found = completion.cells(CONTEXT, OPTION, "runs/sha")
    assert [item.value for item in found] == ["runs/shapes/embedded/ft-4f358087/seed-0"]


def test_a_shell_is_answered_by_the_program_itself() -> None:
    words = {"_RBFT_COMPLETE": "bash_complete", "COMP_WORDS": "rbft run --method lips", "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-c", "from robustbench_ft.cli.main import main; main(prog_name='rbft')"],
        env={**os.environ, **words}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["plain,lipsum"]
