"""Lipsum-FT with other texts: are random ones needed, and must they be drawn anew in every step?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from robustbench_ft.methods.lipsum import LipsumFT
from torch import Tensor

from robustbench_ft import Clip, Range, Run
from robustbench_ft.recipe import Recipe


@dataclass(frozen=True)
class LipsumTexts(LipsumFT):
    """Lipsum-FT on texts of another kind.

    'fixed' takes the `n_texts` random texts of the first step in all of them. 'captions' takes prompts of the suite's
    own classes, `n_texts` of them drawn anew in every step, and all where there are fewer.
    """

    published: ClassVar[Mapping[str, Recipe]] = {}
    reduces_to: ClassVar[Mapping[str, tuple[str, Any, str]]] = {}
    ranges: ClassVar[Mapping[str, Range]] = {}

    kind: Literal["fixed", "captions"] = "fixed"

    def texts(self, clip: Clip, run: Run, step: int) -> Tensor:
        if self.kind == "fixed":
            return super().texts(clip, run, 0)
        assert clip.task is not None, "a head is set before training"
        captions = clip.tokenize(clip.task.texts)
        return captions[torch.randperm(len(captions), generator=run.generator("captions", step))[: self.n_texts]]
