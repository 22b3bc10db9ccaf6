"""Living-17: learn animals from some of their breeds; be tested on other breeds (BREEDS, ICLR 2021)."""

from ._breeds import Breeds, card


class Living17(Breeds):
    """17 superclasses of 2 source and 2 target classes of ImageNet each. Maps, names and prompts: `_breeds.py`."""

    key = "living17"
    card = card("Living-17 (BREEDS)", 17, 2)
