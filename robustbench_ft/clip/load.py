"""Models by name: open_clip's own, from a folder, a file of weights or the hub; and tuned ones from a record."""

import copy
import json
import logging
import pickle
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub
import open_clip
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from robustbench_ft import embedded
from robustbench_ft.embedded.tokenizer import Words
from robustbench_ft.errors import RbftError
from robustbench_ft.model_ref import RANDOM, WEIGHTS, ModelRef, check_weights_file, is_fetched, weights_in
from robustbench_ft.prompts import Task

from . import config as configs
from . import fetched
from .clip import Clip, Tokenizer

MOST_TOLD = 300  # characters of what a library says
# as open_clip names them on the hub
WEIGHT_FILES = (*WEIGHTS, fetched.WHOLE)


def load(ref: ModelRef) -> Clip:
    """Build the model that `ref` names, with its weights, on the CPU in float32."""
    embedded.register()
    schema, _, place = ref.open_clip_name.partition(":")
    if is_fetched(ref.name, ref.pretrained):
        _check_reach(ref)
    if (folder := fetched.pinned(ref)) is not None:
        schema, place = "local-dir", str(folder)
    try:
        if schema == "local-dir":
            return _load_folder(Path(place))
        return _load_hub(ref) if schema == "hf-hub" else _load_builtin(ref)
    except pickle.UnpicklingError as error:
        raise RbftError(
            f"cannot load {ref.pretrained}: it holds more than tensors, which only running its code would load; "
            "convert it to safetensors"
        ) from error
    except RbftError:
        raise
    except Exception as error:  # whatever open_clip, timm or torch make of a configuration that does not fit
        if (
            is_fetched(ref.name, ref.pretrained)
            and isinstance(error, OSError | RuntimeError)
            and "download" in str(error)
        ):
            raise _unfetched(ref, str(error).strip().splitlines()[0]) from error
        what = " ".join(line.strip() for line in str(error).strip().splitlines()[:2]) or type(error).__name__
        what = what if len(what) <= MOST_TOLD else f"{what[:MOST_TOLD]}..."
        raise RbftError(f"cannot load model '{f'{ref.name} {ref.pretrained}'.strip()}': {what}") from error


def _check_reach(ref: ModelRef) -> None:
    """Say at once that weights cannot be fetched: the hub's client tries for most of a minute, a dozen warnings long.

    Behind a proxy names are resolved elsewhere, so there the client is left to find out.
    """
    if ref.pretrained:
        tag: dict[str, Any] = open_clip.get_pretrained_cfg(ref.name, ref.pretrained)
        repo, _, file = str(tag.get("hf_hub", "")).rpartition("/")
    else:
        repo, file = ref.name.partition(":")[2], ""
    repo, _, revision = repo.partition("@")
    if not repo or getproxies():
        return
    files = (file,) if file else WEIGHT_FILES
    pin: dict[str, Any] = {"revision": revision} if revision else {}
    if any(isinstance(huggingface_hub.try_to_load_from_cache(repo, name, **pin), str) for name in files):
        return
    host = urlsplit(huggingface_hub.constants.ENDPOINT).hostname or ""
    reason = "HF_HUB_OFFLINE is set" if huggingface_hub.constants.HF_HUB_OFFLINE else ""
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        reason = reason or f"no network: {host} cannot be found"
    if reason:
        raise _unfetched(ref, reason)


def _unfetched(ref: ModelRef, reason: str) -> RbftError:
    """One line: what could not be fetched, and what to pass instead."""
    name = " ".join(filter(None, (ref.name, ref.pretrained)))
    file = f"--model {ref.name} --pretrained FILE.safetensors, or " if ref.pretrained else ""
    return RbftError(
        f"cannot fetch the weights of {name} ({reason}): fetch them once on a machine with network and pass {file}"
        "--model local-dir:DIR (a folder with open_clip_config.json and its safetensors)"
    )


def load_saved(folder: Path) -> Clip:
    """A tuned model as `Clip.save` left it, head included: what a record's `model/` holds.

    Raises `RbftError` for a folder that something else was saved to, e.g. a scorer that is no `Clip`.
    """
    if lacking := [n for n in ("open_clip_config.json", "head.safetensors") if not (folder / n).is_file()]:
        raise RbftError(f"{folder} is no tuned CLIP, it has no {lacking[0]}; what a method saves there may be its own")
    clip = load(ModelRef(f"local-dir:{folder}", "", ""))
    own = clip.config["rbft"]
    if lacking := [key for key in ("head", "classes", "templates") if own.get(key) is None]:
        raise RbftError(f"{folder / configs.FILE}: rbft.{lacking[0]} is missing, so its head cannot be read")
    try:
        tensors = safetensors.torch.load_file(folder / "head.safetensors")
        clip.set_head(tensors["head"], own["head"], Task(tuple(own["classes"]), tuple(own["templates"])))
        if clip.bias is not None:
            clip.restore({"bias": tensors["bias"]})
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        raise RbftError(f"cannot read {folder / 'head.safetensors'}: {error}; it is damaged") from error
    return clip.eval()


