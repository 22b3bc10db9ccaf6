"""What a step and a decoded image cost, beside a bare loop and torchvision's loaders."""

from importlib import import_module
from typing import Any

from robustbench_ft import _names


def __getattr__(name: str) -> Any:
    """Names of `step`, which was this module one version ago."""
    if name.startswith("_") or name in ("step", "loader", "contestant", "flops", "penalties"):
        raise AttributeError(name)
    found = getattr(import_module(f"{__name__}.step"), name)
    _names.tell(f"{__name__}.{name}", f"{__name__}.step.{name}", 3)
    return found
