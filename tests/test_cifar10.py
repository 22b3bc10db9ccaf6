"""CIFAR-10 and its shifts: official layouts, codes that are in the pixels, the mean over corruptions, faults."""

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import cifar_tree
import coded
import forest
import numpy as np
import pytest
from cifar_tree import CORRUPTIONS, LAYOUTS, NAMES, STL, TEST, TRAIN
from click.testing import CliRunner

from robustbench_ft import metrics, suite_ref
from robustbench_ft.cli import main
from robustbench_ft.data import Bytes, Predictions, Split, decode
from robustbench_ft.errors import RbftError
from robustbench_ft.images import arrays
from robustbench_ft.images.roots import Roots
from robustbench_ft.record import store

SETS = list(product(range(15), range(1, 6)))  # of CIFAR-10-C


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cifar")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images of each class are held out of six."""
    module: Any = __import__("sys").modules[type(suite_ref.load("cifar10")).__module__]
    monkeypatch.setattr(module, "HELD_OUT", 2)


def pixels_of(split: Split) -> Bytes:
    return np.stack([np.asarray(image) for image in split.images.read(range(len(split)))])


def as_set(pixels: Bytes) -> set[bytes]:
    return {image.tobytes() for image in pixels}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_and_pixels_are_those_that_were_stored(layout: str, base: Path) -> None:
    suite = suite_ref.load("cifar10", cifar_tree.tree(base, layout), True)
    assert suite.classes == NAMES
    for name, n, stored in (("train", TRAIN - 2, cifar_tree.train()), ("val", 2, cifar_tree.train()),
                            ("test", TEST, cifar_tree.test())):  # fmt: skip
        split = suite.split(name)
        pixels = pixels_of(split)
        assert coded.labels(pixels).tolist() == split.labels.tolist()
        assert np.bincount(split.labels).tolist() == [n] * 10
        assert as_set(pixels) <= as_set(stored[1])  # channels, rows and columns are in their places
    assert set(suite.split("train").ids).isdisjoint(suite.split("val").ids)
    whole = np.concatenate([pixels_of(suite.split(name)) for name in ("train", "val")])
    assert as_set(whole) == as_set(cifar_tree.train()[1])


def test_ids_and_digests_do_not_depend_on_the_layout(base: Path) -> None:
    for name in ("train", "val", "test"):
        found = {layout: suite_ref.load("cifar10", cifar_tree.tree(base, layout), True).split(name)
                 for layout in LAYOUTS}  # fmt: skip
        assert len({split.ids for split in found.values()}) == 1
        assert len({split.digest for split in found.values()}) == 1
        assert len({split.layout for split in found.values()}) == len(LAYOUTS)


def test_an_image_that_is_there_twice_is_two_examples(base: Path) -> None:
    suite = suite_ref.load("cifar10", cifar_tree.tree(base), True)
    [second] = [name for split in ("train", "val") for name in suite.split(split).ids if name.endswith("-2")]
    assert second.removesuffix("-2") in {*suite.split("train").ids, *suite.split("val").ids}


@pytest.mark.parametrize("name", ["cifar10.1", "cifar10.2"])
def test_new_test_sets_keep_their_order(name: str, base: Path) -> None:
    split = suite_ref.load("cifar10", cifar_tree.tree(base), True).split(name)
    assert coded.labels(pixels_of(split)).tolist() == split.labels.tolist()
    assert split.ids[:2] == (f"{name}/0000", f"{name}/0001")


@pytest.mark.parametrize(("name", "first", "n"), [("cifar10-c", 0, 15), ("cifar10-c-extra", 15, 4)])
def test_corruption_severity_and_label_are_those_in_the_pixels(name: str, first: int, n: int, base: Path) -> None:
    suite = suite_ref.load("cifar10+c-extra", cifar_tree.tree(base), True)
    split = suite.split(name)
    groups = split.groups
    codes = split.labels + 16 * groups["corruption"] + 512 * groups["severity"]
    assert coded.labels(pixels_of(split)).tolist() == codes.tolist()
    assert set(groups["corruption"].tolist()) == set(range(first, first + n))
    assert suite.group_names["corruption"] == CORRUPTIONS
    labels = np.array(cifar_tree.test()[0])
    assert (split.labels == labels[groups["image"]]).all()
    assert split.ids[len(labels)] == f"{name}/{CORRUPTIONS[first]}/2/00000"
    assert "cifar10-c-extra" not in suite_ref.load("cifar10", cifar_tree.tree(base), True).known


