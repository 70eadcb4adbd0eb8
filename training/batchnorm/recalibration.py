"""Replace BatchNormalization's lagging moving statistics by pooled population statistics.

While a layer trains it normalises by its batch's moments; afterwards by moving averages of them, which lag behind
the weights by about 1/(1−momentum) steps. `recalibrate` measures what the averages stand for, as
"precise BatchNorm" does (Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras.layers import BatchNormalization as BatchNorm

from training.batchnorm.layers import (
    batch_norm_layers,
    learning_layers,
    put_back,
    statistics_variables,
    unchanged_on_error,
)
from training.batchnorm.moments import BatchMoments, Moments, Predictor
from training.batchnorm.report import (
    NOTHING_TO_WRITE,
    WRITTEN,
    BatchNormReport,
    LayerDrift,
    Mode,
    checked,
    with_remaining,
)
from training.batchnorm.statistics import Distance, Pair, Statistics, distance
from training.batchnorm.tracing import using_batch_statistics
from training.logits import class_numbers, cross_entropies, in_batches, inference_logits
from training.rows import Array

Labelled = tuple[Array, np.ndarray]
# Of a sigma, or of the variance; float32 statistics cannot hold much less.
CONVERGED = 2e-7
NOISE = 1e-5
PATIENCE = 3
# Images that tell how all of them will answer to a change.
REFERENCE = 64
_VALIDATION_BATCH = 64


class NotFinite(ValueError):
    """A layer's input holds NaN or infinity."""


def recalibrate(
    model: keras.Model,
    batches: Iterable[Any],
    layers: Sequence[BatchNorm] | None = None,
    *,
    mode: Mode = "one_pass",
    validation: Labelled | None = None,
) -> BatchNormReport:
    """Replace lagging moving statistics by those of the given images, pooled in float64.

    Dropout and augmentation are off and weights are not touched. Layers that do not train on batch statistics are
    measured and never written, since what follows them was trained on the statistics they have.

    Args:
        model: changed in place, or left exactly as it was when anything goes wrong.
        batches: model inputs, batch by batch; only one is held at a time. The self-consistent mode reads them
            several times, so it needs a list, a dataset or the like, not an iterator.
        layers: what to recalibrate; by default every layer with ``trainable=True``.
        mode: "one_pass": each layer sees what it saw in training, inputs normalised by their own batch.
            "self_consistent": then repeated in inference mode until each layer's statistics are those of its
            input in the served model, whatever the batches were.
        validation: inputs and class numbers; when the loss on them is worse beyond noise, nothing is written.

    Raises:
        NotFinite: a layer's statistics are NaN or infinite.
        ValueError: no batches, or a model or layer that cannot be handled.
    """
    return Recalibrator(model, layers).recalibrate(batches, mode=mode, validation=validation)


