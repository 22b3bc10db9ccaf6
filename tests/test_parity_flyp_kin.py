"""StarFT and CaRot, which are FLYP and further terms, against the functions of their authors."""

from importlib import import_module
from pathlib import Path
from typing import Any

import golden
import pytest
import replay
import torch
from golden import TASK, agrees, arrays, differs, tensor
from torch import Tensor, nn

from robustbench_ft import clip as clips
from robustbench_ft import model_ref
from robustbench_ft.errors import RbftError
from robustbench_ft.method import Candidates, Run, TrainSet
from robustbench_ft.recipe import Recipe
from robustbench_ft.train import Batch

STAR, CAROT = "StarFT@4d11b94", "CaRot@c3e8bdc"
NEAR = 1e-5
RUN = Run(0, replay.CPU)
drift: Any = import_module("robustbench_ft.methods._drift")


def data() -> TrainSet:
    """The recorded images of the Lipsum-FT runs."""
    official = arrays("lipsum_ft")
    train = golden.split(official["images"], official["labels"])
    return TrainSet(train, train, TASK)


# -- StarFT ------------------------------------------------------------------------------------------------------------


def starft(masked: bool = True, reverse: bool = False) -> tuple[float, float, float]:
    official, module = arrays("starft"), import_module("robustbench_ft.methods.starft")
    images, texts = tensor(official["images"], grad=True), tensor(official["texts"], grad=True)
    scale = float(official["scale"])
    before, now = scale * tensor(official["images0"]) @ tensor(official["texts0"]).T, scale * images @ texts.T
    labels = tensor(official["labels"]) if masked else torch.arange(6)
    loss = module.spurious_gap(*((now, before) if reverse else (before, now)), labels)
    loss.backward()
    return (
        golden.relative(loss, official["loss"]),
        golden.relative_l2(images.grad, official["grad_images"]),
        golden.relative_l2(texts.grad, official["grad_texts"]),
    )


def test_starft_is_the_official_regulariser() -> None:
    loss, images, texts = starft()
    agrees("StarFT: penalty, rel", STAR, loss, NEAR)
    agrees("StarFT: gradients of images and texts, rel L2", STAR, max(images, texts), NEAR)
    differs("StarFT, others of the class not masked: penalty", STAR, starft(masked=False)[0], NEAR)
    differs("StarFT, KL reversed: penalty", STAR, starft(reverse=True)[0], NEAR)


def test_starft_fades_by_epochs_as_its_authors_do() -> None:
    in_epochs = replay.method("starft")(recipe=Recipe(epochs=4, batch=8))
    seen = [in_epochs.fading(batch_of(step, 20)) for step in range(20)]  # five steps an epoch
    assert seen == [0.75] * 5 + [0.5] * 5 + [0.25] * 5 + [0.0] * 5
    in_steps = replay.method("starft")(recipe=Recipe(steps=4, batch=8))
    assert [in_steps.fading(batch_of(step, 4)) for step in range(4)] == [0.75, 0.5, 0.25, 0.0]


def batch_of(step: int, of: int) -> Batch:
    return Batch(step, torch.zeros(1, dtype=torch.long), torch.empty(0), lambda x: x, of=of)


SHORT = Recipe(steps=3, batch=8, lr=1e-3, weight_decay=0.1, shuffle=False, select="last")


def fitted(name: str, **settings: Any) -> dict[str, Tensor]:
    clip = golden.model()
    found: Any = replay.method(name)(recipe=SHORT, **settings).fit(clip, data(), RUN)
    model: Any = found.use(found.default) if isinstance(found, Candidates) else found
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_starft_and_carot_without_their_terms_are_flyp() -> None:
    """To the bit."""
    flyp = fitted("flyp")
    for state in (fitted("starft", strength=0.0, template=""), fitted("carot", ortho=0.0, cross=0.0, distill=0.0)):
        assert state.keys() == flyp.keys()
        assert all(state[name].equal(flyp[name]) for name in flyp)
    assert not fitted("starft", template="")["model.visual.proj"].equal(flyp["model.visual.proj"])
    assert not fitted("carot")["model.visual.proj"].equal(flyp["model.visual.proj"])


def test_spurious_templates_hold_one_caption_each(tmp_path: Path) -> None:
    module = import_module("robustbench_ft.methods.starft")
    assert all(text.count("{}") == 1 for text in module.SPURIOUS)
    embedded = clips.load(model_ref.resolve(model_ref.EMBEDDED, None))
    assert module.StarFT().templates(embedded) == module.SPURIOUS
    (tmp_path / "texts").write_text("{} in a cage\nno place\n")
    with pytest.raises(RbftError, match="'no place' needs one"):
        module.StarFT(spurious=str(tmp_path / "texts")).templates(embedded)


# -- CaRot -------------------------------------------------------------------------------------------------------------


