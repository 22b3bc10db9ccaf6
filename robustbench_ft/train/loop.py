"""The training loop: a function that methods call.

next batch -> objective -> backward -> clip -> step -> schedule -> log -> maybe validate -> maybe checkpoint. One place
for precision, resume and selection. Everything random is asked for by (seed, stream, step), so a run that was cut and
resumed draws what an undisturbed one draws, and on one CPU ends bit-identical to it.
"""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_ft import metrics
from robustbench_ft.clip import Clip
from robustbench_ft.errors import RbftError
from robustbench_ft.memory import move_state
from robustbench_ft.method import Companion, Run, TrainSet
from robustbench_ft.recipe import Recipe
from robustbench_ft.suite import ACCURACY

from . import checkpoint
from .batches import ImageBatches, Scores, Source, indices_at
from .passes import Objective, backward
from .readback import Guard, Taken, steps_read_together
from .sums import GradientSums

MakeOptimizer = Callable[[Clip, Recipe], torch.optim.Optimizer]
CHECKPOINT = {
    "step", "diverged", "finished", "weights", "optimizer", "best", "best_step", "best_scores", "images", "seconds",
}  # fmt: skip
SMALLEST_SCALE = 2.0**-10  # of a loss in fp16; where gradients overflow still, they are not finite


class InterruptedRun(RbftError):
    """The user or the scheduler asked the run to stop; its state is on disk."""


