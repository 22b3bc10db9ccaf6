"""Waterbirds: land or water bird, on a background that agrees in 95 % of the training images (ICLR 2020)."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from robustbench_ft.data import Ints, Split
from robustbench_ft.errors import RbftError
from robustbench_ft.images import folders
from robustbench_ft.recipe import EACH_EPOCH, R_FLYP
from robustbench_ft.suite import Card, Source

from ._wilds import Rows, Texts, Wilds, check_unique, numbers

FOLDER = "waterbirds_v1.0"
OLD = "waterbird_complete95_forest2water2"  # of the tar that group_DRO links
OFFICIAL = ("train", "val", "test")  # codes of the column `split`
HELD_OUT = 0.1  # of each training group
GROUPS = ("landbird on land", "landbird on water", "waterbird on land", "waterbird on water")  # 2 y + place
SIZES = {"train": (3_498, 184, 56, 1_057), "test": (2_255, 2_255, 642, 642)}  # official, by group


class Waterbirds(Wilds):
    """Official metric of `test` and `val`: accuracy in the worst of the four groups (bird, background). Training images
    are ID: a tenth of each group is held out, selects by accuracy, and is the ID column, because the official data have
    no other images with the training set's proportions. The balanced `test` is the shift; the balanced, group-labelled
    `val`, on which papers select by worst-group accuracy, is stored and selects nothing. Papers also learn from all of
    train, and print the adjusted average: `adjusted_average`. Prompt and recipe are ours: no paper states them for this
    protocol."""

    recipe = replace(R_FLYP, epochs=10, batch=128, select="best", validate_every=EACH_EPOCH)
    test = "id_val"
    metrics = dict.fromkeys(("test", "val"), "worst_group:group")
    group_names = {"group": GROUPS, "background": ("land", "water")}  # noqa: RUF012
    places = dict.fromkeys(
        ("train", "id_val", "val", "test"),
        (FOLDER, f"wilds/{FOLDER}", f"data/{FOLDER}", OLD, f"cub/data/{OLD}", f"data/{OLD}", "waterbirds"),
    )
    card = Card(
        title="Waterbirds",
        paper="Sagawa et al., Distributionally Robust Neural Networks, ICLR 2020 (arXiv:1911.08731); images of CUB and "
        "Places",
        licence="non-commercial research and education",
        home="nlp.stanford.edu/data/dro",
        counts={"train": 4_315, "id_val": 480, "val": 1_199, "test": 5_794},
        note="ID is a tenth of each training group, held out: it selects and is reported, a validation number; papers "
        "learn from all of train and select on the balanced val; three species are mislabelled (group_DRO's README)",
        sources=(
            Source(
                ("train", "id_val", "val", "test"), "Waterbirds 1.0",
                "CodaLab bundle 0x505056d5cdea4e4eaa0e242cbfe2daa4 or the tar that github kohpangwei/group_DRO links",
                "about 0.5 GB", "non-commercial research and education",
                unpack=f"{FOLDER}/metadata.csv, {FOLDER}/<species>/*.jpg",
            ),
        ),
    )  # fmt: skip

    @property
    def classes(self) -> tuple[str, ...]:
        return ("landbird", "waterbird")

    @property
    def templates(self) -> tuple[str, ...]:
        return ("a photo of a {}.",)

    def read(self, place: Path) -> Rows:
        table = place / self.table
        columns = folders.read_table(table, ("img_filename", "y", "place", "split"))
        files = columns["img_filename"]
        check_unique(table, files)
        label, background = (numbers(table, columns, name, 1) for name in ("y", "place"))
        split = np.array(OFFICIAL, "U6")[numbers(table, columns, "split", len(OFFICIAL) - 1)]
        _check_species(table, files, label)
        group = 2 * label + background
        ids = [name.rpartition(".")[0] for name in files.tolist()]
        train = np.flatnonzero(split == "train")
        held = folders.held_out([ids[k] for k in train.tolist()], group[train], HELD_OUT)
        split[train[held]] = "id_val"
        return Rows(split, files, np.array(ids), label, {"group": group, "background": background})

    def count_problems(self, split: Split) -> list[str]:
        """Groups too: y and place exchanged leave every total as it is."""
        found = super().count_problems(split)
        sizes = tuple(np.bincount(split.groups["group"], minlength=len(GROUPS)).tolist())
        if split.name == "test" and sizes != SIZES["test"] and not found:
            found.append(f"split 'test' has {sizes} images of {', '.join(GROUPS)}, not {SIZES['test']}")
        return found


def adjusted_average(correct: Ints, group: Ints) -> float:
    """Accuracy on the training distribution: groups weigh as in the official train split (wilds' `adj_acc_avg`)."""
    rates = [correct[group == k].mean() for k in range(len(GROUPS))]
    return float(np.average(rates, weights=SIZES["train"]))


def _check_species(table: Path, files: Texts, label: Ints) -> None:
    """A species is a land bird or a water bird: a label that differs within its folder is another row's."""
    species = np.array([name.rpartition("/")[0] for name in files.tolist()])
    names, codes = np.unique(species, return_inverse=True)
    share = np.bincount(codes, weights=label) / np.bincount(codes)
    odd = np.flatnonzero((share > 0) & (share < 1))
    if len(odd):
        raise RbftError(f"{table} gives images of '{names[odd[0]]}' both labels; get the official file again")
