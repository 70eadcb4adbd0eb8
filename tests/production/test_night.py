"""Nights on Celery workers, PostgreSQL, Redis and S3: left alone, with a worker lost, with servers restarted."""

import signal
import time

import pytest

from tests.nights import assert_equal
from tests.production.cluster import WORKERS, wait_for
from tests.production.night import DAG, trigger, worker_that_trains
from training.step_names import STEPS

# The mapped tasks of a model that trains on pixels.
SHARDS = ("ingest_shards", "moment_shards", "evaluate_shards")
pytestmark = pytest.mark.production
# Seconds for which a server is away: longer than a scheduler's try to hand over a task, or a task's heartbeat.
_AWAY = 10.0


def test_a_night_on_workers_is_the_one_without_airflow(cluster, store, alone):
    night = trigger(cluster, f"{store}/workers")
    assert night.end() == "success"
    tasks = night.tasks()
    assert tasks.keys() == {*STEPS, *SHARDS}
    assert {task["state"] for task in tasks.values()} == {"success"}
    assert {task["try_number"] for task in tasks.values()} == {1}
    assert tasks["train"]["queue"] == "training" and tasks["ingest"]["queue"] == "default"
    assert_equal(night.store, alone)


def test_a_training_whose_worker_is_lost_goes_on_at_the_other(cluster, store, alone):
    night = trigger(cluster, f"{store}/lost")
    night.wait_until_it_trains()
    lost = worker_that_trains(cluster, night)
    cluster.kill(lost)
    assert night.end() == "success"
    assert night.tasks()["train"]["try_number"] == 2
    told = [str(record.get("event")) for record in night.api.log(DAG, night.run_id, "train", 2)]
    assert any("going on from epoch" in line for line in told), told
    assert_equal(night.store, alone)
    cluster.start(lost)
    cluster.wait_healthy(lost)


def test_a_task_that_a_worker_takes_while_postgresql_is_away_waits_for_it(cluster, store, alone):
    cluster.signal(signal.SIGSTOP, *WORKERS)
    before = taken(cluster)
    night = trigger(cluster, f"{store}/taken")
    wait_for(lambda: night.tasks()["ingest_shards"]["state"] == "queued", "the first task to be due")
    time.sleep(_AWAY)
    cluster.stop("postgres")
    cluster.signal(signal.SIGCONT, *WORKERS)
    wait_for(lambda: taken(cluster) > before, "a worker to take a task")
    time.sleep(_AWAY)
    cluster.start("postgres")
    cluster.wait_healthy("postgres", "api-server")
    assert night.end() == "success"
    assert {task["try_number"] for task in night.tasks().values()} == {1}
    assert_equal(night.store, alone)


def taken(cluster) -> int:
    """How many tasks the workers say they took."""
    return sum(cluster.log(name).read_text(errors="replace").count("] received") for name in WORKERS)


def test_redis_and_postgresql_may_restart_while_a_night_is_at_it(cluster, store, alone):
    """What is due while Redis is away waits, a training goes on through both restarts, and nothing is tried twice."""
    cluster.stop("redis")
    night = trigger(cluster, f"{store}/restarts")
    wait_for(lambda: night.tasks()["ingest_shards"]["state"] == "queued", "the first task to be due")
    time.sleep(_AWAY)
    cluster.start("redis")
    night.wait_until_it_trains()
    for name in ("redis", "postgres"):
        cluster.stop(name)
        time.sleep(_AWAY)
        cluster.start(name)
        cluster.wait_healthy(name)
    assert night.end() == "success"
    assert {task["try_number"] for task in night.tasks().values()} == {1}
    assert_equal(night.store, alone)
