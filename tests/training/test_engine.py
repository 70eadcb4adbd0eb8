import logging

import keras
import numpy as np
import pytest
from keras import layers

from training.engine import quickest, to_onnx
from training.errors import StoreError


def network(seed: int) -> keras.Model:
    """Convolutions and BatchNorm that has seen something."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Rescaling(1 / 127.5, -1.0),
            layers.Conv2D(8, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3),
            layers.BatchNormalization(scale=False),
            layers.GlobalAveragePooling2D(),
        ]
    )
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(np.linspace(-1, 1, 8))
            layer.moving_variance.assign(np.linspace(0.1, 2, 8))
    return model


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)


def test_the_answers_are_the_models(images, caplog):
    model = network(1)
    with caplog.at_level(logging.WARNING):
        answer = quickest(model, lambda: to_onnx(model), images)
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(answer(images), expected, atol=1e-5 * np.abs(expected).max())
    assert not caplog.records


def test_another_networks_answers_are_refused(images, caplog):
    """As those of a runtime that computes something else would be."""
    model = network(1)
    with caplog.at_level(logging.WARNING):
        answer = quickest(model, lambda: to_onnx(network(2)), images)
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(answer(images), expected, atol=1e-5 * np.abs(expected).max())
    (record,) = caplog.records
    assert "answers otherwise than Keras" in record.getMessage()


def test_what_is_not_a_number_is_left_to_keras(images, caplog):
    """Another runtime's ReLU may hide it."""
    model = network(1)
    model.layers[2].moving_mean.assign([np.nan] * 8)
    with caplog.at_level(logging.WARNING):
        answer = quickest(model, lambda: to_onnx(model), images)
    assert np.isnan(answer(images)).all()
    assert "answers otherwise" in caplog.text


@pytest.mark.parametrize("content", [b"", b"no network"])
def test_what_onnx_runtime_cannot_run_keras_does(images, caplog, content):
    model = network(1)
    with caplog.at_level(logging.WARNING):
        answer = quickest(model, lambda: content, images)
    np.testing.assert_allclose(answer(images), model.predict(images, verbose=0), atol=1e-6)
    assert "ONNX Runtime cannot run this network" in caplog.text


def test_a_store_that_fails_is_no_reason_to_go_on(images):
    def unreachable():
        raise StoreError("s3://cells: received no answer")

    with pytest.raises(StoreError):
        quickest(network(1), unreachable, images)


def test_the_statistics_are_those_of_the_moment(images):
    model = network(1)
    before = quickest(model, lambda: to_onnx(model), images)(images)
    model.layers[2].moving_mean.assign_add([1.0] * 8)
    after = quickest(model, lambda: to_onnx(model), images)(images)
    assert np.abs(after - before).max() > 0.1
