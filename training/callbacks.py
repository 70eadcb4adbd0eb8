"""What happens around each epoch of training: the honest monitor, the history, what is kept, and the log's lines."""

import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from training.batchnorm import NotFinite, Recalibrator, statistics_variables, unchanged
from training.checkpoints import Checkpoints
from training.devices import put_tallies, tallies
from training.evaluation import BARE_LOSS
from training.logits import batches, cross_entropies, in_batches, inference_logits
from training.progress import Progress, clock
from training.rows import Array
from training.standing import Best, Standing, Variables, remembered, remind, to_checkpoint, values
from training.step_losses import not_finite

log = logging.getLogger(__name__)
MONITOR = "recalibrated_val_loss"


class RecalibratedValidation(keras.callbacks.Callback):
    """Adds the validation loss as it would be after recalibration; the statistics are put back."""

    def __init__(
        self, model: keras.Model, rows: np.ndarray, validation: tuple[Array, np.ndarray], batch_size: int
    ) -> None:
        super().__init__()
        self.recalibrator, self.logits = Recalibrator(model), inference_logits(model)
        self.rows, self.validation, self.batch_size = rows, validation, batch_size

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        with unchanged(statistics_variables(self.recalibrator.written)):
            logs[MONITOR] = self._loss(epoch)

    def _loss(self, epoch: int) -> float:
        if self.recalibrator.written:
            try:
                self.recalibrator.recalibrate(batches(self.rows, self.batch_size))
            except NotFinite:
                raise not_finite("BatchNorm statistics", math.nan, epoch + 1, 0) from None
        x, y = self.validation
        loss = float(np.mean(cross_entropies(in_batches(self.logits, x, self.batch_size), y)))
        if not math.isfinite(loss):
            raise not_finite(MONITOR, loss, epoch + 1, 0)
        return loss


class Stamp(keras.callbacks.Callback):
    """Adds the stage's number and the learning rate that the epoch had."""

    def __init__(self, stage: int) -> None:
        super().__init__()
        self.stage = stage

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs |= {"stage": float(self.stage), "learning_rate": float(self.model.optimizer.learning_rate.numpy())}


class Chronicle(keras.callbacks.Callback):
    """Adds a row to the history and, while `choosing`, keeps the model's values after the best epoch.

    Args:
        best: those of the best epoch so far.
    """

    def __init__(self, standing: Standing, best: Sequence[np.ndarray], monitor: str) -> None:
        super().__init__()
        self.standing, self.best, self.monitor, self.choosing = standing, best, monitor, False

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        row = {name: float(value) for name, value in logs.items()}
        self.standing.rows.append({"epoch": epoch + 1, **row})
        if self.choosing and row[self.monitor] < self.standing.best.value:
            self.standing.best = Best(epoch + 1, row[self.monitor])
            self.best = values(self.model.variables)


class Keeper(keras.callbacks.Callback):
    """Saves where training stands after each epoch, and within one when `seconds` have passed; the last to be called.

    Args:
        steps: in an epoch, of which `done` of the first were taken before.
        metrics: the metrics' values after these.
        watchers: those whose memory is saved, and put back after Keras has cleared it.
    """

    def __init__(
        self,
        chronicle: Chronicle,
        watchers: Sequence[keras.callbacks.Callback],
        checkpoints: Checkpoints | None,
        seconds: float,
        steps: int,
        done: int,
        metrics: Sequence[np.ndarray],
    ) -> None:
        super().__init__()
        self.chronicle, self.standing, self.watchers = chronicle, chronicle.standing, watchers
        self.checkpoints, self.seconds = checkpoints, seconds
        self.steps, self.done, self.metrics, self.saved = steps, done, metrics, time.monotonic()

    def on_train_begin(self, logs: Any = None) -> None:
        for watcher in self.watchers:
            remind(watcher, self.standing.watchers.get(type(watcher).__name__, {}))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.done:  # Keras has just reset them
            put_tallies(self.model.metrics_variables, self.metrics)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.standing.step = self.done + batch + 1
        # After an epoch's last step, its end is near.
        if self.standing.step < self.steps and time.monotonic() - self.saved >= self.seconds:
            self._save(tallies(self.model.metrics_variables))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.standing.epoch, self.standing.step, self.done = epoch + 1, 0, 0
        self.standing.stopped = self.model.stop_training
        self.standing.watchers = {type(watcher).__name__: remembered(watcher) for watcher in self.watchers}
        self._save([])

    def _save(self, metrics: Sequence[np.ndarray]) -> None:
        if self.checkpoints is not None:
            model, optimizer = values(self.model.variables), values(self.model.optimizer.variables)
            variables = Variables(model, optimizer, metrics, self.chronicle.best)
            self.checkpoints.save(to_checkpoint(self.standing, variables))
        self.saved = time.monotonic()


class Narrator(keras.callbacks.Callback):
    """One line every few seconds, and one an epoch; the same one goes through all stages.

    Args:
        done: epochs, and steps of the next one, that were taken before.
    """

    def __init__(self, batch_size: int, steps: int, epochs: int, done: tuple[int, int]) -> None:
        super().__init__()
        self.batch_size, self.steps, self.epochs = batch_size, steps, epochs
        self.epoch, self.done = done
        begun = (self.epoch * steps + self.done) * batch_size
        self.progress = Progress(log, "train", epochs * steps * batch_size, "images", begun)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch > self.epoch:
            self.epoch, self.done = epoch, 0
        self.begun = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        step = self.done + batch + 1
        note = f" · epoch {self.epoch + 1}/{self.epochs} step {step}/{self.steps} · loss {float(logs['loss']):.3f}"
        self.progress.update((self.epoch * self.steps + step) * self.batch_size, note)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        log.info(
            "epoch %d/%d · loss %.3f · val_loss %.3f · %s %.3f · accuracy %.3f · val_auc %.3f · %s",
            # The bare loss: class weights would make the other one incomparable.
            *(epoch + 1, self.epochs, logs[BARE_LOSS], logs["val_loss"], MONITOR, logs[MONITOR]),
            *(logs["accuracy"], logs["val_auc"], clock(time.monotonic() - self.begun)),
        )
