"""Cells as tasks of Ray: what is asked for and refused, what a lost worker means, and a cluster of this machine."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from robustbench_ft import plan
from robustbench_ft.cli.main import main
from robustbench_ft.images.roots import Roots
from robustbench_ft.launch import Job
from robustbench_ft.launch.elsewhere import LOSSES, Losses
from robustbench_ft.launch.on_ray import GIB, Asked, fits
from robustbench_ft.plan import Request
from robustbench_ft.sweep import failure

ASKED = ("run", "--method", "fails", "--method", "zero-shot", "--suite", "tiny", "--device", "cpu", "--threads", "1")


def test_what_a_cell_asks_for_and_where_it_fits() -> None:
    asked = Asked(threads=2, memory=8.0, gpus=1)
    assert asked.text == "2 CPUs, 1 GPU and 8 GiB"
    assert Asked().text == "1 CPU"
    node = {"CPU": 16.0, "GPU": 4.0, "memory": 24.0 * GIB}
    assert fits(node, asked.resources) == 3
    assert fits(node, Asked(threads=2).resources) == 8
    assert fits({"CPU": 16.0}, asked.resources) == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--ray-memory", "4"), "--ray-memory is for --launcher ray"),
        (("--launcher", "ray", "--device", "cuda:1"), "write --device cuda"),
        (("--launcher", "ray", "--devices", "2"), "gives each cell one process"),
    ],
)
def test_options_that_do_not_go_together(more: tuple[str, ...], said: str, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    words = ["run", "--method", "ft", "--suite", "digits", "--out", str(tmp_path), *more]
    result = CliRunner().invoke(main, words)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr


def test_a_cell_that_loses_its_worker_again_and_again_is_a_failure(tmp_path: Path) -> None:
    [cell] = plan.make(Request(("zero-shot",), ("digits",)), Roots(), lambda line: None)
    job, losses = Job(cell, tmp_path, "[1/1]"), Losses()
    ends = [losses.lost(job, "its node is gone", "ray", "lines") for _ in range(LOSSES)]
    assert [end.outcome for end in ends] == ["stopped"] * (LOSSES - 1) + ["failed"]
    found = failure.read(tmp_path)
    assert found is not None
    assert (found.kind, found.reason) == ("died", "its node is gone, for the 3rd time")
    assert losses.lost(job, "its node is gone", "ray").outcome == "stopped"  # with --retry, all begins anew


def start(words: list[str], shelf: Path) -> "subprocess.Popen[str]":
    """`rbft` with the methods and suites of `shelf`, and a Ray that does not mind how busy this machine is."""
    own = {"RAY_raylet_start_wait_time_s": "300", "RAY_memory_monitor_refresh_ms": "0", "OMP_NUM_THREADS": "1"}
    code = f"import sys; sys.path.insert(0, {str(shelf)!r}); from robustbench_ft.cli import main; main({words})"
    return subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | own, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.usefixtures("shelves")
def test_cells_of_a_cluster_of_this_machine(shelf_folder: Path, tiny_model: str, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    words = [*ASKED, "--model", tiny_model, "--set", "steps=2", "--set", "fails.way=seed"]
    ray = [*words, "--seeds", "0,1,4", "--out", str(tmp_path / "ray"), "--launcher", "ray", "--jobs", "1"]
    with start(ray, shelf_folder) as process:
        _, said = process.communicate(timeout=400)
    assert process.returncode == 1, said
    assert "2 of 4 cells failed" in said
    assert "ValueError: two lines" in said  # seed 1
    assert said.count("its Ray worker is gone") >= LOSSES  # seed 4
    assert "the end is near" in next(tmp_path.rglob("fails-*/seed-1/error.log")).read_text()
    assert CliRunner().invoke(main, [*words, "--seeds", "0", "--out", str(tmp_path / "here")]).exit_code == 0
    here = {path.relative_to(tmp_path / "here"): path.read_bytes() for path in (tmp_path / "here").rglob("*.parquet")}
    assert len(here) > 4
    assert {name: (tmp_path / "ray" / name).read_bytes() for name in here} == here


@pytest.mark.usefixtures("shelves")
def test_ctrl_c_stops_tasks_in_good_order(shelf_folder: Path, tiny_model: str, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    words = ["run", "--method", "ft", "--suite", "tiny", "--device", "cpu", "--model", tiny_model, "--seeds", "0-1"]
    words += ["--set", "steps=20000", "--set", "validate_every=0", "--out", str(tmp_path), "--launcher", "ray"]
    with start([*words, "--jobs", "1"], shelf_folder) as process:
        assert process.stderr is not None
        while not any('"event": "step"' in path.read_text() for path in tmp_path.rglob("log.jsonl")):
            assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=200)
    assert process.returncode == 130, said
    assert "stopped at step" in said
    assert not list(tmp_path.rglob("failed.json"))


def test_the_commands_of_the_page_are_understood() -> None:
    pytest.importorskip("ray")
    pytest.importorskip("submitit")
    page = (Path(__file__).parent.parent / "docs" / "sweeps.md").read_text(encoding="utf-8").partition("## Ray")[2]
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("rbft")]
    assert len(commands) == 3
    for command in commands:
        if "slurm" in command and shutil.which("sbatch") is None:
            continue
        done = CliRunner().invoke(main, [*command, "--dry-run"])
        assert done.exit_code == 0, done.output
        assert "10 cells" in done.output
