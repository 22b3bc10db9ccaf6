"""An edited method never shows old numbers: records name their code, and `rbft run` compares it before any work."""

import hashlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from click.testing import CliRunner, Result

from robustbench_ft import earlier, plan, provenance, registry
from robustbench_ft.claims import claim
from robustbench_ft.cli.main import main
from robustbench_ft.method import Method
from robustbench_ft.record import store

METHOD = '''"""Pull: FT whose loss is scaled, by a helper and a constant of modules beside it."""

from dataclasses import dataclass

from robustbench_ft import Batch, Clip, Run, TrainSet
from robustbench_ft.methods.ft import FT
from robustbench_ft.train import LossTerms, Objective

from ._factor import FACTOR


@dataclass(frozen=True)
class Pull(FT):
    """nll * FACTOR."""

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        from .deeper import helper

        inner = super().objective(clip, data, run)

        def loss(batch: Batch) -> LossTerms:
            return {name: FACTOR * helper.twice(term) for name, term in inner(batch).items()}

        return loss
'''
HELPER = "import json\n\n\ndef twice(x):\n    return 2 * x\n"
ENTRIES = "[robustbench_ft.benchmarks]\ntests = tiny\n[robustbench_ft.methods]\nacme = acme_ft.shelf\n"
FILES = {"pull.py", "_factor.py", "deeper/helper.py", "robustbench_ft/methods/ft.py", "deeper/__init__.py"}
WORDS = ("--method", "pull", "--suite", "tiny", "--set", "steps=2")

Rbft = Callable[..., Result]


