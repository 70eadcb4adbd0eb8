"""The bare loss of every step of `fit`, in the form `explain` compares with: no weights, smoothing or penalties."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from training.errors import Diverged, received
from training.evaluation import BARE_LOSS, MEANINGS, REMEDIES


class StepLosses(keras.callbacks.Callback):
    """Keeps every step's bare loss, and stops at the first that is not a finite number.

    Give `fit` both halves, then `explain` the last epoch:

        steps = StepLosses()
        model.compile(..., metrics=[steps.metric])
        model.fit(..., callbacks=[steps])
        explain(model, x, y, fit_loss=np.array(steps.epochs[-1]))

    Args:
        metric: the bare loss, named "cross_entropy"; by default that of a binary classifier's probability
            (`training.objective.bare_loss` has it for more classes).
        steps_per_execution: as `compile` is told; Keras calls back once in so many steps.

    Raises:
        Diverged: a step's loss is NaN or infinite.
        ValueError: `compile` was told another number of steps.
    """

    def __init__(self, metric: keras.metrics.Mean | None = None, steps_per_execution: int = 1) -> None:
        super().__init__()
        self.metric = metric or keras.metrics.BinaryCrossentropy(name=BARE_LOSS)
        self._last = _keep_steps(self.metric, steps_per_execution)
        self.epochs: list[list[float]] = []
        self._begun: list[float] = []

    def go_on(self, epochs: list[list[float]], *, within: bool) -> None:
        """Continue a list that was begun by an interrupted training, perhaps within its last epoch."""
        self.epochs = epochs
        self._begun = epochs.pop() if within else []

    def on_train_begin(self, logs: Any = None) -> None:
        kept, taken = self._last.shape[0], self.model.steps_per_execution
        if kept != taken:  # the losses of some steps would be missing
            raise ValueError(received("steps_per_execution", kept, f"{taken}, as the model was compiled"))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epochs.append(self._begun)
        self._begun = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._last.assign(np.zeros(self._last.shape))  # so that it has this execution's alone

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        sums, counts = self._last.numpy().T
        for loss in (sums[counts > 0] / counts[counts > 0]).tolist():
            self.epochs[-1].append(loss)
            if not math.isfinite(loss):
                raise not_finite("training loss", loss, len(self.epochs), len(self.epochs[-1]))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs[self.metric.name] = float(np.mean(self.epochs[-1]))


def _keep_steps(mean: keras.metrics.Mean, most: int) -> keras.Variable:
    """Have the metric keep the last steps' own values as well: of each a sum and how many it is of, newest at the end.

    The graph keeps them, so that many steps can be one call. On several devices, each has the sums of its part.
    They are this metric's, not those of a class of our own, which whoever loads the model would have to have.
    """
    last = mean.add_variable((most, 2), "zeros", name="last")
    mean.update_state = partial(_update, mean, mean.update_state, last)
    return last


def _update(
    mean: keras.metrics.Mean, update: Callable[..., None], last: keras.Variable, *batch: Any, **kwargs: Any
) -> None:
    """In the place of `update_state`."""
    before = _read(mean)
    mean.reset_state()
    update(*batch, **kwargs)
    last.assign(tf.concat([last[1:], [_read(mean)]], 0))
    mean.total.assign_add(before[0])
    mean.count.assign_add(before[1])


def _read(mean: keras.metrics.Mean) -> tf.Tensor:
    return tf.stack([tf.convert_to_tensor(mean.total), tf.convert_to_tensor(mean.count)])


def not_finite(what: str, value: float, epoch: int, step: int) -> Diverged:
    """The error for a loss that is not a finite number; `step` 0: at the end of the epoch."""
    where = f"epoch {epoch}" + (f", step {step}" if step else "")
    message = f"{what} is {value} in {where}: {MEANINGS['non_finite']}."
    return Diverged(message, cause="non_finite", remedy=REMEDIES["non_finite"])
