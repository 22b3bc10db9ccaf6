"""`rbft new method`: what it writes is installed, listed and passes its own tests as it is."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from robustbench_ft import registry
from robustbench_ft.cli.main import main
from robustbench_ft.method import Method

FILES = {
    ".github/workflows/test.yml", "README.md", "pyproject.toml", "src/rbft_my_trick/__init__.py",
    "src/rbft_my_trick/my_trick.py", "tests/test_contract.py",
}  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    registry._files.clear()  # pyright: ignore[reportPrivateUsage]


def new(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, ["new", "method", *words])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def command(*words: str, folder: Path) -> str:
    """Run a command without network, and return what it printed."""
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment_with(package: Path, folder: Path) -> Path:
    """Its python: a fresh environment that sees what this one has, and in which the package is installed."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    seen = dict.fromkeys([sysconfig.get_path("purelib"), *[p for p in sys.path if "site-packages" in p]])
    (site / "seen.pth").write_text("".join(f"import site; site.addsitedir({str(path)!r})\n" for path in seen))
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-build-isolation"]
    command(*install, "--no-deps", str(package), folder=folder)
    return python


def test_a_package_is_installed_listed_and_passes_its_tests(here: Path) -> None:
    shown = new("my_trick").stdout
    package = here / "my-trick"
    assert files(package) == FILES
    assert shown.splitlines()[-1] == "next     pip install -e 'my-trick[test]' && pytest my-trick"
    python = environment_with(package, here / "venv")
    tests = command(str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", folder=package)
    assert "passed" in tests
    assert "failed" not in tests
    listed = command(str(python), "-m", "robustbench_ft", "list", "methods", folder=here)
    [line] = [line for line in listed.splitlines() if "my-trick" in line]
    assert line.split(None, 1) == [
        "my-trick", "MyTrick: FT with image features held to where they started. [rbft-my-trick]"
    ]  # fmt: skip


def test_it_is_well_formed(here: Path) -> None:
    new("my-trick")
    for words in (("check", "--select", "E,F,I,UP,B"), ("format", "--check")):
        command(
            sys.executable, "-m", "ruff", *words, "--isolated", "--line-length", "120", ".", folder=here / "my-trick"
        )


@pytest.mark.usefixtures("shelves")
def test_it_differs_from_ft_where_its_strength_is_not_0(tiny_model: str) -> None:
    """The template's penalty acts: what an author starts from is no disguised FT."""
    new("my-trick", "--single")
    settings = ["--suite", "tiny", "--model", tiny_model, "--set", "steps=4", "--set", "my-trick.strength=30"]
    words = ["run", "--method", "ft", "--method", "./my_trick.py", *settings, "--device", "cpu"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    logs = {path.parents[1].name[:2]: path.read_text() for path in Path("runs").rglob("log.jsonl")}
    assert '"drift"' in logs["my"]
    answers = [path.read_bytes() for path in sorted(Path("runs").rglob("predictions/**/test.parquet"))]
    assert len(answers) == 2
    assert answers[0] != answers[1]


def test_a_single_file_is_written_where_it_is_asked_for(here: Path) -> None:
    shown = new("my-trick", "--single", "--folder", "some/place").stdout
    assert files(here) == {"some/place/my_trick.py"}
    assert shown.splitlines()[0] == "written  some/place/my_trick.py"
    assert "rbft check method some/place/my_trick.py" in shown
    assert registry.load("method", "some/place/my_trick.py", Method).__name__ == "MyTrick"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("ft",), "'ft' is a registered method already (robustbench_ft.methods.ft); choose another name"),
        (("lipsum_ft",), "'lipsum-ft' is a registered method already (robustbench_ft.methods.lipsum)"),
        (("My",), "'My' cannot name a method: use small letters and digits, with - between them"),
        (("class",), "'class' cannot name a method"),
        (("../up",), "'../up' cannot name a method"),
        (("my-trick", "--folder", "full"), "full is not empty, and nothing is overwritten; name another with --folder"),
        (("my-trick", "--single", "--folder", "full"), "full/my_trick.py exists and is not overwritten; edit it"),
        (("my-trick", "--folder", "full/my_trick.py"), "cannot write full/my_trick.py/pyproject.toml: "),
    ],
)
def test_nothing_is_overwritten_and_no_name_taken(words: tuple[str, ...], line: str, here: Path) -> None:
    (here / "full").mkdir()
    (here / "full" / "my_trick.py").write_text("mine\n")
    result = new(*words, code=2)
    assert result.stderr.startswith(f"rbft: {line}"), result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert files(here) == {"full/my_trick.py"}
    assert (here / "full" / "my_trick.py").read_text() == "mine\n"


@pytest.mark.slow
def test_a_package_beside_an_installed_wheel_gets_a_row_on_a_board(here: Path) -> None:
    """No clone is in sight: the wheel and the package are installed, and what an author types is run."""
    root = Path(__file__).resolve().parent.parent
    clone = here / "clone"
    shutil.copytree(
        root, clone, ignore=shutil.ignore_patterns(".git", ".venv", "build", "runs", "__pycache__", "leaderboards")
    )
    build = "import sys; sys.path.insert(0, '.'); import build_backend as b; b.build_wheel(sys.argv[1])"
    command(sys.executable, "-c", build, str(here), folder=clone)
    shutil.rmtree(clone)
    [wheel] = here.glob("*.whl")
    new("my-trick")
    python = environment_with(wheel, here / "venv")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-build-isolation"]
    command(*install, "--no-deps", str(here / "my-trick"), folder=here)
    rbft = str(python.with_name("rbft"))
    where = "import robustbench_ft as r; print(r.__file__)"
    assert command(str(python), "-c", where, folder=here).startswith(str(here / "venv"))
    checked = command(rbft, "check", "method", "my-trick", folder=here)
    assert all(line.startswith("ok ") for line in checked.splitlines())
    methods = ("--method", "ft", "--method", "my-trick")
    command(rbft, "run", *methods, "--suite", "digits", "--set", "steps=4", "--seeds", "0-1", folder=here)
    command(rbft, "leaderboard", "add", "runs", "--root", "boards", folder=here)
    command(rbft, "leaderboard", "verify", "--root", "boards", "--data", "--rescore", "20", folder=here)
    command(rbft, "leaderboard", "build", "--root", "boards", folder=here)
    assert "| my-trick" in (here / "boards" / "digits-v1.md").read_text(encoding="utf-8")
    assert "my-trick" in (here / "boards" / "site" / "digits-v1.html").read_text(encoding="utf-8")
