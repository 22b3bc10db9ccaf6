"""The training loop that methods call, what an objective sees, and checkpoints that a run resumes from."""

from robustbench_ft.method import Companion as Companion
from robustbench_ft.pixels.loader import Loader as Loader

from .batches import Batch as Batch
from .batches import Batches as Batches
from .batches import Features as Features
from .batches import Pixels as Pixels
from .batches import Scores as Scores
from .batches import Source as Source
from .batches import accuracy as accuracy
from .batches import indices_at as indices_at
from .loop import InterruptedRun as InterruptedRun
from .loop import MakeOptimizer as MakeOptimizer
from .loop import Objective as Objective
from .loop import Terms as Terms
from .loop import adamw as adamw
from .loop import backward as backward
from .loop import train as train
