"""`pip install -e .`: edits take effect, types reach a file outside the clone, and the wheel is not changed by it."""

import json
import shutil
import sys
import tarfile
import venv
import zipfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from subprocess import CompletedProcess, run
from typing import Any

import pytest

REPO = Path(__file__).parent.parent
TREE = ("robustbench_ft", "methods", "benchmarks", "pyproject.toml", "build_backend.py", "MANIFEST.in", "LICENSE",
        "README.md")  # fmt: skip
NEEDED = [name for name in ("pip", "setuptools", "pyright") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(NEEDED), reason=f"{', '.join(NEEDED)} not installed: nothing can be built offline")
FILES = {
    "mine.py": """
from dataclasses import dataclass

from robustbench_ft import Candidates, Clip, Method, Run, TrainSet
from robustbench_ft.benchmarks.digits import Digits
from robustbench_ft.methods.ft import FT
from robustbench_ft.recipe import Recipe


@dataclass(frozen=True)
class Mine(FT):
    rate: float = 0.5

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip | Candidates:
        return super().fit(clip, data, run)


def of(method: Method) -> Recipe:
    return method.resolved if Digits.version else Mine().resolved
""",
    "wrong.py": """
from robustbench_ft import Method
from robustbench_ft.benchmarks.digits import Digits
from robustbench_ft.methods.ft import FT
from robustbench_ft.methods.newest import Newest

a: str = FT().resolved
b: str = Method.version
c: str = Digits.recipe
d: str = FT.objective
e: str = Newest().resolved
""",
}


class Install:
    """A clone of the sources, installed with `pip install -e` into a virtual environment of its own."""

    def __init__(self, folder: Path) -> None:
        self.clone, self.outside, home = folder / "clone", folder / "outside", folder / "venv"
        self.outside.mkdir()
        copy_sources(self.clone)
        venv.create(home, symlinks=True)
        self.python = home / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        [site] = [path for path in home.rglob("site-packages") if path.is_dir()][:1]
        (site / "zz_dependencies.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")))
        words = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-e", self.clone)
        done = call("-m", "pip", "--python", self.python, "install", *words)
        assert done.returncode == 0, done.stdout + done.stderr

    def errors(self) -> list[tuple[str, int, str]]:
        """(file, line, rule) of what pyright, strict, says of `FILES`, which lie outside the clone."""
        (self.outside / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
        for name, code in FILES.items():
            (self.outside / name).write_text(code)
        done = call("-m", "pyright", "--outputjson", "--pythonpath", self.python, folder=self.outside)
        said: Any = json.loads(done.stdout)
        assert said["summary"]["filesAnalyzed"] == len(FILES)
        return [
            (Path(d["file"]).name, d["range"]["start"]["line"], d.get("rule", d["message"]))
            for d in said["generalDiagnostics"]
        ]


def copy_sources(folder: Path) -> None:
    folder.mkdir()
    for name in TREE:
        if (REPO / name).is_dir():
            shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(REPO / name, folder / name)


def call(*words: object, python: Path | str = sys.executable, folder: Path | None = None) -> CompletedProcess[str]:
    return run([str(python), *map(str, words)], cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    """With a method that was added after it was installed."""
    made = Install(tmp_path_factory.mktemp("editable"))
    source = (made.clone / "methods" / "ft.py").read_text(encoding="utf-8").replace("class FT", "class Newest")
    (made.clone / "methods" / "newest.py").write_text(source, encoding="utf-8")
    return made


def test_files_outside_the_clone_have_types(install: Install) -> None:
    """Were one of the names unknown, its line would be no error of assignment."""
    lines = [k for k, line in enumerate(FILES["wrong.py"].splitlines()) if ": str =" in line]
    assert install.errors() == [("wrong.py", line, "reportAssignmentType") for line in lines]


def test_new_file_on_the_shelf_is_found(install: Install) -> None:
    listed = call("-m", "robustbench_ft", "list", python=install.python, folder=install.outside)
    assert "newest" in listed.stdout.split(), listed.stdout + listed.stderr


def test_python_imports_the_clone_and_not_the_links(install: Install) -> None:
    code = "from importlib.util import find_spec as f; print(*(f(name).origin for name in {}), sep=chr(10))"
    names = ["robustbench_ft", "robustbench_ft.methods.ft", "robustbench_ft.benchmarks.digits"]
    said = call("-c", code.format(names), python=install.python, folder=install.outside).stdout.splitlines()
    places = ("robustbench_ft/__init__.py", "methods/ft.py", "benchmarks/digits.py")
    assert [Path(line) for line in said] == [install.clone / place for place in places]


def test_wheel_from_the_sdist_holds_each_source_once(tmp_path: Path) -> None:
    copy_sources(tmp_path / "clone")
    act = "import sys; sys.path.insert(0, '.'); import build_backend as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"
    assert call("-c", act, "build_sdist", tmp_path, folder=tmp_path / "clone").returncode == 0
    [sdist] = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        file.extractall(tmp_path / "sdist", filter="data")
    [folder] = (tmp_path / "sdist").iterdir()
    done = call("-c", act, "build_wheel", tmp_path, folder=folder)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = [name for name in file.namelist() if ".dist-info/" not in name]
    homes = {
        "robustbench_ft": "robustbench_ft",
        "methods": "robustbench_ft/methods",
        "benchmarks": "robustbench_ft/benchmarks",
    }
    expected = [
        f"{home}/{path.relative_to(REPO / name).as_posix()}"
        for name, home in homes.items()
        for path in (REPO / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert Counter(names) == Counter(expected)
