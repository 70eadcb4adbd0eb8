"""No password, key or token that anybody could guess: in what is configured, in what is told, and when tried."""

import re
import subprocess
import time

import jwt
import psutil
import pytest
import requests

from runner.ports import LOCALHOST
from tests.production import compose
from tests.production.cluster import WORKERS
from tests.production.test_access import token

pytestmark = pytest.mark.production
# What Airflow, Celery, PostgreSQL, Redis and the stores come with, or are shown with in their manuals.
USUAL = (
    *("airflow:airflow", "admin:admin", "postgres:postgres", "root:root", "guest:guest", "minioadmin", "rustfsadmin"),
    *("temporary_key", "changeme", "change_me", "secret_key = secret", "password = password"),
    *("redis://redis", "redis://:@"),
)
PASSWORDS = ("airflow", "admin", "password", "postgres", "redis", "results", "nightshift", "changeme", "secret", " ")
SECRET = re.compile(r"PASSWORD|SECRET|_KEY$")


def made(cluster) -> dict[str, str]:
    return {name: value for name, value in cluster.variables.items() if SECRET.search(name)}


def test_every_secret_is_long_random_and_used_once(cluster, tmp_path):
    from tests.production.cluster import secrets

    ours, others = made(cluster), secrets(tmp_path / "others")
    assert all(len(value) >= 20 and len(set(value)) >= 10 for value in ours.values())
    assert len({*ours.values(), *(others[name] for name in ours)}) == 2 * len(ours)


@pytest.mark.parametrize("name", ["api-server", "worker"])
def test_no_default_is_configured(cluster, name):
    """As Airflow itself renders its configuration in the service; all servers are told the same, and all workers."""
    listed = cluster.run(name, ["airflow", "config", "list", "--show-values"])
    assert listed.returncode == 0, listed.stderr
    # Names and roles, not passwords, of a manager of users that is not in use.
    options = [line for line in listed.stdout.splitlines() if not line.startswith("simple_auth_manager_users")]
    told = "\n".join([*options, str(cluster.environment(name))]).lower()
    assert [usual for usual in USUAL if usual in told] == []
    assert cluster.variables["REDIS_PASSWORD"].lower() in told


def test_no_default_is_written():
    text = (compose.DOCKER / "compose.yaml").read_text() + (compose.DOCKER / "secrets.sh").read_text()
    assert [usual for usual in USUAL if usual in text.lower()] == []


def test_workers_do_not_know_the_servers_secrets(cluster):
    servers = ("POSTGRES_PASSWORD", "AIRFLOW_FERNET_KEY", "AIRFLOW_JWT_SECRET", "AIRFLOW_API_SECRET_KEY")
    for name in WORKERS:
        told = str(cluster.environment(name))
        assert [secret for secret in (*servers, "AIRFLOW_ADMIN_PASSWORD") if cluster.variables[secret] in told] == []


def test_nothing_that_can_be_read_tells_a_secret(cluster):
    """Neither logs nor the arguments of processes."""
    pids = [process.pid for process in cluster.processes.values()]
    seen = [str(one.cmdline()) for pid in pids for one in [psutil.Process(pid), *psutil.Process(pid).children(True)]]
    seen += [path.read_text(errors="replace") for path in (cluster.folder / "logs").rglob("*.log")]
    assert len(seen) > 20
    assert [name for name, value in made(cluster).items() if any(value in text for text in seen)] == []


@pytest.mark.parametrize("user", ["admin", "airflow"])
def test_the_api_server_takes_no_usual_password(cluster, user):
    for password in PASSWORDS[:4]:
        answer = token(cluster, user, password)
        assert answer.status_code in (400, 401, 429), (password, answer.text)


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
@pytest.mark.parametrize(("path", "who", "audience"), [
    ("/api/v2/dags", "1", "apache-airflow"),
    ("/execution/variables/x", "01a20964-288f-7e5a-83fb-d24217efb3b9", "urn:airflow.apache.org:task"),
])  # fmt: skip
def test_a_token_of_another_key_is_refused(cluster, path, who, audience):
    now = int(time.time())
    claims = {"sub": who, "aud": audience, "iat": now, "nbf": now, "exp": now + 600}

    def status(headers: dict[str, str]) -> int:
        return requests.get(f"{cluster.url}{path}", headers=headers, timeout=60).status_code

    def signed(key: str | None) -> dict[str, str]:
        return {"Authorization": f"Bearer {jwt.encode(claims, key, 'HS512' if key else 'none')}"}

    assert {status(headers) for headers in ({}, *map(signed, (None, "temporary_key", "secret", "airflow")))} <= {
        401,
        403,
    }
    assert status(signed(cluster.variables["AIRFLOW_JWT_SECRET"])) in (200, 404)


@pytest.mark.parametrize("password", [None, *PASSWORDS])
def test_redis_takes_no_usual_password(cluster, password):
    said = redis_cli(cluster, password)
    assert "NOAUTH" in said or "WRONGPASS" in said
    assert "PONG" in redis_cli(cluster, cluster.variables["REDIS_PASSWORD"])


def redis_cli(cluster, password: str | None) -> str:
    words = ["redis-cli", "-p", str(cluster.ports["redis"]), "ping"]
    environment = {"PATH": "/usr/bin:/bin"} | ({"REDISCLI_AUTH": password} if password else {})
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("user", ["airflow", "postgres", "results"])
def test_postgresql_takes_no_usual_password(cluster, user):
    for password in ("", *PASSWORDS):
        for database in ("airflow", "postgres", "results"):
            assert connects(cluster, user, password, database) is False


def test_each_role_enters_its_own_database(cluster):
    passwords = {"airflow": "POSTGRES_PASSWORD", "results": "RESULTS_PASSWORD"}
    for role, name in passwords.items():
        assert connects(cluster, role, cluster.variables[name], role)
    assert not connects(cluster, "results", cluster.variables["RESULTS_PASSWORD"], "airflow")


def connects(cluster, user: str, password: str, database: str) -> bool:
    import psycopg2

    place = {"host": LOCALHOST, "port": cluster.ports["postgres"], "dbname": database}
    try:
        psycopg2.connect(user=user, password=password, **place).close()
    except psycopg2.OperationalError as error:
        assert any(word in str(error) for word in ("authentication failed", "no password", "permission denied")), error
        return False
    return True
