"""What a user gets wrong is answered in lines that start with `rbft: ` and exit code 2, before anything is written."""

import json
import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import open_clip
import pytest
import tiny
import torch
from click.testing import CliRunner, Result

from robustbench_ft import cache
from robustbench_ft import clip as clips
from robustbench_ft.cli.main import main
from robustbench_ft.errors import RbftError
from robustbench_ft.model_ref import ModelRef, check_weights_file

pytestmark = pytest.mark.usefixtures("shelves")

FT = "run --method ft --suite tiny"
VIT = f"{FT} --model ViT-B-32"
HOMES = {
    "imagenet": "image-net.org", "domainnet": "ai.bu.edu/M3SDA", "wilds-iwildcam": "wilds.stanford.edu",
    "wilds-fmow": "wilds.stanford.edu", "wilds-camelyon17": "wilds.stanford.edu",
    "pacs": "sketchx.eecs.qmul.ac.uk", "vlcs": "facebookresearch/DomainBed", "officehome": "hemanthdv.github.io",
    "terra": "lila.science", "domainnet-lodo": "ai.bu.edu/M3SDA", "living17": "image-net.org",
    "entity30": "image-net.org", "waterbirds": "nlp.stanford.edu/data/dro",
    "cifar10": "www.cs.toronto.edu/~kriz",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A command (`TMP` stands for the test's folder), and what each line of the answer must contain, in order."""

    words: str
    lines: tuple[str, ...]


PLANNED = re.compile(r"model    |\d+ cells?, seed")  # what a plan without mistakes says of itself


def invoke(words: str, tmp_path: Path) -> Result:
    arguments = [word.replace("TMP", str(tmp_path)) for word in words.split()]
    if arguments[0] == "run":
        arguments += ["--out", str(tmp_path / "out")] if "--out" not in arguments else []
    return CliRunner().invoke(main, arguments)


def answer(result: Result) -> list[str]:
    """The lines of the message; progress may have come before."""
    assert result.exit_code == 2, (result.output, result.exception)
    assert "Traceback" not in result.output
    lines = result.stderr.splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("rbft: "))
    assert all(line.startswith("rbft: ") and len(line) > 30 for line in lines[first:]), lines
    return lines[first:]


def check(case: Case, tmp_path: Path) -> None:
    result = invoke(case.words, tmp_path)
    lines = answer(result)
    assert lines == [line for line in result.stderr.splitlines() if not PLANNED.match(line)]  # nothing had begun
    assert not result.stdout
    assert len(lines) == len(case.lines), lines
    for line, text in zip(lines, case.lines, strict=True):
        assert text.replace("TMP", str(tmp_path)) in line
    assert not list((tmp_path / "out").rglob("*"))


NAMES = {
    "method": Case("run --method lipsun --suite tiny", ("unknown method 'lipsun': did you mean lipsum? known: ",)),
    "suite": Case("run --method ft --suite imagnet", ("unknown suite 'imagnet': did you mean imagenet",)),
    "model": Case(f"{FT} --model ViT-B-33", ("unknown model 'ViT-B-33': did you mean ViT-B-32",)),
    "no method": Case("run --suite tiny", ("name at least one with --method; `rbft list` shows",)),
    "no suite": Case("run --method ft", ("name at least one with --suite; `rbft list` shows",)),
    "protocol": Case(f"{FT} --protocol nonsense", ("unknown protocol 'nonsense': known: as-published, clean",)),
    "unpublished": Case(
        "run --method ft --suite shapes --protocol as-published",
        ("suite 'shapes' has no published protocol to follow; use --protocol clean",),
    ),
    "banana": Case(f"{FT} --device banana", ("unknown device 'banana'; known: auto, cpu, cuda, cuda:N, mps",)),
    "meta": Case(f"{FT} --device meta", ("device 'meta' is not supported; known: auto, cpu, cuda, cuda:N, mps",)),
    "gpu decode": Case(f"{FT} --gpu-decode --device cpu", ("--gpu-decode needs a GPU, and the device is cpu; leave",)),
    "fp8": Case(f"{FT} --precision fp8", ("unknown precision 'fp8'; known: auto, fp32, tf32, bf16, fp16",)),
    "tf32": Case(f"{FT} --precision tf32 --device cpu", ("precision 'tf32' is of NVIDIA GPUs since Ampere",)),
    "show": Case("show lipsun", ("unknown method or suite 'lipsun': did you mean lipsum?",)),
    "several": Case(
        "run --method lipsun --method ftt --suite imagnet --seeds x",  # names first: they need no torch
        ("unknown method 'lipsun'", "unknown method 'ftt'", "unknown suite 'imagnet'"),
    ),
}  # fmt: skip

SETTINGS = {
    "all at once": Case(
        f"{FT} --set nope=1 --set lr=fast --set steps=2.5 --set lipsum.strength=1 --set shuffle=oui",
        ("--set nope: unknown setting 'nope': known: ", "--set lr=fast: input should be a valid number",
         "--set steps=2.5: input should be a valid integer", "--set lipsum.strength: method 'lipsum' is not in this",
         "--set shuffle=oui: input should be a valid boolean"),
    ),
    "no equals": Case(f"{FT} --set lr --set batch", ("--set lr: write KEY=VALUE, e.g. lr=1e-4", "--set batch: write")),
    "alpha": Case("run --method wise-ft --suite tiny --set alpha=2", ("wise-ft: alpha=2.0 must be between 0 and 1",)),
    "lr": Case(f"{FT} --set lr=-1", ("ft: lr must be above 0, not -1.0",)),
    "nan": Case(f"{FT} --set lr=nan", ("--set lr=nan: input should be a finite number",)),
    "batch": Case(f"{FT} --set batch=0", ("ft: batch must be at least 1, not 0",)),
    "no length": Case(f"{FT} --set steps=0", ("ft: one of steps and epochs must be above 0",)),
    "n_texts": Case("run --method lipsum --suite tiny --set n_texts=0", ("lipsum: n_texts=0 is too small",)),
    "head_lr": Case("run --method lp-ft --suite tiny --set head_lr=0", ("lp-ft: head_lr=0.0 must be above 0",)),
    **{f"seeds {text}": Case(f"{FT} --seeds {text}", (f"seeds '{text}': '{text}' is neither a number nor a range",))
       for text in ("0-", "5-2", "a", "-1", "0-99999999")},
}  # fmt: skip

MODELS = {
    "missing": Case(f"{VIT} --pretrained TMP/no.safetensors", ("no weights file TMP/no.safetensors; give an ex",)),
    "path": Case(f"{VIT} --pretrained TMP/no", ("TMP/no' is neither an open_clip tag nor a .safetensors file",)),
    "pickle": Case(f"{VIT} --pretrained TMP/bare.pt", ("TMP/bare.pt is a pickle, and loading a pickle runs the code",)),
    "bomb": Case(f"{VIT} --pretrained TMP/bomb.pt", ("TMP/bomb.pt says it unfolds from 102,",)),
    "cut zip": Case(f"{VIT} --pretrained TMP/cut.pt", ("TMP/cut.pt is not a complete file of weights (File is not",)),
    "cut": Case(f"{VIT} --pretrained TMP/cut.safetensors", ("TMP/cut.safetensors is not a complete safetensors file",)),
    "list": Case(f"{VIT} --pretrained TMP/list.safetensors", ("list.safetensors is not a complete safetensors file",)),
    "short": Case(f"{VIT} --pretrained TMP/short.safetensors", ("short.safetensors is not a complete safetensors",)),
    "tag": Case(f"{VIT} --pretrained openay", ("unknown pretrained tag of ViT-B-32 'openay': did you mean openai",)),
    "bare": Case(f"{VIT}", ("model 'ViT-B-32' needs --pretrained: an open_clip tag, a .safetensors file",)),
    "embedded": Case(f"{FT} --pretrained openai", ("model 'embedded' brings its own weights; drop --pretrained open",)),
    "no folder": Case(f"{FT} --model local-dir:TMP/no", ("TMP/no is not an open_clip folder: it has no open_clip_c",)),
    "no weights": Case(f"{FT} --model local-dir:TMP/empty", ("TMP/empty holds no open_clip_model.safetensors; ",)),
}  # fmt: skip

PLANS = {
    "missing": Case("run --config TMP/none.toml", ("cannot read the plan TMP/none.toml: ",)),
    "invalid": Case("run --config TMP/invalid.toml", ("TMP/invalid.toml is not valid TOML: ",)),
    "keys and types": Case(
        "run --config TMP/keys.toml", ("keys.toml: unknown key 'metod': did you mean method", "keys.toml: suite: "),
    ),
    "table": Case("run --config TMP/table.toml", ("TMP/table.toml: [set] must be a table, e.g. set = {",)),
    "precision": Case("run --config TMP/precision.toml", ("unknown precision 'fp8'; known: auto, fp32, tf32,",)),
    "folder": Case("run --config TMP", ("cannot read the plan TMP: ",)),
}  # fmt: skip

PLACES = {
    "out is a file": Case(f"{FT} --out TMP/file", ("cannot write to TMP/file: TMP/file is a file; choose",)),
    "out is under a file": Case(f"{FT} --out TMP/file/sub", ("cannot write to TMP/file/sub: TMP/file is a file; ",)),
    "report on nothing": Case("report TMP/nowhere", ("no such folder: TMP/nowhere; `rbft run` writes records to",)),
    "report on a file": Case("report TMP/file", ("no finished cell under TMP/file; finish one with `rbft run`",)),
    "report on an empty folder": Case("report TMP/empty", ("no finished cell under TMP/empty; finish one with `rbft",)),
}  # fmt: skip


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in (NAMES | SETTINGS).items()])
def test_wrong_words(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in MODELS.items()])
def test_wrong_models(case: Case, tmp_path: Path, tiny_model: str) -> None:
    weights = (Path(tiny_model.partition(":")[2]) / "open_clip_model.safetensors").read_bytes()
    (tmp_path / "bare.pt").write_bytes(pickle.dumps({"weights": 1}))
    torch.save({"weight": torch.zeros(1000)}, tmp_path / "whole.pt")
    assert check_weights_file(tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:-100])
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(100 << 20))  # a tensor of zeros, packed a thousandfold
    (tmp_path / "cut.safetensors").write_bytes(weights[:-100])
    (tmp_path / "list.safetensors").write_bytes((2).to_bytes(8, "little") + b"[]")
    (tmp_path / "short.safetensors").write_bytes(b"abc")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "open_clip_config.json").write_text("{}")
    check(case, tmp_path)


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in PLANS.items()])
def test_wrong_plan_files(case: Case, tmp_path: Path) -> None:
    start = 'method = "ft"\nsuite = "tiny"\n'
    (tmp_path / "invalid.toml").write_text("method = [")
    (tmp_path / "keys.toml").write_text('metod = "ft"\nsuite = 3\n')
    (tmp_path / "table.toml").write_text(start + 'set = "lr=1"')
    (tmp_path / "precision.toml").write_text(start + 'precision = "fp8"')
    check(case, tmp_path)


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in PLACES.items()])
def test_wrong_places(case: Case, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    check(case, tmp_path)
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    check(Case(f"{FT} --device cuda", ("'cuda' asked for, but torch sees 0 GPUs; use --device cpu",)), tmp_path)


@pytest.mark.parametrize("root", ["", " --root TMP/data"])
@pytest.mark.parametrize("suite", HOMES)
def test_data_that_is_not_there(suite: str, root: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    place = "TMP/data has no " if root else "pass --root DIR (or set RBFT_DATA) "
    check(Case(f"run --method ft --suite {suite}{root}", (place,)), tmp_path)
    [line] = answer(invoke(f"run --method ft --suite {suite}{root}", tmp_path))
    assert HOMES[suite] in line


@pytest.mark.parametrize("suite", ["tiny", "shapes"])
def test_a_cache_that_cannot_be_written(suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RBFT_CACHE", str(tmp_path / "file" / "cache"))
    check(Case(f"run --method ft --suite {suite}", ("cannot create the cache folder TMP/file/cache",)), tmp_path)


def test_a_cache_that_fills_up_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(RbftError, match=r"cannot write .*x\.npy: Permission denied; .*set RBFT_CACHE"):
        cache.write(tmp_path / "x.npy", Path.touch)


def run_tiny(tmp_path: Path, model: str, more: str = "") -> Path:
    """A finished cell."""
    assert invoke(f"{FT} --model {model} --set steps=2{more}", tmp_path).exit_code == 0
    [folder] = [path.parent for path in (tmp_path / "out").rglob("done")]
    return folder


def test_a_changed_cell_is_not_mixed_with_the_one_asked_for(tmp_path: Path, tiny_model: str) -> None:
    folder = run_tiny(tmp_path, tiny_model)
    stored = json.loads((folder / "cell.json").read_text())
    stored["recipe"]["lr"] = 1.0
    (folder / "cell.json").write_text(json.dumps(stored))
    [line] = answer(invoke(f"{FT} --model {tiny_model} --set steps=2 --seeds 0-1", tmp_path))
    assert f"{folder / 'cell.json'} describes another cell than the one asked for; move {folder} away" in line
    assert len(list((tmp_path / "out").rglob("cell.json"))) == 1  # seed 1 was not begun


@pytest.mark.parametrize("name", ["cell.json", "env.json", "metrics.json", "predictions/final/dim.parquet"])
@pytest.mark.parametrize("left", [0, 20])
def test_a_truncated_record_is_named_by_report(name: str, left: int, tmp_path: Path, tiny_model: str) -> None:
    path = run_tiny(tmp_path, tiny_model) / name
    path.write_bytes(path.read_bytes()[:left])
    [line] = answer(invoke("report TMP/out", tmp_path))
    assert "cannot read " in line or "is not what its cell was finished with" in line
    assert str(path) in line


def test_a_row_that_is_not_there_is_named_with_those_that_are(tmp_path: Path, tiny_model: str) -> None:
    run_tiny(tmp_path, tiny_model)
    [line] = answer(invoke("report TMP/out --against lipsum", tmp_path))
    assert "no row 'lipsum' in tiny v1" in line
    assert line.endswith("rows: 'ft (steps=2)'")


def test_a_figure_that_cannot_be_written(tmp_path: Path, tiny_model: str) -> None:
    run_tiny(tmp_path, tiny_model)
    (tmp_path / "file").touch()
    [line] = answer(invoke("report TMP/out --figure TMP/file/figure.png", tmp_path))
    assert f"cannot write the figure {tmp_path}/file/figure.png" in line


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"hello"),
        lambda path: path.write_bytes(pickle.dumps(print)),
        lambda path: torch.save({"step": 1}, path),
        lambda path: torch.save([1], path),
    ],
    ids=["truncated", "empty", "text", "pickle", "incomplete", "list"],
)  # fmt: skip
def test_a_damaged_checkpoint_is_named(damage: Callable[[Path], object], tmp_path: Path, tiny_model: str) -> None:
    folder = run_tiny(tmp_path, tiny_model)
    (folder / "done").unlink()
    checkpoint = folder / "resume-fit.pt"
    torch.save({"step": 1, "weights": torch.zeros(1000)}, checkpoint)
    damage(checkpoint)
    result = invoke(f"{FT} --model {tiny_model} --set steps=2", tmp_path)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    reason = f"checkpoint {checkpoint} is damaged: delete it to start the cell again"
    assert (
        f"rbft: 1 of 1 cell failed: {reason}; {folder}, `rbft logs {folder}` tells more" in result.stderr.splitlines()
    )
    assert not (folder / "done").exists()


