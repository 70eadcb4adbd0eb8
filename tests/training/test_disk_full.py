"""A full disk in every step: one named error, what was there before is intact, and with space again it goes well."""

import errno
import json
import os
import subprocess
import sys

import pytest

from tests.conftest import OPEN, ROOT, SOLAR_CELLS, small_settings
from training.config import load_config
from training.disk_full import disk_full, is_disk_full
from training.step_names import STEPS
from training.steps import run_step

# What two equal runs have in common to the byte.
EQUAL = ("manifest.parquet", "validation.json", "sampling.json", "history.csv", "evaluation.json", "verdict.json")


def _tries(data, folder, limits, steps):
    settings = small_settings(data, folder) | OPEN
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "tests.limited", ",".join(map(str, limits)), str(folder / "run"), ",".join(steps)]
    # An interrupted write of compiled code would outlive the test.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [*command, "--config", str(SOLAR_CELLS), *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def _holds(tries):
    for found in tries:
        assert not found["unfinished"], found
        # Only what the step itself writes, and markers of steps that are to be done anew, may have changed.
        if found["exit_code"] == 1:
            assert found["told"].startswith("store: ") and "the disk is full" in found["told"], found
            assert found["told"].count("\n") == 2, found
            assert "run/failure.json" in found["changed"] or not found["changed"], found
            assert not [name for name in found["new"] if "history/" in name or f"done/{found['step']}" in name], found
        else:
            assert found["exit_code"] == 0, found
    for step in {found["step"] for found in tries}:
        codes = [found["exit_code"] for found in tries if found["step"] == step]
        assert codes[0] == 1 and codes[-1] == 0, (step, codes)


def test_a_full_disk_is_one_named_error_and_space_mends_it(few_cells, tmp_path):
    _holds(_tries(few_cells, tmp_path, (0, 4096), STEPS[:3]))


@pytest.mark.soak
def test_a_full_disk_in_every_step(few_cells, tmp_path):
    _holds(_tries(few_cells, tmp_path, (0, 2**15, 2**21, 2**23), STEPS))
    config = load_config(SOLAR_CELLS, small_settings(few_cells, tmp_path / "other") | OPEN)
    for step in STEPS[:-1]:
        run_step(step, config, str(tmp_path / "other" / "run"))
    for name in EQUAL:
        one, other = ((tmp_path / folder / "run" / name).read_bytes() for folder in (".", "other"))
        assert one == other, name


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_known_however_it_is_told(code):
    deep = RuntimeError("could not write")
    deep.__cause__ = OSError(code, os.strerror(code), "file")
    assert is_disk_full(deep)
    assert is_disk_full(RuntimeError(f"HDF5: error message = '{os.strerror(code)}'"))
    assert not is_disk_full(OSError(errno.EIO, os.strerror(errno.EIO)))
    told = disk_full(deep, "train")
    assert told.cause == "disk_full" and told.exit_code == 1 and os.strerror(code) in told.message
