"""ImageNet: learn on ImageNet-1k; be tested on V2, R, A and Sketch (card only, not readable yet)."""

from typing import ClassVar

from robustbench_ft.recipe import R_WISE
from robustbench_ft.suite import Card, CardOnly


class ImageNet(CardOnly):
    """Folder names as the trees of wise-ft and FLYP use them."""

    recipe = R_WISE
    shifts = ("v2", "r", "a", "sketch")
    published_selector = "test"  # Lipsum-FT selects its checkpoint on the official validation images it then reports
    card: ClassVar[Card] = Card(
        title="ImageNet and four shifts",
        paper="Russakovsky et al. 2015; Recht et al. 2019; Hendrycks et al. 2021 (R, A); Wang et al. 2019 (Sketch)",
        licence="ImageNet terms of access, non-commercial research; the shifts have licences of their own",
        home="image-net.org and the homes of the four shifts",
        counts={"test": 50_000, "v2": 10_000, "r": 30_000, "a": 7_500, "sketch": 50_889},
        layout=(
            "imagenet/train", "imagenet/val", "ImageNetV2-matched-frequency", "imagenet-r", "imagenet-a", "sketch",
        ),
    )  # fmt: skip
