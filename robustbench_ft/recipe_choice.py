"""The base recipe of each cell: the suite's, the method's own, or the one that `--recipe` puts all methods on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import recipe, registry, toml
from .errors import PlanError, RbftError, unknown
from .method import Method
from .recipe import Recipe
from .suite import Suite

BASE = "base"  # key of a recipe file: the name of the recipe that its fields are laid over


@dataclass(frozen=True)
class Choice:
    """What `--recipe` asks for. Nothing: each method on its own recipe where it has one, else on the suite's."""

    source: str = ""  # as records name it
    name: str = ""  # of a method whose authors' recipe it is; '': the suite's recipe
    fields: Mapping[str, Any] | None = None  # of a file, laid over that recipe

    def resolve(self, suite: Suite, kind: type[Method]) -> tuple[Recipe, str]:
        """The base recipe of a method on a suite, and whose it is. Raises `PlanError` where there is none."""
        if not self.source:
            own = kind.published.get(suite.base)
            return (suite.recipe, "suite") if own is None else (own, "method")
        base = _published(self.name, suite) if self.name else suite.recipe
        problems: list[str] = []
        made = recipe.overlay(base, self.fields or {}, problems)
        if problems:
            raise PlanError(f"{self.source}: {line}" for line in problems)
        return made, self.source


def read(text: str | None) -> Choice:
    """From the value of `--recipe`: a name, or the path of a TOML file. Raises `RbftError` where it is neither."""
    if text is None:
        return Choice()
    if not text.endswith(".toml"):
        name = _name(text, ", or a .toml file")
        return Choice(f"--recipe {name}", name)
    path = Path(text).expanduser()
    fields = toml.read(path, "the recipe")
    name = fields.pop(BASE, "")
    if not isinstance(name, str):
        raise RbftError(f'{path}: {BASE} must be the name of a recipe, e.g. {BASE} = "lipsum"')
    try:
        return Choice(f"--recipe {path.name}", _name(name) if name else "", fields)
    except RbftError as error:
        raise RbftError(f"{path}: {BASE}: {error}") from error


def _name(text: str, more: str = "") -> str:
    """The method that is called so, where its authors publish a recipe; `more` is what else may be named."""
    try:
        name = registry.resolve("method", text).name
    except RbftError:
        name = ""
    if name in recipe.PUBLISHED or (name and _kind(name).published):
        return name
    if name:
        raise RbftError(f"method '{name}' brings no recipe; known: {', '.join(sorted(recipe.PUBLISHED))}{more}")
    raise RbftError(f"{unknown('recipe', text, recipe.PUBLISHED)}{more}")


def _published(name: str, suite: Suite) -> Recipe:
    """What a method's authors did on this very suite, else their base recipe."""
    found = _kind(name).published.get(suite.base) or recipe.PUBLISHED.get(name)
    if found is None:
        having = ", ".join(sorted(_kind(name).published))
        raise PlanError([f"--recipe {name}: its authors publish none for suite '{suite.name}', only for {having}"])
    return found


def _kind(name: str) -> type[Method]:
    return registry.load("method", name, Method)
