"""DiWA: average the weights of fits that share a linear probe and differ in recipe (Rame et al., NeurIPS 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F

from robustbench_ft import Batch, Candidates, Clip, Run, TrainSet
from robustbench_ft.train import LossTerms, Objective

from ._members import fit_members, fixed, greedy, mean, named, numbers, positive, rating
from .ft import FT
from .lp_ft import LpFT


@dataclass(frozen=True)
class DiWA(LpFT):
    """A soup of LP-FT's: one probe, then a mild sweep around the recipe, then the mean.

    The paper draws each member's rate from 1e-5, 3e-5 and 5e-5, its weight decay from 1e-4 and 1e-6, and the dropout of
    features before the head from 0, 0.1 and 0.5. Here member k takes the values number k of three lists, in turn, or
    with `draw` one of each at random. Rates and decays are factors on the recipe's. The lists of the paper are
    `lr_factors` as it is, `decay_factors = "1 0.01"` where the recipe's decay is 1e-4, and `dropouts = "0 0.1 0.5"`.
    """

    averages: ClassVar[bool] = False
    later: ClassVar[tuple[str, ...]] = ("dropouts", "draw")
    version: ClassVar[int] = 1
    equation: ClassVar[str] = "theta = mean_k theta_k, each an FT from F0 and one probe W*, with a recipe of its own"
    source: ClassVar[str] = (
        "Rame et al., NeurIPS 2022; alexrame/diwa@4bfe468, domainbed/scripts/diwa.py, hparams_registry.py, networks.py"
    )
    oracle: ClassVar[str] = (
        "none: the mean is that of merges.npz; of the sweep the released code keeps checkpoints only"
    )
    traps: ClassVar[tuple[str, ...]] = (
        "the released 'restricted' selection accepts ties, the greedy soup does not",
        "20 to 60 members in the paper, three of them here",
    )
    reduces_to: ClassVar[Mapping[str, tuple[str, int, str]]] = {
        "uniform": ("members", 1, "lp-ft"),
        "restricted": ("members", 1, "lp-ft"),
        "member-0": ("members", 1, "lp-ft"),
    }

    members: int = 3  # fits in one cell
    lr_factors: str = "1 0.333 1.667"  # 3e-5, 1e-5 and 5e-5, where the recipe's rate is 3e-5
    decay_factors: str = "1"  # on the recipe's weight decay, in turn
    dropouts: str = "0"  # of the features before the head, while it is trained, in turn
    draw: bool = False  # draw each member's three values at random, as in the paper
    selection: Literal["uniform", "restricted"] = "uniform"  # of the headline row

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        self.start_from_probe(clip, data, run)
        sweep = [self.member(k, run) for k in range(self.members)]
        ends = fit_members(sweep, clip, data, run, [member.resolved for member in sweep])
        restricted, kept = greedy(ends, rating(clip, data, run), ties=True)
        run.log({"event": "soup", "members": kept})
        soups = {"uniform": fixed(mean(ends)), "restricted": fixed(restricted)}
        return Candidates(clip, named(ends) | soups, default=self.selection)

    def member(self, k: int, run: Run) -> "_Dropped":
        """The recipe and the dropout of member k."""

        def value(text: str, what: str) -> float:
            values = numbers(text)
            place = torch.randint(len(values), (), generator=run.generator(f"sweep/{what}", k)) if self.draw else k
            return values[int(place) % len(values)]

        lr, decay = value(self.lr_factors, "lr"), value(self.decay_factors, "decay")
        recipe = replace(self.resolved, lr=self.resolved.lr * lr, weight_decay=self.resolved.weight_decay * decay)
        return _Dropped(recipe=recipe, dropout=value(self.dropouts, "dropout"))

    def problems(self) -> list[str]:
        found = [] if self.members >= 1 else [f"members={self.members} must be at least 1"]
        found += positive("lr_factors", self.lr_factors) + positive("decay_factors", self.decay_factors)
        rates = numbers(self.dropouts)
        if not rates or not all(0 <= rate < 1 for rate in rates):
            found.append(f"dropouts={self.dropouts!r} must be numbers from 0 to below 1, e.g. '0 0.1 0.5'")
        return super().problems() + found


@dataclass(frozen=True)
class _Dropped(FT):
    """FT, with features dropped before the head."""

    dropout: float = 0.0

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        if not self.dropout:
            return super().objective(clip, data, run)

        def loss(batch: Batch) -> LossTerms:
            draws = torch.rand(batch.whole, batch.features.shape[1], generator=run.generator("features", batch.step))
            kept = (draws[batch.taken] >= self.dropout).to(batch.features)
            logits = clip.classify(batch.features * kept / (1 - self.dropout))
            return {"nll": F.cross_entropy(logits, batch.labels, label_smoothing=self.resolved.label_smoothing)}

        return loss
