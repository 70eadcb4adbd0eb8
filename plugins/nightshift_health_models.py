"""Which models there are, where their runs lie and what Airflow knows of them: from the metadata database alone."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow.models.dag import DagModel, DagTag
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from sqlalchemy import select
from sqlalchemy.orm import Session

TAG, PREFIX = "nightshift", "retrain_"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
# More nights than anybody looks at, and a bound on what one request reads.
_MOST_RUNS = 2000


@dataclass(frozen=True)
class Model:
    """One model that is retrained, and the URI below which its runs are."""

    dag_id: str
    name: str
    runs: str


@dataclass(frozen=True)
class AirflowRun:
    """What Airflow knows of one night."""

    run_id: str
    state: str
    began: str


def find_model(dag_id: str, session: Session) -> Model | None:
    """The model that the DAG retrains; None for any other DAG."""
    return next(iter(find_models({dag_id}, session)), None)


def find_models(readable: Collection[str], session: Session) -> list[Model]:
    """The models among the DAGs that are `readable`, by name."""
    ours = select(DagTag.dag_id).join(DagModel, DagModel.dag_id == DagTag.dag_id)
    ours = ours.where(DagTag.name == TAG, DagModel.is_stale.is_(False)).order_by(DagTag.dag_id)
    found = (_model(dag_id, session) for dag_id in session.scalars(ours) if dag_id in readable)
    return [model for model in found if model is not None]


def airflow_runs(dag_id: str, session: Session) -> list[AirflowRun]:
    """The DAG's newest runs, in one query."""
    columns = (DagRun.run_id, DagRun.state, DagRun.start_date, DagRun.queued_at, DagRun.run_after)
    newest = select(*columns).where(DagRun.dag_id == dag_id).order_by(DagRun.run_after.desc()).limit(_MOST_RUNS)
    return [
        AirflowRun(run_id, str(state), _iso(started or queued or after))
        for run_id, state, started, queued, after in session.execute(newest)
    ]


def _model(dag_id: str, session: Session) -> Model | None:
    name = dag_id.removeprefix(PREFIX)
    if name == dag_id or not _NAME.fullmatch(name):
        return None
    serialized = SerializedDagModel.get(dag_id, session=session)
    runs = None if serialized is None else _default(serialized.data, "store__runs")
    return Model(dag_id, name, runs) if isinstance(runs, str) and runs else None


def _default(data: Any, field: str) -> Any:
    """A field's default in a serialized DAG's trigger form."""
    fields = dict(((data or {}).get("dag") or {}).get("params") or [])
    return (fields.get(field) or {}).get("default")


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="seconds")
