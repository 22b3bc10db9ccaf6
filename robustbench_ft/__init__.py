"""`robustbench_ft` (`rbft`): a benchmark harness for robust fine-tuning of CLIP.

`import robustbench_ft as rb` gives what a notebook needs (docs/python.md) and the names that a method file needs. They
are resolved on first use, so that importing the package imports neither torch nor numpy.
"""

from typing import TYPE_CHECKING, Any

from . import _names

if TYPE_CHECKING:
    from . import plot as plot
    from .clip import Clip as Clip
    from .diagnose.answer import Diagnoses as Diagnoses
    from .errors import RbftError as RbftError
    from .method import Candidates as Candidates
    from .method import Method as Method
    from .method import Run as Run
    from .method import Scorer as Scorer
    from .method import TrainSet as TrainSet
    from .notebook import Comparisons as Comparisons
    from .notebook import Records as Records
    from .notebook import compare as compare
    from .notebook import diagnose as diagnose
    from .notebook import load as load
    from .notebook import load_model as load_model
    from .notebook import methods as methods
    from .notebook import run as run
    from .notebook import suite as suite
    from .notebook import suites as suites
    from .notebook import tune as tune
    from .ranges import Choices as Choices
    from .ranges import Range as Range
    from .record.store import Record as Record
    from .train import Batch as Batch

__version__ = "0.3.0"
__all__ = [
    "Batch",
    "Candidates",
    "Choices",
    "Clip",
    "Comparisons",
    "Diagnoses",
    "Method",
    "Range",
    "RbftError",
    "Record",
    "Records",
    "Run",
    "Scorer",
    "TrainSet",
    "compare",
    "diagnose",
    "load",
    "load_model",
    "methods",
    "plot",
    "run",
    "suite",
    "suites",
    "tune",
]

_names.install()


def __getattr__(name: str) -> Any:
    return _names.find(name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
