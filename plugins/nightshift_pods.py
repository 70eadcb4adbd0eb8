"""What a task's pod gets beyond the pod template, where Airflow runs each in one (docker/kubernetes).

The DAG asks for it while it is parsed. The kubernetes client takes a second to import, and is imported for that alone.
"""

import os
import re
from typing import TYPE_CHECKING

from training.errors import ConfigError, received

if TYPE_CHECKING:
    from kubernetes.client import models as k8s

# What each task's pod has for itself, and no more. Peak memory of the default night's seven steps, each in a process of
# its own, was 242, 349, 159, 2023, 1666, 1448 and 1842 MiB; Airflow's two processes in the pod take 240 more.
MEMORY = {
    "ingest": "1Gi",
    "validate": "1Gi",
    "oversample": "1Gi",
    "train": "4Gi",
    "recalibrate_batch_norm": "2Gi",
    "evaluate": "2Gi",
    "promote": "3Gi",
    # A shard does what its step does, or what `recalibrate_batch_norm` does, to fewer images.
    "ingest_shards": "1Gi",
    "feature_shards": "2Gi",
    "moment_shards": "2Gi",
    "evaluate_shards": "2Gi",
}
_CORES = {"train": "2"}


def pod_override(task: str) -> "k8s.V1Pod":
    """What Airflow lays over the pod template for the DAG's task of that name.

    Resources replace the template's as a whole. Memory is promised in full, as a task that ran out of it would begin
    anew; cores are not limited, so that none is idle. Raises ConfigError for a variable that does not fit.
    """
    from kubernetes.client import models as k8s

    trains = task == "train"
    gpus = _gpus() if trains else {}
    held = {"memory": _memory()[task], **gpus}
    resources = k8s.V1ResourceRequirements(requests={"cpu": _CORES.get(task, "1"), **held}, limits=held)
    image = os.environ.get("NIGHTSHIFT_TRAIN_IMAGE") or None if trains else None
    # Nodes with GPUs are commonly tainted so, to keep out whatever needs none.
    tolerations = [k8s.V1Toleration(key=name, operator="Exists", effect="NoSchedule") for name in gpus] or None
    container = k8s.V1Container(name="base", image=image, resources=resources)
    return k8s.V1Pod(spec=k8s.V1PodSpec(containers=[container], tolerations=tolerations))


def _gpus() -> dict[str, str]:
    """GPUs that a training asks for, by the name under which the cluster has them."""
    count = os.environ.get("NIGHTSHIFT_TRAIN_GPUS") or "0"
    if not re.fullmatch(r"\d+", count, re.ASCII):
        raise ConfigError(received("NIGHTSHIFT_TRAIN_GPUS", count, "a whole number"))
    return {os.environ.get("NIGHTSHIFT_GPU_RESOURCE") or "nvidia.com/gpu": count} if int(count) else {}


def _memory() -> dict[str, str]:
    """Memory of each task, some of it changed as `train=16Gi evaluate=4Gi`."""
    changes = os.environ.get("NIGHTSHIFT_POD_MEMORY", "")
    changed = dict[str, str]()
    for word in changes.split():
        task, _, memory = word.partition("=")
        if task not in MEMORY or not re.fullmatch(r"[1-9]\d*[MG]i", memory, re.ASCII):
            expected = f"words like train=16Gi, of the tasks {', '.join(MEMORY)}"
            raise ConfigError(received("NIGHTSHIFT_POD_MEMORY", changes, expected))
        changed[task] = memory
    return MEMORY | changed
