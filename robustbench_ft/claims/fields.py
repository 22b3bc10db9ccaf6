"""Fields of a claim's JSON that no type reads."""

from collections.abc import Mapping
from typing import Any

LEFT_OUT = ("low", "high", "passes")  # where they say what a claim says by leaving them out


def strangers(content: Any, known: Any, path: str = "") -> list[str]:
    """Fields of a claim's JSON that `known`, what the types make of it, does not have; an absent value is none."""
    if isinstance(content, Mapping) and isinstance(known, Mapping):
        found: list[str] = []
        for key, value in content.items():
            where = f"{path}.{key}" if path else str(key)
            if key in known:
                found += strangers(value, known[key], where)
            elif value is not None and value is not False and key not in LEFT_OUT:
                found.append(where)
        return found
    if isinstance(content, list) and isinstance(known, list):
        pairs = enumerate(zip(content, known, strict=False))
        return [line for k, (mine, theirs) in pairs for line in strangers(mine, theirs, f"{path}[{k}]")]
    return []
