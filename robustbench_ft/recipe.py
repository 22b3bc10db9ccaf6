"""Training recipes: how long, how fast, with which head and augmentation. Torch-free; `train` carries them out.

The three published base recipes are the constants at the end (Lipsum-FT: cs-giung/lipsum-ft@1331873; WiSE-FT:
mlfoundations/wise-ft@58b7a4b; FLYP: locuslab/FLYP@215d5bb).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_type_hints

from .errors import unknown

Schedule = Literal["lipsum", "wise-ft"]
Head = Literal["unit", "scaled"]
Augment = Literal["none", "shift", "crop", "crop-flip"]
Select = Literal["best", "last"]
EACH_EPOCH = -1  # value of `Recipe.validate_every`


@dataclass(frozen=True)
class Recipe:
    """AdamW with linear warm-up and cosine decay to zero, per step.

    `head` is the convention of the classifier: 'unit' keeps unit-norm rows and multiplies the logits by the constant
    pre-trained scale (Lipsum-FT); 'scaled' folds the scale into the rows and adds a trained bias (WiSE-FT). The same
    learning rate moves a unit row about a hundred times further, so the two are different recipes.
    """

    lr: float = 1e-5
    weight_decay: float = 0.0
    steps: int = 0  # optimiser steps; 0: count in epochs
    epochs: int = 0
    batch: int = 256
    warmup_fraction: float = 0.0  # of all steps, used by schedule 'lipsum'
    warmup_steps: int = 0  # used by schedule 'wise-ft'
    schedule: Schedule = "lipsum"
    clip_norm: float = 0.0  # global gradient norm; 0: no clipping
    label_smoothing: float = 0.0
    head: Head = "unit"
    augment: Augment = "none"
    shuffle: bool = True  # False: batches follow the order of the split
    select: Select = "best"  # which validated checkpoint is kept
    validate_every: int = 0  # steps; 0: at the end only; -1: once an epoch, whatever the batch
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    micro_batch: int = (
        0  # examples in one forward and backward pass; 0: the whole batch. It moves rounding, nothing else
    )

    def total_steps(self, n: int) -> int:
        """Optimiser steps over `n` training images. An epoch ends with its smaller last batch, as in a DataLoader."""
        return self.steps or self.epochs * math.ceil(n / self.batch)

    def validates_after(self, step: int, n: int) -> bool:
        """Whether ID validation is due once `step` updates are done, beside the one at the end; `n` training images."""
        every = math.ceil(n / self.batch) if self.validate_every == EACH_EPOCH else self.validate_every
        return every > 0 and step % every == 0

    def lr_at(self, step: int, total: int) -> float:
        """Learning rate of the update number `step` (from 0) out of `total`.

        'lipsum' counts as optax does: lr 0 at step 0, peak after floor(f * total) steps, 0 after floor((1 - f) * total)
        more. 'wise-ft' starts at lr / warmup_steps and reaches its peak in the last warm-up step.
        """
        if self.schedule == "lipsum":
            warmup = math.floor(self.warmup_fraction * total)
            decay = math.floor((1 - self.warmup_fraction) * total)
            if step < warmup:
                return self.lr * step / warmup
            return self.lr * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, decay)))) / 2
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, total - self.warmup_steps)
        return self.lr * (1 + math.cos(math.pi * min(1.0, progress))) / 2


def problems(recipe: Recipe) -> list[str]:
    """What makes this recipe impossible to carry out, one line each; empty when nothing does."""
    found = [
        f"{name} must be {rule}, not {getattr(recipe, name)}"
        for name, rule, ok in (
            ("lr", "above 0", recipe.lr > 0),
            ("batch", "at least 1", recipe.batch >= 1),
            ("steps", "at least 0", recipe.steps >= 0),
            ("epochs", "at least 0", recipe.epochs >= 0),
            ("weight_decay", "at least 0", recipe.weight_decay >= 0),
            ("warmup_fraction", "between 0 and 1", 0 <= recipe.warmup_fraction <= 1),
            ("warmup_steps", "at least 0", recipe.warmup_steps >= 0),
            ("clip_norm", "at least 0", recipe.clip_norm >= 0),
            ("label_smoothing", "in [0, 1)", 0 <= recipe.label_smoothing < 1),
            ("validate_every", "at least 0, or -1 for once an epoch", recipe.validate_every >= EACH_EPOCH),
            ("beta1", "in [0, 1)", 0 <= recipe.beta1 < 1),
            ("beta2", "in [0, 1)", 0 <= recipe.beta2 < 1),
            ("eps", "above 0", recipe.eps > 0),
            ("micro_batch", "at least 0", recipe.micro_batch >= 0),
        )
        if not ok
    ]
    if not recipe.steps and not recipe.epochs:
        found.append("one of steps and epochs must be above 0")
    return found


_KNOWN = asdict(Recipe())
LATER = ("micro_batch",)  # fields that earlier cells lack: left out of a cell at their defaults


def as_stored(recipe: Recipe) -> dict[str, Any]:
    """The fields as cell.json holds them, so that digests of earlier cells stay."""
    return {name: value for name, value in asdict(recipe).items() if value or name not in LATER}


def overlay(base: Recipe, table: Mapping[str, Any], problems_found: list[str]) -> Recipe:
    """`base` with the fields of a TOML table over it; a length in steps replaces one in epochs, and the other way.

    Unknown fields, wrong types and values that cannot be carried out are added to `problems_found`, one line each.
    """
    from pydantic import TypeAdapter, ValidationError  # heavy, and tables of results need only `differing`

    hints, chosen = get_type_hints(Recipe), dict[str, Any]()
    for key, given in table.items():
        if key not in hints:
            problems_found.append(unknown("setting", key, hints))
            continue
        try:
            chosen[key] = TypeAdapter(hints[key]).validate_json(json.dumps(given, default=str), strict=True)
        except ValidationError as error:
            problems_found.append(f"{key} is {_shown(given)}: {error.errors()[0]['msg'].lower()}")
    if any(isinstance(v, float) and not math.isfinite(v) for v in chosen.values()):
        problems_found.append("every number must be finite")
        return base
    for key, other in (("steps", "epochs"), ("epochs", "steps")):
        if chosen.get(key) and other not in table:
            chosen[other] = 0
    made = replace(base, **chosen)
    problems_found += problems(made)
    return made


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


def in_words(recipe: Mapping[str, Any]) -> str:
    """A stored recipe in one line: 'lr 1e-05, weight decay 0, 5,000 steps of batch 256, ...'."""
    r = Recipe(**{key: value for key, value in recipe.items() if key in _KNOWN})
    length = f"{r.steps:,} steps" if r.steps else f"{r.epochs:,} epochs"
    warmup = f"{r.warmup_fraction:.0%}" if r.schedule == "lipsum" else f"{r.warmup_steps:,} steps"
    often = "once an epoch" if r.validate_every == EACH_EPOCH else f"every {r.validate_every:,} steps"
    every = f", validated {often}" if r.select == "best" and r.validate_every else ""
    parts = [
        f"lr {r.lr:g}", f"weight decay {r.weight_decay:g}", f"{r.head} head", f"augmentation {r.augment}",
        f"{length} of batch {r.batch:,}", f"cosine after {warmup} of warm-up ({r.schedule})",
        f"{r.select} checkpoint{every}",
    ]  # fmt: skip
    parts += [f"gradient norm up to {r.clip_norm:g}"] if r.clip_norm else []
    parts += [f"label smoothing {r.label_smoothing:g}"] if r.label_smoothing else []
    parts += [f"in parts of {r.micro_batch:,}"] if r.micro_batch else []
    parts += [] if r.shuffle else ["images in the order of the split"]
    if (r.beta1, r.beta2, r.eps) != (_KNOWN["beta1"], _KNOWN["beta2"], _KNOWN["eps"]):
        parts.append(f"Adam betas {r.beta1:g} and {r.beta2:g}, eps {r.eps:g}")
    return ", ".join(parts)


def differing(recipes: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """In what these recipes differ, in words and in a fixed order; empty where they are one recipe.

    Recipes are as cell.json holds them, by any name. A field that one of them lacks came after it, and is at its
    default there. Fields that have no effect, like the warm-up of another schedule, do not count.
    """
    found = [_effects(recipe) for recipe in recipes.values() if recipe]
    words = dict.fromkeys(word for effects in found for word in effects)
    return tuple(word for word in words if any(other.get(word) != found[0].get(word) for other in found))


def _effects(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Word -> what the recipe does there. Fields that this version does not know come last, by their own names."""
    r = {**_KNOWN, **recipe}
    warmup = r["warmup_fraction"] if r["schedule"] == "lipsum" else r["warmup_steps"]
    return {
        "lr": r["lr"],
        "weight decay": r["weight_decay"],
        "head": r["head"],
        "augmentation": r["augment"],
        "batch": r["batch"],
        "length": (r["steps"], 0 if r["steps"] else r["epochs"]),
        "schedule": (r["schedule"], warmup),
        "selection": (r["select"], r["validate_every"] if r["select"] == "best" else 0),
        "gradient clipping": r["clip_norm"],
        "label smoothing": r["label_smoothing"],
        "order of images": r["shuffle"],
        "Adam betas": (r["beta1"], r["beta2"]),
        "Adam eps": r["eps"],
        **{key: r[key] for key in sorted(r.keys() - _KNOWN.keys())},
    }


