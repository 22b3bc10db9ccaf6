"""`rbft show METHOD` and docs/methods: what a method says of itself, in whole and up to date."""

import re
from dataclasses import fields
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from robustbench_ft import registry
from robustbench_ft.board import paper
from robustbench_ft.cli import method_card
from robustbench_ft.cli.main import main
from robustbench_ft.method import Method

ROOT = Path(__file__).resolve().parent.parent
BUILT_IN = sorted(name for name, entry in registry.entries("method").items() if entry.shelf == "builtin")


def _script() -> Any:
    """docs/methods.py, by another name than the folder of methods has."""
    spec = spec_from_file_location("method_pages", ROOT / "docs" / "methods.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pages = _script()


def shown(name: str) -> str:
    done = CliRunner().invoke(main, ["show", name])
    assert done.exit_code == 0, done.output
    return done.stdout


def part(text: str, title: str) -> list[str]:
    """The lines below a title."""
    return text.partition(f"\n{title}")[2].partition("\n\n")[0].splitlines()[1:]


def test_the_pages_are_those_of_the_methods_of_today() -> None:
    assert not pages.stale(), "run `python docs/methods.py`"


def test_a_page_that_was_edited_by_hand_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in pages.PAGES.glob("*.md"):
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(pages, "PAGES", tmp_path)
    assert pages.stale() == []
    text = (tmp_path / "lipsum.md").read_text(encoding="utf-8")
    (tmp_path / "lipsum.md").write_text(text.replace("70.0", "71.0"), encoding="utf-8")
    (tmp_path / "gone.md").write_text("# gone\n")
    (tmp_path / "ft.md").unlink()
    assert pages.stale() == ["ft.md", "gone.md", "lipsum.md"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_show_says_all_that_is_declared(name: str) -> None:
    text, kind = shown(name), registry.load("method", name, Method)
    flat = " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    for declared in (*(vars(kind).get(key, "") for key in ("equation", "source", "oracle")), *kind.traps):
        assert " ".join(declared.split()) in flat or declared not in vars(kind).get("traps", ())
    for field in fields(kind):
        assert field.name == "recipe" or f"\n  {field.name} " in text
    for suite in kind.published:
        assert f"\n  {suite} " in text
    assert f"{kind.passes:g} forward pass" in flat
    assert f"(method version {kind.version})" in flat
    assert flat.count("rbft show SUITE") == kind.trains


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_method_states_where_it_is_from(name: str) -> None:
    card = method_card.card(name, registry.resolve("method", name))
    assert card.equation
    assert card.source
    assert card.oracle


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_newcomer_is_told_what_every_setting_is(name: str) -> None:
    card = method_card.card(name, registry.resolve("method", name))
    assert [s.name for group in card.groups for s in group.symbols if not s.comment] == []
    assert "`" not in registry.load("method", name, Method).equation  # the page sets all of it as code


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lipsum", "with strength=0.0 it equals ft, to the bit"),
        ("dawin", "its candidate zero-shot equals zero-shot, to the bit"),
        ("ties", "with members=1 its candidate lambda-0 equals zero-shot, to the bit"),
        ("vrf", "its headline answers with several models: nothing can follow it"),
    ],
)
def test_what_is_declared_reads_as_a_sentence(name: str, says: str) -> None:
    assert says in " ".join(shown(name).split())


def test_settings_come_with_the_comment_beside_them() -> None:
    lines = part(shown("lipsum"), "settings of lipsum")
    assert [re.split(r"  +", line.strip()) for line in lines] == [
        ["strength", "float", "1.0", "lambda"],
        ["n_texts", "int", "80", "M, drawn afresh every step"],
        ["text_length", "int", "8", "random tokens between start and end"],
        ["mode", "sampled|expected", "sampled", "texts of each step, or their mean"],
        ["n_expected", "int", "10000", "texts, in the mode 'expected'"],
    ]
    assert "settings of ft" not in shown("lipsum")  # FT has none


SOURCE = '''"""Odd: fields of every kind, on top of those of another method."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from robustbench_ft.method import FileName
from robustbench_ft.methods.lipsum import LipsumFT


@dataclass(frozen=True)
class Odd(LipsumFT):
    """Does what Lipsum-FT does."""

    traps: ClassVar[tuple[str, ...]] = ("none",)
    # of what is above,
    # in two lines
    above: float = 0.5

    strength: float = 2.0  # lambda, of another size
    way: Literal["one", "two"] = "one"  # which "#" is meant
    file: FileName = ""
'''


def test_inherited_settings_are_grouped_by_the_method_that_declares_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("odd.py").write_text(SOURCE)
    text = shown("./odd.py")
    assert [re.split(r"  +", line.strip()) for line in part(text, "settings of odd")] == [
        ["above", "float", "0.5", "of what is above, in two lines"],
        ["strength", "float", "2.0", "lambda, of another size"],
        ["way", "one|two", "one", 'which "#" is meant'],
        ["file", "FileName", "''"],
    ]
    inherited = ["n_texts", "text_length", "mode", "n_expected"]
    assert [line.split()[0] for line in part(text, "settings of lipsum")] == inherited
    assert "equation" not in text  # Lipsum-FT's is not its own
    assert "trap      none\n" in text
    assert "rows of papers" not in text


def test_a_composition_shows_the_settings_of_both() -> None:
    text = shown("lipsum+wise-ft")
    assert len(part(text, "settings of lipsum")) == 5
    assert part(text, "settings of wise-ft")[0].startswith("  alpha  float  0.5")
    assert "equation" not in text


def test_rows_of_papers_go_to_their_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ROOT / "leaderboards" / paper.FILE
    found = method_card.paper_rows(registry.resolve("method", "wise"), file)
    assert {row.method for row in found} >= {"WiSE-FT", "WiSE-FT (0.5)"}
    assert not [row for row in method_card.paper_rows(registry.resolve("method", "ft"), file) if row.method != "FT"]
    assert "ID 88.90, painting 66.38" in " ".join(shown("lipsum-ft").split())
    monkeypatch.chdir(tmp_path)
    assert method_card.published_file() == file
    (tmp_path / "leaderboards").mkdir()
    (tmp_path / "leaderboards" / paper.FILE).write_text("[]")
    assert "rows of papers" not in shown("lipsum")
