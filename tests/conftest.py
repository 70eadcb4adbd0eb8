"""Real images, a real S3 server, and small configurations."""

import csv
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from training.config import RunConfig, from_json, load_config, to_json
from training.sample import _wheel_data, write_sample

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
ROOT = Path(__file__).parents[1]
SOLAR_CELLS = ROOT / "dags" / "models" / "solar_cells.yaml"


@pytest.fixture(scope="session")
def all_cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole sample: 2,624 real solar cells."""
    folder = tmp_path_factory.mktemp("all_cells")
    write_sample(folder)
    return folder


@pytest.fixture(scope="session")
def few_cells(all_cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 intact and 40 defective cells."""
    folder = tmp_path_factory.mktemp("few_cells")
    (folder / "images").mkdir()
    with (all_cells / "labels.csv").open() as file:
        rows = list(csv.reader(file))[1:]
    kept = [row for row in rows if row[1] == "intact"][:90] + [row for row in rows if row[1] == "defective"][:40]
    for name, _ in kept:
        shutil.copyfile(all_cells / name, folder / name)
    write_labels(folder, kept)
    return folder


GRADES = ("intact", "doubtful", "defective")


@pytest.fixture(scope="session")
def graded_cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 intact, 50 doubtful and 40 defective cells: defect probability 0, a third or two, and 1."""
    folder, source = tmp_path_factory.mktemp("graded_cells"), _wheel_data()
    (folder / "images").mkdir()
    kept: dict[str, list[str]] = {grade: [] for grade in GRADES}
    for name, probability in (line.split()[:2] for line in (source / "labels.csv").read_text().splitlines()):
        kept[GRADES[0 if float(probability) == 0 else 2 if float(probability) == 1 else 1]].append(name)
    rows = [[name, grade] for grade, most in zip(GRADES, (60, 50, 40), strict=True) for name in kept[grade][:most]]
    for name, _ in rows:
        shutil.copyfile(source / name, folder / name)
    write_labels(folder, rows)
    return folder


@pytest.fixture
def cells(few_cells: Path, tmp_path: Path) -> Path:
    """A copy of `few_cells` that a test may damage."""
    return Path(shutil.copytree(few_cells, tmp_path / "cells"))


def write_labels(folder: Path, rows: list[list[str]]) -> None:
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label"], *rows])


def read_labels(folder: Path) -> list[list[str]]:
    with (folder / "labels.csv").open() as file:
        return list(csv.reader(file))[1:]


def small_settings(data: Path | str, store: Path | str) -> dict[str, object]:
    """Settings of a night that takes seconds."""
    return {
        "data.uri": str(data),
        "store.champion": f"{store}/champion",
        "store.runs": f"{store}/runs",
        "split.min_per_class": 3,
        "model.input_size": 48,
        "train.epochs": 1,
        "train.batch_size": 8,
        "train.learning_rate": 0.001,  # few steps must move the network
        "train.monitor_samples": 16,
        "recalibrate.samples": 64,
        "evaluate.batches": 10,
        "evaluate.resamples": 200,
    }


# The smallest night trains too little to lag; its gate must let it pass, which is what it is for.
OPEN = {"gate.max_loss_gap": 50, "gate.max_batch_norm_gap": 50}


@pytest.fixture(scope="session")
def night(few_cells: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunConfig]:
    """A finished night that no test may change: its folder, with run and champion in it, and the config it ran with.

    Whichever of the tests' processes needs it first makes it for all.
    """
    from training.steps import run_all

    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "night"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.with_suffix(".json").exists():
            config = load_config(SOLAR_CELLS, small_settings(few_cells, folder) | OPEN)
            run_all(config, str(folder / "run"))
            folder.with_suffix(".json").write_bytes(to_json(config))
    return folder, from_json(folder.with_suffix(".json").read_bytes())


@pytest.fixture
def small(few_cells: Path, tmp_path: Path) -> RunConfig:
    """A configuration over `few_cells` with its stores in the test's own folder."""
    return load_config(SOLAR_CELLS, small_settings(few_cells, tmp_path))


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket on a real HTTP server that speaks S3: ``s3://nights``."""
    import boto3
    import requests
    from moto.server import ThreadedMotoServer

    from training.store import s3_client

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3_client.client.cache_clear()
    requests.post(f"http://{host}:{port}/moto-api/reset", timeout=10)  # its state outlives a server
    boto3.client("s3").create_bucket(Bucket="nights")
    yield "s3://nights"
    server.stop()
    s3_client.client.cache_clear()
