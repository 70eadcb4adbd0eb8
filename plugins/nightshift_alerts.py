"""Tells ops what a night came to: through their channels, and always by a file in the run's folder and the log."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import BaseNotifier, Context
from airflow.sdk.log import redact
from nightshift_alert_channels import deliver, deliver_rest
from nightshift_alert_message import KILLED, UNKNOWN, Message, asked, failed, late, recovered, step_after, unexpected
from nightshift_alert_run import NightRun

from training.nights import ACCEPTED, failed_in_a_row, night_of
from training.provenance import PROVENANCE
from training.run_folder import FAILURE
from training.step_names import STEPS

log = logging.getLogger("nightshift.alerts")
# The exit codes of a refused model, whose numbers are worth telling.
_REFUSED = (4, 5)


class OpsAlert(BaseNotifier):
    """The failure callback of a model's tasks and of its DAG.

    The first to come tells. The DAG's, which comes last, delivers what the task's did not get done.
    """

    def __init__(self, model_file: str) -> None:
        super().__init__()
        self.model_file = model_file

    def notify(self, context: Context) -> None:
        run = NightRun.of(self.model_file, context["run_id"], context.get("params"))
        step, attempt = _step(context), getattr(context.get("ti"), "try_number", None)
        if "exception" not in context and (told := run.outbox.told(step, attempt)):
            deliver_rest(told, run.config.alerts, run.outbox)
        else:
            tell(_of_failure(run, step, context), run)


class Recovered(BaseNotifier):
    """The DAG's success callback: tells that a night has passed, if the one before it had not."""

    def __init__(self, model_file: str) -> None:
        super().__init__()
        self.model_file = model_file

    def notify(self, context: Context) -> None:
        run = NightRun.of(self.model_file, context["run_id"], context.get("params"))
        night, before = night_of(run.uri), failed_in_a_row(run.nights_before())
        if before and night.outcome in ACCEPTED:
            tell(recovered(run.place(str(night.step), None, context), night, before), run)


class ApprovalAsked(BaseNotifier):
    """Tells that an accepted model waits for a person."""

    def __init__(self, model_file: str) -> None:
        super().__init__()
        self.model_file = model_file

    def notify(self, context: Context) -> None:
        run = NightRun.of(self.model_file, context["run_id"], context.get("params"))
        place, page = run.place("promote", None, context), run.page("/tasks/promote/required_actions")
        tell(asked(replace(place, links={"Approve": page, **place.links}), night_of(run.uri)), run)


def deadline_missed(model_file: str, context: Mapping[str, Any]) -> None:
    """Tells that a night has not ended in time; Airflow calls it with what it knows of the run."""
    about = context["dag_run"]
    # Airflow forgets the deadline of a night that succeeds, but not of one that fails: that has been told.
    if about.get("state") in ("success", "failed"):
        return
    run = NightRun.of(model_file, about["dag_run_id"], about.get("conf"))
    done = [step for step in STEPS if run.has(f"done/{step}.json")]
    since = _ended(run, done[-1]) if done else about.get("queued_at")
    place = run.place(step_after(done), "deadline", {})
    tell(late(place, run.config.deadline_hours or 0.0, done, since), run)


def tell(message: Message, run: NightRun) -> None:
    """Leave the message with the run and, if it was not there yet, deliver it through every channel."""
    if run.outbox.claim(message):
        log.error("%s", message.tree()["text"])
        deliver(message, run.config.alerts, run.outbox)
    else:
        log.info("already told: %s", message.name)


def _of_failure(run: NightRun, step: str, context: Context) -> Message:
    failure = {name: redact(value) for name, value in _failure(run, step, context).items()}
    refused = failure.get("exit_code") in _REFUSED
    verdict, evaluation = [run.document(name) if refused else None for name in ("verdict.json", "evaluation.json")]
    before = failed_in_a_row(run.nights_before(), step, failure["cause"])
    picture = run.picture() if refused else None
    return failed(run.place(step, failure["cause"], context), failure, verdict, evaluation, before, picture)


def _failure(run: NightRun, step: str, context: Context) -> Mapping[str, Any]:
    left = run.document(FAILURE)
    if left is not None and left.get("step") == step:
        return left
    exception = context.get("exception")
    if exception is not None:
        return unexpected(exception)
    if run.patience.in_vain:
        return UNKNOWN
    run.write_down_killed(step)
    return KILLED


def _step(context: Context) -> str:
    instance = context.get("ti")
    return instance.task_id if instance is not None else "run"


def _ended(run: NightRun, step: str) -> str | None:
    """When a step was done, in UTC."""
    times = ((run.document(PROVENANCE) or {}).get("steps") or {}).get(step)
    if times is None:
        return None
    return (datetime.fromisoformat(times["began"]) + timedelta(seconds=times["seconds"])).isoformat(timespec="seconds")
