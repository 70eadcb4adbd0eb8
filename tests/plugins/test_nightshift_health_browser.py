"""Training health in a real browser: accessibility, keyboard, colours, speed, and that nothing foreign executes."""

import shutil
import time
from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from tests import recorded_nights

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
DRAWN = "#health[data-drawn]"
HEALTH = "/training-health"
TWO = [night.run for _, night in recorded_nights.nights(45, seed=3)[-2:]]
KILLED = "manual__killed"


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, pages):
    """Opens pages of a signed-in user; whatever a script or a policy complains of fails the test."""
    complaints = []

    @contextmanager
    def window(**options):
        context = chromium.new_context(viewport={"width": 1280, "height": 1000}, **options)
        context.add_cookies([{"name": "_token", "value": pages.token("reader"), "url": pages.url}])
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda told: complaints.append(told.text) if "Security Policy" in told.text else None)
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        yield page
        context.close()

    yield window
    assert complaints == []


def hover_until_told(page, index):
    """Move to a night's mark; again if the chart was still busy and missed it."""
    mark = page.locator("#chart .subplot.xy3 .point").nth(index)
    for _ in range(20):
        page.mouse.move(0, 0)
        mark.hover(force=True)
        page.wait_for_timeout(400)
        if page.locator("#chart .hoverlayer .hovertext").count():
            return
    raise AssertionError("hovering tells nothing")


SHOWN = [
    ("/dags/retrain_second/", DRAWN),
    ("/dags/retrain_empty/", "#empty:visible"),
    ("/", "h1"),
    (f"/dags/retrain_second/compare?one={TWO[0]}&other={TWO[1]}", "body[data-drawn]"),
    ("/runbook", "h1"),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("path", "ready"), SHOWN)
def test_axe_finds_nothing(opened, pages, path, ready, scheme):
    with opened(color_scheme=scheme, bypass_csp=True) as page:  # axe puts a script of its own into the page
        page.goto(pages.url + HEALTH + path)
        page.wait_for_selector(ready)
        found = Axe().run(page).response["violations"]
    assert [(one["id"], one["impact"], [node["target"] for node in one["nodes"]]) for one in found] == []


def test_a_thousand_nights_open_in_two_seconds(opened, pages):
    with opened() as page:
        page.goto(f"{pages.url}{HEALTH}/dags/retrain_first/")  # the first load of the assets is aside
        page.wait_for_selector(DRAWN)
        began, sizes = time.perf_counter(), []
        page.on("requestfinished", lambda request: sizes.append(request.sizes()["responseBodySize"]))
        page.goto(f"{pages.url}{HEALTH}/dags/retrain_first/")
        page.wait_for_selector(DRAWN)
        seconds = time.perf_counter() - began
        print(f"{seconds:.2f} s, {sum(sizes) / 1024:.0f} KiB")
        assert seconds < 2 and sum(sizes) < 200 * 1024
        page.click("#more")
        assert page.locator("#rows tr").count() == 1000


def test_the_keyboard_reaches_everything(opened, pages):
    with opened() as page:
        page.goto(f"{pages.url}{HEALTH}/dags/retrain_second/")
        page.wait_for_selector(DRAWN)
        expected, reached = page.locator("a[href]:visible, button:visible:not(:disabled), input:visible, #chart"), set()
        names = "e => e.id || e.getAttribute('aria-label') || e.textContent.trim()"
        wanted = {one.evaluate(names) for one in expected.all()}
        for _ in range(expected.count() + 40):
            page.keyboard.press("Tab")
            reached.add(page.evaluate(f"({names})(document.activeElement)"))
        assert wanted <= reached
        page.focus("#chart")
        page.keyboard.press("Home")
        assert page.inner_text("#chosen").startswith("2024-01-01 02:00")
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#chosen").startswith("2024-01-02 02:00")
        page.keyboard.press("Enter")
        page.wait_for_url("**/report.html")


def test_a_click_on_a_night_opens_its_report(opened, pages):
    with opened() as page:
        page.goto(f"{pages.url}{HEALTH}/dags/retrain_second/")
        page.wait_for_selector(DRAWN)
        report = f"**/runs/{TWO[1]}/report.html"
        page.locator("#rows a", has_text="2024-02-14").first.click()
        page.wait_for_url(report)
        assert page.title() != "owned"
        page.go_back()
        page.wait_for_selector(DRAWN)
        hover_until_told(page, 44)
        page.mouse.down()
        page.mouse.up()
        page.wait_for_url(report)


