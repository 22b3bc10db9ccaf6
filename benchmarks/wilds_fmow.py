"""WILDS FMoW: learn on satellite images before 2013; be tested on later years (Christie et al., CVPR 2018; WILDS)."""

import json
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from robustbench_ft.data import Ints
from robustbench_ft.errors import MissingDataError, RbftError, unknown
from robustbench_ft.images import folders
from robustbench_ft.recipe import EACH_EPOCH, R_FLYP
from robustbench_ft.suite import Card, Source, WildsClass

from ._wilds import NONE, Rows, Texts, Wilds, choice

FOLDER, COUNTRIES = "fmow_v1.1", "country_code_mapping.csv"
SPLITS = ("train", "id_val", "id_test", "val", "test")
SEQUESTERED = "seq"  # rows whose images are in no split; they count when files are numbered
REGIONS = ("Asia", "Europe", "Africa", "Americas", "Oceania")  # group `region` 0..4; 'Other' is -1: in no worst group
OTHER_SHARE = 0.01  # in the official table 251 of 470,086 images lie in 'Other'
FIRST, OOD_VAL, OOD_TEST, LAST = 2002, 2013, 2016, 2017  # years
TRAIN, BATCH = 76_863, 256
TAKEN = re.compile(r"(\d{4})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T\d\d:\d\d:\d\d(\.\d+)?Z")  # both spellings
PLACES = ("asia", "africa", "the americas", "europe", "oceania")


class WildsFMoW(Wilds):
    """62 categories. `rgb_metadata.csv` is read directly and held against the wilds package in tests. Official metric:
    accuracy in the worst region (ID: accuracy), where region 'Other' and regions without images do not count; the worst
    year is stored beside it. Groups: `region` 0..4 is Asia, Europe, Africa, Americas, Oceania, `year` 0 is 2002; they
    define the test sets, as strata, and are no sample of anything. Unlike
    WILDS, which selects on OOD validation, and like FLYP and WiSE-FT, checkpoints are selected on ID validation, by
    accuracy, which is its official metric. Recipe: FLYP's for WILDS, its checkpoint chosen once an epoch."""

    version = 2  # 2: intervals over images; region and year together leave a region with two clusters, and no claim
    recipe = replace(R_FLYP, weight_decay=0.2, epochs=20, batch=BATCH, select="best", validate_every=EACH_EPOCH)
    published_selector = "id_val"
    table = "rgb_metadata.csv"
    metrics = dict.fromkeys(("test", "val"), "worst_group:region")
    group_names = {"region": REGIONS, "year": tuple(map(str, range(FIRST, LAST + 1)))}  # noqa: RUF012
    wilds = WildsClass(
        "fmow_dataset",
        "FMoWDataset",
        {"accuracy": "acc_avg", "worst_group:region": "acc_worst_region", "worst_group:year": "acc_worst_year"},
    )
    places = dict.fromkeys(SPLITS, (FOLDER, f"wilds/{FOLDER}", f"data/{FOLDER}"))
    card = Card(
        title="WILDS FMoW",
        paper="Christie et al., CVPR 2018 (arXiv:1711.07846); Koh et al., WILDS, ICML 2021 (arXiv:2012.07421)",
        licence="Functional Map of the World Challenge Public License",
        home="wilds.stanford.edu",
        counts={"train": TRAIN, "id_val": 11_483, "id_test": 11_327, "val": 19_915, "test": 22_108},
        note="test is 2016-17, val 2013-15 (OOD), id_* before 2013; the official metric is worst-region accuracy; "
        "intervals take images of one place as independent, because the table does not name places",
        sources=(
            Source(
                SPLITS, "FMoW-WILDS 1.1",
                "CodaLab bundle 0xaec91eb7c9d548ebb15e1b5e60f966ab (worksheets.codalab.org)",
                "53,893,324,800 bytes", "FMoW Challenge Public License",
                unpack=f"{FOLDER}/rgb_metadata.csv, {FOLDER}/{COUNTRIES}, {FOLDER}/images/rgb_img_<row>.png",
            ),
        ),
    )  # fmt: skip

    @property
    def classes(self) -> tuple[str, ...]:
        return _categories()

    @property
    def templates(self) -> tuple[str, ...]:
        """WiSE-FT's 16. Underscores of the names stay, but where the article is put right."""
        kinds = (("a", ""), ("a(n)", ""), *(("a", f" in {place}") for place in PLACES))
        looks = [f"{view} photo of {a} {{}}{where}." for a, where in kinds for view in ("satellite", "aerial")]
        return (*looks, "a photo of a {}.", "{}.")

    def read(self, place: Path) -> Rows:
        table = place / self.table
        columns = folders.read_table(table, ("split", "category", "timestamp", "country_code"))
        choice(table, columns, "split", ("train", "val", "test", SEQUESTERED))
        _check_rows(table, len(columns["split"]))
        rows = np.flatnonzero(columns["split"] != SEQUESTERED)  # of the whole table: files are named by these
        if not len(rows):
            raise RbftError(f"{table} has rows of split '{SEQUESTERED}' only; get the official file again")
        chosen = {name: values[rows] for name, values in columns.items()}
        years = _years(table, rows, chosen["timestamp"])
        region = self._regions(place / COUNTRIES, chosen["country_code"])
        names = np.array([f"rgb_img_{row}" for row in rows])
        return Rows(
            _splits(chosen["split"], years),
            np.array([f"images/{name}.png" for name in names.tolist()]),
            names,
            _labels(table, rows, chosen["category"]),
            {
                "region": region,
                "year": years - FIRST,
            },
        )

    def _regions(self, table: Path, codes: Texts) -> Ints:
        """Of each image; as in WILDS, a country that the table does not know is in 'Other'."""
        columns = folders.read_table(table, ("alpha-3", "region"))
        lacking = sorted(set(REGIONS) - set(columns["region"].tolist()))
        if lacking:
            raise RbftError(f"{table} has no country in {', '.join(lacking)}; get the official file again")
        places = {name: k for k, name in enumerate(REGIONS)}
        region = {
            code: places.get(name, -1)
            for code, name in zip(columns["alpha-3"].tolist(), columns["region"].tolist(), strict=True)
        }
        found = np.array([region.get(code, -1) for code in codes.tolist()], np.int64)
        if (found < 0).mean() > OTHER_SHARE and not self.partial:
            strange = sorted(set(codes[found < 0].tolist()))
            raise RbftError(
                f"{table} has no region for {(found < 0).sum():,} of {len(found):,} images (countries "
                f"{', '.join(strange[:3])}{', ...' if len(strange) > 3 else ''}); get the official file again"
            )
        return found


