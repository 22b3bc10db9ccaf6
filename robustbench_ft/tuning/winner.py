"""A chosen trial as a recipe file: all its settings, and where they come from. Torch-free.

`rbft run --recipe FILE` makes the very cell of the trial again.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

from robustbench_ft import __version__
from robustbench_ft.model_ref import ModelRef
from robustbench_ft.recipe import Recipe
from robustbench_ft.recipe_choice import METHOD, SETTINGS, TUNED

from .choose import RULES, Entrant
from .search import Search, Trial


def file_name(entrant: Entrant, rule: str) -> str:
    """'lipsum-best.toml'."""
    words = (entrant.method, *(() if entrant.headline else ("alpha-by-id-val",)), rule)
    return f"{'-'.join(words)}.toml"


def text(search: Search, entrant: Entrant, rule: str) -> str:
    """The content of the file."""
    outcome = entrant.chosen(rule)
    trial, cell = outcome.trial, outcome.trial.cell
    name = file_name(entrant, rule)
    lines = [
        f"# {entrant.name} on {cell.suite}: {RULES[rule].name} of {len(entrant.outcomes)} random trials.",
        f"# {command(trial, name)}",
        f"{METHOD} = {_value(cell.method)}",
    ]
    if cell.recipe is not None:
        lines += _lines(asdict(Recipe(**cell.recipe)))
    lines += ["", f"[{SETTINGS}]", *_lines(cell.settings)]
    candidates = dict.fromkeys(candidate for _, candidate in outcome.runs)
    lines += ["", f"[{TUNED}]  # where this comes from; nothing below is read"]
    lines += _lines({
        "by": "rbft tune", "rbft": __version__, "suite": cell.suite, "suite_version": cell.suite_version,
        "model": cell.model.label, "weights": cell.model.weights, "protocol": cell.protocol,
        "precision": cell.precision, "seeds": [c.seed for c in outcome.trial.cells], "rule": RULES[rule].name,
        "tuning_seed": search.tuning_seed, "trials": len(entrant.outcomes), "trial": outcome.trial.index,
        "id_val": outcome.setting.accuracy, "candidates": list(candidates), "digest": cell.digest,
        "trial_digests": [other.trial.cell.digest for other in entrant.outcomes],
    })  # fmt: skip
    lines += ["", f"[{TUNED}.ranges]", *_lines({s: space.text for s, space in outcome.trial.spaces.items()})]
    return "\n".join(lines) + "\n"


def command(trial: Trial, file: str, seeds: str = "") -> str:
    """The command that runs the trial from its file, with its own seed or with others."""
    cell = trial.cell
    words = ["rbft", "run", "--recipe", file, "--suite", trial.suite.reference, *_model(cell.model)]
    words += ["--seeds", seeds or str(cell.seed)] if seeds or cell.seed else []
    words += ["--protocol", cell.protocol] if cell.protocol != "clean" else []
    words += ["--allow-partial"] if cell.partial else []
    return shlex.join([*words, "--precision", cell.precision])


def _model(ref: ModelRef) -> list[str]:
    return ["--model", ref.name, *(["--pretrained", ref.pretrained] if ref.pretrained else [])]


def _lines(values: Mapping[str, Any]) -> list[str]:
    """Lines of TOML, whose strings, numbers and lists are written as JSON writes them; it has no null."""
    return [f"{_key(key)} = {_value(value)}" for key, value in values.items() if value is not None]


def _key(key: str) -> str:
    return key if key.isidentifier() and key.isascii() else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(_lines(cast(Mapping[str, Any], value))) + "}"
    return json.dumps(value, allow_nan=False, ensure_ascii=False)
