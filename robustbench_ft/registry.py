"""Names -> modules. Listing reads source files; nothing is imported until it is asked for by name. Torch-free.

An entry point names a *shelf*: a package (or a single module) whose modules each hold one method or one suite.
Built-ins and third parties use the same two groups, `robustbench_ft.methods` and `robustbench_ft.benchmarks`.
"""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from .errors import RbftError, unknown

Kind = Literal["method", "suite"]
_GROUPS: dict[Kind, str] = {"method": "robustbench_ft.methods", "suite": "robustbench_ft.benchmarks"}


@dataclass(frozen=True)
class Entry:
    """One registered module, known from its source text alone."""

    name: str
    module: str
    summary: str  # first line of the module's docstring
    shelf: str  # which entry point offers it
    aliases: tuple[str, ...] = ()  # the module's ALIASES


@lru_cache
def entries(kind: Kind) -> dict[str, Entry]:
    """Everything on the shelves of one kind, by name."""
    found: dict[str, Entry] = {}
    for point in sorted(entry_points(group=_GROUPS[kind]), key=lambda point: (point.name, point.value)):
        for module, source in _modules(point.value):
            entry = _read(module, source, point.name)
            if entry.name in found and found[entry.name].module != module:
                raise RbftError(f"{kind} '{entry.name}' is offered twice: by {found[entry.name].module} and {module}")
            found[entry.name] = entry
    names = {name: entry.module for name, entry in found.items()}
    for entry in found.values():
        for alias in entry.aliases:
            if names.setdefault(alias, entry.module) != entry.module:
                raise RbftError(f"{kind} '{alias}' is offered twice: by {names[alias]} and {entry.module}")
    if not found:
        raise RbftError(
            f"no {kind} is registered: this looks like a clone that is not installed; run `pip install -e .`"
        )
    return found


def resolve(kind: Kind, name: str) -> Entry:
    """The entry called `name`, by its own name or an alias; 'lipsum+wise' is one method followed by another."""
    table = entries(kind)
    if kind == "method" and "+" in name:
        first, *then = [resolve(kind, part) for part in name.split("+")]
        summary = f"{first.name}, then {', then '.join(entry.name for entry in then)}"
        return Entry("+".join((first.name, *(entry.name for entry in then))), first.module, summary, first.shelf)
    if name in table:
        return table[name]
    for entry in table.values():
        if name in entry.aliases:
            return entry
    raise RbftError(unknown(kind, name, table))


def check(kind: Kind, names: Iterable[str]) -> list[str]:
    """What is wrong with these names, one line each; nothing is imported."""
    found: list[str] = []
    for name in names:
        try:
            resolve(kind, name)
        except RbftError as error:
            found.append(str(error))
    return found


def load(kind: Kind, name: str, parent: Any) -> type[Any]:
    """Import the module and return its one public subclass of `parent`; of 'A+B', what `parent.composed` makes."""
    entry = resolve(kind, name)
    if "+" in entry.name:
        inner, _, outer = entry.name.rpartition("+")
        return parent.composed(load(kind, inner, parent), load(kind, outer, parent), (inner, outer))
    module = importlib.import_module(entry.module)
    public = [
        member
        for member in vars(module).values()
        if inspect.isclass(member)
        and member.__module__ == module.__name__
        and issubclass(member, parent)
        and not member.__name__.startswith("_")
    ]
    if len(public) != 1:
        raise RbftError(f"{entry.module} must hold one public {parent.__name__}, it holds {len(public)}")
    return public[0]


def distribution(kind: Kind, module: str) -> str:
    """Name and version of the installed package on whose shelf a module is, e.g. 'robustbench_ft 0.2.0', else ''."""
    for point in entry_points(group=_GROUPS[kind]):
        if point.dist and (module == point.value or module.startswith(f"{point.value}.")):
            return f"{point.dist.name} {point.dist.version}"
    return ""


def _modules(shelf: str) -> list[tuple[str, Path]]:
    try:
        spec = find_spec(shelf)
    except ModuleNotFoundError:
        spec = None  # its parent package is not there
    if spec is None:
        raise RbftError(f"an entry point names '{shelf}', which is not installed")
    if spec.submodule_search_locations is None:
        return [(shelf, Path(spec.origin or ""))]
    return [
        (f"{shelf}.{info.name}", Path(location) / f"{info.name}.py")
        for location in spec.submodule_search_locations
        for info in pkgutil.iter_modules([location])
        if not info.name.startswith("_") and not info.ispkg
    ]


def _read(module: str, source: Path, shelf: str) -> Entry:
    aliases: tuple[str, ...] = ()
    try:
        tree = ast.parse(source.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["ALIASES"]:
                aliases = tuple(ast.literal_eval(node.value))
    except SyntaxError as error:
        raise RbftError(f"{source} is not valid Python: {error.msg}, line {error.lineno}") from error
    except ValueError as error:
        raise RbftError(f"{source} cannot be read: {error}; ALIASES must be a tuple of plain strings") from error
    summary = (ast.get_docstring(tree) or "").partition("\n")[0]
    return Entry(module.rpartition(".")[2].replace("_", "-"), module, summary, shelf, aliases)
