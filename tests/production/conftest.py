"""One cluster for all tests here, with a small model whose data, runs and champions are on S3."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import yaml

from tests.conftest import OPEN, ROOT, SOLAR_CELLS, small_settings
from tests.production.cluster import Cluster, running
from training.config import load_config, to_json
from training.store import Store, open_store

BUCKET = "nightshift"
# The night that is compared everywhere: two epochs, with checkpoints within them.
CHECKPOINTS = {"train.epochs": 2, "train.checkpoint_seconds": 2}
NIGHT = small_settings(f"s3://{BUCKET}/cells", f"s3://{BUCKET}") | OPEN | CHECKPOINTS
# What the model's file says besides, where the night runs on workers.
ON_WORKERS: dict[str, object] = {"scale.shards": 4}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    model = yaml.safe_dump(json.loads(to_json(load_config(SOLAR_CELLS, NIGHT | ON_WORKERS))))
    with running({"solar_cells.yaml": model}) as cluster, pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment("worker").items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        yield cluster


@pytest.fixture(scope="session")
def store(cluster: Cluster, few_cells: Path) -> str:
    """The bucket, with the images in it."""
    bucket = boto3.resource("s3").Bucket(BUCKET)
    for path in sorted(few_cells.rglob("*")):
        if path.is_file():
            bucket.upload_file(str(path), f"cells/{path.relative_to(few_cells)}")
    return f"s3://{BUCKET}"


@pytest.fixture(scope="session")
def alone(store: str) -> Store:
    """The same night without Airflow, in one process that nobody disturbs."""
    settings = NIGHT | {"store.runs": f"{store}/alone/runs", "store.champion": f"{store}/alone/champion"}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    night = [sys.executable, "-m", "training", "run", "--config", str(SOLAR_CELLS), "--run", f"{store}/alone/run"]
    subprocess.run([*night, *words], cwd=ROOT, check=True)
    return open_store(f"{store}/alone/run")
