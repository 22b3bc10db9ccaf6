"""DaWin: merge zero-shot and fine-tuned weights for each image by their entropies (Oh et al., ICLR 2025)."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from robustbench_ft import Candidates, Clip, Run, TrainSet
from robustbench_ft.clip import interpolate
from robustbench_ft.train import FeatureBatches

from ._beta_mixture import Mixture, fit
from ._pair import Pair, Temperatures, calibrated, fit_pair, load_pair
from .ft import FT


@dataclass(frozen=True)
class DaWin(FT):
    """Merge with lambda(x) near 1 where the fine-tuned model is surer; images of like lambda share one merged model.

    A mixture of Betas is fitted to all lambda of a split, so a prediction depends on the other images of the split, and
    rows are never ranked with others. With `components` = 0 each image has a merged model of its own: one forward pass
    for one image. Where no split was shown, the images of one call are the split.

    Temperatures are fitted on ID validation. The released code holds numbers for three models of OpenAI, near 1, and
    does not say how they were fitted.
    """

    averages: ClassVar[bool] = False
    single_model: ClassVar[bool] = False
    transductive: ClassVar[bool] = True
    equation: ClassVar[str] = (
        "theta(x) = (1 - l) theta0 + l theta_FT,  lambda = (e^-H + o/w) / (e^-H0 + e^-H + o), H of softmax(u / T); "
        "o = mean of sd/mean of H0 and H, w = (mean H0 + mean H) / mean H0 over the split; l = mean of lambda's Beta"
    )
    source: ClassVar[str] = "Oh et al., ICLR 2025; naver-ai/dawin@310e0e1, dawin_rft/main_dawin.py, mixturemodel.py"
    oracle: ClassVar[str] = "mixtures.npz: dawin@310e0e1"
    traps: ClassVar[tuple[str, ...]] = (
        "needs all images of one shift together: a mixed stream gives other numbers",
        "the released code regroups logits and labels by component, but not image paths: sets scored by path are "
        "mis-keyed",
        "five forward passes for each image: two to look at the split, two to find lambda again, one to answer",
    )
    passes: ClassVar[float] = 5.0
    reduces_to: ClassVar[Mapping[str, tuple[str, Any, str]]] = {
        "ft": ("components", 3, "ft"),
        "zero-shot": ("components", 3, "zero-shot"),
    }

    components: int = 3  # K Betas in the mixture; 0: a merged model for each image
    offset: bool = True  # o, as in all published commands; without it o = 0 and w = 2

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        pair = fit_pair(self, clip, data, run)
        heat = calibrated(pair, FeatureBatches(pair.before, data, run), FeatureBatches(pair.tuned, data, run))
        run.log({"event": "calibrated", "zero_shot": heat.before, "tuned": heat.tuned})
        seed = run.generator("k-means").initial_seed() % 2**31
        scorer = Merger(pair, heat, self.components, self.offset, seed)
        return Candidates(clip, pair.ends() | {"dawin": lambda: scorer}, default="dawin")

    @classmethod
    def reload(cls, folder: Path, load: Callable[[str], Clip]) -> Candidates:
        pair = load_pair(load)
        own = pair.tuned.config["rbft"]["dawin"]
        heat = Temperatures(**own["temperatures"])
        return pair.alone(Merger(pair, heat, own["components"], own["offset"], own["seed"]))

    def problems(self) -> list[str]:
        return [] if self.components >= 0 else [f"components={self.components} must be at least 0"]


@dataclass(frozen=True)
class Seen:
    """What a split has taught."""

    reduce: Any  # logits [B, K] -> [B, K'], the classes of the split
    offset: float
    share: float  # w
    mixture: Mixture | None  # None: none is fitted


class Merger:
    """Answers with merged weights, once it has seen the split."""

    def __init__(self, pair: Pair, heat: Temperatures, components: int, offset: bool, seed: int) -> None:
        self.pair, self.heat, self.components, self.offset, self.seed = pair, heat, components, offset, seed
        self.seen: Seen | None = None

    def prepare(self, images: Iterable[Tensor], reduce: Any, /) -> None:
        self.seen = self.learnt([self.entropies(batch, reduce) for batch in images], reduce)

    def logits(self, images: Tensor) -> Tensor:
        own = partial(self.entropies, images)
        seen = self.seen or self.learnt([own(_whole)], _whole)
        values = coefficients(*own(seen.reduce), seen.offset, seen.share)
        if seen.mixture is None:
            return torch.cat([self.merged(float(value), images[k : k + 1]) for k, value in enumerate(values)])
        of = torch.from_numpy(seen.mixture.component(_array(values))).to(images.device)
        rows = {k: (of == k).nonzero()[:, 0] for k in of.unique().tolist()}
        found = torch.cat([self.merged(float(seen.mixture.means[k]), images[some]) for k, some in rows.items()])
        return found[torch.cat(list(rows.values())).argsort()]

    def entropies(self, images: Tensor, reduce: Any) -> tuple[Tensor, Tensor]:
        """H0 and H of each image, [B] each."""
        before, tuned = reduce(self.pair.before.logits(images)), reduce(self.pair.tuned.logits(images))
        return entropy(before / self.heat.before), entropy(tuned / self.heat.tuned)

    def learnt(self, parts: list[tuple[Tensor, Tensor]], reduce: Any) -> Seen:
        """Offset and mixture of all images of a split."""
        before, tuned = (torch.cat(column) for column in zip(*parts, strict=True))
        offset, share = offsets(before, tuned) if self.offset else (0.0, 2.0)
        values = _array(coefficients(before, tuned, offset, share))
        return Seen(reduce, offset, share, fit(values, self.components, self.seed) if self.components else None)

    def merged(self, value: float, images: Tensor) -> Tensor:
        """Logits [B, K] of the model that is `value` of the way."""
        return functional_call(self.pair.tuned, interpolate(self.pair.start, self.pair.end, value), (images,))

    def save(self, folder: Path, note: Mapping[str, Any]) -> None:
        own = {"components": self.components, "offset": self.offset, "temperatures": vars(self.heat), "seed": self.seed}
        self.pair.save(folder, {**note, "dawin": own})


def entropy(logits: Tensor) -> Tensor:
    """[B, K] -> [B], in nats."""
    return -(logits.softmax(dim=-1) * logits.log_softmax(dim=-1)).sum(dim=-1)


def offsets(before: Tensor, tuned: Tensor) -> tuple[float, float]:
    """o and w of the entropies [N] of a split; a split of one image, or without any entropy, has no offset."""
    if len(before) < 2 or not before.mean() > 0 or not tuned.mean() > 0:
        return 0.0, 2.0
    offset = (before.std() / before.mean() + tuned.std() / tuned.mean()) / 2
    return float(offset), float((before.mean() + tuned.mean()) / before.mean())


def coefficients(before: Tensor, tuned: Tensor, offset: float, share: float) -> Tensor:
    """lambda [B] from the entropies of both models, [B] each."""
    sure = (-tuned).exp()
    return (sure + offset / share) / ((-before).exp() + sure + offset)


def _whole(logits: Tensor) -> Tensor:
    return logits


def _array(values: Tensor) -> Any:
    return values.double().cpu().numpy().astype(np.float64)
