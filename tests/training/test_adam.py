"""Adam by one kernel: the same as by the paper's equations, and a plain Keras optimizer to whoever loads it."""

import keras
import numpy as np

from training.adam import adam

GRADIENTS = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(np.float32)


def by_hand(start, gradients, rate, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Algorithm 1 of arXiv:1412.6980 as its section 2 reorders it, in double precision."""
    value, m, v = start.astype(np.float64), 0.0, 0.0
    for step, gradient in enumerate(gradients.astype(np.float64), 1):
        m = beta_1 * m + (1 - beta_1) * gradient
        v = beta_2 * v + (1 - beta_2) * gradient**2
        value = value - rate * np.sqrt(1 - beta_2**step) / (1 - beta_1**step) * m / (np.sqrt(v) + epsilon)
    return value, m, v


def stepped(optimizer, start, gradients):
    variable = keras.Variable(start)
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    return [np.asarray(one) for one in (variable, optimizer._momentums[0], optimizer._velocities[0])]


def test_it_is_the_papers():
    start = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
    found, expected = stepped(adam(0.01), start, GRADIENTS), by_hand(start, GRADIENTS, 0.01)
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=3e-6, atol=1e-7)


def test_it_goes_on_from_what_keras_left_and_keras_from_it():
    start, (first, then) = np.ones((4, 3), np.float32), (GRADIENTS[:3], GRADIENTS[3:])
    whole = stepped(keras.optimizers.Adam(0.01), start, GRADIENTS)
    for one, other in ((adam(0.01), keras.optimizers.Adam(0.01)), (keras.optimizers.Adam(0.01), adam(0.01))):
        half, _, _ = stepped(one, start, first)
        other.build([keras.Variable(half)])
        for variable, value in zip(other.variables, one.variables, strict=True):
            variable.assign(value)
        np.testing.assert_allclose(gone_on(other, half, then), whole[0], rtol=3e-6)


def gone_on(optimizer, half, gradients):
    variable = optimizer._trainable_variables[0]
    variable.assign(half)
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)])
    return np.asarray(variable)


def test_a_saved_model_needs_nothing_of_ours(tmp_path):
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile(adam(0.01), "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").optimizer
    assert type(loaded) is keras.optimizers.Adam and "update_step" not in vars(loaded)
    for one, other in zip(loaded.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, other)
