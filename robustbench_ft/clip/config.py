"""What open_clip_config.json may say: values that describe a model, and none that fetch or run anything.

open_clip hands parts of this file to transformers and timm as they are. `tokenizer_kwargs` with `trust_remote_code`
runs Python that lies beside it, and the name of a tower can be that of any repository.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import open_clip
import timm
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from robustbench_ft.errors import RbftError

FILE = "open_clip_config.json"
TOKENIZER_FILES = ("tokenizer_config.json", "config.json")  # where transformers looks for code beside a tokenizer
MOST = 100_000  # of any whole number that sizes a model, but for its vocabulary
MOST_OF = {"vocab_size": 2_000_000, "layers": 1_000}  # other limits: 20,000 blocks take a minute to be made
CONTEXT_SHOWN = 60  # characters of a value that are quoted

Side = Annotated[int, Field(ge=1, le=4096)]
Channels = Annotated[list[FiniteFloat], Field(min_length=3, max_length=3)]
Deviation = Annotated[FiniteFloat, Field(gt=0)]


class Preprocess(BaseModel):
    """`preprocess_cfg`, the part that open_clip reads."""

    model_config = ConfigDict(strict=True, extra="ignore")

    size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None = None
    mode: Literal["RGB"] | None = None
    mean: Channels | None = None
    std: Annotated[list[Deviation], Field(min_length=3, max_length=3)] | None = None
    interpolation: Literal["bicubic", "bilinear", "random"] | None = None
    resize_mode: Literal["shortest", "longest", "squash"] | None = None
    fill_color: Annotated[int, Field(ge=0, le=255)] | None = None


class Own(BaseModel):
    """`rbft`, the part that is this project's own."""

    model_config = ConfigDict(strict=True, extra="ignore")

    tokenizer: Literal["words"] | None = None
    random_ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)] | None = None
    bos: int = -1
    eos: int = -1
    head: Literal["unit", "scaled"] | None = None
    classes: Annotated[list[str], Field(min_length=1)] | None = None
    templates: Annotated[list[str], Field(min_length=1)] | None = None


class _File(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    model_cfg: dict[str, Any]
    preprocess_cfg: Preprocess = Preprocess()
    rbft: Own = Own()


def read(folder: Path) -> dict[str, Any]:
    """The configuration in a folder, checked. Raises `RbftError` with file and key."""
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RbftError(f"cannot read {path}: {' '.join(str(error).split())}; it must be JSON in UTF-8") from error
    check(content, str(path))
    for name in TOKENIZER_FILES:
        beside = folder / name
        if beside.is_file() and b"auto_map" in beside.read_bytes():
            raise RbftError(f"{beside} names Python code to run ('auto_map'), and no code of a model folder is run")
    return cast(dict[str, Any], content)


def check(content: Any, place: str) -> None:
    """Refuse a configuration that is damaged, or that would fetch or run something. One line with `place` and key."""
    try:
        _File.model_validate_json(json.dumps(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its content"
        raise RbftError(f"{place}: {where}: {first['msg'].lower()}") from error
    if problem := _problem(content["model_cfg"]):
        raise RbftError(f"{place}: model_cfg.{problem}")


def _problem(model: Mapping[str, Any]) -> str:
    """What is wrong with `model_cfg`; '' when nothing is."""
    for part in ("vision_cfg", "text_cfg"):
        if not isinstance(model.get(part), dict):
            return f"{part}: must be a table"
    vision, text = model["vision_cfg"], model["text_cfg"]
    for key, allowed in (("hf_model_name", _known().towers), ("hf_tokenizer_name", _known().tokenizers)):
        if (name := text.get(key)) and name not in allowed:
            return f"text_cfg.{key}: {_shown(name)} is none of open_clip's own: it would be fetched, or its code run"
    for key, value in (text.get("tokenizer_kwargs") or {}).items():
        if (key, value) not in _known().options:
            return f"text_cfg.tokenizer_kwargs: {key} = {_shown(value)} is none of open_clip's own: it could run code"
    tower = vision.get("timm_model_name")
    if tower is not None and not (isinstance(tower, str) and ":" not in tower and timm.is_model(tower)):
        return f"vision_cfg.timm_model_name: {_shown(tower)} is no registered timm model"
    return _too_large(model, "")


def _too_large(part: Mapping[str, Any], where: str) -> str:
    """The first whole number that no model has; '' where there is none."""
    for key, value in part.items():
        if isinstance(value, Mapping):
            if problem := _too_large(cast(Mapping[str, Any], value), f"{where}{key}."):
                return problem
            continue
        most = MOST_OF.get(key, MOST)
        for number in cast(list[Any], value) if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not -most <= number <= most:  # NaN, too
                return f"{where}{key}: {_shown(number)} is out of range"
    return ""


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= CONTEXT_SHOWN else f"{text[:CONTEXT_SHOWN]}..."


@dataclass(frozen=True)
class _Known:
    """What open_clip's own configurations name."""

    towers: frozenset[str]
    tokenizers: frozenset[str]
    options: tuple[tuple[str, Any], ...]  # of a tokenizer, with the value


@lru_cache
def _known() -> _Known:
    folder = Path(open_clip.__file__).parent / "model_configs"
    texts: list[dict[str, Any]] = [json.loads(path.read_text("utf-8"))["text_cfg"] for path in folder.glob("*.json")]
    options = {json.dumps(pair) for text in texts for pair in (text.get("tokenizer_kwargs") or {}).items()}
    return _Known(
        frozenset(text["hf_model_name"] for text in texts if text.get("hf_model_name")),
        frozenset(text["hf_tokenizer_name"] for text in texts if text.get("hf_tokenizer_name")),
        tuple((key, value) for key, value in map(json.loads, sorted(options))),
    )
