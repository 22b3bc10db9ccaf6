"""What may stand in a `suite.toml`: its keys and types, and everything that is wrong with a file in one go."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from pydantic import TypeAdapter, ValidationError

from robustbench_ft import file_names, toml
from robustbench_ft.errors import MissingDataError, PlanError, RbftError, unknown
from robustbench_ft.prompts import openai_templates, simple_templates
from robustbench_ft.recipe import Recipe
from robustbench_ft.recipe import overlay as recipe_overlay
from robustbench_ft.suite import ACCURACY, is_column

FILE = "suite.toml"
METRICS = (ACCURACY, "macro_f1", "macro_recall")
WORST = "worst_group:"  # and a column of the manifests
TEMPLATES = {"openai-7": simple_templates, "openai-80": openai_templates}
ID = ("train", "val", "test")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # it becomes a folder of records
# Small data and unknown content: the last step of a short cosine, mild crops, and no flip, which can change a label.
RECIPE = Recipe(
    lr=1e-5, weight_decay=0.1, epochs=10, batch=64, warmup_fraction=0.1, schedule="lipsum", clip_norm=1.0, head="unit",
    augment="crop", select="last",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Location of the images of a split."""

    path: str  # a folder of class folders, or a manifest: .csv or .json
    images: str = ""  # the folder that a manifest's paths start from, where that is not its own
    where: Mapping[str, str | int] = field(default_factory=dict[str, str | int])  # rows to take, e.g. {split = "train"}
    own_classes: bool = False  # of a shift: also scored among the classes it holds, and so is the ID test set

    @property
    def is_manifest(self) -> bool:
        return self.path.lower().endswith((".csv", ".json"))


@dataclass(frozen=True)
class Columns:
    """Names of the two columns of a manifest."""

    path: str = "path"
    label: str = "label"


@dataclass(frozen=True)
class Form:
    """A `suite.toml` whose every value is of its type and legal by itself."""

    name: str
    train: Place
    shifts: Mapping[str, Place]
    val: Place | float = 0.1  # a place, or what is held out of train: a share of each class, or images per class
    test: Place | float = 0.2
    extra: Mapping[str, Place] = field(default_factory=dict[str, Place])  # evaluated and stored, and in no mean
    classes: str | tuple[str, ...] | Mapping[str, str] = ()  # empty: the class folders (or labels) of train, sorted
    incomplete: bool = False  # whether train may lack classes
    underscores: Literal["spaces", "keep"] = "spaces"  # how folder names are read in prompts
    templates: str | tuple[str, ...] = "openai-7"
    columns: Columns = Columns()
    groups: tuple[str, ...] = ()  # columns of the manifests
    clusters: str | Mapping[str, str] = ""  # column whose images come together, of all evaluated splits or by split
    metric: str | Mapping[str, str] = ACCURACY
    shift_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    recipe: Recipe = RECIPE
    model: str = ""  # as `--model` takes it; empty: 'embedded' where it knows every word of the prompts, else CLIP
    pretrained: str = ""  # as `--pretrained` takes it
    version: int = 1
    title: str = ""
    paper: str = "not published"
    licence: str = "not stated"
    home: str = "beside its suite.toml"
    note: str = ""

    @property
    def tested(self) -> tuple[str, ...]:
        """Splits that numbers are reported on."""
        return ("test", *self.shifts, *self.extra)

    @property
    def places(self) -> dict[str, Place]:
        """Split -> where it is, for those that are not held out of train."""
        own = {"train": self.train, "val": self.val, "test": self.test}
        return {name: place for name, place in own.items() if isinstance(place, Place)} | {**self.shifts, **self.extra}

    @property
    def prompts(self) -> tuple[str, ...]:
        """Templates, each with one {}."""
        if isinstance(self.templates, str):
            return TEMPLATES[self.templates]() if self.templates in TEMPLATES else (self.templates,)
        return self.templates

    @property
    def metrics(self) -> dict[str, str]:
        """Split -> official metric, where that is not accuracy."""
        named = dict.fromkeys(self.tested, self.metric) if isinstance(self.metric, str) else self.metric
        return {split: metric for split, metric in named.items() if metric != ACCURACY}

    @property
    def cluster_columns(self) -> dict[str, str]:
        """Split -> column whose images come together."""
        if isinstance(self.clusters, str):
            return dict.fromkeys(self.tested, self.clusters) if self.clusters else {}
        return dict(self.clusters)

    def needed(self, split: str) -> tuple[str, ...]:
        """Group columns that a split must have."""
        named = [self.metrics[split].removeprefix(WORST)] if self.metrics.get(split, "").startswith(WORST) else []
        return tuple(dict.fromkeys((*named, *filter(None, (self.cluster_columns.get(split),)))))


