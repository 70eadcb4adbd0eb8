"""Airflow's backfill over three data snapshots, an event that announces data, and nights that are late."""

import contextlib
import json
import shutil
import time

import pytest
import yaml

from runner.api import Api
from runner.errors import RunnerError
from tests.browser import pages
from tests.conftest import OPEN, ROOT, SOLAR_CELLS, read_labels, small_settings, write_labels
from tests.servers import webhook
from training.config import load_config, to_json
from training.nights import all_nights
from training.step_names import STEPS

pytestmark = [pytest.mark.airflow, pytest.mark.soak]
DAG = "retrain_solar_cells"
DAYS = ("2026-01-29", "2026-01-30", "2026-01-31")


@pytest.fixture(scope="module")
def checkout(few_cells, tmp_path_factory):
    """A model whose data come in snapshots, each with two images more, and whose nights are always late."""
    folder = tmp_path_factory.mktemp("backfill")
    for part in ("dags", "plugins", "runner", "training"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    rows = read_labels(few_cells)
    for day, more in zip(DAYS, (4, 2, 0), strict=True):
        shutil.copytree(few_cells, folder / "cells" / day)
        write_labels(folder / "cells" / day, rows[more:])
    tree = json.loads(to_json(load_config(SOLAR_CELLS, small_settings(few_cells, "night") | OPEN)))
    tree["data"]["uri"], tree["deadline_hours"] = str(folder / "cells" / "{snapshot}"), 0.002
    tree["alerts"]["webhook_conn_id"] = "hook"
    (folder / "dags" / "models" / "solar_cells.yaml").write_text(yaml.safe_dump(tree))
    return folder


@pytest.fixture(scope="module")
def posted():
    with webhook() as server:
        yield server


@pytest.fixture(scope="module")
def airflow(checkout, posted):
    with pages(checkout, AIRFLOW_CONN_HOOK=f"http://127.0.0.1:{posted[0]}/ops") as api:
        api.pause(DAG, paused=False)
        yield api


def runs_of(api: Api, kind: str) -> list[dict]:
    """Those of one kind once all of them have ended, in order of their dates."""
    end = time.monotonic() + 1200
    while time.monotonic() < end:
        runs = [run for run in api._get(f"/dags/{DAG}/dagRuns")["dag_runs"] if run["run_type"] == kind]
        if runs and all(run["state"] in ("success", "failed") for run in runs):
            return sorted(runs, key=lambda run: run["run_after"])
        time.sleep(2)
    raise AssertionError(f"{kind} runs did not end")


def backfill(api: Api) -> object:
    """Over all days; on SQLite Airflow refuses while another part of it writes."""
    body = {"dag_id": DAG, "from_date": f"{DAYS[0]}T00:00:00Z", "to_date": f"{DAYS[-1]}T23:00:00Z"}
    body |= {"max_active_runs": 1, "reprocess_behavior": "none", "run_backwards": False, "dag_run_conf": {}}
    for _ in range(20):
        with contextlib.suppress(RunnerError):
            return api._call("POST", "/backfills", json=body)
        time.sleep(0.5)
    raise AssertionError("no backfill could be created")


def test_a_backfill_goes_over_the_snapshots_and_never_promotes(checkout, airflow):
    backfill(airflow)
    for run in runs_of(airflow, "backfill"):
        states = {task["task_id"]: task["state"] for task in airflow.tasks(DAG, run["dag_run_id"])}
        assert states == dict.fromkeys(STEPS, "success") | {"promote": "skipped"}
    nights = [night for night in all_nights(str(checkout / "night" / "runs"), "solar_cells") if night.data]
    assert [str(night.snapshot) for night in nights] == list(DAYS)
    assert [night.outcome for night in nights] == ["accepted"] * 3
    assert [night.images for night in nights] == [126, 128, 130]
    assert not (checkout / "night" / "champion").exists()


def test_each_measures_drift_from_the_accepted_snapshot_before_it(checkout):
    runs = checkout / "night" / "runs" / "solar_cells"
    found = {path.parent.name[10:20]: json.loads(path.read_text()) for path in runs.glob("backfill*/validation.json")}
    first, second, third = (found[day] for day in DAYS)
    assert first["drift"] == {}
    for now, then in ((second, first), (third, second)):
        moved = (
            sum(abs(now["summary"]["shares"][k] - then["summary"]["shares"][k]) for k in then["summary"]["shares"]) / 2
        )
        assert now["drift"]["label_share"]["observed"] == pytest.approx(moved)


def test_each_late_night_is_told_once(airflow, posted):
    """So may be the missed tick that Airflow starts on unpausing; how late depends on the machine."""
    late = [body["run_id"] for _, body in posted[1] if body["cause"] == "deadline"]
    backfilled = [run["dag_run_id"] for run in runs_of(airflow, "backfill")]
    assert sorted(run for run in late if run in backfilled) == backfilled
    assert len(late) == len(set(late))


def test_an_event_begins_a_night_and_no_snapshot_of_that_day_is_rejected_data(airflow, posted):
    (asset,) = [asset["id"] for asset in airflow._get("/assets")["assets"] if asset["name"] == "solar_cells_data"]
    airflow._call("POST", "/assets/events", json={"asset_id": asset, "extra": {}})
    (run,) = runs_of(airflow, "asset_triggered")
    assert run["state"] == "failed"
    told = [body["cause"] for _, body in posted[1] if body["run_id"] == run["dag_run_id"]]
    assert told.count("data_rejected") == 1
