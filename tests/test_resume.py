"""A cell can be killed or interrupted at any moment; run again, it ends as if nothing had happened."""

import json
import signal
import sys
import time
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file

from robustbench_ft import registry, runner
from robustbench_ft.cli.main import main
from robustbench_ft.record import store

pytestmark = pytest.mark.usefixtures("shelves")

LIPSUM = ("--method", "lipsum", "--suite", "tiny", "--set", "steps=24", "--set", "batch=4", "--seeds", "3")
VICTIM = """
import os, signal
import robustbench_ft.{module} as module
original, calls = module.{name}, iter(range(1, 10**6))
def last(*args):
    if next(calls) == {n}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args)
module.{name} = last
"""

FLUSHED = """
import os, signal, threading
original, calls = os.fsync, iter(range(1, 10**6))
def fsync(number):
    if "resume-fit" in os.readlink(f"/proc/self/fd/{number}") and next(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(number)
os.fsync = fsync
begin = threading.Thread.start
def start(thread):  # the next step begins when the file is written: else a slow disk lets it come first
    begin(thread)
    if thread.name.startswith("checkpoint"):
        thread.join()
threading.Thread.start = start
"""

BETWEEN = """
import os, pathlib, signal
original = pathlib.Path.replace
def replace(path, target):
    if target.name == "resume-fit.pt" and target.with_name("resume-fit.previous.pt").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return original(path, target)
pathlib.Path.replace = replace
"""

BOTH = """
import os, pathlib, signal
original = pathlib.Path.replace
def replace(path, target):
    moved = original(path, target)
    if target.name == "resume-fit.pt" and target.with_name("resume-fit.previous.pt").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return moved
pathlib.Path.replace = replace
"""


def arguments(out: Path, *words: str) -> list[str]:
    return ["run", "--out", str(out), "--threads", "1", "--device", "cpu", *(words or LIPSUM)]


def rbft(out: Path, *words: str) -> Result:
    return CliRunner().invoke(main, arguments(out, *words), catch_exceptions=False)


def start(out: Path, *more: str, prelude: str = "") -> "Popen[str]":
    """The same command in a process of its own."""
    code = f"{prelude}\nfrom robustbench_ft.cli import main\nmain({arguments(out, *LIPSUM, *more)})"
    return Popen([sys.executable, "-c", code], stdout=PIPE, stderr=PIPE, text=True)


def cell(out: Path) -> Path:
    [path] = out.rglob("cell.json")
    return path.parent


