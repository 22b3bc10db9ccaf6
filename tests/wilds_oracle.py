"""The `wilds` package as the tests' oracle, kept from doing what it must not do to a user (or to other tests)."""

import importlib
import sys
import types
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from robustbench_ft import suite_ref
from robustbench_ft.data import Split
from robustbench_ft.suite import Suite

CLASSES = {
    "wilds-iwildcam": ("iwildcam_dataset", "IWildCamDataset"),
    "wilds-fmow": ("fmow_dataset", "FMoWDataset"),
    "wilds-camelyon17": ("camelyon17_dataset", "Camelyon17Dataset"),
}

SPLITS = {
    "wilds-iwildcam": ("train", "val", "test", "id_val", "id_test"),
    "wilds-fmow": ("train", "val", "test", "id_val", "id_test"),
    "wilds-camelyon17": ("train", "val", "test", "id_val"),
}


@contextmanager
def package() -> Generator[None, None, None]:
    """It can be imported: no thread that asks a registry, Pillow's bomb guard as it was, FMoW's timestamps readable."""
    pd: Any = importlib.import_module("pandas")
    scatter: Any = types.ModuleType("torch_scatter")
    scatter.scatter = scatter_mean
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setitem(sys.modules, "outdated", None)
        patch.setitem(sys.modules, "torch_scatter", scatter)
        patch.setenv("OUTDATED_IGNORE", "1")
        patch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
        patch.setattr(pd, "to_datetime", partial(pd.to_datetime, format="ISO8601"))
        yield


def scatter_mean(src: torch.Tensor, index: torch.Tensor, dim_size: int, reduce: str) -> torch.Tensor:
    """Stands in for torch_scatter, which users would have to compile; a group without examples gets 0."""
    assert reduce == "mean"
    n = torch.bincount(index, minlength=dim_size).clamp(min=1)
    return torch.zeros(dim_size, dtype=src.dtype).index_add(0, index, src) / n


class Oracle:
    """One dataset object of the package; call it inside `package()`."""

    def __init__(self, suite: str, root: Path) -> None:
        module, name = CLASSES[suite]
        self.data: Any = getattr(importlib.import_module(f"wilds.datasets.{module}"), name)(root_dir=str(root))
        self.root = root / Path(self.data.data_dir).name

    def rows(self, split: str) -> NDArray[np.int64]:
        return np.asarray(self.data.get_subset(split).indices)

    def labels(self, split: str) -> list[int]:
        return self.data.y_array[self.rows(split)].tolist()

    def column(self, split: str, name: str) -> NDArray[np.int64]:
        place = self.data.metadata_fields.index(name)
        return self.data.metadata_array[self.rows(split)][:, place].numpy()

    def images(self, split: str) -> list[tuple[str, Image.Image]]:
        """Path below the folder of the data, and what the package decodes from it."""
        opened: list[str] = []
        real, found = Image.open, list[tuple[str, Image.Image]]()

        def spy(path: Any, *more: Any) -> Image.Image:
            opened.append(Path(path).relative_to(self.root).as_posix())
            return real(path, *more)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Image, "open", spy)
            for row in self.rows(split):
                with self.data.get_input(row) as image:
                    image.load()
                    found.append((opened[-1], image.convert("RGB")))
        return found

    def eval(self, split: str, prediction: NDArray[np.int64]) -> dict[str, float]:
        rows = self.rows(split)
        truth, metadata = self.data.y_array[rows], self.data.metadata_array[rows]
        return self.data.eval(torch.from_numpy(prediction), truth, metadata)[0]


def region_codes(data: Any, names: tuple[str, ...]) -> NDArray[np.int64]:
    """The package numbers regions in the order of its table: its code -> ours."""
    return np.array([names.index(name) if name in names else -1 for name in data.metadata_map["region"]])


def paths(split: Split) -> list[str]:
    assert split.place is not None
    return [Path(split.images.name(k)).relative_to(split.place).as_posix() for k in range(len(split))]


def load(name: str, root: Path | None = None, partial: bool = True) -> Suite:
    return suite_ref.load(name, root, partial)


def agree(suite: Suite, split: str, ours: dict[str, float], theirs: dict[str, float]) -> None:
    """All that the package prints of a split, and that the official metric is one of these numbers."""
    same = {
        "wilds-iwildcam": {"accuracy": "acc_avg", "macro_f1": "F1-macro_all", "macro_recall": "recall-macro_all"},
        "wilds-fmow": {
            "accuracy": "acc_avg", "worst_group:region": "acc_worst_region", "worst_group:year": "acc_worst_year",
        },
        "wilds-camelyon17": {"accuracy": "acc_avg", "worst_group:slide": "acc_wg"},
    }[suite.name]  # fmt: skip
    for name, other in same.items():
        assert ours[name] == pytest.approx(theirs[other], rel=1e-6), (name, ours[name], theirs[other])
    assert suite.metric_of(split) in same
    official = {"wilds-iwildcam": "macro_f1", "wilds-camelyon17": "accuracy"}.get(
        suite.name, "worst_group:region" if split in ("val", "test") else "accuracy"
    )
    assert suite.metric_of(split) == official or split == "train"
