"""The training loop that methods call, what an objective sees, and checkpoints that a run resumes from."""

import warnings
from typing import Any

from robustbench_ft.method import Companion as Companion
from robustbench_ft.pixels.loader import Loader as Loader

from .batches import Batch as Batch
from .batches import Batches as Batches
from .batches import FeatureBatches as FeatureBatches
from .batches import ImageBatches as ImageBatches
from .batches import Scores as Scores
from .batches import Source as Source
from .batches import accuracy as accuracy
from .batches import indices_at as indices_at
from .loop import InterruptedRun as InterruptedRun
from .loop import MakeOptimizer as MakeOptimizer
from .loop import adamw as adamw
from .loop import train as train
from .passes import LossTerms as LossTerms
from .passes import Objective as Objective
from .passes import backward as backward

OLD_NAMES = {"Terms": "LossTerms", "Pixels": "ImageBatches", "Features": "FeatureBatches"}  # accepted in 0.3


def __getattr__(name: str) -> Any:
    if name in OLD_NAMES:
        new = OLD_NAMES[name]
        warnings.warn(f"{name} is called {new} now; the old name goes with 0.4", DeprecationWarning, stacklevel=2)
        return globals()[new]
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
