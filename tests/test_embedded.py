"""The embedded model: small, honest about itself, and loadable by open_clip alone."""

import hashlib
import json
import sys
from subprocess import run

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP

from robustbench_ft import drawing
from robustbench_ft.embedded import CHECKPOINT, register
from robustbench_ft.embedded.pretrain import encode_text, shifted
from robustbench_ft.embedded.tokenizer import Words
from robustbench_ft.embedded.zero_shot import accuracy, head
from robustbench_ft.errors import RbftError

CONFIG = json.loads((CHECKPOINT / "open_clip_config.json").read_text())
RECORD = json.loads((CHECKPOINT / "pretrain.json").read_text())
WORDS = Words.load(CHECKPOINT / "vocab.txt")


@pytest.fixture(scope="module")
def model() -> CLIP:
    register()
    made = open_clip.create_model(f"local-dir:{CHECKPOINT}").eval()
    assert isinstance(made, CLIP)
    return made


def test_importing_the_package_needs_no_torch() -> None:
    code = "import sys, robustbench_ft.embedded; sys.exit('torch' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0


def test_folder_is_small() -> None:
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) <= 6_000_000


def test_weights_are_those_of_the_record() -> None:
    weights = (CHECKPOINT / "open_clip_model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == RECORD["sha256"]


def test_record_and_config_name_the_drawing_version() -> None:
    assert CONFIG["rbft"]["drawing_version"] == RECORD["versions"]["drawing"] == drawing.VERSION


def test_random_ids_are_the_words_of_captions() -> None:
    low, high = CONFIG["rbft"]["random_ids"]
    assert tuple(WORDS.tokens[low:high]) == drawing.vocabulary()
    assert (low, high) == WORDS.word_ids
    assert WORDS.vocab_size == CONFIG["model_cfg"]["text_cfg"]["vocab_size"]


def test_prompts_fit_the_context() -> None:
    for name in (*drawing.OBJECTS, *drawing.DIGIT_NAMES):
        for template in drawing.TEMPLATES:
            ids = WORDS(template.format(name))
            assert ids.shape == (1, CONFIG["model_cfg"]["text_cfg"]["context_length"])
            assert ids[0].argmax() == len(template.format(name).split()) + 1  # nothing was cut before EOS


def test_tokenizer_ignores_case_and_punctuation() -> None:
    assert WORDS("A photo of a Cat.").equal(WORDS("a photo of a cat"))
    assert WORDS.decode(WORDS("a red cat")[0].tolist()) == "a red cat"


def test_unknown_word_is_named_in_one_line() -> None:
    with pytest.raises(RbftError, match="'zebra'") as caught:
        WORDS("a photo of a zebra")
    assert "\n" not in str(caught.value)


def test_long_texts_keep_their_end() -> None:
    ids = WORDS(" ".join(["cat"] * 40))
    assert ids.shape == (1, 16)
    assert ids[0, -1] == CONFIG["rbft"]["eos"] == ids.max()


def test_open_clip_builds_its_plain_clip(model: CLIP) -> None:
    assert type(model) is CLIP  # not CustomTextCLIP: methods may use its attributes
    assert sum(p.numel() for p in model.parameters()) == RECORD["parameters"]
    assert not any("running" in name for name in model.state_dict())  # weights can be averaged as they are


def test_texts_cut_to_the_batch_have_the_same_features(model: CLIP) -> None:
    ids = WORDS(["a cat", "a photo of a red car on the road", "a cat"])
    torch.testing.assert_close(encode_text(model, ids), model.encode_text(ids, normalize=True))


def test_zero_shot_is_far_above_chance_everywhere(model: CLIP) -> None:
    classes, labels = head(model, WORDS, drawing.OBJECTS), np.arange(320) % 32
    for domain in drawing.DOMAINS:
        images = drawing.render(domain, labels, "test", np.arange(320))
        measured = 100 * accuracy(model, classes, images, labels)
        assert measured > 35  # chance is 3.1
        assert measured == pytest.approx(RECORD["zero_shot"]["objects"][domain], abs=10)  # 3.5 standard errors


def test_shift_moves_pixels_and_keeps_the_rest() -> None:
    images = np.arange(4 * 32 * 32 * 3, dtype=np.uint8).reshape(4, 32, 32, 3)
    moved = shifted(images, 2, np.random.default_rng(0))
    assert moved.shape == images.shape
    assert (shifted(images, 0, np.random.default_rng(0)) == images).all()
    assert any(
        (moved[0, 2:-2, 2:-2] == images[0, 2 + y : 30 + y, 2 + x : 30 + x]).all()
        for y in range(-2, 3)
        for x in range(-2, 3)
    )
