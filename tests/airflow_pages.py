"""A real API server over a real metadata database, with users who may read different DAGs."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.conftest import ROOT

SECRET = "only-for-tests-only-for-tests-only-for-tests"
# Airflow's own simple users, save that `outsider` may read no model but the second.
_MANAGER = """
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

HIDDEN = {"retrain_first", "retrain_empty", "retrain_alone", "elsewhere"}


class PerDag(SimpleAuthManager):
    def is_authorized_dag(self, *, method, user, access_entity=None, details=None):
        if user.username == "outsider" and details is not None and details.id in HIDDEN:
            return False
        return super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details)
"""
# DAGs as they are serialized in production, whose forms say where the runs are; and runs of the first.
_FILL = """
import json, sys
from datetime import datetime, timezone
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.sdk import DAG, Param
from airflow.serialization.serialized_objects import DagSerialization, LazyDeserializedDAG
from airflow.serialization.serialized_objects import SerializedDAG
from airflow.models.serialized_dag import SerializedDagModel
from airflow.utils.session import create_session
from airflow.utils.types import DagRunTriggeredByType, DagRunType

dags, runs = json.loads(sys.argv[1]), json.loads(sys.argv[2])
with create_session() as session:
    session.add(DagBundleModel(name="tests"))
    session.flush()
    for dag_id, (tags, params) in dags.items():
        dag = DAG(dag_id, schedule=None, tags=tags, params={k: Param(v, type="string") for k, v in params.items()})
        lazy = LazyDeserializedDAG.from_dag(dag)
        SerializedDAG.bulk_write_to_db("tests", None, [lazy], session=session)
        SerializedDagModel.write_dag(lazy, bundle_name="tests", session=session)
    for dag_id, run_id, state, began in runs:
        moment = datetime.fromisoformat(began)
        session.add(DagRun(dag_id=dag_id, run_id=run_id, state=state, start_date=moment, run_after=moment,
                           logical_date=moment, run_type=DagRunType.MANUAL, triggered_by=DagRunTriggeredByType.TEST))
"""


class Pages:
    """Where the server is, and how its users come in."""

    def __init__(self, url: str, home: Path) -> None:
        self.url, self.home = url, home
        self.passwords = json.loads((home / "passwords.json").read_text())

    def token(self, user: str) -> str:
        body = {"username": user, "password": self.passwords[user]}
        return str(requests.post(f"{self.url}/auth/token", json=body, timeout=30).json()["access_token"])

    def session(self, user: str | None) -> requests.Session:
        made = requests.Session()
        if user is not None:
            made.cookies.set("_token", self.token(user))
        return made


@contextmanager
def served(home: Path, dags: dict, runs: list, **environment: str) -> Iterator[Pages]:
    """An API server with the plugins of this checkout; `dags`: id -> (tags, defaults of its form)."""
    (home / "per_dag.py").write_text(_MANAGER)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {**os.environ, **_settings(home, port), **environment}
    _run(settings, "-m", "airflow", "db", "migrate")
    (home / "fill.py").write_text(_FILL)
    _run(settings, str(home / "fill.py"), json.dumps(dags), json.dumps(runs))
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "airflow", "api-server"], env=settings, cwd=home, stdout=log, stderr=log
        )
        try:
            _await(f"http://127.0.0.1:{port}", server, home)
            yield Pages(f"http://127.0.0.1:{port}", home)
        finally:
            server.terminate()
            server.wait(30)


def _settings(home: Path, port: int) -> dict[str, str]:
    options = {
        "CORE__DAGS_FOLDER": str(home / "dags"),
        "CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__AUTH_MANAGER": "per_dag.PerDag",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": "reader:viewer,outsider:viewer",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "API__PORT": str(port),
        "API__HOST": "127.0.0.1",
        "API__BASE_URL": f"http://127.0.0.1:{port}",
        "API__WORKERS": "1",
        "API_AUTH__JWT_SECRET": SECRET,
        "API__SECRET_KEY": SECRET,
        "LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
    }
    path = os.pathsep.join([str(home), str(ROOT), os.environ.get("PYTHONPATH", "")])
    named = {f"AIRFLOW__{name}": value for name, value in options.items()}
    return {"AIRFLOW_HOME": str(home), "PYTHONPATH": path, "PYTHONSAFEPATH": "", **named}


def _run(settings: dict[str, str], *words: str) -> None:
    done = subprocess.run(
        [sys.executable, *words], env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]


def _await(url: str, server: subprocess.Popen, home: Path) -> None:
    limit = time.monotonic() + 120
    while time.monotonic() < limit and server.poll() is None:
        try:
            if requests.get(f"{url}/api/v2/version", timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.3)
    raise AssertionError((home / "server.log").read_text()[-3000:])
