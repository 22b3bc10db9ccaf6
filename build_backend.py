"""The build backend: setuptools, and types for those who write methods against an editable install.

setuptools puts `methods/` and `benchmarks/` into the package with an import hook, which type checkers do not run. They
do read folders on the path, and look for `NAME-stubs` there before `NAME` (PEP 561). So an editable install gets one
more path, `build/types`, with links to the sources in `robustbench_ft-stubs`: a name that nothing can import.
"""

import base64
import hashlib
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import build_sdist as build_sdist
from setuptools.build_meta import build_wheel as build_wheel
from setuptools.build_meta import get_requires_for_build_editable as get_requires_for_build_editable
from setuptools.build_meta import get_requires_for_build_sdist as get_requires_for_build_sdist
from setuptools.build_meta import get_requires_for_build_wheel as get_requires_for_build_wheel
from setuptools.build_meta import prepare_metadata_for_build_editable as prepare_metadata_for_build_editable
from setuptools.build_meta import prepare_metadata_for_build_wheel as prepare_metadata_for_build_wheel

REPO = Path(__file__).resolve().parent
TYPES = REPO / "build" / "types"


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """The editable wheel of setuptools (PEP 660) with the path of the types; without it where links cannot be made."""
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    try:
        link(TYPES / "robustbench_ft-stubs")
    except OSError as error:  # Windows gives links to developers only
        print(f"no links in {TYPES} ({error.strerror}): type checkers will not find the package", file=sys.stderr)
    else:
        add(Path(wheel_directory, name), "robustbench_ft_types.pth", f"{TYPES}\n".encode())
    return name


def link(folder: Path) -> None:
    """Fill `folder` with links to what the package consists of; files that are new on a shelf appear by themselves."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    parts = [path for path in (REPO / "robustbench_ft").iterdir() if path.name != "__pycache__"]
    for path in (*parts, REPO / "methods", REPO / "benchmarks"):
        (folder / path.name).symlink_to(path)


def add(wheel: Path, name: str, content: bytes) -> None:
    """Put one more file into a wheel, and into its list of files."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
    with zipfile.ZipFile(wheel) as file:
        files = {info: file.read(info) for info in file.infolist()}
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr(name, content)
        for info, old in files.items():
            listed = f"{name},sha256={digest},{len(content)}\n".encode()
            file.writestr(info, old + listed if info.filename.endswith(".dist-info/RECORD") else old)
