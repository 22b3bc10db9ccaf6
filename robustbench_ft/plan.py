"""From what was asked for to cells, with every mistake found in one go. A cell is the unit of work and of record.

Flags and `plan.toml` say the same things; a key that is repeated makes a grid.
"""

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from . import model_ref, recipe, recipe_choice, registry, suite_ref, toml
from .errors import PlanError, RbftError, unknown
from .images.roots import Roots
from .method import FILE, MODEL, Method, model_words, problems_of
from .model_ref import ModelRef
from .recipe import Recipe
from .recipe_choice import Choice
from .settings import RECIPE_FIELDS, parse, settings_of
from .suite import ACCURACY, Protocol, Suite

SCHEMA = 1
SEEDS = "0"
PRECISIONS = ("fp32", "bf16", "auto")
MOST_SEEDS = 10_000  # more is a slip of the finger
LATER = ("partial", "suite_definition", "shared", "contents")  # fields of a cell that earlier ones lack
_SEEDS = re.compile(r"[0-9]{1,18}(-[0-9]{1,18})?")


@dataclass(frozen=True)
class Request:
    """What a user asks for, not yet checked. Lists multiply."""

    method: tuple[str, ...] = ()
    suite: tuple[str, ...] = ()
    model: tuple[str, ...] = ()  # empty: each suite's own
    pretrained: str | None = None
    seeds: str = SEEDS  # e.g. '0', '0-4', '0,2,5-7'
    protocol: Protocol = "clean"
    precision: str = "fp32"  # 'auto', on a device that computes in bf16: each recipe as it was published
    recipe: str | None = None  # base recipe of all methods: a method's name or a TOML file; None: each its own
    set: tuple[tuple[str, str], ...] = ()  # ('lr', '1e-4') or ('lipsum.strength', '0.5')
    allow_partial: bool = False  # run on data whose counts differ from the card; such runs make no claims


@dataclass(frozen=True)
class Cell:
    """Everything that can move a number, resolved. Equal cells are the same work."""

    suite: str
    suite_version: int
    model: ModelRef
    method: str
    method_version: int
    settings: Mapping[str, Any]  # the method's own fields
    recipe: Mapping[str, Any] | None  # None: nothing is trained
    recipe_source: str  # 'suite', 'method', '--recipe NAME' or 'none', and all that --set changed, settings too
    protocol: Protocol
    precision: str
    seed: int
    deterministic: bool = False  # nothing random happens: one seed is all there is
    schema: int = SCHEMA
    partial: bool = False  # counts of the data may differ from the suite's card: barred from boards
    suite_definition: str = ""  # digest of the suite.toml, where one defines the suite
    shared: Mapping[str, int] = field(default_factory=dict[str, int])  # of `recipe.SHARED_VERSIONS`, what it uses
    contents: Mapping[str, str] = field(default_factory=dict[str, str])  # setting that names a file or model -> sha256

    @property
    def digest(self) -> str:
        """Names the configuration without the seed; eight characters are in the folder's name."""
        content = self._content()
        for name in ("seed", "recipe_source"):
            del content[name]
        content["settings"] = {**content["settings"], **content.pop("contents", {})}  # not where the file lies
        content["model"] = {"weights": self.model.weights, "name": self.model.name}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def folder(self) -> Path:
        """Relative to the output folder."""
        return Path(self.suite) / self.model.label / f"{self.method}-{self.digest[:8]}" / f"seed-{self.seed}"

    def to_json(self) -> dict[str, Any]:
        return json.loads(json.dumps({**self._content(), "digest": self.digest}))

    def _content(self) -> dict[str, Any]:
        """Fields that came later are left out at their defaults, so that digests of earlier cells stay."""
        return {k: v for k, v in asdict(self).items() if v or k not in LATER}

    def build(self) -> Method:
        """The method with its fields and recipe in place."""
        kind = registry.load("method", self.method, Method)
        return kind(**self.settings, recipe=None if self.recipe is None else Recipe(**self.recipe))


def read_toml(path: Path) -> dict[str, Any]:
    """A plan file as keyword arguments of `Request`; unknown keys and wrong types are errors."""
    content = toml.read(path, "the plan")
    known = {f.name for f in dataclasses.fields(Request)}
    problems = [f"{path}: {unknown('key', key, known)}" for key in content if key not in known]
    for key in ("method", "suite", "model"):
        if key in content:
            content[key] = _many(content[key])
    if isinstance(content.get("seeds"), int):
        content["seeds"] = str(content["seeds"])
    if "set" in content:
        if not isinstance(content["set"], dict):
            raise RbftError(f"{path}: [set] must be a table, e.g. set = {{lr = [1e-4, 3e-4]}}")
        content["set"] = pairs(content["set"])
    try:
        TypeAdapter(Request).validate_python({key: value for key, value in content.items() if key in known})
    except ValidationError as error:
        problems += [f"{path}: {e['loc'][0]}: {e['msg']}" for e in error.errors()]
    if problems:
        raise PlanError(dict.fromkeys(problems))
    return content


