"""Predictions outside the checkout: `verify --fetch` gets what the claim was made from, and nothing else."""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import made
import pytest
from click.testing import CliRunner, Result

from robustbench_ft.claims import bundle, claim_store, elsewhere
from robustbench_ft.cli.main import main
from robustbench_ft.errors import RbftError

WORLD = made.World(skills={"ft": made.SKILLS["ft"]}, n=40)


def rbft(*words: object) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


def moved(tmp_path: Path, place: str) -> tuple[Path, Path]:
    """Boards whose predictions were moved to a folder, of which claims say that it is `place`."""
    boards, store = tmp_path / "boards", tmp_path / "store"
    runs = made.write(tmp_path / "runs", WORLD)
    done = rbft("leaderboard", "add", runs, "--boards", boards, "--predictions-at", place)
    assert done.exit_code == 0, done.output
    assert f"next     copy {boards}" in done.output
    for path in boards.rglob(bundle.PREDICTIONS):
        target = store / path.relative_to(boards)
        target.parent.mkdir(parents=True)
        shutil.move(path, target)
    return boards, store


def verify(boards: Path, *words: str) -> Result:
    return rbft("leaderboard", "verify", "--boards", boards, *words)


def here(boards: Path) -> list[Path]:
    return sorted(path.relative_to(boards) for path in boards.rglob(bundle.PREDICTIONS))


def test_predictions_in_a_folder_are_fetched_and_then_hold(tmp_path: Path) -> None:
    boards, store = moved(tmp_path, "../store")
    without = verify(boards)
    assert without.exit_code == 2
    assert without.stderr.count("is not here; restore it, or get it with `rbft leaderboard verify --fetch`") == 3
    fetched = verify(boards, "--fetch")
    assert fetched.exit_code == 0, fetched.output
    assert fetched.stderr.count("fetched  ") == 3
    assert "1 of 1 claims hold" in fetched.stdout
    assert here(boards) == here(store)
    assert len(here(boards)) == 3
    again = verify(boards, "--fetch")
    assert "fetched" not in again.stderr
    ignored = (boards / ".gitignore").read_text().splitlines()
    [one] = claim_store.find(boards)
    assert ignored == [f"/{one.place.predictions}/*/predictions.parquet"]
    assert one.claim.trust.predictions == "../store"
    elsewhere.ignore(one)
    assert (boards / ".gitignore").read_text().splitlines() == ignored


def test_another_file_than_the_claims_is_not_kept(tmp_path: Path) -> None:
    boards, store = moved(tmp_path, "../store")
    bad = store / here(store)[1]
    bad.write_bytes(bad.read_bytes()[:-1] + b"x")
    done = verify(boards, "--fetch")
    assert done.exit_code == 2
    [line] = [line for line in done.stderr.splitlines() if line.startswith("rbft: ")]
    assert f"../store has another {bad.relative_to(store).as_posix()} than the claim" in line
    assert here(boards) == here(store)[:1]  # what came before it was whole


def test_what_is_here_is_left_alone_and_named(tmp_path: Path) -> None:
    boards, store = moved(tmp_path, "../store")
    assert verify(boards, "--fetch").exit_code == 0
    own = boards / here(boards)[0]
    own.write_bytes(b"mine")
    done = verify(boards, "--fetch")
    assert done.exit_code == 2
    assert f"cannot read {own}" in done.stderr
    assert own.read_bytes() == b"mine"
    assert (store / here(boards)[0]).read_bytes() != b"mine"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The store as an address of this machine."""
    (tmp_path / "store").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "store"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


def test_predictions_at_an_address(tmp_path: Path, server: str) -> None:
    boards, store = moved(tmp_path, server)
    assert verify(boards, "--fetch").exit_code == 0
    lost = here(store)[2]
    (store / lost).unlink()
    (boards / lost).unlink()
    done = verify(boards, "--fetch")
    assert done.exit_code == 2
    assert f"cannot get {lost.as_posix()} from {server}: HTTP Error 404: File not found" in done.stderr


def test_predictions_in_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boards, store = moved(tmp_path, "hf://datasets/ORG/preds@v1/boards")
    asked: list[tuple[str, str | None]] = []

    def download(repository: str, name: str, repo_type: str, revision: str | None) -> str:
        assert (repo_type, name.partition("/")[0]) == ("dataset", "boards")
        asked.append((repository, revision))
        return str(store / name.partition("/")[2])

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert verify(boards, "--fetch").exit_code == 0
    assert asked == [("ORG/preds", "v1")] * 3


def test_a_pointer_of_git_lfs_is_no_damage(tmp_path: Path) -> None:
    boards, _ = moved(tmp_path, "../store")
    for path in (tmp_path / "store").rglob(bundle.PREDICTIONS):
        pointer = boards / path.relative_to(tmp_path / "store")
        pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    without = verify(boards)
    assert without.exit_code == 2
    assert without.stderr.count("is a pointer of git LFS: get the file with `git lfs pull`") == 3
    assert verify(boards, "--fetch").exit_code == 0


def test_what_has_no_end_is_not_read_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boards, _ = moved(tmp_path, "../store")
    monkeypatch.setattr(elsewhere, "MOST", 100)
    done = verify(boards, "--fetch")
    assert done.exit_code == 2
    assert "it has more than 100 bytes" in done.stderr
    assert not here(boards)


@pytest.mark.parametrize(
    "place", ["", " ", "ftp://host/x", "file:///etc", "hf://models/ORG/NAME", "hf://datasets/NAME"]
)
def test_a_place_that_can_be_none_is_refused_before_anything_is_written(place: str, tmp_path: Path) -> None:
    runs = made.write(tmp_path / "runs", WORLD)
    with pytest.raises(RbftError, match=r"--predictions-at .*: name a folder, https://HOST/PATH or hf://datasets/"):
        elsewhere.check_place(place)
    if place:
        done = rbft("leaderboard", "add", runs, "--boards", tmp_path / "boards", "--predictions-at", place)
        assert done.exit_code == 2
        assert not (tmp_path / "boards").exists()
