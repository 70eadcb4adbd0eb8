"""Six ways to train a small network, each of which makes one cause separate training from evaluation."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from training.gap import explain

layers = keras.layers


def batch_norm(seed: int) -> Any:
    """Statistics that move with momentum 0.999 are still those of the first steps."""
    x, y = _two_classes(seed, 640)
    model = _network(layers.Dense(16), layers.BatchNormalization(momentum=0.999), layers.ReLU())
    return _explained(model, x + 4, y, seed, epochs=6)


def stochastic_layers(seed: int) -> Any:
    """Dropout of nine in ten inputs, and nothing else of note."""
    x, y = _two_classes(seed, 640, features=24)
    return _explained(_network(layers.Dropout(0.9), layers.Dense(16), layers.ReLU()), x, y, seed, epochs=12)


def small_batches(seed: int) -> Any:
    """Each batch has a light of its own, which its own statistics take away and the population's cannot."""
    x, y = _two_classes(seed, 1280, apart=0.7)
    half = [np.flatnonzero(y == label)[:496].reshape(-1, 4) for label in (0, 1)]  # four of each class a batch
    order = np.concatenate(half, axis=1).ravel()
    light = np.random.default_rng(seed).normal(size=(len(order) // 8, 1)).astype(np.float32)
    model = _network(layers.BatchNormalization(momentum=0.99), layers.Dense(16), layers.ReLU())
    x = x[order] + np.repeat(light, 8, axis=0)
    return _explained(model, x, y[order], seed, epochs=10, batch_size=8, shuffle=False)


def sampling(seed: int) -> Any:
    """The rare class is the hard one, and oversampling shows it as often as the easy one."""
    x, y = _two_classes(seed, 16_000, apart=3)
    random = np.random.default_rng(seed)
    x = np.where((y == 1)[:, None] & (random.random(len(y)) < 0.25)[:, None], x - 3, x)  # a quarter looks common
    common, rare = np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:1000]
    natural = random.permutation(np.concatenate([common[1000:], rare[150:]]))
    held_out = np.concatenate([common[:1000], rare[:150]])
    shown = random.permutation(np.concatenate([common[1000:], np.resize(rare[150:], len(common) - 1000)]))
    data = {name: (x[rows], y[rows]) for name, rows in (("natural", natural), ("validation", held_out))}
    return _explained(_network(layers.Dense(4), layers.ReLU()), x[shown], y[shown], seed, epochs=4, **data)


def generalization(seed: int) -> Any:
    """Labels without reason, learned by heart."""
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(640, 24)).astype(np.float32), random.integers(0, 2, 640)
    return _explained(_network(layers.Dense(128), layers.ReLU()), x, y, seed, epochs=40, rate=3e-3)


def moving_weights(seed: int) -> Any:
    """One epoch of an easy task: its first steps count in the average, and its last weights are evaluated."""
    x, y = _two_classes(seed, 640, apart=3)
    model = _network(layers.Dense(16), layers.BatchNormalization(momentum=0.5), layers.ReLU())
    return _explained(model, x, y, seed, epochs=1, rate=0.02)


CAUSES: dict[str, Callable[[int], Any]] = {
    build.__name__: build
    for build in (batch_norm, stochastic_layers, small_batches, sampling, generalization, moving_weights)
}


def _network(*parts: keras.layers.Layer) -> keras.Model:
    return keras.Sequential([*parts, layers.Dense(1, activation="sigmoid")])


def _two_classes(seed: int, count: int, *, apart: float = 1.5, features: int = 8) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    y = random.integers(0, 2, count)
    x = random.normal(size=(count, features)) + apart * (y[:, None] - 0.5)
    return x.astype(np.float32), y


def _explained(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    seed: int,
    *,
    epochs: int,
    rate: float = 0.01,
    batch_size: int = 32,
    shuffle: bool = True,
    natural: tuple[np.ndarray, np.ndarray] | None = None,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
) -> Any:
    """Train, and explain the last epoch; without other images, a fifth is held out for validation."""
    keras.utils.set_random_seed(seed)
    if validation is None:
        held_out = len(x) // 5 // batch_size * batch_size
        validation, x, y = (x[:held_out], y[:held_out]), x[held_out:], y[held_out:]
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy")
    history = model.fit(x, y, batch_size=batch_size, epochs=epochs, shuffle=shuffle, verbose=0).history
    return explain(
        model,
        x,
        y,
        fit_loss=history["loss"][-1],
        batch_size=batch_size,
        natural=natural or (x, y),
        validation=validation,
        seed=seed,
    )
