"""A first method: one file, or a package with tests that pip can install. What it writes works as it is."""

import keyword
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from robustbench_ft import __version__, registry
from robustbench_ft.errors import RbftError

TEMPLATES = Path(__file__).parent / "starter_files"


def write_file(name: str, folder: Path) -> Path:
    """Write the method alone into `folder`, and return its path."""
    file = folder / f"{_words(name)['module']}.py"
    _write({file: "method.py"}, _words(name))
    return file


def write_package(name: str, folder: Path | None = None) -> Path:
    """Write a package that offers the method into `folder` (default: one of its name), and return that folder."""
    words = _words(name)
    folder = folder or Path(words["name"])
    if folder.is_dir() and any(folder.iterdir()):
        raise RbftError(f"{folder} is not empty, and nothing is overwritten; name another with --folder")
    inside = folder / "src" / words["package"]
    _write({
        folder / "pyproject.toml": "pyproject.toml",
        folder / "README.md": "README.md",
        inside / "__init__.py": "",
        inside / f"{words['module']}.py": "method.py",
        folder / "tests" / "test_contract.py": "test_contract.py",
        folder / ".github" / "workflows" / "test.yml": "test.yml",
    }, words)  # fmt: skip
    return folder


def _words(name: str) -> dict[str, str]:
    """What the templates are filled with. Raises `RbftError` for a name that no method can have."""
    name = name.replace("_", "-")
    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(module):
        raise RbftError(f"'{name}' cannot name a method: use small letters and digits, with - between them")
    for entry in registry.entries("method").values():
        if name in (entry.name, *entry.aliases):
            raise RbftError(f"'{name}' is a registered method already ({entry.module}); choose another name")
    return {
        "name": name, "module": module, "title": "".join(part.capitalize() for part in name.split("-")),
        "distribution": f"rbft-{name}", "package": f"rbft_{module}", "version": __version__,
    }  # fmt: skip


def _write(files: dict[Path, str], words: dict[str, str]) -> None:
    """Write each file from its template ('': a docstring alone). Raises `RbftError`, before any, where one exists."""
    for path in files:
        if path.exists():
            raise RbftError(f"{path} exists and is not overwritten; edit it, move it away, or choose another name")
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    for path, template in files.items():
        text = templates.get_template(f"{template}.jinja").render(words) if template else '"""A shelf of methods."""\n'
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as target:
                target.write(text)
        except OSError as error:
            raise RbftError(f"cannot write {path}: {error.strerror}; choose another folder") from error
