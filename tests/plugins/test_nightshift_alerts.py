"""Alerts over a real mail server, web servers and an SNS server, from what a run's folder really holds."""

import email
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from email.policy import default
from types import SimpleNamespace

import pytest
import yaml
from airflow.sdk.log import mask_secret

from tests.conftest import ROOT, SOLAR_CELLS
from tests.servers import mail_server, silent_server, topic, webhook
from training.config import load_config
from training.errors import DataRejected, Diverged, NightshiftError, StoreError, WorseThanChampion
from training.evaluation import MEANINGS
from training.nights import all_nights, records_of
from training.run_folder import run_uri_for, write_failure
from training.store import open_store, s3_client

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
PNG = b"\x89PNG\r\n\x1a\n not much of a picture"
CHANNELS = ("mail", "slack", "sns", "webhook")


class Ops:
    """The people who are told: what has reached them on each channel."""

    def __init__(self, mails, posts, topic):
        self.mails, self.posts, self.topic, self._published = mails, posts, topic, []

    def counts(self) -> dict[str, int]:
        self._published += self.topic.received()
        return dict(
            zip(CHANNELS, map(len, (self.mails, self.at("slack"), self._published, self.at("hook"))), strict=True)
        )

    def at(self, path: str) -> list[dict]:
        return [body for where, body in self.posts if where.startswith(f"/{path}/")]

    def mail(self) -> tuple[str, str]:
        """The text and the HTML of the only mail."""
        (envelope,) = self.mails
        message = email.message_from_bytes(envelope.content, policy=default)
        return message.get_body(("plain",)).get_content(), message.get_body(("html",)).get_content()

    def published(self) -> dict:
        self.counts()
        (message,) = self._published
        return message


@pytest.fixture(scope="module")
def sns():
    with topic() as found:
        yield found


@pytest.fixture
def ops(monkeypatch, sns):
    """Every channel's server, as Airflow connections."""
    sns.received()  # what earlier tests left
    with mail_server() as (mail_port, mails), webhook() as (port, posts):
        options = {"disable_ssl": True, "disable_tls": True, "from_email": "night@example.org"}
        mail = {"conn_type": "smtp", "host": "127.0.0.1", "port": mail_port, "extra": options}
        aws = {"conn_type": "aws", "login": "key", "password": "secret", "extra": {"endpoint_url": sns.url}}
        monkeypatch.setenv("AIRFLOW_CONN_MAIL", json.dumps(mail))
        monkeypatch.setenv("AIRFLOW_CONN_AWS", json.dumps(aws))
        monkeypatch.setenv("AIRFLOW_CONN_SLACK", f"http://127.0.0.1:{port}/slack/{SECRET}")
        monkeypatch.setenv("AIRFLOW_CONN_HOOK", f"http://127.0.0.1:{port}/hook/{SECRET}")
        yield Ops(mails, posts, sns)


@pytest.fixture
def model_file(tmp_path, ops):
    """A model whose alerts go to all of them."""
    tree = yaml.safe_load(SOLAR_CELLS.read_text())
    tree["store"] = {"runs": str(tmp_path / "runs"), "champion": str(tmp_path / "champion")}
    channels = {"smtp_conn_id": "mail", "slack_conn_id": "slack", "webhook_conn_id": "hook"}
    sns = {"sns_topic_arn": ops.topic.arn, "aws_conn_id": "aws"}
    tree["alerts"] = {"email_to": ["ops@example.org"], **channels, **sns}
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
    store.write("losses.png", PNG)
    store.write("data_docs/index.html", b"<html>")
    write_failure(uri, "evaluate", Diverged(REASON["message"], cause="batch_norm", remedy=REASON["remedy"]))
    return store


def task_context(step="evaluate", attempt=1, **more):
    """What a task's own callback gets."""
    log_url = f"http://airflow.example.org/tasks/{step}?try_number=1"
    instance = SimpleNamespace(task_id=step, try_number=attempt, log_url=log_url)
    return {"run_id": RUN_ID, "ti": instance, "params": {}, **more}


def alert(model_file, context):
    from nightshift_alerts import OpsAlert

    OpsAlert(str(model_file))(context)


def late(model_file, state="running"):
    from nightshift_alerts import deadline_missed

    about = {"dag_run_id": RUN_ID, "conf": {}, "state": state, "queued_at": "2026-01-02T03:04:05Z"}
    deadline_missed(model_file=str(model_file), context={"dag_run": about})


