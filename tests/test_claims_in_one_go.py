"""Claims enter a leaderboards folder in one go: killed at any moment, `add` leaves the old ones or the new ones."""

import os
import shutil
import signal
import time
from pathlib import Path

import made
import pytest
from crash_study import hook

from robustbench_ft.claims import audit, claim_store, staging
from robustbench_ft.claims.schema import Trust
from robustbench_ft.errors import RbftError

TRUST = Trust("rerun")
SKILLS = {"ft": (1.0, 0.1), "lipsum": (1.2, 0.4)}


def runs(folder: Path, seeds: tuple[int, ...]) -> Path:
    return made.write(folder, made.World(skills=SKILLS, n=12, seeds=seeds))


def add_in_a_child(records: Path, root: Path, kill: int = 0) -> int:
    """How many events there were in the folder; with `kill` the child dies before that event."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            count = [0]

            def heard(number: int) -> None:
                count[0] = number
                if number == kill:
                    os.kill(os.getpid(), signal.SIGKILL)

            hook(root, heard)
            claim_store.add([records], root, TRUST, overwrite=True)
            os.write(writer, str(count[0]).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(reader) as told:
        events = told.read()
    assert os.waitstatus_to_exitcode(status) == (-signal.SIGKILL if kill else 0)
    return int(events or 0)


def state(root: Path) -> list[tuple[str, list[int], list[int]]]:
    """Name, seeds, and stored seeds of each claim, all of which hold; nothing else is in the folder."""
    found = claim_store.find(root)
    assert all(not problems for problems in audit.audit_all(root).values())
    assert [path.name for path in root.iterdir() if path.name.startswith(".")] == []
    return [(one.place.name, one.seeds, one.stored_seeds) for one in found]


def test_killed_at_any_event_it_leaves_the_old_claims_or_the_new_ones(tmp_path: Path) -> None:
    old, new = runs(tmp_path / "old", (0, 1)), runs(tmp_path / "new", (0, 1, 2))
    start, root = tmp_path / "start", tmp_path / "boards"
    claim_store.add([old], start, TRUST)
    shutil.copytree(start, root)
    before = state(root)
    events = add_in_a_child(new, root)
    after = state(root)
    assert [seeds for _, seeds, _ in before] == [[0, 1], [0, 1]]
    assert [seeds for _, seeds, _ in after] == [[0, 1, 2], [0, 1, 2]]
    seen: list[bool] = []
    for kill in range(1, events + 1):
        shutil.rmtree(root)
        shutil.copytree(start, root)
        add_in_a_child(new, root, kill)
        found = state(root)
        assert found in (before, after), kill
        seen.append(found == after)
    assert seen == sorted(seen)  # once new, new
    assert {*seen} == {False, True}
    assert sum(seen) > 8  # kills between the first move and the last


def test_what_processes_of_now_make_is_left_to_them(tmp_path: Path) -> None:
    root = tmp_path / "boards"
    with staging.stage(root) as new:
        staging.recover(root)
        assert new.folder.is_dir()
        assert claim_store.find(root) == []
    assert not root.exists()


def test_old_folders_that_name_no_process_go_after_a_day(tmp_path: Path) -> None:
    for name, age in ((".adding-abc", 25 * 3600.0), (".adding-xyz", 0.0), (".git-x", 25 * 3600.0)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    staging.recover(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".adding-xyz", ".git-x"]


def test_a_move_that_the_system_refuses_is_one_line_and_is_finished_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "boards"
    records = runs(tmp_path / "runs", (0, 1))
    replace = Path.replace

    def refuse(path: Path, target: Path) -> Path:
        if target.parent.parent.parent == root:
            raise OSError(28, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(RbftError, match=r"cannot move the claims in .* into place: No space left on device"):
        claim_store.add([records], root, TRUST)
    monkeypatch.undo()
    monkeypatch.setattr(staging.atomic, "lives", lambda pid: False)
    assert [seeds for _, seeds, _ in state(root)] == [[0, 1], [0, 1]]
