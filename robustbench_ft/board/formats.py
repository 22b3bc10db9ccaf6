"""Boards in the forms of others: CSV and LaTeX as `build` makes them, Every Eval Ever, a data set for Hugging Face.

Every Eval Ever: evaleval/every_eval_ever@9bce413, every_eval_ever/schemas/eval.schema.json, version 0.3.0.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from robustbench_ft import metrics
from robustbench_ft.claims import claim, claim_store
from robustbench_ft.claims.claim_store import StoredClaim
from robustbench_ft.claims.schema import RowResult
from robustbench_ft.compare.load import LOWER_IS_BETTER, OFFICIAL
from robustbench_ft.errors import RbftError
from robustbench_ft.metrics import ACCURACY
from robustbench_ft.stats import Estimate

from . import build
from .ranking import card_of

Form = Literal["csv", "latex", "every-eval-ever", "hf"]
SCHEMA = "0.3.0"
OWNER = "robustbench_ft"
ENDS = {"csv": ".csv", "latex": ".tex", "hf": ".csv"}


def files(root: Path, form: Form, suite: str | None, when: int) -> dict[str, str]:
    """Path -> content. `when` is Unix time, which records of Every Eval Ever state."""
    if form == "every-eval-ever":
        found = claim_store.find(root, suite)
        build.check_sound(found)
        made = dict(one for stored in found for one in _records(stored, when).items())
    else:
        made = {name: text for name, text in build.files(root, suite).items() if name.endswith(ENDS[form])}
    if not made:
        raise RbftError(f"no claim{f' on {suite}' if suite else ''} under {root}; make one with `rbft leaderboard add`")
    return made | ({"README.md": _dataset_card(made)} if form == "hf" else {})


def _dataset_card(tables: Mapping[str, str]) -> str:
    configs = "".join(f"- config_name: {Path(name).stem}\n  data_files: {name}\n" for name in sorted(tables))
    title, tags = "Boards of robustbench_ft", f"- {OWNER}\n- robust-fine-tuning\n"
    return (
        f"---\npretty_name: {title}\ntags:\n{tags}configs:\n{configs}---\n\n# {title}\n\n"
        "One table for each suite version, a line for each row and column: `value` by the column's official metric, "
        "`low` and `high` the 95 % interval over seeds and images, ranks and letters over all rows of a board. `rows` "
        "has one line for every row of all of them, with rows from papers as printed. Made from claims by "
        "`rbft leaderboard export --to hf`.\n"
    )


def _records(one: StoredClaim, when: int) -> dict[str, str]:
    """A record for each row of a claim: a family has one for each rule by which its alpha is chosen."""
    return dict(_record(one, row, when) for row in one.claim.results.rows)


def _record(one: StoredClaim, row: RowResult, when: int) -> tuple[str, str]:
    identity, trust = one.claim.identity, one.claim.trust
    model = _plain(f"{one.place.model}-{one.place.name}-{row.selection}")
    collection = _plain(f"{OWNER}-{one.place.suite}")
    name = f"{OWNER}/{model}"
    content = {
        "schema_version": SCHEMA,
        "evaluation_id": f"{collection}/{name}/{when}",
        "retrieved_timestamp": str(when),
        "source_metadata": {
            "source_name": f"{OWNER} leaderboard, {one.place.suite}", "source_type": "evaluation_run",
            "source_organization_name": trust.by or OWNER,
            "evaluator_relationship": "third_party" if trust.origin == "rerun" else "other",
            "additional_details": {
                "claim": one.place.file.as_posix(), "claim_sha256": claim.digest(one.raw), "verified": trust.verified,
            },
        },
        "eval_library": {"name": OWNER, "version": one.claim.runs[0].environment.rbft or "unknown"},
        "model_info": {
            "name": f"{identity.model} {identity.method}", "id": name, "additional_details": _model(one, row),
        },
        "evaluation_results": [_result(one, row, column) for column in one.claim.results.columns if column != "ID val"],
    }  # fmt: skip
    digest = hashlib.sha256(f"{collection}/{model}".encode()).digest()
    path = f"data/{collection}/{OWNER}/{model}/{uuid.UUID(bytes=digest[:16], version=4)}.json"
    return path, json.dumps(content, indent=2, sort_keys=True) + "\n"


def _model(one: StoredClaim, row: RowResult) -> dict[str, str]:
    identity, training = one.claim.identity, one.claim.training
    return {
        "deployment_type": "self_deployed", "model_availability": "unknown", "method": identity.method,
        "method_version": str(identity.method_version), "pretrained": identity.pretrained,
        "pretrained_weights_sha256": identity.weights, "protocol": identity.protocol, "selection": row.selection,
        "settings": json.dumps(training.settings, sort_keys=True),
        "recipe": json.dumps(training.recipe, sort_keys=True),
        "seeds": ", ".join(map(str, training.seeds)),
    }  # fmt: skip


def _result(one: StoredClaim, row: RowResult, column: str) -> dict[str, Any]:
    splits = one.claim.results.columns[column]
    summary = one.runs[0].summary
    kinds = {summary.official_of(split) for split in splits}
    metric = kinds.pop() if len(kinds) == 1 else OFFICIAL
    title = metrics.title_of(metric) if metric != OFFICIAL else "mean of the test sets' official metrics"
    estimate = row.estimates.get(OFFICIAL, row.estimates[ACCURACY])[column]
    card = card_of(one.claim.identity.suite)
    about = {"licence": card.licence, "home": card.home, "paper": card.paper} if card else {}
    return {
        "evaluation_result_id": f"{one.place.name}/{row.selection}/{column}",
        "evaluation_name": f"{one.place.suite}: {column}",
        "source_data": {
            "dataset_name": f"{one.place.suite}: {', '.join(splits)}", "source_type": "other",
            "additional_details": about,
        },
        "metric_config": {
            "metric_id": metric, "metric_name": title, "metric_unit": "proportion",
            "lower_is_better": metric in LOWER_IS_BETTER, "score_type": "continuous",
            "min_score": 0.0, "max_score": 1.0,
        },
        "score_details": _score(estimate, sum(one.claim.data.splits[split].n for split in splits)),
    }  # fmt: skip


def _score(found: Estimate, images: int) -> dict[str, Any]:
    how = "two-way t over training seeds and examples"
    return {
        "score": found.value,
        "details": {"training_seeds": str(found.seeds)},
        "uncertainty": {
            "standard_error": {"value": found.se, "method": how},
            "confidence_interval": {"lower": found.low, "upper": found.high, "confidence_level": 0.95, "method": how},
            "num_samples": images,
        },
    }


def _plain(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)
