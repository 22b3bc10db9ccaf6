"""Locks, failures and plans of a sweep as files, and the commands that read them: `rbft status`, `logs` and `rm`."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from robustbench_ft.cli.main import main
from robustbench_ft.errors import RbftError
from robustbench_ft.record import store
from robustbench_ft.sweep import failure, lock, planned, process, states
from robustbench_ft.sweep.lock import Held, Lock, LostLockError, Observer, Work
from robustbench_ft.sweep.process import Process

HERE = process.this()
GONE = replace(HERE, started="1")  # the number lives, under another start
AWAY = Process("elsewhere", "elsewhere 1", 1234, "5")


def rbft(*words: object, answer: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], input=answer)


def write_lock(folder: Path, owner: Process, number: int = 1, beat: int = 0, **more: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"owner": asdict(owner), "beat": beat, "released": False, "work": asdict(Work()), **more}
    (folder / f"lock-{number}.json").write_text(json.dumps(content))


def held(folder: Path) -> Held:
    found = lock.read(folder)
    assert found is not None
    return found


def take(folder: Path, observer: Observer | None = None, **more: int) -> Lock | None:
    return lock.take(folder, observer or Observer(), **more)


# -- one worker for each cell -----------------------------------------------------------------------------------------


def test_one_alone_takes_a_cell_and_lets_it_go(tmp_path: Path) -> None:
    cell = tmp_path / "cell"
    first = take(cell)
    assert first is not None
    assert held(cell).owner == HERE
    assert take(cell) is None
    first.release(finished=False)
    assert held(cell).released
    second = take(cell)
    assert second is not None
    assert [path.name for path in cell.iterdir()] == ["lock-2.json"]
    second.release(finished=True)
    assert not list(cell.iterdir())


def test_of_many_at_once_one_takes_a_free_cell_or_one_of_a_dead_worker(tmp_path: Path) -> None:
    for round, prepare in enumerate((lambda cell: None, lambda cell: write_lock(cell, GONE, 3))):  # pyright: ignore
        for again in range(10):
            cell, barrier, taken = tmp_path / f"{round}-{again}", threading.Barrier(8), list[Lock]()
            prepare(cell)

            def compete(cell: Path = cell, barrier: threading.Barrier = barrier, taken: list[Lock] = taken) -> None:
                barrier.wait()
                if one := take(cell):
                    taken.append(one)

            threads = [threading.Thread(target=compete) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(taken) == 1
            assert held(cell).number == taken[0].number == 1 + 3 * round
            taken[0].release(finished=True)


def test_of_processes_too(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from robustbench_ft.sweep import lock\n"
        "sys.stdin.readline()\n"
        "print(lock.take(Path(sys.argv[1]), lock.Observer()) is not None, flush=True)\n"
        "sys.stdin.readline()"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "cell")]
    several = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for turn in ("\n", ""):  # all take, then all end
        for one in several:
            assert one.stdin is not None
            one.stdin.write(turn)
            one.stdin.flush()
        if turn:
            took = [one.stdout.readline().strip() for one in several if one.stdout]
            assert sorted(took) == ["False", "False", "True"]
    for one in several:
        one.communicate()
    assert held(tmp_path / "cell").is_dead  # none let it go


def test_a_worker_of_this_machine_is_dead_when_its_process_is(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    stat = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    owner = replace(HERE, pid=child.pid, started=stat[19])
    write_lock(tmp_path, owner)
    assert take(tmp_path) is None
    child.kill()
    deadline = time.monotonic() + 10
    while not held(tmp_path).is_dead and time.monotonic() < deadline:  # not yet collected: a zombie
        time.sleep(0.01)
    second = take(tmp_path)
    child.communicate()
    assert second is not None
    assert second.number == 2
    second.release(finished=True)
    write_lock(tmp_path, GONE)  # its number was given to another process
    assert held(tmp_path).is_dead


def test_a_worker_elsewhere_is_dead_when_its_lock_does_not_change(tmp_path: Path) -> None:
    write_lock(tmp_path, AWAY, number=4)
    os.utime(tmp_path / "lock-4.json", (1, 1))  # its clock is far behind: that is no sign of death
    observer = Observer(dead=0.3)
    assert take(tmp_path, observer) is None
    time.sleep(0.2)
    write_lock(tmp_path, AWAY, number=4, beat=1)
    os.utime(tmp_path / "lock-4.json", (1, 1))
    assert take(tmp_path, observer) is None
    time.sleep(0.2)
    assert take(tmp_path, observer) is None  # 0.2 s since its last sign
    time.sleep(0.2)
    found = take(tmp_path, observer)
    assert found is not None
    assert found.number == 5
    found.release(finished=True)
    write_lock(tmp_path, AWAY, number=2)
    assert take(tmp_path, seen_dead=1) is None
    seen = take(tmp_path, seen_dead=2)  # by another process
    assert seen is not None
    seen.release(finished=True)


def test_a_lock_is_renewed_and_tells_of_the_work(tmp_path: Path) -> None:
    found = lock.take(tmp_path, Observer(), beat=0.02)
    assert found is not None
    found.work = Work("fit", 3, 10, "steps", 2.0)
    deadline = time.monotonic() + 10
    while held(tmp_path).beat < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert held(tmp_path).beat >= 3
    assert held(tmp_path).work == found.work
    assert held(tmp_path).work.left == 3.5
    found.check()
    write_lock(tmp_path, AWAY, number=2)
    while not found.lost and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(LostLockError, match="another worker took"):
        found.check()
    found.release(finished=True)
    assert held(tmp_path).owner == AWAY  # that one's lock is left alone


def test_without_hard_links_a_lock_is_one_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    found = take(tmp_path)
    assert found is not None
    assert held(tmp_path).owner == HERE
    assert take(tmp_path) is None
    found.release(finished=True)


def test_a_lock_that_cannot_be_read_is_held_for_a_while(tmp_path: Path) -> None:
    (tmp_path / "lock-1.json").write_text("")  # created, and not yet written
    observer = Observer(dead=0.05)
    assert take(tmp_path, observer) is None
    time.sleep(0.1)
    found = take(tmp_path, observer)
    assert found is not None
    found.release(finished=True)


# -- status, logs, rm -------------------------------------------------------------------------------------------------

LOG = [
    {"event": "start", "stage": "fit", "step": 0, "of": 9, "parameters": 3},
    *({"event": "step", "step": k, "loss": 0.25} for k in range(4)),
    {"event": "validate", "step": 4, "val_accuracy": 0.75},
]


def write_cell(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text("{}")
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A cell in each state, 'gone' and 'silent' are both stale."""
    out = tmp_path / "out"
    every = ("done", "running", "afar", "failed", "gone", "silent", "old", "stopped", "planned")
    cells = {name: out / "suite" / "model" / f"{name}-12345678" / "seed-0" for name in every}
    for name, folder in cells.items():
        if name != "planned":
            write_cell(folder)
    (cells["done"] / "done").touch()
    at = asdict(Work("fit", 4, 9, "steps", 2.5))
    write_lock(cells["running"], HERE, work=at)
    write_lock(cells["afar"], AWAY, work=at)
    write_lock(cells["gone"], GONE, work=at)
    write_lock(cells["silent"], AWAY)
    os.utime(cells["silent"] / "lock-1.json", (1, 1))
    write_lock(cells["stopped"], HERE, released=True, work=at)
    failure.write(cells["failed"], failure.of_error(ValueError("no\nluck")))
    planned.write(out, [folder.relative_to(out) for folder in cells.values()])
    return out


