"""One DAG `retrain_<name>` for each file in ``models/``: the seven steps of a night, in order.

What a step does lives in `training.steps`; here are tasks, edges, the schedule, the trigger form, retries and alerts.
"""

from collections.abc import Callable
from datetime import UTC, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import (
    DAG,
    Asset,
    AssetOrTimeSchedule,
    BaseOperator,
    Context,
    CronTriggerTimetable,
    DeadlineAlert,
    DeadlineReference,
    Param,
    SyncCallback,
    chain,
)
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from training.config import SNAPSHOT, RunConfig, load_config
from training.errors import ConfigError, may_heal, received
from training.form import FORCE, form_fields, load_from_form
from training.nights import in_words, night_of, record
from training.run_folder import run_uri_for, write_failure
from training.step_names import STEPS
from training.steps import sharded

MODELS = Path(__file__).parent / "models"
# Where there is one machine to train on, one slot keeps two models from training at once.
POOL = "training"
# The steps that keep a machine busy; `train` has its own queue, for workers that are made for it.
HEAVY = frozenset({"train", "recalibrate_batch_norm", "evaluate"})
# The mapped task in which each shard of a step is one instance.
SHARDS = {
    "ingest": "ingest_shards",
    "train": "feature_shards",
    "recalibrate_batch_norm": "moment_shards",
    "evaluate": "evaluate_shards",
}
_APPROVAL = timedelta(hours=20)


