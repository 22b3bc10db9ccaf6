"""Golden values of the official implementations, and what is needed to compare with them; no tests in here.

`agrees` and `differs` assert and remember: `python tests/parity.py` runs the tests and writes what was remembered down.
"""

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from robustbench_ft import clip as clips
from robustbench_ft import model_ref
from robustbench_ft.clip import Clip, State
from robustbench_ft.data import ArrayImages, Split
from robustbench_ft.prompts import Task

VECTORS = Path(__file__).with_name("vectors")
Array = NDArray[Any]


@lru_cache
def arrays(name: str) -> Mapping[str, Array]:
    """All arrays of one file, e.g. 'forward'."""
    with np.load(VECTORS / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


@lru_cache
def read(name: str) -> Any:
    """One JSON file, e.g. 'texts'."""
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))


def statistics(name: str) -> Any:
    """One statistics vector by its id."""
    return next(vector for vector in read("statistics_vectors")["vectors"] if vector["id"] == name)


TASK = Task(tuple(read("texts")["classnames"]), tuple(read("texts")["templates"]))


def model(quick_gelu: bool = True, image_size: int = 32) -> Clip:
    """The tiny CLIP of the vectors, as our own loading code makes it from a folder of open_clip."""
    config: dict[str, Any] = {**read("tiny-clip-shared"), "quick_gelu": quick_gelu}
    config["vision_cfg"] = {**config["vision_cfg"], "image_size": image_size}
    weights = load_file(VECTORS / "tiny-clip-shared.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
        # stored in fp16, in which the positions of another image size cannot be interpolated on a CPU
        save_file({k: v.float() for k, v in weights.items()}, Path(folder) / "open_clip_model.safetensors")
        return clips.load(model_ref.resolve(f"local-dir:{folder}", None)).eval()


def split(images: Array, labels: Array | None = None) -> Split:
    """uint8 images [..., 32, 32, 3] in their order, leading axes flattened."""
    pixels = images.reshape(-1, *images.shape[-3:])
    flat = np.zeros(len(pixels), np.int64) if labels is None else labels.reshape(-1).astype(np.int64)
    return Split("golden", ArrayImages(pixels), flat, tuple(map(str, range(len(pixels)))))


# -- distances ---------------------------------------------------------------------------------------------------------


def apart(ours: Any, golden: Any) -> float:
    """Largest absolute difference."""
    a, b = _pair(ours, golden)
    return float(np.abs(a - b).max())


def relative(ours: Any, golden: Any) -> float:
    """Largest relative difference of single numbers."""
    a, b = _pair(ours, golden)
    return float((np.abs(a - b) / np.abs(b)).max())


def relative_l2(ours: Any, golden: Any) -> float:
    """||ours - golden|| / ||golden||, over the whole tensor."""
    a, b = _pair(ours, golden)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def _pair(ours: Any, golden: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = (np.asarray(x.detach() if isinstance(x, torch.Tensor) else x, np.float64) for x in (ours, golden))
    assert a.shape == b.shape, f"shapes differ: {a.shape} and {b.shape}"
    return a, b


def tensor(array: Array, grad: bool = False) -> torch.Tensor:
    """A copy of an array of the vectors, to learn from where `grad` says so."""
    return torch.from_numpy(array.copy()).requires_grad_(grad)


def tensors(golden: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """What stands under `prefix`, by parameter name."""
    found = {name.removeprefix(prefix): array for name, array in golden.items() if name.startswith(prefix)}
    assert found, f"no vector begins with {prefix}"
    return found


def ours(state: State, name: str) -> Array:
    """The tensor of a snapshot that the vectors call `name`."""
    if name == "cls":  # the head of Lipsum-FT is stored as [D, K]
        return state["head"].numpy().T
    return state[{"head.weight": "head", "head.bias": "bias"}.get(name, f"model.{name}")].numpy()


def state_of(found: Mapping[str, Array]) -> State:
    """Golden tensors under our names, for `Clip.restore`; the scale, which no such state moves, is left out."""
    names = {"cls": "head", "head.weight": "head", "head.bias": "bias"}
    return {
        names.get(name, f"model.{name}"): torch.from_numpy(array.T if name == "cls" else array)
        for name, array in found.items()
        if name != "logit_scale"
    }


def golden_start(vectors: Mapping[str, Array], start: State, name: str) -> Array:
    """Where the official run began: the model file, and its own zero-shot head, which ours repeats up to rounding."""
    heads = {"cls": "cls0", "head.weight": "head0_weight", "head.bias": "head0_bias"}
    return vectors[heads[name]] if name in heads else ours(start, name)


def comparable(name: str, array: Array) -> Array:
    """Without the key third of an attention bias: its gradient is rounding noise, which Adam blows up."""
    if not name.endswith("attn.in_proj_bias"):
        return array
    width = len(array) // 3
    return np.concatenate([array[:width], array[2 * width :]])


def worst(errors: Iterable[float]) -> float:
    """The largest, and NaN if any is NaN."""
    return float(np.max(list(errors)))


# -- claims ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """One line of the parity table."""

    quantity: str
    reference: str
    error: float
    tolerance: float
    wrong: bool = False  # a deliberately wrong version, which must lie outside the tolerance


CLAIMS: list[Claim] = []


def agrees(quantity: str, reference: str, error: float, tolerance: float) -> None:
    """Assert that an error is within its tolerance, and remember it."""
    CLAIMS.append(Claim(quantity, reference, error, tolerance))
    assert error <= tolerance, f"{quantity}: off by {error:.1e}, {tolerance:g} allowed"


def differs(quantity: str, reference: str, error: float, tolerance: float) -> None:
    """Assert that a wrong version would be noticed, and remember by how much."""
    CLAIMS.append(Claim(quantity, reference, error, tolerance, wrong=True))
    assert error > tolerance, f"{quantity}: off by {error:.1e} only, which {tolerance:g} does not tell from rounding"
