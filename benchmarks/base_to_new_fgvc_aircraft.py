"""FGVCAircraft, from base to new classes (official split; CoCoOp's protocol in one label space)."""

from pathlib import Path

from robustbench_ft.errors import RbftError
from robustbench_ft.images import folders

from ._base_to_new import PARTS, SPLITS, BaseToNew, Table, card, in_order, made


class BaseToNewFGVCAircraft(BaseToNew):
    """The data set's own lists, for which CoOp has no file: labels are places in variants.txt. 100 variants."""

    template = "a photo of a {}, a type of aircraft."
    folder, images, split_file = "fgvc_aircraft", "images", "images_variant_train.txt"
    totals, n_known = (3_334, 3_333, 3_333), 100
    sorted_folders = False
    places = dict.fromkeys(SPLITS, (folder, "fgvc-aircraft-2013b/data"))
    card = card(
        "FGVCAircraft", "Maji et al., 2013", folder, images, "variants.txt, images_variant_{train,val,test}.txt",
        "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
        "non-commercial research",
    )  # fmt: skip

    def read(self, place: Path) -> Table:
        """Lines of `<image> <variant>`; a variant's name may hold spaces."""
        variants = place / "variants.txt"
        names = [line.strip() for line in folders.read_text(variants).splitlines() if line.strip()]
        label = {name: k for k, name in enumerate(names)}
        parts = {}
        for part in PARTS:
            file = place / f"images_variant_{part}.txt"
            rows: list[tuple[str, int]] = []
            for number, line in enumerate(folders.read_text(file).splitlines(), start=1):
                image, _, name = line.strip().partition(" ")
                if image and name not in label:
                    raise RbftError(
                        f"{file}, line {number}: '{name}' is not in {variants}; get the official files again"
                    )
                if image:
                    rows.append((f"{image}.jpg", label[name]))
            parts[part] = made(file, part, rows)
        return Table(in_order(variants, dict(enumerate(names))), parts)