def fails(model_file, step, error):
    """A step that leaves its failure, and then both callbacks."""
    write_failure(run_uri_for(load_config(model_file), RUN_ID), step, error)
    alert(model_file, task_context(step, exception=RuntimeError("AirflowFailException")))
    alert(model_file, task_context(step, reason="task_failure"))


KINDS = {
    **{cause: lambda file, cause=cause: fails(file, "evaluate", Diverged("m", cause=cause)) for cause in MEANINGS},
    "size_drift": lambda file: fails(file, "validate", DataRejected("m", cause="size_drift")),
    "worse_than_champion": lambda file: fails(file, "evaluate", WorseThanChampion("m")),
    "killed": lambda file: alert(file, task_context("train", reason="task_failure")),
    "deadline": late,
}


@pytest.mark.parametrize("cause", KINDS)
def test_each_kind_of_failure_is_one_message_on_each_channel(cause, model_file, ops):
    KINDS[cause](model_file)
    KINDS[cause](model_file)
    assert ops.counts() == dict.fromkeys(CHANNELS, 1)
    assert ops.at("hook")[0]["cause"] == cause
    assert ops.published()["MessageAttributes"]["cause"]["Value"] == cause
    assert ops.at("hook")[0]["links"]["Runbook"].endswith(f"/training-health/runbook#{cause}")


def test_every_channel_says_what_can_be_acted_on(model_file, refused, ops):
    alert(model_file, task_context(exception=RuntimeError("AirflowFailException")))
    text, html = ops.mail()
    slack, hook = json.dumps(ops.at("slack")[0], ensure_ascii=False), ops.at("hook")[0]
    assert ops.mails[0].rcpt_tos == ["ops@example.org"] and ops.mails[0].mail_from == "night@example.org"
    assert set(ops.at("slack")[0]) == {"text", "blocks"}
    for said in (text, html, slack, ops.published()["Message"], json.dumps(hook, ensure_ascii=False)):
        for fact in (
            "solar_cells",
            RUN_ID,
            "evaluate",
            "batch norm",
            "lag behind",
            *map(REASON.get, ("message", "remedy")),
        ):
            assert fact in said
        assert "1.5 (limit 0.25)" in said and "fit loss, training mode" in said
        for page in ("report.html", "data_docs/index.html", "try_number=1", "runbook#batch_norm"):
            assert page in said
    assert hook["numbers"][0] == {"label": "loss_gap", "observed": 1.5, "limit": 0.25}


def test_worse_than_the_champion_says_by_how_much(model_file, refused, ops):
    figures = {"champion_loss": 0.31, "candidate_loss": 0.52, "champion_roc_auc": 0.91, "candidate_roc_auc": 0.84}
    reason = REASON | {"code": "worse_than_champion", "cause": "worse_than_champion", "observed": 0.3, "limit": 0.1}
    verdict = {"accepted": False, "reasons": [reason], "champion": {"number": 7, **figures}}
    refused.write("verdict.json", json.dumps(verdict).encode())
    write_failure(refused.uri(), "evaluate", WorseThanChampion("It is worse."))
    alert(model_file, task_context())
    for said in (
        "worse_than_champion: 0.3 (limit 0.1)",
        "test loss of this model: 0.52",
        "test loss of champion 7: 0.31",
        "test ROC AUC of champion 7: 0.91",
    ):
        assert said in ops.mail()[0]


def test_the_mail_shows_the_losses_inside(model_file, refused, ops):
    alert(model_file, task_context())
    message = email.message_from_bytes(ops.mails[0].content, policy=default)
    kinds = [part.get_content_type() for part in message.walk()]
    assert kinds == ["multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png"]
    (picture,) = (part for part in message.walk() if part.get_content_type() == "image/png")
    assert picture.get_content() == PNG and picture["Content-ID"] == "<losses.png>"
    assert 'src="cid:losses.png"' in ops.mail()[1]


def test_a_killed_task_is_written_down_for_the_pages_and_the_nights_to_come(model_file, ops):
    alert(model_file, task_context("train", reason="task_failure"))
    config = load_config(model_file)
    store = open_store(run_uri_for(config, RUN_ID))
    assert [entry.key for entry in store.list("alerts/")] == ["alerts/train-killed.json"]
    assert json.loads(store.read("failure.json"))["cause"] == "killed"
    (night,) = all_nights(config.store.runs, config.name)
    assert (night.outcome, night.step, night.cause) == ("failed", "train", "killed")