EXPECTED = {
    "name": 'a word, e.g. name = "birds"',
    "train": 'a folder of class folders or a manifest, e.g. train = "train", or {path = "all.csv", where = {...}}',
    "val": 'a folder, a manifest, or what to hold out of train: val = 0.1 (a share of each class) or 5 (images)',
    "test": 'a folder, a manifest, or what to hold out of train: test = 0.2 (a share of each class) or 5 (images)',
    "shifts": 'a table of folders or manifests, e.g. [shifts] and below it night = "night"',
    "extra": 'a table of folders or manifests, as [shifts]',
    "classes": 'a list of names, a table FOLDER = "name in prompts", or the name of a .txt or .json file',
    "incomplete": "true or false",
    "underscores": '"spaces" or "keep"',
    "templates": 'one of openai-7 and openai-80, or a list such as ["a photo of a {}"]',
    "columns": '{path = "COLUMN", label = "COLUMN"}',
    "groups": 'a list of columns, e.g. groups = ["camera"]',
    "clusters": 'a column, or a table SPLIT = "COLUMN"',
    "metric": f'{", ".join(METRICS)} or {WORST}COLUMN, or a table of these by split',
    "shift_groups": 'a table of lists of shifts, e.g. weather = ["rain", "fog"]',
    "model": 'a model as --model takes it, e.g. model = "ViT-B-16" and pretrained = "openai"',
    "pretrained": 'an open_clip tag, a .safetensors file or "random", beside model = "ViT-B-16"',
    "version": "a whole number from 1",
}  # fmt: skip