class Step(BaseOperator):
    """Runs one step of `training` on the run's folder; its XCom is the folder's URI."""

    def __init__(self, *, model_file: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.model_file = model_file

    @property
    def operator_extra_links(self) -> list[Any]:  # type: ignore[override]
        try:
            from nightshift_health_links import links_of
        except ImportError:  # without the plugins there are no pages to open
            return []
        return links_of(self.task_id)

    def execute(self, context: Context) -> str:
        return do(self.task_id, config_of(self.model_file, context), context)


class Shard(Step):
    """One shard of a step, mapped over their numbers; the step puts together what they found."""

    def __init__(self, *, step: str, shard: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.step, self.shard = step, shard

    def execute(self, context: Context) -> str:
        from training.steps import run_shard

        config = config_of(self.model_file, context)
        return guarded(run_shard, self.step, self.shard, config, run_uri_for(config, context["run_id"]))


class Validate(Step):
    """The step after which everything costs time: a night with nothing new goes no further."""

    def execute(self, context: Context) -> str:
        config = config_of(self.model_file, context)
        if not context["params"][FORCE]:
            skip_unless_new(config, run_uri_for(config, context["run_id"]))
        return do(self.task_id, config, context)


class Promote(ApprovalOperator):
    """The last step, where it is wanted; it may wait for a person's approval first, with no process running."""

    def __init__(self, *, model_file: str, **arguments: Any) -> None:
        super().__init__(
            subject="Promote the model of {{ run_id }}?",
            response_timeout=_APPROVAL,
            defaults=ApprovalOperator.REJECT,
            **arguments,
        )
        self.model_file = model_file

    def execute(self, context: Context) -> str:
        config = config_of(self.model_file, context)
        if not config.promote.enabled:
            tell("tell_end", config, run_uri_for(config, context["run_id"]), "accepted")
            raise AirflowSkipException("promote.enabled is off, as it is in every backfill: the champion stays.")
        if not config.promote.approval:
            return do(self.task_id, config, context)
        self.body = in_words(night_of(run_uri_for(config, context["run_id"])))
        callback("ApprovalAsked", self.model_file)(context)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> str:
        answer = super().execute_complete(context, event)
        config = config_of(self.model_file, context)
        if answer["chosen_options"] != [self.APPROVE]:
            tell("tell_end", config, run_uri_for(config, context["run_id"]), "accepted")
            raise AirflowSkipException("The promotion was not approved: the champion stays.")
        return do(self.task_id, config, context)


def config_of(model_file: str, context: Context) -> RunConfig:
    """What the run goes by; settings that do not fit are the run's failure, left where every other one is."""
    try:
        return settings_of(model_file, context)
    except ConfigError as error:
        base = load_config(model_file)
        run_uri = run_uri_for(base, context["run_id"])
        write_failure(run_uri, context["ti"].task_id, error)
        record(base, run_uri)
        tell("tell_end", base, run_uri)
        raise AirflowFailException(str(error)) from error


def settings_of(model_file: str, context: Context) -> RunConfig:
    """The model's settings with what the form says, and what the run's own kind decides."""
    run, fixed = context["dag_run"], dict[str, Any]()
    if run.run_type == "backfill":
        fixed["promote.enabled"] = False
    config = load_from_form(model_file, context["params"], fixed)
    if SNAPSHOT in config.data.uri and config.data.snapshot is None:
        fixed["data.snapshot"] = (run.logical_date or run.run_after).astimezone(UTC).date()
        return load_from_form(model_file, context["params"], fixed)
    return config


def do(step: str, config: RunConfig, context: Context) -> str:
    """One step of the run."""
    from training.steps import run_step

    run_uri, task = run_uri_for(config, context["run_id"]), context["ti"]
    try:
        done = guarded(run_step, step, config, run_uri)
    except Exception as error:
        if isinstance(error, AirflowFailException) or task.try_number > task.max_tries:
            measure(step, config, run_uri, over=True)
        raise
    measure(step, config, run_uri, over=step == STEPS[-1])
    return done


def measure(step: str, config: RunConfig, run_uri: str, *, over: bool) -> None:
    """Tell what this step brought to light, and, when the night is over, how it ended."""
    if step == "evaluate":
        tell("tell_verdict", config, run_uri)
    if over:
        tell("tell_end", config, run_uri)


def tell(metrics: str, *arguments: Any) -> None:
    """One of `nightshift_metrics`' functions, imported when it is needed, which keeps parsing light."""
    try:
        import nightshift_metrics
    except ImportError:  # without the plugins nobody is told
        return
    getattr(nightshift_metrics, metrics)(*arguments)


def guarded(work: Callable[..., str], *arguments: Any) -> str:
    """What `work` returns; Airflow tries again only what may heal."""
    try:
        return work(*arguments)
    except Exception as error:
        if may_heal(error):
            raise
        raise AirflowFailException(str(error)) from error


def skip_unless_new(config: RunConfig, run_uri: str) -> None:
    """Skip a night that would only make the model which was accepted last once more."""
    from training import novelty
    from training.run_folder import open_run

    if (last := novelty.same_as(open_run(config, run_uri))) is None:
        return
    message = f"Nothing is new since {last.run}: the same data, settings, weights and code. To train anyway: force."
    record(config, run_uri, outcome="skipped", step="validate", message=message)
    tell("tell_end", config, run_uri, "skipped")
    raise AirflowSkipException(message)


def callback(notifier: str, model_file: str) -> Callable[[Context], None]:
    """One of `nightshift_alerts`' notifiers, imported when it is needed, which keeps parsing light."""

    def tell_ops(context: Context) -> None:
        import nightshift_alerts

        getattr(nightshift_alerts, notifier)(model_file)(context)

    return tell_ops


def deadline(model_file: str, config: RunConfig) -> DeadlineAlert | None:
    """Tells ops of a night that has not ended in time; the executor runs it, not the night's own tasks."""
    if config.deadline_hours is None:
        return None
    missed = SyncCallback("nightshift_alerts.deadline_missed", {"model_file": model_file})
    late = timedelta(hours=config.deadline_hours)
    return DeadlineAlert(reference=DeadlineReference.DAGRUN_QUEUED_AT, interval=late, callback=missed)


def retraining_dag(model_file: Path, config: RunConfig) -> DAG:
    """The DAG of one model."""
    dag = DAG(
        f"retrain_{config.name}",
        description=f"Retrain {config.name}; ship it only if training and evaluation agree.",
        schedule=_schedule(config),
        catchup=False,
        max_active_runs=1,
        params={name: Param(**field) for name, field in form_fields(config).items()},
        default_args={
            "retries": 2,
            "retry_delay": timedelta(seconds=20),
            "on_failure_callback": callback("OpsAlert", str(model_file)),
        },
        # A killed task cannot call back itself.
        on_failure_callback=callback("OpsAlert", str(model_file)),
        on_success_callback=callback("Recovered", str(model_file)),
        deadline=deadline(str(model_file), config),
        tags=["nightshift"],
    )
    chain(*[task for step in STEPS for task in (*_shards(step, model_file, config, dag), _task(step, model_file, dag))])
    return dag


def _shards(step: str, model_file: Path, config: RunConfig, dag: DAG) -> list[Any]:
    """The mapped task before a step that has shards."""
    if step not in sharded(config):
        return []
    mapped = Shard.partial(
        task_id=SHARDS[step],
        step=step,
        model_file=str(model_file),
        map_index_template="{{ task.shard + 1 }}",
        executor_config=_pod(SHARDS[step]),
        dag=dag,
    )
    return [mapped.expand(shard=list(range(config.scale.shards)))]


def _task(step: str, model_file: Path, dag: DAG) -> BaseOperator:
    operator = {"validate": Validate, "promote": Promote}.get(step, Step)
    place: dict[str, Any] = {"pool": POOL} if step in HEAVY else {}
    if step == "train":
        place["queue"] = "training"
    return operator(task_id=step, model_file=str(model_file), executor_config=_pod(step), dag=dag, **place)


def _pod(task_id: str) -> dict[str, Any]:
    """What an executor that runs each task in a pod is told of this one's."""
    if "KubernetesExecutor" not in conf.get("core", "executor"):
        return {}
    from nightshift_pods import pod_override

    return {"pod_override": pod_override(task_id)}


def _schedule(config: RunConfig) -> AssetOrTimeSchedule | Asset:
    """By the clock, and whenever somebody says that there are new data."""
    new_data = Asset(f"{config.name}_data")
    if config.schedule is None:
        return new_data
    # Airflow's default starts a run on unpausing when the last tick is recent; zero waits for the next one.
    nightly = CronTriggerTimetable(config.schedule, timezone="UTC", run_immediately=timedelta(0))
    nightly.validate()  # one that is part of another is not looked at until too late
    return AssetOrTimeSchedule(timetable=nightly, assets=[new_data])


class BrokenModel(DAG):
    """Stands for a model file that cannot be read: refusing it is an import error, and the other models stay.

    Airflow retires every DAG of a Python file that has an import error. So where there is a bundle, as there is
    wherever Airflow runs, this DAG says that it comes from the model's file and refuses to be serialized, which puts
    the error under that file's name. A plain DagBag knows no bundle; there it refuses to be bagged.
    """

    _in_bundle = False

    @property
    def relative_fileloc(self) -> str:
        return f"models/{self.description.partition(':')[0]}"

    @relative_fileloc.setter
    def relative_fileloc(self, path: str | None) -> None:
        self._in_bundle = path is not None and not Path(path).is_absolute()

    def validate(self) -> None:
        if not self._in_bundle:
            raise ConfigError(self.description)

    def get_serialized_fields(self) -> NoReturn:
        raise ConfigError(self.description)


def dag_of(model_file: Path, taken: set[str]) -> DAG:
    """A model's DAG, or what stands for one; adds the model's name to those `taken`."""
    try:
        config = load_config(model_file)
        _take(config.name, taken)
        dag = retraining_dag(model_file, config)
        dag.validate()  # Airflow does so later, when a bad cron would be the Python file's error
    except Exception as error:  # noqa: BLE001 — whatever is wrong with one model must not take the others down
        digest = sha256(model_file.name.encode()).hexdigest()[:8]  # any file name makes a valid id
        return BrokenModel(f"broken_{digest}", description=f"{model_file.name}: {error}", schedule=None)
    return dag


def _take(name: str, taken: set[str]) -> None:
    if name in taken:
        raise ConfigError(received("name", name, "a name that no other model file has"))
    taken.add(name)


_names: set[str] = set()
for _model_file in sorted(MODELS.glob("*.yaml")):
    globals()[f"retrain_{_model_file.stem}"] = dag_of(_model_file, _names)
