"""What people get wrong in a `suite.toml` and in the folders it names, and what the answer must say.

Decoding comes later, so images are empty files here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

CLASSES = ("cat", "dog", "old_fox")
BASE = 'name = "pets"\ntrain = "train"\n[shifts]\nnight = "night"\n'
CSV = "path,label,camera\nheap/a.png,cat,north\nheap/b.png,dog,south\nheap/c.png,dog,south\n"
FIELD = BASE.replace('"night"', '"field.csv"')
RUN = "run --method ft --suite TMP/pets/suite.toml --out TMP/out"


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    to: str


@dataclass(frozen=True)
class Case:
    """A suite file, what each line of the answer must contain, what is changed in the folder (None: taken away)."""

    toml: str | bytes | None
    lines: tuple[str, ...]
    files: Mapping[str, str | bytes | Link | None] = field(default_factory=dict[str, "str | bytes | Link | None"])
    words: str = RUN


def build(folder: Path, case: Case) -> None:
    """The sound base (train and night with three classes, a heap with a manifest), broken as the case says."""
    files: dict[str, str | bytes | Link | None] = {
        f"{split}/{name}/{k}.png": b""
        for split, n in (("train", 6), ("night", 2))
        for name in CLASSES
        for k in range(n)
    }
    files |= {f"heap/{k}.png": b"" for k in "abc"} | {"field.csv": CSV, "suite.toml": case.toml} | {**case.files}
    for name, content in files.items():
        if content is None:
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            path.symlink_to(content.to)
        elif name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)


def toml(*lines: str, base: str = BASE) -> str:
    """The base with further top-level lines."""
    return "\n".join((*lines, base))


def manifest(content: str | bytes | None, *lines: str, name: str = "field.csv") -> Case:
    return Case(FIELD.replace("field.csv", name), lines, {name: content})


FILES = {
    "no file": Case(None, ("no suite file TMP/pets/suite.toml: `rbft new suite FOLDER` writes one",)),
    "no folder": Case(BASE, ("no suite file TMP/cats/suite.toml",), words=RUN.replace("pets", "cats")),
    "folder without a file": Case(None, ("no suite file TMP/pets/suite.toml",), words="show TMP/pets"),
    "no TOML": Case("name = [", ("TMP/pets/suite.toml is not valid TOML: ",)),
    "a key twice": Case(toml('name = "pets"'), ("suite.toml is not valid TOML: ",)),
    "no UTF-8": Case(
        'name = "m\xfcll"'.encode("latin-1"), ("suite.toml is not UTF-8 text (byte 9); save it as UTF-8",)
    ),
    "looping file": Case(
        None, ("cannot read the suite file TMP/pets/suite.toml: ",), {"suite.toml": Link("suite.toml")}
    ),
    "empty": Case(
        "", ("key 'name' is missing: write a word", "'train' is missing: write a folder", "'shifts' is missing")
    ),
}

KEYS = {
    "unknown key": Case(toml("shift = 1"), ("suite.toml: unknown key 'shift': did you mean shifts",)),
    "all at once": Case(
        toml("metrics = 1", "val = true", "groups = 3", 'underscores = "no"', "title = 5"),
        (
            "unknown key 'metrics': did you mean metric",
            "val is true: write a folder, a manifest, or what to hold out",
            "groups is 3: write a list of columns",
            'underscores is "no": write "spaces" or "keep"',
            "title is 5: write a text",
        ),
    ),
    "train is a number": Case(
        BASE.replace('"train"', "3"), ("train is 3: write a folder of class folders or a manifest",)
    ),
    "shifts is a list": Case(
        'name = "p"\ntrain = "train"\nshifts = ["night"]', ('shifts is ["night"]: write a table of',)
    ),
    "no shift": Case(
        BASE.replace('night = "night"\n', ""), ("shifts is empty: name at least one place to be tested on",)
    ),
    "place with an unknown key": Case(
        BASE.replace('"night"', '{path = "night", wher = {a = "b"}}'),
        ("shifts.night: unknown key 'wher': did you mean where",),
    ),
    "place without a path": Case(BASE.replace('"night"', '{images = "x"}'), ("shifts is {",)),
    "where of a folder": Case(
        BASE.replace('"night"', '{path = "night", where = {a = "b"}}'),
        ("night: 'images' and 'where' belong to a manifest (.csv or .json), and night is none",),
    ),
    "name": Case(toml(base=BASE.replace('"pets"', '"my/pets"')), ("name: 'my/pets' cannot name a folder of records",)),
    "registered name": Case(
        BASE.replace('"pets"', '"shapes"'), ("'shapes' is the name of a registered suite; give it",)
    ),
    "shift name": Case(BASE.replace("night =", '"night@home" ='), ("shifts: 'night@home' cannot name a folder of",)),
    "shift called test": Case(
        BASE.replace("night =", "test ="), ("'test' is named as a shift and as one of train, val, test",)
    ),
    "shift like a column": Case(
        BASE.replace("night =", "ID ="), ("'ID' is a column of every table: give the shift another name",)
    ),
    "shift like a device": Case(BASE.replace("night =", "nul ="), ("shifts: 'nul' cannot name a folder of records",)),
    "shift and extra": Case(f'{BASE}[extra]\nnight = "night"', ("'night' is in shifts and in extra: keep one",)),
    "own classes of train": Case(
        toml(base=BASE.replace('"train"', '{path = "train", own_classes = true}')),
        ("train: own_classes belongs to a shift",),
    ),
    "version": Case(toml("version = 0"), ("version is 0: write a whole number from 1",)),
    "share": Case(toml("val = 0", "test = 1.5"), ("val is 0: write a folder", "test is 1.5: write a folder")),
    "template without {}": Case(
        toml('templates = ["a photo", "a {} photo"]'),
        ("templates: 'a photo' needs words and one {}, where the class name",),
    ),
    "template with two {}": Case(toml('templates = ["{} and {}"]'), ("templates: '{} and {}' needs words and one {}",)),
    "template with {name}": Case(toml('templates = "a {name}"'), ("templates: 'a {name}' needs words and one {}",)),
    "templates by a wrong name": Case(
        toml('templates = "openai-8"'), ("unknown list of templates 'openai-8': did you mean openai-80",)
    ),
    "no templates": Case(toml("templates = []"), ("templates is empty: write one of openai-7 and openai-80",)),
    "metric": Case(toml('metric = "macro-f1"'), ("metric: unknown metric 'macro-f1': did you mean macro_f1",)),
    "metric of an unknown split": Case(
        f'{BASE}[metric]\nnigt = "macro_f1"', ("metric: unknown split 'nigt': did you mean night",)
    ),
    "group metric of folders": Case(
        f'{BASE}[metric]\nnight = "worst_group:camera"',
        ("split 'night' is a folder and has no column 'camera': list its",),
    ),
    "groups of folders": Case(
        toml('groups = ["camera"]'), ("groups names columns (camera) but no evaluated split is a manifest",)
    ),
    "clusters of an unknown split": Case(
        f'{BASE}[clusters]\ndawn = "camera"', ("clusters: unknown split 'dawn': known:",)
    ),
    "shift group": Case(
        f'{BASE}[shift_groups]\ndark = ["nite"]', ("shift_groups.dark: unknown shift 'nite': did you mean night",)
    ),
    "recipe key": Case(f"{BASE}[recipe]\nlearning_rate = 1e-3", ("recipe: unknown setting 'learning_rate': known:",)),
    "recipe values": Case(
        f"{BASE}[recipe]\nlr = -1.0\nbatch = 0", ("recipe: lr must be above 0", "recipe: batch must be at")
    ),
    "recipe type": Case(
        f'{BASE}[recipe]\nlr = "fast"\naugment = "flip"', ('recipe: lr is "fast": ', 'recipe: augment is "flip": ')
    ),
    "recipe without end": Case(f"{BASE}[recipe]\nlr = inf", ("recipe: every number must be finite",)),
}

CLASS_LISTS = {
    "a class twice": Case(toml('classes = ["cat", "dog", "old_fox", "cat"]'), ("classes names the class 'cat' twice",)),
    "one class": Case(toml('classes = ["cat"]'), ("classes has 1 class: a suite needs two at least",)),
    "the same name in prompts": Case(
        toml('classes = ["cat", "dog", "old_fox", "old fox"]'),
        ("'old_fox' and 'old fox' are both 'old fox' in prompts",),
    ),
    "no such file": Case(
        toml('classes = "names.txt"'), ("classes: no file TMP/pets/names.txt; write one class on each",)
    ),
    "file of another kind": Case(
        toml('classes = "names.yaml"'), ("classes: TMP/pets/names.yaml is neither .txt nor .json",)
    ),
    "file that is no list": Case(
        toml('classes = "names.json"'),
        ("TMP/pets/names.json is no list of class names: ",),
        {"names.json": '[["cat"]]'},
    ),
    "a class that train lacks": Case(
        toml('classes = ["cat", "dog", "old_fox", "owl"]'),
        ("TMP/pets/train has no image of owl: add some, take the class out of `classes`, or write incomplete = true",),
    ),
    "a folder that is no class": Case(
        toml('classes = ["cat", "old_fox"]'), ("TMP/pets/train: unknown class 'dog': known: cat, old_fox; add it",)
    ),
    "a class in a shift that train has not": Case(
        BASE,
        ("TMP/pets/night: unknown class 'dogs': did you mean dog? known: cat, dog, old_fox; add it to train and",),
        {"night/dogs/1.png": b""},
    ),
    "numbers for names": Case(
        BASE.replace('"train"', '"numbered"'),
        ("TMP/pets/numbered calls its classes 0, 1: prompts need names; add [classes]",),
        {f"numbered/{k}/{i}.png": b"" for k in (0, 1) for i in range(5)},
    ),
}

FOLDERS = {
    "missing folders": Case(
        BASE.replace('"train"', '"trian"').replace('"night"', '"nihgt"'),
        (
            "train: no TMP/pets/trian here (No such file or directory): correct the path",
            "night: no TMP/pets/nihgt here",
        ),
    ),
    "outside and not there": Case(
        BASE.replace('"night"', '"../../nowhere"'), ("night: no TMP/pets/../../nowhere here",)
    ),
    "absolute and not there": Case(BASE.replace('"night"', '"/nowhere/night"'), ("night: no /nowhere/night here",)),
    "empty folder": Case(
        BASE.replace('"night"', '"dawn"'),
        ("night: TMP/pets/dawn holds no class folder: make one for each",),
        {"dawn/": b""},
    ),
    "empty class folder": Case(
        BASE, ("night: TMP/pets/night/owl holds no image: put some there or remove",), {"night/owl/": b""}
    ),
    "loose image": Case(
        BASE, ("TMP/pets/night/x.png lies outside the class folders: move it into",), {"night/x.png": b""}
    ),
    "loose text": Case(
        BASE, ("TMP/pets/train/list.txt is neither a class folder nor an image",), {"train/list.txt": b""}
    ),
    "one level too high": Case(
        BASE.replace('"train"', '"up"'),
        ("TMP/pets/up/train/cat is a folder where only images belong; move it away",),
        {"up/train/cat/1.png": b""},
    ),
    "no image by its name": Case(
        BASE, ("TMP/pets/train/cat/notes.doc is not an image by its name",), {"train/cat/notes.doc": b""}
    ),
    "a folder twice": Case(
        BASE.replace('"night"', '"train"'), ("TMP/pets/train/cat/0.png is in train and in night: an image counts once",)
    ),
    "a folder twice by a link": Case(
        BASE.replace('"night"', '"dawn"'),
        ("TMP/pets/train/cat/0.png is in train and in night (as TMP/pets/dawn/cat/0.png)",),
        {"dawn": Link("train")},
    ),
    "one image twice": Case(
        BASE,
        ("0.png is in train and in night (as TMP/pets/night/cat/9.png): an image counts once",),
        {"night/cat/9.png": Link("../../train/cat/0.png")},
    ),
    "loop of links": Case(
        BASE, ("TMP/pets/night/cat/loop.png is a broken link or a loop",), {"night/cat/loop.png": Link("loop.png")}
    ),
    "loop of folders": Case(BASE, ("night: TMP/pets/night/up/",), {"night/up": Link("../night")}),
    "looping split": Case(
        BASE.replace('"night"', '"loop"'), ("night: no TMP/pets/loop here (",), {"loop": Link("loop")}
    ),
    "a file for a folder": Case(
        BASE.replace('"night"', '"night.txt"'), ("night.txt is a file of no known kind",), {"night.txt": b"x"}
    ),
    "one image a class": Case(
        BASE.replace('"train"', '"few"'),
        ("test: TMP/pets/few has one image a class, none to hold out",),
        {f"few/{name}/1.png": b"" for name in CLASSES},
    ),
    "one image in a shift": Case(
        BASE.replace('"night"', '"one"'),
        ("TMP/pets/one gives split 'night' one image, which has no interval",),
        {"one/cat/1.png": b""},
    ),
}

MANIFESTS = {
    "no CSV here": manifest(None, "night: no TMP/pets/field.csv here (No such file or directory)"),
    "empty CSV": manifest("", "night: TMP/pets/field.csv is empty"),
    "no header": manifest(
        "heap/a.png,cat\nheap/b.png,dog\n", "field.csv has no column 'path': its columns are heap/a.png, cat"
    ),
    "header alone": manifest("path,label\n", "field.csv has no row under its header"),
    "semicolons": manifest(CSV.replace(",", ";"), "field.csv has no column 'path': its columns are path;label;camera"),
    "a column twice": manifest("path,label,label\na.png,cat,cat\n", "field.csv has two columns 'label'"),
    "too many cells": manifest("path,label\nheap/a.png,cat,dog\n", "field.csv, line 2: 3 cells under 2 columns"),
    "not UTF-8": manifest(
        CSV.replace("north", "n\xf6rd").encode("latin-1"), "field.csv is not UTF-8 text (byte 34); save it"
    ),
    "missing image": manifest(
        CSV.replace("/b.png", "/z.png"),
        "field.csv names 1 image not under TMP/pets: heap/z.png; correct the paths or put",
    ),
    "an image twice": manifest(
        CSV.replace("/b.png", "/./a.png"), "field.csv names 'heap/a.png' twice; each image counts once"
    ),
    "absolute path": manifest(
        CSV.replace("heap/a", "/data/a"), "names /data/a.png: write paths relative to the manifest"
    ),
    "drive letter": manifest(
        CSV.replace("heap/a", "D:/a"), "field.csv names D:/a.png: write paths relative to the manifest"
    ),
    "backslash": manifest(CSV.replace("heap/a", "heap\\a"), r"field.csv names heap\a.png: write '/' between folders"),
    "no image name": manifest(
        CSV.replace("a.png", "a.txt"), "field.csv names heap/a.txt, no image by its name; known: .bmp"
    ),
    "no path": manifest(CSV.replace("heap/a.png", ""), "field.csv has a row without a path; fill it in"),
    "no label": manifest(CSV.replace("cat", ""), "field.csv gives heap/a.png no label; fill in 'label'"),
    "label out of range": manifest(CSV.replace("cat", "3"), "field.csv has label 3, outside 0..2; correct it"),
    "unknown label": manifest(CSV.replace("cat", "cta"), "field.csv: unknown class 'cta': did you mean cat"),
    "no JSON": manifest("[{]", "field.json is not valid JSON: ", name="field.json"),
    "JSON that is no list": manifest("3", "field.json is no list of images: write a list such as", name="field.json"),
    "JSON of lists": manifest(
        '[["a.png", "cat"]]', "field.json, entry 1 is no object: write a list", name="field.json"
    ),
    "JSON with a key twice": manifest(
        '{"heap/a.png": "cat", "heap/a.png": "dog"}',
        "field.json names 'heap/a.png' twice in one object",
        name="field.json",
    ),
    "JSON with a fraction": manifest(
        '{"heap/a.png": 1.5}', "field.json, entry 1: 'label' is 1.5; write a text or a whole number", name="field.json"
    ),
    "JSON with a hole": manifest(
        '[{"path": "heap/a.png", "label": "cat"}, {"path": "heap/b.png"}]',
        "entry 2 has no 'label', which others have",
        name="field.json",
    ),
    "no such column": Case(
        toml('groups = ["site"]', base=FIELD), ("field.csv has no column 'site' (split 'night'): add it",)
    ),
    "no column for the metric": Case(
        f'{FIELD}[metric]\nnight = "worst_group:site"', ("field.csv has no column 'site' (split 'night')",)
    ),
    "empty column": Case(
        f'{FIELD}[metric]\nnight = "worst_group:camera"',
        ("field.csv: column 'camera' is empty; fill it in, or name another",),
        {"field.csv": CSV.replace("north", "").replace("south", "")},
    ),
    "hole in a cluster": Case(
        f'{FIELD}[clusters]\nnight = "camera"',
        ("field.csv: 'camera' of night/heap/a.png is empty; fill it in",),
        {"field.csv": CSV.replace("north", "")},
    ),
    "one cluster": Case(
        f'{FIELD}[clusters]\nnight = "camera"',
        ("field.csv: 'camera' is the same for all of split 'night', and one cluster",),
        {"field.csv": CSV.replace("north", "south")},
    ),
    "wrong column name": Case(
        f'{FIELD}[columns]\nlabel = "species"',
        ("field.csv has no column 'species': its columns are path, label, camera",),
    ),
    "no row": Case(
        FIELD.replace('"field.csv"', '{path = "field.csv", where = {camera = "west"}}'),
        ("field.csv has no row where camera is west; 'camera' is north, south",),
    ),
    "images elsewhere": Case(
        FIELD.replace('"field.csv"', '{path = "field.csv", images = "pool"}'),
        ("TMP/pets/pool is not a folder: correct 'images'",),
    ),
    "a split and a manifest of its files": Case(
        FIELD,
        ("0.png is in train and in night: an image counts once",),
        {"field.csv": "path,label\ntrain/cat/0.png,cat\nheap/a.png,cat\n"},
    ),
}

NEW = {
    "new over an old file": Case(
        BASE, ("suite.toml exists and is not overwritten; edit it",), words="new suite TMP/pets"
    ),
    "new without a folder": Case(BASE, ("no folder TMP/cats: name the one that holds",), words="new suite TMP/cats"),
    "new without train": Case(
        None,
        ("has no split 'learn' to learn from (there: field.csv, night, train)",),
        words="new suite TMP/pets --train learn",
    ),
    "new with a broken train": Case(
        None, ("TMP/pets/train/x.png lies outside the class folders",), {"train/x.png": b""}, "new suite TMP/pets"
    ),
    "new without a shift": Case(
        None,
        ("TMP/pets/train holds no shift beside ",),
        {f"train/{s}/{c}/{k}.png": b"" for s in ("train", "val") for c in CLASSES for k in "ab"},
        "new suite TMP/pets/train",
    ),
    "a bare folder's name": Case(
        BASE,
        ("no suite 'pets' is registered, but a folder is called so: write ./pets",),
        words="run --method ft --suite pets",
    ),
}

CASES = FILES | KEYS | CLASS_LISTS | FOLDERS | MANIFESTS | NEW
