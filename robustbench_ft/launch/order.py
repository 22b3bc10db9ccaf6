"""An attempt as one line of text, with all that a worker elsewhere needs to carry it out."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from robustbench_ft import registry, suite_ref
from robustbench_ft.cell import from_json
from robustbench_ft.devices import Devices
from robustbench_ft.errors import RbftError
from robustbench_ft.images.roots import Roots
from robustbench_ft.method import Method
from robustbench_ft.plan import Plan
from robustbench_ft.progress import Progress
from robustbench_ft.ranks import Ranks
from robustbench_ft.runner import RunOptions
from robustbench_ft.suite import Suite

from .launcher import Job

HERE = ("out", "device", "progress", "changed", "devices")  # options that are not sent as they are
DEVICES = ("micro_batch", "grad_checkpointing", "low_memory")  # fields of `Devices` that are sent; ranks are not


@dataclass(frozen=True)
class SuiteWords:
    """How a suite was asked for."""

    name: str  # or the path of its suite.toml
    folders: tuple[str, ...]
    named: tuple[tuple[str, str], ...]
    partial: bool

    def load(self) -> Suite:
        """The suite. Its data are not looked at."""
        named = tuple((key, Path(place)) for key, place in self.named)
        return suite_ref.load(self.name, Roots(tuple(map(Path, self.folders)), named), self.partial)


@dataclass(frozen=True)
class Order:
    """A job, its suite, and how it is run."""

    job: Job
    suite: SuiteWords
    methods: tuple[str, ...]  # files that have to be known before the method's name is
    out: Path
    device: str
    devices: dict[str, Any]  # `DEVICES`
    options: dict[str, Any]  # the other fields of `RunOptions`

    def run_options(self, progress: Progress, ranks: Ranks | None = None) -> RunOptions:
        """The options for a worker; `ranks` are the processes that fit the cell with it."""
        devices, device = Devices(ranks or Ranks(), **self.devices), torch.device(self.device)
        if device.type == "cuda" and devices.ranks.world > 1:
            device = torch.device("cuda", torch.cuda.current_device())
        own: dict[str, Any] = {name: _frozen(value) for name, value in self.options.items()}
        return RunOptions(self.out, device, progress, devices=devices, **own)


def make(job: Job, plan: Plan, options: RunOptions) -> Order:
    """The order for an attempt. Paths stay as they are: a worker starts in the same folder."""
    suite = plan.suite_of(job.cell)
    words = SuiteWords(
        suite.reference,
        tuple(map(str, suite.roots.folders)),
        tuple((key, str(place)) for key, place in suite.roots.named),
        suite.partial,
    )
    own = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in HERE}
    devices = {name: getattr(options.devices, name) for name in DEVICES}
    return Order(job, words, tuple(registry.files_of(job.cell.method)), options.out, str(options.device), devices, own)


def _frozen(value: Any) -> Any:
    """JSON knows lists alone; options hold tuples."""
    return tuple(value) if isinstance(value, list) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def to_text(order: Order) -> str:
    """One line of JSON."""
    job = {f.name: getattr(order.job, f.name) for f in fields(Job)}
    job |= {"cell": order.job.cell.to_json(), "folder": str(order.job.folder)}
    content = {f.name: getattr(order, f.name) for f in fields(order)}
    return json.dumps(content | {"job": job, "suite": vars(order.suite), "out": str(order.out)})


def read(text: str) -> Order:
    """The order of a line; the files of its method are read. Raises `RbftError` where something is not there."""
    content = json.loads(text)
    job = content["job"]
    for file in content["methods"]:
        registry.load("method", file, Method)
    suite = content["suite"]
    try:
        return Order(
            Job(**job | {"cell": from_json(job["cell"]), "folder": Path(job["folder"])}),
            SuiteWords(suite["name"], tuple(suite["folders"]), tuple(map(tuple, suite["named"])), suite["partial"]),
            tuple(content["methods"]),
            Path(content["out"]),
            content["device"],
            content["devices"],
            content["options"],
        )
    except (KeyError, TypeError) as error:
        raise RbftError(f"this order is of another version of robustbench_ft: {error}") from error