def pairs(settings: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Settings as `Request.set` holds them; a list makes a grid, and a table holds settings of one method."""
    return tuple((key, _toml_text(value)) for key, values in _flat(settings) for value in _many(values))


def make(
    request: Request,
    root: Roots | Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    points: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[Cell, ...]:
    """All cells of a request, by suite, model, method, setting, seed. Raises `PlanError` with every problem.

    `say` is given one line for each suite whose own model is taken, because the request names none. `points` maps
    methods to settings that are laid over those of the request, e.g. one trial of a search.
    """
    problems: list[str] = []
    choice = Choice()
    try:
        choice = recipe_choice.read(request.recipe)
    except RbftError as error:
        problems.append(str(error))
    suites = _try_each(
        request.suite, lambda name: suite_ref.load(name, root, request.allow_partial), problems, "--suite"
    )
    models = _models(suites, request, problems)
    told = (
        []
        if request.model
        else [f"model    {_own(suite, request).text}; --model NAME takes another" for suite in suites]
    )
    methods = _try_each(
        request.method or ((choice.method,) if choice.method else ()),
        lambda name: (registry.resolve("method", name).name, registry.load("method", name, Method)),
        problems, "--method",
    )  # fmt: skip
    seeds: tuple[int, ...] = ()
    try:
        seeds = parse_seeds(request.seeds)
    except RbftError as error:
        problems.append(str(error))
    if request.protocol not in get_args(Protocol):
        problems.append(unknown("protocol", request.protocol, get_args(Protocol)))
    if request.precision not in PRECISIONS:
        problems.append(unknown("precision", request.precision, PRECISIONS))
    settings = _settings(request.set, dict(methods), problems)
    cells: list[Cell] = []
    pairs = [(suite, model) for suite in suites for model in models[suite.name]]
    for (suite, model), (name, kind) in itertools.product(pairs, methods):
        try:
            model_ref.check_prompts(model.name, suite)
            if request.protocol in get_args(Protocol):
                suite.selector(request.protocol)
        except RbftError as error:
            problems.append(str(error))
        for chosen in _grid(settings.get(name, {})):
            chosen |= (points or {}).get(name, {})
            made = _cells(suite, model, name, kind, chosen, seeds, request, choice, problems)
            cells += [cell for cell in made if cell not in cells]
    names = [suite.name for suite in suites]
    problems += [f"two suites of this plan are called '{n}'; run them apart" for n in names if names.count(n) > 1]
    if problems:
        raise PlanError(dict.fromkeys(problems))
    for line in told:
        say(line)
    return tuple(cells)


def _models(suites: Sequence[Suite], request: Request, problems: list[str]) -> dict[str, list[ModelRef]]:
    """Suite -> its models: those that were asked for, else its own. Weights are neither loaded nor fetched."""
    if request.model:
        asked = _try_each(request.model, lambda name: model_ref.resolve(name, request.pretrained), problems, "--model")
        return {suite.name: asked for suite in suites}
    found: dict[str, list[ModelRef]] = {}
    for suite in suites:
        own = _own(suite, request)
        try:
            found[suite.name] = [model_ref.resolve(own.name, own.pretrained or None)]
        except RbftError as error:
            problems.append(str(error))
            found[suite.name] = []
    return found


def _own(suite: Suite, request: Request) -> model_ref.Default:
    """The suite's own model, with the weights that were asked for where only these were."""
    own = model_ref.default(suite)
    return dataclasses.replace(own, pretrained=request.pretrained or own.pretrained)


def suite_files(request: Request) -> dict[str, str]:
    """Name -> file, for suites that were given as a `suite.toml`."""
    return {suite_ref.name_of(text): text for text in request.suite if suite_ref.is_file(text)}


def parse_seeds(text: str) -> tuple[int, ...]:
    """'0', '0-4', '0,2,5-7' -> sorted, unique seeds."""
    seeds: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not _SEEDS.fullmatch(part.strip()) or (dash and not 0 <= int(last) - int(first) < MOST_SEEDS):
            raise RbftError(f"seeds '{text}': '{part}' is neither a number nor a range; write e.g. 0, 0-4 or 0,2,5-7")
        seeds |= set(range(int(first), int(last or first) + 1))
    return tuple(sorted(seeds))


def _cells(
    suite: Suite,
    model: ModelRef,
    name: str,
    kind: type[Method],
    chosen: Mapping[str, Any],
    seeds: Sequence[int],
    request: Request,
    choice: Choice,
    problems: list[str],
) -> list[Cell]:
    try:
        base, source = choice.resolve(suite, kind)
        of_file = choice.settings_of(name, kind)
    except PlanError as error:
        problems += error.problems
        return []
    changed = {key: value for key, value in chosen.items() if key in RECIPE_FIELDS}
    fields = {key: value for key, value in chosen.items() if key not in RECIPE_FIELDS}
    if "epochs" in changed and "steps" not in changed:
        changed["steps"] = 0  # the length is counted one way
    resolved = dataclasses.replace(base, **changed)
    method = kind(**{**of_file, **fields}, recipe=resolved if kind.trains else None)
    problems += [f"{name}: {line}" for line in problems_of(method)]
    problems += [f"{name}: {line}" for line in recipe.problems(resolved)] if kind.trains else []
    settings = {f.name: getattr(method, f.name) for f in dataclasses.fields(method) if f.name != "recipe"}
    by_hand = f", --set {', '.join(sorted({*changed, *fields}))}" if changed or fields else ""
    precision = recipe.precision_of(request.precision, base if kind.trains else None)
    cell = Cell(
        suite=suite.name,
        suite_version=suite.version,
        model=model,
        method=name,
        method_version=kind.version,
        settings=settings,
        recipe=recipe.as_stored(resolved) if kind.trains else None,
        recipe_source=(source if kind.trains else "none") + by_hand,
        protocol=request.protocol,
        precision=precision,
        seed=0,
        deterministic=not kind.trains,
        partial=suite.partial,
        suite_definition=suite.definition,
        contents=_contents(method, problems),
        shared=_shared(suite, request.protocol, resolved, precision) if kind.trains else {},
    )
    return [dataclasses.replace(cell, seed=seed) for seed in (seeds if kind.trains else seeds[:1])]


def _contents(method: Method, problems: list[str]) -> dict[str, str]:
    """Digests of what settings name: of the file of a `FileName`, of the weights of a `ModelName`."""
    found: dict[str, str] = {}
    for name, hint in get_type_hints(type(method), include_extras=True).items():
        marks, value = getattr(hint, "__metadata__", ()), getattr(method, name, "")
        try:
            if FILE in marks and value:
                found[name] = hashlib.sha256(Path(value).read_bytes()).hexdigest()
            if MODEL in marks and value:
                found[name] = model_ref.resolve(*model_words(value)).weights
        except OSError as error:
            problems.append(f"{name}={value}: {error.strerror}; give an existing file")
        except RbftError as error:
            problems.append(f"{name}={value}: {error}")
    return found


def _shared(suite: Suite, protocol: Protocol, resolved: Recipe, precision: str) -> dict[str, int]:
    """Versions of what this cell shares with cells of other recipes, methods and suites."""
    used = {resolved.augment, precision}
    if protocol == "clean" and suite.selection_metric(protocol) != ACCURACY:
        used.add("official-selection")
    return {name: version for name, version in recipe.SHARED_VERSIONS.items() if name in used}


def precision_text(cells: Sequence[Cell]) -> str:
    """What 'auto' chose on a device that computes in bf16, and why, in one line."""
    found = {p: ", ".join(dict.fromkeys(cell.method for cell in cells if cell.precision == p)) for p in PRECISIONS}
    why = {
        "bf16": "Lipsum-FT's recipe, published in it; blocks of the image tower only",
        "fp32": "recipes published in it, and all that is not trained",
    }
    return "precision auto: " + "; ".join(f"{p} for {found[p]} ({why[p]})" for p in why if found[p])


def _settings(
    pairs: Iterable[tuple[str, str]], methods: Mapping[str, type[Method]], problems: list[str]
) -> dict[str, dict[str, list[Any]]]:
    """--set pairs -> method -> key -> values. A key without a method's name goes to every method that has it."""
    found: dict[str, dict[str, list[Any]]] = {name: {} for name in methods}
    for key, text in pairs:
        scope, dot, field_name = key.rpartition(".")
        owners = list(methods)
        if dot:
            try:
                owners = [registry.resolve("method", scope).name]
            except RbftError as error:
                problems.append(f"--set {key}: {error}")
                continue
            if owners[0] not in methods:
                problems.append(f"--set {key}: method '{owners[0]}' is not in this plan ({', '.join(methods)})")
                continue
        types = {name: settings_of(methods[name]) for name in owners}
        having = [name for name in owners if field_name in types[name]]
        if not having and methods:
            every = {f for table in types.values() for f in table}
            problems.append(f"--set {key}: {unknown('setting', field_name, every)}")
        for name in having:
            try:
                value = parse(types[name][field_name], text)  # before the key exists: an empty list is an empty grid
                found[name].setdefault(field_name, []).append(value)
            except ValidationError as error:
                problems.append(f"--set {key}={text}: {error.errors()[0]['msg'].lower()}")
                break
            except RbftError as error:
                problems.append(f"--set {key}={text}: {error}")
                break
    return found


def _grid(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]


def _try_each(names: Sequence[str], make: Any, problems: list[str], flag: str) -> list[Any]:
    made: list[Any] = []
    if not names:
        problems.append(f"name at least one with {flag}; `rbft list` shows what there is")
    for name in dict.fromkeys(names):
        try:
            made.append(make(name))
        except PlanError as error:
            problems += error.problems
        except RbftError as error:
            problems.append(str(error))
    return made


def _toml_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _many(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
