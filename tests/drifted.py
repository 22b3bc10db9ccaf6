"""A model that was pushed away from where it began, on the recorded images of the Lipsum-FT runs."""

from typing import Any

import golden
import torch
from golden import TASK, arrays
from torch import Tensor

from robustbench_ft.clip import Clip
from robustbench_ft.method import TrainSet


def tensor(array: Any, grad: bool = False) -> Tensor:
    return torch.from_numpy(array.copy()).requires_grad_(grad)


def data() -> TrainSet:
    """The recorded images of the Lipsum-FT runs."""
    official = arrays("lipsum_ft")
    train = golden.split(official["images"], official["labels"])
    return TrainSet(train, train, TASK)


def moved(clip: Clip, by: float = 0.02) -> None:
    """Push the image tower and the head away from where they are."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in (*clip.model.visual.parameters(), clip.head):
            p.add_(by * torch.randn(p.shape, generator=generator))
