"""From what was asked for to cells, with every mistake found in one go.

Flags and `plan.toml` say the same things; a key that is repeated makes a grid.
"""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints, overload

from pydantic import TypeAdapter, ValidationError

from . import model_ref, recipe, recipe_choice, registry, suite_ref, toml
from .cell import Cell
from .errors import PlanError, RbftError, unknown
from .images.roots import Roots
from .method import FILE, MODEL, Method, model_words, problems_of
from .model_ref import ModelRef
from .recipe import Recipe
from .recipe_choice import Choice
from .settings import RECIPE_FIELDS, parse, settings_of
from .suite import ACCURACY, Protocol, Suite

SEEDS = "0"
PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "auto")
MOST_SEEDS = 10_000  # more is a slip of the finger
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
class Plan(Sequence[Cell]):
    """The cells of a request in the order in which they run, and the suites they are of, loaded once."""

    cells: tuple[Cell, ...]
    suites: Mapping[str, Suite]  # by name

    def suite_of(self, cell: Cell) -> Suite:
        """The suite of one of its cells."""
        return self.suites[cell.suite]

    def __len__(self) -> int:
        return len(self.cells)

    @overload
    def __getitem__(self, place: int) -> Cell: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Cell, ...]: ...

    def __getitem__(self, place: int | slice) -> Cell | tuple[Cell, ...]:
        return self.cells[place]


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
    loaded: Sequence[Suite] | None = None,
) -> Plan:
    """All cells of a request, by suite, model, method, setting, seed. Raises `PlanError` with every problem.

    `say` is given one line for each suite whose own model is taken, because the request names none. `points` maps
    methods to settings that are laid over those of the request, e.g. one trial of a search. `loaded` are the suites
    of the request, where they are at hand.
    """
    problems: list[str] = []
    choice = Choice()
    try:
        choice = recipe_choice.read(request.recipe)
    except RbftError as error:
        problems.append(str(error))
    suites = loaded or _try_each(
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
    problems += registry.two_of_one_name(request.method)
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
    found: dict[tuple[object, ...], Cell] = {}
    pairs = [(suite, model) for suite in suites for model in models[suite.name]]
    for (suite, model), (name, kind) in itertools.product(pairs, methods):
        try:
            model_ref.check_prompts(model.name, suite)
            if request.protocol in get_args(Protocol):
                suite.under(request.protocol)
        except RbftError as error:
            problems.append(str(error))
        for chosen in _grid(settings.get(name, {})):
            chosen |= (points or {}).get(name, {})
            made = _cells(suite, model, name, kind, chosen, seeds, request, choice, problems)
            if made:  # seeds of one configuration share its digest, which takes longer than all else here
                same = (made[0].suite, made[0].model, made[0].digest, made[0].recipe_source)
                found |= {(*same, cell.seed): cell for cell in made if (*same, cell.seed) not in found}
    names = [suite.name for suite in suites]
    problems += [f"two suites of this plan are called '{n}'; run them apart" for n in names if names.count(n) > 1]
    if problems:
        raise PlanError(dict.fromkeys(problems))
    for line in told:
        say(line)
    return Plan(tuple(found.values()), {suite.name: suite for suite in suites})


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
    settings = {
        f.name: value
        for f in dataclasses.fields(method)
        if f.name != "recipe" and not ((value := getattr(method, f.name)) == f.default and f.name in kind.later)
    }
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
    if protocol == "clean" and suite.under(protocol).metric != ACCURACY:
        used.add("official-selection")
    return {name: version for name, version in recipe.SHARED_VERSIONS.items() if name in used}


def precision_text(cells: Sequence[Cell]) -> str:
    """What 'auto' chose on a device that computes in bf16, and why, in one line."""
    found = {p: ", ".join(dict.fromkeys(cell.method for cell in cells if cell.precision == p)) for p in PRECISIONS}
    why = {
        "bf16": "Lipsum-FT's recipe, published in it; blocks of the image tower only",
        "tf32": "recipes published in float32, whose products GPUs made in TF32",
        "fp32": "what is not trained",
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
