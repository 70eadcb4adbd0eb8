"""How a message reaches ops: e-mail, Slack, AWS SNS, any webhook; each by itself, whatever happens to the others."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import BaseHook
from airflow.sdk.log import mask_secret
from nightshift_alert_message import PICTURE, Message, as_html, as_slack, as_text
from nightshift_alert_outbox import Outbox
from nightshift_alert_patience import begun

from training.config import AlertsConfig

log = logging.getLogger("nightshift.alerts")
_SECONDS = 8.0
# For all of them together, since Airflow ends a task's callbacks after 20 seconds.
_AT_MOST = 10.0
# How much later than that another process may tick off its last channel, and how often that is looked for.
_GRACE, _PAUSE = 3.0, 0.5
# SNS refuses longer ones, and subjects with a line break.
_SNS_SUBJECT, _SNS_BYTES = 100, 200_000
_Deliver = Callable[[Message], None]


def deliver(message: Message, alerts: AlertsConfig, outbox: Outbox) -> None:
    """Send a message through every configured channel that has not delivered it yet, all at the same time.

    One channel's trouble is logged, without its message: that may hold the webhook's URL or a password.
    """
    end, channels = time.monotonic() + _AT_MOST, _channels(alerts)
    for channel, sent in [(name, begun(partial(_send, name, how, message, outbox))) for name, how in channels]:
        try:
            sent.result(max(0.0, end - time.monotonic()))
        except Exception as error:  # noqa: BLE001 — whatever it is, the other channels' results still count
            log.error("alert not delivered by %s: %s", channel, type(error).__name__)
        else:
            log.info("alert delivered by %s", channel)


def deliver_rest(message: Message, alerts: AlertsConfig, outbox: Outbox) -> None:
    """Deliver what has not been; whoever began it may still be at it, and is given the time to end."""
    end = time.monotonic() + _AT_MOST + _GRACE
    while not all(outbox.is_ticked(message, channel) for channel, _ in _channels(alerts)):
        if time.monotonic() > end:
            deliver(message, alerts, outbox)
            return
        time.sleep(_PAUSE)


def _send(channel: str, how: _Deliver, message: Message, outbox: Outbox) -> None:
    if not outbox.is_ticked(message, channel):
        how(message)
        outbox.tick(message, channel)


def _channels(alerts: AlertsConfig) -> Iterator[tuple[str, _Deliver]]:
    slack, webhook, topic = alerts.slack_conn_id, alerts.webhook_conn_id, alerts.sns_topic_arn
    if alerts.email_to:
        yield "e-mail", lambda message: _send_email(message, alerts)
    if slack:
        yield "Slack", lambda message: _post(as_slack(message), slack)
    if topic:
        yield "SNS", lambda message: _publish(message, topic, alerts.aws_conn_id)
    if webhook:
        # Its `text` and `blocks` are Slack's, which many receivers understand; the rest is for programs.
        yield "webhook", lambda message: _post({**message.tree(), **as_slack(message)}, webhook)


def _send_email(message: Message, alerts: AlertsConfig) -> None:
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    with SmtpHook(smtp_conn_id=alerts.smtp_conn_id) as hook:
        # Without a sender of its own, the mail comes from its first reader.
        mail = _email(message, hook.from_email or alerts.email_to[0], alerts.email_to)
        # The hook's own sending knows neither a text part nor a picture inside.
        refused = hook._smtp_client.send_message(mail)  # type: ignore[union-attr]
    if refused:
        log.error("the mail server took the alert for all but %d of its addresses", len(refused))


def _email(message: Message, sender: str, to: tuple[str, ...]) -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = " ".join(message.subject.split()), sender, ", ".join(to)
    mail.set_content(as_text(message))
    mail.add_alternative(as_html(message, f"cid:{PICTURE}" if message.picture else None), subtype="html")
    if message.picture:
        _, html = mail.iter_parts()
        assert isinstance(html, EmailMessage)  # what add_alternative adds
        html.add_related(message.picture, "image", "png", cid=f"<{PICTURE}>", filename=PICTURE, disposition="inline")
    return mail


def _post(body: dict[str, Any], connection_id: str) -> None:
    import requests

    url = webhook_url(connection_id)
    mask_secret(url)
    mask_secret(urlsplit(url).path)  # at DEBUG, HTTP libraries log this much of it
    requests.post(url, json=body, timeout=_SECONDS).raise_for_status()


def webhook_url(connection_id: str) -> str:
    """Airflow's HTTP convention: host (perhaps a whole URL), a path as schema, the secret last part as password."""
    connection = BaseHook.get_connection(connection_id)
    host, path = connection.host or "", connection.schema or ""
    if "://" not in host:
        protocol = path if path in ("http", "https") else connection.conn_type
        port = f":{connection.port}" if connection.port else ""
        host = f"{protocol}://{host}{port}"
    parts = [host, "" if path in ("http", "https") else path, connection.password or ""]
    return "/".join(part.strip("/") if part is not host else part.rstrip("/") for part in parts if part)


def _publish(message: Message, topic: str, connection_id: str | None) -> None:
    """The text, for people; subscriptions can filter by the attribute `cause`."""
    attributes = {"cause": {"DataType": "String", "StringValue": message.cause}}
    subject = " ".join(message.subject.encode("ascii", "replace").decode().split())[:_SNS_SUBJECT]
    text = as_text(message).encode()[:_SNS_BYTES].decode(errors="ignore")
    _sns(topic, connection_id).publish(TopicArn=topic, Subject=subject, Message=text, MessageAttributes=attributes)


def _sns(topic: str, connection_id: str | None) -> Any:
    """A client in the topic's region; Airflow's convention for AWS: key and secret, the rest as extras."""
    import boto3
    from botocore.config import Config

    account: dict[str, Any] = {"region_name": topic.split(":")[3]}
    endpoint = None
    if connection_id:
        connection = BaseHook.get_connection(connection_id)
        extra = json.loads(connection.extra or "{}")
        endpoint = extra.get("endpoint_url")
        account |= {key: extra[key] for key in ("region_name", "profile_name", "aws_session_token") if extra.get(key)}
        if connection.login:
            account |= {"aws_access_key_id": connection.login, "aws_secret_access_key": connection.password}
    limits = Config(connect_timeout=_SECONDS, read_timeout=_SECONDS, retries={"total_max_attempts": 2})
    return boto3.Session(**account).client("sns", endpoint_url=endpoint, config=limits)
