"""Fields in which the JSON of two claims differs."""

import json
import math
from collections.abc import Mapping
from typing import Any


def differing(stored: Any, fresh: Any, path: str = "") -> list[str]:
    """Leaves that differ, each named by its path; floats to a relative 1e-9. A field left out equals an empty one."""
    if isinstance(stored, Mapping) and isinstance(fresh, Mapping):
        lines: list[str] = []
        for key in sorted({*stored, *fresh}, key=str):
            where = f"{path}.{key}" if path else str(key)
            if not stored.get(key) and not fresh.get(key) and (key in stored) != (key in fresh):
                continue
            if key not in stored or key not in fresh:
                lines.append(f"{where} is {'missing' if key not in stored else 'not a field of a claim'}")
            else:
                lines += differing(stored[key], fresh[key], where)
        return lines
    if isinstance(stored, list) and isinstance(fresh, list):
        if len(stored) != len(fresh):
            return [f"{path} has {len(stored)} entries, its files give {len(fresh)}"]
        return [
            line for k, (a, b) in enumerate(zip(stored, fresh, strict=True)) for line in differing(a, b, f"{path}[{k}]")
        ]
    if _equal(stored, fresh):
        return []
    return [f"{path} is {json.dumps(stored)}, its files give {json.dumps(fresh)}"]


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool) or not (isinstance(a, int | float) and isinstance(b, int | float)):
        return type(a) is type(b) and a == b
    if not (math.isfinite(a) and math.isfinite(b)):
        return False  # no number of a claim is infinite
    # an interval of zero width may come out as 1e-18 on another machine
    return bool(abs(a - b) <= 1e-9 * max(abs(a), abs(b)) + 1e-12)