class Recalibrator:
    """`recalibrate` for one model many times: its functions are traced once."""

    def __init__(self, model: keras.Model, layers: Sequence[BatchNorm] | None = None) -> None:
        _refuse_unbuilt(model)
        self.model = model
        self.measured = batch_norm_layers(model)
        # Until a batch has shown which of them the model really calls in training mode.
        self.written = [layer for layer in learning_layers(model) if layers is None or layer in layers]
        self._learning: list[BatchNorm] | None = None
        self._in_training = Moments(model, self.measured, self.learning)
        self._as_served = Moments(model, self.measured, lambda batch: [])
        self._logits = inference_logits(model)

    def learning(self, batch: Any) -> list[BatchNorm]:
        """The layers that normalise by their batch while `fit` runs."""
        if self._learning is None:
            self._learning = using_batch_statistics(self.model, batch)
            self.written = [layer for layer in self.written if layer in self._learning]
        return self._learning

    def recalibrate(
        self,
        batches: Iterable[Any],
        *,
        mode: Mode = "one_pass",
        validation: Labelled | None = None,
        moments: Iterable[BatchMoments] | None = None,
    ) -> BatchNormReport:
        """Measure the pooled statistics of `batches` and write them into the model.

        `moments` are those of the same batches in the same order, where they were measured elsewhere (see `moments`);
        only one batch is then looked at.
        """
        _refuse_iterator(batches, mode)
        samples, pooled = self.measure(batches, moments=moments)
        if not self.written:
            return self._report(samples, pooled, NOTHING_TO_WRITE)
        variables = statistics_variables(self.written)
        original = [variable.numpy() for variable in variables]
        report = self._report(samples, pooled, WRITTEN, applied=True)
        with unchanged_on_error(variables):
            before = validation and self._row_losses(*validation)
            self._write(pooled)
            if mode == "self_consistent":
                report = self._iterate(batches, report, pooled)
            if validation and before is not None:
                report = checked(report, before, self._row_losses(*validation), class_numbers(validation[1]))
            if report.kept_original:
                put_back(variables, original)
        return report

    def moments(self, batches: Iterable[Any]) -> Iterator[BatchMoments]:
        """What `recalibrate` pools, batch by batch: a part of the batches can be measured in a process of its own."""
        return self._in_training.of_each(self._learned_from(batches))

    def inspect(
        self, batches: Iterable[Any], reason: str, moments: Iterable[BatchMoments] | None = None
    ) -> BatchNormReport:
        """Only measure how far the model's statistics are from the pooled ones; `reason` says why."""
        samples, pooled = self.measure(batches, moments=moments)
        return self._report(samples, pooled, reason if self.written else NOTHING_TO_WRITE)

    def with_remaining(self, report: BatchNormReport, batches: Iterable[Any]) -> BatchNormReport:
        """The report with each layer's distance from what it sees in the model as it is now; one more pass."""
        _, pooled = self.measure(batches, in_training=False)
        return with_remaining(report, self._distances(pooled))

    def measure(
        self, batches: Iterable[Any], *, in_training: bool = True, moments: Iterable[BatchMoments] | None = None
    ) -> tuple[int, dict[int, Statistics]]:
        """How many inputs there were, and the pooled statistics of each layer (by ``id(layer)``).

        Layers that learn see inputs normalised by their own batch, or, if not `in_training`, as the served model's.
        """
        if moments is not None:
            samples, pooled = self._pooled(_first(batches, 1), moments)
        elif in_training:
            samples, pooled = self._in_training.pool(self._learned_from(batches))
        else:
            samples, pooled = self._as_served.pool(self._learned_from(batches))
        _refuse_unusable(samples, self.measured, pooled)
        return samples, pooled

    def _pooled(self, batch: Any, moments: Iterable[BatchMoments]) -> tuple[int, dict[int, Statistics]]:
        self.learning(batch)
        self._in_training.prepare(batch)
        return self._in_training.pooled(moments)

    def _learned_from(self, batches: Iterable[Any]) -> Iterator[Any]:
        for batch in batches:
            self.learning(batch)  # asked while tracing, it would be traced into that graph
            yield batch

    def _iterate(
        self, batches: Iterable[Any], report: BatchNormReport, pooled: dict[int, Statistics]
    ) -> BatchNormReport:
        """Measure in inference mode until the statistics that were used are those that are found."""
        predictor = Predictor(
            self.model, self._learning or [], self.written, _first(batches, min(REFERENCE, report.samples // 8))
        )
        residuals = [np.inf]
        while not _settled(residuals, len(self.written)):
            self._write(predictor.predict(pooled))
            _, pooled = self.measure(batches, in_training=False)
            distances = self._distances(pooled)
            written = zip(self.measured, distances, strict=True)
            residuals.append(max(found.worst for layer, found in written if layer in self.written))
        self._write(pooled)
        update = {"mode": "self_consistent", "passes": len(residuals), "residual": residuals[-1]}
        return with_remaining(report.model_copy(update=update), distances)

    def _write(self, pooled: Mapping[int, Statistics | Pair]) -> None:
        for layer in self.written:
            found = pooled[id(layer)]
            layer.moving_mean.assign(found.mean)
            layer.moving_variance.assign(found.variance)
            if layer.renorm:
                layer.moving_stddev.assign(np.sqrt(found.variance + layer.epsilon))

    def _row_losses(self, x: Array, y: np.ndarray) -> np.ndarray:
        return cross_entropies(in_batches(self._logits, x, _VALIDATION_BATCH), y)

    def _distances(self, pooled: dict[int, Statistics]) -> list[Distance]:
        """Of each measured layer's own statistics, in order."""
        own = [(layer.moving_mean.numpy(), layer.moving_variance.numpy()) for layer in self.measured]
        return [
            distance(*values, pooled[id(layer)], layer.epsilon)
            for layer, values in zip(self.measured, own, strict=True)
        ]

    def _report(
        self, samples: int, pooled: dict[int, Statistics], reason: str, *, applied: bool = False
    ) -> BatchNormReport:
        drifts = tuple(
            LayerDrift(
                name=layer.name,
                channels=layer.moving_mean.shape[0],
                written=applied and layer in self.written,
                **found.model_dump(exclude={"worst_variance_drift"}),
            )
            for layer, found in zip(self.measured, self._distances(pooled), strict=True)
        )
        return BatchNormReport(applied=applied, reason=reason, samples=samples, layers=drifts)


def _first(batches: Iterable[Any], samples: int) -> Any:
    """The leading batches, at least one, as one of `samples` inputs or more if there are as many."""
    leading: list[Any] = []
    for batch in batches:
        leading.append(batch)
        if sum(len(keras.tree.flatten(part)[0]) for part in leading) >= samples:
            break
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *leading)


def _settled(residuals: Sequence[float], layers: int) -> bool:
    """Whether another pass would bring nothing.

    A layer's input depends on earlier layers alone, so pass k makes at least the first k layers exact: as many passes
    as there are layers always suffice. Far fewer do, and below `NOISE` what is left is float32's rounding.
    """
    stalled = len(residuals) > PATIENCE and min(residuals[-PATIENCE:]) > min(residuals[:-PATIENCE]) / 2
    return residuals[-1] <= CONVERGED or (stalled and residuals[-1] <= NOISE) or len(residuals) > layers + 1


def _refuse_unbuilt(model: keras.Model) -> None:
    if any(not layer.built for layer in batch_norm_layers(model)):
        raise ValueError("model: received one that has never been called, expected one whose weights exist")


def _refuse_iterator(batches: Iterable[Any], mode: str) -> None:
    if mode not in ("one_pass", "self_consistent"):
        raise ValueError(f"mode: received {mode!r}, expected 'one_pass' or 'self_consistent'")
    if mode == "self_consistent" and iter(batches) is batches:
        raise ValueError(
            "batches: received an iterator, which can be read once; the self-consistent mode expected a list, "
            "a dataset or another collection that can be read again"
        )


def _refuse_unusable(samples: int, layers: Sequence[BatchNorm], pooled: dict[int, Statistics]) -> None:
    if not samples:
        raise ValueError("batches: received none, expected at least one batch of model inputs")
    for layer in layers:
        found = pooled[id(layer)]
        if not found.count.any():
            raise ValueError(
                f"layer {layer.name}: received no input, expected it to be part of the model's forward pass"
            )
        if not found.finite:
            raise NotFinite(f"layer {layer.name}: received statistics that are not finite, expected finite inputs")
