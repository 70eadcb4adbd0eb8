"""Tells ops what a night came to: through their channels, and always by a file in the run's folder and the log."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow.sdk import BaseNotifier, Context
from nightshift_alert_channels import deliver
from nightshift_alert_message import (
    KILLED,
    PICTURE,
    RUNBOOK,
    Message,
    Place,
    asked,
    failed,
    late,
    recovered,
    step_after,
    unexpected,
)

from training.config import RunConfig, load_config
from training.errors import NightshiftError
from training.form import load_from_form
from training.nights import ACCEPTED, all_nights, failed_in_a_row, night_of, preceding, record
from training.run_folder import FAILURE, run_uri_for, write_failure
from training.steps import STEPS
from training.store import NotFound, Store, open_store

log = logging.getLogger("nightshift.alerts")
# The exit codes of a refused model, whose numbers are worth telling.
_REFUSED = (4, 5)
_PAGES = {"Report": "report.html", "Data Docs": "data_docs/index.html"}


class OpsAlert(BaseNotifier):
    """The failure callback of a model's tasks and of its DAG; of the two, the first one to come delivers."""

    def __init__(self, model_file: str) -> None:
        super().__init__()
        self.model_file = model_file

    def notify(self, context: Context) -> None:
        run = _Run.of(self.model_file, context["run_id"], context.get("params"))
        step = _step(context)
        if "exception" not in context and run.has_told(step):
            return
        failure = _failure(run, step, context)
        place = run.place(step, failure["cause"], context)
        refused = failure.get("exit_code") in _REFUSED
        documents = [run.document(name) if refused else None for name in ("verdict.json", "evaluation.json")]
        before = failed_in_a_row(run.nights_before(), step, failure["cause"])
        tell(failed(place, failure, *documents, before, run.picture() if refused else None), run)


class Recovered(BaseNotifier):
    """The DAG's success callback: tells that a night has passed, if the one before it had not."""

    def __init__(self, model_file: str) -> None:
        super().__init__()
        self.model_file = model_file

    def notify(self, context: Context) -> None:
        run = _Run.of(self.model_file, context["run_id"], context.get("params"))
        night, before = night_of(run.uri), failed_in_a_row(run.nights_before())
        if before and night.outcome in ACCEPTED:
            tell(recovered(run.place(str(night.step), None, context), night, before), run)


class ApprovalAsked(BaseNotifier):
    """Tells that an accepted model waits for a person."""

    def __init__(self, model_file: str) -> None:
        super().__init__()
        self.model_file = model_file

    def notify(self, context: Context) -> None:
        run = _Run.of(self.model_file, context["run_id"], context.get("params"))
        place = run.place("promote", None, context)
        page = f"{_airflow()}/dags/{run.dag_id}/runs/{quote(run.run_id)}/tasks/promote/required_actions"
        tell(
            asked(Place(place.model, place.run_id, place.step, {"Approve": page, **place.links}), night_of(run.uri)),
            run,
        )


def deadline_missed(model_file: str, context: Mapping[str, Any]) -> None:
    """Tells that a night has not ended in time; Airflow calls it with what it knows of the run."""
    about = context["dag_run"]
    run = _Run.of(model_file, about["dag_run_id"], about.get("conf"))
    done = [step for step in STEPS if _exists(run.store, f"done/{step}.json")]
    hours = run.config.deadline_hours or 0.0
    tell(late(run.place(step_after(done), "deadline", {}), hours, done), run)


def tell(message: Message, run: "_Run") -> None:
    """Leave the message in the run's folder and, if it was not there yet, deliver it through every channel."""
    key = f"alerts/{message.name}.json"
    if not _first(key, message, run.store):
        log.info("already told: %s", run.store.uri(key))
        return
    tree = message.tree()
    log.error("%s", tree["text"])
    deliver(message, run.config.alerts)


