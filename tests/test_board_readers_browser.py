"""Pairs, classes, filters and permalinks in a real browser: Debian's Chromium through Playwright."""

from pathlib import Path
from typing import Any

import pytest
from test_board_browser import CHROMIUM, boards, browser, plain  # fixtures

__all__ = ["boards", "browser"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium binary here; on Debian: apt install chromium")
PAGES = ["shapes-v2", "shapes-v2-pairs", "shapes-v2-classes", "index"]


def opened(browser: Any, boards: Path, name: str, **options: Any) -> Any:
    """A page of the site, e.g. 'index' or 'shapes-v2#place', in a window of its own."""
    file, _, place = name.partition("#")
    page = browser.new_context(**options).new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto((boards / "site" / f"{file}.html").as_uri() + (f"#{place}" if place else ""))
    return page


def shown(page: Any, rows: str) -> list[str]:
    return [
        row.locator("th").inner_text().splitlines()[0].strip() for row in page.locator(rows).all() if row.is_visible()
    ]


def test_filters_leave_the_rows_that_pass_in_tables_legend_and_figures(browser: Any, boards: Path) -> None:
    page = opened(browser, boards, "shapes-v2")
    rows = plain(boards)
    page.fill("input[data-most=parameters]", "0")
    free = [row["name"] for row in rows if row["cost"]["trained_parameters"] == 0]
    assert free == ["zero-shot"]
    assert shown(page, "#b0-main tbody tr") == free
    assert page.locator("form.filters output").inner_text() == f"1 of {len(rows)} rows"
    assert [label.inner_text().strip() for label in page.locator(".legend label").all() if label.is_visible()] == free
    marks = page.locator("#b0 g.mark")
    assert sum(mark.is_visible() for mark in marks.all()) == 1
    page.fill("input[data-most=parameters]", "")
    assert len(shown(page, "#b0-main tbody tr")) == len(rows)
    assert not page.errors


def test_a_switched_off_row_stays_off_whatever_is_filtered(browser: Any, boards: Path) -> None:
    page = opened(browser, boards, "shapes-v2")
    page.get_by_label("lipsum", exact=True).uncheck()
    page.fill("input[data-most=cost]", "1e9")
    names = shown(page, "#b0-main tbody tr")
    assert "lipsum" not in names
    assert "lp-ft" in names
    page.fill("input[data-most=cost]", "-1")
    assert not page.locator("section.board").is_visible()  # no row passes
    page.fill("input[data-most=cost]", "")
    assert shown(page, "#b0-main tbody tr") == names


def test_the_list_of_all_rows_is_filtered_by_backbone_and_suite(browser: Any) -> None:
    committed = Path(__file__).parent.parent / "leaderboards"
    page = opened(browser, committed, "index")
    every = len(shown(page, "#rows tbody tr"))
    page.select_option("select[data-filter=backbone]", "ViT-B/32 openai")
    kept = page.locator("#rows tbody tr:visible td:nth-child(3)").all_inner_texts()
    assert {text.strip() for text in kept} == {"ViT-B/32 openai"}
    assert 0 < len(kept) < every
    page.select_option("select[data-filter=suite]", "shapes-v2")
    assert shown(page, "#rows tbody tr") == []
    page.select_option("select[data-filter=backbone]", "")
    page.select_option("select[data-filter=protocol]", "clean")
    assert "lipsum" in shown(page, "#rows tbody tr")
    page.fill("input[data-most=cost]", "0.5")  # rows from papers do not say, and do not pass
    assert shown(page, "#rows tbody tr") == ["zero-shot"]
    assert not page.errors


def test_two_chosen_rows_are_shown_alone(browser: Any, boards: Path) -> None:
    page = opened(browser, boards, "shapes-v2-pairs")
    pairs = page.locator("details.pair")
    every = pairs.count()
    first, second = page.locator("form.chooser select").all()
    first.select_option(label="lipsum")
    visible = [pair for pair in pairs.all() if pair.is_visible()]
    assert len(visible) == len(plain(boards)) - 1
    assert all("lipsum" in pair.locator("summary").inner_text() for pair in visible)
    second.select_option(label="zero-shot")
    (only,) = [pair for pair in pairs.all() if pair.is_visible()]
    assert only.get_attribute("open") is not None
    assert only.locator("table").is_visible()
    assert only.locator("summary").inner_text().startswith("zero-shot beside lipsum")
    second.select_option(label="lipsum")
    assert page.locator("form.chooser output").inner_text() == "Twice the same row."
    first.select_option(label="any row")
    second.select_option(label="any row")
    assert sum(pair.is_visible() for pair in pairs.all()) == every
    assert not page.errors


def test_a_number_of_the_matrix_leads_to_its_pair_though_another_is_chosen(browser: Any, boards: Path) -> None:
    page = opened(browser, boards, "shapes-v2-pairs")
    page.locator("form.chooser select").first.select_option(label="lipsum")
    link = page.locator("table[id=b0-matrix] tbody tr", has_text="lp-ft").first.locator("td a").first
    link.click()
    place = page.url.partition("#")[2]
    folded = page.locator("details.pair", has=page.locator(f"[id='{place}']"))
    assert folded.get_attribute("open") is not None
    assert folded.locator("table").is_visible()


def test_a_link_to_a_pair_or_a_class_is_unfolded_when_it_is_opened(browser: Any, boards: Path) -> None:
    page = opened(browser, boards, "shapes-v2-classes#b0-c3")
    assert page.locator("#b0-c3 table").is_visible()
    assert not page.locator("#b0-c2 table").is_visible()


def test_a_permalink_marks_its_row(browser: Any, boards: Path) -> None:
    page = opened(browser, boards, "shapes-v2")
    row = page.locator("#b0-main tbody tr", has_text="lipsum").first
    row.locator("a.permalink").click()
    assert page.url.endswith(f"#{row.get_attribute('id')}")
    marked = row.locator("td").first.evaluate("cell => getComputedStyle(cell).boxShadow")
    assert marked != "none"
    other = page.locator("#b0-main tbody tr", has_text="lp-ft").first.locator("td").first
    assert other.evaluate("cell => getComputedStyle(cell).boxShadow") == "none"


@pytest.mark.parametrize("name", PAGES)
def test_everything_can_be_read_without_scripts(browser: Any, boards: Path, name: str) -> None:
    page = opened(browser, boards, name, java_script_enabled=False)
    forms = page.locator("form.filters, form.chooser")
    assert not any(form.is_visible() for form in forms.all())  # what would do nothing is not there
    assert "untick" not in page.locator("main").inner_text()
    for folded in page.locator("details").all()[:3]:
        assert not folded.locator("table, pre").first.is_visible()
        folded.locator("summary").click()
        assert folded.locator("table, pre").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["shapes-v2-pairs", "shapes-v2-classes"])
def test_nothing_overflows_a_phone_though_all_is_unfolded(browser: Any, boards: Path, name: str, scheme: str) -> None:
    page = opened(browser, boards, name, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert all(box.bounding_box()["width"] <= 390 for box in page.locator(".scroll").all())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_tint_leaves_numbers_readable(browser: Any, boards: Path, scheme: str) -> None:
    """Contrast of ink on the strongest tint, by WCAG 2 at least 4.5."""
    page = opened(browser, boards, "shapes-v2-classes", color_scheme=scheme)
    ratio = page.evaluate(
        """() => {
          const canvas = document.createElement("canvas").getContext("2d");
          const light = (...colours) => {
            canvas.clearRect(0, 0, 1, 1);
            for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
            const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
              .map((v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
            return .2126 * r + .7152 * g + .0722 * b;
          };
          const paper = getComputedStyle(document.body).backgroundColor;
          const ratios = [...document.querySelectorAll("td.heat")].map((cell) => {
            const style = getComputedStyle(cell);
            const [a, b] = [light(style.color), light(paper, style.backgroundColor)].sort((x, y) => y - x);
            return (a + .05) / (b + .05);
          });
          return Math.min(...ratios);
        }"""
    )
    assert ratio >= 4.5
