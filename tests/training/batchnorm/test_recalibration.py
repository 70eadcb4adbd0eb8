import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.models import images, in_batches, small_network, values
from training.batchnorm import (
    Recalibrator,
    batch_norm_layers,
    batch_statistics,
    freeze_batch_norm,
    learning_layers,
    recalibrate,
)


def layer(model, name):
    return next(found for found in batch_norm_layers(model) if found.name == name)


def first_convolution(model, x):
    """In float64, by NumPy alone."""
    kernel, bias = (weight.numpy().astype(np.float64) for weight in model.get_layer("inner").get_layer("first").weights)
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (3, 3), axis=(1, 2))
    return np.einsum("nijchw,hwco->nijo", windows, kernel) + bias


@pytest.mark.parametrize("mode", ["one_pass", "self_consistent"])
@pytest.mark.parametrize("sizes", [(32,), (7, 50, 13)])
def test_first_layer_gets_the_population_statistics(sizes, mode):
    model, (x, _) = small_network(), images()
    report = recalibrate(model, list(in_batches(x, *sizes)), mode=mode)
    truth = first_convolution(model, x)
    mean, variance = truth.mean(axis=(0, 1, 2)), truth.var(axis=(0, 1, 2))
    found = layer(model, "bn1")
    np.testing.assert_allclose((found.moving_mean.numpy() - mean) / np.sqrt(variance), 0, atol=5e-7)
    np.testing.assert_allclose(found.moving_variance.numpy(), variance, rtol=5e-7)
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


def self_consistent(x, *sizes, dropout=0.0):
    model = small_network(dropout=dropout)
    report = recalibrate(model, list(in_batches(x, *sizes)), mode="self_consistent")
    return model, report


@pytest.mark.parametrize("sizes", [(7,), (50, 3, 41), (160,)])
def test_self_consistent_statistics_do_not_depend_on_batches_or_order(sizes):
    x, _ = images()
    one, report = self_consistent(x, 32)
    other, _ = self_consistent(x[::-1], *sizes)
    assert report.mode == "self_consistent" and report.passes > 1 and report.residual < 1e-6
    for name in ("bn1", "bn2"):
        a, b = layer(one, name), layer(other, name)
        sigma = np.sqrt(a.moving_variance.numpy())
        np.testing.assert_allclose((a.moving_mean.numpy() - b.moving_mean.numpy()) / sigma, 0, atol=1e-6)
        np.testing.assert_allclose(a.moving_variance.numpy(), b.moving_variance.numpy(), rtol=1e-6)