def test_stl_is_scored_among_the_nine_classes_that_it_shares(base: Path) -> None:
    suite = suite_ref.load("cifar10", cifar_tree.tree(base), True)
    split = suite.split("stl10")
    ours = {"car": "automobile"}
    theirs = [STL[code] for code in coded.labels(pixels_of(split)).tolist()]
    assert [suite.class_name(split, label) for label in split.labels.tolist()] == [ours.get(n, n) for n in theirs]
    assert [NAMES[label] for label in split.also["10-way"].labels.tolist()] == [ours.get(n, n) for n in theirs]
    assert "monkey" not in theirs
    assert (len(split), suite.n_classes(split)) == (9 * TEST, 9)
    labels, pixels = cifar_tree.stl()
    assert as_set(pixels_of(split)) == as_set(pixels[np.array(labels) != STL.index("monkey")])


def test_id_accuracy_is_stored_on_the_classes_of_stl(base: Path) -> None:
    split = suite_ref.load("cifar10", cifar_tree.tree(base), True).split("test")
    space = split.also["stl10-classes"]
    assert space.members is not None
    own = [None if k < 0 else NAMES[space.members[k][0]] for k in space.labels.tolist()]
    assert own == [None if NAMES[k] == "frog" else NAMES[k] for k in split.labels.tolist()]


def test_a_mean_is_that_over_corruptions_and_severities(base: Path) -> None:
    """mCE papers average error over the 75 sets; here from the files themselves (LP-FT, cifar10c.py: one set is rows
    10,000 s to 10,000 (s + 1) of a file), there from the split."""
    root = cifar_tree.tree(base)
    split = suite_ref.load("cifar10", root, True).split("cifar10-c")
    said = np.random.default_rng(0).integers(0, 10, len(split))
    truth = np.load(root / "CIFAR-10-C/labels.npy")
    n = len(truth) // 5
    by_name = dict(zip(split.ids, said.tolist(), strict=True))
    rates: list[float] = []
    for corruption, severity in SETS:
        own = [by_name[f"cifar10-c/{CORRUPTIONS[corruption]}/{severity}/{k:05d}"] for k in range(n)]
        rates.append(float(np.mean(own == truth[n * (severity - 1) : n * severity])))
    ones = np.ones(len(split), np.float32)
    made = Predictions(split.ids, split.labels, said, ones, 0 * ones, ones, said[:, None], ones[:, None])
    assert metrics.named("accuracy", made) == pytest.approx(np.mean(rates), abs=1e-12)
    assert len(set(rates)) > 5


