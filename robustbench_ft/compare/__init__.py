"""Rows against one baseline, all pairs, ranks: claims from records, each with its family and its correction named.

`rbft compare` and leaderboards begin here: `load` reads and checks records, `compare` computes, `tables` prints.
"""

from .claims import Cell as Cell
from .claims import Claim as Claim
from .claims import Comparison as Comparison
from .claims import Line as Line
from .claims import compare as compare
from .claims import find_row as find_row
from .load import Arena as Arena
from .load import load as load