def test_self_consistent_statistics_are_those_the_served_model_sees():
    x, _ = images()
    model, _ = self_consistent(x, 32, dropout=0.5)
    inner = model.get_layer("inner")(x, training=False)
    deeper = model.get_layer("second")(inner).numpy().astype(np.float64)
    np.testing.assert_allclose(layer(model, "bn2").moving_mean.numpy(), deeper.mean(axis=(0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(layer(model, "bn2").moving_variance.numpy(), deeper.var(axis=(0, 1, 2)), rtol=2e-6)


def test_a_deep_network_converges_in_fewer_passes_than_it_has_layers():
    keras.utils.set_random_seed(0)
    blocks = [
        part
        for _ in range(24)
        for part in (keras.layers.Dense(16), keras.layers.BatchNormalization(), keras.layers.ReLU())
    ]
    model = keras.Sequential([keras.Input((16,)), *blocks, keras.layers.Dense(1)])
    x = np.random.default_rng(0).gamma(1, 1, (600, 16)).astype(np.float32)
    report = recalibrate(model, list(in_batches(x, 20)), mode="self_consistent")
    assert report.passes < len(report.layers) and report.residual < 5e-6
    remaining = Recalibrator(model).with_remaining(report, in_batches(x, 7))
    assert max(drift.remaining_worst_mean_drift for drift in remaining.layers) < 5e-6


def test_an_iterator_cannot_be_read_twice():
    model, (x, _) = small_network(), images()
    with pytest.raises(ValueError, match="batches: received an iterator"):
        recalibrate(model, in_batches(x, 32), mode="self_consistent")


def test_what_remains_after_one_pass_is_measured_as_served():
    model, (x, _) = small_network(), images()
    recalibrator = Recalibrator(model)
    report = recalibrator.recalibrate(in_batches(x, 8))
    report = recalibrator.with_remaining(report, in_batches(x, 32))
    first, second = report.layers
    assert first.mean_drift > 0.1 and first.remaining_worst_mean_drift < 1e-6
    assert 1e-6 < second.remaining_worst_mean_drift < second.worst_mean_drift


def test_layers_that_the_model_itself_keeps_in_inference_mode_are_not_written():
    @keras.saving.register_keras_serializable("tests")
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.kept, self.learning = keras.layers.BatchNormalization(), keras.layers.BatchNormalization()
            self.out = keras.layers.Dense(1)

        def call(self, x, training=None):
            return self.out(self.learning(self.kept(x, training=False), training=training))

    model, x = Own(), np.random.default_rng(0).normal(4, 2, (64, 3)).astype(np.float32)
    model(x)
    report = recalibrate(model, [x])
    assert [drift.written for drift in report.layers] == [False, True]
    assert np.all(model.kept.moving_mean.numpy() == 0)
    expected = x.astype(np.float64) / np.sqrt(1 + model.kept.epsilon)  # as normalised by the kept layer's own
    np.testing.assert_allclose(model.learning.moving_mean.numpy(), expected.mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}, {"scale": False, "center": False}])
def test_layers_without_scale_or_centre(options):
    x = np.random.default_rng(0).normal(4, 2, (64, 3)).astype(np.float32)
    model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(**options)])
    recalibrate(model, [x])
    np.testing.assert_allclose(model.layers[0].moving_variance.numpy(), x.var(axis=0, dtype=np.float64), rtol=1e-6)


