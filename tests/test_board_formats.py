"""Boards in the forms of others: valid there, and with the numbers of the claims."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from robustbench_ft.board import formats
from robustbench_ft.claims import claim_store
from robustbench_ft.cli.main import main

ROOT = Path(__file__).parent.parent
BOARDS = ROOT / "leaderboards"
SCHEMA = json.loads((ROOT / "tests" / "schemas" / "every_eval_ever.schema.json").read_text())
PATH = r"data/[^/]+/[^/]+/[^/]+/[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\.json"


@pytest.fixture(scope="module")
def records() -> dict[str, Any]:
    made = formats.files(BOARDS, "every-eval-ever", None, 1_700_000_000)
    return {name: json.loads(text) for name, text in made.items()}


def test_records_are_valid_where_they_go(records: dict[str, Any]) -> None:
    import re

    validator: Any = jsonschema.Draft7Validator(SCHEMA)
    assert SCHEMA["version"] == formats.SCHEMA
    assert [error.message for record in records.values() for error in validator.iter_errors(record)] == []
    assert [name for name in records if not re.fullmatch(PATH, name)] == []
    assert len({record["evaluation_id"] for record in records.values()}) == len(records)
    broken = json.loads(json.dumps(next(iter(records.values()))))
    del broken["evaluation_results"][0]["score_details"]["score"]
    assert not validator.is_valid(broken)


def test_records_tell_the_numbers_of_the_claims(records: dict[str, Any]) -> None:
    claims = {one.place.file.as_posix(): one.claim for one in claim_store.find(BOARDS)}
    assert {r["source_metadata"]["additional_details"]["claim"] for r in records.values()} == set(claims)
    assert len(records) == sum(len(one.results.rows) for one in claims.values())
    for record in records.values():
        claim = claims[record["source_metadata"]["additional_details"]["claim"]]
        selection = record["model_info"]["additional_details"]["selection"]
        row = next(row for row in claim.results.rows if row.selection == selection)
        for result in record["evaluation_results"]:
            found = row.estimates["accuracy"][result["evaluation_name"].partition(": ")[2]]
            assert result["score_details"]["score"] == found.value
            assert result["score_details"]["uncertainty"]["confidence_interval"]["upper"] == found.high


def export(*words: object) -> Result:
    return CliRunner().invoke(main, ["leaderboard", "export", "--root", str(BOARDS), *map(str, words)])


@pytest.mark.parametrize(("form", "end"), [("csv", ".csv"), ("latex", ".tex")])
def test_tables_are_those_of_the_build(form: str, end: str, tmp_path: Path) -> None:
    done = export("--to", form, "--suite", "shapes", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    [path] = (tmp_path / "out").iterdir()
    assert path.read_bytes() == (BOARDS / f"shapes-v2{end}").read_bytes()


def test_a_data_set_names_its_tables(tmp_path: Path) -> None:
    from huggingface_hub import DatasetCard

    assert export("--to", "hf", "--out", tmp_path / "out", "--suite", "digits", "--dry-run").exit_code == 0
    assert not (tmp_path / "out").exists()
    assert export("--to", "hf", "--out", tmp_path / "out", "--suite", "digits").exit_code == 0
    card: Any = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data.to_dict()["configs"] == [{"config_name": "digits-v1", "data_files": "digits-v1.csv"}]
    assert (tmp_path / "out" / "digits-v1.csv").read_bytes() == (BOARDS / "digits-v1.csv").read_bytes()


def test_no_such_suite_is_one_line(tmp_path: Path) -> None:
    done = export("--to", "every-eval-ever", "--suite", "nothing", "--out", tmp_path / "out")
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
