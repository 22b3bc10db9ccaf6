"""The Python face: its examples run, its names are there and cost nothing, and old addresses still lead somewhere."""

import doctest
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import robustbench_ft as rb
from robustbench_ft import notebook, plot
from robustbench_ft._names import MOVED
from robustbench_ft.errors import RbftError

REPO = Path(__file__).parent.parent


def python(code: str, folder: Path) -> str:
    """What a fresh process prints; FutureWarnings come in its standard error."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def examples() -> list[doctest.DocTest]:
    """Of the face, the one that makes the records first."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for module in (notebook, plot) for test in finder.find(module) if test.examples]
    return sorted(found, key=lambda test: test.name != "robustbench_ft.notebook.run")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the records of the first example under runs/."""
    return tmp_path_factory.mktemp("face")


@pytest.mark.parametrize("example", examples(), ids=lambda test: test.name)
def test_examples_of_the_face_run(example: doctest.DocTest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=said.append)
    assert not said, "".join(said)


def test_every_function_of_the_face_has_an_example() -> None:
    shown = {test.name.rpartition(".")[2] for test in examples()}
    functions = {
        "compare",
        "diagnose",
        "load",
        "load_model",
        "methods",
        "run",
        "scatter",
        "suite",
        "suites",
        "table",
        "tune",
        "Records",
    }
    assert shown == functions


def test_the_page_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", (REPO / "docs" / "python.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) > 2
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert {"runs", "model"} <= names.keys()


def test_tables_are_those_of_the_command_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    runs = rb.load()
    assert "ft (steps=2)" in runs.markdown()
    assert "<td>ft (steps=2)</td>" in runs._repr_html_()  # pyright: ignore[reportPrivateUsage]
    found = rb.compare(runs, baseline="zero-shot")
    assert {"difference to zero-shot", "letters"} <= set(re.split(r"\s*\|\s*", found.markdown()))
    assert "<th" in found._repr_html_()  # pyright: ignore[reportPrivateUsage]
    frame = runs.table(pandas=True)
    assert list(frame["method"]) == ["zero-shot", "ft"]


def test_what_is_not_there_is_said(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(RbftError, match=r"no run of method 'flyp' there; there are ft on digits, seed 0; ft on"):
        rb.load().of(method="flyp")
    with pytest.raises(RbftError, match="keeps no tuned weights"):
        rb.load_model(tmp_path)
    with pytest.raises(RbftError, match=r"these records make 2 \(digits v1.*shapes v2"):
        rb.plot.scatter([*rb.load(), *rb.load(REPO / "leaderboards" / "shapes-v2")])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(RbftError, match="pip install pandas"):
        rb.load().table(pandas=True)


def test_published_claims_are_records() -> None:
    runs = rb.load(REPO / "leaderboards" / "digits-v1")
    assert {row["method"] for row in runs.table()} >= {"ft", "lipsum", "zero-shot"}


def test_names_are_listed_and_cost_nothing(tmp_path: Path) -> None:
    listed = python("import robustbench_ft as rb, sys\nprint(*dir(rb))\nassert 'numpy' not in sys.modules", tmp_path)
    assert listed.split() == sorted([*rb.__all__, "__version__"])
    starred = python("from robustbench_ft import *\nprint(*[n for n in dir() if n[0] != '_'])", tmp_path)
    assert starred.split() == sorted(rb.__all__)
    code = "import sys, robustbench_ft as rb\nrb.load, rb.compare, rb.plot, rb.methods(), rb.suites()"
    assert python(f"{code}\nprint('torch' in sys.modules)", tmp_path).split() == ["False"]


@pytest.mark.parametrize("name", ["compare", "diagnose", "methods", "suite"])
def test_a_module_that_shares_its_name_with_a_function_is_both(name: str, tmp_path: Path) -> None:
    code = f"import robustbench_ft as rb, inspect\nimport robustbench_ft.{name} as module\nassert module is rb.{name}\n"
    asked = {"methods": "rb.methods()['ft'][:2]", "suite": "rb.suite('digits').name", "compare": "callable(rb.compare)",
             "diagnose": "callable(rb.diagnose)"}  # fmt: skip
    shown = python(f"{code}print({asked[name]}, list(inspect.signature(rb.{name}).parameters)[:1])", tmp_path)
    expected = {"methods": "FT []", "suite": "digits ['name']", "compare": "True ['records']",
                "diagnose": "True ['records']"}  # fmt: skip
    assert shown.strip() == expected[name]


@pytest.mark.parametrize(
    ("line", "new"),
    [
        ("from robustbench_ft.trees import class_folders as found", "images.folders"),
        ("from robustbench_ft import places as found", "images.roots"),
        ("import robustbench_ft.store as found", "record.store"),
        ("from robustbench_ft.bench import WARMUP as found", "bench.step"),
    ],
)
def test_an_old_address_leads_to_the_new_one_and_says_it(line: str, new: str, tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(f"{line}\nprint(found.__name__ if hasattr(found, '__name__') else 'there')\n")
    said = python("import plugin", tmp_path)
    assert len(re.findall("FutureWarning", said)) == 1
    assert f"robustbench_ft.{new}" in said
    assert "plugin.py:1:" in said
    assert "the old name goes with the next version" in said


def test_every_new_address_is_there_and_no_old_one_hides_a_module() -> None:
    for old, new in MOVED.items():
        assert not (REPO / "robustbench_ft" / f"{old.replace('.', '/')}.py").exists()
        assert import_module(f"robustbench_ft.{new}").__name__ == f"robustbench_ft.{new}"
