"""The data doctor: every kind of fault is found in whatever holds the images, and nothing healthy is called ill."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import clinic
import coded
import numpy as np
import pytest
from clinic import CLASSES, FAULTS, HELD_OUT, N
from installed import registered

from robustbench_ft import doctor, suite_ref
from robustbench_ft.data import FileImages, Split, decode
from robustbench_ft.doctor import Examination, Extent, manifest, scan
from robustbench_ft.doctor.look import BIT, KINDS, STOPS, look, names
from robustbench_ft.errors import MissingDataError, RbftError
from robustbench_ft.images.roots import Roots
from robustbench_ft.progress import Progress

WHOLE = Extent(None, 2)
GLANCE = Extent(0, 2)


@pytest.fixture(scope="module", autouse=True)
def shelf(clinic_shelf: Path) -> Iterator[None]:
    with registered(clinic_shelf):
        yield


def examine(root: Path, extent: Extent = WHOLE, against: Path | None = None) -> Examination:
    return doctor.examine("clinic", Roots((root,)), extent, Progress(), against)


def found(done: Examination) -> set[tuple[str, str]]:
    return {(finding.split, finding.kind) for finding in done.findings}


def verdicts(done: Examination) -> dict[str, str]:
    return {line.split: line.verdict for line in done.lines}


def image(tree: Path, split: str = "test", label: int = 0, k: int = 0) -> Path:
    return tree / "clinic" / split / CLASSES[label] / f"{split}-{k:02d}.jpg"


@pytest.mark.parametrize("kind", sorted(FAULTS))
def test_a_fault_is_named_and_stops_what_a_run_would_refuse(kind: str) -> None:
    raw = FAULTS[kind]()
    flags, _ = look(raw, "fault.jpg")
    assert kind in names(flags)
    assert bool(flags & STOPS) == refused(raw)


def test_words_say_what_the_kind_does_not() -> None:
    words = {kind: look(FAULTS[kind](), "fault.jpg")[1] for kind in FAULTS}
    assert words["wrong suffix"] == "PNG inside"
    assert words["animated"] == "2 frames, GIF inside"
    assert words["turned"] == "orientation 6"
    assert words["16-bit"] == "mode I;16"
    assert words["no image"] == "it begins like a web page"
    assert words["greyscale"] == words["empty"] == ""


def refused(raw: bytes) -> bool:
    try:
        decode(raw, "fault.jpg")
    except RbftError:
        return True
    return False


def test_every_kind_has_its_fault() -> None:
    assert {kind.name for kind in KINDS} == {*FAULTS, "unreadable"}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".webp", ".bmp"])
def test_a_cut_file_is_refused_just_where_a_run_refuses_it(suffix: str, tmp_path: Path) -> None:
    raw = coded.write(tmp_path / f"whole{suffix}", 5).read_bytes()
    assert look(raw, f"whole{suffix}") == (0, "")
    for cut in range(1, len(raw), max(1, len(raw) // 40)):
        flags, words = look(raw[:cut], f"cut{suffix}")
        assert bool(flags & STOPS) == refused(raw[:cut]), (cut, words)


def test_a_healthy_tree_is_ready(healthy: Path) -> None:
    done = examine(healthy)
    assert done.ready
    assert not done.findings
    assert verdicts(done) == dict.fromkeys(("train", "val", "test", "cartoon", "train-all"), "ok")
    assert {line.split: line.looked for line in done.lines} == dict(clinic.Clinic.card.counts)
    assert done.copies == ()


@pytest.mark.parametrize("packing", ["folders", "tar", "parquet"])
def test_faults_are_found_wherever_images_are_kept(packing: str, tree: Path) -> None:
    """All kinds at once, each in one image of the test split; a tar keeps no suffix to be wrong."""
    kinds = sorted(FAULTS)
    spots = {kind: (k % len(CLASSES), k // len(CLASSES)) for k, kind in enumerate(kinds)}
    for kind, (label, k) in spots.items():
        image(tree, "test", label, k).write_bytes(FAULTS[kind]())
    if packing != "folders":
        clinic.pack(tree / "clinic" / "test", packing)
    done = examine(tree)
    assert not done.ready
    assert verdicts(done)["test"] == "WRONG"
    assert verdicts(done)["train"] == "ok"
    ids = {kind: f"test/{CLASSES[label]}/test-{k:02d}" for kind, (label, k) in spots.items()}
    by_kind = {f.kind: {done.splits["test"].ids[k] for k in f.indices} for f in done.of("test")}
    if packing == "tar":
        assert by_kind.keys() == set(FAULTS) - {"wrong suffix"}
    for kind, own in by_kind.items():
        assert ids[kind] in own
    # some faults come in a file of another format as well, and nothing else does
    assert by_kind.pop("wrong suffix", set()) <= set(ids.values())
    assert all(own == {ids[kind]} for kind, own in by_kind.items())


def test_a_glance_finds_empty_and_vanished_files_without_opening_any(tree: Path) -> None:
    image(tree).write_bytes(b"")
    image(tree, k=1).write_bytes(FAULTS["truncated"]())
    assert found(examine(tree, GLANCE)) == {("test", "empty")}
    split = Split("lost", FileImages(tree, ("no.jpg",)), np.zeros(1, np.int64), ("no",))
    seen = scan.measure(split, 1, lambda n=1, note="": None)
    assert seen.flags.tolist() == [BIT["unreadable"]]
    assert seen.words[0] == "No such file or directory"
    scan.look(split, seen, [0], 1, lambda n=1, note="": None)
    assert seen.flags.tolist() == [BIT["unreadable"]]
    assert not seen.read.any()


def test_a_sample_is_spread_over_classes_and_grows(healthy: Path) -> None:
    split = suite_ref.load("clinic", healthy).split("test")
    chosen = [set(scan.choose(split, n).tolist()) for n in (4, 8, 9, 24, 99)]
    assert all(small <= large for small, large in pairwise(chosen))
    assert [len(some) for some in chosen] == [4, 8, 9, 24, 24]
    assert sorted(split.labels[list(chosen[1])].tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    order = np.arange(len(split))[::-1]
    turned = Split("test", split.images, split.labels[order], tuple(split.ids[k] for k in order))
    assert {turned.ids[k] for k in scan.choose(turned, 9)} == {split.ids[k] for k in chosen[2]}


@pytest.mark.parametrize("extent", [WHOLE, GLANCE], ids=["all", "sample"])
@pytest.mark.parametrize("packing", ["folders", "tar", "parquet"])
def test_copies_across_splits_are_found_in_full(packing: str, extent: Extent, tree: Path) -> None:
    learned = suite_ref.load("clinic", tree).split("train").ids[0]
    source = tree / "clinic" / f"{learned}.jpg"
    shutil.copy(source, image(tree, "test", 2, 3))
    near = bytearray(source.read_bytes())
    near[-3] ^= 1  # as large, and equal in its middle
    image(tree, "cartoon", 1, 1).write_bytes(bytes(near))
    if packing != "folders":
        clinic.pack(tree / "clinic" / "train", packing)
    done = examine(tree, extent)
    [finding] = [f for f in done.findings if f.kind == "shared images"]
    assert (finding.split, finding.stops) == ("test", False)
    assert "1 of 24 images are in 'train' too, byte for byte, where methods see them before the test" in finding.text
    assert [done.splits["test"].ids[k] for k in finding.indices] == ["test/fern/test-03"]
    assert set(finding.words.values()) == {f"as {learned}"}
    assert done.ready


@pytest.mark.parametrize("packing", ["folders", "tar", "parquet"])
def test_images_tell_size_and_parts_of_their_bytes(packing: str, tree: Path) -> None:
    raws = {p.stem: p.read_bytes() for p in (tree / "clinic" / "test").glob("*/*") if p.parent.name == "fern"}
    if packing != "folders":
        clinic.pack(tree / "clinic" / "test", packing)
    split = suite_ref.load("clinic", tree).split("test")
    rows = np.flatnonzero(split.labels == CLASSES.index("fern")).tolist()
    assert len(rows) == len(raws)
    for k in rows:
        raw = raws[split.ids[k].rpartition("/")[2]]
        assert (split.images.raw(k), split.images.size(k)) == (raw, len(raw))
        assert split.images.part(k, 5, 9) == raw[5:14]
        assert split.images.part(k, len(raw) - 3, 9) == raw[-3:]


def test_files_of_one_size_are_not_read_whole_when_their_middles_differ(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(3):
        image(tree, "test", 0, k).write_bytes(bytes([k]) * 500)
    image(tree, "cartoon", 0, 0).write_bytes(bytes([2]) * 500)
    read: list[str] = []
    raw = FileImages.raw
    monkeypatch.setattr(FileImages, "raw", lambda self, k: (read.append(self.name(k)), raw(self, k))[1])
    done = examine(tree, GLANCE)
    assert sorted(read) == sorted(map(str, (image(tree, "test", 0, 2), image(tree, "cartoon", 0, 0))))
    assert [group.splits for group in done.copies or ()] == [("test", "cartoon")]


def test_a_folder_in_anothers_place_stops(tree: Path) -> None:
    for word in CLASSES:
        for k in range(N["cartoon"]):
            shutil.copy(image(tree, "test", CLASSES.index(word), k), image(tree, "cartoon", CLASSES.index(word), k))
    done = examine(tree, GLANCE)
    assert found(done) == {("cartoon", "shared images")}
    assert verdicts(done)["cartoon"] == "WRONG"
    assert "above 5% one folder probably stands for both" in done.findings[0].text


def test_copies_inside_a_split_tell_when_their_labels_differ(tree: Path) -> None:
    shutil.copy(image(tree, "test", 0, 0), image(tree, "test", 0, 1))
    [finding] = examine(tree, GLANCE).findings
    assert finding.text == "2 images are in the split more than once, byte for byte"
    shutil.copy(image(tree, "test", 1, 0), image(tree, "test", 2, 0))
    [finding] = examine(tree, GLANCE).findings
    assert "4 images are in the split more than once, byte for byte; 2 of them with different labels" in finding.text
    assert not finding.stops
    assert examine(tree, Extent(0, 2, copies=False)).copies is None


def test_wrong_counts_name_every_class_that_is_short(tree: Path) -> None:
    image(tree, "test", 1, 0).unlink()
    shutil.rmtree(tree / "clinic" / "test" / CLASSES[3])
    done = examine(tree)
    assert verdicts(done) == {"train": "ok", "val": "ok", "test": "WRONG", "cartoon": "ok", "train-all": "ok"}
    total, by_class = done.of("test")
    assert total.text.startswith("has 17 images, its card says 24; get it again")
    assert by_class.details == ("green page: 5 of 6", "red drawing: 0 of 6")


def test_a_class_that_is_missing_where_nothing_is_counted_is_no_less_wrong(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clinic.Clinic, "card", type(clinic.Clinic.card)("Clinic", "tests", "MIT", "here", counts={}))
    shutil.rmtree(tree / "clinic" / "test" / CLASSES[3])
    [finding] = examine(tree).findings
    assert (finding.split, finding.kind, finding.stops) == ("test", "incomplete", True)
    assert "lacks 1 class folder (kite) of 4" in finding.text


def test_what_is_missing_or_unreadable_hides_nothing_else(tree: Path) -> None:
    shutil.rmtree(tree / "clinic" / "train")
    (tree / "clinic" / "test" / "cat").mkdir()
    done = examine(tree)
    assert verdicts(done) == {
        "train": "missing", "val": "missing", "train-all": "missing", "test": "WRONG", "cartoon": "ok"
    }  # fmt: skip
    assert "has no clinic/train or train-of-clinic" in done.of("val")[0].text
    assert "1 folder (cat) that name no class" in done.of("test")[0].text
    assert done.digest is None


def test_no_data_at_all_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"has no clinic/train or train-of-clinic; get it from the test that"):
        examine(tmp_path)


def test_pixels_of_embedded_suites_are_all_looked_at(shelves: None) -> None:
    done = doctor.examine("tiny", Roots(), GLANCE, Progress())
    assert done.ready
    assert all(line.looked == line.expected for line in done.lines)


def test_images_that_papers_train_on_are_seen_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    raw = FileImages.raw
    monkeypatch.setattr(FileImages, "raw", lambda self, k: (read.append(self.name(k)), raw(self, k))[1])
    image(tree, "train", 0, 0).write_bytes(FAULTS["CMYK"]())
    done = examine(tree)
    assert len(read) == len(set(read)) == sum(N.values()) * len(CLASSES)
    both = {split for split, kind in found(done) if kind == "CMYK"}
    assert both in ({"train", "train-all"}, {"val", "train-all"})


def test_a_manifest_agrees_with_the_same_data_elsewhere(healthy: Path, tree: Path, tmp_path: Path) -> None:
    here = examine(healthy)
    path = write_manifest(here, tmp_path)
    clinic.pack(tree / "clinic" / "cartoon", "parquet")
    there = examine(tree, against=path)
    assert there.differences == ()
    assert there.compared == (136, 136)
    assert there.digest == here.digest


def write_manifest(done: Examination, folder: Path) -> Path:
    path = folder / "manifest.parquet"
    path.write_bytes(manifest.to_bytes(done.suite, done.splits, done.seen))
    return path


def test_a_manifest_tells_what_differs(healthy: Path, tree: Path, tmp_path: Path) -> None:
    path = write_manifest(examine(healthy), tmp_path)
    raw = bytearray(image(tree, "test", 0, 0).read_bytes())
    raw[-3] ^= 1
    image(tree, "test", 0, 0).write_bytes(bytes(raw))
    image(tree, "test", 1, 1).write_bytes(b"longer")
    image(tree, "test", 2, 2).rename(image(tree, "test", 2, 9))
    assert different(examine(tree, against=path)) == {
        "other bytes": ("test/cup/test-00", "test/dog/test-01"), "only here": ("test/fern/test-09",),
        "only there": ("test/fern/test-02",),
    }  # fmt: skip
    glance = examine(tree, Extent(0, 2, copies=False), path)
    assert different(glance)["other bytes"] == ("test/dog/test-01",)  # by size alone
    assert glance.compared == (0, 135)
    assert not glance.ready
    done = examine(healthy)
    labels = done.splits["test"].labels.copy()
    labels[0] = 3
    splits = {**done.splits, "test": replace(done.splits["test"], labels=labels)}
    assert {d.what: d.ids for d in manifest.differences(splits, done.seen, manifest.read(path, done.suite))} == {
        "another label": ("test/cup/test-00",)
    }


def different(done: Examination) -> dict[str, tuple[str, ...]]:
    assert {d.split for d in done.differences or ()} == {"test"}
    return {d.what: d.ids for d in done.differences or ()}


def test_what_is_no_manifest_of_this_suite_is_refused(healthy: Path, tmp_path: Path) -> None:
    path = write_manifest(examine(healthy), tmp_path)
    with pytest.raises(RbftError, match="is a manifest of clinic v1, not of shapes v2; check that suite"):
        manifest.read(path, suite_ref.load("shapes"))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RbftError, match=r"cannot read the manifest .*; make one with `--manifest FILE`"):
        examine(healthy, against=path)


def test_digests_name_the_data_and_not_their_place(healthy: Path, tree: Path) -> None:
    assert examine(healthy, GLANCE).digest == examine(tree, GLANCE).digest
    image(tree).write_bytes(image(tree).read_bytes() + b"\0")
    assert examine(healthy, GLANCE).digest != examine(tree, GLANCE).digest


def record(tree: Path) -> manifest.Json:
    suite = suite_ref.load("clinic", tree)
    return manifest.for_record(suite, [suite.split(name) for name in (suite.train, *suite.splits)])


def test_records_tell_the_last_check_of_these_very_files(tree: Path) -> None:
    assert (record(tree)["checked"], record(tree)["verdict"]) == (None, None)
    done = examine(tree, Extent(2, 2))
    assert record(tree) == {"digest": done.digest, "checked": "sample of 8", "verdict": "ok"}
    examine(tree)
    assert record(tree)["checked"] == "all"
    examine(tree, GLANCE)
    assert record(tree)["checked"] == "all"  # a glance that finds nothing worse replaces no thorough check
    os.utime(image(tree), (0, 0))
    assert record(tree)["checked"] is None
    image(tree).write_bytes(FAULTS["greyscale"]())
    examine(tree)
    assert record(tree)["verdict"] == "notes"


def test_held_out_images_are_those_of_the_suite(healthy: Path) -> None:
    done = examine(healthy, GLANCE)
    assert len(done.splits["val"]) == HELD_OUT * len(CLASSES)
    assert not set(done.splits["val"].ids) & set(done.splits["train"].ids)
