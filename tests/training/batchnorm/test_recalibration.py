import keras
import numpy as np
import pytest

from tests.training.models import images, in_batches, small_network, values
from training.batchnorm import (
    Recalibrator,
    batch_norm_layers,
    batch_statistics,
    freeze_batch_norm,
    learning_layers,
    recalibrate,
)
from training.batchnorm.recalibration import Statistics


def layer(model, name):
    return next(found for found in batch_norm_layers(model) if found.name == name)


def first_convolution(model, x):
    """In float64, by NumPy alone."""
    kernel, bias = (weight.numpy().astype(np.float64) for weight in model.get_layer("inner").get_layer("first").weights)
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (3, 3), axis=(1, 2))
    return np.einsum("nijchw,hwco->nijo", windows, kernel) + bias


def test_statistics_pool_like_numpy_over_uneven_batches():
    random = np.random.default_rng(0)
    x = random.normal(5, 3, (100, 4))
    pooled = Statistics(4)
    for batch in in_batches(x, 1, 7, 30, 33):
        pooled.add(len(batch), batch.mean(axis=0), batch.var(axis=0))
    np.testing.assert_allclose(pooled.mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(pooled.variance, x.var(axis=0), rtol=1e-12)


@pytest.mark.parametrize("sizes", [(32,), (7, 50, 13)])
def test_first_layer_gets_the_population_statistics(sizes):
    model, (x, _) = small_network(), images()
    report = recalibrate(model, in_batches(x, *sizes))
    truth = first_convolution(model, x)
    mean, variance = truth.mean(axis=(0, 1, 2)), truth.var(axis=(0, 1, 2))
    found = layer(model, "bn1")
    np.testing.assert_allclose(found.moving_mean.numpy(), mean, atol=1e-5 * np.sqrt(variance.min()))
    np.testing.assert_allclose(found.moving_variance.numpy(), variance, rtol=1e-5)
    assert report.applied and report.samples == len(x)
    assert {drift.name for drift in report.layers if drift.written} == {"bn1", "bn2"}


def test_deeper_layers_see_what_training_saw():
    """With one batch that is the whole set, recalibrated inference equals training mode."""
    model, (x, _) = small_network(), images(64)
    recalibrate(model, [x])
    before = values(model)
    in_training = model(x, training=True).numpy()
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    np.testing.assert_allclose(model(x, training=False).numpy(), in_training, atol=2e-6)


def test_weights_are_untouched_to_the_byte():
    model, (x, _) = small_network(dropout=0.5), images()
    before = [variable.numpy().tobytes() for variable in model.trainable_variables]
    recalibrate(model, in_batches(x, 32))
    assert [variable.numpy().tobytes() for variable in model.trainable_variables] == before


def test_dropout_is_off_while_measuring():
    (x, _) = images()
    with_dropout, without = small_network(dropout=0.5), small_network()
    for one, other in zip(with_dropout.trainable_variables, without.trainable_variables, strict=True):
        other.assign(one)
    for model in (with_dropout, without):
        recalibrate(model, in_batches(x, 32))
    np.testing.assert_array_equal(layer(with_dropout, "bn2").moving_mean, layer(without, "bn2").moving_mean)


def test_frozen_layers_are_measured_and_never_written():
    model, (x, _) = small_network(), images()
    layer(model, "bn1").trainable = False
    before = values(layer(model, "bn1"))
    report = recalibrate(model, in_batches(x, 32))
    np.testing.assert_array_equal(np.concatenate(values(layer(model, "bn1"))), np.concatenate(before))
    drifts = {drift.name: drift for drift in report.layers}
    assert not drifts["bn1"].written and drifts["bn1"].mean_drift > 0.1
    assert drifts["bn2"].written


def test_nothing_to_write_says_so():
    model, (x, _) = small_network(), images()
    freeze_batch_norm(model)
    before = values(model)
    report = recalibrate(model, in_batches(x, 32))
    assert report["applied"] is False and "no BatchNormalization layer trains" in report["reason"]
    assert learning_layers(model) == [] and len(report["layers"]) == 2
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("fault", [Interrupted, ValueError, "nan", "none"])
def test_any_fault_leaves_the_model_as_it_was(fault):
    model, (x, _) = small_network(), images()

    def batches():
        if fault == "none":
            return
        yield x[:32]
        if fault == "nan":
            yield np.full_like(x[:32], np.nan)
        else:
            raise fault

    before = values(model)
    with pytest.raises(fault if isinstance(fault, type) else ValueError):
        recalibrate(model, batches())
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert all("call" not in vars(found) for found in batch_norm_layers(model))


def test_a_shared_layer_pools_all_its_calls():
    shared = keras.layers.BatchNormalization()
    one, two = keras.Input((5,)), keras.Input((5,))
    model = keras.Model([one, two], keras.layers.Dense(1)(shared(one) + shared(two)))
    random = np.random.default_rng(0)
    a, b = (random.normal(place, 1, (64, 5)).astype(np.float32) for place in (0, 4))
    recalibrate(model, [[a, b]])
    both = np.concatenate([a, b]).astype(np.float64)
    np.testing.assert_allclose(shared.moving_mean.numpy(), both.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(shared.moving_variance.numpy(), both.var(axis=0), rtol=1e-5)


def test_recalibrator_can_be_used_again_and_again():
    model, (x, _) = small_network(), images()
    recalibrator = Recalibrator(model)
    recalibrator.recalibrate(in_batches(x, 32))
    first = values(model)
    recalibrator.recalibrate(in_batches(x, 32))
    np.testing.assert_array_equal(
        np.concatenate([v.ravel() for v in values(model)][-4:]), np.concatenate([v.ravel() for v in first][-4:])
    )


def test_inspecting_changes_nothing():
    model, (x, _) = small_network(), images()
    before = values(model)
    report = Recalibrator(model).inspect(in_batches(x, 32), "off")
    assert (report.applied, report.reason) == (False, "off") and not any(drift.written for drift in report.layers)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_batch_renormalization_is_refused():
    model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(renorm=True, name="re")])
    with pytest.raises(ValueError, match="layer re: received renorm=True"):
        recalibrate(model, [np.ones((4, 4), np.float32)])


