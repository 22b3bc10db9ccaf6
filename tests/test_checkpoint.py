"""A resume checkpoint is whole or refused, wherever a byte of it was flipped, and the one before it is kept."""

import os
import random
import resource
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import torch

from robustbench_ft import atomic
from robustbench_ft.errors import RbftError
from robustbench_ft.train import checkpoint

CPU = torch.device("cpu")
NEEDED = {"step", "weights"}
FLIPS = 50


def content(step: int) -> dict[str, Any]:
    return {"step": step, "weights": {"w": torch.arange(10_000.0) + step, "more": torch.zeros(10_000)}}


def load(path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """What is read, and what is said."""
    said: list[str] = []
    return checkpoint.load(path, CPU, NEEDED, said.append), said


def flip(path: Path, position: int) -> None:
    whole = bytearray(path.read_bytes())
    whole[position] ^= 1
    path.write_bytes(whole)


def positions(size: int) -> list[int]:
    """First, last, every byte of the footer's mark, and others anywhere."""
    footer = range(size - checkpoint.FOOTER, size - checkpoint.FOOTER + len(checkpoint.MARK))
    fixed = [0, size - 1, *footer]
    return fixed + random.Random(0).sample(range(size), FLIPS - len(fixed))


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "resume-fit.pt"
    assert load(path) == (None, [])
    for step in (1, 2, 3):
        checkpoint.save(content(step), path)
        found, said = load(path)
        assert found is not None
        assert (found["step"], said) == (step, [])
        assert torch.equal(found["weights"]["w"], content(step)["weights"]["w"])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["resume-fit.previous.pt", "resume-fit.pt"]


def test_a_flipped_byte_is_refused_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "resume-fit.pt"
    checkpoint.save(content(1), path)
    whole = path.read_bytes()
    for position in positions(len(whole)):
        path.write_bytes(whole)
        flip(path, position)
        with pytest.raises(RbftError, match=r"resume-fit\.pt is damaged: delete it to start the cell again"):
            load(path)


def test_the_checkpoint_before_a_damaged_one_is_used_and_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "resume-fit.pt"
    checkpoint.save(content(1), path)
    checkpoint.save(content(2), path)
    last, before = path.read_bytes(), checkpoint.previous(path).read_bytes()
    for position in positions(len(last)):
        path.write_bytes(last)
        checkpoint.previous(path).write_bytes(before)
        flip(path, position)
        found, said = load(path)
        assert found is not None
        assert (found["step"], said) == (1, [f"  checkpoint {path} is damaged: going back to the one before it"])
        assert path.read_bytes() == before  # the next one to be written puts this one aside, and not the damaged one


def test_two_damaged_checkpoints_are_both_named(tmp_path: Path) -> None:
    path = tmp_path / "resume-fit.pt"
    checkpoint.save(content(1), path)
    checkpoint.save(content(2), path)
    flip(path, 100)
    flip(checkpoint.previous(path), 100)
    with pytest.raises(RbftError, match=r"resume-fit\.pt is damaged, and so is resume-fit\.previous\.pt: delete both"):
        load(path)


def test_a_whole_file_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "resume-fit.pt"
    for other in ({"step": 1}, {"step": 1, "weights": Path("/")}):
        path.unlink(missing_ok=True)
        checkpoint.save(other, path)
        with pytest.raises(RbftError, match="is damaged: delete it"):
            load(path)


@pytest.mark.parametrize("room", [0, 1000, 20_000, 50_000, -10, -1])
def test_a_full_disk_is_one_line_and_leaves_what_was_there(room: int, tmp_path: Path) -> None:
    path = tmp_path / "resume-fit.pt"
    checkpoint.save(content(1), path)
    size = path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room % size, hard))
    try:
        with pytest.raises(
            RbftError, match=r"cannot write .*resume-fit\.pt: File too large; free some space"
        ) as caught:
            checkpoint.save(content(2), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    found, _ = load(path)
    assert found is not None
    assert found["step"] == 1


def test_temporary_files_of_dead_processes_are_removed_and_others_stay(tmp_path: Path) -> None:
    with Popen(["true"]) as process:
        pass
    dead = [tmp_path / f".resume-fit.pt.{process.pid}", tmp_path / "model" / f".x.{process.pid}"]
    dead += [tmp_path / f".{process.pid}.0.cell.json", tmp_path / "model" / f".{process.pid}.12.x"]
    kept = [tmp_path / f".resume-fit.pt.{os.getpid()}", tmp_path / "resume-fit.pt", tmp_path / ".hidden"]
    kept += [tmp_path / f".{process.pid}", tmp_path / f"x.{process.pid}", tmp_path / f".{os.getpid()}.0.cell.json"]
    (tmp_path / "model").mkdir()
    for file in (*dead, *kept):
        file.touch()
    atomic.sweep(tmp_path)
    assert not any(file.exists() for file in dead)
    assert all(file.exists() for file in kept)
