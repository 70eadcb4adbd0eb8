"""Measuring, recalibrating, freezing and folding on real architectures, ours and others', with random weights."""

import keras
import numpy as np
import pytest

from training.batchnorm import (
    batch_norm_layers,
    fold_batch_norm,
    freeze_batch_norm,
    recalibrate,
    using_batch_statistics,
)
from training.config import ModelConfig
from training.gap import explain
from training.network import backbone_of, build_model

SIZES = {"resnet50": 64, "vgg16": 64, "mobilenet_v2": 64, "inception_v3": 80, "efficientnet_b0": 64, "densenet121": 64}
# One in every run, all of them in `make soak`.
BACKBONES = [name if name == "mobilenet_v2" else pytest.param(name, marks=pytest.mark.soak) for name in SIZES]


def images(size, count=24):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, 1, 1, 3)) + random.integers(-60, 60, (count, size, size, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8), random.integers(0, 2, count)


@pytest.fixture(params=BACKBONES)
def network(request):
    keras.utils.set_random_seed(0)
    return build_model(
        ModelConfig(backbone=request.param, weights=None, input_size=SIZES[request.param])
    ), request.param


def test_a_networks_gap_is_measured_closed_and_frozen(network):
    model, name = network
    (x, y), layers = images(SIZES[name]), batch_norm_layers(model)
    weights = [variable.numpy().tobytes() for variable in model.trainable_variables]
    assert using_batch_statistics(model, x[:8]) == layers

    report = recalibrate(model, [x[:12], x[12:]])
    assert report.applied == bool(layers) and len(report.layers) == len(layers)
    assert [variable.numpy().tobytes() for variable in model.trainable_variables] == weights

    losses = explain(model, x, y, batch_size=12, resamples=200).losses
    assert losses["inference"] == pytest.approx(losses["inference_before"], abs=1e-4)  # the same images, twice

    freeze_batch_norm(model)
    assert using_batch_statistics(model, x[:8]) == []
    frozen = explain(model, x, y, batch_size=12, resamples=200).losses
    assert frozen["batch_statistics"] == frozen["inference_before"] == frozen["inference"]


@pytest.fixture
def in_float64():
    """With random weights some of these networks multiply float32's rounding a thousandfold."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


def test_one_batch_makes_inference_what_training_was(in_float64, network):
    """With a batch that is the whole set, recalibrated inference gives what training mode gives."""
    model, name = network
    x, _ = images(SIZES[name], count=12)
    base = backbone_of(model)
    for layer in base._flatten_layers():
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0
    recalibrate(base, [x])
    statistics = [variable.numpy() for variable in base.non_trainable_variables]
    expected = base(x, training=True).numpy()
    for variable, value in zip(base.non_trainable_variables, statistics, strict=True):
        variable.assign(value)
    np.testing.assert_allclose(base(x, training=False).numpy(), expected, atol=1e-9 * np.abs(expected).max())
    folded = fold_batch_norm(base)
    assert batch_norm_layers(folded) == []
    np.testing.assert_allclose(folded(x).numpy(), expected, atol=1e-9 * np.abs(expected).max())


def test_a_model_that_was_built_elsewhere():
    """Ten classes, softmax, its own preprocessing inside."""
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV3Small(input_shape=(64, 64, 3), weights=None, classes=10)
    x, _ = images(64, 48)
    y = np.random.default_rng(1).integers(0, 10, 48)
    before = explain(model, x, y, batch_size=16, resamples=200)
    report = recalibrate(model, [x[:16], x[16:32], x[32:]])
    after = explain(model, x, y, batch_size=16, resamples=200)
    assert report.applied and after.losses["inference_before"] == pytest.approx(before.losses["inference"], abs=1e-5)
    model.compile(loss="sparse_categorical_crossentropy")
    assert after.losses["inference_before"] == pytest.approx(model.evaluate(x, y, verbose=0), abs=1e-4)
