"""Nights whose process is killed at any moment, and called again, end as the one that was left alone."""

import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import OPEN, ROOT, SOLAR_CELLS, small_settings
from tests.nights import assert_equal, assert_same_weights, assert_whole
from training import champion
from training.config import load_config
from training.step_names import STEPS
from training.steps import run_step
from training.store import Store, open_store

SHORT = {"train.checkpoint_seconds": 0, "model.policy": "frozen"}
LONG = {"train.checkpoint_seconds": 0, "train.epochs": 3, "train.early_stopping_patience": 2}


def command(data: Path, folder: Path, length: dict[str, object]) -> list[str]:
    settings = small_settings(data, folder) | OPEN | length
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    run = [sys.executable, "-m", "training", "run", "--config", str(SOLAR_CELLS), "--run", str(folder / "run")]
    return run + words


@pytest.fixture(scope="module")
def left_alone(few_cells, tmp_path_factory):
    """A night's folder, and how long each of its steps took, in seconds."""
    folder = tmp_path_factory.mktemp("left_alone")
    done = subprocess.run(command(few_cells, folder, LONG), cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return folder, {step: float(seconds) for step, seconds in re.findall(r"(\w+): done in ([\d.]+) s", done.stdout)}


def killed(call: list[str], step: str, seconds: float) -> bool:
    """Whether the call was still at it so long after the step had begun; then it was killed without warning."""
    with subprocess.Popen(call, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            if line.startswith(f"{step}: begins"):
                break
        try:
            process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            return True
    assert process.returncode == 0
    return False


def night(data: Path, folder: Path, seconds: dict[str, float], draws: random.Random, most: int) -> int:
    """Call a night until it is done, killing it at most so often in steps drawn at random; returns how often it was."""
    kills = 0
    while kills < most:
        left = [step for step in STEPS[3:] if not (folder / "run" / "done" / f"{step}.json").exists()]
        if not left:
            break
        step = draws.choice(left)
        kills += killed(command(data, folder, LONG), step, draws.uniform(0, seconds[step]))
        assert_whole(folder)
    subprocess.run(command(data, folder, LONG), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return kills


def check(folder: Path, left_alone: Path) -> None:
    """That a night left what it would have, had nobody killed it."""
    assert_whole(folder)
    assert_equal(open_store(str(folder / "run")), open_store(str(left_alone / "run")))
    assert_same_weights(*(champions(open_store(str(place / "champion"))) for place in (folder, left_alone)))
    assert not list((folder / "run" / "checkpoint" / "state").rglob("*.npz"))


def champions(store: Store) -> bytes:
    """The model of the only entry."""
    (entry,) = champion.history(store)
    return champion.read_model(store, entry)


def test_a_training_that_is_killed_ends_as_if_left_alone(few_cells, tmp_path):
    """One kill, within an epoch; the long test below has fifty, over all steps that take long."""
    config = load_config(SOLAR_CELLS, small_settings(few_cells, tmp_path) | OPEN | SHORT)
    for step in STEPS[:4]:
        run_step(step, config, str(tmp_path / "alone"))
    shutil.copytree(tmp_path / "alone", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    (tmp_path / "run" / "done" / "train.json").unlink()
    kill_within_an_epoch(command(few_cells, tmp_path, SHORT), tmp_path)
    assert_whole(tmp_path / "run")
    run_step("train", config, str(tmp_path / "run"))
    for name in ("history.csv", "checkpoint/steps.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert_same_weights(*((tmp_path / name / "checkpoint" / "model.keras").read_bytes() for name in ("run", "alone")))


def kill_within_an_epoch(call: list[str], folder: Path) -> None:
    """As soon as the third checkpoint of a night's training is there."""
    process = subprocess.Popen(call, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list((folder / "run").glob("checkpoint/state/*/00000003-*.npz")):
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL


@pytest.mark.soak
def test_fifty_kills_leave_no_trace(left_alone, few_cells, tmp_path):
    (alone, seconds), draws, kills, begun = left_alone, random.Random(1), 0, time.monotonic()
    for number in itertools.count():
        folder = tmp_path / str(number)
        kills += night(few_cells, folder, seconds, draws, min(8, 50 - kills))
        check(folder, alone)
        print(f"{kills} kills in {number + 1} nights, {time.monotonic() - begun:.0f} s", flush=True)
        shutil.rmtree(folder)
        if kills == 50:
            break
