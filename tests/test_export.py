"""An exported run answers in plain open_clip, its card tells the record's numbers, and nothing is sent by itself."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from huggingface_hub import ModelCard, parse_eval_result_entries
from PIL import Image
from test_model_card import answers

import robustbench_ft as rb
from robustbench_ft.cli.main import main
from robustbench_ft.record.store import Record, find_records


def rbft(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory, shelf_folder: Path, tiny_model: str) -> dict[str, Record]:
    """The first seed of two of each method, by method."""
    from robustbench_ft import registry

    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(shelf_folder)
        registry.entries.cache_clear()
        methods = [word for name in ("ft", "wise-ft", "output-ensemble") for word in ("--method", name)]
        done = rbft(
            "run", *methods, "--suite", "tiny", "--model", tiny_model, "--seeds", "0-1", "--save-candidates",
            "--out", out,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
    registry.entries.cache_clear()
    return {record.config.method: record for record in reversed(find_records([out]))}


@pytest.mark.parametrize(("method", "candidate"), [("ft", ""), ("wise-ft", "alpha-0.3")])
def test_the_folder_answers_in_plain_open_clip(
    method: str, candidate: str, records: dict[str, Record], tmp_path: Path, shelves: None
) -> None:
    record, out = records[method], tmp_path / "out"
    done = rbft("export", record.folder, "--to", "open-clip", "--out", out, "--candidate", candidate)
    assert done.exit_code == 0, done.output
    pixels = np.random.default_rng(0).integers(0, 256, (6, 40, 32, 3)).astype(np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    found, modules = answers(out)
    kept = record.folder / ("models" if candidate else "model") / candidate
    model: Any = rb.load_model(kept)
    resize, mean, std = model.preprocess()
    images = [np.array(resize(Image.fromarray(one))).transpose(2, 0, 1) / 255 for one in pixels]
    import torch

    with torch.no_grad():
        expected = model.logits((torch.tensor(np.stack(images), dtype=torch.float32) - mean) / std)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert modules == []  # nothing of this package was needed


def test_the_hub_reads_the_numbers_of_the_record(records: dict[str, Record], tmp_path: Path, shelves: None) -> None:
    record, out = records["ft"], tmp_path / "out"
    done = rbft(
        "export", record.folder, "--to", "huggingface", "--out", out, "--benchmark", "dim=org/dim:default",
        "--source", "https://example.org/claim", "--license", "apache-2.0",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    card: Any = ModelCard.load(out / "README.md")
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "open_clip")
    scores = record.summary.candidates["final"]
    told = {one.dataset_split: one.metric_value for one in card.data.eval_results if one.dataset_split}
    assert told == {name: round(100 * scores[name]["accuracy"], 2) for name in ("test", "dim", "noisy")}
    [entry] = parse_eval_result_entries(yaml.safe_load((out / ".eval_results" / "dim-default.yaml").read_text()))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("org/dim", "default", told["dim"])
    assert entry.source_url == "https://example.org/claim"
    text = (out / "README.md").read_text()
    assert all(words in text for words in ("## Results", "## Data", "## Recipe", "## Limits", "a fresh seed (2 runs)"))
    numbers = json.loads((out / "rbft.json").read_text())
    dim = next(column for column in numbers["columns"] if column["name"] == "dim")
    assert dim["this_model"]["value"] == pytest.approx(scores["dim"]["accuracy"])
    places = [p for p in out.rglob("*") if p.is_file() and str(tmp_path.parent).encode() in p.read_bytes()]
    assert places == []  # no folder of this machine travels along


def test_a_dry_run_lists_every_file_and_writes_nothing(
    records: dict[str, Record], tmp_path: Path, shelves: None
) -> None:
    out, again = tmp_path / "out", ("export", records["ft"].folder, "--out", tmp_path / "out")
    dry = rbft(*again, "--dry-run")
    assert dry.exit_code == 0
    assert not out.exists()
    done = rbft(*again)
    assert [line for line in dry.output.splitlines() if line[0] == " "] == [
        line for line in done.output.splitlines() if line[0] == " "
    ]
    listed = {line.split()[2]: int(line.split()[0].replace(",", "")) for line in dry.output.splitlines()[:-1]}
    assert listed == {p.relative_to(out).as_posix(): p.stat().st_size for p in out.rglob("*") if p.is_file()}
    assert "is not empty" in rbft(*again).output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--candidate", "alpha-9"], "unknown candidate 'alpha-9'"),
        (["--benchmark", "dim"], "write SPLIT=ORG/DATASET:TASK"),
        (["--benchmark", "fog=a/b:c", "--to", "huggingface"], "unknown test set 'fog'"),
        (["--benchmark", "dim=a/b:c"], "add --to huggingface"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    words: list[str], says: str, records: dict[str, Record], tmp_path: Path, shelves: None
) -> None:
    done = rbft("export", records["ft"].folder, "--out", tmp_path / "out", *words)
    assert (done.exit_code, done.output.count("\n")) == (2, 1), done.output
    assert says in done.output
    assert not (tmp_path / "out").exists()


def test_a_mixture_and_damaged_weights_are_refused(records: dict[str, Record], tmp_path: Path, shelves: None) -> None:
    done = rbft("export", records["output-ensemble"].folder, "--out", tmp_path / "out")
    assert "answers with several models" in done.output
    path = records["wise-ft"].folder / "model" / "open_clip_model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = rbft("export", records["wise-ft"].folder, "--out", tmp_path / "out")
    path.write_bytes(content)
    assert "is damaged or was edited" in done.output


class Hub:
    """Takes what is sent, and says what it was."""

    sent: dict[str, Any] = {}  # noqa: RUF012

    def create_repo(self, repo: str, **more: Any) -> None:
        self.sent |= {"repo": repo, **more}

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> str:
        self.sent["files"] = sorted(
            p.relative_to(folder_path).as_posix() for p in folder_path.rglob("*") if p.is_file()
        )
        return f"https://hub/{repo_id}"


def test_push_sends_the_listed_files_and_only_with_a_token(
    records: dict[str, Record], monkeypatch: pytest.MonkeyPatch, shelves: None
) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    Hub.sent.clear()
    push = ("push", records["ft"].folder, "--repo", "org/name")
    refused = rbft(*push)
    assert (refused.exit_code, refused.output.count("\n")) == (2, 1)
    assert "no token of Hugging Face is set" in refused.output
    dry = rbft(*push, "--dry-run")
    assert "would be sent to org/name" in dry.output
    assert Hub.sent == {}
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "a token of nobody")
    done = rbft(*push, "--private")
    assert "pushed   https://hub/org/name" in done.output, done.output
    assert Hub.sent["files"] == [line.split()[2] for line in dry.output.splitlines()[:-1]]
    assert (Hub.sent["repo"], Hub.sent["private"]) == ("org/name", True)
    assert "write ORG/NAME" in rbft("push", records["ft"].folder, "--repo", "name").output
