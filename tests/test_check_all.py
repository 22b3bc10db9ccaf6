"""`rbft check method --all`: a line for each registered method, and which fail."""

import pytest
from click.testing import CliRunner

from robustbench_ft import checks, registry
from robustbench_ft.checks import Check
from robustbench_ft.cli.main import main


def test_all_methods_have_a_line_and_failures_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise AssertionError("it moves")

    def made(kind: type) -> list[Check]:
        return [Check("stays", fail if kind.__name__ == "KD" else lambda: None)]

    monkeypatch.setattr(checks, "check_method", made)
    done = CliRunner().invoke(main, ["check", "method", "--all"])
    lines, n = done.stdout.splitlines(), len(registry.entries("method"))
    assert (done.exit_code, len(lines)) == (1, n + 1)
    assert "FAILED  kd: stays: it moves" in lines
    assert "ok      ft: 1 checks" in lines
    assert lines[-1] == f"{n - 1} of {n} methods pass"


@pytest.mark.parametrize("words", [[], ["ft", "--all"]])
def test_one_method_or_all_are_named(words: list[str]) -> None:
    done = CliRunner().invoke(main, ["check", "method", *words])
    assert done.exit_code == 2
    assert done.stderr == "rbft: name one method, as in `rbft check method ft`, or all with --all\n"


def test_at_least_thirty_five_methods_are_listed() -> None:
    assert len(registry.entries("method")) >= 35
