"""The trials of a search: settings drawn at random in ranges, as many for every method, and the cells that run them.

What is drawn depends on nothing but (suite, method, tuning seed, trial, setting): more trials, methods or settings move
no other draw.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robustbench_ft import plan, ranges, registry
from robustbench_ft.errors import PlanError, RbftError, unknown
from robustbench_ft.images.roots import Roots
from robustbench_ft.method import Method
from robustbench_ft.plan import Cell, Request
from robustbench_ft.ranges import Choices, Space
from robustbench_ft.settings import parse, settings_of
from robustbench_ft.stats.streams import generator
from robustbench_ft.suite import Suite

Kinds = Mapping[str, type[Method]]
Spaces = Mapping[str, Space]  # setting -> where to look


@dataclass(frozen=True)
class Search:
    """What is asked for, not yet checked. Settings of the request are the same in every trial."""

    request: Request
    trials: int
    tuning_seed: int = 0
    ranges: tuple[tuple[str, str | Space], ...] = ()  # ('lr', '1e-5:1e-2:log') or ('lipsum.strength', Range(0.1, 10))
    fresh_seeds: tuple[int, ...] = ()  # with which the winners are run again; the search has not seen them


@dataclass(frozen=True)
class Trial:
    """One draw of a method's settings on one suite with one model; a method without ranges has a single one."""

    index: int  # from 0
    settings: Mapping[str, Any]  # as drawn
    spaces: Spaces
    suite: Suite
    cells: tuple[Cell, ...]  # one for each seed

    @property
    def cell(self) -> Cell:
        """The one of its first seed."""
        return self.cells[0]

    @property
    def method(self) -> str:
        return self.cell.method

    @property
    def run_set(self) -> tuple[str, str]:
        """Suite and model, inside which methods are compared."""
        return self.cell.suite, self.cell.model.label


def plan_trials(
    search: Search, root: Roots | Path | None = None, say: Callable[[str], None] = lambda line: None
) -> tuple[Trial, ...]:
    """All trials by suite, trial, model, method: one that is cut short has an equal budget so far.

    Raises `PlanError` with every problem, and `RbftError` where no method has anything to tune.
    """
    if search.trials < 1:
        raise RbftError(f"{search.trials} trials: give at least 1, as in --trials 16")
    _check_fresh(search.fresh_seeds, plan.parse_seeds(search.request.seeds))
    base = plan.make(search.request, root, say)
    kinds = {cell.method: registry.load("method", cell.method, Method) for cell in base}
    spaces = _spaces(search, base, kinds)
    found: list[Trial] = []
    for suite in base.suites.values():
        own = {method: spaces[suite.name, method] for method in kinds}
        for index in range(search.trials):
            found += _round(search, suite, index, own, kinds)
    return tuple(found)


def _check_fresh(fresh: Sequence[int], seen: Sequence[int]) -> None:
    """Raise `RbftError` where a seed is no fresh one, as the winners were chosen on it."""
    both = sorted({*fresh} & {*seen})
    if both:
        free = max((*fresh, *seen)) + 1
        raise RbftError(
            f"--fresh-seeds: {', '.join(map(str, both))} {'is' if len(both) == 1 else 'are'} among --seeds, by which "
            f"winners are chosen; give others, e.g. {free}-{free + 2}"
        )


def _round(search: Search, suite: Suite, index: int, spaces: Mapping[str, Spaces], kinds: Kinds) -> list[Trial]:
    """The trials of one index on one suite, for every model and method."""
    drawn = {m: draw(spaces[m], settings_of(kinds[m]), (suite.name, m, search.tuning_seed, index)) for m in kinds}
    try:
        cells = plan.make(search.request, points=drawn, loaded=(suite,))
    except PlanError as error:
        raise PlanError(f"trial {index}: {line}" for line in error.problems) from error
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if index == 0 or spaces[cell.method]:
            groups.setdefault((cell.model.label, cell.method), []).append(cell)
    return [Trial(index, drawn[m], spaces[m], suite, tuple(group)) for (_, m), group in groups.items()]


