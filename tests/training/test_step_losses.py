import keras
import numpy as np
import pytest

from training.determinism import make_deterministic
from training.errors import Diverged
from training.logits import cross_entropies
from training.step_losses import StepLosses

BATCH = 8


@pytest.fixture
def data():
    """Seven batches, of which the last is not full, and others to validate."""
    random = np.random.default_rng(0)
    x = random.normal(size=(80, 3)).astype(np.float32)
    y = random.integers(0, 2, (80, 1)).astype(np.float32)
    return (x[:51], y[:51]), (x[51:], y[51:])


def kept(data, steps_per_execution, epochs=2):
    """The losses of a model that does not learn: each is the cross-entropy of its batch."""
    (x, y), validation = data
    make_deterministic(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, "sigmoid")])
    steps = StepLosses(steps_per_execution=steps_per_execution)
    model.compile(keras.optimizers.SGD(0.0), "mse", metrics=[steps.metric], steps_per_execution=steps_per_execution)
    history = model.fit(
        x, y, BATCH, epochs, validation_data=validation, callbacks=[steps], shuffle=False, verbose=0
    ).history
    return model, steps.epochs, history


def losses(dense, x, y):
    return cross_entropies(x @ dense.kernel.numpy() + dense.bias.numpy(), y)


@pytest.mark.parametrize("steps_per_execution", [1, 3, 7, 10])
def test_each_step_has_its_own_however_many_keras_takes_at_once(data, steps_per_execution):
    (x, y), validation = data
    model, epochs, history = kept(data, steps_per_execution)
    dense = model.layers[-1]
    truth = [part.mean() for part in np.split(losses(dense, x, y), range(BATCH, len(x), BATCH))]
    np.testing.assert_allclose(epochs, [truth, truth], rtol=1e-5)
    np.testing.assert_allclose(history["cross_entropy"], [np.mean(truth)] * 2, rtol=1e-5)
    np.testing.assert_allclose(history["val_cross_entropy"], [losses(dense, *validation).mean()] * 2, rtol=1e-5)


@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_the_step_that_was_not_finite_is_named(data, steps_per_execution):
    data[0][0][4 * BATCH] = np.nan
    with pytest.raises(Diverged, match="training loss is nan in epoch 1, step 5"):
        kept(data, steps_per_execution)


def test_another_number_of_steps_than_the_model_was_compiled_with_is_refused(data):
    model, _, _ = kept(data, 3)
    with pytest.raises(ValueError, match="steps_per_execution: received 1, expected 3, as the model was compiled"):
        model.fit(*data[0], callbacks=[StepLosses()], verbose=0)


def test_whoever_loads_the_model_needs_nothing_of_ours(data, tmp_path):
    model, _, _ = kept(data, 3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    x, y = data[1]
    found = loaded.evaluate(x, y, verbose=0, return_dict=True)["cross_entropy"]
    assert type(loaded.metrics[1].metrics[0]) is keras.metrics.BinaryCrossentropy
    assert found == pytest.approx(losses(model.layers[-1], x, y).mean(), rel=1e-5)
