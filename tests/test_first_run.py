"""What the first command means: the suite's own model, what a cell needs, names before torch, and the next step."""

import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import run as process
from typing import Any

import forest
import forest_wilds
import numpy as np
import pytest
from click.testing import CliRunner, Result
from installed import registered
from PIL import Image

from robustbench_ft import clip as clips
from robustbench_ft import model_ref, needs, plan, suite_ref
from robustbench_ft.cli.main import main
from robustbench_ft.clip import load
from robustbench_ft.embedded import vocabulary
from robustbench_ft.errors import PlanError, RbftError
from robustbench_ft.images import roots
from robustbench_ft.images.roots import Roots
from robustbench_ft.plan import Request

PAPERS = ("imagenet", "domainnet", "wilds-iwildcam", "wilds-fmow", "wilds-camelyon17")


@pytest.fixture(autouse=True)
def shelf(shelf_folder: Path) -> Iterator[None]:
    with registered(shelf_folder):
        yield


def invoke(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, list(words))
    assert done.exit_code == code, (done.output, done.exception)
    return done


def photos(folder: Path, classes: tuple[str, ...], n: int = 12) -> Path:
    """A folder with train and one shift; the class is the colour."""
    rng = np.random.default_rng(0)
    for split, count in (("train", n), ("night", 4)):
        for k, name in enumerate(classes):
            for i in range(count):
                path = folder / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 90, (40, 40, 3))
                pixels[..., k % 3] += 120 if split == "train" else 60
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


def models(*suites: str, **asked: Any) -> list[tuple[str, str]]:
    cells = plan.make(Request(method=("zero-shot",), suite=suites, **asked))
    return [(cell.model.name, cell.model.pretrained) for cell in cells]


@pytest.mark.parametrize("suite", PAPERS)
def test_suites_of_papers_start_from_the_papers_model(suite: str) -> None:
    assert models(suite) == [("ViT-B-16", "openai")]


def test_each_suite_of_a_plan_takes_its_own_model_and_says_so() -> None:
    assert models("shapes", "imagenet", "tiny") == [("embedded", ""), ("ViT-B-16", "openai"), ("embedded", "")]
    said: list[str] = []
    plan.make(Request(method=("zero-shot",), suite=("shapes", "imagenet")), say=said.append)
    assert said == [
        "model    embedded (default of shapes); --model NAME takes another",
        "model    ViT-B-16 openai (default of imagenet; weights fetched at run time by open_clip); --model NAME takes "
        "another",
    ]


def test_the_command_line_wins(tiny_model: str) -> None:
    assert models("imagenet", model=(tiny_model,)) == [(tiny_model, "")]
    assert models("imagenet", pretrained="random") == [("ViT-B-16", "random")]
    said: list[str] = []
    plan.make(Request(method=("zero-shot",), suite=("imagenet",), model=(tiny_model,)), say=said.append)
    assert said == []


def test_the_embedded_model_is_refused_before_anything_runs_where_it_cannot_read_the_prompts() -> None:
    with pytest.raises(PlanError) as caught:
        models("imagenet", model=("embedded",))
    [line] = caught.value.problems
    assert "does not know the word 'bad' (in 'a bad photo of a tench.'): it knows 185 words" in line
    assert "add --model ViT-B-16 --pretrained openai, or --model local-dir:DIR" in line
    assert len(vocabulary.known()) == 185


@pytest.mark.parametrize(
    ("classes", "extra", "expected"),
    [
        (("mug", "umbrella"), "", ("embedded", "")),
        (("mug", "zebra"), "", ("ViT-B-16", "openai")),
        (("mug", "umbrella"), 'model = "ViT-B-32"\npretrained = "random"\n', ("ViT-B-32", "random")),
    ],
)
def test_a_suite_file_names_a_model_or_its_words_decide(
    classes: tuple[str, ...], extra: str, expected: tuple[str, str], tmp_path: Path
) -> None:
    photos(tmp_path, classes)
    text = f'name = "mine"\ntrain = "train"\ntemplates = ["a photo of a {{}}"]\n{extra}[shifts]\nnight = "night"\n'
    (tmp_path / "suite.toml").write_text(text)
    assert models(str(tmp_path / "suite.toml")) == [expected]


