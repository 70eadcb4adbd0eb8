"""A night whose BatchNorm statistics are those of natural images: the prior's correction is fitted, kept and served."""

import json

import numpy as np
import pytest

from tests.conftest import SOLAR_CELLS, small_settings
from training import champion, network
from training.comparison import served_logits
from training.config import load_config
from training.logits import probabilities
from training.metrics import best_threshold
from training.run_folder import open_run
from training.steps import run_all
from training.steps.inputs import labelled_split, raw_images
from training.store import open_store

# The smallest night trains too little to pass the gate, which is not what is tested here.
NATURAL = {"recalibrate.distribution": "natural", "gate.max_loss_gap": 50, "gate.max_batch_norm_gap": 50}


@pytest.fixture(scope="module")
def night(few_cells, tmp_path_factory):
    folder = tmp_path_factory.mktemp("natural")
    config = load_config(SOLAR_CELLS, small_settings(few_cells, folder) | NATURAL)
    run_all(config, str(folder / "run"))
    return open_run(config, str(folder / "run")), champion.current(open_store(config.store.champion))


@pytest.fixture(scope="module")
def answers(night):
    """The champion's probabilities of raw validation images, and their classes."""
    run, entry = night
    model = network.from_bytes(champion.read_model(open_store(run.config.store.champion), entry))
    return probabilities(served_logits(model, raw_images(run, "validation")))[:, 0], labelled_split(run, "validation")[
        1
    ]


def test_the_champion_answers_at_the_natural_rate(night, answers):
    run, _ = night
    assert run.read_json("evaluation.json")["prior"]["method"] == "fitted_on_validation"
    scores, labels = answers
    assert scores.mean() == pytest.approx(labels.mean(), abs=1e-4)
    after = run.read_json("evaluation.json")["calibration"]["after"]
    # New images: as close as so few of them can tell.
    error = np.sqrt(after["observed_share"] * (1 - after["observed_share"]) / after["images"])
    assert abs(after["mean_predicted"] - after["observed_share"]) < 4 * error


def test_the_threshold_is_of_the_probabilities_the_champion_gives(night, answers):
    run, entry = night
    scores, labels = answers
    assert entry.threshold == run.read_json("evaluation.json")["threshold"]
    assert entry.threshold == pytest.approx(best_threshold(scores, labels), abs=1e-5)
    confusion = run.read_json("evaluation.json")["metrics"]["validation"]["confusion"]
    # A hair below the threshold, for the image that set it.
    decided = scores >= entry.threshold - 1e-5
    assert [(decided & (labels == 1)).sum(), (decided & (labels == 0)).sum()] == [confusion["tp"], confusion["fp"]]


def test_the_model_card_says_how_the_prior_was_corrected(night):
    run, entry = night
    card = open_store(run.config.store.champion).read(entry.model.replace("model.keras", "model_card.md")).decode()
    shift = run.read_json("evaluation.json")["prior"]["shift"]
    assert "trained with 50.0% of `defective`" in card and "fitted on validation" in card
    assert f"{shift[1] - shift[0]:+.3f} is added to the log odds" in card
    assert f"at or above {entry.threshold:.3f}" in card


def test_mini_batch_statistics_are_measured_beside(night):
    run, _ = night
    found = json.loads(run.store.read("evaluation.json"))["mini_batch_statistics"]
    assert found["batch_size"] == run.config.train.batch_size
    assert found["test"]["loss"] > 0 and 0 <= found["test"]["roc_auc"] <= 1
    page = run.store.read("report.html").decode()
    assert f"Were each batch of {found['batch_size']} test images" in page
    assert "fitted on validation" in page