def test_two_nights_are_picked_and_compared(opened, pages):
    with opened() as page:
        page.goto(f"{pages.url}{HEALTH}/dags/retrain_second/")
        page.wait_for_selector(DRAWN)
        assert page.is_disabled("#compare")
        for index in (2, 3):
            page.locator("#rows input").nth(index).check()
        page.click("#compare")
        page.wait_for_selector("body[data-drawn]")
        assert [run in page.content() for run in TWO] == [True, True]


def test_what_is_drawn_follows_zoom_and_scale(opened, pages):
    with opened() as page:
        page.goto(f"{pages.url}{HEALTH}/dags/retrain_first/")
        page.wait_for_selector(DRAWN)
        shown = "() => document.getElementById('chart').layout.xaxis.range.map(Math.round)"
        assert page.evaluate(shown) == [910, 1000]
        marks = page.locator("#chart .subplot.xy3 .point")
        expect(marks).to_have_count(91)  # the ninety in sight and the one to which their lines lead
        page.focus("#chart")
        page.keyboard.press("Home")
        page.wait_for_function("() => document.getElementById('chart').layout.xaxis.range[0] === -0.5")
        assert page.inner_text("#chosen").startswith("2024-01-01 02:00")
        expect(marks).to_have_count(91)
        page.click("[data-last='0']")
        page.wait_for_function("() => document.getElementById('chart').layout.xaxis.range[1] === 999.5")
        expect(marks).to_have_count(1000)
        page.check("#log")
        page.wait_for_function("() => document.getElementById('chart').layout.yaxis.type === 'log'")


def test_a_double_click_shows_all_nights_and_nothing_beyond(opened, pages):
    with opened() as page:
        page.goto(f"{pages.url}{HEALTH}/dags/retrain_second/")
        page.wait_for_selector(DRAWN)
        page.evaluate("document.getElementById('chart').on('plotly_doubleclick', () => { window.doubled = true })")
        page.locator("#chart .nsewdrag[data-subplot='xy']").dblclick(position={"x": 5, "y": 5}, force=True)
        page.wait_for_function("() => window.doubled")
        page.wait_for_function("() => String(document.getElementById('chart').layout.xaxis.range) === '-0.5,46.5'")


def test_colours_follow_airflows_own_choice(opened, pages):
    with opened(color_scheme="light") as page:
        page.goto(f"{pages.url}{HEALTH}/dags/retrain_second/")
        page.wait_for_selector(DRAWN)
        assert page.evaluate("document.documentElement.dataset.theme") == "light"
        page.evaluate("localStorage.setItem('theme', 'dark')")
        page.reload()
        page.wait_for_selector(DRAWN)
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 20, 24)"


def test_within_airflows_ui_links_to_runs_leave_the_frame(opened, pages):
    with opened() as page:
        page.goto(f"{pages.url}/dags/retrain_second/plugin/training-health-dag")
        frame = page.frame_locator("iframe")
        frame.locator(DRAWN).wait_for(timeout=60_000)
        frame.locator("#rows a[data-airflow-page]").nth(1).click()
        page.wait_for_url(f"**/dags/retrain_second/runs/{KILLED}")
        page.goto(f"{pages.url}/plugin/training-health")
        page.frame_locator("iframe").get_by_role("link", name="first", exact=True).wait_for(timeout=60_000)


def test_markup_in_a_nights_texts_never_executes(opened, pages):
    with opened() as page:
        page.goto(f"{pages.url}{HEALTH}/dags/retrain_hostile/")
        page.wait_for_selector(DRAWN)
        hover_until_told(page, 0)
        assert "<script>" in page.inner_text("#rows .cause") and "owned" not in page.title()
        page.goto(f"{pages.url}{HEALTH}/dags/retrain_hostile/compare?one=markup&other=markup")
        page.wait_for_selector("body[data-drawn]")
        assert "owned" not in page.title() and page.locator("img[src=x]").count() == 0
