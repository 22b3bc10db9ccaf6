"""The data doctor: is a suite's data all there, readable and the same as elsewhere? `rbft data`. Torch-free."""

from .check import Examination as Examination
from .check import Extent as Extent
from .check import examine as examine
from .manifest import for_record as for_record
