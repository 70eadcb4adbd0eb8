"""Follows a run task by task and passes on what the training says."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from runner.airflow import PASSWORDS, USER
from runner.api import Answer, Api

# Each time takes the API server a tenth of a second, of a processor that may be training.
_POLL_SECONDS = 3.0
_FINISHED = ("success", "failed")
_TASK_FINISHED = ("success", "failed", "upstream_failed", "skipped", "removed")


@dataclass(frozen=True)
class Task:
    """How one task of a run ended."""

    name: str
    state: str
    seconds: float | None
    ended: datetime | None


def follow(api: Api, dag_id: str, run_id: str, tell: Callable[[str], None]) -> tuple[str, list[Task]]:
    """Wait for a run to end, telling each new line; returns its state and its tasks in the order they ran."""
    logs: dict[tuple[str, int, int], _Log] = {}
    while True:
        # The state first: tasks asked for afterwards are at least as new, so no line is missed.
        state = api.run_state(dag_id, run_id)
        tasks = api.tasks(dag_id, run_id)
        for task in tasks:
            _tell_task(api, dag_id, run_id, task, logs, tell)
        if state in _FINISHED:
            return state, [_ended(task) for task in sorted(tasks, key=_begun)]
        time.sleep(_POLL_SECONDS)


class _Log:
    """How much of one attempt's log has been told."""

    def __init__(self) -> None:
        self.told = 0
        self.state = ""

    def new(self, records: list[Answer]) -> list[Answer]:
        heard = [record for record in records if _worth_telling(record)]
        fresh, self.told = heard[self.told :], max(self.told, len(heard))
        return fresh


def _tell_task(
    api: Api,
    dag_id: str,
    run_id: str,
    task: Answer,
    logs: dict[tuple[str, int, int], _Log],
    tell: Callable[[str], None],
) -> None:
    name, mapped = str(task["task_id"]), int(task["map_index"])
    attempt, state = int(task["try_number"] or 0), str(task["state"])
    log = logs.setdefault((name, mapped, attempt), _Log())
    if attempt == 0 or log.state in _TASK_FINISHED or state in ("None", "scheduled", "queued"):
        return
    if not log.state:
        tell(f"── {_called(task)}" + (f", attempt {attempt}" if attempt > 1 else ""))
    if state == "awaiting_input" and log.state != state:
        page = f"{api.url}/dags/{dag_id}/runs/{quote(run_id)}/tasks/{name}/required_actions"
        tell(f"{' ' * 8} {name} waits for a person's answer: {page} (user {USER}, password in .airflow/{PASSWORDS})")
    log.state = state
    for record in log.new(api.log(dag_id, run_id, name, attempt, mapped)):
        tell(_line(record))


def _worth_telling(record: Answer) -> bool:
    """What the training says, and why a task failed; the rest is in the task's log."""
    return str(record.get("logger", "")).split(".")[0] == "training" or bool(record.get("error_detail"))


def _line(record: Answer) -> str:
    when = _moment(record.get("timestamp"))
    clock = when.astimezone().strftime("%H:%M:%S") if when else " " * 8
    # One line stays one line: no carriage returns, whatever was logged.
    errors = [f"{error['exc_type']}: {error['exc_value']}" for error in (record.get("error_detail") or [])[-1:]]
    return f"{clock} {' '.join(' '.join([str(record.get('event', '')), *errors]).split())}"


def _called(task: Answer) -> str:
    """A mapped task has many instances, numbered from 0."""
    number = int(task["map_index"])
    return str(task["task_id"]) + (f" {number + 1}" if number >= 0 else "")


def _ended(task: Answer) -> Task:
    seconds = task.get("duration")
    return Task(_called(task), str(task["state"]), seconds, _moment(task.get("end_date")))


def _begun(task: Answer) -> tuple[bool, str]:
    return task["start_date"] is None, str(task["start_date"])


def _moment(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
