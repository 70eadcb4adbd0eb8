"""What Keras does today that this project depends on; a failure names what changed, and where it matters."""

import inspect

import keras
import numpy as np
import pytest

from tests.training.models import images, small_network
from training.batchnorm import batch_norm_layers, freeze_batch_norm, using_batch_statistics


def test_training_false_in_a_functional_model_is_ignored_by_fit():
    """keras#20285. If this fails, `freeze_batch_norm`'s reason is gone."""
    base = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(base(inputs, training=False)))
    model.compile("sgd", "binary_crossentropy")
    x = np.full((32, 4), 9, np.float32)
    model.fit(x, np.zeros(32), verbose=0)
    assert base.layers[0].moving_mean.numpy().max() > 0
    assert using_batch_statistics(model, x) == base.layers  # and that is how we see it


def test_frozen_batch_norm_stays_in_inference_mode():
    """`freeze_batch_norm` and the policies `frozen…` rest on it."""
    model, (x, y) = small_network(), images()
    freeze_batch_norm(model)
    model.compile("sgd", "binary_crossentropy")
    before = model.get_layer("bn2").moving_mean.numpy()
    np.testing.assert_array_equal(model(x, training=True).numpy(), model(x, training=False).numpy())
    model.fit(x, y, verbose=0)
    np.testing.assert_array_equal(before, model.get_layer("bn2").moving_mean.numpy())


def test_the_moving_variance_is_the_populations():
    """No n/(n−1): `Statistics.variance` and `recalibrate` write the biased variance."""
    layer = keras.layers.BatchNormalization(momentum=0)
    x = np.random.default_rng(0).normal(0, 1, (5, 3)).astype(np.float32)
    layer(x, training=True)
    np.testing.assert_allclose(layer.moving_variance, x.var(axis=0, ddof=0), rtol=1e-5)


def test_the_moving_mean_lags_by_momentum():
    """The half-life log ½ / log momentum that the documentation quotes."""
    layer = keras.layers.BatchNormalization(momentum=0.99)
    x = np.ones((2, 1), np.float32)
    for _ in range(69):
        layer(x, training=True)
    assert layer.moving_mean.numpy()[0] == pytest.approx(0.5, abs=0.005)


def test_momentum_is_baked_into_a_traced_graph():
    """`apply_policy` sets it before `compile`; afterwards would come too late."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.BatchNormalization(momentum=0.5)])
    model.compile("sgd", "mse")
    x = np.ones((8, 1), np.float32)
    model.fit(x, x, verbose=0)
    model.layers[0].momentum = 1.0
    model.fit(x, x, verbose=0)
    assert model.layers[0].moving_mean.numpy()[0] == pytest.approx(0.75)


def test_an_instances_call_is_the_one_that_runs():
    """`batch_statistics` watches layers by shadowing it."""
    layer = keras.layers.BatchNormalization()
    layer.build((None, 2))
    layer.call = lambda inputs, training=None, mask=None: inputs + 1
    assert float(layer(np.zeros((1, 2), np.float32))[0, 0]) == 1
    assert list(inspect.signature(keras.layers.BatchNormalization.call).parameters) == [
        "self",
        "inputs",
        "training",
        "mask",
    ]


def test_an_activation_is_looked_up_when_called():
    """`raw_output` gets logits by exchanging it."""
    model, (x, _) = small_network(), images(4)
    model.layers[-1].activation = keras.activations.linear
    scores = model(x).numpy()
    model.layers[-1].activation = keras.activations.sigmoid
    np.testing.assert_allclose(model(x).numpy(), 1 / (1 + np.exp(-scores)), rtol=1e-5)


def test_renormalisation_keeps_the_names_it_is_recalibrated_by():
    layer = keras.layers.BatchNormalization(renorm=True)
    layer.build((None, 2))
    names = [variable.name for variable in layer.non_trainable_variables]
    assert names == ["moving_mean", "moving_variance", "moving_stddev", "renorm_mean", "renorm_stddev"]


def test_a_models_layers_are_found_however_deep():
    """`_flatten_layers` is Keras's own, and private; charts by depth need the order."""
    assert [layer.name for layer in batch_norm_layers(small_network())] == ["bn1", "bn2"]
    nested = keras.Sequential([keras.Input((3,)), *(keras.layers.BatchNormalization(name=name) for name in "abc")])
    assert [layer.name for layer in batch_norm_layers(keras.Sequential([keras.Input((3,)), nested]))] == ["a", "b", "c"]


def test_dropout_draws_from_a_seed_state_that_can_be_set():
    """`explain` leaves random state as it was."""
    layer = keras.layers.Dropout(0.5, seed=1)
    x = np.ones((8, 8), np.float32)
    before = layer.seed_generator.state.numpy()
    first = layer(x, training=True).numpy()
    layer.seed_generator.state.assign(before)
    np.testing.assert_array_equal(layer(x, training=True).numpy(), first)


def test_a_model_that_says_it_trains_passes_nothing_on():
    """`apply_policy` and `fold_batch_norm` therefore set every layer, not only the model."""
    model = small_network()
    assert model.trainable
    model.layers[1].trainable = False
    model.trainable = True
    assert not model.layers[1].trainable
