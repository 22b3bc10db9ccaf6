"""The page in a real browser: Debian's Chromium through Playwright."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made
import pytest

from robustbench_ft.board import build
from robustbench_ft.claims import claim_store
from robustbench_ft.claims.schema import Trust

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
NAMES = ("zero-shot", "ft", "wise-ft", "lipsum", "lp-ft")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium binary here; on Debian: apt install chromium")


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser")
    runs = made.write(root / "runs", made.World(skills={name: made.SKILLS[name] for name in NAMES}, n=150))
    made.write(root / "runs", made.World(skills={"ft": (1.0, 0.4)}, n=150, lr=1e-5, seeds=(0,)))
    claim_store.add([runs], root / "boards", Trust("rerun"))
    build.write(root / "boards", build.files(root / "boards"))
    return root / "boards"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install playwright")
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Any, boards: Path) -> Iterator[Any]:
    """The shapes page; an error in its script fails the test."""
    errors: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.goto((boards / "site" / "shapes-v2.html").as_uri())
    yield opened
    context.close()
    assert not errors


def names(page: Any, body: int = 1) -> list[str]:
    """Row names of one part of the main table: the reference, ranked rows, rows without a claim."""
    return [cell.strip() for cell in page.locator(f"#b0-main tbody >> nth={body}").locator("th").all_inner_texts()]


def plain(boards: Path) -> list[dict[str, Any]]:
    return json.loads((boards / "shapes-v2.json").read_text())[0]["rows"]


def test_a_click_sorts_a_column_and_another_turns_it_round(page: Any, boards: Path) -> None:
    ranked = [row for row in plain(boards) if row["ranked"] and not row["reference"]]
    assert names(page, body=0) == ["zero-shot\nreference"]
    assert names(page) == [row["name"] for row in ranked]
    by_id = sorted(ranked, key=lambda row: -row["accuracy"]["ID"]["value"])
    head = page.locator("#b0-main thead th", has_text="ID, %")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert names(page) == [row["name"] for row in by_id]
    head.locator("button").click()
    assert names(page) == [row["name"] for row in reversed(by_id)]
    assert names(page, body=0) == ["zero-shot\nreference"]  # whatever it is sorted by
    assert names(page, body=2)[-1] == "ft (lr=1e-05)\n1 seed, no claim"  # never among the ranked


def test_missing_values_stay_last_whichever_way(page: Any) -> None:
    column = page.locator("#b0-main thead th").all_inner_texts().index("gain at equal ID, points")
    button = page.locator("#b0-main thead th").nth(column).locator("button")
    for _ in range(2):
        button.click()
        shown = (
            page.locator("#b0-main tbody >> nth=1")
            .locator("tr")
            .evaluate_all(f"rows => rows.map(row => row.cells[{column}].textContent)")
        )
        holes = [value == "—" for value in shown]
        assert holes == sorted(holes)
        assert any(holes)


def test_a_switch_hides_a_row_in_tables_and_figures(page: Any, boards: Path) -> None:
    name = "lipsum"
    key = page.locator("#b0-main tbody tr", has_text=name).first.get_attribute("data-row")
    parts = page.locator(f'#b0 [data-row="{key}"]')
    drawn = page.locator(f'#b0 g.series[data-row="{key}"]')
    assert parts.count() == 5 + drawn.count()  # five tables
    assert drawn.count() >= 8
    page.get_by_label(name).uncheck()
    assert not any(part.is_visible() for part in parts.all())
    assert page.locator("#b0-main tbody tr", has_text="zero-shot").first.is_visible()
    page.get_by_label(name).check()
    assert page.locator("#b0-main tbody tr", has_text=name).first.is_visible()
    assert drawn.first.evaluate("part => getComputedStyle(part).display") != "none"


def test_the_numbers_of_the_page_are_those_of_the_json(page: Any, boards: Path) -> None:
    heads = page.locator("#b0-main thead th").all_inner_texts()
    for row in plain(boards):
        cells = page.locator("#b0-main tbody tr", has=page.get_by_role("rowheader", name=row["name"])).first
        values = cells.evaluate("row => [...row.cells].map(cell => cell.dataset.sort ?? null)")
        texts = cells.evaluate("row => [...row.cells].map(cell => cell.textContent.trim())")
        for column, head in {"mean OOD": "mean OOD, %", "ID": "ID, %", "sketch": "sketch"}.items():
            found, k = row["accuracy"][column], heads.index(head)
            assert float(values[k]) == pytest.approx(found["value"], rel=1e-8)
            assert texts[k].startswith(f"{100 * found['value']:.1f}")
        assert texts[heads.index("letters")] == (row["letters"] or "—")


def test_the_scatter_shows_every_row_where_its_numbers_are(page: Any, boards: Path) -> None:
    rows = plain(boards)
    places = page.evaluate(
        """() => {
          const found = {};
          for (const part of document.querySelectorAll('#b0 figure:first-of-type g.mark')) {
            const place = part.firstElementChild.transform.baseVal[0].matrix;
            found[part.dataset.row] = [place.e, place.f];
          }
          return found;
        }"""
    )
    assert len(places) == len(rows)
    xs = [places[f"r{k}"][0] for k in range(len(rows))]
    ys = [places[f"r{k}"][1] for k in range(len(rows))]
    by_id = sorted(range(len(rows)), key=lambda k: rows[k]["accuracy"]["ID"]["value"])
    by_ood = sorted(range(len(rows)), key=lambda k: -rows[k]["accuracy"]["mean OOD"]["value"])
    assert [xs[k] for k in by_id] == sorted(xs)
    assert [ys[k] for k in by_ood] == sorted(ys)  # up is small y
    first, last = by_id[0], by_id[-1]
    scale = (xs[last] - xs[first]) / (rows[last]["accuracy"]["ID"]["value"] - rows[first]["accuracy"]["ID"]["value"])
    for k in by_id:
        expected = xs[first] + scale * (rows[k]["accuracy"]["ID"]["value"] - rows[first]["accuracy"]["ID"]["value"])
        assert xs[k] == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["shapes-v2", "index"])
def test_nothing_overflows_a_phone(browser: Any, boards: Path, name: str, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    page.goto((boards / "site" / f"{name}.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for svg in page.locator("svg").all():
        assert svg.bounding_box()["width"] <= 390
    for box in page.locator(".scroll").all():  # tables scroll in their own box
        assert box.bounding_box()["width"] <= 390
    paper, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    brightness = {name: sum(map(int, value[4:-1].split(","))) for name, value in (("paper", paper), ("ink", ink))}
    assert (brightness["paper"] > brightness["ink"]) == (scheme == "light")
    context.close()


def test_without_scripts_everything_is_there(browser: Any, boards: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((boards / "site" / "shapes-v2.html").as_uri())
    assert page.locator("#b0-main tbody tr").count() == len(plain(boards))
    assert page.locator("figure svg").count() == 4
    assert not page.locator(".legend input").first.is_visible()  # a switch that would do nothing
    assert not page.locator("th button").count()
    context.close()
