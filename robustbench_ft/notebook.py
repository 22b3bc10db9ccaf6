"""The Python face: `import robustbench_ft as rb` in a notebook or a script, one function for each command.

Accuracies and other shares are fractions, in [0, 1].
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from . import registry, suite_ref
from .claims.claim_store import find_runs
from .compare import compare as compared
from .compare import load as run_sets
from .compare import report, tables
from .compare.text import Text
from .compare.text import markdown as text_markdown
from .compare.verdicts import Comparison, Line
from .errors import RbftError
from .images import roots
from .notebook_tables import frame, html
from .progress import Progress, choose
from .record.store import Record
from .stats import Estimate
from .suite import Suite

if TYPE_CHECKING:
    from .clip import Clip
    from .diagnose.answer import Diagnoses
    from .earlier import Way
    from .ranges import Space
    from .saved import SavedScorer
    from .tuning.report import Tuned

Names = str | Path | Iterable[str | Path]


@dataclass(frozen=True)
class Records:
    """Finished cells, in path order: own ones and those of published claims.

    >>> import robustbench_ft as rb
    >>> runs = rb.load("runs")
    >>> len(runs), runs.of(method="ft")[0].seed
    (3, 0)
    >>> runs.of(method="ft")[0].predictions("final", "test").correct.shape
    (547,)
    """

    found: tuple[Record, ...]

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.found)

    def __getitem__(self, place: int) -> Record:
        return self.found[place]

    def of(self, suite: str | None = None, method: str | None = None, seed: int | None = None) -> "Records":
        """Those of one suite, method or seed. Raises `RbftError` where there is none."""
        wanted = {"suite": suite, "method": method, "seed": seed}
        asked = {key: value for key, value in wanted.items() if value is not None}
        kept = tuple(record for record in self if all(record.cell.get(key) == value for key, value in asked.items()))
        if not kept:
            there = sorted({f"{r.cell.get('method')} on {r.cell.get('suite')}, seed {r.seed}" for r in self})
            raise RbftError(f"no run of {_said(asked)} there; there are {'; '.join(there)}")
        return Records(kept)

    def table(self, pandas: bool = False) -> Any:
        """One plain dict per row of `rbft report`; with `pandas`, a DataFrame of them (pandas must be installed).

        A column such as 'ID' or 'mean OOD' is the mean of the official metric, 'ID low' and 'ID high' are the ends of
        its 95 % interval.

        >>> import robustbench_ft as rb
        >>> table = rb.load("runs").table()
        >>> [row["row"] for row in table], table[0]["seeds"]
        (['zero-shot', 'ft (steps=2)'], [0])
        >>> table[0]["ID low"] < table[0]["ID"] < table[0]["ID high"]
        True
        """
        rows = [_row(table, line) for table in report.tables(self) for line in table.lines]
        return frame(rows) if pandas else rows

    def markdown(self) -> str:
        """What `rbft report --format markdown` prints."""
        return "\n".join(report.markdown(table) for table in report.tables(self))

    def _repr_html_(self) -> str:
        found = report.tables(self)
        return "\n".join(
            html(Text(table.title, tuple(table.header()), tuple(tuple(table.texts(line)) for line in table.lines),
                       report.footnote(table)))
            for table in found
        )  # fmt: skip


@dataclass(frozen=True)
class Comparisons:
    """Methods against a baseline, one comparison for each suite and model."""

    found: tuple[Comparison, ...]

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Comparison]:
        return iter(self.found)

    def table(self, pandas: bool = False) -> Any:
        """One plain dict per row and column that were compared: difference, interval, p, adjusted p, verdict."""
        rows: list[dict[str, Any]] = [
            {
                "suite": one.run_set.suite, "model": one.run_set.model, "baseline": one.baseline_name, "row": claim.row,
                "on": claim.on, "difference": claim.estimate.value, "low": claim.estimate.low,
                "high": claim.estimate.high, "p": claim.estimate.p if claim.tested else None,
                "p adjusted": claim.p_adjusted, "verdict": claim.verdict,
            }
            for one in self for claim in (*one.claims, *one.exploratory)
        ]  # fmt: skip
        return frame(rows) if pandas else rows

    def markdown(self) -> str:
        """What `rbft compare --format markdown` prints, without the trade-offs."""
        return "\n".join(text_markdown(text) for one in self for text in tables.sections(one))

    def _repr_html_(self) -> str:
        return "\n".join(html(text) for one in self for text in tables.sections(one))


@dataclass(frozen=True)
class Tunings:
    """Finished searches, one for each suite and model."""

    found: "tuple[Tuned, ...]"

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> "Iterator[Tuned]":
        return iter(self.found)

    def __getitem__(self, place: int) -> "Tuned":
        return self.found[place]

    def table(self, pandas: bool = False) -> Any:
        """One plain dict per row of what is chosen, as `Records.table` gives it."""
        rows = [_row(one.winners, line) for one in self for line in one.winners.lines]
        return frame(rows) if pandas else rows

    def markdown(self) -> str:
        """What `rbft tune --format markdown` prints."""
        from .tuning import report as tuned

        return "\n".join(map(tuned.markdown, self))


def run(
    method: Names, suite: Names, *, seeds: int | str | Iterable[int] = 0,
    set: Mapping[str, Any] | None = None, model: str | Iterable[str] | None = None, pretrained: str | None = None,
    recipe: str | None = None, protocol: str = "clean", root: Names = (), out: str | Path = "runs",
    device: str = "auto", precision: str = "auto", allow_partial: bool = False, save_model: bool = True,
    save_candidates: bool = False, workers: int = 0, checkpoint_seconds: float = 30.0, changed: "Way" = "refuse",
    progress: bool = True, jobs: int = 1,
) -> Records:  # fmt: skip
    """Fit methods on suites, evaluate them on their shifts, and return the records; finished cells are not run again.

    The arguments are the flags of `rbft run`. `set` maps settings to a value, or to a list that makes a grid. `changed`
    says what to do with finished cells whose method's source was edited since: 'refuse', 'rerun' or 'keep'. A method's
    file ('./my_method.py') is read again where it has changed since the last call.

    >>> import robustbench_ft as rb
    >>> settings = {"ft.steps": 2}
    >>> runs = rb.run(["zero-shot", "ft"], "digits", seeds=range(2), set=settings, progress=False, device="cpu")
    >>> len(runs)
    3
    """
    from . import environment, launch, plan, runner

    place = environment.choose_device(device)
    asked: dict[str, Any] = {} if model is None else {"model": _texts(model)}
    request = plan.Request(
        method=_texts(method), suite=_texts(suite), pretrained=pretrained, seeds=_seeds(seeds),
        protocol=cast(Any, protocol), recipe=recipe, set=plan.pairs(set or {}), allow_partial=allow_partial,
        precision=environment.choose_precision(precision, place), **asked,
    )  # fmt: skip
    options = runner.RunOptions(
        Path(out), place, choose() if progress else Progress(), checkpoint_seconds, save_model=save_model,
        save_candidates=save_candidates, workers=workers, changed=changed,
    )  # fmt: skip
    try:
        made = plan.make(request, roots.choose(_texts(root), os.environ))
        folders = launch.choose(jobs, progress=options.progress)(made, options)
    except runner.InterruptedRun as error:
        raise RbftError(f"{error}; nothing is lost: run the same call again to resume") from error
    return Records(tuple(Record(folder) for folder in folders))


def tune(
    method: str | Iterable[str], suite: Names, *, trials: int = 16, seeds: int | str | Iterable[int] = 0,
    ranges: Mapping[str, "str | Space"] | None = None, set: Mapping[str, Any] | None = None, tuning_seed: int = 0,
    model: str | Iterable[str] | None = None, pretrained: str | None = None, recipe: str | None = None,
    protocol: str = "clean", root: Names = (), out: str | Path = "tuning", device: str = "auto",
    precision: str = "auto", allow_partial: bool = False, save_model: bool = False, workers: int = 0,
    changed: "Way" = "refuse", progress: bool = True, jobs: int = 1, fresh_seeds: int | str | Iterable[int] = "",
) -> Tunings:  # fmt: skip
    """Search settings at random, with as many trials for every method; finished trials are not run again.

    The arguments are the flags of `rbft tune`. `ranges` maps settings to a `Range`, to `Choices`, or to the text of
    `--range`; `set` maps settings to the one value that all trials take. `fresh_seeds` runs the winners again.

    >>> import robustbench_ft as rb
    >>> looked = {"lr": rb.Range(1e-4, 1e-3, "log")}
    >>> found = rb.tune("ft", "digits", trials=2, ranges=looked, set={"steps": 2}, progress=False, device="cpu")
    >>> sorted(found[0].recipes())
    ['ft-best.toml', 'ft-one-se.toml']
    >>> [len(one.outcomes) for one in found[0].entrants]
    [2]
    """
    from . import environment, launch, plan, runner
    from .tuning import run as tuning
    from .tuning.search import Search, plan_trials

    place = environment.choose_device(device)
    data = roots.choose(_texts(root), os.environ)
    request = plan.Request(
        _texts(method), _texts(suite), () if model is None else _texts(model), pretrained, _seeds(seeds),
        cast(Any, protocol), environment.choose_precision(precision, place), recipe, plan.pairs(set or {}),
        allow_partial,
    )  # fmt: skip
    again = plan.parse_seeds(_seeds(fresh_seeds)) if fresh_seeds != "" else ()
    search = Search(request, trials, tuning_seed, tuple((ranges or {}).items()), again)
    options = runner.RunOptions(
        Path(out), place, choose() if progress else Progress(), save_model=save_model, workers=workers, changed=changed
    )
    try:
        each = launch.choose(jobs, progress=options.progress)
        return Tunings(tuple(tuning.run(search, plan_trials(search, data), options, each)))
    except runner.InterruptedRun as error:
        raise RbftError(f"{error}; nothing is lost: run the same call again to resume") from error


def load(*folders: str | Path, suite: str | None = None) -> Records:
    """Finished cells, and runs of published claims, under these folders (default: runs), as `rbft report` finds them.

    >>> import robustbench_ft as rb
    >>> [(record.cell["method"], record.seed) for record in rb.load("runs", suite="digits")]
    [('ft', 0), ('ft', 1), ('zero-shot', 0)]
    """
    found = Records(tuple(find_runs([Path(folder) for folder in folders or ("runs",)])))
    return found.of(suite=suite) if suite else found


def compare(
    records: Iterable[Record], baseline: str = "ft", family: str = "ood-mean", metric: str = "official",
    exact_bootstrap: bool = False,
) -> Comparisons:  # fmt: skip
    """Every row against a baseline row: paired differences, tests corrected inside `family`, letters, ranks.

    >>> import robustbench_ft as rb
    >>> found = rb.compare(rb.load("runs"), baseline="zero-shot")
    >>> entry = found.table()[0]
    >>> entry["row"], entry["on"], entry["low"] < entry["difference"] < entry["high"]
    ('ft (steps=2)', 'mean OOD', True)
    """
    every = run_sets(list(records), metric)
    return Comparisons(tuple(compared(run_set, baseline, family, exact_bootstrap) for run_set in every))


def diagnose(
    records: Iterable[Record], *, images: int = 512, texts: int = 1000, forget: str | None = None,
    suite: str | Path | None = None, root: Names = (), device: str = "auto", workers: int = 0, progress: bool = True,
) -> "Diagnoses":  # fmt: skip
    """Feature distortion and energy gap of the models that records kept, as `rbft diagnose` measures them.

    The arguments are its flags. `images` of each test set and `texts` random texts are the same for all models. `suite`
    keeps the records of one suite; the path of its suite.toml is needed where that defines it. Raises `RbftError` where
    no record kept a model.

    >>> import robustbench_ft as rb
    >>> found = rb.diagnose(rb.load("runs"), images=50, texts=20, progress=False, device="cpu")
    >>> rows = found.table()
    >>> [(row["row"], row["seed"]) for row in rows]
    [('zero-shot', 0), ('ft (steps=2)', 0), ('ft (steps=2)', 1)]
    >>> rows[0]["energy gap"], rows[1]["energy gap"] > 0
    (0.0, True)
    """
    from . import environment
    from .diagnose.answer import Diagnoses
    from .diagnose.measure import Ask
    from .diagnose.measure import diagnose as measured

    some, name = tuple(records), str(suite or "")
    if name:
        wanted = suite_ref.name_of(name) if suite_ref.is_file(name) else name
        some = Records(some).of(suite=wanted).found
    ask = Ask(
        images, texts, forget or "", name if suite_ref.is_file(name) else "", roots.choose(_texts(root), os.environ),
        environment.choose_device(device), workers, choose() if progress else Progress(),
    )  # fmt: skip
    return Diagnoses(tuple(measured(some, ask)))


def load_model(record: Record | str | Path, device: str = "cpu") -> "Clip | SavedScorer":
    """The tuned model of a record (or of its folder, or of a `model/` folder), head included, ready to answer.

    `.logits(images)` takes normalised pixels [B, 3, H, W] and returns [B, K]; `.preprocess()` gives the transform of a
    PIL image, mean and std; `.task.classes` names the K classes. A method that answers with several models, such as
    output-ensemble, gives a `SavedScorer`, which has the same three.

    >>> import numpy as np
    >>> import torch
    >>> import robustbench_ft as rb
    >>> record = rb.load("runs").of(method="ft", seed=0)[0]
    >>> model, split = rb.load_model(record), rb.suite("digits").split("test")
    >>> resize, mean, std = model.preprocess()
    >>> pixels = torch.stack([torch.from_numpy(np.array(resize(image))) for image in split.images.read(range(50))])
    >>> with torch.no_grad():
    ...     logits = model.logits((pixels.permute(0, 3, 1, 2) / 255 - mean) / std)
    >>> stored = record.predictions("final", "test")
    >>> bool((logits.argmax(1).numpy() == stored.prediction[:50]).all())
    True
    """
    from . import environment, saved

    folder = record.folder if isinstance(record, Record) else Path(record)
    place = folder if saved.is_there(folder) else folder / "model"
    if not saved.is_there(place):
        raise RbftError(f"{folder} keeps no tuned weights: published claims hold none, and --no-save-model keeps none")
    return saved.load(place, environment.choose_device(device))


def suite(name: str | Path, root: Names = (), partial: bool = False) -> Suite:
    """A suite by its name or by the path of its suite.toml; its data are looked for under `root`, as `--root` says.

    >>> import robustbench_ft as rb
    >>> digits = rb.suite("digits")
    >>> digits.shifts[-3:]
    ('inverted', 'colour', 'corrupted')
    >>> len(digits.split("test"))
    547
    """
    return suite_ref.load(str(name), roots.choose(_texts(root), os.environ), partial)


def methods() -> dict[str, str]:
    """Names of all methods, built-in and installed, each with its first line.

    >>> import robustbench_ft as rb
    >>> "lipsum" in rb.methods()
    True
    """
    return {name: entry.summary for name, entry in sorted(registry.entries("method").items())}


def suites() -> dict[str, str]:
    """Names of all suites, built-in and installed, each with its first line.

    >>> import robustbench_ft as rb
    >>> "imagenet" in rb.suites()
    True
    """
    return {name: entry.summary for name, entry in sorted(registry.entries("suite").items())}


def _row(table: report.Table, line: Line) -> dict[str, Any]:
    run_set, row = table.run_set, line.row
    found: dict[str, Any] = {
        "suite": run_set.suite, "model": run_set.model, "protocol": run_set.protocol,
        "row": row.name, "method": row.method,
        "setting": row.setting, "seeds": list(row.seeds), "fit seconds": report.fit_seconds(row),
    }  # fmt: skip
    for column in table.columns(val=True):
        found |= _estimate(column, table.estimate(line, column))
    return found


def _estimate(column: str, found: Estimate | None) -> dict[str, float | None]:
    if found is None:
        return {column: None, f"{column} low": None, f"{column} high": None}
    return {column: found.value, f"{column} low": found.low, f"{column} high": found.high}


def _said(asked: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} '{value}'" for key, value in asked.items())


def _texts(names: Names) -> tuple[str, ...]:
    return (str(names),) if isinstance(names, str | Path) else tuple(map(str, names))


def _seeds(seeds: int | str | Iterable[int]) -> str:
    return str(seeds) if isinstance(seeds, int | str) else ",".join(map(str, seeds))
