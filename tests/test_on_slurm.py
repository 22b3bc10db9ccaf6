"""Cells as Slurm jobs, on a Slurm of this machine: requeued, stopped and cancelled in the middle."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from subprocess import PIPE, Popen

import one_node
import pytest
from click.testing import CliRunner

from robustbench_ft.cli.main import main
from robustbench_ft.errors import RbftError
from robustbench_ft.launch.on_slurm import Asked
from robustbench_ft.sweep import states

pytest.importorskip("submitit")
DEADLINE = 300.0
LONG = ("--method", "ft", "--suite", "digits", "--set", "steps=60", "--set", "batch=8", "--set", "validate_every=0")
CLUSTER = pytest.mark.skipif(not one_node.is_there(), reason="no Slurm to start here: its programs, and root")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Generator[dict[str, str], None, None]:
    """The environment of commands that speak to a cluster of this machine."""
    with one_node.started(tmp_path_factory.mktemp("slurm"), 17_000 + os.getpid() % 1000) as environment:
        yield os.environ | environment | {"OMP_NUM_THREADS": "1"}


def words(out: Path, *more: str) -> list[str]:
    asked = [*LONG, "--out", str(out), "--threads", "1", "--device", "cpu", "--no-save-model"]
    return [sys.executable, "-m", "robustbench_ft", "run", *asked, *more]


def start(out: Path, environment: dict[str, str], *more: str) -> "Popen[str]":
    asked = words(out, "--launcher", "slurm", "--slurm", "mem=400M", *more)
    return Popen(asked, env=environment, stdout=PIPE, stderr=PIPE, text=True)


def ask(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


def wait(until: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def events(out: Path, event: str) -> list[int]:
    """Of each cell that has begun to train, how often its log tells of an event."""
    return [path.read_text().count(f'"event": "{event}"') for path in sorted(out.rglob("log.jsonl"))]


def results(out: Path) -> dict[str, bytes]:
    kinds = ("*.parquet", "metrics.json", "cell.json")
    return {path.relative_to(out).as_posix(): path.read_bytes() for kind in kinds for path in out.rglob(kind)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(words(out, "--seeds", "0-1"), check=True, capture_output=True)
    return results(out)


@CLUSTER
def test_requeued_and_preempted_jobs_end_as_undisturbed_ones(
    slurm: dict[str, str], undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    with start(tmp_path, slurm, "--seeds", "0-1") as process:
        wait(lambda: len(found := events(tmp_path, "step")) == 2 and min(found) > 2)
        jobs = ask(slurm, "squeue", "--noheader", "--array", "--format=%i").split()
        assert len(jobs) == 2
        ask(slurm, "scontrol", "requeue", jobs[0])
        ask(slurm, "scancel", "--signal=USR1", jobs[1])  # as before a time limit: it puts itself into the queue again
        while process.poll() is None:
            for job in jobs:  # Slurm lets requeued jobs wait for minutes
                ask(slurm, "scontrol", "update", f"JobId={job}", "StartTime=now")
            time.sleep(1.0)
        said = process.stdout.read() + process.stderr.read() if process.stdout and process.stderr else ""
    assert process.returncode == 0, said
    assert events(tmp_path, "start") == [2, 2]
    assert results(tmp_path) == undisturbed
    assert not (tmp_path / "slurm").exists()
    assert "begun again" not in said  # Slurm did that


@CLUSTER
def test_ctrl_c_stops_jobs_in_good_order_and_a_cancelled_one_is_a_failure(
    slurm: dict[str, str], undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    with start(tmp_path, slurm, "--seeds", "0-2") as process:  # the third waits for a CPU
        wait(lambda: len(found := events(tmp_path, "step")) == 2 and min(found) > 2)
        shown = CliRunner().invoke(main, ["status", str(tmp_path)]).output
        assert shown.count("running") >= 2
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=DEADLINE)[1]
    assert process.returncode == 130, said
    assert ask(slurm, "squeue", "--noheader") == ""
    assert [one.state for one in states.read(states.find([tmp_path]))] == ["stopped", "stopped", "not started"]
    with start(tmp_path, slurm, "--seeds", "0-1", "--jobs", "1") as process:  # one after the other
        wait(lambda: max(events(tmp_path, "start")) == 2)
        ask(slurm, "scancel", ask(slurm, "squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i").strip())
        said = process.communicate(timeout=DEADLINE)[1]
    assert process.returncode == 1, said
    assert "was cancelled" in said
    done = results(tmp_path)
    assert done
    assert done.items() <= undisturbed.items()
    assert len(list(tmp_path.rglob("done"))) == 1


@CLUSTER
def test_tasks_of_one_job_fit_a_cell_together(slurm: dict[str, str], tmp_path: Path) -> None:
    with start(tmp_path, slurm, "--devices", "2") as process:
        out, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, out + said
    [environment] = tmp_path.rglob("env.json")
    assert '"world": 2' in environment.read_text()


def test_words_for_sbatch_are_known_ones(tmp_path: Path) -> None:
    one = ["run", "--method", "ft", "--suite", "digits", "--out", str(tmp_path), "--launcher", "slurm"]
    for asked, said in {
        "partitoin=gpu": "unknown option 'partitoin': did you mean partition?",
        "partition": "--slurm partition: write KEY=VALUE",
    }.items():
        result = CliRunner().invoke(main, [*one, "--slurm", asked])
        assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
    result = CliRunner().invoke(main, [*one[:-2], "--slurm", "partition=gpu"])
    assert (result.exit_code, "--slurm is for --launcher slurm" in result.stderr) == (2, True)


def test_tasks_are_shared_among_nodes() -> None:
    found = Asked({"nodes": "2", "time": "1:00:00"}, threads=4, gpus=1, devices=8).sbatch()
    assert found["ntasks-per-node"] == found["gpus-per-node"] == 4
    assert (found["nodes"], found["cpus-per-task"], found["time"]) == ("2", 4, "1:00:00")
    assert "gpus-per-node" not in Asked({"gres": "gpu:a100:1"}, gpus=1).sbatch()
    with pytest.raises(RbftError, match="cannot be shared"):
        Asked({"nodes": "3"}, devices=8).sbatch()
