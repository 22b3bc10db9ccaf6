"""The machine as records describe it."""

import json
import sys
from pathlib import Path

import pytest
import torch
from tiny import Tiny

from robustbench_ft import environment, launch, plan, runner
from robustbench_ft.compare import report
from robustbench_ft.record import store


def high_water_mark() -> float:
    """MiB, as the kernel counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**10


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_peak_memory_of_a_cpu_run_is_the_kernels() -> None:
    found = environment.peak_memory_mib(torch.device("cpu"))
    assert found == pytest.approx(high_water_mark(), rel=0.2)
    kept = torch.ones(64 * 2**18)  # 64 MiB: a process that grew past its peak has another one
    assert environment.peak_memory_mib(torch.device("cpu")) >= found
    assert kept.sum() > 0


@pytest.mark.usefixtures("shelves")
def test_records_hold_the_cost_of_their_run(tiny_model: str, tmp_path: Path) -> None:
    request = plan.Request(("ft",), ("tiny",), (tiny_model,))
    [folder] = launch.run_cells(plan.make(request), runner.RunOptions(tmp_path, torch.device("cpu")))
    cost = store.Record(folder).env["cost"]
    assert cost["peak_memory_mib"] > 100  # torch alone takes more
    assert cost["trained_parameters"] > 0
    assert cost["passes"] == 1
    assert 0 < cost["waiting"] < 1
    assert 0 < cost["fit_seconds"] < 600
    assert cost["fit_images_per_second"] == pytest.approx(Tiny.recipe.batch * 6 / cost["fit_seconds"], rel=0.5)


@pytest.mark.usefixtures("shelves")
def test_what_a_prediction_costs_is_in_the_record_and_in_tables(tiny_model: str, tmp_path: Path) -> None:
    """An ensemble answers with two forward passes; a record of before says nothing, and then it is one."""
    request = plan.Request(("ft", "output-ensemble"), ("tiny",), (tiny_model,))
    folders = launch.run_cells(plan.make(request), runner.RunOptions(tmp_path, torch.device("cpu")))
    records = [store.Record(folder) for folder in folders]
    assert {r.cell["method"]: r.env["cost"]["passes"] for r in records} == {"ft": 1, "output-ensemble": 2}
    [table] = report.tables(records)
    found = {row["name"]: row["passes"] for row in json.loads(report.as_json([table]))[0]["rows"]}
    several = [name for name, passes in found.items() if passes != 1]
    assert [name for name in several if found[name] == 2] == [several[0]]  # its other rows are of other candidates
    assert f"{several[0]} (2 forward passes)" in report.markdown(table)
    assert found["ft"] == 1
    folder = records[1].folder
    env = records[1].env
    del env["cost"]["passes"]
    store.write_json(folder / "env.json", env)
    (folder / "done").write_bytes(b"")  # nor did it hold digests
    assert store.Record(folder).environment.cost.passes == 1
