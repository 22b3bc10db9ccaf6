"""Published zero-shot numbers, and whether a measured one agrees with them: is the setup right? Torch-free."""

from .causes import Finding as Finding
from .causes import of_predictions as of_predictions
from .numbers import Reference as Reference
from .numbers import find as find
from .numbers import key_of as key_of
from .verdict import Verdict as Verdict
from .verdict import judge as judge
from .verdict import of_record as of_record
