"""The folder of a tuned model answers without this package, by the code that its README.md shows."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustbench_ft import clip as clips
from robustbench_ft import model_ref
from robustbench_ft.prompts import Task
from robustbench_ft.recipe import Head

TASK = Task(("red page", "green page", "blue page"), ("a photo of a {}", "a drawing of a {}"))
KNOWN = Task(("fish", "bird", "car"), ("a photo of a {}",))
PRELUDE = """
import json, sys
import numpy as np
from PIL import Image
pictures = [Image.fromarray(pixels) for pixels in np.load("../pixels.npy")]
"""
REPORT = "print(json.dumps([logits.tolist(), sorted(n for n in sys.modules if n.startswith('robustbench_ft'))]))"


def code_of(folder: Path) -> str:
    [code] = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return code


def answers(folder: Path) -> tuple[torch.Tensor, list[str]]:
    """Logits that the README's code finds in a process of its own, and the modules of this package that it loads."""
    code = f"{PRELUDE}{code_of(folder)}\n{REPORT}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    logits, modules = json.loads(done.stdout.splitlines()[-1])
    return torch.tensor(logits), modules


@pytest.mark.parametrize("kind", ["unit", "scaled"])
@pytest.mark.parametrize("name", ["tiny", "embedded"])
def test_the_code_of_the_card_gives_the_logits_of_the_saved_model(
    name: str, kind: Head, tmp_path: Path, tiny_model: str
) -> None:
    model = clips.load(model_ref.resolve(tiny_model if name == "tiny" else "embedded", None)).eval()
    model.start_from_zero_shot(TASK if name == "tiny" else KNOWN, kind)
    with torch.no_grad():  # a head that is neither unit nor without bias
        model.head.mul_(1.5)
        if model.bias is not None:
            model.bias.add_(torch.tensor([0.1, -0.2, 0.3]))
    model.save(tmp_path / "model", {"parent": "abc", "seed": 3, "suite": "tiny"})
    pixels = np.random.default_rng(0).integers(0, 256, (6, 40, 32, 3)).astype(np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)

    found, modules = answers(tmp_path / "model")

    resize, mean, std = model.preprocess()
    images = [torch.from_numpy(np.array(resize(Image.fromarray(one)))).permute(2, 0, 1) / 255 for one in pixels]
    with torch.no_grad():
        torch.testing.assert_close(found, model.logits((torch.stack(images) - mean) / std), rtol=0, atol=1e-4)
    assert bool(modules) == (name == "embedded")


def test_the_card_says_what_the_model_is(tmp_path: Path) -> None:
    model = clips.load(model_ref.resolve("embedded", None))
    model.start_from_zero_shot(KNOWN)
    model.save(tmp_path, {"parent": "abc", "parent_name": "embedded", "cell": "def", "seed": 3, "suite": "shapes"})
    said = (tmp_path / "README.md").read_text(encoding="utf-8")
    told = ["license: mit", "3 classes on the suite `shapes`", "model `embedded`, weights `abc`", "seed `3`"]
    told += ["fish, bird, car", "pip install robustbench_ft", "Head convention `unit`", "Words.load"]
    assert [words for words in told if words not in said] == []
