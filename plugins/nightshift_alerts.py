"""Tells ops that a night failed: by e-mail, by webhook, and always by a file in the run's folder and the log."""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import BaseHook, BaseNotifier, Context
from airflow.sdk.log import mask_secret
from nightshift_alert_message import Alert, Night, as_html, as_slack, as_text, build_alert, killed, unexpected

from training.config import AlertsConfig, RunConfig, load_config
from training.errors import NightshiftError
from training.form import load_from_form
from training.run_folder import FAILURE, run_uri_for
from training.store import NotFound, Store, open_store

log = logging.getLogger("nightshift.alerts")
_SECONDS = 10.0
# The exit codes of a refused model, whose numbers are worth telling.
_REFUSED = (4, 5)


class OpsAlert(BaseNotifier):
    """The failure callback of a model's tasks and of its DAG; of the two, the first one to come delivers."""

    def __init__(self, model_file: str) -> None:
        super().__init__()
        self.model_file = model_file

    def notify(self, context: Context) -> None:
        config = _config(self.model_file, context)
        run_uri = run_uri_for(config, context["run_id"])
        store = open_store(run_uri)
        step = _step(context)
        if "exception" not in context and _told(store, step):
            return
        tell(_alert(config, run_uri, store, step, context), store, config.alerts)


def tell(alert: Alert, store: Store, alerts: AlertsConfig) -> None:
    """Leave the alert in the run's folder and, if it was not there yet, deliver it through every channel."""
    if not _first(alert, store):
        log.info("already told: %s", store.uri(alert.key))
        return
    log.error("%s", as_text(alert))
    if alerts.email_to:
        _try("e-mail", lambda: _send_email(alert, alerts))
    if alerts.webhook_conn_id:
        _try("webhook", lambda: _post(alert, str(alerts.webhook_conn_id)))


def _first(alert: Alert, store: Store) -> bool:
    try:
        return store.create(alert.key, json.dumps(alert.tree(), indent=2).encode() + b"\n")
    except NightshiftError as error:
        # Told twice is better than not at all.
        log.warning("the alert could not be left in the run's folder: %s", error)
        return True


def _try(channel: str, deliver: Callable[[], None]) -> None:
    """One channel's trouble is logged, without its message: that may hold the webhook's URL or a password."""
    try:
        deliver()
    except Exception as error:  # noqa: BLE001 — whatever it is, the other channel still has its turn
        log.error("alert not delivered by %s: %s", channel, type(error).__name__)
    else:
        log.info("alert delivered by %s", channel)


def _send_email(alert: Alert, alerts: AlertsConfig) -> None:
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    with SmtpHook(smtp_conn_id=alerts.smtp_conn_id) as hook:
        hook.send_email_smtp(
            to=list(alerts.email_to),
            # Without a sender of its own, the mail comes from its first reader.
            from_email=hook.from_email or alerts.email_to[0],
            subject=alert.subject,
            html_content=as_html(alert),
        )


def _post(alert: Alert, connection_id: str) -> None:
    import requests

    url = _webhook_url(connection_id)
    mask_secret(url)
    mask_secret(urlsplit(url).path)  # at DEBUG, HTTP libraries log this much of it
    response = requests.post(url, json=as_slack(alert), timeout=_SECONDS)
    response.raise_for_status()


def _webhook_url(connection_id: str) -> str:
    """Airflow's HTTP convention: host (perhaps a whole URL), a path as schema, the secret last part as password."""
    connection = BaseHook.get_connection(connection_id)
    host, path = connection.host or "", connection.schema or ""
    if "://" not in host:
        protocol = path if path in ("http", "https") else connection.conn_type
        port = f":{connection.port}" if connection.port else ""
        host = f"{protocol}://{host}{port}"
    parts = [host, "" if path in ("http", "https") else path, connection.password or ""]
    return "/".join(part.strip("/") if part is not host else part.rstrip("/") for part in parts if part)


def _config(model_file: str, context: Context) -> RunConfig:
    try:
        return load_from_form(model_file, context.get("params") or {})
    except NightshiftError:
        # What was filled in cannot be used; that may be the very failure to tell about.
        return load_config(model_file)


def _step(context: Context) -> str:
    instance = context.get("ti")
    return instance.task_id if instance is not None else "run"


def _told(store: Store, step: str) -> bool:
    return any(True for _ in store.list(f"alerts/{step}-"))


def _alert(config: RunConfig, run_uri: str, store: Store, step: str, context: Context) -> Alert:
    night = Night(config.name, context["run_id"], run_uri, step, _links(store, context))
    failure = _failure(store, step, context)
    if failure.get("exit_code") not in _REFUSED:
        return build_alert(night, failure, None, None)
    return build_alert(night, failure, _document(store, "verdict.json"), _document(store, "evaluation.json"))


def _failure(store: Store, step: str, context: Context) -> Mapping[str, Any]:
    left = _document(store, FAILURE)
    if left is not None and left["step"] == step:
        return left
    exception = context.get("exception")
    return killed() if exception is None else unexpected(exception)


def _links(store: Store, context: Context) -> dict[str, str]:
    instance = context.get("ti")
    links = {} if instance is None else {"Task log": instance.log_url}
    pages = {"Report": "report.html", "Data Docs": "data_docs/index.html"}
    links |= {label: _absolute(store.uri(key)) for label, key in pages.items() if _exists(store, key)}
    return {**links, "Run folder": _absolute(store.uri(""))}


def _absolute(uri: str) -> str:
    return uri if "://" in uri else str(Path(uri).resolve())


def _exists(store: Store, key: str) -> bool:
    try:
        return store.exists(key)
    except NightshiftError:
        return False


def _document(store: Store, key: str) -> dict[str, Any] | None:
    """A document of the run, if it is there and can be read; an alert must not fail for want of one."""
    try:
        return dict(json.loads(store.read(key)))
    except NotFound:
        return None
    except (NightshiftError, ValueError) as error:
        log.warning("%s cannot be read: %s", key, error)
        return None
