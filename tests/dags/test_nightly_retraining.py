"""The DAGs: their tasks, edges, schedule and form; and that parsing them stays cheap."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from runner.night import POOL
from tests.conftest import ROOT, SOLAR_CELLS, small_settings
from training.config import load_config
from training.errors import ConfigError, StoreError, Superseded, WorseThanChampion
from training.form import FORCE, form_values
from training.step_names import STEPS

DAGS = ROOT / "dags"
HEAVY = ("tensorflow", "keras", "pandas", "great_expectations", "boto3", "kubernetes")
EMPTY = "from airflow.sdk import DAG\n\nDAG('empty', schedule=None)\n"
PARSE = """
import sys, time
from airflow.dag_processing.dagbag import DagBag
began = time.perf_counter()
bag = DagBag(sys.argv[1])
print("parsed", time.perf_counter() - began, len(bag.dags), len(bag.import_errors))
print("imported", [name for name in {heavy} if name in sys.modules])
"""


@pytest.fixture(scope="session")
def airflow_home(tmp_path_factory):
    """A home of Airflow's own, set before Airflow is first imported in this process."""
    home = tmp_path_factory.mktemp("airflow")
    os.environ["AIRFLOW_HOME"] = str(home)
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    return home


def bag_of(folder):
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(folder)


@pytest.fixture(scope="module")
def bag(airflow_home):
    return bag_of(DAGS)


@pytest.fixture
def models(tmp_path):
    """A copy of the DAG folder that a test may damage; yields its folder of models."""
    shutil.copytree(DAGS, tmp_path / "dags")
    return tmp_path / "dags" / "models"


def test_one_dag_for_each_model_and_no_errors(bag):
    assert set(bag.dags) == {f"retrain_{path.stem}" for path in (DAGS / "models").glob("*.yaml")}
    assert not bag.import_errors


def test_seven_tasks_in_a_chain(bag):
    for dag in bag.dags.values():
        assert [task.task_id for task in dag.topological_sort()] == list(STEPS)
        edges = {(task.task_id, follower) for task in dag.tasks for follower in task.downstream_task_ids}
        assert edges == set(pairwise(STEPS))


def test_nights_do_not_overlap_catch_up_or_start_on_unpausing(bag):
    dag = bag.dags["retrain_solar_cells"]
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    assert dag.timetable.timetable.expression == load_config(SOLAR_CELLS).schedule
    assert _first_run(dag) > datetime.now(UTC)


def test_first_run_is_the_next_tick_even_just_after_one(models):
    every_minute_but_this = f"{(datetime.now(UTC) - timedelta(minutes=1)).minute} * * * *"
    _change(models / "solar_cells.yaml", f"schedule: '{every_minute_but_this}'")
    assert _first_run(bag_of(models.parent).dags["retrain_solar_cells"]) > datetime.now(UTC)


def test_no_schedule_means_triggered_or_announced_only(models):
    _change(models / "solar_cells.yaml", "schedule: null")
    timetable = bag_of(models.parent).dags["retrain_solar_cells"].timetable
    assert not hasattr(timetable, "timetable") and _assets(timetable) == ["solar_cells_data"]


def test_new_data_start_a_night_as_the_clock_does(bag):
    for name in ("solar_cells", "roofs"):
        assert _assets(bag.dags[f"retrain_{name}"].timetable) == [f"{name}_data"]


def test_trainings_share_a_pool_and_have_a_queue(bag):
    places = {task.task_id: (task.pool, task.queue) for task in bag.dags["retrain_solar_cells"].tasks}
    assert places["train"] == (POOL, "training")
    assert places["recalibrate_batch_norm"] == places["evaluate"] == (POOL, "default")
    assert {places[step][0] for step in ("ingest", "validate", "oversample", "promote")} == {"default_pool"}


SHARDED = [
    ("{}", ["ingest", "recalibrate_batch_norm", "evaluate"]),
    ("{policy: features}", ["ingest", "train", "recalibrate_batch_norm", "evaluate"]),
]