@lru_cache
def _categories() -> tuple[str, ...]:
    """In label order, as in the wilds package."""
    return tuple(json.loads(Path(__file__).with_name("fmow_categories.json").read_text(encoding="utf-8")))


def _check_rows(table: Path, n: int) -> None:
    """Files are named by row: a row too many or too few would give every later image another's label."""
    seen = set[int]()
    with table.open("rb") as file:
        for number, line in enumerate(file, start=1):
            key = hash(line)
            if key in seen and line.strip():
                raise RbftError(f"{table}, line {number} repeats an earlier line; get the official file again")
            seen.add(key)
    beyond = table.with_name("images") / f"rgb_img_{n}.png"
    if beyond.exists():
        raise MissingDataError(f"{table} ends at row {n - 1:,}, but {beyond} exists; get the whole official file again")


def _years(table: Path, rows: Ints, stamps: Texts) -> Ints:
    """Years of timestamps, '2015-03-04T05:06:07Z' or with a fraction of a second; UTC."""
    found = [TAKEN.fullmatch(text) for text in stamps.tolist()]
    for row, text, match in zip(rows, stamps, found, strict=True):
        if match is None:
            raise RbftError(
                f"{table}, column timestamp, row {row + 1}: '{text}' is unlike 2015-03-04T05:06:07Z; get the official "
                "file again"
            )
        if not FIRST <= int(match[1]) <= LAST:
            raise RbftError(
                f"{table}, column timestamp, row {row + 1}: '{text}' is outside {FIRST} to {LAST}; is it another "
                "version's table?"
            )
    return np.array([int(match[1]) for match in found if match], np.int64)


def _splits(official: Texts, years: Ints) -> Texts:
    """Before 2013 the official splits; later val rows of 2013-15 and test rows of 2016-17; the rest is in none."""
    found = np.full(len(years), NONE, "U7")
    for name in ("train", "val", "test"):
        found[(official == name) & (years < OOD_VAL)] = name if name == "train" else f"id_{name}"
    found[(official == "val") & (years >= OOD_VAL) & (years < OOD_TEST)] = "val"
    found[(official == "test") & (years >= OOD_TEST)] = "test"
    return found


def _labels(table: Path, rows: Ints, names: Texts) -> Ints:
    label = {name: k for k, name in enumerate(_categories())}
    odd = next((k for k, name in enumerate(names.tolist()) if name not in label), None)
    if odd is not None:
        what = unknown("category", str(names[odd]), label)
        raise RbftError(f"{table}, row {rows[odd] + 1}: {what}; get the official file again")
    return np.array([label[name] for name in names.tolist()], np.int64)
