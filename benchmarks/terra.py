"""TerraIncognita, leave one camera trap out: four locations; 10 classes (Beery et al., ECCV 2018; DomainBed)."""

from dataclasses import replace

from robustbench_ft.data import Split

from ._domainbed import DomainBed, card, places

DOMAINS = {name: name for name in ("location_100", "location_38", "location_43", "location_46")}
COPIES = {24_788: "the earlier copy", 24_330: "the copy of today's script"}  # images of all four locations


class Terra(DomainBed):
    """The number that papers print is the mean of the four runs that hold out one location each, with three trial
    seeds. Two copies exist, with 24,788 and 24,330 images, told apart by their count (khanrc/miro#9); an image with two
    annotations is copied into two classes by DomainBed's script. Splits and ID column: `_domainbed.py`. Prompt:
    CLIPood's 'a photo of a {}.', 'a photo of a empty.' included."""

    folders_of = DOMAINS
    names = ("bird", "bobcat", "cat", "coyote", "dog", "empty", "opossum", "rabbit", "raccoon", "squirrel")
    places = places(DOMAINS, "terra_incognita", "TerraIncognita", "terra", "DomainBed/terra_incognita")
    card = card(
        "TerraIncognita", "Beery et al., Recognition in Terra Incognita, ECCV 2018 (arXiv:1807.04975)",
        "lila.science", "about 6 GB", "terra_incognita/location_<n>/<class>/*.jpg", DOMAINS,
        note="two copies exist, with 24,788 and 24,330 images in all: numbers on them are not the same measurement",
    )  # fmt: skip

    def load(self, name: str) -> Split:
        split = super().load(name)
        known = COPIES.get(self._total(), "an unknown copy")
        return replace(split, layout=f"{split.layout}, {known}")

    def count_problems(self, split: Split) -> list[str]:
        """Of all four locations together: no source tells how many each has in both copies."""
        found = super().count_problems(split)
        total = self._total()
        if total not in COPIES:
            known = " and ".join(f"{n:,}" for n in COPIES)
            found.append(
                f"split '{split.name}' is of {total:,} images of four locations, the known copies have {known}"
            )
        return found

    def _total(self) -> int:
        return sum(len(self._domain(name).paths) for name in self.folders_of)
