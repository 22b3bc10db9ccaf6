"""Which suite is meant: a registered name or the path of a `suite.toml`, with options: 'imagenet+objectnet'.

A registered name may end in an earlier version, as boards call it: 'shapes-v1'.
"""

import re
from pathlib import Path

from . import custom, few_shot, registry
from .errors import RbftError
from .images.roots import Roots
from .suite import Suite


def is_file(text: str) -> bool:
    """Whether a suite is named by its file (or the folder that holds one) and not by a registered name."""
    text, _ = few_shot.cut(text)
    return text.endswith(".toml") or text.startswith(".") or "/" in text or "\\" in text


def name_of(text: str) -> str:
    """What a suite that is named by its file calls itself; no data are looked at."""
    path, options = few_shot.cut(text)
    name = custom.read_form(Path(path).expanduser()).name
    return "+".join((name, *few_shot.canonical(name, options)))


def versioned(base: str) -> tuple[str, int | None]:
    """A name and the version that it ends in, if it is not all a registered name: 'shapes-v1' is 'shapes' and 1."""
    parts = re.fullmatch(r"(.+)-v([1-9][0-9]{0,5})", base)
    if parts is None or base in registry.entries("suite"):
        return base, None
    return parts[1], int(parts[2])


def load(text: str, root: Roots | Path | None = None, partial: bool = False, version: int | None = None) -> Suite:
    """The suite, which finds its data under `root`; with `partial`, counts may differ from its card.

    `version` is of a registered suite, where its name does not say it.
    """
    if is_file(text):
        path, options = few_shot.cut(text)
        suite = custom.read(Path(path).expanduser(), partial, options)
        if suite.base in registry.entries("suite"):
            raise RbftError(f"{text}: '{suite.base}' is the name of a registered suite; give it another")
        return suite
    base, *options = text.split("+")
    base, named = versioned(base)
    try:
        entry = registry.resolve("suite", base)
    except RbftError as error:
        if (Path(text) / custom.FILE).exists():
            raise RbftError(f"no suite '{text}' is registered, but a folder is called so: write ./{text}") from error
        raise
    chosen = few_shot.canonical(entry.name, options)  # one name for one set of options
    suite = registry.load("suite", entry.name, Suite)("+".join((entry.name, *chosen)), root, chosen, partial)
    wanted = named or version
    return suite if wanted is None else suite.at(wanted)
