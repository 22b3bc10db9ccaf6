"""docs/add-a-method.md and the checks of docs/contract.md: every command and file, as an author would use them."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from robustbench_ft import registry
from robustbench_ft.checks import check_method
from robustbench_ft.cli.main import main
from robustbench_ft.method import Method

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
CONTRACT = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
STEPS = re.findall(r"<!-- run: (\w+) -->\n((?:    .*\n)+)", PAGE)


def block(page: str, marker: str) -> str:
    """The code block that follows a marker."""
    return page.partition(f"<!-- {marker} -->")[2].partition("```")[2].partition("\n")[2].partition("```")[0]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Command -> what it printed, of all commands of the page in their order, in a folder with the committed boards."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(ROOT / "leaderboards", folder / "leaderboards")
    found: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in (line.strip() for _, lines in STEPS for line in lines.splitlines()):
            done = CliRunner().invoke(main, shlex.split(line)[1:])
            assert done.exit_code == 0, (line, done.output, done.exception)
            found[line] = done.stdout
        found["file"] = Path("my_pull.py").read_text(encoding="utf-8")
        found["boards"] = "\n".join(sorted(p.as_posix() for p in Path("my-boards").rglob("*") if p.is_file()))
    registry._files.clear()  # pyright: ignore[reportPrivateUsage]
    return found


def output(outputs: dict[str, str], start: str) -> str:
    [text] = [text for line, text in outputs.items() if line.startswith(start)]
    return text


def test_the_page_has_its_five_steps() -> None:
    assert [name for name, _ in STEPS] == ["new", "show", "run", "compare", "board"]
    shown = re.findall(r"^    rbft .+$", PAGE, re.MULTILINE)
    assert shown == [line for _, lines in STEPS for line in lines.splitlines()]


def test_the_file_on_the_page_is_what_is_written(outputs: dict[str, str]) -> None:
    assert block(PAGE, "file: my_pull.py") == outputs["file"]


def test_it_is_checked_run_compared_and_put_on_a_board(outputs: dict[str, str]) -> None:
    checked = output(outputs, "rbft check").splitlines()
    assert len(checked) > 12
    assert all(line.startswith("ok ") for line in checked)
    assert "ok      final-with-strength=0.0-is-ft" in checked
    assert "strength  float  1.0  lambda; 0 is FT" in output(outputs, "rbft show")
    assert output(outputs, "rbft run").count("records  ") == 2
    assert re.search(r"my-pull .*3 ", output(outputs, "rbft compare runs --baseline"))
    published = output(outputs, "rbft compare runs leaderboards")
    assert all(re.search(rf"│ {re.escape(name)}", published) for name in ("my-pull (batch=32", "lipsum ", "ft "))
    assert "2 of 2 claims hold" in output(outputs, "rbft leaderboard verify")
    assert "my-boards/site/index.html" in outputs["boards"]
    assert re.search(r"my-boards/shapes-v2/embedded/my-pull-\w{8}\.json", outputs["boards"])


def test_the_failing_example_fails_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("careless.py").write_text(block(CONTRACT, "careless"), encoding="utf-8")
    done = CliRunner().invoke(main, ["check", "method", "./careless.py"])
    assert done.exit_code == 1
    shares = re.compile(r"[\d.]+(e[-+]\d+)?%")  # another one each time, as its noise
    assert shares.sub("x%", done.stdout) == shares.sub("x%", block(CONTRACT, "failing"))


def test_the_test_on_the_page_is_one() -> None:
    code = block(CONTRACT, "checks").replace("from .careless import Careless", "Careless = kind")
    space = {"kind": registry.load("method", "zero-shot", Method), "__name__": "page"}
    exec(compile(code, "contract.md", "exec"), space)
    [mark] = space["test_it_keeps_the_contract"].pytestmark  # pyright: ignore
    assert [str(check) for check in mark.args[1]] == [str(check) for check in check_method(space["kind"])]  # pyright: ignore
