import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.models import images, small_network, values
from training.batchnorm import batch_norm_layers, batch_statistics, fused_training, recalibrate


def trained(model, *, fused, steps=1):
    x, y = images(steps * 32)
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    if fused:
        with fused_training(model):
            model.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    else:
        model.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    return values(model)


def one_layer(**settings):
    keras.utils.set_random_seed(0)
    layer = keras.layers.BatchNormalization(name="bn", **settings)
    return keras.Sequential([keras.Input((5, 7, 3)), layer])


def kernels(model, x):
    """Operations of the layer's training step, as traced inside `fused_training`."""
    with fused_training(model):
        traced = tf.function(lambda rows: model(rows, training=True)).get_concrete_function(x)
    return {operation.type for operation in traced.graph.get_operations()}


@pytest.mark.parametrize("steps", [1, 5])
def test_weights_and_statistics_are_those_of_keras_own_step(steps):
    own, fused = (trained(small_network(), fused=fused, steps=steps) for fused in (False, True))
    for one, other in zip(own, fused, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("settings", [{}, {"scale": False}, {"center": False}, {"epsilon": 0.5, "momentum": 0.3}])
def test_a_step_is_what_numpy_says(settings):
    model = one_layer(**settings)
    x = np.random.default_rng(0).normal(3, 2, (4, 5, 7, 3)).astype(np.float32)
    with fused_training(model):
        shown = model(x, training=True).numpy()
    layer, truth = model.layers[0], x.astype(np.float64)
    mean, variance = truth.mean(axis=(0, 1, 2)), truth.var(axis=(0, 1, 2))
    np.testing.assert_allclose(shown, (truth - mean) / np.sqrt(variance + layer.epsilon), atol=3e-6)
    kept = layer.momentum
    np.testing.assert_allclose(layer.moving_mean.numpy(), (1 - kept) * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance.numpy(), kept + (1 - kept) * variance, rtol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"axis": 1}, {"scale": False, "epsilon": 0.5}])
def test_batch_statistics_are_what_numpy_says_and_move_nothing(settings):
    model = one_layer(**settings)
    x = np.random.default_rng(0).normal(3, 2, (4, 5, 7, 3)).astype(np.float32)
    with batch_statistics(model.layers):
        shown = model(x, training=False).numpy()
    layer, truth = model.layers[0], x.astype(np.float64)
    others = tuple(axis for axis in range(4) if axis != layer.axis % 4)
    mean, variance = truth.mean(axis=others, keepdims=True), truth.var(axis=others, keepdims=True)
    np.testing.assert_allclose(shown, (truth - mean) / np.sqrt(variance + layer.epsilon), atol=3e-6)
    assert not layer.moving_mean.numpy().any() and (layer.moving_variance.numpy() == 1).all()


def test_the_kernel_is_used_where_it_can_be():
    assert "FusedBatchNormV3" in kernels(one_layer(), tf.zeros((4, 5, 7, 3)))


@pytest.mark.parametrize(
    "settings", [{"axis": 1}, {"renorm": True}, {"synchronized": True}, {"dtype": "float64"}, {"trainable": False}]
)
def test_what_the_kernel_cannot_do_stays_keras_own(settings):
    assert "FusedBatchNormV3" not in kernels(one_layer(**settings), tf.zeros((4, 5, 7, 3)))


def test_inference_and_what_comes_afterwards_are_keras_own():
    model = one_layer()
    x = tf.random.normal((4, 5, 7, 3))
    expected = model(x, training=False).numpy()
    with fused_training(model):
        np.testing.assert_array_equal(model(x, training=False).numpy(), expected)
    assert all("call" not in vars(layer) for layer in batch_norm_layers(model))


def test_what_traces_inside_leaves_it_in_place():
    """As a callback that recalibrates does between epochs, before `fit` traces its next stage."""
    model, (x, _) = small_network(), images(64)
    with fused_training(model):
        recalibrate(model, [x])
        assert all("call" in vars(layer) for layer in batch_norm_layers(model))