def test_random_texts_need_a_vocabulary(tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "mute", random_ids=False)
    words = f"run --method lipsum --suite tiny --model local-dir:{model}"
    [line] = answer(invoke(words, tmp_path))
    assert "lipsum cannot be run with model" in line
    assert "does not state the id range that random texts are drawn from" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", ["run --threads 0", "run --colour red", "report --format pdf", "rum"])
def test_usage_errors_are_one_line_too(words: str, tmp_path: Path) -> None:
    [line] = answer(invoke(words, tmp_path))
    assert line.endswith("--help`)")


def change_config(folder: Path, text: str, other: str) -> None:
    path = folder / "open_clip_config.json"
    path.write_text(path.read_text().replace(text, other))


@pytest.mark.parametrize(
    ("text", "other", "says"),
    [
        ('"embed_dim": 16', '"embed_dim": 24', "size mismatch for "),
        ('"model_cfg"', '"modell_cfg"', "model_cfg"),
        ('{"model_cfg"', '["model_cfg"', "line 1 column"),
        ('"width": 32', '"width": "wide"', "'str' and 'int'"),
    ],
)
def test_a_folder_that_does_not_fit_its_weights(text: str, other: str, says: str, tmp_path: Path) -> None:
    change_config(tiny.write_model(tmp_path / "model"), text, other)
    [line] = answer(invoke(f"{FT} --model local-dir:TMP/model", tmp_path))
    named = (f"load model 'local-dir:{tmp_path}/model': ", f"read {tmp_path}/model/open_clip_config.json: ")
    assert line.startswith(tuple(f"rbft: cannot {name}" for name in named))
    assert says in line
    assert not list((tmp_path / "out").rglob("*"))


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path, tiny_model: str) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return Path.touch, (str(tmp_path / "touched"),)  # pyright: ignore[reportReturnType]

    config = json.loads((Path(tiny_model.partition(":")[2]) / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "tiny-evil.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-evil.json")
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(RbftError, match=r"cannot load .*evil\.pt: it holds more than tensors") as caught:
        clips.load(ModelRef("tiny-evil", str(tmp_path / "evil.pt"), "0"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "touched").exists()