class _Run:
    """One run as an alert sees it: its folder, and what its model's settings say of where and whom to tell."""

    def __init__(self, config: RunConfig, run_id: str) -> None:
        self.config, self.run_id = config, run_id
        self.uri = run_uri_for(config, run_id)
        self.store = open_store(self.uri)
        self.dag_id = f"retrain_{config.name}"

    @classmethod
    def of(cls, model_file: str, run_id: str, params: Mapping[str, Any] | None) -> "_Run":
        return cls(_config(model_file, params or {}), run_id)

    @property
    def name(self) -> str:
        return self.uri.rpartition("/")[2]

    def has_told(self, step: str) -> bool:
        return any(True for _ in self.store.list(f"alerts/{step}-"))

    def nights_before(self) -> list[Any]:
        """The newest first; none where they cannot be read, since that must not keep an alert back."""
        try:
            return preceding(all_nights(self.config.store.runs, self.config.name), self.name)
        except NightshiftError as error:
            log.warning("earlier nights cannot be read: %s", error)
            return []

    def document(self, key: str) -> dict[str, Any] | None:
        """A document of the run, if it is there and can be read; an alert must not fail for want of one."""
        try:
            return dict(json.loads(self.store.read(key)))
        except NotFound:
            return None
        except (NightshiftError, ValueError) as error:
            log.warning("%s cannot be read: %s", key, error)
            return None

    def picture(self) -> bytes | None:
        try:
            return self.store.read(PICTURE)
        except NightshiftError:
            return None

    def place(self, step: str, cause: str | None, context: Mapping[str, Any]) -> Place:
        return Place(self.config.name, self.run_id, step, self._links(cause, context))

    def _links(self, cause: str | None, context: Mapping[str, Any]) -> dict[str, str]:
        health, instance = f"{_airflow()}/training-health", context.get("ti")
        links = {"Task log": instance.log_url} if instance is not None else {}
        pages = f"{health}/dags/{self.dag_id}/runs/{self.name}"
        links |= {label: f"{pages}/{key}" for label, key in _PAGES.items() if _exists(self.store, key)}
        links |= {"Airflow": f"{_airflow()}/dags/{self.dag_id}/runs/{quote(self.run_id)}"}
        if cause:
            links[RUNBOOK] = f"{health}/runbook#{cause.partition('.')[0]}"
        return {**links, "Run folder": _absolute(self.store.uri(""))}


def _airflow() -> str:
    from airflow.configuration import conf

    return str(conf.get("api", "base_url", fallback=None) or "http://localhost:8080").rstrip("/")


def _first(key: str, message: Message, store: Store) -> bool:
    try:
        return store.create(key, json.dumps(message.tree(), indent=2).encode() + b"\n")
    except NightshiftError as error:
        # Told twice is better than not at all.
        log.warning("the alert could not be left in the run's folder: %s", error)
        return True


def _config(model_file: str, params: Mapping[str, Any]) -> RunConfig:
    try:
        return load_from_form(model_file, params)
    except NightshiftError:
        # What was filled in cannot be used; that may be the very failure to tell about.
        return load_config(model_file)


def _step(context: Context) -> str:
    instance = context.get("ti")
    return instance.task_id if instance is not None else "run"


def _failure(run: _Run, step: str, context: Context) -> Mapping[str, Any]:
    left = run.document(FAILURE)
    if left is not None and left["step"] == step:
        return left
    exception = context.get("exception")
    if exception is not None:
        return unexpected(exception)
    _write_down(run, step)
    return KILLED


def _write_down(run: _Run, step: str) -> None:
    """A killed task could leave nothing itself; the pages and the nights to come should know all the same."""
    error = NightshiftError(KILLED["message"], cause=KILLED["cause"], remedy=KILLED["remedy"])
    try:
        write_failure(run.uri, step, error)
    except NightshiftError as problem:
        log.warning("%s could not be written: %s", FAILURE, problem)
    record(run.config, run.uri)


def _absolute(uri: str) -> str:
    return uri if "://" in uri else str(Path(uri).resolve())


def _exists(store: Store, key: str) -> bool:
    try:
        return store.exists(key)
    except NightshiftError:
        return False
