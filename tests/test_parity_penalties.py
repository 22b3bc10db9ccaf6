"""Penalties on the distance from the pre-trained model, against official functions and their definitions."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import golden
import open_clip
import pytest
import replay
import torch
import torch.nn.functional as F
from golden import TASK, agrees, arrays, differs, tensor
from torch import Tensor

from robustbench_ft import clip as clips
from robustbench_ft import model_ref
from robustbench_ft.clip import Clip
from robustbench_ft.embedded import vocabulary
from robustbench_ft.errors import RbftError
from robustbench_ft.method import Run, TrainSet
from robustbench_ft.pixels.loader import Loader
from robustbench_ft.prompts import Task, imagenet_classes
from robustbench_ft.recipe import Recipe
from robustbench_ft.train import Batch

LPFT, MASKS, LIPSUM = "transfer_learning@13c3e2b", "robust-finetuning@fa8702f", "lipsum-ft@1331873"
LDIFS, MIRO = "ldifs_code@c7e82a4", "miro@5238455"
NEAR = 1e-5
OWN = "its own sampled mode"
drift: Any = import_module("robustbench_ft.methods._drift")
RECIPE = Recipe(steps=4, batch=8, shuffle=False, select="last")
RUN = Run(0, replay.CPU)


def data() -> TrainSet:
    """The recorded images of the Lipsum-FT runs."""
    official = arrays("lipsum_ft")
    train = golden.split(official["images"], official["labels"])
    return TrainSet(train, train, TASK)


def moved(clip: Clip, by: float = 0.02) -> None:
    """Push the image tower and the head away from where they are."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in (*clip.model.visual.parameters(), clip.head):
            p.add_(by * torch.randn(p.shape, generator=generator))


def terms(name: str, **settings: Any) -> tuple[dict[str, Tensor], Clip, Clip, Batch]:
    """The terms of one batch after the tower has moved, the moved model, the pre-trained one, and the batch."""
    clip, anchor = golden.model(), golden.model()
    method = replay.method(name)(recipe=RECIPE, **settings)
    method.start(clip, data())
    anchor.start_from_zero_shot(TASK)
    objective = method.objective(clip, data(), RUN)
    moved(clip)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    batch = Batch(0, torch.arange(8) % len(TASK.classes), images, clip.encode_image, of=4)
    return objective(batch), clip, anchor, batch


# -- L2-SP -------------------------------------------------------------------------------------------------------------


def l2_sp(factor: float = 1.0, head_too: bool = False) -> tuple[float, float]:
    """Errors of the penalty and of its gradients, rel L2 of the worst tensor."""
    official = arrays("l2sp")
    names = [name for name in golden.tensors(official, "theta/") if head_too or ".fc." not in name]
    theta = [tensor(official[f"theta/{name}"], grad=True) for name in names]
    loss = drift.squared_distance(theta, [tensor(official[f"theta0/{name}"]) for name in names])
    loss = factor * float(official["weight"]) * loss
    loss.backward()
    gradients = [p.grad for p in theta]
    worst = golden.worst(
        golden.relative_l2(g, official[f"grad/{name}"]) for g, name in zip(gradients, names, strict=True)
    ) if not head_too else 0.0  # fmt: skip
    return golden.relative(loss, official["loss"]), worst


def test_l2_sp_is_the_official_distance() -> None:
    loss, gradient = l2_sp()
    agrees("L2-SP: penalty, rel", LPFT, loss, NEAR)
    agrees("L2-SP: gradients, worst tensor, rel L2", LPFT, gradient, NEAR)


def test_a_wrong_l2_sp_would_be_noticed() -> None:
    differs("L2-SP, with a factor 1/2: penalty", LPFT, l2_sp(factor=0.5)[0], NEAR)
    differs("L2-SP, head included: penalty", LPFT, l2_sp(head_too=True)[0], NEAR)


