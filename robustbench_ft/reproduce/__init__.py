"""Published rows, run again as they were made: recipe, protocol and seeds of their authors, and what that takes."""

from .row import Reproduction as Reproduction
from .row import make as make
from .row import published as published
from .row import rate_of as rate_of
from .text import compared as compared
from .text import describe as describe
