"""Draws the pictures of pages in docs/ anew from the nights that this checkout has had: ``python docs/screenshots.py``.

Needs Chromium, and at least one accepted and one refused night (see the README on how to have them).
"""

import sys
from pathlib import Path

from playwright.sync_api import Page

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from tests.browser import chromium, log_in, pages, password  # noqa: E402
from training.config import load_config  # noqa: E402
from training.nights import ACCEPTED, Night, all_nights  # noqa: E402

MODEL = "solar_cells"
DAG = f"retrain_{MODEL}"
HEALTH = f"/training-health/dags/{DAG}"


def main() -> None:
    config = load_config(CHECKOUT / "dags" / "models" / f"{MODEL}.yaml")
    nights = all_nights(config.store.runs, config.name)
    with pages(CHECKOUT) as airflow, chromium(airflow.url) as page:
        log_in(page, password(CHECKOUT))
        trigger_form(page)
        training_health(page)
        report(page, newest(nights, *ACCEPTED), "report")
        report(page, newest(nights, "failed"), "report_refused")


def newest(nights: list[Night], *outcomes: str) -> Night:
    """The last night that came to one of these and has a report."""
    return [night for night in nights if night.outcome in outcomes and night.losses][-1]


def trigger_form(page: Page) -> None:
    page.set_viewport_size({"width": 1280, "height": 1000})
    page.goto(f"/dags/{DAG}")
    page.get_by_role("button", name="Trigger").first.click()
    page.get_by_role("button", name="Recalibration", exact=True).click()
    page.locator("[name=element_recalibrate__samples]").wait_for()
    page.wait_for_timeout(1000)  # it unfolds slowly
    shoot(page, "trigger_form")


def training_health(page: Page) -> None:
    page.set_viewport_size({"width": 1280, "height": 1000})
    page.goto("/plugin/training-health")
    frame = page.frame_locator("iframe")
    if frame.get_by_role("link", name=MODEL, exact=True).count():
        frame.get_by_role("link", name=MODEL, exact=True).click()
    frame.locator("#rows tr").first.wait_for()
    page.wait_for_timeout(2000)  # the charts are drawn after the table
    shoot(page, "training_health")


def report(page: Page, night: Night, name: str) -> None:
    page.set_viewport_size({"width": 1040, "height": 1150})
    page.goto(f"{HEALTH}/runs/{night.run}/report.html")
    shoot(page, name)


def shoot(page: Page, name: str) -> None:
    page.screenshot(path=CHECKOUT / "docs" / f"{name}.png")
    sys.stdout.write(f"docs/{name}.png\n")


if __name__ == "__main__":
    main()
