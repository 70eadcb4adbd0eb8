"""From a batch to the moments that each BatchNormalization layer sees, and from some images to those of all of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras.layers import BatchNormalization as BatchNorm

from training.batchnorm.statistics import Pair, Statistics
from training.batchnorm.tracing import Call, Correction, as_they_are, batch_statistics
from training.threads import AT_ONCE, first_here


class BatchMoments(NamedTuple):
    """How many inputs a batch has, and count, mean and variance of every channel that is watched, (3, channels)."""

    inputs: int
    values: np.ndarray


class Moments:
    """Pools what each layer sees, by a function that is traced once."""

    def __init__(
        self,
        model: keras.Model,
        watched: Sequence[BatchNorm],
        learning: Callable[[Any], Sequence[BatchNorm]],
        corrected: Correction = as_they_are,
    ) -> None:
        """`learning` says which layers normalise by the batch, `corrected`; the others stay in inference mode."""
        self.model, self.watched, self.learning, self.corrected = model, watched, learning, corrected
        # The layers as they are called, known once traced; a shared one is called more than once.
        self.calls: list[BatchNorm] = []
        self._traced = tf.function(self._trace, reduce_retracing=True)

    def pool(self, batches: Iterable[Any]) -> tuple[int, dict[int, Statistics]]:
        """How many inputs there were, and the statistics of each watched layer by ``id(layer)``."""
        return self.pooled(self.of_each(batches))

    def of_each(self, batches: Iterable[Any]) -> Iterator[BatchMoments]:
        """Of each batch, in order."""
        return first_here(self._of, batches, AT_ONCE)

    def _of(self, batch: Any) -> BatchMoments:
        # One transfer for all layers.
        return BatchMoments(len(keras.tree.flatten(batch)[0]), self._traced(batch).numpy())

    def prepare(self, batch: Any) -> None:
        """Trace what `of_each` will, so that moments can be pooled that were measured elsewhere; nothing is run."""
        self._traced.get_concrete_function(batch)

    def pooled(self, measured: Iterable[BatchMoments]) -> tuple[int, dict[int, Statistics]]:
        """As `pool`, of what `of_each` gave; in the same order, the same to the bit."""
        samples, pooled = 0, Statistics(0)
        for inputs, (count, mean, variance) in measured:
            samples += inputs
            if not len(pooled.mean):
                pooled = Statistics(len(mean))
            pooled.add(count, mean, variance)
        return samples, self._by_layer(pooled)

    def _by_layer(self, pooled: Statistics) -> dict[int, Statistics]:
        found = {id(layer): Statistics(_channels(layer)) for layer in self.watched}
        if len(pooled.mean):
            calls = zip(self.calls, pooled.split([_channels(layer) for layer in self.calls]), strict=True)
            for layer, part in calls:
                found[id(layer)].add(part.count, part.mean, part.variance)
        return found

    def _trace(self, batch: Any) -> tf.Tensor:
        """Count, mean and variance of every channel of every call, one call after the other; shape (3, channels)."""
        calls: list[Call] = []
        with batch_statistics(self.learning(batch), watched=self.watched, calls=calls, corrected=self.corrected):
            self.model(batch, training=False)
        self.calls = [call.layer for call in calls]
        parts = [tf.stack([tf.fill(tf.shape(call.mean), call.count), call.mean, call.variance]) for call in calls]
        return tf.concat([*parts, tf.zeros((3, 0), tf.float64)], axis=1)


class Predictor:
    """What the statistics of all images will be once earlier layers have changed, told from one batch of them.

    Repeating inference-mode passes alone is unstable: each layer would go on normalising by the statistics of the
    input it had one pass ago, and such errors multiply from layer to layer. What a change does to a batch's own moments
    it does to those of all images very nearly, so only how the two differ is carried from pass to pass.
    """

    def __init__(self, model: keras.Model, learning: Sequence[BatchNorm], written: Sequence[BatchNorm], batch: Any):
        self.batch = batch
        first = Moments(model, learning, lambda _: learning)
        _, self._seen = first.pool([batch])
        # A shared layer's later inputs are not known at its first call, and a renormalising one needs no prediction.
        self.layers = [layer for layer in written if first.calls.count(layer) == 1 and not layer.renorm]
        self._carried = [tf.Variable(tf.zeros((2, _channels(layer)), tf.float64)) for layer in self.layers]
        self._moments = Moments(model, self.layers, lambda _: self.layers, self._corrected)

    def predict(self, pooled: Mapping[int, Statistics]) -> dict[int, Pair]:
        """Mean and variance by ``id(layer)``, given those `pooled` in the pass before."""
        carried = [_difference(pooled[id(layer)], self._seen[id(layer)], layer.epsilon) for layer in self.layers]
        for variable, values in zip(self._carried, carried, strict=True):
            variable.assign(values)
        _, seen = self._moments.pool([self.batch])
        self._seen |= seen
        predicted = {
            id(layer): Pair(*_corrected(shift, ratio, seen[id(layer)].mean, seen[id(layer)].variance, layer.epsilon))
            for layer, (shift, ratio) in zip(self.layers, carried, strict=True)
        }
        return {key: Pair(found.mean, found.variance) for key, found in pooled.items()} | predicted

    def _corrected(self, layer: BatchNorm, mean: Any, variance: Any) -> tuple[Any, Any]:
        shift, ratio = tf.unstack(self._carried[self.layers.index(layer)])
        return _corrected(shift, ratio, mean, variance, layer.epsilon)


def _corrected(shift: Any, ratio: Any, mean: Any, variance: Any, epsilon: float) -> tuple[Any, Any]:
    """Moments of all images from those of the batch, as tensors or arrays; the inverse of `_difference`."""
    spread = variance + epsilon
    corrected = ratio * spread - epsilon
    return mean + shift * spread**0.5, (abs(corrected) + corrected) / 2  # not below zero


def _difference(pooled: Statistics, seen: Statistics, epsilon: float) -> np.ndarray:
    """How all images differ from the batch: of the mean in the batch's sigmas, of the variance as a ratio."""
    spread = seen.variance + epsilon
    return np.stack([(pooled.mean - seen.mean) / np.sqrt(spread), (pooled.variance + epsilon) / spread])


def _channels(layer: BatchNorm) -> int:
    return int(layer.moving_mean.shape[0])
