import keras
import numpy as np
import pytest

from tests.training.models import images, in_batches, small_network, values
from training.batchnorm import freeze_batch_norm, recalibrate
from training.config import GateConfig
from training.evaluation import BATCH_NORM, CHAIN
from training.gap import explain, statistics_of
from training.verdict import judge


@pytest.fixture(scope="module")
def trained():
    """Trained for a few steps with statistics that lag: the gap this project is about."""
    model, (x, y) = small_network(momentum=0.999, dropout=0.3), images(320)
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
    model.fit(x, y, batch_size=32, epochs=3, verbose=0)
    return model, x, y


def test_inference_loss_is_what_keras_evaluates(trained):
    model, x, y = trained
    evaluation = explain(model, x, y)
    assert evaluation.losses["inference_before"] == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-5)


def test_recalibrated_loss_is_what_keras_evaluates_after_recalibration(trained):
    model, x, y = trained
    evaluation = explain(model, x, y, batch_size=32)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.compile("sgd", "binary_crossentropy")
    recalibrate(copy, in_batches(x, 32))
    assert evaluation.losses["inference"] == pytest.approx(copy.evaluate(x, y, verbose=0), rel=1e-5)
    given = explain(model, x, y, recalibrated=statistics_of(copy) | _renamed(model, copy))
    assert given.losses["inference"] == pytest.approx(evaluation.losses["inference"], rel=1e-6)


def _renamed(model, copy):
    """A clone's variables have their own paths."""
    return dict(zip(statistics_of(model), statistics_of(copy).values(), strict=True))


def test_the_gap_is_found_and_named(trained):
    model, x, y = trained
    evaluation = explain(model, x, y)
    assert evaluation.causes["batch_norm"] > 1
    assert evaluation.intervals["batch_norm"][0] > 0.5
    assert evaluation.losses["served"] == evaluation.losses["inference_before"]
    assert evaluation.dominant == "batch_norm"
    assert explain(model, x, y, serve_recalibrated=True).dominant != "batch_norm"


def test_the_chain_sums_to_the_whole(trained):
    model, x, y = trained
    evaluation = explain(model, x, y, fit_loss=np.full(10, 0.5), natural=(x[:99], y[:99]), validation=(x[99:], y[99:]))
    whole = evaluation.losses["validation"] - evaluation.losses["fit"]
    assert sum(evaluation.causes[name] for name in CHAIN) == pytest.approx(whole, abs=1e-12)
    before, after = evaluation.losses[BATCH_NORM[1]], evaluation.losses[BATCH_NORM[0]]
    assert evaluation.causes["batch_norm"] == pytest.approx(before - after)


def test_measuring_leaves_everything_as_it_was(trained):
    model, x, y = trained
    before = values(model)
    explain(model, x, y, fit_loss=0.5)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_measuring_twice_gives_the_same(trained):
    model, x, y = trained
    assert explain(model, x, y, fit_loss=0.5) == explain(model, x, y, fit_loss=0.5)


def test_absent_inputs_give_null_terms(trained):
    model, x, y = trained
    evaluation = explain(model, x, y)
    assert evaluation["losses"]["fit"] is None and evaluation["causes"]["moving_weights"] is None
    assert evaluation["losses"]["natural"] is None and evaluation["intervals"]["generalization"] is None


def test_without_batch_norm_that_trains_three_losses_are_one():
    model, (x, y) = small_network(dropout=0.3), images()
    freeze_batch_norm(model)
    losses = explain(model, x, y).losses
    assert losses["batch_statistics"] == losses["inference_before"] == losses["inference"]
    assert losses["train_mode"] != losses["batch_statistics"]


def test_intervals_resample_images_not_rows(trained):
    """Showing every image four times is no new evidence."""
    model, x, y = trained
    once = explain(model, x[:80], y[:80], batch_size=80)
    often = explain(model, np.tile(x[:80], (4, 1, 1, 1)), np.tile(y[:80], 4), batch_size=80)
    width = [np.ptp(evaluation.intervals["inference_before"]) for evaluation in (once, often)]
    assert width[1] == pytest.approx(width[0], rel=0.05)


def test_a_loss_that_is_not_finite_is_null():
    model, (x, y) = small_network(), images(32)
    model.layers[-1].bias.assign([np.nan])
    evaluation = explain(model, x, y, fit_loss=0.5)
    assert evaluation.losses["inference_before"] is None and evaluation.intervals["served_minus_fit"] is None


def test_weights_that_are_not_finite_give_null_losses():
    model, (x, y) = small_network(), images(32)
    model.get_layer("second").kernel.assign(np.full(model.get_layer("second").kernel.shape, np.nan))
    losses = explain(model, x, y, fit_loss=0.5).losses
    assert losses["train_mode"] is None and losses["inference"] is None


@pytest.fixture(scope="module")
def three():
    """Three classes, told apart by a softmax, with statistics that lag."""
    model, (x, y) = small_network(momentum=0.999, dropout=0.3, classes=3), images(320, classes=3)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    fit = model.fit(x, y, batch_size=32, epochs=3, verbose=0).history["loss"][-1]
    return model, x, y, explain(model, x, y, fit_loss=np.full(10, fit))


def test_several_classes_have_the_losses_keras_evaluates(three):
    model, x, y, evaluation = three
    assert evaluation.losses["inference_before"] == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-5)
    one_hot = explain(model, x, np.eye(3)[y], fit_loss=np.full(10, evaluation.losses["fit"]))
    assert one_hot.losses == evaluation.losses


def test_the_gate_refuses_several_classes_that_lag_and_accepts_them_recalibrated(three):
    model, x, y, evaluation = three
    verdict = judge(evaluation, GateConfig())
    assert not verdict.accepted and verdict.reasons[0].cause == "batch_norm"
    assert evaluation.causes["batch_norm"] > 0.5
    served = explain(model, x, y, fit_loss=np.full(10, evaluation.losses["fit"]), serve_recalibrated=True)
    assert judge(served, GateConfig()).accepted
