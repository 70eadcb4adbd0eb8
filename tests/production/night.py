"""Nights on the cluster: triggered as in the form, followed to their end."""

from dataclasses import dataclass
from typing import Any

from runner.api import Api
from tests.production.cluster import WORKERS, Cluster, wait_for
from training.config import RunConfig, load_config
from training.form import FORCE, form_changes
from training.run_folder import run_uri_for
from training.store import Store, open_store

DAG = "retrain_solar_cells"
_SECONDS = 900.0


@dataclass(frozen=True)
class Night:
    """A run that was triggered."""

    api: Api
    run_id: str
    config: RunConfig

    @property
    def store(self) -> Store:
        return open_store(run_uri_for(self.config, self.run_id))

    def tasks(self) -> dict[str, dict[str, Any]]:
        return {task["task_id"]: task for task in self.api.tasks(DAG, self.run_id)}

    def wait_until_it_trains(self) -> None:
        """Until there is a checkpoint that another process could go on from."""
        wait_for(lambda: any(one.key.endswith(".npz") for one in self.store.list("checkpoint/state/")), "a checkpoint")

    def end(self) -> str:
        """The state it ends in."""
        ended = ("success", "failed")
        wait_for(lambda: self.api.run_state(DAG, self.run_id) in ended, "the night", _SECONDS, told=self._standing)
        return self.api.run_state(DAG, self.run_id)

    def _standing(self) -> str:
        return "\n".join(f"{name}: {task['state']}, try {task['try_number']}" for name, task in self.tasks().items())


def trigger(cluster: Cluster, store: str) -> Night:
    """A night with runs and a champion of its own below the URI `store`: it is compared with none before it."""
    model = cluster.checkout / "dags" / "models" / "solar_cells.yaml"
    own = {"store.runs": f"{store}/runs", "store.champion": f"{store}/champion"}
    base, config = load_config(model), load_config(model, own)
    api = cluster.api()
    api.pause(DAG, paused=False)
    return Night(api, api.trigger(DAG, form_changes(config, base) | {FORCE: True}), config)


def worker_that_trains(cluster: Cluster, night: Night) -> str:
    pid = night.tasks()["train"]["pid"]
    for name in WORKERS:
        if pid in {process.pid for process in cluster.processes_of(cluster.processes[name].pid)}:
            return name
    raise AssertionError(f"no worker has a process {pid}")
