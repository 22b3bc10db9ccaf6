"""Measuring: every saved model beside the zero-shot model, on the same images of each split and the same random texts.

Images are decoded once for all models, and each model is loaded once. Letters of shapes: N images, D embedding width,
M texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from robustbench_ft import clip as clips
from robustbench_ft import metrics, model_ref, suite_ref
from robustbench_ft.clip import Clip
from robustbench_ft.compare.load import model_name
from robustbench_ft.compare.rows import check_same_data, run_sets
from robustbench_ft.data import Split
from robustbench_ft.errors import RbftError
from robustbench_ft.images.roots import Roots
from robustbench_ft.model_ref import ModelRef
from robustbench_ft.pixels.loader import Loader
from robustbench_ft.predict import of_logits
from robustbench_ft.progress import Progress
from robustbench_ft.prompts import Task
from robustbench_ft.record.store import Record
from robustbench_ft.stats.streams import generator
from robustbench_ft.suite import Suite

from .points import Diagnosis, Forgetting, Measures, Point, Saved, find_models, scores_of

IMAGES, TEXTS = 512, 1000
TEXT_LENGTH = 8  # random tokens between start and end, as Lipsum-FT draws them
BATCH = 256  # images, or texts, in one forward pass


@dataclass(frozen=True)
class Ask:
    """What to measure, and where."""

    images: int = IMAGES  # of each split; all where it has fewer
    texts: int = TEXTS  # M
    forget: str = ""  # a suite, by its name or file, on which zero-shot accuracy is measured before and after
    suite: str = ""  # the path of the suite.toml that defines the suite of the records, where one does
    roots: Roots | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 0  # threads that decode images; 0: as many as there are cores
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True)
class Sample:
    """The images of one split that all models are shown."""

    split: Split  # these images only
    loader: Loader
    pixels: Tensor  # [N, 3, S, S] uint8, on the CPU


@dataclass(frozen=True)
class View:
    """One model's features of one sample, and of the random texts."""

    raw: Tensor  # [N, D], projected, not normalised
    texts: Tensor | None  # [M, D] unit rows
    scale: float

    @property
    def unit(self) -> Tensor:
        """[N, D] unit rows."""
        return F.normalize(self.raw, dim=-1)


def diagnose(records: Sequence[Record], ask: Ask) -> list[Diagnosis]:
    """A diagnosis for each suite and model. Raises `RbftError` where there is nothing to be measured."""
    if ask.images < 1 or ask.texts < 1:
        raise RbftError(f"images={ask.images}, texts={ask.texts}: each must be at least 1")
    return [_diagnose(group, ask) for group in run_sets(records)]


def measures(before: View, after: View) -> Measures:
    """How far one model's features and energies are from the zero-shot model's."""
    unit, raw = (torch.linalg.vector_norm((a - b).double(), dim=-1) for a, b in (
        (after.unit, before.unit), (after.raw, before.raw)))  # fmt: skip
    gaps = _energy_gaps(before, after)
    return Measures(
        len(unit), unit.mean().item(), unit.square().mean().item(), raw.mean().item(), raw.square().mean().item(), *gaps
    )


def _energy_gaps(before: View, after: View) -> tuple[float, float] | tuple[None, None]:
    """Mean over images and texts of (<G, F> - <G0, F0>)^2, without and with the scales."""
    if before.texts is None or after.texts is None:
        return None, None
    sums = [0.0, 0.0]
    for old, new in zip(before.unit.split(BATCH), after.unit.split(BATCH), strict=True):
        e0, e = old.double() @ before.texts.double().T, new.double() @ after.texts.double().T  # [n, M]
        sums[0] += (e - e0).square().sum().item()
        sums[1] += (after.scale * e - before.scale * e0).square().sum().item()
    pairs = len(before.raw) * len(before.texts)
    return sums[0] / pairs, sums[1] / pairs


@torch.inference_mode()
def view(clip: Clip, sample: Sample, texts: Tensor | None) -> View:
    """What a model sees of a sample; `texts` are its own embeddings of the random texts, [M, D]."""
    with clip.exact():
        batches = [clip.model.encode_image(sample.loader.normalise(part)) for part in sample.pixels.split(BATCH)]
    return View(torch.cat(batches).float(), texts, clip.scale.item())


@torch.inference_mode()
def embed(clip: Clip, tokens: Tensor | None) -> Tensor | None:
    """Random texts [M, L] through the model's own text tower, [M, D] unit rows."""
    return None if tokens is None else torch.cat([clip.encode_text(part) for part in tokens.split(BATCH)])


def random_texts(clip: Clip, n: int) -> Tensor | None:
    """The fixed random texts [n, L] of a model's vocabulary; None where it does not state its range of ids."""
    if clip.random_ids is None:
        return None
    seed = int(generator("diagnose", "texts").integers(2**62))
    return clip.random_tokens(n, TEXT_LENGTH, torch.Generator().manual_seed(seed))


def sample(suite: Suite, name: str, clip: Clip, ask: Ask) -> Sample:
    """The fixed images of a split: drawn by its suite's and its own name, in split order."""
    split = suite.split(name)
    n = min(ask.images, len(split))
    rows = np.sort(generator("diagnose", suite.name, suite.version, name).choice(len(split), n, replace=False))
    part = split.take(rows)
    loader = Loader(clip, part, ask.workers)
    return Sample(part, loader, loader.read(range(n)))