@pytest.mark.parametrize(("model", "steps"), SHARDED)
def test_each_shard_is_a_task_before_its_step(models, model, steps):
    _change(models / "solar_cells.yaml", f"scale: {{shards: 4}}\nmodel: {model}")
    dag = bag_of(models.parent).dags["retrain_solar_cells"]
    mapped = {next(iter(task.downstream_task_ids)): task for task in dag.tasks if task.task_id not in STEPS}
    assert list(mapped) == steps
    for step, task in mapped.items():
        assert task.is_mapped and task.task_id.endswith("_shards") and task.pool == "default_pool"
        assert task.expand_input.value == {"shard": [0, 1, 2, 3]} and task.partial_kwargs["step"] == step
        assert task.retries == 2 and task.partial_kwargs["on_failure_callback"]
    order = [task for step in STEPS for task in ([mapped[step].task_id] if step in mapped else []) + [step]]
    assert [(one, other) for one, other in pairwise(order) if other not in dag.get_task(one).downstream_task_ids] == []


def test_a_shard_does_its_part(models, few_cells, tmp_path, monkeypatch):
    settings = small_settings(few_cells, tmp_path) | {"scale.shards": 2}
    monkeypatch.setattr("training.steps.run_shard", lambda *arguments: repr(arguments[:2]))
    _change(models / "solar_cells.yaml", "scale: {shards: 2}")
    task = bag_of(models.parent).dags["retrain_solar_cells"].get_task("evaluate_shards")
    shard = task.unmap({"shard": 1})
    params = {name.replace(".", "__"): value for name, value in settings.items()}
    assert shard.execute(_context(**params)) == "('evaluate', 1)"


def test_retries_and_alerts_on_every_task(bag):
    for dag in bag.dags.values():
        assert callable(dag.on_failure_callback)
        for task in dag.tasks:
            assert task.retries == 2 and task.retry_delay <= timedelta(minutes=1)
            assert task.on_failure_callback


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (StoreError("promote: it failed"), True),
        (StoreError("promote: it failed", cause="damaged"), False),
        (Superseded("promote: it failed"), False),
        (WorseThanChampion("promote: it failed"), False),
        (ConfigError("promote: it failed"), False),
        (ConnectionResetError("it failed"), True),
        (MemoryError("it failed"), True),
        (KeyError("it failed"), False),
    ],
)
def test_only_what_may_be_the_weather_is_retried(bag, monkeypatch, error, retried):
    from airflow.sdk.exceptions import AirflowFailException

    def fails(*_):
        raise error

    monkeypatch.setattr("training.steps.run_step", fails)
    task = bag.dags["retrain_solar_cells"].get_task("promote")
    with pytest.raises(type(error) if retried else AirflowFailException, match="it failed"):
        task.execute(_context())


def test_a_backfill_never_promotes_and_takes_its_dates_snapshot(bag, models):
    settings_of = sys.modules[type(bag.dags["retrain_solar_cells"].get_task("train")).__module__].settings_of
    _change(models / "solar_cells.yaml", "data: {uri: 'cells/{snapshot}', classes: [intact, defective]}")
    night = settings_of(str(models / "solar_cells.yaml"), _context("backfill"))
    assert (night.data.location, night.promote.enabled) == ("cells/2026-01-31", False)
    manual = _context("manual", data__snapshot="2025-12-24", data__uri="cells/{snapshot}")
    night = settings_of(str(models / "solar_cells.yaml"), manual)
    assert (night.data.location, night.promote.enabled) == ("cells/2025-12-24", True)


def _context(run_type: str = "manual", **params):
    """Of a run that was due in the night to 31 January 2026."""
    due = datetime(2026, 1, 31, 2, tzinfo=UTC)
    run = SimpleNamespace(run_type=run_type, logical_date=None if run_type == "manual" else due, run_after=due)
    task = SimpleNamespace(task_id="promote", try_number=1, max_tries=2)
    return {"params": {FORCE: False, **params}, "run_id": f"{run_type}__1", "dag_run": run, "ti": task}


def _assets(timetable) -> list[str]:
    condition = timetable.asset_condition
    return [asset.name for asset in getattr(condition, "objects", [condition])]


def test_form_shows_the_models_own_settings(bag):
    for name in ("solar_cells", "roofs"):
        shown = {key: param.value for key, param in bag.dags[f"retrain_{name}"].params.items()}
        assert shown == {FORCE: False} | form_values(load_config(DAGS / "models" / f"{name}.yaml"))


