"""Nearest: the class whose training images have the nearest mean feature; a candidate without weights of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from robustbench_ft import Candidates, Clip, Method, Run, TrainSet
from robustbench_ft.train import FeatureBatches


class Means:
    """A scorer: the logits of an image are its cosines with the mean features [K, D] of the classes."""

    def __init__(self, clip: Clip, means: Tensor) -> None:
        self.clip, self.means = clip, means

    def logits(self, images: Tensor, /) -> Tensor:
        return self.clip.scale * self.clip.encode_image(images) @ self.means.T

    def save(self, folder: Path, note: Mapping[str, Any], /) -> None:
        folder.mkdir(parents=True)
        save_file({"means": self.means}, folder / "means.safetensors", {key: str(value) for key, value in note.items()})


@dataclass(frozen=True)
class Nearest(Method):
    """Two candidates: the means as they are, and the zero-shot model in their place."""

    trains: ClassVar[bool] = False

    @torch.no_grad()
    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        clip.start_from_zero_shot(data.task)
        source = FeatureBatches(clip, data, run)
        sums = torch.zeros_like(clip.head).index_add(0, source.labels, source.train)
        means = Means(clip, F.normalize(sums, dim=-1))
        return Candidates(clip, {"means": lambda: means, "zero-shot": clip.snapshot}, default="means")
