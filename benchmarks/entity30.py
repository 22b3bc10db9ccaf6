"""Entity-30: learn things from some of their kinds; be tested on other kinds (BREEDS, ICLR 2021)."""

from ._breeds import Breeds, card


class Entity30(Breeds):
    """30 superclasses of 4 source and 4 target classes of ImageNet each. Maps, names and prompts: `_breeds.py`."""

    key = "entity30"
    card = card("Entity-30 (BREEDS)", 30, 4)
