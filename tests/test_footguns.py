"""docs/footguns.md: each message stands in the source as the page has it, and each test that is named is there."""

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest
from torch import nn

from robustbench_ft import clip as clips
from robustbench_ft import model_ref
from robustbench_ft.devices import Devices
from robustbench_ft.errors import RbftError

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "footguns.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip(" ") for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| trap")
]


@lru_cache
def printed() -> tuple[str, ...]:
    """Every text of the source, with '...' where a value is put in."""
    found: list[str] = []
    for path in sorted((ROOT / "robustbench_ft").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [str(p.value) if isinstance(p, ast.Constant) else "..." for p in node.values]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def stands_in_the_source(message: str) -> bool:
    """Whether one text holds the pieces of a message in their order."""
    pattern = re.compile(".*?".join(re.escape(piece) for piece in message.split("...")), re.DOTALL)
    return any(pattern.search(text) for text in printed())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_its_message_is_printed_and_its_test_is_there(row: list[str]) -> None:
    _, says, test = row
    message = re.findall(r"`([^`]+)`", says)[0]
    assert stands_in_the_source(message), message
    file, _, name = test.strip("`").partition("::")
    functions = [
        n.name for n in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))) if isinstance(n, ast.FunctionDef)
    ]
    assert name in functions, test


def test_a_message_that_nobody_prints_would_be_noticed() -> None:
    assert len(ROWS) > 20
    assert not stands_in_the_source("the embedded model does not know the verb ")
    assert not stands_in_the_source("Recipes differ: ... share one recipe")


def test_a_batch_in_parts_is_refused_where_normalisation_sees_the_batch(tiny_model: str) -> None:
    clip = clips.load(model_ref.resolve(tiny_model, None))
    Devices(micro_batch=4).prepare(clip)
    clip.model.visual.extra = nn.BatchNorm2d(3)
    Devices().prepare(clip)
    with pytest.raises(RbftError, match="--micro-batch: this model has batch normalisation"):
        Devices(micro_batch=4).prepare(clip)
