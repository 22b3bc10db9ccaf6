"""Names -> modules. Listing reads source files; nothing is imported until it is asked for by name. Torch-free.

An entry point names a *shelf*: a package (or a single module) whose modules each hold one method or one suite.
Built-ins and third parties use the same two groups, `robustbench_ft.methods` and `robustbench_ft.benchmarks`.
A method may also be named by the path of its file; its name is the file's, and it is known while the process lives.
"""

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from . import module_file
from .errors import RbftError, unknown

Kind = Literal["method", "suite"]
_GROUPS: dict[Kind, str] = {"method": "robustbench_ft.methods", "suite": "robustbench_ft.benchmarks"}


@dataclass(frozen=True)
class Entry:
    """One module, known from its source text alone: a registered one, or a file that was named by its path."""

    name: str
    module: str  # '' for a file
    summary: str  # first line of the module's docstring
    shelf: str  # which entry point offers it, '' for a file
    aliases: tuple[str, ...] = ()  # the module's ALIASES
    source: Path = field(default=Path(), compare=False)


_said: set[str] = set()  # lines on broken shelves, each of which is printed once
_files: dict[str, Entry] = {}  # methods that were named by their path in this process


@lru_cache
def entries(kind: Kind) -> dict[str, Entry]:
    """Everything on the shelves of one kind, by name."""
    found: dict[str, Entry] = {}
    for point in sorted(entry_points(group=_GROUPS[kind]), key=lambda point: (point.name, point.value)):
        for module, source in _offered(kind, point):
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


def names_a_file(name: str) -> bool:
    """Whether a method, or a part of 'A+B', is named by the path of its file."""
    return any(map(module_file.names_a_file, parts(name)))


def resolve(kind: Kind, name: str) -> Entry:
    """The entry called `name`, by its own name, an alias or the path of its file. Nothing is imported.

    'lipsum+wise' is one method followed by another.
    """
    table = entries(kind)
    if kind == "method" and len(found := parts(name)) > 1:
        first, *then = [resolve(kind, part) for part in found]
        summary = f"{first.name}, then {', then '.join(entry.name for entry in then)}"
        whole = "+".join((first.name, *(entry.name for entry in then)))
        return replace(first, name=whole, summary=summary, aliases=())
    if kind == "method" and module_file.names_a_file(name):
        return _from_file(name)
    if name in table:
        return table[name]
    for entry in table.values():
        if name in entry.aliases:
            return entry
    if kind == "method" and name in _files:
        return _files[name]
    if kind == "method" and (file := Path(f"{name.replace('-', '_')}.py")).exists():
        raise RbftError(f"no method '{name}' is registered, but a file is called so: write ./{file}")
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
    """Import the module and return its one public subclass of `parent`; of 'A+B', what `parent.composed` makes.

    A file is read again where `name` is its path, and not where it is the name that it was given before.
    """
    entry = resolve(kind, name)
    if kind == "method" and len(found := parts(name)) > 1:
        inner, _, outer = entry.name.rpartition("+")
        first, then = load(kind, "+".join(found[:-1]), parent), load(kind, found[-1], parent)
        return parent.composed(first, then, (inner, outer))
    if entry.module:
        module, title = importlib.import_module(entry.module), entry.module
    else:
        module, title = module_file.load(entry.source, again=module_file.names_a_file(name)), str(entry.source)
    public = [
        member
        for member in vars(module).values()
        if inspect.isclass(member)
        and member.__module__ == module.__name__
        and issubclass(member, parent)
        and not member.__name__.startswith("_")
    ]
    if len(public) != 1:
        names = f": {', '.join(member.__name__ for member in public)}" if public else ""
        raise RbftError(f"{title} must hold one public {parent.__name__}, it holds {len(public)}{names}")
    return public[0]