def test_thin_context_without_a_task_is_enough(model_file, ops):
    alert(model_file, {"run_id": RUN_ID, "dag": None, "reason": "timed_out"})
    assert ops.counts() == dict.fromkeys(CHANNELS, 1)


def test_failure_of_an_earlier_step_is_not_taken_for_this_ones(model_file, refused, ops):
    alert(model_file, task_context("promote", exception=RuntimeError("the disk is full")))
    assert "the disk is full" in ops.at("slack")[0]["text"]


def point(channel, at, monkeypatch):
    """Have a channel's connection lead to the address `at`, or to this path of the server it leads to."""
    if channel in ("slack", "webhook"):
        name = {"slack": "SLACK", "webhook": "HOOK"}[channel]
        connection = {"conn_type": "http", "host": f"http://{at}", "password": SECRET}
    elif channel == "sns":
        name, extra = "AWS", {"endpoint_url": f"http://{at}"}
        connection = {"conn_type": "aws", "login": "k", "password": SECRET, "extra": extra}
    else:
        name, (host, _, port) = "MAIL", at.partition(":")
        options = {"disable_ssl": True, "disable_tls": True}
        connection = {"conn_type": "smtp", "host": host, "port": int(port), "extra": options}
    monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(connection))


@pytest.fixture
def hasty(monkeypatch):
    """Nobody waits long, but long enough for a busy machine."""
    import nightshift_alert_channels as channels

    monkeypatch.setattr(channels, "_AT_MOST", 4.0)
    monkeypatch.setattr(channels, "_GRACE", 0.5)


@pytest.mark.parametrize("fault", ["closed", "silent", "an error"])
@pytest.mark.parametrize("down", CHANNELS)
def test_a_channel_that_is_down_stops_no_other(down, fault, model_file, refused, ops, hasty, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG, logger="nightshift")
    with silent_server() as silent, mail_server(refuses="ops@example.org") as (refusing, _), webhook() as (port, _):
        wrong = f"127.0.0.1:{refusing}" if down == "mail" else f"127.0.0.1:{port}/broken"
        point(down, {"closed": "127.0.0.1:1", "silent": f"127.0.0.1:{silent}"}.get(fault, wrong), monkeypatch)
        begun = time.monotonic()
        alert(model_file, task_context())
        assert time.monotonic() - begun < 15
        assert ops.counts() == {channel: int(channel != down) for channel in CHANNELS}
    assert caplog.text.count("alert not delivered by") == 1
    assert SECRET not in caplog.text and REASON["remedy"] in caplog.text


def test_what_is_too_slow_is_given_up_before_airflow_ends_the_callback(model_file, refused, ops, monkeypatch):
    with silent_server() as silent:
        for channel in CHANNELS:
            point(channel, f"127.0.0.1:{silent}", monkeypatch)
        begun = time.monotonic()
        alert(model_file, task_context())
        assert time.monotonic() - begun < 15


@pytest.mark.parametrize("down", CHANNELS)
def test_the_dags_callback_delivers_what_the_tasks_could_not(down, model_file, refused, ops, hasty, monkeypatch):
    with monkeypatch.context() as trouble:
        point(down, "127.0.0.1:1", trouble)
        alert(model_file, task_context(exception=RuntimeError("x")))
    for _ in range(2):
        alert(model_file, task_context(reason="task_failure"))
    assert ops.counts() == dict.fromkeys(CHANNELS, 1)


