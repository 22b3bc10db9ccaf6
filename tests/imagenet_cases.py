"""What can be wrong with the data of ImageNet and its shifts, and what the one line that answers must contain."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forest
import pyarrow as pa
import pyarrow.parquet as pq

PLACES = {
    "train": "imagenet/train", "test": "imagenet/val", "v2": "ImageNetV2-matched-frequency", "r": "imagenet-r",
    "a": "imagenet-a", "sketch": "sketch", "objectnet": "objectnet-1.0/images",
}  # fmt: skip
FISH, SHARK, GOLDFISH = "n01440764", "n01484850", "n01443537"  # labels 0, 2 and 1; R has the latter two
HOUSE = f"{GOLDFISH}/art_0.jpg"


@dataclass(frozen=True)
class Case:
    """`damage` is given a copy of one split's folder, TMP/broken, or TMP itself where `split` is empty. `roots` are
    values of --root, in which TREE stands for the whole tree and TMP for the test's folder."""

    split: str
    damage: Callable[[Path], object]
    text: str
    source: Callable[[Path], Path] | None = None
    roots: tuple[str, ...] = ()
    called: str = "broken"

    def prepare(self, base: Path, tmp: Path) -> list[str]:
        """The broken data, and values of --root."""
        tree = forest.imagenet(base)
        if self.split:
            folder = self.source(base) if self.source else tree / PLACES[self.split]
            self.damage(forest.copy(folder, tmp / self.called))
        else:
            self.damage(tmp)
        named = (f"imagenet/{self.split}=TMP/{self.called}",) if self.split else ()
        return [text.replace("TREE", str(tree)).replace("TMP", str(tmp)) for text in self.roots or ("TREE", *named)]


