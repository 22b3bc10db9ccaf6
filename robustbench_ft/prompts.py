"""Class names and prompts: what a suite looks like to a text tower. Torch-free.

ImageNet's names and OpenAI's templates are those that open_clip ships: one copy, its own.
"""

import importlib.util
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from .errors import RbftError

FILE = "zero_shot_metadata.py"


@dataclass(frozen=True)
class Task:
    """What a suite looks like to a head: its classes and prompts. Shared with saved models."""

    classes: tuple[str, ...]
    templates: tuple[str, ...] = field(repr=False)

    @property
    def texts(self) -> list[str]:
        """[K * T] every class in every template, class by class."""
        return [fill(template, name) for name in self.classes for template in self.templates]


def fill(template: str, name: str) -> str:
    """The prompt of one class. 'a(n) {}' takes the article that the name asks for, and writes its underscores as
    spaces: WiSE-FT's satellite prompts have templates with and without this."""
    if "a(n) {}" in template:
        name = name.replace("_", " ")
        template = template.replace("a(n)", "an" if name.startswith(tuple("aeiou")) else "a")
    return template.format(name)


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
