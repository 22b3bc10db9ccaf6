"""The crash study itself, on a few events and moments; the whole is run by hand and stands in docs/results."""

import subprocess
import sys
from pathlib import Path


def test_a_cell_that_is_disturbed_ends_as_if_nothing_had_happened() -> None:
    script = Path(__file__).with_name("crash_study.py")
    words = [sys.executable, str(script), "--every", "60", "--moments", "1", "--method", "ft"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ") and " of " in line]
    assert len(rows) == 15
    assert all(int(row[1]) > 0 for row in rows)
