"""A small BatchNorm network and images for it, for tests of the library."""

import keras
import numpy as np


def small_network(*, momentum: float = 0.99, dropout: float = 0.0, classes: int = 2) -> keras.Model:
    """Two convolutions with BatchNorm, the first inside a nested model; takes (n, 12, 12, 3)."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inner = keras.Sequential(
        [layers.Conv2D(6, 3, name="first"), layers.BatchNormalization(momentum=momentum, name="bn1"), layers.ReLU()],
        name="inner",
    )
    return keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            inner,
            layers.Dropout(dropout),
            layers.Conv2D(6, 3, name="second"),
            layers.BatchNormalization(momentum=momentum, name="bn2"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1, activation="sigmoid") if classes == 2 else layers.Dense(classes, activation="softmax"),
        ]
    )


def images(count: int = 160, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Noise around 3 ± 2, brighter for each further class."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, count)
    pixels = random.normal(3, 2, (count, 12, 12, 3)) + labels[:, None, None, None] * 0.5
    return pixels.astype(np.float32), labels


def in_batches(x: np.ndarray, *sizes: int):
    """`x` cut into batches of the given sizes, the last repeated."""
    start, remaining = 0, list(sizes)
    while start < len(x):
        size = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        yield x[start : start + size]
        start += size


def values(model: keras.Model) -> list[np.ndarray]:
    return [variable.numpy().copy() for variable in model.variables]