def put(path: Path, content: bytes | str) -> Path:
    """A new file in the place of a link to the shared one."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def again(path: Path, old: str, new: str) -> None:
    """Replace the first `old` in a text."""
    text = path.read_text()
    assert old in text
    put(path, text.replace(old, new, 1))


def beside(name: str, put_tree: Callable[[Path, Path], object]) -> Callable[[Path], None]:
    """A folder TMP/<name>, made with a link to the tree at hand."""

    def make(tmp: Path) -> None:
        (tmp / name).mkdir()
        put_tree(tmp / name, forest.imagenet(tmp.parent / "forest"))

    return make


def links(place: Path, tree: Path, but: str = "") -> None:
    for child in tree.iterdir():
        if child.name != but:
            (place / child.name).symlink_to(child)


def into(name: str) -> Callable[[Path], object]:
    """Everything one level lower."""

    def move(place: Path) -> None:
        place.rename(place.with_name("moved"))
        place.mkdir()
        place.with_name("moved").rename(place / name)

    return move


def flat(place: Path) -> None:
    for path in [*place.glob("*/*")]:
        path.rename(place / path.name)
    for folder in place.iterdir():
        if folder.is_dir():
            folder.rmdir()


def devkit(place: Path) -> None:
    flat(place)
    put(place.parent / "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", "490\n")


def by_wnid(place: Path) -> None:
    for label, wnid in enumerate(forest.wnids()):
        (place / str(label)).rename(place / wnid)


def loop(path: Path) -> None:
    path.symlink_to(path)


def blank_frame(place: Path) -> None:
    for path in place.glob("*/*.png"):
        one = forest.leaf("", path.stem, "png", 5)
        put(path, one.content)


ROOTS = {
    "no such root": Case("", lambda tmp: None, "no such data folder: TMP/none; correct", roots=("TMP/none",)),
    "root is a file": Case("", lambda tmp: (tmp / "f").touch(), "TMP/f is a file: --root", roots=("TMP/f",)),
    "root too high": Case("", beside("up", lambda place, tree: (place / "data").symlink_to(tree)),
                          "it lies under TMP/up/data: pass --root TMP/up/data", roots=("TMP/up",)),
    "root too low": Case("", beside("low", links), "it lies under TMP/low: pass --root TMP/low",
                         roots=("TMP/low/imagenet/train",)),
    "a split is absent": Case("", beside("part", lambda place, tree: links(place, tree, "sketch")),
                              "split 'sketch': TMP/part has no sketch or imagenet-sketch/images", roots=("TMP/part",)),
    "named folder is absent": Case("", lambda tmp: None, "imagenet/r is said to lie in TMP/none, which does not exist",
                                   roots=("TREE", "imagenet/r=TMP/none")),
}  # fmt: skip

FOLDERS = {
    "val is flat": Case("test", flat, "TMP/broken is flat and has no labels: sort it into wnid folders, or put LOC_va"),
    "val is flat, devkit": Case("test", devkit, "ILSVRC2012_validation_ground_truth.txt counts classes in the devkit'"),
    "v2 by wnid": Case("v2", by_wnid, "TMP/broken is sorted into wnid folders (e.g. n01440764) by another tool"),
    "v2 lacks a folder": Case("v2", lambda p: shutil.rmtree(p / "10"), "lacks 1 number folder (10) of 1,000"),
    "v2 twice": Case("v2", lambda p: (p / "07").mkdir(), "TMP/broken holds '07' and '7'; unpack the archive again"),
    "v2 has too many": Case("v2", lambda p: (p / "1000").mkdir(), "1 folder (1000) that name no number of this set"),
    "v2, another variant": Case("v2", lambda p: None, "is V2's threshold set; the suite takes the matched-frequency on",
                                called="imagenetv2-threshold0.7-format-val"),
    "class missing": Case("r", lambda p: shutil.rmtree(p / GOLDFISH), "TMP/broken lacks 1 wnid folder (n01443537) of "),
    "class too many": Case("r", lambda p: put(p / "dog/a.jpg", ""), "1 folder (dog) that name no wnid of this set; mo"),
    "class empty": Case("r", lambda p: [f.unlink() for f in (p / SHARK).iterdir()], f"TMP/broken/{SHARK} holds no ima"),
    "broken link": Case("r", lambda p: (p / GOLDFISH / "x.jpg").symlink_to(p / "no"), "x.jpg is a broken link or a lo"),
    "loop of links": Case("sketch", lambda p: loop(p / FISH / "x.jpg"), "x.jpg is a broken link or a loop of links; r"),
    "folders in a loop": Case("sketch", lambda p: loop(p / "n0"), "TMP/broken/n0 is a broken link or a loop of links"),
    "not an image": Case("train", lambda p: put(p / FISH / "labels.csv", "a"), "labels.csv is not an image by its nam"),
    "folder in a class": Case("train", lambda p: (p / FISH / "images").mkdir(), f"TMP/broken/{FISH}/images is a folde"),
    "another set": Case("r", lambda p: None, source=lambda base: forest.imagenet(base) / "imagenet-a",
                        text="TMP/broken holds the classes of imagenet-a, not"),
    "one level too high": Case("a", into("imagenet-a"), "TMP/broken is one level too high: its folder 'imagenet-a' ho"),
    "one level too low": Case("r", lambda p: None, f"TMP/{GOLDFISH} is one wnid folder, one level too low: name",
                              source=lambda base: forest.imagenet(base) / "imagenet-r" / GOLDFISH, called=GOLDFISH),
    "no folders": Case("sketch", flat, "TMP/broken holds 50 loose images (sketch_0.JPEG, sketch_1.JPEG, sketch_10.JPE"),
    "images beside folders": Case("a", lambda p: put(p / "a.jpg", "a"), "1 image (a.jpg) outside the wnid folders; so"),
    "a file for a folder": Case("sketch", lambda p: (shutil.rmtree(p), p.touch()), "TMP/broken is not a folder; name "),
    "image in another class": Case("train", lambda p: next((p / FISH).iterdir()).rename(p / SHARK / f"{FISH}_1.JPEG"),
                                   f"'{SHARK}/{FISH}_1.JPEG' lies in another class's folder, which is not that"),
    "image renamed": Case("train", lambda p: put(p / FISH / "IMG_7.jpg", ""), "IMG_7.jpg' is no file name of ImageNet"),
    "train for val": Case("test", lambda p: None, "is no file name of ImageNet's validation set, so it has no stable i",
                          source=lambda base: forest.imagenet(base) / "imagenet/train"),
    "one image too few": Case("r", lambda p: (p / HOUSE).unlink(), "split 'r' has 399 images, its card says 400 in "),
    "no red frame": Case("objectnet", blank_frame, "has no red frame: it was cropped before, and 2 pixels would be cu"),
    "objectnet too high": Case("objectnet", into("images"), "TMP/broken is one level too high: its folder 'images' ho"),
    "objectnet lacks one": Case("objectnet", lambda p: shutil.rmtree(p / "chair"), "lacks 1 ObjectNet folder (chair) "),
}  # fmt: skip


def csv(damage: Callable[[Path], object], text: str) -> Case:
    """Of Kaggle's tree, as the folder of 'test'."""
    return Case("test", lambda place: (place.rename(place.parent / "ILSVRC"), damage(place.parent / "ILSVRC")), text,
                forest.kaggle, ("TREE", f"imagenet/test=TMP/ILSVRC/{forest.FLAT}"))  # fmt: skip


