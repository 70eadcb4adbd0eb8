"""Nights through a real Airflow, started as `make run` starts it: one that ships, one that must not, one killed."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
import yaml
from playwright.sync_api import Page

from runner import processes
from runner.api import Api
from tests.browser import CHROMIUM, chromium, log_in, needs_chromium, pages, password
from tests.conftest import ROOT, SOLAR_CELLS, small_settings
from tests.nights import assert_equal
from tests.servers import statsd, webhook
from training.config import load_config, parse_settings, to_json
from training.form import FORCE
from training.step_names import STEPS
from training.steps import run_all
from training.store import open_store

pytestmark = pytest.mark.airflow
# The smallest night trains too little to be judged by; its gate lets it pass.
OPEN = ("gate.max_loss_gap=50", "gate.max_batch_norm_gap=50")
OPEN_IN_FORM = {"gate__max_loss_gap": 50, "gate__max_batch_norm_gap": 50}
APPROVAL_IN_FORM = {"promote__approval": True}
DAG = "retrain_solar_cells"
METRICS = "airflow.nightshift.solar_cells"
# The failure this project is about, held against the gate as shipped: statistics that lag, and nothing that mends them.
SEED = (
    *("recalibrate.enabled=false", "model.batch_norm_momentum=0.999", "train.keep_epoch=last", "train.epochs=2"),
    "train.learning_rate=0.003",  # so few images: at a lower rate the gap is there, but not beyond doubt
)


@pytest.fixture(scope="module")
def posted():
    with webhook() as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def measured():
    """What Airflow and the nights send to a StatsD server; Airflow's own metrics are many, and left out."""
    with statsd() as (port, lines), pytest.MonkeyPatch.context() as environment:
        settings = {
            "STATSD_ON": True,
            "STATSD_HOST": "127.0.0.1",
            "STATSD_PORT": port,
            "METRICS_ALLOW_LIST": r"nightshift\.",
        }
        for name, value in settings.items():
            environment.setenv(f"AIRFLOW__METRICS__{name}", str(value))
        yield lines


