"""Optimisers and averages that hold a model near theta0, step by step against their official implementations."""

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

import golden
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import Array, agrees, arrays, differs, relative_l2, worst
from torch import Tensor, nn
from torch.func import functional_call

from robustbench_ft.recipe import Recipe
from robustbench_ft.train import Batch

TPGM, FTP, SPD = "TPGM@8d18db0", "FTP@1f8dd44", "Selective-Projection-Decay@b377695"
OLOR, CLIPOOD, SWAD = "OLOR-AAAI-2024@2ab7996", "CLIPood@bc0d874", "swad@252190e"
RADIUS, WEIGHTS, UPDATE = 1e-5, 1e-5, 1e-4  # updates are of 1e-2 in weights of 1: float32 keeps five digits of them


def module(name: str) -> Any:
    return import_module(f"robustbench_ft.methods.{name}")


# -- TPGM --------------------------------------------------------------------------------------------------------------


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 9), nn.LayerNorm(9), nn.GELU(), nn.Linear(9, 4))


def floats(found: Mapping[str, Array]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array).clone() for name, array in found.items()}


def tpgm(run: str, **wrong: Any) -> tuple[Any, list[Array], list[Array], list[float], dict[str, Tensor]]:
    """Radii before and after each of 7 steps, losses, and the projected weights."""
    official, network = arrays("tpgm"), mlp()
    pre, tuned = floats(golden.tensors(official, "pre/")), floats(golden.tensors(official, "ft/"))
    held = {str(name): pre[str(name)] for name in official[f"{run}/names"]}
    radii = module("tpgm").Radii(held, wrong.get("norm", run.split("_")[0]), wrong.get("rate", 1e-2))
    before, after, losses = list[Array](), list[Array](), list[float]()
    for step in range(7):
        images, labels = (torch.from_numpy(official[f"{name}{step % 3}"]) for name in "xy")
        loss = F.cross_entropy(functional_call(network, tuned | radii.project(tuned), (images,)), labels)
        before.append(radii.values.detach().numpy().copy())
        radii.adam.zero_grad()
        loss.backward()
        radii.adam.step()
        after.append(radii.values.detach().numpy().copy())
        losses.append(loss.item())
    return radii, before, after, losses, tuned | radii.project(tuned)


TPGM_RUNS = ["l2_norm", "l2_norm_excl", "mars_norm", "mars_norm_excl"]


@pytest.mark.parametrize("run", TPGM_RUNS)
def test_tpgm_radii_and_projections_are_repeated(run: str) -> None:
    official, (radii, before, after, losses, projected) = arrays("tpgm"), tpgm(run)
    for name, ours in {"before": before, "after": after}.items():
        error = relative_l2(ours, official[f"{run}/constraints_{name}_step"])
        agrees(f"TPGM {run}: radii {name} each of 7 steps, rel L2", TPGM, error, RADIUS)
    error = relative_l2(radii.values, official[f"{run}/constraints_final"])
    agrees(f"TPGM {run}: radii of the last projection, rel L2", TPGM, error, RADIUS)
    agrees(f"TPGM {run}: losses, rel", TPGM, golden.relative(losses, official[f"{run}/loss"]), RADIUS)
    found = golden.tensors(official, f"{run}/projected/")
    error = worst(relative_l2(projected[name], array) for name, array in found.items())
    agrees(f"TPGM {run}: projected weights, worst tensor, rel L2", TPGM, error, WEIGHTS)


@pytest.mark.parametrize("wrong", [{"norm": "mars"}, {"rate": 2e-2}], ids=str)
def test_a_wrong_tpgm_would_be_noticed(wrong: dict[str, Any]) -> None:
    _, _, after, _, _ = tpgm("l2_norm", **wrong)
    error = relative_l2(after, arrays("tpgm")["l2_norm/constraints_after_step"])
    differs(f"TPGM, {'row sums for norms' if 'norm' in wrong else 'twice the rate'}: radii", TPGM, error, RADIUS)


# -- optimisers, on recorded gradients ---------------------------------------------------------------------------------

NAMES = ("embed", "conv", "weight", "bias", "last", "head")
STEPS = 8
RECIPE = Recipe(lr=1e-2, steps=STEPS)


