"""BatchNormalization while a graph is traced: which layers normalise by their batch, and what moments each sees."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras import ops
from keras.layers import BatchNormalization as BatchNorm

from training.batchnorm.fused import by_one_kernel, fits
from training.batchnorm.layers import batch_norm_layers, calling

# So many values may be added up in float32: what that rounds off stays near 1e-7 of their spread.
_PLACES = 256


@dataclass(frozen=True)
class Call:
    """One call of a layer: how many values of each channel it saw (a scalar), their mean and variance; float64."""

    layer: BatchNorm
    count: Any
    mean: Any
    variance: Any


def using_batch_statistics(model: keras.Model, batch: Any) -> list[BatchNorm]:
    """The layers that normalise by their batch while `fit` runs.

    A frozen one does not, nor one that the model itself calls with ``training=False``. What a model does is seen by
    tracing it on `batch`, as far as that tells who is called how: what the layers would make of it is left out.
    """
    learning: dict[int, BatchNorm] = {}

    def watching(layer: BatchNorm) -> Any:
        def call(inputs: Any, training: Any = None, mask: Any = None) -> Any:
            if layer.trainable and training is not None and training is not False:
                learning[id(layer)] = layer
            return ops.cast(inputs, layer.compute_dtype)

        return call

    candidates = [layer for layer in batch_norm_layers(model) if layer.trainable]
    if candidates:
        with calling(candidates, watching):
            tf.function(lambda rows: model(rows, training=True)).get_concrete_function(batch)
    return [layer for layer in candidates if id(layer) in learning]


Correction = Callable[[BatchNorm, Any, Any], tuple[Any, Any]]


def as_they_are(layer: BatchNorm, mean: Any, variance: Any) -> tuple[Any, Any]:
    """A batch's own moments."""
    return mean, variance


@contextmanager
def batch_statistics(
    layers: Sequence[BatchNorm],
    *,
    watched: Sequence[BatchNorm] = (),
    calls: list[Call] | None = None,
    corrected: Correction = as_they_are,
) -> Iterator[None]:
    """While a graph is traced inside, `layers` normalise by their batch's moments and update nothing.

    Every other one stays in inference mode. Each call of a `watched` layer is appended to `calls`. What `layers`
    normalise by is ``corrected(layer, mean, variance)``; where it is neither changed nor watched, the fused kernel that
    `fit` uses finds it, in float32 and sooner.
    """
    normalising, watching = {id(layer) for layer in layers}, {id(layer) for layer in watched}
    graph = tf.compat.v1.get_default_graph() if not tf.executing_eagerly() else None

    def replaced(layer: BatchNorm) -> Any:
        original = layer.call

        def call(inputs: Any, training: Any = None, mask: Any = None) -> Any:
            _refuse_inner_graph(layer, graph)
            if id(layer) not in watching and corrected is as_they_are and fits(layer, inputs, mask):
                return by_one_kernel(layer, inputs)[0]
            x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
            count, mean, variance, centred = _moments(x, layer, mask)
            if calls is not None and id(layer) in watching:
                calls.append(Call(layer, count, mean, variance))
            if id(layer) not in normalising:
                return original(inputs, training=False, mask=mask)
            normalised_by = corrected(layer, mean, variance)
            return _normalised(layer, centred, *(ops.cast(value, x.dtype) for value in (mean, *normalised_by)))

        return call

    with calling(list({id(layer): layer for layer in [*layers, *watched]}.values()), replaced):
        yield


def _normalised(layer: BatchNorm, centred: Any, centre: Any, mean: Any, variance: Any) -> Any:
    """What the layer makes in training, without its updates, of what was `centred` around a batch's own mean."""
    gamma, beta = layer.gamma, layer.beta
    if layer.renorm:
        r, d, mean, variance = layer._renorm_correction_and_moments(mean, variance)
        gamma, beta = layer._compose_transforms(r, d, gamma, beta, centred.dtype)
    scaled = ops.batch_normalization(centred, mean - centre, variance, layer.axis, beta, gamma, epsilon=layer.epsilon)
    return ops.cast(scaled, layer.compute_dtype)


def _moments(x: Any, layer: BatchNorm, mask: Any) -> tuple[Any, Any, Any, Any]:
    """Count, mean and variance of each channel over a batch, float64; and `x` less the mean, rounded to its type.

    Float32 sums of few values, added in float64: near 1e-7 where Keras's own float32 moments are near 1e-5, at
    the same price. The variance is taken around the rounded mean, and corrected for the rounding.
    """
    weights = None if mask is None else ops.expand_dims(ops.cast(mask, x.dtype), -1)
    count = _count(x, layer, weights)
    sums = tf.reduce_sum(_blocks(x, layer, weights), 1)
    mean = tf.math.divide_no_nan(tf.reduce_sum(tf.cast(sums, tf.float64), 0), count)
    centre = tf.cast(mean, x.dtype)
    centred = x - _along_channels(centre, x, layer)
    # Unlike a sum of squares, the norm needs no room for these.
    norms = tf.cast(tf.math.reduce_euclidean_norm(_blocks(centred, layer, weights), 1), tf.float64)
    offset = mean - tf.cast(centre, tf.float64)
    return count, mean, tf.math.divide_no_nan(tf.reduce_sum(tf.square(norms), 0), count) - tf.square(offset), centred


def _blocks(x: Any, layer: BatchNorm, weights: Any) -> Any:
    """Places of an image that are added up in float32: (blocks, places, channels)."""
    if weights is not None:
        x = tf.where(weights > 0, x, tf.zeros((), x.dtype))  # not a product: 0 · NaN stays NaN
    x = ops.moveaxis(x, layer.axis, -1)
    return tf.reshape(x, (-1, _at_once(x), x.shape[-1]))


def _at_once(x: Any) -> Any:
    """The most places that divide an image, or, where its size is not known yet, a row."""
    if None in x.shape[1:-1]:
        return tf.shape(x)[-2]
    return max(few for few in range(1, _PLACES + 1) if math.prod(x.shape[1:-1]) % few == 0)


def _along_channels(values: Any, x: Any, layer: BatchNorm) -> Any:
    shape = [1] * len(x.shape)
    shape[layer.axis] = -1
    return tf.reshape(values, shape)


def _count(x: Any, layer: BatchNorm, weights: Any) -> Any:
    """How many values of each channel there are."""
    if weights is not None:
        return tf.reduce_sum(tf.cast(weights, tf.float64))
    return tf.cast(tf.size(x, out_type=tf.int64) // tf.shape(x, out_type=tf.int64)[layer.axis], tf.float64)


def _refuse_inner_graph(layer: BatchNorm, graph: Any) -> None:
    if graph is not None and tf.compat.v1.get_default_graph() is not graph:
        raise ValueError(
            f"layer {layer.name}: received a call inside a loop or a function of its own, "
            "expected one in the model's own forward pass"
        )