@pytest.fixture(scope="module")
def checkout(few_cells, tmp_path_factory):
    """A checkout of its own, with a small model and few real images."""
    folder = tmp_path_factory.mktemp("checkout")
    for part in ("dags", "plugins", "runner", "training"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    tree = json.loads(to_json(load_config(SOLAR_CELLS, small_settings(few_cells, "night"))))
    tree["alerts"]["webhook_conn_id"] = "hook"
    (folder / "dags" / "models" / "solar_cells.yaml").write_text(yaml.safe_dump(tree))
    yield folder
    assert_nothing_is_left_running(folder)


def assert_nothing_is_left_running(checkout: Path) -> None:
    home = checkout / ".airflow"
    assert [*processes.marked(home), *processes.remembered(home)] == []
    assert not [one for one in psutil.process_iter(["cwd"]) if one.info["cwd"] == str(checkout)]


def make_run(checkout: Path, port: int, *settings: str) -> tuple[int, list[str]]:
    """What `make run` does once the environment is there: its exit code and lines."""
    words = [word for setting in settings for word in ("--set", setting)]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "AIRFLOW_CONN_HOOK": f"http://127.0.0.1:{port}/ops"}
    environment.pop("AIRFLOW_HOME", None)
    done = subprocess.run(
        [sys.executable, "-m", "runner", "run", *words],
        cwd=checkout,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    print(done.stdout)
    return done.returncode, done.stdout.splitlines()


def links(checkout: Path, run: str) -> dict[str, str]:
    """What the buttons on the run's tasks open, below the pages of that run; also of the task that failed."""
    with contextlib.closing(sqlite3.connect(checkout / ".airflow" / "airflow.db")) as database:
        kept = database.execute("SELECT task_id, value FROM xcom WHERE key LIKE '_link_%'").fetchall()
    found = {
        task: json.loads(value).partition(f"/training-health/dags/retrain_solar_cells/runs/{run}/")
        for task, value in kept
        if run in value
    }
    return {task: document for task, (_, _, document) in found.items()}


def newest_run(checkout: Path) -> Path:
    return max((checkout / "night" / "runs" / "solar_cells").iterdir(), key=lambda run: run.stat().st_mtime)


def task_states(lines: list[str]) -> dict[str, str]:
    rows = [line.split() for line in lines if line.startswith("task ")]
    return {row[1]: row[2] for row in rows}


def test_a_good_night_ships(checkout, posted, measured):
    code, lines = make_run(checkout, posted[0], *OPEN)
    assert (code, lines[-1]) == (0, "exit 0: accepted")
    assert task_states(lines) == dict.fromkeys(STEPS, "success")
    run = newest_run(checkout)
    assert json.loads((run / "verdict.json").read_text())["accepted"] and (run / "report.html").is_file()
    assert list((checkout / "night" / "champion").rglob("*.json")) and not (run / "alerts").exists()
    assert any("epoch" in line for line in lines) and not any("\r" in line for line in lines)
    assert posted[1] == []
    assert {f"{METRICS}.{name}|c" for name in ("verdicts.accepted:1", "nights.promoted:1")} <= set(measured)


def test_a_diverged_night_fails_and_alerts_once(checkout, posted, measured):
    measured.clear()
    before = sorted((checkout / "night" / "champion").rglob("*"))
    code, lines = make_run(checkout, posted[0], *SEED)
    assert (code, lines[-1]) == (4, "exit 4: training and evaluation diverged")
    states = task_states(lines)
    assert (states["evaluate"], states["promote"]) == ("failed", "upstream_failed")
    verdict = json.loads((newest_run(checkout) / "verdict.json").read_text())
    assert (verdict["reasons"][0]["code"], verdict["reasons"][0]["cause"]) == ("loss_gap", "batch_norm")
    ((path, body),) = posted[1]
    assert path == "/ops" and "failed at evaluate (batch_norm)" in body["text"]
    assert sorted((checkout / "night" / "champion").rglob("*")) == before
    assert len(list((newest_run(checkout) / "alerts").iterdir())) == 1
    assert links(checkout, newest_run(checkout).name) == {"evaluate": "report.html", "validate": "data_docs/index.html"}
    gap = json.loads((newest_run(checkout) / "evaluation.json").read_text())["gaps"]["served_minus_fit"]
    assert f"{METRICS}.loss_gap:{gap}|g" in measured
    counted = sorted(line for line in measured if line.endswith("|c"))
    assert counted == [f"{METRICS}.{name}:1|c" for name in ("failures.batch_norm", "nights.failed", "verdicts.refused")]


@pytest.mark.soak
def test_a_task_killed_while_it_trains_is_retried_and_goes_on(checkout, posted, tmp_path):
    begun, settings = time.time(), (*OPEN, "train.epochs=3", "train.checkpoint_seconds=0")
    with ThreadPoolExecutor(1) as thread:
        night = thread.submit(make_run, checkout, posted[0], *settings, f"store.champion={tmp_path}/killed")
        wait_for_checkpoints(checkout, begun)
        task_that_trains(checkout).send_signal(signal.SIGKILL)
        code, lines = night.result()
    assert (code, lines[-1]) == (0, "exit 0: accepted")
    assert any("going on from epoch" in line for line in lines)
    alone = load_config(
        checkout / "dags" / "models" / "solar_cells.yaml",
        parse_settings([*settings, f"store.champion={tmp_path}/alone"]),
    )
    run_all(alone, str(tmp_path / "run"))
    assert_equal(open_store(str(newest_run(checkout))), open_store(str(tmp_path / "run")))


def wait_for_checkpoints(checkout: Path, begun: float) -> None:
    """Until a run that was begun since is within its training."""
    runs, limit = checkout / "night" / "runs", time.monotonic() + 300
    while not any(one.stat().st_ctime > begun for one in runs.glob("*/*/checkpoint/state/*/*.npz")):
        assert time.monotonic() < limit, "no checkpoint was written"
        time.sleep(0.05)


def task_that_trains(checkout: Path) -> psutil.Process:
    """Of Airflow's processes the one that has TensorFlow in it."""
    for process in processes.remembered(checkout / ".airflow"):
        with contextlib.suppress(psutil.Error):
            if any("tensorflow" in mapping.path for mapping in process.memory_maps()):
                return process
    raise AssertionError("no process runs TensorFlow")


@pytest.fixture(scope="module")
def ui(checkout, posted):
    """Airflow's pages in the checkout, after the nights above."""
    with pages(checkout, AIRFLOW_CONN_HOOK=f"http://127.0.0.1:{posted[0]}/ops") as api:
        api.pause(DAG, paused=False)
        yield api


def fill_in_the_form(page: Page) -> None:
    """Trigger a night that need not be new, whose gate is open and whose promotion waits for a person."""
    page.goto(f"/dags/{DAG}")
    page.get_by_role("button", name="Trigger").first.click()
    sections = {"Run": [FORCE], "Gate": list(OPEN_IN_FORM), "Promotion": list(APPROVAL_IN_FORM)}
    for section, fields in sections.items():
        page.get_by_role("button", name=section, exact=True).click()
        for name in fields:
            field = page.locator(f"[name=element_{name}]")
            if name in OPEN_IN_FORM:
                field.fill(str(OPEN_IN_FORM[name]))
            else:
                page.locator("label", has=field).click()  # a switch
    page.get_by_role("dialog").get_by_role("button", name="Trigger").click()
    page.get_by_role("dialog").wait_for(state="hidden")


def newest_run_id(api: Api) -> str:
    runs = api._get(f"/dags/{DAG}/dagRuns?order_by=-run_after&limit=1")["dag_runs"]
    return runs[0]["dag_run_id"]


def wait_for(holds: Callable[[], bool], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(1)


def is_asked(checkout: Path, api: Api, run_id: str) -> bool:
    """Whether the night waits for a person, and the scheduler knows that the task's process has ended.

    An answer that comes before it does is to Airflow the sign of a lost task, which it begins anew.
    """
    promote = api.tasks(DAG, run_id)[-1]
    key = f"task_id='promote', run_id='{run_id}', try_number={promote['try_number']},"
    heard = [line for line in scheduler_log(checkout) if "Received executor event" in line and key in line]
    return promote["state"] == "awaiting_input" and len(heard) == 1


def scheduler_log(checkout: Path) -> list[str]:
    return (checkout / ".airflow" / "logs" / "scheduler.log").read_text(errors="replace").splitlines()


def refuse(page: Page, run_id: str) -> None:
    page.goto(f"/dags/{DAG}/runs/{quote(run_id)}/tasks/promote/required_actions")
    page.get_by_text("Loss in training").wait_for()
    page.get_by_role("button", name="Reject").click()
    page.get_by_text("Response received").wait_for()


@needs_chromium
def test_a_night_asked_for_in_the_form_waits_for_approval_and_is_refused(checkout, ui):
    before = sorted((checkout / "night" / "champion").rglob("*"))
    with chromium(ui.url) as page:
        log_in(page, password(checkout))
        fill_in_the_form(page)
        run_id = newest_run_id(ui)
        wait_for(lambda: is_asked(checkout, ui, run_id))
        refuse(page, run_id)
        wait_for(lambda: ui.run_state(DAG, run_id) in ("success", "failed"))
    states = {task["task_id"]: task["state"] for task in ui.tasks(DAG, run_id)}
    assert states == dict.fromkeys(STEPS, "success") | {"promote": "skipped"}
    assert json.loads((newest_run(checkout) / "config.json").read_text())["promote"]["approval"]
    assert sorted((checkout / "night" / "champion").rglob("*")) == before


@needs_chromium
@pytest.mark.parametrize(
    ("verdict", "heading"), [("Promoted", "Accepted: "), ("Diverged", "Refused: "), ("Accepted", "Accepted: ")]
)
def test_training_health_leads_from_each_night_to_its_report(verdict, heading, checkout, ui):
    with chromium(ui.url) as page:
        log_in(page, password(checkout))
        page.get_by_role("link", name="Training health").click()
        health = page.frame_locator("iframe")
        health.get_by_role("link", name="solar_cells").click()
        row = health.locator("#rows tr", has_text=verdict)
        row.get_by_role("rowheader").get_by_role("link").click()
        health.locator("h1", has_text=heading).wait_for()


@needs_chromium
def test_the_report_is_one_click_from_the_task_that_made_it(checkout, ui):
    """Also where that task has failed, which is when it is wanted."""
    run_id = next(run["dag_run_id"] for run in ui._get(f"/dags/{DAG}/dagRuns")["dag_runs"] if run["state"] == "failed")
    with chromium(ui.url) as page:
        log_in(page, password(checkout))
        page.goto(f"/dags/{DAG}/runs/{quote(run_id)}/tasks/evaluate/details")
        link = page.get_by_role("link", name="Report", exact=True)
        page.goto(link.get_attribute("href"))
        assert page.get_by_role("heading", level=1).inner_text().startswith("Refused: ")


def test_the_same_again_is_skipped_at_validate(checkout, ui):
    run_id = ui.trigger(DAG, OPEN_IN_FORM | (APPROVAL_IN_FORM if CHROMIUM else {}))
    wait_for(lambda: ui.run_state(DAG, run_id) == "success")
    states = {task["task_id"]: task["state"] for task in ui.tasks(DAG, run_id)}
    assert states == dict.fromkeys(STEPS, "skipped") | {"ingest": "success"}


def test_a_field_that_does_not_exist_ends_the_run_in_its_first_step(checkout, ui):
    run_id = ui.trigger(DAG, {"train__epoch": 3})
    wait_for(lambda: ui.run_state(DAG, run_id) == "failed")
    (ingest,) = (task for task in ui.tasks(DAG, run_id) if task["task_id"] == "ingest")
    assert (ingest["state"], ingest["try_number"]) == ("failed", 1)
    failure = json.loads((newest_run(checkout) / "failure.json").read_text())
    assert (failure["exit_code"], failure["step"]) == (2, "ingest") and "train__epoch: received 3" in failure["message"]
