"""What was found by damaged inputs once, stays mended; and a few inputs of every kind are drawn anew."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import fuzz
import fuzz_data
import made
import pytest
from click.testing import CliRunner

from robustbench_ft import model_ref
from robustbench_ft.cli.main import main
from robustbench_ft.errors import PlanError, RbftError

DIGITS = "9" * 5000
# kind -> contents that once ended in a traceback, or were read without a word
CORPUS: dict[str, list[bytes]] = {
    "--set": [
        f"lr={DIGITS}".encode(), f"steps={DIGITS}".encode(), b"lr=1e999", b"lr=nan", b"steps=1e400", b"=",
        b"lr=3e-4\n5", b"lr=\x1b[2J",
        b"lr=\xff\xfe", f"ft.{'x' * 5000}=1".encode(), b"betas=[" + b"[" * 3000, b"lr=0x", b"lr=\x00",
    ],
    "plan": [
        b"", b"method = 3", b"seeds = -1", f"seeds = {DIGITS}".encode(), b"[set]\nlr = {}", b"\xff",
        b'suite = "\\u0000"',
    ],
    "suite.toml": [
        b'name = "cups"\ntrain = "all.csv"\n[shifts]\nnight = "\\u0000"\n',
        f'name = "cups"\ntrain = "{"x" * 5000}"\n[shifts]\nnight = "night"\n'.encode(),
        b'name = ".."\ntrain = "all.csv"\n[shifts]\nnight = "night"\n',
        b'name = "cups"\ntrain = "all.csv"\n[shifts]\nID = "night"\n',
    ],
    "manifest": [
        b"path,label,camera\nall/\x000.png,red,0\n", b"path,label,camera\n../../../etc/passwd,red,0\n", b"", b"path",
        b"path,label,camera\n" + b"a/" * 3000 + b",red,0\n", b"path,label,camera\n\xff,red,0\n",
    ],
    "cell.json": [b"[]", b"null", b'{"schema": NaN}', b"[" * 100_000, b"\xff\xfe"],
    "env.json": [b"[]", b"3", b'{"data": []}', b'{"schema": Infinity}'],
    "metrics.json": [b"[]", b'{"candidates": 3}', b'{"axis": {"a": 1e999}}'],
    "predictions": [b"", b"PAR1", b"PAR1PAR1", b"hello"],
    "claim": [b"[]", b"{}", b'{"trust": {"by": []}}', b"[" * 100_000],
    "record.json of a claim": [b"[]", b'{"cell": 3}', b"{}"],
    "predictions of a claim": [b"", b"PAR1PAR1"],
    "model configuration": [
        b"[]", b"{}", b'{"model_cfg": {}}', b'{"model_cfg": {"vision_cfg": {}, "text_cfg": {}}}', b"[" * 100_000,
        b'{"model_cfg": {"vision_cfg": {"layers": 1e9}, "text_cfg": {}}}',
        b'{"model_cfg": {"vision_cfg": {"layers": 28600}, "text_cfg": {}}}',  # took a minute
        b'{"model_cfg": {"vision_cfg": {"layers": [3, 28600]}, "text_cfg": {}}}',
    ],
    "vocabulary": [b"", b"\xff\xfe", b"a\n", b"<pad>\n<bos>\nred\nred\n<eos>\n", b"x\n" * 100_000],
    "checkpoint": [b"", b"\x80\x02}q\x00.", b"PK\x03\x04"],
    **{
        f"{suite}: {name}": [b"", b"\n", b"\xff\xfe", b"split,y\n" + b"x" * 100_000, b"a" * 70_000 + b"\n1\n", b'"']
        for suite, tables in fuzz_data.TABLES.items()
        for name in tables
    },
    "split file of CoOp": [
        b"[]", b"[" * 100_000, f"[{DIGITS}]".encode(),
        f'{{"train": [["a.jpg", {2**70}, "x"]], "val": [], "test": []}}'.encode(),
        b'{"train": [["a\\ud800.jpg", 0, "x"]], "val": [["b.jpg", 0, "x"]], "test": [["c.jpg", 0, "x"]]}',
    ],
    "bytes of a split file": [b"", b"\xff", b"{"],
    "state.json": [b"[]", b"[" * 100_000, b'{"_data_files": [{"filename": "\\u0000"}]}', b'{"_data_files": [{}]}'],
    "dataset_info.json": [b"3", b'{"features": []}', b'{"features": {"label": {"names": ["a", 3]}}}'],
    "Arrow of save_to_disk": [b"", b"\xff\xff\xff\xff", b"ARROW1\0\0"],
    "Parquet of a hub snapshot": [b"", b"PAR1", b"PAR1PAR1"],
    "tar shard": [b"", b"x" * 512, bytes(10_240)],
    "index of a tar (.npz)": [b"", b"PK\x03\x04", b"\x80\x02}q\x00."],
    "copy of a Parquet shard": [b"", b"ARROW1\0\0", b"ARROW1\0\0" + bytes(100) + b"ARROW1"],
    "drawn array": [b"", b"\x93NUMPY", b"\x80\x02}q\x00."],
    "cached head": [b"", bytes(8), b"\xff" * 8],
}  # fmt: skip


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, fuzz.Target]:
    return fuzz.targets(tmp_path_factory.mktemp("fuzz"))


def test_every_kind_has_its_corpus(targets: dict[str, fuzz.Target]) -> None:
    assert set(CORPUS) == set(targets)


@pytest.mark.parametrize("kind", CORPUS)
def test_what_is_whole_is_read_and_past_findings_stay_mended(kind: str, targets: dict[str, fuzz.Target]) -> None:
    target = targets[kind]
    target.read()  # without an error: else nothing would be tried
    for content in CORPUS[kind]:
        assert fuzz.finding(target, content) == "", content[:200]


@pytest.mark.parametrize("kind", CORPUS)
def test_a_few_new_inputs_end_in_order(kind: str, targets: dict[str, fuzz.Target]) -> None:
    found: list[tuple[bytes, str]] = []
    assert fuzz.fuzz(targets[kind], 4, 0, lambda content, told: found.append((content, told))) > 0
    assert found == []


def test_a_traceback_would_be_found(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": 1}')
    broken = fuzz.Target(path, partial(lambda: json.loads(path.read_text())["a"] + 1), json=True)
    assert "KeyError" in fuzz.finding(broken, b"{}")
    assert "JSONDecodeError" in fuzz.finding(broken, b"{")
    assert fuzz.finding(broken, b'{"a": 2}') == ""
    assert path.read_text() == '{"a": 1}'


LONG = "x" * 5000
COMMANDS = [
    f"report {LONG}",
    f"report {'x/' * 2000}y",
    f"run --method ft --suite ./{LONG}",
    f"run --method {LONG}.py --suite tiny",
    f"run --method ft --suite {LONG}",
    f"new suite {LONG}",
    f"data check {LONG}",
    f"data check ./{LONG}.toml",
    f"run --method ft --suite shapes --out {LONG}",
    f"run --config {LONG}",
    f"compare {LONG}",
    f"leaderboard add {LONG}",
    f"leaderboard verify --root {LONG}",
    f"run --method ft --suite shapes --model local-dir:{LONG}",
    f"run --method ft --suite shapes --set lr={DIGITS}",
]


@pytest.mark.parametrize("words", COMMANDS, ids=range(len(COMMANDS)))
@pytest.mark.usefixtures("shelves")
def test_flags_that_no_system_takes_are_one_line(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, words.split(" "))
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code in (1, 2)
    told = [line for line in done.output.splitlines() if line.startswith("rbft: ")]
    assert len(told) == 1
    assert len(told[0]) < 1100
    assert not list(tmp_path.iterdir())


def test_a_sign_that_the_terminal_lacks_is_no_traceback(tmp_path: Path) -> None:
    made.write(tmp_path, made.World(skills={"ft": (1.0, 0.1)}, n=20))
    words = [sys.executable, "-m", "robustbench_ft", "report", str(tmp_path)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert b" ? " in done.stdout  # where a plus-minus belongs


def test_an_empty_file_of_weights_is_named(tmp_path: Path) -> None:
    (tmp_path / "w.pt").touch()
    with pytest.raises(RbftError, match=r"w\.pt is empty; copy or download it again"):
        model_ref.resolve("ViT-B-32", str(tmp_path / "w.pt"))


def test_the_same_seed_tries_the_same_inputs(targets: dict[str, fuzz.Target]) -> None:
    tried: list[list[bytes]] = [[], []]
    for seen in tried:
        target = targets["--set"]
        fuzz.fuzz(
            replace(target, read=partial(lambda to, path: to.append(path.read_bytes()), seen, target.path)), 5, 3, print
        )
    assert tried[0] == tried[1] != []


def test_a_model_that_knows_fewer_words_than_its_tokenizer_is_one_line(targets: dict[str, fuzz.Target]) -> None:
    target = targets["model configuration"]
    content = json.loads(target.whole)
    content["rbft"]["tokenizer"] = None
    assert fuzz.finding(target, json.dumps(content).encode()) == ""
    target_whole = target.whole
    target.path.write_text(json.dumps(content))
    try:
        with pytest.raises(RbftError, match="its tokenizer is CLIP's, of 49,408 tokens, and its model knows 11"):
            target.read()
    finally:
        target.path.write_bytes(target_whole)


@pytest.mark.parametrize("key", ["value", "half_width", "se"])
def test_a_number_that_no_float_holds_is_one_line_in_a_claim(key: str, targets: dict[str, fuzz.Target]) -> None:
    """Among the numbers of its results; found by fuzzing."""
    target = targets["claim"]
    content = json.loads(target.whole)
    places = [place for place in fuzz.places_of(content["results"]) if place and place[-1] == key]
    *above, last = places[0]
    holder = content["results"]
    for name in above:
        holder = holder[name]
    holder[last] = 10**400
    assert fuzz.finding(target, json.dumps(content).encode()) == ""


def test_what_a_user_typed_breaks_no_line() -> None:
    assert str(RbftError("--set lr=3\n4\x1b[2J: no number")) == r"--set lr=3\n4\x1b[2J: no number"
    assert PlanError(["a\u2028b", "c"]).problems == (r"a\u2028b", "c")
