"""`explain` must be right about which cause, not only about how much."""

import keras
import numpy as np
import pytest

from tests.training.causes import CAUSES
from tests.training.models import images, small_network
from training.gap import explain
from training.step_losses import StepLosses

SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 5))]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cause", CAUSES)
def test_the_cause_that_was_built_in_is_named(cause, seed):
    evaluation = CAUSES[cause](seed)
    assert evaluation.dominant == cause, evaluation.causes


def test_weights_smoothing_and_penalties_do_not_disturb_it():
    """All of them change the loss that `fit` minimises and prints; none of them what is compared."""

    def trained(**compile_options):
        model, (x, y) = small_network(), images(320)
        model.get_layer("second").kernel_regularizer = compile_options.pop("regularizer", None)
        weights = compile_options.pop("class_weight", None)
        steps = StepLosses()
        model.compile(keras.optimizers.SGD(0.0), metrics=[steps.metric], **compile_options)
        history = model.fit(
            x, y[:, None], epochs=1, shuffle=False, class_weight=weights, callbacks=[steps], verbose=0
        ).history
        return history["loss"][0], explain(model, x, y, fit_loss=np.array(steps.epochs[-1]))

    plain_loss, plain = trained(loss="binary_crossentropy")
    other_loss, other = trained(
        loss=keras.losses.BinaryCrossentropy(label_smoothing=0.3),
        class_weight={0: 1.0, 1: 7.0},
        regularizer=keras.regularizers.L2(1.0),
    )
    assert other_loss > 2 * plain_loss
    assert other.losses == plain.losses and other.causes == plain.causes
    assert plain.losses["fit"] == pytest.approx(plain.losses["train_mode"], abs=1e-5)  # the rate is 0
