"""Kill a node of a Ray cluster in the middle of a sweep: `python tests/ray_study.py > docs/results/ray.md`.

Several raylets on this machine are a cluster. `rbft run --launcher ray` is a process of its own, as for a user.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

KINDS = ("*.parquet", "metrics.json", "cell.json")  # times, and how often a fit was taken up again, are elsewhere
STORE = 80_000_000  # bytes of shared memory of each node


def command(cells: int, out: Path, *more: str) -> list[str]:
    asked = ["--method", "zero-shot", "--method", "ft", "--suite", "digits", "--seeds", f"0-{cells - 2}"]
    asked += ["--set", "ft.steps=3", "--device", "cpu", "--threads", "1", "--no-save-model"]
    return [sys.executable, "-m", "robustbench_ft", "run", *asked, "--checkpoint-steps", "1", "--out", str(out), *more]


def results(out: Path) -> dict[str, bytes]:
    """What does not depend on where and when cells are run, of those that are done."""
    folders = [path.parent for path in out.rglob("done")]
    files = [path for folder in folders for kind in KINDS for path in folder.rglob(kind)]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def count(out: Path) -> int:
    return len(list(out.rglob("done")))


def sweep_with_a_kill(cells: int, nodes: int, out: Path) -> tuple[int, int, str]:
    """Cells that were done when the node was killed, the exit code, and what was said."""
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")
    os.environ.update({"RAY_memory_monitor_refresh_ms": "0"})  # the machine's memory is not this study's
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray: Any = import_module("ray.cluster_utils")
    head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
    cluster = ray.Cluster(initialize_head=True, head_node_args=head)
    try:
        workers = [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(nodes)]
        words = command(cells, out, "--launcher", "ray", "--ray-address", cluster.address)
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(words, stdout=said, stderr=subprocess.STDOUT, text=True)
            while count(out) < cells // 4 and process.poll() is None:
                time.sleep(0.1)
            killed_at = count(out)
            cluster.remove_node(workers[0], allow_graceful=False)  # kill -9 of its raylet, and with it of its workers
            code = process.wait()
            said.seek(0)
            return killed_at, code, said.read()
    finally:
        cluster.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=40)
    parser.add_argument("--nodes", type=int, default=3)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="rbft-ray-study-"))
    killed_at, code, said = sweep_with_a_kill(asked.cells, asked.nodes, folder / "ray")
    subprocess.run(command(asked.cells, folder / "here"), check=True, capture_output=True)
    there, here = results(folder / "ray"), results(folder / "here")
    again = [line for line in said.splitlines() if "begun again" in line]
    differ = sorted(name for name in here if there.get(name) != here[name])
    ray: Any = import_module("ray").__version__
    print(
        f"# A node of a Ray cluster dies\n\n`python tests/ray_study.py --cells {asked.cells} --nodes {asked.nodes}`\n"
    )
    print(f"Ray {ray}; a head without CPUs and {asked.nodes} nodes of one CPU, all of one machine; suite digits.\n")
    print("| | |\n|:--|--:|")
    for name, value in {
        "cells": asked.cells,
        "cells done when a raylet got kill -9": killed_at,
        "attempts that were begun again": len(again),
        "cells done at the end": count(folder / "ray"),
        "exit code": code,
        "files compared with a sequential run (predictions, metrics, cell)": len(here),
        "files that differ": len(differ) + abs(len(there) - len(here)),
    }.items():
        print(f"| {name} | {value} |")
    print("\nWhat it said of them:\n\n```\n" + "\n".join(again) + "\n```")
    if code or differ or len(there) != len(here) or not again:
        print(said, *differ, sep="\n", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
