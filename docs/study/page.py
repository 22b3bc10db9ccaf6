"""Writes docs/study.md, the seed paper's questions on the embedded suites, from records alone.

bash docs/study.sh; bash docs/study/paper.sh
python docs/study/page.py --many runs/many --tuning runs/tuning --paper runs/paper
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

HERE = Path(__file__).parent
SUITES = ("digits", "shapes")
COMPARED = ("zero-shot", "ft", "lp-ft", "ema", "l2-sp", "kd", "car-ft", "wise-ft", "flyp", "lipsum")
GAIN = "gain at equal ID"


def compared(folders: Sequence[Path], baseline: str) -> Any:
    """What `rbft compare` says of the rows in some folders, headlines only."""
    words = [sys.executable, "-m", "robustbench_ft", "compare", *map(str, folders)]
    done = subprocess.run(
        [*words, "--headlines", "--baseline", baseline, "--format", "json"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    [found] = json.loads(done.stdout)
    return found


def interval(cell: Mapping[str, Any]) -> str:
    """A difference in points, with half of its 95 % interval."""
    low, high = cell["interval"]
    return f"{100 * cell['value']:+.1f} ± {50 * (high - low):.1f}"


def table(found: Any, gain_too: bool = True) -> str:
    """A line for each row: accuracies, the difference to the baseline, and the gain at equal ID where that is asked."""
    differences = {cell["row"]: cell for cell in found["comparisons"]}
    gains = {one["row"]: one for one in found["matched_id"]["gains"]}
    head = ["row", "seeds", "ID", "mean OOD", f"mean OOD - {found['baseline']}", "adjusted p", *([GAIN] * gain_too)]
    lines = [f"| {' | '.join(head)} |", "|:--|" + "--:|" * (len(head) - 1)]
    for row in sorted(found["rows"], key=lambda row: -row["cells"]["mean OOD"]["value"]):
        accuracies = [100 * row["cells"][name]["value"] for name in ("ID", "mean OOD")]
        cell, gain = differences.get(row["name"]), gains.get(row["name"])
        apart = (interval(cell), p_text(cell["p_adjusted"])) if cell else ("", "")
        more = "—" if gain is None or not gain["gain"] else f"{100 * gain['gain']['value']:+.1f}"
        cells = [row["name"], str(row["cells"]["ID"]["S"]), *(f"{a:.1f}" for a in accuracies), *apart]
        lines.append(f"| {' | '.join([*cells, *([more] * gain_too)])} |")
    reference = found["matched_id"].get("reference") if gain_too else ""
    below = f"Gain: mean OOD above what `{reference}` has at the same ID accuracy, in points." if reference else ""
    return "\n".join([*lines, "", f"Family of {found['family_size']} comparisons, Holm. {below}".strip()])


def p_text(p: float) -> str:
    return "< .001" if p < 0.001 else f"{p:.3f}"


def resolved(found: Any, names: Sequence[str]) -> str:
    """Which of some rows differ from the baseline, in a sentence."""
    by = {cell["row"]: cell for cell in found["comparisons"] if cell["row"] in names}
    groups: dict[str, list[str]] = {"below": [], "above": [], "not resolved": []}
    for name, cell in by.items():
        sign = "below" if cell["value"] < 0 else "above"
        groups[sign if cell["p_adjusted"] < 0.05 else "not resolved"].append(name)
    said = [f"{what}: {', '.join(some)}" for what, some in groups.items() if some]
    return f"Beside {found['baseline']} ({'; '.join(said)})."


def tuned(folder: Path, names: Sequence[str]) -> str:
    """The trials that two rules choose, for each method: a table."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    lines = [
        "| method | trials | best ID val: lr | ID | mean OOD | smallest lr within one SE: lr | ID | mean OOD |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for entrant in report["entrants"]:
        if entrant["name"] in names and entrant["tuned"]:
            cells = [entrant["name"], str(len(entrant["trials"]))]
            for rule in ("best", "one-se"):
                trial = entrant["trials"][entrant["chosen"][rule]["trial"]]
                cells += [f"{trial['lr']:.2g}", f"{100 * trial['id']:.1f}", f"{100 * trial['mean_ood']:.1f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def correlations() -> str:
    """The tables of rank correlations of docs/results/diagnostics.md."""
    text = (HERE.parent / "results" / "diagnostics.md").read_text(encoding="utf-8")
    parts = [part for part in text.split("\n**") if part.startswith("Spearman's rank correlation with mean OOD")]
    return "\n\n".join("**" + "\n".join(part.split("\n\n")[0:1]) + "\n\n" + part.split("\n\n")[1] for part in parts)


def eight(many: Path) -> str:
    """The comparison set of the seed paper on both suites."""
    parts: list[str] = []
    for suite in SUITES:
        folders = [p for name in COMPARED for p in sorted((many / suite / "embedded").glob(f"{name}-[0-9a-f]*"))]
        found = compared([p for p in folders if p.name.rpartition("-")[0] in COMPARED], "lipsum")
        parts += [f"### {suite}", table(found), resolved(found, [row["name"] for row in found["rows"]])]
    return "\n\n".join(parts)


def choices(paper: Path) -> str:
    """Lipsum-FT with one setting changed at a time."""
    return table(compared([paper / "digits"], "lipsum"), gain_too=False)


def few(paper: Path) -> str:
    """Fewer images to learn from."""
    parts: list[str] = []
    for folder in sorted(paper.glob("digits+shots=*"), key=lambda path: int(path.name.rpartition("=")[2])):
        parts += [f"### {folder.name}", table(compared([folder], "lipsum"), gain_too=False)]
    return "\n\n".join(parts)


@click.command()
@click.option("--many", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--tuning", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--paper", type=click.Path(path_type=Path, exists=True), required=True)
def main(many: Path, tuning: Path, paper: Path) -> None:
    """Write docs/study.md."""
    text = (HERE / "page.md.in").read_text(encoding="utf-8")
    searched = [suite for suite in SUITES if list((tuning / suite).glob("embedded/*/report.json"))]
    winners = [
        f"### {suite}\n\n{tuned(next((tuning / suite).glob('embedded/tuning-*')), COMPARED)}" for suite in searched
    ]
    blocks = {
        "eight": eight(many), "tuned": "\n\n".join(winners), "choices": choices(paper), "few": few(paper),
        "correlations": correlations(),
    }  # fmt: skip
    for name, block in blocks.items():
        assert f"{{{{{name}}}}}" in text, name
        text = text.replace(f"{{{{{name}}}}}", block)
    (HERE.parent / "study.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