def test_form_refuses_what_the_config_refuses(bag):
    from airflow.sdk.exceptions import ParamValidationError

    params = bag.dags["retrain_solar_cells"].params
    for key, value in {
        "train__epochs": 0,
        "model__policy": "melted",
        "gate__max_loss_gap": 0,
        "model__batch_norm_momentum": 1,
        "recalibrate__enabled": "maybe",
    }.items():
        with pytest.raises(ParamValidationError):
            params.get_param(key).resolve(value)


def test_form_documents_every_field(bag):
    for param in bag.dags["retrain_solar_cells"].params.values():
        assert param.description and param.schema["section"]
    policy = bag.dags["retrain_solar_cells"].params.get_param("model__policy")
    assert "frozen_batch_norm" in policy.schema["enum"]
    assert bag.dags["retrain_solar_cells"].params.get_param("gate__max_loss_gap").schema["type"] == ["number", "null"]


@pytest.mark.parametrize("content", ["name: broken\ntrain: {epochs: 0}\n", "name: [", "name: roofs\ndata: 3\n"])
def test_broken_model_is_named_and_the_others_stay(models, content):
    (models / "a broken one.yaml").write_text(content)
    bag = bag_of(models.parent)
    assert set(bag.dags) == {"retrain_solar_cells", "retrain_roofs"}
    (message,) = bag.import_errors.values()
    assert message.startswith("ConfigError: a broken one.yaml: ") and "\n" not in message


def test_two_files_with_one_name_are_refused(models):
    shutil.copyfile(models / "roofs.yaml", models / "tiles.yaml")
    bag = bag_of(models.parent)
    (message,) = bag.import_errors.values()
    assert "tiles.yaml: name: received 'roofs'" in message and set(bag.dags) == {"retrain_solar_cells", "retrain_roofs"}


def test_in_airflow_the_error_is_filed_under_the_model_and_the_others_stay(models):
    """As the dag-processor parses: with an error under the Python file's own name Airflow would retire all its DAGs."""
    import structlog
    from airflow.dag_processing.processor import DagFileParseRequest, _parse_file

    (models / "broken.yaml").write_text("name: broken\n")
    _change(models / "roofs.yaml", "schedule: every night")
    file = models.parent / "nightly_retraining.py"
    request = DagFileParseRequest(file=str(file), bundle_path=models.parent, bundle_name="x", callback_requests=[])
    result = _parse_file(request, structlog.get_logger())
    assert [dag.dag_id for dag in result.serialized_dags] == ["retrain_solar_cells"]
    assert set(result.import_errors) == {"models/broken.yaml", "models/roofs.yaml"}
    assert "broken.yaml: data: " in result.import_errors["models/broken.yaml"]
    assert "roofs.yaml: Exactly 5" in result.import_errors["models/roofs.yaml"]


def test_parsing_imports_nothing_heavy():
    output = _parse(DAGS)[1]
    assert f"{len(list((DAGS / 'models').glob('*.yaml')))} 0\nimported []" in output


def test_parsing_takes_at_most_1_3_times_an_empty_dags_time(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "empty.py").write_text(EMPTY)
    _parse(DAGS)  # writes the bytecode
    times = {folder: [] for folder in (empty, DAGS)}
    for _ in range(5):  # in turn, so that a busy machine is busy for both
        for folder, seconds in times.items():
            seconds.append(_parse(folder)[0])
    assert statistics.median(times[DAGS]) <= 1.3 * statistics.median(times[empty]), times


def _parse(folder: Path) -> tuple[float, str]:
    """A whole process that parses a folder: its seconds and what it printed."""
    began = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    script = PARSE.format(heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], env=environment, capture_output=True, text=True, check=True
    )
    return time.perf_counter() - began, done.stdout


def _first_run(dag) -> datetime:
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.timetables.base import TimeRestriction

    scheduled = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    restriction = TimeRestriction(earliest=None, latest=None, catchup=False)
    return scheduled.timetable.next_dagrun_info(last_automated_data_interval=None, restriction=restriction).run_after


def _change(model: Path, line: str) -> None:
    model.write_text(f"{model.read_text()}\n{line}\n")