def table(old: str, new: str) -> Callable[[Path], object]:
    return lambda place: again(place / "LOC_val_solution.csv", old, new)


def first_image(place: Path) -> Path:
    return min((place / forest.FLAT).iterdir())


def repeat(place: Path) -> None:
    path = place / "LOC_val_solution.csv"
    put(path, path.read_text() + path.read_text().splitlines()[1] + "\n")


LAST = forest.wnids()[-1]
TABLES = {
    "no such column": csv(table("ImageId", "Image"), "LOC_val_solution.csv has no column ImageId; its columns: Image,"),
    "unknown wnid": csv(table(LAST, "n99999999"), "LOC_val_solution.csv names 'n99999999', which is no class of Image"),
    "image without a row": csv(lambda p: put(p / forest.FLAT / "ILSVRC2012_val_00049999.JPEG", ""),
                               "has no label for 1 images of TMP/ILSVRC/ILSVRC/Data/CLS-LOC/val, e.g. ILSVRC2012_val_"),
    "row without an image": csv(lambda p: first_image(p).unlink(), "names 1 images that are not in TMP/ILSVRC/"),
    "row twice": csv(repeat, "LOC_val_solution.csv names 1 images twice; get the official file again"),
    "no rows": csv(lambda p: put(p / "LOC_val_solution.csv", "ImageId,PredictionString\n"), "has a header and no rows"),
    "not text": csv(lambda p: put(p / "LOC_val_solution.csv", b"\xff\xfe\x00I"), "LOC_val_solution.csv "),
    "empty": csv(lambda p: put(p / "LOC_val_solution.csv", ""), "LOC_val_solution.csv cannot be read as a table: "),
    "not an image there": csv(lambda p: put(p / forest.FLAT / "a.xml", ""), "val/a.xml is not an image by its name"),
}  # fmt: skip


def shard(place: Path, change: Callable[[Any], Any]) -> None:
    path = min(place.glob("validation-00001*"))
    changed = change(pq.read_table(path))
    path.unlink()
    pq.write_table(changed, path)


def column(name: str, change: Callable[[list[object]], list[object]]) -> Callable[[Path], object]:
    """Another content of one column of one Parquet shard."""

    def replaced(found: Any) -> Any:
        k = found.column_names.index(name)
        values = pa.array(change(found.column(k).to_pylist()), found.schema.field(k).type)
        return found.set_column(k, found.schema.field(k), values)

    return lambda place: shard(place, replaced)


def packed(damage: Callable[[Path], object], text: str) -> Case:
    return Case("test", damage, text, forest.parquet)


def without_path(rows: list[object]) -> list[object]:
    return [{"bytes": b"", "path": None}, *rows[1:]]


