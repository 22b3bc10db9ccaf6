"""ImageNet's class names and OpenAI's templates, as open_clip ships them: one copy, its own. Torch-free."""

import importlib.util
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from .errors import RbftError

FILE = "zero_shot_metadata.py"


def imagenet_classes() -> tuple[str, ...]:
    """The 1000 names in label order; 'missile' and 'sunglasses' are there twice."""
    return tuple(_metadata().IMAGENET_CLASSNAMES)


def openai_templates() -> tuple[str, ...]:
    """The 80 templates, each with one {}."""
    return tuple(template("{}") for template in _metadata().OPENAI_IMAGENET_TEMPLATES)


def simple_templates() -> tuple[str, ...]:
    """The 7 templates that OpenAI's authors found to be as good as the 80 on ImageNet."""
    return tuple(template("{}") for template in _metadata().SIMPLE_IMAGENET_TEMPLATES)


@lru_cache
def _metadata() -> ModuleType:
    """That one file of open_clip, run by itself: importing the package would import torch."""
    package = importlib.util.find_spec("open_clip")
    path = Path((package.origin or "") if package else "").with_name(FILE)
    spec = importlib.util.spec_from_file_location("rbft_zero_shot_metadata", path)
    if package is None or spec is None or spec.loader is None or not path.exists():
        raise RbftError(f"open_clip has no {FILE} here; run `pip install --upgrade open_clip_torch`")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
