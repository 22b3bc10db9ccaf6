"""The training crop of Lipsum-FT: TensorFlow's rule, its distribution, and draws worked out by hand."""

import numpy as np
import pytest
import torch

from robustbench_ft.pixels.augment import ATTEMPTS, DRAWS, Box, box_of

SIZE = 224


def boxes(width: int, height: int, n: int = 20_000) -> np.ndarray:
    draws = torch.rand(n, DRAWS, generator=torch.Generator().manual_seed(0)).tolist()
    return np.array([box_of("crop-flip", width, height, d, SIZE) for d in draws])


@pytest.mark.parametrize(
    ("width", "height", "mean", "median", "large"), [(500, 375, 0.388, 0.35, 0.30), (400, 400, 0.421, None, None)]
)
def test_areas_are_distributed_as_tensorflows(
    width: int, height: int, mean: float, median: float | None, large: float | None
) -> None:
    """Against 20,000 draws of a transcription of the kernel that another person made; three standard errors."""
    left, top, w, h = boxes(width, height).T
    area = w * h / (width * height)
    assert area.mean() == pytest.approx(mean, abs=3 * area.std() * (2 / len(area)) ** 0.5 + 5e-4)
    assert median is None or np.median(area) == pytest.approx(median, abs=0.01)
    assert large is None or (area > 0.5).mean() == pytest.approx(large, abs=0.014)
    assert 0.1 <= area.min() <= area.max() <= 1
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (left + w <= width).all()
    assert (top + h <= height).all()


def test_aspects_and_heights_are_uniform() -> None:
    """The height between the limits that the aspect sets; its lowest part, where crops are refused, is left out."""
    *_, w, h = boxes(4000, 4000).T
    ratio = w / h
    low, high = 4000 * np.sqrt(0.08 / ratio), 4000 * np.minimum(1, 1 / ratio)
    height = (h - low) / (high - low)
    kept = height > 0.15
    for values, span in ((height[kept], (0.15, 1)), (ratio[kept], (3 / 4, 4 / 3))):
        counts, _ = np.histogram(values, bins=10, range=span)
        assert counts.max() - counts.min() < 6 * counts.mean() ** 0.5


def draws(*attempts: tuple[float, float], x: float = 0.0, y: float = 0.0) -> list[float]:
    flat = [u for attempt in attempts for u in attempt]
    return [*flat, *[0.0] * (2 * ATTEMPTS - len(flat)), x, y, 0.9]


@pytest.mark.parametrize(
    ("width", "height", "given", "box"),
    [
        # aspect 1: heights from round(sqrt(.08 * 10000)) = 28 to 100; .5 of the 73 gives 28 + 36
        (100, 100, draws((3 / 7, 0.5), x=0.5, y=0.999), (18, 35, 64, 64)),
        # height 28 covers less than a tenth of the image, so the second attempt counts: aspect .75, 33 + .25 * 68
        (100, 100, draws((3 / 7, 0.0), (0.0, 0.25)), (0, 0, 38, 50)),
        # aspect 4/3 in a tall image: width 60 allows heights up to 45, int((60.5 - 1e-7) * 3 / 4)
        (60, 200, draws((1 - 1e-12, 1 - 1e-9), x=0.5, y=0.5), (0, 77, 60, 45)),
    ],
)
def test_draws_worked_out_by_hand(width: int, height: int, given: list[float], box: Box) -> None:
    assert box_of("crop-flip", width, height, given, SIZE) == box


def test_the_whole_image_gives_way_to_the_centre() -> None:
    """Crop 7/8 of the shorter side at 224 pixels, as Lipsum-FT's code does."""
    whole = draws((3 / 7, 1 - 1e-9))
    assert box_of("crop-flip", 100, 100, whole, SIZE) == (7, 7, 87, 87)


def test_an_image_too_narrow_for_any_crop_gives_its_centre() -> None:
    """A tenth of its area is more than any legal crop holds."""
    assert box_of("crop-flip", 10, 400, draws(*[(0.5, 0.5)] * ATTEMPTS), SIZE) == (1, 196, 8, 8)
