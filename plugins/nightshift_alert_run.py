"""One run as an alert sees it: its folder, and what its model's settings say of where and whom to tell."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nightshift_alert_message import KILLED, PICTURE, RUNBOOK, Place
from nightshift_alert_outbox import Outbox
from nightshift_alert_patience import Patience

from training.config import RunConfig, load_config
from training.errors import NightshiftError
from training.form import load_from_form
from training.nights import Night, all_nights, preceding, record
from training.run_folder import run_uri_for, write_failure
from training.store import open_store

_PAGES = {"Report": "report.html", "Data Docs": "data_docs/index.html"}
# For reading all that a message says; together with its delivery less than Airflow waits.
_SECONDS = 5.0


class NightRun:
    """One run's folder, which may not answer; then what it would have said is missing, and the alert comes without."""

    def __init__(self, config: RunConfig, run_id: str) -> None:
        self.config, self.run_id, self.dag_id = config, run_id, f"retrain_{config.name}"
        self.uri = run_uri_for(config, run_id)
        self.store, self.patience = open_store(self.uri), Patience(_SECONDS)
        self.outbox = Outbox(self.store)

    @classmethod
    def of(cls, model_file: str, run_id: str, params: Mapping[str, Any] | None) -> "NightRun":
        return cls(_config(model_file, params or {}), run_id)

    @property
    def name(self) -> str:
        return self.uri.rpartition("/")[2]

    def nights_before(self) -> list[Night]:
        """The newest first."""
        runs, model = self.config.store.runs, self.config.name
        return self.patience.ask(lambda: preceding(all_nights(runs, model), self.name), [])

    def document(self, key: str) -> dict[str, Any] | None:
        return self.patience.ask(lambda: dict(json.loads(self.store.read(key))), None)

    def picture(self) -> bytes | None:
        return self.patience.ask(lambda: self.store.read(PICTURE), None)

    def has(self, key: str) -> bool:
        return self.patience.ask(lambda: self.store.exists(key), False)

    def write_down_killed(self, step: str) -> None:
        """A killed task could leave nothing itself; the pages and the nights to come should know all the same."""
        error = NightshiftError(KILLED["message"], cause=KILLED["cause"], remedy=KILLED["remedy"])
        self.patience.ask(lambda: write_failure(self.uri, step, error), None)
        self.patience.ask(lambda: record(self.config, self.uri), None)

    def place(self, step: str, cause: str | None, context: Mapping[str, Any]) -> Place:
        attempt = getattr(context.get("ti"), "try_number", None)
        return Place(self.config.name, self.run_id, step, self._links(cause, context), attempt)

    def page(self, rest: str = "") -> str:
        """The run's page in Airflow, or one below it."""
        return f"{_airflow()}/dags/{self.dag_id}/runs/{quote(self.run_id)}{rest}"

    def _links(self, cause: str | None, context: Mapping[str, Any]) -> dict[str, str]:
        health, instance = f"{_airflow()}/training-health", context.get("ti")
        links = {"Task log": instance.log_url} if instance is not None else {}
        pages = f"{health}/dags/{self.dag_id}/runs/{self.name}"
        links |= {label: f"{pages}/{key}" for label, key in _PAGES.items() if self.has(key)}
        links |= {"Airflow": self.page()}
        if cause:
            links[RUNBOOK] = f"{health}/runbook#{cause.partition('.')[0]}"
        return {**links, "Run folder": _absolute(self.store.uri(""))}


def _airflow() -> str:
    from airflow.configuration import conf

    return str(conf.get("api", "base_url", fallback=None) or "http://localhost:8080").rstrip("/")


def _config(model_file: str, params: Mapping[str, Any]) -> RunConfig:
    try:
        return load_from_form(model_file, params)
    except NightshiftError:
        # What was filled in cannot be used; that may be the very failure to tell about.
        return load_config(model_file)


def _absolute(uri: str) -> str:
    return uri if "://" in uri else str(Path(uri).resolve())
