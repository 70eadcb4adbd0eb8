"""One network is put in turn into the states that a night's files hold; each answer must be the file's own."""

import shutil

import numpy as np
import pytest

from training.logits import probabilities
from training.network import from_bytes
from training.run_folder import open_run
from training.shards import WHOLE
from training.steps.answers import answers, listed, natural
from training.steps.inputs import read_plan, split_labels, split_pixels, training_pixels

BEFORE, SERVED = "checkpoint/model.keras", "recalibrated/model.keras"


@pytest.fixture(scope="module", params=[True, False], ids=["applied", "not applied"])
def asked(night, tmp_path_factory, request):
    """A night's run, the answers, the images; where recalibration is not applied, the checkpoint is served."""
    whole, config = night
    folder = tmp_path_factory.mktemp("asked") / "run"
    shutil.copytree(whole / "run", folder)
    run = open_run(config, str(folder))
    assert run.read_json("batch_norm.json")["applied"]
    if not request.param:
        run.write_json("batch_norm.json", {**run.read_json("batch_norm.json"), "applied": False})
        run.store.write(SERVED, run.store.read(BEFORE))
    return run, answers(run, WHOLE), shown(run), request.param


def shown(run):
    plan = read_plan(run)
    held_out = {
        split: np.asarray(split_pixels(run, split, np.arange(len(split_labels(run, split)))))
        for split in ("validation", "test")
    }
    drawn = {"list": listed(run, plan), "natural": natural(run, plan)}
    return held_out | {name: np.asarray(training_pixels(run, plan, rows)) for name, rows in drawn.items()}


def by_keras(run, file, images):
    """The probabilities that the file's model gives by Keras's own `predict`."""
    model = from_bytes(run.store.read(file))
    return {name: model.predict(rows, verbose=0) for name, rows in images.items()}


def test_each_way_answers_as_its_file_does(asked):
    run, found, images, _ = asked
    own = by_keras(run, BEFORE, {"list": images["list"]})
    np.testing.assert_allclose(probabilities(found["inference_before/list"]), own["list"], atol=1e-5)
    held_out = {name: images[name] for name in ("natural", "validation", "test")}
    for name, own in by_keras(run, SERVED, held_out).items():
        np.testing.assert_allclose(probabilities(found[f"served/{name}"]), own, atol=1e-5, err_msg=name)


def test_after_recalibration_the_answers_are_those_of_the_pooled_statistics(asked, night):
    """Whether or not they are served."""
    _, found, images, applied = asked
    pooled = open_run(night[1], str(night[0] / "run"))
    for name, own in by_keras(
        pooled, SERVED, {name: images[name] for name in ("list", "natural", "validation")}
    ).items():
        np.testing.assert_allclose(probabilities(found[f"inference/{name}"]), own, atol=1e-5, err_msg=name)
    for name in ("natural", "validation"):
        assert np.array_equal(found[f"inference/{name}"], found[f"served/{name}"]) == applied