def test_fit_after_recalibration_moves_statistics_again():
    """What watches a layer while tracing must not stay on it."""
    model, (x, y) = small_network(), images()
    recalibrate(model, in_batches(x, 32))
    before = layer(model, "bn1").moving_mean.numpy()
    model.compile("sgd", "binary_crossentropy")
    model.fit(x + 1, y, verbose=0)
    assert not np.array_equal(before, layer(model, "bn1").moving_mean.numpy())


def test_batch_statistics_update_nothing():
    model, (x, _) = small_network(), images(32)
    before = values(model)
    with batch_statistics(learning_layers(model)):
        inside = model(x, training=False).numpy()
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    np.testing.assert_allclose(inside, model(x, training=True).numpy(), atol=2e-6)


def test_canary_training_false_in_a_functional_model_is_ignored_by_fit():
    """Keras 3.15 (keras#20285). If this fails, Keras has changed and `freeze_batch_norm`'s reason is gone."""
    base = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(base(inputs, training=False)))
    model.compile("sgd", "binary_crossentropy")
    model.fit(np.full((32, 4), 9, np.float32), np.zeros(32), verbose=0)
    assert base.layers[0].moving_mean.numpy().max() > 0


def test_canary_frozen_batch_norm_stays_in_inference_mode():
    model, (x, y) = small_network(), images()
    freeze_batch_norm(model)
    model.compile("sgd", "binary_crossentropy")
    before = layer(model, "bn1").moving_mean.numpy()
    np.testing.assert_array_equal(model(x, training=True).numpy(), model(x, training=False).numpy())
    model.fit(x, y, verbose=0)
    np.testing.assert_array_equal(before, layer(model, "bn1").moving_mean.numpy())
