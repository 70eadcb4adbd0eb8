"""What docs/operations.md says of an upgrade, done to a copy of the database in which the nights were."""

import subprocess
from pathlib import Path

import pytest

from tests.production.cluster import Cluster

pytestmark = pytest.mark.production
# The last release before the one that is installed whose tables are others.
OLDER = "3.1.0"
COPY = "restored"
KEPT = ("dag_run", "task_instance", "xcom", "ab_user", "slot_pool")


def url(cluster: Cluster, database: str) -> str:
    found = cluster.environment("scheduler")["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "")
    return f"{found.rpartition('/')[0]}/{database}"


def ask(cluster: Cluster, database: str, *statements: str) -> list[tuple]:
    import psycopg2  # which production's environment alone has

    connection = psycopg2.connect(url(cluster, database))
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def rows(cluster: Cluster, database: str) -> dict[str, int]:
    return {table: ask(cluster, database, f"SELECT count(*) FROM {table}")[0][0] for table in KEPT}


def airflow(cluster: Cluster, *command: str) -> subprocess.CompletedProcess[str]:
    """A command of Airflow's on the copy."""
    variable = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
    conn = url(cluster, COPY).replace("postgresql:", "postgresql+psycopg2:")
    return cluster.run("scheduler", ["env", f"{variable}={conn}", "airflow", *command])


@pytest.fixture
def copy(cluster, tmp_path: Path):
    dump = str(tmp_path / "airflow.dump")
    done = cluster.run("scheduler", ["pg_dump", "--format", "custom", "--file", dump, url(cluster, "airflow")])
    assert done.returncode == 0, done.stderr
    ask(cluster, "airflow", f"CREATE DATABASE {COPY}")
    done = cluster.run("scheduler", ["pg_restore", "--no-owner", "--dbname", url(cluster, COPY), dump])
    assert done.returncode == 0, done.stderr
    yield
    ask(cluster, "airflow", f"DROP DATABASE {COPY} WITH (FORCE)")


def test_a_dump_of_an_older_release_is_restored_and_migrated_with_all_that_was_in_it(cluster, copy):
    before = rows(cluster, COPY)
    assert before == rows(cluster, "airflow") and before["slot_pool"] >= 2 and before["ab_user"] >= 1
    done = airflow(cluster, "db", "downgrade", "--to-version", OLDER, "--yes")
    assert done.returncode == 0, done.stderr[-3000:]
    assert airflow(cluster, "db", "check-migrations", "--migration-wait-timeout", "0").returncode != 0
    done = airflow(cluster, "db", "migrate")
    assert done.returncode == 0, done.stderr[-3000:]
    assert airflow(cluster, "db", "check-migrations", "--migration-wait-timeout", "0").returncode == 0
    assert rows(cluster, COPY) == before
