"""Bad usage ends before anything starts: one line, and the last line names the exit code."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--set", "train.epochs=0"], "train.epochs: received 0"),
        (["run", "--set", "train.epoch=1"], "train.epoch: received 1, expected no such key"),
        (["run", "--set", "train.epochs"], "--set: received 'train.epochs', expected key=value"),
        (["run", "--set", "name=other"], "--set: received 'name'"),
        (["run", "--model", "no_such_model"], "--model: received 'no_such_model', expected one of roofs, solar_cells"),
        (["dance"], "invalid choice: 'dance'"),
    ],
)
def test_bad_usage(arguments, said):
    command = [sys.executable, "-m", "runner", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and not done.stderr
    assert said in done.stdout.splitlines()[0]
    assert done.stdout.splitlines()[-1] == "exit 2: bad usage or configuration"
