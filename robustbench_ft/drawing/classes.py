"""What can be drawn and what it usually looks like: class names, colours, backgrounds and their habits."""

from dataclasses import dataclass

OBJECTS = (
    "house", "tree", "pine", "car", "truck", "bus", "fish", "bird", "cat", "rabbit", "mug", "bottle", "umbrella",
    "mushroom", "flower", "key", "hammer", "sword", "chair", "bicycle", "boat", "plane", "rocket", "clock", "envelope",
    "apple", "cactus", "butterfly", "snowman", "icecream", "lamp", "glasses",
)  # fmt: skip
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGIT_NAMES = DIGITS  # what a digit is called in prompts
CLASSES = OBJECTS + DIGITS
DOMAINS = ("real", "painting", "clipart", "infograph", "sketch", "quickdraw")

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (205, 40, 40),
    "orange": (235, 130, 30),
    "yellow": (240, 205, 50),
    "green": (50, 150, 60),
    "blue": (45, 85, 200),
    "cyan": (70, 185, 215),
    "purple": (125, 55, 165),
    "pink": (240, 130, 170),
    "brown": (125, 75, 40),
    "black": (40, 40, 45),
    "white": (240, 240, 235),
    "gray": (140, 140, 145),
}


@dataclass(frozen=True)
class Background:
    """A place: one colour above a horizon, one below it, and how a caption speaks of it."""

    above: Colour
    below: Colour
    phrases: tuple[str, ...]


BACKGROUNDS: dict[str, Background] = {
    "sky": Background((110, 165, 225), (185, 210, 235), ("in the sky", "under a blue sky")),
    "grass": Background((150, 190, 215), (85, 135, 60), ("on the grass", "in a field")),
    "water": Background((150, 190, 220), (40, 95, 145), ("in the water", "by the sea")),
    "road": Background((165, 170, 180), (95, 95, 100), ("on the road", "in the street")),
    "wall": Background((200, 185, 165), (150, 120, 95), ("on a table", "in a room")),
    "night": Background((18, 22, 50), (40, 40, 70), ("at night", "in the dark")),
    "snow": Background((185, 200, 220), (228, 232, 240), ("in the snow", "in winter")),
    "desert": Background((175, 205, 225), (205, 170, 115), ("in the desert", "on the sand")),
    "wood": Background((120, 85, 55), (150, 105, 65), ("on wood", "in the forest")),
}


@dataclass(frozen=True)
class Habit:
    """The usual colours and places of a class: context that photographs are full of and drawings lack."""

    main: tuple[str, ...]
    second: str
    accent: str
    places: tuple[str, ...]


HABITS: dict[str, Habit] = {
    "house": Habit(("white", "yellow", "red"), "brown", "blue", ("grass", "snow")),
    "tree": Habit(("green",), "brown", "red", ("grass", "sky")),
    "pine": Habit(("green",), "brown", "yellow", ("snow", "wood")),
    "car": Habit(("red", "blue", "gray"), "gray", "yellow", ("road",)),
    "truck": Habit(("white", "orange"), "blue", "yellow", ("road", "desert")),
    "bus": Habit(("yellow", "red"), "white", "orange", ("road", "night")),
    "fish": Habit(("orange", "blue"), "yellow", "white", ("water",)),
    "bird": Habit(("blue", "brown"), "gray", "orange", ("sky", "wood")),
    "cat": Habit(("black", "orange", "gray"), "white", "pink", ("wall", "grass")),
    "rabbit": Habit(("white", "brown"), "gray", "pink", ("grass", "snow")),
    "mug": Habit(("white", "blue"), "red", "yellow", ("wall", "wood")),
    "bottle": Habit(("green", "brown"), "white", "red", ("wall", "wood")),
    "umbrella": Habit(("red", "black"), "yellow", "white", ("road", "water")),
    "mushroom": Habit(("red", "brown"), "pink", "white", ("wood", "grass")),
    "flower": Habit(("pink", "purple", "yellow"), "green", "orange", ("grass",)),
    "key": Habit(("yellow", "gray"), "brown", "black", ("wall", "wood")),
    "hammer": Habit(("gray", "black"), "brown", "red", ("wood",)),
    "sword": Habit(("gray", "white"), "brown", "yellow", ("night", "desert")),
    "chair": Habit(("brown", "red"), "brown", "white", ("wall",)),
    "bicycle": Habit(("blue", "red"), "black", "gray", ("road", "grass")),
    "boat": Habit(("white", "brown", "blue"), "white", "red", ("water",)),
    "plane": Habit(("white", "gray"), "gray", "blue", ("sky",)),
    "rocket": Habit(("white", "gray"), "red", "orange", ("night", "sky")),
    "clock": Habit(("brown", "black"), "yellow", "red", ("wall",)),
    "envelope": Habit(("white", "yellow"), "gray", "red", ("wall", "wood")),
    "apple": Habit(("red", "green"), "green", "white", ("wood", "wall")),
    "cactus": Habit(("green",), "orange", "pink", ("desert",)),
    "butterfly": Habit(("orange", "blue", "purple"), "yellow", "white", ("grass", "sky")),
    "snowman": Habit(("white",), "red", "orange", ("snow",)),
    "icecream": Habit(("pink", "white"), "orange", "brown", ("sky", "desert")),
    "lamp": Habit(("yellow", "orange"), "black", "white", ("night", "wall")),
    "glasses": Habit(("black", "brown"), "gray", "blue", ("wall", "desert")),
    **{digit: Habit(("black", "blue", "red"), "gray", "yellow", ("wall", "road")) for digit in DIGITS},
}
