"""Faults of the machine and of methods end in one line; nothing is lost."""

import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from robustbench_ft import failures
from robustbench_ft.cli.main import main
from robustbench_ft.errors import RbftError
from robustbench_ft.train import checkpoint

RECIPE = {"batch": 512, "micro_batch": 0}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_memory_that_ran_out_is_one_line_with_what_to_do(error: Exception) -> None:
    with (
        pytest.raises(RbftError, match=r"^out of memory in method 'ft' with batch 512, micro_batch 512: --set micro_b"),
        failures.named("ft", RECIPE),
    ):
        raise error


def test_memory_really_runs_out_in_one_line() -> None:
    says = r"^out of memory in method 'zero-shot': use a machine with more"
    with pytest.raises(RbftError, match=says), failures.named("zero-shot", None):
        torch.empty(1 << 60)


def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="shape"), failures.named("ft", RECIPE):
        raise RuntimeError("shape mismatch")


@pytest.mark.parametrize("code", [0, None, 3, "done"])
def test_a_method_that_ends_the_process_is_named(code: Any) -> None:
    with pytest.raises(RbftError, match=r"^method 'mine' called sys\.exit\("), failures.named("mine", None):
        sys.exit(code)


def content(step: int, tensor: torch.Tensor) -> dict[str, Any]:
    return {"step": step, "weights": {"w": tensor}, "optimizer": {"state": [{"m": tensor}], "lr": (0.1, 2)}}


def read(path: Path) -> dict[str, Any]:
    found = checkpoint.load(path, torch.device("cpu"), {"step"}, print)
    assert found is not None
    return found


def test_what_is_written_is_the_state_when_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, tensor, go = tmp_path / "resume-fit.pt", torch.zeros(1000), threading.Event()
    original = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *args: (go.wait(10), original(*args)))  # pyright: ignore
    writer = checkpoint.Writer(path)
    writer.save(content(1, tensor))
    assert not path.exists()  # training goes on meanwhile
    tensor.add_(1)
    go.set()
    writer.wait()
    found = read(path)
    assert found["step"] == 1
    assert found["weights"]["w"].sum() == found["optimizer"]["state"][0]["m"].sum() == 0
    assert found["optimizer"]["lr"] == (0.1, 2)


def test_two_are_never_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way, most = [0], [0]
    original = checkpoint.save

    def slow(*args: Any) -> None:
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        time.sleep(0.02)
        original(*args)
        under_way[0] -= 1

    monkeypatch.setattr(checkpoint, "save", slow)
    writer = checkpoint.Writer(tmp_path / "resume-fit.pt")
    for step in range(5):
        writer.save(content(step, torch.zeros(10)))
    writer.wait()
    assert most == [1]
    assert read(tmp_path / "resume-fit.pt")["step"] == 4


def test_a_checkpoint_that_cannot_be_written_is_one_line_at_the_next(tmp_path: Path) -> None:
    path = tmp_path / "resume-fit.pt"
    writer = checkpoint.Writer(path)
    writer.save(content(1, torch.zeros(10)))
    writer.wait()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        writer.save(content(2, torch.zeros(10_000)))
        with pytest.raises(RbftError, match=r"cannot write .*resume-fit\.pt: File too large; free some space"):
            writer.save(content(3, torch.zeros(10)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    writer.wait()
    assert read(path)["step"] == 1


def start(out: Path, model: str, *more: str, prelude: str = "") -> "Popen[str]":
    words = ["run", "--method", "ft", "--suite", "tiny", "--model", model, "--out", str(out), "--device", "cpu", *more]
    code = f"{prelude}\nfrom robustbench_ft.cli import main\nmain({words})"
    return Popen([sys.executable, "-c", code], stdout=PIPE, stderr=PIPE, text=True)


def log_begins(out: Path, process: "Popen[str]") -> Path:
    """Wait until the first step was logged."""
    while process.poll() is None:
        for path in out.rglob("log.jsonl"):
            if '"step"' in path.read_text():
                return path
        time.sleep(0.02)
    raise AssertionError(process.communicate())


@pytest.mark.usefixtures("shelves")
@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1"])
def test_a_closed_terminal_and_the_end_of_time_leave_a_checkpoint(name: str, tiny_model: str, tmp_path: Path) -> None:
    hear = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)"  # under nohup it is ignored
    process = start(tmp_path, tiny_model, "--set", "steps=200000", prelude=hear)
    log_begins(tmp_path, process)
    os.kill(process.pid, getattr(signal, name))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "nothing is lost" in said
    assert list(tmp_path.rglob("resume-fit.pt"))


@pytest.mark.usefixtures("shelves")
def test_what_nohup_ignores_stays_ignored(tiny_model: str, tmp_path: Path) -> None:
    ignore = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    process = start(tmp_path, tiny_model, "--set", "steps=300", prelude=ignore)
    log_begins(tmp_path, process)
    os.kill(process.pid, signal.SIGHUP)
    process.communicate(timeout=120)
    assert process.returncode == 0


@pytest.mark.usefixtures("shelves")
def test_checkpoints_come_after_every_so_many_steps(tiny_model: str, tmp_path: Path) -> None:
    count = (
        "from robustbench_ft.train import checkpoint\n"
        "original = checkpoint.save\n"
        "def counted(content, path):\n    print('saved', content['step'], flush=True)\n    original(content, path)\n"
        "checkpoint.save = counted"
    )
    process = start(tmp_path, tiny_model, "--set", "steps=10", "--checkpoint-steps", "4", prelude=count)
    out, _ = process.communicate(timeout=120)
    assert [line for line in out.splitlines() if line.startswith("saved ")] == ["saved 4", "saved 8", "saved 10"]


def test_an_interrupt_that_python_wraps_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any) -> None:
        raise RuntimeError("Error calling __set_name__ on 'x' instance 'y' in 'Z'") from KeyboardInterrupt()

    monkeypatch.setattr("robustbench_ft.notebook.load", interrupted)
    done = CliRunner().invoke(main, ["report", "."])
    assert done.exit_code == 130
    assert done.output.startswith("rbft: interrupted; run the same command again")
