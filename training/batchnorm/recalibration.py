"""BatchNormalization of any Keras model: freeze it, watch it, and replace lagging statistics by pooled ones.

While a layer trains it normalises by its batch's moments; afterwards by moving averages of them, which lag behind
the weights by about 1/(1−momentum) steps. `recalibrate` measures what the averages stand for, as
"precise BatchNorm" does (Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from keras.layers import BatchNormalization as BatchNorm

from training.batchnorm.layers import batch_norm_layers, statistics_variables, unchanged_on_error
from training.documents import Document

NOTHING_TO_WRITE = "no BatchNormalization layer trains on batch statistics, so none of the statistics lag"


class LayerDrift(Document):
    """How far a layer's statistics were from the pooled ones when measured.

    Attributes:
        written: whether the pooled statistics replaced the layer's own.
        mean_drift: root mean square over channels of (own mean − pooled mean) / pooled sigma.
        worst_mean_drift: the largest of these, absolute.
        variance_ratio: geometric mean over channels of own variance / pooled variance.
    """

    name: str
    channels: int
    written: bool
    mean_drift: float
    worst_mean_drift: float
    variance_ratio: float


class BatchNormReport(Document):
    """What `recalibrate` found and did."""

    applied: bool
    reason: str
    samples: int
    layers: tuple[LayerDrift, ...]


class Statistics:
    """Population mean and variance of one layer's input, pooled in float64 over batches of any size."""

    def __init__(self, channels: int) -> None:
        self.count = 0.0
        self.mean = np.zeros(channels)
        self.squares = np.zeros(channels)

    def add(self, count: float, mean: np.ndarray, variance: np.ndarray) -> None:
        """Pool in a batch: the mean of variances plus the variance of means (Chan, Golub & LeVeque 1979)."""
        total = self.count + count
        delta = mean.astype(np.float64) - self.mean
        self.squares += variance.astype(np.float64) * count + delta**2 * self.count * count / total
        self.mean += delta * count / total
        self.count = total

    @property
    def variance(self) -> np.ndarray:
        """The population (biased) variance, which is what Keras keeps."""
        return self.squares / self.count


def recalibrate(
    model: keras.Model, batches: Iterable[Any], layers: Sequence[BatchNorm] | None = None
) -> BatchNormReport:
    """Replace lagging moving statistics by those of the given images, pooled in float64.

    Dropout and augmentation are off, weights are not touched, and each layer sees what it saw in training:
    inputs normalised by their own batch. Frozen layers are measured and never written, since what follows them
    was trained on the statistics they have.

    Args:
        model: changed in place, or left exactly as it was when anything goes wrong.
        batches: model inputs, batch by batch; only one is held at a time.
        layers: what to recalibrate; by default every layer with ``trainable=True``.

    Raises:
        ValueError: no batches, a layer that cannot be handled, or statistics that are not finite.
    """
    return Recalibrator(model, layers).recalibrate(batches)


