"""What is slow to import is imported by the steps that need it, and by no other."""

import json
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


def test_what_is_loaded_is_not_looked_through_for_garbage_but_garbage_is_not_kept():
    code = """
import gc, json, weakref
from training.steps import _loaded
class Thing: pass
def ring():
    thing = Thing()
    thing.itself = thing
    return weakref.ref(thing)
before = ring()
_loaded("train")
frozen, looked_through = gc.get_freeze_count(), len(gc.get_objects())
after = ring()
_loaded("train")
gc.collect()
print(json.dumps([gc.isenabled(), looked_through / frozen, gc.get_freeze_count() - frozen, before(), after()]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    collecting, share, added, *alive = json.loads(done.stdout.splitlines()[-1])
    assert collecting
    assert share < 0.01
    assert added <= 0
    assert alive == [None, None]
