"""VLCS, leave one data set out: Caltech101, LabelMe, SUN09, VOC2007; 5 classes (Fang et al., ICCV 2013; DomainBed)."""

from ._domainbed import DomainBed, card, places

DOMAINS = {"caltech101": "Caltech101", "labelme": "LabelMe", "sun09": "SUN09", "voc2007": "VOC2007"}


class Vlcs(DomainBed):
    """The number that papers print is the mean of the four runs that hold out one domain each, with three trial seeds.
    Counts: lines of DomainBed's misc/vlcs_files.txt. Splits and ID column: `_domainbed.py`. Prompt: CLIPood's
    'a photo of a {}.'."""

    folders_of = DOMAINS
    names = ("bird", "car", "chair", "dog", "person")
    found = {"caltech101": 1_415, "labelme": 2_656, "sun09": 3_282, "voc2007": 3_376}  # noqa: RUF012
    places = places(DOMAINS, "VLCS", "vlcs", "DomainBed/VLCS")
    card = card(
        "VLCS", "Fang et al., Unbiased Metric Learning, ICCV 2013; DomainBed's files (arXiv:2007.01434)",
        "github facebookresearch/DomainBed", "about 3.6 GB", "VLCS/<domain>/<class>/*.jpg", DOMAINS,
    )  # fmt: skip
