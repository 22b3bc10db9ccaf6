"""The training loop that methods call, what an objective sees, and checkpoints that a run resumes from."""

from .loop import Batch as Batch
from .loop import Features as Features
from .loop import InterruptedRun as InterruptedRun
from .loop import Objective as Objective
from .loop import Pixels as Pixels
from .loop import Source as Source
from .loop import Terms as Terms
from .loop import accuracy as accuracy
from .loop import indices_at as indices_at
from .loop import train as train