def test_weights_without_a_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text('name = "a"\ntrain = "t"\npretrained = "openai"\n[shifts]\nn = "n"\n')
    with pytest.raises(PlanError, match="pretrained is 'openai' and model is missing: write a model as --model takes"):
        suite_ref.load(str(tmp_path / "suite.toml"))


def unreachable(*words: object) -> None:
    raise OSError("Name or service not known")


def test_weights_that_cannot_be_fetched_are_told_at_once_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[load.__module__]
    monkeypatch.setattr(module.socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(module, "getproxies", dict[str, str])
    monkeypatch.setattr(module.huggingface_hub, "try_to_load_from_cache", lambda repo, file: None)
    with pytest.raises(RbftError) as caught:
        clips.load(model_ref.resolve("ViT-B-16", "openai"))
    text = str(caught.value)
    assert text.startswith("cannot fetch the weights of ViT-B-16 openai (no network: ")
    assert "--model ViT-B-16 --pretrained FILE.safetensors, or --model local-dir:DIR" in text
    assert "\n" not in text


def test_parameters_are_counted_without_weights(tiny_model: str) -> None:
    for ref in (model_ref.resolve(tiny_model, None), model_ref.resolve("embedded", None)):
        model = clips.load(ref).model
        counted = needs.parameters(ref)
        assert counted is not None
        assert counted.whole == sum(value.numel() for value in model.state_dict().values())
        assert counted.image == sum(value.numel() for value in model.visual.state_dict().values())
    vit = needs.parameters(model_ref.resolve("ViT-B-32", "openai"))
    assert vit == needs.Parameters(
        image=87_849_216, whole=151_277_313
    )  # open_clip's model_profile.csv: 87.85, 151.28 M


def test_a_dry_run_and_show_say_what_is_needed_and_read_no_data() -> None:
    dry = invoke("run", "--method", "ft", "--suite", "domainnet", "--dry-run", "--device", "cpu").stdout
    shown = invoke("show", "wilds-iwildcam").stdout
    assert "domainnet: ViT-B-16 openai, weights fetched at run time" in dry
    assert "  steps     5,000 of batch 256" in dry
    assert "1.5 GiB for weights, gradients and AdamW's moments where the image tower is trained" in dry
    assert "model     ViT-B-16 openai (default of wilds-iwildcam; weights fetched at run time by open_clip)" in shown
    assert "images    129,809 to learn from, 73,220 to be predicted by each candidate" in shown
    assert "disk      model 571 MiB, predictions about 7.0 MiB for each candidate; resume checkpoints up to" in shown


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "--method", "lipsm", "--suite", "shapes"], "unknown method 'lipsm': did you mean lipsum?"),
        (["run", "--method", "ft", "--suite", "shaps"], "unknown suite 'shaps': did you mean shapes?"),
        (["show", "lipsumm"], "unknown method or suite 'lipsumm': did you mean lipsum?"),
    ],
    ids=["method", "suite", "show"],
)
def test_a_slip_of_the_finger_is_told_before_torch_is_imported(words: list[str], says: str) -> None:
    code = (
        "import sys\nfrom robustbench_ft.cli import main\n"
        f"try:\n    main({words})\nexcept SystemExit as end:\n    print(end.code, 'torch' in sys.modules)"
    )
    done = process([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]
    assert says in done.stderr


def test_who_waits_is_told_before_torch_is_imported() -> None:
    code = (
        "import sys\nfrom robustbench_ft.cli import main\n"
        "write = sys.stderr.write\nsys.stderr.isatty = lambda: True\n"
        "def watch(text):\n    if text: print(repr(text.strip()), 'torch' in sys.modules)\n    return write(text)\n"
        "sys.stderr.write = watch\nmain(['run', '--method', 'zero-shot', '--suite', 'shapes', '--dry-run'])"
    )
    done = process([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "'[...] loading torch and open_clip' False"


@pytest.mark.parametrize(
    ("method", "seeds", "line"),
    [
        ("ft", "5", "1 cell, seed 5 (for 5 seeds: --seeds 0-4)"),
        ("ft", "0-4", "5 cells, seeds 0-4"),
        ("zero-shot", "5", "1 cell, seed 5"),
    ],
)
def test_a_seed_is_not_taken_for_a_number_of_seeds(method: str, seeds: str, line: str) -> None:
    done = invoke("run", "--method", method, "--suite", "shapes", "--seeds", seeds, "--dry-run", "--device", "cpu")
    assert line in done.stderr.splitlines()


@pytest.mark.parametrize("group", ["", "data", "new", "check", "cache", "leaderboard"])
def test_a_group_alone_shows_its_help(group: str) -> None:
    done = invoke(*group.split())
    assert done.stdout.startswith("Usage: ")
    assert not done.stderr
    assert "see `" not in done.stdout


def test_a_run_ends_with_a_comparison_that_works_and_says_where_nothing_was_learned(
    tmp_path: Path, tiny_model: str
) -> None:
    words = ["run", "--method", "zero-shot", "--method", "ft", "--suite", "tiny", "--seeds", "0-1", "--device", "cpu"]
    out = tmp_path / "out"
    still = invoke(*words, "--model", tiny_model, "--out", str(out), "--set", "lr=1e-12").stdout
    [step] = [line.removeprefix("next     rbft ") for line in still.splitlines() if line.startswith("next ")]
    assert "--baseline ft" in step
    assert invoke(*step.split()).stdout
    assert still.count("nothing was learned: ") == 2  # once for each seed
    moved = invoke(*words, "--model", tiny_model, "--out", str(tmp_path / "other"), "--set", "lr=3e-2").stdout
    assert "nothing was learned" not in moved


def test_one_method_alone_has_nothing_to_be_compared_with(tmp_path: Path, tiny_model: str) -> None:
    done = invoke("run", "--method", "zero-shot", "--suite", "tiny", "--model", tiny_model, "--out", str(tmp_path))
    assert "next " not in done.stdout


def test_a_new_suite_of_known_words_learns_something(tmp_path: Path) -> None:
    folder = photos(tmp_path / "mine", ("mug", "umbrella", "star"))
    text = folder / "suite.toml"
    written = invoke("new", "suite", str(folder)).stdout
    assert "model    ViT-B-16 openai (default of mine: the embedded model does not know 'itap', it knows 185" in written
    assert f"next     rbft run --method zero-shot --method ft --method lipsum --suite {text}" in written
    assert "steps = 200" in text.read_text()
    sure = invoke("data", "check", str(text)).stdout
    assert "model ViT-B-16 openai (default of mine: the embedded model does not know 'itap'" in sure
    text.write_text(text.read_text().replace('name = "mine"', 'name = "mine"\nmodel = "embedded"'))
    refused = invoke("data", "check", str(text), code=2).stderr
    assert "the embedded model does not know the word 'itap'" in refused


@pytest.mark.parametrize("suite", PAPERS)
def test_a_data_sets_own_folder_is_a_root_as_its_parent_is(
    suite: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.getbasetemp() / "forest"
    if suite.startswith("wilds"):
        home = forest_wilds.plant(tmp_path_factory.mktemp("own"), suite)
    else:
        home = {"imagenet": forest.imagenet, "domainnet": forest.domainnet}[suite](base) / suite
    parent, own = suite_ref.load(suite, home.parent), suite_ref.load(suite, home)
    for split in (parent.train, parent.test, *parent.shifts):
        if split in parent.places:
            assert own.place(split) == parent.place(split)


def test_a_data_sets_own_folder_is_a_root_by_its_name_only(tmp_path: Path) -> None:
    candidates = ("domainnet/real", "domainnet_v1.0/real")
    for name, split in (("domainnet", "real"), ("DomainNet", "real"), ("pictures", "real")):
        (tmp_path / name / split).mkdir(parents=True)
    find = lambda root: roots.find(Roots((root,)), "domainnet", "train", candidates, "home")  # noqa: E731
    assert find(tmp_path) == find(tmp_path / "domainnet") == tmp_path / "domainnet" / "real"
    assert find(tmp_path / "DomainNet") == tmp_path / "DomainNet" / "real"
    with pytest.raises(RbftError, match="has no domainnet/real"):
        find(tmp_path / "pictures")
