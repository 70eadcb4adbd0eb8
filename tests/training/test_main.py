"""The command line, as a process."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT, SOLAR_CELLS
from tests.training.test_champion import published
from training import champion
from training.store import open_store


def call(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "training", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--set", "train.epochs=0"], 2, "train.epochs: received 0"),
        (["--set", "train.epoch=1"], 2, "train.epoch: received 1, expected no such key"),
        (["--set", "nonsense"], 2, "expected key=value"),
        (["--set", "data.uri=no/such/folder"], 3, "data.uri: received 'no/such/folder'"),
        (["--set", "data.uri=gs://x"], 2, "expected a folder or an s3:// URI"),
    ],
)
def test_bad_input_is_one_clear_line_and_its_exit_code(tmp_path, arguments, code, told):
    done = call("run", "--config", str(SOLAR_CELLS), "--run", str(tmp_path / "run"), *arguments)
    assert done.returncode == code
    assert told in done.stderr.splitlines()[0] and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "expected 'config.json' of an earlier run"),
        (b"{", "expected 'config.json' of an earlier run"),
        (b'{"name": "a"}', "data: received nothing, expected a value"),
    ],
)
def test_a_run_that_cannot_be_repeated_is_bad_usage(tmp_path, content, told):
    if content:
        (tmp_path / "config.json").write_bytes(content)
    done = call("run", "--like", str(tmp_path), "--run", str(tmp_path / "run"))
    assert done.returncode == 2
    assert told in done.stderr.splitlines()[0] and "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_run_is_of_a_config_or_like_another_and_a_step_of_a_config():
    assert call("run", "--run", "a").returncode == 2
    assert call("run", "--run", "a", "--like", "b", "--config", str(SOLAR_CELLS)).returncode == 2
    assert call("ingest", "--run", "a", "--like", "b").returncode == 2


def test_an_unknown_command_is_bad_usage():
    assert call("dance").returncode == 2
    assert "exit codes: 0 accepted" in " ".join(call("--help").stdout.split())


def test_help_loads_nothing_heavy():
    code = "import sys, training.__main__ as m; m._parser(); print(sorted(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for heavy in ("tensorflow", "pandas", "great_expectations", "boto3", "numpy", "pydantic", "yaml"):
        assert f"'{heavy}'" not in shown


def test_the_history_of_no_champion_is_empty(tmp_path):
    done = call("champion", "--store", str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "")
    assert call("champion", "--store", str(tmp_path), "--rollback").returncode == 2


def test_the_history_is_listed_and_rolled_back_while_the_earlier_model_is_there(tmp_path):
    store = open_store(str(tmp_path))
    for number in (1, 2):
        published(store, number, {"model.keras": bytes([number])})
    done = call("champion", "--store", str(tmp_path), "--rollback")
    assert done.returncode == 0
    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["run", "runs/1", "runs/2", "runs/1"]
    assert "→  3 (again 1)" in done.stdout
    published(store, 4, {"model.keras": b"new"})
    model = champion.history(store)[0].model
    store.delete(model)
    done = call("champion", "--store", str(tmp_path), "--rollback")
    assert done.returncode == 1 and model in done.stderr.splitlines()[0] and "Traceback" not in done.stderr
    assert champion.current(store).number == 4