def calling_back(model_file, context="{}", **environment):
    """A process that calls back as a task that failed at `evaluate`."""
    code = (
        "import sys; sys.path.append('plugins')\n"
        "from types import SimpleNamespace; from nightshift_alerts import OpsAlert\n"
        f"OpsAlert(sys.argv[1])({{'run_id': {RUN_ID!r}, 'params': {{}}, 'ti': SimpleNamespace("
        f"task_id='evaluate', try_number=1, log_url='http://x'), **{context}}})"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    call = [sys.executable, "-c", code, str(model_file)]
    return subprocess.Popen(call, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)


def test_many_processes_at_once_tell_once(model_file, refused, ops):
    contexts = ["{'exception': RuntimeError('x')}", "{'reason': 'task_failure'}"] * 2
    processes = [calling_back(model_file, context) for context in contexts]
    assert [process.wait(120) for process in processes] == [0] * 4
    assert ops.counts() == dict.fromkeys(CHANNELS, 1)


def test_a_callback_killed_while_it_delivers_is_gone_on_with(model_file, refused, ops, hasty):
    with silent_server() as silent:
        mail = {"conn_type": "smtp", "host": "127.0.0.1", "port": silent}
        process = calling_back(model_file, "{'exception': RuntimeError('x')}", AIRFLOW_CONN_MAIL=json.dumps(mail))
        ticks = ("Slack", "SNS", "webhook")
        while not all(refused.exists(f"alerts_delivered/evaluate-batch_norm/{channel}") for channel in ticks):
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
        process.wait()
    assert ops.counts() == {"mail": 0, "slack": 1, "sns": 1, "webhook": 1}
    alert(model_file, task_context(reason="task_failure"))
    assert ops.counts() == dict.fromkeys(CHANNELS, 1)


def test_a_task_that_is_killed_after_another_failure_was_told_is_told_of(model_file, refused, ops):
    alert(model_file, task_context(exception=RuntimeError("x")))
    refused.delete("failure.json")  # as the step does when somebody has cleared it and it begins again
    alert(model_file, task_context(attempt=2, reason="task_failure"))
    assert [body["cause"] for body in ops.at("hook")] == ["batch_norm", "killed"]


@pytest.fixture
def no_runs(model_file, tmp_path, monkeypatch):
    """The model's runs are in a bucket whose server does not answer; a function that says which port that is on."""
    tree = yaml.safe_load(model_file.read_text())
    tree["store"]["runs"] = f"s3://no-such-bucket/{tmp_path.name}"
    model_file.write_text(yaml.safe_dump(tree))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    def on(port):
        s3_client.client.cache_clear()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")

    yield on
    s3_client.client.cache_clear()


LOST = "s3://no-such-bucket: EndpointConnectionError"


@pytest.mark.parametrize("by_task", [True, False])
@pytest.mark.parametrize("silent", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_runs_that_cannot_be_reached_hide_no_failure(silent, by_task, model_file, no_runs, ops):
    with silent_server() as port:
        no_runs(port if silent else 1)
        begun = time.monotonic()
        if by_task:
            alert(model_file, task_context("train", exception=StoreError(LOST, remedy="Check the endpoint.")))
            assert time.monotonic() - begun < 19  # at 20 Airflow ends it
        alert(model_file, task_context("train", reason="task_failure"))
    assert ops.counts() == dict.fromkeys(CHANNELS, 1)
    (told,) = ops.at("hook")
    assert told["cause"] == "store" and ("no-such-bucket: Endpoint" in told["text"]) == by_task


def test_a_failure_that_could_not_be_written_down_is_told_as_what_it_was(model_file, ops):
    error = RuntimeError("AirflowFailException")
    error.__cause__ = DataRejected("m", cause="size_drift", remedy="Look at the images.")
    alert(model_file, task_context("validate", exception=error))
    assert ops.at("hook")[0]["cause"] == "size_drift" and "Look at the images." in ops.mail()[0]


def test_a_secret_in_an_exception_stays_one(model_file, ops, refused):
    mask_secret("hunter2-and-more")
    alert(model_file, task_context("promote", exception=RuntimeError("http://user:hunter2-and-more@host")))
    said = [*ops.mail(), ops.published()["Message"], *map(json.dumps, [ops.at("slack"), ops.at("hook")])]
    assert not [text for text in said if "hunter2" in text] and "user:***@host" in said[0]


def test_nothing_configured_still_leaves_the_message(model_file, refused, caplog):
    tree = yaml.safe_load(model_file.read_text())
    model_file.write_text(yaml.safe_dump({key: value for key, value in tree.items() if key != "alerts"}))
    alert(model_file, task_context())
    left = json.loads(refused.read("alerts/evaluate-batch_norm.json"))
    assert left["numbers"][0] == {"label": "loss_gap", "observed": 1.5, "limit": 0.25}
    assert left["text"] in caplog.text


def earlier(model_file, *nights):
    """Records of nights before this one, the oldest first: (outcome, step, cause)."""
    config = load_config(model_file)
    store = records_of(config.store.runs, config.name)
    for day, (outcome, step, cause) in enumerate(nights, 1):
        night = {
            "run": f"n{day}",
            "began": f"2025-12-0{day}T02:00:00+00:00",
            "outcome": outcome,
            "step": step,
            "cause": cause,
        }
        store.write(f"n{day}.json", json.dumps(night).encode())


FAILED = ("failed", "evaluate", "batch_norm")


@pytest.mark.parametrize(
    ("nights", "said"),
    [
        ([], "failed at evaluate (batch_norm)"),
        ([FAILED], "second night: batch_norm at evaluate"),
        (
            [("promoted", "promote", None), FAILED, ("skipped", "validate", None), FAILED],
            "third night: batch_norm at evaluate",
        ),
        ([FAILED, ("accepted", "evaluate", None)], "failed at evaluate (batch_norm)"),
        ([FAILED, ("failed", "validate", "size_drift")], "failed at evaluate (batch_norm)"),
    ],
)
def test_a_repeated_cause_is_counted_and_told_more_quietly(nights, said, model_file, refused, ops):
    earlier(model_file, *nights)
    alert(model_file, task_context())
    assert said in ops.at("hook")[0]["subject"] and ops.counts() == dict.fromkeys(CHANNELS, 1)
    assert ("cid:" in ops.mail()[1]) == ("night:" not in said)
    header = ops.at("slack")[0]["blocks"][0]["type"] == "header"
    assert header == ("night:" not in said) and ("fit loss" in ops.mail()[0]) == header
    assert "1.5 (limit 0.25)" in ops.mail()[0] and said in json.dumps(ops.at("slack")[0]["blocks"])
    if "third" in said:
        assert "the third night in a row, since 2025-12-02" in ops.mail()[0]


@pytest.mark.parametrize(
    ("outcome", "nights", "subject"),
    [
        ({"accepted": True}, [("promoted", "promote", None), FAILED, FAILED], "recovered after 2 failed nights"),
        ({"accepted": True}, [FAILED, ("skipped", "validate", None)], "recovered after one failed night"),
        ({"accepted": True}, [FAILED, ("promoted", "promote", None)], None),
        (None, [FAILED], None),
    ],
)
def test_a_night_that_passes_again_is_told_once(outcome, nights, subject, model_file, ops):
    from nightshift_alerts import Recovered

    earlier(model_file, *nights)
    store = open_store(run_uri_for(load_config(model_file), RUN_ID))
    if outcome:
        store.write("verdict.json", json.dumps({**outcome, "reasons": [], "champion": None}).encode())
    for _ in range(2):
        Recovered(str(model_file))(task_context("promote"))
    assert ops.counts() == dict.fromkeys(CHANNELS, int(subject is not None))
    assert subject is None or ops.at("hook")[0]["subject"] == f"Nightshift: solar_cells {subject}"


def test_a_late_night_says_how_far_it_is(model_file, ops):
    store = open_store(run_uri_for(load_config(model_file), RUN_ID))
    for step in ("ingest", "validate"):
        store.write(f"done/{step}.json", b"{}")
    times = {"ingest": {}, "validate": {"began": "2026-01-02T03:10:00+00:00", "seconds": 61.2}}
    store.write("provenance.json", json.dumps({"steps": times}).encode())
    late(model_file)
    assert "at oversample" in ops.at("hook")[0]["subject"] and "done so far: ingest, validate" in ops.mail()[0]
    assert "oversample runs or waits, since 2026-01-02T03:11:01+00:00" in ops.mail()[0]


@pytest.mark.parametrize("state", ["failed", "success"])
def test_a_night_that_has_ended_is_not_late(state, model_file, ops):
    late(model_file, state)
    assert ops.counts() == dict.fromkeys(CHANNELS, 0)


@pytest.mark.parametrize(("number", "word"), [(2, "second"), (10, "tenth"), (11, "11th"), (22, "22nd"), (112, "112th")])
def test_ordinals(number, word):
    from nightshift_alert_message import ordinal

    assert ordinal(number) == word


def test_a_pending_approval_is_told_with_the_page_to_answer_on(model_file, ops):
    from nightshift_alerts import ApprovalAsked

    ApprovalAsked(str(model_file))(task_context("promote"))
    assert ops.at("hook")[0]["links"]["Approve"].endswith("/tasks/promote/required_actions")


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
    from nightshift_alert_channels import webhook_url

    monkeypatch.setenv("AIRFLOW_CONN_HOOK", json.dumps(connection))
    assert webhook_url("hook") == url


def test_markup_in_messages_is_text(model_file, refused, ops):
    write_failure(refused.uri(), "evaluate", NightshiftError("<b>&\r\nSubject: x", cause="batch_norm"))
    alert(model_file, task_context())
    assert "&lt;b&gt;&amp;" in ops.mail()[1] and "&lt;b&gt;&amp;" in json.dumps(ops.at("slack")[0])
