"""PACS, leave one domain out: Photo, Art painting, Cartoon, Sketch; 7 classes (Li et al., ICCV 2017; DomainBed)."""

from ._domainbed import DomainBed, card, places

DOMAINS = {name: name for name in ("art_painting", "cartoon", "photo", "sketch")}


class Pacs(DomainBed):
    """The number that papers print is the mean of the four runs that hold out one domain each, with three trial seeds.
    Splits and ID column: `_domainbed.py`. Prompt: CLIPood's 'a photo of a {}.'."""

    folders_of = DOMAINS
    names = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
    found = {"art_painting": 2_048, "cartoon": 2_344, "photo": 1_670, "sketch": 3_929}  # noqa: RUF012
    places = places(DOMAINS, "PACS", "pacs", "PACS/kfold", "pacs/kfold", "pacs/images", "kfold", "DomainBed/PACS")
    card = card(
        "PACS", "Li et al., Deeper, Broader and Artier Domain Generalization, ICCV 2017 (arXiv:1710.03077)",
        "sketchx.eecs.qmul.ac.uk", "about 0.2 GB", "PACS/<domain>/<class>/*.jpg (the zip unpacks to kfold/)", DOMAINS,
    )  # fmt: skip
