"""Where downloaded data lies: roots searched in order, and folders named for one split. Torch-free.

Every suite lists for each of its splits the paths under which people keep it; the first that exists is taken, so a tree
that exists needs no moving.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from robustbench_ft import toml
from robustbench_ft.errors import MissingDataError, RbftError, unknown

SHOWN = 3  # places that a message names
NEAR = 200  # folders looked into for a root that is one level too high


@dataclass(frozen=True)
class Roots:
    """What `--root`, RBFT_DATA and the user's config file say together."""

    folders: tuple[Path, ...] = ()  # searched in this order
    named: tuple[tuple[str, Path], ...] = ()  # ('imagenet/r', its folder): wins over every search

    @property
    def text(self) -> str:
        return ", ".join(map(str, self.folders)) or "no root"


def roots_of(value: Roots | Path | None) -> Roots:
    """One folder, several, or none."""
    return value if isinstance(value, Roots) else Roots(() if value is None else (value,))


def choose(flags: Sequence[str], environment: Mapping[str, str]) -> Roots:
    """`--root` values (DIR or SUITE/SPLIT=DIR) over RBFT_DATA over the config file; named folders add up."""
    config = read_config(config_path(environment))
    named, folders = dict(config.named), list[Path]()
    for text in flags:
        key, equals, place = text.partition("=")
        if equals and "/" in key.strip("/") and not key.startswith(("/", ".", "~")):
            named[key] = Path(place).expanduser()
        else:
            folders.append(Path(text).expanduser())
    if not folders:
        folders = [Path(text).expanduser() for text in environment.get("RBFT_DATA", "").split(os.pathsep) if text]
    return Roots(tuple(folders) or config.folders, tuple(named.items()))


def config_path(environment: Mapping[str, str]) -> Path:
    """`RBFT_CONFIG`, else `rbft/config.toml` in the user's config folder; it need not exist.

    That folder is `$XDG_CONFIG_HOME`, else `~/.config` where it holds the file, else this system's own.
    """
    if chosen := environment.get("RBFT_CONFIG"):
        return Path(chosen)
    if base := environment.get("XDG_CONFIG_HOME"):
        return Path(base) / "rbft" / "config.toml"
    known = Path.home() / ".config" / "rbft" / "config.toml"
    return known if known.exists() else platformdirs.user_config_path("rbft", appauthor=False) / "config.toml"


def read_config(path: Path) -> Roots:
    """`root = DIR` (or a list) and a table `[paths]` of `"SUITE/SPLIT" = DIR`; no file is an empty config."""
    if not path.exists():
        return Roots()
    try:
        content: dict[str, Any] = toml.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RbftError(f"cannot read the config file {path}: {error}; correct it or move it away") from error
    for key in content:
        if key not in ("root", "paths"):
            raise RbftError(f"{path}: {unknown('key', key, ('root', 'paths'))}")
    root, paths = content.get("root", []), content.get("paths", {})
    texts: list[Any] = root if isinstance(root, list) else [root]
    if not isinstance(paths, dict) or not all(isinstance(text, str) for text in (*texts, *paths.values())):
        raise RbftError(f'{path}: write root = "DIR" and, under [paths], "SUITE/SPLIT" = "DIR"')
    return Roots(
        tuple(Path(text).expanduser() for text in texts),
        tuple((str(key), Path(text).expanduser()) for key, text in paths.items()),
    )


def find(
    roots: Roots, suite: str, split: str, candidates: Sequence[str], home: str, trained: Sequence[str] = ()
) -> Path:
    """The folder or file of one split. Raises one line that says what was looked for, where, and what to do.

    A root may also be the data set's own folder; where it holds the training images (`trained` are their candidates),
    the other splits may lie beside it.
    """
    name = f"{suite}/{split}"
    if (chosen := dict(roots.named).get(name)) is not None:
        if not exists(chosen):
            raise MissingDataError(f"{name} is said to lie in {chosen}, which does not exist; correct --root or config")
        return chosen
    wanted = " or ".join(candidates[:SHOWN])
    if len(candidates) > SHOWN:
        wanted += f" (nor {len(candidates) - SHOWN} other places that `rbft data where {suite}` lists)"
    if not roots.folders:
        raise MissingDataError(
            f"suite '{suite}' needs data from {home}: pass --root DIR (or set RBFT_DATA) with {candidates[0]}, or "
            f"--root {name}=DIR; see `rbft data where {suite}`"
        )
    for root in roots.folders:
        if not exists(root):
            raise MissingDataError(f"no such data folder: {root}; correct --root or RBFT_DATA")
        if not root.is_dir():
            raise MissingDataError(f"{root} is a file: --root and RBFT_DATA name the folder that holds the data")
    for root in roots.folders:
        for candidate in candidates:
            if exists(root / candidate):
                return root / candidate
    for root in roots.folders:
        if (own := next(_inside(root, candidates), None)) is not None:
            return own
        if next(_inside(root, trained), None) is not None:
            beside = root.absolute().parent
            if (own := next((beside / place for place in candidates if exists(beside / place)), None)) is not None:
                return own
    near = _near(roots.folders, candidates)
    hint = f"; it lies under {near}: pass --root {near}" if near else f"; get it from {home}, or pass --root {name}=DIR"
    raise MissingDataError(f"suite '{suite}', split '{split}': {roots.text} has no {wanted}{hint}")


def _inside(root: Path, candidates: Iterable[str]) -> Iterator[Path]:
    """Places of a split in a root that is itself the data set's folder, best first.

    The root must be called as a candidate's first part, whatever the case: by any other name it could be anything.
    """
    name = root.absolute().name.lower()
    for candidate in candidates:
        first, *rest = Path(candidate).parts
        if first.lower() == name and exists(root.joinpath(*rest)):
            yield root.joinpath(*rest)


def exists(path: Path) -> bool:
    """True if the path exists. MissingDataError, in one line, where permissions forbid to ask."""
    try:
        return path.exists()
    except OSError as error:
        raise MissingDataError(f"cannot look at {path}: {error.strerror}; correct its permissions") from error


def _near(folders: Iterable[Path], candidates: Sequence[str]) -> Path | None:
    """A root one or two levels above or one below those given that would have been right."""
    for root in folders:
        absolute = root.absolute()
        above = [absolute.parent, absolute.parent.parent]
        try:
            below = sorted(child for child in root.iterdir() if child.is_dir())[:NEAR]
        except OSError:
            below = []
        for other in (*above, *below):
            for candidate in candidates:
                try:
                    if (other / candidate).exists():
                        return other
                except OSError:
                    continue
    return None
