"""What is slow to import is imported by the steps that need it, and by no other."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from training.config import to_json

HEAVY = ("tensorflow", "keras", "great_expectations", "onnxruntime", "matplotlib", "sklearn", "boto3")
CODE = f"""
import sys
from training.config import from_json
from training.steps import run_step
run_step(sys.argv[1], from_json(sys.stdin.buffer.read()), sys.argv[2])
print(*sorted(name for name in {HEAVY} if name in sys.modules))
"""


@pytest.fixture(scope="module")
def loaded(few_cells, tmp_path_factory):
    """By step, what a process has imported that did this one alone."""
    from tests.conftest import SOLAR_CELLS, small_settings
    from training.config import load_config

    folder = tmp_path_factory.mktemp("imports")
    config = to_json(load_config(SOLAR_CELLS, small_settings(few_cells, folder)))

    def of(step):
        command = [sys.executable, "-c", CODE, step, str(folder / "runs" / "one")]
        done = subprocess.run(command, cwd=ROOT, input=config, capture_output=True, check=True)
        return set(done.stdout.decode().splitlines()[-1].split())

    return {step: of(step) for step in ("ingest", "validate", "oversample")}


@pytest.mark.parametrize(
    ("step", "never"),
    [
        ("ingest", {"tensorflow", "keras", "great_expectations", "onnxruntime", "matplotlib", "sklearn", "boto3"}),
        ("validate", {"tensorflow", "keras", "onnxruntime"}),
        ("oversample", {"tensorflow", "keras", "great_expectations", "onnxruntime", "matplotlib", "sklearn", "boto3"}),
    ],
)
def test_a_step_loads_nothing_that_it_has_no_use_for(loaded, step, never):
    assert not loaded[step] & never
