"""Trackers: the numbers of `log.jsonl`, sent on to TensorBoard, Weights & Biases, trackio or MLflow. None is needed.

Every tracker is given the same numbers under the same names, '<stage>/<what>' at the stage's own step. One that fails
is left out from there on, and said once: it never stops a run.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .errors import RbftError, unknown

Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Job:
    """What a tracker shows a run as."""

    project: str  # the suite
    group: str  # method and digest: runs that differ in their seed only
    name: str
    key: str  # the same for a run that was cut and resumes
    config: Mapping[str, Any]  # cell.json
    out: Path  # folder of the records


class Tracker(Protocol):
    """Where numbers go."""

    def log(self, stage: str, numbers: Numbers, step: int) -> None: ...

    def finish(self, results: Numbers) -> None:
        """Note the results of the whole run, and close it."""
        ...


class TensorBoard:
    """Event files under `OUT/tensorboard`, for `tensorboard --logdir OUT/tensorboard`."""

    def __init__(self, job: Job) -> None:
        module: Any = importlib.import_module("torch.utils.tensorboard")
        self.writer = module.SummaryWriter(str(job.out / "tensorboard" / job.project / job.group / job.name))
        self.writer.add_text("cell", "\n".join(f"    {key}: {value}" for key, value in job.config.items()))

    def log(self, stage: str, numbers: Numbers, step: int) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(f"{stage}/{name}", value, step)

    def finish(self, results: Numbers) -> None:
        for name, value in results.items():
            self.writer.add_scalar(f"results/{name}", value)
        self.writer.close()


class WandB:
    """A run of Weights & Biases; account, project and mode are wandb's own (WANDB_PROJECT, WANDB_MODE=offline)."""

    def __init__(self, job: Job) -> None:
        module: Any = importlib.import_module("wandb")
        self.run = module.init(
            project=os.environ.get("WANDB_PROJECT", f"rbft-{_plain(job.project)}"), group=job.group, name=job.name,
            id=_plain(job.key), resume="allow", config=dict(job.config), dir=str(job.out), reinit="create_new",
        )  # fmt: skip
        self.stages = set[str]()

    def log(self, stage: str, numbers: Numbers, step: int) -> None:
        if stage not in self.stages:  # stages count their steps from 0, and wandb's own step only rises
            self.run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            self.stages.add(stage)
        self.run.log({f"{stage}/step": step, **{f"{stage}/{name}": value for name, value in numbers.items()}})

    def finish(self, results: Numbers) -> None:
        self.run.summary.update(dict(results))
        self.run.finish()


class Trackio:
    """A run of trackio, Hugging Face's local tracker; `trackio show` opens it."""

    def __init__(self, job: Job) -> None:
        module: Any = importlib.import_module("trackio")
        self.run = module.init(
            project=f"rbft-{_plain(job.project)}", name=f"{job.group}-{job.name}", group=job.group, resume="allow",
            config=dict(job.config), embed=False,
        )  # fmt: skip

    def log(self, stage: str, numbers: Numbers, step: int) -> None:
        self.run.log({f"{stage}/step": step, **{f"{stage}/{name}": value for name, value in numbers.items()}})

    def finish(self, results: Numbers) -> None:
        self.run.log({f"results/{name}": value for name, value in results.items()})
        self.run.finish()


class MLflow:
    """A run of MLflow, where MLFLOW_TRACKING_URI says, else in `OUT/mlflow.db`."""

    def __init__(self, job: Job) -> None:
        module: Any = importlib.import_module("mlflow")
        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(job.out / 'mlflow.db').absolute()}"
        self.client = module.MlflowClient(place)
        found = self.client.get_experiment_by_name(f"rbft-{job.project}")
        experiment = found.experiment_id if found else self.client.create_experiment(f"rbft-{job.project}")
        earlier = self.client.search_runs([experiment], f"tags.rbft_key = '{_plain(job.key)}'")
        if earlier:
            self.id = earlier[0].info.run_id
            return
        tags = {"rbft_key": _plain(job.key), "rbft_group": job.group}
        self.id = self.client.create_run(experiment, run_name=f"{job.group}/{job.name}", tags=tags).info.run_id
        for key, value in job.config.items():
            self.client.log_param(self.id, key, str(value)[:500])

    def log(self, stage: str, numbers: Numbers, step: int) -> None:
        for name, value in numbers.items():
            self.client.log_metric(self.id, _named(f"{stage}/{name}"), value, step=step)

    def finish(self, results: Numbers) -> None:
        for name, value in results.items():
            self.client.log_metric(self.id, _named(f"results/{name}"), value)
        self.client.set_terminated(self.id)


@dataclass(frozen=True)
class Kind:
    """A tracker that may be asked for."""

    open: Callable[[Job], Tracker]
    needs: str  # module
    install: str


KINDS: Mapping[str, Kind] = {
    "tensorboard": Kind(TensorBoard, "tensorboard", "tensorboard"),
    "wandb": Kind(WandB, "wandb", "wandb"),
    "trackio": Kind(Trackio, "trackio", "trackio"),
    "mlflow": Kind(MLflow, "mlflow", "mlflow"),
}


def check(names: Sequence[str]) -> None:
    """Raise one line for a tracker that is unknown, or whose package is not installed."""
    for name in names:
        if name not in KINDS:
            raise RbftError(unknown("tracker", name, KINDS))
        if importlib.util.find_spec(KINDS[name].needs) is None:
            raise RbftError(f"--track {name}: its package is not installed; pip install {KINDS[name].install}")


class Sinks:
    """Takes every line of a cell's log, and sends its numbers to the trackers that were asked for.

    At the end of a `with` block every tracker is given `results`, and closed.
    """

    def __init__(self, names: Sequence[str], job: Job, say: Callable[[str], object]) -> None:
        self.say, self.stage = say, "fit"
        self.results: Numbers = {}
        self.open: dict[str, Tracker] = {}
        for name in names:
            self._try(name, lambda name=name: self.open.__setitem__(name, KINDS[name].open(job)))

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Send the numbers of one log line on."""
        self.stage = str(line.get("stage", self.stage))
        if line["event"] in ("step", "validate"):
            numbers = {key: float(v) for key, v in line.items() if isinstance(v, int | float) and key != "step"}
            for name, tracker in list(self.open.items()):
                self._try(name, lambda tracker=tracker: tracker.log(self.stage, numbers, int(line["step"])))

    def __enter__(self) -> "Sinks":
        return self

    def __exit__(self, *error: object) -> None:
        for name, tracker in list(self.open.items()):
            self._try(name, lambda tracker=tracker: tracker.finish(self.results))

    def _try(self, name: str, do: Callable[[], object]) -> None:
        try:
            do()
        except Exception as error:
            self.open.pop(name, None)
            said = " ".join(str(error).split())[:200] or type(error).__name__
            self.say(f"  {name} failed and is left out; the run goes on: {said}")


def _plain(text: str) -> str:
    """`text` with nothing that an id or a query would misread."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in text)


def _named(text: str) -> str:
    """A name that MLflow takes for a metric."""
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in text)
