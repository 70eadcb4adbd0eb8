"""The report in a real browser: axe-core finds nothing, nothing is fetched, nothing overflows."""

import shutil
from pathlib import Path

import pytest

from tests.training.test_report import answers, diverged, measured, page  # noqa: F401

axe = pytest.importorskip("axe_playwright_python.sync_playwright")
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
# Everything there is on the page, so that all of it is looked at.
REFUSED = {"mini_batch_statistics": {"batch_size": 8, "test": {"loss": 0.543, "roc_auc": 0.81}}}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


def opened(browser, html: str, path: Path, scheme: str, width: int = 1100):
    path.write_text(html)
    shown = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}).new_page()
    asked, said = [], []
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("console", lambda message: said.append(message.text))
    shown.goto(path.as_uri())
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert said == []  # what a page's own policy forbids is told here
    shown.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    return shown


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("evaluation", [{}, diverged() | REFUSED], ids=["accepted", "refused"])
def test_axe_finds_nothing(browser, page, tmp_path, scheme, evaluation):  # noqa: F811
    shown = opened(browser, page(evaluation=evaluation), tmp_path / "report.html", scheme)
    found = axe.Axe().run(shown).response["violations"]
    assert [(rule["id"], rule["impact"], rule["nodes"][0]["html"][:200]) for rule in found] == []


def test_a_phone_shows_it_without_scrolling_sideways(browser, page, tmp_path):  # noqa: F811
    shown = opened(browser, page(evaluation=diverged()), tmp_path / "report.html", "light", width=390)
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390


def test_its_colours_follow_the_reader_s_choice(browser, page, tmp_path):  # noqa: F811
    colours = {}
    for scheme in ("light", "dark"):
        shown = opened(browser, page(), tmp_path / "report.html", scheme)
        colours[scheme] = shown.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
    assert colours["light"] != colours["dark"]
