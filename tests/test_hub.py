"""Hugging Face data sets on disk as splits of a suite.toml: `save_to_disk` folders and snapshots of the hub's cache."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import coded
import forest
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from test_bad_input import answer, invoke

from robustbench_ft import suite_ref
from robustbench_ft.errors import RbftError
from robustbench_ft.prompts import Task
from robustbench_ft.record import store

ipc: Any = import_module("pyarrow.ipc")
NAMES = ("ice_cream", "mug", "umbrella")
REVISION = "0123456789abcdef0123456789abcdef01234567"
N = 12
CACHE = f"datasets--shop--products/snapshots/{REVISION}"
TOML = f"""name = "shop"
train = {{path = "{CACHE}", where = {{split = "train"}}}}
test = {{path = "{CACHE}", where = {{split = "test"}}}}
val = 1.0
[shifts]
night = "night"
"""


def table(labels: Sequence[int], part: str, image: str = "image", label: str = "label") -> Any:
    """Rows as `datasets` stores them: an image is {bytes, path}, a file's name may repeat or lack."""
    cells: list[dict[str, Any]] = []
    for k, own in enumerate(labels):
        buffer = io.BytesIO()
        coded.picture(own, f"{part}{k}").save(buffer, "png")
        cells.append({"bytes": buffer.getvalue(), "path": ("1.png", None)[k % 2]})
    kind: Any = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    info = json.dumps({"info": {"features": features(image, label)}})
    arrays = [pa.array(cells, kind), pa.array(labels, pa.int64())]
    return pa.table(arrays, names=[image, label]).replace_schema_metadata({"huggingface": info})


def features(image: str = "image", label: str = "label") -> dict[str, Any]:
    return {image: {"_type": "Image"}, label: {"names": list(NAMES), "_type": "ClassLabel"}}


def save_to_disk(folder: Path, whole: Any, shards: int = 2) -> Path:
    """What `Dataset.save_to_disk` leaves: Arrow streams, state.json and dataset_info.json."""
    folder.mkdir(parents=True)
    files = [f"data-{k:05d}-of-{shards:05d}.arrow" for k in range(shards)]
    size = -(-len(whole) // shards)
    for k, name in enumerate(files):
        with ipc.new_stream(str(folder / name), whole.schema) as writer:
            writer.write_table(whole.slice(k * size, size), max_chunksize=2)
    state = {
        "_data_files": [{"filename": name} for name in files], "_fingerprint": "c0ffee", "_format_columns": None,
        "_format_kwargs": {}, "_format_type": None, "_output_all_columns": False, "_split": "train",
    }  # fmt: skip
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"citation": "", "features": features()}))
    return folder


def snapshot(root: Path, **columns: str) -> Path:
    """A snapshot of the hub's cache: links to blobs."""
    place = root / CACHE / "data"
    place.mkdir(parents=True)
    (place.parents[2] / "blobs").mkdir()
    for part, shards in (("train", 2), ("test", 1)):
        for k in range(shards):
            blob = place.parents[2] / "blobs" / f"{part}{k}"
            pq.write_table(table([y % 3 for y in range(N)], f"{part}{k}", **columns), blob)
            (place / f"{part}-{k:05d}-of-{shards:05d}.parquet").symlink_to(blob)
    return place


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    snapshot(root)
    save_to_disk(root / "night", table([2, 1, 0, 0, 1, 2, 2], "night"))
    (root / "suite.toml").write_text(TOML)
    return root


def test_every_image_has_the_label_that_its_pixels_carry(shop: Path) -> None:
    suite = suite_ref.load(str(shop))
    assert suite.classes == ("ice cream", "mug", "umbrella")
    for name, n in (("train", 2 * N - 3), ("val", 3), ("test", N), ("night", 7)):
        split = suite.split(name)
        images = [np.asarray(image) for image in split.images.read(range(len(split)))]
        assert coded.labels(np.stack(images)).tolist() == split.labels.tolist()
        assert len(split) == n
        assert [len(split.images.raw(k)) for k in range(n)] == [split.images.size(k) for k in range(n)]
        assert split.images.part(1, 1, 3) == b"PNG"


def test_the_record_names_revision_and_fingerprint(shop: Path) -> None:
    suite = suite_ref.load(str(shop))
    assert suite.split("test").layout == f"Hugging Face Parquet, revision {REVISION}, test"
    assert suite.split("night").layout == "Hugging Face save_to_disk, fingerprint c0ffee"
    assert suite.split("night").ids[:2] == ("night/0000000/1.png", "night/0000001")


def test_saved_and_packed_rows_are_the_same_data(shop: Path) -> None:
    before = suite_ref.load(str(shop))
    save_to_disk(shop / "saved", table([y % 3 for y in range(N)], "test0"), 3)
    (shop / "suite.toml").write_text(TOML.replace(f'{{path = "{CACHE}", where = {{split = "test"}}}}', '"saved"'))
    after = suite_ref.load(str(shop))
    assert before.split("test").digest == after.split("test").digest
    assert before.definition == after.definition