class Recorded:
    """The recorded start, and the updates of an optimiser on the recorded gradients."""

    def __init__(self, file: str, hold_head: bool) -> None:
        self.official = arrays(file)
        self.start = floats(golden.tensors(self.official, "theta0/"))
        self.parameters = {name: nn.Parameter(self.start[name].clone()) for name in NAMES}
        tower = [self.parameters[name] for name in NAMES if name != "head"]
        self.groups = [
            {"params": tower, "held": True},
            {"params": [self.parameters["head"]], "held": hold_head},
        ]

    def error(self, optimizer: torch.optim.Optimizer, run: str) -> float:
        """Largest error of theta_t - theta0 over all tensors and steps, of the tensor's largest update."""
        apart = {name: [0.0] for name in self.parameters}
        moved = {name: [0.0] for name in self.parameters}
        for step in range(STEPS):
            for group in optimizer.param_groups:
                group["lr"] = float(self.official["lr"][step])
            for name, p in self.parameters.items():
                p.grad = torch.from_numpy(self.official[f"grad{step}/{name}"]).clone()
            optimizer.step()
            for name, p in self.parameters.items():
                theirs = self.official[f"{run}/theta{step + 1}/{name}"] - self.start[name].numpy()
                ours = (p.detach() - self.start[name]).numpy()
                apart[name].append(float(np.linalg.norm(ours - theirs)))
                moved[name].append(float(np.linalg.norm(theirs)))
        return worst(max(apart[name]) / max(moved[name]) for name in self.parameters)


def spd(run: str, **wrong: Any) -> float:
    recorded = Recorded("adam_spd", hold_head=True)
    strength = wrong.get("strength", float(run.removeprefix("wd")))
    return recorded.error(module("adam_spd").SelectiveDecay(recorded.groups, RECIPE, strength), run)


@pytest.mark.parametrize("run", ["wd0.0", "wd0.5", "wd2.0"])
def test_adam_spd_is_repeated(run: str) -> None:
    agrees(f"Adam-SPD {run}: 8 updates, worst tensor, of the largest, L2", SPD, spd(run), UPDATE)


def test_a_wrong_adam_spd_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    differs("Adam-SPD without a decay: updates", SPD, spd("wd0.5", strength=0.0), UPDATE)
    kind = module("adam_spd").SelectiveDecay
    right = kind.before
    monkeypatch.setattr(kind, "before", lambda *a: (right(*a)[0], [-back for back in right(*a)[1]]))
    differs("Adam-SPD where the step leads away: updates", SPD, spd("wd0.5"), UPDATE)


FTP_RUNS: dict[str, dict[str, Any]] = {
    "k1": {"k": 1.0},
    "k0.5": {"k": 0.5},
    "k1_wd_all": {"k": 1.0, "hold_head": True, "weight_decay": 0.1},
}


def ftp(run: str, **wrong: Any) -> tuple[float, float]:
    """Errors of the weights and of the last radii."""
    setting = FTP_RUNS[run] | wrong
    recorded = Recorded("ftp", hold_head=setting.get("hold_head", False))
    recipe = replace(RECIPE, weight_decay=setting.get("weight_decay", 0.0))
    made = module("ftp").Projecting(recorded.groups, recipe, setting.get("rate", 1e-2), setting["k"])
    error = recorded.error(made, run)
    radii = torch.stack([made.state[p]["radius"] for p in made.starts])
    return error, relative_l2(radii, recorded.official[f"{run}/radii"])


@pytest.mark.parametrize("run", FTP_RUNS)
def test_ftp_is_repeated(run: str) -> None:
    weights, radii = ftp(run)
    agrees(f"FTP {run}: 8 updates, worst tensor, of the largest, L2", FTP, weights, UPDATE)
    agrees(f"FTP {run}: radii after 8 steps, rel L2", FTP, radii, RADIUS)


@pytest.mark.parametrize("wrong", [{"k": 0.5}, {"rate": 2e-2}, {"hold_head": True}], ids=str)
def test_a_wrong_ftp_would_be_noticed(wrong: dict[str, Any]) -> None:
    if "hold_head" in wrong:
        recorded = Recorded("ftp", hold_head=True)
        error = recorded.error(module("ftp").Projecting(recorded.groups, RECIPE, 1e-2, 1.0), "k1")
    else:
        error, _ = ftp("k1", **wrong)
    differs(f"FTP with {next(iter(wrong))} {next(iter(wrong.values()))}: updates", FTP, error, UPDATE)


