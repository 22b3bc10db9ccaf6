"""Models of the hub: a revision can be named, and a record says what a bare name stood for."""

import hashlib
import json
import shutil
from pathlib import Path

import huggingface_hub
import made
import open_clip
import pytest
import tiny
from click.testing import CliRunner

from robustbench_ft import clip as clips
from robustbench_ft import model_ref
from robustbench_ft.cli.main import main
from robustbench_ft.clip import fetched
from robustbench_ft.compare import report
from robustbench_ft.errors import RbftError
from robustbench_ft.record import store

OLD, NEW = "0123456789abcdef" * 2 + "01234567", "fedcba9876543210" * 2 + "fedcba98"
WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with two revisions of a tiny model, the new one on branch main; no network."""
    place = tmp_path / "hub" / "models--shop--clip"
    for seed, revision in enumerate((OLD, NEW)):
        tiny.write_model(place / "snapshots" / revision, seed=seed)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(NEW)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return place


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.usefixtures("shelves")
def test_a_named_revision_is_loaded_and_recorded(hub: Path, tmp_path: Path) -> None:
    for revision in (OLD, NEW):
        name, out = f"hf-hub:shop/clip@{revision}", tmp_path / revision
        words = ["run", "--method", "zero-shot", "--suite", "tiny", "--model", name, "--device", "cpu"]
        done = CliRunner().invoke(main, [*words, "--out", str(out)])
        assert done.exit_code == 0, done.output
        [folder] = [path.parent for path in out.rglob("done")]
        record = store.Record(folder)
        assert record.config.model.name == name
        told = record.environment.weights
        assert told is not None
        assert (told.repository, told.revision, told.file) == ("shop/clip", revision, WEIGHTS)
        assert told.sha256 == sha(hub / "snapshots" / revision / WEIGHTS)
    digests = {path.read_bytes() for path in tmp_path.glob("*/tiny/*/*/*/predictions/*/*.parquet")}
    assert len(digests) > 1  # two models


def test_what_a_bare_name_stood_for_is_found(hub: Path) -> None:
    ref = model_ref.resolve("hf-hub:shop/clip", None)
    told = fetched.for_record(ref)["weights"]
    assert told == {
        "repository": "shop/clip", "revision": NEW, "file": WEIGHTS, "sha256": sha(hub / "snapshots" / NEW / WEIGHTS),
    }  # fmt: skip
    shutil.rmtree(hub)
    assert fetched.for_record(ref) == {}


def test_what_a_tag_of_open_clip_stood_for_is_found(hub: Path) -> None:
    name, tag = "ViT-B-32", "laion2b_s34b_b79k"
    repository = str(open_clip.get_pretrained_cfg(name, tag)["hf_hub"]).rpartition("/")[0]
    place = hub.parent / f"models--{repository.replace('/', '--')}"
    (place / "snapshots" / OLD).mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(OLD)
    (place / "snapshots" / OLD / WEIGHTS).write_bytes(b"weights")
    told = fetched.for_record(model_ref.resolve(name, tag))["weights"]
    assert (told["repository"], told["revision"], told["file"]) == (repository, OLD, WEIGHTS)
    assert told["sha256"] == hashlib.sha256(b"weights").hexdigest()


def test_models_that_are_here_are_told_by_their_own_digest(tiny_model: str) -> None:
    for name in ("embedded", tiny_model):
        assert fetched.for_record(model_ref.resolve(name, None)) == {}


@pytest.mark.parametrize(
    "name", ["hf-hub:shop/clip@main", "hf-hub:shop/clip@0123", "hf-hub:clip", "hf-hub:a/b/c", "hf-hub:"]
)
def test_a_name_that_fixes_nothing_is_refused(name: str) -> None:
    with pytest.raises(RbftError, match=r"write hf-hub:ORG/NAME, or hf-hub:ORG/NAME@REVISION with the 40 digits"):
        model_ref.resolve(name, None)


def test_a_revision_that_is_not_here_is_one_line(hub: Path) -> None:
    with pytest.raises(RbftError, match=r"cannot fetch .*hf-hub:shop/clip@a{40} .*--model local-dir:DIR"):
        clips.load(model_ref.resolve(f"hf-hub:shop/clip@{'a' * 40}", None))


def test_rows_that_began_with_other_weights_do_not_meet(tmp_path: Path) -> None:
    runs = made.write(tmp_path, made.World(skills={"ft": (1.0, 0.1)}, n=30, seeds=(0, 1)))
    for k, revision in enumerate((OLD, NEW)):
        [path] = runs.glob(f"*/*/ft-*/seed-{k}/env.json")
        weights = {"repository": "shop/clip", "revision": revision, "file": WEIGHTS, "sha256": revision}
        path.write_text(json.dumps({**json.loads(path.read_text()), "weights": weights}))
    with pytest.raises(
        RbftError, match=r"began with other weights, .* at 01234567 and .* at fedcba98; name a revision"
    ):
        report.tables(store.find_records([runs]))