def random_vit() -> Clip:
    """A ViT of two blocks for the embedded model's images and words, with random weights that are always the same."""
    whole: dict[str, Any] = json.loads((embedded.CHECKPOINT / "open_clip_config.json").read_text(encoding="utf-8"))
    tower = {"image_size": whole["preprocess_cfg"]["size"], "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}
    sizes: Any = {**whole["model_cfg"], "vision_cfg": tower}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(**sizes)
    vocabulary = embedded.CHECKPOINT / "vocab.txt"
    return Clip(model, Words.load(vocabulary), {**whole, "model_cfg": sizes}, {"vocab.txt": vocabulary}).eval()


def _load_folder(folder: Path) -> Clip:
    """Its weights are those of the one file that is digested; open_clip would look for one itself."""
    config, name = configs.read(folder), f"local-dir:{folder}"
    with _quiet():  # open_clip warns that it loads no weights
        model: Any = open_clip.create_model(name, precision="fp32", load_weights=False, pretrained_text=False)
    open_clip.load_checkpoint(model, str(weights_in(folder)))
    whole = _complete(config, model)
    if whole["rbft"].get("tokenizer") == "words":
        vocabulary = folder / "vocab.txt"
        words = Words.load(vocabulary)
        if words.vocab_size > model.vocab_size:
            raise RbftError(f"{vocabulary} has {words.vocab_size} lines, the model knows {model.vocab_size} tokens")
        return Clip(model, words, whole, {"vocab.txt": vocabulary})
    tokenizer = _tokenizer(name, config)
    if (words := getattr(tokenizer, "vocab_size", 0)) > model.vocab_size:
        raise RbftError(
            f"{folder}: its tokenizer is CLIP's, of {words:,} tokens, and its model knows {model.vocab_size:,}: "
            'a vocabulary of its own is named by "tokenizer": "words"'
        )
    return Clip(model, tokenizer, whole)


def _load_hub(ref: ModelRef) -> Clip:
    place = ref.name.partition(":")[2]
    config: dict[str, Any] = open_clip.factory._get_hf_config(place)  # pyright: ignore[reportPrivateUsage]
    configs.check(config, f"{configs.FILE} of {ref.name}")
    config = {"model_cfg": config["model_cfg"]}
    model = open_clip.create_model(ref.name, precision="fp32", require_pretrained=True)
    return Clip(model, _tokenizer(ref.name, config), _complete(config, model))


def _tokenizer(name: str, config: Mapping[str, Any]) -> Tokenizer:
    """open_clip's; one of transformers may not run code that lies beside it."""
    trust: Any = {"trust_remote_code": False} if config["model_cfg"]["text_cfg"].get("hf_tokenizer_name") else {}
    return cast(Tokenizer, open_clip.get_tokenizer(name, **trust))


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Warnings of open_clip are not shown: what they say was asked for."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _load_builtin(ref: ModelRef) -> Clip:
    config: dict[str, Any] = {"model_cfg": copy.deepcopy(open_clip.get_model_config(ref.name))}
    if ref.pretrained == RANDOM:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            with _quiet():
                model = open_clip.create_model(ref.name, precision="fp32")
    elif ref.is_file:
        check_weights_file(Path(ref.pretrained))
        model = open_clip.create_model(ref.name, pretrained=ref.pretrained, precision="fp32")
    else:
        tag: dict[str, Any] = open_clip.get_pretrained_cfg(ref.name, ref.pretrained)
        if not tag:
            known = open_clip.list_pretrained_tags_by_model(ref.name)
            raise RbftError(f"unknown pretrained tag '{ref.pretrained}' of {ref.name}; known: {', '.join(known)}")
        # OpenAI's weights were trained with QuickGELU; open_clip only warns when the named config says otherwise.
        quick = bool(tag.get("quick_gelu", False))
        config["model_cfg"]["quick_gelu"] = quick
        model = open_clip.create_model(ref.name, pretrained=ref.pretrained, precision="fp32", force_quick_gelu=quick)
    return Clip(model, cast(Tokenizer, open_clip.get_tokenizer(ref.name)), _complete(config, model))


def _complete(config: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """Fill in the preprocessing the model was created with and, for OpenAI's vocabulary, the id range."""
    whole = dict(config)
    whole["preprocess_cfg"] = open_clip.get_model_preprocess_cfg(model)
    own: dict[str, Any] = dict(whole.get("rbft", {}))
    if "random_ids" not in own and getattr(model, "vocab_size", 0) == 49_408:
        own |= {"random_ids": [0, 49_406], "bos": 49_406, "eos": 49_407}  # both specials lie behind the range
    whole["rbft"] = own
    return whole
