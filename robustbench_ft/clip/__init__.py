"""`Clip`: any open_clip model with a classifier head, how it is named, loaded and saved."""

from .clip import Clip as Clip
from .clip import Part as Part
from .clip import State as State
from .clip import interpolate as interpolate
from .load import load as load
from .load import load_saved as load_saved
from .load import random_vit as random_vit
