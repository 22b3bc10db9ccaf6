"""The published JSON Schema takes every committed claim and refuses what the reader refuses."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from robustbench_ft.claims.schema import read_claim
from robustbench_ft.cli.main import main
from robustbench_ft.errors import RbftError

BOARDS = Path(__file__).parent.parent / "leaderboards"
CLAIMS = sorted(BOARDS.glob("*/embedded/*.json"))


@pytest.fixture(scope="module")
def validator() -> Any:
    done = CliRunner().invoke(main, ["leaderboard", "schema"])
    assert done.exit_code == 0
    schema = json.loads(done.output)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", CLAIMS, ids=lambda path: path.stem)
def test_committed_claims_are_taken(path: Path, validator: Any) -> None:
    content = json.loads(path.read_text())
    assert [error.message for error in validator.iter_errors(content)] == []
    read_claim(content, path)


WRONG: dict[str, tuple[Callable[[Any], object], str]] = {
    "a field of the claim": (lambda c: c.update(authors="me"), "authors"),
    "a field inside": (lambda c: c["identity"].update(mehtod="ft"), "identity.mehtod"),
    "a field in a list": (lambda c: c["runs"][0].update(accuracy=0.9), "runs[0].accuracy"),
    "a field of an estimate": (
        lambda c: c["results"]["rows"][0]["estimates"]["accuracy"]["ID"].update(medium=2.0),
        "results.rows[0].estimates.accuracy.ID.medium",
    ),
    "another schema": (lambda c: c.update(schema=99), "schema 99"),
    "a text for a number": (lambda c: c["results"]["curve"] or c["training"].update(candidates="one"), "candidates"),
    "no such level": (lambda c: c["trust"].update(verified="retrained"), "trust.verified"),
    "a lost field": (lambda c: c["identity"].pop("weights"), "identity.weights"),
    "no seed": (lambda c: c["training"].update(seeds=[]), "training.seeds"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_the_reader_refuses_the_schema_refuses(kind: str, validator: Any) -> None:
    edit, says = WRONG[kind]
    path = next(path for path in CLAIMS if path.stem.startswith("ft-"))
    content = copy.deepcopy(json.loads(path.read_text()))
    edit(content)
    assert not validator.is_valid(content)
    with pytest.raises(RbftError) as caught:
        read_claim(content, path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
