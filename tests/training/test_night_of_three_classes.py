"""Whole nights of three classes, on real images: intact, doubtful and defective solar cells."""

import csv
import io
import json

import keras
import numpy as np
import pytest

from tests.conftest import GRADES, OPEN, SOLAR_CELLS, small_settings
from training import champion, network
from training.comparison import served_logits
from training.config import load_config
from training.errors import Diverged
from training.logits import in_batches, inference_logits, probabilities
from training.run_folder import open_run
from training.sampling import Prior
from training.step_names import STEPS
from training.steps import run_all, run_step
from training.steps.inputs import labelled_split, raw_images
from training.store import open_store

# The smallest night trains too little to lag; its gate must let it pass, which is what it is for.


def settings(cells, folder, **changes):
    return load_config(SOLAR_CELLS, small_settings(cells, folder) | OPEN | {"data.classes": GRADES} | changes)


@pytest.fixture(scope="module")
def night(graded_cells, tmp_path_factory):
    """A night under class weights, with augmentation and a champion that came before."""
    folder = tmp_path_factory.mktemp("three")
    changes = {
        "sampling.strategy": "class_weight",
        "augment.flips": "both",
        "augment.rotation": 10,
        "augment.apply_to": "all",
        "gate.max_champion_loss_increase": 50,
        "train.epochs": 2,
    }
    config = settings(graded_cells, folder, **changes)
    run_all(config, str(folder / "first"))
    run_all(config, str(folder / "run"))
    return open_run(config, str(folder / "run")), folder


def test_the_champion_gives_the_corrected_softmax_of_what_was_evaluated(night):
    run, _ = night
    store = open_store(run.config.store.champion)
    entry = champion.current(store)
    assert entry.classes == GRADES and entry.threshold is None and entry.number == 2
    model = network.from_bytes(champion.read_model(store, entry))
    served = probabilities(served_logits(model, raw_images(run, "test")))
    np.testing.assert_allclose(
        np.concatenate([model(image[None]) for image in raw_images(run, "test")]), served, atol=1e-6
    )
    raw = network.from_bytes(run.store.read("recalibrated/model.keras"))
    logits = in_batches(inference_logits(raw), labelled_split(run, "test")[0], 32)
    corrected = Prior.model_validate(run.read_json("evaluation.json")["prior"]).corrected(logits)
    np.testing.assert_allclose(served, probabilities(corrected), atol=1e-5)
    np.testing.assert_allclose(served.sum(axis=1), 1)


def test_the_figures_are_those_of_three_classes(night):
    run, _ = night
    evaluation, plan = run.read_json("evaluation.json"), run.read_json("sampling.json")
    test = evaluation["metrics"]["test"]
    assert evaluation["threshold"] is None and set(test["per_class"]) == set(GRADES)
    assert np.sum(test["confusion"]) == test["images"] == len(labelled_split(run, "test")[1])
    assert [np.sum(row) for row in test["confusion"]] == [test["per_class"][grade]["images"] for grade in GRADES]
    shift = np.log(plan["natural_share"]) - np.log(plan["trained_share"])
    assert evaluation["prior"] == {"method": "analytic", "shift": pytest.approx(shift.tolist())}
    assert evaluation["mini_batch_statistics"]["test"]["roc_auc"] <= 1
    compared = run.read_json("verdict.json")["champion"]
    assert compared["champion_loss"] == pytest.approx(compared["candidate_loss"], abs=1e-4)  # the same night again


def test_history_shows_the_bare_loss_beside_the_weighted_one(night):
    run, _ = night
    rows = list(csv.DictReader(io.StringIO(run.store.read("history.csv").decode())))
    assert {"cross_entropy", "loss", "accuracy", "f1", "auc", "prc", "val_auc", "recalibrated_val_loss"} <= set(rows[0])
    steps, kept = (run.read_json("checkpoint/steps.json")[name] for name in ("losses", "kept_epoch"))
    assert float(rows[kept - 1]["cross_entropy"]) == pytest.approx(np.mean(steps[kept - 1]))
    assert run.read_json("evaluation.json")["losses"]["fit"] == pytest.approx(np.mean(steps[kept - 1]))
    assert any(abs(float(row["cross_entropy"]) - float(row["loss"])) > 1e-3 for row in rows)


def test_report_and_card_show_every_class(night):
    run, folder = night
    page = run.store.read("report.html").decode()
    card = next((folder / "champion").rglob("model_card.md")).read_text()
    for grade in GRADES:
        assert f"decided {grade}" in page and f"{grade} or not" in page and f"`{grade}`" in card
    assert "The largest probability decides" in page and "the class with the largest probability" in card
    assert "augment" not in json.dumps(network.from_bytes(run.store.read("checkpoint/model.keras")).get_config())


def test_the_checkpoint_is_a_softmax_of_that_many_units(night):
    layer = network.from_bytes(night[0].store.read("checkpoint/model.keras")).layers[-1]
    assert (layer.name, layer.units, layer.activation) == ("probability", 3, keras.activations.softmax)


@pytest.mark.soak
def test_three_classes_that_lag_are_refused(graded_cells, tmp_path):
    lagging = {"model.batch_norm_momentum": 0.999, "train.keep_epoch": "last", "recalibrate.enabled": False}
    shipped = {"gate.max_loss_gap": 0.25, "gate.max_batch_norm_gap": 0.15, "train.epochs": 2}
    config = settings(graded_cells, tmp_path, **lagging, **shipped)
    for step in STEPS[:5]:
        run_step(step, config, str(tmp_path / "run"))
    with pytest.raises(Diverged) as refused:
        run_step("evaluate", config, str(tmp_path / "run"))
    assert refused.value.cause == "batch_norm"
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.soak
def test_features_train_a_softmax_on_part_of_the_larger_classes(graded_cells, tmp_path):
    """On frozen BatchNorm nothing is recalibrated, so the analytic shift stays right on natural images too."""
    changes = {
        "model.policy": "features",
        "sampling.strategy": "undersample",
        "recalibrate.distribution": "natural",
    }
    config = settings(graded_cells, tmp_path, **changes)
    run_all(config, str(tmp_path / "run"))
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert evaluation["prior"]["method"] == "analytic"
    losses = evaluation["losses"]
    assert losses["batch_statistics"] == losses["inference_before"] == losses["inference"]
