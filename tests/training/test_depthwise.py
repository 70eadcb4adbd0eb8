import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.models import values
from training.depthwise import margin, roomy_depthwise


def network(side, kernel, stride, **settings):
    keras.utils.set_random_seed(0)
    layer = keras.layers.DepthwiseConv2D(kernel, stride, padding="same", name="depthwise", **settings)
    return keras.Sequential([keras.Input((side, side, 3)), layer, keras.layers.Flatten(), keras.layers.Dense(1)])


def gradients(model, x):
    """What the model makes of `x` in training, and the gradients of its squares, as `fit` traces them."""

    @tf.function
    def traced(rows):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            y = model(rows, training=True)
            loss = tf.reduce_sum(y**2)
        return [y, *tape.gradient(loss, [rows, *[variable.value for variable in model.trainable_variables]])]

    return [found.numpy() for found in traced(tf.constant(x))]


def padded(model, x):
    """Whether the layer's step, as traced inside, has a margin put around the images."""
    with roomy_depthwise(model):
        traced = tf.function(lambda rows: model(rows, training=True)).get_concrete_function(x)
    return "Pad" in {operation.type for operation in traced.graph.get_operations()}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("side", "kernel"), [(4, 5), (3, 5), (2, 5), (1, 5), (2, 3), (1, 3), (3, 4), (4, 7)])
@pytest.mark.parametrize("settings", [{}, {"use_bias": False}, {"activation": "relu6"}])
def test_answers_and_gradients_are_those_of_keras_own_step(side, kernel, stride, settings):
    model = network(side, kernel, stride, **settings)
    x = np.random.default_rng(0).normal(size=(8, side, side, 3)).astype(np.float32)
    own = gradients(model, x)
    with roomy_depthwise(model):
        roomy = gradients(model, x)
    for one, other in zip(own, roomy, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("side", "kernel"), [(4, 5), (1, 3)])
def test_images_smaller_than_the_kernel_get_room(side, kernel):
    assert padded(network(side, kernel, 1), tf.zeros((2, side, side, 3)))


@pytest.mark.parametrize(("side", "settings"), [(5, {}), (7, {}), (4, {"dilation_rate": 2}), (4, {"padding": "valid"})])
def test_other_layers_stay_keras_own(side, settings):
    layer = keras.layers.DepthwiseConv2D(3 if settings else 5, **{"padding": "same"} | settings)
    assert not padded(keras.Sequential([keras.Input((side, side, 3)), layer]), tf.zeros((2, side, side, 3)))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 6, 9])
def test_the_margins_are_those_of_same_padding(side, kernel, stride):
    """Each number is the sum of what the kernel meets: of ones, how many of them."""
    row, ones = tf.ones((1, side, side, 1)), tf.ones((kernel, kernel, 1, 1))
    expected = tf.nn.depthwise_conv2d(row, ones, [1, stride, stride, 1], "SAME")
    around = [(0, 0), margin(side, kernel, stride), margin(side, kernel, stride), (0, 0)]
    found = tf.nn.depthwise_conv2d(tf.pad(row, around), ones, [1, stride, stride, 1], "VALID")
    np.testing.assert_array_equal(found, expected)


def test_nothing_is_left_in_the_model():
    model = network(4, 5, 1)
    before = values(model)
    with roomy_depthwise(model):
        model.compile("sgd", "mse")
        x, y = np.ones((32, 4, 4, 3)), np.ones(32)
        model.fit(x, y, verbose=0)
    assert all("call" not in vars(layer) for layer in model.layers)
    assert model.get_layer("depthwise").padding == "same"
    assert any(not np.array_equal(one, other) for one, other in zip(before, values(model), strict=True))
