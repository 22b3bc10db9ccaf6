"""Sweeps: worker processes, cells that fail, workers that die, stops, and what the record has to say of none of it."""

import json
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
import torch
from click.testing import CliRunner, Result
from installed import registered
from odd_methods.fails import Fails
from rich.console import Console
from tiny import write_model

from robustbench_ft import checks, plan, registry, runner
from robustbench_ft.cell import from_json
from robustbench_ft.cli.main import main
from robustbench_ft.errors import RbftError
from robustbench_ft.launch import Job, attempt, local, order, view
from robustbench_ft.launch.signals import graceful
from robustbench_ft.plan import Cell, Request
from robustbench_ft.progress import Progress
from robustbench_ft.prompts import Task
from robustbench_ft.sweep import lock, states
from robustbench_ft.sweep.lock import Observer

pytestmark = pytest.mark.usefixtures("shelves")

LONG = ("--method", "ft", "--suite", "tiny", "--set", "steps=4000", "--set", "batch=4", "--set", "validate_every=0")
DEADLINE = 120.0


def words(out: Path, model: str, *more: str) -> list[str]:
    return ["run", "--model", model, "--out", str(out), "--threads", "1", "--device", "cpu", *more]


def rbft(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in arguments], catch_exceptions=False)


def start(arguments: list[str]) -> "Popen[str]":
    code = f"from robustbench_ft.cli import main\nmain({arguments})"
    return Popen([sys.executable, "-c", code], stdout=PIPE, stderr=PIPE, text=True)


def finish(process: "Popen[str]") -> str:
    """Standard error, once it has ended."""
    with process:
        return process.communicate(timeout=DEADLINE)[1]


