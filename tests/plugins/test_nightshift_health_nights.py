"""What was recorded and what Airflow knows, put together; and the links on a night's tasks."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.conftest import ROOT
from tests.recorded_nights import nights
from training.nights import Night
from training.run_folder import folder_name

RUN_ID = "manual__2026-01-02T03:04:05+00:00"
BEGAN = "2026-01-02T03:04:05+00:00"


def known(outcome, state, **recorded):
    from nightshift_health_models import AirflowRun
    from nightshift_health_nights import known_nights

    night = [] if outcome is None else [Night(run=folder_name(RUN_ID), began=BEGAN, outcome=outcome, **recorded)]
    airflow = [] if state is None else [AirflowRun(RUN_ID, state, BEGAN)]
    ((found, run_id),) = known_nights(night, airflow)
    return found.outcome, found.cause, run_id


@pytest.mark.parametrize(
    ("outcome", "state", "shown"),
    [
        ("promoted", "success", ("promoted", None, RUN_ID)),
        ("promoted", None, ("promoted", None, None)),
        ("accepted", "failed", ("accepted", None, RUN_ID)),
        ("failed", "running", ("running", None, RUN_ID)),  # Airflow tries again
        ("under_way", "running", ("running", None, RUN_ID)),
        ("under_way", "failed", ("failed", "killed", RUN_ID)),
        ("under_way", None, ("under_way", None, None)),
        (None, "queued", ("queued", None, RUN_ID)),
        (None, "failed", ("failed", "killed", RUN_ID)),
        (None, "success", ("unrecorded", None, RUN_ID)),
    ],
)
def test_a_night_as_both_know_it(outcome, state, shown):
    assert known(outcome, state) == shown


def test_columns_hold_each_night_once_in_order():
    from nightshift_health_nights import CAUSES, as_columns, known_nights

    found = [night for _, night in nights(20)]
    columns = as_columns(known_nights(reversed(found), []), {found[3].run})
    assert columns["run"] == [night.run for night in found] and columns["kept"].index(1) == 3
    assert columns["served"][0] == round(found[0].losses["served"], 4) and set(columns["causes"]) == set(CAUSES)
    lengths = {len(values) for name, values in columns.items() if name != "causes"}
    assert lengths | {len(values) for values in columns["causes"].values()} == {20}


def test_differing_settings():
    from nightshift_health_compare import differing_settings

    one, other = b'{"a": {"b": 1, "c": 2}, "d": []}', b'{"a": {"b": 1, "c": 3}, "e": "x"}'
    assert differing_settings(one, other) == [("a.c", "2", "3"), ("d", "[]", "–"), ("e", "–", '"x"')]
    assert differing_settings(one, one) == [] and differing_settings(one, b"[") is None
    assert differing_settings(None, one) is None


def test_links_on_tasks(monkeypatch):
    from nightshift_health_links import links_of

    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org/a/")
    ti = SimpleNamespace(dag_id="retrain_x", run_id=RUN_ID)
    base = f"/a/training-health/dags/retrain_x/runs/{folder_name(RUN_ID)}"
    found = {step: [link.get_link(None, ti_key=ti) for link in links_of(step)] for step in ("validate", "evaluate")}
    assert found == {"validate": [f"{base}/data_docs/index.html"], "evaluate": [f"{base}/report.html"]}
    assert links_of("train") == []


def test_the_dags_tasks_have_them():
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    (dag, *_) = DagBag(ROOT / "dags").dags.values()
    tasks = {one["__var"]["task_id"]: one["__var"] for one in DagSerialization.to_dict(dag)["dag"]["tasks"]}
    links = {name: task["_operator_extra_links"] for name, task in tasks.items() if task.get("_operator_extra_links")}
    assert links == {"evaluate": {"Report": "_link_ReportLink"}, "validate": {"Data Docs": "_link_DataDocsLink"}}


def test_loading_the_plugin_is_light():
    code = """
import sys
from airflow.plugins_manager import ensure_plugins_loaded
ensure_plugins_loaded()
print([n for n in sys.modules if n.startswith("nightshift_health")],
      [n for n in ("tensorflow", "pandas", "great_expectations", "boto3", "plotly", "markdown_it") if n in sys.modules])
"""
    environment = {"AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "['nightshift_health'] []"
