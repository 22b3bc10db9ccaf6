"""The training loop: a function that methods call.

next batch -> objective -> backward -> clip -> step -> schedule -> log -> maybe validate -> maybe checkpoint. One place
for precision, resume and selection. Everything random is asked for by (seed, stream, step), so a run that was cut and
resumed draws what an undisturbed one draws, and on one CPU ends bit-identical to it.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from robustbench_ft import metrics
from robustbench_ft.clip import Clip
from robustbench_ft.data import Split
from robustbench_ft.errors import RbftError
from robustbench_ft.method import Run, TrainSet
from robustbench_ft.pixels.loader import Loader, Pending
from robustbench_ft.predict import of_logits
from robustbench_ft.progress import Advance
from robustbench_ft.recipe import Recipe
from robustbench_ft.suite import ACCURACY

from . import checkpoint

Terms = dict[str, Tensor]  # named parts of a loss, each a scalar; their sum is minimised
Scores = Mapping[str, float]  # metric -> its value on ID validation; NaN accuracy where a logit is not finite
EVAL_CHUNK = 512
AHEAD = 2  # batches of files decoded in advance
CHECKPOINT = {
    "step", "diverged", "finished", "weights", "optimizer", "best", "best_step", "best_scores", "images", "seconds",
}  # fmt: skip


class InterruptedRun(RbftError):
    """The user or the scheduler asked the run to stop; its state is on disk."""


@dataclass(frozen=True)
class Batch:
    """What an objective sees. `features` is computed at most once per batch, whoever asks for it."""

    step: int
    labels: Tensor  # [B]
    images: Tensor  # [B, 3, H, W], normalised; empty when features were cached
    encode: Callable[[Tensor], Tensor]

    @cached_property
    def features(self) -> Tensor:
        """Unit image features of the model being trained, [B, D]."""
        return self.encode(self.images)


Objective = Callable[[Batch], Terms]


class Source(Protocol):
    """Batches to learn from, and scores to select by."""

    metric: str  # which of the scores selects

    def __len__(self) -> int: ...

    def batch(self, clip: Clip, indices: list[int], step: int, recipe: Recipe, run: Run) -> Batch: ...

    def scores(self, clip: Clip) -> Scores:
        """On ID validation: 'accuracy' in [0, 1], and `metric` where that is another."""
        ...


class Pixels:
    """Batches of images, the next ones decoded while a step is computed, and validation through the image tower."""

    def __init__(self, clip: Clip, data: TrainSet, workers: int = 0, gpu_decode: bool = False) -> None:
        self.train, self.val = Loader(clip, data.train, workers, gpu_decode), Loader(clip, data.val, workers)
        self.labels, self.metric = torch.tensor(data.train.labels), data.metric
        self.begun: dict[int, Pending] = {}  # step -> its batch

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, clip: Clip, indices: list[int], step: int, recipe: Recipe, run: Run) -> Batch:
        pending = self.begun.pop(step, None) or self._begin(indices, step, recipe, run)
        self.begun = {later: batch for later, batch in self.begun.items() if later > step}
        for later in range(step + 1, min(step + 1 + AHEAD, recipe.total_steps(len(self)))):
            if later not in self.begun and self.train.native is None:
                self.begun[later] = self._begin(indices_at(later, len(self), recipe, run), later, recipe, run)
        labels = self.labels[indices].to(clip.device)
        return Batch(step, labels, self.train.normalised(pending), clip.encode_image)

    def _begin(self, indices: list[int], step: int, recipe: Recipe, run: Run) -> Pending:
        return self.train.ahead(indices, recipe.augment, run.generator("augment", step))

    def scores(self, clip: Clip) -> Scores:
        return _scores(clip, self.val.split, _features(clip, self.val), self.metric)


class Features:
    """Image features computed once with the evaluation transform: for stages that leave the image tower alone."""

    def __init__(self, clip: Clip, data: TrainSet, run: Run) -> None:
        with run.progress.bar("features", len(data.train) + len(data.val), "images") as advance:
            # those of train are read once, and are many: their pixels are not kept
            self.train = _features(clip, Loader(clip, data.train, run.workers), keep=False, advance=advance)
            self.val = _features(clip, Loader(clip, data.val, run.workers), advance=advance)
        self.labels, self.data, self.metric = torch.tensor(data.train.labels), data, data.metric

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, clip: Clip, indices: list[int], step: int, recipe: Recipe, run: Run) -> Batch:
        features = self.train[indices]
        return Batch(step, self.labels[indices].to(clip.device), features[:, :0], lambda _: features)

    def scores(self, clip: Clip) -> Scores:
        return _scores(clip, self.data.val, self.val, self.metric)


@torch.no_grad()
def _features(
    clip: Clip, loader: Loader, keep: bool = True, advance: Advance = lambda n=1, note="": None
) -> Tensor:  # fmt: skip
    training = clip.training
    clip.eval()
    rows: list[Tensor] = []
    with clip.exact():
        for _, pixels in loader.chunks(EVAL_CHUNK, keep):
            rows.append(clip.encode_image(loader.normalise(pixels)))
            advance(len(pixels))
    clip.train(training)
    return torch.cat(rows)


@torch.no_grad()
def _scores(clip: Clip, val: Split, features: Tensor, metric: str) -> Scores:
    """Of `features` [N, D] of the images of `val`."""
    found = {ACCURACY: accuracy(clip.classify, val.labels, features)}
    if metric != ACCURACY and not math.isnan(found[ACCURACY]):
        found[metric] = metrics.named(metric, of_logits(val, clip.classify(features)))
    return found


@torch.no_grad()
def accuracy(classify: Callable[[Tensor], Tensor], labels: Any, features: Tensor) -> float:
    """Share of rows of `features` [N, D] classified as `labels` [N]; NaN when a logit is not finite."""
    logits = classify(features)
    if not logits.isfinite().all():
        return math.nan
    return float((logits.argmax(dim=-1).cpu().numpy() == labels).mean())


def train(
    clip: Clip,
    data: TrainSet | Source,
    objective: Objective,
    recipe: Recipe,
    run: Run,
    stage: str = "fit",
    refresh: Callable[[], None] = lambda: None,
) -> Clip:
    """Minimise the sum of the objective's terms over the parameters that `clip.train_only` left with gradients.

    `stage` names this call where a method trains more than once; `refresh` is called before each validation (e.g. to
    rebuild a head from the text tower). Returns `clip` holding the selected checkpoint. A loss, gradient or logit that
    is not finite ends the stage, and the log says so: the best checkpoint is kept, else the weights before that step,
    else, where these give no finite logits, those that the stage began with.
    """
    source = Pixels(clip, data, run.workers, run.gpu_decode) if isinstance(data, TrainSet) else data
    state = _State(clip, recipe, source, run, stage)
    state.resume()
    run.log({"event": "start", "stage": stage, "step": state.step, "of": state.total, "parameters": state.n_trained})
    clip.train()
    with run.progress.bar(stage, state.total, "steps", done=state.step) as advance:
        while state.step < state.total and not state.diverged:
            terms = _update(clip, source, objective, recipe, run, state)
            due = recipe.validates_after(state.step, len(source))
            if (due or state.step == state.total) and not state.diverged:
                state.validate(refresh)
            state.maybe_checkpoint()
            advance(1, note=" ".join(f"{name} {value:.3f}" for name, value in terms.items()))
            if run.stopped() and state.step < state.total:
                state.checkpoint()
                raise InterruptedRun(f"stopped at step {state.step} of {state.total}")
    state.finish(refresh)
    clip.eval()
    run.log({
        "event": "end", "stage": stage, "step": state.step, "seconds": state.seconds, "images": state.images,
        "selected_step": state.best_step, **state.said(state.best_scores), "diverged": state.diverged,
    })  # fmt: skip
    return clip


def _update(
    clip: Clip, source: Source, objective: Objective, recipe: Recipe, run: Run, state: "_State"
) -> Mapping[str, float]:
    """One optimiser step; returns the loss terms as numbers."""
    step = state.step
    torch.manual_seed(run.generator("dropout", step).initial_seed())  # for models that drop patches or paths
    lr = recipe.lr_at(step, state.total)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    batch = source.batch(clip, indices_at(step, len(source), recipe, run), step, recipe, run)
    terms = objective(batch)
    loss = torch.stack(list(terms.values())).sum()
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(state.parameters, recipe.clip_norm or math.inf)
    values = {name: term.item() for name, term in terms.items()}
    norm_value = norm.item()
    if not math.isfinite(sum(values.values())) or not math.isfinite(norm_value):
        state.diverged = True
        run.log({"event": "diverged", "step": step, "lr": lr, "terms": {name: str(v) for name, v in values.items()}})
        run.progress.say(f"  the loss is not finite at step {step}: stopped, keeping the last good weights")
        return values
    state.optimizer.step()
    state.step += 1
    state.images += len(batch.labels)
    run.log({"event": "step", "step": step, "lr": lr, "loss": sum(values.values()), **values, "grad_norm": norm_value})
    return values


def indices_at(step: int, n: int, recipe: Recipe, run: Run) -> list[int]:
    """Which of `n` examples make the batch of `step`.

    Counted in steps, permutations follow one another without a seam; counted in epochs, each ends with what is left.
    """
    if recipe.steps:
        places = range(step * recipe.batch, (step + 1) * recipe.batch)
        return [_epoch(run.seed, place // n, n, recipe.shuffle)[place % n] for place in places]
    per_epoch = math.ceil(n / recipe.batch)
    start = step % per_epoch * recipe.batch
    return _epoch(run.seed, step // per_epoch, n, recipe.shuffle)[start : start + recipe.batch]


@lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, n: int, shuffle: bool) -> list[int]:
    if not shuffle:
        return list(range(n))
    generator = Run(seed, torch.device("cpu")).generator("order", epoch)
    return torch.randperm(n, generator=generator).tolist()


class _State:
    """Everything that a resumed run must get back: weights, optimiser, step, and the best checkpoint so far."""

    def __init__(self, clip: Clip, recipe: Recipe, source: Source, run: Run, stage: str) -> None:
        self.clip, self.recipe, self.source, self.run = clip, recipe, source, run
        self.path = run.folder / f"resume-{stage}.pt" if run.folder else None
        self.parameters = [p for p in clip.parameters() if p.requires_grad]
        self.n_trained = sum(p.numel() for p in self.parameters)
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps,
            weight_decay=recipe.weight_decay, fused=True,
        )  # fmt: skip
        self.total = recipe.total_steps(len(source))
        self.step, self.diverged, self.finished = 0, False, False
        self.best: dict[str, Tensor] = {}
        self.best_step, self.best_scores = -1, dict[str, float]()
        self.start = {name: tensor.cpu() for name, tensor in clip.snapshot().items()}  # `fit` begins here, also resumed
        self.images, self.spent = 0, 0.0  # over all attempts, for the cost columns
        self.began = self.saved_at = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time of this stage, validation included, without what was lost to a kill."""
        return self.spent + time.monotonic() - self.began

    def validate(self, refresh: Callable[[], None]) -> None:
        """Keep the weights if strictly better on ID validation than all before ('best'), or always ('last')."""
        refresh()
        scores = self.source.scores(self.clip)
        if math.isnan(scores[ACCURACY]):
            self.diverged = True
            self.run.log({"event": "diverged", "step": self.step, "where": "validation"})
            self.run.progress.say(f"  validation is not finite after step {self.step}: stopped")
            return
        self.run.log({"event": "validate", "step": self.step, **self.said(scores)})
        if self._is_better(scores) or self.recipe.select == "last":
            self.best_step, self.best_scores = self.step, dict(scores)
            if self.recipe.select == "best":
                self.best = self.clip.snapshot()

    def _is_better(self, scores: Scores) -> bool:
        metric = self.source.metric
        sign = metrics.sign_of(metric)
        return not self.best_scores or sign * scores[metric] > sign * self.best_scores[metric]

    def said(self, scores: Scores) -> dict[str, float]:
        """Scores as the log names them; an accuracy of -1 where nothing was validated."""
        return {f"val_{metric}": value for metric, value in ({ACCURACY: -1.0} | dict(scores)).items()}

    def finish(self, refresh: Callable[[], None]) -> None:
        if self.best:
            self.clip.restore(self.best)
        refresh()
        if self.diverged and math.isnan(self.source.scores(self.clip)[ACCURACY]):
            self.clip.restore(self.start)
            self.best_step = 0
            refresh()
        if not self.finished:
            self.finished = True
            self.checkpoint()

    def maybe_checkpoint(self) -> None:
        if time.monotonic() - self.saved_at >= self.run.checkpoint_seconds:
            self.checkpoint()

    def checkpoint(self) -> None:
        if self.path is None:
            return
        content: dict[str, Any] = {
            "step": self.step, "diverged": self.diverged, "finished": self.finished,
            "weights": self.clip.snapshot(), "optimizer": self.optimizer.state_dict(),
            "best": self.best, "best_step": self.best_step, "best_scores": self.best_scores,
            "images": self.images, "seconds": self.seconds,
        }  # fmt: skip
        checkpoint.save(content, self.path)
        self.saved_at = time.monotonic()

    def resume(self) -> None:
        content = self.path and checkpoint.load(self.path, self.clip.device, CHECKPOINT, self.run.progress.say)
        if not content:
            return
        try:
            self.clip.restore(content["weights"])
            self.optimizer.load_state_dict(content["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise RbftError(f"checkpoint {self.path} is of another model: delete it to start the cell again") from error
        self.step, self.diverged, self.finished = content["step"], content["diverged"], content["finished"]
        self.best, self.best_step, self.best_scores = content["best"], content["best_step"], content["best_scores"]
        self.images, self.spent = content["images"], content["seconds"]
        self.run.progress.say(f"  resuming at step {self.step} of {self.total}")
