"""Airflow's pages as a person has them: `make ui` in a checkout, and Chromium in front of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from runner.api import Api

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
USER = "admin"
_SECONDS = 30_000


@contextmanager
def pages(checkout: Path, **environment: str) -> Iterator[Api]:
    """Airflow as `make ui` starts it in a checkout, and its API; stopped by Ctrl-C on leaving."""
    process = subprocess.Popen(
        [sys.executable, "-m", "runner", "ui"],
        cwd=checkout,
        env={**os.environ, **environment, "PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        told = dict(_told(process))
        yield Api(told["Airflow"], USER, password(checkout))
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def _told(process: subprocess.Popen) -> Iterator[tuple[str, str]]:
    for line in process.stdout:
        name, _, value = line.partition(":")
        yield name, value.strip()
        if line.startswith("Ctrl-C"):
            return


def password(checkout: Path) -> str:
    return json.loads((checkout / ".airflow" / "simple_auth_manager_passwords.json.generated").read_text())[USER]


@contextmanager
def chromium(url: str, **context: object) -> Iterator[Page]:
    """A new browser without a session."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(base_url=url, viewport={"width": 1280, "height": 900}, **context)
        page.set_default_timeout(_SECONDS)
        yield page
        browser.close()


def log_in(page: Page, password: str) -> None:
    page.goto("/")
    page.fill("input[name=username]", USER)
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "login" not in url)
