"""The services of docker/compose.yaml as processes of this machine: real PostgreSQL, Redis, Airflow and Celery.

Commands, environments, health checks, restarts and read-only file systems are the file's own. Other than there:
every service is on this machine's loopback at a free port, moto's server stands for the store, and what is in TESTED.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil

from runner import processes
from runner.api import Api
from runner.ports import LOCALHOST, reserved_ports
from tests.conftest import ROOT
from tests.production import compose, machine

WORKERS = ("worker", "worker-training")
AIRFLOW = ("api-server", "dag-processor", "triggerer", "scheduler", *WORKERS)
ADMIN = "admin"
# What the tests change, to the services of Airflow.
TESTED = {
    # A lost worker is noticed in a minute, not in ten.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
    # Nights begin when a test says so.
    "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
    # A container's own address is not reached from elsewhere; this machine's is.
    "AIRFLOW__API__HOST": LOCALHOST,
}
# The ports that compose.yaml names, and the hosts there, which are all this machine.
_PORTS = {"postgres": 5432, "redis": 6379, "s3": 7070, "api-server": 8080}
_HOSTS = re.compile(r"(?<=[@/])(?:postgres|redis|s3|api-server)(?=:\d)")
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_START_SECONDS = 300.0


class Cluster:
    """All services, by the names they have in compose.yaml."""

    def __init__(self, folder: Path, ports: list[int]) -> None:
        self.folder = folder
        self.ports = dict(zip(_PORTS, ports, strict=True))
        self.variables = secrets(folder / "secrets")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lock, self._ending = threading.RLock(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://{LOCALHOST}:{self.ports['api-server']}"

    @property
    def checkout(self) -> Path:
        return self.folder / "nightshift"

    def api(self) -> Api:
        return Api(self.url, ADMIN, self.variables["AIRFLOW_ADMIN_PASSWORD"])

    def service(self, name: str) -> compose.Service:
        return compose.service(name, self.variables, lambda text: self._moved(name, text))

    def environment(self, name: str) -> dict[str, str]:
        """Everything that a service's processes are told; nothing is inherited but where programs are."""
        temporary = str(self.home(name) / "tmp")
        own = {"PATH": f"{Path(sys.executable).parent}:{machine.postgres_programs()}:{_SYSTEM_PATH}", "LANG": "C.UTF-8"}
        own |= {processes.MARKER: str(self.folder), "HOME": temporary, "TMPDIR": temporary}
        if name in ("postgres", "redis", "s3"):
            return own | self.service(name).environment
        image = compose.image_environment(lambda text: self._moved(name, text))
        return own | image | self.service(name).environment | TESTED

    def home(self, name: str) -> Path:
        """What stands for /opt/airflow and, below it, for the /tmp or the /data of a container."""
        home = self.folder / "homes" / name
        if not home.exists():
            for own in ("tmp", "data"):
                (home / own).mkdir(parents=True)
            (home / "logs").symlink_to(self.folder / "logs")
            (home / "airflow.cfg").touch()
        return home

    def start(self, *names: str) -> None:
        with self._lock:
            for name in names:
                self.processes[name] = self._run(name, self._command(name))
            processes.remember(self.folder, [process.pid for process in self.processes.values()])

    def stop(self, name: str) -> None:
        """End a service as `docker compose stop` does, and wait until it has ended."""
        with self._lock:
            process = self.processes.pop(name)
        process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)  # as its image says
        process.wait(60)

    def kill(self, name: str) -> None:
        """End a service and all that it started at once, as if its machine were lost."""
        with self._lock:
            process = self.processes.pop(name)
        lost = self.processes_of(process.pid)
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that none sees another end
            _signal(number, lost)
        process.wait()

    def signal(self, number: signal.Signals, *names: str) -> None:
        """Send it to all processes of these services."""
        for name in names:
            _signal(number, self.processes_of(self.processes[name].pid))

    def processes_of(self, pid: int) -> list[psutil.Process]:
        """The process, its descendants, and whatever is in its session."""
        found = {one.pid: one for one in processes.trees([pid])}
        for one in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(one.pid) == pid:
                    found[one.pid] = one
        return list(found.values())

    def run(self, name: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        """A command as `docker compose exec` runs it in a service."""
        return subprocess.run(
            command, env=self.environment(name), cwd=self.home(name), capture_output=True, text=True, check=False
        )

    def healthy(self, name: str) -> bool:
        """Whether the service's own health check passes."""
        return self.run(name, self.service(name).healthcheck or ["true"]).returncode == 0

    def wait_healthy(self, *names: str) -> None:
        for name in names:
            wait_for(partial(self.healthy, name), f"{name} to be healthy", told=partial(self.said, name))

    def log(self, name: str) -> Path:
        return self.folder / "logs" / "services" / f"{name}.log"

    def said(self, name: str) -> str:
        """The end of the service's log."""
        return self.log(name).read_text(errors="replace")[-3000:]

    def bring_up(self) -> None:
        """In the order of `depends_on`."""
        machine.make_database(self._database, self.environment("postgres"))
        self.start("s3", "postgres", "redis")
        self.wait_healthy("postgres", "redis")
        init = self._run("init", self.service("init").command or [])
        assert init.wait(_START_SECONDS) == 0, self.said("init")
        self.start("api-server", "dag-processor", "triggerer")
        self.wait_healthy("api-server")
        self.start("scheduler", *WORKERS)
        self.wait_healthy(*AIRFLOW)

    def restart_what_ends(self) -> None:
        """As `restart: unless-stopped` does, until the cluster ends."""
        while not self._ending.wait(0.5):
            with self._lock:
                for name in [name for name, process in self.processes.items() if process.poll() is not None]:
                    if self.service(name).restarts and not self._ending.is_set():
                        self.start(name)

    def end(self) -> None:
        self._ending.set()
        with self._lock:
            processes.end(self.folder, [process.pid for process in self.processes.values()])
            for process in self.processes.values():
                process.wait()

    def _run(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        self.log(name).parent.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            return subprocess.Popen(
                self._contained(name, command),
                env=self.environment(name),
                cwd=self.home(name) if name in ("postgres", "redis", "s3") else self.checkout,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _contained(self, name: str, command: list[str]) -> list[str]:
        if name == "postgres":
            command = machine.as_postgres(command)
        if name == "s3" or not self.service(name).read_only or not machine.can_contain():
            return command
        home = self.home(name)
        others = [self._database] if name == "postgres" else [self.folder / "logs", self.checkout / "runs"]
        return machine.contained([home / "tmp", home / "data", *others], command)

    def _command(self, name: str) -> list[str]:
        """The file's command, that of PostgreSQL's image, which is not written there, or what stands for the store."""
        if name == "s3":
            return ["moto_server", "-H", LOCALHOST, "-p", str(self.ports[name])]
        data = str(self._database)
        image = ["postgres", "-D", data, "-p", str(self.ports["postgres"]), "-h", LOCALHOST, "-k", data]
        return self.service(name).command or image

    @property
    def _database(self) -> Path:
        return self.folder / "postgres"

    def _moved(self, name: str, text: str) -> str:
        """Where a place of a container is on this machine."""
        text = _HOSTS.sub(LOCALHOST, text)
        for other, port in _PORTS.items():
            text = re.sub(rf"\b{port}\b", str(self.ports[other]), text)
        home = self.home(name)
        here = {"/opt/nightshift": self.checkout, "/opt/airflow": home, "/tmp": home / "tmp", "/data": home / "data"}
        return re.sub(rf"(?<![\w/.])(?:{'|'.join(here)})(?!\w)", lambda found: str(here[found[0]]), text)


@contextmanager
def running(models: dict[str, str]) -> Iterator[Cluster]:
    """A cluster whose services are all healthy; `models`: names of files in dags/models and what is in them."""
    # Not below the tests' own folders, which PostgreSQL's user may not enter.
    folder = Path(tempfile.mkdtemp(prefix="nightshift-production-"))
    folder.chmod(0o755)
    with reserved_ports(*_PORTS.values()) as ports:
        cluster = Cluster(folder, ports)
        _put_code(cluster.checkout, models)
        thread = threading.Thread(target=cluster.restart_what_ends, daemon=True)
        try:
            cluster.bring_up()
            thread.start()
            yield cluster
        finally:
            cluster.end()
    assert [one for one in psutil.process_iter(["cwd"]) if str(one.info["cwd"]).startswith(str(folder))] == []
    shutil.rmtree(folder)


def secrets(folder: Path) -> dict[str, str]:
    """What docker/secrets.sh writes, which is where all passwords come from."""
    folder.mkdir()
    shutil.copy(compose.DOCKER / "secrets.sh", folder)
    subprocess.run(["sh", folder / "secrets.sh"], check=True, capture_output=True)
    return dict(re.findall(r"^(\w+)=(.*)$", (folder / ".env").read_text(), re.MULTILINE))


def wait_for(
    holds: Callable[[], bool], what: str, seconds: float = _START_SECONDS, told: Callable[[], str] = str
) -> None:
    """Look once a second; one that waited in vain says what is `told` then."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}\n{told()}"
        time.sleep(1)


def _signal(number: signal.Signals, to: list[psutil.Process]) -> None:
    for one in to:
        with contextlib.suppress(psutil.Error):
            one.send_signal(number)


def _put_code(checkout: Path, models: dict[str, str]) -> None:
    for part in ("training", "plugins", "dags", "docker"):
        shutil.copytree(ROOT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__", "models", ".env"))
    for empty in ("docs", "runs"):
        (checkout / empty).mkdir()
    shutil.copy(ROOT / "docs" / "runbook.md", checkout / "docs")
    (checkout / "dags" / "models").mkdir()
    for name, text in models.items():
        (checkout / "dags" / "models" / name).write_text(text)
