"""WILDS Camelyon17: learn on tissue from three hospitals; be tested on another (Bandi et al., 2018; WILDS)."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from robustbench_ft.images import folders
from robustbench_ft.recipe import EACH_EPOCH, R_FLYP
from robustbench_ft.suite import Card, Source, WildsClass

from ._wilds import Rows, Wilds, check_unique, numbers

FOLDER = "camelyon17_v1.0"
SPLITS = ("train", "id_val", "val", "test")
OFFICIAL = ("train", "id_val")  # column `split` 0 and 1, which says nothing about the two OOD hospitals
VAL_HOSPITAL, TEST_HOSPITAL = 1, 2  # counted from 0; WILDS' paper counts from 1
HOSPITALS, SLIDES = 5, 50
TRAIN, BATCH = 302_436, 256


class WildsCamelyon17(Wilds):
    """Is there tumour in the centre of the patch? `metadata.csv` is read directly and held against the wilds package in
    tests. Official metric: accuracy. WILDS has no ID test split here, and every official split stays whole, so `id_val`
    both selects and reports: its number is that of a validation set. OOD numbers come from splits that select nothing.
    WILDS itself selects on OOD validation. Prompts are CLIP's for PatchCamelyon, the same question on the same kind of
    patches. No paper gives a CLIP recipe: FLYP's for WILDS is used, for WILDS' 5 epochs."""

    recipe = replace(R_FLYP, weight_decay=0.2, epochs=5, batch=BATCH, select="best", validate_every=EACH_EPOCH)
    test = "id_val"
    clusters = dict.fromkeys(SPLITS[1:], "slide")  # patches of one slide share stain and scanner
    wilds = WildsClass(
        "camelyon17_dataset", "Camelyon17Dataset", {"accuracy": "acc_avg", "worst_group:slide": "acc_wg"}
    )
    places = dict.fromkeys(SPLITS, (FOLDER, f"wilds/{FOLDER}", f"data/{FOLDER}"))
    card = Card(
        title="WILDS Camelyon17",
        paper="Bandi et al., IEEE TMI 2018; Koh et al., WILDS, ICML 2021 (arXiv:2012.07421)",
        licence="CC0",
        home="wilds.stanford.edu",
        counts={"train": TRAIN, "id_val": 33_560, "val": 34_904, "test": 85_054},
        note="test and val are new hospitals (OOD); there is no ID test split: id_val selects and is reported, so the "
        "ID column is a validation number",
        sources=(
            Source(
                SPLITS, "Camelyon17-WILDS 1.0",
                "CodaLab bundle 0xe45e15f39fb54e9d9e919556af67aabe (worksheets.codalab.org)",
                "10,658,709,504 bytes", "CC0",
                unpack=f"{FOLDER}/metadata.csv, {FOLDER}/patches/patient_<patient>_node_<node>/*.png",
            ),
        ),
    )  # fmt: skip

    @property
    def classes(self) -> tuple[str, ...]:
        return ("lymph node", "lymph node containing metastatic tumor tissue")

    @property
    def templates(self) -> tuple[str, ...]:
        return ("this is a photo of {}",)

    def read(self, place: Path) -> Rows:
        table = place / self.table
        columns = folders.read_table(
            table, ("patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split")
        )
        hospital = numbers(table, columns, "center", HOSPITALS - 1)
        slide = numbers(table, columns, "slide", SLIDES - 1)
        # a patient is a name, '004': its zeros are part of the path
        slides = [
            f"patient_{patient}_node_{node}"
            for patient, node in zip(columns["patient"].tolist(), numbers(table, columns, "node").tolist(), strict=True)
        ]
        x, y = (numbers(table, columns, name).tolist() for name in ("x_coord", "y_coord"))
        ids = np.array([f"patch_{name}_x_{a}_y_{b}" for name, a, b in zip(slides, x, y, strict=True)])
        check_unique(table, ids)
        # the two OOD hospitals are whole splits, whatever the column says of them
        ood = (hospital == VAL_HOSPITAL) | (hospital == TEST_HOSPITAL)
        official = numbers(table, {"split": np.where(ood, "0", columns["split"])}, "split", len(OFFICIAL) - 1)
        split = np.array(OFFICIAL, "U6")[official]
        split[hospital == VAL_HOSPITAL], split[hospital == TEST_HOSPITAL] = "val", "test"
        files = np.array([f"patches/{name}/{id_}.png" for name, id_ in zip(slides, ids.tolist(), strict=True)])
        labels = numbers(table, columns, "tumor", len(self.classes) - 1)
        return Rows(split, files, ids, labels, {"hospital": hospital, "slide": slide})
