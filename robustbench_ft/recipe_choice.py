"""The base recipe of each cell: the suite's, the method's own, or the one that `--recipe` puts all methods on.

A recipe file holds fields of a recipe. It may also name one `method` and hold its [settings], as those that `rbft tune`
writes do, with their origin in [tuned].
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from . import recipe, registry, toml
from .errors import PlanError, RbftError, unknown
from .method import Method
from .recipe import Recipe
from .settings import RECIPE_FIELDS, own_settings
from .suite import Suite

BASE = "base"  # key of a recipe file: the name of the recipe that its fields are laid over
METHOD, SETTINGS, TUNED = "method", "settings", "tuned"  # its other keys: whose settings, these, where they came from


@dataclass(frozen=True)
class Choice:
    """What `--recipe` asks for. Nothing: each method on its own recipe where it has one, else on the suite's."""

    source: str = ""  # as records name it
    name: str = ""  # of a method whose authors' recipe it is; '': the suite's recipe
    fields: Mapping[str, Any] | None = None  # of a file, laid over that recipe
    method: str = ""  # that a file is for; '': for every method
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])  # of the method, from a file

    def resolve(self, suite: Suite, kind: type[Method]) -> tuple[Recipe, str]:
        """The base recipe of a method on a suite, and whose it is. Raises `PlanError` where there is none."""
        if not self.source:
            own = kind.published.get(suite.recipe_key)
            return (suite.recipe, "suite") if own is None else (own, "method")
        base = _published(self.name, suite) if self.name else suite.recipe
        problems: list[str] = []
        made = recipe.overlay(base, self.fields or {}, problems)
        if problems:
            raise PlanError(f"{self.source}: {line}" for line in problems)
        return made, self.source

    def settings_of(self, name: str, kind: type[Method]) -> dict[str, Any]:
        """The file's settings of this method. Raises `PlanError` where they are another's or of a wrong type."""
        if self.method and self.method != name:
            raise PlanError([f"{self.source}: it is for method '{self.method}', not for '{name}'; run them apart"])
        hints, found, problems = own_settings(kind), dict[str, Any](), list[str]()
        for key, value in self.settings.items():
            if key not in hints:
                problems.append(f"{self.source}: [settings] {_no_setting(key, name, hints)}")
                continue
            try:
                found[key] = TypeAdapter(hints[key]).validate_json(json.dumps(value, default=str), strict=True)
            except ValidationError as error:
                problems.append(f"{self.source}: [settings] {key} is {value!r}: {error.errors()[0]['msg'].lower()}")
                continue
            if isinstance(found[key], float) and not math.isfinite(found[key]):
                problems.append(f"{self.source}: [settings] {key} is {value!r}: every number must be finite")
        if problems:
            raise PlanError(problems)
        return found


def _no_setting(key: str, method: str, hints: Mapping[str, Any]) -> str:
    if key in RECIPE_FIELDS:
        return f"{key} belongs to the recipe: put it above [settings]"
    if not hints:
        return f"{key} belongs to another method: {method} has no settings"
    return f"of {method}: {unknown('setting', key, hints)}"


def read(text: str | None) -> Choice:
    """From the value of `--recipe`: a name, or the path of a TOML file. Raises `RbftError` where it is neither."""
    if text is None:
        return Choice()
    if not text.endswith(".toml"):
        name = _name(text, ", or a .toml file")
        return Choice(f"--recipe {name}", name)
    path = Path(text).expanduser()
    fields = toml.read(path, "the recipe")
    name, method = _text(path, fields, BASE, "recipe"), _text(path, fields, METHOD, "method")
    settings = _table(path, fields, SETTINGS)
    _table(path, fields, TUNED)
    key = BASE
    try:
        base, key = _name(name) if name else "", METHOD
        owner = registry.resolve("method", method).name if method else ""
        return Choice(f"--recipe {path.name}", base, fields, owner, settings)
    except RbftError as error:
        raise RbftError(f"{path}: {key}: {error}") from error


def _text(path: Path, fields: dict[str, Any], key: str, what: str) -> str:
    """Take `key` out of a file's fields; '' where it is not there."""
    found = fields.pop(key, "")
    if not isinstance(found, str):
        raise RbftError(f'{path}: {key} must be the name of a {what}, e.g. {key} = "lipsum"')
    return found


def _table(path: Path, fields: dict[str, Any], key: str) -> Mapping[str, Any]:
    """Take the table `key` out of a file's fields; empty where it is not there."""
    found = fields.pop(key, {})
    if not isinstance(found, dict):
        raise RbftError(f"{path}: {key} must be a table: write [{key}] and its lines below it")
    return cast(Mapping[str, Any], found)


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
    found = _kind(name).published.get(suite.recipe_key) or recipe.PUBLISHED.get(name)
    if found is None:
        having = ", ".join(sorted(_kind(name).published))
        raise PlanError([f"--recipe {name}: its authors publish none for suite '{suite.name}', only for {having}"])
    return found


def _kind(name: str) -> type[Method]:
    return registry.load("method", name, Method)
