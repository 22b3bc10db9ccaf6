"""What a record keeps in `model/`: a tuned model, or what a scorer of several models needs to answer again.

A scorer's folder names its method in 'scorer.json'. That method builds it again; nothing else in the folder is run.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import transforms

from . import atomic, registry
from .clip import Clip, load_saved
from .clip.clip import HINT
from .errors import RbftError
from .method import Candidates, Method, Scorer
from .prompts import Task

NOTE = "scorer.json"


@dataclass(frozen=True)
class SavedScorer:
    """A scorer that was loaded again; it is asked as a `Clip` is."""

    candidates: Candidates

    @property
    def scorer(self) -> Scorer:
        return self.candidates.use(self.candidates.default)

    @property
    def task(self) -> Task | None:
        """Classes and templates of the head."""
        return self.candidates.clip.task

    def logits(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] normalised -> [B, K]"""
        return self.scorer.logits(images)

    def preprocess(self) -> tuple[transforms.Compose, Tensor, Tensor]:
        """The transform of a PIL image, and the mean and std [3, 1, 1] that its pixels are normalised with."""
        return self.candidates.clip.preprocess()


def write(model: Scorer, folder: Path, method: str, note: Mapping[str, Any]) -> None:
    """Save the headline of a method, and for a scorer that is no `Clip` the name of the method."""
    model.save(folder, note)
    if not isinstance(model, Clip):
        atomic.write_bytes(folder / NOTE, (json.dumps({"method": method}) + "\n").encode(), HINT)


def is_there(folder: Path) -> bool:
    """Whether `folder` holds a model or a scorer."""
    return (folder / "head.safetensors").is_file() or (folder / NOTE).is_file()


def load(folder: Path, device: torch.device) -> Clip | SavedScorer:
    """Load what `write` left in `folder`.

    Raises `RbftError` where the method is not registered here, does not load what it saves, or finds it incomplete.
    """
    if not (folder / NOTE).is_file():
        return load_saved(folder).to(device)
    name = _method(folder / NOTE)
    kind = registry.load("method", name, Method)
    try:
        return SavedScorer(kind.reload(folder, lambda part: load_saved(folder / part).to(device)))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise RbftError(f"{folder} is not what '{name}' saves ({type(error).__name__}: {error})") from error


def _method(path: Path) -> str:
    """The registered name in a scorer's note; a path would be code, and is refused."""
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["method"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise RbftError(f"cannot read {path}: it must name the method that saved the scorer") from error
    if not isinstance(name, str) or registry.names_a_file(name):
        raise RbftError(f"{path}: method is {name!r}; it must be the name of a registered method")
    return name
