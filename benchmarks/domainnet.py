"""DomainNet: learn on Real; be tested on Painting, Clipart, Infograph and Sketch (card only, not readable yet)."""

from typing import ClassVar

from robustbench_ft.recipe import R_LIP
from robustbench_ft.suite import Card, CardOnly


class DomainNet(CardOnly):
    """As in Lipsum-FT, Quickdraw is left out."""

    recipe = R_LIP
    shifts = ("painting", "clipart", "infograph", "sketch")
    published_selector = "test"
    card: ClassVar[Card] = Card(
        title="DomainNet",
        paper="Peng et al., Moment Matching for Multi-Source Domain Adaptation, ICCV 2019 (arXiv:1812.01754)",
        licence="fair use, non-commercial research and education",
        home="ai.bu.edu/M3SDA",
        counts={},  # two generations of split files exist and differ
        layout=(
            "domainnet/real",
            "domainnet/real_train.txt",
            "domainnet/real_test.txt",
            *(f"domainnet/{name}" for domain in shifts for name in (domain, f"{domain}_test.txt")),
        ),
    )
