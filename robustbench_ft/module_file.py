"""A Python file as a module, read by its path. It is imported again when it, or a file that it imports, has changed.

The folder of the file becomes a package of its own, so that `from .helper import x` finds `helper.py` beside it, and
files of one name in two folders stay two modules. Torch-free.
"""

import ast
import hashlib
import importlib
import itertools
import sys
import traceback
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from .errors import RbftError

PACKAGE = "rbft_file"  # what the packages are called, with a number behind
_numbers = itertools.count(1)


@dataclass(frozen=True)
class _Imported:
    module: ModuleType
    texts: Mapping[Path, str]  # digests of the files of its package that were imported


_imported: dict[Path, _Imported] = {}


def names_a_file(text: str) -> bool:
    """Whether `text` is a path and not a registered name."""
    return text.endswith(".py") or text.startswith((".", "~")) or "/" in text or "\\" in text


def is_one(module: str) -> bool:
    """Whether a module of this name was imported from its path."""
    return module.partition(".")[0].startswith(f"{PACKAGE}_")


def load(path: Path, again: bool) -> ModuleType:
    """The module of a file. With `again` the files are looked at, and imported anew if one has changed since.

    Raises `RbftError` with one line for whatever goes wrong in it.
    """
    place = path.absolute()
    known = _imported.get(place)
    if known is None or (again and known.texts != {file: _digest(file) for file in known.texts}):
        known = _imported[place] = _import(path)
    return known.module


def _import(path: Path) -> _Imported:
    place, package = path.absolute(), f"{PACKAGE}_{next(_numbers)}"
    name = f"{package}.{path.stem}"
    spec = spec_from_file_location(name, place)
    assert spec is not None  # the caller has made sure of '.py'
    module, parent = module_from_spec(spec), ModuleType(package)
    parent.__path__ = [str(place.parent)]
    sys.modules |= {package: parent, name: module}
    text = place.read_bytes()
    try:
        with _fresh():
            exec(compile(text, str(place), "exec"), vars(module))
        inner = [m for n, m in sys.modules.items() if n.startswith(f"{package}.") and n != name]
        files = [Path(m.__file__) for m in inner if m.__file__]
        for file in (place, *files):
            _refuse_neighbours(file, place.parent)
    except (Exception, SystemExit) as error:
        for module_name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
            del sys.modules[module_name]
        raise RbftError(_in_one_line(path, package, error)) from error
    return _Imported(module, {place: hashlib.sha256(text).hexdigest(), **{file: _digest(file) for file in files}})


@contextmanager
def _fresh() -> Generator[None, None, None]:
    """While this is open, imports see new files and leave no bytecode, which goes stale in an edit within a second."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _refuse_neighbours(file: Path, folder: Path) -> None:
    """Refuse `import helper` of a file beside it: its text would be no part of the method's code."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        absolute = isinstance(node, ast.ImportFrom) and not node.level and node.module
        names = [node.module] if isinstance(node, ast.ImportFrom) and absolute else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in (str(name).partition(".")[0] for name in names):
            found = getattr(sys.modules.get(name), "__file__", None)
            if found and folder in (Path(found).parent, Path(found).parent.parent) and _beside(folder, name):
                raise ImportError(f"'{name}' lies beside it; write `from .{name} import ...`")


def _beside(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").exists() or (folder / name / "__init__.py").exists()


def _in_one_line(path: Path, package: str, error: BaseException) -> str:
    """What went wrong, and in which line of the file."""
    frames = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path.absolute())
    ]
    at = f", line {frames[-1]}" if frames else ""
    if isinstance(error, RbftError):
        return f"{path}{at}: {str(error).removeprefix(f'{package}.{path.stem}: ')}"
    text = " ".join(str(error).split()) or "no message"
    return f"{path}{at}: {type(error).__name__}: {text}{_hint(path, package, error)}"


def _hint(path: Path, package: str, error: BaseException) -> str:
    """How an import that failed is written."""
    missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else ""
    inner = missing.removeprefix(f"{package}.")
    if inner != missing:
        return (
            f"; there is no {inner}.py beside it; a built-in method is imported as "
            f"`from robustbench_ft.methods.{inner} import ...`"
        )
    return (
        f"; it lies beside it: write `from .{missing} import ...`" if _beside(path.absolute().parent, missing) else ""
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
