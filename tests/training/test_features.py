import keras
import numpy as np
import pytest
from keras import layers

from tests.training.models import images
from training.config import ModelConfig, TrainConfig
from training.determinism import make_deterministic
from training.engine import to_onnx
from training.features import _steps_per_execution, divided, features, fit_on_features, images_at_once, kept_features
from training.fit import fit
from training.network import apply_policy, from_bytes, to_bytes
from training.sampling import make_plan
from training.store import LocalStore

SETTINGS = TrainConfig(batch_size=16, monitor_samples=32, learning_rate=0.05, epochs=4)


def classifier() -> keras.Model:
    """As `build_model` makes them, and small."""
    make_deterministic(0)
    base = keras.Sequential(
        [keras.Input((12, 12, 3)), layers.Conv2D(6, 3), layers.BatchNormalization(momentum=0.5), layers.ReLU()]
    )
    pixels = keras.Input((12, 12, 3))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D(name="pool")(base(pixels)))
    x = layers.Dense(4, activation="relu")(x)
    model = keras.Model(pixels, layers.Dense(1, activation="sigmoid", name="probability")(x))
    apply_policy(model, ModelConfig(policy="features"))
    return model


@pytest.fixture
def data():
    x, labels = images(96)
    pixels = np.clip(x * 20 + 60, 0, 255).astype(np.uint8)
    names = {f"{place:03d}": "ab"[label] for place, label in enumerate(labels)}
    plan = make_plan(names, ("a", "b"), strategy="oversample", batch_size=16, seed=0)
    return plan, pixels, (pixels[:40], labels[:40])


def features_of(base, pixels):
    return np.stack(list(features(base, lambda: to_onnx(base), pixels)))


def trained(model, plan, pixels, validation):
    base, _ = divided(model)
    held_out = features_of(base, validation[0]), validation[1]
    return fit_on_features(model, plan, features_of(base, pixels), held_out, SETTINGS)


def test_the_whole_model_is_left_as_after_the_kept_epoch(data):
    plan, pixels, validation = data
    model, before = classifier(), classifier()
    fitted = trained(model, plan, pixels, validation)
    loaded = from_bytes(to_bytes(model))
    base, head = divided(model)
    expected = head(features_of(base, pixels), training=False)
    np.testing.assert_allclose(loaded(pixels, training=False), expected, atol=1e-5)
    kept = fitted.history[fitted.kept_epoch - 1]
    loaded.compile(loss="binary_crossentropy")
    loss = loaded.evaluate(validation[0], validation[1][:, None].astype(np.float32), verbose=0)
    assert kept["val_loss"] == pytest.approx(loss, rel=1e-5)
    for old, new in zip(before.layers[1].get_weights(), loaded.layers[1].get_weights(), strict=True):
        assert old.tobytes() == new.tobytes()
    assert not np.array_equal(before.layers[-1].kernel, loaded.layers[-1].kernel)


def test_it_is_training_with_a_frozen_base_but_faster(data):
    plan, pixels, validation = data
    one = trained(classifier(), plan, pixels, validation)
    other = fit(classifier(), plan, pixels, validation, SETTINGS)
    assert [list(row) for row in one.history] == [list(row) for row in other.history]
    assert one.kept_epoch == other.kept_epoch
    np.testing.assert_allclose(one.step_losses, other.step_losses, rtol=1e-3)


@pytest.mark.parametrize(("steps", "at_once"), [(1, 1), (90, 90), (1024, 1024), (2046, 1023), (4096, 1024), (1031, 1)])
def test_an_epoch_is_made_of_whole_executions(steps, at_once):
    assert _steps_per_execution(steps) == at_once


@pytest.mark.parametrize(("side", "images"), [(12, 32), (64, 16), (112, 5), (224, 1), (600, 1)])
def test_a_thread_is_given_about_as_many_pixels_at_once(side, images):
    assert images_at_once(side) == images


def test_features_are_the_pooled_ones_in_inference_mode(data):
    model = classifier()
    base, head = divided(model)
    found = features_of(base, data[1])
    maps = model.layers[1](data[1].astype(np.float32), training=False).numpy()
    np.testing.assert_allclose(found, maps.mean(axis=(1, 2)), rtol=1e-5)
    assert found.shape == (96, 6) and found.dtype == np.float32
    assert head.layers[1:] == model.layers[3:]


def test_an_image_has_its_features_whatever_it_is_computed_with(data):
    base, _ = divided(classifier())
    together = features_of(base, data[1])
    order = np.random.default_rng(0).permutation(len(together))
    np.testing.assert_array_equal(features_of(base, data[1][order]), together[order])
    np.testing.assert_array_equal(features_of(base, data[1][50:53]), together[50:53])


def test_only_new_images_of_a_base_are_asked_for(data, tmp_path):
    pixels = {f"{place:064d}": image for place, image in enumerate(data[1])}
    asked = []

    def looked_at(missing):
        asked.extend(missing)
        return np.stack([pixels[name] for name in missing])

    def kept(base, names):
        return np.asarray(kept_features(base, names, looked_at, LocalStore(tmp_path), 2**30))

    names = list(pixels)
    first = kept(divided(classifier())[0], names[:90])
    # The same network, built anew, by a process that has built others before.
    again = kept(divided(classifier())[0], names)
    assert asked == names
    np.testing.assert_array_equal(again[:90], first)
    model = classifier()
    model.layers[1].layers[0].bias.assign_add([1e-6] * 6)
    kept(divided(model)[0], names[:5])
    assert asked[len(names) :] == names[:5]
