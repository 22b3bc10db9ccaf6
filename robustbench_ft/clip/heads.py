"""Zero-shot heads in the cache: a file of weights that holds the digest of what is in it."""

import hashlib
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

_NAME, _DIGEST = "head", "sha256"


def save(path: Path, head: Tensor) -> None:
    """Write a head [K, D] with its digest."""
    own = head.detach().cpu().contiguous()
    safetensors.torch.save_file({_NAME: own}, path, metadata={_DIGEST: _digest(own)})


def load(path: Path) -> Tensor | None:
    """The head [K, D]; None where the file is damaged, or of a version that noted no digest."""
    try:
        with safe_open(path, framework="pt") as file:
            told, head = (file.metadata() or {}).get(_DIGEST), file.get_tensor(_NAME)
    except (SafetensorError, OSError):
        return None
    return head if told == _digest(head) else None


def _digest(head: Tensor) -> str:
    found = hashlib.sha256(f"{head.dtype} {tuple(head.shape)}\n".encode())
    found.update(head.numpy().tobytes())
    return found.hexdigest()
