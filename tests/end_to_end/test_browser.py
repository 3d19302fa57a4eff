"""The page in a real browser: it runs without an error, asks nobody for anything, and does what it should."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import run_with

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
IDS = "[...document.querySelectorAll('[id]')].map(e => e.id)"
IMAGES = "[...document.images].every(image => image.complete && image.naturalWidth > 0 && image.alt)"
BRIGHTNESS = "name => getComputedStyle(document.body)[name].match(/\\d+/g).slice(0, 3).map(Number)"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser") / "run"
    attacks = ["noise", "fgsm", "exact", "universal:method=sgd,steps=5", "fooling:steps=5"]
    run_with(
        "digits", ["logistic", "tree"], attacks, ["linf:0.1", "l2:min", "box"], 40, out=folder, transfer=True
    )
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with sync_api.sync_playwright() as playwright:
        held = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield held
        held.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_opens_without_a_word_and_fits(browser: object, report: Path, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[attr-defined]
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = (sum(page.evaluate(BRIGHTNESS, name)) for name in ("color", "backgroundColor"))
    assert (ink > paper) == (scheme == "dark")
    assert abs(ink - paper) > 500  # of 765
    assert page.evaluate(IMAGES)
    assert page.evaluate("document.querySelectorAll('figure svg').length") > 5
    ids = page.evaluate(IDS)
    assert len(ids) == len(set(ids))
    shots = os.environ.get("ROBUST_SCREENSHOTS")
    if shots:
        page.screenshot(path=Path(shots) / f"report-{width}-{scheme}.png", full_page=True)
    page.close()


def test_tables_sort_and_filter_and_the_slider_slides(browser: object, report: Path) -> None:
    page = browser.new_page()  # type: ignore[attr-defined]
    page.goto(report.as_uri())

    def column(number: int) -> list[str]:
        rows = "#summary tbody tr:not([hidden]) td:nth-child"
        found: list[str] = page.eval_on_selector_all(
            f"{rows}({number})", "all => all.map(e => e.textContent)"
        )
        return found

    heads = page.eval_on_selector_all("#summary th", "all => all.map(e => e.textContent)")
    place = heads.index("success") + 1
    before = column(place)
    button = page.locator(f"#summary th:nth-child({place}) button")
    button.focus()
    page.keyboard.press("Enter")  # by keyboard, as by mouse
    rates = [float(text[:-2]) for text in column(place)]
    assert rates == sorted(rates)
    button.click()
    assert [float(text[:-2]) for text in column(place)] == sorted(rates, reverse=True)
    assert page.locator(f"#summary th:nth-child({place})").get_attribute("aria-sort") == "descending"
    page.fill("[data-table=summary]", "tree fgsm linf")
    assert column(1) == ["tree"]
    assert column(2) == ["fgsm"]
    page.fill("[data-table=summary]", "")
    assert len(column(place)) == len(before)

    pair = page.locator(".pair").first
    pair.locator("input").fill("80")
    assert pair.locator(".after").evaluate("e => e.style.clipPath") == "inset(0px 0px 0px 20%)"
    page.fill("[data-cards=cards]", "tree")
    shown = page.eval_on_selector_all(".card:not([hidden]) h3", "all => all.map(e => e.textContent)")
    assert shown
    assert all("tree" in title for title in shown)
    page.close()
