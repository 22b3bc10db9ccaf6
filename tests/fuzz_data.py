"""Data sets as targets of fuzz.py: tables of WILDS, split files of CoOp, Hugging Face folders, tars, and the cache."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import forest
import forest_wilds
import numpy as np
import test_base_to_new
import test_hub
from fuzz import Target

from robustbench_ft import cache, suite_ref
from robustbench_ft.clip import heads
from robustbench_ft.images import archives, copied

TABLES = {
    "wilds-iwildcam": ("metadata.csv",),
    "wilds-fmow": ("rgb_metadata.csv", "country_code_mapping.csv"),
    "wilds-camelyon17": ("metadata.csv",),
}
N = 12  # images in a shard


def read_suite(name: str, root: Path) -> None:
    suite = suite_ref.load(name, root, True)
    for split in suite.splits:
        found = suite.split(split)
        assert found.labels.min() >= -1
        assert len(found.ids) == len(found.labels)
        "".join((*suite.classes, *found.ids)).encode()  # they become prompts, tables, and digests


def read_shop(root: Path) -> None:
    """A suite.toml of Hugging Face data sets: every image is decoded."""
    suite = suite_ref.load(str(root))
    for name in suite.splits:
        split = suite.split(name)
        for k in range(len(split)):
            split.images.read([k])


def read_tar(shard: Path) -> None:
    packed = archives.tars([shard])
    for k in range(len(packed.images)):
        packed.images.read([k])


def read_again(wanted: Any, read: Callable[[], Any]) -> None:
    """What is read from a damaged cache is what was put there: an entry can be made again."""
    assert read() == wanted


def contents(open_shards: Callable[[list[Path]], archives.Packed], shard: Path) -> Any:
    packed = open_shards([shard])
    return packed.keys, packed.labels.tolist(), [packed.images.raw(k) for k in range(len(packed.images))]


def drawn() -> list[list[int]]:
    return cache.array("drawn", "fuzz", lambda: np.arange(60, dtype=np.uint8).reshape(6, 10)).tolist()


def head(words: tuple[str, ...]) -> Any:
    """A zero-shot head of the embedded model."""
    from robustbench_ft import clip as clips
    from robustbench_ft import model_ref
    from robustbench_ft.prompts import Task

    loaded = clips.load(model_ref.resolve("embedded", None)).requires_grad_(False)
    return loaded.zero_shot_head(Task(words, ("a photo of a {}",))).tolist()


def targets(folder: Path) -> dict[str, Target]:
    """Kinds of input by name, written below `folder`."""
    found: dict[str, Target] = {}
    for suite, tables in TABLES.items():
        place = forest_wilds.plant(folder / suite, suite)
        for name in tables:
            found[f"{suite}: {name}"] = Target(place / name, partial(read_suite, suite, place.parent))
    found |= coop(folder / "coop") | hub(folder / "shop") | packed(folder / "packed")
    return found


def coop(root: Path) -> dict[str, Target]:
    name = "eurosat"
    test_base_to_new.plant(root, name)
    own = root / "eurosat" / "split_zhou_EuroSAT.json"
    read = partial(read_suite, f"base-to-new-{name}", root)
    copy = root / "bytes" / "eurosat"  # the same again, to be damaged byte by byte
    copy.parent.mkdir()
    test_base_to_new.plant(copy.parent, name)
    return {
        "split file of CoOp": Target(own, read, json=True),
        "bytes of a split file": Target(copy / own.name, partial(read_suite, f"base-to-new-{name}", copy.parent)),
    }


def hub(root: Path) -> dict[str, Target]:
    snapshot = test_hub.snapshot(root)
    saved = test_hub.save_to_disk(root / "night", test_hub.table([2, 1, 0, 0, 1, 2, 2], "night"))
    (root / "suite.toml").write_text(test_hub.TOML)
    read = partial(read_shop, root)
    shard = (snapshot / "train-00000-of-00002.parquet").resolve()
    return {
        "state.json": Target(saved / "state.json", read, json=True),
        "dataset_info.json": Target(saved / "dataset_info.json", read, json=True),
        "Arrow of save_to_disk": Target(saved / "data-00000-of-00002.arrow", read),
        "Parquet of a hub snapshot": Target(shard, read),
    }


def packed(root: Path) -> dict[str, Target]:
    """Shards, and entries of the cache that are made of them."""
    root.mkdir()
    leaves = [forest.leaf("n01440764", f"{k:03d}", "png", k) for k in range(N)]
    tar = forest.write_tar(root / "train.tar", leaves)
    kept_tar, kept_parquet = forest.write_tar(root / "kept.tar", leaves), root / "kept.parquet"
    forest.write_parquet(kept_parquet, leaves)
    entries: dict[str, Target] = {}
    for name, path, read in (
        ("index of a tar (.npz)", cache.entry("tar-index", archives.stamp(kept_tar), ".npz"),
         partial(contents, archives.tars, kept_tar)),
        ("copy of a Parquet shard", copied.entry(kept_parquet), partial(contents, archives.parquet, kept_parquet)),
        ("drawn array", cache.entry("drawn", "fuzz", ".npy"), drawn),
    ):  # fmt: skip
        entries[name] = Target(path, partial(read_again, read(), read))
    words = "cup", "house"
    wanted = head(words)
    every = ((path, heads.load(path)) for path in cache.root().glob("heads/*.safetensors"))
    path = next(path for path, found in every if found is not None and found.tolist() == wanted)
    entries["cached head"] = Target(path, partial(read_again, wanted, partial(head, words)))
    return {"tar shard": Target(tar, partial(read_tar, tar)), **entries}