R_LIP = Recipe(
    lr=1e-5, weight_decay=0.0, steps=5_000, batch=256, warmup_fraction=0.1, schedule="lipsum", head="unit",
    augment="crop-flip", select="best", validate_every=1_000,
)  # fmt: skip

R_WISE = Recipe(
    lr=3e-5, weight_decay=0.1, epochs=10, batch=512, warmup_steps=500, schedule="wise-ft", clip_norm=1.0, head="scaled",
    augment="crop", select="last",
)  # fmt: skip

R_FLYP = Recipe(
    lr=1e-5, weight_decay=0.1, epochs=10, batch=512, warmup_steps=500, schedule="wise-ft", head="scaled",
    augment="crop", select="last",
)  # fmt: skip

PUBLISHED = {"lipsum": R_LIP, "wise-ft": R_WISE, "flyp": R_FLYP}  # method -> base recipe of its authors

# Versions of what several recipes share, stated by the cells that use it: older records with other numbers stay apart.
# crop-flip 2: TensorFlow's crop instead of torchvision's. bf16 2: the blocks of the image tower only; 3: teachers take
# the kernels of their students.
# official-selection 1: checkpoints are selected by the validation split's own metric, which is not accuracy.
SHARED_VERSIONS = {"crop-flip": 2, "bf16": 3, "official-selection": 1}


def precision_of(asked: str, base: Recipe | None) -> str:
    """What a recipe is computed in, as its suite or method states it (None: nothing is trained).

    'auto' is what its authors trained in: bfloat16 in the tower for Lipsum-FT's, of any length; for the others float32,
    whose products a GPU made in TF32 by default (torch 1.7 to 1.11).
    """
    if asked != "auto":
        return asked
    if base is None:
        return "fp32"
    return "bf16" if replace(base, steps=0) == replace(R_LIP, steps=0) else "tf32"


# One recipe for every trainable method on the embedded suites. The grid is declared before any run; a learning rate is
# only ever chosen from it, and only on ID validation.
EMBEDDED = Recipe(
    lr=3e-4, weight_decay=0.1, steps=160, batch=128, warmup_fraction=0.1, schedule="lipsum", head="unit",
    augment="shift", select="best", validate_every=40,
)  # fmt: skip
EMBEDDED_LR_GRID = (3e-5, 1e-4, 3e-4, 1e-3)
