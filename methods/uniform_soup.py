"""Uniform soup: fine-tune several times, and average the weights (Wortsman et al., ICML 2022)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from robustbench_ft import Clip, Run, TrainSet
from robustbench_ft.recipe import R_WISE, Recipe

from ._members import Soup, State, mean

# finetune.py of model-soups, without its option --timm-aug; its models start from a linear probe (model_0)
R_SOUP = replace(R_WISE, lr=2e-5, epochs=8, batch=256, augment="none")


@dataclass(frozen=True)
class UniformSoup(Soup):
    """The mean of all members, head included. The paper's 72 members differ in recipe; here, in what `lr_factors` says.

    The paper's start from one linear probe: that is `diwa`. These start from the zero-shot head, as FT does.
    """

    published: ClassVar[Mapping[str, Recipe]] = {"imagenet": R_SOUP}
    equation: ClassVar[str] = "theta = mean_k theta_k, each theta_k an FT of its own from one start"
    source: ClassVar[str] = "Wortsman et al., ICML 2022; mlfoundations/model-soups@d5398f1, main.py, finetune.py"
    oracle: ClassVar[str] = "merges.npz: model-soups@d5398f1"
    traps: ClassVar[tuple[str, ...]] = (
        "K members cost K fits: compare with one FT of K times the steps, or say so",
        "the paper's members vary learning rate, weight decay, augmentation and label smoothing at random",
    )

    def soup(self, ends: Sequence[State], clip: Clip, data: TrainSet, run: Run) -> State:
        return mean(ends)