def test_counts_follow_from_the_official_ones() -> None:
    card = suite_ref.load("cifar10").card
    assert card.counts["train"] + card.counts["val"] == 50_000
    assert card.counts["cifar10-c"] == len(SETS) * card.counts["test"]
    assert card.counts["cifar10-c-extra"] == 4 * 5 * card.counts["test"]
    assert card.counts["stl10"] == 9 * 800
    for name, (least, most) in card.per_class.items():
        assert (least, most) == (card.counts[name] // (9 if name == "stl10" else 10),) * 2


def test_prompts_are_the_eighteen_of_clip() -> None:
    templates = suite_ref.load("cifar10").templates
    assert len(set(templates)) == 18
    assert {"a low contrast photo of the {}.", "a photo of the big {}."} <= set(templates)


def test_stacked_images_are_one_sequence(tmp_path: Path) -> None:
    pixels = cifar_tree.pictures(range(10), "a")
    np.save(tmp_path / "a.npy", pixels[:6])
    np.save(tmp_path / "b.npy", pixels[6:])
    files = [tmp_path / "a.npy", tmp_path / "b.npy"]
    two = arrays.stacked([arrays.npy(file) for file in files], files)
    one = arrays.stacked([pixels], files[:1])
    rows = np.array([9, 0, 6, 5])
    some = two.take(rows)
    assert np.array_equal(some.pixels(range(4)), pixels[rows])
    assert [some.name(k) for k in range(4)] == [f"{files[1]}:3", f"{files[0]}:0", f"{files[1]}:0", f"{files[0]}:5"]
    assert np.array_equal(np.asarray(decode(some.raw(2), "c")), pixels[6])
    assert (some.size(2), some.part(2, 3, 9)) == (len(some.raw(2)), some.raw(2)[3:12])
    assert two.digest() == one.digest() != one.take(rows).digest()
    assert two.fingerprint() != some.fingerprint()
    before = two.fingerprint()
    np.save(files[1], pixels[5:])
    assert two.fingerprint() != before


def altered(name: str, change: Callable[[Any], Any]) -> Callable[[Path], object]:
    """A `.npy` file of the tree, changed."""

    def damage(root: Path) -> None:
        np.save(root / name, change(np.load(root / name)))

    return damage


def pickled(name: str) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        (root / name).write_bytes(pickle.dumps({"images": 1}))

    return damage


def no_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of the tree in place of the official ones, so that a run reaches the fault."""
    kind = type(suite_ref.load("cifar10"))
    monkeypatch.setattr(kind, "card", replace(kind.card, counts={}, per_class={}))


BIN, C, STL_BIN, V6 = "cifar-10-batches-bin", "CIFAR-10-C", "stl10_binary", "CIFAR-10.1/datasets/cifar10.1_v6"


def rename(root: Path, old: str, new: str) -> None:
    (root / old).rename(root / new)


def cut(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:-1])


def python_version(root: Path) -> None:
    shutil.rmtree(root / BIN)
    (root / "cifar-10-batches-py").mkdir()
    (root / "cifar-10-batches-py/data_batch_1").write_bytes(pickle.dumps({}))


def pickled_102(root: Path) -> None:
    (root / "cifar-10.2/cifar102_test.npz").unlink()
    np.save(root / "cifar-10.2/cifar102_test.npy", np.array({"images": 1}), allow_pickle=True)


def objects_102(root: Path) -> None:
    np.savez(root / "cifar-10.2/cifar102_test.npz", images=np.array([None]), labels=np.zeros(1, np.int64))


def version_4(root: Path) -> None:
    for part in ("data", "labels"):
        rename(root, f"{V6}_{part}.npy", f"{V6[:-1]}4_{part}.npy")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda r: shutil.rmtree(r / BIN), "split 'train': "),
    "python version": (python_version, "is CIFAR-10's Python version, a pickle, which is never read; take"),
    "no batch": (lambda r: (r / BIN / "data_batch_3.bin").unlink(), "data_batch_3.bin: No such file or directory; put"),
    "cut batch": (cut(f"{BIN}/data_batch_2.bin"), "36,875 bytes, no whole number of records of 3,073; get it again"),
    "label": (lambda r: (r / BIN / "test_batch.bin").write_bytes(b"\x0a" + bytes(3072)), "a label outside 0..9; get"),
    "version 4": (version_4, "holds version 4, which is not balanced; get cifar10.1_v6_data.npy and cifar10.1_v6_lab"),
    "pickle in 10.1": (pickled(f"{V6}_data.npy"), "is no plain array: it is a pickle, which is never read, or cut"),
    "cut 10.1": (cut(f"{V6}_data.npy"), "is no plain array"),
    "labels of 10.1": (altered(f"{V6}_labels.npy", lambda a: a[1:]), "has labels int32 [19] for 20 images; get it"),
    "pixels of 10.1": (altered(f"{V6}_data.npy", lambda a: a / 255), "holds float64 [20, 32, 32, 3], not uint8 [n,"),
    "pickle in 10.2": (pickled_102, "cifar102_test.npy is a pickle, which is never read; take cifar102_test.npz inste"),
    "objects in 10.2": (objects_102, "is no plain .npz: it holds a pickle, which is never read, or is cut off"),
    "no corruption": (lambda r: (r / C / "fog.npy").unlink(), "fog.npy: No such file or directory; put the official"),
    "cut corruption": (altered(f"{C}/fog.npy", lambda a: a[:-1]), "has labels uint8 [100] for 99 images; get it ag"),
    "labels moved": (altered(f"{C}/labels.npy", np.sort), "is not the same labels at each of 5 severi"),
    "channels first": (altered(f"{C}/snow.npy", lambda a: a.transpose(0, 3, 1, 2)), "[100, 3, 32, 32], not"),
    "STL labels from 0": (lambda r: (r / STL_BIN / "test_y.bin").write_bytes(bytes(20)), "label outside 1..10; get"),
    "STL of CIFAR's size": (lambda r: (r / STL_BIN / "test_X.bin").write_bytes(bytes(30_720)), "records of 27,648;"),
    "STL classes": (lambda r: (r / STL_BIN / "class_names.txt").write_text("dog\ncat\n"), "does not list STL-10's cl"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line(fault: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_counts(monkeypatch)
    shutil.copytree(cifar_tree.tree(base), tmp_path / "data")
    damage, text = FAULTS[fault]
    damage(tmp_path / "data")
    refused(tmp_path, text)


def refused(tmp_path: Path, text: str) -> None:
    words = f"run --method zero-shot --suite cifar10 --root {tmp_path / 'data'} --out {tmp_path / 'out'}"
    done = CliRunner().invoke(main, words.split())
    assert done.exit_code == 2, done.output
    assert text in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_wrong_count_is_one_line(base: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(cifar_tree.tree(base))
    refused(tmp_path, "split 'train' has 40 images, its card says 45,000")


HUB_FAULTS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no test shard": (
        "Parquet", lambda p: next(p.glob("test-*")).unlink(), "1 .parquet files (train-00000-of-00001.parquet) and none"
    ),
    "no test split": ("save_to_disk", lambda p: shutil.rmtree(p / "test"), "holds 1 split (train) and no 'test'; save"),
}  # fmt: skip


@pytest.mark.parametrize("fault", HUB_FAULTS)
def test_faults_of_hub_copies_are_one_line(
    fault: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_counts(monkeypatch)
    layout, damage, text = HUB_FAULTS[fault]
    shutil.copytree(cifar_tree.tree(base, layout), tmp_path / "data")
    damage(tmp_path / "data" / LAYOUTS[layout][0])
    refused(tmp_path, text)


def test_parquet_without_names_of_classes_is_read_by_number(base: Path, tmp_path: Path) -> None:
    cifar_tree.write_parquet(tmp_path / "cifar10/plain_text", label_names=False)
    own, named = (suite_ref.load("cifar10", root, True).split("test")
                  for root in (tmp_path, cifar_tree.tree(base, "Parquet")))  # fmt: skip
    assert own.digest == named.digest


def test_a_snapshot_of_the_hub_is_named_by_its_revision(base: Path, tmp_path: Path) -> None:
    place = tmp_path / "datasets--uoft-cs--cifar10/snapshots/0b2714987fa478483af9968de7c934580d0bb9a2"
    cifar_tree.write_parquet(place / "plain_text")
    named = tuple((f"cifar10/{part}", place) for part in ("train", "test"))
    suite = suite_ref.load("cifar10", Roots((cifar_tree.tree(base),), named), True)
    assert suite.split("test").layout == f"Hugging Face Parquet, revision {place.name}, test"
    assert suite.split("val").digest == suite_ref.load("cifar10", cifar_tree.tree(base), True).split("val").digest


def test_papers_protocol_is_refused() -> None:
    with pytest.raises(RbftError, match="suite 'cifar10' has no published protocol to follow; use --protocol clean"):
        suite_ref.load("cifar10").under("as-published")


def test_a_run_stores_all_of_it_and_the_doctor_reads_it(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = cifar_tree.tree(base)
    monkeypatch.setattr(forest, "TEMPLATES", suite_ref.load("cifar10").templates)  # words that the model knows
    model = forest.write_model(tmp_path / "model", "cifar10")
    words = f"run --method zero-shot --suite cifar10+c-extra --model {model} --root {root} --allow-partial "
    done = CliRunner().invoke(main, [*words.split(), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    [cell] = [path.parent for path in (tmp_path / "out").rglob("done")]
    suite = suite_ref.load("cifar10+c-extra", root, True)
    record = store.Record(cell)
    [candidate] = record.summary.candidates
    for name in ("test", *suite.shifts, *suite.extra):
        assert record.predictions(candidate, name).ids == suite.split(name).ids
    assert set(record.predictions(candidate, "stl10@10-way").label) == set(range(10)) - {NAMES.index("frog")}
    assert len(record.predictions(candidate, "test@stl10-classes")) == 9 * TEST
    done = CliRunner().invoke(main, ["data", "check", "cifar10", "--root", str(root)])
    assert done.exit_code == 1
    assert "its card says 750,000" in done.output
