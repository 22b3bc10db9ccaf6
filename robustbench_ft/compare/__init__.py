"""Rows against one baseline, all pairs, ranks: claims from records, each with its family and its correction named.

`rbft compare` and leaderboards begin here: `load` reads and checks records, `compare` computes, `tables` prints.
"""

from .load import RunSet as RunSet
from .load import load as load
from .verdicts import Cell as Cell
from .verdicts import Claim as Claim
from .verdicts import Comparison as Comparison
from .verdicts import Line as Line
from .verdicts import compare as compare
from .verdicts import find_row as find_row