OLOR_RUNS: dict[str, dict[str, Any]] = {"default": {}, "strong": {"pull": 0.5, "pull_last": 0.1, "power": 2.0}}


def olor(run: str, **wrong: Any) -> float:
    recorded = Recorded("olor", hold_head=wrong.pop("hold_head", False))
    method = module("olor").OLOR(**(OLOR_RUNS[run] | wrong))
    return recorded.error(module("olor").Review(recorded.groups, RECIPE, method.levels), run)


@pytest.mark.parametrize("run", OLOR_RUNS)
def test_olor_is_repeated(run: str) -> None:
    agrees(f"OLOR {run}: 8 updates, worst tensor, of the largest, L2", OLOR, olor(run), UPDATE)


@pytest.mark.parametrize("wrong", [{"power": 2.0}, {"pull": 0.0}, {"hold_head": True}], ids=str)
def test_a_wrong_olor_would_be_noticed(wrong: dict[str, Any]) -> None:
    name, value = next(iter(wrong.items()))
    differs(f"OLOR with {name} {value}: updates", OLOR, olor("default", **wrong), UPDATE)


# -- CLIPood -----------------------------------------------------------------------------------------------------------


class Tower:
    """Stands in for a `Clip`: the recorded linear tower under the recorded texts."""

    head_kind = "unit"

    def __init__(self, official: Mapping[str, Array]) -> None:
        self.net = nn.Linear(10, 8)
        self.net.load_state_dict(floats(golden.tensors(official, "theta0/")))
        self.head, self.scale = torch.from_numpy(official["texts"]), torch.tensor(float(official["temperature"]))

    def encode(self, images: Tensor) -> Tensor:
        return F.normalize(self.net(images), dim=-1)

    def classify(self, features: Tensor) -> Tensor:
        return self.scale * features @ self.head.T

    def eval(self) -> None:
        self.net.eval()

    def snapshot(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.net.named_parameters()}

    def moving(self) -> dict[str, Tensor]:
        return dict(self.net.named_parameters())


def clipood(run: str, **wrong: Any) -> tuple[float, float, float]:
    """Errors of the losses, of the updates and of the averages, over all steps."""
    official, kind = arrays("clipood"), module("clipood")
    margin, beta = (float(part.lstrip("lambet")) for part in run.split("_"))
    tower: Any = Tower(official)
    method = kind.CLIPood(recipe=Recipe(), margin=wrong.get("margin", margin), beta=wrong.get("beta", beta))
    objective, average = method.objective(tower, None, None), kind.BetaAverage(tower, method.beta)
    adamw = torch.optim.AdamW(tower.net.parameters(), lr=1e-2, weight_decay=0.1)
    start, losses, updates, means = tower.snapshot(), list[float](), list[float](), list[float]()
    for step, (images, labels) in enumerate(zip(official["images"], official["labels"], strict=True)):
        adamw.param_groups[0]["lr"] = float(official[f"{run}/lr"][step])
        batch = Batch(step, torch.from_numpy(labels), torch.from_numpy(images), tower.encode)
        loss = objective(batch)["nll"]
        adamw.zero_grad()
        loss.backward()
        adamw.step()
        average.after_step(step, len(official["labels"]))
        losses.append(loss.item())
        for found, state, errors in (("theta", tower.snapshot(), updates), ("average", average.mean, means)):
            theirs = golden.tensors(official, f"{run}/{found}{step + 1}/")
            errors += [relative_l2(state[n] - start[n], theirs[n] - start[n].numpy()) for n in theirs]
    return golden.relative(losses, official[f"{run}/loss"]), worst(updates), worst(means)


CLIPOOD_RUNS = ["lam0.3_beta0.5", "lam0_beta0.1"]


@pytest.mark.parametrize("run", CLIPOOD_RUNS)
def test_clipood_is_repeated(run: str) -> None:
    losses, updates, means = clipood(run)
    agrees(f"CLIPood {run}: losses of 6 steps, rel", CLIPOOD, losses, RADIUS)
    agrees(f"CLIPood {run}: theta_t - theta0, worst tensor, rel L2", CLIPOOD, updates, UPDATE)
    agrees(f"CLIPood {run}: average_t - theta0, worst tensor, rel L2", CLIPOOD, means, UPDATE)


