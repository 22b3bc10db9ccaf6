"""VRF: weigh zero-shot and fine-tuned by the distance to what fine-tuning repaired (Zhu, Cui, Zhang, NeurIPS 2024)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from robustbench_ft import Candidates, Clip, Run, TrainSet
from robustbench_ft.train import FeatureBatches

from ._pair import Pair, Temperatures, Together, calibrated, fit_pair, load_pair, mixed
from .ft import FT


@dataclass(frozen=True)
class VRF(FT):
    """V holds the training images that FT gets right and zero-shot gets wrong. Near V, the fine-tuned model speaks.

    d is the squared distance of an image's unit features, of the fine-tuned model, to the k-th nearest of V. A model
    that repaired nothing has an empty V: everything is infinitely far from it, and zero-shot speaks alone.
    """

    averages: ClassVar[bool] = False
    single_model: ClassVar[bool] = False
    equation: ClassVar[str] = (
        "p = w softmax(u / T) + (1 - w) softmax(u0 / T0),  w = sigmoid((a - d_k(x, V)) / b),  mean confidence at T is "
        "the accuracy"
    )
    source: ClassVar[str] = "Zhu, Cui, Zhang, NeurIPS 2024; BeierZhu/VRF@de9647d, src/main.py, src/knn_distance.py"
    oracle: ClassVar[str] = "mixtures.npz: VRF@de9647d"
    traps: ClassVar[tuple[str, ...]] = (
        "the released code calibrates on the ImageNet validation set that it reports; here on ID validation",
        "the paper writes a distance, the code's is squared (faiss), and a = 1.5, b = 0.6 belong to the squared one",
        "its k is round(1000 |V| / |train|), the paper's is 0.1 % of |V|: on ImageNet these are of one order, on small "
        "data they are not",
        "V keeps features of a part of the training set beside the model",
    )
    passes: ClassVar[float] = 2.0
    reduces_to: ClassVar[Mapping[str, tuple[str, Any, str]]] = {
        "ft": ("a", 1.5, "ft"),
        "zero-shot": ("a", 1.5, "zero-shot"),
    }

    a: float = 1.5  # the squared distance at which both weigh the same
    b: float = 0.6  # width of the step from one model to the other
    k_factor: float = 1000.0  # k = round(k_factor |V| / |train|), 1 at least

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        pair = fit_pair(self, clip, data, run)
        before, tuned = FeatureBatches(pair.before, data, run), FeatureBatches(pair.tuned, data, run)
        rows = repaired(pair, before, tuned)
        k = max(1, round(self.k_factor * len(rows) / len(before)))
        heat = calibrated(pair, before, tuned)
        run.log({"event": "vrf", "repaired": len(rows), "k": k, "zero_shot": heat.before, "tuned": heat.tuned})
        scorer = Near(pair, heat, rows, min(k, len(rows)), self.a, self.b)
        return Candidates(clip, pair.ends() | {"vrf": lambda: scorer}, default="vrf")

    @classmethod
    def reload(cls, folder: Path, load: Callable[[str], Clip]) -> Candidates:
        pair = load_pair(load)
        own = pair.tuned.config["rbft"]["vrf"]
        known = load_file(folder / "repaired.safetensors")["repaired"].to(pair.tuned.device)
        return pair.alone(Near(pair, Temperatures(**own["temperatures"]), known, own["k"], own["a"], own["b"]))

    def problems(self) -> list[str]:
        return [
            f"{name}={getattr(self, name)} must be above 0" for name in ("b", "k_factor") if getattr(self, name) <= 0
        ]


@dataclass(frozen=True)
class Near(Together):
    """Answers with a mixture of its own for each image."""

    repaired: Tensor  # V, [n, D] unit features of the fine-tuned model
    k: int
    a: float
    b: float

    def mix(self, before: Tensor, tuned: Tensor, features: Tensor) -> Tensor:
        weight = weights(distances(features, self.repaired, self.k), self.a, self.b)
        return mixed(before, tuned, weight[:, None])

    def save(self, folder: Path, note: Mapping[str, Any]) -> None:
        """Both models, and V in 'repaired.safetensors'."""
        own = {"a": self.a, "b": self.b, "k": self.k, "temperatures": vars(self.heat)}
        self.pair.save(folder, {**note, "vrf": own})
        save_file({"repaired": self.repaired.cpu().contiguous()}, folder / "repaired.safetensors")


@torch.no_grad()
def repaired(pair: Pair, before: FeatureBatches, tuned: FeatureBatches) -> Tensor:
    """V: features of the fine-tuned model [n, D] of training images that it gets right and zero-shot gets wrong."""
    labels = before.labels.to(tuned.train.device)
    right = pair.tuned.classify(tuned.train).argmax(dim=-1) == labels
    was_right = pair.before.classify(before.train).argmax(dim=-1) == labels
    return tuned.train[right & ~was_right]


def distances(features: Tensor, known: Tensor, k: int) -> Tensor:
    """[B] squared distance of unit rows [B, D] to the k-th nearest of unit rows [n, D]; infinite where n is 0."""
    if not len(known):
        return torch.full((len(features),), torch.inf, device=features.device)
    return 2 - 2 * (features @ known.T).topk(k, dim=-1).values[:, -1]


def weights(distance: Tensor, a: float, b: float) -> Tensor:
    """w = sigmoid((a - d) / b), [B]."""
    return ((a - distance) / b).sigmoid()