def test_carot_distils_as_the_official_code() -> None:
    official, module = arrays("carot_selfdistill"), import_module("robustbench_ft.methods.carot")
    rows, columns = (tensor(official[f"logits_per_{side}"], grad=True) for side in ("image", "text"))
    teacher, teacher_t = (tensor(official[f"logits_per_{side}_t"]) for side in ("image", "text"))
    loss = module.towards(teacher, rows) + module.towards(teacher_t, columns)
    loss.backward()
    agrees("CaRot: self-distillation, rel", CAROT, golden.relative(loss, official["loss"]), NEAR)
    pairs = ((rows, official["grad_image"]), (columns, official["grad_text"]))
    error = max(golden.relative_l2(x.grad, gradient) for x, gradient in pairs)
    agrees("CaRot: gradients of self-distillation, rel L2", CAROT, error, NEAR)
    differs("CaRot, with a factor 1/2: self-distillation", CAROT, golden.relative(loss / 2, official["loss"]), NEAR)
    kl = drift.kl(teacher, rows) + drift.kl(teacher_t, columns)
    differs("CaRot, KL for cross-entropy: self-distillation", CAROT, golden.relative(kl, official["loss"]), NEAR)


@pytest.mark.parametrize("name", ["ortho", "cross"])
def test_carot_holds_the_projections_as_the_official_code(name: str) -> None:
    official, module = arrays("carot_penalties"), import_module("robustbench_ft.methods.carot")
    p, q = tensor(official["P"], grad=True), tensor(official["Q"], grad=True)
    loss = 0.2 * module.not_orthogonal(p) if name == "ortho" else 0.05 * torch.linalg.norm(p @ q.T)
    loss.backward()
    agrees(f"CaRot: {name}, rel", CAROT, golden.relative(loss, official[f"{name}/loss"]), NEAR)
    error = golden.relative_l2(p.grad, official[f"{name}/grad_P"])
    agrees(f"CaRot: gradients of {name}, rel L2", CAROT, error, NEAR)
    differs(f"CaRot, {name} squared: penalty", CAROT, golden.relative(loss**2, official[f"{name}/loss"]), NEAR)


class _Pair(nn.Module):
    """As much of a student as its teacher needs."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.model = nn.ParameterDict({name: nn.Parameter(value) for name, value in state.items()})

    def frozen_copy(self) -> "_Pair":
        return _Pair({name: p.detach().clone() for name, p in self.model.items()})


def carot_teacher(**settings: Any) -> float:
    """Largest difference of the teacher over eight updates of every step, out of twenty."""
    official, module = arrays("ema"), import_module("robustbench_ft.methods.carot")
    states = [{n: tensor(a) for n, a in golden.tensors(official, f"student{k}/").items()} for k in range(9)]
    student = _Pair(states[0])
    teacher, errors = module.Teacher(student, module.CaRot(every=1, **settings)), list[float]()
    for step in range(8):
        with torch.no_grad():
            for name, value in states[step + 1].items():
                student.model[name].copy_(value)
        teacher.after_step(step, 20)
        for name, p in teacher.slow.model.items():
            errors.append(golden.apart(p, official[f"carot_teacher{step + 1}/{name}"]))
    return max(errors)


def test_carot_teacher_follows_the_official_schedule() -> None:
    agrees("CaRot: teacher after 1-8 updates, abs", CAROT, carot_teacher(), 1e-6)
    differs("CaRot, teacher with a constant m: abs", CAROT, carot_teacher(momentum_start=0.9), 1e-6)
    differs("CaRot, teacher whose m rises over the whole run: abs", CAROT, carot_teacher(momentum_warmup=1.0), 1e-6)


def test_carot_teacher_moves_after_step_0_and_every_500() -> None:
    module, seen = import_module("robustbench_ft.methods.carot"), list[int]()
    student = _Pair({"w": torch.zeros(1)})
    teacher = module.Teacher(student, module.CaRot())
    for step in range(1200):
        with torch.no_grad():
            student.model["w"].add_(1)
        before = teacher.slow.model["w"].clone()
        teacher.after_step(step, 1200)
        if not teacher.slow.model["w"].equal(before):
            seen.append(step)
    assert seen == [0, 500, 1000]


def test_carot_reports_the_student_and_keeps_the_teacher() -> None:
    found: Any = replay.method("carot")(recipe=SHORT, every=1).fit(golden.model(), data(), RUN)
    assert (list(found.members), found.default) == (["student", "teacher"], "student")
    assert replay.method("carot")(recipe=SHORT, report="teacher").fit(golden.model(), data(), RUN).default == "teacher"
    for name in found.members:  # each has the head of its own text tower
        clip = found.use(name)
        head, clip = clip.head.clone(), clip.frozen_copy()
        assert golden.apart(head, clip.zero_shot_head(TASK)) < 1e-6
    student, teacher = ({n: t.clone() for n, t in found.use(n).state_dict().items()} for n in found.members)
    assert not student["model.visual.proj"].equal(teacher["model.visual.proj"])
