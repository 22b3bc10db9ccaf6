"""A method that is named by the path of its file: `--method ./my_method.py`."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import robustbench_ft as rb
from robustbench_ft import plan, provenance, registry
from robustbench_ft.cli.main import main
from robustbench_ft.errors import RbftError
from robustbench_ft.method import Method

METHOD = '''"""Pull: FT whose loss is scaled, by a helper beside it."""

from dataclasses import dataclass

from robustbench_ft import Batch, Clip, Run, TrainSet
from robustbench_ft.methods.ft import FT
from robustbench_ft.train import LossTerms, Objective

from .helper import FACTOR


@dataclass(frozen=True)
class Pull(FT):
    """nll * FACTOR * strength."""

    strength: float = 1.0

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        inner = super().objective(clip, data, run)

        def loss(batch: Batch) -> LossTerms:
            return {name: FACTOR * self.strength * term for name, term in inner(batch).items()}

        return loss
'''
Rbft = Callable[..., Result]
pytestmark = pytest.mark.usefixtures("shelves")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, with the method and its helper."""
    monkeypatch.chdir(tmp_path)
    write("my_pull.py", METHOD)
    write("helper.py", "FACTOR = 1\n")
    yield tmp_path
    registry._files.clear()  # pyright: ignore[reportPrivateUsage]


@pytest.fixture
def rbft(tiny_model: str) -> Rbft:
    """`rbft run` on the tiny suite."""

    def run(*words: str) -> Result:
        some = ("--suite", "tiny", "--model", tiny_model, "--set", "steps=2", "--out", "out", "--device", "cpu")
        return CliRunner().invoke(main, ["run", *words, *some])

    return run


def write(name: str, text: str) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def cell() -> dict[str, Any]:
    [path] = Path("out").rglob("cell.json")
    return json.loads(path.read_text())


def refused(result: Result) -> str:
    """The one line of an error."""
    assert result.exit_code == 2, (result.output, result.exception)
    assert "Traceback" not in result.output
    [line] = [line for line in result.stderr.splitlines() if line.startswith("rbft: ")]
    return line.removeprefix("rbft: ")


def test_a_run_names_its_file_and_no_folder(rbft: Rbft, here: Path) -> None:
    assert rbft("--method", "./my_pull.py", "--set", "my-pull.strength=2").exit_code == 0
    found = cell()
    assert found["method"] == "my-pull"
    assert found["settings"] == {"strength": 2.0}
    assert set(found["code"]["files"]) == {"my_pull.py", "helper.py", "robustbench_ft/methods/ft.py"}
    assert found["code"]["distribution"] == "file my_pull.py"
    assert str(here) not in "".join(p.read_text() for p in Path("out").rglob("*.json*") if p.name != "env.json")
    assert not list(here.rglob("__pycache__"))


@pytest.mark.parametrize("edited", ["my_pull.py", "helper.py"])
def test_an_edit_is_noticed_in_the_same_process(edited: str, rbft: Rbft) -> None:
    assert rbft("--method", "my_pull.py").exit_code == 0
    before = cell()["code"]
    assert ": done before\n" in rbft("--method", "my_pull.py").stderr
    path = Path(edited)
    path.write_text(path.read_text().replace("FACTOR * self", "FACTOR / self").replace("= 1\n", "= 3\n"))
    line = refused(rbft("--method", "my_pull.py"))
    assert line.startswith("my-pull changed since out/tiny/")
    assert f"was run ({edited}): --rerun runs it again" in line
    assert rbft("--method", "./my_pull.py", "--rerun").exit_code == 0
    changed = {name for name, digest in cell()["code"]["files"].items() if before["files"][name] != digest}
    assert changed == {edited}


def test_an_edited_file_runs_as_it_is_now(rbft: Rbft) -> None:
    """An edit of the same length within the same second: bytecode of before would be taken for that of today."""

    def losses() -> list[str]:
        [log] = Path("out").rglob("log.jsonl")
        return [line for line in log.read_text().splitlines() if '"nll"' in line]

    assert rbft("--method", "my_pull.py").exit_code == 0
    first = losses()
    write("helper.py", "FACTOR = 2\n")
    assert rbft("--method", "my_pull.py", "--rerun").exit_code == 0
    nll = [json.loads(lines[0])["nll"] for lines in (first, losses())]
    assert nll[1] == 2 * nll[0]


def test_two_files_of_one_stem_are_told_apart(rbft: Rbft) -> None:
    for name in ("a", "b"):
        write(f"{name}/my_pull.py", METHOD.replace("by a helper", f"by {name}"))
        write(f"{name}/helper.py", "FACTOR = 1\n")
    line = refused(rbft("--method", "a/my_pull.py", "--method", "b/my_pull.py"))
    assert line == "a/my_pull.py and b/my_pull.py are both method 'my-pull'; rename one of the files"
    assert rbft("--method", "a/my_pull.py").exit_code == 0
    assert "was run (my_pull.py)" in refused(rbft("--method", "b/my_pull.py"))
    loaded = [registry.load("method", f"{name}/my_pull.py", Method) for name in ("a", "b", "a")]
    assert loaded[0] is loaded[2]
    assert len({provenance.code_of(kind).sha256 for kind in loaded}) == 2