@torch.no_grad()
def test_l2_sp_holds_the_image_tower_and_leaves_the_head_free() -> None:
    found, clip, anchor, _ = terms("l2-sp", strength=3.0)
    pairs = zip(clip.model.visual.parameters(), anchor.model.visual.parameters(), strict=True)
    expected = 3 * sum(float((p - p0).double().square().sum()) for p, p0 in pairs)
    assert golden.relative(found["l2_sp"], expected) < NEAR


# -- KD ----------------------------------------------------------------------------------------------------------------


def kd(temperature: float, loss: Callable[[Tensor, Tensor, float], Tensor]) -> tuple[float, float]:
    official = arrays("kd")
    student = tensor(official["student_logits"], grad=True)
    value = loss(tensor(official["teacher_logits"]), student, temperature)
    value.backward()
    stated = (official[f"T{temperature:g}/{name}"] for name in ("loss", "grad"))
    return golden.relative(value, next(stated)), golden.relative_l2(student.grad, next(stated))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
def test_kd_is_the_official_distillation(temperature: float) -> None:
    loss, gradient = kd(temperature, lambda before, now, t: t**2 * drift.kl(before, now, t))
    agrees("KD at T 1, 2, 10: penalty, rel", MASKS, loss, NEAR)
    agrees("KD at T 1, 2, 10: gradients, rel L2", MASKS, gradient, NEAR)


def test_a_wrong_kd_would_be_noticed() -> None:
    differs("KD, without T^2: penalty", MASKS, kd(2.0, drift.kl)[0], NEAR)
    differs("KD, KL reversed: penalty", MASKS, kd(2.0, lambda a, b, t: t**2 * drift.kl(b, a, t))[0], NEAR)


@torch.no_grad()
def test_kd_asks_the_zero_shot_classifier() -> None:
    found, clip, anchor, batch = terms("kd", strength=3.0, temperature=2.0)
    p, q = ((model.logits(batch.images) / 2).double().softmax(-1) for model in (anchor, clip))
    assert golden.relative(found["distillation"], 3 * 4 * (p * (p / q).log()).sum(-1).mean()) < NEAR


# -- CAR-FT ------------------------------------------------------------------------------------------------------------


def test_context_weights_are_those_that_lipsum_ft_stores() -> None:
    official, clip = arrays("zeroshot"), golden.model()
    error = golden.apart(clip.context_head(TASK), official["lipsum_ctx"].T)
    agrees("CAR-FT: context weights, abs", LIPSUM, error, NEAR)
    error = golden.apart(clip.context_head(TASK), official["lipsum_ctx"].T)  # from the cache
    agrees("CAR-FT: context weights, abs", LIPSUM, error, NEAR)
    raw = torch.from_numpy(official["lipsum_raw"]).permute(2, 1, 0)  # [K, T, D]
    differs(
        "CAR-FT, contexts not normalised: weights", LIPSUM, golden.apart(raw.mean(0), official["lipsum_ctx"].T), NEAR
    )
    one = F.normalize(raw[0], dim=-1)
    differs("CAR-FT, contexts of one class: weights", LIPSUM, golden.apart(one, official["lipsum_ctx"].T), NEAR)


@torch.no_grad()
def test_car_ft_keeps_the_prediction_of_the_context() -> None:
    found, clip, anchor, batch = terms("car-ft", strength=3.0)
    contexts = tensor(arrays("zeroshot")["lipsum_ctx"]).double()  # [D, T]
    p, q = (
        (anchor.scale * model.encode_image(batch.images).double() @ contexts).softmax(-1) for model in (anchor, clip)
    )
    assert golden.relative(found["context_gap"], 3 * (p * (p / q).log()).sum(-1).mean()) < 1e-4
    assert golden.relative(found["context_gap"], 3 * (q * (q / p).log()).sum(-1).mean()) > 1e-3  # reversed