def adamw(clip: Clip, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW over everything that has gradients, in one group."""
    return torch.optim.AdamW(
        [p for p in clip.parameters() if p.requires_grad], lr=recipe.lr, betas=(recipe.beta1, recipe.beta2),
        eps=recipe.eps, weight_decay=recipe.weight_decay, fused=True,
    )  # fmt: skip


def train(
    clip: Clip,
    data: TrainSet | Source,
    objective: Objective,
    recipe: Recipe,
    run: Run,
    stage: str = "fit",
    refresh: Callable[[], None] = lambda: None,
    optimizer: MakeOptimizer = adamw,
    companions: Sequence[Companion] = (),
) -> Clip:
    """Minimise the sum of the objective's terms over the parameters that `clip.train_only` left with gradients.

    `stage` names this call where a method trains more than once; `refresh` is called before each validation (e.g. to
    rebuild a head from the text tower). `optimizer` makes one; a group of it may carry 'lr_scale', a factor on the
    scheduled rate. `companions` are told of every update, and are stored, resumed and selected with the weights.
    Returns `clip` holding the selected checkpoint. A loss, gradient or logit that
    is not finite ends the stage, and the log says so: the best checkpoint is kept, else the weights before that step,
    else, where these give no finite logits, those that the stage began with.
    """
    source = ImageBatches(clip, data, run.workers, run.gpu_decode, run.ranks) if isinstance(data, TrainSet) else data
    beside = [*companions, *(make(clip) for make in run.companions)]
    stage = run.prefix + stage
    state = _State(clip, recipe, source, run, stage, optimizer(clip, recipe), beside)
    state.resume()
    state.check_ranks()
    run.log({"event": "start", "stage": stage, "step": state.step, "of": state.total, "parameters": state.n_trained})
    clip.train()
    try:
        _loop(clip, source, objective, refresh, state)
        state.finish(refresh)
    finally:
        state.written()
    clip.eval()
    run.log({
        "event": "end", "stage": stage, "step": state.step, "seconds": state.seconds, "images": state.images,
        "waiting": state.waited,
        "selected_step": state.best_step, **state.said(state.best_scores), "diverged": state.diverged,
        "memory_mib": state.memory(),
    })  # fmt: skip
    return clip


def _loop(clip: Clip, source: Source, objective: Objective, refresh: Callable[[], None], state: "_State") -> None:
    """Steps, validations and checkpoints until the end, or until somebody asks to stop."""
    run, recipe = state.run, state.recipe
    with state.sums, run.progress.bar(state.stage, state.total, "steps", done=state.step) as advance:
        while state.step < state.total and not state.diverged:
            _update(clip, source, objective, recipe, run, state)
            due = recipe.validates_after(state.step, len(source))
            if due or state.step == state.total:
                state.settle()
                if not state.diverged:
                    state.validate(refresh)
            state.maybe_checkpoint()
            advance(1, note=state.note)
            if run.stopped() and state.step < state.total:
                state.checkpoint()
                state.written()
                run.ranks.wait()  # until the first has saved
                raise InterruptedRun(f"stopped at step {state.step} of {state.total}")


def _update(clip: Clip, source: Source, objective: Objective, recipe: Recipe, run: Run, state: "_State") -> None:
    """One optimiser step."""
    step = state.step
    dropout = f"dropout/{run.rank}" if run.rank else "dropout"
    torch.manual_seed(run.generator(dropout, step).initial_seed())  # for models that drop patches or paths
    lr = recipe.lr_at(step, state.total)
    for group in state.optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
    began = time.monotonic()
    batch = source.batch(clip, indices_at(step, len(source), recipe, run), step, recipe, run)
    state.waited += time.monotonic() - began
    terms = backward(
        objective, batch, recipe.micro_batch, run, state.optimizer.zero_grad, state.sums.arm, state.scaler.scale
    )
    state.sums.finish(list(terms.values()))
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.parameters, recipe.clip_norm or math.inf)
    if not state.may_step(taken := Taken(step, lr, terms, norm, batch.whole or len(batch.labels))):
        state.diverge(taken)
        return
    state.update()
    for companion in state.companions:
        companion.after_step(step, state.total)
    state.took(taken)


class _State:
    """Everything that a resumed run must get back: weights, optimiser, companions, step, and the best checkpoint."""

    def __init__(
        self, clip: Clip, recipe: Recipe, source: Source, run: Run, stage: str, optimizer: torch.optim.Optimizer,
        companions: Sequence[Companion],
    ) -> None:  # fmt: skip
        self.clip, self.recipe, self.source, self.run = clip, recipe, source, run
        self.stage = stage
        self.path = run.folder / f"resume-{stage}.pt" if run.folder else None
        self.writer = checkpoint.Writer(self.path) if self.path else None
        self.parameters = [p for p in clip.parameters() if p.requires_grad]
        self.n_trained = sum(p.numel() for p in self.parameters)
        self.optimizer, self.companions, self.sums = optimizer, companions, GradientSums(self.parameters, run.ranks)
        self.total = recipe.total_steps(len(source))
        self.step, self.diverged, self.finished = 0, False, False
        self.best: dict[str, Tensor] = {}
        self.best_companions: list[Any] = []
        self.best_step, self.best_scores = -1, dict[str, float]()
        self.start = {name: tensor.cpu() for name, tensor in clip.snapshot().items()}  # `fit` begins here, also resumed
        self.images, self.spent, self.waited = 0, 0.0, 0.0  # over all attempts, for the cost columns
        self.scaler = torch.amp.GradScaler(clip.device.type, enabled=run.precision == "fp16")
        self.every = steps_read_together(optimizer, clip.device, self.scaler.is_enabled())
        self.guard, self.unread = Guard(clip.device), list[Taken]()
        self.values: Mapping[str, float] = {}  # loss terms of the last step that was read
        self.began = self.saved_at = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time of this stage, validation included, without what was lost to a kill."""
        return self.spent + time.monotonic() - self.began

    @property
    def note(self) -> str:
        """Of the progress line: loss terms, and the share of this attempt's time spent waiting for data."""
        share = self.waited / max(1e-9, self.seconds)
        return " ".join([*(f"{name} {value:.3f}" for name, value in self.values.items()), f"data {share:.0%}"])

    def update(self) -> None:
        """One step of the optimiser, whose moments are on the device only for so long where memory is low."""
        if self.run.low_memory:
            move_state(self.optimizer, home=True)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.run.low_memory:
            move_state(self.optimizer, home=False)

    def may_step(self, taken: Taken) -> bool:
        """Whether this step is finite; where steps are read later, the optimiser will not move if it is not.

        A scaled loss may overflow in its gradients: then `scaler` skips the step and lowers the scale.
        """
        if self.every > 1:
            self.guard.watch(taken, self.optimizer)
            return True
        if self.scaler.is_enabled():
            return math.isfinite(sum(taken.values.values())) and self.scaler.get_scale() >= SMALLEST_SCALE
        return taken.is_finite

    def took(self, taken: Taken) -> None:
        self.step, self.images = taken.step + 1, self.images + taken.images
        self.unread.append(taken)
        if len(self.unread) >= self.every:
            self.settle()

    def settle(self) -> None:
        """Read and log the steps that were not read yet. After one that is not finite, none has moved the weights."""
        unread, self.unread = self.unread, []
        for k, taken in enumerate(unread):
            if self.every > 1 and not taken.is_finite:
                self.step, self.images = taken.step, self.images - sum(later.images for later in unread[k:])
                return self.diverge(taken)
            self.values = taken.values
            self.run.log(taken.line(self.scaler.is_enabled()))

    def diverge(self, taken: Taken) -> None:
        self.diverged, self.values = True, taken.values
        terms = {name: str(value) for name, value in taken.values.items()}
        self.run.log({"event": "diverged", "step": taken.step, "lr": taken.lr, "terms": terms})
        self.run.progress.say(f"  the loss is not finite at step {taken.step}: stopped, keeping the last good weights")

    def validate(self, refresh: Callable[[], None]) -> None:
        """Keep the weights if strictly better on ID validation than all before ('best'), or always ('last')."""
        self.check_ranks()
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
                best = self.clip.snapshot()
                self.best = {name: t.cpu() for name, t in best.items()} if self.run.low_memory else best
                self.best_companions = copy.deepcopy([c.state_dict() for c in self.companions])

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
            self._restore_companions(self.best_companions)
        refresh()
        if self.diverged and math.isnan(self.source.scores(self.clip)[ACCURACY]):
            self.clip.restore(self.start)
            self.best_step = 0
            refresh()
        if not self.finished:
            self.finished = True
            self.checkpoint()

    def memory(self) -> dict[str, float]:
        """MiB of what training held on its device, counted; activations are what the measured peak has above them."""
        moments = [t for state in self.optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
        held = {
            "weights": list(self.clip.parameters()), "gradients": self.parameters, "optimizer": moments,
            "best": [] if self.run.low_memory else list(self.best.values()),
        }  # fmt: skip
        return {what: sum(t.numel() * t.element_size() for t in tensors) / 2**20 for what, tensors in held.items()}

    def _restore_companions(self, states: Sequence[Any]) -> None:
        for companion, state in zip(self.companions, states, strict=True):
            companion.load_state_dict(copy.deepcopy(state))

    def maybe_checkpoint(self) -> None:
        every = self.run.checkpoint_steps
        late = self.run.ranks.first and time.monotonic() - self.saved_at >= self.run.checkpoint_seconds
        if self.run.ranks.any(late) or (every and self.step % every == 0):
            self.check_ranks()
            self.checkpoint()

    def check_ranks(self) -> None:
        """Make sure that all ranks hold the same weights."""
        if self.run.world > 1:
            moving = {name: p for name, p in self.clip.named_parameters() if p.requires_grad}
            self.run.ranks.check_same(moving, f"at step {self.step} of {self.total}")

    def written(self) -> None:
        """Wait until the last checkpoint is on the disk."""
        if self.writer is not None:
            self.writer.wait()

    def checkpoint(self) -> None:
        self.settle()
        if self.writer is None:
            return
        content: dict[str, Any] = {
            "step": self.step, "diverged": self.diverged, "finished": self.finished,
            "weights": self.clip.snapshot(), "optimizer": self.optimizer.state_dict(),
            "best": self.best, "best_step": self.best_step, "best_scores": self.best_scores,
            "images": self.images, "seconds": self.seconds, "waited": self.waited, "scaler": self.scaler.state_dict(),
            "companions": [c.state_dict() for c in self.companions], "best_companions": self.best_companions,
            "micro_batch": self.run.micro_batch.size,
        }  # fmt: skip
        self.writer.save(content)
        self.saved_at = time.monotonic()

    def resume(self) -> None:
        content = self.path and checkpoint.load(self.path, self.clip.device, CHECKPOINT, self.run.progress.say)
        content = self.run.ranks.broadcast(content, self.clip.device)  # the first alone has a folder
        if not content:
            return
        try:
            self.clip.restore(content["weights"])
            self.optimizer.load_state_dict(content["optimizer"])
            self._restore_companions(content.get("companions", []))
            if content.get("scaler"):
                self.scaler.load_state_dict(content["scaler"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise RbftError(f"checkpoint {self.path} is of another model: delete it to start the cell again") from error
        if self.run.micro_batch.auto:  # what was found out before
            self.run.micro_batch.size = self.run.micro_batch.size or content.get("micro_batch", 0)
        if self.run.low_memory:
            move_state(self.optimizer, home=False)
        self.step, self.diverged, self.finished = content["step"], content["diverged"], content["finished"]
        self.best, self.best_step, self.best_scores = content["best"], content["best_step"], content["best_scores"]
        self.best_companions = content.get("best_companions", [])
        self.images, self.spent, self.waited = content["images"], content["seconds"], content.get("waited", 0.0)
        self.run.progress.say(f"  resuming at step {self.step} of {self.total}")
