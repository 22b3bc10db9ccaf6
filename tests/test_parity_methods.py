"""The methods, step by step, against the official implementations: losses, gradients, weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import golden
import numpy as np
import pytest
import replay
import torch
import torch.nn.functional as F
from golden import TASK, Array, agrees, arrays, differs
from replay import RecordedFLYP, RecordedLipsum, Replay
from torch import Tensor

from robustbench_ft import metrics
from robustbench_ft.clip import Clip
from robustbench_ft.method import Candidates, Run, TrainSet
from robustbench_ft.pixels.loader import Loader
from robustbench_ft.predict import predict
from robustbench_ft.recipe import Recipe
from robustbench_ft.train import Batch, LossTerms, Objective

LIPSUM, WISE, FLYP = "lipsum-ft@1331873", "wise-ft@58b7a4b", "FLYP@215d5bb"
UPDATE, UPDATE_WISE, UPDATE_FLYP = 1e-3, 1e-4, 1e-3
GRADIENT, RATE, LOGITS = 1e-4, 1e-6, 1e-5
LOSS = {1e-5: 1e-5, 1e-3: 1e-4}  # of the JAX runs, by learning rate
GAP = {1e-5: 1e-3, 1e-3: 1e-4}  # of the regulariser: at the small rate it is a difference of nearly equal numbers
LOSS_TORCH = 1e-5


# -- Lipsum-FT and FT by its program -----------------------------------------------------------------------------------

LIPSUM_RUNS = ["lipsum_default", "lipsum_lr1e-3", "lipsum_lr1e-3_ls_clip_wd"]


def jax_run(run: str) -> tuple[Replay, Mapping[str, Array], float]:
    """Our replay, the vectors, and the tolerance of losses."""
    ours = replay.lipsum(run) if run in LIPSUM_RUNS else replay.ft(run)
    return ours, arrays("lipsum_ft" if run in LIPSUM_RUNS else "ft_jax"), LOSS[replay.lipsum_recipe(run).lr]


JAX_RUNS = [*LIPSUM_RUNS, "ft_default", "ft_lr1e-3"]


@pytest.mark.parametrize("run", JAX_RUNS)
def test_jax_losses_are_repeated(run: str) -> None:
    ours, official, tolerance = jax_run(run)
    for name in ("loss", "nll"):
        error = golden.relative(ours.column(name), official[f"{run}/{name}"])
        agrees(f"{run}: {name} of 5 steps, rel", LIPSUM, error, tolerance)


@pytest.mark.parametrize("run", LIPSUM_RUNS)
def test_lipsum_regulariser_is_repeated(run: str) -> None:
    ours, official, _ = jax_run(run)
    gap = ours.column("energy_gap") / golden.read("hyperparameters")[run]["feat_regularization"]
    assert np.all(gap[:2] < 1e-10)  # the first update has learning rate 0: what is left is rounding
    error = golden.relative(gap[2:], official[f"{run}/reg"][2:])
    agrees(f"{run}: regulariser of steps 3-5, rel", LIPSUM, error, GAP[replay.lipsum_recipe(run).lr])


@pytest.mark.parametrize("run", JAX_RUNS)
def test_jax_learning_rates_and_gradient_norms_are_repeated(run: str) -> None:
    ours, official, _ = jax_run(run)
    rates = official[f"{run}/lr"]
    agrees(f"{run}: learning rates, of peak", LIPSUM, golden.apart(ours.column("lr"), rates) / rates.max(), RATE)
    error = golden.relative(ours.column("grad_norm"), official[f"{run}/g_norm_preclip"])
    agrees(f"{run}: gradient norms before clipping, rel", LIPSUM, error, GRADIENT)
    error = replay.norm_error(ours.gradients, official, f"{run}/grad_l2/")
    agrees(f"{run}: norms of all gradients after clipping, rel", LIPSUM, error, GRADIENT)


@pytest.mark.parametrize("run", JAX_RUNS)
def test_jax_weights_are_repeated(run: str) -> None:
    ours, official, _ = jax_run(run)
    for updates in (3, 5):
        error = replay.update_error(ours, official, run, updates)
        agrees(f"{run}: theta{updates} - theta0, worst tensor, rel L2", LIPSUM, error, UPDATE)
    error = replay.norm_error(ours.states, official, f"{run}/delta_l2/", ours.start)
    agrees(f"{run}: norms of all updates, every step, rel", LIPSUM, error, UPDATE)


def test_lipsum_gradients_of_one_step_are_the_official_ones() -> None:
    ours, official = replay.probe(), arrays("lipsum_ft")
    for name, column in {"loss": "loss", "nll": "nll", "reg": "energy_gap"}.items():
        error = golden.relative(ours.column(column), official[f"lipsum_lr1e-3/{name}"][3:4])
        agrees(f"one step from recorded weights: {name}, rel", LIPSUM, error, GRADIENT)
    error = replay.tensor_error(ours.gradients[0], official, "lipsum_lr1e-3/probe_step3/grad/")
    agrees("one step from recorded weights: all gradients, worst tensor, rel L2", LIPSUM, error, GRADIENT)


# -- wrong versions of Lipsum-FT ---------------------------------------------------------------------------------------


class _KL(RecordedLipsum):
    """Holds the softmax over texts, instead of each energy."""

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        right, anchor = super().objective(clip, data, run), clip.frozen_copy()

        def loss(batch: Batch) -> LossTerms:
            texts = anchor.encode_text(self.texts(clip, run, batch.step))
            now, before = (anchor.scale * x @ texts.T for x in (batch.features, anchor.encode_image(batch.images)))
            gap = F.kl_div(now.log_softmax(-1), before.log_softmax(-1), reduction="batchmean", log_target=True)
            return {**right(batch), "energy_gap": gap}

        return loss


class _RenormalisedHead(RecordedLipsum):
    def classify(self, clip: Clip, features: Tensor) -> Tensor:
        return clip.scale.detach() * features @ F.normalize(clip.head, dim=-1).T

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        right = super().objective(clip, data, run)

        def loss(batch: Batch) -> LossTerms:
            return {**right(batch), "nll": F.cross_entropy(self.classify(clip, batch.features), batch.labels)}

        return loss


class _TrainedScale(_RenormalisedHead):
    def start(self, clip: Clip, data: TrainSet) -> None:
        super().start(clip, data)
        clip.train_only("image", "head", "scale")

    def classify(self, clip: Clip, features: Tensor) -> Tensor:
        return clip.scale * F.linear(features, clip.head)


class _FrozenHead(_RenormalisedHead):
    def classify(self, clip: Clip, features: Tensor) -> Tensor:
        return clip.scale.detach() * F.linear(features, clip.head.detach())


class _OldTexts(RecordedLipsum):
    def texts(self, clip: Clip, run: Run, step: int) -> Tensor:
        return super().texts(clip, run, 0)


@dataclass(frozen=True)
class _Late(Recipe):
    def lr_at(self, step: int, total: int) -> float:
        return super().lr_at(step + 1, total)


class _CountsFromOne(RecordedLipsum):
    @property
    def resolved(self) -> Recipe:
        return _Late(**vars(super().resolved))


RUN = "lipsum_lr1e-3"
SCALE = 30.0  # exp(logit_scale) of the model
WRONG_LIPSUM: dict[str, Callable[[], Replay]] = {
    "regulariser without the 1/2": lambda: replay.lipsum_with(RUN, strength=2.0),
    "energies without the scale": lambda: replay.lipsum_with(RUN, strength=SCALE**-2),
    "KL for squared differences": lambda: replay.lipsum_with(RUN, _KL),
    "the first texts at every step": lambda: replay.lipsum_with(RUN, _OldTexts),
    "trained scale": lambda: replay.lipsum_with(RUN, _TrainedScale),
    "frozen head": lambda: replay.lipsum_with(RUN, _FrozenHead),
    "renormalised head": lambda: replay.lipsum_with(RUN, _RenormalisedHead),
    "steps counted from one": lambda: replay.lipsum_with(RUN, _CountsFromOne),
    "weight decay 0.1": lambda: replay.lipsum_with(RUN, weight_decay=0.1),
}


def noticed(what: str, reference: str, loss: tuple[float, float], update: tuple[float, float]) -> None:
    """A wrong version must show in the losses or in the weights: (error, tolerance) of each."""
    name, (error, tolerance) = max(("loss", loss), ("update", update), key=lambda item: item[1][0] / item[1][1])
    differs(f"{what}: {name}", reference, error, tolerance)


@pytest.mark.parametrize("wrong", WRONG_LIPSUM)
def test_a_wrong_lipsum_would_be_noticed(wrong: str) -> None:
    ours, official = WRONG_LIPSUM[wrong](), arrays("lipsum_ft")
    loss = golden.relative(ours.column("loss"), official[f"{RUN}/loss"])
    update = replay.update_error(ours, official, RUN, 5)
    noticed(f"Lipsum-FT, {wrong}", LIPSUM, (loss, LOSS[1e-3]), (update, UPDATE))


# -- FT and the linear probe by wise-ft --------------------------------------------------------------------------------

WISE_RUNS = ["ft_wd0.1_clip1", "ft_lr3e-5_ls0.1", "lp_freeze_encoder"]


@pytest.mark.parametrize("run", WISE_RUNS)
def test_wise_ft_runs_are_repeated(run: str) -> None:
    """The last one is the first stage of LP-FT, on features computed once."""
    ours = replay.linear_probe() if run == "lp_freeze_encoder" else replay.wise(run)
    official = arrays("wiseft_finetune")
    error = golden.relative(ours.column("loss"), official[f"{run}/loss"])
    agrees(f"{run}: loss of 5 steps, rel", WISE, error, LOSS_TORCH)
    agrees(f"{run}: learning rates, rel", WISE, golden.relative(ours.column("lr"), official[f"{run}/lr"]), RATE)
    error = golden.relative(ours.column("grad_norm"), official[f"{run}/grad_norm_preclip"])
    agrees(f"{run}: gradient norms before clipping, rel", WISE, error, GRADIENT)
    error = replay.tensor_error(ours.gradients[0], official, f"{run}/grad_postclip_step0/")
    agrees(f"{run}: first gradients after clipping, worst tensor, rel L2", WISE, error, GRADIENT)
    for updates in (3, 5):
        error = replay.update_error(ours, official, run, updates)
        agrees(f"{run}: theta{updates} - theta0, worst tensor, rel L2", WISE, error, UPDATE_WISE)
    error = replay.norm_error(ours.states, official, f"{run}/delta_l2/", ours.start)
    agrees(f"{run}: norms of all updates, every step, rel", WISE, error, UPDATE_WISE)


def test_the_linear_probe_trains_the_head_alone() -> None:
    assert replay.linear_probe().start.keys() == {"head", "bias"}


# -- the paper's linear probe ------------------------------------------------------------------------------------------

sweep: Any = import_module("robustbench_ft.methods._logistic").sweep
LPFT, COEFFICIENT = "transfer_learning@13c3e2b", 2e-3  # the official solver stops before it has converged
LOGISTIC_RUNS = {"multiclass": "coef_padded", "missing_class": "coef_padded", "binary": "coef_softmax"}


@pytest.mark.parametrize("run", LOGISTIC_RUNS)
def test_the_logistic_probe_is_repeated(run: str) -> None:
    official = golden.tensors(arrays("lp_logreg"), f"{run}/")
    weight, bias = official[LOGISTIC_RUNS[run]], official[LOGISTIC_RUNS[run].replace("coef", "intercept")]
    accuracies: list[float] = []
    train, val = ((official[f"features{k}"], official[f"labels{k}"]) for k in (0, 1))
    ours = sweep(train, val, len(weight), official["C_grid"], heard=lambda probe: accuracies.append(probe.accuracy))
    assert ours.step == official["best_i"]
    assert ours.c == official["best_C"]
    agrees(f"logistic probe, {run}: weights, abs", LPFT, golden.apart(ours.weight, weight), COEFFICIENT)
    agrees(f"logistic probe, {run}: intercepts, abs", LPFT, golden.apart(ours.bias, bias), COEFFICIENT)
    error = golden.apart(accuracies, official["acc"][:, 1])
    one_image = 1 / len(val[1])  # two classes may be equal to rounding at the strongest penalties
    agrees(f"logistic probe, {run}: accuracies of all penalties, abs", LPFT, error, one_image + 1e-9)


@pytest.mark.parametrize("wrong", ["standardised per dimension", "the weakest penalty"])
def test_a_wrong_logistic_probe_would_be_noticed(wrong: str) -> None:
    official = golden.tensors(arrays("lp_logreg"), "multiclass/")
    train, val = ((official[f"features{k}"], official[f"labels{k}"]) for k in (0, 1))
    penalties: Array = official["C_grid"]
    if wrong == "standardised per dimension":
        spread = train[0].std(axis=0) / train[0].std()
        train, val = ((x / spread, y) for x, y in (train, val))
    else:
        penalties = penalties[-1:]
    ours = sweep(train, val, 5, penalties)
    differs(f"logistic probe, {wrong}: weights", LPFT, golden.apart(ours.weight, official["coef"]), COEFFICIENT)


WRONG_WISE: dict[str, dict[str, Any]] = {
    "without clipping": {"clip_norm": 0.0},
    "without weight decay": {"weight_decay": 0.0},
    "warm-up from 0": {"schedule": "lipsum", "warmup_fraction": 0.4},
    "label smoothing 0.1": {"label_smoothing": 0.1},
}


@pytest.mark.parametrize("wrong", WRONG_WISE)
def test_a_wrong_ft_would_be_noticed(wrong: str) -> None:
    ours, official = replay.wise_with("ft_wd0.1_clip1", **WRONG_WISE[wrong]), arrays("wiseft_finetune")
    loss = golden.relative(ours.column("loss"), official["ft_wd0.1_clip1/loss"])
    update = replay.update_error(ours, official, "ft_wd0.1_clip1", 5)
    noticed(f"FT 'scaled', {wrong}", WISE, (loss, LOSS_TORCH), (update, UPDATE_WISE))


# -- WiSE-FT -----------------------------------------------------------------------------------------------------------


class _Tuned(replay.WISE):
    """WiSE-FT whose fine-tuning has arrived at the recorded weights: one step of learning rate 0 from there."""

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        clip.restore(golden.state_of(golden.tensors(arrays("wiseft_merge"), "theta1/")))
        return super().objective(clip, data, run)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_wise_ft_merges_are_the_official_ones(alpha: float) -> None:
    official, run = arrays("wiseft_merge"), f"alpha{alpha}"
    images = golden.split(official["eval_images"], official["eval_labels"])
    still = Recipe(steps=1, batch=8, warmup_fraction=1.0, head="scaled", shuffle=False, select="last")
    data = TrainSet(images, images, TASK)
    family: Candidates = _Tuned(recipe=still, alpha=alpha).fit(golden.model(), data, Run(0, replay.CPU))
    scored = metrics.accuracy(predict(family, images)[family.default])
    agrees(f"WiSE-FT {run}: accuracy, abs", WISE, golden.apart(scored, official[f"{run}/acc_top1"]), 1e-6)
    clip = family.use(family.default)
    assert isinstance(clip, Clip)
    loader = Loader(clip, images)
    with torch.no_grad():
        logits = clip.logits(loader.normalise(loader.read(range(len(images)))))
    agrees(f"WiSE-FT {run}: logits, rel L2", WISE, golden.relative_l2(logits, official[f"{run}/logits"]), LOGITS)
    if 0 < alpha < 1:
        error = replay.tensor_error(clip.snapshot(), official, f"{run}/theta/")
        agrees(f"WiSE-FT {run}: merged weights, worst tensor, rel L2", WISE, error, LOGITS)


# -- FLYP --------------------------------------------------------------------------------------------------------------


def test_flyp_pairs_images_with_these_captions() -> None:
    official, clip = arrays("flyp"), golden.model()
    train = golden.split(official["images"], official["labels"])
    captions = replay.method("flyp")().captions(clip, TrainSet(train, train, TASK))  # [K, T, L]
    length = captions.shape[-1]
    for tokens, label in zip(official["tokens"].reshape(-1, 77), official["labels"].flat, strict=True):
        assert not tokens[length:].any()
        assert tokens[:length].tolist() in captions[label].tolist()


@pytest.mark.parametrize("run", ["flyp_wd0.1", "flyp_lr1e-5"])
def test_flyp_runs_are_repeated(run: str) -> None:
    ours, official = replay.flyp(run), arrays("flyp")
    error = golden.relative(ours.column("loss"), official[f"{run}/loss"])
    agrees(f"{run}: loss of 4 steps, rel", FLYP, error, LOSS_TORCH)
    agrees(f"{run}: learning rates, rel", FLYP, golden.relative(ours.column("lr"), official[f"{run}/lr"]), RATE)
    error = golden.relative(ours.column("grad_norm"), official[f"{run}/grad_norm"])
    agrees(f"{run}: gradient norms, rel", FLYP, error, GRADIENT)
    error = replay.norm_error(ours.gradients, official, f"{run}/grad_l2/")
    agrees(f"{run}: norms of all gradients, both towers and scale, rel", FLYP, error, GRADIENT)
    error = replay.norm_error(ours.states, official, f"{run}/delta_l2/", ours.start)
    agrees(f"{run}: norms of all updates, every step, rel", FLYP, error, UPDATE_FLYP)


def test_flyp_weights_are_repeated() -> None:
    ours, official, run = replay.flyp("flyp_wd0.1"), arrays("flyp"), "flyp_wd0.1"
    error = replay.tensor_error(ours.gradients[0], official, f"{run}/grad_step0/")
    agrees(f"{run}: first gradients, worst tensor, rel L2", FLYP, error, GRADIENT)
    for updates in (3, 4):
        error = replay.update_error(ours, official, run, updates)
        agrees(f"{run}: theta{updates} - theta0, worst tensor, rel L2", FLYP, error, UPDATE_FLYP)
    before, after = (state["model.token_embedding.weight"].numpy() for state in (ours.start, ours.states[-1]))
    for kind in ("used", "unused"):  # words of no caption feel the weight decay alone
        rows = official[f"token_rows_{kind}"]
        moved = official[f"{run}/theta4_rows_{kind}/token_embedding.weight"] - before[rows]
        error = golden.relative_l2(after[rows] - before[rows], moved)
        agrees(f"{run}: theta4 - theta0 of {kind} token embeddings, rel L2", FLYP, error, UPDATE_FLYP)


class _FrozenScale(RecordedFLYP):
    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        clip.train_only("image", "text")
        return super().objective(clip, data, run)


class _OneTower(RecordedFLYP):
    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        clip.train_only("image", "scale")
        return super().objective(clip, data, run)


class _ClassTargets(RecordedFLYP):
    """Images of one class are no negatives of each other."""

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        def loss(batch: Batch) -> LossTerms:
            texts = clip.encode_text(self.pair(self.captions(clip, data), batch, run))
            logits = clip.scale * batch.features @ texts.T
            same = (batch.labels[:, None] == batch.labels[None]).float()
            target = same / same.sum(dim=1, keepdim=True)
            return {"contrastive": (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2}

        return loss


@pytest.mark.parametrize("wrong", [_FrozenScale, _OneTower, _ClassTargets], ids=lambda kind: kind.__name__)
def test_a_wrong_flyp_would_be_noticed(wrong: type[Any]) -> None:
    ours, official, run = replay.flyp_with("flyp_wd0.1", wrong), arrays("flyp"), "flyp_wd0.1"
    names = {"_FrozenScale": "frozen scale", "_OneTower": "frozen text tower", "_ClassTargets": "targets by class"}
    error = golden.relative(ours.column("loss"), official[f"{run}/loss"])
    differs(f"FLYP, {names[wrong.__name__]}: loss", FLYP, error, LOSS_TORCH)
