"""What an image shows besides its class: colours and place, usual ones or any. Pictures and captions share it."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from .classes import BACKGROUNDS, CLASSES, COLOURS, HABITS
from .random_draws import Draws, Floats, Ints
from .shapes import ACCENT, DARK, EXTRA_1, EXTRA_4, INK, LIGHT, MAIN, SECOND

RGB: Floats = np.array(list(COLOURS.values()), dtype=np.float32) / 255  # [colours, 3]


@dataclass(frozen=True)
class Scene:
    """Positions in COLOURS and BACKGROUNDS of the choices made for n images."""

    main: Ints  # [n]
    second: Ints  # [n]
    accent: Ints  # [n]
    place: Ints  # [n]

    def __getitem__(self, rows: slice) -> "Scene":
        """The scenes of some of the images."""
        return Scene(self.main[rows], self.second[rows], self.accent[rows], self.place[rows])


@cache
def _habits() -> tuple[Ints, Ints, Ints, Ints, Ints, Ints]:
    """HABITS as tables by class: main colours and places padded to three columns, with how many of them count."""
    colours, places = list(COLOURS), list(BACKGROUNDS)
    habits = [HABITS[name] for name in CLASSES]
    main = np.array([[colours.index(c) for c in (h.main * 3)[:3]] for h in habits])
    place = np.array([[places.index(p) for p in (h.places * 3)[:3]] for h in habits])
    second, accent = (
        np.array([colours.index(c) for c in side]) for side in ([h.second for h in habits], [h.accent for h in habits])
    )
    return (
        main,
        np.array([len(h.main) for h in habits]),
        second,
        accent,
        place,
        np.array([len(h.places) for h in habits]),
    )


def choose(labels: Ints, context: float, d: Draws) -> Scene:
    """Choose colours and place; with probability `context` those that are usual for the class."""
    mains, n_main, seconds, accents, places, n_place = _habits()
    usual = d.chance("scene/usual", context)
    pick = d.uniform("scene/pick", shape=(2,))
    usual_main = mains[labels, (pick[:, 0] * n_main[labels]).astype(np.int64)]
    usual_place = places[labels, (pick[:, 1] * n_place[labels]).astype(np.int64)]
    any_colour = d.choice("scene/colours", len(COLOURS), (3,))
    return Scene(
        main=np.where(usual, usual_main, any_colour[:, 0]),
        second=np.where(usual, seconds[labels], any_colour[:, 1]),
        accent=np.where(usual, accents[labels], any_colour[:, 2]),
        place=np.where(usual, usual_place, d.choice("scene/place", len(BACKGROUNDS))),
    )


def palette(scene: Scene, jitter: float, d: Draws) -> Floats:
    """A colour in [0, 1] for every role, named colours varied by `jitter`.  # [n, roles, 3]"""
    colours = np.empty((len(d), EXTRA_4 + 1, 3), np.float32)
    colours[:, 0] = 1.0
    colours[:, MAIN], colours[:, SECOND], colours[:, ACCENT] = RGB[scene.main], RGB[scene.second], RGB[scene.accent]
    colours[:, LIGHT], colours[:, DARK], colours[:, INK] = (0.93, 0.94, 0.96), (0.13, 0.13, 0.15), 0.06
    colours[:, EXTRA_1:] = RGB[d.choice("palette/extra", len(COLOURS), (4,))]
    varied = colours + jitter * d.normal("palette/jitter", colours.shape[1:])
    return np.clip(varied, 0, 1)
