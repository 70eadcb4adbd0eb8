"""Training on several devices does what one does. No GPU is needed: the processor is divided into logical devices."""

from dataclasses import dataclass

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.models import images, in_batches, small_network
from tests.training.several_devices import afresh, process_with
from training.batchnorm import batch_norm_layers, recalibrate
from training.config import TrainConfig
from training.determinism import make_deterministic
from training.devices import draw_apart, names, put_tallies, strategy, tallies, used
from training.fit import Fitted, fit
from training.gap import statistics_of
from training.network import from_bytes, to_bytes
from training.sampling import SamplingPlan, make_plan

SIZE = 16
# The last batch of validation holds one image, so that a device is left with none.
VALIDATION = 3 * SIZE + 1


@dataclass(frozen=True)
class Trained:
    """What a training leaves, as plain arrays."""

    fitted: Fitted
    variables: dict[str, np.ndarray]
    file: bytes


@pytest.fixture(scope="module")
def two_devices():
    with process_with(2) as process:
        yield process


@pytest.fixture(scope="module")
def trained(two_devices):
    """By the same process, on one of its devices and on both."""
    return [two_devices.submit(train, everywhere).result() for everywhere in (False, True)]


def some_data() -> tuple[SamplingPlan, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Classes of different sizes whose losses are weighted."""
    x, labels = images(160)
    labels = np.where(np.arange(160) < 60, 0, labels)
    pixels = np.clip(x * 20 + 60, 0, 255).astype(np.uint8)
    named = {f"{place:03d}": "ab"[label] for place, label in enumerate(labels)}
    plan = make_plan(named, "ab", strategy="class_weight", batch_size=SIZE, seed=0)
    return plan, pixels, (pixels[:VALIDATION], labels[:VALIDATION])


def train(everywhere: bool) -> Trained:
    """Without dropout, in float64, where adding up in another order changes next to nothing."""
    data = some_data()
    afresh("float64")
    make_deterministic(0)
    with (strategy(SIZE) if everywhere else tf.distribute.get_strategy()).scope():
        model = small_network(momentum=0.9)
    fitted = fit(model, *data, TrainConfig(batch_size=SIZE, monitor_samples=64, learning_rate=0.01, epochs=2))
    found = {variable.path: variable.numpy() for variable in model.variables}
    return Trained(fitted, found, to_bytes(model))


def test_two_devices_take_every_step_as_one_does(trained):
    one, two = (found.fitted for found in trained)
    np.testing.assert_allclose(two.step_losses, one.step_losses, rtol=1e-12)
    assert two.kept_epoch == one.kept_epoch
    for row, expected in zip(two.history, one.history, strict=True):
        assert row == pytest.approx(expected, rel=1e-9)


def test_weights_and_pooled_statistics_are_those_of_one_device(trained):
    one, two = (found.variables for found in trained)
    assert list(two) == list(one)
    for path, expected in one.items():
        np.testing.assert_allclose(two[path], expected, rtol=1e-9, atol=1e-9, err_msg=path)


def test_what_is_saved_knows_nothing_of_the_devices_and_is_recalibrated_as_any_other(trained):
    """In this process, which has one; the truth of the first layer by NumPy."""
    plan, pixels, _ = some_data()
    shown = pixels[plan.take(160, "recalibrate")].astype(np.float32)
    statistics = []
    for found in trained:
        model = from_bytes(found.file)
        assert not any(layer.synchronized for layer in batch_norm_layers(model))
        report = recalibrate(model, in_batches(shown, SIZE))
        assert report.applied and report.samples == 160
        statistics.append(statistics_of(model))
    for path, expected in statistics[0].items():
        np.testing.assert_allclose(statistics[1][path], expected, rtol=1e-9, atol=1e-9, err_msg=path)
    first = model.get_layer("inner").get_layer("first")
    seen = keras.ops.convert_to_numpy(first(shown)).astype(np.float64)
    layer = batch_norm_layers(model)[0]
    np.testing.assert_allclose(layer.moving_mean.numpy(), seen.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance.numpy(), seen.var(axis=(0, 1, 2)), rtol=1e-5)


def devices_by_batch_size() -> dict[int, tuple[list[str], int]]:
    return {size: (names(used(size)), strategy(size).num_replicas_in_sync) for size in (8, 9)}


def test_a_batch_is_divided_evenly_or_not_at_all(two_devices):
    found = two_devices.submit(devices_by_batch_size).result()
    assert found == {8: (["CPU:0", "CPU:1"], 2), 9: (["CPU:0"], 1)}


def test_where_there_is_one_device_nothing_is_distributed():
    assert strategy(8) is tf.distribute.get_strategy() and names(used(8)) == ["CPU:0"]


def dropped(apart: bool) -> list[np.ndarray]:
    """What each device makes of the same ones."""
    everywhere = strategy(SIZE)
    with everywhere.scope():
        model = keras.Sequential([keras.Input((50,)), keras.layers.Dropout(0.5, seed=1)])
        if apart:
            draw_apart(model)
    shown = everywhere.run(lambda: model(tf.ones((8, 50)), training=True))
    return [part.numpy() for part in everywhere.experimental_local_results(shown)]


def test_each_device_drops_units_of_its_own(two_devices):
    """Left to Keras, both drop the same."""
    alike, apart = (two_devices.submit(dropped, apart).result() for apart in (False, True))
    np.testing.assert_array_equal(*alike)
    np.testing.assert_array_equal(apart[0], alike[0])
    assert 0.4 < np.mean(apart[0] == apart[1]) < 0.6


def counted(before: list[np.ndarray] | None) -> tuple[list[np.ndarray], float]:
    """A metric that goes on from what other devices have counted, and its value."""
    with strategy(SIZE).scope():
        metric = keras.metrics.Mean()
        if before is not None:
            put_tallies(metric.variables, before)
        return tallies(metric.variables), float(metric.result())


def test_metrics_go_on_from_any_number_of_devices(two_devices):
    """Keras saves what they have in common alone, and halves of it are not what each of two had."""
    unequal = [np.float32(value) for value in (0.3, 0.6, 1, 2)]  # totals of both, counts of both
    kept, mean = two_devices.submit(counted, unequal).result()
    assert kept == unequal and mean == pytest.approx(0.3)
    here, mean = counted(unequal)
    assert here == pytest.approx([0.9, 3]) and mean == pytest.approx(0.3)
    there, mean = two_devices.submit(counted, here).result()
    assert there == pytest.approx([0.9, 0, 3, 0]) and mean == pytest.approx(0.3)
