"""One night through a real Airflow: start, trigger, follow, tell."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from runner import summary
from runner.airflow import Airflow, prepared
from runner.errors import RunnerError
from runner.follow import Task, follow
from runner.install import SECONDS
from training.config import RunConfig, load_config, parse_settings
from training.errors import ConfigError, NightshiftError, received
from training.form import FORCE, form_changes
from training.run_folder import run_uri_for
from training.store import Store, open_store

_SAMPLE = Path("data/solar_cells")
_ALERT_SECONDS = 30.0
# What the DAG's heavy tasks wait for; in a pool that does not exist they would wait for ever.
POOL = "training"


def run_night(checkout: Path, model: str, settings: list[str]) -> int:
    """Do one night and tell how it went; returns the exit code."""
    base, config = _configs(checkout / "dags" / "models" / f"{model}.yaml", settings)
    _put_sample(checkout, config)
    dag_id = f"retrain_{config.name}"
    tell("Airflow: starting")
    began = time.monotonic()
    with prepared(checkout, schedules=False) as airflow:
        start(airflow, dag_id)
        times = summary.Times(_install_seconds(), time.monotonic() - began, 0.0)
        tell(f"Airflow: ready in {times.start:.0f} s at {airflow.api.url}")
        with _triggered(airflow, dag_id, form_changes(config, base) | {FORCE: True}) as run_id:
            triggered = datetime.now(UTC)
            tell(f"run {run_id} of {dag_id}: triggered")
            state, tasks = follow(airflow.api, dag_id, run_id, tell)
            if state != "success":
                _wait_for_alert(open_store(run_uri_for(config, run_id)))
        verdict_after = _verdict_seconds(tasks, triggered)
        return _close(config, run_id, state, tasks, summary.Times(times.install, times.start, verdict_after))


def start(airflow: Airflow, dag_id: str | None = None) -> None:
    """Start all components; runs of `dag_id` that a killed runner left unfinished end as failed first."""
    now = datetime.now(UTC)
    airflow.start("api-server", "dag-processor")
    airflow.wait(airflow.answers, "starting the API server")
    airflow.api.make_pool(POOL, 1, "One training at a time")
    for run_id in airflow.api.unfinished_runs(dag_id) if dag_id else []:
        airflow.api.fail(dag_id or "", run_id)
        tell(f"run {run_id}: was left unfinished; marked as failed")
    airflow.start("scheduler", "triggerer")
    # Or the first task would wait for it, and Airflow for the task no longer than 5 s.
    airflow.wait(airflow.api.takes_tasks, "starting what tasks report to")
    if dag_id:
        airflow.wait(lambda: _parsed(airflow, dag_id, now), f"parsing {dag_id}")
    airflow.wait(lambda: airflow.api.healthy("scheduler", "triggerer", "dag_processor"), "starting")


def tell(line: str) -> None:
    """One line, at once."""
    print(line, flush=True)


def _configs(path: Path, settings: list[str]) -> tuple[RunConfig, RunConfig]:
    """The model's own config and the one to run."""
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
        raise ConfigError(received("--model", path.stem, f"one of {known}"))
    base, config = load_config(path), load_config(path, parse_settings(settings))
    for key in ("name", "schedule", "deadline_hours"):
        if getattr(config, key) != getattr(base, key):
            raise ConfigError(received("--set", key, f"a setting of the run; {key} is changed in {path.name}"))
    return base, config


def _put_sample(checkout: Path, config: RunConfig) -> None:
    # labels.csv is written last, so without it an earlier copy was cut short.
    if config.data.uri != str(_SAMPLE) or (checkout / _SAMPLE / "labels.csv").exists():
        return
    tell(f"sample images: put into {_SAMPLE}")
    command = [sys.executable, "-m", "training", "sample", "--to", str(_SAMPLE)]
    if subprocess.run(command, cwd=checkout, check=False).returncode != 0:
        raise RunnerError(f"sample images could not be put into {_SAMPLE}")


def _parsed(airflow: Airflow, dag_id: str, since: datetime) -> bool:
    """Whether the DAG file was read after `since`; raises RunnerError when it has errors."""
    dag = airflow.api.dag(dag_id)
    for error in airflow.api.import_errors() if dag is None else []:
        raise RunnerError(f"{error['filename']}: {error['stack_trace'].strip().splitlines()[-1]}")
    return dag is not None and datetime.fromisoformat(dag["last_parsed_time"]) >= since


@contextmanager
def _triggered(airflow: Airflow, dag_id: str, conf: dict[str, object]) -> Iterator[str]:
    """A run of an unpaused DAG; interrupted, it ends as failed, and the DAG is paused again if it was."""
    api = airflow.api
    was_paused = bool((api.dag(dag_id) or {}).get("is_paused"))
    api.pause(dag_id, paused=False)
    run_id = ""
    try:
        run_id = api.trigger(dag_id, conf)
        yield run_id
    except KeyboardInterrupt:
        tell("interrupted: ending the run and Airflow")
        if run_id:
            _quietly(lambda: api.fail(dag_id, run_id))
        raise
    finally:
        if was_paused:
            _quietly(lambda: api.pause(dag_id, paused=True))


def _quietly(act: Callable[[], None]) -> None:
    try:
        act()
    except NightshiftError as error:
        tell(str(error))


def _wait_for_alert(store: Store) -> None:
    """A killed task's alert comes from the DAG's own callback, after the run has ended; leave Airflow the time."""
    end = time.monotonic() + _ALERT_SECONDS
    while not any(True for _ in store.list("alerts/")) and time.monotonic() < end:
        time.sleep(0.5)


def _verdict_seconds(tasks: list[Task], triggered: datetime) -> float:
    ended = {task.name: task.ended for task in tasks if task.ended is not None}
    last = ended.get("evaluate") or max(ended.values(), default=triggered)
    return (last - triggered).total_seconds()


def _close(config: RunConfig, run_id: str, state: str, tasks: list[Task], times: summary.Times) -> int:
    """Tell the table, what went wrong, and where to look; returns the exit code."""
    run_uri = run_uri_for(config, run_id)
    documents = summary.read_documents(run_uri)
    tell("")
    for line in [*summary.table(config, documents, tasks, times), *summary.pages(run_uri)]:
        tell(line)
    tell(f"{'Airflow pages':<{summary.WIDTH}} make ui")
    if state == "success":
        return 0
    if documents.failure is None:
        tell("the run failed and left no failure.json; its tasks' logs are in .airflow/logs")
        return 1
    for line in summary.failure_lines(documents.failure):
        tell(line)
    return int(documents.failure["exit_code"])


def _install_seconds() -> float | None:
    seconds = os.environ.get(SECONDS)
    return None if seconds is None else float(seconds)
