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
    unchanged,
)
from training.logits import Logits, batches, cross_entropies, in_batches, inference_logits, raw_output
from training.rows import Array
from training.threads import AT_ONCE

Labelled = tuple[np.ndarray, np.ndarray]
RowLosses = dict[str, np.ndarray | None]
# Before recalibration; afterwards there is inference alone.
WAYS = ("train_mode", "batch_statistics", "inference_before")


class Telescope:
    """Measures one model as often as its weights change.

    Attributes:
        infer: from a batch to logits, in inference mode.
        on_batch_statistics: the same, but BatchNorm that learns normalises by the batch; nothing is updated.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.recalibrator = Recalibrator(model)
        self.infer = inference_logits(model)
        self.on_batch_statistics = _on_batch_statistics(model, self.recalibrator, training=False)
        self._in_training = _on_batch_statistics(model, self.recalibrator, training=True)

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
        others = {"natural": natural, "validation": validation}
        answers = self.answers(
            data[0],
            batch_size,
            seed=seed,
            recalibrated=recalibrated,
            augmented=augmented,
            others={name: pair[0] for name, pair in others.items() if pair is not None},
        )
        labels = {name: (others.get(name) or data)[1] for name in answers}
        rows = {name: cross_entropies(logits, labels[name]) for name, logits in answers.items()}
        return dict.fromkeys(others) | rows

    def answers(
        self,
        x: np.ndarray,
        batch_size: int,
        *,
        seed: int = 0,
        first: int = 0,
        recalibrated: Mapping[str, np.ndarray] | None = None,
        augmented: np.ndarray | None = None,
        others: Mapping[str, Array] | None = None,
    ) -> dict[str, np.ndarray]:
        """Logits (n, outputs) of `x` under each way, and of the `others` in inference mode; of no rows, none.

        `first` is how many batches come before those of `x`, of which another process has had the answers: dropout
        draws as if this one had gone through them.
        """
        with _restored(self.model, seed, first):
            ways = self._ways(x, batch_size)
            shown = dict.fromkeys(ways, x) | ({} if augmented is None else {"train_mode": augmented})
            answers = {
                # Dropout draws batch by batch.
                name: in_batches(way, shown[name], batch_size, 1 if name == "train_mode" else AT_ONCE)
                for name, way in ways.items()
            }
            self._recalibrate(x, batch_size, recalibrated)
            after = {name: rows for name, rows in {"inference": x, **(others or {})}.items() if len(rows)}
            return answers | {name: in_batches(self.infer, rows, batch_size) for name, rows in after.items()}

    def _ways(self, x: np.ndarray, batch_size: int) -> dict[str, Logits]:
        if not len(x):
            return {}
        learns = bool(self.recalibrator.learning(x[:batch_size]))
        return {
            "train_mode": self._in_training,
            # Without BatchNorm that trains there is one way only to run without dropout.
            "batch_statistics": self.on_batch_statistics if learns else self.infer,
            "inference_before": self.infer,
        }

    def _recalibrate(self, x: np.ndarray, batch_size: int, recalibrated: Mapping[str, np.ndarray] | None) -> None:
        if recalibrated is None:
            with suppress(NotFinite):  # the losses will say so
                self.recalibrator.recalibrate(batches(x, batch_size))
        else:
            variables = statistics_variables(batch_norm_layers(self.model))
            put_back(variables, [recalibrated[variable.path] for variable in variables])


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
def _restored(model: keras.Model, seed: int, first: int) -> Iterator[None]:
    """Put statistics and random state back afterwards; inside, dropout draws from `seed` as after `first` batches.

    Each layer's generator counts its draws, one a batch.
    """
    generators = seed_states(model)
    with unchanged([*model.non_trainable_variables, *generators]):
        for place, state in enumerate(generators):
            state.assign(np.array([seed, (place << 16) + first], dtype=state.dtype))
        yield


def seed_states(model: keras.Model) -> list[Any]:
    """Where the model's layers stand in their random numbers."""
    states = {}
    for layer in model._flatten_layers():
        for generator in getattr(layer, "_seed_generators", []):
            states[id(generator.state)] = generator.state
    return list(states.values())
