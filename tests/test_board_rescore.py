"""The third step of the ladder, on a real run of a tiny model: right weights pass, other weights do not."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from robustbench_ft.claims import audit, claim_store
from robustbench_ft.cli.main import main

METHODS = ("ft", "wise-ft")


@pytest.fixture
def ran(shelves: None, tiny_model: str, tmp_path: Path) -> Path:
    """Records, with weights, and their claims."""
    methods = [word for name in METHODS for word in ("--method", name)]
    done = rbft("run", *methods, "--suite", "tiny", "--model", tiny_model, "--seeds", "0-1", "--out", tmp_path / "runs")
    assert done.exit_code == 0, done.output
    done = rbft("leaderboard", "add", tmp_path / "runs", "--root", tmp_path / "boards")
    assert done.exit_code == 0, done.output
    return tmp_path


def rbft(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def verify(root: Path, *words: object) -> Result:
    return rbft("leaderboard", "verify", "--root", root / "boards", "--runs", root / "runs", *words)


def test_weights_and_data_confirm_a_claim(ran: Path) -> None:
    done = verify(ran, "--data", "--rescore", 20, "--mark", "A. Keeper")
    assert done.exit_code == 0, done.output
    assert done.output.count("0 of 80 images get another class") == 4  # two methods, two seeds; four splits
    assert "2 of 2 claims hold (rescored)" in done.output
    assert claim_store.find(ran / "boards")[0].claim.trust.verified == "rescored"


def test_weights_of_another_run_are_found_out(ran: Path) -> None:
    tuned = next(path for path in (ran / "runs").rglob("model") if "/ft-" in path.as_posix())
    head = (tuned / "head.safetensors").read_bytes()
    # the head's rows negated: the same file, another model
    start = 8 + int.from_bytes(head[:8], "little")
    body = bytearray(head[start:])
    for k in range(3, len(body), 4):
        body[k] ^= 0x80
    (tuned / "head.safetensors").write_bytes(head[:start] + bytes(body))
    done = verify(ran, "--rescore", 20)
    assert done.exit_code == 2
    assert "the weights do not give the stored predictions" in done.output


def test_without_weights_it_says_what_is_missing(ran: Path) -> None:
    for folder in (ran / "runs").rglob("model"):
        shutil.rmtree(folder)
    done = verify(ran, "--rescore", 20)
    assert done.exit_code == 2
    assert "no weights of seed 0, 1" in done.output


def test_other_labels_than_the_suites_are_named(ran: Path) -> None:
    stored = claim_store.find(ran / "boards")[0]
    content = json.loads(stored.path.read_text())
    for key in ("labels_sha256", "content_sha256"):
        content["data"]["splits"]["noisy"][key] = "0" * 64
    stored.path.write_text(json.dumps(content))
    assert audit.against_data(claim_store.find(ran / "boards")[0], None, {}) == [
        "labels of noisy are not those of tiny v1 on this machine",
        "images of noisy are not those of tiny v1 on this machine",
    ]