def read_form(path: Path) -> Form:
    """The file at `path`, or `suite.toml` in that folder. Raises `PlanError` with all that is wrong, one line each."""
    file = path / FILE if path.is_dir() else path
    try:
        content: dict[str, Any] = toml.parse(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise MissingDataError(f"no suite file {file}: `rbft new suite FOLDER` writes one for your images") from error
    except UnicodeDecodeError as error:
        raise RbftError(f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise RbftError(
            f"cannot read the suite file {file}: {error.strerror}; correct its path or its rights"
        ) from error
    except ValueError as error:
        raise RbftError(f"{file} is not valid TOML: {error}; correct that line") from error
    problems: list[str] = []
    values = _typed(content, problems)
    if not problems:
        form = Form(**values)
        problems = _illegal(form)
        if not problems:
            return form
    raise PlanError(dict.fromkeys(f"{file}: {problem}" for problem in problems))


def _typed(content: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """Values by key, each of its field's type; what is not goes into `problems`."""
    hints, known = get_type_hints(Form), {f.name: f for f in fields(Form)}
    problems += [unknown("key", key, known) for key in content if key not in known]
    lacking = [name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    problems += [f"key '{name}' is missing: write {EXPECTED[name]}" for name in lacking if name not in content]
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in known:
            continue
        if key == "recipe":
            values[key] = _recipe(value, problems)
            continue
        value = _opened(key, value, problems)
        try:  # through JSON: only there do strict rules let a table be a dataclass and a list a tuple
            values[key] = TypeAdapter(hints[key]).validate_json(json.dumps(value, default=str), strict=True)
        except ValidationError:
            problems.append(f"{key} is {_shown(content[key])}: write {EXPECTED.get(key, 'a text in quotes')}")
    return values


def _opened(key: str, value: Any, problems: list[str]) -> Any:
    """Places are written as a text or a table; as tables, with no unknown key in them."""
    if key in ("shifts", "extra") and isinstance(value, dict):
        return {name: _place(f"{key}.{name}", place, problems) for name, place in value.items()}
    if key in ID:
        return _place(key, value, problems)
    if key == "columns" and isinstance(value, dict):
        problems += [f"{key}: {unknown('key', k, ('path', 'label'))}" for k in value if k not in ("path", "label")]
        return {k: v for k, v in value.items() if k in ("path", "label")}
    return value


def _place(key: str, value: Any, problems: list[str]) -> Any:
    if isinstance(value, str):
        return {"path": value}
    if not isinstance(value, dict):
        return value
    known = tuple(f.name for f in fields(Place))
    problems += [f"{key}: {unknown('key', k, known)}" for k in value if k not in known]
    return {k: v for k, v in value.items() if k in known}


def _recipe(value: Any, problems: list[str]) -> Recipe:
    """The given fields over `RECIPE`."""
    if not isinstance(value, dict):
        problems.append(f"recipe is {_shown(value)}: write a table, e.g. [recipe] and below it lr = 3e-5")
        return RECIPE
    found: list[str] = []
    made = recipe_overlay(RECIPE, value, found)
    problems += [f"recipe: {line}" for line in found]
    return made


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _illegal(form: Form) -> list[str]:
    """Problems of values that have the right type, one line each."""
    found: list[str] = []
    for what, name in (("name", form.name), *(("shifts", n) for n in form.shifts), *(("extra", n) for n in form.extra)):
        if not NAME.fullmatch(name) or file_names.problem(name):
            found.append(f"{what}: '{name}' cannot name a folder of records: use letters, digits, _, . and -")
    found += [f"'{n}' is a column of every table: give the shift another name" for n in (*form.shifts, *form.extra)
              if is_column(n)]  # fmt: skip
    if not form.shifts:
        found.append(f"shifts is empty: name at least one place to be tested on, {EXPECTED['shifts']}")
    found += [f"'{n}' is named as a shift and as one of {', '.join(ID)}: give it another name"
              for n in (*form.shifts, *form.extra) if n in ID]  # fmt: skip
    found += [f"'{n}' is in shifts and in extra: keep one" for n in form.shifts if n in form.extra]
    if form.pretrained and not form.model:
        found.append(f"pretrained is '{form.pretrained}' and model is missing: write {EXPECTED['model']}")
    if form.version < 1:
        found.append(f"version is {form.version}: write {EXPECTED['version']}")
    for name, share in (("val", form.val), ("test", form.test)):
        if isinstance(share, float) and not (0 < share < 1 or (share >= 1 and share.is_integer())):
            found.append(f"{name} is {share:g}: write {EXPECTED[name]}")
    for name, place in form.places.items():
        if (place.images or set(place.where) - {"split"}) and not place.is_manifest:
            found.append(f"{name}: 'images' and 'where' belong to a manifest (.csv or .json), and {place.path} is none")
        if place.own_classes and name not in form.shifts:
            found.append(f"{name}: own_classes belongs to a shift")
    found += _bad_prompts(form) + _bad_columns(form)
    for name, members in form.shift_groups.items():
        found += [f"shift_groups.{name}: {unknown('shift', n, form.shifts)}" for n in members if n not in form.shifts]
        if not members:
            found.append(f"shift_groups.{name} is empty: name its shifts")
    return found


def _bad_prompts(form: Form) -> list[str]:
    if isinstance(form.templates, str) and form.templates not in TEMPLATES and "{" not in form.templates:
        return [f"templates: {unknown('list of templates', form.templates, TEMPLATES)}; or write a list of your own"]
    wrong = [text for text in form.prompts if text.count("{}") != 1 or text.replace("{}", "").strip() == ""
             or set("{}") & set(text.replace("{}", ""))]  # fmt: skip
    found = [f"templates: '{text}' needs words and one {{}}, where the class name goes" for text in wrong]
    if not form.prompts:
        found.append(f"templates is empty: write {EXPECTED['templates']}")
    return found


def _bad_columns(form: Form) -> list[str]:
    """Metrics and clusters: what they are called, and of which splits."""
    found: list[str] = []
    splits = ("val", *form.tested)
    for key, named in (("metric", form.metric), ("clusters", form.clusters)):
        if not isinstance(named, str):
            found += [f"{key}: {unknown('split', split, splits)}" for split in named if split not in splits]
    metrics: Sequence[str] = [form.metric] if isinstance(form.metric, str) else list(form.metric.values())
    for metric in dict.fromkeys(metrics):
        if metric not in METRICS and not (metric.startswith(WORST) and metric.removeprefix(WORST)):
            found.append(f"metric: {unknown('metric', metric, (*METRICS, f'{WORST}COLUMN'))}")
    if form.groups and not any(form.places.get(split, form.train).is_manifest for split in splits):
        found.append(
            f"groups names columns ({', '.join(form.groups)}) but no evaluated split is a manifest: list images "
            "in one with these columns, or drop groups"
        )
    for split in splits:
        source = form.places.get(split, form.train)
        needed = form.needed(split)
        if needed and not source.is_manifest:
            found.append(
                f"split '{split}' is a folder and has no column '{needed[0]}': list its images in a manifest with that "
                "column, or name metric and clusters by split"
            )
    return found
