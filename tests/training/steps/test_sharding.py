"""A night in shards ends as the one that was not cut, whoever did them and in whatever order."""

import logging

import numpy as np
import pytest

from tests.conftest import OPEN, SOLAR_CELLS, small_settings
from tests.nights import assert_equal
from training.config import load_config
from training.run_folder import open_run
from training.shards import Part
from training.step_names import STEPS
from training.steps import run_shard, run_step, sharded
from training.steps.sharding import clear, found, found_by, together
from training.store import open_store


def in_shards(config, run, done):
    """A night of which some shards, by their numbers, are done before the step is."""
    for step in STEPS:
        for number in done if step in sharded(config) else ():
            run_shard(step, number, config, run)
        run_step(step, config, run)


def test_a_night_in_shards_equals_one_that_is_not_cut(night, few_cells, tmp_path, caplog):
    """The last shard first, and one left to the steps themselves; every array, file and figure is the same."""
    whole, _ = night
    shards = {"scale.shards": 3}
    config = load_config(SOLAR_CELLS, small_settings(few_cells, tmp_path) | OPEN | shards)
    with caplog.at_level(logging.INFO):
        in_shards(config, str(tmp_path / "run"), (2, 0))
    run = open_store(str(tmp_path / "run"))
    assert_equal(run, open_store(str(whole / "run")))
    assert not list(run.list("shards/"))
    told = [record.getMessage() for record in caplog.records if "shard" in record.getMessage()]
    for step in ("ingest", "recalibrate_batch_norm", "evaluate"):
        own = [line for line in told if line.startswith(f"{step}:")]
        assert own == [f"{step}: shard {line}" for line in ("3 of 3", "1 of 3", "1 of 3 was done before", "2 of 3")] + [
            f"{step}: shard 3 of 3 was done before"
        ]


@pytest.mark.soak
@pytest.mark.parametrize(
    "settings",
    [
        {"model.policy": "features"},
        {"recalibrate.enabled": False, "recalibrate.distribution": "natural", "recalibrate.samples": 57},
        {"recalibrate.mode": "self_consistent", "augment.flips": "both", "train.batch_size": 6},
        {"model.backbone": "efficientnet_b0", "model.weights": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [2, 13])
def test_nights_of_every_kind_in_shards_equal_those_that_are_not_cut(few_cells, tmp_path, settings, count):
    """The second of two nights, so that a champion is asked as well."""
    for folder, shards in (("whole", 1), ("cut", count)):
        place = tmp_path / folder
        config = load_config(SOLAR_CELLS, small_settings(few_cells, place) | OPEN | settings | {"scale.shards": shards})
        for run in ("first", "run"):
            in_shards(config, str(place / run), range(shards) if run == "run" else ())
    assert_equal(*(open_store(str(tmp_path / folder / "run")) for folder in ("whole", "cut")))
    evaluation = open_store(str(tmp_path / "cut" / "run")).read("verdict.json")
    assert b'"champion": {' in evaluation


@pytest.fixture
def run(small, tmp_path):
    config = small.model_copy(update={"scale": small.scale.model_copy(update={"shards": 3})})
    return open_run(config, str(tmp_path / "run"), first=True)


class Working:
    """Counts how often it is asked for each part."""

    def __init__(self):
        self.asked = []

    def __call__(self, run, part):
        self.asked.append(part.number)
        rows = np.arange(10.0)[part.rows(10, 4)]
        return {"rows": rows} if len(rows) else {}


def test_what_was_found_is_not_looked_for_again(run):
    work = Working()
    found_by(run, "evaluate", (), work, Part(1, 3))
    rows = together(found(run, "evaluate", (), work))["rows"]
    np.testing.assert_array_equal(rows, np.arange(10.0))
    assert work.asked == [1, 0, 2]
    clear(run, "evaluate")
    assert not list(run.store.list("shards/"))


def test_a_damaged_shard_is_done_again(run):
    work = Working()
    found_by(run, "evaluate", (), work, Part(1, 3))
    (entry,) = run.store.list("shards/evaluate/")
    content = bytearray(run.store.read(entry.key))
    content[len(content) // 2] ^= 1
    run.store.write(entry.key, bytes(content))
    np.testing.assert_array_equal(together(found(run, "evaluate", (), work))["rows"], np.arange(10.0))
    assert work.asked == [1, 0, 1, 2]


def test_shards_of_other_inputs_do_not_count(run):
    work = Working()
    run.store.write("model", b"one")
    found_by(run, "evaluate", ("model",), work, Part(0, 3))
    run.store.write("model", b"other")
    together(found(run, "evaluate", ("model",), work))
    assert work.asked == [0, 0, 1, 2]


def test_a_shard_that_the_settings_do_not_have_does_nothing(small, tmp_path):
    run_shard("ingest", 5, small, str(tmp_path / "run"))
    assert not list(open_store(str(tmp_path / "run")).list("shards/"))


def test_which_steps_have_shards(small):
    def settings(**sections):
        update = {name: getattr(small, name).model_copy(update=values) for name, values in sections.items()}
        return small.model_copy(update=update)

    many = {"shards": 4}
    assert sharded(small) == ()
    assert sharded(settings(scale=many)) == ("ingest", "recalibrate_batch_norm", "evaluate")
    assert sharded(settings(scale=many, recalibrate={"mode": "self_consistent"})) == ("ingest", "evaluate")
    features = settings(scale=many, model={"policy": "features"})
    assert sharded(features) == ("ingest", "train", "recalibrate_batch_norm", "evaluate")