# -- feature distillation ----------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("features", ["raw", "unit"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_feature_distillation_is_a_squared_distance(features: str, reduction: str) -> None:
    found, clip, anchor, batch = terms("feature-distill", strength=3.0, features=features, reduction=reduction)
    encode = {"raw": lambda model: model.model.encode_image(batch.images)}
    encode["unit"] = lambda model: F.normalize(encode["raw"](model), dim=-1)
    expected = F.mse_loss(encode[features](clip), encode[features](anchor))
    width = clip.head.shape[1] if reduction == "sum" else 1
    assert golden.relative(found["feature_gap"], 3 * width * expected) < NEAR


# -- Lipsum-FT in expectation ------------------------------------------------------------------------------------------


def gradients(mode: str, steps: int, n_expected: int) -> Tensor:
    """The penalty's gradients with respect to the features, [steps, B, D]; texts differ by step."""
    clip = golden.model()
    method = replay.method("lipsum")(recipe=RECIPE, mode=mode, n_texts=40, n_expected=n_expected)
    method.start(clip, data())
    objective = method.objective(clip, data(), RUN)
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(4, 3, 32, 32, generator=generator)
    features = F.normalize(torch.randn(4, clip.head.shape[1], generator=generator), dim=-1)
    found: list[Tensor] = []
    for step in range(1, steps + 1):
        leaf = features.clone().requires_grad_(True)
        objective(Batch(step, torch.zeros(4, dtype=torch.long), images, clip.encode_image, known=leaf))[
            "energy_gap"
        ].backward()
        assert leaf.grad is not None
        found.append(leaf.grad.double())
    return torch.stack(found)


def test_expected_gradients_are_the_mean_of_sampled_ones() -> None:
    """Within their standard errors: the root mean square of z is 1 where the means agree."""
    steps, n, per_step = 300, 20_000, 40
    sampled, expected = gradients("sampled", steps, 1), gradients("expected", 1, n)[0]
    variance = sampled.var(dim=0) * (1 / steps + per_step / n)  # of the mean of the draws, and of the estimate of C

    def z(guess: Tensor) -> float:
        return float(((sampled.mean(dim=0) - guess).square() / variance).mean().sqrt())

    agrees("Lipsum-FT, expected: gradients against the mean of sampled ones, rms z", OWN, z(expected), 1.5)
    differs("Lipsum-FT, expected without the 1/2: rms z", OWN, z(2 * expected), 1.5)
    differs("Lipsum-FT, expected, too large by a tenth: rms z", OWN, z(1.1 * expected), 1.5)


def test_expected_mode_runs_no_text_tower_in_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = golden.model()
    method = replay.method("lipsum")(recipe=RECIPE, mode="expected", n_expected=50)
    method.start(clip, data())
    objective = method.objective(clip, data(), RUN)
    monkeypatch.setattr(Clip, "encode_text", None)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    assert objective(Batch(0, torch.zeros(4, dtype=torch.long), images, clip.encode_image))["energy_gap"] < 1e-9


# -- features of several depths ----------------------------------------------------------------------------------------


def depths(official: Any, name: str, grad: bool = False) -> list[Tensor]:
    return [tensor(array, grad) for _, array in sorted(golden.tensors(official, f"{name}/").items())]


def gap_errors(loss: Tensor, moved: list[Tensor], official: Any, name: str = "grad") -> tuple[float, float]:
    loss.backward()
    gradients = golden.worst(
        golden.relative_l2(x.grad, g) for x, g in zip(moved, depths(official, name), strict=True)
    )  # fmt: skip
    return golden.relative(loss, official["loss"]), gradients


def ldifs(unit: str = "tokens") -> tuple[float, float]:
    official, module = arrays("ldifs"), import_module("robustbench_ft.methods.ldifs")
    now = depths(official, "now", grad=True)
    return gap_errors(module.depth_gap(now, depths(official, "before"), unit), now, official)


def test_ldifs_is_the_official_distance() -> None:
    loss, gradient = ldifs()
    agrees("LDIFS: penalty, rel", LDIFS, loss, NEAR)
    agrees("LDIFS: gradients, worst depth, rel L2", LDIFS, gradient, NEAR)
    differs("LDIFS, normalised along the channels: penalty", LDIFS, ldifs("channels")[0], NEAR)


