"""The page in a real Chromium, driven by Playwright: what a reader on a screen, a phone or paper gets.

Skipped where there is no Chromium: ``apt install chromium``, or ``python -m playwright install chromium``.
"""

import base64
import io
import os
import shutil

import pandas as pd
import pytest

from mlpbench.report import write_report
from tests.unit.report.fabricate import Plan, fabricate

sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is missing: pip install -e .[dev]")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LEVEL_AA = 4.5  # WCAG 2.2, 1.4.3: text against its background


@pytest.fixture(scope="module")
def browser():
    installed = next((path for path in map(shutil.which, NAMES) if path), None)
    with sync_api.sync_playwright() as playwright:
        path = installed or playwright.chromium.executable_path
        if not os.path.exists(path):
            pytest.skip("no Chromium: apt install chromium, or python -m playwright install chromium")
        # As root, and in most containers, Chromium's own sandbox cannot start.
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    root = tmp_path_factory.mktemp("work")
    written = write_report(fabricate(root / "results" / "made-up", Plan(n_train=(50, 200))), root / "report")
    assert written.failed == ()
    return written.page


@pytest.fixture
def opened(browser, page_file):
    """Opens the page in a window of a given size; complains about the console and requests that leave the file."""
    contexts = []

    def open_page(width=1440, height=1000, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        page = context.new_page()
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_file.as_uri())
        contexts.append((context, said, asked))
        return page

    yield open_page
    for context, said, asked in contexts:
        context.close()
        assert said == []
        assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]


def column(page, table, index):
    cells = page.locator(f"#table-{table} tbody tr:visible :is(th, td):nth-child({index + 1})").all_inner_texts()
    return [cell.split()[-1] if cell.startswith(("★", "≈", "?")) else cell for cell in cells]


def test_the_first_screen_has_the_answer_the_front_and_the_best_rows(opened):
    page = opened()
    assert "training frames of ethanol" in page.locator("#answer .finding").inner_text()
    titles = page.locator("#answer .card h3").all_inner_texts()
    assert titles == ["Accuracy", "Labels needed", "Stability in MD", "Speed beside DFT"]
    for seen in ("#answer .finding", "#answer .cards", "#answer svg", "#answer .warning"):
        box = page.locator(seen).first.bounding_box()
        assert box["y"] + box["height"] <= 1000, f"{seen} ends below the first screen"


def test_tables_sort_both_ways_by_value_and_not_by_text(opened):
    page = opened()
    head = page.locator("#table-summary-ethanol thead th", has_text="F MAE").locator("button")
    index = [text.split()[0] for text in page.locator("#table-summary-ethanol thead th").all_inner_texts()].index("F")
    cell = f"row.cells[{index}]"
    keys = f"rows => rows.map(row => Number({cell}.dataset.sort ?? {cell}.textContent))"
    head.click()
    values = page.locator("#table-summary-ethanol tbody tr").evaluate_all(keys)
    known = [value for value in values if value == value]
    assert known == sorted(known)
    head.press("Enter")  # from the keyboard
    values = page.locator("#table-summary-ethanol tbody tr").evaluate_all(keys)
    known = [value for value in values if value == value]
    assert known == sorted(known, reverse=True)
    assert page.locator("#table-summary-ethanol th[aria-sort=descending]").count() == 1


def test_the_trials_table_filters_and_says_how_many_are_left(opened):
    page = opened()
    page.locator("#trials summary").click()
    page.get_by_label("Show rows with").fill("mace n200")
    shown = column(page, "trials-listed", 0)
    assert len(shown) == 3
    assert all("mace" in name and "n200" in name for name in shown)
    assert page.locator("#trials [role=status]").inner_text() == "3 of 24"
    page.get_by_label("Show rows with").fill("")
    assert len(column(page, "trials-listed", 0)) == 24


@pytest.mark.parametrize("width", [320, 390, 768, 1180, 1920])
def test_nothing_sticks_out_sideways(opened, width):
    page = opened(width, 844)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # What is wider than the window scrolls within its own box, and none lies to the left of it.
    outside = page.evaluate(
        "() => [...document.querySelectorAll('main *')].filter(e => e.getClientRects().length && "
        "!e.closest('.scroll, pre, svg, .hidden') && e.getBoundingClientRect().right > innerWidth + 1)"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert outside == []


CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const luminance = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const background = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const rgb = parse(getComputedStyle(e).backgroundColor);
      if (rgb.length === 3 || rgb[3] > 0) return rgb;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const e of document.querySelectorAll("body *")) {
    const text = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!text || !e.getClientRects().length || ["SCRIPT", "STYLE"].includes(e.tagName)) continue;
    const svg = e.closest("svg");
    const colour = parse(getComputedStyle(e)[svg ? "fill" : "color"]);
    const pair = [luminance(colour), luminance(background(svg ?? e))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < LEVEL) low.push(`${ratio.toFixed(2)} ${e.outerHTML.slice(0, 90)}`);
  }
  return low;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_its_background(opened, scheme):
    page = opened(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    assert page.evaluate(CONTRAST.replace("LEVEL", str(LEVEL_AA))) == []


def test_on_paper_it_is_black_on_white_and_what_was_folded_is_open(opened):
    page = opened(color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("nav").is_hidden()
    assert page.locator("#table-trials-listed tbody tr").first.is_visible()
    # A4 less its margins of 14 mm is 688 px wide.
    page.set_viewport_size({"width": 688, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 688


def test_a_screen_reader_finds_headings_figures_and_tables_by_name(opened):
    page = opened()
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.get_by_role("navigation", name="Contents").is_visible()
    tables = page.get_by_role("table").all()
    assert len(tables) > 5
    assert all(len(table.get_attribute("aria-labelledby") or "") > 8 for table in tables)
    assert page.get_by_role("img", name="Pareto front").count() >= 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"


def test_the_contents_lead_to_their_sections(opened):
    page = opened()
    top = "document.querySelector('#data').getBoundingClientRect().top"
    before = page.evaluate(f"{top} / innerHeight")
    assert before > 1, "the section lies below the first screen"
    page.get_by_role("navigation").get_by_role("link", name="Data", exact=True).click()
    page.wait_for_function(f"() => {top} < innerHeight / 2")
    assert page.evaluate(f"{top} / innerHeight") < 0.5
    assert page.evaluate("location.hash") == "#data"


def test_the_tables_embedded_in_the_page_are_whole(opened):
    page = opened()
    names = page.locator("a[download]").evaluate_all("links => links.map(link => link.download)")
    assert len(names) == len(set(names))
    link = page.locator("a[download='trials.csv']")
    with page.expect_download() as waiting:
        link.click()
    saved = pd.read_csv(waiting.value.path())
    assert len(saved) == 24
    again = pd.read_csv(io.BytesIO(base64.b64decode(link.get_attribute("href").partition("base64,")[2])))
    assert saved.equals(again)
