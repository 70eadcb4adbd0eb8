import pytest

from tests.conftest import SOLAR_CELLS
from training.config import load_config
from training.errors import ConfigError, DataRejected
from training.run_folder import config_of, forget, is_done, mark_done, open_run, run_uri_for, was_done, write_failure


@pytest.fixture
def config(tmp_path):
    return load_config(SOLAR_CELLS, {"store.runs": str(tmp_path)})


@pytest.mark.parametrize("run_id", ["manual__2026-01-01T00:00:00+00:00", "../../etc", "a/b", "..", "ü", "x" * 300, ""])
def test_a_run_stays_in_its_folder(config, tmp_path, run_id):
    uri = run_uri_for(config, run_id)
    folder, name = uri.rsplit("/", 1)
    assert folder == f"{tmp_path}/solar_cells"
    assert name and not name.startswith(".") and all(letter.isalnum() or letter in "_-" for letter in name)
    assert len(name) < 128


def test_different_run_ids_get_different_folders(config):
    ids = ["a:b", "a+b", "a_b", "a/b"]
    assert len({run_uri_for(config, run_id) for run_id in ids}) == len(ids)


def test_only_the_gate_may_change_within_a_run(config, tmp_path):
    open_run(config, str(tmp_path / "r"), first=True)
    open_run(load_config(SOLAR_CELLS, {"store.runs": str(tmp_path), "gate.max_loss_gap": 9}), str(tmp_path / "r"))
    with pytest.raises(ConfigError, match=r"train\.epochs"):
        open_run(load_config(SOLAR_CELLS, {"store.runs": str(tmp_path), "train.epochs": 9}), str(tmp_path / "r"))


def test_a_later_step_needs_a_run(config, tmp_path):
    with pytest.raises(ConfigError, match="begun by `ingest`"):
        open_run(config, str(tmp_path / "nothing"))


def test_the_config_of_a_run_is_read_back_with_changes(config, s3):
    open_run(config, f"{s3}/r", first=True)
    assert config_of(f"{s3}/r") == config
    assert config_of(f"{s3}/r", {"train.epochs": 9}).train.epochs == 9
    with pytest.raises(ConfigError, match=r"train\.epochs: received 0"):
        config_of(f"{s3}/r", {"train.epochs": 0})
    with pytest.raises(ConfigError, match="--like: received 's3://nights/none'"):
        config_of(f"{s3}/none")


def test_a_step_is_done_while_inputs_and_outputs_are_what_they_were(config, tmp_path):
    run = open_run(config, str(tmp_path / "r"), first=True)
    run.store.write("in", b"1")
    run.store.write("out", b"2")
    mark_done(run, "train", ["in"], ["out"])
    assert is_done(run, "train", ["in"]) and was_done(run, "train")
    assert not is_done(run, "train", ["in"], extra="changed")
    run.store.write("out", b"damaged")
    assert not is_done(run, "train", ["in"])
    run.store.write("out", b"2")
    run.store.write("in", b"other")
    assert not is_done(run, "train", ["in"])
    forget(run, ["train"])
    assert not was_done(run, "train")


def test_the_gate_matters_to_evaluate_alone(config, tmp_path):
    run = open_run(config, str(tmp_path / "r"), first=True)
    for step in ("train", "evaluate"):
        mark_done(run, step, [], [])
    other = open_run(
        load_config(SOLAR_CELLS, {"store.runs": str(tmp_path), "gate.max_loss_gap": 9}), str(tmp_path / "r")
    )
    assert is_done(other, "train", [])
    assert not is_done(other, "evaluate", [])


def test_a_failure_is_written_down(config, tmp_path):
    run = open_run(config, str(tmp_path / "r"), first=True)
    write_failure(str(tmp_path / "r"), "validate", DataRejected("one line", remedy="mend it"))
    assert run.read_json("failure.json") == {
        "step": "validate",
        "exit_code": 3,
        "code": "data_rejected",
        "message": "one line",
        "cause": "data_rejected",
        "remedy": "mend it",
    }
