import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from training import processors


@pytest.fixture(autouse=True)
def unset(monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(processors, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(processors, "available", lambda: 8)
    return tmp_path / "cpu.max"


def test_without_a_quota_all_there_are():
    assert processors.usable() == 8


@pytest.mark.parametrize(
    ("content", "threads"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("6400000 100000", 8),
        ("", 8),
        ("nonsense", 8),
        ("100000 0", 8),
    ],
)
def test_no_more_than_the_containers_quota(unset, content, threads):
    unset.write_text(content)
    assert processors.usable() == threads


@pytest.mark.parametrize(("chosen", "threads"), [("3", 3), ("16", 16), ("0", 8), ("", 8), ("many", 8), ("-1", 8)])
def test_what_somebody_chose_comes_first(monkeypatch, chosen, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    assert processors.usable() == threads


def test_tensorflow_starts_as_many():
    code = (
        "from training.determinism import make_deterministic; make_deterministic(0); import json, tensorflow as tf;"
        "threads = tf.config.threading; tf.zeros(1);"
        "print(json.dumps([threads.get_intra_op_parallelism_threads(), threads.get_inter_op_parallelism_threads()]))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [1, 1]