def cell(out: Path, name: str) -> Path:
    return out / "suite" / "model" / f"{name}-12345678" / "seed-0"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "BEAT", 0.01)


@pytest.mark.usefixtures("impatient")
def test_status_knows_every_state(sweep: Path) -> None:
    shown = rbft("status", sweep)
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    counts = "2 running, 1 failed, 3 stale, 1 stopped, 1 not started, 1 done"
    assert lines[0] == f"9 cells under {sweep}: {counts}"
    [running] = [line for line in lines if "/running-" in line]
    assert running.startswith("running ")
    told = f"fit 4/9 steps, 2.5 steps/s, 2 s left; ID validation accuracy 0.750; {HERE.text}, heartbeat "
    assert told in running
    [failed] = [line for line in lines if "/failed-" in line]
    assert failed.endswith("fit 4/9 steps; ID validation accuracy 0.750; ValueError: no luck")
    assert any(line.strip() == "luck" for line in lines)  # of its error.log
    [gone] = [line for line in lines if "/gone-" in line]
    assert gone.endswith(f"its worker {GONE.text} is gone")
    assert not any("/done-" in line for line in lines)
    assert any("/done-" in line for line in rbft("status", sweep, "--all").stdout.splitlines())


@pytest.mark.usefixtures("impatient")
def test_status_as_json_and_markdown(sweep: Path) -> None:
    found = json.loads(rbft("status", sweep, "--format", "json").stdout)
    assert {Path(one["folder"]).parent.name.partition("-")[0]: one["state"] for one in found} == {
        "done": "done", "running": "running", "afar": "running", "failed": "failed", "gone": "stale",
        "silent": "stale", "old": "stale", "stopped": "stopped", "planned": "not started",
    }  # fmt: skip
    table = rbft("status", sweep, "--format", "markdown").stdout
    assert f"| failed      | {cell(sweep, 'failed').as_posix()}" in table
    assert len([line for line in table.splitlines() if line.startswith("|")]) == 2 + 8