def miro(factor: float = 1.0) -> tuple[float, float, float]:
    official, module = arrays("miro"), import_module("robustbench_ft.methods.miro")
    now, b = depths(official, "now", grad=True), depths(official, "b", grad=True)
    parts = zip(now, depths(official, "before"), b, strict=True)
    bound = factor * torch.stack([module.surprise(*three) for three in parts]).sum()
    loss, gradient = gap_errors(bound, now, official)
    variances = zip(b, depths(official, "b_grad"), strict=True)
    return loss, gradient, golden.worst(golden.relative_l2(x.grad, g) for x, g in variances)


def test_miro_is_the_official_bound() -> None:
    loss, gradient, variances = miro()
    agrees("MIRO: penalty, rel", MIRO, loss, NEAR)
    agrees("MIRO: gradients of features, worst depth, rel L2", MIRO, gradient, NEAR)
    agrees("MIRO: gradients of variances, worst depth, rel L2", MIRO, variances, NEAR)
    differs("MIRO, without the 1/2: penalty", MIRO, miro(2.0)[0], NEAR)


def test_miro_begins_with_the_official_variances() -> None:
    clip: Any = golden.model()
    method = replay.method("miro")(recipe=RECIPE)
    method.start(clip, data())
    official = float(arrays("miro")["b_start/0"][0])
    agrees("MIRO: start of the variances, abs", MIRO, max(golden.apart(b, b * 0 + official) for b in clip.miro), 1e-6)
    assert [len(b) for b in clip.miro] == [48, 48, 48]  # the stem, and two blocks, which end four quarters


def test_miro_without_strength_is_ft() -> None:
    """To the bit, in all that FT trains; its variances move by weight decay alone."""
    recipe = Recipe(steps=3, batch=8, lr=1e-3, weight_decay=0.1, shuffle=False, select="last")
    ft, without, with_it = golden.model(), golden.model(), golden.model()
    replay.method("ft")(recipe=recipe).fit(ft, data(), RUN)
    replay.method("miro")(recipe=recipe, strength=0.0).fit(without, data(), RUN)
    replay.method("miro")(recipe=recipe).fit(with_it, data(), RUN)
    assert all(tensor.equal(without.state_dict()[name]) for name, tensor in ft.state_dict().items())
    assert not all(tensor.equal(with_it.state_dict()[name]) for name, tensor in ft.state_dict().items())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("embedded", ["stem", "stages.0", "stages.1", "stages.2"]),
        ("RN50", ["avgpool", "layer1", "layer2", "layer3", "layer4"]),
        ("ViT-B-32", ["conv1", *(f"transformer.resblocks.{k}" for k in (2, 5, 8, 11))]),
    ],
)
def test_depths_are_those_of_the_authors(name: str, expected: list[str]) -> None:
    if name == "embedded":
        tower = clips.load(model_ref.resolve(model_ref.EMBEDDED, None)).model.visual
    else:
        with torch.device("meta"):
            tower = open_clip.create_model(name, load_weights=False, device="meta").visual
    stand_in = SimpleNamespace(model=SimpleNamespace(visual=tower))
    found = import_module("robustbench_ft.methods._places").places(stand_in, "patches")
    trunk: Any = getattr(tower, "trunk", tower)
    names = {module: name for name, module in trunk.named_modules()}
    assert [names[module] for module in found] == expected


# -- LwF and EWC -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
def test_lwf_is_a_distillation_without_the_square_of_its_temperature(temperature: float) -> None:
    error = kd(temperature, lambda before, now, t: t**2 * drift.kl(before, now, t))[0]
    agrees("LwF at T 1, 2, 10: penalty times T^2, rel", MASKS, error, NEAR)