def wait(until: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def steps(out: Path) -> list[int]:
    """Of each cell that has begun to train, how many steps its log tells of."""
    return [path.read_text().count('"event": "step"') for path in out.rglob("log.jsonl")]


def results(out: Path) -> dict[str, bytes]:
    """What does not depend on where and when cells are run, of those that are done."""
    done = [path.parent for path in out.rglob("done")]
    kinds = ("*.parquet", "*.safetensors", "metrics.json", "cell.json", "done")
    files = [path for folder in done for kind in kinds for path in folder.rglob(kind)]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def names(out: Path) -> dict[str, str]:
    """State of every cell by 'method/seed-n'."""
    found = states.read(states.find([out]))
    return {f"{one.folder.parent.name.rpartition('-')[0]}/{one.folder.name}": one.state for one in found}


# -- cells that fail, in one process and in several --------------------------------------------------------------------

SWEEP = ("--suite", "tiny", "--method", "fails", "--method", "ft", "--seeds", "0-4", "--set", "steps=2")
FOUND = {
    "fails/seed-1": "ValueError: two lines (fails.py, line ",
    "fails/seed-2": "method 'fails' called sys.exit(0), which would end the whole command",
    "fails/seed-3": "ended with exit code 0 in the middle of the cell",
    "fails/seed-4": "was killed by signal 9",
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, shelf_folder: Path, tiny_model: str) -> tuple[Path, str]:
    """Ten cells in two processes, four of which fail; and what was said."""
    out = tmp_path_factory.mktemp("swept")
    with registered(shelf_folder):
        result = rbft(*words(out, tiny_model, *SWEEP, "--jobs", "2"))
    assert result.exit_code == 1, result.output
    return out, result.stderr


def test_failed_cells_are_named_and_the_others_go_on(swept: tuple[Path, str]) -> None:
    out, said = swept
    assert "rbft: 4 of 10 cells failed; `rbft logs " in said
    for name, reason in FOUND.items():
        [line] = [line for line in said.splitlines() if line.startswith("rbft: failed") and name[-6:] in line]
        assert reason in line
        assert "fails-" in line
    assert names(out) == {
        **{f"ft/seed-{k}": "done" for k in range(5)},
        **{f"fails/seed-{k}": "failed" if k else "done" for k in range(5)},
    }


def test_a_failure_is_a_file_and_a_log(swept: tuple[Path, str]) -> None:
    out, _ = swept
    for path in out.rglob("failed.json"):
        found = json.loads(path.read_text())
        name = f"fails/{path.parent.name}"
        assert FOUND[name] in found["reason"]
        assert found["kind"] == ("died" if name[-1] in "34" else "error")
        assert (found["attempts"], found["schema"]) == (1, 1)
        log = (path.parent / "error.log").read_text()
        assert "the end is near" in log
        assert ("Traceback" in log) == (name[-1] in "12")
    assert len(list(out.rglob("failed.json"))) == 4


def test_records_of_several_processes_are_those_of_one(
    swept: tuple[Path, str], tiny_model: str, tmp_path: Path
) -> None:
    wanted = (*SWEEP[:6], "--seeds", "0", *SWEEP[8:])
    assert rbft(*words(tmp_path, tiny_model, *wanted)).exit_code == 0
    here, there = results(tmp_path), results(swept[0])
    assert len(here) == 2 * (4 + 2 + 3)
    same = [name for name in here if not name.endswith("/done")]  # which names env.json, where times are
    assert {name: there[name] for name in same} == {name: here[name] for name in same}
    assert not list(swept[0].rglob(".*"))
    assert not list(tmp_path.rglob("lock-*"))


def test_retry_and_max_failures(tiny_model: str, tmp_path: Path) -> None:
    once = ("--suite", "tiny", "--method", "fails", "--set", "way=error", "--set", f"once={tmp_path}/once")
    done = rbft(*words(tmp_path / "a", tiny_model, *once, "--retry", "1", "--set", "steps=1"))
    assert done.exit_code == 0, done.output
    assert "attempt 2" in done.stderr
    assert not list(tmp_path.rglob("failed.json")) + list(tmp_path.rglob("error.log"))
    always = ("--suite", "tiny", "--method", "fails", "--set", "way=exit", "--seeds", "0-3", "--retry", "1")
    done = rbft(*words(tmp_path / "b", tiny_model, *always, "--max-failures", "2"))
    assert done.exit_code == 1
    assert "rbft: 2 of 4 cells failed; stopped there, 2 not run (--max-failures)" in done.stderr
    assert [json.loads(path.read_text())["attempts"] for path in tmp_path.rglob("failed.json")] == [2, 2]
    assert sorted(names(tmp_path / "b").values()) == ["failed", "failed", "not started", "not started"]
    shown = rbft("--traceback", *words(tmp_path / "b", tiny_model, *always[:6], "--seeds", "0"))
    assert "SystemExit: 0" in shown.stderr


def test_what_cannot_be_begun_is_bad_input_and_leaves_no_trace(tmp_path: Path) -> None:
    mute = f"local-dir:{write_model(tmp_path / 'mute', random_ids=False)}"
    done = rbft(*words(tmp_path / "out", mute, "--method", "lipsum", "--suite", "tiny", "--seeds", "0-1"))
    assert done.exit_code == 2
    assert done.stderr.count("rbft: lipsum cannot be run with model") == 1
    assert not (tmp_path / "out").exists()
    both = ("--method", "lipsum", "--method", "zero-shot", "--suite", "tiny")
    done = rbft(*words(tmp_path / "out", mute, *both))
    assert done.exit_code == 1
    assert names(tmp_path / "out") == {"lipsum/seed-0": "failed", "zero-shot/seed-0": "done"}


def test_sys_exit_in_a_fit_fails_the_checks_of_a_method(tiny_model: str) -> None:
    class Leaves(Fails):
        def fit(self, clip: object, data: object, run: object) -> object:  # pyright: ignore[reportIncompatibleMethodOverride]
            sys.exit(0)

    [check] = [one for one in checks.check_method(Leaves, tiny_model, Task(("red page", "blue page"), ("a {}",)))
               if one.name == "weights-are-finite"]  # fmt: skip
    with pytest.raises(AssertionError, match=r"called sys.exit\(0\)"):
        check()


# -- stops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["interrupt", "kill the launcher"])
def test_every_worker_stops_in_good_order(how: str, tiny_model: str, tmp_path: Path) -> None:
    process = start(words(tmp_path, tiny_model, *LONG, "--seeds", "0-2", "--jobs", "2"))
    wait(lambda: process.poll() is not None or len([n for n in steps(tmp_path) if n > 2]) == 2)
    number = signal.SIGINT if how == "interrupt" else signal.SIGKILL
    process.send_signal(number)
    said = finish(process)
    if number == signal.SIGKILL:
        held = [path.parent for path in tmp_path.rglob("lock-*.json")]
        wait(lambda: all((found := lock.read(folder)) and found.released for folder in held))
    else:
        assert process.returncode == 130, said
        assert "rbft: stopped 2 cells at their last step, with 0 of 3 done or failed; nothing is lost" in said
    assert sorted(names(tmp_path).values()) == ["not started", "stopped", "stopped"]
    assert len(list(tmp_path.rglob("resume-fit.pt"))) == 2
    assert not list(tmp_path.rglob("failed.json"))
    shown = rbft("status", tmp_path)
    assert "3 cells under" in shown.stdout
    assert "2 stopped, 1 not started" in shown.stdout
    assert shown.stdout.count("/4000 steps") == 2


def test_a_hang_up_is_heard_unless_it_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
    try:
        with graceful() as stopped:
            signal.raise_signal(signal.SIGHUP)
            assert stopped()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with graceful() as stopped:
            signal.raise_signal(signal.SIGHUP)
            assert not stopped()
            signal.raise_signal(signal.SIGTERM)
            assert stopped()
    finally:
        signal.signal(signal.SIGHUP, before)


# -- what is seen -----------------------------------------------------------------------------------------------------


def test_the_table_of_a_terminal_shows_every_cell_that_runs(tiny_model: str, tmp_path: Path) -> None:
    cells = plan.make(Request(("ft",), ("tiny",), (tiny_model,), seeds="0-1"))
    jobs = [Job(cell, tmp_path / cell.folder, f"[{k}/2] ft on tiny [x], seed {k}") for k, cell in enumerate(cells, 1)]
    held = lock.take(jobs[0].folder, Observer(), beat=0.01)
    assert held is not None
    held.work = lock.Work("fit", 3, 9, "steps", 2.0)
    wait(lambda: (found := lock.read(jobs[0].folder)) and found.work.done == 3)
    shown = view.Table(Progress())
    shown.counts.update(["done"])
    console = Console(record=True, width=120, file=StringIO())
    console.print(shown.table(jobs, 5))
    held.release(finished=True)
    lines = console.export_text().splitlines()
    [first] = [line for line in lines if "[1/2] ft on tiny [x], seed 1" in line]
    assert [word.strip() for word in first.split("│")[2:6]] == ["fit", "3/9", "2.0 steps/s", "3 s"]
    assert any("[2/2] ft on tiny [x], seed 2" in line and "begin" in line for line in lines)
    assert "2 running, 5 to go, 1 done" in lines[-1]
    shown.close()


# -- one worker for each cell -----------------------------------------------------------------------------------------


def test_a_dead_worker_is_succeeded_and_a_second_one_waits(tiny_model: str, tmp_path: Path) -> None:
    command = words(tmp_path, tiny_model, *(word.replace("4000", "400") for word in LONG))
    dead = start(command)
    wait(lambda: dead.poll() is not None or sum(steps(tmp_path)) > 2)
    dead.kill()
    finish(dead)
    assert list(names(tmp_path).values()) == ["stale"]
    assert f":{dead.pid} is gone" in rbft("status", tmp_path).stdout

    first = start(command)
    wait(lambda: first.poll() is not None or "running" in names(tmp_path).values())
    second = rbft(*command)
    said = finish(first)
    assert (second.exit_code, first.returncode) == (0, 0), second.output + said
    assert f":{dead.pid}, which is gone" in said
    assert f":{first.pid} is at work on it; the others first" in second.stderr
    assert "done before" in second.stderr
    [log] = [path.read_text() for path in tmp_path.rglob("log.jsonl")]
    assert (log.count('"event": "start"'), log.count('"event": "end"')) == (2, 1)  # nothing was done twice


def test_a_cell_that_is_held_is_not_touched(tiny_model: str, tmp_path: Path) -> None:
    cells = plan.make(Request(("ft",), ("tiny",), (tiny_model,), set=(("steps", "1"),)))
    held = lock.take(tmp_path / cells[0].folder, Observer())
    assert held is not None
    options = runner.RunOptions(tmp_path, torch.device("cpu"))
    job = Job(cells[0], tmp_path / cells[0].folder, "")
    ended = attempt.attempt(job, lambda: cells.suite_of(cells[0]), options, lambda: False, Observer())
    assert ended.outcome == "held"
    assert not (job.folder / "cell.json").exists()
    held.release(finished=True)
    assert attempt.attempt(job, lambda: cells.suite_of(cells[0]), options, lambda: False, Observer()).outcome == "done"


def test_a_worker_that_stood_still_and_was_succeeded_writes_no_more(tiny_model: str, tmp_path: Path) -> None:
    [cell] = plan.make(Request(("ft",), ("tiny",), (tiny_model,), set=(("steps", "3"),)))
    folder, suite = tmp_path / cell.folder, plan.make(Request(("ft",), ("tiny",), (tiny_model,))).suites["tiny"]

    def succeeded() -> bool:
        (folder / "lock-7.json").write_text("{}")
        return False

    options = runner.RunOptions(tmp_path, torch.device("cpu"))
    ended = attempt.attempt(Job(cell, folder, ""), lambda: suite, options, succeeded, Observer())
    assert ended.outcome == "held"
    assert not (folder / "done").exists()


# -- what workers are told --------------------------------------------------------------------------------------------


def test_an_order_is_read_as_it_was_written(tiny_model: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text((Path(registry.resolve("method", "ft").source)).read_text().replace("class FT", "class Mine"))
    cells = plan.make(Request((str(file), "lipsum"), ("tiny",), (tiny_model,), set=(("lr", "3e-4"),)), tmp_path)
    options = runner.RunOptions(tmp_path, torch.device("cpu"), checkpoint_seconds=3.0, save_model=False)
    for cell in cells:
        job = Job(cell, tmp_path / cell.folder, "title", True, 3, 2)
        found = order.read(order.to_text(order.make(job, cells, options)))
        assert found.job == job
        assert replace(found.run_options(options.progress), devices=options.devices) == options
        assert found.suite.load().roots == cells.suite_of(cell).roots
    with pytest.raises(RbftError, match="versions differ"):
        from_json({**cells[0].to_json(), "precision": "bf16"})


def test_every_worker_has_a_gpu_of_those_that_may_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    def seen(device: str, jobs: int, visible: str = "") -> list[str | None]:
        found = local.gpus(torch.device(device), jobs, {"CUDA_VISIBLE_DEVICES": visible} if visible else {})
        return [one.get("CUDA_VISIBLE_DEVICES") for one in found]

    assert seen("cuda", 3) == ["0", "1", "0"]
    assert seen("cuda", 2, "3, GPU-ab") == ["3", "GPU-ab"]
    assert seen("cpu", 2) == seen("cuda:1", 2) == [None, None]


def test_planning_compares_no_cell_with_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    original = Cell.__eq__

    def counted(self: Cell, other: object) -> bool:
        compared.append(1)
        return original(self, other)

    monkeypatch.setattr(Cell, "__eq__", counted)
    grid = tuple(("lr", f"{k}e-5") for k in range(1, 101))
    assert len(plan.make(Request(("ft",), ("shapes",), seeds="0-3", set=grid))) == 400
    assert len(compared) < 400


# -- docs/sweeps.md ---------------------------------------------------------------------------------------------------


def test_the_commands_of_the_page_run(tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the suite of the tests, which is smaller."""
    page = (Path(__file__).parent.parent / "docs" / "sweeps.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", page.partition("## Ray")[0], re.DOTALL)
    commands = [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]
    assert len(commands) == 7
    monkeypatch.chdir(tmp_path)
    shown: list[str] = []
    for command in commands:
        small = [word.replace("digits", "tiny") for word in command]
        done = rbft(*small, *(("--model", tiny_model, "--device", "cpu") if command[0] == "run" else ()))
        assert done.exit_code == 0, (command, done.output)
        shown.append(done.output)
    assert "3 cells under runs/sweep: 3 done" in shown[1]
    assert "validate 2 val_accuracy" in shown[5]
    assert "removed 3 cells" in shown[6]
