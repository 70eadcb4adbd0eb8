"""From a batch to the moments that each BatchNormalization layer sees, and from some images to those of all of them."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.layers import BatchNormalization as BatchNorm

from training.batchnorm.statistics import Pair, Statistics
from training.batchnorm.tracing import Call, Correction, as_they_are, batch_statistics


class Moments:
    """A function, traced once, from a batch to count, mean and variance of every call of a layer."""

    def __init__(
        self,
        model: keras.Model,
        watched: Sequence[BatchNorm],
        learning: Callable[[Any], Sequence[BatchNorm]],
        corrected: Correction = as_they_are,
    ) -> None:
        """`learning` says which layers normalise by the batch, `corrected`; the others stay in inference mode."""
        self.model, self.watched, self.learning, self.corrected = model, watched, learning, corrected
        self._calls: list[Call] = []
        self._traced = tf.function(self._trace, reduce_retracing=True)

    def __call__(self, batch: Any) -> Iterator[tuple[BatchNorm, float, np.ndarray, np.ndarray]]:
        """Layer, count, mean and variance, call by call; a shared layer has several."""
        flat = self._traced(batch).numpy()  # one transfer for all of them
        for call in self._calls:
            channels = call.layer.moving_mean.shape[0]
            (count,), mean, variance = np.split(flat[: 1 + 2 * channels], [1, 1 + channels])
            flat = flat[1 + 2 * channels :]
            yield call.layer, float(count), mean, variance

    def _trace(self, batch: Any) -> tf.Tensor:
        calls: list[Call] = []
        with batch_statistics(self.learning(batch), watched=self.watched, calls=calls, corrected=self.corrected):
            self.model(batch, training=False)
        self._calls = calls
        parts = [part for call in calls for part in (call.count[None], call.mean, call.variance)]
        return tf.concat([*parts, tf.zeros(0, tf.float64)], axis=0)


class Predictor:
    """What the statistics of all images will be once earlier layers have changed, told from one batch of them.

    Repeating inference-mode passes alone is unstable: each layer would go on normalising by the statistics of the
    input it had one pass ago, and such errors multiply from layer to layer. What a change does to a batch's own moments
    it does to those of all images very nearly, so only how the two differ is carried from pass to pass.
    """

    def __init__(self, model: keras.Model, learning: Sequence[BatchNorm], written: Sequence[BatchNorm], batch: Any):
        self.batch = batch
        first = list(Moments(model, learning, lambda _: learning)(batch))
        calls = Counter(id(layer) for layer, *_ in first)
        # A shared layer's later inputs are not known at its first call, and a renormalising one needs no prediction.
        self.layers = [layer for layer in written if calls[id(layer)] == 1 and not layer.renorm]
        self._seen = {id(layer): Pair(mean, variance) for layer, _, mean, variance in first}
        self._carried = [tf.Variable(tf.zeros((2, layer.moving_mean.shape[0]), tf.float64)) for layer in self.layers]
        self._moments = Moments(model, self.layers, lambda _: self.layers, self._corrected)

    def predict(self, pooled: Mapping[int, Statistics]) -> dict[int, Pair]:
        """Mean and variance by ``id(layer)``, given those `pooled` in the pass before."""
        for layer, carried in zip(self.layers, self._carried, strict=True):
            carried.assign(_difference(pooled[id(layer)], self._seen[id(layer)], layer.epsilon))
        seen = {id(layer): Pair(mean, variance) for layer, _, mean, variance in self._moments(self.batch)}
        self._seen |= seen
        corrected = {
            id(layer): Pair(*(value.numpy() for value in self._corrected(layer, *seen[id(layer)])))
            for layer in self.layers
        }
        return {key: Pair(found.mean, found.variance) for key, found in pooled.items()} | corrected

    def _corrected(self, layer: BatchNorm, mean: Any, variance: Any) -> tuple[Any, Any]:
        shift, ratio = tf.unstack(self._carried[self.layers.index(layer)])
        spread = variance + layer.epsilon
        return mean + shift * tf.sqrt(spread), tf.maximum(ratio * spread - layer.epsilon, 0)


def _difference(pooled: Statistics, seen: Pair, epsilon: float) -> np.ndarray:
    """How all images differ from the batch: of the mean in the batch's sigmas, of the variance as a ratio."""
    spread = seen.variance + epsilon
    return np.stack([(pooled.mean - seen.mean) / np.sqrt(spread), (pooled.variance + epsilon) / spread])
