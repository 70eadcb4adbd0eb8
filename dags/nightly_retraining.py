"""One DAG `retrain_<name>` for each file in ``models/``: the seven steps of a night, in order.

What a step does lives in `training.steps`; here are tasks, edges, the schedule, the trigger form, retries and alerts.
"""

from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

from airflow.sdk import DAG, BaseOperator, Context, CronTriggerTimetable, Param, chain

from training.config import RunConfig, load_config
from training.errors import ConfigError, received
from training.form import form_fields, load_from_form
from training.steps import STEPS

MODELS = Path(__file__).parent / "models"
# Bad settings, bad data and a refused model fail in the same way tomorrow; anything else may be the weather.
NOT_RETRIED = frozenset({2, 3, 4, 5})


class Step(BaseOperator):
    """Runs one step of `training` on the run's folder; its XCom is the folder's URI."""

    def __init__(self, *, model_file: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.model_file = model_file

    def execute(self, context: Context) -> str:
        from airflow.sdk.exceptions import AirflowFailException

        from training.errors import NightshiftError, Superseded
        from training.run_folder import run_uri_for
        from training.steps import run_step

        try:
            config = load_from_form(self.model_file, context["params"])
            return run_step(self.task_id, config, run_uri_for(config, context["run_id"]))
        except NightshiftError as error:
            if error.exit_code not in NOT_RETRIED and not isinstance(error, Superseded):
                raise
            raise AirflowFailException(error.message) from error


def alert(model_file: str) -> Callable[[Context], None]:
    """A failure callback; the notifier is imported when it is needed, which keeps parsing light."""

    def tell_ops(context: Context) -> None:
        from nightshift_alerts import OpsAlert

        OpsAlert(model_file)(context)

    return tell_ops


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
            "on_failure_callback": alert(str(model_file)),
        },
        # A killed task cannot call back itself.
        on_failure_callback=alert(str(model_file)),
        tags=["nightshift"],
    )
    chain(*[Step(task_id=step, model_file=str(model_file), dag=dag) for step in STEPS])
    return dag


def _schedule(config: RunConfig) -> CronTriggerTimetable | None:
    if config.schedule is None:
        return None
    # Airflow's default starts a run on unpausing when the last tick is recent; zero waits for the next one.
    return CronTriggerTimetable(config.schedule, timezone="UTC", run_immediately=timedelta(0))


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
