"""Ways in which a WILDS tree goes wrong, each with what the one line must say."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import forest_wilds

Row = dict[str, str]
TABLES = {"wilds-iwildcam": "metadata.csv", "wilds-fmow": "rgb_metadata.csv", "wilds-camelyon17": "metadata.csv"}


@dataclass(frozen=True)
class Case:
    """`spoil` is given the folder of a sound tree; it may return words for the command line instead of `--root`."""

    suite: str
    spoil: Callable[[Path], list[str] | None]
    says: tuple[str, ...]


def table_of(place: Path) -> Path:
    return next(place / name for name in set(TABLES.values()) if (place / name).exists())


def rows(change: Callable[[list[Row]], list[Row] | None], name: str = "") -> Callable[[Path], None]:
    """Rewrite the table."""

    def spoil(place: Path) -> None:
        path = place / name if name else table_of(place)
        found = forest_wilds.read_table(path)
        changed = change(found)
        forest_wilds.write_table(path, found if changed is None else changed)

    return spoil


def cell(
    column: str, value: str, row: int = 4, where: Callable[[Row], bool] = lambda row: True, name: str = ""
) -> Callable[[Path], None]:
    """Put another value into the n-th row of those that fit."""

    def change(found: list[Row]) -> None:
        [row for row in found if where(row)][4][column] = value

    return rows(change)


def without(column: str, name: str = "") -> Callable[[Path], None]:
    return rows(lambda found: [{k: v for k, v in row.items() if k != column} for row in found], name)


def no_table(place: Path) -> None:
    table_of(place).unlink()


def text(content: bytes, name: str = "") -> Callable[[Path], None]:
    def spoil(place: Path) -> None:
        (place / name if name else table_of(place)).write_bytes(content)

    return spoil


def foreign_byte(place: Path) -> None:
    """Latin-1 in the middle of the table."""
    path = table_of(place)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:5], lines[5].replace(b"1", b"\xe9"), *lines[6:]]))


def header_only(place: Path) -> None:
    path = table_of(place)
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])


def folder_for_table(place: Path) -> None:
    path = table_of(place)
    path.unlink()
    path.mkdir()


def lost(pattern: str) -> Callable[[Path], None]:
    def spoil(place: Path) -> None:
        sorted(place.glob(pattern))[0].unlink()

    return spoil


def lost_of_split(split: str) -> Callable[[Path], None]:
    """An image of a split that is read last."""

    def spoil(place: Path) -> None:
        row = next(row for row in forest_wilds.read_table(table_of(place)) if row["split"] == split)
        (place / "train" / row["filename"]).unlink()

    return spoil


def lost_folder(name: str) -> Callable[[Path], None]:
    return lambda place: shutil.rmtree(place / name)


def one_level_down(place: Path) -> list[str]:
    """The archive was unpacked inside a folder of its own name."""
    inner = place.with_name("moving")
    place.rename(inner)
    place.mkdir()
    inner.rename(place / place.name)
    return ["--root", str(place.parent)]


def named_too_high(place: Path) -> list[str]:
    return ["--root", str(place.parent), "--root", f"wilds-fmow/train={place.parent}"]


def packed(place: Path) -> None:
    """Downloaded, never unpacked."""
    for entry in place.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    (place / "archive.tar.gz").write_bytes(b"")


def no_countries(place: Path) -> None:
    (place / "country_code_mapping.csv").unlink()


def one_country_less(found: list[Row]) -> list[Row]:
    return [row for row in found if row["alpha-3"] != "FRA"] + [{"name": "", "alpha-3": "GBR", "region": "Europe"}]


def one_row_twice(found: list[Row]) -> list[Row]:
    return [*found[:7], found[6], *found[7:]]


def stray_image(place: Path) -> None:
    n = len(forest_wilds.read_table(table_of(place)))
    shutil.copy(place / "images" / "rgb_img_0.png", place / "images" / f"rgb_img_{n}.png")


def is_train(row: Row) -> bool:
    return row["split"] == "train"


TRAPS, MAPS, CELLS = TABLES
COUNTRIES = "country_code_mapping.csv"
CASES = {
    "no-root": Case(TRAPS, lambda place: ["--root", str(place / "train")], ("it lies under", "pass --root")),
    "root-too-low": Case(
        MAPS, lambda place: ["--root", str(place / "images")], ("has no fmow_v1.1", "it lies under", "pass --root")
    ),
    "root-too-high": Case(
        CELLS, lambda place: ["--root", str(place.parents[1])], ("it lies under", "/root: pass --root")
    ),
    "root-that-is-not-there": Case(
        TRAPS, lambda place: ["--root", str(place.parent / "nowhere")], ("no such data folder",)
    ),
    "root-that-is-a-file": Case(MAPS, lambda place: ["--root", str(place / "rgb_metadata.csv")], ("is a file",)),
    "unpacked-twice": Case(MAPS, one_level_down, ("it lies one level down; pass --root",)),
    "named-place-too-high": Case(MAPS, named_too_high, ("it lies one level down; pass --root",)),
    "never-unpacked": Case(TRAPS, packed, ("has no metadata.csv; unpack", "archive.tar.gz")),
    "no-table": Case(CELLS, no_table, ("has no metadata.csv; put the official file there",)),
    "folder-for-a-table": Case(TRAPS, folder_for_table, ("metadata.csv", "Is a directory")),
    "empty-file": Case(TRAPS, text(b""), ("metadata.csv", "cannot be read as a table")),
    "header-only": Case(MAPS, header_only, ("rgb_metadata.csv has a header and no rows",)),
    "not-utf-8": Case(CELLS, foreign_byte, ("metadata.csv cannot be read as a table", "0xe9")),
    "html-page-for-a-table": Case(
        TRAPS, text(b"<!DOCTYPE html>\n<html>\n"), ("has no column", "its columns: <!DOCTYPE html>")
    ),
    "no-split-column": Case(TRAPS, without("split"), ("has no column split", "its columns: location_remapped")),
    "no-camera-column": Case(TRAPS, without("location_remapped"), ("has no column location_remapped",)),
    "no-timestamp-column": Case(MAPS, without("timestamp"), ("has no column timestamp",)),
    "no-patient-column": Case(CELLS, without("patient"), ("has no column patient",)),
    "label-too-large": Case(TRAPS, cell("y", "182"), ("column y, row 5: 182 is outside 0..181",)),
    "label-of-wise-ft-for-none": Case(TRAPS, cell("y", "99999"), ("99999 is outside 0..181",)),
    "negative-label": Case(CELLS, cell("tumor", "-1"), ("column tumor, row 5: -1 is outside 0..1",)),
    "label-that-is-no-number": Case(TRAPS, cell("y", "puma"), ("column y", "puma", "whole numbers belong there")),
    "half-a-label": Case(CELLS, cell("tumor", "0.5"), ("column tumor, row 5: '0.5' is not a whole number",)),
    "endless-label": Case(TRAPS, cell("y", "inf"), ("column y, row 5: 'inf' is not a whole number",)),
    "empty-label": Case(TRAPS, cell("y", ""), ("column y", "whole numbers belong there")),
    "unknown-category": Case(
        MAPS, cell("category", "stadum", where=is_train), ("unknown category 'stadum': did you mean stadium",)
    ),
    "unknown-split": Case(TRAPS, cell("split", "trian"), ("column split, row 5: 'trian' is none of train, val, test",)),
    "split-of-another-set": Case(MAPS, cell("split", "id_val"), ("'id_val' is none of train, val, test, seq",)),
    "unknown-split-number": Case(
        CELLS, cell("split", "2", where=lambda r: r["center"] == "0"), ("column split", "2 is outside 0..1")
    ),
    "sixth-hospital": Case(CELLS, cell("center", "5"), ("column center, row 5: 5 is outside 0..4",)),
    "slide-out-of-range": Case(CELLS, cell("slide", "50"), ("column slide, row 5: 50 is outside 0..49",)),
    "no-row-of-a-split": Case(
        TRAPS, rows(lambda f: [r for r in f if r["split"] != "id_test"]), ("has no row of split 'id_test'",)
    ),
    "sequestered-only": Case(MAPS, rows(lambda f: [{**r, "split": "seq"} for r in f]), ("rows of split 'seq' only",)),
    "lost-image": Case(MAPS, lost("images/rgb_img_2.png"), ("names 1 image (images/rgb_img_2.png) that is not under",)),
    "lost-image-of-the-last-split": Case(
        TRAPS, lost_of_split("val"), ("names 1 image (train/", "unpack the archive again")
    ),
    "lost-images": Case(MAPS, lost_folder("images"), ("images (images/rgb_img_", ", ...) that are not under")),
    "lost-patches-of-a-slide": Case(CELLS, lost_folder("patches/patient_000_node_1"), ("that are not under",)),
    "patients-without-zeros": Case(
        CELLS, rows(lambda f: [{**r, "patient": str(int(r["patient"]))} for r in f]), ("that are not under",)
    ),
    "impossible-month": Case(
        MAPS,
        cell("timestamp", "2009-13-01T05:06:07Z", where=is_train),
        ("column timestamp, row", "2009-13-01T05:06:07Z' is unlike"),
    ),
    "timestamp-without-zone": Case(
        MAPS, cell("timestamp", "2009-03-01 05:06:07", where=is_train), ("is unlike 2015-03-04T05:06:07Z",)
    ),
    "year-of-another-version": Case(
        MAPS, cell("timestamp", "2018-03-01T05:06:07Z", where=is_train), ("is outside 2002 to 2017",)
    ),
    "impossible-day": Case(
        TRAPS, cell("datetime", "2013-02-30 01:02:03.000"), ("column datetime, row 5", "is no time (day")
    ),
    "unreadable-time": Case(TRAPS, cell("datetime", "noon"), ("row 5: 'noon' is no time",)),
    "no-country-table": Case(MAPS, no_countries, (COUNTRIES, "No such file")),
    "country-table-without-codes": Case(MAPS, without("alpha-3", COUNTRIES), (COUNTRIES, "has no column alpha-3")),
    "country-table-without-a-country": Case(
        MAPS, rows(one_country_less, COUNTRIES), (COUNTRIES, "has no region for", "FRA")
    ),
    "country-table-without-a-region": Case(
        MAPS, rows(lambda f: [r for r in f if r["region"] != "Oceania"], COUNTRIES), ("has no country in Oceania",)
    ),
    "row-twice": Case(TRAPS, rows(one_row_twice), ("twice; get the official file again",)),
    "patch-twice": Case(CELLS, rows(lambda f: [*f, {**f[0], "": "999"}]), ("names 'patch_patient_", "twice")),
    "row-twice-moves-all-labels": Case(
        MAPS, rows(one_row_twice), ("rgb_metadata.csv, line 9 repeats an earlier line",)
    ),
    "table-cut-short": Case(MAPS, stray_image, ("ends at row", "exists; get the whole official file again")),
}