@pytest.mark.parametrize("run", CLIPOOD_RUNS)
def test_clipood_weighs_the_path_as_the_official_average(run: str) -> None:
    theirs = arrays("clipood")[f"{run}/weight"]
    made = module("clipood").BetaAverage(Tower(arrays("clipood")), float(run.split("beta")[1]))
    ours = np.array([made.weight(k, len(theirs) - 1) for k in range(len(theirs))])
    error = golden.relative(ours / ours.sum(), theirs / theirs.sum())
    agrees(f"CLIPood {run}: weights of the average, rel", CLIPOOD, error, 1e-9)


def test_a_wrong_clipood_would_be_noticed() -> None:
    differs("CLIPood without a margin: loss", CLIPOOD, clipood("lam0.3_beta0.5", margin=0.0)[0], RADIUS)
    differs("CLIPood with a plain mean: average", CLIPOOD, clipood("lam0.3_beta0.5", beta=1.0)[2], UPDATE)


# -- SWAD --------------------------------------------------------------------------------------------------------------

SWAD_RUNS = sorted(name.removesuffix("/final") for name in arrays("swad") if name.endswith("/final"))


def swad(run: str, mean: str = "segments") -> tuple[Any, float]:
    """The valley after a made-up series of losses, and the error of its weights."""
    official, kind = arrays("swad"), module("swad")
    series, setting = run.split("/")
    converge, tolerance, ratio = setting.split("_")
    valley, segment = kind.Valley(int(converge), int(tolerance), float(ratio)), kind.Mean({"weight": torch.zeros(4)})
    for step, weight in enumerate(torch.from_numpy(official[f"{series}/path"])):
        segment.add({"weight": weight})
        if step % int(official["every"]) == 0:
            state = segment.state if mean == "segments" else {"weight": weight}
            valley.add(state, float(official[f"{series}/losses"][step // int(official["every"])]))
            segment = kind.Mean({"weight": torch.zeros(4)})
    return valley, relative_l2(valley.finished()["weight"], official[f"{run}/final"])


@pytest.mark.parametrize("run", SWAD_RUNS)
def test_swad_finds_the_official_valley(run: str) -> None:
    official, (valley, error) = arrays("swad"), swad(run)
    _, _, _, began, dead = official[f"{run}/seen"]
    assert (valley.began * int(official["every"]) if valley.mean else -1) == began
    assert valley.dead == bool(dead)
    agrees("SWAD: weights of the valley, 24 made-up series, worst, rel L2", SWAD, error, WEIGHTS)


def test_a_wrong_swad_would_be_noticed() -> None:
    error = swad("valley/3_6_0.3", "last of each segment")[1]
    differs("SWAD of the last weights of each segment: weights", SWAD, error, WEIGHTS)


# -- EMA ---------------------------------------------------------------------------------------------------------------


class Students:
    """Stands in for a `Clip`: the recorded weights, one set after another."""

    def __init__(self) -> None:
        self.k = 0

    def snapshot(self) -> dict[str, Tensor]:
        return floats(golden.tensors(arrays("ema"), f"student{self.k}/"))

    def moving(self) -> dict[str, Tensor]:
        return self.snapshot()


def ema_error(prefix: str, decays: list[float]) -> float:
    """Of the running means after each of eight recorded weights, with a decay for each."""
    students, errors = Students(), list[float]()
    average = module("ema").Average(students, 0.0)
    for k, decay in enumerate(decays):
        students.k, average.decay = k + 1, decay
        average.after_step(k, len(decays))
        errors += [
            relative_l2(average.mean[n], a) for n, a in golden.tensors(arrays("ema"), f"{prefix}{k + 1}/").items()
        ]
    return worst(errors)


def test_ema_is_repeated() -> None:
    for decay in (0.9, 0.999):
        agrees(f"EMA, decay {decay}: 8 means, rel L2", "timm", ema_error(f"timm_{decay}_", [decay] * 8), 1e-6)
    error = ema_error("carot_teacher", arrays("ema")["carot_m"].tolist())
    agrees("EMA, decays of CaRot's teacher: 8 means, rel L2", "CaRot@c3e8bdc", error, 1e-6)


def test_a_wrong_ema_would_be_noticed() -> None:
    corrected = [0.9 * (1 - 0.9**k) / (1 - 0.9 ** (k + 1)) for k in range(8)]  # as Adam corrects its moments
    differs("EMA with bias correction: means", "timm", ema_error("timm_0.9_", corrected), 1e-6)
