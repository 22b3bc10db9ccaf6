"""Which model a cell starts from: names and files checked without loading anything. Torch-free."""

import hashlib
import json
import re
import struct
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from . import atomic, embedded
from .embedded import vocabulary
from .errors import RbftError, unknown
from .prompts import Task
from .suite import Suite

EMBEDDED = "embedded"
RANDOM = "random"
HUB = "hf-hub:"
_HUB_NAME = re.compile(r"hf-hub:[\w.-]+/[\w.-]+(@[0-9a-f]{40})?")
CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
TOKENIZERS = (
    "vocab.txt", "vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
OWN = ("tokenizer", "random_ids", "bos", "eos")  # fields of a configuration's 'rbft' that shape an answer
TIMES, SLACK = 4, 64 << 20  # what a file of torch.save may unfold to: sizes of the file, and bytes beside that
CLIP = ("ViT-B-16", "openai")  # what the papers start from


@dataclass(frozen=True)
class ModelRef:
    """A model by name, and what identifies its weights."""

    name: str  # 'embedded', an open_clip name, 'local-dir:PATH' or 'hf-hub:ORG/NAME'
    pretrained: str  # open_clip tag, safetensors file, 'random', or '' where the name says it all
    weights: str  # sha256 of the weights file, or of a folder (see `_folder_digest`); else the tag

    @property
    def label(self) -> str:
        """Folder name in the record tree."""
        if self.pretrained:
            tag = f"{Path(self.pretrained).stem}-{self.weights[:8]}" if self.is_file else self.pretrained
            return _clean(f"{self.name}-{tag}")
        schema, _, place = self.name.partition(":")
        return _clean(f"{Path(place).name}-{self.weights[:8]}" if schema == "local-dir" else self.name)

    @property
    def is_file(self) -> bool:
        return Path(self.pretrained).suffix in (".safetensors", ".pt", ".pth", ".bin")

    @property
    def open_clip_name(self) -> str:
        """The name as open_clip's factory takes it."""
        return f"local-dir:{embedded.CHECKPOINT}" if self.name == EMBEDDED else self.name


def is_fetched(name: str, pretrained: str) -> bool:
    """Whether weights come over the network, or out of the cache of an earlier fetch."""
    if name.startswith(HUB):
        return True
    return bool(pretrained) and pretrained != RANDOM and not ModelRef(name, pretrained, "").is_file


@dataclass(frozen=True)
class Default:
    """The model that a suite is run with where the command names none."""

    name: str
    pretrained: str
    reason: str  # in a few words, e.g. 'default of imagenet'

    @property
    def text(self) -> str:
        """One line: the model, why it is taken, and where its weights come from."""
        name = " ".join(filter(None, (self.name, self.pretrained)))
        fetched = "; weights fetched at run time by open_clip" if is_fetched(self.name, self.pretrained) else ""
        return f"{name} ({self.reason}{fetched})"


def default(suite: Suite) -> Default:
    """The model of a suite: the one it states, else 'embedded' if that knows every word of its prompts, else CLIP's."""
    if suite.model:
        return Default(suite.model, suite.pretrained, f"default of {suite.name}")
    if word := vocabulary.first_unknown(_prompts(suite)):
        lacks = f"the embedded model does not know '{word}', it knows {len(vocabulary.known())} words"
        return Default(*CLIP, f"default of {suite.name}: {lacks}")
    return Default(EMBEDDED, "", f"default of {suite.name}: the embedded model knows every word of its prompts")


def check_prompts(name: str, suite: Suite) -> None:
    """Raise one line where the model called `name` cannot read the prompts of a suite: 'embedded' knows few words."""
    if name == EMBEDDED and (word := vocabulary.first_unknown(_prompts(suite))):
        text = next(text for text in _prompts(suite) if word in vocabulary.words(text))
        raise RbftError(f"suite '{suite.name}': {vocabulary.refusal(word, text, len(vocabulary.known()))}")


def _prompts(suite: Suite) -> list[str]:
    return Task(suite.classes, suite.templates).texts


def resolve(name: str, pretrained: str | None) -> ModelRef:
    """Check a --model/--pretrained pair; raises one line when it cannot work."""
    if name == EMBEDDED or name.startswith(("local-dir:", HUB)):
        if pretrained:
            raise RbftError(f"model '{name}' brings its own weights; drop --pretrained {pretrained}")
        if name.startswith(HUB):
            if not _HUB_NAME.fullmatch(name):
                raise RbftError(
                    f"model '{name}': write hf-hub:ORG/NAME, or hf-hub:ORG/NAME@REVISION with the 40 digits of a commit"
                )
            return ModelRef(name, "", name)
        folder = embedded.CHECKPOINT if name == EMBEDDED else Path(name.partition(":")[2])
        return ModelRef(name, "", digest_of_file(weights_in(folder)) if name == EMBEDDED else _folder_digest(folder))
    known = open_clip_names()
    if name not in known:
        raise RbftError(unknown("model", name, {EMBEDDED, *known}) + " (or local-dir:PATH, hf-hub:ORG/NAME)")
    if not pretrained:
        raise RbftError(f"model '{name}' needs --pretrained: an open_clip tag, a .safetensors file, or '{RANDOM}'")
    ref = ModelRef(name, pretrained, pretrained)
    if not ref.is_file:
        if "/" in pretrained:
            raise RbftError(f"pretrained '{pretrained}' is neither an open_clip tag nor a .safetensors file")
        _check_tag(name, pretrained)
        return ref
    return ModelRef(name, pretrained, digest_of_file(check_weights_file(Path(pretrained))))


def weights_of(ref: ModelRef) -> Path | None:
    """The safetensors file on this machine that a model is read from; None where there is none."""
    if ref.is_file:
        return Path(ref.pretrained) if Path(ref.pretrained).suffix == ".safetensors" else None
    schema, _, place = ref.open_clip_name.partition(":")
    return weights_in(Path(place)) if schema == "local-dir" else None


def open_clip_names() -> tuple[str, ...]:
    """Built-in open_clip models, from the file names of their configurations."""
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise RbftError("open_clip is not installed; run `pip install open_clip_torch`")
    return tuple(sorted(path.stem for path in (Path(spec.origin).parent / "model_configs").glob("*.json")))


def _check_tag(name: str, tag: str) -> None:
    """Refuse a tag that open_clip does not have for this model."""
    import open_clip  # imports torch: only where a plan names a built-in model, which is then loaded anyway

    if tag != RANDOM and not open_clip.get_pretrained_cfg(name, tag):
        raise RbftError(
            unknown(f"pretrained tag of {name}", tag, [RANDOM, *open_clip.list_pretrained_tags_by_model(name)])
        )


def check_weights_file(path: Path) -> Path:
    """Refuse a file that is missing, truncated, or a bare pickle (reading one runs its code)."""
    if not path.is_file():
        raise RbftError(f"no weights file {path}; give an existing .safetensors file or an open_clip tag")
    with path.open("rb") as file:
        head = file.read(8)
    if not head:
        raise RbftError(f"{path} is empty; copy or download it again")
    if path.suffix == ".safetensors":
        size, length = path.stat().st_size, int.from_bytes(head, "little")
        if size < 8 or 8 + length > size or not _complete(path, length, size):
            raise RbftError(f"{path} is not a complete safetensors file ({size} bytes); copy or download it again")
    elif head[:1] == b"\x80":
        raise RbftError(f"{path} is a pickle, and loading a pickle runs the code in it; convert it to safetensors")
    elif head[:2] == b"PK":
        _check_archive(path)
    return path


def _check_archive(path: Path) -> None:
    """Refuse a file of torch.save that is cut off, or that unfolds to far more than it holds: torch packs nothing."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            told = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, LookupError, struct.error) as error:
        raise RbftError(f"{path} is not a complete file of weights ({error}); copy or download it again") from error
    if told > TIMES * size + SLACK:
        raise RbftError(
            f"{path} says it unfolds from {size:,} to {told:,} bytes, which no file of weights does; "
            "it is not loaded: convert it to safetensors where it comes from"
        )


def _complete(path: Path, length: int, size: int) -> bool:
    with path.open("rb") as file:
        file.seek(8)
        try:
            header = json.loads(file.read(length))
            ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, AttributeError, LookupError, TypeError, RecursionError):
            return False
    return 8 + length + max(ends, default=0) == size


def weights_in(folder: Path) -> Path:
    """The one file of weights in an open_clip folder. Raises `RbftError` where there is none, or more than one."""
    config = folder / CONFIG
    if not config.is_file():
        raise RbftError(f"{folder} is not an open_clip folder: it has no {CONFIG}")
    found = [name for name in WEIGHTS if (folder / name).is_file()]
    if not found:
        raise RbftError(f"{folder} holds no {WEIGHTS[0]}; weights are read from safetensors only")
    if len(found) > 1:
        raise RbftError(f"{folder} holds {' and '.join(found)}: nobody can tell which is meant; move one away")
    return check_weights_file(folder / found[0])


def _folder_digest(folder: Path) -> str:
    """SHA-256 of all in a folder that shapes an answer: weights, model, preprocessing, vocabulary.

    Other fields of the configuration, e.g. which run the model came from, do not count.
    """
    weights, path = weights_in(folder), folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        own = {key: value for key, value in (config.get("rbft") or {}).items() if key in OWN}
        shaping = [config["model_cfg"], config.get("preprocess_cfg"), own]
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise RbftError(f"cannot read {path}: {' '.join(str(error).split())[:200]}; it must state model_cfg") from error
    files = [name for name in TOKENIZERS if (folder / name).is_file()]
    whole = [digest_of_file(weights), shaping, {name: digest_of_file(folder / name) for name in files}]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def check_unchanged(ref: ModelRef) -> None:
    """Raise `RbftError` where a folder or file of weights is another one than when `ref` was resolved."""
    if ref.is_file or ref.name.startswith("local-dir:"):
        now = resolve(ref.name, ref.pretrained or None).weights
        if now != ref.weights:
            raise RbftError(f"model '{ref.name}' changed while cells were run; start again to run the rest with it")


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file; computed again where the file was written since."""
    told = path.stat()
    return _digest_of(path, told.st_mtime_ns, told.st_size, told.st_ino)


@lru_cache(maxsize=64)
def _digest_of(path: Path, *written: int) -> str:
    return atomic.digest(path)


def _clean(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-._" else "-" for c in text)