@dataclass(frozen=True)
class _Bench:
    """What all models of one suite are measured with."""

    samples: Mapping[str, Sample]
    tokens: Tensor | None
    before: Mapping[str, View]
    other: Suite | None  # the unrelated suite
    other_sample: Sample | None

    def point(self, one: Saved, clip: Clip) -> Point:
        """Measure one model."""
        texts, record = embed(clip, self.tokens), one.record
        found = {name: measures(self.before[name], view(clip, some, texts)) for name, some in self.samples.items()}
        return Point(
            one.row, record.config.method, one.candidate, record.seed, record.config.digest,
            trained=not record.config.deterministic, headline=one.candidate == record.summary.default,
            scores=scores_of(record, one.candidate, tuple(self.samples)), measures=found,
            remembered=self.remembered(clip),
        )  # fmt: skip

    @torch.inference_mode()
    def remembered(self, clip: Clip) -> float | None:
        """Zero-shot accuracy on the unrelated suite, with a head of the model's own text tower."""
        if self.other is None or self.other_sample is None:
            return None
        head = clip.zero_shot_head(Task(self.other.classes, self.other.templates))
        logits = clip.scale * view(clip, self.other_sample, None).unit @ head.T
        split = self.other_sample.split
        return metrics.named(self.other.metric_of(split.name), of_logits(split, logits))


def _diagnose(records: Sequence[Record], ask: Ask) -> Diagnosis:
    check_same_data(records)
    models, missing = find_models(records)
    first, told = records[0].config, records[0].summary
    other = _other(first.suite, first.model.name, ask)
    suite = _suite(records[0], ask)
    clip = clips.load(_model(records[0])).to(ask.device).eval()
    splits = (told.splits.test, *told.splits.shifts)
    with ask.progress.bar("read images", len(splits), "splits") as advance:
        samples: dict[str, Sample] = {}
        for name in splits:
            _check_split(suite, name, records[0])
            samples[name] = sample(suite, name, clip, ask)
            advance(1, name)
    tokens = random_texts(clip, ask.texts)
    texts = embed(clip, tokens)
    before = {name: view(clip, some, texts) for name, some in samples.items()}
    bench = _Bench(samples, tokens, before, other, other and sample(other, other.test, clip, ask))
    forgetting = _forgetting(bench, clip)
    points: list[Point] = []
    with ask.progress.bar("measure", len(models), "models") as advance:
        for one in models:
            points.append(bench.point(one, _load(one).to(ask.device)))
            advance(1, one.row)
    return Diagnosis(
        first.suite, first.suite_version, model_name(first.model), first.protocol, told.splits.test,
        tuple(told.splits.shifts), groups={name: tuple(group) for name, group in told.shift_groups.items()},
        images={name: len(some.split) for name, some in samples.items()}, texts=0 if tokens is None else len(tokens),
        zero_shot=_zero_shot(records, splits), points=tuple(points), missing=tuple(missing), forgetting=forgetting,
    )  # fmt: skip


def _load(one: Saved) -> Clip:
    """A saved model. Raises `RbftError` where its files are damaged."""
    try:
        return clips.load_saved(one.folder)
    except (SafetensorError, OSError, RuntimeError, ValueError, LookupError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RbftError(f"cannot read the model in {one.folder}: {reason}; run the cell again") from error


def _zero_shot(records: Sequence[Record], splits: Sequence[str]) -> dict[str, float] | None:
    """Stored scores of the zero-shot model; None where no record holds them."""
    found = next((record for record in records if record.config.method == "zero-shot"), None)
    return None if found is None else scores_of(found, found.summary.default, splits)


def _forgetting(bench: _Bench, clip: Clip) -> Forgetting | None:
    before = bench.remembered(clip)
    if before is None or bench.other is None or bench.other_sample is None:
        return None
    split = bench.other_sample.split
    return Forgetting(bench.other.name, split.name, bench.other.metric_of(split.name), len(split), before)


def _other(trained_on: str, model: str, ask: Ask) -> Suite | None:
    """The suite of `forget`; one that the runs were trained on is refused, and one whose words the model lacks."""
    if not ask.forget:
        return None
    suite = suite_ref.load(ask.forget, ask.roots)
    if suite.name == trained_on:
        raise RbftError(f"--forget {ask.forget}: the runs were trained on it; name a suite that they never saw")
    model_ref.check_prompts(model, suite)
    suite.check_ready()
    return suite


def _suite(record: Record, ask: Ask) -> Suite:
    """The suite of a record, in the state in which the record met it."""
    cell = record.config
    if cell.suite_definition and not ask.suite:
        raise RbftError(f"suite '{cell.suite}' is defined by a file: name its suite.toml with --suite")
    name = ask.suite if cell.suite_definition else cell.suite
    suite = suite_ref.load(name, ask.roots, cell.partial, cell.suite_version)
    if (suite.name, suite.version, suite.definition) != (cell.suite, cell.suite_version, cell.suite_definition):
        raise RbftError(
            f"{record.folder} was run on suite '{cell.suite}' v{cell.suite_version}, and what is here is another state "
            f"of it ('{suite.name}' v{suite.version}); run the cell again"
        )
    suite.check_ready()
    return suite


def _check_split(suite: Suite, name: str, record: Record) -> None:
    stored = record.environment.data.get(name)
    if stored is not None and suite.split(name).digest != stored.digest:
        raise RbftError(
            f"split '{name}' of suite '{suite.name}' is not the one that {record.folder} was evaluated on: give --root "
            "the data of that run"
        )


def _model(record: Record) -> ModelRef:
    """The pre-trained model of a record. Raises `RbftError` where its weights are others now."""
    used = record.config.model
    found = model_ref.resolve(used.name, used.pretrained or None)
    if found.weights != used.weights:
        raise RbftError(
            f"the weights of '{model_name(used)}' are not those that {record.folder} started from (sha256 "
            f"{used.weights[:8]}, here {found.weights[:8]}); put the old ones back"
        )
    return found
