"""Small trees of iWildCam, FMoW and Camelyon17 as WILDS distributes them; every image carries its label.

Rows are in no order of label, split or file name, and each table has columns that nobody should need.
"""

import csv
import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import coded
import numpy as np

from robustbench_ft import suite_ref

Row = dict[str, object]
FOLDERS = {"wilds-iwildcam": "iwildcam_v2.0", "wilds-fmow": "fmow_v1.1", "wilds-camelyon17": "camelyon17_v1.0"}
CATEGORIES = suite_ref.load("wilds-fmow").classes
COUNTRIES = {"Asia": "JPN", "Europe": "FRA", "Africa": "NAM", "Americas": "USA", "Oceania": "AUS"}
EDGES = (  # the first and last moments of splits
    ("train", "2002", "2012-12-31T23:59:59.999Z"), ("val", "2013", "2013-01-01T00:00:00Z"),
    ("val", "2015", "2015-12-31T23:59:59.999Z"), ("test", "2016", "2016-01-01T00:00:00.000Z"),
    ("test", "2017", "2017-12-31T23:59:59Z"), ("train", "2003", "2002-01-01T00:00:00Z"),
)  # fmt: skip
ELSEWHERE = "XKX"  # a country that the mapping lacks: region 'Other'


def plant_all(root: Path) -> Path:
    for suite in FOLDERS:
        plant(root, suite)
    return root


def plant(root: Path, suite: str) -> Path:
    """The tree of one suite under `root`; returns its folder."""
    place = root / FOLDERS[suite]
    place.mkdir(parents=True)
    version = place.name.rpartition("_")[2]
    (place / f"RELEASE_{version}.txt").write_text("")
    {"wilds-iwildcam": iwildcam, "wilds-fmow": fmow, "wilds-camelyon17": camelyon17}[suite](place)
    return place


def copy(place: Path, root: Path) -> Path:
    """Another copy of a tree, under `root`: tables are files of their own, images are links."""

    def put(source: str, target: str) -> str:
        if source.endswith(".csv"):
            return shutil.copy(source, target)
        os.link(source, target)
        return target

    return Path(shutil.copytree(place, root / place.name, copy_function=put))


def iwildcam(place: Path) -> None:
    """Train has each of the 182 classes once; every split has cameras of its own, or those of train."""
    labels = {"train": range(182), "val": range(0, 36, 3), "test": range(2, 182, 9), "id_val": range(12)}
    labels |= {"id_test": [4, 4, 4, 0, 181, 99, 7, 7]}
    cameras = {"train": (0, 6), "id_val": (0, 6), "id_test": (0, 6), "val": (6, 9), "test": (9, 13)}
    rows: list[Row] = []
    for split, some in labels.items():
        low, high = cameras[split]
        for k, label in enumerate(some):
            name = hashlib.sha256(f"{split}{k}".encode()).hexdigest()[:12] + ".jpg"
            side = 448 if k == 3 else coded.SIDE
            picture = coded.picture(label, name, side)
            path = place / "train" / name
            path.parent.mkdir(exist_ok=True)
            (picture.convert("L") if k % 5 == 1 else picture).save(path, quality=95)
            rows.append({
                "split": split, "location_remapped": low + k % (high - low), "location": 400 + k,
                "datetime": f"20{10 + k % 6:02}-0{1 + k % 9}-1{k % 9} {k % 24:02}:3{k % 9}:12.000", "y": label,
                "category_id": 500 - label, "filename": name,
            })  # fmt: skip
    rows = shuffled(rows)
    for k, row in enumerate(rows):
        row["sequence_remapped"] = k // 2
    write_table(place / "metadata.csv", rows)


def fmow(place: Path) -> None:
    """Sequestered rows lie between the others, and some rows belong to no split, as in the official table."""
    rows: list[Row] = []
    regions = tuple(COUNTRIES.values())

    def add(split: str, year: int, categories: Iterable[int], countries: Sequence[str] = regions) -> None:
        for category in categories:
            k = len(rows)
            fraction = ".656" if k % 3 == 0 else ""  # both spellings of the official table
            name = f"{CATEGORIES[category]}_{k}_rgb.jpg"
            stamp = f"{year + k % 2}-{1 + k % 12:02}-0{1 + k % 9}T05:06:07{fraction}Z"
            rows.append({
                "split": split, "img_filename": name, "img_path": f"/fmow/{split}/{name}", "spatial_reference": "WGS84",
                "epsg": 4326, "category": CATEGORIES[category], "visible": True, "img_width": 224, "img_height": 224,
                "country_code": countries[k % len(countries)], "cloud_cover": k % 7,
                "timestamp": stamp, "lat": 1.5, "lon": k / 2,
            })  # fmt: skip

    add("train", 2002, range(62))
    add("val", 2005, range(0, 62, 5))
    add("test", 2011, range(1, 62, 5))
    add("val", 2013, range(2, 62, 5))
    add("val", 2014, [9, 10, 11])
    add("test", 2016, range(0, 62, 3), regions[:4])  # no image in Oceania: a region without images has no accuracy
    add("test", 2016, [61], (ELSEWHERE,))
    add("train", 2013, [3, 4])  # in no split, as the next three
    add("test", 2013, [5, 6])
    add("val", 2016, [7, 8])
    add("train", 2016, [12])
    add("seq", 2002, range(8))
    for split, year, edge in EDGES:
        next(row for row in rows if row["split"] == split and str(row["timestamp"])[:4] == year)["timestamp"] = edge
    rows = shuffled(rows)
    assert [row["split"] for row in rows[-8:]].count("seq") < 8
    write_table(place / "rgb_metadata.csv", rows)
    table: list[Row] = [{"name": region, "alpha-3": code, "region": region} for region, code in COUNTRIES.items()]
    write_table(place / "country_code_mapping.csv", [*table, {"name": "Antarctica", "alpha-3": "ATA", "region": ""}])
    (place / "images").mkdir()
    for k, row in enumerate(rows):
        label = CATEGORIES.index(str(row["category"]))
        mode = {1: "L", 2: "LA", 3: "P"}.get(k % 11, "RGB")
        picture = coded.picture(label, str(k), 64 if k % 4 else 224)
        (picture.convert("L").convert(mode) if mode != "RGB" else picture).save(place / "images" / f"rgb_img_{k}.png")


def camelyon17(place: Path) -> None:
    """Five hospitals; patients are numbers with leading zeros, and column `split` lies about two hospitals."""
    rows: list[Row] = []
    for k in range(64):
        hospital = (0, 3, 4, 1, 2)[k % 5]
        slide = 10 * hospital + k % 3
        rows.append({
            "patient": f"{4 * hospital + k % 3:03}", "node": k % 3 + 1, "x_coord": 3328 + 32 * k,
            "y_coord": 21792 - k, "tumor": k // 5 % 2, "slide": slide, "center": hospital,
            "split": int(k % 4 == 0),
        })  # fmt: skip
    rows = shuffled(rows)
    write_table(place / "metadata.csv", rows, index=True)
    for row in rows:
        slide = f"patient_{row['patient']}_node_{row['node']}"
        name = f"patch_{slide}_x_{row['x_coord']}_y_{row['y_coord']}.png"
        coded.write(place / "patches" / slide / name, int(str(row["tumor"])), side=96)


def shuffled(rows: list[Row]) -> list[Row]:
    return [rows[k] for k in np.random.default_rng(0).permutation(len(rows))]


def write_table(path: Path, rows: Sequence[Mapping[str, object]], index: bool = False) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*([""] if index else []), *rows[0]])
        writer.writerows([*([k] if index else []), *row.values()] for k, row in enumerate(rows))


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
