"""A first `suite.toml` for a folder of splits: what lies there, with comments, for its owner to correct."""

import json
from dataclasses import dataclass
from pathlib import Path

from robustbench_ft.errors import MissingDataError, RbftError

from .form import FILE, ID, NAME, Columns, Place
from .listing import listed

GUESSES = {
    "train": ("train", "training", "id_train"),
    "val": ("val", "valid", "validation", "id_val"),
    "test": ("test", "testing", "id_test"),
}
HELD = {"val": "0.1", "test": "0.2"}
BATCH, EPOCHS = 64, 10
FEWEST = 200  # steps; ten epochs of some dozen images are ten steps, which move no answer


@dataclass(frozen=True)
class Seen:
    """A folder of class folders or a manifest that could be a split."""

    name: str  # in the folder
    classes: tuple[str, ...]
    n: int

    @property
    def split(self) -> str:
        return self.name.rsplit(".", 1)[0] if self.name.lower().endswith((".csv", ".json")) else self.name


def write(folder: Path, train: str | None = None, name: str | None = None) -> Path:
    """Write `folder/suite.toml`, which must not exist, and return its path."""
    if not folder.is_dir():
        raise MissingDataError(f"no folder {folder}: name the one that holds your train folder and your shifts")
    file = folder / FILE
    text = draft(folder, train, name)
    try:
        with file.open("x", encoding="utf-8") as target:
            target.write(text)
    except FileExistsError as error:
        raise RbftError(f"{file} exists and is not overwritten; edit it, or move it away") from error
    except OSError as error:
        raise RbftError(f"cannot write {file}: {error.strerror}; correct the folder's rights") from error
    return file


def draft(folder: Path, train: str | None = None, name: str | None = None) -> str:
    """The text for a folder in which one split is called train, or as `train` says."""
    seen, left = look(folder)
    for split, reason in left.items():
        if split.rsplit(".", 1)[0].lower() in sum(GUESSES.values(), (train or "",)):
            raise MissingDataError(reason)
    roles = {role: next((s for s in seen if s.split.lower() in names), None) for role, names in GUESSES.items()}
    if train is not None:
        roles["train"] = next((s for s in seen if train in (s.name, s.split)), None)
    learned = roles["train"]
    if learned is None:
        there = ", ".join(s.name for s in seen) or "nothing that holds class folders, and no manifest"
        raise MissingDataError(
            f"{folder} has no split '{train or 'train'}' to learn from (there: {there}): rename one or pass --train"
        )
    shifts = [s for s in seen if s not in roles.values()]
    if not shifts:
        raise MissingDataError(
            f"{folder} holds no shift beside {', '.join(s.name for s in seen)}: put each shifted test set into a "
            "folder of its own, sorted by class"
        )
    for shift in shifts:
        if not NAME.fullmatch(shift.split) or shift.split in ID:
            raise RbftError(f"{folder / shift.name} cannot name a shift: rename it, with letters, digits, _, . and -")
    lines = [
        "# What the keys mean: docs/custom-suite.md of robustbench_ft. Are file and images sound: `rbft data check`.",
        f"name = {_text(name or _word(folder))}",
        "version = 1  # raise it when you change the images on purpose: numbers of two versions never meet",
        'licence = "not stated"',
        "",
        _split_line("train", learned),
    ]
    for role in ("test", "val"):
        found = roles[role]
        share = f"{role} = {HELD[role]}  # held out of train: this share of each class; or a folder of its own"
        lines.append(share if found is None else _split_line(role, found))
    lines += ["", 'templates = "openai-7"  # or "openai-80", or your own: ["a photo of a {}"]']
    lines += ['metric = "accuracy"  # or macro_f1, macro_recall; with manifests also worst_group:COLUMN']
    lines += ["", "[shifts]  # where the model is tested and never trained"]
    lines += [f"{_text(s.split)} = {_text(s.name)}  # {_size(s)}" for s in shifts]
    lines += [f"# no split: {' '.join(reason.split())}" for reason in left.values()]
    lines += ["", "[classes]  # folder = what prompts call it; their order is the order of labels"]
    lines += [f"{_text(key)} = {_text(key.replace('_', ' '))}" for key in learned.classes]
    lines += ["", "[recipe]  # how long and how fast: choose on ID validation, e.g. with --set lr=1e-5 --set lr=3e-5"]
    lines += _recipe(learned)
    return "\n".join(lines) + "\n"


def look(folder: Path) -> tuple[list[Seen], dict[str, str]]:
    """(folders and manifests that can be a split, name -> why not for the others)"""
    found: list[Seen] = []
    left: dict[str, str] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or not (entry.is_dir() or Place(entry.name).is_manifest):
            continue
        try:
            images = listed(folder, Place(entry.name), Columns())
        except RbftError as error:
            left[entry.name] = str(error)
        else:
            found.append(Seen(entry.name, tuple(sorted(set(images.labels))), len(images.paths)))
    return found, left


def _recipe(learned: Seen) -> list[str]:
    """The published rate, and steps enough for so many images."""
    enough = EPOCHS * (learned.n // BATCH) >= FEWEST
    length = f"epochs = {EPOCHS}" if enough else f"steps = {FEWEST}  # few images: {EPOCHS} epochs would be few steps"
    return ["lr = 1e-5", length, f"batch = {BATCH}"]


def _split_line(role: str, seen: Seen) -> str:
    return f"{role} = {_text(seen.name)}  # {_size(seen)}"


def _size(seen: Seen) -> str:
    return f"{seen.n:,} images of {len(seen.classes)} classes"


def _word(folder: Path) -> str:
    kept = "".join(c if NAME.fullmatch(f"a{c}") else "-" for c in folder.absolute().name.lower()).strip("-._")
    return kept or "my-suite"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