def test_a_lock_that_seems_old_is_looked_at_twice(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of another machine may be wrong: a heartbeat that comes meanwhile is what counts."""

    def beat(seconds: float) -> None:
        write_lock(cell(sweep, "silent"), AWAY, beat=1)

    monkeypatch.setattr("time.sleep", beat)
    [one] = states.read([cell(sweep, "silent")])
    assert one.state == "running"


def test_status_of_a_part_and_of_nothing(sweep: Path, tmp_path: Path) -> None:
    assert "1 cell under" in rbft("status", cell(sweep, "planned").parents[1] / "failed-12345678").stdout
    found = states.find([sweep / "suite"])
    assert found[cell(sweep, "planned")] is False
    assert len(found) == 9
    nowhere = rbft("status", tmp_path / "no")
    assert (nowhere.exit_code, "no such folder" in nowhere.stderr) == (2, True)
    (tmp_path / "empty").mkdir()
    assert rbft("status", tmp_path / "empty").stdout == f"0 cells under {tmp_path}/empty\n"


def test_the_plan_of_a_sweep_stays_in_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "sweep-12345678.json"
    for text in ('{"cells": ["../x"]}', '{"cells": ["/etc"]}', "nonsense", "[]", '{"cells": [1]}'):
        path.write_text(text)
        done = rbft("status", tmp_path)
        assert done.exit_code == 2
        assert f"{path}, the plan of a sweep" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_status_is_fast_and_loads_nothing_heavy(sweep: Path) -> None:
    code = (
        "import sys, time; from robustbench_ft.cli import main; began = time.process_time()\n"
        f"main(['status', {str(sweep / 'suite' / 'model' / 'failed-12345678')!r}], standalone_mode=False)\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"torch", "numpy", "pyarrow", "scipy", "pydantic", "open_clip"}


def test_logs_of_a_cell(sweep: Path) -> None:
    shown = rbft("logs", "failed-1234", "--runs", sweep, "-n", 2)
    assert shown.stdout.splitlines()[:2] == ["step 3 loss 0.25", "validate 4 val_accuracy 0.75"]
    assert shown.stdout.splitlines()[2] == "ValueError: no luck"
    assert "failed; fit 4/9 steps" in shown.stderr
    assert rbft("logs", cell(sweep, "failed")).stdout.startswith("start 0 stage fit of 9")
    for text, what in (("seed-0", "9 cells are called so: "), ("nobody", f"no cell 'nobody' under {sweep}; there are")):
        done = rbft("logs", text, "--runs", sweep)
        assert (done.exit_code, what in done.stderr) == (2, True)


def test_logs_follow_until_the_cell_is_done(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, looks = cell(sweep, "running"), iter(range(100))
    whole = [json.dumps({"event": "step", "step": k}) for k in (4, 5)]

    def work(seconds: float) -> None:
        with (folder / "log.jsonl").open("a") as file:
            n = next(looks)
            file.write((whole[0] + "\n" + whole[1][:5]) if n == 0 else whole[1][5:] + "\n")
        if n == 1:
            (folder / "done").touch()

    monkeypatch.setattr("robustbench_ft.cli.status.time.sleep", work)
    shown = rbft("logs", folder, "-n", 1, "-f")
    assert shown.stdout.splitlines() == ["validate 4 val_accuracy 0.75", "step 4", "step 5"]


@pytest.mark.usefixtures("impatient")
def test_rm_removes_what_does_not_run(sweep: Path) -> None:
    refused = rbft("rm", sweep, "--yes")
    assert refused.exit_code == 2
    assert f"rbft: {cell(sweep, 'running')} is running ({HERE.text}): stop it first" in refused.stderr.splitlines()
    assert cell(sweep, "failed").exists()
    asked = rbft("rm", cell(sweep, "failed"), answer="n\n")
    assert (asked.exit_code, cell(sweep, "failed").exists()) == (130, True)
    assert "Remove 1 cell, " in asked.output
    for state in ("failed", "not started", "stale"):
        assert rbft("rm", sweep, "--state", state, "--yes").exit_code == 0
    found = states.read(states.find([sweep]))
    assert sorted(one.state for one in found) == ["done", "running", "running", "stopped"]
    assert not cell(sweep, "failed").parent.exists()
    none = rbft("rm", sweep, "--state", "failed", "--yes")
    assert (none.exit_code, "no cell that is failed" in none.stderr) == (2, True)


def test_rm_keeps_what_is_published(tmp_path: Path) -> None:
    boards = Path(__file__).parent.parent / "leaderboards"
    run = next(boards.glob("digits-v1/**/seed-0"))
    config = json.loads((run / "record.json").read_text())["cell"]
    folder = tmp_path / "runs" / "cell"
    folder.mkdir(parents=True)
    store.write_json(folder / "cell.json", config)
    store.mark_done(folder)
    kept = rbft("rm", folder, "--yes", "--boards", boards)
    assert kept.exit_code == 2, kept.output
    assert f"{folder} is published in {boards}/" in kept.stderr
    assert rbft("rm", folder, "--yes", "--boards", tmp_path / "none").exit_code == 0
    assert not folder.exists()


def test_a_kill_while_a_cell_is_removed_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_cell(tmp_path / "cell")
    (folder / "done").touch()
    original: Callable[..., None] = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        original(path, missing_ok)
        if path.name == "cell.json":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        rbft("rm", folder, "--yes")
    assert not (folder / "done").exists()
    assert rbft("rm", folder, "--yes").exit_code in (0, 2)
    with pytest.raises(RbftError):
        store.find_records([tmp_path])
