"""Claims from scores: intervals, tests, ranks and power for runs and examples that are two crossed random factors.

Torch-free, and free of records: arrays in, small frozen results out. `README.md` beside this file says what each file
guards.
"""

from .intervals import Estimate as Estimate
from .intervals import Examples as Examples
from .intervals import Matrix as Matrix
from .intervals import Resamples as Resamples
from .intervals import Sample as Sample
from .intervals import difference as difference
from .intervals import estimate as estimate
from .intervals import mean as mean
