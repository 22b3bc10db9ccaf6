"""The pages in docs/: numbers are computed, sections that the code cites exist, and the index is whole."""

import ast
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from robustbench_ft.stats import bootstrap, lines, macro_f1, power, ranks, seeds, worst_group

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))
import worked  # noqa: E402  # pyright: ignore[reportMissingImports]

SOURCES = [*sorted((ROOT / "robustbench_ft").rglob("*.py")), *sorted((ROOT / "methods").glob("*.py"))]
CITED = re.compile(r"docs/statistics\.md, '([^']+)'")


def test_the_tables_of_the_statistics_page_are_computed() -> None:
    page = worked.PAGE.read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- worked: (\S+) -->", page)) == set(worked.BLOCKS)
    assert worked.filled(page) == page


def test_a_number_typed_into_them_would_be_noticed() -> None:
    page = worked.PAGE.read_text(encoding="utf-8")
    half = page.index("half-width, points |") + len("half-width, points | ")
    assert worked.filled(page[:half] + "9" + page[half + 1 :]) == page


def test_the_worked_difference_is_the_boards() -> None:
    (board,) = json.loads((ROOT / "leaderboards" / "shapes-v2.json").read_text(encoding="utf-8"))
    row = next(row for row in board["rows"] if row["claim"].endswith(f"{worked.A}.json"))
    base = next(row for row in board["rows"] if row["claim"].endswith(f"{worked.B}.json"))
    assert base["name"] == board["baseline"]
    found, shown = worked.difference(worked.correct(worked.A), worked.correct(worked.B)), row["against_baseline"]
    names = {"value": "value", "half_width": "half_width", "se": "se", "df": "df", "p": "p", "v_seed": "v_seed",
             "v_ex": "v_examples"}  # fmt: skip
    for ours, theirs in names.items():
        assert found[ours] == pytest.approx(shown[theirs], rel=1e-7), ours
    tested = sorted(r["against_baseline"]["p"] for r in board["rows"] if r["against_baseline"])
    place = tested.index(shown["p"])  # Holm's step-down
    assert row["p_adjusted"] == pytest.approx((len(tested) - place) * found["p"], rel=1e-7)
    assert (len(tested) - place, place, len(tested)) == (5, 2, 7)  # "times 5, as the third smallest p of seven"
    assert found["v_seed"] > found["v_ex"]
    assert np.sqrt(found["v_ex"]) < found["se"] * 2 / 3


def test_every_section_that_the_code_cites_exists() -> None:
    page = worked.PAGE.read_text(encoding="utf-8")
    sections = set(re.findall(r"^## (.+)$", page, re.MULTILINE))
    cited = {name: path for path in SOURCES for name in CITED.findall(path.read_text(encoding="utf-8"))}
    assert len(cited) > 5
    assert set(cited) <= sections, set(cited) - sections


def test_no_docstring_cites_a_document_that_is_elsewhere() -> None:
    for path in SOURCES:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert "statistics.md" not in line or "docs/statistics.md, '" in line, (path, line)
            assert not re.search(r"\([1-5]\.1?\d\)", line), (path, line)


def test_docstrings_name_what_is_returned_or_done() -> None:
    """A docstring starts with a verb or a noun, not with the rest of a sentence ("Of scores", "As `mean`")."""
    odd: list[str] = []
    for package in ("stats", "metrics", "compare", "claims", "board", "doctor", "custom", "images", "pixels"):
        for path in sorted((ROOT / "robustbench_ft" / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    text = ast.get_docstring(node) or ""
                    if text.split(" ", 1)[0] in ("Of", "As"):
                        odd.append(f"{path.relative_to(ROOT)}: {text.splitlines()[0]}")
    assert not odd, odd


def test_the_index_names_every_page() -> None:
    linked = set(re.findall(r"\]\(([^)#:]+)\)", (DOCS / "index.md").read_text(encoding="utf-8")))
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {"index.md"}
    of_methods = {page for page in pages if page.startswith("methods/")}  # linked by the index there
    assert linked - {"../README.md"} == (pages - of_methods) | {"methods/index.md"}


def test_numbers_in_its_prose_are_those_of_the_code() -> None:
    page = re.sub(r"\s+", " ", worked.PAGE.read_text(encoding="utf-8"))
    low, high = seeds.sd_interval(1.0, 3)
    assert f"to a factor of {low:.2f} to {high:.2f} only" in page
    least = [f"{seeds.minimum_p_unpaired(n):.2g}".lstrip("0") for n in (3, 4, 5)]
    assert least == [".1", ".029", ".0079"]
    assert ".10 for three, .029 for four, .0079 for five" in page
    assert f"2/2⁵ = {seeds.minimum_p_paired(5):.4f}".replace("0.", ".") in page
    assert f"The floor {power.example_floor(power.Design(0.0, 1.0)):.1f} √(ψ/n)" in page
    assert f"a kink at ID {lines.PIVOT}".replace("0.", ".") in page
    assert f"fewer than {bootstrap.RARE} right or wrong answers" in page
    assert f"({ranks.DRAWS:,} draws)" in page
    assert f"({ranks.EXACT_DRAWS:,} draws)" in page
    assert f"{macro_f1.DRAWS:,} resamples" in page
    assert macro_f1.DRAWS == worst_group.DRAWS
    study = worked.STUDY.read_text(encoding="utf-8")
    near = next(line for line in study.splitlines() if line.startswith("| S = 3, sd 1 pt; S = 4, sd 0.1 pt |"))
    assert f"reject in about {100 * float(near.split('|')[3]):.0f} %" in page


PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "leaderboards").glob("*.md")]


def test_every_relative_link_of_every_page_leads_somewhere() -> None:
    links = [(page, link) for page in PAGES for link in LINK.findall(page.read_text(encoding="utf-8"))]
    assert len(links) > 100
    broken = [f"{page.relative_to(ROOT)}: {link}" for page, link in links if not (page.parent / link).exists()]
    assert broken == []


LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)(?:#[^)]*)?\)")


def test_the_version_is_the_same_everywhere() -> None:
    version = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    cited = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert version == cited
    assert f"## {version[0]}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