def test_channels_first():
    x = np.random.default_rng(0).normal(4, 2, (64, 3, 5, 6)).astype(np.float32)
    model = keras.Sequential([keras.Input((3, 5, 6)), keras.layers.BatchNormalization(axis=1)])
    recalibrate(model, [x[:50], x[50:]])
    np.testing.assert_allclose(model.layers[0].moving_mean, x.mean(axis=(0, 2, 3), dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(model.layers[0].moving_variance, x.var(axis=(0, 2, 3), dtype=np.float64), rtol=1e-6)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", [(40, 40), (31, 37), (1, 257)])
def test_images_of_any_size(size, known):
    """Few sizes can be divided evenly, and some are known by the batch alone."""
    x = np.random.default_rng(0).normal(100, 2, (6, *size, 3)).astype(np.float32)
    model = keras.Sequential([keras.Input((*(size if known else (None, None)), 3)), keras.layers.BatchNormalization()])
    recalibrate(model, [x[:4], x[4:]])
    np.testing.assert_allclose(model.layers[0].moving_mean, x.mean(axis=(0, 1, 2), dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(model.layers[0].moving_variance, x.var(axis=(0, 1, 2), dtype=np.float64), rtol=1e-6)


def test_masked_steps_do_not_count():
    random = np.random.default_rng(0)
    x = random.normal(4, 2, (40, 7, 3)).astype(np.float32)
    lengths = random.integers(1, 8, 40)
    keep = np.arange(7) < lengths[:, None]
    x[~keep] = -1
    inputs = keras.Input((7, 3))
    normalised = keras.layers.BatchNormalization()(keras.layers.Masking(-1)(inputs))
    model = keras.Model(inputs, normalised)
    recalibrate(model, in_batches(x, 9))
    np.testing.assert_allclose(model.layers[-1].moving_mean, x[keep].mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(model.layers[-1].moving_variance, x[keep].var(axis=0, dtype=np.float64), rtol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_inputs_pool_in_full(policy):
    x = np.random.default_rng(0).normal(300, 2, (640, 3)).astype(np.float32)
    inputs = keras.Input((3,))
    layer = keras.layers.BatchNormalization(dtype=policy)
    model = keras.Model(inputs, layer(inputs))
    recalibrate(model, in_batches(x, 100))
    rounded = tf.cast(tf.cast(x, policy.removeprefix("mixed_")), "float64").numpy()
    np.testing.assert_allclose(layer.moving_mean, rounded.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, rounded.var(axis=0), rtol=1e-6)


@pytest.mark.parametrize("clipping", [None, {"rmin": 0.5, "rmax": 2, "dmax": 0.5}])
def test_batch_renormalization(clipping):
    """Deeper layers see what renormalisation made of earlier ones in training; its own averages go on from there."""
    keras.utils.set_random_seed(0)
    first = keras.layers.BatchNormalization(renorm=True, renorm_clipping=clipping)
    second = keras.layers.BatchNormalization(momentum=0)
    model = keras.Sequential([keras.Input((4,)), first, keras.layers.Dense(4), second])
    first.renorm_mean.assign(np.full(4, 2.0))
    x = np.random.default_rng(0).normal(3, 2, (256, 4)).astype(np.float32)
    before = values(model)
    model(x, training=True)  # with momentum 0 the second layer keeps exactly what it saw
    seen = second.moving_mean.numpy(), second.moving_variance.numpy()
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    recalibrate(model, [x])
    np.testing.assert_allclose(first.moving_mean, x.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(np.square(first.moving_stddev), first.moving_variance + first.epsilon, rtol=1e-6)
    np.testing.assert_allclose(second.moving_mean, seen[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(second.moving_variance, seen[1], rtol=1e-4)


def test_statistics_that_validation_speaks_against_are_not_kept():
    """Recalibrated on images of another kind, the network is worse on its own."""
    model, (x, y) = small_network(momentum=0.5), images(320)
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
    model.fit(x, y, epochs=8, verbose=0)
    before = values(model)
    report = recalibrate(model, in_batches(x * 9 - 20, 32), validation=(x, y))
    assert report.kept_original and not report.applied and "nats worse" in report.reason
    assert report.validation.after - report.validation.before >= report.validation.interval[0] > 0
    assert not any(drift.written for drift in report.layers)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_statistics_no_worse_than_noise_are_kept():
    model, (x, y) = small_network(momentum=0.9), images(320)
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
    model.fit(x, y, epochs=8, verbose=0)
    report = recalibrate(model, in_batches(x, 32), validation=(x, y))
    assert report.applied and not report.kept_original
    assert report.validation.after == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-4)


def test_a_call_inside_a_loop_is_refused():
    class Looping(keras.Model):
        def __init__(self):
            super().__init__()
            self.normalise = keras.layers.BatchNormalization()

        def call(self, x, training=None):
            return tf.map_fn(lambda row: self.normalise(row, training=training), x)

    model = Looping()
    x = np.ones((3, 5, 2), np.float32)
    model.normalise.build((None, 2))
    model.built = True
    with pytest.raises(ValueError, match="received a call inside a loop"):
        recalibrate(model, [x])
    assert "call" not in vars(model.normalise)


def test_a_model_that_was_never_called_is_refused():
    model = keras.Sequential([keras.layers.BatchNormalization()])
    with pytest.raises(ValueError, match="model: received one that has never been called"):
        recalibrate(model, [np.ones((4, 4), np.float32)])


def test_layers_of_one_name_are_told_apart():
    def branch(name):
        return keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization(name="bn")], name=name)

    inputs = keras.Input((2,))
    one, two = branch("one"), branch("two")
    model = keras.Model(inputs, one(inputs) + two(inputs * 3))
    x = np.random.default_rng(0).normal(4, 2, (64, 2)).astype(np.float32)
    report = recalibrate(model, [x])
    assert report.layers[0].mean_drift != report.layers[1].mean_drift
    np.testing.assert_allclose(two.layers[0].moving_mean, 3 * x.mean(axis=0, dtype=np.float64), rtol=1e-6)
