"""Where the cells of a plan are run: `run_cells` decides, a `Launcher` carries out."""

from .launcher import Ended as Ended
from .launcher import Job as Job
from .launcher import Launcher as Launcher
from .run import MakeLauncher as MakeLauncher
from .run import Policy as Policy
from .run import choose as choose
from .run import run_cells as run_cells
