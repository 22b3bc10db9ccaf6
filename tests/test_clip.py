"""`Clip`: towers, heads, copies, and folders that load again as what was saved."""

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from robustbench_ft import clip as clips
from robustbench_ft import model_ref
from robustbench_ft.clip import Clip, interpolate
from robustbench_ft.errors import RbftError
from robustbench_ft.method import Run
from robustbench_ft.prompts import Task
from robustbench_ft.recipe import Head

TASK = Task(("fish", "bird", "car"), ("a photo of a {}", "a sketch of a {}"))
RUN = Run(0, torch.device("cpu"))


@pytest.fixture
def clip() -> Clip:
    return clips.load(model_ref.resolve("embedded", None)).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_texts_at_true_length_equal_padded_ones(clip: Clip) -> None:
    short = clip.random_tokens(6, 8, RUN.generator("texts"))
    padded = torch.nn.functional.pad(short, (0, clip.model.context_length - short.shape[1]))
    torch.testing.assert_close(clip.encode_text(short), clip.encode_text(padded), rtol=0, atol=1e-6)


def test_random_texts_use_trained_words_only(clip: Clip) -> None:
    tokens = clip.random_tokens(500, 8, RUN.generator("texts"))
    assert clip.random_ids is not None
    low, high = clip.random_ids
    inner = tokens[:, 1:-1]
    assert (inner.min().item(), inner.max().item()) == (low, high - 1)
    assert set(tokens[:, 0].tolist()) == {clip.bos}
    assert set(tokens[:, -1].tolist()) == {clip.eos}


def test_both_heads_give_the_same_zero_shot_logits(clip: Clip, images: torch.Tensor) -> None:
    clip.start_from_zero_shot(TASK, "unit")
    unit = clip.logits(images)
    torch.testing.assert_close(clip.head.norm(dim=1), torch.ones(3))
    clip.start_from_zero_shot(TASK, "scaled")
    torch.testing.assert_close(clip.logits(images), unit, rtol=1e-5, atol=1e-5)
    assert clip.bias is not None
    assert not clip.bias.any()


def test_the_head_is_computed_once_and_kept(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    first = clip.zero_shot_head(TASK)
    monkeypatch.setattr(clip, "encode_text", lambda tokens: pytest.fail("encoded again"))  # pyright: ignore
    assert torch.equal(clip.zero_shot_head(TASK), first)


def test_another_text_tower_is_another_head(clip: Clip) -> None:
    first = clip.zero_shot_head(TASK)
    with torch.no_grad():
        clip.model.ln_final.weight.mul_(torch.linspace(0.5, 2, len(clip.model.ln_final.weight)))
    assert not torch.allclose(clip.zero_shot_head(TASK), first)


def test_a_frozen_copy_shares_what_is_not_trained(clip: Clip) -> None:
    clip.start_from_zero_shot(TASK)
    clip.train_only("image", "head")
    twin = clip.frozen_copy()
    assert twin.model.token_embedding.weight is clip.model.token_embedding.weight
    ours, theirs = dict(clip.model.visual.named_parameters()), dict(twin.model.visual.named_parameters())
    assert all(theirs[name] is not ours[name] and torch.equal(theirs[name], ours[name]) for name in ours)
    assert not any(p.requires_grad for p in twin.parameters())


def test_interpolation_is_exact_at_its_ends(clip: Clip) -> None:
    clip.start_from_zero_shot(TASK)
    clip.train_only("image", "head")
    start = clip.snapshot()
    end = {name: tensor + 1 for name, tensor in start.items()}
    assert all(torch.equal(tensor, start[name]) for name, tensor in interpolate(start, end, 0.0).items())
    assert all(torch.equal(tensor, end[name]) for name, tensor in interpolate(start, end, 1.0).items())


@pytest.mark.parametrize("kind", ["unit", "scaled"])
def test_a_saved_model_loads_as_it_was(clip: Clip, images: torch.Tensor, tmp_path: Path, kind: Head) -> None:
    clip.start_from_zero_shot(TASK, kind)
    with torch.no_grad():
        clip.head.add_(0.01)
        if clip.bias is not None:
            clip.bias.add_(0.5)
    clip.save(tmp_path, {"parent": "x"})
    again = clips.load_saved(tmp_path)
    assert torch.equal(again.logits(images), clip.logits(images))
    assert again.task == TASK


def test_a_saved_folder_is_an_open_clip_folder(clip: Clip, images: torch.Tensor, tmp_path: Path) -> None:
    clip.start_from_zero_shot(TASK)
    clip.save(tmp_path, {})
    plain: Any = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    assert torch.equal(plain.encode_image(images), clip.model.encode_image(images))
    again = clips.load(model_ref.resolve(f"local-dir:{tmp_path}", None))
    assert torch.equal(again.zero_shot_head(TASK), clip.zero_shot_head(TASK))


def test_quickgelu_survives_saving(tmp_path: Path, images: torch.Tensor) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    config: dict[str, Any] = {
        "embed_dim": 16, "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
    }  # fmt: skip
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {"size": 32}}))
    torch.manual_seed(0)
    model = open_clip.model.CLIP(**config)
    clips.clip._save_tensors(folder / "open_clip_model.safetensors", model.state_dict())  # pyright: ignore
    first = clips.load(model_ref.resolve(f"local-dir:{folder}", None)).eval()
    first.start_from_zero_shot(TASK)
    first.save(tmp_path / "saved", {})
    again = clips.load_saved(tmp_path / "saved")
    assert any(type(module).__name__ == "QuickGELU" for module in again.modules())
    assert torch.equal(again.encode_image(images), first.encode_image(images))
    assert (again.random_ids, again.bos, again.eos) == ((0, 49406), 49406, 49407)


def test_a_model_without_a_stated_vocabulary_draws_no_random_texts(clip: Clip) -> None:
    clip.random_ids = None
    with pytest.raises(RbftError, match="id range"):
        clip.random_tokens(1, 8, RUN.generator("texts"))


def test_streams_depend_on_seed_name_and_step_only() -> None:
    def draw(seed: int, name: str, step: int) -> list[int]:
        run = Run(seed, torch.device("cpu"))
        run.generator("another")
        return torch.randint(1000, (8,), generator=run.generator(name, step)).tolist()

    assert draw(0, "texts", 3) == draw(0, "texts", 3)
    assert len({tuple(draw(*key)) for key in ((0, "texts", 3), (1, "texts", 3), (0, "order", 3), (0, "texts", 4))}) == 4
