"""Small trees with the structure of the real ones: the same folders, file names, tables and archives, and the label in
each image's pixels. Every class of every set is there, with an image or two.
"""

import csv
import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import coded
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny

from robustbench_ft import suite_ref

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
UNMAPPED = 40_000  # what the pixels of ObjectNet images without an ImageNet class say
FRAME = 2
TEMPLATES, WORD = ("a photo of a {}", "a drawing of a {}"), re.compile(r"[a-z0-9]+")
COUNTS = {"train": 1000, "val": 1000, "train-all": 2000, "test": 1000, "v2": 1000, "r": 400, "a": 200, "sketch": 1000,
          "objectnet": 113}  # fmt: skip
FLAT = "ILSVRC/Data/CLS-LOC/val"
WORDS = {"parquet": ("train", "validation"), "tar": ("imagenet1k-train", "imagenet1k-validation")}  # shard names
ATTACKS = ("0.000116_digital clock _ digital clock_0.865662", "0.12_fox squirrel_0.3")  # names as ImageNet-A has them


@dataclass(frozen=True)
class Leaf:
    """One image file: `folder/stem.suffix`."""

    folder: str
    stem: str
    suffix: str
    label: int  # in its pixels
    content: bytes

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.stem}.{self.suffix}"


def leaf(folder: str, stem: str, suffix: str, label: int, frame: int = 0) -> Leaf:
    buffer = io.BytesIO()
    options: dict[str, Any] = {"format": "png"} if suffix == "png" else {"format": "jpeg", "quality": 95}
    coded.picture(label, stem, frame=frame).save(buffer, **options)
    return Leaf(folder, stem, suffix, label, buffer.getvalue())


def write(root: Path, leaves: Iterable[Leaf]) -> Path:
    """In folders."""
    made = set[str]()
    for one in leaves:
        if one.folder not in made:
            (root / one.folder).mkdir(parents=True, exist_ok=True)
            made.add(one.folder)
        (root / one.path).write_bytes(one.content)
    return root


def copy(tree: Path, target: Path) -> Path:
    """A copy to break: files are links to the same bytes, so replace them rather than write into them. Folders that are
    links are left out."""
    for folder, _, files in os.walk(tree):
        here = target / Path(folder).relative_to(tree)
        here.mkdir(parents=True, exist_ok=True)
        for name in files:
            os.link(Path(folder) / name, here / name)
    return target


@cache
def wnids(key: str = "wnids") -> tuple[str, ...]:
    return tuple(json.loads((BENCHMARKS / "imagenet_wnids.json").read_text())[key])


@cache
def objectnet_classes() -> dict[str, list[int]]:
    return json.loads((BENCHMARKS / "objectnet_classes.json").read_text())


@cache
def train() -> tuple[Leaf, ...]:
    """Two images of each class; file numbers are in no order of anything."""
    rng = np.random.default_rng(0)
    return tuple(
        leaf(wnid, f"{wnid}_{n}", "JPEG", label)
        for label, wnid in enumerate(wnids()) for n in rng.choice(20_000, 2, replace=False)
    )  # fmt: skip


@cache
def val() -> tuple[Leaf, ...]:
    """The official validation images, one of each class, numbered across classes."""
    numbers = np.random.default_rng(1).permutation(1000) + 1
    return tuple(
        leaf(wnid, f"ILSVRC2012_val_{numbers[label]:08d}", "JPEG", label) for label, wnid in enumerate(wnids())
    )


@cache
def imagenet(base: Path) -> Path:
    """The tree that code derived from WiSE-FT expects, with ObjectNet: one root, every split in folders."""
    root, place = base / "imagenet-tree", {wnid: label for label, wnid in enumerate(wnids())}
    write(root / "imagenet/train", train())
    write(root / "imagenet/val", val())
    v2, sketch = "ImageNetV2-matched-frequency", "sketch"
    write(root / v2, (leaf(str(k), f"{k * 7919:040x}", "jpeg", k) for k in range(1000)))
    write(root / sketch, (leaf(wnid, f"sketch_{k % 50}", "JPEG", k) for wnid, k in place.items()))
    write(root / "imagenet-r", (leaf(w, stem, "jpg", place[w])
                                for w in wnids("imagenet_r") for stem in ("sketch_3", "art_0")))  # fmt: skip
    (root / "imagenet-r/README.txt").write_text("n01443537 goldfish\n")
    write(root / "imagenet-a", (leaf(w, ATTACKS[place[w] % 2], "jpg", place[w]) for w in wnids("imagenet_a")))
    mapped = objectnet_classes()
    write(root / "objectnet-1.0/images", (leaf(folder, f"{k:013x}", "png", (own[0], own[-1])[k % 2], FRAME)
                                          for k, (folder, own) in enumerate(mapped.items())))  # fmt: skip
    write(root / "objectnet-1.0/images", (leaf(folder, "00aa", "png", UNMAPPED, FRAME)
                                          for folder in ("air_freshener", "baking_sheet", "zipper")))  # fmt: skip
    (root / "objectnet-1.0/mappings").mkdir()
    return root