def test_columns_by_other_names(tmp_path: Path) -> None:
    snapshot(tmp_path, image="img", label="fine_label")
    save_to_disk(tmp_path / "night", table([0, 1, 2], "night", "img", "fine_label"))
    (tmp_path / "night/dataset_info.json").write_text(json.dumps({"features": features("img", "fine_label")}))
    (tmp_path / "suite.toml").write_text(f'columns = {{path = "img", label = "fine_label"}}\n{TOML}')
    assert suite_ref.load(str(tmp_path)).split("night").labels.tolist() == [0, 1, 2]


def test_rows_are_checked_and_trained_on(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = invoke(f"data check {shop}", tmp_path)
    assert checked.exit_code == 0, checked.output
    texts = Task(suite_ref.load(str(shop)).classes, suite_ref.load(str(shop)).templates).texts
    monkeypatch.setattr(tiny, "WORDS", tuple(sorted({word for t in texts for word in forest.WORD.findall(t.lower())})))
    model = f"local-dir:{tiny.write_model(tmp_path / 'model')}"
    done = invoke(f"run --suite {shop} --method ft --model {model} --set steps=2 --set batch=4", tmp_path)
    assert done.exit_code == 0, (done.output, done.exception)
    [record] = store.find_records([tmp_path / "out"])
    assert REVISION in record.env["data"]["train"]["layout"]
    assert record.predictions("final", "night").label.tolist() == [2, 1, 0, 0, 1, 2, 2]


@dataclass(frozen=True)
class Case:
    """`damage` is given the folder of the suite."""

    damage: Callable[[Path], object]
    text: str


def again(old: str, new: str) -> Callable[[Path], object]:
    return lambda root: (root / "suite.toml").write_text(TOML.replace(old, new))


def state(**values: Any) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        file = root / "night/state.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return damage


def other(labels: Sequence[int], change: Callable[[Any], Any] = lambda whole: whole) -> Callable[[Path], object]:
    """Save another data set as `night`."""

    def damage(root: Path) -> None:
        (root / "night").rename(root / "old")
        save_to_disk(root / "night", change(table(labels, "night")))

    return damage


def without_bytes(whole: Any) -> Any:
    """Paths alone, as of a data set whose images lie elsewhere."""
    kind: Any = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return whole.set_column(0, "image", pa.array([{"bytes": None, "path": "/a.png"}] * len(whole), kind))


def several(root: Path) -> None:
    """Make `night` a DatasetDict."""
    (root / "night").rename(root / "test")
    (root / "night").mkdir()
    (root / "test").rename(root / "night/test")
    (root / "night/dataset_dict.json").write_text('{"splits": ["test"]}')


CASES = {
    "no revision": Case(again(f'test = {{path = "{CACHE}"', 'test = {path = "datasets--shop--products"'),
                        f"holds 1 revision ({REVISION}): name one, e.g. datasets--"),
    "no split": Case(again(', where = {split = "test"}', ""), "holds 3 Parquet files (test-00000-of-00001.parq"),
    "another split": Case(again('"test"}', '"validation"}'), "and none of part 'validation'; get them too"),
    "a shard too few": Case(lambda r: (r / CACHE / "data/train-00001-of-00002.parquet").unlink(), "lacks 1 of 2"),
    "a blob gone": Case(lambda r: (r / "datasets--shop--products/blobs/test0").unlink(), "cannot read "),
    "one split twice": Case(again('"test"}', '"train"}'), "is in train and in test: an image counts once"),
    "several splits": Case(several, "night holds 1 split (test): name one of these folders"),
    "no info": Case(lambda r: (r / "night/dataset_info.json").unlink(), "night has no dataset_info.json: save"),
    "state no JSON": Case(lambda r: (r / "night/state.json").write_text("{"), "state.json cannot be read as JSON"),
    "no files": Case(state(_data_files=[]), "state.json lists no data files"),
    "shuffled": Case(state(_indices_data_files=[{"filename": "x"}]), "flatten_indices() and save it again"),
    "arrow gone": Case(lambda r: (r / "night/data-00001-of-00002.arrow").unlink(), "cannot be read as Arrow images"),
    "arrow other": Case(lambda r: (r / "night/data-00001-of-00002.arrow").write_bytes(b"\x80\x04x"), "cannot be read"),
    "no such column": Case(other([0, 1], lambda t: t.rename_columns(["image", "y"])), "has no column label; its"),
    "paths alone": Case(other([0, 1], without_bytes), "names images and does not hold them (rows: 1)"),
    "not labelled": Case(other([0, -1]), "has label -1: the split is not labelled"),
    "label too large": Case(other([0, 3]), "has label 3: its classes are 0 to 2"),
    "where of a saved split": Case(again('"night"\n', '{path = "night", where = {split = "test"}}\n'), "is one split"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bad_data_are_one_line(name: str, shop: Path) -> None:
    CASES[name].damage(shop)
    with pytest.raises(RbftError) as caught:
        suite_ref.load(str(shop))
    assert CASES[name].text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_data_stop_a_run(shop: Path, tmp_path: Path) -> None:
    CASES["no revision"].damage(shop)
    [line] = answer(invoke(f"run --suite {shop} --method zero-shot", tmp_path))
    assert "name one, e.g." in line
