"""Alerts over a real mail server and a real web server, from what a run's folder really holds."""

import email
import json
import logging
import os
import sys
from types import SimpleNamespace

import pytest
import yaml
from aiosmtpd.controller import Controller

from runner.ports import free_port
from tests.conftest import ROOT, SOLAR_CELLS
from tests.servers import webhook
from training.config import load_config
from training.errors import Diverged
from training.run_folder import run_uri_for, write_failure
from training.store import open_store

RUN_ID = "manual__2026-01-02T03:04:05+00:00"
SECRET = "T000/B000/very-secret"
REASON = {
    "code": "loss_gap",
    "message": "Training and evaluation diverged.",
    "observed": 1.5,
    "limit": 0.25,
    "cause": "batch_norm",
    "remedy": "Turn on recalibrate.enabled.",
}
LOSSES = {"fit": 0.2, "inference_before": 1.7, "inference": 0.21, "served": 1.7}


@pytest.fixture(scope="session", autouse=True)
def plugins(tmp_path_factory):
    """Airflow's own home, and the plugins folder on the path, as Airflow puts it there."""
    os.environ.setdefault("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
    sys.path.append(str(ROOT / "plugins"))
    yield
    sys.path.remove(str(ROOT / "plugins"))


@pytest.fixture
def mails():
    """A mail server on this machine: its port and what it was sent."""

    class Inbox:
        def __init__(self):
            self.received = []

        async def handle_DATA(self, _server, _session, envelope):  # noqa: N802
            self.received.append(envelope)
            return "250 OK"

    inbox = Inbox()
    server = Controller(inbox, hostname="127.0.0.1", port=free_port(8025))
    server.start()
    yield server.port, inbox.received
    server.stop()


@pytest.fixture
def posts():
    with webhook() as server:
        yield server


@pytest.fixture
def connected(monkeypatch, mails, posts):
    """Both servers as Airflow connections."""
    options = {"disable_ssl": True, "disable_tls": True, "from_email": "night@example.org"}
    mail = {"conn_type": "smtp", "host": "127.0.0.1", "port": mails[0], "extra": options}
    monkeypatch.setenv("AIRFLOW_CONN_MAIL", json.dumps(mail))
    monkeypatch.setenv("AIRFLOW_CONN_HOOK", f"http://127.0.0.1:{posts[0]}/services/{SECRET}")
    return mails[1], posts[1]


@pytest.fixture
def model_file(tmp_path):
    """A model whose alerts go to the servers above."""
    tree = yaml.safe_load(SOLAR_CELLS.read_text())
    tree["store"] = {"runs": str(tmp_path / "runs"), "champion": str(tmp_path / "champion")}
    tree["alerts"] = {"email_to": ["ops@example.org"], "smtp_conn_id": "mail", "webhook_conn_id": "hook"}
    path = tmp_path / "solar_cells.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture
def refused(model_file):
    """The folder of a run that the gate has refused."""
    uri = run_uri_for(load_config(model_file), RUN_ID)
    store = open_store(uri)
    store.write("verdict.json", json.dumps({"accepted": False, "reasons": [REASON], "champion": None}).encode())
    store.write("evaluation.json", json.dumps({"losses": LOSSES}).encode())
    store.write("report.html", b"<html>")
    store.write("data_docs/index.html", b"<html>")
    write_failure(uri, "evaluate", Diverged(REASON["message"], cause="batch_norm", remedy=REASON["remedy"]))
    return store


def task_context(step="evaluate", **more):
    """What a task's own callback gets."""
    instance = SimpleNamespace(task_id=step, log_url=f"http://airflow.example.org/tasks/{step}?try_number=1")
    return {"run_id": RUN_ID, "ti": instance, "params": {}, **more}


def alert(model_file, context):
    from nightshift_alerts import OpsAlert

    OpsAlert(str(model_file))(context)


def test_both_channels_get_what_can_be_acted_on(model_file, refused, connected):
    mails, posts = connected
    alert(model_file, task_context(exception=RuntimeError("AirflowFailException")))
    (envelope,), ((path, body),) = mails, posts
    mail = email.message_from_bytes(envelope.content)
    html = mail.get_payload()[0].get_payload(decode=True).decode()
    assert envelope.rcpt_tos == ["ops@example.org"] and envelope.mail_from == "night@example.org"
    assert path == f"/services/{SECRET}" and set(body) == {"text", "blocks"}
    for said in (html, json.dumps(body, ensure_ascii=False)):
        for fact in (
            "solar_cells",
            RUN_ID,
            "evaluate",
            "batch norm",
            "lag behind",
            REASON["message"],
            REASON["remedy"],
        ):
            assert fact in said
        assert "1.5 (limit 0.25)" in said and "fit loss, training mode: 0.2" in said
        assert "report.html" in said and "data_docs/index.html" in said and "try_number=1" in said


def test_task_and_dag_callbacks_together_tell_once(model_file, refused, connected):
    alert(model_file, task_context(exception=RuntimeError("AirflowFailException")))
    alert(model_file, task_context(reason="task_failure"))
    alert(model_file, task_context(exception=RuntimeError("again")))
    assert [len(channel) for channel in connected] == [1, 1]
    assert [entry.key for entry in refused.list("alerts/")] == ["alerts/evaluate-batch_norm.json"]


def test_killed_task_is_told_by_the_dags_callback(model_file, connected):
    alert(model_file, task_context("train", reason="task_failure"))
    (entry,) = open_store(run_uri_for(load_config(model_file), RUN_ID)).list("alerts/")
    assert entry.key == "alerts/train-killed.json"
    assert [len(channel) for channel in connected] == [1, 1]


def test_thin_context_without_a_task_is_enough(model_file, connected):
    alert(model_file, {"run_id": RUN_ID, "dag": None, "reason": "timed_out"})
    assert [len(channel) for channel in connected] == [1, 1]


def test_failure_of_an_earlier_step_is_not_taken_for_this_ones(model_file, refused, connected):
    alert(model_file, task_context("promote", exception=RuntimeError("the disk is full")))
    assert "the disk is full" in connected[1][0][1]["text"]


def test_one_channel_down_does_not_stop_the_other(model_file, refused, connected, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MAIL", json.dumps({"conn_type": "smtp", "host": "127.0.0.1", "port": 1}))
    alert(model_file, task_context())
    assert [len(channel) for channel in connected] == [0, 1]


def test_secrets_never_reach_the_log(model_file, refused, connected, posts, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG, logger="nightshift")
    monkeypatch.setenv("AIRFLOW_CONN_HOOK", f"http://127.0.0.1:{posts[0]}/broken/{SECRET}")
    alert(model_file, task_context())
    assert "not delivered by webhook: HTTPError" in caplog.text and "delivered by e-mail" in caplog.text
    assert SECRET not in caplog.text and REASON["remedy"] in caplog.text
    assert len(connected[0]) == 1


def test_nothing_configured_still_leaves_the_message(model_file, refused, caplog):
    tree = yaml.safe_load(model_file.read_text())
    model_file.write_text(yaml.safe_dump({key: value for key, value in tree.items() if key != "alerts"}))
    alert(model_file, task_context())
    left = json.loads(refused.read("alerts/evaluate-batch_norm.json"))
    assert left["numbers"][0] == {"label": "loss_gap", "observed": 1.5, "limit": 0.25}
    assert left["text"] in caplog.text


@pytest.mark.parametrize(
    ("connection", "url"),
    [
        (
            {"conn_type": "http", "host": "https://hooks.example.org/services/T/B"},
            "https://hooks.example.org/services/T/B",
        ),
        (
            {"conn_type": "slackwebhook", "host": "https://hooks.example.org/services/", "password": "T/B/x"},
            "https://hooks.example.org/services/T/B/x",
        ),
        ({"conn_type": "http", "schema": "https", "host": "example.org", "port": 8443}, "https://example.org:8443"),
    ],
)
def test_webhook_urls(connection, url, monkeypatch):
    from nightshift_alerts import _webhook_url

    monkeypatch.setenv("AIRFLOW_CONN_HOOK", json.dumps(connection))
    assert _webhook_url("hook") == url


def test_markup_in_messages_is_text(model_file, refused, connected):
    write_failure(refused.uri(), "evaluate", Diverged("<b>&", cause="batch_norm"))
    alert(model_file, task_context())
    html = email.message_from_bytes(connected[0][0].content).get_payload()[0].get_payload(decode=True).decode()
    assert "&lt;b&gt;&amp;" in html and "&lt;b&gt;&amp;" in json.dumps(connected[1][0][1])
