"""What torchvision makes of a training crop."""

import numpy as np
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision

from robustbench_ft.data import Ints, Split
from robustbench_ft.pixels.augment import crop_box


def resized_crop(split: Split, index: int, side: int) -> Ints:
    """The crop that the draws of seed 0 give, resized by Pillow: [3, side, side]."""
    image = split.images.read([index])[0].convert("RGB")
    draws = torch.rand(1, 23, generator=torch.Generator().manual_seed(0))[0].tolist()
    left, top, width, height = crop_box(*image.size, draws)
    crop = vision.resized_crop(image, top, left, height, width, [side] * 2, InterpolationMode.BICUBIC)  # pyright: ignore
    return np.array(crop).astype(np.int64).transpose(2, 0, 1)
