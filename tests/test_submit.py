"""`rbft leaderboard submit` commits what holds to a branch, and changes nothing otherwise."""

import subprocess
from pathlib import Path

import made
import pytest
from click.testing import CliRunner, Result
from test_dishonest_claims import Made

from robustbench_ft import suite_ref
from robustbench_ft.claims import audit
from robustbench_ft.cli.main import main

WORLD = made.World(skills={"ft": made.SKILLS["ft"]}, n=40)


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@x"]
    return subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with an empty boards folder; images are not asked for, as `made` has none."""
    for name in ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"):
        monkeypatch.setenv(name, "n")
    for name in ("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(name, "e@x")
    whole = audit.against_data
    monkeypatch.setattr(suite_ref, "load", lambda name, root, version: Made("shapes"))  # pyright: ignore
    monkeypatch.setattr(
        audit, "against_data", lambda *words: [line for line in whole(*words) if not line.startswith("images ")]
    )
    root = tmp_path / "checkout"
    (root / "boards").mkdir(parents=True)
    (root / "boards" / "README.md").write_text("boards")
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "start")
    return root


def submit(checkout: Path, runs: Path, *words: str) -> Result:
    line = ["leaderboard", "submit", str(runs), "--boards", str(checkout / "boards"), "--author", "A. Author", *words]
    return CliRunner().invoke(main, line)


def test_a_row_that_holds_is_on_a_branch_with_a_text(checkout: Path, tmp_path: Path) -> None:
    runs = made.write(tmp_path / "runs", WORLD)
    dry = submit(checkout, runs, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "# ft on shapes v2" in dry.output
    assert "## What was verified" in dry.output
    assert git(checkout, "status", "--porcelain") == ""
    done = submit(checkout, runs)
    assert done.exit_code == 0, done.output
    branch = git(checkout, "branch", "--show-current").strip()
    assert branch.startswith("claim/ft-")
    assert git(checkout, "status", "--porcelain") == ""
    files = git(checkout, "show", "--name-only", "--format=%s", "HEAD").splitlines()
    assert files[0] == "ft on shapes v2"
    assert sum(name.endswith("predictions.parquet") for name in files) == 3
    assert {"boards/index.md", "boards/shapes-v2.csv"} <= set(files)
    text = Path(next(line.split()[1] for line in done.output.splitlines() if line.startswith("text")))
    assert text.read_text() == dry.output.split("\n\n", 1)[1].removesuffix("\n")
    assert git(checkout, "remote") == ""
    verified = CliRunner().invoke(main, ["leaderboard", "verify", "--root", str(checkout / "boards")])
    assert verified.exit_code == 0


def test_predictions_that_lie_elsewhere_are_in_no_commit(checkout: Path, tmp_path: Path) -> None:
    runs = made.write(tmp_path / "runs", WORLD)
    done = submit(checkout, runs, "--predictions-at", "hf://datasets/ORG/NAME")
    assert done.exit_code == 0, done.output
    assert "predictions.parquet files below" in done.output
    files = git(checkout, "show", "--name-only", "--format=", "HEAD").splitlines()
    assert "boards/.gitignore" in files
    assert sum(name.endswith("record.json") for name in files) == 3
    assert not any(name.endswith("predictions.parquet") for name in files)
    assert git(checkout, "status", "--porcelain") == ""
    assert len(list((checkout / "boards").rglob("predictions.parquet"))) == 3  # to be copied to the place


def test_a_row_that_does_not_hold_changes_nothing(checkout: Path, tmp_path: Path) -> None:
    runs = made.write(tmp_path / "runs", made.World(skills={"ft": made.SKILLS["ft"]}, n=40, shifts=("painting",)))
    done = submit(checkout, runs)
    assert done.exit_code == 2
    assert "its shifts is painting, suite shapes v2 has painting, clipart, sketch" in done.output
    assert git(checkout, "branch", "--show-current").strip() == "main"
    assert git(checkout, "status", "--porcelain") == ""


def test_a_checkout_with_changes_is_left_alone(checkout: Path, tmp_path: Path) -> None:
    (checkout / "boards" / "README.md").write_text("changed")
    done = submit(checkout, made.write(tmp_path / "runs", WORLD))
    assert (done.exit_code, "has changes: commit or stash them first" in done.output) == (2, True)
    assert git(checkout, "branch", "--show-current").strip() == "main"