class Recalibrator:
    """`recalibrate` for one model many times: its function is traced once."""

    def __init__(self, model: keras.Model, layers: Sequence[BatchNorm] | None = None) -> None:
        self.model = model
        self.measured = batch_norm_layers(model)
        chosen = self.measured if layers is None else layers
        self.written = [layer for layer in chosen if layer.trainable]
        _refuse_unsupported(self.measured)
        self._moments = tf.function(self._trace, reduce_retracing=True)

    def recalibrate(self, batches: Iterable[Any]) -> BatchNormReport:
        """Measure the pooled statistics of `batches` and write them into the model."""
        samples, pooled = self.measure(batches)
        reason = "pooled population statistics written" if self.written else NOTHING_TO_WRITE
        report = self._report(samples, pooled, self.written, reason)
        with unchanged_on_error(statistics_variables(self.written)):
            for layer in self.written:
                layer.moving_mean.assign(pooled[id(layer)].mean)
                layer.moving_variance.assign(pooled[id(layer)].variance)
        return report

    def inspect(self, batches: Iterable[Any], reason: str) -> BatchNormReport:
        """Only measure how far the model's statistics are from the pooled ones; `reason` says why."""
        return self._report(*self.measure(batches), [], reason if self.written else NOTHING_TO_WRITE)

    def measure(self, batches: Iterable[Any]) -> tuple[int, dict[int, Statistics]]:
        """How many images there were, and the pooled statistics of each layer (by ``id(layer)``)."""
        pooled = {id(layer): Statistics(layer.moving_mean.shape[0]) for layer in self.measured}
        samples = 0
        for batch in batches:
            samples += len(keras.tree.flatten(batch)[0])
            moments = self._moments(batch)  # tracing fills in the order of calls
            for layer, values in zip(self._calls, moments, strict=True):
                pooled[id(layer)].add(*(value.numpy() for value in values))
        _refuse_unusable(samples, self.measured, pooled)
        return samples, pooled

    def _trace(self, batch: Any) -> list[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
        calls: list[tuple[BatchNorm, tuple[tf.Tensor, tf.Tensor, tf.Tensor]]] = []
        with batch_statistics(self.written, watched=self.measured, calls=calls):
            self.model(batch, training=False)
        self._calls = [layer for layer, _ in calls]  # a shared layer is called more than once
        return [moments for _, moments in calls]

    def _report(
        self, samples: int, pooled: dict[int, Statistics], written: Sequence[BatchNorm], reason: str
    ) -> BatchNormReport:
        drifts = tuple(_drift(layer, pooled[id(layer)], layer in written) for layer in self.measured)
        return BatchNormReport(applied=bool(written), reason=reason, samples=samples, layers=drifts)


@contextmanager
def batch_statistics(
    layers: Sequence[BatchNorm],
    *,
    watched: Sequence[BatchNorm] = (),
    calls: list[Any] | None = None,
) -> Iterator[None]:
    """While a graph is traced inside, `layers` normalise by their batch's moments and update nothing.

    Each call of a `watched` layer appends ``(layer, (count, mean, variance))`` to `calls`.
    """
    chosen = {id(layer): layer for layer in [*layers, *watched]}
    normalising = {id(layer) for layer in layers}
    try:
        for key, layer in chosen.items():
            # An instance attribute shadows the class's method until it is deleted again.
            layer.call = _call(layer, key in normalising, calls)
        yield
    finally:
        for layer in chosen.values():
            if "call" in vars(layer):
                del layer.call


def _call(layer: BatchNorm, normalise: bool, calls: list[Any] | None) -> Any:
    original = layer.call

    def call(inputs: Any, training: Any = None, mask: Any = None) -> Any:
        x = ops.cast(inputs, "float32")
        mean, variance = layer._moments(x, mask)
        if calls is not None:
            calls.append((layer, (_count(x, layer, mask), mean, variance)))
        if not normalise:
            return original(inputs, training=False, mask=mask)
        scaled = ops.batch_normalization(x, mean, variance, layer.axis, layer.beta, layer.gamma, epsilon=layer.epsilon)
        return ops.cast(scaled, layer.compute_dtype)

    return call


def _count(x: Any, layer: BatchNorm, mask: Any) -> Any:
    """How many values of each channel the moments are over."""
    if mask is not None:
        return ops.sum(ops.cast(mask, "float32"))
    axis = layer.axis % len(x.shape)
    sizes = [ops.cast(ops.shape(x)[place], "float32") for place in range(len(x.shape)) if place != axis]
    return ops.prod(ops.stack(sizes))


def _drift(layer: BatchNorm, pooled: Statistics, written: bool) -> LayerDrift:
    sigma = np.sqrt(pooled.variance + layer.epsilon)  # a channel that never varies has no sigma of its own
    sigmas = (layer.moving_mean.numpy() - pooled.mean) / sigma
    ratio = (layer.moving_variance.numpy() + layer.epsilon) / (pooled.variance + layer.epsilon)
    return LayerDrift(
        name=layer.name,
        channels=len(sigmas),
        written=written,
        mean_drift=float(np.sqrt(np.mean(sigmas**2))),
        worst_mean_drift=float(np.abs(sigmas).max()),
        variance_ratio=float(np.exp(np.mean(np.log(ratio)))),
    )


def _refuse_unsupported(layers: Sequence[BatchNorm]) -> None:
    for layer in layers:
        if layer.renorm:
            raise ValueError(f"layer {layer.name}: received renorm=True, expected plain BatchNormalization")


def _refuse_unusable(samples: int, layers: Sequence[BatchNorm], pooled: dict[int, Statistics]) -> None:
    if not samples:
        raise ValueError("batches: received none, expected at least one batch of model inputs")
    for layer in layers:
        found = pooled[id(layer)]
        if not found.count:
            raise ValueError(
                f"layer {layer.name}: received no input, expected it to be part of the model's forward pass"
            )
        if not (np.isfinite(found.mean).all() and np.isfinite(found.squares).all()):
            raise ValueError(f"layer {layer.name}: received statistics that are not finite, expected finite inputs")
