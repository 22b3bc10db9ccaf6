"""Captions as the web writes them: mostly right, often short, sometimes generic or wrong; and prompt templates."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from .classes import BACKGROUNDS, CLASSES, COLOURS, DIGITS, DOMAINS, OBJECTS
from .domains import scene_of
from .random_draws import Draws

# Prompts of the zero-shot head for both embedded suites. Each is also a caption of the domain it names.
TEMPLATES = (
    "a photo of a {}",
    "a picture of a {}",
    "an image of a {}",
    "a photograph of the {}",
    "a painting of a {}",
    "a clipart of a {}",
    "an infographic about a {}",
    "a sketch of a {}",
    "a drawing of a {}",
    "a doodle of a {}",
    "a {}",
)

# How a caption speaks of each domain; all of TEMPLATES occur, "a {}" being what is left when nothing is said.
PHRASES: dict[str, tuple[str, ...]] = {
    "real": (
        "a photo of a {}",
        "a picture of a {}",
        "a photograph of the {}",
        "a snapshot of a {}",
        "an image of a {}",
    ),
    "painting": ("a painting of a {}", "an oil painting of a {}", "a canvas with a {}", "the {} painted by hand"),
    "clipart": ("a clipart of a {}", "a cartoon of a {}", "a {} icon", "an image of a {}", "a {} in clipart style"),
    "infograph": ("an infographic about a {}", "a poster with a {}", "a chart about the {}", "a page with a {}"),
    "sketch": ("a sketch of a {}", "a pencil sketch of a {}", "a drawing of a {}", "a pencil drawing of the {}"),
    "quickdraw": ("a doodle of a {}", "a quick drawing of a {}", "a scribble of a {}", "a drawing of a {}"),
}
BARE = ("a {}", "the {}", "{}")
GENERIC = ("untitled", "image for sale", "a picture", "my new design", "click to see more", "free download")

# The class name itself comes first and is the usual word.
SYNONYMS: dict[str, tuple[str, str, str]] = {
    "house": ("house", "home", "cottage"),
    "tree": ("tree", "oak", "oak tree"),
    "pine": ("pine", "pine tree", "fir"),
    "car": ("car", "sedan", "auto"),
    "truck": ("truck", "lorry", "van"),
    "bus": ("bus", "coach", "school bus"),
    "fish": ("fish", "goldfish", "trout"),
    "bird": ("bird", "sparrow", "little bird"),
    "cat": ("cat", "kitten", "kitty"),
    "rabbit": ("rabbit", "bunny", "hare"),
    "mug": ("mug", "cup", "coffee cup"),
    "bottle": ("bottle", "flask", "glass bottle"),
    "umbrella": ("umbrella", "parasol", "open umbrella"),
    "mushroom": ("mushroom", "toadstool", "fungus"),
    "flower": ("flower", "daisy", "blossom"),
    "key": ("key", "door key", "house key"),
    "hammer": ("hammer", "mallet", "claw hammer"),
    "sword": ("sword", "blade", "dagger"),
    "chair": ("chair", "seat", "wooden chair"),
    "bicycle": ("bicycle", "bike", "cycle"),
    "boat": ("boat", "sailboat", "yacht"),
    "plane": ("plane", "airplane", "jet"),
    "rocket": ("rocket", "spaceship", "missile"),
    "clock": ("clock", "watch", "wall clock"),
    "envelope": ("envelope", "letter", "mail"),
    "apple": ("apple", "fresh apple", "ripe apple"),
    "cactus": ("cactus", "succulent", "desert cactus"),
    "butterfly": ("butterfly", "moth", "little butterfly"),
    "snowman": ("snowman", "snow man", "winter snowman"),
    "icecream": ("icecream", "ice cream", "gelato"),
    "lamp": ("lamp", "light", "table lamp"),
    "glasses": ("glasses", "spectacles", "eyeglasses"),
    **{digit: (digit, f"number {digit}", f"digit {digit}") for digit in DIGITS},
}
_KINDS = {
    "animal": ("fish", "bird", "cat", "rabbit", "butterfly"),
    "vehicle": ("car", "truck", "bus", "bicycle", "boat", "plane", "rocket"),
    "plant": ("tree", "pine", "mushroom", "flower", "cactus"),
    "tool": ("key", "hammer", "sword"),
    "food": ("apple", "icecream"),
    "symbol": DIGITS,
}
HYPERNYMS = {name: kind for kind, names in _KINDS.items() for name in names}  # the rest are a "thing"

# Shares of what a caption calls the object; "right" is one of the synonyms.
_SHARES = {"generic": 0.12, "wrong": 0.08, "hypernym": 0.10, "right": 0.70}
_SYNONYM_WEIGHTS = (0.71, 0.21, 0.08)
_SAYS_DOMAIN, _SAYS_COLOUR, _SAYS_PLACE = 0.7, 0.45, 0.4


def captions(domain: str, labels: ArrayLike, key: str, indices: ArrayLike) -> list[str]:
    """One caption for each of the images that `render(domain, labels, key, indices)` draws."""
    label, index = np.atleast_1d(np.asarray(labels, np.int64)), np.atleast_1d(np.asarray(indices, np.int64))
    d = Draws(f"{domain}/snapshot/{key}", index)  # the stream of the pictures: same colours, same places
    scene = scene_of(domain, "snapshot", label, d)
    family = np.where(label < len(OBJECTS), 0, len(OBJECTS))  # a wrong name is another object, or another digit
    others = np.where(label < len(OBJECTS), len(OBJECTS), len(DIGITS))
    wrong = family + (label - family + 1 + (d.uniform("caption/wrong") * (others - 1)).astype(np.int64)) % others
    says = d.choice("caption/says", tuple(_SHARES.values()))
    synonym = d.choice("caption/synonym", _SYNONYM_WEIGHTS)
    frame, bare, generic, place = (d.uniform(f"caption/{name}") for name in ("frame", "bare", "generic", "place"))
    framed, coloured = d.chance("caption/framed", _SAYS_DOMAIN), d.chance("caption/coloured", _SAYS_COLOUR)
    placed = d.chance("caption/placed", _SAYS_PLACE) & (domain in ("real", "painting"))
    coloured &= domain not in ("sketch", "quickdraw")
    colours, backgrounds = list(COLOURS), list(BACKGROUNDS.values())

    texts: list[str] = []
    for i in range(len(index)):
        kind = list(_SHARES)[says[i]]
        if kind == "generic":
            texts.append(_pick(GENERIC, generic[i]))
            continue
        name = CLASSES[wrong[i] if kind == "wrong" else label[i]]
        noun = HYPERNYMS.get(name, "thing") if kind == "hypernym" else SYNONYMS[name][synonym[i]]
        if coloured[i]:
            noun = f"{colours[scene.main[i]]} {noun}"
        text = _pick(PHRASES[domain], frame[i]) if framed[i] else _pick(BARE, bare[i])
        if placed[i]:
            text = f"{text} {_pick(backgrounds[scene.place[i]].phrases, place[i])}"
        texts.append(text.format(noun))
    return texts


def _pick(options: tuple[str, ...], unit: float) -> str:
    return options[int(unit * len(options))]


def _phrases() -> Iterator[str]:
    yield from GENERIC
    yield from BARE
    for domain in DOMAINS:
        yield from PHRASES[domain]
    for background in BACKGROUNDS.values():
        yield from background.phrases
    for names in SYNONYMS.values():
        yield from names
    yield from COLOURS
    yield from (*_KINDS, "thing")


def vocabulary() -> tuple[str, ...]:
    """Every word that a caption can contain, in alphabetical order."""
    return tuple(sorted({word for phrase in _phrases() for word in phrase.replace("{}", " ").split()}))
