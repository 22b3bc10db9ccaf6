"""A user's own suite: a `suite.toml` beside folders of images, or beside manifests that list them. Torch-free."""

from collections.abc import Collection
from pathlib import Path

from robustbench_ft import few_shot
from robustbench_ft.suite import Suite

from .form import FILE as FILE
from .form import read_form as read_form
from .suite import CustomSuite


def read(path: Path, partial: bool = False, options: Collection[str] = ()) -> Suite:
    """The suite that the file at `path`, or `suite.toml` in that folder, describes; its images are listed.

    The file makes a subclass whose class attributes are its declaration, so that the suite is built like any other.
    """
    form = read_form(path)
    file = path / FILE if path.is_dir() else path
    made = type(
        "FromFile",
        (CustomSuite,),
        {"form": form, "file": file, "version": form.version, "__doc__": CustomSuite.__doc__},
    )
    chosen = few_shot.canonical(form.name, options)
    return made("+".join((form.name, *chosen)), None, chosen, partial)