def test_lwf_asks_an_old_head(tmp_path: Path) -> None:
    file = tmp_path / "old.txt"
    file.write_text("tench\n\n goldfish \nhammer\n")
    found, clip, anchor, batch = terms("lwf", strength=3.0, old_classes=str(file))
    with torch.no_grad():
        old = anchor.zero_shot_head(Task(("tench", "goldfish", "hammer"), TASK.templates)).double()
        p, q = (
            (anchor.scale * model.encode_image(batch.images).double() @ old.T / 2).softmax(-1)
            for model in (anchor, clip)
        )
    assert golden.relative(found["old_answers"], 3 * (p * (p / q).log()).sum(-1).mean()) < 1e-4


def test_old_classes_are_imagenets_or_the_words_that_a_model_holds() -> None:
    method = replay.method("lwf")()
    assert method.classes(golden.model()) == imagenet_classes()
    embedded = clips.load(model_ref.resolve(model_ref.EMBEDDED, None))
    assert set(method.classes(embedded)) == set(vocabulary.known())
    assert method.skip(embedded, data()) == "" or "does not know" in method.skip(embedded, data())


@pytest.mark.parametrize("name", ["lwf", "starft"])
@pytest.mark.parametrize("content", [None, " \n"])
def test_a_file_without_texts_is_refused_in_one_line(name: str, content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    if content is not None:
        file.write_text(content)
    setting = {"lwf": "old_classes", "starft": "spurious"}[name]
    method = replay.method(name)(recipe=RECIPE, **{setting: str(file)})
    with pytest.raises(RbftError, match="is empty; write" if content else "cannot read") as caught:
        method.skip(golden.model(), data())
    assert "\n" not in str(caught.value)


def brute_fisher(clip: Clip, order: list[int], whole: bool) -> list[Tensor]:
    """Squared gradients, of one image at a time or, wrongly, of all of them together."""
    loader, moving = Loader(clip, data().train), drift.tower(clip)
    images = loader.normalise(loader.read(order))
    sums = [torch.zeros_like(p, dtype=torch.float64) for p in moving]
    for part in [images] if whole else images.split(1):
        logits = clip.logits(part)
        gradients = torch.autograd.grad(F.cross_entropy(logits, logits.argmax(-1)), moving)
        for total, gradient in zip(sums, gradients, strict=True):
            total += gradient.double().square() * len(part)
    return [total / len(order) for total in sums]


def test_fisher_information_is_the_mean_of_squared_gradients() -> None:
    clip, method = golden.model(), replay.method("ewc")(recipe=RECIPE, n_fisher=10)
    method.start(clip, data())
    found = method.fisher(clip, data(), RUN)
    order = torch.randperm(40, generator=RUN.branch("fisher").generator("order")).tolist()[:10]
    flat = torch.cat([f.flatten() for f in found])
    right, wrong = (torch.cat([f.flatten() for f in brute_fisher(clip, order, whole)]) for whole in (False, True))
    agrees("EWC: Fisher information, rel L2", "image by image", golden.relative_l2(flat, right), NEAR)
    differs("EWC, gradients of a batch squared: Fisher", "image by image", golden.relative_l2(flat, wrong), NEAR)
    drawn = replay.method("ewc")(recipe=RECIPE, n_fisher=10, labels="sampled").fisher(clip, data(), RUN)
    assert all(f.isfinite().all() for f in drawn)
    assert not all(a.equal(b) for a, b in zip(drawn, found, strict=True))


def test_ewc_weighs_each_number_by_its_fisher_information() -> None:
    found, clip, anchor, _ = terms("ewc", strength=3.0, n_fisher=10)
    anchor.start_from_zero_shot(TASK)
    anchor.train_only("image", "head")
    fisher = replay.method("ewc")(recipe=RECIPE, n_fisher=10).fisher(anchor, data(), RUN)
    with torch.no_grad():
        three = zip(fisher, drift.tower(clip), drift.tower(anchor), strict=True)
        expected = sum(float((f.double() * (p - p0).double().square()).sum()) for f, p, p0 in three)
    assert golden.relative(found["elastic"], 3 / 2 * expected) < 1e-4
