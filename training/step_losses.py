"""The bare loss of every step of `fit`, in the form `explain` compares with: no weights, smoothing or penalties."""

import math
from typing import Any

import keras
import numpy as np

from training.errors import Diverged
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

    Raises:
        Diverged: a step's loss is NaN or infinite.
    """

    def __init__(self, metric: keras.metrics.Metric | None = None) -> None:
        super().__init__()
        self.metric = metric or keras.metrics.BinaryCrossentropy(name=BARE_LOSS)
        self.epochs: list[list[float]] = []
        self._begun: list[float] = []

    def go_on(self, epochs: list[list[float]], *, within: bool) -> None:
        """Continue a list that was begun by an interrupted training, perhaps within its last epoch."""
        self.epochs = epochs
        self._begun = epochs.pop() if within else []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epochs.append(self._begun)
        self._begun = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.metric.reset_state()  # so that its value is this step's alone

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = float(logs[self.metric.name])
        if not math.isfinite(loss):
            raise not_finite("training loss", loss, len(self.epochs), batch + 1)
        self.epochs[-1].append(loss)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs[self.metric.name] = float(np.mean(self.epochs[-1]))


def not_finite(what: str, value: float, epoch: int, step: int) -> Diverged:
    """The error for a loss that is not a finite number; `step` 0: at the end of the epoch."""
    where = f"epoch {epoch}" + (f", step {step}" if step else "")
    message = f"{what} is {value} in {where}: {MEANINGS['non_finite']}."
    return Diverged(message, cause="non_finite", remedy=REMEDIES["non_finite"])
