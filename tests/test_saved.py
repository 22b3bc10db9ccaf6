"""What a record keeps in `model/` answers again, also where a method answers with several models."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from test_every_method import DATA, RUN, SUITE, load
from tiny import Tiny

import robustbench_ft as rb
from robustbench_ft import registry, saved
from robustbench_ft.claims import claim_store
from robustbench_ft.cli.main import main
from robustbench_ft.compare.two_runs import class_names
from robustbench_ft.errors import RbftError
from robustbench_ft.method import Candidates, Method
from robustbench_ft.predict import predict
from robustbench_ft.record.store import find_records

MIXTURES = ("output-ensemble", "vrf", "dawin")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def fitted(tiny_model: str) -> dict[str, Candidates]:
    """The three mixtures, fitted on the tiny suite."""
    kinds = {name: registry.load("method", name, Method) for name in MIXTURES}
    return {name: kind(recipe=Tiny.recipe).fit(load(tiny_model), DATA, RUN) for name, kind in kinds.items()}  # pyright: ignore


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_that_is_loaded_again_predicts_the_same(
    name: str, fitted: dict[str, Candidates], tmp_path: Path
) -> None:
    found = fitted[name]
    saved.write(found.use(found.default), tmp_path, name, {"seed": 0})
    back = saved.load(tmp_path, CPU)
    assert isinstance(back, saved.SavedScorer)
    before = predict(found, SUITE.split("dim"))[found.default]
    after = predict(back.candidates, SUITE.split("dim"))["final"]
    assert np.array_equal(before.log_prob, after.log_prob)
    assert np.array_equal(before.top_probs, after.top_probs)
    assert back.task == DATA.task
    assert back.preprocess()[1].shape == (3, 1, 1)


@pytest.mark.parametrize(
    ("note", "says"),
    [
        ('{"method": "vfr"}', "unknown method 'vfr'"),
        ('{"method": "./evil.py"}', "must be the name of a registered method"),
        ('{"method": "lipsum+../evil.py"}', "must be the name of a registered method"),
        ('{"method": "ft"}', "has no `reload`"),
        ('{"method": "dawin"}', "is not what 'dawin' saves"),
        ('{"method": 3}', "must be the name of a registered method"),
        ("{}", "cannot read"),
        ("]", "cannot read"),
    ],
)
def test_a_note_that_leads_nowhere_is_refused_in_one_line(
    note: str, says: str, fitted: dict[str, Candidates], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('it was run')")
    folder = tmp_path / "model"
    monkeypatch.chdir(tmp_path)
    fitted["vrf"].use("vrf").save(folder, {})
    (folder / saved.NOTE).write_text(note)
    with pytest.raises(RbftError, match=says) as caught:
        saved.load(folder, CPU)
    assert "\n" not in str(caught.value)


def rbft(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def ran(shelves: None, tiny_model: str, tmp_path: Path) -> Path:
    """Records of mixtures and their claims."""
    methods = [word for name in MIXTURES for word in ("--method", name)]
    done = rbft("run", *methods, "--suite", "tiny", "--model", tiny_model, "--out", tmp_path / "runs")
    assert done.exit_code == 0, done.output
    done = rbft("leaderboard", "add", tmp_path / "runs", "--root", tmp_path / "boards")
    assert done.exit_code == 0, done.output
    return tmp_path


def test_a_mixture_is_scored_again_from_its_record(ran: Path) -> None:
    """DaWin looks at all images of a split, so 20 of them alone would get other classes."""
    done = rbft(
        "leaderboard", "verify", "--root", ran / "boards", "--runs", ran / "runs", "--data", "--rescore", 20,
        "--mark", "A. Keeper",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.output.count("0 of 80 images get another class") == 3
    assert "3 of 3 claims hold (rescored)" in done.output


def test_another_mixture_is_found_out(ran: Path) -> None:
    """The fine-tuned model is swapped for the zero-shot one, turned upside down."""
    model = next(path for path in (ran / "runs").rglob("model") if "/output-ensemble-" in path.as_posix())
    for part in ("tuned", "zero-shot"):
        file = model / part / "head.safetensors"
        head = file.read_bytes()
        start = 8 + int.from_bytes(head[:8], "little")
        body = bytearray(head[start:])
        for k in range(3, len(body), 4):
            body[k] ^= 0x80
        file.write_bytes(head[:start] + bytes(body))
    done = rbft("leaderboard", "verify", "--root", ran / "boards", "--runs", ran / "runs", "--rescore", 20)
    assert done.exit_code == 2
    assert "the weights do not give the stored predictions" in done.output


def test_records_of_mixtures_know_their_model(ran: Path) -> None:
    for record in find_records([ran / "runs"]):
        model = rb.load_model(record)
        assert isinstance(model, saved.SavedScorer)
        split = SUITE.split("test")
        resize, mean, std = model.preprocess()
        pixels = torch.stack([torch.from_numpy(np.array(resize(image))) for image in split.images.read(range(36))])
        with torch.no_grad():
            logits = model.logits((pixels.permute(0, 3, 1, 2) / 255 - mean) / std)
        stored = record.predictions(record.summary.default, "test")
        assert (logits.argmax(1).numpy() == stored.prediction).all()
        assert class_names(record) == SUITE.classes
    assert {one.claim.identity.resolution for one in claim_store.find(ran / "boards")} == {32}