PARQUET = {
    "column missing": packed(lambda p: shard(p, lambda t: t.drop_columns(["label"])), "has no column label; its colum"),
    "cut": packed(lambda p: put(q := min(p.glob("val*")), q.read_bytes()[:-9]), "cannot be read as Parquet images: "),
    "shard missing": packed(lambda p: min(p.glob("val*")).unlink(),
                            "TMP/broken lacks 1 of 3 .parquet files of part 'val', e.g. number 00000; get them too"),
    "label of another class": packed(column("label", lambda rows: [*rows[1:], rows[0]]), "has label "),
    "no file names": packed(column("image", without_path), "some rows have no file name in image.path, hence no stabl"),
    "no label": packed(column("label", lambda rows: [None, *rows[1:]]), "some rows have no label; get it again"),
    "no bytes": packed(column("image", lambda rows: [{"bytes": None, "path": "a"}, *rows[1:]]), "rows have no image.b"),
    "the test part": packed(column("label", lambda rows: [-1] * len(rows)), "are not 0..999; are they the test part?"),
    "no such part": packed(lambda p: [q.unlink() for q in p.glob("val*")], "3 .parquet files (train-00000-of-00003.pa"),
    "images as text": packed(lambda p: shard(p, lambda t: t.set_column(0, "image", [["a"] * len(t)])), "cannot be rea"),
}  # fmt: skip


def tar(damage: Callable[[Path], object], text: str) -> Case:
    """Given the first validation shard."""
    return Case("test", lambda place: damage(min(place.glob("*validation*"))), text, forest.tars)


def other(leaves: Callable[[list[forest.Leaf]], list[forest.Leaf]]) -> Callable[[Path], object]:
    """The shard written again."""

    def write(path: Path) -> None:
        path.unlink()
        forest.write_tar(path, leaves(list(forest.val()[:5])))

    return write


def cut(keep: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: put(path, keep(path.read_bytes()))


def named(one: forest.Leaf, stem: str) -> forest.Leaf:
    return forest.Leaf(one.folder, stem, one.suffix, one.label, one.content)


TARS = {
    "cut in an image": tar(cut(lambda raw: raw[:1000]), "imagenet1k-validation-0000.tar is not a whole tar file: "),
    "cut in the middle": tar(cut(lambda raw: raw[: len(raw) // 2]), "imagenet1k-validation-0000.tar is not a whole ta"),
    "cut between members": tar(cut(lambda raw: raw.rstrip(b"\0") + b"\0" * (-len(raw.rstrip(b"\0")) % 512)),
                               "is not a whole tar file: it ends before its last block; get it again"),
    "empty file": tar(cut(lambda raw: b""), "imagenet1k-validation-0000.tar is not a whole tar file: empty file; get "),
    "no class": tar(cut(lambda raw: raw.replace(b".cls\0", b".txt\0", 1)), "has no .cls with a number beside it; get "),
    "keys are numbers": tar(other(lambda found: [named(one, f"{k:08d}") for k, one in enumerate(found)]),
                            "'00000000' is no file name of ImageNet's validation set, so it has no stable id"),
    "image twice": tar(lambda path: shutil.copy(path, path.with_name("imagenet1k-validation-0003.tar")), "' twice; mo"),
    "label of another class": tar(other(lambda found: [named(found[0], f"{found[0].stem}_{SHARK}")]),
                                  f"has label 0, which is not that of {SHARK}; get the data again"),
    "label too large": tar(other(lambda found: [forest.Leaf("", "ILSVRC2012_val_00000000", "JPEG", 1000, b"")]), "are"),
    "two layouts' parts": tar(lambda path: [p.unlink() for p in path.parent.glob("*val*")], "none of part 'val'; get "),
}  # fmt: skip
CASES = {
    f"{kind}: {name}": case
    for kind, cases in (("root", ROOTS), ("folders", FOLDERS), ("table", TABLES), ("parquet", PARQUET), ("tar", TARS))
    for name, case in cases.items()
}
SPOKEN = (  # of each kind one goes through the command line
    "folders: val is flat", "folders: v2 by wnid", "folders: one image too few", "folders: no red frame",
    "table: unknown wnid", "parquet: no file names", "tar: cut in the middle",
)  # fmt: skip
