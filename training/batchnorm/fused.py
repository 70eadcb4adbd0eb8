"""BatchNorm's training step by TensorFlow's one kernel for it, which Keras 3 no longer calls.

Keras spells a training step out in a dozen operations, each of which goes through all of a layer's values, and as many
for its gradients. On two cores a step of the default network took a fifth less without (benchmarks/training_step.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from keras.layers import BatchNormalization as BatchNorm

from training.batchnorm.layers import batch_norm_layers, calling


@contextmanager
def fused_training(model: keras.Model) -> Iterator[None]:
    """While `fit` traces its step inside, layers that train on batch statistics do so by the fused kernel.

    Outputs, gradients and moving statistics are Keras's but for rounding. What the kernel cannot do stays Keras's own
    (see `fits`).
    """
    with calling(batch_norm_layers(model), _fused):
        yield


def fits(layer: BatchNorm, inputs: Any, mask: Any) -> bool:
    """Whether the kernel can do what the layer does in training.

    Not other axes than the last, types other than float32, masks, renormalization, moments pooled over devices. Nor
    anything where there is a GPU, on which none of this was measured.
    """
    images = len(inputs.shape) == 4 and layer.axis in (3, -1) and inputs.dtype == "float32"
    plain = not (layer.renorm or layer.synchronized) and layer.compute_dtype == "float32" and mask is None
    return images and plain and not tf.config.list_logical_devices("GPU")


def by_one_kernel(layer: BatchNorm, x: Any) -> tuple[Any, Any, Any]:
    """What the layer makes of `x` in training, the batch's mean, and its variance as estimated from a sample."""
    channels = x.shape[-1]
    scale = layer.gamma if layer.scale else tf.ones(channels)
    offset = layer.beta if layer.center else tf.zeros(channels)
    normalised, mean, unbiased, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=scale, offset=offset, mean=[], variance=[], epsilon=layer.epsilon, is_training=True
    )
    return normalised, mean, unbiased


def _fused(layer: BatchNorm) -> Any:
    original = layer.call

    def call(inputs: Any, training: Any = None, mask: Any = None) -> Any:
        if training is True and layer.trainable and fits(layer, inputs, mask):
            return _training_step(layer, inputs)
        return original(inputs, training=training, mask=mask)

    return call


def _training_step(layer: BatchNorm, x: Any) -> Any:
    normalised, mean, unbiased = by_one_kernel(layer, x)
    values = tf.cast(tf.size(x) // x.shape[-1], x.dtype)
    # Keras's moving variance is the population's.
    _move(layer.moving_mean, mean, layer.momentum)
    _move(layer.moving_variance, unbiased * ((values - 1) / values), layer.momentum)
    return normalised


def _move(average: keras.Variable, found: Any, momentum: float) -> None:
    average.assign(average * momentum + found * (1.0 - momentum))