def test_it_may_be_followed_by_another_method(rbft: Rbft, here: Path) -> None:
    assert rbft("--method", "./my_pull.py+wise-ft", "--method", "my_pull.py").exit_code == 0
    methods = {json.loads(path.read_text())["method"] for path in Path("out").rglob("cell.json")}
    assert methods == {"my-pull", "my-pull+wise-ft"}
    write("c++/my_pull.py", METHOD)
    assert registry.resolve("method", f"{here}/c++/my_pull.py+ema").name == "my-pull+ema"


def test_a_plan_file_and_a_notebook_name_it_too(rbft: Rbft, tiny_model: str) -> None:
    write("plan.toml", 'method = ["./my_pull.py", "ft"]\nseeds = "0"\n')
    assert rbft("--config", "plan.toml").exit_code == 0
    runs = rb.run(
        Path("my_pull.py"), "tiny", model=tiny_model, set={"my-pull.steps": 2}, progress=False, device="cpu", out="two"
    )
    assert [record.cell["method"] for record in runs] == ["my-pull"]


def test_it_is_checked_and_shown() -> None:
    shown = CliRunner().invoke(main, ["show", "./my_pull.py"])
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("my-pull: Pull: FT whose loss is scaled")
    checked = CliRunner().invoke(main, ["check", "method", "my_pull.py"])
    assert checked.exit_code == 0, checked.output
    assert checked.stdout.count("ok ") > 10


def test_the_file_of_a_registered_method_is_that_method() -> None:
    source = registry.resolve("method", "ft").source
    assert registry.resolve("method", str(source)) == registry.resolve("method", "ft")
    assert registry.load("method", str(source), Method) is registry.load("method", "ft", Method)


def test_the_code_of_a_run_is_that_of_its_start(tiny_model: str) -> None:
    """By its name, which cells hold, the module stays what was imported while cells run."""
    [planned] = plan.make(plan.Request(("my_pull.py",), ("tiny",), (tiny_model,)))
    kind = type(planned.build())
    write("helper.py", "FACTOR = 7\n")
    assert type(planned.build()) is kind
    assert registry.load("method", "my_pull.py", Method) is not kind


ODD = {
    "no file": ("./none.py", "", "./none.py: no such file; name a method's .py file"),
    "a folder": ("./folder.py", None, "./folder.py: this is a folder; name a method's .py file"),
    "not Python": ("./notes.txt", "x", "./notes.txt: a method is named by its file, e.g. notes.py, or by its name"),
    "binary": ("./blob.py", "\x00", "blob.py"),
    "odd name": ("./a.b.py", METHOD, "./a.b.py: the file's name names the method: use letters and digits"),
    "taken": ("./lipsum_ft.py", METHOD, "'lipsum-ft' is a registered method already (robustbench_ft.methods.lipsum)"),
    "no method": ("./a.py", '"""None."""\n', "a.py must hold one public Method, it holds 0"),
    "two": ("./a.py", f"{METHOD}\n\nclass Push(Pull): ...\n", "must hold one public Method, it holds 2: Pull, Push"),
    "syntax": ("./a.py", "x = 1\ndef (", "a.py is not valid Python: invalid syntax, line 2"),
    "import": ("./a.py", "\nimport nonesuch\n", "a.py, line 2: ModuleNotFoundError: No module named 'nonesuch'"),
    "sibling": ("./a.py", "import helper\n", "it lies beside it: write `from .helper import ...`"),
    "copied": (
        "./a.py", "from .ft import FT\n",
        "there is no ft.py beside it; a built-in method is imported as `from robustbench_ft.methods.ft import ...`",
    ),
    "raises": ("./a.py", "x = 1\n\nx / 0\n", "a.py, line 3: ZeroDivisionError: division by zero"),
    "exits": ("./a.py", "import sys\nsys.exit('bye')\n", "a.py, line 2: SystemExit: bye"),
    "old": (
        "./a.py", METHOD.replace("data: TrainSet, run: Run) -> O", "run: Run) -> O"),
        "a.py, line 13: Pull.objective(self, clip, run) is objective(self, clip, data, run) since version 0.3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_what_is_wrong_is_one_line(case: str, rbft: Rbft) -> None:
    name, text, expected = ODD[case]
    if text is None:
        Path(name).mkdir()
    elif text:
        write(name, text)
    for result in (rbft("--method", name), CliRunner().invoke(main, ["check", "method", name])):
        assert expected in refused(result)
    assert not Path("out").exists()


def test_a_name_is_told_to_be_a_file(rbft: Rbft) -> None:
    line = refused(rbft("--method", "my-pull"))
    assert line == "no method 'my-pull' is registered, but a file is called so: write ./my_pull.py"


def test_a_traceback_is_shown_when_asked_for() -> None:
    write("a.py", "\nimport nonesuch\n")
    result = CliRunner().invoke(main, ["--traceback", "check", "method", "a.py"])
    assert isinstance(result.exception, RbftError)
    assert isinstance(result.exception.__cause__, ModuleNotFoundError)


def test_a_file_on_the_path_that_lies_beside_it_is_refused(
    here: Path, rbft: Rbft, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with `python -m robustbench_ft` in that folder: its text would be no part of the method's code."""
    monkeypatch.syspath_prepend(here)
    write("odd_helper.py", "FACTOR = 1\n")
    write("a.py", METHOD.replace("from .helper", "from odd_helper"))
    assert "ImportError: 'odd_helper' lies beside it; write `from .odd_helper import" in refused(
        rbft("--method", "a.py")
    )
