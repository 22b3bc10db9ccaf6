"""`rbft bench`: what it counts and what it says, on a model of one layer. How fast anything is, is not tested."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from robustbench_ft import clip as clips
from robustbench_ft import model_ref
from robustbench_ft.bench import flops
from robustbench_ft.cli import main
from robustbench_ft.clip import Clip

METHODS = ("ft", "lp-ft", "uniform-soup", "lipsum", "lipsum n_texts=2 text_length=4", "lp")


def counted(clip: Clip, images: torch.Tensor, backward: bool = False) -> int:
    with flops.counter() as counter, torch.set_grad_enabled(backward):
        features = clip.encode_image(images)
        if backward:
            features.sum().backward()
    return counter.get_total_flops()


def test_every_product_of_a_tower_is_counted(tiny_model: str) -> None:
    """By hand, for a transformer; its teacher runs other kernels, and they do the same work."""
    clip = clips.load(model_ref.resolve(tiny_model, None))
    clip.train_only("image")
    visual, n = clip.model.visual, 5
    patches, width = visual.positional_embedding.shape[0] - 1, visual.positional_embedding.shape[1]
    tokens = patches + 1
    stem = 2 * n * patches * width * visual.conv1.weight[0].numel()
    hidden = visual.transformer.resblocks[0].mlp.c_fc.weight.shape[0]
    block = 2 * n * tokens * width * (4 * width + 2 * hidden) + 2 * 2 * n * tokens**2 * width
    proj = 2 * n * visual.proj.numel()
    by_hand = stem + len(visual.transformer.resblocks) * block + proj
    images = torch.randn(n, 3, clip.image_size, clip.image_size)
    assert counted(clip.eval(), images) == by_hand
    assert counted(clip.train(), images) == by_hand
    again = len(visual.transformer.resblocks) * 2 * n * tokens**2 * width  # queries times keys, once more
    assert counted(clip, images, backward=True) == 3 * by_hand - stem + again  # pixels have no gradient


@pytest.mark.usefixtures("shelves")
def test_methods_take_turns_beside_a_bare_loop(tiny_model: str, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    words = [
        "bench",
        "--suite",
        "tiny",
        "--model",
        tiny_model,
        "--batch",
        "8",
        "--rounds",
        "2",
        "--cpu-time",
        "--json",
        str(file),
    ]
    done = CliRunner().invoke(main, [*words, *(word for name in METHODS for word in ("--method", name))])
    assert done.exit_code == 0, done.output
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:2] == "| "]
    assert [row[0] for row in rows] == ["contestant", "bare loop", *METHODS]
    assert {len(row) for row in rows} == {9}
    found = json.loads(file.read_text())
    names = found["contestants"]
    assert all(len(one["seconds"]) == 2 and min(one["seconds"]) > 0 for one in names.values())
    assert names["bare loop"]["flops"] == names["ft"]["flops"] == names["lp-ft"]["flops"]  # not those of its probe
    assert (names["lp-ft"]["stage"], names["uniform-soup"]["stage"]) == ("fit", "member-0.fit")
    assert names["lp"]["floor"] < 0.1 < 1 == names["ft"]["floor"]
    assert 1 < names["lipsum n_texts=2 text_length=4"]["floor"] < names["lipsum"]["floor"]
    assert len(found["peak_flops_per_second"]) == 2


@pytest.mark.usefixtures("shelves")
@pytest.mark.parametrize(
    ("method", "says"),
    {
        "zero-shot": "zero-shot cannot be measured with model",
        "lipsum mode=best": "--method 'lipsum mode=best': mode: input should be",
        "lipsum texts=3": "--method 'lipsum texts=3': unknown setting 'texts'",
        "lipsum n_texts=0": "--method 'lipsum n_texts=0': n_texts=0 is too small",
    }.items(),
)
def test_what_cannot_be_measured_is_one_line(tiny_model: str, method: str, says: str) -> None:
    done = CliRunner().invoke(main, ["bench", "--suite", "tiny", "--model", tiny_model, "--method", method])
    assert done.exit_code == 2
    assert says in done.output
    assert len(done.output.splitlines()) == 1
