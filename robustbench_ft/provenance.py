"""Which code a method is: digests of its source files and the distribution that offers it. Torch-free.

Numbers belong to code. A record carries what is found here, so that an edited method is never shown with the numbers of
another day.
"""

import ast
import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from . import registry
from .errors import RbftError

CORE = __package__ or "robustbench_ft"
SHELF = f"{CORE}.methods"  # built-in methods are no part of the core: what they do is theirs


@dataclass(frozen=True)
class Code:
    """The source of one method as it was when it was imported."""

    files: Mapping[str, str]  # name -> SHA-256 of the text; relative to the method's package, others from the top
    distribution: str  # name and version of the package that offers the method, '' where none does

    @property
    def sha256(self) -> str:
        """Of all files; the distribution's version is not in it."""
        lines = "".join(f"{name}\0{digest}\n" for name, digest in sorted(self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {"sha256": self.sha256, "files": dict(self.files), "distribution": self.distribution}


@cache
def code_of(kind: type[Any]) -> Code:
    """The code of a method's class. Asked for early, it is what the process has imported, whatever is edited later.

    Its files are the modules of the class and of its bases, and the modules of their packages that these import. The
    core and the standard library are left out. Raises `RbftError` for a class that was not read from a file.
    """
    own = kind.__module__
    tops = {_top(own), SHELF}
    modules = dict.fromkeys(base.__module__ for base in kind.__mro__ if _is_counted(base.__module__))
    queue = list(modules)
    for module in queue:  # grows while it is walked
        for name in _imported(module):
            if name not in modules and _top(name) in tops and _found(name) is not None:
                modules[name] = None
                queue.append(name)
    files = {_label(name, own): _digest(name) for name in modules}
    return Code(dict(sorted(files.items())), registry.distribution("method", own))


def changed(before: Mapping[str, Any], now: Code) -> tuple[str, ...]:
    """Files of `now` that differ from those of a stored `Code`, were added or are gone; empty when none did."""
    stored: Any = before.get("files")
    files: Mapping[str, Any] = stored if isinstance(stored, dict) else {}
    return tuple(sorted(name for name in {*files, *now.files} if files.get(name) != now.files.get(name)))


def _is_counted(module: str) -> bool:
    top = module.partition(".")[0]
    return top not in sys.stdlib_module_names and (top != CORE or _top(module) == SHELF)


def _top(module: str) -> str:
    """The package whose modules are looked into: the whole of a third party's, or the shelf of built-in methods."""
    return SHELF if module == SHELF or module.startswith(f"{SHELF}.") else module.partition(".")[0]


def _imported(module: str) -> Iterator[str]:
    """Names of what a module's text imports, anywhere in it; some may be names in modules and no modules."""
    source = _file(module)
    package = module if source.name == "__init__.py" else module.rpartition(".")[0]
    try:
        tree = ast.parse(source.read_bytes() if source.suffix == ".py" else b"")
    except SyntaxError:  # a helper that was not imported so far; whoever imports it will hear of it
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join((*above, *([node.module] if node.module else [])))
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def _found(module: str) -> Path | None:
    """The file of a module; None where there is none. Nothing is imported to find it."""
    if module in sys.modules:
        file = getattr(sys.modules[module], "__file__", None)
        return Path(file) if file and Path(file).exists() else None
    parent, _, name = module.rpartition(".")
    places = [Path(place) / name for place in getattr(sys.modules.get(parent), "__path__", ())]
    if not places and parent and (above := _found(parent)) and above.name == "__init__.py":
        places = [above.parent / name]
    files = [file for place in places for file in (place / "__init__.py", place.with_suffix(".py"))]
    return next((file for file in files if file.exists()), None)


def _file(module: str) -> Path:
    found = _found(module)
    if found is None:
        raise RbftError(f"method module '{module}' was not read from a file: its numbers would belong to no code")
    return found


def _label(module: str, own: str) -> str:
    """'lipsum.py' for what lies beside the method, 'other_package/thing.py' elsewhere."""
    file, package = _file(module), own.rpartition(".")[0].replace(".", "/")
    path = f"{module.replace('.', '/')}/{file.name}" if file.stem == "__init__" else f"{module.replace('.', '/')}.py"
    return path.removeprefix(f"{package}/") if package else path


def _digest(module: str) -> str:
    """Of the text of a module, whatever ends its lines."""
    return hashlib.sha256(_file(module).read_bytes().replace(b"\r\n", b"\n")).hexdigest()
