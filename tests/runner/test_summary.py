"""The closing table, from documents as the steps write them."""

import json

import pytest

from runner import summary
from runner.follow import Task
from tests.conftest import SOLAR_CELLS
from training.config import load_config
from training.errors import DataRejected
from training.run_folder import write_failure
from training.store import open_store

EVALUATION = {
    "losses": {"fit": 0.2, "inference_before": 1.7, "inference": 0.21, "served": 1.7},
    "metrics": {"test": {"roc_auc": 0.884, "roc_auc_interval": [0.851, 0.912]}},
}
REASON = {"code": "loss_gap", "cause": "batch_norm", "message": "m", "observed": 1.5, "limit": 0.25, "remedy": "r"}
VERDICT = {"accepted": False, "reasons": [REASON], "champion": None}
TIMES = summary.Times(install=61.0, start=30.0, verdict=120.5)
TASKS = [Task("ingest", "success", 7.2, None), Task("promote", "upstream_failed", None, None)]


@pytest.fixture
def run(tmp_path):
    return open_store(str(tmp_path / "run"))


def rows(run) -> dict[str, str]:
    lines = summary.table(load_config(SOLAR_CELLS), summary.read_documents(run.uri()), TASKS, TIMES)
    return {line[: summary.WIDTH].strip(): line[summary.WIDTH :].strip() for line in lines}


def test_every_figure_of_a_refused_night(run):
    run.write("validation.json", json.dumps({"images": 93, "quarantined": {"decodable": 2, "leakage": 1}}).encode())
    run.write("evaluation.json", json.dumps(EVALUATION).encode())
    run.write("verdict.json", json.dumps(VERDICT).encode())
    assert rows(run) == {
        "images": "93, in quarantine: 2 decodable, 1 leakage",
        "fit loss": "0.200",
        "evaluate, before recalibration": "1.700",
        "evaluate, after recalibration": "0.210",
        "gap (served − fit)": "1.500",
        "limit": "0.250",
        "verdict": "refused (batch_norm)",
        "test ROC AUC": "0.884 (0.851 to 0.912)",
        "task ingest": "success  7.2 s",
        "task promote": "upstream_failed",
        "trigger to verdict": "120.5 s",
        "Airflow start (apart)": "30.0 s",
        "installation (apart)": "61.0 s",
    }


def test_losses_that_are_not_finite_are_told_as_such(run):
    run.write("evaluation.json", json.dumps({"losses": dict.fromkeys(EVALUATION["losses"])}).encode())
    assert rows(run)["fit loss"] == "not finite"


def test_a_night_that_ended_early_shows_its_tasks_and_its_failure(run):
    write_failure(run.uri(), "validate", DataRejected("2 images cannot be decoded", remedy="Replace them."))
    assert next(iter(rows(run))) == "task ingest"
    failure = summary.read_documents(run.uri()).failure
    assert summary.failure_lines(failure) == [
        "validate failed: 2 images cannot be decoded",
        "cause: data_rejected",
        "remedy: Replace them.",
    ]


def test_only_pages_that_exist_are_shown(run):
    assert summary.pages(run.uri()) == []
    run.write("report.html", b"<html>")
    (line,) = summary.pages(run.uri())
    assert line.endswith(run.uri("report.html"))
