"""Airflow's REST API, used as its pages use it."""

import time
from typing import Any
from urllib.parse import quote

import requests

from runner.errors import RunnerError

_SECONDS = 30.0
_ATTEMPTS = 4
Answer = dict[str, Any]


class Api:
    """One Airflow, as one user; the token is fetched when it is first needed and again when it has run out."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url
        self._login = {"username": user, "password": password}
        self._session = requests.Session()
        self._session.trust_env = False  # never through a proxy: it is this machine

    def healthy(self, *components: str) -> bool:
        """Whether the server answers and these components have lately given a sign of life."""
        try:
            answer = self._session.get(f"{self.url}/api/v2/monitor/health", timeout=_SECONDS).json()
        except (requests.RequestException, ValueError):
            return False
        return all(answer.get(name, {}).get("status") == "healthy" for name in ("metadatabase", *components))

    def takes_tasks(self) -> bool:
        """Whether what tasks report to answers; the first request makes Airflow put it together, for some seconds."""
        try:
            return self._session.get(f"{self.url}/execution/health", timeout=_SECONDS).ok
        except requests.RequestException:
            return False

    def dag(self, dag_id: str) -> Answer | None:
        return self._call("GET", f"/dags/{dag_id}", missing_ok=True)

    def pause(self, dag_id: str, *, paused: bool) -> None:
        self._call("PATCH", f"/dags/{dag_id}", json={"is_paused": paused})

    def make_pool(self, name: str, slots: int, description: str) -> None:
        """Make a pool where there is none of that name; one that is there keeps its size."""
        if self._call("GET", f"/pools/{name}", missing_ok=True) is None:
            self._call("POST", "/pools", json={"name": name, "slots": slots, "description": description})

    def import_errors(self) -> list[Answer]:
        return list(self._get("/importErrors")["import_errors"])

    def unfinished_runs(self, dag_id: str) -> list[str]:
        answer = self._call("GET", f"/dags/{dag_id}/dagRuns", params={"state": ["running", "queued"]}, missing_ok=True)
        return [run["dag_run_id"] for run in (answer or {}).get("dag_runs", [])]

    def trigger(self, dag_id: str, conf: Answer) -> str:
        body = {"logical_date": None, "conf": conf, "note": "make run"}
        return str((self._call("POST", f"/dags/{dag_id}/dagRuns", json=body) or {})["dag_run_id"])

    def fail(self, dag_id: str, run_id: str) -> None:
        """Mark a run as failed, which ends its tasks."""
        self._call("PATCH", _run(dag_id, run_id), json={"state": "failed"})

    def run_state(self, dag_id: str, run_id: str) -> str:
        return str(self._get(_run(dag_id, run_id))["state"])

    def tasks(self, dag_id: str, run_id: str) -> list[Answer]:
        return list(self._get(f"{_run(dag_id, run_id)}/taskInstances")["task_instances"])

    def log(self, dag_id: str, run_id: str, task_id: str, attempt: int, map_index: int = -1) -> list[Answer]:
        """The log's records so far; none while there is no log."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{task_id}/logs/{attempt}"
        answer = self._call("GET", path, params={"full_content": "true", "map_index": map_index}, missing_ok=True)
        return [record for record in (answer or {}).get("content", []) if isinstance(record, dict)]

    def _get(self, path: str) -> Answer:
        return self._call("GET", path) or {}

    def _call(self, method: str, path: str, *, missing_ok: bool = False, **arguments: Any) -> Answer | None:
        response = self._send(method, path, **arguments)
        if response.status_code == requests.codes.unauthorized:
            self._session.headers.pop("Authorization", None)
            response = self._send(method, path, **arguments)
        if missing_ok and response.status_code == requests.codes.not_found:
            return None
        if not response.ok:
            raise RunnerError(f"Airflow: {method} {path} was answered {response.status_code}: {_detail(response)}")
        return dict(response.json()) if response.content else {}

    def _send(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """Reading is tried again when the server is too busy to answer; writing is not, it might happen twice."""
        attempts = _ATTEMPTS if method == "GET" else 1
        for attempt in range(1, attempts + 1):
            try:
                self._sign_in()
                return self._session.request(method, f"{self.url}/api/v2{path}", timeout=_SECONDS, **arguments)
            except requests.RequestException as error:
                if attempt == attempts:
                    raise RunnerError(f"Airflow: {method} {path} got no answer ({type(error).__name__})") from None
                time.sleep(attempt)
        raise AssertionError

    def _sign_in(self) -> None:
        if "Authorization" in self._session.headers:
            return
        response = self._session.post(f"{self.url}/auth/token", json=self._login, timeout=_SECONDS)
        if not response.ok:
            raise RunnerError(f"Airflow: signing in was answered {response.status_code}")
        self._session.headers["Authorization"] = f"Bearer {response.json()['access_token']}"


def _run(dag_id: str, run_id: str) -> str:
    return f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"


def _detail(response: requests.Response) -> str:
    try:
        return " ".join(str(response.json().get("detail", "")).split())[:500]
    except ValueError:
        return response.reason
