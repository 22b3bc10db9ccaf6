"""`robustbench_ft` (`rbft`): a benchmark harness for robust fine-tuning of CLIP.

The names a method file needs are here; they are resolved on first use, so that importing the package imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .clip import Clip as Clip
    from .method import Candidates as Candidates

    Family = Candidates  # the old name
    from .method import Method as Method
    from .method import Run as Run
    from .method import Scorer as Scorer
    from .method import TrainSet as TrainSet
    from .train import Batch as Batch

__version__ = "0.2.0"
_HOMES = {
    "Batch": "train",
    "Candidates": "method",
    "Clip": "clip",
    "Family": "method",
    "Method": "method",
    "Run": "method",
    "Scorer": "method",
    "TrainSet": "method",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
