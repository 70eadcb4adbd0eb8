"""Every way of running a network between `fit` and a recalibrated model, each traced once."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from training.batchnorm import (
    NotFinite,
    Recalibrator,
    batch_norm_layers,
    batch_statistics,
    put_back,
    statistics_variables,
)
from training.logits import Logits, batches, cross_entropies, in_batches, inference_logits, raw_output

Labelled = tuple[np.ndarray, np.ndarray]
RowLosses = dict[str, np.ndarray | None]


class Telescope:
    """Measures one model as often as its weights change."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.recalibrator = Recalibrator(model)
        self._infer = inference_logits(model)
        self._in_training = _on_batch_statistics(model, self.recalibrator, training=True)
        self._batch_statistics = _on_batch_statistics(model, self.recalibrator, training=False)

    def row_losses(
        self,
        data: Labelled,
        batch_size: int,
        *,
        seed: int = 0,
        recalibrated: Mapping[str, np.ndarray] | None = None,
        natural: Labelled | None = None,
        validation: Labelled | None = None,
        augmented: np.ndarray | None = None,
    ) -> RowLosses:
        """Cross-entropy of every row of `data`, shape (n,), under each way; of the others in inference mode alone.

        In training mode the rows are shown as `augmented`, where that is given. Statistics and random state are put
        back afterwards; dropout draws from `seed`.
        """
        with _restored(self.model, seed):
            ways = self._ways(data, batch_size)
            shown = dict.fromkeys(ways, data) | ({} if augmented is None else {"train_mode": (augmented, data[1])})
            rows = {name: self._loss(way, shown[name], batch_size) for name, way in ways.items()}
            self._recalibrate(data[0], batch_size, recalibrated)
            after = {"inference": data, "natural": natural, "validation": validation}
            return rows | {name: self._loss(self._infer, rows, batch_size) for name, rows in after.items()}

    def _ways(self, data: Labelled, batch_size: int) -> dict[str, Logits]:
        learns = bool(self.recalibrator.learning(data[0][:batch_size]))
        return {
            "train_mode": self._in_training,
            # Without BatchNorm that trains there is one way only to run without dropout.
            "batch_statistics": self._batch_statistics if learns else self._infer,
            "inference_before": self._infer,
        }

    def _loss(self, forward: Logits, data: Labelled | None, batch_size: int) -> np.ndarray | None:
        return None if data is None else cross_entropies(in_batches(forward, data[0], batch_size), data[1])

    def _recalibrate(self, x: np.ndarray, batch_size: int, recalibrated: Mapping[str, np.ndarray] | None) -> None:
        if recalibrated is None:
            with suppress(NotFinite):  # the losses will say so
                self.recalibrator.recalibrate(batches(x, batch_size))
        else:
            variables = statistics_variables(batch_norm_layers(self.model))
            put_back(variables, [recalibrated[variable.path] for variable in variables])


def batch_statistics_logits(model: keras.Model) -> Logits:
    """A traced function from a batch to logits, with BatchNorm that learns on the batch's own statistics.

    Dropout and augmentation are off, and nothing is updated.
    """
    return _on_batch_statistics(model, Recalibrator(model), training=False)


def _on_batch_statistics(model: keras.Model, recalibrator: Recalibrator, *, training: bool) -> Logits:
    """Logits with the learning layers on batch statistics, and the rest in training or in inference mode."""

    @tf.function(reduce_retracing=True)
    def forward(batch: Any) -> Any:
        with raw_output(model), batch_statistics(recalibrator.learning(batch)):
            return model(batch, training=training)

    def learning_first(batch: Any) -> Any:
        recalibrator.learning(batch)  # asked while tracing, it would be traced into this graph
        return forward(batch)

    return learning_first


@contextmanager
def _restored(model: keras.Model, seed: int) -> Iterator[None]:
    """Put statistics and random state back afterwards; inside, dropout draws from `seed`."""
    generators = seed_states(model)
    variables = [*model.non_trainable_variables, *generators]
    before = [variable.numpy() for variable in variables]
    try:
        for place, state in enumerate(generators):
            state.assign(np.array([seed, place << 16], dtype=state.dtype))
        yield
    finally:
        put_back(variables, before)


def seed_states(model: keras.Model) -> list[Any]:
    """Where the model's layers stand in their random numbers."""
    states = {}
    for layer in model._flatten_layers():
        for generator in getattr(layer, "_seed_generators", []):
            states[id(generator.state)] = generator.state
    return list(states.values())
