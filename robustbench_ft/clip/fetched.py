"""Weights of the hub: which revision and which file a name stood for, and names that fix it.

`hf-hub:ORG/NAME` is whatever the hub holds under that name today; `hf-hub:ORG/NAME@REVISION` is always the same.
"""

import os
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
from open_clip.pretrained import _get_safe_alternatives  # pyright: ignore[reportPrivateUsage]

from robustbench_ft.errors import RbftError
from robustbench_ft.model_ref import HUB, TOKENIZERS, WEIGHTS, ModelRef, digest_of_file, is_fetched

from . import config

FILES = (config.FILE, *config.TOKENIZER_FILES, *WEIGHTS, *TOKENIZERS)
WHOLE = "open_clip_pytorch_model.bin"  # open_clip's name for weights; those in safetensors go first


def pinned(ref: ModelRef) -> Path | None:
    """The folder of a model that is named with its revision, fetched where it is not here; None for other models."""
    place, _, revision = ref.name.removeprefix(HUB).partition("@")
    if not ref.name.startswith(HUB) or not revision:
        return None
    try:
        return Path(huggingface_hub.snapshot_download(place, revision=revision, allow_patterns=list(FILES)))
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RbftError(
            f"cannot fetch {ref.name} ({reason}): fetch it once on a machine with network, or pass --model "
            "local-dir:DIR (a folder with open_clip_config.json and its safetensors)"
        ) from error


def for_record(ref: ModelRef) -> dict[str, Any]:
    """`weights` of env.json, for a model that was fetched: repository, revision, file and its SHA-256; else {}."""
    if not is_fetched(ref.name, ref.pretrained):
        return {}
    repository, revision, names = _asked(ref)
    for name in names:
        found = huggingface_hub.try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(found, str):
            own = Path(found).relative_to(Path(found).parents[len(Path(name).parts)])
            return _told(repository, own.parts[0], name, Path(found))
    url = str(open_clip.get_pretrained_cfg(ref.name, ref.pretrained).get("url", "")) if ref.pretrained else ""
    file = Path(os.path.expanduser("~/.cache/clip")) / os.path.basename(url)  # where open_clip keeps it
    return _told(url, "", file.name, file) if url and file.is_file() else {}


def _asked(ref: ModelRef) -> tuple[str, str, list[str]]:
    """Repository, revision and files in which weights are looked for, the first one that is there counts."""
    if ref.name.startswith(HUB):
        place, _, revision = ref.name.removeprefix(HUB).partition("@")
        return place, revision, list(WEIGHTS) if revision else [*_get_safe_alternatives(WHOLE), WHOLE]
    whole = str(open_clip.get_pretrained_cfg(ref.name, ref.pretrained).get("hf_hub", ""))
    place, _, name = whole.rpartition("/")
    return place, "", [*_get_safe_alternatives(name or WHOLE), name or WHOLE] if place else []


def _told(repository: str, revision: str, name: str, file: Path) -> dict[str, Any]:
    told = {"repository": repository, "revision": revision, "file": name, "sha256": digest_of_file(file)}
    return {"weights": told}
