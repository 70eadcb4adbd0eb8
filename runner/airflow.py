"""A real Airflow whose home is the checkout's `.airflow`: its settings, its start, its end."""

import fcntl
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import IO

from runner import processes
from runner.api import Api
from runner.errors import Busy, RunnerError
from runner.ports import LOCALHOST, reserved_ports

USER = "admin"
PASSWORDS = "simple_auth_manager_passwords.json.generated"
# The ports Airflow uses when left alone: pages and API, the tasks' logs, the triggerer's logs.
_PORTS = (8080, 8793, 8794)
_START_SECONDS = 240.0
_POLL_SECONDS = 0.5


@dataclass
class Airflow:
    """The components that were started, and how to reach them."""

    checkout: Path
    environment: dict[str, str]
    api: Api
    components: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return home(self.checkout)

    def start(self, *names: str) -> None:
        """Start components; what they say goes to files in the home."""
        for name in names:
            with self.log(name).open("wb") as log:
                self.components[name] = _airflow(self.environment, log, name)
        processes.remember(self.home, [process.pid for process in self.components.values()])

    def answers(self) -> bool:
        """Whether the API server is up, and is ours: another may have taken the port since it was found free."""
        server, port = self.components["api-server"], int(self.environment["AIRFLOW__API__PORT"])
        return processes.listens(server.pid, port) and self.api.healthy()

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        """Wait until `ready`; raises RunnerError when a component ends or it takes too long."""
        end = time.monotonic() + _START_SECONDS
        while not ready():
            for name, process in self.components.items():
                if process.poll() is not None:
                    raise RunnerError(f"Airflow's {name} ended: {_last_line(self.log(name))}; see {self.log(name)}")
            if time.monotonic() > end:
                raise RunnerError(f"Airflow: {what} took more than {_START_SECONDS:.0f} s; see {self.home / 'logs'}")
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        processes.end(self.home, [process.pid for process in self.components.values()])
        for process in self.components.values():
            process.wait()

    def log(self, name: str) -> Path:
        return self.home / "logs" / f"{name}.log"


@contextmanager
def prepared(checkout: Path, *, schedules: bool) -> Iterator[Airflow]:
    """An Airflow ready to be started, alone in its home; whatever is started is ended on leaving.

    Args:
        checkout: where `dags`, `plugins` and `training` are.
        schedules: whether nightly runs start by the clock.
    """
    folder = home(checkout)
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    with _lock(folder), _clean(folder), reserved_ports(*_PORTS) as ports:
        environment = {**os.environ, **settings(checkout, ports, schedules=schedules)}
        airflow = Airflow(checkout, environment, Api(f"http://{LOCALHOST}:{ports[0]}", USER, _password(folder)))
        try:
            _migrate(airflow)
            yield airflow
        finally:
            processes.ignore_signals()
            airflow.stop()


def home(checkout: Path) -> Path:
    return checkout / ".airflow"


def password_file(checkout: Path) -> Path:
    """Where Airflow keeps the generated password."""
    return home(checkout) / PASSWORDS


def settings(checkout: Path, ports: list[int], *, schedules: bool) -> Mapping[str, str]:
    """All that differs from Airflow's defaults."""
    pages, task_logs, trigger_logs = ports
    folder, url = home(checkout), f"http://{LOCALHOST}:{pages}"
    options = {
        "CORE__DAGS_FOLDER": str(checkout / "dags"),
        "CORE__PLUGINS_FOLDER": str(checkout / "plugins"),
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__PARALLELISM": "2",  # a night is one task at a time; each worker is a process
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder / 'airflow.db'}",
        "API__HOST": LOCALHOST,
        "API__PORT": str(pages),
        "API__BASE_URL": url,
        "API__WORKERS": "1",
        "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "SCHEDULER__USE_JOB_SCHEDULE": str(schedules),
        "LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
        "LOGGING__WORKER_LOG_SERVER_PORT": str(task_logs),
        "LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_logs),
    }
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {
        **{f"AIRFLOW__{name}": value for name, value in options.items()},
        processes.MARKER: str(folder),
        "AIRFLOW_HOME": str(folder),
        "PYTHONPATH": str(checkout),
        "PYTHONUNBUFFERED": "1",
        "PATH": binaries,  # some parts call `airflow` by its name
        "NO_PROXY": f"{LOCALHOST},localhost",
        "GX_ANALYTICS_ENABLED": "false",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One runner at a time; the system lets go of the lock however the holder ends."""
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Busy("Another `make run` or `make ui` is at work in this checkout; wait for it or stop it.") from None
        yield


@contextmanager
def _clean(folder: Path) -> Iterator[None]:
    """Ends what a killed runner left behind, which may still hold the usual ports."""
    processes.end(folder)
    yield


def _password(folder: Path) -> str:
    """The user's password, made here so that Airflow does not print one."""
    path = folder / PASSWORDS
    try:
        return str(json.loads(path.read_text())[USER])
    except (OSError, ValueError, KeyError):
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({USER: secrets.token_urlsafe(16)}, file)
    return _password(folder)


def _migrate(airflow: Airflow) -> None:
    """Make or upgrade the database, and with it the secrets all components share; once for each version."""
    stamp, wanted = airflow.home / "migrated", version("apache-airflow-core")
    if stamp.is_file() and stamp.read_text() == wanted and (airflow.home / "airflow.db").is_file():
        return
    with airflow.log("migrate").open("wb") as log:
        airflow.components["migrate"] = _airflow(airflow.environment, log, "db", "migrate")
    failed = airflow.components["migrate"].wait() != 0
    del airflow.components["migrate"]
    if failed:
        raise RunnerError(f"Airflow's database could not be made: {_last_line(airflow.log('migrate'))}")
    stamp.write_text(wanted)


def _airflow(environment: dict[str, str], log: IO[bytes], *words: str) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches the runner, which ends the components in order.
    return subprocess.Popen(
        [sys.executable, "-m", "airflow", *words],
        cwd=environment["PYTHONPATH"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
