"""A model folder is data: no code of it is run, what is digested is what is loaded, and a damaged one is one line."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from robustbench_ft import clip as clips
from robustbench_ft import model_ref
from robustbench_ft.cli.main import main
from robustbench_ft.clip import config as configs
from robustbench_ft.errors import RbftError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def change(folder: Path, edit: Callable[[Any], object]) -> None:
    path = folder / "open_clip_config.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def load(folder: Path) -> clips.Clip:
    return clips.load(model_ref.resolve(f"local-dir:{folder}", None))


TEXT: Callable[[Any], dict[str, Any]] = lambda c: c["model_cfg"]["text_cfg"]  # noqa: E731
VISION: Callable[[Any], dict[str, Any]] = lambda c: c["model_cfg"]["vision_cfg"]  # noqa: E731
RUNS_CODE: dict[str, tuple[Callable[[Any], object], str]] = {
    "code beside a tokenizer": (
        lambda c: TEXT(c).update(tokenizer_kwargs={"trust_remote_code": True}),
        "text_cfg.tokenizer_kwargs: trust_remote_code = true is none of open_clip's own",
    ),
    "the same, said otherwise": (
        lambda c: TEXT(c).update(hf_tokenizer_name="roberta-base", tokenizer_kwargs={"trust_remote_code": "yes"}),
        "trust_remote_code",
    ),
    "a tokenizer from anywhere": (
        lambda c: TEXT(c).update(hf_tokenizer_name="someone/else"),
        "hf_tokenizer_name: \"someone/else\" is none of open_clip's own",
    ),
    "a tower from anywhere": (
        lambda c: TEXT(c).update(hf_model_name="someone/else"),
        "hf_model_name: \"someone/else\" is none of open_clip's own",
    ),
    "an image tower from anywhere": (
        lambda c: VISION(c).update(timm_model_name="hf-hub:someone/else"),
        'timm_model_name: "hf-hub:someone/else" is no registered timm model',
    ),
    "an image tower of another folder": (
        lambda c: VISION(c).update(timm_model_name="local-dir:/elsewhere"),
        "is no registered timm model",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", RUNS_CODE)
def test_a_configuration_that_could_run_code_is_refused(kind: str, folder: Path) -> None:
    edit, says = RUNS_CODE[kind]
    change(folder, edit)
    with pytest.raises(RbftError) as caught:
        load(folder)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "config.json"])
def test_code_that_a_tokenizer_names_is_refused(name: str, folder: Path) -> None:
    (folder / name).write_text('{"auto_map": {"AutoTokenizer": ["evil.Evil", null]}}')
    with pytest.raises(RbftError, match=rf"{name} names Python code to run"):
        load(folder)


def test_saved_models_are_read_with_the_same_care(folder: Path) -> None:
    save_file({"head": torch.zeros(2, 16)}, folder / "head.safetensors")
    edit, says = RUNS_CODE["code beside a tokenizer"]
    change(folder, edit)
    with pytest.raises(RbftError, match="trust_remote_code") as caught:
        clips.load_saved(folder)
    assert says in str(caught.value)


def test_tokenizers_of_transformers_are_asked_not_to_run_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("open_clip.get_tokenizer", lambda name, **more: asked.append(more))  # pyright: ignore
    change(folder, lambda c: (TEXT(c).update(hf_tokenizer_name="roberta-base"), c["rbft"].pop("tokenizer")))
    load(folder)
    assert asked == [{"trust_remote_code": False}]


def test_open_clips_own_configurations_are_all_read() -> None:
    import open_clip

    models = {name: open_clip.get_model_config(name) for name in open_clip.list_models()}
    refused: list[str] = []
    for name, model in models.items():
        try:
            configs.check({"model_cfg": model}, name)
        except RbftError as error:
            refused.append(str(error))
    assert len(models) > 100
    assert refused == []


def test_weights_that_lie_beside_the_digested_file_are_not_loaded(folder: Path) -> None:
    right = load_file(folder / "open_clip_model.safetensors")
    (folder / "open_clip_model.safetensors").rename(folder / "model.safetensors")
    wrong = {name: torch.zeros_like(tensor) for name, tensor in right.items()}
    torch.save(wrong, folder / "open_clip_pytorch_model.bin")  # which open_clip would take
    found = load(folder).model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in right.items())


def test_two_files_of_weights_are_refused(folder: Path) -> None:
    shutil.copy(folder / "open_clip_model.safetensors", folder / "model.safetensors")
    with pytest.raises(RbftError, match=r"holds open_clip_model\.safetensors and model\.safetensors: nobody can tell"):
        model_ref.resolve(f"local-dir:{folder}", None)


def test_preprocessing_and_vocabulary_belong_to_a_models_identity(folder: Path) -> None:
    def identity() -> str:
        return model_ref.resolve(f"local-dir:{folder}", None).weights

    first = identity()
    change(folder, lambda c: c["rbft"].update(cell="a note", seed=3))
    assert identity() == first
    change(folder, lambda c: c["preprocess_cfg"].update(mean=[0.4, 0.5, 0.5]))
    second = identity()
    change(folder, lambda c: c["model_cfg"].update(quick_gelu=True))
    third = identity()
    (folder / "vocab.txt").write_text((folder / "vocab.txt").read_text().replace("blue", "azure"))
    assert len({first, second, third, identity()}) == 4


def test_a_folder_that_changes_after_it_was_planned_is_noticed(folder: Path) -> None:
    ref = model_ref.resolve(f"local-dir:{folder}", None)
    model_ref.check_unchanged(ref)
    change(folder, lambda c: c["preprocess_cfg"].update(mean=[0.4, 0.5, 0.5]))
    with pytest.raises(RbftError, match="changed while cells were run"):
        model_ref.check_unchanged(ref)


DAMAGED: dict[str, tuple[Callable[[Any], object], str]] = {
    "no deviation": (lambda c: c["preprocess_cfg"].update(std=[0, 1, 1]), "preprocess_cfg.std.0: input should be gre"),
    "a text as mean": (lambda c: c["preprocess_cfg"].update(mean="x"), "preprocess_cfg.mean: input should be a "),
    "a huge image": (lambda c: c["preprocess_cfg"].update(size=10**9), "preprocess_cfg.size"),
    "another mode": (lambda c: c["preprocess_cfg"].update(mode="CMYK"), "preprocess_cfg.mode"),
    "an interpolation of its own": (lambda c: c["preprocess_cfg"].update(interpolation=3), "preprocess_cfg.interpolat"),
    "no table": (lambda c: c.update(preprocess_cfg=[1]), "preprocess_cfg: input should be"),
    "ids as text": (lambda c: c["rbft"].update(random_ids=["a", "b"]), "rbft.random_ids.0"),
    "one id": (lambda c: c["rbft"].update(random_ids=[1]), "rbft.random_ids"),
    "another tokenizer": (lambda c: c["rbft"].update(tokenizer="letters"), "rbft.tokenizer"),
    "no towers": (lambda c: c.update(model_cfg={}), "model_cfg.vision_cfg: must be a table"),
    "a tower that is a text": (lambda c: c["model_cfg"].update(text_cfg="x"), "model_cfg.text_cfg: must be a table"),
    "a million layers": (lambda c: VISION(c).update(layers=10**6), "model_cfg.vision_cfg.layers: 1000000 is out of"),
    "an unknown key": (lambda c: VISION(c).update(colour=1), "colour"),
    "no patches": (lambda c: VISION(c).update(patch_size=0), "cannot load model"),
    "no heads": (lambda c: TEXT(c).update(heads=0), "cannot load model"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.usefixtures("shelves")
def test_a_damaged_configuration_is_one_line_and_leaves_nothing(kind: str, folder: Path, tmp_path: Path) -> None:
    edit, says = DAMAGED[kind]
    change(folder, edit)
    out = tmp_path / "out"
    words = ["run", "--method", "ft", "--suite", "tiny", "--model", f"local-dir:{folder}", "--out", str(out)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit)
    [line] = [line for line in done.stderr.splitlines() if line.startswith("rbft: ")]
    assert says in line
    assert not list(out.rglob("*"))


@pytest.mark.usefixtures("shelves")
def test_a_vocabulary_with_flipped_bytes_is_one_line(folder: Path, tmp_path: Path) -> None:
    path, draw = folder / "vocab.txt", random.Random(0)
    whole = path.read_bytes()
    for _ in range(20):
        broken = bytearray(whole)
        for _ in range(3):
            broken[draw.randrange(len(broken))] = draw.randrange(256)
        path.write_bytes(broken + b"more\n" * draw.randrange(3))
        words = ["run", "--method", "zero-shot", "--suite", "tiny", "--model", f"local-dir:{folder}"]
        done = CliRunner().invoke(main, [*words, "--out", str(tmp_path / "out")])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        if done.exit_code:
            assert len([line for line in done.stderr.splitlines() if line.startswith("rbft: ")]) == 1
