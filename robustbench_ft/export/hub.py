"""What the hub of Hugging Face reads: front matter with `model-index`, and files of `.eval_results/`.

Formats: huggingface/hub-docs@064c754, docs/hub/eval-results.md, and @0d37e0c, modelcard.md. A result of
`.eval_results/` must name a data set of the hub that is registered as a benchmark. Suites are none by themselves, so
whoever exports says which one a split is. `model-index` needs none.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustbench_ft import __version__, metrics
from robustbench_ft.errors import RbftError, unknown
from robustbench_ft.record.store import Record

from .table import Column, Numbers

RESULTS = ".eval_results"
TASK = "image-classification"
BENCHMARK = re.compile(r"([^=]+)=([\w.-]+/[\w.-]+):([\w.-]+)")


@dataclass(frozen=True)
class Benchmark:
    """The data set of the hub whose leaderboard shows a test set."""

    column: str  # 'ID', or the name of a shift
    dataset: str  # ORG/NAME
    task: str  # an id of the data set's eval.yaml


def benchmark(words: str) -> Benchmark:
    """Read 'SPLIT=ORG/DATASET:TASK'. Raises `RbftError` where it is none."""
    found = BENCHMARK.fullmatch(words)
    if found is None:
        raise RbftError(
            f"--benchmark {words}: write SPLIT=ORG/DATASET:TASK, a benchmark of the hub and a task of its eval.yaml"
        )
    return Benchmark(*found.groups())


def front_matter(record: Record, numbers: Numbers, title: str, licence: str, with_results: bool) -> str:
    """YAML between '---' lines, as model cards start."""
    from huggingface_hub import EvalResult, ModelCardData

    config, more = record.config, dict[str, Any]()
    name, suite = config.model.name, f"{config.suite} v{config.suite_version}"
    if name.startswith("hf-hub:"):
        more["base_model"] = name.removeprefix("hf-hub:").partition("@")[0]
    if with_results:
        more["model_name"] = title
        more["eval_results"] = [
            EvalResult(
                task_type=TASK, dataset_type=config.suite, dataset_name=f"{suite}, {c.name}",
                dataset_split=c.splits[0] if len(c.splits) == 1 else None, metric_type=c.metric or metrics.ACCURACY,
                metric_value=percent(c), metric_name=f"{_metric(c)}, %",
                metric_args={"interval_95": [_points(c.own.low), _points(c.own.high)], "images": c.images},
            )
            for c in numbers.columns
        ]  # fmt: skip
    data = ModelCardData(
        library_name="open_clip", pipeline_tag=TASK, license=licence or None,
        tags=["robustbench_ft", "robust-fine-tuning", "clip", config.method],
        metrics=sorted({c.metric for c in numbers.columns if c.metric}), **more,
    )  # fmt: skip
    return f"---\n{data.to_yaml()}\n---\n"


def eval_results(record: Record, numbers: Numbers, benchmarks: Sequence[Benchmark], source: str) -> Mapping[str, bytes]:
    """File of `.eval_results/` -> its content, one for each benchmark that was named."""
    if not benchmarks:
        return {}
    from huggingface_hub.utils import yaml_dump

    known = {column.name: column for column in numbers.columns}
    files: dict[str, bytes] = {}
    for one in benchmarks:
        if one.column not in known:
            raise RbftError(unknown("test set", one.column, known))
        column = known[one.column]
        entry: dict[str, Any] = {"dataset": {"id": one.dataset, "task_id": one.task}, "value": percent(column)}
        if source:
            entry["source"] = {"url": source, "name": "predictions and claim"}
        entry["notes"] = (
            f"{_metric(column)} in %, 95 % interval {_points(column.own.low)} to {_points(column.own.high)} over "
            f"{column.images:,} images; robustbench_ft {__version__}, {record.config.suite} v"
            f"{record.config.suite_version}, protocol {record.config.protocol}, seed {record.config.seed}"
        )
        name = re.sub(r"[^\w.-]+", "_", f"{one.dataset.partition('/')[2]}-{one.task}")
        files[f"{RESULTS}/{name}.yaml"] = yaml_dump([entry]).encode()
    return files


def percent(column: Column) -> float:
    """A column's number as the hub is given it."""
    return _points(column.own.value)


def _points(value: float) -> float:
    return round(100 * value, 2)


def _metric(column: Column) -> str:
    return metrics.title_of(column.metric) if column.metric else "mean of the test sets' own metrics"
