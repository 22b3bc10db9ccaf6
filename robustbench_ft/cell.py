"""A cell: the unit of work and of record, with everything in it that can move a number."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from . import registry
from .errors import RbftError
from .method import Method
from .model_ref import ModelRef
from .recipe import Recipe
from .suite import Protocol

SCHEMA = 1
LATER = ("partial", "suite_definition", "shared", "contents")  # fields that earlier cells lack


@dataclass(frozen=True)
class Cell:
    """Everything that can move a number, resolved. Equal cells are the same work."""

    suite: str
    suite_version: int
    model: ModelRef
    method: str
    method_version: int
    settings: Mapping[str, Any]  # the method's own fields
    recipe: Mapping[str, Any] | None  # None: nothing is trained
    recipe_source: str  # 'suite', 'method', '--recipe NAME' or 'none', and all that --set changed, settings too
    protocol: Protocol
    precision: str
    seed: int
    deterministic: bool = False  # nothing random happens: one seed is all there is
    schema: int = SCHEMA
    partial: bool = False  # counts of the data may differ from the suite's card: barred from boards
    suite_definition: str = ""  # digest of the suite.toml, where one defines the suite
    shared: Mapping[str, int] = field(default_factory=dict[str, int])  # of `recipe.SHARED_VERSIONS`, what it uses
    contents: Mapping[str, str] = field(default_factory=dict[str, str])  # setting that names a file or model -> sha256

    @property
    def digest(self) -> str:
        """Names the configuration without the seed; eight characters are in the folder's name."""
        content = self._content()
        for name in ("seed", "recipe_source"):
            del content[name]
        content["settings"] = {**content["settings"], **content.pop("contents", {})}  # not where the file lies
        content["model"] = {"weights": self.model.weights, "name": self.model.name}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def folder(self) -> Path:
        """Relative to the output folder."""
        return Path(self.suite) / self.model.label / f"{self.method}-{self.digest[:8]}" / f"seed-{self.seed}"

    def to_json(self) -> dict[str, Any]:
        return json.loads(json.dumps({**self._content(), "digest": self.digest}))

    def _content(self) -> dict[str, Any]:
        """Fields that came later are left out at their defaults, so that digests of earlier cells stay."""
        return {k: v for k, v in asdict(self).items() if v or k not in LATER}

    def build(self) -> Method:
        """The method with its fields and recipe in place."""
        kind = registry.load("method", self.method, Method)
        return kind(**self.settings, recipe=None if self.recipe is None else Recipe(**self.recipe))


def from_json(content: Mapping[str, Any]) -> Cell:
    """The cell of which `content` is the JSON. Raises `RbftError` where it is that of none."""
    try:
        values: dict[str, Any] = {f.name: content[f.name] for f in fields(Cell) if f.name in content}
        values["model"] = ModelRef(**content["model"])
        cell = Cell(**values)
    except (KeyError, TypeError) as error:
        raise RbftError(f"this is no cell: {error}; another version of robustbench_ft has written it") from error
    if cell.digest != content.get("digest"):
        raise RbftError(f"the digest of this cell is {cell.digest}, not {content.get('digest')}: versions differ")
    return cell