def log(out: Path, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (cell(out) / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def wait_for_steps(process: "Popen[str]", out: Path, n: int) -> None:
    """Until the log of the only cell under `out` tells of `n` steps."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if sum(path.read_text().count('"event": "step"') for path in out.rglob("log.jsonl")) >= n:
            return
        time.sleep(0.002)
    raise AssertionError(process.communicate()[1])


def finish(process: "Popen[str]") -> str:
    """Standard error, once it has ended."""
    with process:
        return process.communicate(timeout=60)[1]


def results(out: Path) -> dict[str, bytes]:
    """What must not depend on interruptions: predictions, metrics and weights."""
    folder = cell(out)
    files = [*folder.rglob("*.parquet"), *folder.rglob("*.safetensors"), folder / "metrics.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, shelf_folder: Path) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(shelf_folder)
        registry.entries.cache_clear()
        assert rbft(out).exit_code == 0
    registry.entries.cache_clear()
    assert len(results(out)) == 4 + 2 + 1  # splits, model and head, metrics
    return results(out)


def test_two_runs_are_equal_to_the_byte(undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    assert rbft(tmp_path, *LIPSUM, "--checkpoint-seconds", "0").exit_code == 0
    assert results(tmp_path) == undisturbed


def test_a_kill_while_training_and_one_while_evaluating_leave_no_trace(
    undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    process = start(tmp_path, "--checkpoint-seconds", "0")
    wait_for_steps(process, tmp_path, 6)
    process.kill()
    finish(process)
    assert process.returncode == -signal.SIGKILL
    assert not (cell(tmp_path) / "done").exists()

    process = start(tmp_path, prelude=VICTIM.format(module="record.store", name="write_predictions", n=3))
    finish(process)
    assert process.returncode == -signal.SIGKILL
    assert log(tmp_path, "start")[1]["step"] >= 4  # it went on from where the first was killed, or just before
    assert len(list(cell(tmp_path).rglob("*.parquet"))) == 2
    assert not (cell(tmp_path) / "done").exists()

    assert rbft(tmp_path).exit_code == 0
    assert log(tmp_path, "start")[2]["step"] == 24  # nothing was trained again
    assert results(tmp_path) == undisturbed
    assert not list(tmp_path.rglob("resume-*")) + list(tmp_path.rglob(".*"))


def test_a_kill_while_a_file_is_written_leaves_no_half_file(undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    process = start(tmp_path, "--checkpoint-seconds", "0", prelude=FLUSHED)
    finish(process)
    assert process.returncode == -signal.SIGKILL
    assert log(tmp_path, "step")[-1]["step"] == 3
    assert rbft(tmp_path).exit_code == 0
    assert log(tmp_path, "start")[1]["step"] == 3
    assert results(tmp_path) == undisturbed


def test_a_kill_between_two_renames_goes_back_to_the_checkpoint_before(
    undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    process = start(tmp_path, "--checkpoint-seconds", "0", prelude=BETWEEN)
    finish(process)
    assert process.returncode == -signal.SIGKILL
    assert [path.name for path in cell(tmp_path).glob("resume-*")] == ["resume-fit.previous.pt"]
    assert list(cell(tmp_path).glob(".*.resume-fit.pt"))
    assert rbft(tmp_path).exit_code == 0
    assert log(tmp_path, "start")[1]["step"] == 1
    assert results(tmp_path) == undisturbed
    assert not list(tmp_path.rglob("resume-*")) + list(tmp_path.rglob(".*"))


def test_a_damaged_checkpoint_is_replaced_by_the_one_before_it(undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    process = start(tmp_path, "--checkpoint-seconds", "0", prelude=BOTH)
    finish(process)
    assert process.returncode == -signal.SIGKILL
    path = cell(tmp_path) / "resume-fit.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9999] + bytes([whole[-9999] ^ 1]) + whole[-9998:])
    again = rbft(tmp_path)
    assert again.exit_code == 0
    assert f"checkpoint {path} is damaged: going back to the one before it" in again.stderr
    assert results(tmp_path) == undisturbed
    assert not list(tmp_path.rglob("resume-*"))


def test_an_interrupt_stops_in_good_order_and_says_how_to_resume(undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_for_steps(process, tmp_path, 4)
    process.send_signal(signal.SIGINT)
    last = finish(process).splitlines()[-1]
    assert process.returncode == 130
    assert last.startswith("rbft: stopped at step ")
    assert last.endswith(" of 24; nothing is lost: run the same command again to resume")
    assert rbft(tmp_path).exit_code == 0
    assert log(tmp_path, "start")[1]["step"] == int(last.split()[4])
    assert results(tmp_path) == undisturbed


@pytest.mark.parametrize(("times", "says"), [(1, "stopped during evaluation; nothing is"), (2, "interrupted; run the")])
def test_interrupts_while_evaluating(
    times: int, says: str, tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any) -> None:
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)

    words = ("--method", "ft", "--suite", "tiny", "--model", tiny_model)
    with monkeypatch.context() as patch:
        patch.setattr(store, "write_predictions", interrupted)
        result = rbft(tmp_path, *words)
    assert result.exit_code == 130
    assert f"rbft: {says}" in result.stderr
    assert not (cell(tmp_path) / "done").exists()
    assert rbft(tmp_path, *words).exit_code == 0
    assert log(tmp_path, "start")[1]["step"] == 6


def test_an_interrupt_between_cells_stops_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(runner, "run_cell", interrupted)
    result = rbft(tmp_path, "--method", "ft", "--suite", "tiny", "--seeds", "0-1")
    assert result.exit_code == 130
    assert "rbft: stopped after cell 1 of 2; nothing is lost" in result.stderr


def test_done_cells_are_left_alone(tmp_path: Path) -> None:
    words = ("--method", "zero-shot", "--method", "ft", "--suite", "tiny", "--set", "steps=2")
    assert rbft(tmp_path, *words).exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("seed-0/**/*")}
    assert len(before) > 20
    assert rbft(tmp_path, *words).stderr.count("done before") == 2
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("seed-0/**/*")}


def test_the_same_cell_asked_for_in_other_words_is_done_too(tmp_path: Path) -> None:
    words = ("--method", "ft", "--suite", "tiny", "--set", "steps=2")
    assert rbft(tmp_path, *words).exit_code == 0
    again = rbft(tmp_path, *words, "--set", "batch=8")  # the suite's own
    assert (again.exit_code, again.stderr.count("done before")) == (0, 1)


def test_a_loss_that_is_not_a_number_ends_the_run_and_is_marked(tmp_path: Path, tiny_model: str) -> None:
    result = rbft(tmp_path, "--method", "explode", "--suite", "tiny", "--model", tiny_model)
    assert result.exit_code == 0
    assert "the loss is not finite at step 3: stopped" in result.stderr
    [line] = log(tmp_path, "diverged")
    assert (line["step"], line["terms"]) == (3, {"boom": "nan"})
    [stage] = json.loads((cell(tmp_path) / "env.json").read_text())["stages"]
    assert (stage["diverged"], stage["step"], stage["selected_step"]) == (True, 3, 2)
    assert "explode (diverged)" in CliRunner().invoke(main, ["report", str(tmp_path), "--format", "markdown"]).stdout


@pytest.mark.parametrize("settings", [("validate_every=0",), ("validate_every=1", "warmup_fraction=0")], ids=str)
def test_an_absurd_learning_rate_keeps_weights_that_can_be_evaluated(
    settings: tuple[str, ...], tmp_path: Path, tiny_model: str
) -> None:
    more = [word for pair in ("lr=1e30", *settings) for word in ("--set", pair)]
    assert rbft(tmp_path, "--method", "ft", "--suite", "tiny", "--model", tiny_model, *more).exit_code == 0
    [stage] = json.loads((cell(tmp_path) / "env.json").read_text())["stages"]
    assert stage["diverged"]
    assert log(tmp_path, "diverged")
    for name in ("open_clip_model", "head"):
        tensors = load_file(cell(tmp_path) / "model" / f"{name}.safetensors")
        assert all((abs(tensor) < 1e38).all() for tensor in tensors.values())
    assert "(diverged)" in CliRunner().invoke(main, ["report", str(tmp_path), "--format", "markdown"]).stdout
