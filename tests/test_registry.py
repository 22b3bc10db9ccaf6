"""Names: found without importing, offered by anyone, and never twice."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny

from robustbench_ft import registry
from robustbench_ft.errors import RbftError
from robustbench_ft.method import Method
from robustbench_ft.suite import Suite

METHOD = '''"""{summary}"""
{more}
from dataclasses import dataclass
from robustbench_ft import Clip, Method, Run, TrainSet


@dataclass(frozen=True)
class Ours(Method):
    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip:
        return clip
'''

Install = Callable[[dict[str, str], str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put source files on `sys.path` with entry points, as `pip install` does."""

    def write(files: dict[str, str], entry_points: str) -> None:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        tiny.write_shelves(tmp_path, entry_points, name="acme")
        monkeypatch.syspath_prepend(tmp_path)
        registry.entries.cache_clear()

    return write


@pytest.fixture(autouse=True)
def _forget() -> object:
    yield
    registry.entries.cache_clear()
    for name in [module for module in sys.modules if module.startswith("acme")]:
        del sys.modules[name]


def shelf(package: str) -> str:
    return f"[robustbench_ft.methods]\nacme = {package}\n"


def test_built_in_names() -> None:
    assert set(registry.entries("method")) >= {"zero-shot", "ft", "lp-ft", "wise-ft", "flyp", "lipsum"}
    assert set(registry.entries("suite")) >= {
        "shapes", "digits", "imagenet", "domainnet", "wilds-iwildcam", "wilds-fmow", "wilds-camelyon17", "pacs",
        "vlcs", "officehome", "terra", "domainnet-lodo", "living17", "entity30", "waterbirds", "cifar10",
    }  # fmt: skip


def test_every_entry_has_a_summary_that_fits_a_line() -> None:
    for kind in ("method", "suite"):
        for entry in registry.entries(kind).values():
            assert 20 < len(entry.summary) <= 125, entry


def test_alias_leads_to_the_same_method() -> None:
    assert registry.resolve("method", "lipsum-ft") == registry.resolve("method", "lipsum")
    assert registry.load("method", "lipsum-ft", Method) is registry.load("method", "lipsum", Method)


@pytest.mark.parametrize(
    ("kind", "name", "line"),
    [
        ("method", "lipsun", "unknown method 'lipsun': did you mean lipsum"),
        ("method", "wise-f", "unknown method 'wise-f': did you mean wise-ft? known: "),
        ("suite", "shape", "unknown suite 'shape': did you mean shapes? known: base-to-new-"),
        ("suite", "qqq", "unknown suite 'qqq': known: base-to-new-"),
    ],
)
def test_unknown_name_is_told_what_is_close(kind: registry.Kind, name: str, line: str) -> None:
    with pytest.raises(RbftError) as caught:
        registry.resolve(kind, name)
    assert str(caught.value).startswith(line)


def test_a_third_party_package_is_a_shelf(install: Install) -> None:
    files = {
        "acme/__init__.py": "",
        "acme/my_trick.py": METHOD.format(summary="MyTrick: ours.", more='ALIASES = ("trick",)'),
        "acme/_private.py": "raise RuntimeError('never imported')",
        "acme/inner/__init__.py": "raise RuntimeError('never imported')",
    }
    install(files, shelf("acme"))
    entry = registry.resolve("method", "trick")
    assert entry == registry.Entry("my-trick", "acme.my_trick", "MyTrick: ours.", "acme", ("trick",))
    assert "acme.my_trick" not in sys.modules  # listed, not imported
    assert registry.load("method", "my-trick", Method).__name__ == "Ours"
    assert "ft" in registry.entries("method")


def test_a_single_module_is_a_shelf(install: Install) -> None:
    install({"acme_trick.py": METHOD.format(summary="One.", more="")}, shelf("acme_trick"))
    assert registry.load("method", "acme-trick", Method).__name__ == "Ours"


def test_a_suite_comes_from_a_shelf_too(shelves: None) -> None:
    assert registry.load("suite", "tiny", Suite) is tiny.Tiny
    assert registry.entries("suite")["tiny"].shelf == "tests"


def test_a_name_offered_twice_is_an_error(install: Install) -> None:
    install({"acme/__init__.py": "", "acme/ft.py": METHOD.format(summary="Mine.", more="")}, shelf("acme"))
    with pytest.raises(RbftError, match=r"'ft' is offered twice: by acme\.ft and robustbench_ft\.methods\.ft"):
        registry.entries("method")


def test_an_alias_may_not_hide_or_repeat_a_name(install: Install) -> None:
    files = {"acme/__init__.py": "", "acme/x.py": METHOD.format(summary="X.", more='ALIASES = ("lipsum-ft",)')}
    install(files, shelf("acme"))
    with pytest.raises(RbftError, match=r"'lipsum-ft' is offered twice: by acme\.x and .*\.lipsum"):
        registry.entries("method")


@pytest.mark.parametrize("package", ["acme", "acme.methods"])
def test_a_shelf_that_is_not_installed_is_named_once_and_breaks_nothing_else(
    package: str, install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_said", set[str]())
    install({}, shelf(package))
    for _ in range(2):
        registry.entries.cache_clear()
        assert "ft" in registry.entries("method")
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("note: package ")
    assert (
        f"offers no method: an entry point names '{package}', which is not installed; reinstall it, or `pip un" in line
    )


def test_a_shelf_whose_package_raises_is_named_and_breaks_nothing_else(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_said", set[str]())
    install({"acme/__init__.py": "1 / 0\n"}, shelf("acme.methods"))
    assert "ft" in registry.entries("method")
    assert "'acme.methods' cannot be imported (ZeroDivisionError: division by zero)" in capsys.readouterr().err


def test_a_module_that_is_no_python_is_named(install: Install) -> None:
    install({"acme/__init__.py": "", "acme/bad.py": "def ("}, shelf("acme"))
    with pytest.raises(RbftError, match=r"bad\.py.* line 1") as caught:
        registry.entries("method")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("names", [(), ("A", "B"), ("_A",)])
def test_a_module_holds_one_public_method(names: tuple[str, ...], install: Install) -> None:
    classes = "\n".join(f"class {name}(Method): ..." for name in names)
    text = f'"""Odd."""\nfrom robustbench_ft import Method\n{classes}\n'
    install({"acme/__init__.py": "", "acme/odd.py": text}, shelf("acme"))
    n = sum(not name.startswith("_") for name in names)
    with pytest.raises(RbftError, match=rf"acme\.odd must hold one public Method, it holds {n}"):
        registry.load("method", "odd", Method)


def test_a_clone_that_is_not_installed_is_told_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.entries.cache_clear()
    monkeypatch.setattr(registry, "entry_points", lambda group: ())  # pyright: ignore[reportUnknownLambdaType]
    with pytest.raises(RbftError, match="pip install -e"):
        registry.entries("method")
