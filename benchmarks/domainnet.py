"""DomainNet: learn on Real; be tested on Painting, Clipart, Infograph and Sketch (card only: its files cannot be read yet)."""

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
        layout=tuple(
            f"domainnet/{path}"
            for path in ("real", "real_train.txt", "real_test.txt")
            + tuple(p for d in shifts for p in (d, f"{d}_test.txt"))
        ),
    )
