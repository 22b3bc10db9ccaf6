"""What a cell ran on: versions, source revision, machine. Goes into every record."""

import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from . import __version__
from .clip.autocast import TF32, allow_tf32
from .errors import RbftError

PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "numpy", "pillow", "pyarrow", "scikit-learn", "scipy")


def describe(device: torch.device) -> dict[str, Any]:
    """Plain values, ready for JSON."""
    return {
        "rbft": __version__,
        "git": _git(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "device": device.type,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "tf32": device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32,
    }


KNOWN = "auto, cpu, cuda, cuda:N, mps"


def choose_device(name: str) -> torch.device:
    """'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'; asking for a GPU that is not there is an error.

    'auto' takes no Apple GPU: nothing was ever run on one (docs/platforms.md).
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RbftError(f"unknown device '{name}'; known: {KNOWN}") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise RbftError(f"device '{name}' is not supported; known: {KNOWN}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RbftError(f"device '{name}' asked for, but torch sees no Apple GPU here; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RbftError(f"device '{name}' asked for, but torch sees {torch.cuda.device_count()} GPUs; use --device cpu")
    return device


PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


def use(precision: str, device: torch.device) -> None:
    """Compute in this precision from now on, as far as it is a matter of the whole process; `describe` states it.

    'fp32' means it: a GPU multiplies float32 matrices in float32. In the other precisions what is float32 is multiplied
    in TF32 while training, where the GPU can. Evaluation never is.
    """
    allow_tf32(device, precision in TF32)


def choose_precision(name: str, device: torch.device) -> str:
    """'auto' stays 'auto' on a GPU that computes in bf16: the plan decides by recipe; elsewhere it is fp32."""
    if name == "auto":
        return "auto" if device.type == "cuda" and _is_ampere(device) else "fp32"
    if name not in PRECISIONS:
        raise RbftError(f"unknown precision '{name}'; known: auto, {', '.join(PRECISIONS)}")
    if device.type == "mps" and name != "fp32":
        raise RbftError(f"precision '{name}' is not offered on an Apple GPU, where nothing was tested; use fp32")
    if name == "tf32" and not (device.type == "cuda" and _is_ampere(device)):
        raise RbftError("precision 'tf32' is of NVIDIA GPUs since Ampere, and this device is none; use fp32")
    return name


def _is_ampere(device: torch.device) -> bool:
    """Whether a GPU has TF32 and bfloat16: they came with compute capability 8.0."""
    if not torch.cuda.is_available():
        raise RbftError(
            "this machine has no GPU, so it cannot tell what those of the workers can: give --precision, e.g. bf16"
        )
    return torch.cuda.get_device_capability(device) >= (8, 0)


def peak_memory_mib(device: torch.device) -> float:
    """Of the GPU's allocator, or of this process since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


@cache  # once for all cells of a process: what it runs was read when it began
def _git() -> dict[str, Any] | None:
    """Commit and dirty flag of the checkout this package is imported from; None when it is an installed copy."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    try:
        commit = _run(here, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_run(here, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _run(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
