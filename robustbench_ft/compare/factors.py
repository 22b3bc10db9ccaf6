"""Error ratios by factor, from stored predictions: how much oftener a method errs on images that have some property.

ImageNet-X's number (Idrissi et al., ICLR 2023; facebookresearch/imagenetx@6403d41, imagenet_x/aggregate.py,
`error_ratio`): error on the annotated images that have a factor, divided by error on all annotated images.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustbench_ft.data import Ints
from robustbench_ft.errors import RbftError
from robustbench_ft.images import folders
from robustbench_ft.record.store import Record

from .report import Table
from .text import MISSING, Text, number

IMAGE, CLASS = "file_name", "class"  # columns of ImageNet-X's files
AGAIN = "get the official file again"


@dataclass(frozen=True)
class Factors:
    """Which of some images have which properties."""

    source: Path
    names: tuple[str, ...]
    images: Mapping[str, int]  # name of a file without its folder and suffix -> row
    marks: NDArray[np.bool_]  # [n, factors]
    classes: Ints | None  # [n] labels, where the file has them


def read(path: Path, without: Path | None = None) -> Factors:
    """JSON lines of images: a `file_name`, columns that are 0 or 1 everywhere, and perhaps the label as `class`.

    Images that the CSV file `without` lists under `file_name` are left out, as ImageNet-X does with its prototypes.
    Raises `RbftError`.
    """
    left_out = set(map(_stem, folders.read_table(without, (IMAGE,))[IMAGE].tolist())) if without else set[str]()
    rows = [row for row in _rows(path) if _stem(row[IMAGE]) not in left_out]
    if not rows:
        raise RbftError(f"{path} describes no image{' that is not left out' if without else ''}; {AGAIN}")
    names = tuple(key for key in rows[0] if key != CLASS and all(row.get(key) in (0, 1) for row in rows))
    if not names:
        raise RbftError(f"{path} has no column that is 0 or 1 for every image; {AGAIN}")
    images = {_stem(row[IMAGE]): k for k, row in enumerate(rows)}
    if len(images) != len(rows):
        raise RbftError(f"{path} describes {len(rows) - len(images):,} images twice; {AGAIN}")
    labelled = all(isinstance(row.get(CLASS), int) for row in rows)
    return Factors(
        path, names, images, np.array([[bool(row[name]) for name in names] for row in rows]),
        np.array([row[CLASS] for row in rows], np.int64) if labelled else None,
    )  # fmt: skip


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for k, line in enumerate(folders.read_text(path, AGAIN).splitlines(), start=1):
        try:
            row: Any = json.loads(line)
        except ValueError as error:
            raise RbftError(f"{path}, line {k} is no JSON: {error}; {AGAIN}") from error
        if not isinstance(row, dict) or not isinstance(row.get(IMAGE), str):
            raise RbftError(f"{path}, line {k} names no image under '{IMAGE}'; {AGAIN}")
        rows.append(row)
    return rows


def _stem(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[0]


def ratios(record: Record, candidate: str, split: str, factors: Factors) -> dict[str, float]:
    """Factor -> error ratio of one run; NaN where no predicted image has it, or where no image is answered wrongly.

    Raises `RbftError` where the file is about other images, or gives them other labels.
    """
    found = record.columns(candidate, split, ("id", "label", "correct"))
    own = [factors.images.get(_stem(name), -1) for name in found["id"].to_pylist()]
    known = np.flatnonzero(np.array(own) >= 0)
    if not len(known):
        raise RbftError(f"{factors.source} describes no image of split '{split}' in {record.folder}; name another file")
    rows = np.array(own)[known]
    if factors.classes is not None and (differ := factors.classes[rows] != found["label"].to_numpy()[known]).any():
        raise RbftError(
            f"{factors.source} gives {int(differ.sum()):,} of {len(rows):,} images of split '{split}' another label "
            f"than {record.folder}: one of them counts classes in another order"
        )
    wrong = ~found["correct"].to_numpy(zero_copy_only=False)[known].astype(np.bool_)
    marks = factors.marks[rows]
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = (marks & wrong[:, None]).sum(axis=0) / marks.sum(axis=0)
        return dict(zip(factors.names, (errors / wrong.mean()).tolist(), strict=True))


def text(table: Table, factors: Factors) -> Text:
    """A line for each factor, a column for each row of a report; by the first row, the worst factor first."""
    split = table.run_set.test
    rows = [line.row for line in table.lines]
    found = [[ratios(record, candidate, split, factors) for record, candidate in row.runs] for row in rows]
    first = {name: float(np.mean([one[name] for one in found[0]])) for name in factors.names}
    order = sorted(factors.names, key=lambda name: (np.isnan(first[name]), -first[name]))
    n = dict(zip(factors.names, factors.marks.sum(axis=0).tolist(), strict=True))
    body = tuple((name, f"{n[name]:,}", *(_cell([one[name] for one in some]) for some in found)) for name in order)
    return Text(
        f"{table.title}: error ratio on {split} by factor", ("factor", "images", *(row.name for row in rows)), body,
        f"Error on the images with a factor, divided by error on all {len(factors.images):,} images that "
        f"{factors.source.name} describes; 1 is no effect. Means over seeds, no intervals.",
    )  # fmt: skip


def _cell(values: list[float]) -> str:
    if np.isnan(values).all():
        return MISSING
    sd = f" (sd {np.nanstd(values, ddof=1):.2f})" if len(values) > 1 else ""
    return number(float(np.nanmean(values)), text=f"{np.nanmean(values):.2f}{sd}")
