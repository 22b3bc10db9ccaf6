"""Ranges of settings: where a search may look. Methods declare their own; `--range` says others. Torch-free."""

import math
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from .errors import RbftError, unknown

Scale = Literal["linear", "log", "log1m"]
DIGITS = 4  # of a drawn number: enough to search, short enough to be typed again
WRITE = "write LOW:HIGH, LOW:HIGH:log, LOW:HIGH:log1m, or values with commas, e.g. 1e-5:1e-2:log or 8,16,32"


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Equal stretches of the value ('linear'), of its logarithm ('log'), or of the logarithm of 1 - value ('log1m', for a
    decay near 1) are equally likely. Raises `RbftError` where there is nothing to choose from.
    """

    low: float
    high: float
    scale: Scale = "linear"

    def __post_init__(self) -> None:
        if self.scale not in get_args(Scale):
            raise RbftError(unknown("scale", self.scale, get_args(Scale)))
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise RbftError(f"{self.text}: both ends must be finite numbers")
        if self.low >= self.high:
            equal = "; a single value is fixed with --set" if self.low == self.high else ""
            raise RbftError(f"{self.text}: the low end must be below the high end{equal}")
        if self.scale == "log" and self.low <= 0:
            raise RbftError(f"{self.text}: a log range must start above 0")
        if self.scale == "log1m" and self.high >= 1:
            raise RbftError(f"{self.text}: a log1m range must end below 1")

    @property
    def text(self) -> str:
        """The range as `--range` takes it."""
        return f"{self.low:g}:{self.high:g}" + ("" if self.scale == "linear" else f":{self.scale}")

    def at(self, u: float, whole: bool = False) -> float | int:
        """The value at the quantile `u` in [0, 1); a whole number for `whole`, the ends as likely as any other."""
        if whole:
            return self._whole(u)
        if self.scale == "log1m":
            mirrored = Range(1 - self.high, 1 - self.low, "log").at(1 - u)
            return self._inside(round(1 - mirrored, 12))
        return self._inside(float(f"{self._between(self.low, self.high, u):.{DIGITS}g}"))

    def _whole(self, u: float) -> int:
        low, high = math.ceil(self.low), math.floor(self.high)
        if self.scale == "log1m" or low >= high:
            raise RbftError(f"{self.text}: a whole number needs two of them in its range, and no log1m")
        return min(max(round(self._between(low - 0.5, high + 0.5, u)), low), high)

    def _between(self, low: float, high: float, u: float) -> float:
        if self.scale == "log":
            return math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
        return low + u * (high - low)

    def _inside(self, value: float) -> float:
        """Rounding may have left the range by half a digit."""
        return min(max(value, self.low), self.high)


@dataclass(frozen=True)
class Choices:
    """A few values, equally likely. Raises `RbftError` for fewer than two."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(set(self.values)) < 2:
            raise RbftError(f"{self.text}: give at least two values; a single one is fixed with --set")

    @property
    def text(self) -> str:
        """The values as `--range` takes them."""
        return ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in self.values)

    def at(self, u: float, whole: bool = False) -> Any:
        """The value at the quantile `u` in [0, 1)."""
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]


Space = Range | Choices


def read(text: str) -> Space:
    """From the text of `--range`: '1e-5:1e-2:log' or 'a,b,c', whose values stay text. Raises `RbftError`."""
    if ":" not in text:
        values = tuple(part.strip() for part in text.split(","))
        if len(values) < 2 or not all(values):
            raise RbftError(f"{text}: {WRITE}")
        return Choices(values)
    low, high, *scale = (part.strip() for part in text.split(":"))
    if len(scale) > 1:
        raise RbftError(f"{text}: {WRITE}")
    try:
        ends = float(low), float(high)
    except ValueError as error:
        raise RbftError(f"{text}: {WRITE}") from error
    return Range(*ends, cast(Scale, scale[0] if scale else "linear"))


def around(centre: float, factor: float = 10.0) -> Range:
    """From `centre` / `factor` to `centre` * `factor`, on the log scale; e.g. around a recipe's learning rate."""
    return Range(float(f"{centre / factor:.6g}"), float(f"{centre * factor:.6g}"), "log")
