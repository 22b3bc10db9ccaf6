"""`rbft reproduce`: what is claimed, what it takes, the run itself with claimed beside measured, and the ledger."""

import json
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import tiny
from click.testing import CliRunner

from robustbench_ft import registry, reproduce
from robustbench_ft.board import paper
from robustbench_ft.cli.main import main
from robustbench_ft.errors import RbftError
from robustbench_ft.method import Method
from robustbench_ft.recipe import R_WISE, Recipe
from robustbench_ft.record import store
from robustbench_ft.reproduce.row import held, other_recipe

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "leaderboards" / paper.FILE
BENCH = """ViT-B-16-openai on shapes, batch 256, bf16: medians over 15 rounds of 4 steps

| contestant | ms/step | images/s | / ft |
|---|---:|---:|---:|
| ft | 200.0 | 1,280 | 1.00 (1.00–1.00) |
| lipsum | 256.0 | 1000 | 1.28 (1.27–1.29) |

{"gpu": "NVIDIA H100"}
"""


def _ledger() -> Any:
    """docs/reproduce.py."""
    spec = spec_from_file_location("ledger", ROOT / "docs" / "reproduce.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown(words: str) -> str:
    done = CliRunner().invoke(main, words.split())
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_ledger_is_that_of_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = _ledger()
    text = ledger.page()
    assert ledger.PAGE.read_text(encoding="utf-8") == text, "run `python docs/reproduce.py`"
    assert [line.split("|")[1:3] for line in text.splitlines() if "](methods/" in line] == [
        [f" [{method}](methods/{method}.md) ", f" {suite} "] for method, suite in reproduce.published()
    ]
    monkeypatch.setattr(ledger, "PAGE", tmp_path / "reproduce.md")
    assert ledger.stale()
    (tmp_path / "reproduce.md").write_text(text.replace("88.90", "89.90"), encoding="utf-8")
    assert ledger.stale()


def test_a_dry_run_says_what_is_claimed_and_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = shown("reproduce lipsum domainnet --dry-run --device cpu")
    plain = re.sub(r"\n {11}", " ", text)
    for line in (
        "claimed    Lipsum-FT: ID 88.90, painting 66.38, clipart 68.08, infograph 46.29, sketch 56.57",
        "source     Lipsum-FT (Nam, Heo, Lee; ICLR 2024); github cs-giung/lipsum-ft@1331873 README.md console logs",
        "steps      5,000 of batch 256: 1,280,000 training images for each seed",
        "seeds      0 (that of the claimed row)",
        "rbft bench --method lipsum --model ViT-B-16 --pretrained openai --batch 256 > bench.md",
        "command    rbft run --method lipsum --suite domainnet --model ViT-B-16 --pretrained openai --protocol as-pub",
    ):
        assert line in plain, plain
    assert "which is the test set that it reports" in plain
    assert not [line for line in text.splitlines() if len(line) > 100 and not line.startswith("command")]


def test_hours_are_those_of_the_rate_that_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,280,000 images at 1,000 a second are 1,280 s."""
    monkeypatch.chdir(ROOT)
    (tmp_path / "bench.md").write_text(BENCH)
    text = shown(f"reproduce lipsum domainnet --dry-run --device cpu --bench {tmp_path / 'bench.md'}")
    assert "GPU-hours  0.4 for each of 1 seed, validation and evaluation on top" in text
    assert '1,000 training images/s (ViT-B-16-openai on shapes, batch 256, bf16; {"gpu": "NVIDIA H100"})' in text
    assert reproduce.rate_of(tmp_path / "bench.md", "ft").images == 1280
    with pytest.raises(RbftError, match=r"unknown row of rbft bench 'flyp'.*run it with --method flyp"):
        reproduce.rate_of(tmp_path / "bench.md", "flyp")
    with pytest.raises(RbftError, match=r"write it with `rbft bench \.\.\. > "):
        reproduce.rate_of(tmp_path / "none.md", "ft")


def test_the_row_of_the_same_recipe_is_claimed_and_the_others_are_shown() -> None:
    found = reproduce.make("wise-ft", "imagenet", ROWS, precision="fp32")
    assert found.row is not None
    assert found.row.source == "VRF paper (NeurIPS 2024), Table 2"
    assert not other_recipe(found.row, R_WISE)
    others = [row for row in found.rows[1:] if row.method == "WiSE-FT (0.5)"]
    assert others
    assert other_recipe(others[0], R_WISE)
    first = held(found)[0]  # ID: 2.58 * sqrt(2 * .825 * .175 / 50,000)
    assert (first.column, first.printed) == ("ID", 0.825)
    assert first.tolerance == pytest.approx(0.0062, abs=1e-4)


def test_what_nobody_published_is_refused() -> None:
    with pytest.raises(RbftError, match="published recipe for domainnet, imagenet, and none for 'shapes'"):
        reproduce.make("lipsum", "shapes", ROWS)
    with pytest.raises(RbftError, match="'ema' has a published recipe for no suite, and none for 'imagenet'"):
        reproduce.make("ema", "imagenet", ROWS)
    assert CliRunner().invoke(main, ["reproduce", "lipsom", "domainnet"]).exit_code == 2


@pytest.mark.usefixtures("shelves")
def test_it_runs_the_published_recipe_and_puts_claimed_beside_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FT on the tests' suite `spaced`, whose row and recipe are made up here."""
    monkeypatch.chdir(tmp_path)
    tiny.write_model(tmp_path / "tiny")
    kind: Any = registry.load("method", "ft", Method)
    recipe = Recipe(lr=1e-3, steps=3, batch=8, augment="none", select="last")
    monkeypatch.setattr(kind, "published", {"spaced": recipe})
    monkeypatch.setattr(paper, "SUITES", {"Spaced": ("spaced", {"id": "ID", "dim": "dim"})})
    row = {"method": "FT", "paper": "A paper", "year": 2026, "model": "local-dir:tiny", "pretrained": "",
           "suite": "Spaced", "metric": "top1_acc_pct", "std": 1.5, "seeds": [2], "source": "its table",
           "source_kind": "primary", "note": ""}  # fmt: skip
    printed = [{**row, "dataset": "id", "value": 90.0}, {**row, "dataset": "dim", "value": 1.0}]
    (tmp_path / "leaderboards").mkdir()
    (tmp_path / "leaderboards" / paper.FILE).write_text(json.dumps(printed))
    text = shown("reproduce ft spaced --model local-dir:tiny --device cpu --threads 1")
    [record] = store.find_records([tmp_path / "runs"])
    assert (record.config.protocol, record.seed, record.config.recipe_source) == ("as-published", 2, "method")
    assert record.config.recipe is not None
    assert record.config.recipe["steps"] == 3
    scores = record.summary.candidates[record.summary.default]
    lines = [line.split() for line in text.partition("\nmeasured ")[2].splitlines()[1:3]]
    assert [line[0] for line in lines] == ["ID", "dim"]
    for line, split in zip(lines, ("test", "dim"), strict=True):
        assert float(line[4]) == pytest.approx(100 * scores[split]["accuracy"], abs=0.005)
    assert [line[-1] for line in lines] == ["inside", "OUTSIDE"]
    # .9 of 36 images, and twice the printed 1.5 points
    assert float(lines[0][7].strip("()")) == pytest.approx(258 * (2 * 0.9 * 0.1 / 36) ** 0.5 + 3, abs=0.01)
