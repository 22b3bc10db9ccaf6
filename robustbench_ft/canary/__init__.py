"""Checks of a setup on a fixed subset of images: does the model answer as it was published, and if not, why?"""

from .check import MOST as MOST
from .check import Answer as Answer
from .check import Setup as Setup
from .check import canary as canary
from .check import explain as explain
from .subset import choose as choose