def forget() -> None:
    """What another process would not know: modules, and what was found out about them."""
    registry.entries.cache_clear()
    provenance.code_of.cache_clear()
    for name in [module for module in sys.modules if module.startswith("acme_ft")]:
        del sys.modules[name]


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an installed package of methods."""
    site = tiny.write_shelves(tmp_path / "site", ENTRIES, name="acme_ft")
    folder = site / "acme_ft" / "shelf"
    (folder / "deeper").mkdir(parents=True)
    for name in ("__init__.py", "shelf/__init__.py", "shelf/deeper/__init__.py", "shelf/_unused.py"):
        (site / "acme_ft" / name).touch()
    (folder / "pull.py").write_text(METHOD)
    (folder / "_factor.py").write_text("FACTOR = 1\n")
    (folder / "deeper" / "helper.py").write_text(HELPER)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # an edit within a second leaves a stale one
    forget()
    yield folder
    forget()


@pytest.fixture
def rbft(tmp_path: Path, tiny_model: str) -> Rbft:
    """`rbft run`, as if in a process of its own."""

    def run(*more: str) -> Result:
        forget()
        words = ["run", *WORDS, "--model", tiny_model, "--out", str(tmp_path / "out"), "--device", "cpu", *more]
        return CliRunner().invoke(main, words)

    return run


def cell(tmp_path: Path) -> Path:
    [path] = (tmp_path / "out").rglob("cell.json")
    return path.parent


def code(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "cell.json").read_text())["code"]


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def refusal(result: Result) -> list[str]:
    """The lines of an error before any work."""
    assert result.exit_code == 2, result.output
    lines = result.stderr.splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("rbft: "))  # what is planned comes before
    assert all(line.startswith("rbft: ") for line in lines[first:]), lines
    return [line.removeprefix("rbft: ") for line in lines[first:]]


@pytest.mark.usefixtures("shelf")
def test_a_record_names_the_code_of_its_method(rbft: Rbft, tmp_path: Path, shelf: Path) -> None:
    assert rbft().exit_code == 0
    found = code(cell(tmp_path))
    assert set(found["files"]) == FILES
    assert found["files"]["_factor.py"] == hashlib.sha256(b"FACTOR = 1\n").hexdigest()
    assert found["distribution"] == "acme_ft 0"
    lines = "".join(f"{name}\0{digest}\n" for name, digest in sorted(found["files"].items()))
    assert found["sha256"] == hashlib.sha256(lines.encode()).hexdigest()


def test_built_in_methods_are_their_own_files_and_those_they_build_on() -> None:
    files = {name: set(provenance.code_of(registry.load("method", name, Method)).files)
             for name in ("zero-shot", "ft", "lipsum", "wise-ft")}  # fmt: skip
    assert files == {
        "zero-shot": {"zero_shot.py"}, "ft": {"ft.py"}, "lipsum": {"lipsum.py", "ft.py"},
        "wise-ft": {"wise_ft.py", "ft.py"},
    }  # fmt: skip
    found = provenance.code_of(registry.load("method", "ft", Method))
    assert found.distribution.startswith("robustbench_ft ")


def test_line_ends_are_no_change(shelf: Path) -> None:
    before = provenance.code_of(registry.load("method", "pull", Method))
    path = shelf / "_factor.py"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    forget()
    assert provenance.code_of(registry.load("method", "pull", Method)) == before


def test_code_moves_no_digest(rbft: Rbft, tmp_path: Path, shelf: Path, tiny_model: str) -> None:
    assert rbft().exit_code == 0
    stored = json.loads((cell(tmp_path) / "cell.json").read_text())
    edit(shelf / "pull.py", "FACTOR * ", "3 * FACTOR * ")
    forget()
    [planned] = plan.make(plan.Request(("pull",), ("tiny",), (tiny_model,), set=(("steps", "2"),)))
    assert planned.digest == stored["digest"]
    embedded = {**stored, "model": {"name": "embedded", "weights": "0", "pretrained": ""}}
    assert claim.config_digest(embedded) == claim.config_digest({k: v for k, v in embedded.items() if k != "code"})


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("pull.py", "FACTOR * ", "-1e9 * FACTOR * "),
        ("_factor.py", "1", "5"),
        ("deeper/helper.py", "2 * x", "3 * x"),
    ],
)
def test_an_edited_method_does_not_show_old_numbers(
    name: str, old: str, new: str, rbft: Rbft, tmp_path: Path, shelf: Path
) -> None:
    assert rbft("--seeds", "0-1").exit_code == 0
    edit(shelf / name, old, new)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    [line] = refusal(rbft("--seeds", "0-2"))
    first = next((tmp_path / "out").rglob("seed-0"))
    assert line == (
        f"pull changed since {first} and 1 more was run ({name}): --rerun runs it again, --keep takes the old "
        "numbers, or raise its version"
    )
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}

    kept = rbft("--seeds", "0-1", "--keep")
    assert kept.exit_code == 0
    assert kept.stderr.count(f"done before, by other code ({name})") == 2
    assert before[first / "cell.json"] == (first / "cell.json").read_bytes()

    renewed = rbft("--seeds", "0-1", "--rerun")
    assert renewed.exit_code == 0
    assert "done before" not in renewed.stderr
    logs = [folder / "log.jsonl" for folder in (first, first.with_name("seed-1"))]
    assert all(log.read_text().count('"event": "start"') == 1 for log in logs)
    assert before[logs[0]] != logs[0].read_bytes()
    assert code(first)["files"][name] == hashlib.sha256((shelf / name).read_bytes()).hexdigest()
    assert rbft("--seeds", "0-1").stderr.count(": done before\n") == 2


def test_the_code_of_a_run_is_that_of_its_start(tmp_path: Path, shelf: Path, tiny_model: str) -> None:
    """An edit while other cells run does not change what this process has imported."""
    planned = plan.make(plan.Request(("pull",), ("tiny",), (tiny_model,)))
    before = hashlib.sha256((shelf / "_factor.py").read_bytes()).hexdigest()
    assert earlier.to_renew(planned, [tmp_path / "out"], "refuse") == set()
    edit(shelf / "_factor.py", "1", "5")
    assert provenance.code_of(registry.load("method", "pull", Method)).files["_factor.py"] == before


def test_a_dry_run_says_where_cells_stand(rbft: Rbft, tmp_path: Path, shelf: Path) -> None:
    def states() -> list[str]:
        result = rbft("--seeds", "0-1", "--dry-run")
        assert result.exit_code == 0
        return [line[:8].strip() for line in result.stdout.splitlines() if "seed-" in line]

    assert states() == ["to do", "to do"]
    assert rbft().exit_code == 0
    assert states() == ["done", "to do"]
    edit(shelf / "_factor.py", "1", "5")
    assert states() == ["changed", "to do"]
    edit(cell(tmp_path) / "cell.json", '"recipe_source": "suite', '"recipe_source": "the paper')
    assert states() == ["edited", "to do"]


def test_only_changed_cells_are_run_again(rbft: Rbft, shelf: Path) -> None:
    more = ("--method", "ft")
    assert rbft(*more).exit_code == 0
    edit(shelf / "_factor.py", "1", "5")
    result = rbft(*more, "--rerun")
    assert result.exit_code == 0
    assert [line for line in result.stderr.splitlines() if "done before" in line] == [
        "[2/2] ft on tiny, seed 0: done before"
    ]


def test_a_module_that_the_method_does_not_use_may_change(rbft: Rbft, shelf: Path) -> None:
    assert rbft().exit_code == 0
    (shelf / "_unused.py").write_text("X = 1\n")
    assert ": done before\n" in rbft().stderr


def cut(rbft: Rbft, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a cell that is fitted and not evaluated."""

    def interrupted(*args: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_predictions", interrupted)
        assert rbft().exit_code == 130


def test_a_cell_begun_by_other_code_is_not_resumed(
    rbft: Rbft, tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(rbft, monkeypatch)
    folder = cell(tmp_path)
    assert list(folder.glob("resume-*"))
    edit(shelf / "pull.py", "FACTOR * ", "-FACTOR * ")
    for way in ((), ("--keep",)):
        [line] = refusal(rbft(*way))
        assert line == (
            f"pull changed since {folder} was begun (pull.py): --rerun starts it over; or put the old code back, to "
            "finish it"
        )
    assert rbft("--rerun").exit_code == 0
    starts = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines() if '"start"' in line]
    assert [start["step"] for start in starts] == [0]


def test_a_cell_begun_by_the_same_code_is_resumed(
    rbft: Rbft, tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(rbft, monkeypatch)
    assert "resuming at step 2 of 2" in rbft().stderr
    assert store.is_done(cell(tmp_path))


@pytest.mark.usefixtures("shelf")
def test_a_record_of_an_older_version_is_taken_with_a_note(rbft: Rbft, tmp_path: Path) -> None:
    assert rbft().exit_code == 0
    folder = cell(tmp_path)
    stored = json.loads((folder / "cell.json").read_text())
    del stored["code"]
    store.write_json(folder / "cell.json", stored)
    (folder / "done").write_bytes(b"")  # as 0.2.0 wrote them
    for way in ((), ("--rerun",)):
        result = rbft(*way)
        assert result.exit_code == 0
        assert ": done before, by a version that did not note the method's code\n" in result.stderr


@pytest.mark.usefixtures("shelf")
def test_a_record_whose_cell_was_edited_is_named(rbft: Rbft, tmp_path: Path) -> None:
    assert rbft().exit_code == 0
    path = cell(tmp_path) / "cell.json"
    edit(path, '"recipe_source": "suite', '"recipe_source": "the paper')
    for way in ((), ("--keep",)):
        [line] = refusal(rbft(*way))
        assert line == (
            f"{path} was edited after its cell was finished: put it back as it was, or --rerun runs the cell again"
        )
    assert rbft("--rerun").exit_code == 0
    assert "the paper" not in path.read_text()
    path.write_text("[1]")
    assert "describes another cell than the one asked for" in refusal(rbft())[0]


@pytest.mark.parametrize("n", range(1, 8))
@pytest.mark.usefixtures("shelf")
def test_a_kill_while_a_record_is_removed_leaves_no_mix(
    n: int, rbft: Rbft, tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is left is not finished, and is either new or known to be of the old code."""
    assert rbft().exit_code == 0
    folder, calls = cell(tmp_path), iter(range(1, 100))
    edit(shelf / "pull.py", "FACTOR * ", "-FACTOR * ")

    def stop(original: Callable[..., Any]) -> Callable[..., Any]:
        def act(path: Path, **more: Any) -> Any:
            if path.is_relative_to(folder) and "lock" not in path.name and next(calls) >= n:
                raise KeyboardInterrupt
            return original(path, **more)

        return act

    with monkeypatch.context() as patch:
        patch.setattr(earlier.Path, "unlink", stop(Path.unlink))
        patch.setattr(earlier.shutil, "rmtree", stop(earlier.shutil.rmtree))
        assert rbft("--rerun").exit_code == 130
    if n == 1:
        assert store.is_done(folder)  # nothing happened yet
        return
    assert not store.is_done(folder)
    if (folder / "cell.json").exists():
        assert "was begun (pull.py)" in refusal(rbft())[0]
    assert rbft("--rerun").exit_code == 0
    assert code(folder)["files"]["pull.py"] == hashlib.sha256((shelf / "pull.py").read_bytes()).hexdigest()


@pytest.mark.usefixtures("shelf")
def test_rerun_and_keep_exclude_each_other(rbft: Rbft) -> None:
    assert refusal(rbft("--rerun", "--keep")) == [
        "--rerun and --keep exclude each other: run changed cells again, or take their old numbers"
    ]


def test_what_a_finished_cell_needs_no_more_is_removed(rbft: Rbft, tmp_path: Path, shelf: Path) -> None:
    assert rbft().exit_code == 0
    left = cell(tmp_path) / "resume-fit.pt"
    left.touch()  # killed just before it was removed
    assert rbft().exit_code == 0
    assert not left.exists()
