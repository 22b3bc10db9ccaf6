"""Settings of a method and its recipe: which there are, of which type, and how a text becomes a value."""

import dataclasses
import math
from typing import Any, get_type_hints

from pydantic import TypeAdapter

from . import toml
from .errors import RbftError
from .method import Method
from .recipe import Recipe

RECIPE_FIELDS = tuple(f.name for f in dataclasses.fields(Recipe))


def own_settings(kind: type[Method]) -> dict[str, Any]:
    """Name -> type of the method's own settings."""
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind) if f.name != "recipe"}


def settings_of(kind: type[Method]) -> dict[str, Any]:
    """Name -> type of all settings: the method's own and, where it trains, those of its recipe."""
    shared = get_type_hints(Recipe)
    return own_settings(kind) | {name: shared[name] for name in RECIPE_FIELDS} if kind.trains else own_settings(kind)


def parse(kind: Any, text: str) -> Any:
    """`text` as a value of the type `kind`; numbers are finite, and `true` is not one.

    Raises pydantic's `ValidationError` for another type, `RbftError` for an infinite number.
    """
    literal = _literal(text)
    plain = kind is str or (isinstance(literal, bool) and kind is not bool)
    found = TypeAdapter(kind).validate_python(text if plain else literal)
    if isinstance(found, float) and not math.isfinite(found):
        raise RbftError("input should be a finite number")
    return found


def _literal(text: str) -> Any:
    try:
        return toml.parse(f"value = {text}")["value"]
    except ValueError:
        return text