def distribution(kind: Kind, module: str) -> str:
    """Name and version of the installed package on whose shelf a module is, e.g. 'robustbench_ft 0.2.0'.

    'file NAME.py' for one that was named by its path, whatever folder it was in; '' for any other.
    """
    if module_file.is_one(module):
        return f"file {module.partition('.')[2]}.py"
    for point in entry_points(group=_GROUPS[kind]):
        if point.dist and (module == point.value or module.startswith(f"{point.value}.")):
            return f"{point.dist.name} {point.dist.version}"
    return ""


def parts(name: str) -> list[str]:
    """'A+B' -> A, B. A '+' inside a path stays where it is."""
    found: list[str] = []
    for part in name.split("+"):
        if found and module_file.names_a_file(found[-1]) and not found[-1].endswith(".py"):
            found[-1] += f"+{part}"
        else:
            found.append(part)
    return found


def _from_file(text: str) -> Entry:
    """The entry of a method's file. Raises `RbftError` for a path that is none."""
    path = Path(text).expanduser()
    name = path.stem.replace("_", "-")
    if path.suffix != ".py":
        raise RbftError(f"{text}: a method is named by its file, e.g. {path.stem or 'my_method'}.py, or by its name")
    if not path.is_file():
        raise RbftError(f"{text}: {'this is a folder' if path.is_dir() else 'no such file'}; name a method's .py file")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9]+)*", name):
        raise RbftError(f"{text}: the file's name names the method: use letters and digits, with _ or - between them")
    for entry in entries("method").values():
        if name in (entry.name, *entry.aliases):
            if entry.source.exists() and entry.source.samefile(path):
                return entry
            raise RbftError(f"{text}: '{name}' is a registered method already ({entry.module}); rename the file")
    entry = replace(_read(name, path, ""), name=name, module="", aliases=())
    _files[name] = entry
    return entry


def two_of_one_name(texts: Sequence[str]) -> list[str]:
    """One line for each two paths of this list whose methods have one name; records could not tell them apart."""
    found: dict[str, tuple[str, Path]] = {}
    problems: list[str] = []
    for text in (part for name in texts for part in parts(name) if module_file.names_a_file(part)):
        try:
            entry = resolve("method", text)
        except RbftError:
            continue  # its line is told already
        first, source = found.setdefault(entry.name, (text, entry.source))
        if not source.samefile(entry.source):
            problems.append(f"{first} and {text} are both method '{entry.name}'; rename one of the files")
    return problems


def _offered(kind: Kind, point: EntryPoint) -> list[tuple[str, Path]]:
    """Modules of one shelf. A stale or broken one is named once with its package, and offers nothing."""
    try:
        return _modules(point.value)
    except RbftError as error:
        name, version = (point.dist.name, point.dist.version) if point.dist else ("PACKAGE", "of no version")
        line = f"package {name} {version} offers no {kind}: {error}; reinstall it, or `pip uninstall {name}`"
        if line not in _said:
            _said.add(line)
            print(f"note: {line}", file=sys.stderr)
        return []


def _modules(shelf: str) -> list[tuple[str, Path]]:
    try:
        spec = find_spec(shelf)
    except ModuleNotFoundError:
        spec = None  # its parent package is not there
    except Exception as error:  # of the code in its parent package, which is imported to look for it
        raise RbftError(
            f"'{shelf}' cannot be imported ({type(error).__name__}: {' '.join(str(error).split())})"
        ) from error
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
    except OSError as error:
        raise RbftError(f"{source} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RbftError(f"{source} is not valid Python: it is no text in UTF-8") from error
    except ValueError as error:
        raise RbftError(f"{source} cannot be read: {error}; ALIASES must be a tuple of plain strings") from error
    summary = (ast.get_docstring(tree) or "").partition("\n")[0]
    return Entry(module.rpartition(".")[2].replace("_", "-"), module, summary, shelf, aliases, source)


def files_of(name: str) -> list[str]:
    """Paths of the files by which a method, or parts of 'A+B', were named in this process; another one needs them."""
    entries = [resolve("method", part) for part in parts(name)]
    return [str(entry.source.absolute()) for entry in entries if not entry.module]