@cache
def kaggle(base: Path) -> Path:
    """Kaggle's flat validation folder, its table, and train in wnid folders."""
    root = base / "kaggle"
    (root / FLAT).mkdir(parents=True)
    (root / FLAT).with_name("train").symlink_to(imagenet(base) / "imagenet/train")
    for one in val():
        (root / FLAT / f"{one.stem}.{one.suffix}").write_bytes(one.content)
    with (root / "LOC_val_solution.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("ImageId", "PredictionString"))
        rows.writerows((one.stem, f"{one.folder} 1 2 30 31 {one.folder} 4 4 9 9 ") for one in reversed(val()))
    return root


@cache
def parquet(base: Path, shards: int = 3) -> Path:
    """Hugging Face's shards of both parts, in `imagenet-1k/data`."""
    return pack(base / "parquet" / "imagenet-1k/data", write_parquet, "parquet", shards)


@cache
def tars(base: Path, shards: int = 3) -> Path:
    """WebDataset's shards of both parts, in `imagenet-1k-wds`."""
    return pack(base / "tars" / "imagenet-1k-wds", write_tar, "tar", shards)


def pack(place: Path, writer: Callable[[Path, Sequence[Leaf]], Path], suffix: str, shards: int) -> Path:
    """Both parts, shuffled and dealt to shards; returns the place."""
    place.mkdir(parents=True)
    for word, leaves in zip(WORDS[suffix], (train(), val()), strict=True):
        order = np.random.default_rng(2).permutation(len(leaves))
        for k in range(shards):
            of = f"-{k:05d}-of-{shards:05d}" if suffix == "parquet" else f"-{k:04d}"
            writer(place / f"{word}{of}.{suffix}", [leaves[i] for i in order[k::shards]])
    return place


def write_parquet(path: Path, leaves: Sequence[Leaf]) -> Path:
    """One shard with the schema that `datasets` writes for an image folder, its features in the metadata."""
    features = {"image": {"_type": "Image"}, "label": {"names": list(wnids()), "_type": "ClassLabel"}}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("image", image), ("label", pa.int64())],
        {b"huggingface": json.dumps({"info": {"features": features}}).encode()},
    )
    table = pa.table({
        "image": pa.array([{"bytes": one.content, "path": f"{one.stem}_{one.folder}.JPEG"} for one in leaves], image),
        "label": [one.label for one in leaves],
    }, schema=schema)  # fmt: skip
    pq.write_table(table, path, row_group_size=100)
    return path


def write_tar(path: Path, leaves: Sequence[Leaf]) -> Path:
    """One shard with the image, its class and a JSON file for each key."""
    with tarfile.open(path, "w") as archive:
        for one in leaves:
            for suffix, content in (("jpg", one.content), ("cls", str(one.label).encode()), ("json", b"{}")):
                member = tarfile.TarInfo(f"{one.stem}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def write_model(folder: Path, suite: str) -> str:
    """`--model` argument of the tiny CLIP that knows the words of a suite's classes and of `TEMPLATES`."""
    words = {word for text in (*suite_ref.load(suite).classes, *TEMPLATES) for word in WORD.findall(text.lower())}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "WORDS", tuple(sorted(words)))
        return f"local-dir:{tiny.write_model(folder)}"


DOMAINS = ("real", "painting", "clipart", "infograph", "sketch", "quickdraw")
LINES = {  # lines of the small lists; the pre-cleaning ones name a second test image of the first class
    generation: {"real_train": 690, **{f"{domain}_test": 345 + more for domain in DOMAINS[:-1]}, "quickdraw_test": 345}
    for generation, more in (("cleaned", 0), ("pre-cleaning", 1))
}


@cache
def domainnet(base: Path) -> Path:
    """All domains; the cleaned lists beside them, as the authors have them: in label order, one for each part."""
    root = base / "domainnet-cleaned"
    for domain in DOMAINS:
        leaves = domain_leaves(domain)
        write(root / "domainnet", (one for part in leaves.values() for one in part))
        for part, own in leaves.items():
            if part != "more":
                write_list(root / f"domainnet/{domain}_{part}.txt", own)
    return root


@cache
def domainnet_before(base: Path) -> Path:
    """The same images under pre-cleaning lists in `splits/`, as FTP has them: shuffled, real_train in two halves."""
    root = copy_domains(domainnet(base), base / "domainnet-before")
    for domain in DOMAINS:
        leaves = domain_leaves(domain)
        more = leaves["more"] if domain != "quickdraw" else []
        write_list(root / f"domainnet/splits/{domain}_test.txt", [*leaves["test"], *more])
    lines = domain_leaves("real")["train"]
    order = np.random.default_rng(3).permutation(len(lines))
    write_list(root / "domainnet/splits/real_train_split.txt", [lines[k] for k in order[:600]])
    write_list(root / "domainnet/splits/real_val_split.txt", [lines[k] for k in order[600:]])
    return root


def copy_domains(tree: Path, root: Path) -> Path:
    """Another root with the domains' folders, without any list."""
    (root / "domainnet/splits").mkdir(parents=True)
    for domain in DOMAINS:
        (root / "domainnet" / domain).symlink_to(tree / "domainnet" / domain)
    return root


@cache
def domain_leaves(domain: str) -> dict[str, list[Leaf]]:
    """part -> images, in label order; 'more' is in no cleaned list. File names carry the label plus one."""
    classes = suite_ref.load("domainnet").classes
    suffix = "png" if domain == "quickdraw" else "jpg"

    def some(numbers: Sequence[int], labels: Iterable[int]) -> list[Leaf]:
        return [leaf(f"{domain}/{classes[k]}", f"{domain}_{k + 1:03d}_{n:06d}", suffix, k)
                for k in labels for n in numbers]  # fmt: skip

    parts = {"test": some([5], range(345)), "more": some([7], [0])}
    return parts | ({"train": some([3, 11], range(345))} if domain == "real" else {})


def write_list(path: Path, leaves: Sequence[Leaf]) -> Path:
    path.write_text("".join(f"{one.path} {one.label}\n" for one in leaves))
    return path
