"""Alerts through a real Airflow, on every channel: a task killed at each of its tries, a night that does not end."""

import json
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
import yaml

from runner.api import Api
from tests.browser import pages
from tests.conftest import ROOT, SOLAR_CELLS, small_settings
from tests.servers import mail_server, topic, webhook
from training.config import load_config, to_json
from training.nights import all_nights

pytestmark = [pytest.mark.airflow, pytest.mark.soak]
DAG = "retrain_solar_cells"
LATE_SECONDS = 90
# Stands for the first step: it is killed as by the kernel, or with seed 1 never ends.
STEP = """
import os, signal, time
INPUTS = OUTPUTS = ()
def work(run):
    if run.config.seed == 1:
        time.sleep(3600)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def ops():
    """Every channel's server."""
    with ExitStack() as stack:
        mails, posts = stack.enter_context(mail_server()), stack.enter_context(webhook())
        yield SimpleNamespace(mails=mails, posts=posts, topic=stack.enter_context(topic()), published=[])


@pytest.fixture(scope="module")
def checkout(ops, few_cells, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alerts")
    for part in ("dags", "plugins", "runner", "training"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "training" / "steps" / "ingest.py").write_text(STEP)
    dag = folder / "dags" / "nightly_retraining.py"
    dag.write_text(
        dag.read_text().replace('"retry_delay": timedelta(seconds=20)', '"retry_delay": timedelta(seconds=1)')
    )
    tree = json.loads(to_json(load_config(SOLAR_CELLS, small_settings(few_cells, "night"))))
    tree["deadline_hours"] = LATE_SECONDS / 3600
    channels = {"email_to": ["ops@example.org"], "smtp_conn_id": "mail", "slack_conn_id": "slack"}
    tree["alerts"] = {**channels, "webhook_conn_id": "hook", "sns_topic_arn": ops.topic.arn, "aws_conn_id": "aws"}
    (folder / "dags" / "models" / "solar_cells.yaml").write_text(yaml.safe_dump(tree))
    return folder


@pytest.fixture(scope="module")
def airflow(checkout, ops):
    plain = {"disable_ssl": True, "disable_tls": True, "from_email": "night@example.org"}
    mail = {"conn_type": "smtp", "host": "127.0.0.1", "port": ops.mails[0], "extra": plain}
    aws = {"conn_type": "aws", "login": "key", "password": "secret", "extra": {"endpoint_url": ops.topic.url}}
    addresses = {name: f"http://127.0.0.1:{ops.posts[0]}/{name.lower()}" for name in ("SLACK", "HOOK")}
    connections = {"MAIL": json.dumps(mail), "AWS": json.dumps(aws), **addresses}
    with pages(checkout, **{f"AIRFLOW_CONN_{name}": value for name, value in connections.items()}) as api:
        api.pause(DAG, paused=False)
        yield api


def told(ops: SimpleNamespace) -> dict[str, int]:
    """How many messages have come by each channel."""
    ops.published += ops.topic.received()
    paths = [path for path, _ in ops.posts[1]]
    posts = {"slack": paths.count("/slack"), "webhook": paths.count("/hook")}
    return {"mail": len(ops.mails[1]), "sns": len(ops.published), **posts}


def everywhere(count: int) -> dict[str, int]:
    return dict.fromkeys(("mail", "sns", "slack", "webhook"), count)


def causes(ops: SimpleNamespace) -> list[str]:
    return [body["cause"] for path, body in ops.posts[1] if path == "/hook"]


def wait_for(holds: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(1)


def test_a_task_killed_at_every_try_is_told_once_and_is_not_late_afterwards(checkout, ops, airflow: Api):
    queued, run_id = time.monotonic(), airflow.trigger(DAG, {})
    wait_for(lambda: airflow.run_state(DAG, run_id) == "failed")
    assert {task["task_id"]: task["try_number"] for task in airflow.tasks(DAG, run_id)}["ingest"] == 3
    wait_for(lambda: told(ops) == everywhere(1))
    time.sleep(max(0.0, queued + LATE_SECONDS + 20 - time.monotonic()))
    assert told(ops) == everywhere(1) and causes(ops) == ["killed"]
    nights = all_nights(str(checkout / "night" / "runs"), "solar_cells")
    assert [(night.outcome, night.step, night.cause) for night in nights] == [("failed", "ingest", "killed")]


def test_a_night_that_does_not_end_is_told_once(ops, airflow: Api):
    run_id = airflow.trigger(DAG, {"seed": 1})
    wait_for(lambda: told(ops) == everywhere(2))
    time.sleep(10)
    assert told(ops) == everywhere(2) and causes(ops) == ["killed", "deadline"]
    assert airflow.run_state(DAG, run_id) == "running"
