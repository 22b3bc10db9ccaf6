"""A small tree of CIFAR-10 and its shifts in the official layouts, each image with a code in its pixels.

A code is label + 16 x corruption + 512 x severity, of an image that is not corrupted its label alone.
"""

import io
import json
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import coded
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from test_hub import save_to_disk

from robustbench_ft.data import Bytes

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
STL = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")  # from 1 in its files
CORRUPTIONS = (  # names of the files of hendrycks/robustness@ca36008, make_cifar_c.py
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
    "gaussian_blur", "saturate", "spatter", "speckle_noise",
)  # fmt: skip
TRAIN, TEST = 6, 2  # images of each class
SEVERITIES = 5


def pictures(codes: Sequence[int], name: str, side: int = 32) -> Bytes:
    return np.stack([np.asarray(coded.picture(code, f"{name}{k}", side)) for k, code in enumerate(codes)])


@cache
def train() -> tuple[tuple[int, ...], Bytes]:
    """Labels in the order of the files, and pixels; the last image is there twice, with one label."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), TRAIN))
    pixels = pictures(labels.tolist(), "train")
    same = np.flatnonzero(labels == labels[-1])[0]
    pixels[-1] = pixels[same]
    return tuple(labels.tolist()), pixels


@cache
def test() -> tuple[tuple[int, ...], Bytes]:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(10), TEST)).tolist()
    return tuple(labels), pictures(labels, "test")


def write_binary(place: Path) -> None:
    """Records of one byte of label and 3,072 of pixels, one channel at a time, row by row; five files of train."""
    place.mkdir(parents=True)
    for (labels, pixels), files in (
        (train(), [f"data_batch_{k}.bin" for k in range(1, 6)]),
        (test(), ["test_batch.bin"]),
    ):
        records = [bytes([own]) + image.transpose(2, 0, 1).tobytes() for own, image in zip(labels, pixels, strict=True)]
        size = len(records) // len(files)
        for k, file in enumerate(files):
            (place / file).write_bytes(b"".join(records[k * size : (k + 1) * size]))
    (place / "batches.meta.txt").write_text("\n".join(NAMES) + "\n")


def table(part: tuple[tuple[int, ...], Bytes], label_names: bool = True) -> Any:
    """The columns of uoft-cs/cifar10: img {bytes, path}, where path is empty, and label; rows in another order."""
    cells: list[dict[str, Any]] = []
    order = np.random.default_rng(2).permutation(len(part[0])).tolist()
    for k in order:
        buffer = io.BytesIO()
        import_module("PIL.Image").fromarray(part[1][k]).save(buffer, "png")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    kind: Any = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    arrays = [pa.array(cells, kind), pa.array([part[0][k] for k in order], pa.int64())]
    features = {"img": {"_type": "Image"}, "label": {"names": list(NAMES), "_type": "ClassLabel"}}
    about = {"huggingface": json.dumps({"info": {"features": features}})} if label_names else {}
    return pa.table(arrays, names=["img", "label"]).replace_schema_metadata(about)


def write_parquet(place: Path, label_names: bool = True) -> None:
    place.mkdir(parents=True)
    for part, content in (("train", train()), ("test", test())):
        pq.write_table(table(content, label_names), place / f"{part}-00000-of-00001.parquet")


def write_saved(place: Path) -> None:
    """`DatasetDict.save_to_disk`: a folder for each split."""
    for part, content in (("train", train()), ("test", test())):
        folder = save_to_disk(place / part, table(content))
        features = {"label": {"names": list(NAMES), "_type": "ClassLabel"}}
        (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    (place / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))


def write_shifts(root: Path) -> None:
    write_again(root)
    write_corrupted(root / "CIFAR-10-C")
    write_stl(root / "stl10_binary")


def write_again(root: Path) -> None:
    """CIFAR-10.1 v6 with the int32 labels of its files, CIFAR-10.2 with the arrays that its README lists."""
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(10), TEST))
    (root / "CIFAR-10.1/datasets").mkdir(parents=True)
    np.save(root / "CIFAR-10.1/datasets/cifar10.1_v6_data.npy", pictures(labels.tolist(), "10.1"))
    np.save(root / "CIFAR-10.1/datasets/cifar10.1_v6_labels.npy", labels.astype(np.int32))
    (root / "cifar-10.2").mkdir()
    np.savez(
        root / "cifar-10.2/cifar102_test.npz", images=pictures(labels.tolist(), "10.2"), labels=labels,
        label_names=np.array(NAMES), ti_indices=np.arange(len(labels)), keywords=np.array(NAMES)[labels],
    )  # fmt: skip


def write_corrupted(place: Path) -> None:
    """One file a corruption: the test images at severity 1, then at 2, ... 5. One file of labels, bytes."""
    place.mkdir(parents=True)
    labels, _ = test()
    for code, name in enumerate(CORRUPTIONS):
        codes = [label + 16 * code + 512 * severity for severity in range(1, SEVERITIES + 1) for label in labels]
        np.save(place / f"{name}.npy", pictures(codes, name))
    np.save(place / "labels.npy", np.array(labels * SEVERITIES, np.uint8))


def stl() -> tuple[list[int], Bytes]:
    labels = np.random.default_rng(4).permutation(np.repeat(np.arange(10), TEST)).tolist()
    return labels, pictures(labels, "stl", 96)


def write_stl(place: Path) -> None:
    """One channel at a time, each column by column; the codes are STL-10's own labels, counted from 0."""
    place.mkdir(parents=True)
    labels, pixels = stl()
    (place / "test_X.bin").write_bytes(pixels.transpose(0, 3, 2, 1).tobytes())
    (place / "test_y.bin").write_bytes(bytes(label + 1 for label in labels))
    (place / "class_names.txt").write_text("\n".join(STL) + "\n")


LAYOUTS = {
    "binary": ("cifar-10-batches-bin", write_binary),
    "Parquet": ("cifar10/plain_text", write_parquet),
    "save_to_disk": ("cifar10", write_saved),
}


def tree(base: Path, layout: str = "binary") -> Path:
    return _written(base, layout)


@cache
def _written(base: Path, layout: str) -> Path:
    root = base / layout
    folder, write = LAYOUTS[layout]
    write(root / folder)
    write_shifts(root)
    return root
