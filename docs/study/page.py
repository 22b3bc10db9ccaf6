"""Writes docs/study.md, the seed paper's questions on the embedded suites, from records alone.

bash docs/study.sh; bash docs/study/paper.sh
python docs/study/page.py --many runs/many --tuning runs/tuning --paper runs/paper

Each table is a file of docs/study/blocks, so that one of them can be made again without the records of the others.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

HERE = Path(__file__).parent
TEMPLATE, BLOCKS, PAGE = HERE / "page.md.in", HERE / "blocks", HERE.parent / "study.md"
SUITES = ("digits", "shapes")
COMPARED = ("zero-shot", "ft", "lp-ft", "ema", "l2-sp", "kd", "car-ft", "wise-ft", "flyp", "lipsum")
SUFFIX = ".md.part"  # no page of its own
RULES = {"best": "the best on ID validation", "one-se": "the smallest rate within one standard error of it"}
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


def tuned(folder: Path) -> str:
    """What two rules choose for each method, over the fresh seeds of a search: a table for each rule."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    entrants = {e["method"]: e for e in reversed(report["entrants"]) if e["method"] in COMPARED}  # headlines come first
    parts: list[str] = []
    for rule, title in RULES.items():
        folders: list[Path] = []
        for entrant in entrants.values():
            trial = entrant["trials"][entrant["chosen"][rule]["trial"] if entrant["tuned"] else 0]
            place = folder.parents[2] / trial["folders"][0]
            folders += [place.parent / f"seed-{k}" for k in report["fresh"]["seeds"]] if entrant["tuned"] else [place]
        found = compared(folders, "lipsum")
        parts += [f"### {report['suite']}, {title}", table(found)]
        parts.append(resolved(found, [row["name"] for row in found["rows"]]))
    return "\n\n".join(parts)


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
@click.option("--many", type=click.Path(path_type=Path, exists=True), help="Records of every method at one rate.")
@click.option("--tuning", type=click.Path(path_type=Path, exists=True), help="Records of `rbft tune --fresh-seeds`.")
@click.option("--paper", type=click.Path(path_type=Path, exists=True), help="Records of docs/study/paper.sh.")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if the page is not what template and tables make.")
def main(many: Path | None, tuning: Path | None, paper: Path | None, check: bool) -> None:
    """Make the tables whose records are named again, then write docs/study.md from the template and all tables."""
    if check:
        sys.exit(PAGE.read_text(encoding="utf-8") != assembled())
    made = {"correlations": correlations()}
    if many:
        made["eight"] = eight(many)
    if tuning:
        searched = [found for suite in SUITES for found in sorted((tuning / suite).glob("embedded/tuning-*"))]
        made["tuned"] = "\n\n".join(map(tuned, searched))
    if paper:
        made |= {"choices": choices(paper), "few": few(paper)}
    for name, block in made.items():
        (BLOCKS / f"{name}{SUFFIX}").write_text(f"{block}\n", encoding="utf-8")
    PAGE.write_text(assembled(), encoding="utf-8")


def assembled() -> str:
    """The page: its template, with the tables in their places."""
    text = TEMPLATE.read_text(encoding="utf-8")
    for path in sorted(BLOCKS.glob(f"*{SUFFIX}")):
        mark = f"{{{{{path.name.removesuffix(SUFFIX)}}}}}"
        assert mark in text, path
        text = text.replace(mark, path.read_text(encoding="utf-8").removesuffix("\n"))
    assert "{{" not in text
    return text


if __name__ == "__main__":
    main()