def draw(spaces: Spaces, types: Mapping[str, Any], names: Sequence[object]) -> dict[str, Any]:
    """A value for every setting, each from the stream of `names` and its own name."""
    return {
        setting: space.at(float(generator("tuning", *names, setting).random()), types[setting] is int)
        for setting, space in spaces.items()
    }


def _spaces(search: Search, base: Sequence[Cell], kinds: Kinds) -> dict[tuple[str, str], dict[str, Space]]:
    """(suite, method) -> what is tuned: what is asked for, the method's own ranges, and the learning rate.

    The learning rate is looked for around the one of the recipe. What --set fixes is left out.
    """
    problems: list[str] = []
    asked = _asked(search.ranges, kinds, problems)
    fixed = {name: _fixed(search.request, name) for name in kinds}
    for name in kinds:
        problems += [f"--range {s}: --set gives it one value; leave one out" for s in asked[name] if s in fixed[name]]
    digests: dict[tuple[str, str, str], set[str]] = {}
    for cell in base:
        digests.setdefault((cell.suite, cell.model.label, cell.method), set()).add(cell.digest)
    several = dict.fromkeys(method for (*_, method), found in digests.items() if len(found) > 1)
    problems += [f"--set makes a grid for {method}: give one value, or a --range" for method in several]
    if problems:
        raise PlanError(dict.fromkeys(problems))
    found: dict[tuple[str, str], dict[str, Space]] = {}
    for cell in base:
        lr = {"lr": ranges.around(cell.recipe["lr"])} if cell.recipe else {}
        every: dict[str, Space] = {**lr, **kinds[cell.method].ranges, **asked[cell.method]}
        found[cell.suite, cell.method] = {s: space for s, space in every.items() if s not in fixed[cell.method]}
    if not any(found.values()):
        raise RbftError(
            f"nothing to tune: {', '.join(kinds)} {'has' if len(kinds) == 1 else 'have'} no setting with a range; "
            "name one with --range, or use `rbft run`"
        )
    return found


def _fixed(request: Request, method: str) -> set[str]:
    """Settings of a method that the request gives a value."""
    parts = [key.rpartition(".") for key, _ in request.set]
    return {name for scope, _, name in parts if not scope or registry.resolve("method", scope).name == method}


def _asked(asked: Sequence[tuple[str, str | Space]], kinds: Kinds, problems: list[str]) -> dict[str, dict[str, Space]]:
    """Method -> setting -> range. A key without a method's name goes to every method that has it."""
    found: dict[str, dict[str, Space]] = {name: {} for name in kinds}
    scoped = sorted(asked, key=lambda pair: "." in pair[0])  # a method's own range wins over one for all
    for key, given in scoped:
        scope, _, setting = key.rpartition(".")
        try:
            owners = _owners(scope, kinds)
            types = {name: settings_of(kinds[name]) for name in owners}
            having = [name for name in owners if setting in types[name]]
            if not having:
                raise RbftError(unknown("setting", setting, {s for table in types.values() for s in table}))
            space = ranges.read(given) if isinstance(given, str) else given
            for name in having:
                found[name][setting] = _typed(space, types[name][setting])
        except RbftError as error:
            problems.append(f"--range {key}: {error}")
    keys = [key for key, _ in asked]
    problems += [f"--range {key}: it is given {keys.count(key)} times" for key in keys if keys.count(key) > 1]
    return found


def _owners(scope: str, kinds: Kinds) -> list[str]:
    if not scope:
        return list(kinds)
    name = registry.resolve("method", scope).name
    if name not in kinds:
        raise RbftError(f"method '{name}' is not in this search ({', '.join(kinds)})")
    return [name]


def _typed(space: Space, kind: Any) -> Space:
    """The range with values of the setting's type. Raises `RbftError` where they are none."""
    if isinstance(space, Choices):
        try:
            return Choices(tuple(parse(kind, v) if isinstance(v, str) else v for v in space.values))
        except ValidationError as error:
            raise RbftError(f"{space.text}: {error.errors()[0]['msg'].lower()}") from error
    if kind not in (int, float):
        raise RbftError(f"{space.text}: it is no number; give its values with commas")
    space.at(0.5, kind is int)  # a range of whole numbers holds two of them
    return space
