"""`Clip`: any open_clip model with a classifier head, and the few acts that fine-tuning methods are made of.

Shape letters: B batch, K classes, D embedding width, M texts, L tokens.
"""

import copy
import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import open_clip
import safetensors.torch
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors import SafetensorError
from torch import Tensor, nn
from torchvision import transforms

from robustbench_ft import atomic, cache
from robustbench_ft.embedded.tokenizer import Words
from robustbench_ft.errors import RbftError
from robustbench_ft.progress import Progress, choose
from robustbench_ft.prompts import Task
from robustbench_ft.recipe import Head

from . import card, faster, heads
from .autocast import allow_tf32, blocks_in
from .copies import to_device

Part = Literal["image", "text", "scale", "head", "extra"]
State = dict[str, Tensor]
TEXT_CHUNK = 256
HINT = "free some space, or choose another folder with --out"
MANY_TEXTS = 5_000  # enough to show how far it is


class Tokenizer(Protocol):
    def __call__(self, texts: Sequence[str]) -> Tensor: ...


class Clip(nn.Module):
    """Two towers, a scale, and a head.

    `head` [K, D] and `bias` [K] follow one of two conventions (see `Recipe.head`): 'unit' rows times the constant
    pre-trained scale, or 'scaled' rows with a bias. The head is never renormalised while it is trained.
    """

    head: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self, model: nn.Module, tokenizer: Tokenizer, config: Mapping[str, Any], files: Mapping[str, Path] | None = None
    ) -> None:
        """`config` is what an open_clip folder states: model_cfg, preprocess_cfg, and our own part under 'rbft'."""
        super().__init__()
        self.model: Any = model
        self.tokenizer = tokenizer
        self.config = dict(config)
        self.files = dict(files or {})  # further files a saved folder needs, e.g. the vocabulary
        self.head_kind: Head = "unit"
        self.task: Task | None = None
        self.compiled = self.channels_last = False  # see `make_faster`
        self.precision = "fp32"  # 'bf16', 'fp16': of the blocks of the image tower; everything else is float32
        own: Mapping[str, Any] = config.get("rbft", {})
        self.random_ids: tuple[int, int] | None = tuple(own["random_ids"]) if "random_ids" in own else None
        self.bos, self.eos = int(own.get("bos", -1)), int(own.get("eos", -1))
        self.requires_grad_(False)  # until `train_only` says what moves

    # -- towers -------------------------------------------------------------------------------------------------------

    @property
    def scale(self) -> Tensor:
        """exp(logit_scale), about 100 for OpenAI's models."""
        return self.model.logit_scale.exp()

    @property
    def device(self) -> torch.device:
        return self.model.logit_scale.device

    @property
    def image_size(self) -> int:
        size: int | Sequence[int] = self.model.visual.image_size
        return size if isinstance(size, int) else int(size[0])

    def encode_image(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] normalised pixels -> [B, D] unit rows, float32.

        With the precision 'bf16' or 'fp16', the tower's blocks compute in it; the patches, the residual stream, the
        last LayerNorm and the projection stay float32, because Lipsum-FT's penalty is a small difference of what they
        give.
        """
        compiled = faster.compiled_blocks(self.model.visual) if self.compiled else nullcontext()
        with blocks_in(self.model.visual, self.precision), compiled:
            features = self.model.encode_image(faster.channels_last(images) if self.channels_last else images)
        return F.normalize(features.float(), dim=-1)

    def make_faster(self, compiled: bool = False, channels_last: bool = False) -> "Clip":
        """Let torch compile the blocks of the image tower for training, or store its convolutions with channels last.

        Either moves the rounding of numbers. Call it on a model that is loaded, before it is copied or trained.
        """
        self.compiled, self.channels_last = compiled, channels_last
        if channels_last:
            faster.store_channels_last(self.model.visual)
        return self

    @contextmanager
    def exact(self) -> Generator[None, None, None]:
        """While this is open, everything computes in float32: what evaluation and selection are done in.

        On a GPU, products of float32 matrices are then no TF32 either.
        """
        fast, self.precision, compiled, self.compiled = self.precision, "fp32", self.compiled, False
        tf32 = allow_tf32(self.device, False)
        try:
            yield
        finally:
            self.precision, self.compiled = fast, compiled
            allow_tf32(self.device, tf32)

    @property
    def bf16(self) -> bool:
        """Whether the precision is 'bf16': its earlier form."""
        return self.precision == "bf16"

    @bf16.setter
    def bf16(self, on: bool) -> None:
        self.precision = "bf16" if on else "fp32"

    def encode_text(self, tokens: Tensor) -> Tensor:
        """[M, L] token ids -> [M, D] unit rows, float32; L may be shorter than the context.

        With a causal mask nothing behind the end token reaches it, so a text cut at its true length gives what the
        padded one gives, at a fraction of the cost.
        """
        tokens = to_device(tokens, self.device)
        if self._causal and tokens.shape[1] < self.model.context_length:
            features = self._encode_short(tokens)
        else:
            features = self.model.encode_text(_pad(tokens, self.model.context_length))
        return F.normalize(features.float(), dim=-1)

    def _encode_short(self, tokens: Tensor) -> Tensor:
        """open_clip's text tower with its causal mask cut to the text's length."""
        return self.encode_embedded(self.embed(tokens), tokens.argmax(dim=-1))  # the end token has the highest id

    def embed(self, tokens: Tensor) -> Tensor:
        """[M, L] ids -> [M, L, W] word embeddings without positions: the place of learnt prompts."""
        return self.model.token_embedding(to_device(tokens, self.device))

    def encode_embedded(self, words: Tensor, ends: Tensor) -> Tensor:
        """[M, L, W] word embeddings, and the place [M] of each end token -> [M, D], not normalised.

        Raises `RbftError` for a text tower that is not causal, or pools elsewhere than at the end token.
        """
        if not self._causal:
            raise RbftError("this model's text tower does not end at an end token; use encode_text on whole texts")
        net, length = self.model, words.shape[1]
        x = words.to(net.transformer.get_cast_dtype())
        x = x + net.positional_embedding[:length].to(x.dtype)
        x = net.ln_final(net.transformer(x, attn_mask=net.attn_mask[:length, :length]))
        return x[torch.arange(len(x), device=x.device), ends.to(x.device)] @ net.text_projection

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts -> [M, L] ids on the CPU, cut to the longest text where the text tower is causal."""
        tokens = self.tokenizer(list(texts))
        if self._causal:
            tokens = tokens[:, : int(tokens.argmax(dim=-1).max()) + 1]
        return tokens

    @property
    def whole_words(self) -> tuple[str, ...]:
        """All that its tokenizer can read, word by word, as the embedded model's; () where it reads any text."""
        return self.tokenizer.tokens[2:-1] if isinstance(self.tokenizer, Words) else ()

    def random_tokens(self, n: int, length: int, generator: torch.Generator) -> Tensor:
        """[n, length + 2]: start, `length` ids drawn uniformly from the model's trained vocabulary, end."""
        if self.random_ids is None:
            raise RbftError("this model does not state the id range of its vocabulary, so no random texts can be drawn")
        tokens = torch.randint(*self.random_ids, (n, length + 2), generator=generator)
        tokens[:, 0], tokens[:, -1] = self.bos, self.eos
        return tokens

    @property
    def _causal(self) -> bool:
        return isinstance(self.model, open_clip.CLIP) and self.model.text_pool_type == "argmax"

    # -- head ---------------------------------------------------------------------------------------------------------

    def classify(self, features: Tensor) -> Tensor:
        """[B, D] unit features -> [B, K] logits."""
        if self.head_kind == "scaled":
            return F.linear(features, self.head, self.bias)
        return self.scale.detach() * F.linear(features, self.head)

    def logits(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, K]"""
        return self.classify(self.encode_image(images))

    def forward(self, images: Tensor) -> Tensor:
        """The logits, for `torch.func.functional_call`."""
        return self.logits(images)

    def zero_shot_head(self, task: Task) -> Tensor:
        """[K, D] unit rows: mean over templates of the unit text embeddings, normalised again.

        Cached by content, unless the text tower is being trained.
        """
        return self._mean_text(task, over=1)

    def context_head(self, task: Task) -> Tensor:
        """[T, D] unit rows, one for each template: mean over classes of the unit text embeddings, normalised again.

        The contexts of CAR-FT, as cs-giung/lipsum-ft@1331873 (scripts/setup.py, 'ctx') makes them. Cached likewise.
        """
        return self._mean_text(task, over=0)

    @torch.no_grad()
    def _mean_text(self, task: Task, over: Literal[0, 1]) -> Tensor:
        """Unit means of the text embeddings [K, T, D] over classes (0) or templates (1); kept while the tower stays."""
        tokens = self.tokenize(task.texts)
        if any(p.requires_grad for name, p in self.named_parameters() if _part(name) == "text"):
            return self._mean(tokens, task, over, Progress())
        key = self._text_digest(tokens) + ("" if over else f"/contexts of {len(task.classes)} classes")
        path = cache.entry("heads", key, ".safetensors")
        if path.exists():
            if (found := heads.load(path)) is not None:
                return found.to(self.device)
            cache.discard(path)
        head = self._mean(tokens, task, over, choose() if len(tokens) >= MANY_TEXTS else Progress())
        cache.write(path, lambda temporary: heads.save(temporary, head))
        return head

    def _mean(self, tokens: Tensor, task: Task, over: Literal[0, 1], progress: Progress) -> Tensor:
        """Texts of like length together, each chunk cut to its longest: prompts differ up to threefold in length."""
        lengths = tokens.argmax(dim=-1) + 1 if self._causal else torch.full((len(tokens),), tokens.shape[1])
        order = lengths.argsort(stable=True)
        parts: list[Tensor] = []
        bar = progress.bar("text embeddings" if over == 0 else "zero-shot head", len(tokens), "texts")
        with self.exact(), bar as advance:  # kept for cells of every precision
            for some in order.split(TEXT_CHUNK):
                parts.append(self.encode_text(tokens[some, : int(lengths[some].max())]))
                advance(len(some))
        rows = torch.cat(parts)[order.argsort().to(self.device)]  # [K * T, D]
        return F.normalize(rows.view(len(task.classes), len(task.templates), -1).mean(dim=over), dim=-1)

    def start_from_zero_shot(self, task: Task, kind: Head = "unit") -> None:
        """Put the zero-shot head in place, in one of the two conventions."""
        rows = self.zero_shot_head(task)
        self.set_head(rows if kind == "unit" else rows * self.scale.detach(), kind, task)

    def set_head(self, rows: Tensor, kind: Head, task: Task) -> None:
        """`rows` [K, D] as the convention stores them; the bias of 'scaled' starts at 0. Neither moves yet."""
        self.head_kind, self.task = kind, task
        self.head = nn.Parameter(rows.detach().clone().to(self.device), requires_grad=False)
        zeros = torch.zeros(len(rows), device=self.device)
        self.bias = nn.Parameter(zeros, requires_grad=False) if kind == "scaled" else None

    # -- what is trained, copied, mixed, saved -----------------------------------------------------------------------

    def train_only(self, *parts: Part) -> None:
        """Gradients for these parts and no others. The image part includes its projection, 'scale' is logit_scale."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(_part(name) in parts)

    def checkpoint_gradients(self) -> None:
        """Keep few activations and compute the others again in the backward pass, by open_clip's own switch.

        Raises `RbftError` for a model without it.
        """
        try:
            self.model.set_grad_checkpointing(True)
        except (AttributeError, AssertionError, NotImplementedError, TypeError) as error:
            raise RbftError("--grad-checkpointing: open_clip has none for this model; use --micro-batch") from error

    def frozen_copy(self) -> "Clip":
        """The model as it is now, without gradients. What is not being trained is shared, not copied."""
        shared = {id(p): p for p in self.parameters() if not p.requires_grad}
        twin = copy.deepcopy(self, dict(shared))
        for parameter in twin.parameters():
            parameter.requires_grad_(False)
        return twin.eval()

    def snapshot(self) -> State:
        """Copies of all tensors that training can change: parameters with gradients and floating-point buffers."""
        return {name: tensor.clone() for name, tensor in self.moving().items()}

    def moving(self) -> State:
        """The tensors of a snapshot themselves, not copies: they hold other values after the next update."""
        own = {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}
        persistent = self.state_dict().keys()
        return own | {n: b for n, b in self.named_buffers() if n in persistent and b.is_floating_point()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put a snapshot's values back, in place."""
        current = dict(self.named_parameters()) | dict(self.named_buffers())
        for name, tensor in state.items():
            current[name].copy_(tensor)

    def preprocess(self) -> tuple[transforms.Compose, Tensor, Tensor]:
        """open_clip's evaluation transform cut before ToTensor, and the mean and std [3, 1, 1] it ends with."""
        whole: Any = image_transform_v2(PreprocessCfg(**self.config["preprocess_cfg"]), is_train=False)
        steps: list[Any] = whole.transforms
        cut = next(i for i, step in enumerate(steps) if isinstance(step, transforms.ToTensor))
        normalise = cast(transforms.Normalize, steps[-1])
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (normalise.mean, normalise.std))
        return transforms.Compose(steps[:cut]), mean, std

    def preprocess_key(self) -> str:
        """Everything that shapes evaluation pixels before they are normalised, in words."""
        config = asdict(PreprocessCfg(**self.config["preprocess_cfg"]))
        shaping = {name: value for name, value in config.items() if name not in ("mean", "std")}
        versions = {name: version(name) for name in ("open_clip_torch", "pillow", "torchvision")}
        return json.dumps([shaping, versions], sort_keys=True)

    def save(self, folder: Path, note: Mapping[str, Any]) -> None:
        """Write an open_clip folder (`local-dir:`), `head.safetensors` and README.md; `note` joins its 'rbft' part."""
        assert self.task is not None, "a head is set before a model is saved"
        own = dict(self.config.get("rbft", {})) | {
            "head": self.head_kind, "classes": self.task.classes, "templates": self.task.templates, **note,
        }  # fmt: skip
        for path in self.files.values():
            atomic.write_bytes(folder / path.name, path.read_bytes(), HINT)
        head = {"head": self.head} | ({} if self.bias is None else {"bias": self.bias})
        _save_tensors(folder / "head.safetensors", head)
        _save_tensors(folder / "open_clip_model.safetensors", self.model.state_dict())
        text = json.dumps({**self.config, "rbft": own}, indent=2, sort_keys=True)
        atomic.write_bytes(folder / "open_clip_config.json", f"{text}\n".encode(), HINT)
        atomic.write_bytes(folder / "README.md", card.text(self.config, own).encode(), HINT)

    def _text_digest(self, tokens: Tensor) -> str:
        digest = hashlib.sha256(tokens.contiguous().numpy().tobytes())
        for name, tensor in sorted(self.model.state_dict().items()):
            if _part(f"model.{name}") == "text":
                digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
        digest.update(json.dumps(self.config["model_cfg"], sort_keys=True).encode())  # activation, heads
        return digest.hexdigest()


def interpolate(start: State, end: State, alpha: float) -> State:
    """(1 - alpha) * start + alpha * end, tensor by tensor (Wortsman et al., 2022, Eq. 1)."""
    return {name: (1 - alpha) * tensor + alpha * end[name] for name, tensor in start.items()}


def _part(name: str) -> Part:
    if name in ("head", "bias"):
        return "head"
    if name in ("model.logit_scale", "model.logit_bias"):
        return "scale"
    if not name.startswith("model."):
        return "extra"  # what a method hung beside the model: prompts, adapters, radii
    return "image" if name.startswith("model.visual.") else "text"


def _pad(tokens: Tensor, length: int) -> Tensor:
    return F.pad(tokens, (0, length - tokens.shape[1]))


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def save(temporary: Path) -> None:
        try:
            safetensors.torch.save_file(contiguous, temporary)
        except SafetensorError as error:  # its word for a full disk
            raise OSError(str(error)) from error

    atomic.write(path, save, HINT)
