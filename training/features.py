"""Train a head on features that are computed once, which is all that a frozen base ever gives it."""

import keras
import numpy as np
import tensorflow as tf

from training.checkpoints import Checkpoints
from training.config import TrainConfig
from training.fit import Fitted, fit
from training.logits import in_batches
from training.sampling import SamplingPlan


def fit_on_features(
    model: keras.Model,
    plan: SamplingPlan,
    found: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray],
    config: TrainConfig,
    checkpoints: Checkpoints | None = None,
) -> Fitted:
    """`fit` of the head alone, on `features` instead of pixels; errors and what it leaves are the same.

    Args:
        model: a classifier of `build_model`; the head's layers are its own.
        found: of the training images, (n, channels), in the order of ``plan.images``.
        validation: features and class numbers.
    """
    _, head = divided(model)
    return fit(head, plan, found, validation, config, checkpoints=checkpoints)


def divided(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """The model up to its pooled features (n, channels), and from these to the probabilities, over the same layers."""
    pool = model.get_layer("pool")
    x = start = keras.Input(pool.output.shape[1:], name="features")
    for layer in model.layers[model.layers.index(pool) + 1 :]:
        x = layer(x)
    with model.distribute_strategy.scope():
        return keras.Model(model.input, pool.output), keras.Model(start, x, name="head")


def features(base: keras.Model, pixels: np.ndarray, batch_size: int) -> np.ndarray:
    """What the base makes of images (n, size, size, 3) in inference mode: float32 (n, channels)."""
    forward = tf.function(lambda batch: base(batch, training=False), reduce_retracing=True)
    return in_batches(forward, pixels, batch_size).astype(np.float32)
